/* Faults. What a history is like is drawn first (its mood): some have every fault, some only one. */
#include "tests/simulation/plane_world.h"

#include "jobs/names.h"
#include "tests/support/fs_mem.h"
#include "tests/support/fs_view.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TRIES_MAX 5u /* of a fault that fits */

/* ---- The mood. ---- */

/* Nothing else: silence is death then, and what is told is heard. So it is known what a master knows. */
static void only_deaths(mood *m)
{
    static const fault others[] = {FAULT_PAUSE_LEADER, FAULT_PAUSE, FAULT_CUT,  FAULT_LOSS,
                                   FAULT_SLOW,         FAULT_RUNS,  FAULT_FULL, FAULT_LAUNCH};
    for (unsigned i = 0; i < sizeof others / sizeof others[0]; i++)
        m->weight[others[i]] = 0;
    m->weight[FAULT_HOST] = 20;
    m->weight[FAULT_KILL] = 5;
    m->chaos_every_ns = 3000 * MS; /* copies are made between */
}

void mood_draw(world *w)
{
    mood *m = &w->mood;
    static const unsigned usual[FAULTS] = {
        [FAULT_KILL_LEADER] = 25, [FAULT_KILL] = 8,   [FAULT_KILL_IN] = 10,   [FAULT_PAUSE_LEADER] = 15,
        [FAULT_PAUSE] = 5,        [FAULT_HOST] = 3,   [FAULT_CUT] = 7,        [FAULT_LOSS] = 4,
        [FAULT_SLOW] = 6,         [FAULT_FULL] = 2,   [FAULT_RUNS] = 4,       [FAULT_LAUNCH] = 3,
        [FAULT_POWER] = 1,        [FAULT_SIGNAL] = 2, [FAULT_SIGNAL_ONE] = 2, [FAULT_TWICE] = 4,
        [FAULT_WIPE] = 5};
    bool one = often(w, 250);
    fault only = (fault)below(w, FAULTS);
    for (unsigned i = 0; i < FAULTS; i++)
        m->weight[i] = (one ? i == only : often(w, 600)) ? usual[i] : 0;
    if (w->spec.replicas > 1 && w->seed % 2)
        only_deaths(m);
    static const uint64_t every_ms[] = {150, 400, 800, 2000};
    m->chaos_every_ns = every_ms[below(w, 4)] * MS;
    m->calm_ns = w->now_ns + (2000 + below(w, 25000)) * MS;
    m->delay_max_ns = (1 + below(w, often(w, 200) ? 400 : 30)) * MS / 10;
    m->snapshot_bytes = often(w, 600) ? 500 + below(w, 5000) : 0;
    m->pidfds = often(w, 700) ? 1000 : (unsigned)below(w, 1001);
}

static bool draw_fault(world *w, fault *out)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < FAULTS; i++)
        sum += w->mood.weight[i];
    if (!sum)
        return false;
    uint64_t at = below(w, sum);
    unsigned i = 0;
    for (; at >= w->mood.weight[i]; i++)
        at -= w->mood.weight[i];
    *out = (fault)i;
    return true;
}

/* ---- Ranks. ---- */

static process *any_process(world *w)
{
    launch *l = launch_any(w);
    if (!l)
        return NULL;
    uint32_t rank = (uint32_t)below(w, l->ranks);
    while (!l->process[rank].alive)
        rank = (rank + 1) % l->ranks;
    return &l->process[rank];
}

static process *any_leader(world *w)
{
    launch *l = launch_any(w);
    return l ? launch_leader(l) : NULL;
}

static bool kill_one(process *p)
{
    if (!p)
        return false;
    world_trace(p->of->in, "fault: %" PRIu64 ".%u is killed", p->of->number, p->rank);
    process_end(p, DEATH_KILLED);
    return true;
}

static bool kill_in(process *p)
{
    if (!p)
        return false;
    uint64_t changes = below(p->of->in, often(p->of->in, 500) ? 6 : 60);
    world_trace(p->of->in, "fault: %" PRIu64 ".%u will die after %" PRIu64 " changes", p->of->number, p->rank,
                changes);
    trm_fs_view_kill_after(p->fs, changes);
    return true;
}

static bool pause_one(process *p)
{
    if (!p)
        return false;
    world *w = p->of->in;
    uint64_t ns = often(w, 150) ? (5000 + below(w, 12000)) * MS : (10 + below(w, 2500)) * MS;
    world_trace(w, "fault: %" PRIu64 ".%u is paused for %" PRIu64 " ms", p->of->number, p->rank,
                (uint64_t)(ns / MS));
    p->paused_until_ns = w->now_ns + ns;
    p->of->disturbed = true;
    return true;
}

