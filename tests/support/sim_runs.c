/* See sim_runs.h. */
#include "tests/support/sim_runs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

sim_run *sim_runs_find(const sim_runs *self, const char *store, uint64_t epoch, uint32_t task,
                       uint32_t attempt)
{
    for (size_t i = self->count; i-- > 0;) {
        sim_run *run = &self->run[i];
        if (!run->gone && run->epoch == epoch && run->task == task && run->attempt == attempt &&
            strcmp(run->store, store) == 0)
            return run;
    }
    return NULL;
}

void sim_runs_add(sim_runs *self, const char *store, const sim_run *what)
{
    sim_run *older = sim_runs_find(self, store, what->epoch, what->task, what->attempt);
    if (older)
        older->gone = true;
    if (self->count == self->room) {
        self->room = self->room ? self->room * 2 : 64;
        self->run = realloc(self->run, self->room * sizeof *self->run);
        if (!self->run)
            abort();
    }
    sim_run run = *what;
    snprintf(run.store, sizeof run.store, "%s", store);
    self->run[self->count++] = run;
}

void sim_runs_close(sim_runs *self)
{
    free(self->run);
    *self = (sim_runs){0};
}
