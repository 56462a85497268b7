/* See histories.h. */
#include "config.h" /* system extensions, before any header of the system */

#include "tests/support/histories.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESSES_MAX 8u

static uint64_t *make_totals(const trm_histories *self)
{
    uint64_t *totals = calloc(1, self->totals_bytes);
    if (!totals)
        abort();
    return totals;
}

/* Every `processes`-th history, beginning with the one of this number. */
static void run_share(const trm_histories *self, uint64_t first, uint64_t histories, unsigned number,
                      unsigned processes, int out)
{
    uint64_t *totals = make_totals(self);
    for (uint64_t i = number; i < histories; i += processes)
        self->run(first + i, false, totals);
    bool told = write(out, totals, self->totals_bytes) == (ssize_t)self->totals_bytes;
    free(totals);
    _exit(told ? 0 : 1);
}

static void add_totals(const trm_histories *self, uint64_t *sum, const uint64_t *more)
{
    for (size_t i = 0; i < self->totals_bytes / sizeof *sum; i++)
        sum[i] += more[i];
}

/* Runs a block of histories in processes; false: one has failed, and has said so. */
static bool run_block(const trm_histories *self, uint64_t first, uint64_t histories, unsigned processes,
                      uint64_t *sum)
{
    int ends[2];
    pid_t children[PROCESSES_MAX];
    if (pipe(ends) != 0) {
        perror("pipe");
        return false;
    }
    fflush(stdout);
    for (unsigned i = 0; i < processes; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            close(ends[0]);
            run_share(self, first, histories, i, processes, ends[1]);
        }
        if (children[i] < 0)
            perror("fork");
    }
    close(ends[1]);
    bool good = true;
    uint64_t *more = make_totals(self);
    while (read(ends[0], more, self->totals_bytes) == (ssize_t)self->totals_bytes)
        add_totals(self, sum, more);
    free(more);
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

static int run_all(const trm_histories *self, uint64_t first, uint64_t histories, uint64_t *sum)
{
    unsigned processes = count_processes();
    for (uint64_t done = 0; done < histories; done += self->block) {
        uint64_t block = histories - done < self->block ? histories - done : self->block;
        if (!run_block(self, first + done, block, processes, sum)) {
            fprintf(stderr, "%s: failed among seeds %" PRIu64 " to %" PRIu64 "\n", self->name, first + done,
                    first + done + block - 1);
            return 1;
        }
        if (getenv("SIM_PROGRESS"))
            self->print(first, sum);
    }
    self->print(first, sum);
    return 0;
}

int trm_histories_main(const trm_histories *self, int argc, char **argv)
{
    uint64_t *sum = make_totals(self);
    int status = 0;
    if (argc == 3 && strcmp(argv[1], "--trace") == 0) {
        uint64_t seed = strtoull(argv[2], NULL, 10);
        self->run(seed, true, sum);
        self->print(seed, sum);
    } else if (argc > 3 || (argc > 1 && argv[1][0] == '-')) {
        fprintf(stderr, "usage: %s [FIRST_SEED [HISTORIES]] | --trace SEED\n", self->name);
        status = 2;
    } else {
        uint64_t first = number_from(argc > 1 ? argv[1] : NULL, "TRM_TEST_SEED", 1);
        status =
            run_all(self, first, number_from(argc > 2 ? argv[2] : NULL, self->variable, self->count), sum);
    }
    free(sum);
    return status;
}
