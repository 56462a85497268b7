/* Which rank a partition is at home on: where its reduce runs by preference, and so where
 * the outputs of the maps are fetched to while maps still run. Master and workers must agree,
 * so the rule is here. Equal contiguous ranges, in the order of the ranks. */
#ifndef TRM_JOBS_PLACEMENT_H
#define TRM_JOBS_PLACEMENT_H

#include <stdint.h>

/* The first of the partitions that are at home on `rank`; they end where those of rank + 1
 * begin. `ranks` is not 0, `rank` may be `ranks`. */
static inline uint32_t trm_partition_home_begin(uint32_t rank, uint32_t partitions, uint32_t ranks)
{
    return (uint32_t)((uint64_t)partitions * rank / ranks);
}

/* The home of `partition`, which is below `partitions`. */
static inline uint32_t trm_partition_home(uint32_t partition, uint32_t partitions, uint32_t ranks)
{
    return (uint32_t)((((uint64_t)partition + 1) * ranks - 1) / partitions);
}

#endif
