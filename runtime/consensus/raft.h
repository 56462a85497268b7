/* Raft (Ongaro, "Consensus: Bridging Theory and Practice", 2014, here "the thesis"): a log
 * of commands, the same on every voter, as long as a majority of the voters lives.
 *
 *   propose, change, read, transfer ──►┌──────┐──► hard state, entries to persist
 *   receive(message)                ──►│ raft │──► messages to send
 *   tick(now)                       ──►│      │──► committed entries to apply
 *   persisted(sequence)             ──►└──────┘──► reads to answer, a snapshot to store
 *
 * No I/O, no clock, no call-backs, no threads: events go in by function calls, what is to
 * be done comes out of trm_raft_take. All randomness is drawn from the seed in the options.
 * What it says to persist is what runtime/wal.h stores.
 *
 * The loop of a node:
 *
 *   1. Give it events: any number of calls of the functions under "Events".
 *   2. trm_raft_take(self, &update); it borrows from self until the next call that changes
 *      self, so use it up at once:
 *
 *      persist   Copy update.hard and update.entries, in this order, into a batch. When it
 *                is durable (now or much later, in another thread), call
 *                trm_raft_persisted with update.persist_sequence. Batches become durable
 *                in order; one call for the newest of several is enough.
 *
 *      send      Encode and send update.messages. Each may leave at once, before anything
 *                of this update is durable: what must wait for the disk is held inside.
 *
 *      apply     Apply update.apply in order, then answer update.reads.
 *
 *      store     Do what update.snapshot says.
 *
 *   3. When update.more is set take again; else sleep until a message, a completed write,
 *      or trm_raft_wake_ns, when tick is due.
 *
 * The leader so writes in parallel with the replication (thesis 10.2.1) and counts itself
 * only when its own write is durable; a follower acknowledges only what is durable, a vote
 * leaves only when it is durable. A write is known by its sequence, not by its last entry:
 * when a tail that was not durable yet is overwritten, even by an entry that was there
 * before, the completion of the older write says nothing of it.
 *
 * Time is in nanoseconds of any monotonic clock, 64 bits; it never goes back (an older time
 * is taken as the newest one seen). Node ids are any numbers but TRM_RAFT_NONE; 0 is one.
 *
 * Failures. TRM_ENOMEM of an event: it was refused whole, as if it had not been (a message:
 * as if the network had lost it), and everything is sound; go on. trm_raft_take allocates
 * nothing. A message from outside never asserts, whatever it holds; what the caller does
 * against these contracts asserts.
 *
 * Ownership. Payloads given in are copied. Everything in an update belongs to self.
 *
 * Membership changes one server at a time (thesis, chapter 4), in effect from the moment
 * that the entry is in the log. A new server begins as a learner (4.2.1: replicated to,
 * not counted) and is promoted when it has caught up. With voters_wanted set, the leader does by
 * itself what a job needs whose ranks never come back: a voter that is known dead is
 * removed, then a caught-up live learner takes its place. (In this order: after the
 * removal a majority of those that live is enough, also when the learner dies as it is
 * promoted.) Who is dead the caller says with trm_raft_node_hint; a wrong hint costs a
 * needless change, never an entry.
 */
#ifndef TRM_RUNTIME_CONSENSUS_RAFT_H
#define TRM_RUNTIME_CONSENSUS_RAFT_H

#include "runtime/bytes.h"
#include "runtime/status.h"
#include "runtime/wal.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "No node": has voted for nobody, knows no leader. */
#define TRM_RAFT_NONE TRM_WAL_VOTE_NONE
/* Voters and learners together. */
#define TRM_RAFT_NODES_MAX 64u
/* The largest encoded message; fits a message of runtime/transport.h. */
#define TRM_RAFT_MESSAGE_BYTES_MAX (256u * 1024u)
/* The largest payload of an entry: one always fits a message. */
#define TRM_RAFT_ENTRY_BYTES_MAX (TRM_RAFT_MESSAGE_BYTES_MAX - 1024u)
/* Entries in a message. */
#define TRM_RAFT_MESSAGE_ENTRIES_MAX 1024u
/* Data of a snapshot in a message: leaves room for the head and the membership. */
#define TRM_RAFT_CHUNK_BYTES_MAX (TRM_RAFT_MESSAGE_BYTES_MAX - 4096u)
/* Messages in one update. More: update.more. */
#define TRM_RAFT_UPDATE_MESSAGES_MAX 512u
/* Reads that are not answered yet. More: TRM_AGAIN. */
#define TRM_RAFT_READS_MAX 256u
/* Append messages to a node that it has not acknowledged yet, whatever the options say. */
#define TRM_RAFT_WINDOW_MESSAGES_MAX 256u
/* Terms and indexes stay below, whatever is received. */
#define TRM_RAFT_INDEX_MAX (1ull << 62)
/* The largest encoded membership; below TRM_WAL_CONFIG_BYTES_MAX. */
#define TRM_RAFT_MEMBERS_BYTES_MAX (8u + TRM_RAFT_NODES_MAX * 11u)

