/* runtime/consensus/raft: what needs no cluster to show. Boot states that contradict
 * themselves, memory that is refused at every place, bounds, and messages whose moment
 * has passed. Whole histories are in tests/scenarios and tests/simulation.
 *
 * Linked with --wrap for malloc, calloc and realloc. */
#include "runtime/consensus/raft.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>

#define ELECTION_NS 1000u

static trm_err err;
static trm_raft *raft;
static trm_raft_update update;
static trm_raft_members voters = {3, {{0, true}, {1, true}, {2, true}}};

/* ---- Memory. ---- */

static bool counting;
static unsigned allowed;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);

static bool refused(void)
{
    return counting && allowed-- == 0 && (allowed = 0, true);
}
void *__wrap_malloc(size_t bytes)
{
    return refused() ? NULL : __real_malloc(bytes);
}
void *__wrap_calloc(size_t count, size_t bytes)
{
    return refused() ? NULL : __real_calloc(count, bytes);
}
void *__wrap_realloc(void *memory, size_t bytes)
{
    return refused() ? NULL : __real_realloc(memory, bytes);
}

/* ---- A node. ---- */

static trm_raft_options options = {.node = 0, .group = 7, .seed = 3, .election_ns = ELECTION_NS};

static trm_status create(const trm_raft_boot *boot)
{
    return trm_raft_create(&raft, &options, boot, 0, &err);
}

static int tear_down(void **state)
{
    counting = false;
    trm_raft_destroy(raft);
    raft = NULL;
    voters.count = 3;
    options = (trm_raft_options){.node = 0, .group = 7, .seed = 3, .election_ns = ELECTION_NS};
    return 0;
}

static trm_raft_message from(uint64_t node, trm_raft_message_type type, uint64_t term)
{
    return (trm_raft_message){.type = type, .group = 7, .from = node, .term = term};
}

static trm_status receive(const trm_raft_message *message)
{
    return trm_raft_receive(raft, message, 0, &err);
}

/* Takes until nothing is left, all durable. Returns how many messages of a type went out. */
static size_t take_all(trm_raft_message_type type)
{
    size_t count = 0;
    while (trm_raft_take(raft, &update)) {
        for (size_t i = 0; i < update.messages_len; i++)
            count += update.messages[i].type == type;
        if (update.persist_sequence != 0)
            trm_raft_persisted(raft, update.persist_sequence);
    }
    return count;
}

static trm_raft_state state_now(void)
{
    trm_raft_state out;
    trm_raft_state_get(raft, &out);
    return out;
}

static void start(void)
{
    trm_raft_boot boot;
    trm_raft_boot_init(&boot);
    boot.first_members = &voters;
    assert_int_equal(create(&boot), TRM_OK);
}

static void lead(void)
{
    start();
    assert_int_equal(trm_raft_tick(raft, trm_raft_wake_ns(raft), &err), TRM_OK);
    take_all(0);
    trm_raft_message vote = from(1, TRM_RAFT_PRE_VOTE_RESULT, 1);
    assert_int_equal(receive(&vote), TRM_OK);
    take_all(0);
    vote.type = TRM_RAFT_VOTE_RESULT;
    assert_int_equal(receive(&vote), TRM_OK);
    take_all(0);
    assert_int_equal(state_now().role, TRM_RAFT_LEADER);
}

static void acknowledge(uint64_t node, uint64_t index)
{
    trm_raft_message ack = from(node, TRM_RAFT_APPEND_RESULT, state_now().term);
    ack.index = index;
    assert_int_equal(receive(&ack), TRM_OK);
    take_all(0);
}

static trm_raft_entry command(uint64_t index, uint64_t term)
{
    return (trm_raft_entry){index, term, TRM_RAFT_COMMAND, (const uint8_t *)"abc", 3};
}

/* ---- Boot. ---- */

