/* workers/worker: what it tells which master. Without a crew it refuses every order, and so has
 * something to report; rank 2 is the worker, ranks 0 and 1 are its masters in turn, played here. */
#include "workers/worker.h"

#include "runtime/clock.h"
#include "tests/support/fs_mem.h"
#include "tests/support/transport_mem.h"
#include "workers/shuffle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define WORKER 2u
#define EPOCH 5u
#define ORDERS_MAX 8u

/* What has come to a master since it was asked last. */
typedef struct heard {
    unsigned hellos, claims, reports;
    unsigned lost, lost_frames;
    bool last;
    trm_order claimed[ORDERS_MAX], reported[ORDERS_MAX];
    uint64_t term;
} heard;

typedef struct world {
    trm_spec spec;
    trm_fs *fs;
    trm_transport_net *net;
    trm_worker *worker;
    uint64_t now_ns;
} world;

static void open_world(world *self)
{
    trm_err err;
    *self = (world){.now_ns = TRM_NS_PER_S};
    trm_transport_net_options options = {.ranks = 3, .seed = 1};
    self->fs = trm_fs_mem_create(1);
    self->net = trm_transport_net_create(&options);
    assert_int_equal(trm_worker_create(&self->worker, &self->spec, self->fs,
                                       trm_transport_net_rank(self->net, WORKER), NULL, TRM_ELAUNCH,
                                       "there is no crew", &err),
                     TRM_OK);
}

static void close_world(world *self)
{
    trm_worker_destroy(self->worker);
    trm_transport_net_destroy(self->net);
    trm_fs_mem_destroy(self->fs);
}

static void note_orders(trm_reader *body, trm_order *out, unsigned *count)
{
    while (trm_reader_left(body)) {
        assert_true(*count < ORDERS_MAX);
        trm_order_decode(&out[(*count)++], body);
        assert_true(trm_reader_ok(body));
    }
}

static void note_reports(trm_reader *body, heard *out)
{
    while (trm_reader_left(body)) {
        trm_report report;
        trm_report_decode(&report, body);
        assert_true(trm_reader_ok(body) && out->reports < ORDERS_MAX);
        assert_int_equal(report.status, TRM_EPEER);
        out->reported[out->reports++] =
            (trm_order){.phase = report.phase, .task = report.task, .attempt = report.attempt};
    }
}

static void note(const uint8_t *bytes, size_t len, heard *out)
{
    trm_wire_header header;
    trm_reader body;
    trm_claim claim;
    assert_int_equal(trm_wire_open(bytes, len, &header, &body), TRM_OK);
    if (header.type == TRM_WIRE_HELLO) {
        out->hellos++;
    } else if (header.type == TRM_WIRE_CLAIM) {
        assert_int_equal(out->reports, 0); /* reports come behind the claim */
        trm_claim_decode(&claim, &body);
        out->last = claim.last;
        note_orders(&body, out->claimed, &out->claims);
    } else if (header.type == TRM_WIRE_REPORT) {
        note_reports(&body, out);
    } else if (header.type == TRM_WIRE_LOST) {
        out->lost_frames++;
        for (trm_output_at at; trm_reader_left(&body); out->lost++)
            trm_output_at_decode(&at, &body);
        assert_true(trm_reader_done(&body));
    }
    if (header.type != TRM_WIRE_HELLO && header.type != TRM_WIRE_PULSE)
        out->term = header.term;
}

