/* trm_main: the way from a program of the user's own to `trireme run`. */
#include "config.h" /* system extensions, before any header of the system */

#include "tool/run_command.h"

#include <string.h>

int trm_main(int argc, char **argv, const trm_job *job)
{
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    return trm_run_command(argc, argv, argc < 1 ? "this program" : slash ? slash + 1 : argv[0], job);
}
