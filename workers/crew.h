/* The crew of a rank: a supervisor process that never touches MPI, and the executors
 * that it forks, each bound to a core. User code runs in executors and nowhere else.
 *
 *     rank ──(seqpacket pair, one an executor)── executor 0 … n-1
 *       └───(seqpacket pair)── supervisor ── forks, binds, limits, times, reaps
 *     board: one page an executor, shared memory: generation, task, progress
 *
 * An executor that dies is reaped and replaced by the supervisor, which tells the rank
 * (DIED, with signal or status, peak memory and the tail of its standard error); orders
 * carry the executor's generation, so that a replacement never runs what was meant for
 * the one before. When the rank dies the supervisor sees the end of its socket, ends
 * the executors and goes; when the supervisor dies its executors die with it
 * (PR_SET_PDEATHSIG). No process is ever left behind.
 */
#ifndef TRM_WORKERS_CREW_H
#define TRM_WORKERS_CREW_H

#include "jobs/spec.h"
#include "jobs/traits.h"
#include "jobs/wire.h"
#include "runtime/status.h"

typedef struct trm_crew trm_crew;

#define TRM_CREW_QUEUE_MAX 256u /* orders in an executor's hands at once */

typedef enum trm_crew_event_kind {
    TRM_CREW_READY = 1, /* an executor is up; the first one carries the traits */
    TRM_CREW_REPORT,    /* an attempt ended in the executor's own words */
    TRM_CREW_DIED       /* an executor died; `lost` lists what it had been given */
} trm_crew_event_kind;

typedef struct trm_crew_event {
    trm_crew_event_kind kind;
    uint32_t executor;
    trm_status status;      /* READY: TRM_EJOB … when the kernel cannot be loaded; DIED: TRM_EKERNEL,
                               TRM_ETIMEOUT, TRM_ELIMIT */
    trm_err err;            /* why, in one sentence */
    const trm_traits *traits; /* READY, TRM_OK */
    trm_report report;      /* REPORT; its texts are valid until the next call */
    /* DIED: the orders that it had, the running one first (lost[0], when `running`);
     * those after it were not begun and cost no attempt. */
    bool running;
    const trm_order *lost;
    unsigned lost_count;
    const char *last_words; /* tail of its standard error, may be "" */
} trm_crew_event;

/* Forks the supervisor and the executors. Call before MPI_Init and before any thread.
 * `rank_hint` only names things (-1: unknown). Takes the cores that the process may
 * run on. `spec` must outlive the crew. On failure nothing is left behind. */
trm_status trm_crew_start(trm_crew **out, const trm_spec *spec, int rank_hint, trm_err *err);

unsigned trm_crew_executors(const trm_crew *self);
uint64_t trm_crew_executor_memory_bytes(const trm_crew *self);
/* The printed map of rank and executors to cores and NUMA nodes, a line each. */
const char *trm_crew_bindings(const trm_crew *self);
/* The rank's private scratch directory, made by trm_crew_start (0700, random name);
 * the run store lies in it. Removed by whoever of rank and supervisor leaves last,
 * unless trm_crew_keep_scratch(true) was called. */
const char *trm_crew_scratch(const trm_crew *self);
void trm_crew_keep_scratch(trm_crew *self, bool keep);

/* What the executors need once SETUP has come: where plan and cuts are, this epoch. Sent to every
 * executor, and again to each replacement, before its first order. */
trm_status trm_crew_setup(trm_crew *self, const trm_setup *setup, uint64_t epoch);

/* A reduce order goes with the list of its segments' files, see reduce_inputs.h. */
/* Gives orders to one executor. TRM_AGAIN: its queue is full or its socket is. */
trm_status trm_crew_submit(trm_crew *self, uint32_t executor, const trm_order *orders, unsigned count);
unsigned trm_crew_queued(const trm_crew *self, uint32_t executor);

/* The next thing that happened; TRM_AGAIN: nothing. */
trm_status trm_crew_next(trm_crew *self, trm_crew_event *out);
/* Descriptors that become readable when there is something: for the loop's poll. */
unsigned trm_crew_fds(const trm_crew *self, int *out, unsigned max);
/* Bytes and records read by running attempts so far, from the board. */
void trm_crew_progress(const trm_crew *self, uint64_t *bytes_in, uint64_t *records_in, uint32_t *running);

/* Ends executors and supervisor (SIGTERM, then SIGKILL after `grace_ms`), reaps, removes
 * scratch unless kept, frees. Safe in every state. */
void trm_crew_stop(trm_crew *self, uint64_t grace_ms);

#endif
