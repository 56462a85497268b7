/* Reading a log's directory without changing it: for open, which repairs what is found
 * here, and for the dump. Decides what a crash explains and what it does not. */
#include "runtime/wal_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SNAPSHOT_BYTES_MAX ((size_t)1 << 40)

void wal_path(char out[TRM_FS_PATH_BYTES_MAX], const char *dir, const char *name)
{
    snprintf(out, TRM_FS_PATH_BYTES_MAX, "%s/%s", dir, name);
}

void wal_numbered_path(char out[TRM_FS_PATH_BYTES_MAX], const char *dir, const char *format, uint64_t number)
{
    char name[64];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(name, sizeof name, format, (unsigned long long)number);
#pragma GCC diagnostic pop
    wal_path(out, dir, name);
}

void wal_scan_init(wal_scan *self, trm_fs *fs, const char *dir)
{
    *self = (wal_scan){.fs = fs, .dir = dir};
    wal_state_init(&self->state, true);
}

void wal_scan_close(wal_scan *self)
{
    for (size_t i = 0; i < self->segments_len; i++)
        free(self->segments[i].bytes);
    free(self->segments);
    free(self->sequences);
    free(self->snapshots);
    free(self->snapshot_bytes);
    wal_state_close(&self->state);
}

static bool add_number(uint64_t **numbers, size_t *len, uint64_t number)
{
    if ((*len & (*len - 1)) == 0) { /* full at every power of two */
        uint64_t *more = realloc(*numbers, (*len ? 2 * *len : 1) * sizeof *more);
        if (!more)
            return false;
        *numbers = more;
    }
    (*numbers)[(*len)++] = number;
    return true;
}

/* "prefix" and 16 hexadecimal digits in lower case, nothing else. */
static bool numbered(const char *name, const char *prefix, uint64_t *out)
{
    size_t prefix_len = strlen(prefix);
    if (strncmp(name, prefix, prefix_len) != 0 || strlen(name) != prefix_len + 16 ||
        strspn(name + prefix_len, "0123456789abcdef") != 16)
        return false;
    *out = strtoull(name + prefix_len, NULL, 16);
    return true;
}

