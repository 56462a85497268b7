/* workers/ledger: against a plain list, through drawn additions, reports, settlements and masters. */
#include "workers/ledger.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define MODEL_MAX 3000u

typedef struct modelled {
    trm_order order;
    uint32_t len; /* 0: not ended */
    bool sent, told;
} modelled;

static uint64_t seed;
static modelled model[MODEL_MAX];
static unsigned model_count;

static uint32_t chance(uint32_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)((seed >> 20) % below);
}

static trm_order drawn(void)
{
    return (trm_order){.phase = (uint8_t)chance(3), .task = chance(300), .attempt = chance(3) * 1024};
}

static modelled *find(const trm_order *order)
{
    for (unsigned i = 0; i < model_count; i++)
        if (model[i].order.phase == order->phase && model[i].order.task == order->task &&
            model[i].order.attempt == order->attempt)
            return &model[i];
    return NULL;
}

static void add(trm_ledger *ledger)
{
    trm_order order = drawn();
    trm_status expected = find(&order) ? TRM_AGAIN : TRM_OK;
    assert_int_equal(trm_ledger_add(ledger, &order), expected);
    if (expected == TRM_OK)
        model[model_count++] = (modelled){.order = order};
}

static void report(trm_ledger *ledger)
{
    uint8_t bytes[40];
    trm_order order = drawn();
    modelled *it = find(&order);
    uint32_t len = 1 + chance(sizeof bytes);
    memset(bytes, (int)(order.task % 251), len);
    bool takes = it && !it->len;
    assert_int_equal(trm_ledger_report(ledger, &order, bytes, len), takes);
    if (takes)
        it->len = len;
}

static void settle(trm_ledger *ledger)
{
    trm_order order = drawn();
    modelled *it = find(&order);
    bool goes = it && it->len;
    assert_int_equal(trm_ledger_settle(ledger, &order), goes);
    if (goes)
        *it = model[--model_count];
}

static void send_some(trm_ledger *ledger)
{
    uint32_t count = 0, most = chance(20);
    for (const ledger_entry *at = trm_ledger_due(ledger); at && count < most;
         at = trm_ledger_after(ledger, at)) {
        modelled *it = find(&at->order);
        assert_true(it && it->len == at->len && !it->sent);
        assert_int_equal(at->bytes[at->len - 1], at->order.task % 251);
        it->sent = true;
        count++;
    }
    trm_ledger_sent(ledger, count);
}

static void another_master(trm_ledger *ledger)
{
    trm_ledger_send_again(ledger);
    for (unsigned i = 0; i < model_count; i++)
        model[i].sent = false;
}

static void check(const trm_ledger *ledger)
{
    size_t bytes = 0, due = 0;
    unsigned told = 0;
    trm_order order;
    for (unsigned i = 0; i < model_count; i++) {
        bytes += model[i].len;
        due += model[i].sent ? 0 : model[i].len;
        model[i].told = false;
    }
    assert_int_equal(ledger->count, model_count);
    assert_int_equal(ledger->bytes, bytes);
    assert_int_equal(ledger->due_bytes, due);
    for (uint32_t at = 0; trm_ledger_next(ledger, &at, &order); told++) {
        modelled *it = find(&order);
        assert_true(it && !it->told);
        it->told = true;
    }
    assert_int_equal(told, model_count);
}

static void a_ledger_is_a_list_of_what_is_held(void **state)
{
    for (int round = 0; round < 20; round++) {
        trm_ledger ledger;
        trm_ledger_init(&ledger);
        model_count = 0;
        for (int i = 0; i < 3000; i++) {
            unsigned what = chance(100);
            if (what < 35)
                add(&ledger);
            else if (what < 65)
                report(&ledger);
            else if (what < 95)
                settle(&ledger);
            else if (what < 99)
                send_some(&ledger);
            else
                another_master(&ledger);
            if (i % 100 == 0)
                check(&ledger);
        }
        check(&ledger);
        trm_ledger_close(&ledger);
    }
}

/* What was told to the master before goes first: it has waited longest. */
static void reports_are_sent_again_in_their_order(void **state)
{
    trm_ledger ledger;
    trm_ledger_init(&ledger);
    for (uint32_t i = 0; i < 6; i++) {
        trm_order order = {.phase = 1, .task = i};
        assert_int_equal(trm_ledger_add(&ledger, &order), TRM_OK);
        assert_true(trm_ledger_report(&ledger, &order, "x", 1));
        if (i == 3)
            trm_ledger_sent(&ledger, 4);
    }
    assert_int_equal(trm_ledger_due(&ledger)->order.task, 4);
    trm_ledger_send_again(&ledger);
    uint32_t next = 0;
    for (const ledger_entry *at = trm_ledger_due(&ledger); at; at = trm_ledger_after(&ledger, at))
        assert_int_equal(at->order.task, next++);
    assert_int_equal(next, 6);
    trm_ledger_close(&ledger);
}

/* One that has ended is as it was; the mark goes with the order. */
static void what_has_not_ended_can_be_cancelled(void **state)
{
    trm_ledger ledger;
    trm_ledger_init(&ledger);
    trm_order order = {.phase = 1, .task = 3};
    assert_false(trm_ledger_cancel(&ledger, &order));
    assert_int_equal(trm_ledger_add(&ledger, &order), TRM_OK);
    assert_false(trm_ledger_is_cancelled(&ledger, &order));
    assert_true(trm_ledger_cancel(&ledger, &order));
    assert_true(trm_ledger_is_cancelled(&ledger, &order));
    assert_true(trm_ledger_report(&ledger, &order, "x", 1));
    assert_false(trm_ledger_cancel(&ledger, &order));
    assert_true(trm_ledger_settle(&ledger, &order));
    assert_int_equal(trm_ledger_add(&ledger, &order), TRM_OK);
    assert_false(trm_ledger_is_cancelled(&ledger, &order));
    trm_ledger_close(&ledger);
}

int main(int argc, char **argv)
{
    const char *given = argc > 1 ? argv[1] : getenv("TRM_TEST_SEED");
    seed = given ? strtoull(given, NULL, 0) : 0x9e3779b97f4a7c15ull;
    printf("seed %llu: replay with %s %llu\n", (unsigned long long)seed, argv[0], (unsigned long long)seed);
    seed |= 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ledger_is_a_list_of_what_is_held),
        cmocka_unit_test(reports_are_sent_again_in_their_order),
        cmocka_unit_test(what_has_not_ended_can_be_cancelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
