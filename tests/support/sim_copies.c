/* Copies of runs that simulated workers keep for others. */
#include "tests/support/sim_worker_self.h"

#include <assert.h>
#include <string.h>

#define COPY_NS (20 * TRM_NS_PER_MS) /* one may take so long */
#define COPY_FAIL_PERMILLE 20u

bool sim_copies_is_own(const sim_worker *self, const sim_run *run)
{
    return !run->gone && run->copy_of && strcmp(run->store, self->store) == 0;
}

bool sim_copies_tell(sim_worker *self)
{
    sim_runs *runs = self->config.runs;
    bool any = false;
    trm_writer *frame = sim_worker_begin(self, TRM_WIRE_COPIED);
    for (size_t i = 0; i < runs->count; i++) {
        const sim_run *run = &runs->run[i];
        trm_copied it = {.task = run->task, .attempt = run->attempt, .epoch = run->copy_of, .bytes = 100};
        any |= sim_copies_is_own(self, run);
        if (sim_copies_is_own(self, run))
            trm_copied_encode(&it, frame);
    }
    if (any && sim_worker_send(self) == TRM_AGAIN)
        return false;
    for (size_t i = 0; i < runs->count; i++)
        if (sim_copies_is_own(self, &runs->run[i]) && runs->run[i].told_term != self->term) {
            runs->run[i].told_ns = self->now_ns;
            runs->run[i].told_term = self->term;
        }
    self->copies_due = false;
    return true;
}

/* One that was found in a store is kept as of this launch. */
static void renew(sim_worker *self, const trm_copy *what)
{
    trm_copied it = {.task = what->task, .attempt = what->attempt, .epoch = self->epoch, .status = TRM_ELOST};
    sim_run *run = sim_runs_find(self->config.runs, self->store, self->epoch, what->task, what->attempt);
    if (run && run->copy_of == what->epoch) {
        run->copy_of = self->epoch;
        run->told_term = 0;
        self->copies_due = true;
        return;
    }
    trm_copied_encode(&it, sim_worker_begin(self, TRM_WIRE_COPIED));
    sim_worker_send(self);
}

void sim_copies_order(sim_worker *self, trm_reader *body)
{
    while (trm_reader_left(body)) {
        trm_copy what;
        trm_copy_decode(&what, body);
        assert(trm_reader_ok(body) && what.rank < self->setup.peers_count);
        assert((what.rank == self->config.transport->rank) == (what.epoch != 0));
        if (what.epoch) {
            renew(self, &what);
            continue;
        }
        trm_output_at at = {.task = what.task, .attempt = what.attempt, .rank = what.rank};
        if (self->copies_count < SIM_COPIES_MAX)
            self->copies[self->copies_count++] =
                (copying){.at = at, .due_ns = self->now_ns + trm_draw_below(&self->draw, COPY_NS)};
    }
}

static void copy_one(sim_worker *self, const trm_output_at *at)
{
    const sim_run *from = self->config.find_output(self->config.context, self->config.transport->rank, at);
    trm_copied it = {.task = at->task, .attempt = at->attempt, .epoch = self->epoch, .status = TRM_ELOST};
    if (from && !trm_draw_often(&self->draw, COPY_FAIL_PERMILLE)) {
        sim_run copy = *from;
        copy.copy_of = self->epoch;
        copy.told_term = 0;
        sim_runs_add(self->config.runs, self->store, &copy);
        self->copies_due = true;
        return;
    }
    trm_copied_encode(&it, sim_worker_begin(self, TRM_WIRE_COPIED));
    sim_worker_send(self);
}

void sim_copies_step(sim_worker *self, uint64_t *wake_ns)
{
    for (unsigned i = 0; i < self->copies_count;) {
        if (self->copies[i].due_ns > self->now_ns) {
            *wake_ns = self->copies[i].due_ns < *wake_ns ? self->copies[i].due_ns : *wake_ns;
            i++;
            continue;
        }
        copying due = self->copies[i];
        self->copies[i] = self->copies[--self->copies_count];
        if (self->attached)
            copy_one(self, &due.at);
    }
    if (self->attached && self->copies_due && !sim_copies_tell(self) && self->now_ns + SIM_FULL_NS < *wake_ns)
        *wake_ns = self->now_ns + SIM_FULL_NS;
}
