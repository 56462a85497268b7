/* Deterministic simulation of the Raft core over the real log: many histories, each from
 * one seed. What a history is made of is told in raft_world.h, what is checked in
 * raft_check.c.
 *
 *   raft_sim [FIRST_SEED [HISTORIES]]   runs them, spread over processes
 *   raft_sim --trace SEED               runs one and tells all that happens
 *
 * Environment: TRM_TEST_SEED the first seed (default 1); SIM_HISTORIES how many (default
 * 10,000, with sanitizers 2,000); SIM_PROCESSES (default: as many as there are processors, at most 8);
 * SIM_PROGRESS=1 tells every 10,000 histories how far it has come.
 */
#include "config.h"

#include "runtime/diag.h"
#include "tests/simulation/raft_world.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef TRM_SANITIZED
#define HISTORIES 2000u /* some ten times slower */
#else
#define HISTORIES 10000u
#endif
#define PROCESSES_MAX 8u
#define BLOCK 10000u

static void print_totals(uint64_t first, const totals *t)
{
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

static void add_totals(totals *sum, const totals *more)
{
    uint64_t *to = (uint64_t *)sum;
    const uint64_t *from = (const uint64_t *)more;
    for (size_t i = 0; i < sizeof *sum / sizeof *to; i++)
        to[i] += from[i];
}

static world *make_world(totals *sum, bool trace)
{
    world *w = calloc(1, sizeof *w);
    if (!w)
        abort();
    w->totals = sum;
    w->trace = trace;
    return w;
}

/* Every `processes`-th history, beginning with the one of this number. */
static void run_share(uint64_t first, uint64_t histories, unsigned number, unsigned processes, int out)
{
    totals sum = {0};
    world *w = make_world(&sum, false);
    for (uint64_t i = number; i < histories; i += processes) {
        w->seed = first + i;
        world_run(w);
    }
    free(w);
    if (write(out, &sum, sizeof sum) != (ssize_t)sizeof sum)
        _exit(1);
    _exit(0);
}

/* Runs a block of histories in processes; false: one has failed, and has said so. */
static bool run_block(uint64_t first, uint64_t histories, unsigned processes, totals *sum)
{
    int ends[2];
    pid_t children[PROCESSES_MAX];
    if (pipe(ends) != 0) {
        perror("raft_sim: pipe");
        return false;
    }
    fflush(stdout);
    for (unsigned i = 0; i < processes; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            close(ends[0]);
            run_share(first, histories, i, processes, ends[1]);
        }
        if (children[i] < 0)
            perror("raft_sim: fork");
    }
    close(ends[1]);
    bool good = true;
    totals more;
    while (read(ends[0], &more, sizeof more) == (ssize_t)sizeof more)
        add_totals(sum, &more);
    close(ends[0]);
    for (unsigned i = 0; i < processes; i++) {
        int status = 1;
        good &= children[i] > 0 && waitpid(children[i], &status, 0) == children[i] && status == 0;
    }
    return good;
}

static uint64_t number_from(const char *text, const char *variable, uint64_t otherwise)
{
    if (!text)
        text = getenv(variable);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

static unsigned count_processes(void)
{
    long there = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t wanted = number_from(NULL, "SIM_PROCESSES", there > 0 ? (uint64_t)there : 1);
    return wanted < 1 ? 1 : wanted > PROCESSES_MAX ? PROCESSES_MAX : (unsigned)wanted;
}

static int trace_one(const char *seed)
{
    totals sum = {0};
    world *w = make_world(&sum, true);
    w->seed = strtoull(seed, NULL, 10);
    world_run(w);
    print_totals(w->seed, &sum);
    free(w);
    return 0;
}

int main(int argc, char **argv)
{
    trm_diag_configure(TRM_DIAG_ERROR, -1);
    if (argc == 3 && strcmp(argv[1], "--trace") == 0)
        return trace_one(argv[2]);
    if (argc > 3 || (argc > 1 && argv[1][0] == '-')) {
        fprintf(stderr, "usage: raft_sim [FIRST_SEED [HISTORIES]] | --trace SEED\n");
        return 2;
    }
    uint64_t first = number_from(argc > 1 ? argv[1] : NULL, "TRM_TEST_SEED", 1);
    uint64_t histories = number_from(argc > 2 ? argv[2] : NULL, "SIM_HISTORIES", HISTORIES);
    unsigned processes = count_processes();
    totals sum = {0};
    for (uint64_t done = 0; done < histories; done += BLOCK) {
        uint64_t block = histories - done < BLOCK ? histories - done : BLOCK;
        if (!run_block(first + done, block, processes, &sum)) {
            fprintf(stderr, "raft_sim: failed among seeds %" PRIu64 " to %" PRIu64 "\n", first + done,
                    first + done + block - 1);
            return 1;
        }
        if (getenv("SIM_PROGRESS"))
            print_totals(first, &sum);
    }
    print_totals(first, &sum);
    return 0;
}