static void a_boot_state_must_make_sense(void **state)
{
    trm_raft_entry entries[2] = {command(1, 1), command(2, 2)};
    trm_raft_boot good = {.hard = {2, TRM_RAFT_NONE, 99}, .entries = entries, .entries_len = 2}, boot = good;
    assert_int_equal(create(&good), TRM_OK);
    assert_int_equal(state_now().commit, 2); /* cut to what is there */
    tear_down(state);
#define CORRUPT(change)                                                                                      \
    boot = good;                                                                                             \
    entries[1] = command(2, 2);                                                                              \
    change;                                                                                                  \
    assert_int_equal(create(&boot), TRM_ECORRUPT)
    CORRUPT(entries[1].index = 3);
    CORRUPT(entries[1].term = 0);
    CORRUPT(entries[1].term = 3);
    CORRUPT(entries[1].type = 0);
    CORRUPT(entries[1].type = 4);
    CORRUPT(entries[1].len = TRM_RAFT_ENTRY_BYTES_MAX + 1);
    CORRUPT(entries[1] = ((trm_raft_entry){2, 2, TRM_RAFT_CONFIG, (const uint8_t *)"\1x", 2}));
    CORRUPT(boot.hard.term = TRM_RAFT_INDEX_MAX + 1);
    CORRUPT(boot.snapshot.index = 1);
    CORRUPT(boot.snapshot = ((trm_wal_snapshot){1, 3, NULL, 0, 0}));
    CORRUPT(boot.snapshot = ((trm_wal_snapshot){1, 1, NULL, 0, 0}));
    assert_non_null(strstr(err.text, "snapshot"));
    trm_raft_destroy(NULL);
}

static void memory_refused_at_boot(void **state)
{
    trm_raft_entry entries[2] = {command(1, 1), command(2, 2)};
    trm_raft_boot boot = {.hard = {2, TRM_RAFT_NONE, 2}, .entries = entries, .entries_len = 2};
    trm_status status = TRM_ENOMEM;
    unsigned at = 0;
    for (; status == TRM_ENOMEM; at++) {
        counting = true;
        allowed = at;
        status = create(&boot);
        counting = false;
    }
    assert_int_equal(status, TRM_OK);
    assert_int_equal(at, 6); /* node, windows, slots, two payloads */
}

/* ---- Memory refused later: the event has not been, and the next try works. ---- */

static void memory_refused_to_a_proposal(void **state)
{
    lead();
    acknowledge(1, 1);
    uint64_t index = 0, term;
    counting = true;
    allowed = 0;
    assert_int_equal(trm_raft_propose(raft, "abc", 3, &index, &term, &err), TRM_ENOMEM);
    allowed = 0;
    assert_int_equal(trm_raft_change_members(raft, TRM_RAFT_ADD_LEARNER, 9, &index, &err), TRM_ENOMEM);
    allowed = 1; /* the bytes of the membership, but not the entry */
    assert_int_equal(trm_raft_change_members(raft, TRM_RAFT_ADD_LEARNER, 9, &index, &err), TRM_ENOMEM);
    counting = false;
    assert_int_equal(state_now().last, 1);
    assert_int_equal(trm_raft_members_now(raft)->count, 3);
    assert_int_equal(trm_raft_propose(raft, "abc", 3, &index, &term, &err), TRM_OK);
    assert_int_equal(index, 2);
}

static void memory_refused_to_a_candidate(void **state)
{
    start();
    counting = true;
    allowed = 0;
    assert_int_equal(trm_raft_tick(raft, trm_raft_wake_ns(raft), &err), TRM_ENOMEM);
    assert_int_equal(state_now().role, TRM_RAFT_FOLLOWER);
    allowed = 0;
    trm_raft_message now = from(1, TRM_RAFT_TIMEOUT_NOW, 1);
    assert_int_equal(receive(&now), TRM_ENOMEM);
    counting = false;
    assert_int_equal(receive(&now), TRM_OK);
    assert_int_equal(state_now().role, TRM_RAFT_CANDIDATE);
}

static void memory_refused_to_a_follower(void **state)
{
    start();
    trm_raft_entry entries[3] = {command(1, 1), command(2, 1), command(3, 1)};
    trm_raft_message append = from(1, TRM_RAFT_APPEND, 1);
    append.entries = entries;
    append.entries_len = 3;
    trm_status status = TRM_ENOMEM;
    for (unsigned at = 0; status == TRM_ENOMEM; at++) {
        assert_int_equal(state_now().last, 0);
        counting = true;
        allowed = at;
        status = receive(&append);
        counting = false;
    }
    assert_int_equal(status, TRM_OK);
    assert_int_equal(state_now().last, 3);
    assert_int_equal(take_all(TRM_RAFT_APPEND_RESULT), 1);
}

