#include "scheduler/state_dir.h"
#include <stdio.h>
trm_status trm_state_dir_open(trm_state_dir *self, const trm_spec *spec, trm_submission *submission, trm_fs *fs, trm_err *err)
{
    char dir[4200];
    *self = (trm_state_dir){.spec = spec, .fs = fs};
    trm_status s = trm_fs_make_dirs(fs, spec->output_dir, TRM_FS_SHARED, err);
    if (s == TRM_OK) s = trm_fs_make_dirs(fs, spec->state_dir, 0, err);
    snprintf(dir, sizeof dir, "%s/attempts", spec->state_dir);
    if (s == TRM_OK) s = trm_fs_make_dirs(fs, dir, 0, err);
    uint32_t crc;
    if (s == TRM_OK) s = trm_plan_save(&submission->plan, fs, spec->state_dir, &crc, err);
    return s;
}
void trm_state_dir_undo(trm_state_dir *self) { trm_err e; trm_fs_remove_tree(self->fs, self->spec->output_dir, &e); }
void trm_state_dir_close(trm_state_dir *self) {}
