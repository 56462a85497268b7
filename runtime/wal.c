/* Writing the log: batches into segments, one segment after the other. See wal.h for
 * the contract and wal_format.h for the bytes.
 *
 * The order that makes a crash harmless: a segment is synced before the one behind it
 * is begun; a new segment has its room, its zeros and its header durable under the name
 * "spare" before it gets its own name, and its name durable before it gets records. */
#include "runtime/wal_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

trm_status wal_fail(trm_wal *self, trm_status status, trm_err *err)
{
    self->failed = status;
    trm_err_set(&self->why, status, "%s", err ? err->text : trm_status_name(status));
    return status;
}

static trm_status refuse(const trm_wal *self, trm_err *err)
{
    return trm_err_set(err, self->failed, "the log has failed before: %s", self->why.text);
}

/* ---- The next segment. ---- */

static void spare_drop(trm_wal *self)
{
    char path[TRM_FS_PATH_BYTES_MAX];
    wal_path(path, self->dir, WAL_SPARE_NAME);
    if (self->spare)
        self->fs->ops->close(self->spare);
    self->spare = NULL;
    self->fs->ops->remove(self->fs, path, NULL);
}

static trm_status spare_make(trm_wal *self, uint64_t bytes, trm_err *err)
{
    char path[TRM_FS_PATH_BYTES_MAX];
    wal_path(path, self->dir, WAL_SPARE_NAME);
    int flags = TRM_FS_WRITE | TRM_FS_CREATE | TRM_FS_TRUNCATE;
    trm_status status = self->fs->ops->open(self->fs, path, flags, &self->spare, err);
    if (status != TRM_OK)
        return status;
    status = self->fs->ops->allocate(self->spare, bytes, err);
    if (status == TRM_OK)
        status = self->fs->ops->sync(self->spare, err);
    if (status != TRM_OK)
        spare_drop(self);
    self->spare_bytes = bytes;
    return status;
}

static uint64_t next_capacity(const trm_wal *self, uint64_t need)
{
    uint64_t size = self->segment_bytes_first;
    if (self->segments_len > 0)
        size = 2 * self->segments[self->segments_len - 1].capacity;
    if (size > self->segment_bytes_max)
        size = self->segment_bytes_max;
    return size < need + TRM_WAL_BLOCK_BYTES ? need + TRM_WAL_BLOCK_BYTES : size;
}

void trm_wal_prepare(trm_wal *self)
{
    if (self->failed || self->spare || self->offset < self->segments[self->segments_len - 1].capacity / 2)
        return;
    spare_make(self, next_capacity(self, 0), NULL);
}

static bool segments_reserve(trm_wal *self)
{
    if (self->segments_len < self->segments_capacity)
        return true;
    size_t wanted = self->segments_capacity ? 2 * self->segments_capacity : 8;
    wal_segment *segments = realloc(self->segments, wanted * sizeof *segments);
    if (!segments)
        return false;
    self->segments = segments;
    self->segments_capacity = wanted;
    return true;
}

/* Gives the spare its header, durable. */
static trm_status spare_head(trm_wal *self, wal_header *header, trm_err *err)
{
    uint64_t last = self->state.last_index;
    *header = (wal_header){
        .log_id = self->log_id,
        .sequence = self->segments_len ? self->segments[self->segments_len - 1].sequence + 1 : 1,
        .capacity = self->spare_bytes,
        .first_index = last + 1,
        .previous_term = wal_state_term_at(&self->state, last),
        .hard = self->state.hard,
        .previous_end = self->segments_len ? self->offset : 0,
        .previous_chain = self->chain,
    };
    uint8_t block[TRM_WAL_BLOCK_BYTES];
    wal_header_encode(header, block);
    trm_status status = self->fs->ops->write_at(self->spare, 0, block, sizeof block, err);
    if (status == TRM_OK)
        status = self->fs->ops->sync(self->spare, err);
    return status;
}

