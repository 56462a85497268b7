/* What a rank knows of a job whose code it never runs: the plain facts of a trm_job,
 * read out by an executor (which has loaded it) and sent to its rank. */
#ifndef TRM_JOBS_TRAITS_H
#define TRM_JOBS_TRAITS_H

#include "jobs/spec.h"
#include "runtime/bytes.h"

#define TRM_JOB_NAME_BYTES 64u
#define TRM_COUNTER_NAME_BYTES 48u
#define TRM_FIXED_BYTES_MAX (1u << 30) /* a record of TRM_INPUT_FIXED */

typedef struct trm_traits {
    char name[TRM_JOB_NAME_BYTES];
    uint32_t input;        /* trm_input */
    uint64_t record_bytes; /* TRM_INPUT_FIXED */
    bool map_only;         /* neither fold nor reduce */
    bool folds;
    bool range_partitioned; /* wants cut points before its maps */
    uint32_t output;        /* trm_output */
    uint32_t counters_count;
    char counters[TRM_COUNTERS_MAX][TRM_COUNTER_NAME_BYTES];
    uint64_t params_hash; /* trm_params_hash, filled in by who converts them: a resumed job must match */
} trm_traits;

/* Checks a description (magic, abi, struct size, map present, fold sizes, formats,
 * at most one of fold and reduce, …) and reads its facts. TRM_EJOB with the reason. */
trm_status trm_traits_of(trm_traits *self, const trm_job *job, trm_err *err);
/* "map_records_in" …, the job's own by the names that it gave; NULL: there is no such counter. */
const char *trm_traits_counter_name(const trm_traits *self, unsigned counter);
/* One encoding of one traits. The decoder marks the reader failed on anything that
 * trm_traits_of would not have made. */
void trm_traits_encode(const trm_traits *self, trm_writer *out);
void trm_traits_decode(trm_traits *self, trm_reader *in);

#endif
