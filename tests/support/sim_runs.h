/* The runs of all simulated workers: a world of their own, which outlives launches as scratch
 * directories do. */
#ifndef TRM_TESTS_SIM_RUNS_H
#define TRM_TESTS_SIM_RUNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One run: an output of a map. */
typedef struct sim_run {
    char store[64];
    uint64_t epoch;
    uint32_t task, attempt;
    bool gone;
    uint64_t made;               /* by the launch that ran the attempt: what is in it */
    uint64_t copy_of;            /* 0: no copy; else as trm_copied.epoch … */
    uint64_t told_ns, told_term; /* … and when the master of which term was told of it last */
} sim_run;

typedef struct sim_runs {
    sim_run *run;
    size_t count, room;
} sim_runs;

sim_run *sim_runs_find(const sim_runs *self, const char *store, uint64_t epoch, uint32_t task,
                       uint32_t attempt);
/* It takes the place of whatever has its name. */
void sim_runs_add(sim_runs *self, const char *store, const sim_run *what);
void sim_runs_close(sim_runs *self);

#endif