/* The worker takes what was sent to it and does what is due; then `master` listens. */
static heard step(world *self, uint32_t master)
{
    heard out = {0};
    const uint8_t *bytes;
    uint32_t from;
    size_t len;
    uint64_t wake_ns = UINT64_MAX;
    trm_transport *own = trm_transport_net_rank(self->net, WORKER),
                  *other = trm_transport_net_rank(self->net, master);
    self->now_ns += TRM_NS_PER_MS;
    trm_transport_net_set_now(self->net, self->now_ns);
    own->ops->poll(own);
    while (own->ops->receive(own, &from, &bytes, &len) == TRM_OK) {
        trm_wire_header header;
        trm_reader body;
        assert_int_equal(trm_wire_open(bytes, len, &header, &body), TRM_OK);
        trm_worker_receive(self->worker, from, &header, &body, self->now_ns);
    }
    trm_worker_step(self->worker, self->now_ns, &wake_ns);
    other->ops->poll(other);
    while (other->ops->receive(other, &from, &bytes, &len) == TRM_OK)
        note(bytes, len, &out);
    return out;
}

static trm_writer *begin(trm_writer *frame, trm_wire_type type, uint64_t term)
{
    trm_wire_header header = {.type = (uint8_t)type, .epoch = EPOCH, .term = term};
    trm_writer_init(frame);
    trm_wire_begin(frame, &header);
    return frame;
}

static void send(world *self, uint32_t master, trm_writer *frame)
{
    trm_transport *transport = trm_transport_net_rank(self->net, master);
    trm_wire_seal(frame);
    assert_int_equal(transport->ops->send(transport, WORKER, frame->data, frame->len), TRM_OK);
    trm_writer_close(frame);
}

static void say_setup(world *self, uint32_t master, uint64_t term)
{
    trm_writer frame;
    trm_peer peers[3] = {{0}};
    trm_setup setup = {.plan_crc = 1, .tasks = 100, .partitions = 4, .peers_count = 3, .peers = peers};
    trm_setup_encode(&setup, begin(&frame, TRM_WIRE_SETUP, term));
    send(self, master, &frame);
}

static void say_order(world *self, uint32_t master, trm_wire_type type, uint64_t term, uint32_t task)
{
    trm_writer frame;
    trm_order order = {.phase = TRM_PHASE_MAP, .task = task};
    trm_order_encode(&order, begin(&frame, type, term));
    send(self, master, &frame);
}

/* HELLO to rank 0, SETUP, an order for task 7, its report; nothing is settled. */
static void begin_with_rank_0(world *self)
{
    open_world(self);
    assert_int_equal(step(self, 0).hellos, 1);
    say_setup(self, 0, 1);
    heard at_first = step(self, 0);
    assert_true(at_first.last && at_first.claims == 0 && at_first.term == 1);
    say_order(self, 0, TRM_WIRE_ORDER, 1, 7);
    heard then = step(self, 0);
    assert_int_equal(then.reports, 1);
    assert_int_equal(then.reported[0].task, 7);
}

static void a_report_is_told_to_the_next_master_until_it_is_settled(void **state)
{
    world it;
    begin_with_rank_0(&it);
    assert_int_equal(step(&it, 0).reports, 0); /* once a master */
    trm_worker_set_master(it.worker, 1, EPOCH, 2);
    heard first = step(&it, 1);
    assert_int_equal(first.hellos, 1);
    assert_int_equal(first.reports, 0); /* it has not been set up by that one */
    say_setup(&it, 1, 2);
    heard second = step(&it, 1);
    assert_true(second.last && second.term == 2);
    assert_int_equal(second.claims, 1);
    assert_int_equal(second.claimed[0].task, 7);
    assert_int_equal(second.reports, 1);
    assert_int_equal(second.reported[0].task, 7);
    say_order(&it, 1, TRM_WIRE_SETTLED, 2, 7);
    step(&it, 1);
    say_setup(&it, 1, 2);
    heard third = step(&it, 1);
    assert_true(third.last);
    assert_int_equal(third.claims, 0);
    assert_int_equal(third.reports, 0);
    close_world(&it);
}

