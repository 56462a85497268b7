/* The crew of a rank: a supervisor process that never touches MPI, and the executors
 * that it forks, each bound to a core. User code runs in executors and nowhere else.
 *
 *     rank ──(orders: a seqpacket pair an executor)──▶ executor 0 … n-1
 *       │ ◀──(reports: a ring in shared memory an executor, one eventfd for all)── │
 *       └───(seqpacket pair)── supervisor ── forks, binds, limits, times, reaps ───┘
 *     board, in the same shared memory: generation, task, progress, last words
 *
 * Reports lie in shared memory so that none is lost with the executor that wrote it, and
 * none waits for the task after it; see board.h. An executor that dies is reaped by the
 * supervisor, which tells the rank (DIED, with signal or status, peak memory and the tail
 * of its standard error). The rank reads the ring of the dead to its end, so that it knows
 * exactly which orders were done, which one ran and which were not begun, and only then
 * lets the supervisor make the replacement:
 *
 *     supervisor ── DIED ──▶ rank: reads the ring, makes it empty ── RESPAWN ──▶ supervisor
 *
 * Orders carry the executor's generation too. When the rank dies the supervisor sees the
 * end of its socket, ends the executors, removes the scratch directory and goes; when the
 * supervisor dies its executors die with it (PR_SET_PDEATHSIG). No process is left behind,
 * nor is one that a kernel forked in its executor's process group.
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
    TRM_CREW_REPORT,    /* an attempt ended in the executor's own words; when it failed, the
                           text has a sentence and, on lines after it, what it had printed */
    TRM_CREW_DIED       /* an executor died; `lost` lists what it had been given */
} trm_crew_event_kind;

typedef struct trm_crew_event {
    trm_crew_event_kind kind;
    uint32_t executor;
    trm_status status;        /* READY: TRM_EJOB … when the kernel cannot be loaded (the executor takes
                                 no orders then); DIED: TRM_EKERNEL, TRM_ETIMEOUT, TRM_ELIMIT, and
                                 TRM_EPEER when the supervisor is gone and nobody replaces it */
    trm_err err;              /* why, in one sentence (READY, DIED, and a REPORT that is a failure) */
    const trm_traits *traits; /* READY, TRM_OK */
    trm_report report;        /* REPORT; its texts are valid until the next call */
    /* DIED: the orders that it had, the running one first (lost[0], when `running`);
     * those after it were not begun and cost no attempt. */
    bool running;
    bool cancelled;  /* trm_crew_cancel has ended it: it died of nothing that ran there */
    uint32_t record; /* as in a report: which record the running one was at */
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
/* The directory of this rank's runs, in its scratch directory; there from the begin. */
const char *trm_crew_run_store(const trm_crew *self);

/* What the executors need once SETUP has come: where plan and cuts are, this epoch. Sent to every
 * executor, and again to each replacement, before its first order. May be called again when
 * there are cuts. An executor that cannot read them fails its attempts with the reason. */
trm_status trm_crew_setup(trm_crew *self, const trm_setup *setup, uint64_t epoch);

/* Gives `count` orders (at most TRM_CREW_QUEUE_MAX) to one executor, all or none; they are run in
 * order. A reduce order goes with the list of its segments' files, see reduce_inputs.h.
 * TRM_AGAIN: no room in its queue for all of them, or it is not up yet (READY, and setup). */
trm_status trm_crew_submit(trm_crew *self, uint32_t executor, const trm_order *orders, unsigned count);
unsigned trm_crew_queued(const trm_crew *self, uint32_t executor);
/* Ends the executor that runs the order, or will next: DIED is told as ever, and the executor is replaced.
 * The order may have ended by then, and another be what it ran. Of an order that is behind others nothing
 * happens (false). */
bool trm_crew_cancel(trm_crew *self, const trm_order *order);

/* The next thing that happened; TRM_AGAIN: nothing. TRM_EPEER: the supervisor is gone, all
 * executors have been told as DIED, and nothing more will happen. */
trm_status trm_crew_next(trm_crew *self, trm_crew_event *out);
/* Descriptors that become readable when there is something: for the loop's poll. */
unsigned trm_crew_fds(const trm_crew *self, int *out, unsigned max);
/* Bytes and records read by running attempts so far, from the board. */
void trm_crew_progress(const trm_crew *self, uint64_t *bytes_in, uint64_t *records_in, uint32_t *running);
/* What that executor runs, and since when by trm_clock_now_ns; false: nothing. */
bool trm_crew_begun(const trm_crew *self, uint32_t executor, uint64_t now_ns, trm_begun *out);

/* Ends executors and supervisor (SIGTERM, then SIGKILL after `grace_ms`), reaps, removes
 * scratch unless kept, frees. Safe in every state. */
void trm_crew_stop(trm_crew *self, uint64_t grace_ms);

#endif
