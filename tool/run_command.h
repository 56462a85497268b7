/* `trireme run`, and what a program that ends in trm_main does: the same. */
#ifndef TRM_TOOL_RUN_COMMAND_H
#define TRM_TOOL_RUN_COMMAND_H

#include "jobs/trireme.h"

/* argv[0] is the command's name. With `own_job` the kernel is this program. Becomes a rank
 * when mpirun, srun or the like has started this process, else starts mpirun. Returns an exit
 * code; what is wrong has been said. */
int trm_run_command(int argc, char **argv, const char *command, const trm_job *own_job);

#endif
