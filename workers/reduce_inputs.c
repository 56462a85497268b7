/* Writing and reading the list of a reduce's segments; format in reduce_inputs.h. */
#include "workers/reduce_inputs.h"

#include "jobs/wire.h"
#include "runtime/crc32c.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_BYTES 24u
#define FILES_AT 16u
#define CRC_BYTES 4u
#define FILE_BYTES_MIN 6u /* what a file takes without its segments, at the least */
#define SEGMENT_BYTES_MIN 8u

/* ---- Writing ---------------------------------------------------------------------------- */

void trm_reduce_list_begin(trm_reduce_list *self, uint32_t task, uint32_t attempt)
{
    trm_writer_reset(&self->out);
    trm_writer_reset(&self->head);
    trm_writer_reset(&self->pending);
    self->task = task;
    self->attempt = attempt;
    self->files = self->segments = self->file_segments = 0;
    self->map_next = 0;
    trm_put_u32(&self->out, TRM_REDUCE_LIST_MAGIC);
    trm_put_u16(&self->out, TRM_REDUCE_LIST_VERSION);
    trm_put_u16(&self->out, 0);
    trm_put_u32(&self->out, task);
    trm_put_u32(&self->out, attempt);
    trm_put_u64(&self->out, 0); /* files and segments, known at the end */
}

/* The file that was begun last goes behind the others, if it has anything. */
static void end_file(trm_reduce_list *self)
{
    if (self->file_segments) {
        trm_put_bytes(&self->out, self->head.data, self->head.len);
        trm_put_varint(&self->out, self->file_segments);
        trm_put_bytes(&self->out, self->pending.data, self->pending.len);
        self->out.failed |= self->head.failed || self->pending.failed;
        self->segments += self->file_segments;
        self->files++;
    }
    trm_writer_reset(&self->head);
    trm_writer_reset(&self->pending);
    self->file_segments = 0;
}

void trm_reduce_list_file(trm_reduce_list *self, const char *path, uint32_t map_task, uint32_t map_attempt,
                          bool fetched)
{
    assert(map_task >= self->map_next && strlen(path) < TRM_REDUCE_LIST_PATH_BYTES);
    end_file(self);
    self->map_next = (uint64_t)map_task + 1;
    self->spill_next = 0;
    trm_put_u8(&self->head, fetched);
    trm_put_varint(&self->head, map_task);
    trm_put_varint(&self->head, map_attempt);
    trm_put_string(&self->head, path);
}

void trm_reduce_list_segment(trm_reduce_list *self, const trm_segment *segment)
{
    assert(segment->partition == self->task && segment->spill >= self->spill_next && self->head.len);
    self->spill_next = (uint64_t)segment->spill + 1;
    self->file_segments++;
    trm_put_varint(&self->pending, segment->spill);
    trm_put_varint(&self->pending, segment->offset);
    trm_put_varint(&self->pending, segment->stored_bytes);
    trm_put_varint(&self->pending, segment->raw_bytes);
    trm_put_varint(&self->pending, segment->records);
    trm_put_varint(&self->pending, segment->record_bytes_max);
    trm_put_varint(&self->pending, segment->block_bytes_max);
    trm_put_varint(&self->pending, segment->blocks);
}

trm_status trm_reduce_list_write(trm_reduce_list *self, trm_fs *fs, const char *path, trm_err *err)
{
    end_file(self);
    trm_writer *out = &self->out;
    if (!trm_writer_ok(out))
        return trm_err_set(err, TRM_ENOMEM, "no memory for the list of segments of reduce %u", self->task);
    trm_store_u32(out->data + FILES_AT, self->files);
    trm_store_u32(out->data + FILES_AT + 4, self->segments);
    trm_put_u32(out, trm_crc32c(0, out->data, out->len));
    if (!trm_writer_ok(out))
        return trm_err_set(err, TRM_ENOMEM, "no memory for the list of segments of reduce %u", self->task);
    if (out->len > TRM_REDUCE_LIST_BYTES_MAX)
        return trm_err_set(err, TRM_ELIMIT, "reduce %u has too many segments (%u)", self->task,
                           self->segments);
    trm_file *file;
    trm_status status = fs->ops->open(fs, path, TRM_FS_WRITE | TRM_FS_CREATE | TRM_FS_TRUNCATE, &file, err);
    if (status != TRM_OK)
        return status;
    status = fs->ops->write_at(file, 0, out->data, out->len, err);
    fs->ops->close(file);
    if (status != TRM_OK)
        fs->ops->remove(fs, path, NULL);
    return status;
}

void trm_reduce_list_close(trm_reduce_list *self)
{
    trm_writer_close(&self->out);
    trm_writer_close(&self->head);
    trm_writer_close(&self->pending);
    *self = (trm_reduce_list){0};
}

/* ---- Reading ----------------------------------------------------------------------------- */

static uint32_t get_u32(trm_reader *in)
{
    return (uint32_t)trm_get_varint_max(in, UINT32_MAX);
}

static void get_segment(trm_reader *in, trm_segment *out)
{
    out->spill = get_u32(in);
    out->offset = trm_get_varint(in);
    out->stored_bytes =
        trm_get_varint_max(in, INT64_MAX - (out->offset <= INT64_MAX ? out->offset : INT64_MAX));
    out->raw_bytes = trm_get_varint_max(in, INT64_MAX);
    out->records = trm_get_varint_max(in, INT64_MAX);
    out->record_bytes_max = trm_get_varint_max(in, INT64_MAX);
    out->block_bytes_max = (uint32_t)trm_get_varint_max(in, TRM_RUN_BLOCK_BYTES);
    out->blocks = get_u32(in);
}

