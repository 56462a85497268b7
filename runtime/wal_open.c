/* Opening a log: alone, repaired, loaded. What is repaired and why is in wal_scan.c. */
#include "runtime/wal_internal.h"

#include "runtime/diag.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEGMENT_BYTES_FIRST (256u * 1024u)
#define SEGMENT_BYTES_MAX (8u * 1024u * 1024u)
#define OWNER_BYTES_MAX 512u
#define ZERO_BYTES (64u * 1024u)
/* Leaves room in a path for the names that are put behind the directory's. */
#define DIR_BYTES_MAX (TRM_FS_PATH_BYTES_MAX - 64u)

trm_status trm_wal_exists(trm_fs *fs, const char *dir, bool *out, trm_err *err)
{
    wal_scan scan;
    wal_scan_init(&scan, fs, dir);
    trm_status status = wal_scan_names(&scan, err);
    if (status == TRM_OK || status == TRM_ELOST) {
        *out = status == TRM_OK && (scan.sequences_len > 0 || scan.snapshots_len > 0);
        status = TRM_OK;
    }
    wal_scan_close(&scan);
    return status;
}

/* The lock is a file of its own that says who has it. */
static trm_status lock_dir(trm_wal *self, const char *owner, trm_err *err)
{
    char path[TRM_FS_PATH_BYTES_MAX];
    wal_path(path, self->dir, WAL_LOCK_NAME);
    trm_status status = self->fs->ops->open(self->fs, path, TRM_FS_WRITE | TRM_FS_CREATE, &self->lock, err);
    if (status != TRM_OK)
        return status;
    status = self->fs->ops->lock(self->lock, err);
    if (status == TRM_AGAIN) {
        char other[OWNER_BYTES_MAX] = "";
        size_t got;
        if (self->fs->ops->read_at(self->lock, 0, other, sizeof other - 1, &got, NULL) != TRM_OK ||
            other[0] == '\0')
            strcpy(other, "another process");
        return trm_err_set(err, TRM_EFENCED, "%s is in use by %s", self->dir, other);
    }
    if (status != TRM_OK)
        return status;
    /* Who it is helps people only; a full disk must not keep anybody out. */
    if (!owner)
        owner = "another process";
    if (self->fs->ops->truncate(self->lock, 0, NULL) == TRM_OK)
        self->fs->ops->write_at(self->lock, 0, owner, strnlen(owner, OWNER_BYTES_MAX - 1), NULL);
    return TRM_OK;
}

static void repaired(trm_wal *self, const char *what)
{
    self->repairs++;
    trm_info("%s: %s", self->dir, what);
}

static trm_status remove_numbered(trm_wal *self, const char *format, uint64_t number, trm_err *err)
{
    char path[TRM_FS_PATH_BYTES_MAX];
    wal_numbered_path(path, self->dir, format, number);
    return self->fs->ops->remove(self->fs, path, err);
}

/* Removes what a crash has left beside the log. */
static trm_status tidy(trm_wal *self, const wal_scan *scan, trm_err *err)
{
    char path[TRM_FS_PATH_BYTES_MAX];
    trm_status status = TRM_OK;
    if (scan->spare) {
        wal_path(path, self->dir, WAL_SPARE_NAME);
        status = self->fs->ops->remove(self->fs, path, err);
    }
    if (status == TRM_OK && scan->aside) {
        wal_path(path, self->dir, WAL_SNAPSHOT_ASIDE_NAME);
        status = self->fs->ops->remove(self->fs, path, err);
        repaired(self, "removed a snapshot that was not finished");
    }
    for (size_t i = 0; i + 1 < scan->snapshots_len && status == TRM_OK; i++) {
        status = remove_numbered(self, WAL_SNAPSHOT_FORMAT, scan->snapshots[i], err);
        repaired(self, "removed a snapshot that a newer one replaces");
    }
    /* No repair: a compaction leaves the newest segment, which may be covered by now. */
    for (size_t i = 0; i + scan->segments_len < scan->sequences_len && status == TRM_OK; i++)
        status = remove_numbered(self, WAL_SEGMENT_FORMAT, scan->sequences[i], err);
    return status;
}

