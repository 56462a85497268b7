/* tool/node: ranks with a log each, on disks of their own. */
#include "config.h" /* system extensions, before any header of the system */

#include "jobs/command.h"
#include "runtime/clock.h"
#include "runtime/replog.h"
#include "tests/support/fs_mem.h"
#include "tests/support/transport_mem.h"
#include "tool/node.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define MS TRM_NS_PER_MS
#define RANKS 3u
#define ELECTION_MS 100u
#define LIMIT_MS 60000u

static struct {
    trm_spec spec;
    trm_transport_net *net;
    trm_fs *fs[RANKS];
    trm_ground ground[RANKS];
    trm_node *node[RANKS];
    uint64_t now_ns, seed;
} world;

static uint64_t entropy(void *context)
{
    return ++world.seed * 0x9e3779b97f4a7c15u;
}

static uint64_t disk_ns(void *context)
{
    return MS / 2;
}

static void begin(bool one_disk)
{
    static char state[] = "/state";
    trm_writer members = {0};
    trm_raft_members first = {0};
    trm_begin launch = {.voters_wanted = RANKS};
    trm_err err = {""};
    memset(&world, 0, sizeof world);
    world.now_ns = TRM_NS_PER_S;
    world.spec = (trm_spec){.state_dir = state, .election_timeout_ms = ELECTION_MS};
    world.net = trm_transport_net_create(&(trm_transport_net_options){.ranks = RANKS});
    for (uint32_t i = 0; i < RANKS; i++)
        assert_int_equal(trm_raft_members_set(&first, i, true), TRM_OK);
    trm_raft_members_encode(&first, &members);
    launch.members_len = (uint32_t)members.len;
    memcpy(launch.members, members.data, members.len);
    trm_writer_close(&members);
    for (uint32_t i = 0; i < RANKS; i++) {
        world.fs[i] = one_disk && i ? world.fs[0] : trm_fs_mem_create(i);
        assert_int_equal(trm_fs_make_dirs(world.fs[i], "/state/log", 0, &err), TRM_OK);
        world.ground[i] = (trm_ground){.fs = world.fs[i],
                                       .transport = trm_transport_net_rank(world.net, i),
                                       .entropy = entropy,
                                       .disk_ns = disk_ns,
                                       .segment_bytes = 16u * 1024u};
        assert_int_equal(trm_node_create(&world.node[i], &world.spec, &world.ground[i], &err), TRM_OK);
        if (trm_node_begin(world.node[i], 1, &launch, world.now_ns, &err) != TRM_OK)
            fail_msg("%s", err.text);
    }
}

static void end(void)
{
    for (uint32_t i = 0; i < RANKS; i++)
        trm_node_destroy(world.node[i]);
    for (uint32_t i = 0; i < RANKS; i++)
        if (i == 0 || world.fs[i] != world.fs[0])
            trm_fs_mem_destroy(world.fs[i]);
    trm_transport_net_destroy(world.net);
}

static void turn(uint32_t rank)
{
    trm_transport *transport = world.ground[rank].transport;
    const uint8_t *bytes;
    uint32_t from;
    size_t len;
    uint64_t wake_ns = UINT64_MAX;
    transport->ops->poll(transport);
    while (transport->ops->receive(transport, &from, &bytes, &len) == TRM_OK)
        trm_node_receive(world.node[rank], from, bytes, len, world.now_ns);
    trm_node_step(world.node[rank], world.now_ns, &wake_ns);
    trm_node_relieve(world.node[rank], world.now_ns, &wake_ns);
}

/* A rank that takes a command; RANKS: there is none. */
static uint32_t propose(void)
{
    trm_writer command = {0};
    uint32_t taken = RANKS;
    uint64_t index;
    trm_err err;
    trm_command_begin(&command, TRM_COMMAND_CUTS, 0); /* of no job: it is refused by the table */
    trm_put_varint(&command, 1);
    trm_put_u32(&command, 1);
    for (uint32_t i = 0; i < RANKS && taken == RANKS; i++) {
        trm_node_state state;
        trm_node_state_get(world.node[i], &state);
        if (state.leads && trm_replog_propose(trm_node_replica(world.node[i])->log, command.data, command.len,
                                              &index, &err) == TRM_OK)
            taken = i;
    }
    trm_writer_close(&command);
    return taken;
}

/* Time goes on, a millisecond a command, until another rank than `but` takes one. */
static uint32_t wait_for_leader(uint32_t but, uint64_t limit_ms)
{
    for (uint64_t end_ns = world.now_ns + limit_ms * MS; world.now_ns < end_ns; world.now_ns += MS) {
        trm_transport_net_set_now(world.net, world.now_ns);
        for (uint32_t i = 0; i < RANKS; i++)
            turn(i);
        uint32_t rank = propose();
        if (rank != but && rank != RANKS)
            return rank;
    }
    return RANKS;
}

static bool is_full(uint32_t rank)
{
    trm_replog_state log;
    trm_replog_state_get(trm_node_replica(world.node[rank])->log, &log);
    return log.health == TRM_ENOSPACE;
}

static void a_leader_without_room_hands_over(void **state)
{
    begin(false);
    uint32_t first = wait_for_leader(RANKS, LIMIT_MS);
    assert_int_not_equal(first, RANKS);
    trm_fs_mem_set_capacity(world.fs[first], trm_fs_mem_used(world.fs[first]));
    uint32_t next = wait_for_leader(first, LIMIT_MS);
    if (next == RANKS)
        fail_msg("rank %u goes on leading%s", first, is_full(first) ? ", full" : "");
    assert_true(is_full(first));
    assert_int_equal(wait_for_leader(next, 5 * TRM_RELIEVE_MS), RANKS); /* … and it goes on */
    assert_false(is_full(next));
    end();
}

/* It is no use to disturb the others, who have no room either; and it leads when there is room again. */
static void a_leader_waits_when_nobody_has_room(void **state)
{
    begin(true);
    uint32_t first = wait_for_leader(RANKS, LIMIT_MS);
    trm_fs_mem_set_capacity(world.fs[0], 0);
    uint32_t last = first, changes = 0;
    for (unsigned i = 0; i < 10; i++) {
        uint32_t rank = wait_for_leader(last, TRM_RELIEVE_MS);
        changes += rank != RANKS;
        last = rank != RANKS ? rank : last;
    }
    assert_true(is_full(last) &&
                changes < RANKS); /* what was set aside for their logs before may be used up */
    assert_int_equal(wait_for_leader(last, 5 * TRM_RELIEVE_MS), RANKS);
    trm_fs_mem_set_capacity(world.fs[0], UINT64_MAX);
    assert_int_not_equal(wait_for_leader(RANKS, LIMIT_MS), RANKS);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_leader_without_room_hands_over),
        cmocka_unit_test(a_leader_waits_when_nobody_has_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
