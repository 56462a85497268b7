/* runtime/consensus/raft_log: the tail in memory against a plain model, and what of it is
 * durable through overwritten writes. */
#include "runtime/consensus/raft_log.h"

#include "runtime/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>

static trm_err err;

static void put(raft_log *log, uint64_t index, uint64_t term, const char *payload)
{
    trm_raft_entry entry = {index, term, TRM_RAFT_COMMAND, (const uint8_t *)payload, strlen(payload)};
    assert_int_equal(raft_log_put(log, &entry, 1, &err), TRM_OK);
}

static void hand_out(raft_log *log, uint64_t sequence, uint64_t first, size_t len)
{
    const trm_raft_entry *entries;
    assert_int_equal(raft_log_hand_out(log, sequence, &entries), len);
    if (len > 0)
        assert_int_equal(entries[0].index, first);
}

static void what_is_put_is_there(void **state)
{
    raft_log log;
    raft_log_init(&log, 0, 0);
    put(&log, 1, 1, "one");
    put(&log, 2, 1, "");
    put(&log, 3, 2, "three");
    assert_int_equal(raft_log_last(&log), 3);
    assert_memory_equal(raft_log_at(&log, 3)->payload, "three", 5);
    assert_int_equal(log.bytes, 3 * sizeof(trm_raft_entry) + 8);
    assert_true(raft_log_has(&log, 0, 0) && raft_log_has(&log, 3, 2));
    assert_false(raft_log_has(&log, 3, 1) || raft_log_has(&log, 4, 2));
    put(&log, 2, 3, "again"); /* takes the place of two */
    assert_int_equal(raft_log_last(&log), 2);
    assert_int_equal(raft_log_term(&log, 2), 3);
    assert_int_equal(log.bytes, 2 * sizeof(trm_raft_entry) + 8);
    raft_log_close(&log);
}

static void places_are_found_by_term(void **state)
{
    static const uint64_t terms[] = {1, 1, 4, 4, 4, 6, 9};
    raft_log log;
    raft_log_init(&log, 10, 1);
    for (uint64_t i = 0; i < 7; i++)
        put(&log, 11 + i, terms[i], "x");
    for (uint64_t index = 10; index <= 17; index++)
        for (uint64_t term = 0; term <= 10; term++) {
            uint64_t wanted = index;
            while (wanted > 10 && raft_log_term(&log, wanted) > term)
                wanted--;
            assert_int_equal(raft_log_find_term(&log, index, term), wanted);
        }
    assert_null(raft_log_find_config(&log, 17));
    trm_raft_entry config = {18, 9, TRM_RAFT_CONFIG, NULL, 0};
    assert_int_equal(raft_log_put(&log, &config, 1, &err), TRM_OK);
    assert_int_equal(raft_log_find_config(&log, 18)->index, 18);
    assert_null(raft_log_find_config(&log, 17));
    raft_log_close(&log);
}

static void an_overwritten_write_makes_nothing_durable(void **state)
{
    raft_log log;
    raft_log_init(&log, 0, 0);
    put(&log, 1, 1, "a");
    put(&log, 2, 1, "b");
    hand_out(&log, 1, 1, 2);
    put(&log, 2, 2, "x");
    hand_out(&log, 2, 2, 1);
    put(&log, 2, 1, "b"); /* the very same entry */
    hand_out(&log, 3, 2, 1);
    hand_out(&log, 4, 0, 0);
    assert_true(raft_log_written(&log, 1));
    assert_int_equal(log.durable, 1);
    assert_false(raft_log_written(&log, 2));
    assert_int_equal(log.durable, 1);
    assert_true(raft_log_written(&log, 3));
    assert_int_equal(log.durable, 2);
    assert_false(raft_log_written(&log, 9));
    put(&log, 1, 5, "new"); /* what was durable is not any more */
    assert_int_equal(log.durable, 0);
    raft_log_close(&log);
}

