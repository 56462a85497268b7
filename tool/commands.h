/* The whole `trireme` command. It lies in the library, so that program and kernels share one
 * copy of everything; nobody but tool/main.c calls it. */
#ifndef TRM_TOOL_COMMANDS_H
#define TRM_TOOL_COMMANDS_H

#include "jobs/trireme.h"

/* As main. */
TRM_API int trm_command_main(int argc, char **argv);

#endif
