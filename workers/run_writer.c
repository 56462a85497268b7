#include "workers/run_writer.h"

#include "runtime/bytes.h"
#include "runtime/crc32c.h"
#include "workers/run_format.h"

#include <assert.h>
#include <stdlib.h>

#define OUT_BYTES (TRM_RUN_WRITE_BYTES + TRM_RUN_BLOCK_HEADER_BYTES + TRM_RUN_BLOCK_BYTES)
#define COMPRESS_BYTES_MIN 256u /* a smaller block is stored as it is */
#define SEGMENTS_FIRST 64u

struct trm_run_writer {
    trm_fs *fs;
    trm_compress_policy *policy;
    uint64_t (*now_ns)(void);
    trm_codec *codec; /* NULL: never compress */
    uint8_t *packed;  /* TRM_RUN_BLOCK_BYTES: a compressed block, before it replaces the raw one */

    uint8_t *out; /* OUT_BYTES: what is not written yet; ends with the open block */
    size_t block; /* where the open block's records begin in `out` */
    size_t used;  /* bytes of `out` that are in use, the open block's records included */
    uint32_t block_records;
    uint64_t offset; /* of out[0] in the file */

    trm_file *file; /* NULL: none is open */
    char *path;
    trm_segment segment; /* the open one */
    bool remote;
    uint64_t value_left; /* of a record whose value comes in pieces */

    trm_segment *segments;
    uint32_t segments_count, segments_capacity;
    trm_run_totals totals;
};

trm_status trm_run_writer_create(trm_run_writer **out, trm_fs *fs, trm_compress_policy *policy,
                                 uint64_t (*now_ns)(void), trm_err *err)
{
    trm_run_writer *self = calloc(1, sizeof *self);
    if (!self)
        return trm_err_set(err, TRM_ENOMEM, "no memory for a run writer");
    self->fs = fs;
    self->policy = policy;
    self->now_ns = now_ns;
    self->out = malloc(OUT_BYTES);
    trm_status status = TRM_OK;
    if (policy && policy->mode != TRM_COMPRESS_NONE) {
        status = trm_codec_create(&self->codec, TRM_CODEC_BACKEND_BEST, policy->level, err);
        self->packed = malloc(TRM_RUN_BLOCK_BYTES);
    }
    if (status == TRM_OK && (!self->out || (self->codec && !self->packed)))
        status = trm_err_set(err, TRM_ENOMEM, "no memory for a run writer");
    if (status != TRM_OK) {
        trm_run_writer_destroy(self);
        return status;
    }
    *out = self;
    return TRM_OK;
}

void trm_run_writer_destroy(trm_run_writer *self)
{
    if (!self)
        return;
    trm_run_writer_abort(self);
    trm_codec_destroy(self->codec);
    free(self->packed);
    free(self->out);
    free(self->segments);
    free(self);
}

bool trm_run_writer_is_open(const trm_run_writer *self)
{
    return self->file != NULL;
}

static void forget_file(trm_run_writer *self)
{
    if (self->file)
        self->fs->ops->close(self->file);
    self->file = NULL;
    free(self->path);
    self->path = NULL;
}

void trm_run_writer_abort(trm_run_writer *self)
{
    if (self->file)
        self->fs->ops->remove(self->fs, self->path, NULL); /* the failure that led here is the one to tell */
    forget_file(self);
}

trm_status trm_run_writer_open(trm_run_writer *self, const char *path, uint32_t task, uint32_t attempt,
                               uint32_t partitions, trm_err *err)
{
    assert(!self->file && partitions > 0);
    self->path = strdup(path);
    if (!self->path)
        return trm_err_set(err, TRM_ENOMEM, "no memory for a run writer");
    /* A new file: what has the name may have others, too, by which it is read. */
    trm_status status = self->fs->ops->remove(self->fs, path, err);
    if (status == TRM_OK || status == TRM_ELOST)
        status = self->fs->ops->open(self->fs, path, TRM_FS_WRITE | TRM_FS_CREATE | TRM_FS_TRUNCATE,
                                     &self->file, err);
    if (status != TRM_OK) {
        self->file = NULL;
        forget_file(self);
        return status;
    }
    trm_run_header_store(self->out, TRM_RUN_KIND_RUN, task, attempt, partitions);
    self->used = self->block = TRM_RUN_HEADER_BYTES;
    self->block_records = 0;
    self->offset = 0;
    self->value_left = 0;
    self->segments_count = 0;
    self->segment = (trm_segment){0};
    self->totals = (trm_run_totals){0};
    return TRM_OK;
}

/* ---- Bytes out ------------------------------------------------------------------ */

