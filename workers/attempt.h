/* One attempt of one task, inside an executor: what the executor's loop calls and what
 * the stages of the data path share.
 *
 * map_task.c and reduce_task.c read like the way of the data, top to bottom; they alone
 * include the stages.
 */
#ifndef TRM_WORKERS_ATTEMPT_H
#define TRM_WORKERS_ATTEMPT_H

#include "jobs/counters.h"
#include "jobs/plan.h"
#include "jobs/spec.h"
#include "jobs/traits.h"
#include "jobs/wire.h"
#include "runtime/fs.h"

/* In shared memory, one an executor: written by the executor with relaxed atomics,
 * read by rank and supervisor without a system call. */
typedef struct trm_board {
    uint64_t generation;
    uint64_t task_key; /* phase << 32 | task of the running attempt; UINT64_MAX: idle */
    uint64_t attempt;
    uint64_t began_ns;             /* trm_clock_now_ns at the begin of the running attempt; 0: idle */
    uint64_t orders_done;          /* since this generation began */
    uint64_t bytes_in, records_in; /* of the running attempt */
    uint64_t record;               /* 1 + the number of the record that map was given last; 0: none (yet), or
                                      records are not counted (--skip-bad-records) */
    uint64_t place_offset;         /* where the record being mapped begins, uncompressed */
    char place[512];               /* the file that it is in, set when the file changes; "": none. A
                                      message says "FILE at byte place_offset", best effort */
} __attribute__((aligned(64))) trm_board;

/* Everything that an attempt may know. Made once an executor, before the first order. */
typedef struct trm_executor_env {
    trm_fs *fs;
    const trm_spec *spec;
    const trm_job *job;
    const trm_traits *traits;
    const trm_plan *plan;
    const struct trm_cuts *cuts; /* range partitioning: the cut points; NULL before or without */
    const struct trm_params *params;
    const char *run_store; /* this rank's directory of runs (private, local) */
    uint64_t epoch;        /* in the names of attempts' files, so that launches never meet */
    uint64_t memory_bytes; /* of this executor: the stages share it */
    uint32_t executor;
    uint32_t host_count; /* hosts of the job, for the compression policy */
    bool (*partition_is_remote)(const struct trm_executor_env *env, uint32_t partition); /* may be NULL */
    trm_board *board;
    struct trm_task *task; /* NULL to begin with: what the attempts of this executor reuse */
} trm_executor_env;

/* What an executor exits with, after a line on standard error, when user code emits where no
 * task is running: after its end, from another thread, from an exit handler. */
#define TRM_EXIT_EMIT_AFTER_END 113

/* Frees what the attempts of this executor have reused. Not needed before _exit. */
void trm_executor_env_close(trm_executor_env *env);

/* Runs the attempt to its end. On TRM_OK `report` says what is prepared (a run in the
 * run store under trm_run_name, or a part, synced, under
 * trm_part_attempt_name; output_bytes 0: there was nothing to write, and there is no file); otherwise err
 * says why and nothing is left. `report` has phase, task, attempt set by the caller; counters, output_* and
 * sample are filled in (sample is valid until the next attempt). A reduce that fails because an input cannot
 * be read (TRM_ELOST, TRM_ECORRUPT) says in `sample` which map has to be run again: one trm_output_at, its
 * rank UINT32_MAX. An attempt allocates and opens nothing that it does not need. The caller keeps task_key,
 * attempt, began_ns and orders_done of the board.
 * With --skip-bad-records a map leaves out what its order names, writes it aside (skipped.h), and on failure
 * names the record that it was at; a probe leaves nothing behind. */
trm_status trm_map_task_run(trm_executor_env *env, const trm_order *order, trm_report *report, trm_err *err);
trm_status trm_reduce_task_run(trm_executor_env *env, const trm_order *order, trm_report *report,
                               trm_err *err);
trm_status trm_sample_task_run(trm_executor_env *env, const trm_order *order, trm_report *report,
                               trm_err *err);

/* Names of files, the same for who writes and who reads.
 * run:  <store>/m<task>.e<epoch>.a<attempt>.run
 * list of a reduce's segments, written by its rank: <store>/r<task>.e<epoch>.a<attempt>.in
 * part: trm_part_attempt_name (jobs/names.h)
 * Return TRM_ELIMIT when `out_bytes` is too small. */
trm_status trm_run_name(const char *store, uint64_t epoch, uint32_t task, uint32_t attempt, char *out,
                        size_t out_bytes);
trm_status trm_reduce_list_name(const char *store, uint64_t epoch, uint32_t task, uint32_t attempt, char *out,
                                size_t out_bytes);

#endif