static trm_status write_zeros(trm_file *file, uint64_t from, uint64_t to, trm_err *err)
{
    static const uint8_t zeros[ZERO_BYTES];
    trm_status status = TRM_OK;
    for (uint64_t at = from; at < to && status == TRM_OK; at += ZERO_BYTES)
        status = file->fs->ops->write_at(file, at, zeros,
                                         to - at < ZERO_BYTES ? (size_t)(to - at) : ZERO_BYTES, err);
    return status;
}

/* Wipes what lies behind the end of the newest segment, so that a later crash cannot
 * bring it back, and fills up a file that was cut. */
static trm_status repair_tail(trm_wal *self, const wal_scan *scan, trm_err *err)
{
    uint64_t from = scan->end.at;
    uint64_t to = wal_round_up(from, TRM_WAL_BLOCK_BYTES);
    if (scan->remains.end > to)
        to = wal_round_up(scan->remains.end, TRM_WAL_BLOCK_BYTES);
    if (scan->short_file)
        to = self->segments[self->segments_len - 1].capacity;
    if (scan->remains.begun || scan->remains.end || scan->short_file) {
        char what[128];
        snprintf(what, sizeof what, "dropped an unfinished write at offset %llu of segment %llu",
                 (unsigned long long)from,
                 (unsigned long long)self->segments[self->segments_len - 1].sequence);
        repaired(self, what);
    }
    if (from == to)
        return TRM_OK;
    trm_status status = write_zeros(self->file, from, to, err);
    return status == TRM_OK ? self->fs->ops->sync(self->file, err) : status;
}

/* Takes over what the scan has read. */
static trm_status adopt(trm_wal *self, wal_scan *scan, trm_err *err)
{
    self->log_id = scan->log_id;
    if (scan->snapshot.index > 0) {
        self->snapshot_config = malloc(scan->snapshot.config_len + 1);
        if (!self->snapshot_config)
            return trm_err_set(err, TRM_ENOMEM, "no memory for the snapshot's configuration");
        memcpy(self->snapshot_config, scan->snapshot.config, scan->snapshot.config_len);
        self->snapshot = scan->snapshot;
        self->snapshot.config = self->snapshot_config;
    }
    self->state = scan->state;
    self->segments = scan->segments;
    self->segments_len = self->segments_capacity = scan->segments_len;
    wal_state_init(&scan->state, false);
    scan->segments = NULL;
    scan->segments_len = 0;
    return TRM_OK;
}

static trm_status open_newest(trm_wal *self, const wal_scan *scan, trm_err *err)
{
    const wal_segment *newest = &self->segments[self->segments_len - 1];
    char path[TRM_FS_PATH_BYTES_MAX];
    wal_numbered_path(path, self->dir, WAL_SEGMENT_FORMAT, newest->sequence);
    trm_status status = self->fs->ops->open(self->fs, path, TRM_FS_WRITE, &self->file, err);
    if (status != TRM_OK)
        return status;
    self->seed = scan->end.seed;
    self->chain = scan->end.chain;
    self->number = scan->end.number;
    self->offset = self->synced = wal_round_up(scan->end.at, TRM_WAL_BLOCK_BYTES);
    status = repair_tail(self, scan, err);
    /* What was read may have been in memory only: a process that died, not a machine,
     * leaves pages that were never synced. What is given out from here on is durable. */
    if (status == TRM_OK)
        status = self->fs->ops->sync(self->file, err);
    if (status == TRM_OK)
        status = self->fs->ops->sync_dir(self->fs, self->dir, err);
    return status;
}