static trm_status flush(trm_run_writer *self, trm_err *err)
{
    if (self->used == 0)
        return TRM_OK;
    uint64_t began = self->now_ns ? self->now_ns() : 0;
    trm_status status = self->fs->ops->write_at(self->file, self->offset, self->out, self->used, err);
    if (status != TRM_OK)
        return status;
    if (self->now_ns && self->policy)
        trm_compress_policy_wrote(self->policy, self->used, self->now_ns() - began);
    self->offset += self->used;
    self->used = 0;
    return TRM_OK;
}

/* Makes room for the header and the records of a new block. */
static trm_status open_block(trm_run_writer *self, trm_err *err)
{
    if (self->used + TRM_RUN_BLOCK_HEADER_BYTES + TRM_RUN_BLOCK_BYTES > OUT_BYTES) {
        trm_status status = flush(self, err);
        if (status != TRM_OK)
            return status;
    }
    self->used += TRM_RUN_BLOCK_HEADER_BYTES;
    self->block = self->used;
    self->block_records = 0;
    return TRM_OK;
}

/* Compresses the open block in place if that is wanted and gains anything. Returns the codec. */
static trm_codec_id pack(trm_run_writer *self, size_t raw, size_t *stored)
{
    *stored = raw;
    if (!self->codec || raw < COMPRESS_BYTES_MIN || !trm_compress_policy_wants(self->policy, self->remote))
        return TRM_CODEC_NONE;
    uint64_t began = self->now_ns ? self->now_ns() : 0;
    size_t packed =
        trm_codec_compress(self->codec, self->out + self->block, raw, self->packed, raw - raw / 32);
    trm_compress_policy_compressed(self->policy, raw, packed, self->now_ns ? self->now_ns() - began : 0);
    if (packed == 0)
        return TRM_CODEC_NONE;
    memcpy(self->out + self->block, self->packed, packed);
    *stored = packed;
    return TRM_CODEC_ZLIB;
}

static bool block_is_open(const trm_run_writer *self)
{
    return self->block_records || self->used > self->block;
}

static void close_block(trm_run_writer *self, uint8_t kind)
{
    size_t raw = self->used - self->block, stored;
    assert(raw > 0 && raw <= TRM_RUN_BLOCK_BYTES);
    trm_block_header header = {
        .raw_bytes = (uint32_t)raw,
        .records = self->block_records,
        .partition = self->segment.partition,
        .kind = kind,
    };
    header.codec = (uint8_t)pack(self, raw, &stored);
    header.stored_bytes = (uint32_t)stored;
    trm_block_header_store(self->out + self->block - TRM_RUN_BLOCK_HEADER_BYTES, &header);
    self->used = self->block + stored;
    self->block = self->used;
    self->segment.stored_bytes += TRM_RUN_BLOCK_HEADER_BYTES + stored;
    self->segment.raw_bytes += raw;
    self->segment.records += self->block_records;
    self->segment.blocks++;
    if (raw > self->segment.block_bytes_max)
        self->segment.block_bytes_max = (uint32_t)raw;
    self->block_records = 0;
}

/* ---- Segments -------------------------------------------------------------------- */

static trm_status end_segment(trm_run_writer *self, trm_err *err)
{
    assert(self->value_left == 0);
    if (block_is_open(self))
        close_block(self, TRM_RUN_BLOCK_RECORDS);
    if (self->segment.blocks == 0)
        return TRM_OK;
    if (self->segments_count == TRM_RUN_SEGMENTS_MAX)
        return trm_err_set(err, TRM_ELIMIT,
                           "a run has more than %u segments: fewer partitions, or more memory",
                           TRM_RUN_SEGMENTS_MAX);
    if (self->segments_count == self->segments_capacity) {
        uint32_t capacity = self->segments_capacity ? self->segments_capacity * 2 : SEGMENTS_FIRST;
        trm_segment *segments = realloc(self->segments, capacity * sizeof *segments);
        if (!segments)
            return trm_err_set(err, TRM_ENOMEM, "no memory for the index of a run");
        self->segments = segments;
        self->segments_capacity = capacity;
    }
    self->segments[self->segments_count++] = self->segment;
    self->totals.records += self->segment.records;
    self->totals.raw_bytes += self->segment.raw_bytes;
    self->totals.stored_bytes += self->segment.stored_bytes;
    self->totals.spills = self->segment.spill + 1;
    return TRM_OK;
}

trm_status trm_run_writer_segment(trm_run_writer *self, uint32_t spill, uint32_t partition, bool remote,
                                  trm_err *err)
{
    assert(self->file);
    trm_status status = end_segment(self, err);
    if (status != TRM_OK)
        return status;
    self->segment =
        (trm_segment){.partition = partition, .spill = spill, .offset = self->offset + self->used};
    self->remote = remote;
    return TRM_OK;
}

/* ---- Records --------------------------------------------------------------------- */

