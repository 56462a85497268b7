/* A rank's process: what tool/rank.c does, in virtual time. */
#include "tests/simulation/plane_world.h"

#include "runtime/diag.h"
#include "tests/support/fs_view.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOP_SLEEP_NS_MAX                                                                                    \
    (40 * MS) /* ten times as long as that of rank.c: what must be done must ask for its turn */
#define LOOP_TURN_NS 20000u
#define LOOK_NS (10 * MS) /* between a death and that a neighbour sees it */

/* ---- What it stands on. ---- */

static uint64_t entropy(void *context)
{
    process *p = context;
    return trm_draw_next(&p->draw);
}

static uint64_t disk_ns(void *context)
{
    process *p = context;
    bool slow = p->slow_disk_until_ns > p->of->in->now_ns;
    return 50000 + trm_draw_below(&p->draw, slow ? 800 * MS : 3 * MS);
}

static void witness(void *context, const trm_replica *replica, const trm_replog_item *item)
{
    check_applied(context, replica, item);
}

static void renamed(void *context, const char *path)
{
    check_renamed(context, path);
}

static bool is_hidden(void *context, const char *path)
{
    const world *w = ((process *)context)->of->in;
    uint64_t epoch;
    uint32_t rank;
    return w->hidden && sscanf(path, STATE "/log/e%" SCNu64 ".r%u", &epoch, &rank) == 2 &&
           epoch == w->hidden_epoch && rank < 32 && (w->hidden >> rank & 1);
}

/* In the middle of a turn: what it still sends goes nowhere. */
static void died(void *context)
{
    process *p = context;
    trm_transport_net_kill_late(p->of->net, p->rank);
}

static void meet(void *context, const trm_begin *begin)
{
    process *p = context;
    for (uint32_t i = 0; i < begin->neighbours; i++)
        p->watched |= 1u << begin->neighbour[i].rank;
}

/* ---- Its worker. ---- */

static void worker_receive(void *worker, uint32_t from, const trm_wire_header *header, trm_reader *body,
                           uint64_t now_ns)
{
    sim_worker_receive(worker, from, header, body, now_ns);
}

static bool worker_step(void *worker, uint64_t now_ns, uint64_t *wake_ns)
{
    sim_worker_step(worker, now_ns, wake_ns);
    return false;
}

static void worker_set_master(void *worker, uint32_t master, uint64_t epoch, uint64_t term)
{
    sim_worker_set_master(worker, master, epoch, term);
}

static void worker_leave(void *worker, const trm_end *end)
{
    sim_worker_leave(worker, end);
}

static bool worker_ended(void *worker, trm_end *end)
{
    return sim_worker_ended(worker, end);
}

static const trm_control_worker worker_ops = {.receive = worker_receive,
                                              .step = worker_step,
                                              .set_master = worker_set_master,
                                              .leave = worker_leave,
                                              .ended = worker_ended};

/* In place, when it is of the same host; else from its rank. */
static const sim_run *find_output(void *context, uint32_t reader, const trm_output_at *at)
{
    const process *p = context;
    const process *holder = &p->of->process[at->rank];
    const sim_run *run = sim_runs_find(&p->of->in->runs, holder->store, p->of->epoch, at->task, at->attempt);
    return holder->alive || holder->host == p->host ? run : NULL;
}

static void make_worker(process *p)
{
    world *w = p->of->in;
    bool late = often(w, 30);
    sim_worker_config config = {
        .spec = &w->spec,
        .traits = &w->traits,
        .habits = &w->habits,
        .fs = p->fs,
        .transport = p->ground.transport,
        .runs = &w->runs,
        .host = p->host_name,
        .store = p->store,
        .executors = 1 + (uint32_t)below(w, 3),
        .hello_status = !w->calm && often(w, 25) ? TRM_ELAUNCH : TRM_OK,
        .hello_ns = w->now_ns + below(w, late && !w->calm ? 9000 * MS : 100 * MS),
        .watches_master = true,
        .seed = trm_draw_next(&w->draw),
        .find_output = find_output,
        .context = p,
    };
    p->unfit = config.hello_status != TRM_OK;
    p->worker = sim_worker_create(&config);
}

/* ---- Life. ---- */

void process_begin(launch *l, uint32_t rank)
{
    world *w = l->in;
    process *p = &l->process[rank];
    trm_err err = {""};
    *p = (process){.of = l,
                   .rank = rank,
                   .host = p->host,
                   .draw = trm_draw_from(trm_draw_next(&w->draw)),
                   .alive = true,
                   .watches = often(w, w->mood.pidfds),
                   .wake_ns = w->now_ns + below(w, 50 * MS),
                   .kill_ns = UINT64_MAX};
    snprintf(p->host_name, sizeof p->host_name, "host%u", p->host);
    snprintf(p->store, sizeof p->store, "/scratch/%u/%" PRIu64 ".%u", p->host, l->number, rank);
    trm_fs_view_config view = {
        .fs = w->fs, .renamed = renamed, .died = died, .hidden = is_hidden, .context = p};
    p->fs = trm_fs_view_create(&view);
    p->ground = (trm_ground){.fs = p->fs,
                             .transport = trm_transport_net_rank(l->net, rank),
                             .entropy = entropy,
                             .disk_ns = disk_ns,
                             .witness = witness,
                             .segment_bytes = 16u * 1024u,
                             .snapshot_bytes = w->mood.snapshot_bytes,
                             .context = p};
    make_worker(p);
    trm_control_config config = {.spec = &w->spec,
                                 .ground = &p->ground,
                                 .worker_ops = &worker_ops,
                                 .worker = p->worker,
                                 .meet = meet,
                                 .context = p};
    if (trm_control_create(&p->control, &config, &err) != TRM_OK)
        world_fail(w, "no control plane: %s", err.text);
}

