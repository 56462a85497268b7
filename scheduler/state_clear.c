/* See state_clear.h. */
#include "scheduler/state_clear.h"

#include "jobs/cuts.h"
#include "jobs/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

trm_status trm_state_path(char out[TRM_FS_PATH_BYTES_MAX], const char *dir, const char *name, trm_err *err)
{
    if ((size_t)snprintf(out, TRM_FS_PATH_BYTES_MAX, "%s/%s", dir, name) < TRM_FS_PATH_BYTES_MAX)
        return TRM_OK;
    return trm_err_set(err, TRM_EOUTPUT, "the path is too long: %.200s…", dir);
}

/* Everything that a job keeps in a state directory, but the lock: the identity first and for good, so
 * that what is left of it is nobody's. */
static const char *const state_names[] = {TRM_IDENTITY_NAME,
                                          TRM_LOG_NAME,
                                          "plan",
                                          "attempts",
                                          TRM_EVENTS_NAME,
                                          TRM_STDERR_NAME,
                                          TRM_SKIPPED_NAME,
                                          TRM_STATUS_NAME,
                                          TRM_BINDINGS_NAME,
                                          TRM_ELSEWHERE_NAME,
                                          "plan.new",
                                          TRM_IDENTITY_NAME ".new",
                                          TRM_STATUS_NAME ".new",
                                          TRM_BINDINGS_NAME ".new",
                                          TRM_ELSEWHERE_NAME ".new"};

typedef struct clearing {
    trm_fs *fs;
    const char *dir;
    trm_err *err;
    uint64_t removed;
} clearing;

/* Cut points lie in files that their checksums name. */
static trm_status remove_cuts(const char *name, void *context)
{
    const clearing *at = context;
    char path[TRM_FS_PATH_BYTES_MAX];
    if (strncmp(name, TRM_CUTS_NAME, sizeof TRM_CUTS_NAME - 1) != 0)
        return TRM_OK;
    trm_status status = trm_state_path(path, at->dir, name, at->err);
    return status == TRM_OK ? trm_fs_remove_tree(at->fs, path, at->err) : status;
}

trm_status trm_state_clear(trm_fs *fs, const char *dir, trm_err *err)
{
    char path[TRM_FS_PATH_BYTES_MAX];
    clearing cuts = {fs, dir, err, 0};
    trm_status status = TRM_OK;
    for (size_t i = 0; i < sizeof state_names / sizeof state_names[0] && status == TRM_OK; i++) {
        status = trm_state_path(path, dir, state_names[i], err);
        if (status == TRM_OK)
            status = trm_fs_remove_tree(fs, path, err);
        if (status == TRM_OK && i == 0)
            status = fs->ops->sync_dir(fs, dir, err);
    }
    if (status == TRM_OK)
        status = fs->ops->list(fs, dir, remove_cuts, &cuts, err);
    if (status == TRM_OK)
        status = fs->ops->sync_dir(fs, dir, err);
    return status == TRM_ELOST ? TRM_OK : status;
}

/* NAME.new, of a name of ours: a state directory may hold files of people. */
static bool is_aside(const char *name)
{
    static const char end[] = ".new";
    size_t len = strlen(name), end_len = sizeof end - 1;
    if (len <= end_len || strcmp(name + len - end_len, end) != 0)
        return false;
    for (size_t i = 0; i < sizeof state_names / sizeof state_names[0]; i++)
        if (strcmp(state_names[i], name) == 0)
            return true;
    return strncmp(name, TRM_CUTS_NAME, sizeof TRM_CUTS_NAME - 1) == 0;
}

static trm_status remove_aside(const char *name, void *context)
{
    const clearing *at = context;
    char path[TRM_FS_PATH_BYTES_MAX];
    if (is_aside(name) && trm_state_path(path, at->dir, name, at->err) == TRM_OK)
        at->fs->ops->remove(at->fs, path, at->err);
    return TRM_OK;
}

