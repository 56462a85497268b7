/* The frame of a simulation: many histories, each from one seed, spread over processes, and their
 * totals.
 *
 *   NAME [FIRST_SEED [HISTORIES]]   runs them
 *   NAME --trace SEED               runs one and tells all that happens
 *
 * Environment: TRM_TEST_SEED the first seed (default 1); SIM_PROCESSES (default: as many as there are
 * processors, at most 8); SIM_PROGRESS=1 tells now and then how far it has come. */
#ifndef TRM_TESTS_HISTORIES_H
#define TRM_TESTS_HISTORIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct trm_histories {
    const char *name;
    const char *variable; /* of the environment, that says how many */
    uint64_t count;       /* … and how many if it does not */
    uint64_t block;       /* progress is told once in so many */
    size_t totals_bytes;  /* a struct of uint64_t and nothing else */
    /* Adds to `totals`. A failed history says so, with the command that replays it, and ends the
     * process with another status than 0. */
    void (*run)(uint64_t seed, bool trace, void *totals);
    void (*print)(uint64_t first, const void *totals);
} trm_histories;

/* What main returns. */
int trm_histories_main(const trm_histories *self, int argc, char **argv);

#endif
