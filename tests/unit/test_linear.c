/* tests/support/linear: the judge of histories must itself be judged. Known histories, good
 * and bad; and random ones against a search that tries every order. */
#include "tests/support/linear.h"

#include "tests/support/draw.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define OPEN TRM_LINEAR_OPEN
#define W(value, begin, end)                                                                                 \
    {                                                                                                        \
        0, value, begin, end, true                                                                           \
    }
#define R(value, begin, end)                                                                                 \
    {                                                                                                        \
        0, value, begin, end, false                                                                          \
    }
#define JUDGE(ops) trm_linear_check(ops, sizeof ops / sizeof *ops, 0, NULL)

static void what_is_linearizable_passes(void **state)
{
    assert_int_equal(trm_linear_check(NULL, 0, 0, NULL), TRM_LINEAR_OK);
    const trm_linear_op in_turn[] = {R(0, 1, 2), W(1, 3, 4), R(1, 5, 6), W(2, 7, 8), R(2, 9, 10)};
    assert_int_equal(JUDGE(in_turn), TRM_LINEAR_OK);
    /* A read beside a write may see it or not, and one after another in this order. */
    const trm_linear_op beside[] = {W(1, 1, 10), R(0, 2, 3), R(1, 4, 5), R(1, 6, 12)};
    assert_int_equal(JUDGE(beside), TRM_LINEAR_OK);
    /* Both writes run all the time; the reads force an order that is not that of calls. */
    const trm_linear_op turned[] = {W(1, 1, 20), W(2, 2, 21), R(2, 3, 4), R(1, 5, 6)};
    assert_int_equal(JUDGE(turned), TRM_LINEAR_OK);
}

static void stale_and_impossible_reads_are_caught(void **state)
{
    size_t culprit = 99;
    const trm_linear_op stale[] = {W(1, 1, 2), W(2, 3, 4), R(1, 5, 6)};
    assert_int_equal(trm_linear_check(stale, 3, 0, &culprit), TRM_LINEAR_VIOLATION);
    assert_int_equal(culprit, 2);
    const trm_linear_op lost[] = {W(1, 1, 2), R(0, 3, 4)};
    assert_int_equal(JUDGE(lost), TRM_LINEAR_VIOLATION);
    const trm_linear_op invented[] = {W(1, 1, 2), R(7, 3, 4)};
    assert_int_equal(JUDGE(invented), TRM_LINEAR_VIOLATION);
    const trm_linear_op early[] = {R(1, 1, 2), W(1, 3, 4)};
    assert_int_equal(JUDGE(early), TRM_LINEAR_VIOLATION);
    /* Seen, and then not seen any more. */
    const trm_linear_op back[] = {W(1, 1, 20), R(1, 2, 3), R(0, 4, 5)};
    assert_int_equal(JUDGE(back), TRM_LINEAR_VIOLATION);
    /* Two readers see two writes in different orders. */
    const trm_linear_op two_orders[] = {W(1, 1, 20), W(2, 2, 21), R(1, 3, 4), R(2, 5, 6), R(1, 7, 8)};
    assert_int_equal(JUDGE(two_orders), TRM_LINEAR_VIOLATION);
}

static void writes_without_an_answer_may_have_happened(void **state)
{
    const trm_linear_op happened[] = {W(1, 1, OPEN), R(0, 2, 3), R(1, 4, 5)};
    assert_int_equal(JUDGE(happened), TRM_LINEAR_OK);
    const trm_linear_op never[] = {W(1, 1, OPEN), W(2, 2, 3), R(2, 4, 5), R(9, 6, OPEN)};
    assert_int_equal(JUDGE(never), TRM_LINEAR_OK);
    const trm_linear_op late[] = {W(1, 1, OPEN), W(2, 2, 3), R(2, 4, 5), R(1, 6, 7), R(1, 8, 9)};
    assert_int_equal(JUDGE(late), TRM_LINEAR_OK);
    const trm_linear_op twice[] = {W(1, 1, OPEN), R(1, 2, 3), W(2, 4, 5), R(1, 6, 7)};
    assert_int_equal(JUDGE(twice), TRM_LINEAR_VIOLATION);
    const trm_linear_op before[] = {R(1, 1, 2), W(1, 3, OPEN)};
    assert_int_equal(JUDGE(before), TRM_LINEAR_VIOLATION);
}