static trm_status load(trm_wal *self, wal_scan *scan, trm_err *err)
{
    trm_status status = wal_scan_content(scan, err);
    if (status == TRM_OK)
        status = tidy(self, scan, err);
    if (status == TRM_OK)
        status = adopt(self, scan, err);
    if (status == TRM_OK)
        status = open_newest(self, scan, err);
    if (status == TRM_OK && scan->reset) {
        repaired(self, "dropped entries that the snapshot has made void");
        self->reset_due = true;
        status = wal_write_reset(self, err);
        if (!self->failed) /* then it is tried again with the next write */
            status = TRM_OK;
    }
    return status;
}

static trm_status create(trm_wal *self, uint64_t log_id, trm_err *err)
{
    char path[TRM_FS_PATH_BYTES_MAX];
    wal_path(path, self->dir, WAL_SPARE_NAME);
    trm_status status = self->fs->ops->remove(self->fs, path, err);
    if (status != TRM_OK && status != TRM_ELOST)
        return status;
    self->log_id = log_id;
    return wal_roll(self, 0, err);
}

static trm_status open_locked(trm_wal *self, const trm_wal_config *config, trm_err *err)
{
    wal_scan scan;
    wal_scan_init(&scan, self->fs, self->dir);
    trm_status status = wal_scan_names(&scan, err);
    if (status == TRM_OK && (scan.sequences_len > 0 || scan.snapshots_len > 0))
        status = load(self, &scan, err);
    else if (status == TRM_OK && config->create)
        status = create(self, config->log_id, err);
    else if (status == TRM_OK)
        status = trm_err_set(err, TRM_ELOST, "there is no log in %s", self->dir);
    wal_scan_close(&scan);
    return status;
}

static uint64_t segment_size(uint32_t wanted, uint32_t otherwise)
{
    uint64_t size = wal_round_up(wanted ? wanted : otherwise, TRM_WAL_BLOCK_BYTES);
    return size < 2 * TRM_WAL_BLOCK_BYTES ? 2 * TRM_WAL_BLOCK_BYTES : size;
}

trm_status trm_wal_open(trm_wal **out, trm_fs *fs, const char *dir, const trm_wal_config *config,
                        trm_err *err)
{
    size_t dir_len = strlen(dir);
    if (dir_len == 0 || dir_len >= DIR_BYTES_MAX)
        return trm_err_set(err, TRM_EIO, "not a path for a log: \"%.80s\"", dir);
    trm_wal *self = calloc(1, sizeof *self);
    if (!self)
        return trm_err_set(err, TRM_ENOMEM, "no memory to open the log %s", dir);
    self->fs = fs;
    memcpy(self->dir, dir, dir_len + 1);
    self->segment_bytes_first = segment_size(config->segment_bytes_first, SEGMENT_BYTES_FIRST);
    self->segment_bytes_max = segment_size(config->segment_bytes_max, SEGMENT_BYTES_MAX);
    wal_state_init(&self->state, true);
    trm_status status = config->create ? trm_fs_make_dirs(fs, dir, 0, err) : TRM_OK;
    if (status == TRM_OK)
        status = lock_dir(self, config->owner, err);
    if (status == TRM_OK)
        status = open_locked(self, config, err);
    if (status != TRM_OK) {
        trm_wal_close(self);
        return status;
    }
    *out = self;
    return TRM_OK;
}

void trm_wal_close(trm_wal *self)
{
    if (!self)
        return;
    trm_wal_snapshot_abort(self);
    if (self->spare)
        self->fs->ops->close(self->spare);
    if (self->file)
        self->fs->ops->close(self->file);
    trm_wal_forget(self);
    free(self->segments);
    free(self->snapshot_config);
    wal_state_close(&self->state);
    if (self->lock)
        self->fs->ops->close(self->lock);
    free(self);
}

void trm_wal_forget(trm_wal *self)
{
    for (size_t i = 0; i < self->segments_len; i++) {
        free(self->segments[i].bytes);
        self->segments[i].bytes = NULL;
    }
    wal_state_forget(&self->state);
}