/* An entry as the write-ahead log stores it; `type` is a trm_raft_entry_type. */
typedef trm_wal_entry trm_raft_entry;

typedef enum trm_raft_entry_type {
    TRM_RAFT_COMMAND = 1, /* the caller's: apply it */
    TRM_RAFT_NOOP = 2,    /* a leader begins its term with it (thesis 6.4) */
    TRM_RAFT_CONFIG = 3   /* a membership: trm_raft_members_decode */
} trm_raft_entry_type;

/* ---- Membership. ---- */

typedef struct trm_raft_member {
    uint64_t node;
    bool voter; /* else a learner */
} trm_raft_member;

/* In growing order of nodes, each once. */
typedef struct trm_raft_members {
    uint32_t count;
    trm_raft_member member[TRM_RAFT_NODES_MAX];
} trm_raft_members;

/* NULL: not a member. */
const trm_raft_member *trm_raft_members_find(const trm_raft_members *self, uint64_t node);
/* Puts the node in, or gives it the other role. TRM_ELIMIT: TRM_RAFT_NODES_MAX are in. */
trm_status trm_raft_members_set(trm_raft_members *self, uint64_t node, bool voter);
/* No effect when it is not in. */
void trm_raft_members_remove(trm_raft_members *self, uint64_t node);
uint32_t trm_raft_members_voters(const trm_raft_members *self);
/* Appends the encoded membership: the payload of a TRM_RAFT_CONFIG entry and the config
 * of a snapshot. */
void trm_raft_members_encode(const trm_raft_members *self, trm_writer *out);
/* TRM_ECORRUPT on anything that trm_raft_members_encode does not write; TRM_EVERSION. */
trm_status trm_raft_members_decode(trm_raft_members *out, const void *bytes, size_t len, trm_err *err);

/* ---- Messages. ---- */

typedef enum trm_raft_message_type {
    TRM_RAFT_PRE_VOTE = 1, /* thesis 9.6 */
    TRM_RAFT_PRE_VOTE_RESULT = 2,
    TRM_RAFT_VOTE = 3, /* RequestVote, figure 3.1 */
    TRM_RAFT_VOTE_RESULT = 4,
    TRM_RAFT_APPEND = 5, /* AppendEntries, figure 3.1; without entries: a heartbeat */
    TRM_RAFT_APPEND_RESULT = 6,
    TRM_RAFT_SNAPSHOT = 7, /* InstallSnapshot, figure 5.3: one chunk */
    TRM_RAFT_SNAPSHOT_RESULT = 8,
    TRM_RAFT_TIMEOUT_NOW = 9, /* thesis 3.10 */
    TRM_RAFT_READ = 10,       /* a follower asks the leader for a read index (thesis 6.4) */
    TRM_RAFT_READ_RESULT = 11
} trm_raft_message_type;

