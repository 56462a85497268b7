/* See paxos.h. Numbers in brackets are the steps of "Paxos Made Simple", section 2.2. */
#include "runtime/consensus/paxos.h"

#include "runtime/crc32c.h"
#include "runtime/random.h"

#include <assert.h>

/* A back-off grows at most so many times. */
#define BACKOFF_DOUBLINGS_MAX 6u

/* ---- Messages: u8 version, u8 type, fields, u32 CRC-32C of all before. ---- */
#define MESSAGE_VERSION 1u

static bool has_value(const trm_paxos_message *message)
{
    return message->type == TRM_PAXOS_ACCEPT ||
           (message->type == TRM_PAXOS_PROMISE && message->other.round > 0);
}

static void put_ballot(trm_writer *out, trm_ballot ballot)
{
    trm_put_varint(out, ballot.round);
    trm_put_u64(out, ballot.node);
}

static trm_ballot get_ballot(trm_reader *in)
{
    trm_ballot ballot;
    ballot.round = trm_get_varint_max(in, TRM_PAXOS_ROUND_MAX);
    ballot.node = trm_get_u64(in);
    if (ballot.round == 0 && ballot.node != 0)
        trm_reader_fail(in);
    return ballot;
}

void trm_paxos_encode(const trm_paxos_message *message, trm_writer *out)
{
    size_t begin = out->len;
    trm_put_u8(out, MESSAGE_VERSION);
    trm_put_u8(out, (uint8_t)message->type);
    trm_put_u64(out, message->register_id);
    trm_put_u64(out, message->store_id);
    put_ballot(out, message->ballot);
    if (message->type == TRM_PAXOS_PROMISE || message->type == TRM_PAXOS_REFUSED)
        put_ballot(out, message->other);
    if (has_value(message))
        trm_put_blob(out, message->value.bytes, message->value.len);
    if (trm_writer_ok(out))
        trm_put_u32(out, trm_crc32c(0, out->data + begin, out->len - begin));
}

trm_status trm_paxos_decode(trm_paxos_message *out, const void *bytes, size_t len, trm_err *err)
{
    const uint8_t *at = bytes;
    if (len < 6 || trm_load_u32(at + len - 4) != trm_crc32c(0, at, len - 4))
        return trm_err_set(err, TRM_ECORRUPT,
                           "a message of an election of owners: the checksum does not fit");
    if (at[0] != MESSAGE_VERSION)
        return trm_err_set(err, TRM_EVERSION,
                           "a message of an election of owners has version %u; this program reads %u", at[0],
                           MESSAGE_VERSION);
    trm_reader in;
    trm_reader_init(&in, at + 1, len - 5);
    trm_paxos_message message = {.type = (trm_paxos_type)trm_get_u8(&in)};
    message.register_id = trm_get_u64(&in);
    message.store_id = trm_get_u64(&in);
    message.ballot = get_ballot(&in);
    if (message.type < TRM_PAXOS_PREPARE || message.type > TRM_PAXOS_REFUSED || message.ballot.round == 0)
        trm_reader_fail(&in);
    if (message.type == TRM_PAXOS_PROMISE || message.type == TRM_PAXOS_REFUSED)
        message.other = get_ballot(&in);
    if (has_value(&message)) {
        size_t value_len = 0;
        const uint8_t *value = trm_get_blob(&in, TRM_PAXOS_VALUE_BYTES_MAX, &value_len);
        message.value.len = (uint32_t)value_len;
        if (value && value_len > 0)
            memcpy(message.value.bytes, value, value_len);
    }
    if (!trm_reader_done(&in))
        return trm_err_set(err, TRM_ECORRUPT, "a message of an election of owners is malformed");
    *out = message;
    return TRM_OK;
}

/* ---- Acceptor. ---- */

void trm_paxos_acceptor_init(trm_paxos_acceptor *self, uint64_t store_id, uint64_t register_id)
{
    *self = (trm_paxos_acceptor){.store_id = store_id, .register_id = register_id};
}

