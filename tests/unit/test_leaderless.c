/* tool/leaderless: when a rank leaves because nobody leads. */
#include "tool/leaderless.h"

#include "runtime/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define MS TRM_NS_PER_MS
#define TURN_MS 10u

static trm_leaderless it;
static uint64_t now_ns;

static int begin(void **state)
{
    it = (trm_leaderless){0};
    now_ns = TRM_NS_PER_S;
    return 0;
}

/* Turns of `turn_ms` until it is time, TRM_LEADERLESS_MS at the most; how many there were. */
static unsigned turns_until_it_leaves(uint64_t turn_ms, bool lost)
{
    unsigned turns = 0;
    for (bool leaves = false; !leaves && turns <= TRM_LEADERLESS_MS; turns++) {
        uint64_t wake_ns = UINT64_MAX;
        now_ns += turn_ms * MS;
        leaves = trm_leaderless_step(&it, false, lost, now_ns, &wake_ns);
        assert_true(leaves || wake_ns < UINT64_MAX);
    }
    return turns;
}

static void it_waits_for_a_while(void **state)
{
    assert_in_range(turns_until_it_leaves(TURN_MS, false), TRM_LEADERLESS_MS / TURN_MS,
                    TRM_LEADERLESS_MS / TURN_MS + 2);
}

static void it_does_not_wait_for_a_majority_that_is_gone(void **state)
{
    assert_in_range(turns_until_it_leaves(TURN_MS, true), TRM_LOST_MS / TURN_MS, TRM_LOST_MS / TURN_MS + 2);
}

static void who_leads_keeps_it(void **state)
{
    uint64_t wake_ns = UINT64_MAX;
    for (unsigned i = 0; i < 3; i++) {
        for (unsigned turn = 0; turn < TRM_LEADERLESS_MS / TURN_MS - 2; turn++)
            assert_false(trm_leaderless_step(&it, false, false, now_ns += TURN_MS * MS, &wake_ns));
        if (i)
            assert_false(trm_leaderless_step(&it, true, false, now_ns += TURN_MS * MS, &wake_ns));
        else
            trm_leaderless_heard(&it);
    }
}

/* MPI blocks in each turn: before, this waited for ever. */
static void turns_that_block_do_not_keep_it(void **state)
{
    assert_in_range(turns_until_it_leaves(3 * TRM_LOOP_PAUSED_MS, false),
                    TRM_LEADERLESS_MS / TRM_LOOP_PAUSED_MS, TRM_LEADERLESS_MS / TRM_LOOP_PAUSED_MS + 2);
}

static void a_sleep_counts_for_a_second(void **state)
{
    uint64_t wake_ns = UINT64_MAX;
    assert_false(trm_leaderless_step(&it, false, false, now_ns += TURN_MS * MS, &wake_ns));
    now_ns += 100 * TRM_LEADERLESS_MS * MS;
    assert_in_range(turns_until_it_leaves(TURN_MS, false), (TRM_LEADERLESS_MS - TRM_LOOP_PAUSED_MS) / TURN_MS,
                    TRM_LEADERLESS_MS / TURN_MS);
}

static void a_sleep_may_have_missed_who_is_left(void **state)
{
    uint64_t wake_ns = UINT64_MAX;
    for (unsigned turn = 0; turn < TRM_LOST_MS / TURN_MS - 2; turn++)
        assert_false(trm_leaderless_step(&it, false, true, now_ns += TURN_MS * MS, &wake_ns));
    now_ns += 2 * TRM_LOOP_PAUSED_MS * MS;
    assert_in_range(turns_until_it_leaves(TURN_MS, true), TRM_LOST_MS / TURN_MS, TRM_LOST_MS / TURN_MS + 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(it_waits_for_a_while, begin),
        cmocka_unit_test_setup(it_does_not_wait_for_a_majority_that_is_gone, begin),
        cmocka_unit_test_setup(who_leads_keeps_it, begin),
        cmocka_unit_test_setup(turns_that_block_do_not_keep_it, begin),
        cmocka_unit_test_setup(a_sleep_counts_for_a_second, begin),
        cmocka_unit_test_setup(a_sleep_may_have_missed_who_is_left, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
