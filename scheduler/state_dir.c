/* See state_dir.h. */
#include "scheduler/state_dir.h"

#include "jobs/names.h"
#include "runtime/crc32c.h"
#include "runtime/diag.h"
#include "scheduler/state_clear.h"
#include "scheduler/state_look.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IDENTITY_MAGIC 0x494d5254u /* "TRMI" */
#define PATH_BYTES TRM_FS_PATH_BYTES_MAX

/* ---- Names ---------------------------------------------------------------------------------- */

static trm_status private_path(const trm_state_dir *self, char out[PATH_BYTES], trm_err *err)
{
    return trm_state_path(out, self->spec->output_dir, TRM_STATE_DIR_NAME, err);
}

static bool is_elsewhere(const trm_state_dir *self)
{
    char private_dir[PATH_BYTES];
    return private_path(self, private_dir, NULL) == TRM_OK && strcmp(private_dir, self->spec->state_dir) != 0;
}

/* What the system refuses of the output is the output's fault, if no disk is full. */
static trm_status blame_output(trm_status status)
{
    return status == TRM_EIO || status == TRM_ELOST || status == TRM_ELIMIT ? TRM_EOUTPUT : status;
}

/* ---- The identity --------------------------------------------------------------------------- */

void trm_saved_identity_encode(const trm_identity *identity, const char *output_dir, trm_writer *out)
{
    size_t at = out->len;
    trm_put_u32(out, IDENTITY_MAGIC);
    trm_put_u32(out, TRM_STATE_VERSION);
    trm_put_string(out, output_dir);
    trm_identity_encode(identity, out);
    if (trm_writer_ok(out))
        trm_put_u32(out, trm_crc32c(0, out->data + at, out->len - at));
}

trm_status trm_saved_identity_decode(const void *bytes, size_t len, trm_identity *identity, char *output_dir,
                                     size_t output_dir_bytes, trm_err *err)
{
    trm_reader in;
    trm_identity found;
    trm_reader_init(&in, bytes, len);
    bool magic = trm_get_u32(&in) == IDENTITY_MAGIC;
    uint32_t version = trm_get_u32(&in);
    if (!trm_reader_ok(&in) || !magic)
        return trm_err_set(err, TRM_ECORRUPT, "not the identity of a job");
    if (version != TRM_STATE_VERSION)
        return trm_err_set(err, TRM_EVERSION, "it is of version %u, this program reads version %u", version,
                           TRM_STATE_VERSION);
    trm_get_string(&in, output_dir, output_dir_bytes);
    trm_identity_decode(&found, &in);
    uint32_t crc = trm_get_u32(&in);
    if (!trm_reader_done(&in) || crc != trm_crc32c(0, bytes, len - sizeof crc))
        return trm_err_set(err, TRM_ECORRUPT, "it is damaged");
    *identity = found;
    return TRM_OK;
}

/* What is saved in the state directory. */
typedef struct saved_job {
    trm_status status; /* TRM_OK; TRM_ELOST: nothing is saved; else it cannot be read */
    trm_err why;
    trm_identity identity;
    char output_dir[PATH_BYTES];
} saved_job;

static void read_identity(trm_state_dir *self, saved_job *out)
{
    char path[PATH_BYTES];
    uint8_t *bytes = NULL;
    size_t len;
    out->status = trm_state_path(path, self->spec->state_dir, TRM_IDENTITY_NAME, &out->why);
    if (out->status == TRM_OK)
        out->status =
            trm_fs_read_whole(self->fs, path, TRM_SAVED_IDENTITY_BYTES_MAX, &bytes, &len, &out->why);
    if (out->status == TRM_ELIMIT)
        out->status = TRM_ECORRUPT;
    if (out->status != TRM_OK)
        return;
    out->status = trm_saved_identity_decode(bytes, len, &out->identity, out->output_dir,
                                            sizeof out->output_dir, &out->why);
    if (out->status != TRM_OK)
        trm_err_wrap(&out->why, "%s", path);
    free(bytes);
}

