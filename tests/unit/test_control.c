/* tool/control: when a rank without a log takes the job for lost, from what it has been told and who is dead.
 */
#include "config.h" /* system extensions, before any header of the system */

#include "runtime/clock.h"
#include "tests/support/fs_mem.h"
#include "tests/support/transport_mem.h"
#include "tool/control.h"
#include "tool/leaderless.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define MS TRM_NS_PER_MS
#define RANKS 6u
#define OWN 5u /* it keeps no log */
#define STEP_MS 100u

static struct {
    trm_spec spec;
    trm_transport_net *net;
    trm_fs *fs;
    trm_ground ground;
    trm_control *control;
    uint64_t now_ns;
    bool left;
} world;

static uint64_t entropy(void *context)
{
    return 7;
}

static void worker_receive(void *worker, uint32_t from, const trm_wire_header *header, trm_reader *body,
                           uint64_t now_ns)
{
}

static bool worker_step(void *worker, uint64_t now_ns, uint64_t *wake_ns)
{
    return false;
}

static void worker_set_master(void *worker, uint32_t master, uint64_t epoch, uint64_t term) {}

static void worker_leave(void *worker, const trm_end *end)
{
    world.left = true;
}

static bool worker_ended(void *worker, trm_end *end)
{
    return false;
}

static void meet(void *context, const trm_begin *begin) {}

static void say(uint32_t from, trm_wire_type type, uint64_t term, const trm_writer *body)
{
    trm_transport *transport = trm_transport_net_rank(world.net, from);
    trm_writer frame = {0};
    trm_wire_begin(&frame, &(trm_wire_header){.type = (uint8_t)type, .epoch = 1, .term = term});
    if (body)
        trm_put_bytes(&frame, body->data, body->len);
    trm_wire_seal(&frame);
    assert_int_equal(transport->ops->send(transport, OWN, frame.data, frame.len), TRM_OK);
    trm_writer_close(&frame);
}

static void say_leads(uint32_t from, uint64_t term, uint32_t voters, const uint32_t *voter)
{
    trm_writer body = {0};
    trm_leads leads = {.voters = voters};
    memcpy(leads.voter, voter, voters * sizeof *voter);
    trm_leads_encode(&leads, &body);
    say(from, TRM_WIRE_LEADS, term, &body);
    trm_writer_close(&body);
}

/* Time goes on; every STEP_MS `from` sends a frame of `term` (0: nobody does). */
static void wait_ms(uint64_t ms, uint32_t from, uint64_t term)
{
    for (uint64_t end_ns = world.now_ns + ms * MS; world.now_ns < end_ns; world.now_ns += STEP_MS * MS) {
        uint64_t wake_ns = UINT64_MAX;
        trm_transport_net_set_now(world.net, world.now_ns);
        if (term)
            say(from, TRM_WIRE_SETTLED, term, NULL);
        trm_control_turn(world.control, world.now_ns, 1, &wake_ns);
    }
}

/* Ranks 0, 1 and 2 vote, rank 0 leads. */
static void begin(void)
{
    static char state[] = "/state";
    static const trm_control_worker ops = {worker_receive, worker_step, worker_set_master, worker_leave,
                                           worker_ended};
    static trm_begin launch;
    trm_writer members = {0}, body = {0};
    trm_raft_members first = {0};
    trm_err err;
    memset(&world, 0, sizeof world);
    world.now_ns = TRM_NS_PER_S;
    world.spec.state_dir = state;
    world.net = trm_transport_net_create(&(trm_transport_net_options){.ranks = RANKS});
    world.fs = trm_fs_mem_create(1);
    world.ground =
        (trm_ground){.fs = world.fs, .transport = trm_transport_net_rank(world.net, OWN), .entropy = entropy};
    trm_control_config config = {
        .spec = &world.spec, .ground = &world.ground, .worker_ops = &ops, .meet = meet};
    assert_int_equal(trm_control_create(&world.control, &config, &err), TRM_OK);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(trm_raft_members_set(&first, i, true), TRM_OK);
    trm_raft_members_encode(&first, &members);
    launch = (trm_begin){.voters_wanted = 3, .members_len = (uint32_t)members.len};
    memcpy(launch.members, members.data, members.len);
    trm_begin_encode(&launch, &body);
    say(0, TRM_WIRE_BEGIN, 0, &body);
    trm_writer_close(&members);
    trm_writer_close(&body);
    say_leads(0, 1, 3, (uint32_t[]){0, 1, 2});
    wait_ms(STEP_MS, 0, 0);
}

static void end(void)
{
    trm_control_destroy(world.control);
    trm_fs_mem_destroy(world.fs);
    trm_transport_net_destroy(world.net);
}

static void die(uint32_t rank)
{
    trm_control_rank_dead(world.control, rank, world.now_ns);
}

static void without_a_majority_it_leaves(void **state)
{
    begin();
    die(1);
    wait_ms(3 * TRM_LOST_MS, 0, 0);
    assert_false(world.left);
    die(2);
    wait_ms(TRM_LOST_MS - STEP_MS, 0, 0);
    assert_false(world.left);
    wait_ms(3 * STEP_MS, 0, 0);
    assert_true(world.left);
    end();
}

/* Others vote by now, though nobody has told this rank. */
static void any_frame_of_who_leads_keeps_it(void **state)
{
    begin();
    die(1);
    die(2);
    wait_ms(5 * TRM_LOST_MS, 0, 1);
    assert_false(world.left);
    wait_ms(TRM_LOST_MS + 3 * STEP_MS, 0, 0);
    assert_true(world.left);
    end();
}

static void frames_of_others_do_not_keep_it(void **state)
{
    begin();
    die(1);
    die(2);
    wait_ms(TRM_LOST_MS + 3 * STEP_MS, 3, 1);
    assert_true(world.left);
    end();
    begin();
    say_leads(0, 3, 3, (uint32_t[]){0, 1, 2});
    wait_ms(STEP_MS, 0, 0);
    die(1);
    die(2);
    wait_ms(TRM_LOST_MS + 3 * STEP_MS, 0, 2); /* an older term */
    assert_true(world.left);
    end();
}

static void who_votes_is_heard(void **state)
{
    begin();
    die(1);
    say_leads(0, 1, 3, (uint32_t[]){0, 2, 3});
    wait_ms(STEP_MS, 0, 0);
    die(2);
    say_leads(0, 1, 3, (uint32_t[]){0, 3, 4});
    wait_ms(STEP_MS, 0, 0);
    wait_ms(5 * TRM_LOST_MS, 0, 0);
    assert_false(world.left); /* two of the first three are dead, all of the last three live */
    die(3);
    die(4);
    wait_ms(TRM_LOST_MS + 3 * STEP_MS, 0, 0);
    assert_true(world.left);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_majority_it_leaves),
        cmocka_unit_test(any_frame_of_who_leads_keeps_it),
        cmocka_unit_test(frames_of_others_do_not_keep_it),
        cmocka_unit_test(who_votes_is_heard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