/* One file and its segments; its path goes to *paths, which has room. */
static void get_file(trm_reduce_inputs *self, trm_reader *in, uint32_t total, char **paths,
                     uint64_t *map_next)
{
    bool fetched = trm_get_u8(in) == 1;
    uint32_t map_task = (uint32_t)trm_get_varint_max(in, TRM_TASKS_MAX - 1), map_attempt = get_u32(in);
    size_t len = 0;
    const uint8_t *path = trm_get_blob(in, TRM_REDUCE_LIST_PATH_BYTES - 1, &len);
    uint64_t count = trm_get_varint_max(in, total - self->count);
    if (!trm_reader_ok(in) || len == 0 || memchr(path, 0, len) || count == 0 || map_task < *map_next) {
        trm_reader_fail(in);
        return;
    }
    memcpy(*paths, path, len);
    (*paths)[len] = 0;
    *map_next = (uint64_t)map_task + 1;
    uint64_t spill_next = 0;
    for (uint64_t i = 0; i < count && trm_reader_ok(in); i++) {
        trm_segment_at *at = &self->segments[self->count];
        *at = (trm_segment_at){.path = *paths, .task = map_task, .attempt = map_attempt};
        at->segment.partition = self->task;
        get_segment(in, &at->segment);
        if (at->segment.spill < spill_next || at->segment.records == 0)
            trm_reader_fail(in);
        spill_next = (uint64_t)at->segment.spill + 1;
        *(fetched ? &self->remote_bytes : &self->local_bytes) += at->segment.stored_bytes;
        self->raw_bytes += at->segment.raw_bytes;
        self->count++;
    }
    *paths += len + 1;
}

/* Everything after the head; what was taken is freed by the caller. */
static trm_status decode_files(trm_reduce_inputs *self, trm_reader *in, uint32_t files, uint32_t segments)
{
    if (files > trm_reader_left(in) / FILE_BYTES_MIN || segments > trm_reader_left(in) / SEGMENT_BYTES_MIN)
        return TRM_ECORRUPT;
    /* A path takes its length in front of it in the list, and a 0 behind it here. */
    self->paths = malloc(trm_reader_left(in) + 1);
    self->segments = malloc((segments + 1ul) * sizeof *self->segments);
    if (!self->paths || !self->segments)
        return TRM_ENOMEM;
    char *paths = self->paths;
    uint64_t map_next = 0;
    for (uint32_t i = 0; i < files && trm_reader_ok(in); i++)
        get_file(self, in, segments, &paths, &map_next);
    return trm_reader_done(in) && self->count == segments ? TRM_OK : TRM_ECORRUPT;
}

trm_status trm_reduce_inputs_decode(trm_reduce_inputs *self, const void *bytes, size_t len, const char *name,
                                    trm_err *err)
{
    if (len < HEAD_BYTES + CRC_BYTES ||
        trm_load_u32((const uint8_t *)bytes + len - CRC_BYTES) != trm_crc32c(0, bytes, len - CRC_BYTES))
        return trm_err_set(err, TRM_ECORRUPT, "%s: not a list of segments, or damaged", name);
    trm_reader in;
    trm_reader_init(&in, bytes, len - CRC_BYTES);
    uint32_t magic = trm_get_u32(&in);
    uint16_t version = trm_get_u16(&in), zero = trm_get_u16(&in);
    if (magic != TRM_REDUCE_LIST_MAGIC || zero)
        return trm_err_set(err, TRM_ECORRUPT, "%s: not a list of segments", name);
    if (version != TRM_REDUCE_LIST_VERSION)
        return trm_err_set(err, TRM_EVERSION, "%s: a list of segments of version %u, not %u", name, version,
                           TRM_REDUCE_LIST_VERSION);
    trm_reduce_inputs found = {.task = trm_get_u32(&in), .attempt = trm_get_u32(&in)};
    uint32_t files = trm_get_u32(&in), segments = trm_get_u32(&in);
    trm_status status = decode_files(&found, &in, files, segments);
    if (status != TRM_OK) {
        trm_reduce_inputs_close(&found);
        return status == TRM_ENOMEM
                   ? trm_err_set(err, status, "no memory for the %u segments of %s", segments, name)
                   : trm_err_set(err, status, "%s: a list of segments that makes no sense", name);
    }
    *self = found;
    return TRM_OK;
}

trm_status trm_reduce_inputs_load(trm_reduce_inputs *self, trm_fs *fs, const char *path, uint32_t task,
                                  uint32_t attempt, trm_err *err)
{
    uint8_t *bytes;
    size_t len;
    trm_status status = trm_fs_read_whole(fs, path, TRM_REDUCE_LIST_BYTES_MAX, &bytes, &len, err);
    if (status != TRM_OK)
        return status;
    trm_reduce_inputs found;
    status = trm_reduce_inputs_decode(&found, bytes, len, path, err);
    free(bytes);
    if (status != TRM_OK)
        return status;
    if (found.task != task || found.attempt != attempt) {
        status = trm_err_set(err, TRM_ECORRUPT, "%s: the list of reduce %u, attempt %u, not of %u, %u", path,
                             found.task, found.attempt, task, attempt);
        trm_reduce_inputs_close(&found);
        return status;
    }
    *self = found;
    return TRM_OK;
}

void trm_reduce_inputs_close(trm_reduce_inputs *self)
{
    free(self->segments);
    free(self->paths);
    *self = (trm_reduce_inputs){0};
}
