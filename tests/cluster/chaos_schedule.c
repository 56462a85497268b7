/* Seed to schedule. Everything follows from the seed and nothing else: not from the machine, nor from
 * what it can do. What cannot be done here is left out when it is played, and said.
 *
 * A launch survives the death of ranks as long as a majority of the voters lives and the dead are
 * replaced; what a step takes is drawn so that this is so, or so that another launch follows. */
#include "tests/cluster/chaos.h"

#include "tests/support/draw.h"

#include <string.h>

#define HOSTS_EVERY 8u /* seeds that are a multiple are played on several hosts */

static const struct {
    const char *words;
    unsigned weight, weight_hosts; /* how often */
    unsigned takes;                /* ranks, for good … */
    unsigned needs;                /* … of so many at least */
    bool new_launch;
} faults[CHAOS_FAULTS] = {
    [CHAOS_KILL_LEADER] = {"the leader is killed", 34, 25, 1, 3, false},
    [CHAOS_KILL_RANK] = {"a rank that does not lead is killed", 9, 8, 1, 3, false},
    [CHAOS_KILL_TWO] = {"the leader and another rank are killed at once", 8, 0, 2, 5, false},
    [CHAOS_KILL_MAJORITY] = {"a majority of the voters is killed", 4, 0, 0, 0, true},
    [CHAOS_STOP_LEADER] = {"the leader is stopped until another leads", 10, 10, 0, 3, false},
    [CHAOS_STOP_RANK] = {"a rank is stopped for some elections", 7, 7, 0, 3, false},
    [CHAOS_KILL_EXECUTORS] = {"the executors of a rank are killed", 6, 5, 0, 0, false},
    [CHAOS_KILL_ALL_EXECUTORS] = {"all executors are killed", 3, 0, 0, 0, false},
    [CHAOS_KILL_SUPERVISOR] = {"a supervisor is killed", 6, 5, 1, 3, false},
    [CHAOS_KILL_MPIRUN] = {"mpirun is killed", 6, 5, 0, 0, true},
    [CHAOS_KILL_LAUNCHER] = {"the launcher is killed", 5, 0, 0, 0, true},
    [CHAOS_TERMINATE] = {"SIGTERM to the launcher", 5, 5, 0, 0, true},
    [CHAOS_FILL_SCRATCH] = {"scratch is full for a while", 3, 0, 0, 0, true},
    [CHAOS_KILL_HOST] = {"a host is killed", 0, 20, 0, 0, true},
    [CHAOS_CUT_LINK] = {"a host's link is cut for a while", 0, 20, 0, 4, false},
};

static const unsigned ranks_of[] = {3, 5, 8};

const char *chaos_job_name(chaos_job job)
{
    static const char *const names[CHAOS_JOBS] = {"words", "sort", "join"};
    return names[job];
}

static chaos_fault draw_fault(trm_draw *draw, bool hosts, unsigned alive)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < CHAOS_FAULTS; i++)
        sum += hosts ? faults[i].weight_hosts : faults[i].weight;
    for (;;) {
        unsigned at = (unsigned)trm_draw_below(draw, sum), i = 0;
        for (;; i++) {
            unsigned weight = hosts ? faults[i].weight_hosts : faults[i].weight;
            if (at < weight)
                break;
            at -= weight;
        }
        if (alive >= faults[i].needs)
            return (chaos_fault)i;
    }
}

/* Behind the point before it: progress, in 1000 parts of the whole way. */
static void draw_point(trm_draw *draw, unsigned *way, chaos_step *out)
{
    static const unsigned begin_of[CHAOS_POINTS + 1] = {0, 20, 650, 900, 985, 1000};
    *way += (unsigned)trm_draw_below(draw, 420);
    *way = *way < 1000 ? *way : 999;
    unsigned point = CHAOS_AT_BEGIN;
    while (*way >= begin_of[point + 1])
        point++;
    out->point = (chaos_point)point;
    out->permille = (*way - begin_of[point]) * 1000 / (begin_of[point + 1] - begin_of[point]);
}

void chaos_schedule_draw(chaos_schedule *out, uint64_t seed)
{
    static const char *const compress[] = {"auto", "none", "zlib"};
    trm_draw draw = trm_draw_from(seed);
    *out = (chaos_schedule){.seed = seed, .hosts = seed % HOSTS_EVERY == 0};
    out->job = (chaos_job)trm_draw_below(&draw, CHAOS_JOBS);
    out->ranks = out->hosts ? 5 : ranks_of[trm_draw_below(&draw, 3)];
    out->executors = trm_draw_often(&draw, 300) ? 2 : 1;
    out->compress = compress[trm_draw_below(&draw, 3)];
    unsigned steps = 1 + (unsigned)trm_draw_below(&draw, CHAOS_STEPS_MAX - 1), way = 0, alive = out->ranks;
    for (unsigned i = 0; i < steps; i++) {
        chaos_step *step = &out->step[out->steps++];
        draw_point(&draw, &way, step);
        step->fault =
            i == 0 && trm_draw_often(&draw, 400) ? CHAOS_KILL_LEADER : draw_fault(&draw, out->hosts, alive);
        step->draw = (uint32_t)trm_draw_next(&draw);
        bool same = out->hosts || step->fault == CHAOS_KILL_MPIRUN || step->fault == CHAOS_KILL_MAJORITY;
        step->ranks = same ? out->ranks : ranks_of[trm_draw_below(&draw, 3)];
        alive = faults[step->fault].new_launch ? step->ranks : alive - faults[step->fault].takes;
        if (step->point == CHAOS_AT_SUCCESS)
            break;
    }
}

void chaos_step_print(const chaos_step *self, FILE *out)
{
    static const char *const points[CHAOS_POINTS] = {"at the begin", "of the maps done",
                                                     "of the reduces begun", "of the parts in place",
                                                     "when _SUCCESS is there"};
    if (self->point == CHAOS_AT_BEGIN || self->point == CHAOS_AT_SUCCESS)
        fprintf(out, "%s: ", points[self->point]);
    else
        fprintf(out, "%u.%u %% %s: ", self->permille / 10, self->permille % 10, points[self->point]);
    fprintf(out, "%s", faults[self->fault].words);
    if (faults[self->fault].new_launch)
        fprintf(out, " (then %u ranks)", self->ranks);
}

void chaos_schedule_print(const chaos_schedule *self, FILE *out)
{
    fprintf(out, "seed %llu: %s, %u ranks%s, %u executor%s each, --compress %s\n",
            (unsigned long long)self->seed, chaos_job_name(self->job), self->ranks,
            self->hosts ? " on 3 hosts" : "", self->executors, self->executors > 1 ? "s" : "",
            self->compress);
    for (unsigned i = 0; i < self->steps; i++) {
        fprintf(out, "    ");
        chaos_step_print(&self->step[i], out);
        fprintf(out, "\n");
    }
}