static void lose_runs(world *w, const char *scratch, unsigned permille)
{
    for (size_t i = 0; i < w->runs.count; i++)
        if (strncmp(w->runs.run[i].store, scratch, strlen(scratch)) == 0 && often(w, permille))
            w->runs.run[i].gone = true;
}

static bool lose_host(world *w)
{
    process *p = any_process(w);
    char scratch[32];
    if (!p)
        return false;
    launch *l = p->of;
    uint32_t host = p->host;
    world_trace(w, "fault: host %u of launch %" PRIu64 " is lost", host, l->number);
    for (uint32_t i = 0; i < l->ranks; i++)
        if (l->process[i].host == host)
            process_end(&l->process[i], DEATH_POWER);
    snprintf(scratch, sizeof scratch, "/scratch/%u/", host);
    if (often(w, 500))
        lose_runs(w, scratch, 1000);
    return true;
}

static bool signal_ranks(world *w, bool all)
{
    process *p = any_process(w);
    if (!p)
        return false;
    launch *l = p->of;
    world_trace(w, "fault: a signal to launch %" PRIu64 "%s", l->number, all ? "" : ", to one rank");
    l->interrupted = true;
    for (uint32_t i = 0; i < l->ranks; i++) {
        if (!l->process[i].alive || (!all && i != p->rank))
            continue;
        trm_control_interrupt(l->process[i].control, w->now_ns);
        l->process[i].wake_ns = w->now_ns;
    }
    return true;
}

/* ---- Links and disks. ---- */

static bool cut_links(world *w)
{
    launch *l = launch_any(w);
    if (!l || l->ranks < 2)
        return false;
    uint32_t side = 1 + (uint32_t)below(w, (1u << l->ranks) - 2);
    bool both = often(w, 600), by_host = often(w, 600);
    uint64_t until_ns = w->now_ns + (50 + below(w, 8000)) * MS;
    world_trace(w, "fault: links of launch %" PRIu64 " are cut%s until %" PRIu64 " ms", l->number,
                both ? "" : " one way", (uint64_t)(until_ns / MS));
    for (uint32_t i = 0; i < l->ranks; i++)
        for (uint32_t j = 0; j < l->ranks; j++) {
            bool from_in = side >> (by_host ? l->process[i].host : i) & 1;
            bool to_in = side >> (by_host ? l->process[j].host : j) & 1;
            if (from_in != to_in && (both || from_in))
                trm_transport_net_cut(l->net, i, j, until_ns);
        }
    l->disturbed = true;
    return true;
}

static bool lose_messages(world *w)
{
    launch *l = launch_any(w);
    if (!l)
        return false;
    trm_transport_net_set_loss(l->net, 1 + (unsigned)below(w, often(w, 300) ? 400 : 30));
    l->disturbed = true;
    w->heal_ns = w->now_ns + (500 + below(w, 6000)) * MS;
    world_trace(w, "fault: messages of launch %" PRIu64 " are lost", l->number);
    return true;
}

static bool slow_down(world *w)
{
    process *p = any_process(w);
    if (!p)
        return false;
    if (often(w, 500)) {
        p->slow_disk_until_ns = w->now_ns + (200 + below(w, 5000)) * MS;
    } else {
        trm_transport_net_set_delay(p->of->net, MS, (20 + below(w, 300)) * MS);
        w->heal_ns = w->now_ns + (500 + below(w, 6000)) * MS;
    }
    p->of->disturbed = true;
    world_trace(w, "fault: launch %" PRIu64 " is slow", p->of->number);
    return true;
}

static bool fill_disk(world *w)
{
    trm_fs_mem_set_capacity(w->fs, trm_fs_mem_used(w->fs) + below(w, 4000));
    w->heal_ns = w->now_ns + (100 + below(w, 5000)) * MS;
    w->was_full = true;
    world_trace(w, "fault: the disk is full");
    return true;
}

/* ---- Launches. ---- */

