/* The inside of the master, by theme:
 *
 *   master.c          its life: begin, frames in, a step
 *   master_log.c      commands out, committed commands in
 *   master_ranks.c    the ranks: HELLO, SETUP, PULSE; given up, set aside
 *   master_tasks.c    which task where: queues, ORDER
 *   master_claims.c   what ranks hold when a master begins: CLAIM; what they may forget: SETTLED
 *   master_reports.c  what became of attempts: COMMIT, FAIL
 *   master_twins.c    stragglers: a second attempt elsewhere; ranks that are slow
 *   master_hunt.c     which record kills a kernel: probes, SKIP
 *   master_outputs.c  where map outputs are: OUTPUTS, LOST, ADOPT, HELD
 *   master_copies.c   second copies of map outputs on other hosts: COPY, COPIED
 *   master_sample.c   cut points of a range partitioned job
 *   master_publish.c  parts into place, the manifest
 *   master_end.c      FINISH, END, BYE
 *   master_record.c   events, status, bindings
 */
#ifndef TRM_SCHEDULER_MASTER_SELF_H
#define TRM_SCHEDULER_MASTER_SELF_H

#include "runtime/clock.h"
#include "runtime/json.h"
#include "scheduler/master.h"
#include "scheduler/journal.h"
#include "scheduler/task_list.h"

#define MS TRM_NS_PER_MS
#define NO_RANK UINT32_MAX

/* Time. */
#define RANK_SILENT_MS 10000u  /* without any frame a rank is given up */
#define RANK_BEGIN_MS 30000u   /* … for its first HELLO */
#define RANK_PAUSE_MS 100u     /* a rank that refused an order gets no other for so long */
#define MASTER_PAUSED_MS 1000u /* the loop did not turn for so long: silence proves nothing */
#define IDLE_PULSES_MAX 25u    /* a rank that is idle for so long has lost what it was given */
#define STUCK_PULSES_MAX 50u   /* … that only waits for so long has missed where outputs are */
#define ADOPT_SILENT_MS 60000u /* nothing of a store that is being taken over */
#define COPY_SILENT_MS 60000u  /* nothing of the copies that a rank was asked for */
#define COPY_PAUSE_MS 10000u   /* a rank that could not make a copy is asked for no other for so long */
#define COPY_LOOK_MS 20u       /* nobody could be asked for a copy now: not again before */
#define COPY_ALONE_MS 1000u    /* … and there is nobody */
#define COPY_UNHEARD_MS 20000u /* a rank is waited for so long that is to say which copies it holds */
#define TAKEOVER_MS 500u       /* a master that follows another waits so long for what ranks hold */
#define CLAIM_SILENT_MS 5000u  /* after that a rank that has not said what it holds is set up again */
#define ABSENT_END_MS 2500u    /* at the end, for ranks that have not come to a master that follows another */
#define SEND_AGAIN_MS 1u       /* a queue to a rank is full */
#define SETUP_STEP_PEERS 131072u /* named in the SETUPs of a step, but for the last */
#define PUBLISH_MS 50u           /* parts wait for others so long, so that they share a sync */
#define FLUSH_MS 5000u           /* an interrupted job waits so long for its log */
#define BYE_MS 10000u            /* … a job that is over for its workers */
#define END_AGAIN_MS 1000u       /* END is said again */

/* Work. */
#define AHEAD_US 50000u        /* of work that a rank has in hand for each executor */
#define TASK_US_MIN 50u        /* what a task counts for that took less than the clock shows */
#define AHEAD_TASKS_MAX 512u   /* an executor */
#define ORDERS_FRAME_MAX 2048u /* orders in one frame */
#define LOOK_AHEAD_MAX 8u      /* tasks looked at for one that may run here */
#define COMMIT_BYTES 65536u    /* a COMMIT of this size does not wait for the one before */
#define COMMIT_ITEMS_MAX 8192u
#define BACKLOG_BYTES_MAX (4u << 20) /* of commands that the log has not taken: then no new orders */
#define OUTPUTS_FRAME_MAX 4096u
#define OUTPUTS_RANK_US 10u   /* of silence a rank between two OUTPUTS: many are told more at once */
#define COPIES_STEP_MAX 1024u /* asked for in one step */
#define COPIES_AHEAD_MAX 16u  /* copies that a rank is asked for at once */
#define COPIERS_LOOK_MAX 64u  /* ranks that are looked at when one may have room for a copy */
#define REFS_MAX 4096u        /* of a LOST or an ADOPT */
#define STORE_BUCKETS 4096u   /* a power of 2 */
#define PUBLISH_BATCH_MAX 256u
#define SAMPLE_TASKS_MAX 64u
#define PUBLISHED_ITEMS_MAX 8192u