/* ---- Bounds. ---- */

static void reads_are_bounded(void **state)
{
    lead();
    for (unsigned i = 0; i < TRM_RAFT_READS_MAX; i++)
        assert_int_equal(trm_raft_read(raft, i, 0, &err), TRM_OK);
    assert_int_equal(trm_raft_read(raft, 0, 0, &err), TRM_AGAIN);
    trm_raft_message read = from(1, TRM_RAFT_READ, 1);
    read.context = 5;
    assert_int_equal(receive(&read), TRM_OK); /* refused to who asks, too */
    assert_true(trm_raft_take(raft, &update));
    assert_int_equal(update.messages[0].type, TRM_RAFT_READ_RESULT);
    assert_true(update.messages[0].reject);
    trm_raft_message newer = from(2, TRM_RAFT_APPEND, 2);
    assert_int_equal(receive(&newer), TRM_OK);
    assert_true(trm_raft_take(raft, &update));
    assert_int_equal(update.reads_len, TRM_RAFT_READS_MAX);
    assert_int_equal(update.reads[7].status, TRM_EFENCED);
}

static void answers_that_wait_for_the_disk_are_bounded(void **state)
{
    start();
    trm_raft_message append = from(1, TRM_RAFT_APPEND, 3); /* that is refused: a gap */
    append.index = 9;
    append.log_term = 2;
    for (unsigned i = 0; i < 300; i++)
        assert_int_equal(receive(&append), TRM_OK);
    assert_int_equal(state_now().counts.results_lost, 300 - 256);
    assert_true(trm_raft_take(raft, &update));
    assert_int_equal(update.messages_len, 0); /* the term is not durable */
    trm_raft_message newer = from(2, TRM_RAFT_VOTE, 4);
    assert_int_equal(trm_raft_receive(raft, &newer, 5 * ELECTION_NS, &err), TRM_OK);
    assert_int_equal(take_all(TRM_RAFT_VOTE_RESULT), 1); /* those of the old term are gone */
}

static void an_update_is_bounded(void **state)
{
    for (uint64_t i = 3; i < TRM_RAFT_NODES_MAX; i++)
        trm_raft_members_set(&voters, i, false);
    options.append_bytes_max = 1;
    lead();
    for (uint64_t i = 1; i < TRM_RAFT_NODES_MAX; i++)
        acknowledge(i, 1);
    uint64_t index, term;
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(trm_raft_propose(raft, "abc", 3, &index, &term, &err), TRM_OK);
    assert_true(trm_raft_take(raft, &update));
    assert_int_equal(update.messages_len, TRM_RAFT_UPDATE_MESSAGES_MAX);
    assert_true(update.more);
    size_t rest = take_all(TRM_RAFT_APPEND);
    assert_true(rest >= 63 * 20 - TRM_RAFT_UPDATE_MESSAGES_MAX);
    assert_int_equal(trm_raft_change_members(raft, TRM_RAFT_ADD_LEARNER, 99, &index, &err), TRM_ELIMIT);
    trm_raft_peer peer;
    assert_false(trm_raft_peer_get(raft, 0, &peer));
    assert_true(trm_raft_peer_get(raft, 63, &peer));
    assert_int_equal(peer.window_messages, 20);
}

static void hints_are_bounded(void **state)
{
    start();
    for (uint64_t i = 0; i < 5 * TRM_RAFT_NODES_MAX; i++)
        trm_raft_node_hint(raft, 1000 + i, false, 0, 0);
    trm_raft_entry entry;
    assert_false(trm_raft_entry_at(raft, 1, &entry));
}

/* ---- Messages whose moment has passed, or of strangers. ---- */

static void strangers_are_not_heard(void **state)
{
    lead();
    trm_raft_message m;
#define DROPPED(change)                                                                                      \
    m = from(1, TRM_RAFT_APPEND, 9);                                                                         \
    change;                                                                                                  \
    assert_int_equal(receive(&m), TRM_OK);                                                                   \
    assert_int_equal(state_now().term, 1)
    DROPPED(m.group = 8);
    DROPPED(m.to = 4);
    DROPPED(m.from = 0);
    DROPPED(m.from = TRM_RAFT_NONE);
    DROPPED(m.term = 0);
    DROPPED(m.term = TRM_RAFT_INDEX_MAX + 1);
    DROPPED(m = from(9, TRM_RAFT_APPEND_RESULT, 1));
    DROPPED(m = from(9, TRM_RAFT_SNAPSHOT_RESULT, 1));
    DROPPED(m = from(1, (trm_raft_message_type)77, 1));
    assert_int_equal(state_now().counts.messages_dropped, 9);
}

