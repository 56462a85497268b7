/* The master: a function of (job table, soft state of the workers, time) to (orders,
 * commands). Runs on the rank that leads the replicated log; part of the control loop:
 * one thread, no I/O but through what it is given.
 *
 *   HELLO, CLAIM, REPORT … → soft state ┐
 *                                        ├→ pick → ORDER
 *   committed commands → job table ──────┘
 *   REPORT(prepared) → COMMIT command → log → applied → publish (rename) → …
 *   all parts in place → manifest → FINISH command → log → END
 *
 * A master may be the second of its launch, or the tenth: another rank led before, and died or was
 * cut off. All that was decided is in the table; what ranks hold of the earlier master's orders
 * they claim. What they run goes on, what they have done is reported again, and nothing that is
 * unclaimed is given out before every rank that may still live has claimed, or TAKEOVER_MS have
 * passed. Numbers of attempts are never given out twice: trm_table_first_attempt.
 *
 * What it can do and for how long is bounded by names in master_self.h.
 */
#ifndef TRM_SCHEDULER_MASTER_H
#define TRM_SCHEDULER_MASTER_H

#include "jobs/spec.h"
#include "jobs/table.h"
#include "jobs/wire.h"
#include "runtime/fs.h"
#include "scheduler/replica.h"
#include "scheduler/submission.h"

typedef struct trm_master trm_master;

/* Where frames go. `send` copies; TRM_AGAIN: try again on the next step. */
typedef struct trm_outbox {
    trm_status (*send)(void *context, uint32_t to, const void *frame, size_t len);
    void *context;
} trm_outbox;

typedef struct trm_master_config {
    const trm_spec *spec;
    const trm_submission *submission; /* the job; its plan lies in the state directory */
    trm_fs *fs;
    trm_replica *replica; /* its log leads; the master's until trm_master_destroy, then as it is */
    bool (*is_voter)(void *context, uint32_t rank); /* for the record; NULL: whoever leads is the only one */
    void *is_voter_context;
    bool may_be_followed; /* the log has other voters: when it fails here, one of them leads */
    trm_outbox outbox;
    uint32_t ranks;
    uint64_t epoch; /* of this launch; 0: one more than the last that is in the log */
    uint64_t seed;
    uint64_t wall_ms; /* at the begin; later times come with step */
} trm_master_config;

/* How the job stands, for people: cheap to ask for. */
typedef struct trm_phase_progress {
    uint32_t total, done, running; /* tasks; done: committed and, for maps, still readable */
} trm_phase_progress;

typedef struct trm_progress {
    const char *phase; /* "starting", "sampling", "mapping", "reducing", "publishing", "ending", "ended" */
    trm_phase_progress of[TRM_PHASES];
    uint64_t bytes_in, bytes_total; /* read by maps, running ones included; of all files (0: no input) */
    uint64_t records_in;
    uint64_t attempts_failed;                      /* that counted, all launches */
    uint64_t outputs_lost;                         /* map outputs that were to be made again, all launches */
    uint64_t outputs_copied, outputs_copied_bytes; /* to a second host, by this master … */
    uint64_t copies_used;                          /* … and read there, because the first was gone */
    uint64_t records_skipped;                      /* bad records that have been found, all launches */
    uint64_t speculated;     /* second attempts of tasks that took long, by this master … */
    uint64_t speculated_won; /* … that were faster */
    uint32_t ranks, ranks_alive;
    uint64_t epoch, term;
    uint64_t launch_ms; /* since this launch began, by the wall clock; 0 if that was set back */
    uint64_t failovers; /* masters that followed another in the same launch, all launches */
    uint64_t dropped;   /* frames and items that were not obeyed */
} trm_progress;

/* Borrows what config points to. Reads what is in the log: TRM_EOUTPUT when that is of another
 * job, TRM_ECORRUPT when it or the saved cuts are damaged, TRM_EFENCED when a later launch owns
 * it, TRM_ENOMEM. Nothing has been written when it fails. Ranks that are known to be gone are to
 * be told to it (trm_master_rank_dead). */
trm_status trm_master_create(trm_master **out, const trm_master_config *config, trm_err *err);
void trm_master_destroy(trm_master *self); /* NULL is fine */
/* A frame for the master (HELLO, CLAIM, REPORT, LOST, HELD, COPIED,
 * PULSE, BYE), opened already. Those that came
 * before the master was made are to be given to it too. Anything wrong is dropped and counted. */
void trm_master_receive(trm_master *self, uint32_t from, const trm_wire_header *header, trm_reader *body,
                        uint64_t now_ns);
/* Moves the log and the job on. Returns whether anything was done, so that the loop knows whether
 * it may sleep; *wake_ns is lowered to when it must be called again at the latest. */
bool trm_master_step(trm_master *self, uint64_t now_ns, uint64_t wall_ms, uint64_t *wake_ns);
/* Another rank leads, or will: this master does nothing any more and is to be destroyed. `why` is
 * set then. */
bool trm_master_deposed(const trm_master *self, trm_err *why);
/* The process of that rank is gone. As silence, but at once, and it never comes back; reports that
 * it has sent before may still be given to the master. */
void trm_master_rank_dead(trm_master *self, uint32_t rank);
/* Ends the job as interrupted, resumable: everything is flushed, END is sent. */
void trm_master_interrupt(trm_master *self, const char *why);
/* The job is over, its record is durable and every live worker has said BYE (or a
 * bounded time has passed). */
bool trm_master_ended(const trm_master *self, trm_end *end);

void trm_master_progress(const trm_master *self, trm_progress *out);
/* What has been committed so far; names: trm_traits_counter_name. */
void trm_master_counters(const trm_master *self, trm_counters *out);
/* For the tests' invariants, and for status. */
/* Whether the rank has come and is not known to be gone, or is awaited. */
bool trm_master_rank_lives(const trm_master *self, uint32_t rank);
/* The job's end is decided and durable: what is left is to tell the ranks. */
bool trm_master_is_over(const trm_master *self);
const trm_table *trm_master_table(const trm_master *self);
uint64_t trm_master_epoch(const trm_master *self);

#endif