/* A place for a whole record of `len` bytes. NULL: err says why. */
static uint8_t *record_room(trm_run_writer *self, size_t len, trm_status *status, trm_err *err)
{
    assert(self->file && self->value_left == 0);
    *status = TRM_OK;
    if (block_is_open(self) && self->used - self->block + len > TRM_RUN_BLOCK_BYTES)
        close_block(self, TRM_RUN_BLOCK_RECORDS);
    if (!block_is_open(self)) {
        *status = open_block(self, err);
        if (*status != TRM_OK)
            return NULL;
    }
    uint8_t *at = self->out + self->used;
    self->used += len;
    self->block_records++;
    if (len > self->segment.record_bytes_max)
        self->segment.record_bytes_max = len;
    return at;
}

trm_status trm_run_writer_put_record(trm_run_writer *self, const void *record, size_t len, trm_err *err)
{
    trm_status status;
    assert(len <= TRM_RUN_BLOCK_BYTES);
    uint8_t *at = record_room(self, len, &status, err);
    if (at)
        memcpy(at, record, len);
    return status;
}

trm_status trm_run_writer_put_key(trm_run_writer *self, const void *key, size_t key_len, uint64_t value_len,
                                  trm_err *err)
{
    trm_status status;
    size_t head = trm_varint_bytes(key_len) + trm_varint_bytes(value_len) + key_len;
    assert(key_len <= TRM_KEY_BYTES_MAX);
    bool spread = value_len > TRM_RUN_BLOCK_BYTES - head;
    if (spread && block_is_open(self))
        close_block(self, TRM_RUN_BLOCK_RECORDS);
    uint8_t *at = record_room(self, spread ? head : head + (size_t)value_len, &status, err);
    if (!at)
        return status;
    at = trm_varint_store(trm_varint_store(at, key_len), value_len);
    if (key_len)
        memcpy(at, key, key_len);
    if (head + value_len > self->segment.record_bytes_max)
        self->segment.record_bytes_max = head + value_len;
    if (spread)
        close_block(self, TRM_RUN_BLOCK_HEAD);
    else
        self->used -= (size_t)value_len; /* the room stays: put_value fills it */
    self->value_left = value_len;
    return TRM_OK;
}

trm_status trm_run_writer_put_value(trm_run_writer *self, const void *piece, size_t len, trm_err *err)
{
    assert(len <= self->value_left);
    const uint8_t *from = piece;
    self->value_left -= len;
    if (self->block_records) { /* the record is in one block, which has the room */
        if (len)
            memcpy(self->out + self->used, from, len);
        self->used += len;
        return TRM_OK;
    }
    while (len) {
        if (!block_is_open(self)) {
            trm_status status = open_block(self, err);
            if (status != TRM_OK)
                return status;
        }
        size_t room = TRM_RUN_BLOCK_BYTES - (self->used - self->block), n = len < room ? len : room;
        memcpy(self->out + self->used, from, n);
        self->used += n;
        from += n;
        len -= n;
        if (n == room)
            close_block(self, TRM_RUN_BLOCK_VALUE);
    }
    if (self->value_left == 0 && block_is_open(self))
        close_block(self, TRM_RUN_BLOCK_VALUE);
    return TRM_OK;
}

trm_status trm_run_writer_put(trm_run_writer *self, const void *key, size_t key_len, const void *value,
                              size_t value_len, trm_err *err)
{
    trm_status status = trm_run_writer_put_key(self, key, key_len, value_len, err);
    return status == TRM_OK && value_len ? trm_run_writer_put_value(self, value, value_len, err) : status;
}

/* ---- The end --------------------------------------------------------------------- */

static trm_status write_index(trm_run_writer *self, trm_err *err)
{
    trm_writer index;
    trm_writer_init(&index);
    uint64_t at = self->offset + self->used;
    trm_run_index_encode(&index, self->segments, self->segments_count);
    trm_run_footer_encode(&index, at);
    trm_status status = TRM_OK;
    if (!trm_writer_ok(&index))
        status = trm_err_set(err, TRM_ENOMEM, "no memory for the index of a run");
    if (status == TRM_OK && self->used + index.len > OUT_BYTES)
        status = flush(self, err);
    if (status == TRM_OK && index.len > OUT_BYTES) {
        status = self->fs->ops->write_at(self->file, self->offset, index.data, index.len, err);
        self->offset += index.len;
    } else if (status == TRM_OK) {
        memcpy(self->out + self->used, index.data, index.len);
        self->used += index.len;
        status = flush(self, err);
    }
    trm_writer_close(&index);
    return status;
}

trm_status trm_run_writer_finish(trm_run_writer *self, trm_run_totals *totals, trm_err *err)
{
    assert(self->file);
    trm_status status = end_segment(self, err);
    if (status == TRM_OK)
        status = write_index(self, err);
    if (status != TRM_OK) {
        trm_run_writer_abort(self);
        return status;
    }
    self->totals.file_bytes = self->offset;
    self->totals.segments = self->segments_count;
    forget_file(self);
    if (totals)
        *totals = self->totals;
    return TRM_OK;
}