static void senders_of_an_old_term_learn_of_the_new_one(void **state)
{
    trm_raft_boot boot;
    trm_raft_boot_init(&boot);
    boot.first_members = &voters;
    boot.hard.term = 5;
    assert_int_equal(create(&boot), TRM_OK);
    static const trm_raft_message_type asks[] = {TRM_RAFT_PRE_VOTE, TRM_RAFT_VOTE, TRM_RAFT_APPEND,
                                                 TRM_RAFT_SNAPSHOT, TRM_RAFT_READ};
    for (size_t i = 0; i < sizeof asks / sizeof *asks; i++) {
        trm_raft_message m = from(1, asks[i], 3);
        assert_int_equal(receive(&m), TRM_OK);
        assert_true(trm_raft_take(raft, &update));
        assert_int_equal(update.messages_len, 1);
        assert_true(update.messages[0].reject && update.messages[0].term == 5);
    }
    trm_raft_message late = from(1, TRM_RAFT_VOTE_RESULT, 3);
    assert_int_equal(receive(&late), TRM_OK);
    assert_false(trm_raft_take(raft, &update));
}

static void a_membership_that_cannot_be_read_is_refused(void **state)
{
    start();
    trm_raft_entry entry = {1, 1, TRM_RAFT_CONFIG, (const uint8_t *)"?", 1};
    trm_raft_message m = from(1, TRM_RAFT_APPEND, 1);
    m.entries = &entry;
    m.entries_len = 1;
    assert_int_equal(receive(&m), TRM_EPEER);
    m = from(1, TRM_RAFT_SNAPSHOT, 1);
    m.snapshot = (trm_wal_snapshot){5, 1, (const uint8_t *)"?", 1, 3};
    m.data = (const uint8_t *)"abc";
    m.data_len = 3;
    assert_int_equal(receive(&m), TRM_EPEER);
    assert_int_equal(state_now().counts.messages_refused, 2);
    assert_int_equal(state_now().last, 0);
}

/* ---- Snapshots that arrive. ---- */

static trm_raft_message chunk(uint64_t index, uint64_t offset, uint32_t len, uint64_t total)
{
    static uint8_t config[TRM_RAFT_MEMBERS_BYTES_MAX];
    trm_writer bytes;
    trm_writer_init(&bytes);
    trm_raft_members_encode(&voters, &bytes);
    memcpy(config, bytes.data, bytes.len);
    trm_raft_message out = from(1, TRM_RAFT_SNAPSHOT, 2);
    out.snapshot = (trm_wal_snapshot){index, 1, config, bytes.len, total};
    out.offset = offset;
    out.data = (const uint8_t *)"abcdefgh";
    out.data_len = len;
    trm_writer_close(&bytes);
    return out;
}

static trm_raft_snapshot_op op_after(const trm_raft_message *message)
{
    assert_int_equal(receive(message), TRM_OK);
    trm_raft_snapshot_op op = TRM_RAFT_SNAPSHOT_NOTHING;
    while (trm_raft_take(raft, &update)) {
        if (update.persist_sequence != 0)
            trm_raft_persisted(raft, update.persist_sequence);
        if (update.snapshot.op != TRM_RAFT_SNAPSHOT_NOTHING)
            op = update.snapshot.op;
    }
    return op;
}

