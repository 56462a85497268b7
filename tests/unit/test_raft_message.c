/* runtime/consensus/raft_message and the bytes of memberships. */
#include "runtime/consensus/raft.h"

#include "runtime/crc32c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>

static trm_err err;
static trm_raft_entry room[TRM_RAFT_MESSAGE_ENTRIES_MAX];
static trm_raft_entry entries[TRM_RAFT_MESSAGE_ENTRIES_MAX];

static trm_raft_message message(trm_raft_message_type type)
{
    trm_raft_message out;
    memset(&out, 0, sizeof out);
    out.type = type;
    out.group = 77;
    out.from = 0;
    out.to = UINT64_MAX - 1;
    out.term = 1000;
    return out;
}

/* One of each type with all of its fields set; `reject` in those that can. */
static trm_raft_message sample(trm_raft_message_type type, bool reject)
{
    trm_raft_message out = message(type);
    switch (type) {
    case TRM_RAFT_VOTE:
        out.force = true; /* and as the pre-vote */
        __attribute__((fallthrough));
    case TRM_RAFT_PRE_VOTE:
        out.index = 300;
        out.log_term = 999;
        break;
    case TRM_RAFT_APPEND:
        out.index = 300;
        out.log_term = 7;
        out.commit = 200;
        out.context = 5;
        out.entries = entries;
        out.entries_len = 3;
        entries[0] = (trm_raft_entry){301, 7, TRM_RAFT_COMMAND, (const uint8_t *)"abc", 3};
        entries[1] = (trm_raft_entry){302, 9, TRM_RAFT_NOOP, NULL, 0};
        entries[2] = (trm_raft_entry){303, 1000, TRM_RAFT_CONFIG, (const uint8_t *)"d", 1};
        break;
    case TRM_RAFT_APPEND_RESULT:
        out.index = 300;
        out.context = 6;
        out.hint_index = reject ? 200 : 0;
        out.hint_term = reject ? 6 : 0;
        break;
    case TRM_RAFT_SNAPSHOT:
        out.snapshot = (trm_wal_snapshot){40, 3, (const uint8_t *)"config", 6, 9};
        out.offset = 4;
        out.data = (const uint8_t *)"12345";
        out.data_len = 5;
        break;
    case TRM_RAFT_SNAPSHOT_RESULT:
        out.index = 40;
        out.log_term = 3;
        out.offset = 9;
        break;
    case TRM_RAFT_READ:
        out.context = 8;
        break;
    case TRM_RAFT_READ_RESULT:
        out.context = 8;
        out.index = 303;
        break;
    default:
        break;
    }
    out.reject = reject;
    return out;
}

static bool may_reject(trm_raft_message_type type)
{
    return strstr(trm_raft_message_name(type), "RESULT") != NULL;
}

static void expect_same(const trm_raft_message *a, const trm_raft_message *b)
{
    assert_int_equal(a->entries_len, b->entries_len);
    for (uint32_t i = 0; i < a->entries_len; i++) {
        assert_int_equal(a->entries[i].index, b->entries[i].index);
        assert_int_equal(a->entries[i].term, b->entries[i].term);
        assert_int_equal(a->entries[i].type, b->entries[i].type);
        assert_int_equal(a->entries[i].len, b->entries[i].len);
        if (a->entries[i].len > 0)
            assert_memory_equal(a->entries[i].payload, b->entries[i].payload, a->entries[i].len);
    }
    assert_int_equal(a->snapshot.index, b->snapshot.index);
    assert_int_equal(a->snapshot.data_bytes, b->snapshot.data_bytes);
    assert_int_equal(a->snapshot.config_len, b->snapshot.config_len);
    assert_int_equal(a->data_len, b->data_len);
    if (a->data_len > 0)
        assert_memory_equal(a->data, b->data, a->data_len);
    assert_true(a->type == b->type && a->reject == b->reject && a->force == b->force &&
                a->group == b->group && a->from == b->from && a->to == b->to && a->term == b->term &&
                a->index == b->index && a->log_term == b->log_term && a->commit == b->commit &&
                a->context == b->context && a->hint_index == b->hint_index && a->hint_term == b->hint_term &&
                a->offset == b->offset && a->snapshot.term == b->snapshot.term);
}

