/* The memory of an executor's data path: mapped once, used by one stage after the other.
 *
 * A collector and a merge are never at work at the same time, so they share one region: the
 * budget is held without accounting, and its pages, which are dear to fault in, are faulted
 * in once an executor and not once a task.
 */
#ifndef TRM_WORKERS_REGION_H
#define TRM_WORKERS_REGION_H

#include "runtime/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct trm_region {
    uint8_t *base; /* page aligned */
    size_t bytes;
} trm_region;

/* Maps `bytes` (rounded up to pages) of private zeroed memory, huge pages where the system
 * gives them. Nothing is resident before it is touched. TRM_ENOMEM. */
trm_status trm_region_open(trm_region *self, uint64_t bytes, trm_err *err);
void trm_region_close(trm_region *self);
/* Gives the pages back to the system; the content is lost, the mapping stays. */
void trm_region_drop(trm_region *self);

#endif
