/* The world of the Raft simulation: nodes that run the real core over the real log on
 * disks in memory, clients, an operator, and faults; all in one thread, from one seed, in
 * virtual time.
 *
 *   raft_sim.c      the program: histories, processes, totals
 *   raft_world.c    a history: events in the order of time, faults, then calm
 *   raft_node.c     a node: its life, messages, and what the core tells it to do
 *   raft_disk.c     its disk: one operation at a time, slow or full or failing
 *   raft_machine.c  its state machine: registers, and what each client has had done
 *   raft_client.c   clients that write and read, and try again
 *   raft_chaos.c    faults, and an operator who changes members and leaders
 *   raft_check.c    what must hold after every event
 *
 * A node has a slot (its place in the network) and an id. A disk that is wiped comes back
 * in the same slot with another id: nobody may answer under an identity that has forgotten
 * what it promised.
 */
#ifndef TRM_TESTS_RAFT_WORLD_H
#define TRM_TESTS_RAFT_WORLD_H

#include "runtime/consensus/raft.h"
#include "tests/support/draw.h"
#include "tests/support/fs_mem.h"
#include "tests/support/linear.h"
#include "tests/support/sim_net.h"
#include "tests/support/sim_queue.h"

#include <stdarg.h>
#include <stdio.h>

#define MS 1000000ull
#define SLOTS_MAX 9u
/* id = slot + SLOT_STRIDE * how often the slot was wiped */
#define SLOT_STRIDE 16u
/* Entries, terms, operations and sessions of one history; it ends early before them. */
#define LOG_MAX 2048u
#define TERMS_MAX 4096u
#define OPS_MAX 1024u
#define SESSIONS_MAX 96u
#define CLIENTS_MAX 6u
#define KEYS 3u
/* Of one slot. */
#define WIPES_MAX 3u
#define READS_OPEN_MAX 256u
#define GROUP 7u
#define NOBODY UINT32_MAX

typedef struct world world;

/* ---- State machine. ---- */

typedef struct machine {
    uint64_t index; /* of the last entry applied */
    uint64_t hash;  /* of all entries up to it */
    uint64_t value[KEYS];
    uint32_t done[SESSIONS_MAX]; /* [session]: the last number that was applied */
} machine;

typedef struct command {
    uint32_t session;
    uint32_t number; /* in the session, from 1 */
    uint32_t key;
    uint64_t value;
} command;

/* ---- What a log holds, kept beside the core to check it. ---- */

typedef struct shadow {
    uint64_t base; /* what lies before was covered by a snapshot */
    uint64_t last;
    uint64_t hash[LOG_MAX]; /* of all entries up to [index]: equal only if all are */
    uint32_t term[LOG_MAX];
    uint32_t config[LOG_MAX]; /* the newest membership up to [index]; 0: none behind base */
} shadow;

/* ---- Disk. ---- */

typedef enum disk_kind { DISK_BATCH, DISK_BEGIN, DISK_WRITE, DISK_ABORT, DISK_INSTALL, DISK_SAVE } disk_kind;

/* What waits for the disk; of one kind. */
typedef struct disk_op {
    struct disk_op *next;
    disk_kind kind;
    uint64_t sequence; /* BATCH */
    trm_wal_batch batch;
    bool has_hard;
    trm_wal_hard_state hard;
    uint64_t first_index; /* of entries; with terms, hashes and kinds of each */
    size_t entries_len;
    struct disk_entry {
        uint64_t hash;
        uint32_t term;
        uint32_t config;
    } * entries;
    trm_wal_snapshot meta; /* BEGIN, SAVE: with a copy of config */
    uint64_t hash;         /* SAVE: of the state */
    trm_writer bytes;      /* WRITE: the chunk; SAVE: the image; and copies of config */
    uint8_t config[TRM_RAFT_MEMBERS_BYTES_MAX];
} disk_op;

/* ---- Node. ---- */

typedef struct open_read {
    uint64_t id;
    uint64_t needs; /* what was committed when it was asked for */
    uint64_t deadline_ns;
} open_read;

typedef struct node {
    uint32_t slot;
    uint64_t id;
    uint32_t wipes;
    trm_fs *fs;
    bool first_voter; /* its log began with the first membership */
    uint64_t clock_offset_ns;
    int64_t clock_drift_permille;
    /* A life of the process; raft is NULL while it is down. */
    uint32_t life;
    trm_raft *raft;
    trm_wal *wal;
    machine machine;
    uint64_t paused_until_ns;
    uint64_t tick_at_ns;     /* of the tick that is in the queue; older ones are void */
    bool machine_must_crash; /* a sync has failed: what the system shows is not what the disk has */
    bool disk_full;
    bool slow_disk;
    bool wants_down; /* the process is to end: after an error of its disk */
    disk_op *ops_first;
    disk_op **ops_last;
    bool disk_busy;
    uint32_t written;     /* batches in front of the queue that are written and not synced */
    bool retry_is_due;    /* after a full disk */
    bool receiving;       /* a snapshot is coming in */
    bool broken;          /* a part of it could not be written */
    bool saving;          /* a snapshot of its own is waiting or being written */
    uint64_t saved_index; /* of the last one */
    uint64_t receiving_index;
    open_read reads[READS_OPEN_MAX];
    uint32_t reads_len;
    /* For the checks. */
    shadow log;                      /* as the core has it */
    shadow disk;                     /* as the disk surely has it */
    shadow graves[WIPES_MAX];        /* as the disks had it that were wiped: they did acknowledge it */
    uint64_t surely_last;            /* of the entries that the disk had when the process ended */
    trm_wal_hard_state hard;         /* as the core has it */
    trm_wal_hard_state durable_hard; /* as the disk surely has it */
    uint64_t applied;
    uint64_t commit;
    trm_raft_role role;
    uint64_t role_term;
    bool counted_on; /* another takes it for a voter, by an entry that it does not know to be committed */
    trm_raft_members members; /* the last known */
} node;