static trm_status save_identity(trm_state_dir *self, const trm_submission *submission, trm_err *err)
{
    char path[PATH_BYTES];
    trm_writer out;
    trm_writer_init(&out);
    trm_saved_identity_encode(&submission->identity, self->spec->output_dir, &out);
    trm_status status = trm_writer_ok(&out)
                            ? trm_state_path(path, self->spec->state_dir, TRM_IDENTITY_NAME, err)
                            : trm_err_set(err, TRM_ENOMEM, "no memory for the job's identity");
    if (status == TRM_OK)
        status = trm_fs_write_whole(self->fs, path, out.data, out.len, 0, err);
    trm_writer_close(&out);
    return status;
}

/* ---- Making directories ----------------------------------------------------------------------- */

/* Makes `path` durable, and notes the highest directory that was not there. */
static trm_status make_dirs_noted(trm_state_dir *self, const char *path, trm_err *err)
{
    char part[PATH_BYTES];
    size_t len = strlen(path);
    trm_status status = TRM_OK;
    if (len >= sizeof part)
        return trm_err_set(err, TRM_EOUTPUT, "the path is too long: %.200s…", path);
    for (size_t at = 1; at <= len && status == TRM_OK; at++) {
        if ((path[at] != '/' && path[at] != '\0') || path[at - 1] == '/')
            continue;
        memcpy(part, path, at);
        part[at] = '\0';
        status = trm_fs_make_dir(self->fs, part, TRM_FS_SHARED, err);
        if (status == TRM_AGAIN) {
            status = TRM_OK;
        } else if (status == TRM_OK && !self->first_made[0]) {
            memcpy(self->first_made, part, at + 1);
        }
    }
    return status;
}

/* Makes one directory; *made: it was not there. */
static trm_status make_one(trm_state_dir *self, const char *path, int flags, bool *made, trm_err *err)
{
    trm_status status = trm_fs_make_dir(self->fs, path, flags, err);
    *made = status == TRM_OK;
    return status == TRM_AGAIN ? TRM_OK : status;
}

typedef struct listing {
    uint64_t names; /* beside .trireme */
    bool private_dir, success;
    bool job;        /* is or was in it */
    char other[128]; /* one that no job has made; "": none */
} listing;

static bool is_part_name(const char *name)
{
    size_t digits = strncmp(name, "part-", 5) == 0 ? strspn(name + 5, "0123456789") : 0;
    return digits >= 5 && (!name[5 + digits] || strcmp(name + 5 + digits, ".gz") == 0);
}

static trm_status note_name(const char *name, void *context)
{
    listing *self = context;
    bool success = strcmp(name, TRM_SUCCESS_NAME) == 0;
    if (strcmp(name, TRM_STATE_DIR_NAME) == 0) {
        self->private_dir = true;
        return TRM_OK;
    }
    self->names++;
    self->success |= success;
    if (!success && !is_part_name(name) && strcmp(name, TRM_SUCCESS_NAME ".new") != 0 && !self->other[0])
        snprintf(self->other, sizeof self->other, "%s", name);
    return TRM_OK;
}

/* The output directory is there afterwards, and is none behind a link. */
static trm_status take_output(trm_state_dir *self, listing *out, trm_err *err)
{
    const char *dir = self->spec->output_dir;
    trm_fs *fs = self->fs;
    trm_status status = fs->ops->list(fs, dir, note_name, out, err);
    if (status != TRM_ELOST)
        return blame_output(status);
    status = trm_fs_make_dir(fs, dir, TRM_FS_SHARED, err);
    if (status == TRM_AGAIN)
        return trm_err_set(err, TRM_EOUTPUT,
                           "the output directory '%s' is a symbolic link: name what it points to", dir);
    if (status == TRM_ELOST)
        status = make_dirs_noted(self, dir, err);
    else if (status == TRM_OK)
        snprintf(self->first_made, sizeof self->first_made, "%s", dir);
    if (status != TRM_OK)
        trm_err_wrap(err, "the output directory '%s' cannot be made", dir);
    return blame_output(status);
}

