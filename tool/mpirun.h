/* One mpirun: which one, with which arguments, and its start.
 *
 * It is started so that a rank may die without the others (recovery), leaves the cores to the
 * ranks, and is the leader of a process group of its own, so that a terminal's SIGINT does not
 * reach it. It ends (SIGTERM) when its starter dies. */
#ifndef TRM_TOOL_MPIRUN_H
#define TRM_TOOL_MPIRUN_H

#include "tool/options.h"

#include <limits.h>
#include <sys/types.h>

typedef struct trm_mpirun {
    const trm_options *options;
    int argc; /* the command that every rank is: its name, then its arguments */
    char **argv;
    char path[PATH_MAX], program[PATH_MAX];
} trm_mpirun;

/* Where the ranks of one launch go; at first what the options say. */
typedef struct trm_mpirun_where {
    uint32_t ranks;               /* 0: mpirun decides */
    const char *hosts, *hostfile; /* NULL: not given */
} trm_mpirun_where;

/* Finds mpirun and this program itself; borrows all but `self`. TRM_ELAUNCH with a sentence. */
trm_status trm_mpirun_init(trm_mpirun *self, const trm_options *options, int argc, char **argv, trm_err *err);

/* What reads its two streams is the caller's to close. TRM_ELAUNCH, TRM_ENOMEM. */
trm_status trm_mpirun_start(const trm_mpirun *self, const trm_mpirun_where *where, pid_t *pid, int *out_fd,
                            int *err_fd, trm_err *err);

/* Whether there is a program `name`, a path or on the PATH; `out`: where. */
bool trm_on_path(const char *name, char out[PATH_MAX]);

#define TRM_MPIRUN_UNSTARTED 127 /* its status when the program could not be executed */

#endif
