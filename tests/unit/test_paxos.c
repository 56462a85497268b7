/* runtime/consensus/paxos and paxos_store: the codec, the rules one by one, the files.
 * The algorithm as a whole is in tests/simulation/paxos_explore.c and paxos_random.c. */
#include "runtime/consensus/paxos_store.h"

#include "runtime/crc32c.h"
#include "tests/support/fs_mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>

#define REGISTER 9u
#define DIR "a/store"

static trm_err err;
static const uint64_t stores[3] = {11, 12, 13};

static trm_paxos_message message(trm_paxos_type type, uint64_t round, uint64_t node, char value)
{
    trm_paxos_message out = {.type = type, .register_id = REGISTER, .store_id = 11, .ballot = {round, node}};
    if (value) {
        out.value.len = 1;
        out.value.bytes[0] = (uint8_t)value;
    }
    return out;
}

static void messages_round_trip_and_cuts_are_refused(void **state)
{
    for (int type = TRM_PAXOS_PREPARE; type <= TRM_PAXOS_REFUSED; type++) {
        trm_paxos_message in = message((trm_paxos_type)type, 300, 7, type == TRM_PAXOS_ACCEPT ? 'v' : 0), out;
        if (type == TRM_PAXOS_PROMISE || type == TRM_PAXOS_REFUSED)
            in.other = (trm_ballot){5, 6};
        if (type == TRM_PAXOS_PROMISE) {
            in.value.len = TRM_PAXOS_VALUE_BYTES_MAX;
            memset(in.value.bytes, 'p', in.value.len);
        }
        trm_writer writer;
        trm_writer_init(&writer);
        trm_paxos_encode(&in, &writer);
        assert_true(writer.len <= TRM_PAXOS_MESSAGE_BYTES_MAX);
        assert_int_equal(trm_paxos_decode(&out, writer.data, writer.len, &err), TRM_OK);
        assert_memory_equal(&in, &out, sizeof in);
        for (size_t len = 0; len < writer.len; len++)
            assert_int_equal(trm_paxos_decode(&out, writer.data, len, &err), TRM_ECORRUPT);
        writer.data[3] ^= 1;
        assert_int_equal(trm_paxos_decode(&out, writer.data, writer.len, &err), TRM_ECORRUPT);
        writer.data[3] ^= 1;
        writer.data[0] = 2;
        trm_store_u32(writer.data + writer.len - 4, trm_crc32c(0, writer.data, writer.len - 4));
        assert_int_equal(trm_paxos_decode(&out, writer.data, writer.len, &err), TRM_EVERSION);
        writer.data[0] = 1;
        writer.data[1] = 6;
        trm_store_u32(writer.data + writer.len - 4, trm_crc32c(0, writer.data, writer.len - 4));
        assert_int_equal(trm_paxos_decode(&out, writer.data, writer.len, &err), TRM_ECORRUPT);
        trm_writer_close(&writer);
    }
}

static void an_acceptor_keeps_its_promises(void **state)
{
    trm_paxos_acceptor now, next;
    trm_paxos_message answer, request;
    trm_paxos_acceptor_init(&now, 11, REGISTER);

    request = message(TRM_PAXOS_PREPARE, 2, 1, 0);
    assert_int_equal(trm_paxos_acceptor_step(&now, &request, &next, &answer), TRM_PAXOS_PERSIST);
    assert_true(answer.type == TRM_PAXOS_PROMISE && answer.other.round == 0);
    assert_int_equal(now.promised.round, 0);
    now = next;
    assert_int_equal(trm_paxos_acceptor_step(&now, &request, &next, &answer), TRM_PAXOS_ANSWER);

    request = message(TRM_PAXOS_ACCEPT, 2, 0, 'x'); /* the same round of a lower node */
    assert_int_equal(trm_paxos_acceptor_step(&now, &request, &next, &answer), TRM_PAXOS_ANSWER);
    assert_true(answer.type == TRM_PAXOS_REFUSED && answer.other.round == 2 && answer.other.node == 1);

    request = message(TRM_PAXOS_ACCEPT, 3, 0, 'y'); /* a higher one that has not asked here */
    assert_int_equal(trm_paxos_acceptor_step(&now, &request, &next, &answer), TRM_PAXOS_PERSIST);
    assert_int_equal(answer.type, TRM_PAXOS_ACCEPTED);
    now = next;
    assert_int_equal(trm_paxos_acceptor_step(&now, &request, &next, &answer), TRM_PAXOS_ANSWER);

    request = message(TRM_PAXOS_PREPARE, 4, 0, 0);
    assert_int_equal(trm_paxos_acceptor_step(&now, &request, &next, &answer), TRM_PAXOS_PERSIST);
    assert_true(answer.type == TRM_PAXOS_PROMISE && answer.other.round == 3 && answer.value.bytes[0] == 'y');

    request.store_id = 12;
    assert_int_equal(trm_paxos_acceptor_step(&now, &request, &next, &answer), TRM_PAXOS_DROP);
    request = message(TRM_PAXOS_PROMISE, 9, 9, 0);
    assert_int_equal(trm_paxos_acceptor_step(&now, &request, &next, &answer), TRM_PAXOS_DROP);
}

