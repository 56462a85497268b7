/* Snapshots of the log: written aside, synced, renamed, directory synced; then older
 * ones and the segments that are covered go. */
#include "runtime/wal_internal.h"

#include "runtime/crc32c.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void trm_wal_snapshot_abort(trm_wal *self)
{
    if (!self->aside)
        return;
    char path[TRM_FS_PATH_BYTES_MAX];
    wal_path(path, self->dir, WAL_SNAPSHOT_ASIDE_NAME);
    self->fs->ops->close(self->aside);
    self->aside = NULL;
    free(self->aside_config);
    self->aside_config = NULL;
    self->fs->ops->remove(self->fs, path, NULL);
}

static trm_status refuse_failed(const trm_wal *self, trm_err *err)
{
    return trm_err_set(err, self->failed, "the log has failed before: %s", self->why.text);
}

trm_status trm_wal_snapshot_begin(trm_wal *self, const trm_wal_snapshot *meta, trm_err *err)
{
    assert(meta->index > self->snapshot.index && meta->config_len <= TRM_WAL_CONFIG_BYTES_MAX);
    if (self->failed)
        return refuse_failed(self, err);
    trm_wal_snapshot_abort(self);
    self->aside_config = malloc(meta->config_len + 1);
    if (!self->aside_config)
        return trm_err_set(err, TRM_ENOMEM, "no memory for the snapshot's configuration");
    if (meta->config_len > 0)
        memcpy(self->aside_config, meta->config, meta->config_len);
    self->aside_meta = *meta;
    self->aside_meta.config = self->aside_config;
    self->aside_meta.data_bytes = 0;
    self->aside_crc = trm_crc32c(0, self->aside_config, meta->config_len);
    self->aside_at = WAL_SNAPSHOT_HEADER_BYTES + meta->config_len;
    char path[TRM_FS_PATH_BYTES_MAX];
    wal_path(path, self->dir, WAL_SNAPSHOT_ASIDE_NAME);
    int flags = TRM_FS_WRITE | TRM_FS_CREATE | TRM_FS_TRUNCATE;
    trm_status status = self->fs->ops->open(self->fs, path, flags, &self->aside, err);
    if (status != TRM_OK) {
        free(self->aside_config);
        self->aside_config = NULL;
        return status;
    }
    status = self->fs->ops->write_at(self->aside, WAL_SNAPSHOT_HEADER_BYTES, self->aside_config,
                                     meta->config_len, err);
    if (status != TRM_OK)
        trm_wal_snapshot_abort(self);
    return status;
}

trm_status trm_wal_snapshot_write(trm_wal *self, const void *bytes, size_t len, trm_err *err)
{
    assert(self->aside);
    trm_status status = self->fs->ops->write_at(self->aside, self->aside_at, bytes, len, err);
    if (status != TRM_OK) {
        trm_wal_snapshot_abort(self);
        return status;
    }
    self->aside_crc = trm_crc32c(self->aside_crc, bytes, len);
    self->aside_at += len;
    self->aside_meta.data_bytes += len;
    return TRM_OK;
}

/* Header, content and name durable. A rename or directory sync that fails leaves
 * nobody knowing which snapshot is there: the log has failed. */
static trm_status aside_finish(trm_wal *self, trm_err *err)
{
    uint8_t header[WAL_SNAPSHOT_HEADER_BYTES];
    wal_snapshot_encode(header, self->log_id, &self->aside_meta, self->aside_crc);
    trm_status status = self->fs->ops->write_at(self->aside, 0, header, sizeof header, err);
    if (status == TRM_OK)
        status = self->fs->ops->sync(self->aside, err);
    if (status != TRM_OK)
        return status;
    char from[TRM_FS_PATH_BYTES_MAX], to[TRM_FS_PATH_BYTES_MAX];
    wal_path(from, self->dir, WAL_SNAPSHOT_ASIDE_NAME);
    wal_numbered_path(to, self->dir, WAL_SNAPSHOT_FORMAT, self->aside_meta.index);
    status = self->fs->ops->rename(self->fs, from, to, err);
    if (status == TRM_ENOSPACE)
        return status;
    if (status == TRM_OK)
        status = self->fs->ops->sync_dir(self->fs, self->dir, err);
    return status == TRM_OK ? status : wal_fail(self, status, err);
}