/* Patience. */
#define RETURNS_MAX 100u  /* of one task, that do not count as attempts; then the job fails */
#define STRIKES_MAX 8u    /* tasks in a row that fail on a rank; then it is set aside */
#define COPY_TRIES_MAX 3u /* of one output; then it has no copy */
#define REFUSALS_MAX 50u  /* pauses in a row of a rank that does not take orders */

/* Bad records. */
#define HUNTS_MAX 4096u /* tasks in which a record is looked for at once; others fail as without it */
#define PROBES_MAX 600u /* of one task, by one master */

typedef enum rank_state {
    RANK_ABSENT = 0, /* has not said HELLO */
    RANK_READY,
    RANK_UNFIT, /* its crew cannot work */
    RANK_LOST,  /* silent, or its process is gone */
    RANK_GONE   /* said BYE */
} rank_state;

typedef struct master_rank {
    uint8_t state;
    bool aside;   /* it gets no orders: its executors keep failing, or it is slow */
    bool dead;    /* its process is gone: it never comes back */
    bool greeted; /* it has said HELLO to this master */
    bool claimed; /* since the last SETUP it has said all that it holds: it may be given orders */
    bool setup_due, end_due;
    bool hungry, settling; /* it is in the list of those */
    uint32_t executors;
    uint32_t host;      /* number; NO_RANK: unknown */
    uint32_t host_next; /* the next rank of its host; NO_RANK: none */
    uint64_t pid;
    uint64_t heard_ns, pause_ns, setup_ns;
    uint64_t unclaimed_ns; /* since when it is to say what it holds; 0: it has not been asked */
    task_list running[TRM_PHASES];
    task_list home;         /* reduces that wait, at home here */
    uint32_t twins;         /* second attempts here … */
    uint32_t unbegun;       /* … of reduces, that have not begun */
    uint32_t slow;          /* tasks in a row that others have done before it */
    size_t outputs_at;      /* how far OUTPUTS has told */
    uint32_t copying;       /* copies that it is asked for … */
    uint64_t copy_ns;       /* … when it said something of them last … */
    uint64_t copy_pause_ns; /* … and before when it is asked for no other */
    uint32_t strikes, struck_task, refusals, idle_pulses, stuck_pulses;
    trm_pulse pulse;
    trm_status unfit;
    char *text; /* why it is unfit */
    char *host_name, *run_store;
    trm_order *settled; /* to be told in SETTLED */
    uint32_t settled_count, settled_room;
} master_rank;

typedef struct master_phase {
    soft_task *task; /* sampling has its own, fewer ones */
    uint32_t tasks;
    task_list queue;  /* to be given to whoever asks */
    uint32_t waiting; /* SOFT_QUEUED, those at home included */
    uint32_t running; /* SOFT_RUNNING */
    uint32_t task_us; /* about what a task takes */
    uint32_t twins;   /* tasks that run twice */
    uint32_t doubled; /* … and did so far, to no use */
} master_phase;

/* Ranks that are to be looked at; each is in it once. */
typedef struct rank_list {
    uint32_t *rank; /* room for twice as many as there are ranks: some come back while others are looked at */
    uint32_t count;
} rank_list;

typedef enum copy_state {
    COPY_NONE = 0, /* … and none is wanted */
    COPY_WANTED,
    COPY_ASKED,
    COPY_HELD,
    COPY_FAILED /* it was tried often enough */
} copy_state;

/* The second copy of a map output. Soft: whoever holds one tells every master. */
typedef struct master_copy {
    uint32_t rank;       /* ASKED, HELD: who */
    uint32_t next;       /* in the queue of those that are wanted */
    uint32_t epoch;      /* in which the output was committed, as far as this master knows */
    uint32_t held_epoch; /* HELD: that it was told with */
    uint8_t state : 3;   /* copy_state */
    uint8_t queued : 1;  /* perhaps in vain: its state may have changed */
    uint8_t failures : 4;
} master_copy;