static trm_status decode(trm_raft_message *out, const trm_writer *bytes)
{
    return trm_raft_message_decode(out, room, bytes->data, bytes->len, &err);
}

static void every_message_round_trips_and_cuts_are_refused(void **state)
{
    for (int type = TRM_RAFT_PRE_VOTE; type <= TRM_RAFT_READ_RESULT; type++)
        for (int reject = 0; reject <= may_reject((trm_raft_message_type)type); reject++) {
            trm_raft_message in = sample((trm_raft_message_type)type, reject), out;
            trm_writer bytes;
            trm_writer_init(&bytes);
            trm_raft_message_encode(&in, &bytes);
            assert_int_equal(decode(&out, &bytes), TRM_OK);
            expect_same(&in, &out);
            for (size_t len = 0; len < bytes.len; len++)
                assert_int_equal(trm_raft_message_decode(&out, room, bytes.data, len, &err), TRM_ECORRUPT);
            for (size_t at = 0; at < bytes.len; at++) {
                bytes.data[at] ^= 1;
                assert_int_equal(decode(&out, &bytes), TRM_ECORRUPT);
                bytes.data[at] ^= 1;
            }
            bytes.data[0] = 2;
            trm_store_u32(bytes.data + bytes.len - 4, trm_crc32c(0, bytes.data, bytes.len - 4));
            assert_int_equal(decode(&out, &bytes), TRM_EVERSION);
            trm_writer_close(&bytes);
        }
}

static void expect_refused(const trm_raft_message *in)
{
    trm_raft_message out;
    trm_writer bytes;
    trm_writer_init(&bytes);
    trm_raft_message_encode(in, &bytes);
    assert_int_equal(decode(&out, &bytes), TRM_ECORRUPT);
    trm_writer_close(&bytes);
}

static void what_nobody_may_send_is_refused(void **state)
{
    trm_raft_message in;
#define REFUSED(kind, change)                                                                                \
    in = sample(kind, false);                                                                                \
    change;                                                                                                  \
    expect_refused(&in)
    REFUSED(TRM_RAFT_READ, in.type = 0);
    REFUSED(TRM_RAFT_READ, in.type = TRM_RAFT_READ_RESULT + 1);
    REFUSED(TRM_RAFT_READ, in.term = 0);
    REFUSED(TRM_RAFT_READ, in.term = TRM_RAFT_INDEX_MAX + 1);
    REFUSED(TRM_RAFT_READ, in.reject = true);
    REFUSED(TRM_RAFT_READ, in.force = true);
    REFUSED(TRM_RAFT_VOTE, in.log_term = 0);
    REFUSED(TRM_RAFT_VOTE, in.index = 0);
    REFUSED(TRM_RAFT_APPEND, in.index = TRM_RAFT_INDEX_MAX);
    REFUSED(TRM_RAFT_APPEND, in.term = 999);
    REFUSED(TRM_RAFT_APPEND, in.entries_len = 0; in.log_term = 1001);
    REFUSED(TRM_RAFT_APPEND, entries[0].type = 0);
    REFUSED(TRM_RAFT_APPEND, entries[0].type = TRM_RAFT_CONFIG + 1);
    REFUSED(TRM_RAFT_APPEND, entries[1].term = 6);
    REFUSED(TRM_RAFT_APPEND, in.index = in.log_term = 0; entries[0].term = 0);
    REFUSED(TRM_RAFT_SNAPSHOT, in.snapshot.index = in.snapshot.term = 0);
    REFUSED(TRM_RAFT_SNAPSHOT, in.snapshot.term = 1001);
    REFUSED(TRM_RAFT_SNAPSHOT, in.offset = 5);
    REFUSED(TRM_RAFT_SNAPSHOT, in.offset = 10);
}

