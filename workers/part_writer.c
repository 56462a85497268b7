#include "workers/part_writer.h"

#include "runtime/bytes.h"
#include "runtime/crc32c.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

struct trm_part_writer {
    uint8_t *buffer; /* formatted; what is not written yet */
    size_t used;
    trm_output output;
    trm_type key_type, value_type;
    trm_part_totals totals;
    uint64_t written_back; /* sent to the device, */
    uint64_t dropped;      /* arrived there and out of the cache; all but what is to be cached */
    trm_fs *fs;
    trm_file *file;
    char *path;
    bool gzip;
    bool deflating;  /* `stream` is made */
    uint8_t *packed; /* TRM_PART_BUFFER_BYTES for deflate's output */
    z_stream stream;
};

trm_status trm_part_writer_create(trm_part_writer **out, trm_fs *fs, trm_output output, trm_type key_type,
                                  trm_type value_type, bool gzip, trm_err *err)
{
    trm_part_writer *self = calloc(1, sizeof *self);
    if (!self)
        return trm_err_set(err, TRM_ENOMEM, "no memory to write parts");
    self->fs = fs;
    self->output = output;
    self->key_type = key_type;
    self->value_type = value_type;
    self->gzip = gzip;
    *out = self;
    return TRM_OK;
}

void trm_part_writer_destroy(trm_part_writer *self)
{
    if (!self)
        return;
    trm_part_writer_abort(self);
    if (self->deflating)
        deflateEnd(&self->stream);
    free(self->packed);
    free(self->buffer);
    free(self);
}

bool trm_part_writer_is_open(const trm_part_writer *self)
{
    return self->file != NULL;
}

static trm_status prepare(trm_part_writer *self, trm_err *err)
{
    if (!self->buffer)
        self->buffer = malloc(TRM_PART_BUFFER_BYTES);
    if (self->gzip && !self->packed)
        self->packed = malloc(TRM_PART_BUFFER_BYTES);
    if (self->gzip && !self->deflating)
        self->deflating = deflateInit2(&self->stream, TRM_PART_GZIP_LEVEL, Z_DEFLATED, 15 + 16, 8,
                                       Z_DEFAULT_STRATEGY) == Z_OK;
    else if (self->gzip)
        deflateReset(&self->stream);
    if (!self->buffer || (self->gzip && (!self->packed || !self->deflating)))
        return trm_err_set(err, TRM_ENOMEM, "no memory to write a part");
    return TRM_OK;
}

trm_status trm_part_writer_open(trm_part_writer *self, const char *path, trm_err *err)
{
    assert(!self->file);
    trm_status status = prepare(self, err);
    if (status != TRM_OK)
        return status;
    char *copy = strdup(path);
    if (!copy)
        return trm_err_set(err, TRM_ENOMEM, "no memory to write a part");
    status = self->fs->ops->open(
        self->fs, path, TRM_FS_WRITE | TRM_FS_CREATE | TRM_FS_TRUNCATE | TRM_FS_SHARED, &self->file, err);
    if (status != TRM_OK) {
        self->file = NULL;
        free(copy);
        return status;
    }
    self->path = copy;
    self->totals = (trm_part_totals){0};
    self->used = 0;
    self->written_back = 0;
    self->dropped = TRM_PART_CACHED_BYTES;
    return TRM_OK;
}

void trm_part_writer_abort(trm_part_writer *self)
{
    if (!self->file)
        return;
    self->fs->ops->close(self->file);
    self->file = NULL;
    self->fs->ops->remove(self->fs, self->path, NULL);
    free(self->path);
    self->path = NULL;
}

/* ---- Bytes to the file ------------------------------------------------------------- */

/* What is written goes to the device at once, so that the sync at the end is short. Of a large part
 * what was sent two turns ago leaves the cache: its pages are used again while they are warm, and what
 * the cache holds for the merge, runs that are read block by block, stays. */
