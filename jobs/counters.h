/* Counters: what a job did, in records and bytes. An attempt fills a set, the set
 * travels with its report and is applied with its commit, or never. */
#ifndef TRM_JOBS_COUNTERS_H
#define TRM_JOBS_COUNTERS_H

#include "jobs/trireme.h"
#include "runtime/bytes.h"

typedef enum trm_counter {
    TRM_COUNTER_MAP_RECORDS_IN = 0,
    TRM_COUNTER_MAP_BYTES_IN,         /* as read, uncompressed */
    TRM_COUNTER_MAP_RECORDS_OUT,      /* emitted by map */
    TRM_COUNTER_MAP_BYTES_OUT,        /* keys and values emitted by map */
    TRM_COUNTER_COMBINE_RECORDS_OUT,  /* written to runs, after fold or combine */
    TRM_COUNTER_SPILLS,               /* sorted segments written by maps */
    TRM_COUNTER_RUN_BYTES_RAW,        /* run blocks before compression */
    TRM_COUNTER_RUN_BYTES_STORED,     /* … and as written */
    TRM_COUNTER_SHUFFLE_LOCAL_BYTES,  /* stored bytes of runs opened in place */
    TRM_COUNTER_SHUFFLE_REMOTE_BYTES, /* stored bytes fetched over MPI */
    TRM_COUNTER_SHUFFLE_RAW_BYTES,    /* both, uncompressed */
    TRM_COUNTER_MERGE_PASSES,         /* beyond the last one */
    TRM_COUNTER_MERGE_BYTES,          /* stored bytes written by those */
    TRM_COUNTER_REDUCE_KEYS_IN,
    TRM_COUNTER_REDUCE_RECORDS_IN,
    TRM_COUNTER_OUTPUT_RECORDS,
    TRM_COUNTER_OUTPUT_BYTES,        /* of parts, as written */
    TRM_COUNTER_MAP_RECORDS_SKIPPED, /* with --skip-bad-records; map was not given them */
    TRM_COUNTER_SYSTEM_COUNT,
    TRM_COUNTER_USER = 32 /* the job's own: USER + number in its list */
} trm_counter;
#define TRM_COUNTER_COUNT (TRM_COUNTER_USER + TRM_COUNTERS_MAX)

typedef struct trm_counters {
    uint64_t value[TRM_COUNTER_COUNT];
} trm_counters;

/* "map_records_in" …; NULL for numbers without a name (the job's own have theirs in
 * its traits). */
const char *trm_counter_name(unsigned counter);
void trm_counters_add(trm_counters *self, const trm_counters *other);
/* Sparse: only what is not 0. */
void trm_counters_encode(const trm_counters *self, trm_writer *out);
/* Marks `in` failed on anything that encode does not write. */
void trm_counters_decode(trm_counters *self, trm_reader *in);

#endif
