/* This rank's part in the replicated log: whether it has one, and who leads.
 *
 *     BEGIN ─▶ one of the first voters: its log is there ─▶ follower, or leader
 *          └─▶ not among them: learns from the leader's PULSE who that is; a first message of
 *              the log makes it a learner, with a log that begins with nothing
 *
 * Ranks never come back, so the leader sees to it that there are always some learners that have
 * caught up: the core promotes one when a voter is dead.
 *
 * Part of the control loop; only begin and the first message block, to open the log. */
#ifndef TRM_TOOL_NODE_H
#define TRM_TOOL_NODE_H

#include "jobs/spec.h"
#include "jobs/wire.h"
#include "runtime/consensus/raft.h"
#include "scheduler/replica.h"
#include "tool/ground.h"

#define TRM_VOTERS_DEFAULT 5u
#define TRM_SPARE_LEARNERS 2u
#define TRM_TEND_MS 100u     /* between two looks at who is to be a member */
#define TRM_RELIEVE_MS 2000u /* a leader's disk is full for so long, and between two tries to hand over */

typedef struct trm_node trm_node;

typedef struct trm_node_state {
    bool begun; /* BEGIN has come: the epoch is known */
    uint64_t epoch;
    bool elected;    /* this rank, by a majority */
    bool leads;      /* … and all that was decided before is in the replica */
    uint32_t leader; /* TRM_REPLOG_NOBODY: none is known */
    uint64_t term;   /* … its term */
    bool leaderless; /* this rank has a log, and nobody is known who leads it now */
} trm_node_state;

/* Who lives, for the leader: asked of every rank that could become a learner. */
typedef bool (*trm_node_lives_cb)(void *context, uint32_t rank);

/* Borrows its arguments. TRM_ENOMEM. */
trm_status trm_node_create(trm_node **out, const trm_spec *spec, const trm_ground *ground, trm_err *err);
void trm_node_destroy(trm_node *self); /* writes what is to be written; NULL is fine */

/* BEGIN has come, with this epoch. A second one is ignored. */
trm_status trm_node_begin(trm_node *self, uint64_t epoch, const trm_begin *begin, uint64_t now_ns,
                          trm_err *err);
/* Whether it is a message of the log, taken or dropped; else it is a frame of jobs/wire.h. */
bool trm_node_receive(trm_node *self, uint32_t from, const uint8_t *bytes, size_t len, uint64_t now_ns);
/* `from` says that it leads, in this epoch and term, and who votes now. */
void trm_node_hear_leader(trm_node *self, uint32_t from, uint64_t epoch, uint64_t term,
                          const trm_leads *leads);
/* The process of a rank is gone for good. */
void trm_node_rank_dead(trm_node *self, uint32_t rank, uint64_t now_ns);
/* Moves the log on while no master does. TRM_OK, or why the log has failed for good. */
bool trm_node_step(trm_node *self, uint64_t now_ns, uint64_t *wake_ns);
/* On the leader: adds learners, lets go of dead ones. */
void trm_node_tend(trm_node *self, trm_node_lives_cb lives, void *context, uint64_t now_ns,
                   uint64_t *wake_ns);

/* Whether the voters that do not go are a majority: the log moves on without the others. */
bool trm_node_may_lose(const trm_node *self, const uint8_t *going);
/* On the leader: asks a voter that does not go to take the lead. False: there is none. */
bool trm_node_hand_over(trm_node *self, const uint8_t *going, uint64_t now_ns);

/* On the leader: while its disk has no room, asks a voter that has written what was not written here to take
 * the lead, once in TRM_RELIEVE_MS. Where all write to one file system nobody has, and it waits for room. */
void trm_node_relieve(trm_node *self, uint64_t now_ns, uint64_t *wake_ns);

void trm_node_state_get(const trm_node *self, trm_node_state *out);
uint32_t trm_node_voters(const trm_node *self); /* how many the log has; 0: not known here */
bool trm_node_is_voter(const trm_node *self, uint32_t rank);
/* Whether so many voters are `dead` (one byte a rank) that nobody can ever be elected; on a rank without a
 * log, of those that it was told of last. */
bool trm_node_is_lost(const trm_node *self, const uint8_t *dead);
/* NULL: this rank has no log. */
trm_replica *trm_node_replica(trm_node *self);
int trm_node_fd(const trm_node *self);

/* The first voters of a launch, spread over hosts, and some learners: `host` has a number for each of
 * `ranks`, UINT32_MAX for one that is not to be a member. Returns how many voters are wanted: the
 * largest odd number up to `most` (0: TRM_VOTERS_DEFAULT) that there are ranks for. */
uint32_t trm_node_choose(const uint32_t *host, uint32_t ranks, uint32_t most, trm_raft_members *out);

#endif