trm_paxos_action trm_paxos_acceptor_step(const trm_paxos_acceptor *self, const trm_paxos_message *request,
                                         trm_paxos_acceptor *next, trm_paxos_message *answer)
{
    if (request->store_id != self->store_id || request->register_id != self->register_id ||
        request->ballot.round == 0 ||
        (request->type != TRM_PAXOS_PREPARE && request->type != TRM_PAXOS_ACCEPT))
        return TRM_PAXOS_DROP;
    *next = *self;
    *answer = (trm_paxos_message){
        .register_id = self->register_id, .store_id = self->store_id, .ballot = request->ballot};
    int above = trm_ballot_compare(request->ballot, self->promised);
    if (above < 0) {
        answer->type = TRM_PAXOS_REFUSED;
        answer->other = self->promised;
        return TRM_PAXOS_ANSWER;
    }
    next->promised = request->ballot;
    if (request->type == TRM_PAXOS_PREPARE) { /* [1b] */
        answer->type = TRM_PAXOS_PROMISE;
        answer->other = self->accepted;
        answer->value = self->value;
        return above > 0 ? TRM_PAXOS_PERSIST : TRM_PAXOS_ANSWER;
    }
    answer->type = TRM_PAXOS_ACCEPTED; /* [2b] */
    if (trm_ballot_compare(self->accepted, request->ballot) == 0)
        return TRM_PAXOS_ANSWER;
    next->accepted = request->ballot;
    next->value = request->value;
    return TRM_PAXOS_PERSIST;
}

/* ---- Proposer. ---- */

static uint32_t everybody(const trm_paxos_proposer *self)
{
    return (1u << self->acceptors) - 1;
}
static uint32_t quorum(const trm_paxos_proposer *self)
{
    return self->acceptors / 2 + 1;
}
static uint32_t count(uint32_t bits)
{
    return (uint32_t)__builtin_popcount(bits);
}

static void enter(trm_paxos_proposer *self, trm_paxos_phase phase, uint64_t deadline_ns)
{
    self->phase = phase;
    self->to_send = phase == TRM_PAXOS_PREPARING || phase == TRM_PAXOS_ACCEPTING ? everybody(self) : 0;
    self->agreed = self->refused = 0;
    self->deadline_ns = deadline_ns;
}

/* [1a] */
static void begin_round(trm_paxos_proposer *self, uint64_t now_ns)
{
    self->round_seen++;
    self->ballot = (trm_ballot){self->round_seen, self->node};
    self->best = (trm_ballot){0, 0};
    self->value = self->own;
    enter(self, TRM_PAXOS_PREPARING, now_ns + self->timeout_ns);
}

/* Proposers that meet must not meet again at once: wait a random time, longer each
 * time ("Paxos Made Simple", 2.4). */
static void back_off(trm_paxos_proposer *self, uint64_t now_ns)
{
    uint32_t doublings = self->failures < BACKOFF_DOUBLINGS_MAX ? self->failures : BACKOFF_DOUBLINGS_MAX;
    uint64_t most = self->backoff_ns << doublings;
    self->failures++;
    enter(self, TRM_PAXOS_WAITING, now_ns + trm_random_next(&self->random) % (most + 1));
}

void trm_paxos_proposer_init(trm_paxos_proposer *self, const trm_paxos_proposer_config *config,
                             uint64_t now_ns)
{
    assert(config->acceptors >= 1 && config->acceptors <= TRM_PAXOS_ACCEPTORS_MAX);
    assert(config->value_len <= TRM_PAXOS_VALUE_BYTES_MAX);
    *self = (trm_paxos_proposer){
        .register_id = config->register_id,
        .node = config->node,
        .timeout_ns = config->timeout_ns,
        .backoff_ns = config->backoff_ns,
        .random = config->seed,
        .acceptors = config->acceptors,
        .own.len = config->value_len,
    };
    memcpy(self->store_ids, config->store_ids, config->acceptors * sizeof *self->store_ids);
    for (uint32_t i = 0; i < config->acceptors; i++)
        for (uint32_t j = 0; j < i; j++)
            assert(self->store_ids[i] != self->store_ids[j]); /* one would count twice */
    if (config->value_len > 0)
        memcpy(self->own.bytes, config->value, config->value_len);
    begin_round(self, now_ns);
}

