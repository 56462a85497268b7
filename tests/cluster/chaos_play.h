/* Between the pieces that play a schedule (chaos.h). */
#ifndef TRM_TESTS_CHAOS_PLAY_H
#define TRM_TESTS_CHAOS_PLAY_H

#include "tests/cluster/chaos.h"

typedef struct chaos_job_shape {
    const char *kernel;     /* tests/kernels */
    const char *split_size; /* some two hundred maps */
    const char *inputs[2];
} chaos_job_shape;

extern const chaos_job_shape chaos_shapes[CHAOS_JOBS];

#define CHAOS_PARTITIONS 24u
#define CHAOS_PACE_MS 12u /* of a map, for each executor that there is: two or three seconds of maps */

/* Makes its directories below the world's, under `name`; then all steps and the end of the job. */
bool chaos_play_begin(chaos_play *self, chaos_world *world, const chaos_schedule *schedule, const char *name);
bool chaos_play_steps(chaos_play *self);
/* Ends what is left of it and, unless the world keeps it, removes its directory. */
void chaos_play_end(chaos_play *self);

#endif