/* Fields that a type does not name are 0 and are not sent. */
typedef struct trm_raft_message {
    trm_raft_message_type type;
    bool reject;    /* the RESULTs */
    bool force;     /* VOTE: the leader wants it so, vote although you hear from one (3.10) */
    uint64_t group; /* of the options: who is of another one is not heard */
    uint64_t from;
    uint64_t to;
    uint64_t term;       /* the sender's; PRE_VOTE and its grant: the term to be */
    uint64_t index;      /* (PRE_)VOTE: last durable entry; APPEND: the entry before; APPEND_RESULT: all up to
                            here is as the leader's and durable, or (reject) the entry before that is not
                            there; SNAPSHOT_RESULT: of the snapshot;
                            READ_RESULT: the read index */
    uint64_t log_term;   /* (PRE_)VOTE, APPEND: the term of that entry; SNAPSHOT_RESULT: of the snapshot */
    uint64_t commit;     /* APPEND: the leader's */
    uint64_t context;    /* APPEND and its result: round of heartbeats; READ and its result: the request */
    uint64_t hint_index; /* APPEND_RESULT that rejects: the last entry here that can be the same as the */
    uint64_t hint_term;  /* leader's, and its term (thesis 3.3, by terms) */
    uint64_t offset;     /* SNAPSHOT: of the chunk; SNAPSHOT_RESULT: all before it is there */
    const trm_raft_entry *entries; /* APPEND: in order, behind `index` */
    uint32_t entries_len;
    trm_wal_snapshot snapshot; /* SNAPSHOT: what the chunk is of */
    const uint8_t *data; /* SNAPSHOT: the chunk. In an update NULL: read data_len bytes at `offset` of the */
    uint32_t data_len;   /* durable snapshot and set it; when that fails, do not send the message */
} trm_raft_message;

/* Appends the encoded message. */
void trm_raft_message_encode(const trm_raft_message *message, trm_writer *out);
/* Decodes and checks all that one message shows by itself: checksum, bounds, entries that
 * follow `index` with terms that do not fall. *out points into `bytes` and into `room`,
 * an array of TRM_RAFT_MESSAGE_ENTRIES_MAX. TRM_ECORRUPT on anything that
 * trm_raft_message_encode does not write; TRM_EVERSION. */
trm_status trm_raft_message_decode(trm_raft_message *out, trm_raft_entry *room, const void *bytes, size_t len,
                                   trm_err *err);
/* "APPEND" …; "?" for a number that is none. */
const char *trm_raft_message_name(trm_raft_message_type type);

/* ---- A node. ---- */

typedef struct trm_raft trm_raft;

typedef enum trm_raft_role {
    TRM_RAFT_FOLLOWER = 1, /* and learner, and who is no member */
    TRM_RAFT_PRE_CANDIDATE = 2,
    TRM_RAFT_CANDIDATE = 3,
    TRM_RAFT_LEADER = 4
} trm_raft_role;

/* 0 in a number stands for the default behind it. */
typedef struct trm_raft_options {
    uint64_t node;
    uint64_t group;               /* such as an epoch: messages of others are dropped */
    uint64_t seed;                /* for the election timeouts; another for each node and each life */
    uint64_t election_ns;         /* 1 s. An election timeout is drawn from [election_ns, 2 * election_ns) */
    uint64_t heartbeat_ns;        /* election_ns / 10. At most election_ns / 2 */
    bool no_pre_vote;             /* leave pre-vote out (thesis 9.6): for tests */
    bool no_check_quorum;         /* leave check-quorum (6.2) and stickiness (4.2.3) out: for tests */
    uint32_t voters_wanted;       /* 0: the leader changes the membership only when asked */
    uint32_t window_messages;     /* 64. APPENDs in flight to a node, at most TRM_RAFT_WINDOW_MESSAGES_MAX */
    size_t window_bytes;          /* 1 MiB. Payload in flight to a node; one message always may be */
    size_t append_bytes_max;      /* 64 KiB. Payload of an APPEND; one entry always may be */
    size_t chunk_bytes;           /* 128 KiB. Of a snapshot, at most TRM_RAFT_CHUNK_BYTES_MAX */
    size_t uncommitted_bytes_max; /* 16 MiB. Proposed and not committed; one entry always may be */
    size_t log_bytes_max;         /* 256 MiB. Of entries in memory; above it nothing is taken until a
                                     snapshot lets the log forget */
    uint64_t keep_entries;        /* 4096. Entries that a snapshot covers and that stay in memory for
                                     followers that are a little behind; never over log_bytes_max / 4 */
} trm_raft_options;

/* What the write-ahead log held when it was opened; borrowed. */
typedef struct trm_raft_boot {
    trm_wal_hard_state hard;
    trm_wal_snapshot snapshot; /* index 0: none */
    /* The membership that the log began with, for a node whose log has no snapshot; the same
     * on all first voters, whenever they start. Empty for a learner to be. NULL: empty. */
    const trm_raft_members *first_members;
    const trm_raft_entry *entries; /* behind the snapshot, in order */
    size_t entries_len;
} trm_raft_boot;

