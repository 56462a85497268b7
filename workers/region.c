#include "workers/region.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/mman.h>

#define PAGE_BYTES 4096u
#define HUGE_PAGE_BYTES (2u * 1024u * 1024u)

trm_status trm_region_open(trm_region *self, uint64_t bytes, trm_err *err)
{
    uint64_t rounded = (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    if (rounded == 0 || rounded < bytes || rounded > SIZE_MAX / 2)
        return trm_err_set(err, TRM_ENOMEM, "cannot map %" PRIu64 " bytes of memory", bytes);
    void *base = mmap(NULL, (size_t)rounded, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return trm_err_errno(err, TRM_ENOMEM, errno, "cannot map %" PRIu64 " bytes of memory", bytes);
    if (rounded >= HUGE_PAGE_BYTES)
        madvise(base, (size_t)rounded, MADV_HUGEPAGE); /* a wish: pages of any size will do */
    self->base = base;
    self->bytes = (size_t)rounded;
    return TRM_OK;
}

void trm_region_close(trm_region *self)
{
    if (self->base)
        munmap(self->base, self->bytes);
    *self = (trm_region){0};
}

void trm_region_drop(trm_region *self)
{
    if (self->base)
        madvise(self->base, self->bytes, MADV_DONTNEED);
}