static trm_status see_name(const char *name, void *context)
{
    wal_scan *self = context;
    uint64_t number;
    bool room = true;
    if (numbered(name, "segment-", &number))
        room = add_number(&self->sequences, &self->sequences_len, number);
    else if (numbered(name, "snapshot-", &number))
        room = add_number(&self->snapshots, &self->snapshots_len, number);
    else if (strcmp(name, WAL_SNAPSHOT_ASIDE_NAME) == 0)
        self->aside = true;
    else if (strcmp(name, WAL_SPARE_NAME) == 0)
        self->spare = true;
    return room ? TRM_OK : TRM_ENOMEM;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

trm_status wal_scan_names(wal_scan *self, trm_err *err)
{
    trm_status status = self->fs->ops->list(self->fs, self->dir, see_name, self, err);
    if (status == TRM_ENOMEM)
        return trm_err_set(err, status, "no memory to list %s", self->dir);
    if (status != TRM_OK)
        return status;
    if (self->sequences_len)
        qsort(self->sequences, self->sequences_len, sizeof *self->sequences, by_number);
    if (self->snapshots_len)
        qsort(self->snapshots, self->snapshots_len, sizeof *self->snapshots, by_number);
    return TRM_OK;
}

static trm_status read_snapshot(wal_scan *self, trm_err *err)
{
    if (self->snapshots_len == 0)
        return TRM_OK;
    uint64_t index = self->snapshots[self->snapshots_len - 1];
    char path[TRM_FS_PATH_BYTES_MAX];
    wal_numbered_path(path, self->dir, WAL_SNAPSHOT_FORMAT, index);
    size_t len;
    uint64_t log_id = 0;
    trm_status status =
        trm_fs_read_whole(self->fs, path, SNAPSHOT_BYTES_MAX, &self->snapshot_bytes, &len, err);
    if (status != TRM_OK)
        return status;
    status = wal_snapshot_decode(&self->snapshot, &log_id, self->snapshot_bytes, len, err);
    if (status == TRM_OK && self->snapshot.index != index)
        status = trm_err_set(err, TRM_ECORRUPT, "bad snapshot header at offset 24: it is of entry %llu",
                             (unsigned long long)self->snapshot.index);
    if (status != TRM_OK)
        trm_err_wrap(err, "%s", path);
    self->log_id = log_id;
    return status;
}

static trm_status read_segment(wal_scan *self, uint64_t sequence, wal_segment *out, trm_err *err)
{
    char path[TRM_FS_PATH_BYTES_MAX];
    wal_numbered_path(path, self->dir, WAL_SEGMENT_FORMAT, sequence);
    wal_segment segment = {.sequence = sequence};
    trm_status status =
        trm_fs_read_whole(self->fs, path, WAL_SEGMENT_BYTES_MAX, &segment.bytes, &segment.len, err);
    if (status != TRM_OK)
        return status;
    status = wal_header_decode(&segment.header, segment.bytes, segment.len, err);
    if (status == TRM_OK && segment.header.sequence != sequence)
        status = trm_err_set(err, TRM_ECORRUPT, "bad segment header at offset 24: it is segment %llu",
                             (unsigned long long)segment.header.sequence);
    if (status != TRM_OK) {
        trm_err_wrap(err, "%s", path);
        free(segment.bytes);
        return status;
    }
    segment.capacity = segment.header.capacity;
    if (segment.len > segment.capacity)
        segment.len = (size_t)segment.capacity;
    *out = segment;
    return TRM_OK;
}

/* Reads segments from the newest down to the first that is needed: the newest one that
 * begins at or before the entry after the snapshot. Those before it are what a
 * compaction has left. */
static trm_status read_segments(wal_scan *self, trm_err *err)
{
    self->segments = calloc(self->sequences_len, sizeof *self->segments);
    if (!self->segments)
        return trm_err_set(err, TRM_ENOMEM, "no memory for %zu segments", self->sequences_len);
    size_t first = self->sequences_len;
    wal_segment *slots = self->segments;
    trm_status status = TRM_OK;
    do {
        first--;
        if (first + 1 < self->sequences_len && self->sequences[first] + 1 != self->sequences[first + 1]) {
            first++;
            break;
        }
        status = read_segment(self, self->sequences[first], &slots[first], err);
    } while (status == TRM_OK && slots[first].header.first_index > self->snapshot.index + 1 && first > 0);
    if (status != TRM_OK)
        first++;
    self->segments_len = self->sequences_len - first;
    memmove(slots, slots + first, self->segments_len * sizeof *slots);
    if (status == TRM_OK && slots[0].header.first_index > self->snapshot.index + 1)
        status = trm_err_set(
            err, TRM_ECORRUPT,
            "%s: segment %llu is missing: the log begins at entry %llu and the snapshot ends at %llu",
            self->dir, (unsigned long long)slots[0].sequence - 1,
            (unsigned long long)slots[0].header.first_index, (unsigned long long)self->snapshot.index);
    return status;
}

static trm_status corrupt_at(const wal_scan *self, const wal_segment *segment, size_t at, const char *why,
                             trm_err *err)
{
    char path[TRM_FS_PATH_BYTES_MAX];
    wal_numbered_path(path, self->dir, WAL_SEGMENT_FORMAT, segment->sequence);
    return trm_err_set(err, TRM_ECORRUPT, "%s: bad record at offset %zu: %s", path, at, why);
}

static trm_status replay_record(wal_scan *self, wal_segment *segment, const wal_record *record, trm_err *err)
{
    trm_err why;
    trm_status status = wal_state_apply(&self->state, record, &why);
    if (status == TRM_OK && record->type == WAL_RESET && self->state.base_index > self->snapshot.index)
        status = trm_err_set(&why, TRM_ECORRUPT, "the snapshot of entry %llu that it needs is missing",
                             (unsigned long long)self->state.base_index);
    if (status == TRM_ECORRUPT)
        return corrupt_at(self, segment, record->at, why.text, err);
    if (status != TRM_OK)
        return trm_err_set(err, status, "%s", why.text);
    if (self->state.last_index > segment->max_index)
        segment->max_index = self->state.last_index;
    if (self->each)
        self->each(segment, record, self->context);
    return TRM_OK;
}

/* Replays one segment. `next` is the segment behind it, which says where this one must
 * end; NULL for the newest. */
static trm_status replay_segment(wal_scan *self, wal_segment *segment, const wal_segment *next, trm_err *err)
{
    segment->max_index = self->state.last_index;
    if (segment->header.log_id != self->log_id)
        return corrupt_at(self, segment, 16, "the segment belongs to another log", err);
    if (segment != self->segments && segment->header.first_index != self->state.last_index + 1)
        return corrupt_at(self, segment, 40, "the segment does not begin where the one before it ends", err);
    size_t len = segment->len;
    if (next && next->header.previous_end < len)
        len = (size_t)next->header.previous_end;
    wal_cursor *cursor = &self->end;
    wal_cursor_init(cursor, segment->bytes, len, segment->header.seed);
    trm_status status = TRM_OK;
    wal_record record;
    while (status == TRM_OK && wal_cursor_next(cursor, &record))
        status = replay_record(self, segment, &record, err);
    if (status != TRM_OK || !next)
        return status;
    if (cursor->at != next->header.previous_end || cursor->chain != next->header.previous_chain)
        return corrupt_at(self, segment, cursor->at, "the segment after it says that the log goes on here",
                          err);
    return TRM_OK;
}

static trm_status replay(wal_scan *self, trm_err *err)
{
    if (self->snapshots_len == 0)
        self->log_id = self->segments[0].header.log_id;
    wal_state_begin(&self->state, &self->segments[0].header);
    trm_status status = TRM_OK;
    for (size_t i = 0; i < self->segments_len && status == TRM_OK; i++)
        status = replay_segment(self, &self->segments[i],
                                i + 1 < self->segments_len ? &self->segments[i + 1] : NULL, err);
    if (status != TRM_OK)
        return status;
    const wal_segment *newest = &self->segments[self->segments_len - 1];
    wal_cursor_remains(&self->end, &self->remains);
    if (self->remains.synced_max > self->end.at) {
        trm_err why;
        trm_err_set(&why, TRM_OK, "the record at offset %zu was written after it had been synced",
                    self->remains.witness_at);
        return corrupt_at(self, newest, self->end.at, why.text, err);
    }
    self->short_file = newest->len < newest->capacity;
    if (self->snapshot.index > 0)
        self->reset = !wal_state_cover(&self->state, self->snapshot.index, self->snapshot.term);
    return TRM_OK;
}

trm_status wal_scan_content(wal_scan *self, trm_err *err)
{
    if (self->sequences_len == 0)
        return trm_err_set(err, TRM_ECORRUPT, "%s: all segments are missing; there is only a snapshot",
                           self->dir);
    trm_status status = read_snapshot(self, err);
    if (status == TRM_OK)
        status = read_segments(self, err);
    if (status == TRM_OK)
        status = replay(self, err);
    return status;
}
