#include "workers/region.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/mman.h>

#define PAGE_BYTES 4096u
#define HUGE_PAGE_BYTES (2u * 1024u * 1024u)

static void *map(uint64_t bytes)
{
    return mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                0);
}

/* At the begin of a huge page: what is in front of the first one would be in small pages, and a
 * table that lies at the region's begin is what profits most. */
static void *map_aligned(uint64_t bytes)
{
    uint8_t *whole = map(bytes + HUGE_PAGE_BYTES);
    if (whole == MAP_FAILED)
        return MAP_FAILED;
    size_t front = -(uintptr_t)whole & (HUGE_PAGE_BYTES - 1), behind = HUGE_PAGE_BYTES - front;
    if (front)
        munmap(whole, front);
    munmap(whole + front + bytes, behind);
    return whole + front;
}

trm_status trm_region_open(trm_region *self, uint64_t bytes, trm_err *err)
{
    uint64_t rounded = (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    if (rounded == 0 || rounded < bytes || rounded > SIZE_MAX / 2)
        return trm_err_set(err, TRM_ENOMEM, "cannot map %" PRIu64 " bytes of memory", bytes);
    bool huge = rounded >= HUGE_PAGE_BYTES;
    void *base = huge ? map_aligned(rounded) : map(rounded);
    if (base == MAP_FAILED)
        return trm_err_errno(err, TRM_ENOMEM, errno, "cannot map %" PRIu64 " bytes of memory", bytes);
    if (huge)
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
