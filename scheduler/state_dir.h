#ifndef TRM_SCHEDULER_STATE_DIR_H
#define TRM_SCHEDULER_STATE_DIR_H
#include "scheduler/submission.h"
typedef enum trm_state_found { TRM_STATE_FRESH, TRM_STATE_RESUME, TRM_STATE_DONE } trm_state_found;
typedef struct trm_state_dir { trm_state_found found; const trm_spec *spec; trm_fs *fs; } trm_state_dir;
trm_status trm_state_dir_open(trm_state_dir *self, const trm_spec *spec, trm_submission *submission, trm_fs *fs, trm_err *err);
void trm_state_dir_undo(trm_state_dir *self);
void trm_state_dir_close(trm_state_dir *self);
#endif