static void registers_are_judged_apart(void **state)
{
    size_t culprit = 99;
    trm_linear_op ops[] = {{7, 1, 1, 2, true}, {8, 2, 3, 4, true}, {7, 1, 5, 6, false}, {8, 2, 7, 8, false}};
    assert_int_equal(JUDGE(ops), TRM_LINEAR_OK);
    ops[3].value = 1;
    assert_int_equal(trm_linear_check(ops, 4, 0, &culprit), TRM_LINEAR_VIOLATION);
    assert_int_equal(culprit, 3);
}

static void what_is_too_large_is_said(void **state)
{
    static trm_linear_op ops[TRM_LINEAR_OPS_MAX + 1];
    for (uint64_t i = 0; i <= TRM_LINEAR_OPS_MAX; i++)
        ops[i] = (trm_linear_op)W(i, 2 * i + 1, 2 * i + 2);
    assert_int_equal(trm_linear_check(ops, TRM_LINEAR_OPS_MAX, 0, NULL), TRM_LINEAR_OK);
    assert_int_equal(JUDGE(ops), TRM_LINEAR_TOO_LARGE);
    /* Forty writes at once, and a read of none of them: all sets of them are tried. */
    for (uint64_t i = 0; i < 40; i++)
        ops[i] = (trm_linear_op)W(i + 1, i + 1, 1000 + i);
    ops[40] = (trm_linear_op)R(77, 500, 501);
    assert_int_equal(trm_linear_check(ops, 41, 0, NULL), TRM_LINEAR_TOO_LARGE);
}

/* ---- Against every order. ---- */

/* Whether the operations left (a set of bits) can go on from `value`. */
static bool any_order(const trm_linear_op *ops, unsigned len, unsigned left, uint64_t value)
{
    uint64_t first_end = OPEN;
    bool only_open = true;
    for (unsigned i = 0; i < len; i++)
        if (left >> i & 1) {
            first_end = ops[i].end < first_end ? ops[i].end : first_end;
            only_open &= ops[i].end == OPEN;
        }
    if (only_open)
        return true;
    for (unsigned i = 0; i < len; i++) {
        if (!(left >> i & 1) || ops[i].begin > first_end || (!ops[i].write && ops[i].value != value))
            continue;
        if (any_order(ops, len, left & ~(1u << i), ops[i].write ? ops[i].value : value))
            return true;
    }
    return false;
}

static void random_histories_are_judged_as_every_order_does(void **state)
{
    const char *text = getenv("TRM_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 10) : 1, verdicts[2] = {0, 0};
    for (uint64_t round = 0; round < 20000; round++) {
        trm_draw draw = trm_draw_from(seed + round);
        trm_linear_op ops[8];
        unsigned len = 1 + (unsigned)trm_draw_below(&draw, 8);
        uint64_t clock = 0, open_until[8];
        for (unsigned i = 0; i < len; i++) {
            clock += 10 + trm_draw_below(&draw, 20);
            open_until[i] = clock + 1 + trm_draw_below(&draw, 60);
            /* Distinct numbers: the last digit is the operation's. */
            ops[i] = (trm_linear_op){0, trm_draw_below(&draw, 3), clock * 16 + i, open_until[i] * 16 + i + 8,
                                     trm_draw_below(&draw, 2)};
            if (ops[i].write && trm_draw_below(&draw, 5) == 0)
                ops[i].end = OPEN;
        }
        bool wanted = any_order(ops, len, (1u << len) - 1, 0);
        trm_linear_verdict got = trm_linear_check(ops, len, 0, NULL);
        verdicts[wanted]++;
        if (got != (wanted ? TRM_LINEAR_OK : TRM_LINEAR_VIOLATION))
            fail_msg("replay with: TRM_TEST_SEED=%" PRIu64 " tests/unit/test_linear", seed + round);
    }
    assert_true(verdicts[0] > 1000 && verdicts[1] > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_linearizable_passes),
        cmocka_unit_test(stale_and_impossible_reads_are_caught),
        cmocka_unit_test(writes_without_an_answer_may_have_happened),
        cmocka_unit_test(registers_are_judged_apart),
        cmocka_unit_test(what_is_too_large_is_said),
        cmocka_unit_test(random_histories_are_judged_as_every_order_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
