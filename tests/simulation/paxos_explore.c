/* Single-decree Paxos, explored exhaustively in a small configuration: every order of
 * every delivery, duplicate, loss, time-out and proposer crash, up to the bounds.
 *
 * Requests are a set that only grows: one may be delivered any number of times, at any
 * time, or never, which covers delay, reordering, duplication, and loss. An answer comes
 * at once or never. That leaves nothing out: a proposer only counts answers, so an early
 * one enables no less than a late one (what it sends upon it can be delayed itself), a
 * late one behind a quorum is one that was lost, and a refusal does what a time-out does,
 * which may happen at any time.
 * A crash of an acceptor adds nothing: before its write it is a request lost, after it
 * an answer lost; its state is what it has been told to persist. A proposer that crashes
 * comes back as another (it never uses a ballot of an earlier life).
 *
 * In every state: two values are never chosen (agreement), what is chosen was proposed
 * (validity), what a proposer believes decided is chosen, and stays.
 *
 * States that differ only in the names of the acceptors, or in what can have no effect
 * any more, are one.
 *
 *   paxos_explore [BALLOTS [CRASHES]]    bounds: ballots begun, crashes of proposers
 */
#include "runtime/consensus/paxos.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ACCEPTORS 3u
#define PROPOSERS 2u
#define MESSAGES_MAX 256u
#define BALLOTS_MAX 16u
#define REGISTER 7u

typedef struct state {
    trm_paxos_acceptor acceptors[ACCEPTORS];
    trm_paxos_proposer proposers[PROPOSERS];
    uint8_t begun; /* ballots */
    uint8_t lives[PROPOSERS];
    uint8_t crashes;
    uint64_t network[MESSAGES_MAX / 64];
    /* History: who has ever accepted what. */
    uint32_t ballots;
    trm_ballot ballot[BALLOTS_MAX];
    uint8_t votes[BALLOTS_MAX];
    uint8_t proposed[BALLOTS_MAX]; /* first byte of the value */
} state;

static uint32_t begun_max = 3, crashes_max = 1;
static const uint64_t store_ids[ACCEPTORS] = {101, 102, 103};

/* Every message ever sent has a number. */
static struct {
    uint8_t bytes[64];
    size_t len;
    uint32_t to; /* acceptor */
    trm_ballot ballot;
    uint64_t kind; /* all of it but the acceptor */
} messages[MESSAGES_MAX];
static uint32_t messages_len;

static uint64_t *seen;
static size_t seen_capacity = 1 << 16, seen_len;
static uint64_t states, transitions, chosen_states, decided_own, decided_other;

static void fail(const char *what)
{
    fprintf(stderr,
            "paxos_explore: %s, after %" PRIu64
            " states\nreplay with: tests/simulation/paxos_explore %u %u\n",
            what, states, begun_max, crashes_max);
    exit(1);
}

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * 0xff51afd7ed558ccdull;
    return hash ^ (hash >> 32);
}

static uint64_t mix_ballot(uint64_t hash, trm_ballot ballot)
{
    return mix(mix(hash, ballot.round), ballot.node);
}

static uint64_t mix_value(uint64_t hash, const trm_paxos_value *value)
{
    return mix(mix(hash, value->len), value->len ? value->bytes[0] : 0);
}

/* The bits of `bits`, each moved to where its acceptor is. */
static uint64_t permuted(uint64_t bits, const uint8_t order[ACCEPTORS])
{
    uint64_t out = 0;
    for (uint32_t i = 0; i < ACCEPTORS; i++)
        out |= (bits >> order[i] & 1) << i;
    return out;
}

static uint64_t hash_in_order(const state *self, const uint8_t order[ACCEPTORS])
{
    uint64_t hash = 0x1234567887654321ull, requests[ACCEPTORS] = {0}, ballots = 0;
    for (uint32_t i = 0; i < ACCEPTORS; i++) {
        const trm_paxos_acceptor *acceptor = &self->acceptors[order[i]];
        hash = mix_ballot(hash, acceptor->promised);
        hash = mix_ballot(hash, acceptor->accepted);
        hash = mix_value(hash, &acceptor->value);
    }
    for (uint32_t i = 0; i < PROPOSERS; i++) {
        const trm_paxos_proposer *proposer = &self->proposers[i];
        hash = mix_ballot(hash, proposer->ballot);
        hash = mix_ballot(hash, proposer->best);
        hash = mix_value(hash, &proposer->value);
        hash = mix(hash, proposer->phase * 31 + proposer->round_seen * 1009);
        hash = mix(hash, permuted(proposer->agreed, order) << 32 | permuted(proposer->refused, order));
        hash = mix(hash, self->lives[i]);
    }
    /* Sums, because the order in which things were first seen does not matter. */
    for (uint32_t i = 0; i < messages_len; i++)
        if (self->network[i / 64] >> (i % 64) & 1)
            requests[messages[i].to] += mix(messages[i].kind, 77);
    for (uint32_t i = 0; i < ACCEPTORS; i++)
        hash = mix(hash, requests[order[i]]);
    for (uint32_t i = 0; i < self->ballots; i++)
        if (self->votes[i])
            ballots += mix(mix_ballot(5, self->ballot[i]), permuted(self->votes[i], order));
    return mix(mix(hash, ballots), (uint64_t)self->begun << 8 | self->crashes) | 1;
}

