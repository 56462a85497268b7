/* The parameters of a job: what -p gave, checked against the job's own list and converted
 * once, before the first task. */
#ifndef TRM_JOBS_PARAMS_H
#define TRM_JOBS_PARAMS_H

#include "jobs/spec.h"

typedef struct trm_param_value {
    const trm_param *param;
    union {
        char *string; /* owned */
        int64_t integer;
        uint64_t size;
        double number;
        bool flag;
    };
} trm_param_value;

typedef struct trm_params {
    unsigned count;
    trm_param_value value[TRM_PARAMS_MAX]; /* in the order of the job's list */
} trm_params;

/* Converts `args` against job->params (borrowed, as long as the job). An argument whose value
 * is NULL is the name alone: true, for a boolean. TRM_EUSAGE, in one sentence that names the
 * parameter, for an unknown name, one given twice or missing, and a value that is malformed or
 * out of bounds; TRM_EJOB when the job's own list is wrong (a default is no better than an
 * argument). Nothing to close after a failure. */
trm_status trm_params_init(trm_params *self, const trm_job *job, const trm_param_arg *args, unsigned count,
                           trm_err *err);
void trm_params_close(trm_params *self);
/* NULL when the job has no such parameter. */
const trm_param_value *trm_params_find(const trm_params *self, const char *name);
/* Over names, types and converted values: equal hashes, equal parameters. */
uint64_t trm_params_hash(const trm_params *self);

/* Text to numbers, whole or not at all; also for options. */
bool trm_parse_int(const char *text, int64_t *out);
/* Digits with an optional K, M, G or T (powers of 1024, either case; "KiB" and "KB" too). */
bool trm_parse_size(const char *text, uint64_t *out);
/* A number with ms, s, m or h; without a unit seconds: "500ms", "1.5s", "2h". */
bool trm_parse_duration_ms(const char *text, uint64_t *out);
bool trm_parse_double(const char *text, double *out); /* finite */
bool trm_parse_bool(const char *text, bool *out);     /* true|false|yes|no|1|0 */

#endif