/* A store whose runs are being taken over. */
typedef struct master_store {
    struct master_store *next, *previous;
    struct master_store *next_hashed; /* in its bucket */
    uint64_t epoch;                   /* of its member */
    uint32_t rank;                    /* … */
    uint32_t adopter;                 /* NO_RANK: nobody yet */
    bool sent;
    bool gone; /* what is left in it is read by nobody there: from copies, or made again */
    uint64_t heard_ns;
    task_list tasks; /* SOFT_ADOPTING */
    char host[TRM_HOST_NAME_BYTES];
    char path[TRM_STORE_PATH_BYTES];
} master_store;

/* A failure whose FAIL is proposed. */
typedef struct master_failure {
    struct master_failure *next;
    trm_fail fail;
    char text[]; /* the worker's words */
} master_failure;

typedef struct master_hunt master_hunt; /* master_hunt.c */
typedef struct master_twin master_twin; /* master_twins.c */

/* A command that the log has not taken yet. */
typedef struct master_command {
    struct master_command *next;
    bool is_commit;
    size_t len;
    uint8_t bytes[];
} master_command;

typedef enum master_stage {
    STAGE_BEGIN = 0, /* EPOCH and SUBMIT are on their way through the log */
    STAGE_RUN,
    STAGE_FLUSH, /* FINISH is, or (interrupted) whatever was proposed */
    STAGE_END,   /* END is said, BYEs come */
    STAGE_ENDED
} master_stage;

struct trm_master {
    trm_master_config config;
    const trm_spec *spec;
    trm_fs *fs;
    trm_replog *log;
    uint64_t epoch, term;
    uint32_t own_rank;
    uint64_t now_ns, wall_ms, begun_ns, run_ns, step_ns, pulse_ns;
    master_stage stage;
    bool failed;  /* the log cannot be followed any more */
    bool deposed; /* another rank leads */
    char deposed_why[TRM_ERR_TEXT_BYTES];

    trm_replica *replica;
    trm_table *table; /* its own */
    trm_table_watch watch;
    trm_table_job *job; /* of the table; NULL in STAGE_BEGIN */
    bool submitted;
    bool follows;   /* another master of this launch was before it … */
    bool claims_in; /* … and what ranks hold of its orders is known, or was waited for */

    /* Commands out. */
    master_command *commands, **commands_last;
    size_t backlog_bytes;
    uint64_t commit_index; /* of the last COMMIT that the log took; 0: none is undecided */
    bool log_full;         /* said */
    trm_writer commit;     /* being gathered */
    uint32_t commit_items, commit_previous;
    trm_writer scratch; /* one command being composed */

    /* Ranks. */
    master_rank *ranks;
    uint32_t ready;            /* RANK_READY */
    uint32_t coming;           /* RANK_ABSENT */
    uint32_t executors;        /* of those that get orders */
    uint32_t *host_first;      /* by number: a rank of the host; the others follow it */
    uint32_t *host_table;      /* … and by name: 1 + the number, 0 where none is */
    uint32_t hosts, host_room; /* … a power of 2, at least twice the ranks */
    bool any_setup_due;
    uint32_t setup_at;   /* where the next step goes on with SETUPs */
    rank_list settling;  /* that are to be told SETTLED */
    bool all_hungry;     /* everybody may be given more … */
    rank_list hungry;    /* … or these */
    uint64_t lookout_ns; /* when silence is looked for next */

    /* Tasks. */
    master_phase phase[TRM_PHASES];
    uint32_t *picked;   /* ORDERS_FRAME_MAX */
    uint32_t idle_turn; /* a rank that was idle when that was asked last */
    master_failure *failures;
    master_hunt *hunts;
    uint32_t hunts_count;
    master_twin *twins;
    uint32_t twins_count, twins_looked;
    uint64_t twins_ns, twins_made, twins_won;
    uint64_t done_ns; /* when a task was done last */

    /* Outputs. */
    uint32_t *outputs; /* map tasks whose place is to be told, in order */
    size_t outputs_count, outputs_room;
    bool outputs_due;    /* some rank has not been told all of them */
    uint64_t outputs_ns; /* not before */
    master_store *stores;
    master_store *store_bucket[STORE_BUCKETS]; /* by epoch and path */
    bool outputs_missed;                       /* no memory to tell something */

