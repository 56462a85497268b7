/* How long nobody has led, and when a rank leaves for that: the job is to be taken up by another launch.
 *
 * Time counts as it is turned through. A rank that was stopped finds a silence that says nothing; but a
 * connection that is broken may block MPI for seconds in every turn, so that such a turn counts for a
 * second. Where too few voters seem to be left, what a stopped rank has missed may have mended that: it
 * begins anew. */
#ifndef TRM_TOOL_LEADERLESS_H
#define TRM_TOOL_LEADERLESS_H

#include <stdbool.h>
#include <stdint.h>

#define TRM_LEADERLESS_MS 30000u /* so long nobody leads: this rank leaves, the launch is lost … */
#define TRM_LOST_MS 2000u        /* … if the voters that are left are too few, as far as it knows */
#define TRM_LOOP_PAUSED_MS 1000u /* the most that a turn counts for */

typedef struct trm_leaderless { /* zero-initialise */
    uint64_t since_ns;          /* 0: somebody leads */
    uint64_t turn_ns;           /* the last one */
} trm_leaderless;

/* Each turn; `leads`: somebody does, `lost`: too few voters are left. Whether it is time to leave; if not
 * yet, `wake_ns` is no later than when it is. */
bool trm_leaderless_step(trm_leaderless *self, bool leads, bool lost, uint64_t now_ns, uint64_t *wake_ns);
/* Somebody that leads was heard. */
void trm_leaderless_heard(trm_leaderless *self);

#endif
