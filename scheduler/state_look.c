#include "scheduler/state_look.h"

#include "jobs/names.h"
#include "scheduler/state_dir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_BYTES TRM_FS_PATH_BYTES_MAX

static trm_status join(char out[PATH_BYTES], const char *dir, const char *name, trm_err *err)
{
    if ((size_t)snprintf(out, PATH_BYTES, "%s/%s", dir, name) < PATH_BYTES)
        return TRM_OK;
    return trm_err_set(err, TRM_EINPUT, "the path is too long: %.200s…", dir);
}

/* One that may not be looked at is there. */
static bool is_there(const char *dir, const char *name, trm_fs *fs)
{
    char path[PATH_BYTES];
    trm_file *file;
    if (join(path, dir, name, NULL) != TRM_OK)
        return false;
    trm_status status = fs->ops->open(fs, path, TRM_FS_READ, &file, NULL);
    if (status == TRM_OK)
        fs->ops->close(file);
    return status != TRM_ELOST;
}

/* A _SUCCESS as master_publish.c begins it: other programs write such a file too, an empty one for most. */
static bool is_manifest(const char *output_dir, trm_fs *fs)
{
    static const char begin[] = "{\"version\":", then[] = ",\"job\":\"";
    char path[PATH_BYTES], text[64] = "";
    trm_file *file;
    size_t got = 0;
    if (join(path, output_dir, TRM_SUCCESS_NAME, NULL) != TRM_OK ||
        fs->ops->open(fs, path, TRM_FS_READ, &file, NULL) != TRM_OK)
        return false;
    bool read = fs->ops->read_at(file, 0, text, sizeof text - 1, &got, NULL) == TRM_OK;
    fs->ops->close(file);
    if (!read || strncmp(text, begin, sizeof begin - 1) != 0)
        return false;
    size_t digits = strspn(text + sizeof begin - 1, "0123456789");
    return digits && strncmp(text + sizeof begin - 1 + digits, then, sizeof then - 1) == 0;
}

bool trm_state_shows_job(const char *output_dir, trm_fs *fs)
{
    static const char *const names[] = {TRM_IDENTITY_NAME, TRM_ELSEWHERE_NAME, TRM_CLEARING_NAME,
                                        TRM_PLAN_NAME};
    char dir[PATH_BYTES], path[PATH_BYTES];
    if (join(dir, output_dir, TRM_STATE_DIR_NAME, NULL) != TRM_OK)
        return false;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        trm_file *file;
        if (join(path, dir, names[i], NULL) != TRM_OK ||
            fs->ops->open(fs, path, TRM_FS_READ, &file, NULL) != TRM_OK)
            continue;
        fs->ops->close(file);
        return true;
    }
    return is_manifest(output_dir, fs);
}

bool trm_state_in_use(const char *output_dir, trm_fs *fs)
{
    char path[PATH_BYTES];
    trm_file *file;
    bool in_use = false;
    if (join(path, output_dir, TRM_STATE_DIR_NAME "/" TRM_LOCK_NAME, NULL) != TRM_OK ||
        fs->ops->open(fs, path, TRM_FS_READ, &file, NULL) != TRM_OK)
        return false;
    if (fs->ops->locked(file, &in_use, NULL) != TRM_OK)
        in_use = false;
    fs->ops->close(file);
    return in_use;
}

/* With --state the output directory says where the state is. */
static trm_status follow_elsewhere(trm_state_look *self, trm_fs *fs, trm_err *err)
{
    char path[PATH_BYTES];
    uint8_t *bytes = NULL;
    size_t len = 0;
    trm_status status = join(path, self->state_dir, TRM_ELSEWHERE_NAME, err);
    if (status == TRM_OK)
        status = trm_fs_read_whole(fs, path, PATH_BYTES - 1, &bytes, &len, err);
    if (status == TRM_ELIMIT)
        status = TRM_ECORRUPT;
    if (status == TRM_OK)
        snprintf(self->state_dir, sizeof self->state_dir, "%.*s", (int)len, (const char *)bytes);
    free(bytes);
    return status;
}

/* The identity names the output. */
static trm_status read_output_dir(trm_state_look *self, trm_fs *fs, trm_err *err)
{
    char path[PATH_BYTES];
    uint8_t *bytes = NULL;
    size_t len;
    trm_identity *identity = malloc(sizeof *identity);
    if (!identity)
        return trm_err_set(err, TRM_ENOMEM, "no memory to look at '%s'", self->state_dir);
    trm_status status = join(path, self->state_dir, TRM_IDENTITY_NAME, err);
    if (status == TRM_OK)
        status = trm_fs_read_whole(fs, path, TRM_SAVED_IDENTITY_BYTES_MAX, &bytes, &len, err);
    if (status == TRM_OK)
        status =
            trm_saved_identity_decode(bytes, len, identity, self->output_dir, sizeof self->output_dir, err);
    if (status == TRM_ECORRUPT || status == TRM_EVERSION)
        trm_err_wrap(err, "%s", path);
    free(bytes);
    free(identity);
    return status == TRM_ELIMIT ? TRM_ECORRUPT : status;
}

trm_status trm_state_look_at(trm_state_look *self, const char *dir, trm_fs *fs, trm_err *err)
{
    char private_dir[PATH_BYTES];
    *self = (trm_state_look){.in_use = false};
    trm_status status = join(private_dir, dir, TRM_STATE_DIR_NAME, err);
    if (status != TRM_OK)
        return status;
    if (is_there(dir, TRM_IDENTITY_NAME, fs)) {
        snprintf(self->state_dir, sizeof self->state_dir, "%s", dir);
        status = read_output_dir(self, fs, err);
    } else if (is_there(private_dir, TRM_IDENTITY_NAME, fs) ||
               is_there(private_dir, TRM_ELSEWHERE_NAME, fs) || is_there(private_dir, TRM_LOCK_NAME, fs)) {
        snprintf(self->output_dir, sizeof self->output_dir, "%s", dir);
        memcpy(self->state_dir, private_dir, sizeof self->state_dir);
        if (is_there(private_dir, TRM_ELSEWHERE_NAME, fs))
            status = follow_elsewhere(self, fs, err);
    } else {
        status = trm_err_set(err, TRM_EINPUT, "there is no job in '%s'", dir);
    }
    if (status != TRM_OK)
        return status;
    self->in_use = trm_state_in_use(self->output_dir, fs);
    self->done = is_there(self->output_dir, TRM_SUCCESS_NAME, fs);
    return TRM_OK;
}