/* Who else is at it. */
static trm_status take_lock(trm_state_dir *self, trm_err *err)
{
    char dir[PATH_BYTES], path[PATH_BYTES];
    trm_status status = private_path(self, dir, err);
    if (status == TRM_OK)
        status = make_one(self, dir, 0, &self->made_private, err);
    if (status == TRM_OK)
        status = trm_state_path(path, dir, TRM_LOCK_NAME, err);
    if (status == TRM_OK)
        status = self->fs->ops->open(self->fs, path, TRM_FS_WRITE | TRM_FS_CREATE, &self->lock, err);
    if (status != TRM_OK) {
        trm_err_wrap(err, "the output directory '%s' cannot be written", self->spec->output_dir);
        return blame_output(status);
    }
    status = self->fs->ops->lock(self->lock, err);
    if (status == TRM_AGAIN) {
        self->made_private = false; /* it is the other's now */
        self->first_made[0] = '\0';
        return trm_err_set(err, TRM_EFENCED, "another launch is writing to the output directory '%s'",
                           self->spec->output_dir);
    }
    return blame_output(status);
}

/* ---- Deciding ------------------------------------------------------------------------------------ */

/* Where the state of what is in the output directory lies; "" when it is in it. */
static trm_status read_elsewhere(trm_state_dir *self, const char *private_dir, char out[PATH_BYTES],
                                 trm_err *err)
{
    char path[PATH_BYTES];
    uint8_t *bytes = NULL;
    size_t len = 0;
    trm_status status = trm_state_path(path, private_dir, TRM_ELSEWHERE_NAME, err);
    if (status == TRM_OK)
        status = trm_fs_read_whole(self->fs, path, PATH_BYTES - 1, &bytes, &len, err);
    out[0] = '\0';
    if (status == TRM_OK) {
        len = strnlen((const char *)bytes, len);
        memcpy(out, bytes, len);
        out[len] = '\0';
    }
    free(bytes);
    return status == TRM_ELOST ? TRM_OK : blame_output(status);
}

/* Compares with what is saved; TRM_OK: it is the same job. */
static trm_status compare(trm_state_dir *self, const saved_job *saved, const trm_submission *submission,
                          trm_err *err)
{
    if (is_elsewhere(self) && strcmp(saved->output_dir, self->spec->output_dir) != 0)
        return trm_err_set(err, TRM_EOUTPUT, "the state directory '%.400s' belongs to the output '%.400s'",
                           self->spec->state_dir, saved->output_dir);
    if (!trm_identity_same_job(&saved->identity, &submission->identity, err))
        return TRM_EOUTPUT;
    trm_plan plan;
    trm_status status = trm_plan_load(&plan, self->fs, self->spec->state_dir, saved->identity.plan_crc, err);
    if (status != TRM_OK)
        return status == TRM_ELOST ? TRM_ECORRUPT : status;
    bool same = trm_plan_same_inputs(&plan, &submission->plan, err);
    trm_plan_close(&plan);
    return same ? TRM_OK : TRM_EOUTPUT;
}

static trm_status refuse_as_it_is(const trm_state_dir *self, const listing *found, trm_err *err)
{
    return trm_err_set(
        err, TRM_EOUTPUT, "the output directory '%s' is not empty%s%s%s%s", self->spec->output_dir,
        found->other[0] ? " ('" : "", found->other, found->other[0] ? "' is in it)" : "",
        found->job ? ": choose another, or --overwrite"
                   : ", and there is no job in it: remove it yourself, or name another output");
}

static trm_status refuse(trm_state_dir *self, const saved_job *saved, trm_status status, trm_err *err)
{
    const char *dir = self->spec->output_dir;
    if (saved->status != TRM_OK)
        *err = saved->why;
    if (status == TRM_EOUTPUT)
        trm_err_wrap(err, "the output directory '%s' is of another job", dir);
    else
        trm_err_wrap(err, "the state of the job in '%s' cannot be read", dir);
    return status;
}

