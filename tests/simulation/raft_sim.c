/* Deterministic simulation of the Raft core over the real log: many histories, each from
 * one seed. What a history is made of is told in raft_world.h, what is checked in
 * raft_check.c.
 *
 *   raft_sim [FIRST_SEED [HISTORIES]]   runs them, spread over processes
 *   raft_sim --trace SEED               runs one and tells all that happens
 *
 * Environment: as histories.h; SIM_HISTORIES how many (default 10,000, with sanitizers 2,000).
 */
#include "config.h"

#include "runtime/diag.h"
#include "tests/simulation/raft_world.h"
#include "tests/support/histories.h"

#include <inttypes.h>
#include <stdlib.h>

#ifdef TRM_SANITIZED
#define HISTORIES 2000u /* some ten times slower */
#else
#define HISTORIES 10000u
#endif

static void print_totals(uint64_t first, const void *sum)
{
    const totals *t = sum;
    printf("raft_sim: seeds %" PRIu64 " to %" PRIu64 ": %" PRIu64 " histories, %.1f virtual hours, %" PRIu64
           " events\n",
           first, first + t->histories - 1, t->histories, (double)t->virtual_ns / 3.6e12, t->events);
    printf("  elections %" PRIu64 " (%" PRIu64 " won), entries %" PRIu64 ", commits %" PRIu64
           ", membership changes %" PRIu64 ", transfers %" PRIu64 "\n",
           t->elections, t->leaders, t->entries, t->commits, t->changes, t->transfers);
    printf("  clients: writes %" PRIu64 ", reads %" PRIu64 ", given up %" PRIu64
           "; histories too large to judge %" PRIu64 "\n",
           t->writes, t->reads, t->unanswered, t->judged_not);
    printf("  snapshots saved %" PRIu64 ", installed %" PRIu64 ", compactions %" PRIu64 "\n",
           t->snapshots_saved, t->snapshots_installed, t->compactions);
    printf("  network: messages %" PRIu64 ", dropped %" PRIu64 ", repeated %" PRIu64 ", delayed %" PRIu64
           ", garbled %" PRIu64 ", cut off %" PRIu64 " by %" PRIu64 " partitions (%" PRIu64 " one-way)\n",
           t->messages, t->dropped, t->repeated, t->straggled, t->garbled, t->cut_off, t->partitions,
           t->one_way_partitions);
    printf("  nodes: crashes %" PRIu64 ", kills %" PRIu64 ", starts %" PRIu64 ", pauses %" PRIu64
           ", wipes %" PRIu64 "; stuck for want of disks %" PRIu64 "\n",
           t->crashes, t->kills, t->starts, t->pauses, t->wipes, t->stuck);
    printf("  disks: slow %" PRIu64 ", full %" PRIu64 " (%" PRIu64 " writes refused), errors %" PRIu64
           ", sectors lost %" PRIu64 ", torn %" PRIu64 "\n",
           t->slow_disks, t->full_disks, t->refused_for_room, t->disk_errors, t->lost_sectors,
           t->torn_sectors);
}

static void run(uint64_t seed, bool trace, void *sum)
{
    static world *w; /* large, and of use for all histories of a process */
    if (!w)
        w = calloc(1, sizeof *w);
    if (!w)
        abort();
    w->totals = sum;
    w->trace = trace;
    w->seed = seed;
    world_run(w);
}

int main(int argc, char **argv)
{
    trm_histories all = {.name = "raft_sim",
                         .variable = "SIM_HISTORIES",
                         .count = HISTORIES,
                         .block = 10000,
                         .totals_bytes = sizeof(totals),
                         .run = run,
                         .print = print_totals};
    trm_diag_configure(TRM_DIAG_ERROR, -1);
    return trm_histories_main(&all, argc, argv);
}
