/* A whole job without a master, for tests: plan → [sample → cuts] → maps → lists → reduces →
 * parts, one attempt after the other, in this process or by a real crew.
 *
 * TREE/state, TREE/runs, TREE/scratch and TREE/out are made; parts are moved to
 * TREE/out/part-NNNNN.
 */
#ifndef TRM_TESTS_WHOLE_JOB_H
#define TRM_TESTS_WHOLE_JOB_H

#include "jobs/cuts.h"
#include "workers/attempt.h"
#include "workers/crew.h"
#include "workers/kernel.h"

#define WHOLE_JOB_EPOCH 7u

typedef struct whole_job {
    trm_spec spec;         /* the caller fills in the job, inputs, params and limits between init and open */
    uint64_t memory_bytes; /* of the executor, in this process */
    bool through_crew;     /* spec.executors, spec.memory_bytes count */
    uint32_t attempt;      /* the number of every attempt */
    trm_order records;     /* what orders for maps say of records: none, as a rule */

    trm_traits traits;
    trm_plan plan;
    trm_cuts cuts;
    trm_counters counters; /* of all attempts that went well */
    trm_report report;     /* of the last attempt … */
    trm_status status;     /* … and how it ended: `err` says why */
    trm_err err;
    bool died; /* it took its executor with it */

    /* Private. */
    char path[6][768];
    char run_store[1024];
    uint64_t *run_bytes; /* a map: 0, it emitted nothing */
    trm_kernel kernel;
    trm_executor_env env;
    trm_board board;
    trm_crew *crew;
    trm_setup setup;
    trm_peer peer;
    uint32_t turn;
    uint8_t sample[TRM_SAMPLE_BYTES_MAX];
} whole_job;

/* `tree` is an empty directory. */
void whole_job_init(whole_job *self, const char *tree);
/* Loads the job and makes its plan. */
trm_status whole_job_open(whole_job *self);
/* One attempt; a sample is kept in report.sample. */
trm_status whole_job_order(whole_job *self, trm_phase phase, uint32_t task);
/* Samples, and cuts: nothing for a job that has none. */
trm_status whole_job_sample(whole_job *self);
/* The list of partition's segments, of all maps that have run. */
trm_status whole_job_list(whole_job *self, uint32_t partition);
/* open, then everything to the end. */
trm_status whole_job_run(whole_job *self);
/* Removes what is in the tree. */
void whole_job_close(whole_job *self);

/* "" when the part does not exist. Freed by the caller. */
uint8_t *whole_job_part(const whole_job *self, uint32_t task, size_t *len);
/* How many files the run store and the state directory's attempts hold. */
unsigned whole_job_runs(const whole_job *self);
unsigned whole_job_attempts(const whole_job *self);
const char *whole_job_run_path(const whole_job *self, uint32_t map);

#endif