/* A log of nothing, for boot. */
static inline void trm_raft_boot_init(trm_raft_boot *self)
{
    memset(self, 0, sizeof *self);
    self->hard.vote = TRM_RAFT_NONE;
}

/* Makes a follower that waits a whole election timeout. Copies all that it is given. The
 * state machine has been restored from boot->snapshot; entries behind it are yielded by
 * `apply` when they are committed, those that are known to be at the first take.
 * TRM_ECORRUPT: the boot state contradicts itself (a gap, terms that fall, a membership
 * that cannot be read). TRM_ENOMEM. */
trm_status trm_raft_create(trm_raft **out, const trm_raft_options *options, const trm_raft_boot *boot,
                           uint64_t now_ns, trm_err *err);
/* NULL is allowed. */
void trm_raft_destroy(trm_raft *self);

/* ---- Events. ---- */

/* Time has passed. Call it at trm_raft_wake_ns or later, when all messages that have
 * arrived have been received. TRM_ENOMEM: will be tried again at the next tick. */
trm_status trm_raft_tick(trm_raft *self, uint64_t now_ns, trm_err *err);
/* When the next tick is due. */
uint64_t trm_raft_wake_ns(const trm_raft *self);

/* Calls an election now, without waiting for a timeout: of the first voter of a new group, say.
 * No effect on who may not be elected, or leads. TRM_ENOMEM. */
trm_status trm_raft_campaign(trm_raft *self, uint64_t now_ns, trm_err *err);

/* A message has arrived. What is not for this node and group, stale, or from who must not
 * send it, is dropped and counted (TRM_OK). TRM_ENOMEM; TRM_EPEER: it contradicts what
 * Raft guarantees (another entry in a committed place, two leaders in a term); dropped:
 * some node has lost what it had acknowledged, or is not of this program. */
trm_status trm_raft_receive(trm_raft *self, const trm_raft_message *message, uint64_t now_ns, trm_err *err);

/* Appends a command to the leader's log, and sets *index and *term. It is decided when
 * `apply` yields that index with that term; when it yields the index with another
 * term, or another leader is known, it may be lost. Cheap: what is proposed between two takes
 * goes out together.
 * TRM_EFENCED: does not lead (see the state's leader). TRM_AGAIN: uncommitted_bytes_max or
 * log_bytes_max is reached, or leadership is being transferred. TRM_ENOSPACE: the disk
 * is full. TRM_ELIMIT: over TRM_RAFT_ENTRY_BYTES_MAX. TRM_ENOMEM. */
trm_status trm_raft_propose(trm_raft *self, const void *command, size_t len, uint64_t *index, uint64_t *term,
                            trm_err *err);

typedef enum trm_raft_change {
    TRM_RAFT_ADD_LEARNER = 1,
    TRM_RAFT_PROMOTE = 2, /* a learner that has caught up becomes a voter */
    TRM_RAFT_DEMOTE = 3,  /* a voter becomes a learner; it may be the leader itself */
    TRM_RAFT_REMOVE = 4   /* a voter, a learner, the leader itself */
} trm_raft_change;

/* Appends a membership change to the leader's log. Sets *index.
 * TRM_EFENCED: does not lead. TRM_AGAIN: a change is not committed yet, no entry of this
 * term is (the correction of July 2015 to thesis 4.1), the learner has not caught up,
 * leadership is being transferred, or as for propose. TRM_EPEER: the
 * change makes no sense for that node (it is in already, is not in, is the last voter).
 * TRM_ELIMIT: TRM_RAFT_NODES_MAX. TRM_ENOSPACE, TRM_ENOMEM. */
trm_status trm_raft_change_members(trm_raft *self, trm_raft_change change, uint64_t node, uint64_t *index,
                                   trm_err *err);

/* What the caller knows of a node: whether it lives, and which learners to promote first
 * (the highest; such as those on hosts without a voter). Used to choose replacements, and
 * to call an election at once when the leader is known dead; never for safety. Nodes
 * are taken as living until something else is said. Hints for more nodes than
 * 4 * TRM_RAFT_NODES_MAX are forgotten, oldest first. */
