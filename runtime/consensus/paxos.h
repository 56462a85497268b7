/* Single-decree Paxos (Lamport, "Paxos Made Simple", 2001, section 2): one value, decided
 * once, by a majority of durable stores. Here it decides which launch of a job owns the
 * next epoch of its state. (A log is Raft's.)
 *
 *   proposer            acceptor (a store)
 *   PREPARE b    ──►    promises not to answer ballots below b        phase 1
 *                ◄──    PROMISE b, with the ballot and value last accepted
 *   ACCEPT b, v  ──►    accepts v, unless it has promised more        phase 2
 *                ◄──    ACCEPTED b
 *                ◄──    REFUSED b, with the ballot that was promised, in either phase
 *
 * No I/O: messages in, messages out; time and randomness are passed in. All structs are
 * plain data and may be copied. One thread at a time.
 *
 * Rules beside the paper's: a ballot is (round, node) and node is of one proposer in one
 * life (draw it), so that no ballot is ever used twice. Every message names the store it
 * is for or from by an id that was drawn when the store was made: a store that was wiped
 * has another id and cannot answer for the old one. An acceptor's state is durable before
 * its answer leaves (paxos_store.h does so).
 */
#ifndef TRM_RUNTIME_CONSENSUS_PAXOS_H
#define TRM_RUNTIME_CONSENSUS_PAXOS_H

#include "runtime/bytes.h"
#include "runtime/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRM_PAXOS_ACCEPTORS_MAX 31u
#define TRM_PAXOS_VALUE_BYTES_MAX 1024u
/* The largest encoded message. */
#define TRM_PAXOS_MESSAGE_BYTES_MAX (TRM_PAXOS_VALUE_BYTES_MAX + 128u)
/* Rounds stay below, whatever is received. */
#define TRM_PAXOS_ROUND_MAX (1ull << 62)

typedef struct trm_ballot {
    uint64_t round; /* 0: none */
    uint64_t node;
} trm_ballot;

/* < 0, 0, > 0, by round, then by node. */
static inline int trm_ballot_compare(trm_ballot a, trm_ballot b)
{
    if (a.round != b.round)
        return a.round < b.round ? -1 : 1;
    return a.node < b.node ? -1 : a.node > b.node;
}

typedef struct trm_paxos_value {
    uint32_t len;
    uint8_t bytes[TRM_PAXOS_VALUE_BYTES_MAX];
} trm_paxos_value;

typedef enum trm_paxos_type {
    TRM_PAXOS_PREPARE = 1,
    TRM_PAXOS_PROMISE = 2,
    TRM_PAXOS_ACCEPT = 3,
    TRM_PAXOS_ACCEPTED = 4,
    TRM_PAXOS_REFUSED = 5
} trm_paxos_type;

typedef struct trm_paxos_message {
    trm_paxos_type type;
    uint64_t register_id;  /* what is decided: a job's epoch */
    uint64_t store_id;     /* the acceptor that it is for or from */
    trm_ballot ballot;     /* of the proposer's request */
    trm_ballot other;      /* PROMISE: of the accepted value, round 0: none; REFUSED: promised */
    trm_paxos_value value; /* ACCEPT; PROMISE when other.round is not 0 */
} trm_paxos_message;

/* Appends the encoded message. */
void trm_paxos_encode(const trm_paxos_message *message, trm_writer *out);
/* TRM_ECORRUPT on anything that trm_paxos_encode does not write; TRM_EVERSION. */
trm_status trm_paxos_decode(trm_paxos_message *out, const void *bytes, size_t len, trm_err *err);

/* ---- Acceptor. ---- */

typedef struct trm_paxos_acceptor {
    uint64_t store_id;
    uint64_t register_id;
    trm_ballot promised;
    trm_ballot accepted; /* round 0: nothing */
    trm_paxos_value value;
} trm_paxos_acceptor;

