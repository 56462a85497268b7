/* Removing what a job has left: its state, its output, and what a launch that died has left half written. The
 * caller holds the lock of the output directory. All of it can be cut off anywhere and begun again. */
#ifndef TRM_SCHEDULER_STATE_CLEAR_H
#define TRM_SCHEDULER_STATE_CLEAR_H

#include "jobs/spec.h"
#include "runtime/fs.h"

/* dir/name; TRM_EOUTPUT: too long. */
trm_status trm_state_path(char out[TRM_FS_PATH_BYTES_MAX], const char *dir, const char *name, trm_err *err);

/* Removes all that a job keeps in a state directory, but the lock: the identity first and for good. */
trm_status trm_state_clear(trm_fs *fs, const char *dir, trm_err *err);

/* Whether --overwrite may clear this directory: not if the working directory or the user's home lies in it
 * (TRM_EOUTPUT). */
trm_status trm_state_may_clear(const char *dir, trm_err *err);

/* Removes all that is in the output directory, but the lock; `with_state`: also the state that lies
 * elsewhere, while the output still says that it is its own. _SUCCESS goes before the parts and for good: it
 * never stands beside one that is missing. Until all is gone a mark says that it may be removed. */
trm_status trm_state_clear_output(trm_fs *fs, const trm_spec *spec, bool with_state, trm_err *err);

/* Removes what a launch that died has left half written, and nobody will write again. */
void trm_state_tidy(trm_fs *fs, const trm_spec *spec);

#endif
