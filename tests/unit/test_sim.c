/* tests/support/sim_*: the world of the simulations keeps time, and its network does to
 * messages what it says. */
#include "tests/support/sim_net.h"
#include "tests/support/sim_queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static unsigned left;

static void count_left(trm_sim_event *event)
{
    left++;
}

static void events_come_in_order(void **state)
{
    trm_sim_queue queue = {0};
    trm_sim_event event;
    trm_draw draw = trm_draw_from(1);
    assert_false(trm_sim_queue_next(&queue, &event));
    for (uint32_t i = 0; i < 5000; i++)
        trm_sim_queue_add(&queue, &(trm_sim_event){.at_ns = trm_draw_below(&draw, 100), .node = i});
    uint64_t last_at = 0, last_order = 0;
    for (uint32_t i = 0; i < 4000; i++) {
        assert_true(trm_sim_queue_next(&queue, &event));
        assert_true(event.at_ns > last_at || (event.at_ns == last_at && event.order >= last_order));
        assert_int_equal(queue.now_ns, event.at_ns);
        assert_int_equal(event.node, event.order);
        last_at = event.at_ns;
        last_order = event.order;
    }
    trm_sim_queue_add(&queue, &(trm_sim_event){.at_ns = 0, .kind = 7}); /* of the past */
    do
        assert_true(trm_sim_queue_next(&queue, &event) && event.at_ns >= last_at);
    while (event.kind != 7);
    size_t len = queue.len;
    left = 0;
    trm_sim_queue_close(&queue, count_left);
    assert_int_equal(left, len);
}

static void a_healthy_network_delivers_once(void **state)
{
    trm_sim_net net;
    trm_draw draw = trm_draw_from(2);
    uint64_t after[TRM_SIM_NET_COPIES_MAX];
    trm_sim_net_init(&net, 3, 5, 9);
    bool seen[10] = {false};
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(trm_sim_net_send(&net, after, 0, 1, &draw), 1);
        assert_in_range(after[0], 5, 9);
        seen[after[0]] = true;
    }
    assert_true(seen[5] && seen[7] && seen[9]);
    assert_true(net.sent == 1000 && net.dropped + net.repeated + net.cut_off + net.straggled == 0);
}

static void faults_are_as_frequent_as_told(void **state)
{
    trm_sim_net net;
    trm_draw draw = trm_draw_from(3);
    uint64_t after[TRM_SIM_NET_COPIES_MAX], lost = 0, twice = 0, late = 0;
    trm_sim_net_init(&net, 2, 5, 9);
    net.drop_permille = 300;
    net.repeat_permille = 200;
    net.straggle_permille = 100;
    net.straggle_ns = 1000;
    for (int i = 0; i < 10000; i++) {
        unsigned copies = trm_sim_net_send(&net, after, 0, 1, &draw);
        lost += copies == 0;
        twice += copies > 1;
        late += copies > 0 && after[0] > 9;
    }
    assert_true(net.dropped == lost && lost > 2700 && lost < 3300);
    assert_true(twice > 1200 && twice < 1600 && net.repeated > twice);
    assert_true(late > 500 && late < 900 && net.straggled >= late);
    trm_sim_net_heal(&net);
    for (int i = 0; i < 1000; i++)
        assert_true(trm_sim_net_send(&net, after, 0, 1, &draw) == 1 && after[0] <= 9);
}

static void partitions_cut_one_way_or_both(void **state)
{
    trm_sim_net net;
    trm_draw draw = trm_draw_from(4);
    uint64_t after[TRM_SIM_NET_COPIES_MAX];
    trm_sim_net_init(&net, 4, 1, 1);
    trm_sim_net_partition(&net, 0x3, false);
    assert_int_equal(trm_sim_net_send(&net, after, 0, 2, &draw), 0);
    assert_int_equal(trm_sim_net_send(&net, after, 2, 0, &draw), 1);
    assert_int_equal(trm_sim_net_send(&net, after, 0, 1, &draw), 1);
    assert_int_equal(trm_sim_net_send(&net, after, 3, 2, &draw), 1);
    trm_sim_net_partition(&net, 0x8, true);
    assert_true(trm_sim_net_is_cut(&net, 3, 2) && trm_sim_net_is_cut(&net, 2, 3));
    assert_true(trm_sim_net_is_cut(&net, 1, 2) && !trm_sim_net_is_cut(&net, 2, 1));
    trm_sim_net_join(&net);
    assert_int_equal(trm_sim_net_send(&net, after, 0, 3, &draw), 1);
    assert_int_equal(net.cut_off, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_come_in_order),
        cmocka_unit_test(a_healthy_network_delivers_once),
        cmocka_unit_test(faults_are_as_frequent_as_told),
        cmocka_unit_test(partitions_cut_one_way_or_both),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