bool trm_paxos_proposer_next(trm_paxos_proposer *self, uint32_t *acceptor, trm_paxos_message *out)
{
    if (self->to_send == 0)
        return false;
    uint32_t index = (uint32_t)__builtin_ctz(self->to_send);
    self->to_send &= self->to_send - 1;
    *out = (trm_paxos_message){
        .type = self->phase == TRM_PAXOS_PREPARING ? TRM_PAXOS_PREPARE : TRM_PAXOS_ACCEPT,
        .register_id = self->register_id,
        .store_id = self->store_ids[index],
        .ballot = self->ballot,
    };
    if (self->phase == TRM_PAXOS_ACCEPTING)
        out->value = self->value;
    *acceptor = index;
    return true;
}

/* [2a]: with the value of the highest ballot among the promises, if there is one. */
static void take_promise(trm_paxos_proposer *self, const trm_paxos_message *answer, uint64_t now_ns)
{
    if (trm_ballot_compare(answer->other, self->best) > 0) {
        self->best = answer->other;
        self->value = answer->value;
    }
    if (count(self->agreed) >= quorum(self))
        enter(self, TRM_PAXOS_ACCEPTING, now_ns + self->timeout_ns);
}

static void take_refusal(trm_paxos_proposer *self, const trm_paxos_message *answer, uint32_t bit,
                         uint64_t now_ns)
{
    if (answer->other.round > self->round_seen && answer->other.round < TRM_PAXOS_ROUND_MAX)
        self->round_seen = answer->other.round;
    self->refused |= bit;
    if (count(self->refused) > self->acceptors - quorum(self))
        back_off(self, now_ns);
}

void trm_paxos_proposer_receive(trm_paxos_proposer *self, const trm_paxos_message *answer, uint64_t now_ns)
{
    uint32_t index = 0;
    while (index < self->acceptors && self->store_ids[index] != answer->store_id)
        index++;
    if (index == self->acceptors || answer->register_id != self->register_id ||
        trm_ballot_compare(answer->ballot, self->ballot) != 0)
        return;
    uint32_t bit = 1u << index;
    bool preparing = self->phase == TRM_PAXOS_PREPARING;
    if (!preparing && self->phase != TRM_PAXOS_ACCEPTING)
        return;
    if (answer->type == TRM_PAXOS_REFUSED) {
        take_refusal(self, answer, bit, now_ns);
    } else if (answer->type == TRM_PAXOS_PROMISE && preparing) {
        self->agreed |= bit;
        take_promise(self, answer, now_ns);
    } else if (answer->type == TRM_PAXOS_ACCEPTED && !preparing) {
        self->agreed |= bit;
        if (count(self->agreed) >= quorum(self))
            enter(self, TRM_PAXOS_DECIDED, UINT64_MAX);
    }
}

void trm_paxos_proposer_tick(trm_paxos_proposer *self, uint64_t now_ns)
{
    if (self->phase == TRM_PAXOS_DECIDED || now_ns < self->deadline_ns)
        return;
    if (self->phase == TRM_PAXOS_WAITING)
        begin_round(self, now_ns);
    else
        back_off(self, now_ns);
}

bool trm_paxos_proposer_decided(const trm_paxos_proposer *self, bool *own)
{
    if (self->phase != TRM_PAXOS_DECIDED)
        return false;
    *own = self->value.len == self->own.len && memcmp(self->value.bytes, self->own.bytes, self->own.len) == 0;
    return true;
}