trm_status trm_wal_snapshot_commit(trm_wal *self, trm_err *err)
{
    assert(self->aside);
    if (self->failed)
        return refuse_failed(self, err);
    trm_status status = aside_finish(self, err);
    if (status != TRM_OK) {
        trm_wal_snapshot_abort(self);
        return status;
    }
    uint64_t older = self->snapshot.index;
    self->fs->ops->close(self->aside);
    self->aside = NULL;
    free(self->snapshot_config);
    self->snapshot_config = self->aside_config;
    self->aside_config = NULL;
    self->snapshot = self->aside_meta;
    if (older > 0) {
        /* If this fails, or a crash undoes it, the next open does it. */
        char path[TRM_FS_PATH_BYTES_MAX];
        wal_numbered_path(path, self->dir, WAL_SNAPSHOT_FORMAT, older);
        self->fs->ops->remove(self->fs, path, NULL);
    }
    if (wal_state_cover(&self->state, self->snapshot.index, self->snapshot.term))
        return TRM_OK;
    self->reset_due = true;
    status = wal_write_reset(self, err);
    return self->failed ? status : TRM_OK; /* if not failed for good, it is tried again with the next write */
}

trm_status trm_wal_snapshot_read(trm_wal *self, uint64_t offset, void *out, size_t len, size_t *got,
                                 trm_err *err)
{
    assert(self->snapshot.index > 0);
    char path[TRM_FS_PATH_BYTES_MAX];
    wal_numbered_path(path, self->dir, WAL_SNAPSHOT_FORMAT, self->snapshot.index);
    trm_file *file;
    trm_status status = self->fs->ops->open(self->fs, path, TRM_FS_READ, &file, err);
    if (status != TRM_OK)
        return status;
    uint64_t from = WAL_SNAPSHOT_HEADER_BYTES + self->snapshot.config_len + offset;
    status = self->fs->ops->read_at(file, from, out, len, got, err);
    self->fs->ops->close(file);
    return status;
}

/* A segment that is no longer needed becomes the spare, if it is large enough: its
 * blocks are there already and its old records do not carry the next seed. The rename
 * must be durable before the header is overwritten. */
static trm_status recycle(trm_wal *self, const wal_segment *segment, const char *path, trm_err *err)
{
    if (self->spare || segment->capacity != self->segment_bytes_max)
        return self->fs->ops->remove(self->fs, path, err);
    char spare[TRM_FS_PATH_BYTES_MAX];
    wal_path(spare, self->dir, WAL_SPARE_NAME);
    trm_status status = self->fs->ops->rename(self->fs, path, spare, err);
    if (status == TRM_OK)
        status = self->fs->ops->sync_dir(self->fs, self->dir, err);
    if (status == TRM_OK)
        status = self->fs->ops->open(self->fs, spare, TRM_FS_WRITE, &self->spare, err);
    self->spare_bytes = segment->capacity;
    return status;
}

trm_status trm_wal_compact(trm_wal *self, trm_err *err)
{
    if (self->failed)
        return refuse_failed(self, err);
    size_t gone = 0;
    trm_status status = TRM_OK;
    while (status == TRM_OK && gone + 1 < self->segments_len &&
           self->segments[gone].max_index <= self->snapshot.index) {
        char path[TRM_FS_PATH_BYTES_MAX];
        wal_numbered_path(path, self->dir, WAL_SEGMENT_FORMAT, self->segments[gone].sequence);
        status = recycle(self, &self->segments[gone], path, err);
        free(self->segments[gone].bytes);
        self->segments[gone].bytes = NULL;
        gone++;
    }
    self->segments_len -= gone;
    memmove(self->segments, self->segments + gone, self->segments_len * sizeof *self->segments);
    return status;
}
