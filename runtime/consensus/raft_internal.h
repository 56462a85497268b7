/* What the files of the Raft core share. See raft.h.
 *
 *   raft.c            creation, terms and roles, receive, tick, take
 *   raft_election.c   pre-votes, votes, winning (thesis 3.4, 3.6.1, 4.2.3, 9.6)
 *   raft_replicate.c  appending, on both sides, and commitment (3.5, 3.6.2)
 *   raft_progress.c   what the leader knows of each member
 *   raft_config.c     membership (chapter 4)
 *   raft_snapshot.c   snapshots, on both sides (chapter 5)
 *   raft_read.c       linearizable reads (6.4)
 *   raft_transfer.c   handing leadership over (3.10)
 *   raft_log.c        the log in memory
 *   raft_message.c    the bytes of a message
 */
#ifndef TRM_RUNTIME_CONSENSUS_RAFT_INTERNAL_H
#define TRM_RUNTIME_CONSENSUS_RAFT_INTERNAL_H

#include "runtime/consensus/raft.h"
#include "runtime/consensus/raft_log.h"

/* Small messages that wait for a take, or for the disk. */
#define RAFT_PENDING_MAX 256u
#define RAFT_HURRIES_MAX 8u /* elections in a row that wait for a part of a timeout only: … */
#define RAFT_HURRY_PART 4u  /* … for a fourth */
#define RAFT_HINTS_MAX (4u * TRM_RAFT_NODES_MAX)
/* Chunks of a snapshot in flight. */
#define RAFT_CHUNKS_AHEAD 4u
/* A time that never comes. */
#define RAFT_NEVER UINT64_MAX

typedef struct raft_pending {
    uint64_t after; /* the persist_sequence that must be durable first; 0: none */
    trm_raft_message message;
} raft_pending;

/* An APPEND in flight. */
typedef struct raft_flight {
    uint64_t last;
    size_t bytes;
} raft_flight;

/* Another member, as the leader sees it. */
typedef struct raft_peer {
    uint64_t node;
    bool voter;
    trm_raft_peer_mode mode;
    uint64_t match;
    uint64_t next;
    uint64_t heard_ns; /* last answer in this term; the begin of it counts as one */
    uint64_t round;    /* the newest round of heartbeats that it has answered */
    uint64_t commit_told;
    bool probe_sent; /* TRM_RAFT_PROBE: wait for the answer */
    bool heartbeat_due;
    uint32_t slot; /* its window is flights[slot * window_messages …] */
    uint32_t window_head;
    uint32_t window_len;
    size_t window_bytes;
    uint64_t snapshot_index; /* TRM_RAFT_SEND_SNAPSHOT: of the one being sent */
    uint64_t snapshot_acked;
    uint64_t snapshot_next; /* offset of the next chunk */
    bool snapshot_all_sent;
    uint64_t snapshot_moved_ns;
    uint64_t snapshot_resume_ns; /* nothing before */
} raft_peer;

typedef struct raft_hint {
    uint64_t node;
    bool alive;
    uint32_t preference;
} raft_hint;

typedef struct raft_read {
    uint64_t id;
    uint64_t from;    /* who asked; this node: a read of its own */
    uint64_t context; /* of the asker's message; on a follower: of its own to the leader */
    uint64_t round;   /* leader: that must be answered by a quorum; 0: not begun */
    uint64_t index;   /* once it is known; 0: not yet */
    uint64_t deadline_ns;
    bool confirmed;
} raft_read;

/* A snapshot that arrives. */
typedef struct raft_incoming {
    bool active;
    uint64_t from;
    uint64_t index;
    uint64_t term;
    uint64_t data_bytes;
    uint64_t received;
    trm_raft_members members;
} raft_incoming;

struct trm_raft {
    trm_raft_options options;
    uint64_t random;
    uint64_t now_ns;

    /* Hard state and what has become of it. */
    uint64_t term;
    uint64_t vote;
    bool hard_dirty;        /* term and vote are not handed out yet */
    uint64_t hard_sequence; /* the write that makes them durable */
    uint64_t hard_commit;   /* as handed out */
    uint64_t sequence;      /* of the last update that had something to persist */
    uint64_t persisted;

    trm_raft_role role;
    uint64_t leader;
    trm_raft_role role_told; /* in the last update */
    uint64_t leader_told;
    uint64_t term_told;

    raft_log log;
    uint64_t commit;
    uint64_t applied;
    bool disk_full;