static void start(trm_paxos_proposer *proposer, uint64_t node, char value)
{
    uint8_t byte = (uint8_t)value;
    trm_paxos_proposer_config config = {.register_id = REGISTER,
                                        .node = node,
                                        .store_ids = stores,
                                        .acceptors = 3,
                                        .value = &byte,
                                        .value_len = 1,
                                        .timeout_ns = 100,
                                        .backoff_ns = 10,
                                        .seed = 1};
    trm_paxos_proposer_init(proposer, &config, 0);
}

static unsigned sent(trm_paxos_proposer *proposer, trm_paxos_message *last)
{
    unsigned count = 0;
    uint32_t acceptor;
    while (trm_paxos_proposer_next(proposer, &acceptor, last)) {
        assert_int_equal(last->store_id, stores[acceptor]);
        count++;
    }
    return count;
}

static void answer_from(trm_paxos_proposer *proposer, uint64_t store, trm_paxos_type type, trm_ballot other,
                        char value)
{
    trm_paxos_message out = message(type, proposer->ballot.round, proposer->ballot.node, value);
    out.store_id = store;
    out.other = other;
    trm_paxos_proposer_receive(proposer, &out, 50);
}

static void a_proposer_adopts_the_highest_accepted_value(void **state)
{
    trm_paxos_proposer proposer;
    trm_paxos_message last;
    bool own;
    start(&proposer, 5, 'm');
    assert_int_equal(sent(&proposer, &last), 3);
    assert_int_equal(last.type, TRM_PAXOS_PREPARE);
    answer_from(&proposer, 11, TRM_PAXOS_PROMISE, (trm_ballot){3, 1}, 'h');
    answer_from(&proposer, 11, TRM_PAXOS_PROMISE, (trm_ballot){3, 1}, 'h'); /* twice is once */
    answer_from(&proposer, 99, TRM_PAXOS_PROMISE, (trm_ballot){9, 1}, 'q'); /* nobody */
    assert_int_equal(sent(&proposer, &last), 0);
    answer_from(&proposer, 12, TRM_PAXOS_PROMISE, (trm_ballot){2, 9}, 'l');
    assert_int_equal(sent(&proposer, &last), 3);
    assert_true(last.type == TRM_PAXOS_ACCEPT && last.value.bytes[0] == 'h');
    answer_from(&proposer, 13, TRM_PAXOS_PROMISE, (trm_ballot){8, 9}, 'z'); /* too late */
    answer_from(&proposer, 13, TRM_PAXOS_ACCEPTED, (trm_ballot){0, 0}, 0);
    assert_false(trm_paxos_proposer_decided(&proposer, &own));
    answer_from(&proposer, 12, TRM_PAXOS_ACCEPTED, (trm_ballot){0, 0}, 0);
    assert_true(trm_paxos_proposer_decided(&proposer, &own));
    assert_false(own);
    assert_int_equal(proposer.value.bytes[0], 'h');
    answer_from(&proposer, 11, TRM_PAXOS_REFUSED, (trm_ballot){30, 1}, 0);
    trm_paxos_proposer_tick(&proposer, UINT64_MAX);
    assert_true(trm_paxos_proposer_decided(&proposer, &own));
}

