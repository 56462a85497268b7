/* What a launcher tells its ranks, and they it: environment one way, marked lines of standard
 * error the other.
 *
 *   TRIREME_LAUNCH    a token that nobody can guess: set when `trireme run` started mpirun
 *   TRIREME_TERMINAL  the width of its terminal, when there is one
 *   TRIREME_KEEP      set when a launch is started again whose output was done: --overwrite is
 *                     over, since it was for what was there before
 *
 *   0x1e TOKEN " began " RANK \n        rank 0 runs, and starts MPI now …
 *   0x1e TOKEN " ready " RANK \n        … which has started, and so have all ranks
 *   0x1e TOKEN " progress " TEXT \n     a line to be drawn over the one before
 *   0x1e TOKEN " result " NUMBER \n     the job is over: the launcher's exit status
 *   0x1e TOKEN " left " RANK \n         this rank has left by itself; how the job ends it does not know
 *
 * mpirun says nothing true about how ranks ended when one of them may die, so the leading
 * rank says it itself. */
#ifndef TRM_TOOL_LAUNCHED_H
#define TRM_TOOL_LAUNCHED_H

#include <stdbool.h>

#define TRM_LAUNCH_VARIABLE "TRIREME_LAUNCH"
#define TRM_TERMINAL_VARIABLE "TRIREME_TERMINAL"
#define TRM_KEEP_VARIABLE "TRIREME_KEEP"
#define TRM_LAUNCH_MARK '\x1e'
#define TRM_LAUNCH_TOKEN_BYTES 17u /* 16 hexadecimal digits, terminated */

/* The launcher's token, or NULL when this process has none. */
const char *trm_launch_token(void);
/* Whether this process is a rank of an mpirun, srun or the like. */
bool trm_launched_as_rank(void);
/* How many ranks the launcher of this process has started; 0: it does not say. */
unsigned trm_launched_ranks(void);
/* Width of the terminal that progress is drawn on; 0: there is none. */
unsigned trm_launch_terminal_columns(void);
/* Whether what is in the output directory is this command's own work. */
bool trm_launch_keeps_output(void);
/* A marked line; nothing without a token. */
void trm_launch_tell(const char *kind, const char *text);

#endif