static void the_largest_entry_and_the_most_fit(void **state)
{
    uint8_t *payload = calloc(1, TRM_RAFT_ENTRY_BYTES_MAX);
    trm_raft_message in = message(TRM_RAFT_APPEND), out;
    in.group = in.index = in.commit = in.context = TRM_RAFT_INDEX_MAX - 2000;
    in.term = in.log_term = TRM_RAFT_INDEX_MAX;
    in.entries = entries;
    in.entries_len = 1;
    entries[0] = (trm_raft_entry){in.index + 1, in.term, TRM_RAFT_COMMAND, payload, TRM_RAFT_ENTRY_BYTES_MAX};
    trm_writer bytes;
    trm_writer_init(&bytes);
    trm_raft_message_encode(&in, &bytes);
    assert_true(bytes.len <= TRM_RAFT_MESSAGE_BYTES_MAX);
    assert_int_equal(decode(&out, &bytes), TRM_OK);
    trm_writer_reset(&bytes);
    in.entries_len = TRM_RAFT_MESSAGE_ENTRIES_MAX;
    for (uint32_t i = 0; i < in.entries_len; i++)
        entries[i] = (trm_raft_entry){in.index + 1 + i, in.term, TRM_RAFT_COMMAND, payload, 200};
    trm_raft_message_encode(&in, &bytes);
    assert_int_equal(decode(&out, &bytes), TRM_OK);
    expect_same(&in, &out);
    trm_writer_close(&bytes);
    free(payload);
}

static void memberships(void **state)
{
    trm_raft_members members = {0}, out;
    for (uint64_t i = 0; i < TRM_RAFT_NODES_MAX; i++)
        assert_int_equal(trm_raft_members_set(&members, (i * 37) % 64, i % 2), TRM_OK);
    assert_int_equal(trm_raft_members_set(&members, 1000, true), TRM_ELIMIT);
    assert_int_equal(trm_raft_members_voters(&members), 32);
    for (uint32_t i = 0; i < 64; i++)
        assert_int_equal(members.member[i].node, i);
    trm_writer bytes;
    trm_writer_init(&bytes);
    trm_raft_members_encode(&members, &bytes);
    assert_true(bytes.len <= TRM_RAFT_MEMBERS_BYTES_MAX);
    assert_int_equal(trm_raft_members_decode(&out, bytes.data, bytes.len, &err), TRM_OK);
    assert_memory_equal(&members, &out, sizeof out);
    for (size_t len = 0; len < bytes.len; len++)
        assert_int_equal(trm_raft_members_decode(&out, bytes.data, len, &err), TRM_ECORRUPT);
    bytes.data[0] = 9;
    assert_int_equal(trm_raft_members_decode(&out, bytes.data, bytes.len, &err), TRM_EVERSION);
    bytes.data[0] = 1;
    bytes.data[2 + 8] = 2; /* neither a voter nor a learner */
    assert_int_equal(trm_raft_members_decode(&out, bytes.data, bytes.len, &err), TRM_ECORRUPT);
    bytes.data[2 + 8] = 0;
    bytes.data[2 + 9] = 0; /* the same node twice */
    assert_int_equal(trm_raft_members_decode(&out, bytes.data, bytes.len, &err), TRM_ECORRUPT);
    trm_writer_close(&bytes);
    trm_raft_members_remove(&members, 0);
    trm_raft_members_remove(&members, 0);
    assert_int_equal(members.count, 63);
    assert_null(trm_raft_members_find(&members, 0));
    assert_int_equal(trm_raft_members_set(&members, 5, true), TRM_OK);
    assert_true(trm_raft_members_find(&members, 5)->voter);
}

static void names(void **state)
{
    assert_string_equal(trm_raft_message_name(TRM_RAFT_TIMEOUT_NOW), "TIMEOUT_NOW");
    assert_string_equal(trm_raft_message_name(0), "?");
    assert_string_equal(trm_raft_message_name(99), "?");
    assert_string_equal(trm_raft_role_name(TRM_RAFT_LEADER), "leader");
    assert_string_equal(trm_raft_role_name(0), "?");
    assert_string_equal(trm_raft_role_name(5), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_round_trips_and_cuts_are_refused),
        cmocka_unit_test(what_nobody_may_send_is_refused),
        cmocka_unit_test(the_largest_entry_and_the_most_fit),
        cmocka_unit_test(memberships),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
