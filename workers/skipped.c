/* See skipped.h. */
#include "workers/skipped.h"

#include "jobs/names.h"
#include "runtime/json.h"

#include <stdio.h>

static void compose_head(const trm_skipped *self, trm_writer *out)
{
    trm_json json = {.out = out};
    trm_json_object(&json, NULL);
    trm_json_u64(&json, "version", TRM_SKIPPED_VERSION);
    trm_json_u64(&json, "task", self->task);
    trm_json_u64(&json, "record", self->number);
    trm_json_string(&json, "file", self->record->path);
    trm_json_u64(&json, "offset", self->record->offset);
    trm_json_u64(&json, "bytes", self->record->len);
    trm_json_close(&json);
    trm_json_line(&json);
}

static trm_status write_durable(const trm_skipped *self, trm_fs *fs, const char *path, const trm_writer *head,
                                trm_err *err)
{
    trm_file *file;
    trm_status status = fs->ops->open(fs, path, TRM_FS_WRITE | TRM_FS_CREATE | TRM_FS_TRUNCATE, &file, err);
    if (status != TRM_OK)
        return status;
    status = fs->ops->write_at(file, 0, head->data, head->len, err);
    if (status == TRM_OK && self->record->len)
        status = fs->ops->write_at(file, head->len, self->record->data, self->record->len, err);
    if (status == TRM_OK)
        status = fs->ops->sync(file, err);
    fs->ops->close(file);
    return status;
}

/* Aside under a name that no other attempt has. */
static trm_status write_file(const trm_skipped *self, trm_fs *fs, const char *dir, trm_err *err)
{
    char path[TRM_FS_PATH_BYTES_MAX], aside[TRM_FS_PATH_BYTES_MAX];
    size_t len = (size_t)snprintf(path, sizeof path, "%s/map-%05u.record-%u", dir, self->task, self->number);
    size_t aside_len = (size_t)snprintf(aside, sizeof aside, "%s.e%llu.a%u.new", path,
                                        (unsigned long long)self->epoch, self->attempt);
    if (len >= sizeof path || aside_len >= sizeof aside)
        return trm_err_set(err, TRM_EOUTPUT, "the path is too long: %.200s…", dir);
    trm_writer head;
    trm_writer_init(&head);
    compose_head(self, &head);
    trm_status status = trm_writer_ok(&head)
                            ? write_durable(self, fs, aside, &head, err)
                            : trm_err_set(err, TRM_ENOMEM, "no memory to write a skipped record aside");
    trm_writer_close(&head);
    if (status == TRM_OK)
        status = fs->ops->rename(fs, aside, path, err);
    if (status == TRM_OK)
        status = fs->ops->sync_dir(fs, dir, err);
    else
        fs->ops->remove(fs, aside, NULL);
    return status;
}

trm_status trm_skipped_write(const trm_skipped *self, trm_fs *fs, trm_err *err)
{
    char dir[TRM_FS_PATH_BYTES_MAX];
    if ((size_t)snprintf(dir, sizeof dir, "%s/" TRM_SKIPPED_NAME, self->state_dir) >= sizeof dir)
        return trm_err_set(err, TRM_EOUTPUT, "the path is too long: %.200s…", self->state_dir);
    trm_status status = fs->ops->make_dir(fs, dir, 0, err);
    if (status == TRM_OK || status == TRM_AGAIN) /* whoever has made it may have died before it was durable */
        status = fs->ops->sync_dir(fs, self->state_dir, err);
    return status == TRM_OK ? write_file(self, fs, dir, err) : status;
}