static void chunks_in_and_out_of_order(void **state)
{
    start();
    trm_raft_message m = chunk(5, 2, 2, 8);
    assert_int_equal(op_after(&m), TRM_RAFT_SNAPSHOT_NOTHING); /* not from the begin */
    m = chunk(5, 0, 2, 8);
    assert_int_equal(op_after(&m), TRM_RAFT_SNAPSHOT_BEGIN);
    assert_int_equal(op_after(&m), TRM_RAFT_SNAPSHOT_NOTHING); /* again */
    m = chunk(4, 0, 2, 8);
    assert_int_equal(op_after(&m), TRM_RAFT_SNAPSHOT_NOTHING); /* an older one */
    m = chunk(5, 2, 2, 8);
    assert_int_equal(receive(&m), TRM_OK);
    m = chunk(5, 4, 2, 8);
    assert_int_equal(receive(&m), TRM_OK); /* before the last was taken: lost */
    assert_int_equal(op_after(&m), TRM_RAFT_SNAPSHOT_WRITE);
    assert_int_equal(op_after(&m), TRM_RAFT_SNAPSHOT_WRITE);
    m = chunk(5, 6, 2, 8);
    assert_int_equal(op_after(&m), TRM_RAFT_SNAPSHOT_WRITE);
    assert_true(state_now().installing);
    assert_int_equal(op_after(&m), TRM_RAFT_SNAPSHOT_NOTHING);
    trm_raft_message append = from(1, TRM_RAFT_APPEND, 2); /* only a sign of life now */
    trm_raft_entry entry = command(1, 2);
    append.entries = &entry;
    append.entries_len = 1;
    assert_int_equal(receive(&append), TRM_OK);
    assert_int_equal(state_now().last, 0);
    trm_raft_snapshot_installed(raft, TRM_OK);
    assert_int_equal(state_now().commit, 5);
    assert_int_equal(take_all(TRM_RAFT_APPEND_RESULT), 1);
    m = chunk(5, 0, 2, 8);
    assert_int_equal(op_after(&m), TRM_RAFT_SNAPSHOT_NOTHING); /* is covered */
}

static void entries_overtake_a_snapshot(void **state)
{
    start();
    trm_raft_message m = chunk(2, 0, 2, 8);
    assert_int_equal(op_after(&m), TRM_RAFT_SNAPSHOT_BEGIN);
    trm_raft_entry entries[2] = {command(1, 1), command(2, 1)};
    trm_raft_message append = from(1, TRM_RAFT_APPEND, 2);
    append.entries = entries;
    append.entries_len = 2;
    assert_int_equal(receive(&append), TRM_OK);
    take_all(0);
    assert_int_equal(state_now().commit, 0);
    m = chunk(2, 2, 2, 8);
    assert_int_equal(op_after(&m), TRM_RAFT_SNAPSHOT_ABORT);
    assert_int_equal(state_now().commit, 2); /* by the log matching property */
}

static void an_older_snapshot_of_ones_own_is_ignored(void **state)
{
    lead();
    acknowledge(1, 1);
    trm_wal_snapshot meta;
    trm_raft_snapshot_describe(raft, &meta);
    assert_int_equal(meta.index, 1);
    assert_int_equal(meta.term, 1);
    trm_raft_snapshot_saved(raft, &meta);
    trm_raft_snapshot_saved(raft, &meta);
    assert_int_equal(state_now().snapshot_index, 1);
}

static void time_does_not_go_back(void **state)
{
    lead();
    uint64_t wake = trm_raft_wake_ns(raft);
    assert_int_equal(trm_raft_tick(raft, 1, &err), TRM_OK);
    assert_int_equal(trm_raft_wake_ns(raft), wake);
    trm_raft_persisted(raft, 1); /* long known */
    assert_int_equal(trm_raft_transfer(raft, 1, wake, &err), TRM_OK);
    assert_true(trm_raft_wake_ns(raft) <= wake + ELECTION_NS);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_boot_state_must_make_sense),
        TEST(memory_refused_at_boot),
        TEST(memory_refused_to_a_proposal),
        TEST(memory_refused_to_a_candidate),
        TEST(memory_refused_to_a_follower),
        TEST(reads_are_bounded),
        TEST(answers_that_wait_for_the_disk_are_bounded),
        TEST(an_update_is_bounded),
        TEST(hints_are_bounded),
        TEST(strangers_are_not_heard),
        TEST(senders_of_an_old_term_learn_of_the_new_one),
        TEST(a_membership_that_cannot_be_read_is_refused),
        TEST(chunks_in_and_out_of_order),
        TEST(entries_overtake_a_snapshot),
        TEST(an_older_snapshot_of_ones_own_is_ignored),
        TEST(time_does_not_go_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
