/* One rank of a job: its crew, MPI, and the control loop, the only place where everything
 * meets.
 *
 *     crew forked ─▶ MPI started ─▶ ┌▶ messages in ─▶ leader, worker ─▶ a step of each ─┐ ─▶ end
 *                                   └── sleep until one of them has something to do ◀──┘
 */
#ifndef TRM_TOOL_RANK_H
#define TRM_TOOL_RANK_H

#include "tool/options.h"

#define TRM_LOOP_SLEEP_US_MIN 50u   /* of an idle loop: MPI must be looked at, it wakes nobody … */
#define TRM_LOOP_SLEEP_US_MAX 8000u /* … longer and longer, since a look costs up to 100 microseconds */
#define TRM_CLOSE_LINGER_MS 500u    /* for the last messages to leave */

/* Runs this rank to the end of the job. Returns the exit code. Call it before MPI and before
 * any thread is made. */
int trm_rank_run(const trm_options *options);

#endif