static trm_status send_off(trm_part_writer *self, trm_err *err)
{
    const trm_fs_ops *ops = self->fs->ops;
    uint64_t sent = self->written_back, now = self->totals.file_bytes;
    if (ops->write_back)
        ops->write_back(self->file, sent, now - sent);
    self->written_back = now;
    uint64_t from = self->dropped, until = sent - TRM_PART_WRITE_BACK_BYTES;
    if (!ops->drop || sent < from + 2 * TRM_PART_WRITE_BACK_BYTES)
        return TRM_OK;
    self->dropped = until;
    return ops->drop(self->file, from, until - from, err);
}

static trm_status write_out(trm_part_writer *self, const void *bytes, size_t len, trm_err *err)
{
    const trm_fs_ops *ops = self->fs->ops;
    trm_part_totals *totals = &self->totals;
    trm_status status = len ? ops->write_at(self->file, totals->file_bytes, bytes, len, err) : TRM_OK;
    if (status != TRM_OK)
        return status;
    totals->crc = trm_crc32c(totals->crc, bytes, len);
    totals->file_bytes += len;
    return totals->file_bytes - self->written_back >= TRM_PART_WRITE_BACK_BYTES ? send_off(self, err)
                                                                                : TRM_OK;
}

static trm_status deflate_out(trm_part_writer *self, const void *bytes, size_t len, int flush, trm_err *err)
{
    z_stream *stream = &self->stream;
    stream->next_in = (Bytef *)bytes;
    stream->avail_in = (uInt)len;
    int result;
    do {
        stream->next_out = self->packed;
        stream->avail_out = TRM_PART_BUFFER_BYTES;
        result = deflate(stream, flush);
        assert(result == Z_OK || result == Z_STREAM_END || result == Z_BUF_ERROR);
        trm_status status = write_out(self, self->packed, TRM_PART_BUFFER_BYTES - stream->avail_out, err);
        if (status != TRM_OK)
            return status;
    } while (stream->avail_out == 0 || (flush == Z_FINISH && result != Z_STREAM_END));
    return TRM_OK;
}

static trm_status flush(trm_part_writer *self, trm_err *err)
{
    size_t len = self->used;
    self->used = 0;
    return self->gzip ? deflate_out(self, self->buffer, len, Z_NO_FLUSH, err)
                      : write_out(self, self->buffer, len, err);
}

static trm_status append_slowly(trm_part_writer *self, const uint8_t *bytes, size_t len, trm_err *err)
{
    while (len) {
        size_t room = TRM_PART_BUFFER_BYTES - self->used, now = len < room ? len : room;
        memcpy(self->buffer + self->used, bytes, now);
        self->used += now;
        bytes += now;
        len -= now;
        trm_status status = self->used == TRM_PART_BUFFER_BYTES ? flush(self, err) : TRM_OK;
        if (status != TRM_OK)
            return status;
    }
    return TRM_OK;
}

static inline trm_status append(trm_part_writer *self, const void *bytes, size_t len, trm_err *err)
{
    if (len >= TRM_PART_BUFFER_BYTES - self->used)
        return append_slowly(self, bytes, len, err);
    if (len)
        memcpy(self->buffer + self->used, bytes, len);
    self->used += len;
    return TRM_OK;
}

/* ---- Pairs to bytes ---------------------------------------------------------------- */