static bool is_of_this(const trm_state_dir *self, const saved_job *saved)
{
    return saved->status == TRM_OK && strcmp(saved->output_dir, self->spec->output_dir) == 0;
}

/* A state directory that is elsewhere is of this output, which may be gone, empty, or refused. */
static trm_status check_state_elsewhere(trm_state_dir *self, const saved_job *saved, trm_err *err)
{
    listing found = {0};
    if (is_of_this(self, saved))
        return TRM_OK;
    if (saved->status == TRM_OK)
        return trm_err_set(err, TRM_EOUTPUT, "the state directory '%.400s' belongs to the output '%.400s'",
                           self->spec->state_dir, saved->output_dir);
    trm_status status = self->fs->ops->list(self->fs, self->spec->state_dir, note_name, &found, err);
    if (status == TRM_OK && (found.names || found.private_dir))
        return trm_err_set(err, TRM_EOUTPUT, "the state directory '%s' is not empty", self->spec->state_dir);
    return status == TRM_ELOST ? TRM_OK : blame_output(status);
}

/* All that may forbid it is looked at before anything is removed. `own`: the output says that the state
 * elsewhere is its own, and there is no identity in it, since a launch died before. */
static trm_status begin_anew(trm_state_dir *self, const saved_job *saved, const listing *found, bool own,
                             trm_err *err)
{
    trm_status status = TRM_OK;
    if (found->names && !found->job)
        return refuse_as_it_is(self, found, err);
    if (found->names)
        status = trm_state_may_clear(self->spec->output_dir, err);
    if (status == TRM_OK && is_elsewhere(self) && !own)
        status = check_state_elsewhere(self, saved, err);
    bool with_state = is_elsewhere(self) && (own || is_of_this(self, saved));
    if (status == TRM_OK && (found->names || found->private_dir))
        status = blame_output(trm_state_clear_output(self->fs, self->spec, with_state, err));
    else if (status == TRM_OK && with_state)
        status = trm_state_clear(self->fs, self->spec->state_dir, err);
    if (status == TRM_OK)
        self->found = TRM_STATE_FRESH;
    return status;
}

/* The table in state_dir.h. */
static trm_status decide(trm_state_dir *self, trm_submission *submission, listing *found, saved_job *saved,
                         trm_err *err)
{
    char private_dir[PATH_BYTES], elsewhere[PATH_BYTES];
    trm_status status = private_path(self, private_dir, err);
    if (status == TRM_OK)
        status = read_elsewhere(self, private_dir, elsewhere, err);
    if (status != TRM_OK)
        return status;
    bool overwrite = self->spec->overwrite;
    const char *lies = elsewhere[0] ? elsewhere : private_dir;
    read_identity(self, saved);
    found->job = trm_state_shows_job(self->spec->output_dir, self->fs) ||
                 (is_elsewhere(self) && is_of_this(self, saved));
    if (found->names && found->private_dir && found->job && strcmp(lies, self->spec->state_dir) != 0 &&
        !overwrite)
        return trm_err_set(err, TRM_EOUTPUT,
                           "the state of the job in '%.400s' lies in '%.400s': say so with --state",
                           self->spec->output_dir, lies);
    bool begun = saved->status != TRM_ELOST && found->private_dir && !self->made_private;
    if (begun && strcmp(lies, self->spec->state_dir) == 0) {
        status = saved->status == TRM_OK ? compare(self, saved, submission, err) : saved->status;
        if (status == TRM_ENOMEM)
            return status;
        if (status == TRM_OK && !(found->success && overwrite)) {
            self->found = found->success ? TRM_STATE_DONE : TRM_STATE_RESUME;
            return trm_submission_resume(submission, &saved->identity, self->fs, self->spec->state_dir, err);
        }
        if (status != TRM_OK && !overwrite)
            return refuse(self, saved, status, err);
    } else if (found->names && !overwrite) {
        return refuse_as_it_is(self, found, err);
    }
    bool own = elsewhere[0] && strcmp(lies, self->spec->state_dir) == 0 && saved->status == TRM_ELOST;
    return begin_anew(self, saved, found, own, err);
}

