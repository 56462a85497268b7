/* Raft messages from outside: as they are, with their checksum made good, and built of
 * small numbers so that they mean something. What decodes goes to a follower, a
 * candidate and a leader. */
#include "runtime/consensus/raft.h"
#include "runtime/crc32c.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

#define SPEC_BYTES 12u

static trm_raft_entry room[TRM_RAFT_MESSAGE_ENTRIES_MAX];

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void take_all(trm_raft *raft, bool persist)
{
    trm_raft_update update;
    trm_raft_state state;
    while (trm_raft_take(raft, &update)) {
        if (persist && update.persist_sequence != 0)
            trm_raft_persisted(raft, update.persist_sequence);
        for (size_t i = 0; i < update.messages_len; i++)
            check(update.messages[i].to != 0);
        if (update.snapshot.install)
            trm_raft_snapshot_installed(raft, update.snapshot.data_len % 2 ? TRM_OK : TRM_EIO);
    }
    trm_raft_state_get(raft, &state);
    check(state.applied <= state.commit && state.commit <= state.last && state.durable <= state.last);
}

static void receive(trm_raft *raft, const trm_raft_message *message, uint64_t now_ns)
{
    trm_raft_state before, after;
    trm_err err;
    trm_raft_state_get(raft, &before);
    trm_raft_receive(raft, message, now_ns, &err);
    take_all(raft, message->term % 3 != 0);
    trm_raft_state_get(raft, &after);
    check(after.term >= before.term && after.commit >= before.commit);
    check(after.term > before.term || before.vote == TRM_RAFT_NONE || after.vote == before.vote);
}

static trm_raft *make_node(trm_raft_role role)
{
    static trm_raft_members members = {3, {{0, true}, {1, true}, {2, true}}};
    static const trm_raft_entry log[] = {{1, 1, TRM_RAFT_COMMAND, (const uint8_t *)"a", 1},
                                         {2, 1, TRM_RAFT_COMMAND, (const uint8_t *)"b", 1},
                                         {3, 2, TRM_RAFT_COMMAND, (const uint8_t *)"c", 1}};
    trm_raft_options options = {.node = 0, .group = 7, .seed = 1, .election_ns = 1000};
    trm_raft_boot boot = {
        .hard = {2, TRM_RAFT_NONE, 1}, .first_members = &members, .entries = log, .entries_len = 3};
    trm_raft *raft = NULL;
    trm_err err;
    if (trm_raft_create(&raft, &options, &boot, 0, &err) != TRM_OK)
        return NULL;
    if (role == TRM_RAFT_FOLLOWER)
        return raft;
    trm_raft_tick(raft, 2000, &err);
    take_all(raft, true);
    trm_raft_message vote = {.type = TRM_RAFT_PRE_VOTE_RESULT, .group = 7, .from = 1, .term = 3};
    receive(raft, &vote, 2000);
    take_all(raft, true);
    vote.type = TRM_RAFT_VOTE_RESULT;
    if (role == TRM_RAFT_LEADER)
        receive(raft, &vote, 2000);
    return raft;
}

static void decode(const uint8_t *bytes, size_t len)
{
    trm_raft_message message;
    trm_err err;
    if (trm_raft_message_decode(&message, room, bytes, len, &err) != TRM_OK)
        return;
    trm_writer again;
    trm_writer_init(&again);
    trm_raft_message_encode(&message, &again);
    check(again.len == len && memcmp(again.data, bytes, len) == 0);
    trm_writer_close(&again);
    message.group = 7;
    message.to = 0;
    for (int role = TRM_RAFT_FOLLOWER; role <= TRM_RAFT_LEADER; role++) {
        trm_raft *raft = make_node((trm_raft_role)role);
        if (raft)
            receive(raft, &message, 2500);
        trm_raft_destroy(raft);
    }
}

static void decode_members(const uint8_t *bytes, size_t len)
{
    trm_raft_members members;
    trm_err err;
    if (trm_raft_members_decode(&members, bytes, len, &err) != TRM_OK)
        return;
    trm_writer again;
    trm_writer_init(&again);
    trm_raft_members_encode(&members, &again);
    check(again.len == len && memcmp(again.data, bytes, len) == 0);
    trm_writer_close(&again);
}