void trm_raft_node_hint(trm_raft *self, uint64_t node, bool alive, uint32_t preference, uint64_t now_ns);

/* Asks for a linearizable read (thesis 6.4, ReadIndex). update.reads yields `id` with
 * TRM_OK when the state machine, with all of the same update's `apply`, has at least what
 * was committed at this moment; or with TRM_EFENCED (the leader changed) or TRM_ETIMEOUT
 * (two election timeouts have passed): then ask again. Each call is answered once, also
 * when ids are the same. A follower asks its leader.
 * TRM_EFENCED: no leader is known. TRM_AGAIN: TRM_RAFT_READS_MAX wait. */
trm_status trm_raft_read(trm_raft *self, uint64_t id, uint64_t now_ns, trm_err *err);

/* Hands leadership to a voter (thesis 3.10): brings it up to date, then has it call an
 * election. Proposals are refused with TRM_AGAIN until it is over; update.transfer tells
 * how. A second call replaces the first. No effect when `node` leads.
 * TRM_EFENCED: does not lead. TRM_EPEER: not a voter. */
trm_status trm_raft_transfer(trm_raft *self, uint64_t node, uint64_t now_ns, trm_err *err);

/* All that updates up to this persist_sequence said is durable. */
void trm_raft_persisted(trm_raft *self, uint64_t sequence);
/* The disk is full (what could not be written is kept by the caller and tried again), or
 * has room again. Proposals are refused meanwhile. */
void trm_raft_disk_full(trm_raft *self, bool full);

/* ---- Snapshots (thesis, chapter 5). ---- */

/* What a snapshot of the state machine as it is after the last take covers: index, term and
 * membership. out->config is borrowed until the next call of this function. */
void trm_raft_snapshot_describe(trm_raft *self, trm_wal_snapshot *out);
/* The snapshot described by *meta is durable (its data_bytes set, config ignored): the log
 * forgets what it covers but for keep_entries. An index that is not above the last one is
 * ignored. While trm_raft_state.sending_snapshot, a new snapshot makes transfers begin
 * again: hold it back for some time. */
void trm_raft_snapshot_saved(trm_raft *self, const trm_wal_snapshot *meta);
/* The end of what update.snapshot.install began. TRM_OK: the
 * snapshot is durable, the state machine has been restored from it. Anything else: it
 * was not; everything is as before, the leader will send it again. */
void trm_raft_snapshot_installed(trm_raft *self, trm_status status);

/* ---- What is to be done. ---- */

typedef enum trm_raft_snapshot_op {
    TRM_RAFT_SNAPSHOT_NOTHING = 0,
    TRM_RAFT_SNAPSHOT_BEGIN = 1, /* drop what was begun (also one of this node's own making), begin
                                    `meta`, then write the chunk */
    TRM_RAFT_SNAPSHOT_WRITE = 2, /* write the chunk behind the last */
    TRM_RAFT_SNAPSHOT_ABORT = 3  /* drop what was begun by BEGIN; what it covers has come as entries, maybe
                                    with nobody left to send the rest */
} trm_raft_snapshot_op;

/* A chunk that has arrived. */
typedef struct trm_raft_snapshot_work {
    trm_raft_snapshot_op op;
    trm_wal_snapshot meta;
    uint64_t offset;
    const uint8_t *data; /* points into the message that was received last */
    size_t data_len;
    bool install; /* it is whole: after the write, and after all entries of earlier updates have been
                     written, make it durable, restore the state machine from it, and call
                     trm_raft_snapshot_installed. Until then `apply` yields nothing */
} trm_raft_snapshot_work;

typedef struct trm_raft_read_done {
    uint64_t id;
    trm_status status;
} trm_raft_read_done;