/* ---- Clients. ---- */

typedef struct operation {
    trm_linear_op linear;
    uint32_t session; /* writes */
    uint32_t number;
    uint32_t entries;   /* in the committed log */
    uint32_t proposals; /* that were taken */
    uint64_t effective; /* index of the entry that did it; 0: none */
} operation;

typedef struct client {
    uint32_t session;
    uint32_t number;
    uint32_t op;   /* NOBODY: none */
    uint32_t turn; /* of its wakes; older ones are void */
    uint32_t slot; /* whom it has asked; NOBODY: nobody */
    uint32_t life;
    uint64_t index; /* of its proposal, 0: it reads */
    uint64_t term;
    uint64_t give_up_ns;
} client;

typedef enum event_kind {
    EVENT_ARRIVE = 1, /* a letter */
    EVENT_TICK,
    EVENT_DISK, /* an operation is done */
    EVENT_START,
    EVENT_CLIENT,
    EVENT_CHAOS,
    EVENT_OPERATOR,
    EVENT_PROBE,
    EVENT_CALM
} event_kind;

typedef struct letter {
    bool garbled; /* on its way: a byte is another */
    uint32_t from;
    size_t len;
    uint8_t bytes[];
} letter;

/* ---- Totals, over histories. ---- */

typedef struct totals {
    uint64_t histories, virtual_ns, events, entries, commits, elections, leaders;
    uint64_t writes, reads, unanswered, judged_not;
    uint64_t messages, dropped, repeated, straggled, cut_off, garbled;
    uint64_t partitions, one_way_partitions;
    uint64_t crashes, kills, starts, pauses, wipes;
    uint64_t slow_disks, full_disks, refused_for_room, disk_errors, torn_sectors, lost_sectors;
    uint64_t snapshots_saved, snapshots_installed, compactions;
    uint64_t changes, transfers, stuck;
} totals;

/* The ground truth that checks compare with. */
typedef struct truth {
    uint64_t leader_of[TERMS_MAX];          /* id + 1; 0: nobody yet */
    uint64_t committed_in[TERMS_MAX];       /* the last index that the leader of the term committed */
    uint64_t vote_of[TERMS_MAX][SLOTS_MAX]; /* candidate + 1 that the slot's id has granted its vote */
    uint64_t vote_id[TERMS_MAX][SLOTS_MAX];
    uint64_t committed_hash[LOG_MAX];
    uint64_t committed_last;
    uint64_t applied_last;
    uint64_t term_max;
    struct {
        uint64_t index, term, hash;
    } entries[4 * LOG_MAX]; /* every entry that was ever in a log: by index and term */
} truth;

typedef enum fault {
    FAULT_CRASH,
    FAULT_KILL,
    FAULT_CRASH_ALL,
    FAULT_PAUSE,
    FAULT_WIPE,
    FAULT_PARTITION,
    FAULT_JOIN,
    FAULT_NETWORK,
    FAULT_SLOW,
    FAULT_FULL,
    FAULT_ERROR,
    FAULT_STOP,
    FAULTS
} fault;

/* How rough a history is; drawn from its seed. */
typedef struct mood {
    uint32_t voters;
    uint32_t learners;
    uint32_t clients;
    uint64_t trouble_ns;     /* faults end then */
    uint64_t chaos_every_ns; /* on average */
    uint64_t operator_every_ns;
    unsigned weight[FAULTS];
    bool changes;
    uint32_t voters_wanted;
    bool hint_crashed;       /* nodes that will come back are said to be dead, too */
    uint32_t snapshot_every; /* entries */
    uint32_t payload_max;
    bool slow_disks;    /* all, from the begin */
    uint32_t group_max; /* batches that are synced together */
    trm_raft_options options;
} mood;