/* A message out of small numbers; what decode would refuse is left out. */
static bool build(trm_raft_message *out, const uint8_t *spec, const trm_writer *config)
{
    memset(out, 0, sizeof *out);
    out->type = (trm_raft_message_type)(spec[0] % TRM_RAFT_READ_RESULT + 1);
    out->group = 7;
    out->from = spec[1] % 4;
    out->term = spec[2] % 8 + 1u;
    out->index = spec[3] % 12;
    out->log_term = out->index > 0 ? spec[4] % out->term + 1 : 0;
    out->commit = spec[5] % 12;
    out->context = spec[6] % 4;
    out->hint_index = spec[7] % 12;
    out->hint_term = out->hint_index > 0 ? spec[8] % 8 + 1u : 0;
    out->reject = spec[0] & 0x40;
    out->force = spec[0] & 0x80;
    out->offset = spec[9] % 6;
    out->snapshot =
        (trm_wal_snapshot){spec[3] % 12 + 1u, spec[4] % out->term + 1, config->data, config->len, 5};
    out->data = spec;
    out->data_len = (uint32_t)(out->offset < 5 ? spec[10] % (6 - out->offset) : 0);
    out->entries = room;
    uint64_t term = out->log_term;
    for (uint32_t i = 0; i < spec[10] % 4u; i++) {
        term += spec[11] >> (2 * i) & 1;
        bool is_config = spec[11] >> (2 * i + 1) & 1;
        if (term == 0 || term > out->term)
            break;
        room[i] = (trm_raft_entry){out->index + 1 + i, term, is_config ? TRM_RAFT_CONFIG : TRM_RAFT_COMMAND,
                                   is_config ? config->data : spec, is_config ? config->len : 3};
        out->entries_len++;
    }
    return out->offset <= 5;
}

static void play(trm_raft_role role, const uint8_t *bytes, size_t len)
{
    trm_raft_members members = {4, {{0, true}, {1, true}, {2, false}, {3, true}}};
    trm_raft *raft = make_node(role);
    trm_writer config;
    trm_writer_init(&config);
    trm_raft_members_encode(&members, &config);
    uint64_t now_ns = 2000;
    trm_err err;
    for (; raft && trm_writer_ok(&config) && len >= SPEC_BYTES; bytes += SPEC_BYTES, len -= SPEC_BYTES) {
        trm_raft_message message;
        uint64_t index, term;
        now_ns += bytes[1] * 4u;
        if (bytes[2] & 0x80)
            trm_raft_tick(raft, now_ns, &err);
        if (bytes[2] & 0x40)
            trm_raft_propose(raft, bytes, 3, &index, &term, &err);
        if (bytes[2] & 0x20)
            trm_raft_read(raft, bytes[3], now_ns, &err);
        if (bytes[2] & 0x10)
            trm_raft_change_members(raft, (trm_raft_change)(bytes[4] % 4 + 1), bytes[5] % 5, &index, &err);
        if (bytes[3] & 0x80)
            trm_raft_transfer(raft, bytes[5] % 4, now_ns, &err);
        if (bytes[3] & 0x40)
            trm_raft_node_hint(raft, bytes[5] % 4, bytes[4] & 1, 0, now_ns);
        if (build(&message, bytes, &config))
            receive(raft, &message, now_ns);
    }
    trm_writer_close(&config);
    trm_raft_destroy(raft);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    decode(bytes, len);
    decode_members(bytes, len);
    for (int role = TRM_RAFT_FOLLOWER; role <= TRM_RAFT_LEADER; role++)
        play((trm_raft_role)role, bytes, len);
    if (len < 5)
        return 0;
    uint8_t *good = malloc(len);
    if (!good)
        return 0;
    memcpy(good, bytes, len);
    good[0] = 1;
    trm_store_u32(good + len - 4, trm_crc32c(0, good, len - 4));
    decode(good, len);
    free(good);
    return 0;
}
