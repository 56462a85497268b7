/* Deterministic simulation of the whole control plane: consensus, job table, master, failure
 * detection, launches, over files and messages in memory, with simulated workers. What a history is
 * made of is told in plane_world.h, what is checked in plane_check.c and plane_output.c.
 *
 *   plane_sim [FIRST_SEED [HISTORIES]]   runs them, spread over processes
 *   plane_sim --trace SEED               runs one and tells all that happens
 *
 * Environment: as histories.h; PLANE_HISTORIES how many (default 600, with sanitizers 100).
 */
#include "config.h"

#include "runtime/diag.h"
#include "tests/simulation/plane_world.h"
#include "tests/support/histories.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef TRM_SANITIZED
#define HISTORIES 100u /* some ten times slower */
#else
#define HISTORIES 600u
#endif

static void print_totals(uint64_t first, const void *sum)
{
    static const char *const names[FAULTS] = {
        "leaders killed", "ranks killed",  "killed in a write", "leaders paused", "ranks paused",
        "hosts lost",     "links cut",     "messages lost",     "slow",           "disk full",
        "runs lost",      "launches lost", "power lost",        "signals",        "signals to one",
        "started twice",  "logs wiped"};
    const totals *t = sum;
    printf("plane_sim: seeds %" PRIu64 " to %" PRIu64 ": %" PRIu64 " histories, %.1f virtual hours, %" PRIu64
           " turns\n",
           first, first + t->histories - 1, t->histories, (double)t->virtual_ns / 3.6e12, t->turns);
    printf("  launches %" PRIu64 ": done %" PRIu64 ", failed %" PRIu64 ", refused %" PRIu64
           ", interrupted %" PRIu64 ", lost %" PRIu64 ", without a majority of logs %" PRIu64 "\n",
           t->launches, t->done, t->failed, t->refused, t->interrupted, t->lost_launches, t->unsafe);
    printf("  commands %" PRIu64 ", commits %" PRIu64 ", orders %" PRIu64 ", masters followed %" PRIu64
           ", images %" PRIu64 ", outputs lost %" PRIu64 " (%" PRIu64 " while they were there)\n",
           t->commands, t->commits, t->orders, t->failovers, t->images, t->outputs_lost,
           t->outputs_lost_early);
    printf("  outputs read from a copy %" PRIu64 ", made again though they had one %" PRIu64 "\n",
           t->outputs_moved, t->outputs_copied);
    printf("  messages %" PRIu64 ", lost %" PRIu64 "; processes killed %" PRIu64 ", without power %" PRIu64
           "\n  faults:",
           t->messages, t->messages_lost, t->killed, t->powerless);
    for (unsigned i = 0; i < FAULTS; i++)
        printf("%s %s %" PRIu64, i ? "," : "", names[i], t->faults[i]);
    putchar('\n');
}

static void run(uint64_t seed, bool trace, void *sum)
{
    world *w = calloc(1, sizeof *w);
    if (!w)
        abort();
    w->totals = sum;
    w->trace = trace;
    w->seed = seed;
    trm_diag_configure(trace ? TRM_DIAG_DEBUG : TRM_DIAG_SILENT, -1);
    world_run(w);
    free(w);
}

int main(int argc, char **argv)
{
    trm_histories all = {.name = "plane_sim",
                         .variable = "PLANE_HISTORIES",
                         .count = HISTORIES,
                         .block = 1000,
                         .totals_bytes = sizeof(totals),
                         .run = run,
                         .print = print_totals};
    return trm_histories_main(&all, argc, argv);
}
