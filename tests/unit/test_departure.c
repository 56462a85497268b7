/* tool/departure: what a rank is advised to do after a signal, of a log of its own alone. */
#include "config.h" /* system extensions, before any header of the system */

#include "runtime/clock.h"
#include "tests/support/transport_mem.h"
#include "tool/departure.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define MS TRM_NS_PER_MS

static trm_transport_net *net;
static trm_ground ground;
static trm_spec spec;
static trm_node *node;
static trm_departure departure;

static void begin(void)
{
    trm_err err;
    net = trm_transport_net_create(&(trm_transport_net_options){.ranks = 3});
    ground = (trm_ground){.transport = trm_transport_net_rank(net, 1)};
    assert_int_equal(trm_node_create(&node, &spec, &ground, &err), TRM_OK);
    assert_int_equal(trm_departure_init(&departure, ground.transport, node, &err), TRM_OK);
}

static void end(void)
{
    trm_departure_close(&departure);
    trm_node_destroy(node);
    trm_transport_net_destroy(net);
}

static trm_departure_advice step(bool leads, uint64_t now_ms)
{
    uint64_t wake_ns = UINT64_MAX;
    return trm_departure_step(&departure, leads, 0, now_ms * MS, &wake_ns);
}

static void who_follows_leaves_when_its_time_is_over(void **state)
{
    begin();
    assert_int_equal(step(false, 1), TRM_STAY);
    trm_departure_signal(&departure, 1000 * MS);
    assert_int_equal(step(false, 1000), TRM_STAY);
    assert_int_equal(step(false, 999 + TRM_SIGNAL_WAIT_MS), TRM_STAY);
    assert_int_equal(step(false, 1000 + TRM_SIGNAL_WAIT_MS), TRM_LEAVE);
    end();
}

static void who_leads_ends_the_job_before_it_leaves(void **state)
{
    begin();
    trm_departure_signal(&departure, 1000 * MS);
    assert_int_equal(step(true, 1000), TRM_END_JOB);
    assert_int_equal(step(true, 999 + TRM_SIGNAL_WAIT_MS), TRM_END_JOB);
    assert_int_equal(step(true, 1000 + TRM_SIGNAL_WAIT_MS), TRM_LEAVE);
    end();
}

/* Elected when its time is nearly over, it must not go on leading a job that nobody ends. */
static void who_leads_late_ends_the_job_all_the_same(void **state)
{
    begin();
    trm_departure_signal(&departure, 1000 * MS);
    assert_int_equal(step(false, 999 + TRM_SIGNAL_WAIT_MS), TRM_STAY);
    assert_int_equal(step(true, 1000 + TRM_SIGNAL_WAIT_MS), TRM_END_JOB);
    assert_int_equal(step(true, 1000 + 2 * TRM_SIGNAL_WAIT_MS), TRM_LEAVE);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_follows_leaves_when_its_time_is_over),
        cmocka_unit_test(who_leads_ends_the_job_before_it_leaves),
        cmocka_unit_test(who_leads_late_ends_the_job_all_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