static void a_refused_proposer_backs_off_and_goes_above(void **state)
{
    trm_paxos_proposer proposer;
    trm_paxos_message last;
    start(&proposer, 5, 'm');
    sent(&proposer, &last);
    answer_from(&proposer, 11, TRM_PAXOS_REFUSED, (trm_ballot){7, 1}, 0);
    assert_int_equal(proposer.phase, TRM_PAXOS_PREPARING);
    answer_from(&proposer, 12, TRM_PAXOS_REFUSED, (trm_ballot){6, 1}, 0);
    assert_int_equal(proposer.phase, TRM_PAXOS_WAITING);
    assert_true(proposer.deadline_ns >= 50 && proposer.deadline_ns <= 60);
    answer_from(&proposer, 12, TRM_PAXOS_PROMISE, (trm_ballot){0, 0}, 0);
    trm_paxos_proposer_tick(&proposer, 49);
    assert_int_equal(sent(&proposer, &last), 0);
    trm_paxos_proposer_tick(&proposer, 60);
    assert_int_equal(sent(&proposer, &last), 3);
    assert_true(last.ballot.round == 8 && last.ballot.node == 5);
    trm_paxos_proposer_tick(&proposer, 1000); /* nobody answers */
    assert_int_equal(proposer.phase, TRM_PAXOS_WAITING);
    for (unsigned i = 0; i < 100; i++)
        trm_paxos_proposer_tick(&proposer, proposer.deadline_ns);
    assert_true(proposer.ballot.round > 50);
}

static void a_store_answers_for_itself_only(void **state)
{
    trm_fs *fs = trm_fs_mem_create(1);
    uint64_t id = 0;
    trm_paxos_message answer, request = message(TRM_PAXOS_PREPARE, 2, 1, 0);
    assert_int_equal(trm_paxos_store_id(fs, DIR, &id, &err), TRM_ELOST);
    assert_int_equal(trm_paxos_store_answer(fs, DIR, REGISTER, &request, &answer, &err), TRM_ELOST);
    assert_int_equal(trm_paxos_store_make(fs, "", 11, &id, &err), TRM_EIO);
    assert_int_equal(trm_paxos_store_answer(fs, "", REGISTER, &request, &answer, &err), TRM_EIO);
    assert_int_equal(trm_paxos_store_id(fs, "", &id, &err), TRM_EIO);
    assert_int_equal(trm_paxos_store_make(fs, DIR, 11, &id, &err), TRM_OK);
    assert_int_equal(trm_paxos_store_make(fs, DIR, 99, &id, &err), TRM_OK);
    assert_int_equal(id, 11);
    for (int again = 0; again < 2; again++) {
        assert_int_equal(trm_paxos_store_answer(fs, DIR, REGISTER, &request, &answer, &err), TRM_OK);
        assert_int_equal(answer.type, TRM_PAXOS_PROMISE);
    }
    assert_int_equal(trm_paxos_store_answer(fs, DIR, REGISTER + 1, &request, &answer, &err), TRM_ELOST);
    request = message(TRM_PAXOS_ACCEPT, 2, 1, 'v');
    assert_int_equal(trm_paxos_store_answer(fs, DIR, REGISTER, &request, &answer, &err), TRM_OK);
    trm_fs_mem_crash(fs);
    request = message(TRM_PAXOS_PREPARE, 1, 1, 0);
    assert_int_equal(trm_paxos_store_answer(fs, DIR, REGISTER, &request, &answer, &err), TRM_OK);
    assert_true(answer.type == TRM_PAXOS_REFUSED && answer.other.round == 2);
    trm_paxos_acceptor now;
    assert_int_equal(trm_paxos_store_read(fs, DIR, REGISTER, &now, &err), TRM_OK);
    assert_true(now.accepted.round == 2 && now.value.bytes[0] == 'v');

    trm_file *lock;
    assert_int_equal(fs->ops->open(fs, DIR "/lock", TRM_FS_WRITE, &lock, &err), TRM_OK);
    assert_int_equal(fs->ops->lock(lock, &err), TRM_OK);
    assert_int_equal(trm_paxos_store_answer(fs, DIR, REGISTER, &request, &answer, &err), TRM_AGAIN);
    fs->ops->close(lock);

    trm_fs_mem_wipe(fs);
    assert_int_equal(trm_paxos_store_make(fs, DIR, 12, &id, &err), TRM_OK);
    assert_int_equal(trm_paxos_store_answer(fs, DIR, REGISTER, &request, &answer, &err), TRM_ELOST);
    trm_fs_mem_destroy(fs);
}