    /* Copies of them. */
    master_copy *copies;                /* by map task; NULL: there are none, and none are made */
    uint32_t copies_first, copies_last; /* the queue of those that are wanted */
    uint32_t copy_turn;                 /* the rank that is looked at next */
    bool copies_room;                   /* it, or one close by, may have room for one */
    uint64_t copies_ns;                 /* all are not looked at before */
    uint64_t copies_silent_ns;          /* when silence is looked for next */
    uint64_t copies_made, copies_bytes, copies_used; /* by this master */
    bool copies_alone, copies_told_failed;           /* said */

    /* Sampling. */
    trm_writer samples; /* blobs */
    uint32_t sampled;   /* tasks that are through */
    bool cuts_made, cuts_told;

    /* Publishing. */
    uint32_t *parts; /* committed, to be put into place */
    uint32_t parts_at, parts_count, parts_room;
    uint64_t publish_ns;
    bool manifest_made;

    /* The end. */
    bool interrupted;
    trm_end end;
    uint64_t end_ns, end_again_ns;

    /* The record. */
    trm_journal journal;
    const char *phase_noted;
    unsigned tasks_noted, failures_noted;
    struct {
        uint64_t tasks, bytes, records;
    } unlisted[TRM_PHASES]; /* since the last event that counts them */
    uint64_t copies_noted, copies_bytes_noted;
    trm_writer bindings;
    bool bindings_due, order_noted, end_noted;
    uint64_t status_ns;

    trm_writer frame; /* being composed */
    uint64_t dropped;
};

/* ---- master_log.c ---- */
/* Begins a command in self->scratch; enqueue sends it to the log, as soon as that takes it. */
trm_writer *master_command_begin(trm_master *self, trm_command_type type);
void master_command_enqueue(trm_master *self);
/* Adds to the COMMIT that is being gathered. */
void master_commit_add(trm_master *self, const trm_commit *commit);
/* Proposes what is to be proposed; whether anything was. */
bool master_log_flush(trm_master *self, uint64_t *wake_ns);
/* Takes the replica, is told of what is applied to it, gives it back. */
void master_log_begin(trm_master *self);
void master_log_watch(trm_master *self);
void master_log_end(trm_master *self);
/* Moves the log on and applies what is committed; whether anything was. */
bool master_log_step(trm_master *self, uint64_t *wake_ns);
/* Nothing is undecided. */
bool master_log_quiet(const trm_master *self);
/* The job cannot go on, though it may be resumed: says so and ends. */
const char *master_phase_name(const trm_master *self); /* master.c */
void master_depose(trm_master *self, const char *why);
void master_give_up(trm_master *self, trm_status status, const char *why);

/* ---- master_ranks.c ---- */
void master_hello(trm_master *self, uint32_t from, trm_reader *body);
void master_pulse(trm_master *self, uint32_t from, trm_reader *body);
void master_bye(trm_master *self, uint32_t from);
trm_status master_ranks_init(trm_master *self, trm_err *err);
void master_ranks_close(trm_master *self);
void master_rank_list_add(rank_list *list, bool *listed, uint32_t rank);
void master_rank_hungry(trm_master *self, uint32_t rank);
uint32_t master_host_first(trm_master *self, const char *name); /* its ranks; NO_RANK: none */
void master_rank_set_up(trm_master *self, uint32_t rank);       /* SETUP is to be said, perhaps again */
bool master_ranks_begin(trm_master *self); /* those that the table knows; false: no memory */
bool master_ranks_step(trm_master *self, uint64_t *wake_ns);
void master_rank_back(trm_master *self, uint32_t rank);
void master_rank_aside(trm_master *self, uint32_t rank, const char *why);
void master_rank_needed(trm_master *self, uint32_t rank); /* it is not aside any more */
void master_rank_unfit(trm_master *self, uint32_t rank, trm_status status, const char *why);
bool master_rank_works(const master_rank *rank); /* it can be given orders */
void master_frame_begin(trm_master *self, trm_wire_type type);
trm_status master_frame_send(trm_master *self, uint32_t to);