typedef struct trm_raft_update {
    /* To persist; 0: nothing. Grows by one with every update that has something. */
    uint64_t persist_sequence;
    bool hard_changed; /* `hard` is to be persisted, before the entries */
    trm_wal_hard_state hard;
    /* In order. The first may be at an index that is there: it voids what is at it and
     * behind. (Nothing is ever truncated without an entry that takes the place.) */
    const trm_raft_entry *entries;
    size_t entries_len;
    /* Each may be sent at once. */
    const trm_raft_message *messages;
    size_t messages_len;
    /* Committed and durable here, in order, each once in a life; all types, of which the
     * caller's are TRM_RAFT_COMMAND. They are taken as applied. */
    const trm_raft_entry *apply;
    size_t apply_len;
    const trm_raft_read_done *reads; /* to be answered after `apply` */
    size_t reads_len;
    trm_raft_snapshot_work snapshot;
    /* A transfer that was asked for here has ended. TRM_OK: another leads or this node has stepped
     * down; TRM_ETIMEOUT: the time of an election has passed, this node goes on leading; TRM_EPEER: its
     * target is no voter any more. TRM_AGAIN: none has ended. */
    trm_status transfer;
    bool role_changed; /* role, leader or term are not those of the last update: see trm_raft_state_get */
    bool more;         /* call trm_raft_take again before the next event */
} trm_raft_update;

/* Takes what the events since the last take have made necessary. False: nothing. Must be
 * called after each receive of a SNAPSHOT before the message's bytes go. */
bool trm_raft_take(trm_raft *self, trm_raft_update *out);

/* ---- What there is to see. ---- */

typedef struct trm_raft_counts {
    uint64_t elections; /* begun here, pre-votes not counted */
    uint64_t elections_won;
    uint64_t stepped_down;     /* for want of a quorum */
    uint64_t messages_dropped; /* foreign, stale or nonsense */
    uint64_t messages_refused; /* TRM_EPEER */
    uint64_t results_lost;     /* answers for which there was no room while the disk was slow */
    uint64_t appends_rejected; /* by followers of this leader */
    uint64_t snapshots_sent;   /* whole */
    uint64_t snapshots_installed;
    uint64_t changes; /* of the membership, begun here */
} trm_raft_counts;

typedef struct trm_raft_state {
    uint64_t node;
    trm_raft_role role;
    uint64_t term;
    uint64_t vote;
    uint64_t leader; /* TRM_RAFT_NONE: none known */
    uint64_t commit;
    uint64_t applied;
    uint64_t first; /* in memory; first == last + 1: none */
    uint64_t last;
    uint64_t durable;        /* of the entries up to last */
    uint64_t snapshot_index; /* of the newest durable snapshot */
    size_t log_bytes;
    size_t uncommitted_bytes; /* leader */
    uint64_t transfer_to;     /* TRM_RAFT_NONE: no transfer is on the way */
    bool term_committed;      /* leader: an entry of its term is committed; it may change members */
    bool change_pending;      /* the newest membership is not committed yet */
    bool sending_snapshot;    /* leader */
    bool installing;          /* between update.snapshot.install and trm_raft_snapshot_installed */
    trm_raft_counts counts;
} trm_raft_state;

void trm_raft_state_get(const trm_raft *self, trm_raft_state *out);
/* The newest membership in the log, committed or not: the one in effect (thesis 4.1).
 * Valid until the next event. */
const trm_raft_members *trm_raft_members_now(const trm_raft *self);
/* The entry at first <= index <= last, until the next event; false: not in memory. */
bool trm_raft_entry_at(const trm_raft *self, uint64_t index, trm_raft_entry *out);

typedef enum trm_raft_peer_mode {
    TRM_RAFT_PROBE = 1,     /* one message at a time, until the place is found */
    TRM_RAFT_REPLICATE = 2, /* a window of messages ahead of the answers */
    TRM_RAFT_SEND_SNAPSHOT = 3
} trm_raft_peer_mode;

/* What the leader knows of another member. */
typedef struct trm_raft_peer {
    uint64_t node;
    bool voter;
    bool alive;  /* as hinted */
    bool active; /* has answered within the last election timeout */
    trm_raft_peer_mode mode;
    uint64_t match; /* durable there up to here */
    uint64_t next;
    uint32_t window_messages; /* in flight */
    size_t window_bytes;
    uint64_t snapshot_offset; /* acknowledged, in TRM_RAFT_SEND_SNAPSHOT */
    bool caught_up;           /* a learner that may be promoted */
} trm_raft_peer;

/* False: does not lead, or `node` is this node or no member. */
bool trm_raft_peer_get(const trm_raft *self, uint64_t node, trm_raft_peer *out);

const char *trm_raft_role_name(trm_raft_role role);

#endif
