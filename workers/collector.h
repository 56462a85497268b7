/* Takes the pairs that a map emits and leaves a run: sorted by (partition, key), combined or
 * folded, spilled whenever its memory is full.
 *
 * General:  [ pairs, as records of run.h → … ← 16-byte index entries ]  one region; the gap
 *           always has room for a second copy of the index, which the sort needs.
 * Fold:     an open-addressing table of (key, accumulator) updated in place; keys of up to
 *           16 bytes and accumulators of up to 8 lie in the slots, the rest in the region.
 *
 * No malloc, lock or system call a record; a spill costs a sort and large writes. A pair
 * that is larger than a quarter of the memory is written as a spill of its own, straight from
 * the caller's memory, so that any size works within any memory.
 *
 * Made once an executor and used for one attempt after another: its memory stays warm.
 */
#ifndef TRM_WORKERS_COLLECTOR_H
#define TRM_WORKERS_COLLECTOR_H

#include "jobs/trireme.h"
#include "workers/group.h"
#include "workers/region.h"
#include "workers/run_writer.h"

#define TRM_COLLECTOR_BYTES_MIN (512u * 1024u)

typedef struct trm_collector trm_collector;
struct trm_cuts;
struct trm_fold_table;

typedef struct trm_collector_options {
    trm_fs *fs;
    trm_region region;         /* the memory of pairs and table: TRM_COLLECTOR_BYTES_MIN or more, the
                                  caller's. Besides it only TRM_RUN_WRITER_BYTES are taken. */
    uint32_t partitions;       /* 1 … TRM_PARTITIONS_MAX */
    uint64_t record_bytes_max; /* of a value; keys have TRM_KEY_BYTES_MAX */
    const trm_fold *fold;      /* or NULL */
    int (*compare)(const void *a, size_t a_len, const void *b, size_t b_len); /* NULL: bytes */
    /* The partition of a key, below `partitions` (else TRM_EKERNEL); NULL: cuts, or by hash.
     * With a fold it is asked once a distinct key and spill, not once a pair. */
    uint32_t (*partition)(void *context, const void *key, size_t key_len);
    void *partition_context;
    const struct trm_cuts *cuts; /* range partitioning; NULL: none */
    trm_combine_cb combine;      /* NULL: none; not with a fold */
    void *combine_context;
    bool (*is_remote)(void *context, uint32_t partition); /* for the policy; NULL: all are local */
    void *is_remote_context;
    trm_compress_policy *policy; /* NULL: never compress */
    uint64_t (*now_ns)(void);    /* NULL: nothing is measured */
    uint64_t seed;               /* of the table's hash, anything that users cannot know */
} trm_collector_options;

typedef struct trm_collector_stats {
    uint64_t records_in, bytes_in; /* added: keys and values */
    trm_run_totals run;            /* valid after finish; run.file_bytes 0: there is no run */
} trm_collector_stats;

/* Copies the options; what they point to must outlive the collector. TRM_ENOMEM. */
trm_status trm_collector_create(trm_collector **out, const trm_collector_options *options, trm_err *err);
void trm_collector_destroy(trm_collector *self); /* aborts; NULL is fine */
/* Other cuts, for the next attempt on (they become known after the executor has begun). */
void trm_collector_set_cuts(trm_collector *self, const struct trm_cuts *cuts);

/* Begins an attempt; what was not finished before is aborted. The file is made by the first
 * spill. `path` is copied; TRM_ELIMIT when it is too long. */
trm_status trm_collector_begin(trm_collector *self, const char *path, uint32_t task, uint32_t attempt,
                               trm_err *err);
/* Adds a pair; copies both. TRM_ERECORD over a limit, TRM_EKERNEL when the value is not what
 * the fold takes or the partition is out of range, or what spilling says. After a failure
 * only abort, begin and destroy may be called. Must not be called from combine. */
trm_status trm_collector_add(trm_collector *self, const void *key, size_t key_len, const void *value,
                             size_t value_len, trm_err *err);
/* The short way, for pairs of short keys and 8-byte values between begin and finish: they may come to
 * wait in this table, without a call; when no more may, they must be settled. NULL: the job has no
 * ready-made fold. Settling fails as adding does. */
struct trm_fold_table *trm_collector_table(trm_collector *self);
trm_status trm_collector_settle(trm_collector *self, trm_err *err);
/* Spills the rest and closes the run. When nothing was added there is no file. On failure
 * there is none either. */
trm_status trm_collector_finish(trm_collector *self, trm_collector_stats *stats, trm_err *err);
void trm_collector_abort(trm_collector *self);

/* The partition that hashing gives a key: the same in every process and version of a job. */
uint32_t trm_key_partition(const void *key, size_t key_len, uint32_t partitions);

#endif
