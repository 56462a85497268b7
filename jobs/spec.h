/* What a user asked for: the options of one job, checked. Every rank has the same
 * one, because every rank has the same command line. Lives as long as the process;
 * strings are owned by it. */
#ifndef TRM_JOBS_SPEC_H
#define TRM_JOBS_SPEC_H

#include "jobs/trireme.h"
#include "runtime/status.h"

typedef enum trm_compress_mode {
    TRM_COMPRESS_AUTO = 0,
    TRM_COMPRESS_NONE,
    TRM_COMPRESS_ZLIB
} trm_compress_mode;
typedef enum trm_bind_mode { TRM_BIND_CORE = 0, TRM_BIND_NUMA, TRM_BIND_NONE } trm_bind_mode;

#define TRM_ATTEMPTS_DEFAULT 4u
#define TRM_SKIPS_DEFAULT 100u /* --skip-bad-records without a number */
#define TRM_SKIPS_MAX 65536u
#define TRM_LINE_BYTES_DEFAULT (16ull << 20)
#define TRM_RECORD_BYTES_DEFAULT (64ull << 20)
#define TRM_SPLIT_BYTES_MIN (1ull << 20)
#define TRM_SPLIT_BYTES_MAX (256ull << 20)
#define TRM_MEMORY_BYTES_MIN (16ull << 20)
#define TRM_EXECUTORS_MAX 256u
#define TRM_RANKS_MAX 65536u
#define TRM_PARTITIONS_MAX 65536u
#define TRM_TASKS_MAX (1u << 30)

/* -p name=value as given; converted against the job's own list when it is loaded. */
typedef struct trm_param_arg {
    char *name;
    char *value;
} trm_param_arg;

#define TRM_REPLICAS_MAX 2u
#define TRM_VOTERS_MAX 15u /* ranks that decide on the log */

typedef struct trm_spec {
    /* Which job: a built-in or installed kernel's name resolved to a path, a path, or
     * (trm_main) the program's own description, which is only called in executors. */
    char *kernel_name; /* as given */
    char *kernel_path; /* NULL with own_job */
    const trm_job *own_job;
    trm_param_arg *params;
    unsigned params_count;

    char **inputs; /* patterns, files, directories, as given */
    unsigned inputs_count;
    char *output_dir;  /* absolute */
    char *state_dir;   /* absolute; output_dir/.trireme unless --state */
    char *scratch_dir; /* absolute; where private directories are made */
    bool overwrite;
    bool gzip_output;

    uint32_t partitions;  /* 0: as many as executors in all, times a small factor */
    uint64_t tasks;       /* TRM_INPUT_NONE: --tasks, at least 1 */
    uint64_t split_bytes; /* 0: chosen by trm_plan_build */
    uint64_t line_bytes_max;
    uint64_t record_bytes_max;

    uint32_t executors; /* a rank; 0: the cores that the rank was given */
    trm_bind_mode bind;
    uint64_t memory_bytes; /* a rank; 0: its share of the machine */
    uint32_t attempts_max;
    uint64_t task_timeout_ms; /* 0: none */
    uint32_t skips_max;       /* --skip-bad-records: of a job; 0: none */
    bool never_twice;         /* --speculate off */
    uint32_t replicas;        /* hosts on which a finished map output is kept: 1 or 2 */
    trm_compress_mode compress;
    int compress_level; /* zlib's, 1 … 9 */

    uint64_t election_timeout_ms; /* silence of a leader after which another is elected; 0: the default */
    uint32_t voters;              /* ranks that decide on the log, at most; 0: the default */
    bool unsafe_recover;          /* go on without a majority of the last launch's logs */

    bool quiet, verbose, report_bindings;
} trm_spec;

#endif