void process_end(process *p, death how)
{
    launch *l = p->of;
    if (!p->alive)
        return;
    if (how == DEATH_POWER)
        trm_fs_view_lose_power(p->fs);
    else if (how == DEATH_KILLED)
        trm_fs_view_kill(p->fs);
    p->alive = false;
    l->in->totals->killed += how == DEATH_KILLED;
    l->in->totals->powerless += how == DEATH_POWER;
    if (how == DEATH_POWER)
        trm_transport_net_kill(l->net, p->rank);
    else
        trm_transport_net_kill_late(l->net, p->rank);
    sim_worker_destroy(p->worker);
    trm_control_destroy(p->control);
    trm_fs_view_destroy(p->fs);
    p->worker = NULL;
    p->control = NULL;
    p->fs = NULL;
    for (uint32_t i = 0; i < l->ranks; i++)
        if (l->process[i].wake_ns > l->in->now_ns + LOOK_NS)
            l->process[i].wake_ns = l->in->now_ns + LOOK_NS;
}

static void look_at_neighbours(process *p)
{
    launch *l = p->of;
    for (uint32_t i = 0; p->watches && i < l->ranks; i++) {
        uint32_t bit = 1u << i;
        if ((p->watched & bit) && !(p->told_dead & bit) && !l->process[i].alive) {
            p->told_dead |= bit;
            trm_control_rank_dead(p->control, i, l->in->now_ns);
        }
    }
}

uint64_t process_next_ns(const process *p)
{
    if (!p->alive)
        return UINT64_MAX;
    uint64_t arrival_ns = trm_transport_net_arrival_ns(p->of->net, p->rank);
    uint64_t next_ns = p->wake_ns < arrival_ns ? p->wake_ns : arrival_ns;
    next_ns = next_ns > p->paused_until_ns ? next_ns : p->paused_until_ns;
    return next_ns < p->kill_ns ? next_ns : p->kill_ns;
}

static void leave(process *p, const trm_end *end)
{
    launch *l = p->of;
    world_trace(l->in, "%" PRIu64 ".%u leaves with %u: %.100s", l->number, p->rank, end->exit_code,
                end->text);
    if (trm_control_knows_end(p->control, end) && l->result < 0) {
        l->result = (int)end->exit_code;
        l->result_ns = l->in->now_ns;
    }
    process_end(p, DEATH_LEFT);
}

void process_turn(process *p)
{
    world *w = p->of->in;
    if (w->now_ns >= p->kill_ns) {
        world_trace(w, "%" PRIu64 ".%u is killed", p->of->number, p->rank);
        process_end(p, DEATH_KILLED);
        return;
    }
    uint64_t wake_ns = UINT64_MAX;
    trm_end end = {0};
    w->turning = p;
    w->totals->turns++;
    if (w->trace)
        trm_diag_configure(TRM_DIAG_DEBUG, (int)p->rank);
    look_at_neighbours(p);
    bool any = trm_control_turn(p->control, w->now_ns, w->now_ns / MS, &wake_ns);
    if (any)
        wake_ns = w->now_ns + LOOP_TURN_NS;
    if (wake_ns > w->now_ns + LOOP_SLEEP_NS_MAX)
        wake_ns = w->now_ns + LOOP_SLEEP_NS_MAX;
    p->wake_ns = wake_ns > w->now_ns ? wake_ns : w->now_ns + LOOP_TURN_NS;
    if (trm_fs_view_is_dead(p->fs)) {
        world_trace(w, "%" PRIu64 ".%u has died in the middle of it", p->of->number, p->rank);
        process_end(p, DEATH_KILLED);
    } else if (trm_control_is_over(p->control, &end)) {
        leave(p, &end);
    }
    w->turning = NULL;
}

void process_show(const process *p)
{
    trm_node_state node;
    trm_progress at = {.phase = "no master"};
    const trm_master *master = trm_control_master(p->control);
    trm_node_state_get(trm_control_node(p->control), &node);
    if (master)
        trm_master_progress(master, &at);
    fprintf(stderr,
            "rank %u of launch %" PRIu64 ": %s, elected %d, leads %d, leader %d of term %" PRIu64
            ", voters %u; worker of term %" PRIu64 "\n",
            p->rank, p->of->number, at.phase, node.elected, node.leads, (int)node.leader, node.term,
            trm_node_voters(trm_control_node(p->control)), sim_worker_term(p->worker));
}
