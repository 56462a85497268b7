/* Inside of a collector: what collector.c (adding) and collector_spill.c (spilling) share. */
#ifndef TRM_WORKERS_COLLECTOR_SELF_H
#define TRM_WORKERS_COLLECTOR_SELF_H

#include "jobs/cuts.h"
#include "workers/collector.h"
#include "workers/fold_table.h"
#include "workers/key.h"
#include "workers/sort.h"

/* A pair that takes more than this share of the region is a spill of its own. */
#define TRM_COLLECTOR_PAIR_SHARE 4u
/* Bytes that may be written after a pair's end by copies in whole words. */
#define TRM_COLLECTOR_SLACK 16u

typedef enum trm_collector_partitioning {
    TRM_COLLECTOR_ONE = 0, /* one partition */
    TRM_COLLECTOR_BY_HASH,
    TRM_COLLECTOR_BY_CALL,
    TRM_COLLECTOR_BY_CUTS,   /* … found a pair: the job has an order of its own */
    TRM_COLLECTOR_BY_SORTING /* by cuts and bytes: sorted as a whole, cut when written */
} trm_collector_partitioning;

struct trm_collector {
    /* Hot: what every pair touches. */
    trm_fold_table table;    /* with a fold */
    uint8_t *pairs;          /* where the next pair goes */
    trm_sort_entry *entries; /* the newest; they grow down from the region's end */
    size_t count;
    trm_collector_partitioning partitioning;
    bool folds, begun;
    size_t pair_bytes_max;
    uint64_t records_in, bytes_in;

    trm_collector_options options;
    trm_run_writer *writer;
    char *path;
    uint32_t task, attempt, spills;
};

static inline trm_sort_entry *trm_collector_entries_end(const trm_collector *self)
{
    return (trm_sort_entry *)(self->options.region.base +
                              self->options.region.bytes / sizeof(trm_sort_entry) * sizeof(trm_sort_entry));
}

/* collector.c: the partition of a key. TRM_EKERNEL: the job's function gave one out of range. */
trm_status trm_collector_partition(trm_collector *self, const void *key, size_t key_len, uint32_t *out,
                                   trm_err *err);

/* collector_spill.c: writes what is there as one spill and forgets it; nothing when there is
 * nothing. */
trm_status trm_collector_spill(trm_collector *self, trm_err *err);
/* Writes one pair, straight from the caller, as a spill of its own. */
trm_status trm_collector_spill_pair(trm_collector *self, const void *key, size_t key_len, const void *value,
                                    size_t value_len, trm_err *err);

#endif