/* ---- Making ----------------------------------------------------------------------------------------- */

/* A directory that was there may have been made by a launch that died before its name was durable. Where
 * that cannot be asked for, since a directory may not be read, nobody like us has made what is in it. */
static void sync_names(trm_fs *fs, const char *path)
{
    char part[PATH_BYTES];
    trm_err err;
    size_t len = strlen(path);
    for (size_t at = 1; at <= len && len < sizeof part; at++) {
        if ((path[at] != '/' && path[at] != '\0') || path[at - 1] == '/')
            continue;
        memcpy(part, path, at);
        part[at] = '\0';
        trm_fs_sync_name(fs, part, &err);
    }
}

/* The identity comes last: it says that all the rest is there. */
static trm_status make_fresh(trm_state_dir *self, const trm_submission *submission, trm_err *err)
{
    char private_dir[PATH_BYTES], path[PATH_BYTES];
    const char *state = self->spec->state_dir;
    uint32_t crc;
    trm_status status = private_path(self, private_dir, err);
    if (status == TRM_OK && is_elsewhere(self)) {
        status = make_one(self, state, 0, &self->made_state, err);
        if (status == TRM_OK)
            status = trm_state_path(path, private_dir, TRM_ELSEWHERE_NAME, err);
        if (status == TRM_OK)
            status = trm_fs_write_whole(self->fs, path, state, strlen(state), 0, err);
    }
    if (status == TRM_OK)
        status = trm_plan_save(&submission->plan, self->fs, state, &crc, err);
    assert(status != TRM_OK || crc == submission->identity.plan_crc);
    if (status == TRM_OK)
        sync_names(self->fs, self->spec->output_dir);
    if (status == TRM_OK && is_elsewhere(self))
        sync_names(self->fs, state);
    if (status == TRM_OK)
        status = save_identity(self, submission, err);
    return blame_output(status);
}

static trm_status make_rest(trm_state_dir *self, trm_err *err)
{
    char private_dir[PATH_BYTES], path[PATH_BYTES];
    bool made;
    trm_status status = private_path(self, private_dir, err);
    if (status == TRM_OK)
        status = trm_state_path(path, private_dir, TRM_ATTEMPTS_NAME, err);
    if (status == TRM_OK)
        status = make_one(self, path, 0, &made, err);
    if (status == TRM_OK)
        status = trm_state_path(path, self->spec->state_dir, TRM_STDERR_NAME, err);
    if (status == TRM_OK)
        status = make_one(self, path, 0, &made, err);
    if (status == TRM_OK)
        status = self->fs->ops->sync_dir(self->fs, private_dir, err);
    if (status == TRM_OK)
        status = self->fs->ops->sync_dir(self->fs, self->spec->output_dir, err);
    return blame_output(status);
}

trm_status trm_state_dir_open(trm_state_dir *self, const trm_spec *spec, trm_submission *submission,
                              trm_fs *fs, trm_err *err)
{
    listing found = {0};
    *self = (trm_state_dir){.fs = fs, .spec = spec};
    saved_job *saved = calloc(1, sizeof *saved);
    if (!saved)
        return trm_err_set(err, TRM_ENOMEM, "no memory to look at the output directory");
    trm_status status = take_output(self, &found, err);
    if (status == TRM_OK)
        status = take_lock(self, err);
    if (status == TRM_OK)
        status = decide(self, submission, &found, saved, err);
    free(saved);
    if (status == TRM_OK && self->found != TRM_STATE_FRESH)
        trm_state_tidy(self->fs, self->spec);
    if (status == TRM_OK && self->found == TRM_STATE_FRESH)
        status = make_fresh(self, submission, err);
    /* The last launch may have been lost between the names of the output and their sync. */
    if (status == TRM_OK && self->found == TRM_STATE_DONE)
        status = fs->ops->sync_dir(fs, spec->output_dir, err);
    if (status == TRM_OK && self->found == TRM_STATE_DONE)
        trm_state_dir_remove_attempts(spec, fs); /* … or before it could */
    else if (status == TRM_OK)
        status = make_rest(self, err);
    if (status != TRM_OK)
        trm_state_dir_undo(self);
    return status;
}