static size_t format_u64(uint64_t value, char *out)
{
    char digits[20];
    size_t n = 0;
    do {
        digits[n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    for (size_t i = 0; i < n; i++)
        out[i] = digits[n - 1 - i];
    return n;
}

static size_t format_i64(int64_t value, char *out)
{
    if (value >= 0)
        return format_u64((uint64_t)value, out);
    *out = '-';
    return 1 + format_u64(-(uint64_t)value, out + 1);
}

static size_t format_f64(double value, char *out)
{
    if (fabs(value) < 1e15 && value == (double)(int64_t)value && !(value == 0 && signbit(value)))
        return format_i64((int64_t)value, out);
    int len = 0;
    for (int digits = 15; digits <= 17; digits++) {
        len = snprintf(out, TRM_NUMBER_BYTES_MAX, "%.*g", digits, value);
        if (strtod(out, NULL) == value)
            break;
    }
    return (size_t)len;
}

size_t trm_number_format(trm_type type, const void *number, char out[TRM_NUMBER_BYTES_MAX])
{
    uint64_t word = trm_load_u64(number);
    double real;
    memcpy(&real, number, sizeof real);
    switch (type) {
    case TRM_U64:
        return format_u64(word, out);
    case TRM_I64:
        return format_i64((int64_t)word, out);
    case TRM_F64:
        return format_f64(real, out);
    case TRM_BYTES:
        break;
    }
    assert(!"bytes are no number");
    return 0;
}

static trm_status put_text(trm_part_writer *self, trm_type type, const char *what, const void *bytes,
                           size_t len, char after, trm_err *err)
{
    char number[TRM_NUMBER_BYTES_MAX];
    if (type != TRM_BYTES) {
        if (len != 8)
            return trm_err_set(err, TRM_EKERNEL,
                               "the %s of the output is a number of 8 bytes, but one of %zu was emitted",
                               what, len);
        len = trm_number_format(type, bytes, number);
        bytes = number;
    }
    if (len + 1 < TRM_PART_BUFFER_BYTES - self->used) {
        if (len)
            memcpy(self->buffer + self->used, bytes, len);
        self->buffer[self->used + len] = (uint8_t)after;
        self->used += len + 1;
        return TRM_OK;
    }
    trm_status status = append(self, bytes, len, err);
    return status == TRM_OK ? append(self, &after, 1, err) : status;
}

static trm_status put_lengths(trm_part_writer *self, size_t key_len, size_t value_len, trm_err *err)
{
    uint8_t head[8];
    if (key_len > UINT32_MAX || value_len > UINT32_MAX)
        return trm_err_set(err, TRM_ERECORD,
                           "a pair of %zu and %zu bytes is too large for the output of pairs", key_len,
                           value_len);
    trm_store_u32(head, (uint32_t)key_len);
    trm_store_u32(head + 4, (uint32_t)value_len);
    return append(self, head, sizeof head, err);
}

trm_status trm_part_writer_put(trm_part_writer *self, const void *key, size_t key_len, const void *value,
                               size_t value_len, trm_err *err)
{
    assert(self->file);
    self->totals.records++;
    self->totals.pair_bytes += key_len + value_len;
    if (self->output == TRM_OUTPUT_TEXT) {
        trm_status text = put_text(self, self->key_type, "key", key, key_len, '\t', err);
        return text == TRM_OK ? put_text(self, self->value_type, "value", value, value_len, '\n', err) : text;
    }
    if (self->output == TRM_OUTPUT_RAW && (const uint8_t *)key + key_len == (const uint8_t *)value)
        return append(self, key, key_len + value_len, err); /* as they lie in a run */
    trm_status status =
        self->output == TRM_OUTPUT_PAIRS ? put_lengths(self, key_len, value_len, err) : TRM_OK;
    if (status == TRM_OK)
        status = append(self, key, key_len, err);
    return status == TRM_OK ? append(self, value, value_len, err) : status;
}

/* ---- The end ----------------------------------------------------------------------- */

static trm_status sync_directory(trm_part_writer *self, trm_err *err)
{
    char *slash = strrchr(self->path, '/');
    if (!slash)
        return self->fs->ops->sync_dir(self->fs, ".", err);
    *slash = 0;
    trm_status status = self->fs->ops->sync_dir(self->fs, slash == self->path ? "/" : self->path, err);
    *slash = '/';
    return status;
}

trm_status trm_part_writer_finish(trm_part_writer *self, trm_part_totals *totals, trm_err *err)
{
    assert(self->file);
    trm_status status = flush(self, err);
    if (status == TRM_OK && self->gzip)
        status = deflate_out(self, self->buffer, 0, Z_FINISH, err);
    if (status == TRM_OK)
        status = self->fs->ops->sync(self->file, err);
    if (status == TRM_OK)
        status = sync_directory(self, err);
    if (status != TRM_OK) {
        trm_part_writer_abort(self);
        return status;
    }
    self->fs->ops->close(self->file);
    self->file = NULL;
    free(self->path);
    self->path = NULL;
    *totals = self->totals;
    return TRM_OK;
}
