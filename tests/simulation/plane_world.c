/* One history: a job and a mood are drawn, launches run through faults, then faults end, and the job
 * must come to its end within a bounded time. */
#include "tests/simulation/plane_world.h"

#include "jobs/names.h"
#include "runtime/diag.h"
#include "tests/support/fs_mem.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CALM_NS_MAX (600ull * TRM_NS_PER_S) /* of peace until the job must be over */
#define TURNS_MAX 4000000u

static void print(const world *w, FILE *to, const char *format, va_list arguments)
{
    fprintf(to, "%11.3f ms  ", (double)w->now_ns / 1e6);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    vfprintf(to, format, arguments);
#pragma GCC diagnostic pop
    putc('\n', to);
}

void world_trace(world *w, const char *format, ...)
{
    if (!w->trace)
        return;
    va_list arguments;
    va_start(arguments, format);
    print(w, stderr, format, arguments);
    va_end(arguments);
}

void world_fail(world *w, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "plane_sim: seed %" PRIu64, w->seed);
    if (w->turning)
        fprintf(stderr, ", turn of rank %u of launch %" PRIu64, w->turning->rank, w->turning->of->number);
    putc('\n', stderr);
    print(w, stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "replay with: tests/simulation/plane_sim --trace %" PRIu64 "\n", w->seed);
    exit(1);
}

/* ---- The job. ---- */

static void draw_habits(world *w)
{
    w->habits = (sim_habits){.task_min_ns = below(w, 2) * MS / 10,
                             .poison_task = UINT32_MAX,
                             .empty_permille = often(w, 300) ? 500 : 0,
                             .writes_parts = true};
    w->habits.task_max_ns = w->habits.task_min_ns + (1 + below(w, often(w, 300) ? 2500 : 500)) * MS;
    w->habits.fail_permille = often(w, 200) ? (unsigned)below(w, 60) : 0;
    w->habits.refuse_permille = often(w, 150) ? (unsigned)below(w, 60) : 0;
    w->may_fail = w->habits.fail_permille || w->habits.refuse_permille;
    if (often(w, 50)) {
        w->habits.poison_task = (uint32_t)below(w, w->spec.tasks);
        w->must_fail = true;
    }
}

static void draw_job(world *w)
{
    static char out[] = OUT, state[] = STATE;
    static const uint64_t timeouts[] = {0, 100, 150, 300, 500};
    w->spec = (trm_spec){.output_dir = out,
                         .state_dir = state,
                         .attempts_max = TRM_ATTEMPTS_DEFAULT,
                         .replicas = w->seed % 3 ? 1 : 2,
                         .tasks = 1 + below(w, often(w, 100) ? 250 : 50),
                         .partitions = 1 + (uint32_t)below(w, 12),
                         .election_timeout_ms = timeouts[below(w, 5)]};
    w->traits =
        (trm_traits){.name = "sim", .input = TRM_INPUT_NONE, .counters_count = 1, .counters = {"attempts"}};
    w->traits.map_only = often(w, 250);
    w->traits.range_partitioned = !w->traits.map_only && often(w, 200);
    draw_habits(w);
}

static void begin(world *w)
{
    uint64_t seed = w->seed;
    bool trace = w->trace;
    totals *sum = w->totals;
    *w = (world){.seed = seed, .trace = trace, .totals = sum, .draw = trm_draw_from(seed)};
    w->now_ns = TRM_NS_PER_S;
    w->launch_ns = w->now_ns;
    w->heal_ns = UINT64_MAX;
    draw_job(w);
    mood_draw(w);
    w->chaos_ns = w->now_ns + below(w, w->mood.chaos_every_ns);
    w->fs = trm_fs_mem_create(trm_draw_next(&w->draw));
    check_begin(w);
    world_trace(w, "seed %" PRIu64 ": %" PRIu64 " tasks, %u partitions%s%s, calm at %" PRIu64 " ms", w->seed,
                w->spec.tasks, w->traits.map_only ? 0 : w->spec.partitions,
                w->traits.range_partitioned ? ", by range" : "", w->must_fail ? ", one poisoned" : "",
                (uint64_t)(w->mood.calm_ns / MS));
}

static void end(world *w)
{
    for (unsigned i = 0; i < LIVE_LAUNCHES_MAX; i++)
        launch_close(&w->launch[i]);
    check_end(w);
    check_close(w);
    sim_runs_close(&w->runs);
    trm_fs_mem_destroy(w->fs);
    w->totals->histories++;
    w->totals->virtual_ns += w->now_ns;
}

/* ---- Time. ---- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t next_ns(const world *w)
{
    uint64_t next = earlier(w->launch_ns, w->heal_ns);
    if (!w->calm)
        next = earlier(next, earlier(w->chaos_ns, w->mood.calm_ns));
    for (unsigned i = 0; i < LIVE_LAUNCHES_MAX; i++)
        for (uint32_t rank = 0; w->launch[i].live && rank < w->launch[i].ranks; rank++)
            next = earlier(next, process_next_ns(&w->launch[i].process[rank]));
    return next;
}

static void processes_step(world *w)
{
    for (unsigned i = 0; i < LIVE_LAUNCHES_MAX; i++) {
        launch *l = &w->launch[i];
        if (l->live)
            trm_transport_net_set_now(l->net, w->now_ns);
        for (uint32_t rank = 0; l->live && rank < l->ranks; rank++)
            if (process_next_ns(&l->process[rank]) <= w->now_ns)
                process_turn(&l->process[rank]);
    }
}

/* Whoever gave the command gives it again until the job is done, or has failed for a reason. */
static void launches_step(world *w)
{
    bool live = false;
    for (unsigned i = 0; i < LIVE_LAUNCHES_MAX; i++) {
        launch_step(&w->launch[i]);
        live |= w->launch[i].live;
    }
    if (w->now_ns >= w->launch_ns) {
        w->launch_ns = UINT64_MAX;
        launch_begin(w);
    } else if (!live && w->launch_ns == UINT64_MAX) {
        w->over = w->done && (w->again || !often(w, 200));
        w->again = w->done;
        if (!w->over)
            w->launch_ns = w->now_ns + (1 + below(w, 3000)) * MS;
    }
}

/* For whoever wants to know why it does not end. */
static void show(const world *w)
{
    for (unsigned i = 0; i < LIVE_LAUNCHES_MAX; i++)
        for (uint32_t rank = 0; w->launch[i].live && rank < w->launch[i].ranks; rank++)
            if (w->launch[i].process[rank].alive)
                process_show(&w->launch[i].process[rank]);
}

void world_run(world *w)
{
    begin(w);
    for (uint64_t turns = 0; !w->over; turns++) {
        w->now_ns = next_ns(w);
        if (!w->calm && w->now_ns >= w->mood.calm_ns)
            chaos_end(w);
        if (!w->calm && w->now_ns >= w->chaos_ns)
            chaos(w);
        chaos_step(w);
        processes_step(w);
        launches_step(w);
        if (w->now_ns > w->mood.calm_ns + CALM_NS_MAX)
            show(w);
        if (w->now_ns > w->mood.calm_ns + CALM_NS_MAX)
            world_fail(w, "the job does not end in peace");
        if (turns > TURNS_MAX)
            world_fail(w, "the history does not end");
    }
    end(w);
}