static void damaged_store_files_are_refused(void **state)
{
    trm_fs *fs = trm_fs_mem_create(1);
    uint64_t id;
    trm_paxos_message answer, request = message(TRM_PAXOS_ACCEPT, 2, 1, 'v');
    assert_int_equal(trm_paxos_store_make(fs, DIR, 11, &id, &err), TRM_OK);
    assert_int_equal(trm_paxos_store_answer(fs, DIR, REGISTER, &request, &answer, &err), TRM_OK);
    static const char *const paths[] = {DIR "/identity", DIR "/register-0000000000000009"};
    for (int which = 0; which < 2; which++) {
        uint8_t *bytes;
        size_t len;
        assert_int_equal(trm_fs_read_whole(fs, paths[which], 4096, &bytes, &len, &err), TRM_OK);
        for (size_t at = 0; at < len; at++) {
            bytes[at] ^= 4;
            assert_int_equal(trm_fs_write_whole(fs, paths[which], bytes, len, 0, &err), TRM_OK);
            trm_status wanted = at >= 8 && at < 12 ? TRM_EVERSION : TRM_ECORRUPT;
            assert_int_equal(trm_paxos_store_answer(fs, DIR, REGISTER, &request, &answer, &err), wanted);
            assert_non_null(strstr(err.text, paths[which]));
            bytes[at] ^= 4;
            assert_int_equal(trm_fs_write_whole(fs, paths[which], bytes, at, 0, &err), TRM_OK);
            assert_int_equal(trm_paxos_store_answer(fs, DIR, REGISTER, &request, &answer, &err),
                             TRM_ECORRUPT);
            assert_int_equal(trm_paxos_store_make(fs, DIR, 5, &id, &err), which == 0 ? TRM_ECORRUPT : TRM_OK);
        }
        assert_int_equal(trm_fs_write_whole(fs, paths[which], bytes, len, 0, &err), TRM_OK);
        /* A good file of something else. */
        if (which == 1) {
            trm_store_u64(bytes + 12, 99); /* the promises of a store that was here before */
            trm_store_u32(bytes + len - 4, trm_crc32c(0, bytes, len - 4));
            assert_int_equal(trm_fs_write_whole(fs, paths[which], bytes, len, 0, &err), TRM_OK);
            assert_int_equal(trm_paxos_store_answer(fs, DIR, REGISTER, &request, &answer, &err),
                             TRM_ECORRUPT);
            trm_store_u64(bytes + 12, 11);
            trm_store_u64(bytes + 20, REGISTER + 1);
            trm_store_u32(bytes + len - 4, trm_crc32c(0, bytes, len - 4));
            assert_int_equal(trm_fs_write_whole(fs, paths[which], bytes, len, 0, &err), TRM_OK);
            assert_int_equal(trm_paxos_store_answer(fs, DIR, REGISTER, &request, &answer, &err),
                             TRM_ECORRUPT);
            trm_store_u64(bytes + 44, 5); /* accepted above what was promised */
            trm_store_u32(bytes + len - 4, trm_crc32c(0, bytes, len - 4));
            trm_paxos_acceptor now;
            assert_int_equal(trm_paxos_register_decode(&now, bytes, len, &err), TRM_ECORRUPT);
        }
        free(bytes);
    }
    trm_fs_mem_destroy(fs);
}

static void what_cannot_be_written_is_not_answered(void **state)
{
    for (unsigned op = 0; op < 9; op++)
        for (uint64_t after = 0; after < 6; after++) {
            trm_fs *fs = trm_fs_mem_create(op * 100 + after);
            uint64_t id;
            trm_paxos_message answer, request = message(TRM_PAXOS_PREPARE, 2, 1, 0);
            assert_int_equal(trm_paxos_store_make(fs, DIR, 11, &id, &err), TRM_OK);
            trm_fs_mem_fail(fs, 1u << op, after, 1, TRM_EIO);
            trm_status first = trm_paxos_store_answer(fs, DIR, REGISTER, &request, &answer, &err);
            trm_fs_mem_fail(fs, 0, 0, 0, TRM_OK);
            trm_status second = trm_paxos_store_answer(fs, DIR, REGISTER, &request, &answer, &err);
            assert_true(first == TRM_OK || first == TRM_EIO);
            assert_int_equal(second, TRM_OK);
            trm_fs_mem_crash(fs);
            trm_paxos_acceptor now;
            assert_int_equal(trm_paxos_store_read(fs, DIR, REGISTER, &now, &err), TRM_OK);
            assert_int_equal(now.promised.round, 2);
            trm_fs_mem_destroy(fs);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_round_trip_and_cuts_are_refused),
        cmocka_unit_test(an_acceptor_keeps_its_promises),
        cmocka_unit_test(a_proposer_adopts_the_highest_accepted_value),
        cmocka_unit_test(a_refused_proposer_backs_off_and_goes_above),
        cmocka_unit_test(a_store_answers_for_itself_only),
        cmocka_unit_test(damaged_store_files_are_refused),
        cmocka_unit_test(what_cannot_be_written_is_not_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
