/* One history: a world is drawn from the seed, lives through faults, and is then left in
 * peace, in which it must get on again within a bounded time. */
#include "tests/simulation/raft_world.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* How long calm may take, in election timeouts, until something is committed, and then
 * until every member has it. */
#define CALM_ELECTIONS 60u
#define EVENTS_MAX 1000000u

void world_trace(world *w, const char *format, ...)
{
    if (!w->trace)
        return;
    va_list arguments;
    va_start(arguments, format);
    printf("%9.3f ms  ", (double)now_ns(w) / 1e6);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    vprintf(format, arguments);
#pragma GCC diagnostic pop
    va_end(arguments);
    putchar('\n');
}

void world_fail(world *w, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fflush(stdout);
    fprintf(stderr, "raft_sim: seed %" PRIu64 ", %.3f ms, %s: ", w->seed, (double)now_ns(w) / 1e6, w->what);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    vfprintf(stderr, format, arguments);
#pragma GCC diagnostic pop
    va_end(arguments);
    fprintf(stderr, "\nreplay with: tests/simulation/raft_sim --trace %" PRIu64 "\n", w->seed);
    exit(1);
}

void world_add(world *w, event_kind kind, uint64_t after_ns, uint32_t of, uint64_t number, void *data)
{
    trm_sim_event event = {
        .at_ns = now_ns(w) + after_ns, .kind = kind, .node = of, .number = number, .data = data};
    trm_sim_queue_add(&w->queue, &event);
}

static void begin(world *w)
{
    w->draw = trm_draw_from(w->seed);
    w->calm = w->over = w->probed = false;
    w->queue = (trm_sim_queue){0};
    w->ops_len = w->sessions = 0;
    w->moment = w->value = 0;
    w->probe_index = 0;
    w->probe_op = NOBODY;
    memset(&w->truth, 0, sizeof w->truth);
    mood_draw(w);
    w->slots = w->mood.voters + w->mood.learners;
    trm_sim_net_init(&w->net, w->slots, 200000, below(w, 4) ? 2 * MS : 20 * MS);
    w->first_members.count = 0;
    for (uint32_t i = 0; i < w->mood.voters; i++)
        trm_raft_members_set(&w->first_members, i, true);
    for (uint32_t i = 0; i < w->slots; i++) {
        node_make(w, i, i < w->mood.voters);
        world_add(w, EVENT_START, below(w, 20 * MS), i, 0, NULL);
    }
    for (uint32_t i = 0; i < w->mood.clients; i++) {
        w->clients[i] = (client){.session = NOBODY, .op = NOBODY, .slot = NOBODY};
        world_add(w, EVENT_CLIENT, below(w, 100 * MS), i, 0, NULL);
    }
    world_add(w, EVENT_CHAOS, below(w, 2 * w->mood.options.election_ns), 0, 0, NULL);
    world_add(w, EVENT_OPERATOR, w->mood.options.election_ns, 0, 0, NULL);
    world_add(w, EVENT_CALM, w->mood.trouble_ns, 0, 0, NULL);
    world_trace(w, "seed %" PRIu64 ": %u voters, %u learners, %u clients", w->seed, w->mood.voters,
                w->mood.learners, w->mood.clients);
}

static void calm_down(world *w)
{
    if (w->calm)
        return;
    chaos_end(w);
    world_add(w, EVENT_PROBE, 0, 0, 0, NULL);
}

/* Every node that the leader takes for a member has applied what the probe wrote. */
static bool all_have_it(world *w)
{
    const node *leader = leader_now(w);
    if (!w->probed || !leader)
        return false;
    for (uint32_t i = 0; i < leader->members.count; i++) {
        uint64_t id = leader->members.member[i].node;
        const node *n = &w->nodes[id % SLOT_STRIDE];
        if (n->id == id && n->machine.index < leader->machine.index)
            return false;
    }
    return true;
}

/* Ends the history when all is done; fails it when that takes too long. */
static void watch_calm(world *w, uint64_t calm_since_ns)
{
    if (all_have_it(w)) {
        w->over = true;
        return;
    }
    if (now_ns(w) < calm_since_ns + CALM_ELECTIONS * w->mood.options.election_ns * (w->probed ? 2 : 1))
        return;
    if (can_go_on(w, NOBODY))
        world_fail(w, w->probed ? "liveness: not every member has what was committed in peace"
                                : "liveness: nothing is committed in peace");
    w->totals->stuck++;
    w->over = true;
}

static bool is_of_a_node(const trm_sim_event *event)
{
    return event->kind == EVENT_ARRIVE || event->kind == EVENT_TICK || event->kind == EVENT_DISK;
}

static void happen(world *w, trm_sim_event *event)
{
    static const char *const names[] = {"",       "message", "tick",     "disk",  "start",
                                        "client", "fault",   "operator", "probe", "calm"};
    node *n = &w->nodes[event->node % SLOTS_MAX];
    snprintf(w->what, sizeof w->what, "%s at %u", names[event->kind], event->node);
    if (is_of_a_node(event) && n->paused_until_ns > now_ns(w)) {
        trm_sim_event later = *event; /* a stopped process finds it when it goes on */
        later.at_ns = n->paused_until_ns;
        trm_sim_queue_add(&w->queue, &later);
        return;
    }
    switch ((event_kind)event->kind) {
    case EVENT_ARRIVE:
        node_arrive(w, n, event->data);
        free(event->data);
        break;
    case EVENT_TICK:
        if (event->number == n->tick_at_ns)
            node_tick(w, n);
        break;
    case EVENT_DISK:
        if (event->number == n->life) {
            disk_done(w, n);
            node_settle(w, n);
        }
        break;
    case EVENT_START:
        if (event->number == n->life)
            node_start(w, n);
        break;
    case EVENT_CLIENT:
        client_wake(w, event->node, event->number);
        break;
    case EVENT_CHAOS:
        chaos(w);
        break;
    case EVENT_OPERATOR:
        operate(w);
        break;
    case EVENT_PROBE:
        probe(w);
        break;
    case EVENT_CALM:
        calm_down(w);
        break;
    }
}

static void drop_event(trm_sim_event *event)
{
    free(event->data);
}

static void end(world *w)
{
    check_end(w);
    for (uint32_t i = 0; i < w->slots; i++) {
        if (w->nodes[i].raft)
            check_whole(w, &w->nodes[i]);
        node_close(w, &w->nodes[i]);
    }
    totals *t = w->totals;
    t->histories++;
    t->virtual_ns += now_ns(w);
    t->commits += w->truth.committed_last;
    t->messages += w->net.sent;
    t->dropped += w->net.dropped;
    t->repeated += w->net.repeated;
    t->straggled += w->net.straggled;
    t->cut_off += w->net.cut_off;
    trm_sim_queue_close(&w->queue, drop_event);
}

void world_run(world *w)
{
    begin(w);
    uint64_t calm_since_ns = UINT64_MAX / 2;
    trm_sim_event event;
    for (uint64_t events = 0; !w->over && trm_sim_queue_next(&w->queue, &event); events++) {
        happen(w, &event);
        w->totals->events++;
        if (events > EVENTS_MAX)
            world_fail(w, "the history does not end");
        if (!w->calm && w->truth.committed_last > LOG_MAX / 2)
            calm_down(w);
        if (w->calm && calm_since_ns > now_ns(w))
            calm_since_ns = now_ns(w);
        if (w->calm)
            watch_calm(w, calm_since_ns);
    }
    end(w);
}