void trm_state_dir_remove_attempts(const trm_spec *spec, trm_fs *fs)
{
    char path[PATH_BYTES];
    trm_err err = {""};
    int len = snprintf(path, sizeof path, "%s/" TRM_STATE_DIR_NAME "/" TRM_ATTEMPTS_NAME, spec->output_dir);
    trm_status status = len < (int)sizeof path ? trm_fs_remove_tree(fs, path, &err) : TRM_OK;
    if (status != TRM_OK && status != TRM_ELOST)
        trm_debug("attempts that are of no use stay: %s", err.text);
}

trm_status trm_state_dir_hold(trm_file **out, const trm_spec *spec, trm_fs *fs, trm_err *err)
{
    trm_state_dir self = {.fs = fs, .spec = spec};
    char dir[PATH_BYTES], path[PATH_BYTES];
    trm_file *file = NULL;
    trm_status status = private_path(&self, dir, err);
    if (status == TRM_OK)
        status = trm_state_path(path, dir, TRM_LOCK_NAME, err);
    if (status == TRM_OK)
        status = fs->ops->open(fs, path, TRM_FS_WRITE | TRM_FS_CREATE, &file, err);
    if (status != TRM_OK)
        return status;
    status = fs->ops->lock(file, err);
    if (status != TRM_OK) {
        fs->ops->close(file);
        return status;
    }
    *out = file;
    return TRM_OK;
}

trm_status trm_state_dir_submission(trm_submission *out, const trm_spec *spec, const trm_traits *traits,
                                    trm_fs *fs, trm_err *err)
{
    trm_state_dir self = {.fs = fs, .spec = spec};
    saved_job *saved = calloc(1, sizeof *saved);
    if (!saved)
        return trm_err_set(err, TRM_ENOMEM, "no memory to read the job's identity");
    read_identity(&self, saved);
    trm_status status = saved->status;
    trm_plan plan;
    if (status != TRM_OK)
        *err = saved->why;
    else
        status = trm_plan_load(&plan, fs, spec->state_dir, saved->identity.plan_crc, err);
    if (status == TRM_OK)
        *out = (trm_submission){.traits = *traits, .plan = plan, .identity = saved->identity};
    free(saved);
    return status;
}

/* ---- The end ------------------------------------------------------------------------------------------ */

/* Directories that were made, from the lowest up; one that is not empty by now stays. */
static void remove_made(trm_state_dir *self)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s", self->spec->output_dir);
    size_t first = strlen(self->first_made), len = strlen(path);
    while (first && len >= first && self->fs->ops->remove(self->fs, path, NULL) == TRM_OK) {
        while (len > 0 && path[len - 1] != '/')
            len--;
        while (len > 0 && path[len - 1] == '/')
            len--;
        path[len] = '\0';
    }
}

void trm_state_dir_undo(trm_state_dir *self)
{
    char private_dir[PATH_BYTES], path[PATH_BYTES];
    bool fresh = self->found == TRM_STATE_FRESH;
    if (private_path(self, private_dir, NULL) == TRM_OK) {
        if (fresh && is_elsewhere(self))
            trm_state_clear(self->fs, self->spec->state_dir, NULL);
        if (self->made_state)
            self->fs->ops->remove(self->fs, self->spec->state_dir, NULL);
        if (fresh)
            trm_state_clear(self->fs, private_dir, NULL);
        if (self->made_private || fresh) {
            if (trm_state_path(path, private_dir, TRM_LOCK_NAME, NULL) == TRM_OK)
                self->fs->ops->remove(self->fs, path, NULL);
            self->fs->ops->remove(self->fs, private_dir, NULL);
        }
    }
    trm_state_dir_close(self);
    remove_made(self);
}

void trm_state_dir_close(trm_state_dir *self)
{
    if (self->lock)
        self->fs->ops->close(self->lock);
    self->lock = NULL;
}