/* ---- master_tasks.c ---- */
trm_status master_tasks_init(trm_master *self, trm_err *err);
void master_tasks_close(trm_master *self);
void master_task_queue(trm_master *self, unsigned phase, uint32_t task, bool first);
/* Takes a task off whichever list it is in. */
void master_task_unlink(trm_master *self, unsigned phase, uint32_t task);
/* Comes back from a rank for a reason that does not count; RETURNS_MAX bounds it. */
void master_task_return(trm_master *self, unsigned phase, uint32_t task, const char *why);
/* All tasks that were given to this rank, and those at home there. */
void master_tasks_take_back(trm_master *self, uint32_t rank, const char *why);
void master_homes_leave(trm_master *self, uint32_t rank);
bool master_tasks_step(trm_master *self, uint64_t *wake_ns);
bool master_maps_are_live(const trm_master *self);

/* ---- master_claims.c ---- */
/* Whether the table would still take an attempt that somebody reports. */
bool master_attempt_may_count(const trm_master *self, unsigned phase, uint32_t task, uint32_t attempt);
void master_claim(trm_master *self, uint32_t from, trm_reader *body);
/* Orders wait for what ranks hold. */
bool master_waits_for_claims(trm_master *self, uint64_t *wake_ns);
/* The rank may forget the attempt: what became of it is in the log, or it is of no use. */
void master_settle(trm_master *self, uint32_t rank, const trm_order *order);
bool master_settled_step(trm_master *self, uint64_t *wake_ns);

/* ---- master_reports.c ---- */
void master_reports(trm_master *self, uint32_t from, trm_reader *body);
void master_committed(trm_master *self, const trm_commit *commit, bool accepted);
void master_failed(trm_master *self, const trm_fail *fail, bool accepted);
/* Whether a failure says something about the task, or about where it ran. Of a reduce that has
 * lost an input that input is made again; a rank without room or executors has not begun it. */
bool master_failure_counts(const trm_report *report);
/* A failure that counts. */
void master_propose_fail(trm_master *self, uint32_t from, const trm_report *report);
void master_failures_close(trm_master *self);

/* ---- master_hunt.c ---- */
/* A map attempt has failed at a record: that is looked for now; false: it is not, the failure counts. */
bool master_hunt_begin(trm_master *self, uint32_t from, const trm_report *report);
/* A failure of the code or of what it is given, not of where it runs. */
bool master_blames_kernel(uint32_t status);
/* What an order for a map says of records. */
void master_order_records(const trm_master *self, trm_order *order);
/* Of a task that is hunted: whether it is the failure that the hunt began with, told again. */
bool master_hunt_knows(const trm_master *self, uint32_t from, const trm_report *report);
/* How the probe that runs has ended. */
void master_hunt_probed(trm_master *self, const trm_report *report);
void master_hunt_drop(trm_master *self, uint32_t task); /* the task is done */
void master_skipped(trm_master *self, const trm_skip *skip, bool accepted);
void master_hunts_close(trm_master *self);

/* ---- master_twins.c ---- */
void master_twins_close(trm_master *self);
void master_twins_step(trm_master *self, uint64_t *wake_ns);
/* A report of a task that runs twice, of one of both; true: that one has failed, and the other goes on. */
bool master_twin_report(trm_master *self, uint32_t from, const trm_report *report);
/* The twin is what runs from now on; false: there is none. */
bool master_twin_promote(trm_master *self, unsigned phase, uint32_t task);
void master_twin_cancel(trm_master *self, unsigned phase, uint32_t task); /* if there is one */
void master_twins_of_lost_rank(trm_master *self, uint32_t rank);
/* A second rank holds the task. */
void master_twin_claimed(trm_master *self, uint32_t from, unsigned phase, uint32_t task, uint32_t attempt);
/* What the rank says to run, of a frame that is whole. */
void master_twins_begun(trm_master *self, uint32_t from, const trm_begun *said);
void master_twins_forgive(trm_master *self); /* the loop stood still */

/* ---- master_outputs.c ---- */
trm_status master_outputs_begin(trm_master *self, trm_err *err);
/* Before EPOCH is applied, which forgets ranks of earlier launches whose outputs do not count: all that
 * they have left is to be taken over, and so removed. False: no memory. */
