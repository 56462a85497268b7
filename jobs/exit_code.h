/* What a process, and the job's own record, ends with. README lists the numbers. */
#ifndef TRM_JOBS_EXIT_CODE_H
#define TRM_JOBS_EXIT_CODE_H

#include "runtime/status.h"

typedef enum trm_exit_code {
    TRM_EXIT_DONE = 0,
    TRM_EXIT_FAILED = 1,      /* the job: a task failed its last attempt */
    TRM_EXIT_USAGE = 2,       /* the command line */
    TRM_EXIT_REFUSED = 3,     /* an input, the output, its state or the kernel is bad */
    TRM_EXIT_INTERRUPTED = 4, /* the same command goes on */
    TRM_EXIT_LAUNCH = 5       /* mpirun, MPI or the machine */
} trm_exit_code;

/* By what the failure reaches (status.h): whatever is not the user's doing and not the job's
 * is the machine's. */
static inline trm_exit_code trm_exit_code_of(trm_status status)
{
    switch (status) {
    case TRM_OK:
    case TRM_AGAIN:
    case TRM_EOF:
        return TRM_EXIT_DONE;
    case TRM_EUSAGE:
        return TRM_EXIT_USAGE;
    case TRM_EINPUT:
    case TRM_EOUTPUT:
    case TRM_EJOB:
    case TRM_EVERSION:
        return TRM_EXIT_REFUSED;
    case TRM_EINTERRUPTED:
        return TRM_EXIT_INTERRUPTED;
    case TRM_EIO:
    case TRM_ENOSPACE:
    case TRM_ENOMEM:
    case TRM_EPEER:
    case TRM_ELAUNCH:
    case TRM_EFENCED:
        return TRM_EXIT_LAUNCH;
    default:
        return TRM_EXIT_FAILED;
    }
}

#endif