struct world {
    uint64_t seed;
    bool trace;
    bool calm;
    bool over;
    const char *program;
    trm_draw draw;
    trm_sim_queue queue;
    trm_sim_net net;
    mood mood;
    uint32_t slots;
    node nodes[SLOTS_MAX];
    trm_raft_members first_members;
    client clients[CLIENTS_MAX];
    operation ops[OPS_MAX];
    uint32_t ops_len;
    uint32_t sessions;
    uint64_t moment; /* numbers calls and answers */
    uint64_t value;  /* the last one written: all are different */
    truth truth;
    totals *totals;
    char what[160];                   /* the event that is happening, for the message of a failed check */
    uint64_t probe_index, probe_term; /* of the last write of all; index 0: not proposed */
    uint32_t probe_op;
    uint32_t probe_slot, probe_life;
    bool probed;
};

/* ---- raft_world.c ---- */

/* Runs the history of w->seed; totals are added to. Does not return when a check fails. */
void world_run(world *w);
/* A line of the trace, when it is wanted. */
void world_trace(world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A check has failed: says what, and how to see it again; ends the process. */
void world_fail(world *w, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));
static inline uint64_t below(world *w, uint64_t bound)
{
    return trm_draw_below(&w->draw, bound);
}
static inline bool often(world *w, unsigned permille)
{
    return trm_draw_often(&w->draw, permille);
}
static inline uint64_t now_ns(const world *w)
{
    return w->queue.now_ns;
}
void world_add(world *w, event_kind kind, uint64_t after_ns, uint32_t of, uint64_t number, void *data);

/* ---- raft_node.c ---- */

void node_make(world *w, uint32_t slot, bool voter);
/* Opens the log and starts the core; tries again later when the disk refuses. */
void node_start(world *w, node *n);
/* The process ends, or the machine does with what was not synced; it starts again after
 * down_ns, UINT64_MAX: not by itself. */
void node_stop(world *w, node *n, bool power, uint64_t down_ns);
/* The disk is replaced by an empty one, under another id. */
void node_wipe(world *w, node *n, uint64_t down_ns);
void node_close(world *w, node *n);
void node_arrive(world *w, node *n, const letter *what);
void node_tick(world *w, node *n);
/* Does what the core wants done, checks all, and sets the next tick. After each event. */
void node_settle(world *w, node *n);
uint64_t node_clock(const world *w, const node *n);
static inline bool node_runs(const world *w, const node *n)
{
    return n->raft && n->paused_until_ns <= now_ns(w);
}

/* ---- raft_disk.c ---- */

disk_op *disk_add(node *n, disk_kind kind);
/* Begins the next operation when there is one and the disk is free. */
void disk_begin(world *w, node *n);
/* The operation that was begun is done. */
void disk_done(world *w, node *n);
/* The last entry that is durable and that nothing on its way to the disk will replace. */
uint64_t disk_surely_last(const node *n);
void disk_drop(node *n);

/* ---- raft_machine.c ---- */

uint64_t entry_hash(uint64_t before, const trm_raft_entry *entry);
void command_encode(const command *what, uint64_t pad, trm_writer *out);
bool command_decode(command *out, const void *bytes, size_t len);
/* Applies a command; *effective: it was not done before. */
void machine_apply(world *w, machine *self, const command *what, bool *effective);
void machine_encode(const machine *self, uint64_t pad, trm_writer *out);
bool machine_decode(machine *out, const void *bytes, size_t len);

/* ---- raft_client.c ---- */

void client_wake(world *w, uint32_t number, uint64_t turn);
/* The node has applied the entry. */
void clients_applied(world *w, node *n, const trm_raft_entry *entry);
/* A write that shows that all goes on: tries again until it is committed. */
void probe(world *w);
void clients_read_done(world *w, node *n, uint64_t id, trm_status status);

/* ---- raft_chaos.c ---- */

void mood_draw(world *w);
void chaos(world *w);
void operate(world *w);
/* No fault any more: links, disks and nodes come back. */
void chaos_end(world *w);
/* Whether a majority of every membership that may be in effect can still come back. */
bool can_go_on(const world *w, uint32_t without_slot);
node *leader_now(world *w);

/* ---- raft_check.c ---- */

/* Entries come into the node's log as the core has it. */
void check_append(world *w, node *n, const trm_raft_entry *entries, size_t len);
/* A message leaves. */
void check_message(world *w, node *n, const trm_raft_message *message);
/* A message is about to be received. */
void check_received(node *n, const trm_raft_message *message);
/* An entry is applied; returns nothing, the hash goes on in the machine. */
void check_apply(world *w, node *n, const trm_raft_entry *entry);
/* What a node in memory is, compared with before. */
void check_node(world *w, node *n);
/* A log that was opened again, compared with what was surely on the disk; makes the
 * shadows anew. */
void check_opened(world *w, node *n);
/* A snapshot has been restored. */
void check_restored(world *w, node *n);
/* Entries and hard state have become durable. */
void check_durable(world *w, node *n, const disk_op *op);
/* After a tick: every read is answered in time. */
void check_reads(world *w, node *n);
/* The log as a whole against the shadow. */
void check_whole(world *w, node *n);
/* All that is to be said of a history when it is over. */
void check_end(world *w);
uint64_t truth_hash(const world *w, uint64_t index, uint64_t term);

#endif