    trm_raft_members base_members; /* at log.base_index */
    trm_raft_members members;      /* the newest */
    uint64_t members_index;        /* of its entry */

    trm_wal_snapshot snapshot; /* the newest durable one; config points to snapshot_config */
    uint8_t snapshot_config[TRM_RAFT_MEMBERS_BYTES_MAX];
    uint8_t described_config[TRM_RAFT_MEMBERS_BYTES_MAX];

    /* Follower, candidate. */
    uint64_t election_at_ns;
    uint64_t waited_for; /* members whose pre-vote was given time, since a leader or a term came */
    uint32_t hurries;    /* elections that need not wait long for the next: the leader is known to be dead */
    uint64_t heard_ns;   /* from a leader; RAFT_NEVER: not */
    uint64_t verified;   /* the log is as the leader's up to here (in this term) */
    uint64_t acked;      /* told the leader of */
    bool ack_due;
    uint64_t ack_context;
    bool counted_on; /* since a leader was heard: a candidate with an older log takes this node for a voter */
    bool own_vote_counted;
    uint64_t granted; /* bits: members by place */
    uint64_t refused;
    bool campaign_forced;
    raft_incoming incoming;
    bool installing;
    trm_raft_snapshot_work work;

    /* Leader. */
    uint64_t term_start; /* index of its TRM_RAFT_NOOP */
    uint64_t heartbeat_at_ns;
    size_t uncommitted_bytes;
    raft_peer peers[TRM_RAFT_NODES_MAX];
    uint32_t peers_len;
    raft_flight *flights;
    uint64_t round; /* of heartbeats, for reads */
    uint64_t transfer_to;
    uint64_t transfer_until_ns;
    bool transfer_asked;       /* TIMEOUT_NOW is sent */
    trm_status transfer_ended; /* TRM_AGAIN: not */

    raft_read reads[TRM_RAFT_READS_MAX];
    uint32_t reads_len;
    uint64_t read_context; /* of the last READ sent */
    trm_raft_read_done reads_done[TRM_RAFT_READS_MAX];
    uint32_t reads_done_len;

    raft_hint hints[RAFT_HINTS_MAX];
    uint32_t hints_len;

    raft_pending pending[RAFT_PENDING_MAX];
    uint32_t pending_len;
    trm_raft_message out[TRM_RAFT_UPDATE_MESSAGES_MAX];
    uint32_t out_len;
    bool out_more;

    trm_raft_counts counts;
};

/* ---- raft.c ---- */
/* Begins a later term, without a vote; or, in the same term, gives up a candidacy or
 * leadership. */
void raft_become_follower(trm_raft *self, uint64_t term, uint64_t leader);
/* Term and vote as they will be; durable before anything that depends on them leaves. */
void raft_set_hard(trm_raft *self, uint64_t term, uint64_t vote);
/* The write after which term and vote are durable; 0: they are. */
uint64_t raft_hard_after(const trm_raft *self);
void raft_reset_election_timer(trm_raft *self);
void raft_postpone_election(trm_raft *self); /* by a part of a timeout, from now on */
/* A message from this node in this term, without content. */
trm_raft_message raft_message_to(const trm_raft *self, trm_raft_message_type type, uint64_t to);
/* Leaves with the first take after the write `after` is durable. */
void raft_send(trm_raft *self, const trm_raft_message *message, uint64_t after);
/* The place in this update for a message with a payload; NULL: the update is full. */
trm_raft_message *raft_out(trm_raft *self);
void raft_drop(trm_raft *self);
const raft_hint *raft_hint_find(const trm_raft *self, uint64_t node);
bool raft_believed_alive(const trm_raft *self, uint64_t node);

/* ---- raft_election.c ---- */
bool raft_may_campaign(const trm_raft *self);
/* The election timeout is over, or (`forced`) the leader asks for it. */
trm_status raft_campaign(trm_raft *self, bool forced, trm_err *err);
/* Whether a vote must be refused because a leader is heard from (thesis 4.2.3). */
bool raft_is_sticky(const trm_raft *self);
void raft_on_vote(trm_raft *self, const trm_raft_message *message);
trm_status raft_on_vote_result(trm_raft *self, const trm_raft_message *message, trm_err *err);
/* The write of term and vote has come to its end: the own vote counts. */
void raft_own_vote_is_durable(trm_raft *self);