typedef enum trm_paxos_action {
    TRM_PAXOS_DROP,   /* not for this store and register, or not a request: no answer */
    TRM_PAXOS_ANSWER, /* the state is unchanged: send the answer */
    TRM_PAXOS_PERSIST /* make *next durable, then take it as the state, then send the answer */
} trm_paxos_action;

/* A register nobody has written. */
void trm_paxos_acceptor_init(trm_paxos_acceptor *self, uint64_t store_id, uint64_t register_id);
/* What an acceptor in state `self` does on a request: its next state and its answer
 * ("Paxos Made Simple", 2.2, phases 1b and 2b). Changes nothing by itself, so that a
 * failed write leaves the acceptor as it was. */
trm_paxos_action trm_paxos_acceptor_step(const trm_paxos_acceptor *self, const trm_paxos_message *request,
                                         trm_paxos_acceptor *next, trm_paxos_message *answer);

/* ---- Proposer. ---- */

typedef enum trm_paxos_phase {
    TRM_PAXOS_PREPARING = 1,
    TRM_PAXOS_ACCEPTING = 2,
    TRM_PAXOS_WAITING = 3, /* backing off before the next round */
    TRM_PAXOS_DECIDED = 4
} trm_paxos_phase;

typedef struct trm_paxos_proposer_config {
    uint64_t register_id;
    uint64_t node;             /* drawn for this proposer in this life: never used before nor after */
    const uint64_t *store_ids; /* of all acceptors, whether they can be reached or not */
    uint32_t acceptors;        /* 1 to TRM_PAXOS_ACCEPTORS_MAX */
    const uint8_t *value;
    uint32_t value_len;
    uint64_t timeout_ns; /* for a phase; then a new round */
    uint64_t backoff_ns; /* of the first back-off at most; it doubles up to 64 times that */
    uint64_t seed;
} trm_paxos_proposer_config;

typedef struct trm_paxos_proposer {
    uint64_t register_id;
    uint64_t node;
    uint64_t timeout_ns;
    uint64_t backoff_ns;
    uint64_t random;
    uint32_t acceptors;
    uint64_t store_ids[TRM_PAXOS_ACCEPTORS_MAX];
    trm_paxos_phase phase;
    trm_ballot ballot;
    trm_ballot best;      /* of the values in promises */
    uint64_t round_seen;  /* the highest that anybody has named */
    uint32_t to_send;     /* bits: acceptors that the request of this phase goes to */
    uint32_t agreed;      /* bits: answered with PROMISE or ACCEPTED */
    uint32_t refused;     /* bits */
    uint32_t failures;    /* rounds that came to nothing */
    uint64_t deadline_ns; /* trm_paxos_proposer_tick is due */
    trm_paxos_value own;
    trm_paxos_value value; /* proposed in phase 2; the decided one in the end */
} trm_paxos_proposer;

/* Begins the first round. Copies all of config. */
void trm_paxos_proposer_init(trm_paxos_proposer *self, const trm_paxos_proposer_config *config,
                             uint64_t now_ns);
/* The next message to send and the acceptor (index in store_ids) that it is for; false:
 * none now. A message that cannot be sent may be lost. */
bool trm_paxos_proposer_next(trm_paxos_proposer *self, uint32_t *acceptor, trm_paxos_message *out);
/* Takes an answer. Anything else, or of another ballot, is ignored. */
void trm_paxos_proposer_receive(trm_paxos_proposer *self, const trm_paxos_message *answer, uint64_t now_ns);
/* Call when now_ns >= deadline_ns: a phase took too long, or a back-off is over. */
void trm_paxos_proposer_tick(trm_paxos_proposer *self, uint64_t now_ns);
/* Whether the register is decided, as this proposer knows; *own: it is its own value
 * that won. The value is self->value. Stays so for ever. */
bool trm_paxos_proposer_decided(const trm_paxos_proposer *self, bool *own);

#endif