static void more_writes_than_are_counted(void **state)
{
    raft_log log;
    raft_log_init(&log, 0, 0);
    const uint64_t writes = RAFT_LOG_WRITES_MAX + 10;
    for (uint64_t i = 1; i <= writes; i++) {
        put(&log, i, 1, "x");
        hand_out(&log, i, i, 1);
    }
    assert_true(raft_log_written(&log, 5));
    assert_int_equal(log.durable, 5);
    /* The newest count as one: nothing of them is durable before all are. */
    raft_log_written(&log, writes - 1);
    assert_int_equal(log.durable, RAFT_LOG_WRITES_MAX - 1);
    assert_true(raft_log_written(&log, writes));
    assert_int_equal(log.durable, writes);
    raft_log_close(&log);
}

static void compaction_and_reset(void **state)
{
    raft_log log;
    raft_log_init(&log, 0, 0);
    for (uint64_t i = 1; i <= 1000; i++)
        put(&log, i, 1 + i / 100, "payload");
    hand_out(&log, 1, 1, 1000);
    raft_log_written(&log, 1);
    raft_log_compact(&log, 700);
    raft_log_compact(&log, 600); /* is gone already */
    assert_int_equal(log.base_index, 700);
    assert_int_equal(log.base_term, 8);
    assert_int_equal(raft_log_last(&log), 1000);
    assert_false(raft_log_has(&log, 699, 7));
    for (uint64_t i = 1001; i <= 1600; i++) /* moves to the front */
        put(&log, i, 20, "payload");
    for (uint64_t i = 701; i <= 1600; i++)
        assert_int_equal(raft_log_at(&log, i)->index, i);
    raft_log_reset(&log, 5000, 30);
    assert_int_equal(raft_log_last(&log), 5000);
    assert_int_equal(log.durable, 5000);
    assert_int_equal(log.bytes, 0);
    put(&log, 5001, 31, "on");
    hand_out(&log, 2, 5001, 1);
    raft_log_close(&log);
}

/* A model: terms by index, and which index each write would make durable. */
static void at_random(void **state)
{
    const char *text = getenv("TRM_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 10) : 1;
    print_message("TRM_TEST_SEED=%llu tests/unit/test_raft_log\n", (unsigned long long)seed);
    raft_log log;
    raft_log_init(&log, 0, 0);
    uint64_t terms[20001] = {0}, written_at[20001] = {0}; /* the write that wrote it last; 0: none */
    uint64_t last = 0, term = 1, sequence = 0, done = 0;
    for (unsigned step = 0; step < 20000; step++) {
        uint64_t what = trm_random_next(&seed) % 10, draw = trm_random_next(&seed);
        if (what < 5 && last < 20000) {
            uint64_t behind = last - log.base_index;
            uint64_t index = what == 0 && behind > 0 ? last - draw % (behind < 5 ? behind : 5) : last + 1;
            term += draw % 3 == 0;
            put(&log, index, term, draw & 1 ? "p" : "");
            for (uint64_t i = index; i <= last; i++)
                written_at[i] = 0;
            last = index;
            terms[last] = term;
        } else if (what < 7) {
            const trm_raft_entry *entries;
            size_t len = raft_log_hand_out(&log, sequence + 1, &entries);
            sequence += len > 0;
            for (size_t i = 0; i < len; i++)
                written_at[entries[i].index] = sequence;
        } else if (what < 9) {
            done += sequence > done ? draw % (sequence - done + 1) : 0;
            raft_log_written(&log, done);
        } else if (log.durable > log.base_index) {
            raft_log_compact(&log, log.base_index + draw % (log.durable - log.base_index + 1));
        }
        assert_int_equal(raft_log_last(&log), last);
        uint64_t durable = log.base_index;
        while (durable < last && written_at[durable + 1] != 0 && written_at[durable + 1] <= done)
            durable++;
        assert_true(log.durable <= durable); /* less when writes count as one */
        for (uint64_t i = last < 3 ? log.base_index + 1 : last - 2; i <= last && i > log.base_index; i++)
            assert_int_equal(raft_log_term(&log, i), terms[i]);
    }
    raft_log_close(&log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_put_is_there),
        cmocka_unit_test(places_are_found_by_term),
        cmocka_unit_test(more_writes_than_are_counted),
        cmocka_unit_test(an_overwritten_write_makes_nothing_durable),
        cmocka_unit_test(compaction_and_reset),
        cmocka_unit_test(at_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
