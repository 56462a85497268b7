/* What is made of the file system's table, the same for every backend. */
#include "runtime/fs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The directory that `path` lies in: "a/b/" and "a/b" → "a", "a" → ".", "/a" → "/". */
static trm_status parent_of(const char *path, char out[TRM_FS_PATH_BYTES_MAX], trm_err *err)
{
    size_t len = strlen(path);
    if (len >= TRM_FS_PATH_BYTES_MAX)
        return trm_err_set(err, TRM_EIO, "path of %zu bytes is too long: %.80s…", len, path);
    while (len > 1 && path[len - 1] == '/')
        len--;
    while (len > 0 && path[len - 1] != '/')
        len--;
    while (len > 1 && path[len - 1] == '/')
        len--;
    if (len == 0) {
        strcpy(out, ".");
        return TRM_OK;
    }
    memcpy(out, path, len);
    out[len] = '\0';
    return TRM_OK;
}

/* Writes `bytes` into a new file `aside` and makes its content durable. */
static trm_status write_aside(trm_fs *fs, const char *aside, const void *bytes, size_t len, int flags,
                              trm_err *err)
{
    trm_status status = fs->ops->remove(fs, aside, err);
    if (status != TRM_OK && status != TRM_ELOST)
        return status;
    trm_file *file;
    int open_flags = TRM_FS_WRITE | TRM_FS_CREATE | TRM_FS_EXCLUSIVE | (flags & TRM_FS_SHARED);
    status = fs->ops->open(fs, aside, open_flags, &file, err);
    if (status != TRM_OK)
        return status;
    status = fs->ops->write_at(file, 0, bytes, len, err);
    if (status == TRM_OK)
        status = fs->ops->sync(file, err);
    fs->ops->close(file);
    return status;
}

trm_status trm_fs_write_whole(trm_fs *fs, const char *path, const void *bytes, size_t len, int flags,
                              trm_err *err)
{
    char parent[TRM_FS_PATH_BYTES_MAX], aside[TRM_FS_PATH_BYTES_MAX];
    trm_status status = parent_of(path, parent, err);
    if (status != TRM_OK)
        return status;
    if ((size_t)snprintf(aside, sizeof aside, "%s.new", path) >= sizeof aside)
        return trm_err_set(err, TRM_EIO, "path is too long: %.80s…", path);
    status = write_aside(fs, aside, bytes, len, flags, err);
    if (status == TRM_OK)
        status = fs->ops->rename(fs, aside, path, err);
    if (status != TRM_OK) {
        fs->ops->remove(fs, aside, NULL);
        return status;
    }
    return fs->ops->sync_dir(fs, parent, err);
}

trm_status trm_fs_read_whole(trm_fs *fs, const char *path, size_t max, uint8_t **out, size_t *len,
                             trm_err *err)
{
    trm_file *file;
    trm_status status = fs->ops->open(fs, path, TRM_FS_READ, &file, err);
    if (status != TRM_OK)
        return status;
    uint8_t *bytes = NULL;
    uint64_t size;
    size_t got = 0;
    status = fs->ops->size(file, &size, err);
    if (status != TRM_OK)
        goto close_file;
    if (size > max) {
        status = trm_err_set(err, TRM_ELIMIT, "%s has %llu bytes, more than the %zu that are allowed", path,
                             (unsigned long long)size, max);
        goto close_file;
    }
    bytes = malloc((size_t)size + 1);
    if (!bytes) {
        status = trm_err_set(err, TRM_ENOMEM, "no memory for the %llu bytes of %s", (unsigned long long)size,
                             path);
        goto close_file;
    }
    status = fs->ops->read_at(file, 0, bytes, (size_t)size, &got, err);
    if (status != TRM_OK)
        goto free_bytes;
    bytes[got] = 0;
    *out = bytes;
    *len = got;
    goto close_file;
free_bytes:
    free(bytes);
close_file:
    fs->ops->close(file);
    return status;
}

trm_status trm_fs_sync_name(trm_fs *fs, const char *path, trm_err *err)
{
    char parent[TRM_FS_PATH_BYTES_MAX];
    trm_status status = parent_of(path, parent, err);
    return status == TRM_OK ? fs->ops->sync_dir(fs, parent, err) : status;
}

trm_status trm_fs_make_dir(trm_fs *fs, const char *path, int flags, trm_err *err)
{
    trm_status status = fs->ops->make_dir(fs, path, flags, err);
    return status == TRM_OK ? trm_fs_sync_name(fs, path, err) : status;
}

trm_status trm_fs_make_dirs(trm_fs *fs, const char *path, int flags, trm_err *err)
{
    trm_status status = trm_fs_make_dir(fs, path, flags, err);
    if (status == TRM_AGAIN)
        return TRM_OK;
    char part[TRM_FS_PATH_BYTES_MAX];
    size_t len = strlen(path);
    if (len == 0 || len >= sizeof part)
        return trm_err_set(err, TRM_EIO, "not a path for a directory: \"%.80s\"", path);
    if (status != TRM_ELOST)
        return status;
    for (size_t at = 1; at <= len; at++) {
        if ((path[at] != '/' && path[at] != '\0') || path[at - 1] == '/')
            continue;
        memcpy(part, path, at);
        part[at] = '\0';
        status = trm_fs_make_dir(fs, part, flags, err);
        if (status != TRM_OK && status != TRM_AGAIN)
            return status;
    }
    return TRM_OK;
}

trm_status trm_fs_remove_tree(trm_fs *fs, const char *path, trm_err *err)
{
    return fs->ops->remove_tree(fs, path, err);
}