static uint64_t hash_of(const state *self)
{
    static const uint8_t orders[6][ACCEPTORS] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                                 {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < 6; i++) {
        uint64_t hash = hash_in_order(self, orders[i]);
        least = hash < least ? hash : least;
    }
    return least;
}

/* Whether the proposer of `ballot` still waits for answers to it. */
static bool is_current(const state *self, trm_ballot ballot)
{
    const trm_paxos_proposer *proposer = &self->proposers[(ballot.node - 1) % PROPOSERS];
    return trm_ballot_compare(proposer->ballot, ballot) == 0 &&
           (proposer->phase == TRM_PAXOS_PREPARING || proposer->phase == TRM_PAXOS_ACCEPTING);
}

/* Forgets what can have no effect any more: requests that would be refused and whose
 * proposer does not listen; votes for ballots that can no longer be chosen (a chosen one
 * has been checked and stays in the sum). */
static void forget_dead(state *self)
{
    for (uint32_t i = 0; i < messages_len; i++)
        if (trm_ballot_compare(messages[i].ballot, self->acceptors[messages[i].to].promised) < 0 &&
            !is_current(self, messages[i].ballot))
            self->network[i / 64] &= ~(1ull << (i % 64));
    for (uint32_t i = 0; i < self->ballots; i++) {
        int may_vote = 0;
        for (uint32_t j = 0; j < ACCEPTORS; j++)
            may_vote += (self->votes[i] >> j & 1) ||
                        trm_ballot_compare(self->acceptors[j].promised, self->ballot[i]) <= 0;
        if (may_vote < 2)
            self->votes[i] = 0;
    }
}

static bool seen_add(uint64_t hash)
{
    if (2 * seen_len >= seen_capacity) {
        uint64_t *old = seen;
        size_t old_capacity = seen_capacity;
        seen_capacity *= 2;
        seen = calloc(seen_capacity, sizeof *seen);
        if (!seen)
            fail("no memory");
        seen_len = 0;
        for (size_t i = 0; i < old_capacity; i++)
            if (old[i])
                seen_add(old[i]);
        free(old);
    }
    size_t at = hash % seen_capacity;
    while (seen[at] && seen[at] != hash)
        at = (at + 1) % seen_capacity;
    if (seen[at])
        return false;
    seen[at] = hash;
    seen_len++;
    return true;
}

static void send_message(state *self, const trm_paxos_message *message, uint32_t to)
{
    trm_writer out;
    trm_writer_init(&out);
    trm_paxos_encode(message, &out);
    if (!trm_writer_ok(&out) || out.len > sizeof messages[0].bytes)
        fail("a message that is too long");
    uint32_t at = 0;
    while (at < messages_len && (messages[at].to != to || messages[at].len != out.len ||
                                 memcmp(messages[at].bytes, out.data, out.len) != 0))
        at++;
    if (at == MESSAGES_MAX)
        fail("too many messages");
    if (at == messages_len) {
        memcpy(messages[at].bytes, out.data, out.len);
        messages[at].len = out.len;
        messages[at].to = to;
        messages[at].ballot = message->ballot;
        messages[at].kind = mix_value(mix_ballot(message->type, message->ballot), &message->value);
        messages_len++;
    }
    self->network[at / 64] |= 1ull << (at % 64);
    trm_writer_close(&out);
}

/* Sends what a proposer has to send; time and randomness are not part of a state. */
static void flush(state *self, uint32_t index)
{
    trm_paxos_proposer *proposer = &self->proposers[index];
    trm_paxos_message message;
    uint32_t acceptor;
    while (trm_paxos_proposer_next(proposer, &acceptor, &message))
        send_message(self, &message, acceptor);
    proposer->deadline_ns = 0;
    proposer->random = 0;
    proposer->failures = 0;
}

static void vote(state *self, uint32_t acceptor)
{
    const trm_paxos_acceptor *by = &self->acceptors[acceptor];
    uint32_t at = 0;
    while (at < self->ballots && trm_ballot_compare(self->ballot[at], by->accepted) != 0)
        at++;
    if (at == BALLOTS_MAX)
        fail("too many ballots");
    if (at == self->ballots) {
        self->ballot[at] = by->accepted;
        self->proposed[at] = by->value.bytes[0];
        self->votes[at] = 0;
        self->ballots++;
    }
    if (self->proposed[at] != by->value.bytes[0])
        fail("two values under one ballot");
    self->votes[at] |= (uint8_t)(1u << acceptor);
}

