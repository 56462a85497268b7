/* A launch: ranks on hosts, and what its launcher, or the person who gave the command, does when it is
 * over. */
#include "tests/simulation/plane_world.h"

#include "jobs/exit_code.h"

#include <inttypes.h>
#include <string.h>

#define RESULT_WAIT_NS (5000 * MS) /* from the result until the launcher ends mpirun */

static void sent(void *context, uint32_t from, uint32_t to, const void *bytes, size_t len)
{
    launch *l = context;
    check_sent(&l->process[from], to, bytes, len);
}

static launch *free_slot(world *w)
{
    for (unsigned i = 0; i < LIVE_LAUNCHES_MAX; i++)
        if (!w->launch[i].live)
            return &w->launch[i];
    return NULL;
}

launch *launch_begin(world *w)
{
    launch *l = free_slot(w);
    if (!l)
        return NULL;
    bool many = often(w, 850);
    *l = (launch){.in = w,
                  .number = ++w->launches,
                  .ranks = (uint32_t)(many ? 3 + below(w, RANKS_MAX - 2) : 1 + below(w, RANKS_MAX)),
                  .live = true,
                  .lacks_log = lacks_log(w),
                  .result = -1};
    trm_transport_net_options options = {.ranks = l->ranks,
                                         .seed = trm_draw_next(&w->draw),
                                         .delay_min_ns = 20000,
                                         .delay_max_ns = w->mood.delay_max_ns,
                                         .queue_bytes_max = often(w, 50) ? 3000 : 0,
                                         .sent = sent,
                                         .context = l};
    l->net = trm_transport_net_create(&options);
    trm_transport_net_set_now(l->net, w->now_ns);
    uint32_t hosts = 1 + (uint32_t)below(w, HOSTS_MAX);
    for (uint32_t i = 0; i < l->ranks; i++)
        l->process[i].host = i % hosts;
    world_trace(w, "launch %" PRIu64 ": %u ranks on %u hosts", l->number, l->ranks, hosts);
    for (uint32_t i = 0; i < l->ranks; i++)
        process_begin(l, i);
    w->totals->launches++;
    return l;
}

void launch_close(launch *l)
{
    trm_transport_net_counts counts;
    if (!l->live)
        return;
    for (uint32_t i = 0; i < l->ranks; i++)
        process_end(&l->process[i], DEATH_KILLED);
    trm_transport_net_counts_get(l->net, &counts);
    l->in->totals->messages += counts.sent;
    l->in->totals->messages_lost += counts.lost;
    trm_transport_net_destroy(l->net);
    l->live = false;
}

uint32_t launch_alive(const launch *l)
{
    uint32_t alive = 0;
    for (uint32_t i = 0; l->live && i < l->ranks; i++)
        alive += l->process[i].alive;
    return alive;
}

process *launch_leader(launch *l)
{
    for (uint32_t i = 0; l->live && i < l->ranks; i++)
        if (l->process[i].alive && trm_control_master(l->process[i].control))
            return &l->process[i];
    return NULL;
}

launch *launch_any(world *w)
{
    unsigned first = (unsigned)below(w, LIVE_LAUNCHES_MAX);
    for (unsigned i = 0; i < LIVE_LAUNCHES_MAX; i++) {
        launch *l = &w->launch[(first + i) % LIVE_LAUNCHES_MAX];
        if (launch_alive(l))
            return l;
    }
    return NULL;
}

static void count_end(launch *l)
{
    totals *t = l->in->totals;
    t->done += l->result == TRM_EXIT_DONE;
    t->failed += l->result == TRM_EXIT_FAILED;
    t->interrupted += l->result == TRM_EXIT_INTERRUPTED;
    t->refused += l->result == TRM_EXIT_LAUNCH || l->result == TRM_EXIT_REFUSED;
    t->lost_launches += l->result < 0;
}

bool launch_step(launch *l)
{
    world *w = l->in;
    if (!l->live)
        return false;
    for (uint32_t i = 0; l->result >= 0 && i < l->ranks; i++)
        if (l->process[i].alive && l->process[i].kill_ns > l->result_ns + RESULT_WAIT_NS)
            l->process[i].kill_ns = l->result_ns + RESULT_WAIT_NS;
    if (launch_alive(l))
        return false;
    world_trace(w, "launch %" PRIu64 " is over: result %d", l->number, l->result);
    count_end(l);
    check_result(l);
    check_output(w);
    launch_close(l);
    return true;
}
