/* Starts mpirun and waits for the job that its ranks run.
 *
 * mpirun is started so that a rank may die without the others (recovery), with what it prints
 * relayed (relay.h). It is not asked how the job ended, since it does not know: the leading rank
 * says so. Under recovery it may also never end by itself; once the result is known it gets a
 * bounded time, then it is ended.
 *
 *     a person's SIGINT or SIGTERM ─▶ SIGUSR1 to mpirun ─▶ all ranks ─▶ the master ends the job,
 *     resumable ─▶ result; a second one, or no result in time: SIGTERM, then SIGKILL
 */
#ifndef TRM_TOOL_LAUNCH_H
#define TRM_TOOL_LAUNCH_H

#include "tool/options.h"

/* Runs this program with `argv` (argv[0] is the command's name) as the ranks of an mpirun. Returns the
 * exit code of the job; what is wrong has been said. */
int trm_launch(const trm_options *options, int argc, char **argv);

#endif