void trm_state_tidy(trm_fs *fs, const trm_spec *spec)
{
    char private_dir[TRM_FS_PATH_BYTES_MAX], path[TRM_FS_PATH_BYTES_MAX];
    trm_err err = {""};
    if (trm_state_path(private_dir, spec->output_dir, TRM_STATE_DIR_NAME, &err) != TRM_OK)
        return;
    const char *dirs[] = {private_dir, spec->state_dir};
    for (unsigned i = 0; i < 2; i++) {
        clearing at = {fs, dirs[i], &err, 0};
        fs->ops->list(fs, dirs[i], remove_aside, &at, &err);
    }
    if (trm_state_path(path, spec->output_dir, TRM_SUCCESS_NAME ".new", &err) == TRM_OK)
        fs->ops->remove(fs, path, &err);
    if (trm_state_path(path, private_dir, TRM_CLEARING_NAME, &err) == TRM_OK)
        fs->ops->remove(fs, path, &err);
}

static trm_status remove_name(const char *name, void *context)
{
    clearing *at = context;
    char path[TRM_FS_PATH_BYTES_MAX];
    if (strcmp(name, TRM_STATE_DIR_NAME) == 0)
        return TRM_OK;
    at->removed++;
    trm_status status = trm_state_path(path, at->dir, name, at->err);
    return status == TRM_OK ? trm_fs_remove_tree(at->fs, path, at->err) : status;
}

trm_status trm_state_may_clear(const char *dir, trm_err *err)
{
    const char *home = getenv("HOME");
    char here[TRM_FS_PATH_BYTES_MAX];
    size_t len = strlen(dir);
    while (len > 0 && dir[len - 1] == '/')
        len--;
    const char *places[] = {getcwd(here, sizeof here), home};
    for (unsigned i = 0; i < 2; i++) {
        const char *place = places[i];
        if (place && (len == 0 || (strncmp(place, dir, len) == 0 && (!place[len] || place[len] == '/'))))
            return trm_err_set(err, TRM_EOUTPUT, "'%s' will not be cleared: %s lies in it", dir,
                               i ? "your home directory" : "the working directory");
    }
    return TRM_OK;
}

/* Says for good that what is in the output may be removed: all by which a job is known goes before it is. */
static trm_status mark_clearing(trm_fs *fs, const char *private_dir, const char *path, trm_err *err)
{
    trm_file *file;
    trm_status status = fs->ops->open(fs, path, TRM_FS_WRITE | TRM_FS_CREATE, &file, err);
    if (status != TRM_OK)
        return status;
    fs->ops->close(file);
    return fs->ops->sync_dir(fs, private_dir, err);
}

trm_status trm_state_clear_output(trm_fs *fs, const trm_spec *spec, bool with_state, trm_err *err)
{
    char private_dir[TRM_FS_PATH_BYTES_MAX], path[TRM_FS_PATH_BYTES_MAX], mark[TRM_FS_PATH_BYTES_MAX];
    const char *dir = spec->output_dir;
    trm_status status = trm_state_path(private_dir, dir, TRM_STATE_DIR_NAME, err);
    if (status == TRM_OK)
        status = trm_state_path(mark, private_dir, TRM_CLEARING_NAME, err);
    if (status == TRM_OK)
        status = mark_clearing(fs, private_dir, mark, err);
    if (status == TRM_OK && with_state)
        status = trm_state_clear(fs, spec->state_dir, err);
    if (status == TRM_OK)
        status = trm_state_path(path, dir, TRM_SUCCESS_NAME, err);
    if (status == TRM_OK)
        status = trm_fs_remove_tree(fs, path, err);
    if (status == TRM_OK)
        status = fs->ops->sync_dir(fs, dir, err);
    if (status == TRM_OK)
        status = trm_state_clear(fs, private_dir, err);
    clearing all = {fs, dir, err, 0};
    for (bool more = status == TRM_OK; more && status == TRM_OK; more = all.removed > 0) {
        all.removed = 0; /* a listing may leave out a name while others are removed */
        status = fs->ops->list(fs, dir, remove_name, &all, err);
    }
    if (status == TRM_OK)
        status = fs->ops->sync_dir(fs, dir, err);
    if (status == TRM_OK)
        status = fs->ops->remove(fs, mark, err);
    return status;
}
