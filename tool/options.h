/* The command line of `trireme run`, and of a program of the user's own (trm_main).
 *
 * One table says every option: its names, what it takes, where that goes, its bounds and
 * the line that --help prints. */
#ifndef TRM_TOOL_OPTIONS_H
#define TRM_TOOL_OPTIONS_H

#include "jobs/spec.h"

#define TRM_MPIRUN_OPTIONS_MAX 64u
#define TRM_INPUTS_ARGS_MAX 1000000u
#define TRM_RELAUNCHES_DEFAULT 2u
#define TRM_RELAUNCHES_MAX 1000u
#define TRM_START_TIMEOUT_MS_DEFAULT 300000u /* thousands of ranks by ssh take a while */

typedef struct trm_options {
    trm_spec spec; /* what every rank needs */

    /* What the launcher needs. */
    uint32_t ranks;            /* 0: not given */
    char *hosts, *hostfile;    /* NULL: not given */
    uint32_t relaunches;       /* how often mpirun is started again when it was lost */
    uint64_t start_timeout_ms; /* for mpirun to start ranks, and again for them to start MPI */
    char *mpirun;              /* the program; NULL: found on the PATH */
    char *mpirun_options[TRM_MPIRUN_OPTIONS_MAX];
    unsigned mpirun_options_count;

    bool help;
} trm_options;

/* Reads argv[1] …; argv[0] is the command's own name. With `own_job` there is no JOB argument.
 * Options and other arguments may be mixed; "--" ends the options. Paths are made absolute
 * here, so that every rank means the same. TRM_EUSAGE with a sentence that names the argument;
 * with `help` set nothing else is checked. The caller closes it, also after a failure. */
trm_status trm_options_read(trm_options *self, int argc, char **argv, const trm_job *own_job, trm_err *err);
void trm_options_close(trm_options *self);

/* `command`: "trireme run" or a program's name. */
void trm_options_print_help(const char *command, const trm_job *own_job);

#endif