static void check(const state *self)
{
    uint8_t chosen = 0;
    for (uint32_t i = 0; i < self->ballots; i++) {
        if (__builtin_popcount(self->votes[i]) < 2)
            continue;
        if (chosen && chosen != self->proposed[i])
            fail("two values are chosen");
        chosen = self->proposed[i];
        if (chosen < 'a' || chosen >= 'a' + (int)PROPOSERS)
            fail("a value is chosen that nobody has proposed");
    }
    chosen_states += chosen != 0;
    for (uint32_t i = 0; i < PROPOSERS; i++) {
        bool own;
        if (!trm_paxos_proposer_decided(&self->proposers[i], &own))
            continue;
        if (self->proposers[i].value.bytes[0] != chosen)
            fail("a proposer believes decided what is not chosen");
        if (own != (chosen == 'a' + i))
            fail("a proposer is wrong about who has won");
        decided_own += own;
        decided_other += !own;
    }
}

static void start_proposer(state *self, uint32_t index)
{
    uint8_t value = (uint8_t)('a' + index);
    trm_paxos_proposer_config config = {
        .register_id = REGISTER,
        .node = 1 + index + PROPOSERS * self->lives[index],
        .store_ids = store_ids,
        .acceptors = ACCEPTORS,
        .value = &value,
        .value_len = 1,
        .timeout_ns = 1,
        .backoff_ns = 1,
    };
    trm_paxos_proposer_init(&self->proposers[index], &config, 0);
    self->begun++;
    flush(self, index);
}

static void deliver(state *self, uint32_t number, bool answered)
{
    trm_paxos_message request, answer;
    trm_err err;
    if (trm_paxos_decode(&request, messages[number].bytes, messages[number].len, &err) != TRM_OK)
        fail(err.text);
    uint32_t to = messages[number].to;
    trm_paxos_acceptor next;
    trm_paxos_action action = trm_paxos_acceptor_step(&self->acceptors[to], &request, &next, &answer);
    if (action == TRM_PAXOS_DROP)
        fail("an acceptor drops a request that is for it");
    if (action == TRM_PAXOS_PERSIST) {
        self->acceptors[to] = next;
        if (next.accepted.round > 0)
            vote(self, to);
    }
    if (!answered)
        return;
    uint32_t proposer = (uint32_t)((request.ballot.node - 1) % PROPOSERS);
    trm_paxos_proposer_receive(&self->proposers[proposer], &answer, 0);
    flush(self, proposer);
}

static void visit(state *self);

static void try_proposer(const state *from, uint32_t index)
{
    state next;
    const trm_paxos_proposer *proposer = &from->proposers[index];
    if (proposer->phase != TRM_PAXOS_DECIDED &&
        (proposer->phase != TRM_PAXOS_WAITING || from->begun < begun_max)) {
        next = *from;
        next.begun += proposer->phase == TRM_PAXOS_WAITING;
        trm_paxos_proposer_tick(&next.proposers[index], 0);
        flush(&next, index);
        visit(&next);
    }
    if (from->crashes < crashes_max && from->begun < begun_max) {
        next = *from;
        next.crashes++;
        next.lives[index]++;
        start_proposer(&next, index);
        visit(&next);
    }
}

static void visit(state *self)
{
    transitions++;
    forget_dead(self);
    if (!seen_add(hash_of(self)))
        return;
    states++;
    check(self);
    for (uint32_t i = 0; i < messages_len; i++)
        if (self->network[i / 64] >> (i % 64) & 1) {
            for (int answered = 0; answered < 2; answered++) {
                state next = *self;
                deliver(&next, i, answered);
                visit(&next);
            }
        }
    for (uint32_t i = 0; i < PROPOSERS; i++)
        try_proposer(self, i);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        begun_max = (uint32_t)strtoul(argv[1], NULL, 10);
    if (argc > 2)
        crashes_max = (uint32_t)strtoul(argv[2], NULL, 10);
    seen = calloc(seen_capacity, sizeof *seen);
    if (!seen)
        fail("no memory");
    static state first;
    for (uint32_t i = 0; i < ACCEPTORS; i++)
        trm_paxos_acceptor_init(&first.acceptors[i], store_ids[i], REGISTER);
    for (uint32_t i = 0; i < PROPOSERS; i++)
        start_proposer(&first, i);
    visit(&first);
    if (decided_own == 0 || decided_other == 0 || chosen_states == 0)
        fail("nothing was ever decided: the exploration proves nothing");
    printf("paxos_explore: %u acceptors, %u proposers, %u ballots, %u crashes: %" PRIu64 " states, %" PRIu64
           " transitions, %u messages; a value is chosen in %" PRIu64 "\n",
           ACCEPTORS, PROPOSERS, begun_max, crashes_max, states, transitions, messages_len, chosen_states);
    free(seen);
    return 0;
}
