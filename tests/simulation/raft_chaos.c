/* Faults, and an operator who changes members and hands leadership over. What a history is
 * like is drawn first (its mood): some have every fault, some only one, some none. */
#include "tests/simulation/raft_world.h"

#include <inttypes.h>

/* ---- The mood. ---- */

static uint64_t one_of(world *w, const uint64_t *values, size_t len)
{
    return values[below(w, len)];
}
#define ONE_OF(...)                                                                                          \
    one_of(w, (const uint64_t[]){__VA_ARGS__}, sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

static void draw_options(world *w, mood *m)
{
    trm_raft_options *o = &m->options;
    o->election_ns = ONE_OF(100 * MS, 150 * MS, 150 * MS, 300 * MS);
    o->heartbeat_ns = o->election_ns / ONE_OF(3, 5, 10);
    o->no_pre_vote = below(w, 10) == 0;
    o->no_check_quorum = below(w, 20) == 0;
    o->window_messages = (uint32_t)ONE_OF(1, 2, 8, 64);
    o->window_bytes = ONE_OF(1, 500, 4000, 1 << 20);
    o->append_bytes_max = ONE_OF(1, 300, 2000, 65536);
    o->chunk_bytes = ONE_OF(100, 700, 4096, 131072);
    o->uncommitted_bytes_max = ONE_OF(500, 5000, 1 << 24);
    o->log_bytes_max = ONE_OF(60000, 1 << 24);
    o->keep_entries = ONE_OF(1, 10, 100, 4096);
}

void mood_draw(world *w)
{
    static const unsigned usual[FAULTS] = {
        [FAULT_CRASH] = 10, [FAULT_KILL] = 4,       [FAULT_CRASH_ALL] = 1, [FAULT_PAUSE] = 8,
        [FAULT_WIPE] = 2,   [FAULT_PARTITION] = 10, [FAULT_JOIN] = 8,      [FAULT_NETWORK] = 6,
        [FAULT_SLOW] = 4,   [FAULT_FULL] = 3,       [FAULT_ERROR] = 3,     [FAULT_STOP] = 2,
    };
    mood *m = &w->mood;
    *m = (mood){0};
    m->voters = (uint32_t)ONE_OF(1, 2, 3, 3, 3, 3, 4, 5, 5, 7);
    m->learners = (uint32_t)ONE_OF(0, 0, 1, 2);
    m->clients = 1 + (uint32_t)below(w, CLIENTS_MAX - 1);
    draw_options(w, m);
    m->trouble_ns = m->options.election_ns * (below(w, 8) ? 4 + below(w, 12) : 30);
    m->chaos_every_ns = m->options.election_ns / ONE_OF(1, 2, 4, 8);
    m->operator_every_ns = m->options.election_ns / ONE_OF(1, 2, 4);
    m->changes = below(w, 3) > 0;
    m->voters_wanted = below(w, 3) ? 0 : m->voters;
    m->options.voters_wanted = m->voters_wanted;
    m->snapshot_every = (uint32_t)ONE_OF(3, 10, 30, 1000);
    m->payload_max = (uint32_t)ONE_OF(100, 100, 1000, 5000);
    bool only_some = below(w, 3) == 0;
    for (unsigned i = 0; i < FAULTS; i++)
        m->weight[i] = only_some && below(w, 3) ? 0 : usual[i];
    m->slow_disks = below(w, 6) == 0;
    m->group_max = (uint32_t)ONE_OF(1, 2, 16);
    m->hint_crashed = m->weight[FAULT_WIPE] == 0;
}

/* ---- Who there is. ---- */

node *leader_now(world *w)
{
    node *best = NULL;
    for (uint32_t i = 0; i < w->slots; i++) {
        node *n = &w->nodes[i];
        if (node_runs(w, n) && n->role == TRM_RAFT_LEADER && (!best || n->role_term > best->role_term))
            best = n;
    }
    return best;
}

static bool is_there(const world *w, uint64_t id)
{
    return w->nodes[id % SLOT_STRIDE].id == id;
}

static bool has_majority(const world *w, const trm_raft_members *members, uint32_t without_slot)
{
    unsigned voters = 0, there = 0;
    for (uint32_t i = 0; i < members->count; i++) {
        const trm_raft_member *one = &members->member[i];
        voters += one->voter;
        there += one->voter && is_there(w, one->node) && one->node % SLOT_STRIDE != without_slot;
    }
    return 2 * there > voters;
}

bool can_go_on(const world *w, uint32_t without_slot)
{
    if (!has_majority(w, &w->first_members, without_slot) && w->truth.committed_last == 0)
        return false;
    for (uint32_t i = 0; i < w->slots; i++)
        if (w->nodes[i].members.count > 0 && !has_majority(w, &w->nodes[i].members, without_slot))
            return false;
    return true;
}

/* ---- Faults. ---- */

static uint64_t down_ns(world *w)
{
    return 5 * MS + below(w, (below(w, 4) ? 1 : 6) * w->mood.options.election_ns);
}

static void part(world *w)
{
    uint32_t side = (uint32_t)below(w, 1u << w->slots);
    node *leader = leader_now(w);
    if (leader && below(w, 3) == 0)
        side = 1u << leader->slot;
    else if (below(w, 3) == 0)
        side = 1u << below(w, w->slots);
    bool both_ways = below(w, 5) < 3;
    if (below(w, 3))
        trm_sim_net_join(&w->net);
    trm_sim_net_partition(&w->net, side, both_ways);
    w->totals->partitions++;
    w->totals->one_way_partitions += !both_ways;
    world_trace(w, "the network parts: slots of %#x and the others, %s", side,
                both_ways ? "both ways" : "one way");
}

static void roughen(world *w)
{
    w->net.drop_permille = (unsigned)ONE_OF(0, 10, 100, 300);
    w->net.repeat_permille = (unsigned)ONE_OF(0, 20, 200);
    w->net.straggle_permille = (unsigned)ONE_OF(0, 50, 300);
    w->net.straggle_ns = w->mood.options.election_ns * ONE_OF(1, 3);
    world_trace(w, "the network drops %u, repeats %u, delays %u in a thousand", w->net.drop_permille,
                w->net.repeat_permille, w->net.straggle_permille);
}

static void fill_up(world *w, node *n)
{
    bool full = below(w, 3) > 0;
    uint64_t room = full ? trm_fs_mem_used(n->fs) + below(w, 12000) : UINT64_MAX;
    trm_fs_mem_set_capacity(n->fs, room);
    w->totals->full_disks += full;
    world_trace(w, "n%" PRIu64 ": its disk %s", n->id, full ? "fills up" : "has room");
}

static void disturb_disk(world *w, node *n)
{
    unsigned op = 1u << below(w, 9);
    n->machine_must_crash = true;
    trm_fs_mem_fail(n->fs, op, below(w, 5), 1, TRM_EIO);
    world_trace(w, "n%" PRIu64 ": its disk will fail", n->id);
}

static void pause_node(world *w, node *n)
{
    if (!n->raft)
        return;
    n->paused_until_ns = now_ns(w) + 10 * MS + below(w, w->mood.options.election_ns * ONE_OF(1, 3, 10));
    w->totals->pauses++;
    world_trace(w, "n%" PRIu64 " is stopped until %" PRIu64 " us", n->id, n->paused_until_ns / 1000);
}

static fault draw_fault(world *w)
{
    unsigned all = 0;
    for (unsigned i = 0; i < FAULTS; i++)
        all += w->mood.weight[i];
    uint64_t at = all ? below(w, all) : 0;
    unsigned which = 0;
    while (which < FAULTS - 1 && at >= w->mood.weight[which])
        at -= w->mood.weight[which++];
    return all ? (fault)which : FAULT_JOIN;
}

static void crash_all(world *w)
{
    world_trace(w, "the power goes everywhere");
    for (uint32_t i = 0; i < w->slots; i++)
        node_stop(w, &w->nodes[i], true, down_ns(w));
}

void chaos(world *w)
{
    if (w->calm)
        return;
    world_add(w, EVENT_CHAOS, below(w, 2 * w->mood.chaos_every_ns), 0, 0, NULL);
    node *n = &w->nodes[below(w, w->slots)], *leader = leader_now(w);
    if (leader && below(w, 3) == 0)
        n = leader;
    switch (draw_fault(w)) {
    case FAULT_CRASH:
    case FAULT_KILL:
        if (n->raft)
            node_stop(w, n, below(w, 14) < 10, down_ns(w));
        break;
    case FAULT_CRASH_ALL:
        crash_all(w);
        break;
    case FAULT_PAUSE:
        pause_node(w, n);
        break;
    case FAULT_WIPE:
        if (n->wipes < WIPES_MAX && can_go_on(w, n->slot))
            node_wipe(w, n, down_ns(w));
        break;
    case FAULT_PARTITION:
        part(w);
        break;
    case FAULT_JOIN:
        trm_sim_net_join(&w->net);
        world_trace(w, "the network is whole");
        break;
    case FAULT_NETWORK:
        roughen(w);
        break;
    case FAULT_SLOW:
        n->slow_disk = w->mood.slow_disks || below(w, 2);
        w->totals->slow_disks += n->slow_disk;
        break;
    case FAULT_FULL:
        fill_up(w, n);
        break;
    case FAULT_ERROR:
        disturb_disk(w, n);
        break;
    case FAULT_STOP:
        n->machine_must_crash = true;
        trm_fs_mem_stop_after(n->fs, below(w, 12));
        break;
    case FAULTS:
        break;
    }
}

void chaos_end(world *w)
{
    w->calm = true;
    trm_sim_net_heal(&w->net);
    for (uint32_t i = 0; i < w->slots; i++) {
        node *n = &w->nodes[i];
        n->slow_disk = false;
        trm_fs_mem_set_capacity(n->fs, UINT64_MAX);
        if (n->raft)
            trm_fs_mem_fail(n->fs, 0, 0, 0, TRM_OK);
        trm_fs_mem_stop_after(n->fs, UINT64_MAX);
        n->paused_until_ns = 0;
        if (!n->raft)
            world_add(w, EVENT_START, 0, n->slot, n->life, NULL);
    }
    world_trace(w, "the faults are over");
}

/* ---- The operator. ---- */

/* Changes that would leave a membership without a majority of nodes that can come back
 * are not made: no operator would. */
static bool is_sane(const world *w, const node *n, trm_raft_change what, uint64_t id)
{
    trm_raft_members after = n->members;
    if (what == TRM_RAFT_REMOVE)
        trm_raft_members_remove(&after, id);
    else if (trm_raft_members_set(&after, id, what == TRM_RAFT_PROMOTE) != TRM_OK)
        return false;
    return has_majority(w, &after, NOBODY);
}

static void change(world *w, node *n)
{
    uint64_t id = w->nodes[below(w, w->slots)].id;
    if (n->members.count > 0 && below(w, 2))
        id = n->members.member[below(w, n->members.count)].node;
    const trm_raft_member *member = trm_raft_members_find(&n->members, id);
    trm_raft_change what = (trm_raft_change)(1 + below(w, 4));
    if (below(w, 3)) /* what fits */
        what = !member          ? TRM_RAFT_ADD_LEARNER
               : !member->voter ? (is_there(w, id) ? TRM_RAFT_PROMOTE : TRM_RAFT_REMOVE)
               : below(w, 2)    ? TRM_RAFT_REMOVE
                                : TRM_RAFT_DEMOTE;
    if (!is_sane(w, n, what, id))
        return;
    trm_err err;
    uint64_t index;
    trm_status status = trm_raft_change_members(n->raft, what, id, &index, &err);
    world_trace(w, "operator: n%" PRIu64 " is to change %u of n%" PRIu64 ": %s", n->id, what, id,
                trm_status_name(status));
    if (status != TRM_OK && status != TRM_EFENCED && status != TRM_AGAIN && status != TRM_EPEER &&
        status != TRM_ENOSPACE)
        world_fail(w, "a change is refused: %s: %s", trm_status_name(status), err.text);
    node_settle(w, n);
}

static void hand_over(world *w, node *n)
{
    uint64_t id = w->nodes[below(w, w->slots)].id;
    trm_err err;
    trm_status status = trm_raft_transfer(n->raft, id, node_clock(w, n), &err);
    w->totals->transfers += status == TRM_OK;
    world_trace(w, "operator: n%" PRIu64 " is to hand over to n%" PRIu64 ": %s", n->id, id,
                trm_status_name(status));
    if (status != TRM_OK && status != TRM_EFENCED && status != TRM_EPEER)
        world_fail(w, "a transfer is refused: %s: %s", trm_status_name(status), err.text);
    node_settle(w, n);
}

/* What everybody is told of one node. */
static void hint(world *w)
{
    const node *about = &w->nodes[below(w, w->slots)];
    uint64_t id = about->id;
    bool alive = about->raft || !w->mood.hint_crashed;
    if (about->wipes > 0 && below(w, 2)) { /* of its earlier life */
        id -= SLOT_STRIDE * (1 + below(w, about->wipes));
        alive = false;
    }
    for (uint32_t i = 0; i < w->slots; i++) {
        node *n = &w->nodes[i];
        if (!node_runs(w, n) || below(w, 6) == 0)
            continue;
        trm_raft_node_hint(n->raft, id, alive, (uint32_t)below(w, 3), node_clock(w, n));
        node_settle(w, n);
    }
}

void operate(world *w)
{
    if (w->calm)
        return;
    world_add(w, EVENT_OPERATOR, below(w, 2 * w->mood.operator_every_ns), 0, 0, NULL);
    node *n = leader_now(w);
    if (n && below(w, 8) == 0)
        n = &w->nodes[below(w, w->slots)];
    if (!n || !node_runs(w, n))
        return;
    uint64_t what = below(w, 10);
    if (what < 5 && w->mood.changes)
        change(w, n);
    else if (what < 7)
        hand_over(w, n);
    else
        hint(w);
}
