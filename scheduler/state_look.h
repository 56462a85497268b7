/* Where a job's state lies, and whether a launch is at it: for who only looks, on any machine that
 * sees the directories. Nothing is changed, and no lock is taken. */
#ifndef TRM_SCHEDULER_STATE_LOOK_H
#define TRM_SCHEDULER_STATE_LOOK_H

#include "runtime/fs.h"

typedef struct trm_state_look {
    char output_dir[TRM_FS_PATH_BYTES_MAX];
    char state_dir[TRM_FS_PATH_BYTES_MAX];
    bool in_use; /* a launch holds the lock; false where the file system has no locks */
    bool done;   /* _SUCCESS is there */
} trm_state_look;

/* `dir` is an output directory or, of whatever place, a state directory. TRM_EINPUT: there is no job
 * in it; TRM_ECORRUPT, TRM_EVERSION: its identity cannot be read. */
trm_status trm_state_look_at(trm_state_look *self, const char *dir, trm_fs *fs, trm_err *err);

/* Whether a job is in the output directory or was, as is asked before it is cleared: its state is there, or
 * its manifest, or a clearing was begun. The lock shows none: a launch that is refused takes it too. False
 * too when it cannot be known. */
bool trm_state_shows_job(const char *output_dir, trm_fs *fs);

/* Whether a launch is writing to the output directory; false too when it cannot be known. */
bool trm_state_in_use(const char *output_dir, trm_fs *fs);

#endif