/* ---- raft_replicate.c ---- */
trm_status raft_append_own(trm_raft *self, trm_raft_entry_type type, const void *payload, size_t len,
                           trm_err *err);
trm_status raft_on_append(trm_raft *self, const trm_raft_message *message, trm_err *err);
trm_status raft_on_append_result(trm_raft *self, const trm_raft_message *message, trm_err *err);
/* Commits what a quorum has (leader). */
void raft_advance_commit(trm_raft *self);
void raft_set_commit(trm_raft *self, uint64_t commit);
/* Fills the update with what each peer is to be sent (leader). */
void raft_fill_appends(trm_raft *self);
/* Fills in the acknowledgement that is due (follower). */
void raft_fill_ack(trm_raft *self);
void raft_on_durable(trm_raft *self);

/* ---- raft_progress.c ---- */
raft_peer *raft_peer_find(const trm_raft *self, uint64_t node);
void raft_peer_init(trm_raft *self, raft_peer *peer, uint64_t node, bool voter, uint32_t slot);
/* Makes the peers those of the membership. */
void raft_peers_follow_members(trm_raft *self);
void raft_peer_probe(raft_peer *peer, uint64_t next);
void raft_peer_replicate(raft_peer *peer);
void raft_peer_send_snapshot(trm_raft *self, raft_peer *peer);
bool raft_peer_window_full(const trm_raft *self, const raft_peer *peer);
void raft_peer_window_add(trm_raft *self, raft_peer *peer, uint64_t last, size_t bytes);
void raft_peer_window_free(trm_raft *self, raft_peer *peer, uint64_t match);
bool raft_peer_active(const trm_raft *self, const raft_peer *peer);
bool raft_peer_caught_up(const trm_raft *self, const raft_peer *peer);
/* The highest value that a quorum of the voters has reached, when this node has `own`. */
uint64_t raft_quorum_match(const trm_raft *self, uint64_t own);
uint64_t raft_quorum_round(const trm_raft *self, uint64_t own);
bool raft_quorum_active(const trm_raft *self);

/* ---- raft_config.c ---- */
bool raft_is_voter(const trm_raft *self, uint64_t node);
uint32_t raft_quorum(const trm_raft *self);
/* The membership as of the entry at base_index <= index <= last. */
void raft_members_at(const trm_raft *self, uint64_t index, trm_raft_members *out);
/* Takes the newest membership from the log, after it has changed from `from` on. */
void raft_members_refresh(trm_raft *self, uint64_t from);
/* What follows from a committed membership (leader). */
void raft_members_committed(trm_raft *self);
/* Replaces the dead (leader, voters_wanted). */
trm_status raft_mend(trm_raft *self, trm_err *err);

/* ---- raft_snapshot.c ---- */
void raft_snapshot_set(trm_raft *self, uint64_t index, uint64_t term, uint64_t data_bytes,
                       const trm_raft_members *members);
/* Lets the log forget what the snapshot covers but for what is kept. */
void raft_compact(trm_raft *self);
/* Drops what comes in and is of no use any more. */
void raft_snapshot_step(trm_raft *self);
trm_status raft_on_snapshot(trm_raft *self, const trm_raft_message *message, trm_err *err);
void raft_on_snapshot_result(trm_raft *self, const trm_raft_message *message);
void raft_fill_chunks(trm_raft *self, raft_peer *peer);

/* ---- raft_read.c ---- */
void raft_on_read(trm_raft *self, const trm_raft_message *message);
void raft_on_read_result(trm_raft *self, const trm_raft_message *message);
/* Gives reads that wait for one a round of heartbeats (leader). */
void raft_reads_begin_round(trm_raft *self);
/* Takes what a quorum has confirmed (leader). */
void raft_reads_confirm(trm_raft *self);
/* The leader or the term is another: what is not confirmed fails. */
void raft_reads_fail(trm_raft *self);
void raft_reads_expire(trm_raft *self);
uint64_t raft_reads_wake_ns(const trm_raft *self);
/* Moves what is confirmed and applied to reads_done. */
void raft_reads_finish(trm_raft *self);

/* ---- raft_transfer.c ---- */
trm_status raft_on_timeout_now(trm_raft *self, const trm_raft_message *message, trm_err *err);
/* Sends TIMEOUT_NOW when the target has everything (leader). */
void raft_transfer_step(trm_raft *self);
void raft_transfer_tick(trm_raft *self);
void raft_transfer_end(trm_raft *self, trm_status how);

#endif