static void a_master_that_is_over_is_not_obeyed(void **state)
{
    world it;
    begin_with_rank_0(&it);
    trm_worker_set_master(it.worker, 1, EPOCH, 2);
    say_order(&it, 0, TRM_WIRE_SETTLED, 1, 7);
    say_order(&it, 0, TRM_WIRE_ORDER, 1, 8);
    say_setup(&it, 0, 1);
    heard nothing = step(&it, 0);
    assert_int_equal(nothing.claims + nothing.reports + nothing.hellos, 0);
    say_order(&it, 1, TRM_WIRE_ORDER, 2, 9); /* before its SETUP: it cannot know what is held */
    step(&it, 1);
    say_setup(&it, 1, 2);
    heard claim = step(&it, 1);
    assert_int_equal(claim.claims, 1);
    assert_int_equal(claim.claimed[0].task, 7);
    close_world(&it);
}

static void an_older_term_is_not_gone_back_to(void **state)
{
    world it;
    begin_with_rank_0(&it);
    trm_worker_set_master(it.worker, 1, EPOCH, 4);
    trm_worker_set_master(it.worker, 0, EPOCH, 3);
    assert_int_equal(trm_worker_term(it.worker), 4);
    assert_int_equal(trm_worker_epoch(it.worker), EPOCH);
    assert_int_equal(step(&it, 1).hellos, 1);
    trm_worker_set_master(it.worker, 1, EPOCH, 4); /* known: no HELLO for that */
    assert_int_equal(step(&it, 1).hellos, 0);
    trm_worker_set_master(it.worker, 0, EPOCH, 5); /* the first one is elected again */
    assert_int_equal(step(&it, 0).hellos, 1);
    say_setup(&it, 0, 4); /* it is of the time before */
    assert_false(step(&it, 0).last);
    say_setup(&it, 0, 5);
    assert_true(step(&it, 0).last);
    close_world(&it);
}

/* HELLO is lost: it is said again, soon. */
static void a_master_that_does_not_answer_is_asked_again(void **state)
{
    world it;
    begin_with_rank_0(&it);
    trm_worker_set_master(it.worker, 1, EPOCH, 2);
    assert_int_equal(step(&it, 1).hellos, 1);
    assert_int_equal(step(&it, 1).hellos, 0);
    it.now_ns += 300 * TRM_NS_PER_MS;
    assert_int_equal(step(&it, 1).hellos, 1);
    close_world(&it);
}

/* An order that comes twice is one order, and one report. */
static void an_order_is_held_once(void **state)
{
    world it;
    begin_with_rank_0(&it);
    say_order(&it, 0, TRM_WIRE_ORDER, 1, 7);
    assert_int_equal(step(&it, 0).reports, 0);
    say_setup(&it, 0, 1);
    assert_int_equal(step(&it, 0).claims, 1);
    close_world(&it);
}

/* As many as are found missing at once: the indexes of a step. */
static void what_is_lost_together_is_said_in_one_frame(void **state)
{
    world it;
    trm_writer frame;
    begin_with_rank_0(&it);
    begin(&frame, TRM_WIRE_OUTPUTS, 1);
    for (uint32_t task = 0; task < TRM_SHUFFLE_STEP_INDEXES; task++) /* there is no such run */
        trm_output_at_encode(&(trm_output_at){.task = task, .rank = WORKER}, &frame);
    send(&it, 0, &frame);
    heard then = step(&it, 0);
    assert_int_equal(then.lost, TRM_SHUFFLE_STEP_INDEXES);
    assert_int_equal(then.lost_frames, 1);
    assert_int_equal(step(&it, 0).lost_frames, 0);
    close_world(&it);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_report_is_told_to_the_next_master_until_it_is_settled),
        cmocka_unit_test(a_master_that_is_over_is_not_obeyed),
        cmocka_unit_test(an_older_term_is_not_gone_back_to),
        cmocka_unit_test(a_master_that_does_not_answer_is_asked_again),
        cmocka_unit_test(an_order_is_held_once),
        cmocka_unit_test(what_is_lost_together_is_said_in_one_frame),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