/* Some of its ranks may take long to see that mpirun is gone, or not run at all meanwhile. */
static bool lose_launch(world *w)
{
    launch *l = launch_any(w);
    if (!l)
        return false;
    world_trace(w, "fault: launch %" PRIu64 " is lost", l->number);
    bool orphans = often(w, 400);
    for (uint32_t i = 0; i < l->ranks; i++) {
        process *p = &l->process[i];
        if (!p->alive)
            continue;
        p->kill_ns = w->now_ns + below(w, 200 * MS);
        if (orphans && often(w, 300)) {
            p->kill_ns = w->now_ns + below(w, 15000 * MS);
            p->paused_until_ns = often(w, 500) ? w->now_ns + below(w, 10000 * MS) : 0;
        }
    }
    l->disturbed = true;
    w->launch_ns = w->now_ns + below(w, 3000 * MS);
    return true;
}

static bool lose_power(world *w)
{
    world_trace(w, "fault: all is without power");
    for (unsigned i = 0; i < LIVE_LAUNCHES_MAX; i++)
        for (uint32_t rank = 0; w->launch[i].live && rank < w->launch[i].ranks; rank++)
            process_end(&w->launch[i].process[rank], DEATH_KILLED);
    trm_fs_mem_crash(w->fs);
    check_output(w);
    return true;
}

/* Where some logs lie cannot be reached; that may come back. */
static bool hide_stores(world *w)
{
    if (launch_any(w) || !w->truth.newest || w->hidden)
        return false;
    w->hidden_epoch = w->truth.newest;
    w->hidden = 1u << below(w, RANKS_MAX);
    if (often(w, 500))
        w->hidden |= (uint32_t)below(w, 1u << RANKS_MAX);
    world_trace(w, "fault: logs of epoch %" PRIu64 " cannot be reached: %#x", w->hidden_epoch, w->hidden);
    return true;
}

/* ---- When. ---- */

static bool happen(world *w, fault what)
{
    switch (what) {
    case FAULT_KILL_LEADER:
        return kill_one(any_leader(w));
    case FAULT_KILL:
        return kill_one(any_process(w));
    case FAULT_KILL_IN:
        return kill_in(often(w, 500) ? any_leader(w) : any_process(w));
    case FAULT_PAUSE_LEADER:
        return pause_one(any_leader(w));
    case FAULT_PAUSE:
        return pause_one(any_process(w));
    case FAULT_HOST:
        return lose_host(w);
    case FAULT_CUT:
        return cut_links(w);
    case FAULT_LOSS:
        return lose_messages(w);
    case FAULT_SLOW:
        return slow_down(w);
    case FAULT_FULL:
        return fill_disk(w);
    case FAULT_RUNS:
        lose_runs(w, "/scratch/", 200);
        for (unsigned i = 0; i < LIVE_LAUNCHES_MAX; i++)
            w->launch[i].lost_runs = true;
        return true;
    case FAULT_LAUNCH:
        return lose_launch(w);
    case FAULT_POWER:
        return lose_power(w);
    case FAULT_SIGNAL:
        return signal_ranks(w, true);
    case FAULT_SIGNAL_ONE:
        return signal_ranks(w, false);
    case FAULT_TWICE:
        return launch_any(w) && launch_begin(w);
    case FAULT_WIPE:
        return hide_stores(w);
    case FAULTS:
        break;
    }
    return false;
}

void chaos(world *w)
{
    fault what;
    w->chaos_ns = w->now_ns + 1 + below(w, 2 * w->mood.chaos_every_ns);
    for (unsigned i = 0; i < TRIES_MAX && draw_fault(w, &what); i++) {
        if (!happen(w, what))
            continue; /* there is nobody whom it could happen to */
        w->totals->faults[what]++;
        break;
    }
}

static void heal(world *w)
{
    w->heal_ns = UINT64_MAX;
    trm_fs_mem_set_capacity(w->fs, UINT64_MAX);
    for (unsigned i = 0; i < LIVE_LAUNCHES_MAX; i++) {
        if (!w->launch[i].live)
            continue;
        trm_transport_net_set_loss(w->launch[i].net, 0);
        trm_transport_net_set_delay(w->launch[i].net, 20000, w->mood.delay_max_ns);
    }
}

void chaos_step(world *w)
{
    if (w->now_ns >= w->heal_ns)
        heal(w);
}

void chaos_end(world *w)
{
    world_trace(w, "the faults are over");
    w->calm = true;
    if (!w->spec.unsafe_recover)
        w->hidden = 0;
    heal(w);
    for (unsigned i = 0; i < LIVE_LAUNCHES_MAX; i++)
        for (uint32_t rank = 0; w->launch[i].live && rank < w->launch[i].ranks; rank++)
            w->launch[i].process[rank].paused_until_ns = 0;
}