/* Gives the spare its name. When the rename fails for room, nothing has happened; else
 * nobody knows what has. */
static trm_status spare_name(trm_wal *self, uint64_t sequence, trm_err *err)
{
    char from[TRM_FS_PATH_BYTES_MAX], to[TRM_FS_PATH_BYTES_MAX];
    wal_path(from, self->dir, WAL_SPARE_NAME);
    wal_numbered_path(to, self->dir, WAL_SEGMENT_FORMAT, sequence);
    trm_status status = self->fs->ops->rename(self->fs, from, to, err);
    if (status == TRM_ENOSPACE)
        return status;
    if (status == TRM_OK)
        status = self->fs->ops->sync_dir(self->fs, self->dir, err);
    return status == TRM_OK ? status : wal_fail(self, status, err);
}

trm_status wal_roll(trm_wal *self, uint64_t need, trm_err *err)
{
    trm_status status = trm_wal_sync(self, err);
    if (status != TRM_OK)
        return status;
    if (!segments_reserve(self))
        return trm_err_set(err, TRM_ENOMEM, "no memory for another segment");
    if (self->spare && self->spare_bytes < need + TRM_WAL_BLOCK_BYTES)
        spare_drop(self);
    if (!self->spare)
        status = spare_make(self, next_capacity(self, need), err);
    if (status != TRM_OK)
        return status;
    wal_header header;
    status = spare_head(self, &header, err);
    if (status == TRM_OK)
        status = spare_name(self, header.sequence, err);
    if (status != TRM_OK) {
        if (!self->failed)
            spare_drop(self);
        return status;
    }
    if (self->file)
        self->fs->ops->close(self->file);
    self->file = self->spare;
    self->spare = NULL;
    self->segments[self->segments_len++] = (wal_segment){
        .sequence = header.sequence, .capacity = header.capacity, .max_index = self->state.last_index};
    self->offset = self->synced = TRM_WAL_BLOCK_BYTES;
    self->seed = self->chain = header.seed;
    self->number = 0;
    return TRM_OK;
}

/* ---- Write and sync. ---- */

/* Takes into account what the records of a written batch say. */
static void apply_batch(trm_wal *self, const trm_wal_batch *batch)
{
    wal_segment *segment = &self->segments[self->segments_len - 1];
    for (size_t at = 0; at < batch->bytes.len;) {
        wal_record record;
        at = wal_batch_record(batch->bytes.data, batch->bytes.len, at, &record);
        trm_err err;
        trm_status status = wal_state_apply(&self->state, &record, &err);
        assert(status != TRM_ECORRUPT); /* a gap, or a term that falls: the caller's bug */
        if (status != TRM_OK)
            wal_fail(self, status, &err);
        if (self->state.last_index > segment->max_index)
            segment->max_index = self->state.last_index;
    }
}

/* Fills the batch up with zeros to a whole block, stamps and writes it. */
static trm_status write_batch(trm_wal *self, trm_wal_batch *batch, trm_err *err)
{
    size_t len = batch->bytes.len;
    size_t padding = (size_t)(wal_round_up(len, TRM_WAL_BLOCK_BYTES) - len);
    uint8_t *zeros = trm_writer_extend(&batch->bytes, padding);
    if (!zeros) {
        batch->bytes.failed = false; /* the batch is whole, only its padding is not */
        return trm_err_set(err, TRM_ENOMEM, "no memory to write to the log");
    }
    memset(zeros, 0, padding);
    uint32_t chain = self->chain, number = self->number;
    wal_stamp(batch->bytes.data, len, self->seed, (uint32_t)self->synced, &chain, &number);
    trm_status status =
        self->fs->ops->write_at(self->file, self->offset, batch->bytes.data, batch->bytes.len, err);
    if (status == TRM_OK) {
        self->offset += batch->bytes.len;
        self->chain = chain;
        self->number = number;
    }
    batch->bytes.len = len;
    return status;
}

