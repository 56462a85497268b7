/* An executor: the process in which user code runs, one order after the other.
 *
 *     open the job → READY → ┌▶ wait for orders ─ run each ─ report each ─┐
 *                            └───────────────────────────────────────────┘ until the rank is gone
 *
 * What an order means is behind a table, so that the crew can be tested with kernels that
 * misbehave in every way; executor_job.c has the real one.
 */
#ifndef TRM_WORKERS_EXECUTOR_H
#define TRM_WORKERS_EXECUTOR_H

#include "runtime/topology.h"
#include "workers/board.h"
#include "workers/crew_wire.h"

#define TRM_EXECUTOR_WAKE_ORDERS 32u /* finished orders after which the rank is woken at the latest … */
#define TRM_EXECUTOR_WAKE_MS 5u      /* … and the time after which a finished order wakes it */
/* What a process may use beyond its share: code, libraries, the kernel's own globals. */
#define TRM_EXECUTOR_SLACK_BYTES (32ull << 20)

/* What an executor knows of its place in the crew. */
typedef struct trm_executor_place {
    const trm_spec *spec;
    const char *run_store;
    unsigned executor;
    uint64_t memory_bytes;
    trm_board *board;
} trm_executor_place;

typedef struct trm_executor_ops {
    /* Loads the job, once. `place` outlives it. */
    trm_status (*open)(const trm_executor_place *place, void **job, trm_traits *traits, trm_err *err);
    /* Before the first order, and again when something has changed. */
    trm_status (*setup)(void *job, const trm_crew_setup_msg *setup, trm_err *err);
    /* As trm_map_task_run, for the order's phase. */
    trm_status (*run)(void *job, const trm_order *order, trm_report *report, trm_err *err);
} trm_executor_ops;

/* The real one. */
const trm_executor_ops *trm_executor_job_ops(void);

typedef struct trm_executor_args {
    trm_executor_place place;
    const trm_executor_ops *ops;
    const trm_topology *topology;
    trm_grain grain;
    trm_lanes lanes;
    uint64_t generation;
    int order_fd, wake_fd, output_fd; /* output: what the kernels print */
    int parent;                       /* the supervisor's process id */
} trm_executor_args;

/* Where RLIMIT_DATA of an executor with `memory_bytes` is; 0: there is none (sanitizers). */
uint64_t trm_executor_data_limit_bytes(uint64_t memory_bytes);

/* The whole life of an executor, called in the fresh child. */
_Noreturn void trm_executor_main(const trm_executor_args *args);

/* executor_start.c: makes the fresh child an executor: dies with its parent, own process
 * group, signals as at a program's begin, its three descriptors and no others, limits, core.
 * Only then may user code run. */
void trm_executor_prepare(trm_executor_args *args);
/* Notes in `fault` what a signal or exit() that ends this process looked like, and has the
 * stack printed. Takes the place of a sanitizer's handlers: a crash is the same in every build. */
void trm_executor_watch_faults(trm_fault *fault);

#endif
