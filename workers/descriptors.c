/* See descriptors.h. */
#include "config.h" /* system extensions, before any header of the system */

#include "workers/descriptors.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DESCRIPTORS_MAX 65536u /* looked at one by one where the system has no close_range */

static int by_number(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

/* Closes [first, last]. */
static void close_between(unsigned first, unsigned last)
{
#ifdef SYS_close_range
    if (!syscall(SYS_close_range, first, last, 0u))
        return;
#endif
    for (unsigned fd = first; fd <= last && fd < DESCRIPTORS_MAX; fd++)
        close((int)fd);
}

void trm_descriptors_keep_only(const int *kept, unsigned count)
{
    assert(count <= TRM_DESCRIPTORS_KEPT_MAX);
    int sorted[TRM_DESCRIPTORS_KEPT_MAX];
    memcpy(sorted, kept, count * sizeof *kept);
    qsort(sorted, count, sizeof *sorted, by_number);
    unsigned next = 0;
    for (unsigned i = 0; i < count; i++) {
        if (sorted[i] < 0)
            continue;
        if ((unsigned)sorted[i] > next)
            close_between(next, (unsigned)sorted[i] - 1);
        next = (unsigned)sorted[i] + 1;
    }
    close_between(next, UINT_MAX);
}