bool master_outputs_note_stores(trm_master *self);
void master_outputs_close(trm_master *self);
bool master_outputs_step(trm_master *self, uint64_t *wake_ns);
void master_output_tell(trm_master *self, uint32_t task); /* where it is now, to all */
void master_output_committed(trm_master *self, uint32_t task, uint32_t rank);
void master_outputs_of_lost_rank(trm_master *self, uint32_t rank);
void master_lost(trm_master *self, uint32_t from, trm_reader *body);
void master_held(trm_master *self, uint32_t from, trm_reader *body);
void master_lost_applied(trm_master *self, const trm_output_ref *ref, bool accepted);
bool master_output_is_live(const trm_master *self, uint32_t task);
void master_adopted_applied(trm_master *self, uint32_t rank, const trm_output_ref *ref, bool accepted);
bool master_maps_are_needed(const trm_master *self);

/* ---- master_copies.c ---- */
trm_status master_copies_begin(trm_master *self, trm_err *err); /* after the tasks, before the outputs */
void master_copies_close(trm_master *self);
/* The output is another one than before: made in this launch. */
void master_copy_forget(trm_master *self, uint32_t task);
/* The output is where the table says, and should be kept on a second host. */
void master_copy_want(trm_master *self, uint32_t task);
/* A rank, not the one that the table names, that can be sent for; NO_RANK: none is known. */
uint32_t master_copy_holder(const trm_master *self, uint32_t task);
/* Copies may be told that are not known yet. */
bool master_copies_may_come(const trm_master *self);
/* Committed outputs that are of use and known to be on one host only. Looks at all of them. */
uint64_t master_copies_missing(const trm_master *self);
void master_copied(trm_master *self, uint32_t from, trm_reader *body);
void master_copies_of_lost_rank(trm_master *self, uint32_t rank);
bool master_copies_step(trm_master *self, uint64_t *wake_ns);

/* ---- master_sample.c ---- */
bool master_wants_cuts(const trm_master *self);
void master_sample_report(trm_master *self, uint32_t from, const trm_report *report);
uint32_t master_sample_task(const trm_master *self, uint32_t sample);  /* the map task whose keys it takes */
uint32_t master_sample_of_task(const trm_master *self, uint32_t task); /* NO_TASK: none */
trm_status master_sample_begin(trm_master *self, trm_err *err);
void master_sample_step(trm_master *self);
bool master_sample_is_kept(const trm_master *self,
                           uint32_t sample); /* its keys are here, and in no log yet */

/* ---- master_publish.c ---- */
void master_publish_add(trm_master *self, uint32_t task);
void master_manifest_restore(trm_master *self);
bool master_publish_step(trm_master *self, uint64_t *wake_ns);
void master_published(trm_master *self, uint32_t task, bool accepted);
void master_put_counters(const trm_master *self, trm_json *json);

/* ---- master_end.c ---- */
/* The job fails, with this exit code and these words. */
void master_job_fail(trm_master *self, trm_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void master_job_finish(trm_master *self, trm_job_state state, uint32_t exit_code, const char *text);
bool master_end_step(trm_master *self, uint64_t *wake_ns);

/* ---- master_record.c ---- */
trm_json *master_event(trm_master *self, const char *what);
void master_note_launch(trm_master *self);
void master_note_rank(trm_master *self, uint32_t rank, const char *what, const char *why);
void master_note_order(trm_master *self, uint32_t rank, unsigned phase, uint32_t task);
void master_note_prepared(trm_master *self, uint32_t from, const trm_report *report);
void master_note_failure(trm_master *self, uint32_t from, const trm_report *report, bool counts);
void master_note_twin(trm_master *self, const trm_order *order, uint32_t rank, uint32_t first_rank);
void master_note_probe(trm_master *self, uint32_t from, const trm_report *report);
void master_note_skip(trm_master *self, const trm_skip *skip, const char *why, size_t why_len);
void master_note_count(trm_master *self, const char *what, uint64_t count);
void master_note_why(trm_master *self, const char *what, const char *why);
void master_note_bindings(trm_master *self, const trm_hello *hello);
void master_note_end(trm_master *self);
void master_record_step(trm_master *self, uint64_t *wake_ns);

static inline void master_wake(uint64_t *wake_ns, uint64_t at_ns)
{
    if (at_ns < *wake_ns)
        *wake_ns = at_ns;
}

#endif