static trm_status append_batch(trm_wal *self, trm_wal_batch *batch, trm_err *err)
{
    uint64_t need = wal_round_up(batch->bytes.len, TRM_WAL_BLOCK_BYTES);
    trm_status status = TRM_OK;
    if (self->offset + need > self->segments[self->segments_len - 1].capacity)
        status = wal_roll(self, need, err);
    if (status == TRM_OK)
        status = write_batch(self, batch, err);
    if (status != TRM_OK)
        return status;
    apply_batch(self, batch);
    return self->failed ? refuse(self, err) : TRM_OK;
}

/* Without its record the entries that follow would be read as a gap. */
static trm_status append_reset(trm_wal *self, trm_err *err)
{
    trm_wal_batch batch;
    trm_wal_batch_init(&batch);
    wal_batch_reset_to(&batch, self->state.base_index, self->state.base_term);
    trm_status status = trm_wal_batch_ok(&batch) ? append_batch(self, &batch, err)
                                                 : trm_err_set(err, TRM_ENOMEM, "no memory for the log");
    self->reset_due = status != TRM_OK;
    trm_wal_batch_close(&batch);
    return status;
}

trm_status trm_wal_write(trm_wal *self, trm_wal_batch *batch, trm_err *err)
{
    if (self->failed)
        return refuse(self, err);
    if (!trm_wal_batch_ok(batch))
        return trm_err_set(err, TRM_ENOMEM, "no memory for what is to be logged");
    if (batch->bytes.len == 0)
        return TRM_OK;
    if (batch->bytes.len > TRM_WAL_BATCH_BYTES_MAX)
        return trm_err_set(err, TRM_ELIMIT, "%zu bytes are to be logged at once; at most %u can be",
                           batch->bytes.len, TRM_WAL_BATCH_BYTES_MAX);
    trm_status status = self->reset_due ? append_reset(self, err) : TRM_OK;
    return status == TRM_OK ? append_batch(self, batch, err) : status;
}

trm_status trm_wal_sync(trm_wal *self, trm_err *err)
{
    if (self->failed)
        return refuse(self, err);
    if (self->synced == self->offset)
        return TRM_OK;
    trm_status status = self->fs->ops->sync(self->file, err);
    if (status != TRM_OK)
        return wal_fail(self, status, err);
    self->synced = self->offset;
    return TRM_OK;
}

trm_status wal_write_reset(trm_wal *self, trm_err *err)
{
    trm_status status = append_reset(self, err);
    return status == TRM_OK ? trm_wal_sync(self, err) : status;
}

/* ---- Questions. ---- */

uint64_t trm_wal_log_id(const trm_wal *self)
{
    return self->log_id;
}
unsigned trm_wal_repairs(const trm_wal *self)
{
    return self->repairs;
}
uint64_t trm_wal_first_index(const trm_wal *self)
{
    return self->state.base_index + 1;
}
uint64_t trm_wal_last_index(const trm_wal *self)
{
    return self->state.last_index;
}
uint64_t trm_wal_term_at(const trm_wal *self, uint64_t index)
{
    return wal_state_term_at(&self->state, index);
}
void trm_wal_hard_state_get(const trm_wal *self, trm_wal_hard_state *out)
{
    *out = self->state.hard;
}
void trm_wal_snapshot_get(const trm_wal *self, trm_wal_snapshot *out)
{
    *out = self->snapshot;
}

uint64_t trm_wal_segment_bytes(const trm_wal *self)
{
    uint64_t bytes = self->offset;
    for (size_t i = 0; i + 1 < self->segments_len; i++)
        bytes += self->segments[i].capacity;
    return bytes;
}

void trm_wal_entry_at(const trm_wal *self, uint64_t index, trm_wal_entry *out)
{
    assert(self->state.keep && index > self->state.base_index && index <= self->state.last_index);
    const wal_kept *kept = &self->state.kept[index - self->state.kept_base - 1];
    *out = (trm_wal_entry){index, kept->term, kept->type, kept->payload, kept->len};
}
