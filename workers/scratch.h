/* A rank's private directory for what need not outlive the launch: runs, spills, output
 * of kernels.
 *
 *     SCRATCH/trireme-XXXXXX/      0700, a name that nobody can guess (mkdtemp)
 *         owner                    the boot of the kernel it was made under; locked (flock)
 *                                  by rank and supervisor for as long as one of them lives
 *         keep                     there when the directory is to stay, and for which job: its
 *                                  output directory
 *         runs/                    the run store
 *         output/                  what each executor's kernels print
 *
 * Whoever of rank and supervisor leaves last removes it. What both left behind (a batch
 * system ended every process of the host at once) is removed by the next rank that makes a
 * directory in the same place, or removes its own: one of this user, of this boot, whose lock is free and
 * that is not to be kept, or was kept for a job that is done or removed by now.
 */
#ifndef TRM_WORKERS_SCRATCH_H
#define TRM_WORKERS_SCRATCH_H

#include "runtime/status.h"

#include <stdbool.h>

#define TRM_SCRATCH_PATH_BYTES 960u /* with the name of a run in it, a path stays under 1024 */
#define TRM_SCRATCH_SWEEP_MAX 256u  /* abandoned directories removed by one call */

typedef struct trm_scratch {
    char path[TRM_SCRATCH_PATH_BYTES];
    char runs[TRM_SCRATCH_PATH_BYTES];
    char output[TRM_SCRATCH_PATH_BYTES];
    int lock_fd; /* of `owner`; inherited by the supervisor */
} trm_scratch;

/* Removes what was abandoned in `base`, which must be there, and makes a directory in it.
 * TRM_ELIMIT for a path that is too long, else TRM_EIO or TRM_ENOSPACE with the path. */
trm_status trm_scratch_create(trm_scratch *out, const char *base, trm_err *err);
/* Removes the directory and what is in it; TRM_OK when it is gone already. Does not
 * unlock: processes that share the lock call it one after the other. */
trm_status trm_scratch_remove(const trm_scratch *self, trm_err *err);
/* Removes what was abandoned beside the directory, which may be gone itself. */
void trm_scratch_sweep(const trm_scratch *self);
/* Marks the directory so that nobody's sweep takes it as long as the job that writes to `output_dir`
 * is not done and not removed ("": for ever); takes the mark away. */
trm_status trm_scratch_keep(const trm_scratch *self, const char *output_dir, trm_err *err);
trm_status trm_scratch_keep_not(const trm_scratch *self, trm_err *err);
/* Whether it has the mark, and for a job that is neither done nor removed. */
bool trm_scratch_is_kept(const trm_scratch *self);
/* A directory of another process, kept until now, is of no use any more: given its run store,
 * takes the mark away and removes the directory, if nobody uses it; else whoever does so
 * last, or a sweep. Nothing happens to what is no such directory of this user. */
void trm_scratch_abandon(const char *runs);
/* Whether so little of the file system of this path is free (a sixteenth) that what can be done without
 * should not be written there. */
bool trm_scratch_is_tight(const char *path);
/* Lets go of the lock in this process. */
void trm_scratch_close(trm_scratch *self);

#endif
