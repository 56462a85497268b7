#include "workers/run_reader.h"

#include "runtime/crc32c.h"
#include "workers/run_format.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#define TAIL_BYTES (16u * 1024u) /* read at once from the end of a run: most indexes fit */
#define SLACK_BYTES 16u          /* that may be read after a buffer's records */

static trm_status damaged(trm_err *err, const char *path, uint64_t offset, const char *what)
{
    return trm_err_set(err, TRM_ECORRUPT, "'%s' is damaged at byte %" PRIu64 ": %s", path, offset, what);
}

/* Exactly `len` bytes: a file that is shorter than it says is damaged. */
static trm_status read_exactly(trm_file *file, const char *path, uint64_t offset, void *out, size_t len,
                               trm_err *err)
{
    size_t got = 0;
    trm_status status = file->fs->ops->read_at(file, offset, out, len, &got, err);
    if (status == TRM_OK && got < len)
        return damaged(err, path, offset + got, "it ends here");
    return status;
}

/* ---- The index ------------------------------------------------------------------ */

/* Takes a whole index over; `begin` and `end` bound its segments in the file. */
static trm_status take_index(trm_run_index *self, const uint8_t *at, size_t len, uint64_t begin, uint64_t end,
                             const char *path, trm_err *err)
{
    uint32_t count;
    if (len < trm_run_index_bytes(0) || !trm_run_index_count(at, &count) || trm_run_index_bytes(count) != len)
        return damaged(err, path, begin, "this is no index");
    trm_segment *segments = malloc((count ? count : 1) * sizeof *segments);
    if (!segments)
        return trm_err_set(err, TRM_ENOMEM, "no memory for the index of '%s'", path);
    if (!trm_run_index_decode(at, len, self->partitions, begin, end, segments)) {
        free(segments);
        return damaged(err, path, begin, "its index has a wrong checksum or shape");
    }
    self->segments = segments;
    self->count = count;
    return TRM_OK;
}

static trm_status read_index_at(trm_run_index *self, trm_file *file, const char *path, uint64_t offset,
                                size_t len, uint64_t begin, uint64_t end, trm_err *err)
{
    uint8_t *bytes = malloc(len);
    if (!bytes)
        return trm_err_set(err, TRM_ENOMEM, "no memory for the index of '%s'", path);
    trm_status status = read_exactly(file, path, offset, bytes, len, err);
    if (status == TRM_OK)
        status = take_index(self, bytes, len, begin, end, path, err);
    free(bytes);
    return status;
}

static trm_status read_run_index(trm_run_index *self, trm_file *file, const char *path, uint64_t file_bytes,
                                 trm_err *err)
{
    uint8_t tail[TAIL_BYTES];
    size_t len = file_bytes < TAIL_BYTES ? (size_t)file_bytes : TAIL_BYTES;
    uint64_t offset = 0, tail_at = file_bytes - len;
    uint32_t index_bytes = 0;
    trm_status status = read_exactly(file, path, tail_at, tail, len, err);
    if (status != TRM_OK)
        return status;
    if (len < TRM_RUN_HEADER_BYTES + TRM_RUN_FOOTER_BYTES ||
        !trm_run_footer_load(tail + len - TRM_RUN_FOOTER_BYTES, &offset, &index_bytes) ||
        offset < TRM_RUN_HEADER_BYTES || offset > file_bytes - TRM_RUN_FOOTER_BYTES ||
        index_bytes != file_bytes - TRM_RUN_FOOTER_BYTES - offset)
        return damaged(err, path, file_bytes, "it does not end like a run");
    if (offset >= tail_at)
        return take_index(self, tail + (offset - tail_at), index_bytes, TRM_RUN_HEADER_BYTES, offset, path,
                          err);
    return read_index_at(self, file, path, offset, index_bytes, TRM_RUN_HEADER_BYTES, offset, err);
}

trm_status trm_run_index_read(trm_run_index *self, trm_file *file, const char *path, trm_err *err)
{
    uint8_t head[TRM_RUN_HEADER_BYTES + TRM_RUN_INDEX_HEAD_BYTES];
    uint64_t file_bytes;
    trm_run_index loaded = {0};
    trm_status status = file->fs->ops->size(file, &file_bytes, err);
    if (status == TRM_OK)
        status = read_exactly(file, path, 0, head, sizeof head, err);
    if (status != TRM_OK)
        return status;
    uint8_t kind;
    status = trm_run_header_load(head, &kind, &loaded.task, &loaded.attempt, &loaded.partitions);
    if (status == TRM_EVERSION)
        return trm_err_set(err, status, "'%s' is a run of another version", path);
    if (status != TRM_OK)
        return damaged(err, path, 0, "it does not begin like a run");
    if (kind == TRM_RUN_KIND_RUN) {
        status = read_run_index(&loaded, file, path, file_bytes, err);
    } else {
        uint32_t count;
        if (!trm_run_index_count(head + TRM_RUN_HEADER_BYTES, &count) ||
            trm_run_index_bytes(count) > file_bytes - TRM_RUN_HEADER_BYTES)
            return damaged(err, path, TRM_RUN_HEADER_BYTES, "this is no index");
        size_t len = trm_run_index_bytes(count);
        status = read_index_at(&loaded, file, path, TRM_RUN_HEADER_BYTES, len, TRM_RUN_HEADER_BYTES + len,
                               file_bytes, err);
    }
    if (status == TRM_OK)
        *self = loaded;
    return status;
}

trm_status trm_run_index_load(trm_run_index *self, trm_fs *fs, const char *path, trm_err *err)
{
    trm_file *file;
    trm_status status = fs->ops->open(fs, path, TRM_FS_READ, &file, err);
    if (status != TRM_OK)
        return status;
    status = trm_run_index_read(self, file, path, err);
    fs->ops->close(file);
    return status;
}

void trm_run_index_close(trm_run_index *self)
{
    free(self->segments);
    *self = (trm_run_index){0};
}

size_t trm_run_index_segments(const trm_run_index *self, const char *path, uint32_t first, uint32_t last,
                              size_t skip, trm_segment_at *out, size_t max)
{
    size_t found = 0;
    for (uint32_t i = 0; i < self->count; i++) {
        const trm_segment *s = &self->segments[i];
        if (s->partition < first || s->partition >= last)
            continue;
        if (found >= skip && found - skip < max)
            out[found - skip] = (trm_segment_at){path, *s, self->task, self->attempt};
        found++;
    }
    return found > skip ? found - skip : 0;
}

/* ---- Extracts --------------------------------------------------------------------- */

/* Segments that lie side by side in the run are one piece. */
static void add_piece(trm_run_extract *self, const trm_segment *segment, uint64_t at)
{
    struct trm_run_piece *last = self->pieces_count ? &self->pieces[self->pieces_count - 1] : NULL;
    if (last && last->offset + last->bytes == segment->offset)
        last->bytes += segment->stored_bytes;
    else
        self->pieces[self->pieces_count++] =
            (struct trm_run_piece){at, segment->offset, segment->stored_bytes};
}

trm_status trm_run_extract_open(trm_run_extract *self, const trm_run_index *index, uint32_t first,
                                uint32_t last, trm_err *err)
{
    trm_run_extract made = {0};
    uint32_t count = 0;
    for (uint32_t i = 0; i < index->count; i++)
        count += index->segments[i].partition >= first && index->segments[i].partition < last;
    trm_segment *segments = malloc((count ? count : 1) * sizeof *segments);
    made.pieces = malloc((count ? count : 1) * sizeof *made.pieces);
    uint8_t *header = trm_writer_extend(&made.head, TRM_RUN_HEADER_BYTES);
    if (segments && made.pieces && header) {
        uint64_t at = TRM_RUN_HEADER_BYTES + trm_run_index_bytes(count);
        trm_run_header_store(header, TRM_RUN_KIND_EXTRACT, index->task, index->attempt, index->partitions);
        uint32_t filled = 0;
        for (uint32_t i = 0; i < index->count; i++) {
            const trm_segment *s = &index->segments[i];
            if (s->partition < first || s->partition >= last)
                continue;
            add_piece(&made, s, at);
            segments[filled] = *s;
            segments[filled++].offset = at;
            at += s->stored_bytes;
        }
        trm_run_index_encode(&made.head, segments, count);
        made.total_bytes = at;
    }
    bool whole = segments && made.pieces && header && trm_writer_ok(&made.head);
    free(segments);
    if (!whole) {
        trm_run_extract_close(&made);
        return trm_err_set(err, TRM_ENOMEM, "no memory for the index of an extract");
    }
    *self = made;
    return TRM_OK;
}

void trm_run_extract_close(trm_run_extract *self)
{
    trm_writer_close(&self->head);
    free(self->pieces);
    *self = (trm_run_extract){0};
}

/* The last piece that begins at or before `offset`. */
static uint32_t find_piece(const trm_run_extract *self, uint64_t offset)
{
    uint32_t low = 0, high = self->pieces_count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (self->pieces[middle].at <= offset)
            low = middle;
        else
            high = middle;
    }
    return low;
}

trm_status trm_run_extract_read(const trm_run_extract *self, trm_file *file, uint64_t offset, void *out,
                                size_t len, trm_err *err)
{
    assert(offset <= self->total_bytes && len <= self->total_bytes - offset);
    uint8_t *to = out;
    if (len && offset < self->head.len) {
        size_t n = self->head.len - (size_t)offset < len ? self->head.len - (size_t)offset : len;
        memcpy(to, self->head.data + offset, n);
        to += n;
        offset += n;
        len -= n;
    }
    for (uint32_t i = len ? find_piece(self, offset) : 0; len; i++) {
        const struct trm_run_piece *piece = &self->pieces[i];
        uint64_t within = offset - piece->at;
        size_t n = piece->bytes - within < len ? (size_t)(piece->bytes - within) : len;
        trm_status status = read_exactly(file, "a run", piece->offset + within, to, n, err);
        if (status != TRM_OK)
            return status;
        to += n;
        offset += n;
        len -= n;
    }
    return TRM_OK;
}

/* ---- Blocks ------------------------------------------------------------------------- */

#define STORED_BYTES (2u * (TRM_RUN_BLOCK_HEADER_BYTES + TRM_RUN_BLOCK_BYTES))

trm_status trm_block_reader_init(trm_block_reader *self, trm_compress_policy *policy,
                                 uint64_t (*now_ns)(void), trm_err *err)
{
    *self = (trm_block_reader){.policy = policy, .now_ns = now_ns, .stored = malloc(STORED_BYTES)};
    trm_status status = trm_codec_create(&self->codec, TRM_CODEC_BACKEND_BEST, TRM_CODEC_LEVEL_MIN, err);
    if (status == TRM_OK && !self->stored)
        status = trm_err_set(err, TRM_ENOMEM, "no memory for reading blocks");
    if (status != TRM_OK)
        trm_block_reader_close(self);
    return status;
}

void trm_block_reader_close(trm_block_reader *self)
{
    trm_codec_destroy(self->codec);
    free(self->stored);
    *self = (trm_block_reader){0};
}

size_t trm_segment_buffer_bytes(const trm_segment *segment)
{
    return (TRM_RUN_BLOCK_HEADER_BYTES + (size_t)segment->block_bytes_max + SLACK_BYTES + 7) / 8 * 8;
}

void trm_segment_reader_init(trm_segment_reader *self, const trm_segment_at *source, trm_file *file,
                             trm_block_reader *shared, uint8_t *buffer, size_t buffer_bytes)
{
    assert(buffer_bytes >= trm_segment_buffer_bytes(&source->segment));
    *self = (trm_segment_reader){
        .records_left = source->segment.records,
        .offset = source->segment.offset,
        .offset_end = source->segment.offset + source->segment.stored_bytes,
        .stored_guess = source->segment.block_bytes_max,
        .buffer = buffer,
        .buffer_bytes = buffer_bytes,
        .at = buffer,
        .end = buffer,
        .file = file,
        .shared = shared,
        .source = source,
    };
}

static trm_status bad_block(const trm_segment_reader *self, const char *what, trm_err *err)
{
    trm_status status = damaged(err, self->source->path, self->offset, what);
    trm_err_wrap(err, "output of map task %u (attempt %u)", self->source->task, self->source->attempt);
    return status;
}

/* Decompresses into the reader's own buffer. */
static trm_status unpack(trm_segment_reader *self, const trm_block_header *header, const uint8_t *stored,
                         trm_err *err)
{
    trm_block_reader *shared = self->shared;
    uint64_t began = shared->now_ns ? shared->now_ns() : 0;
    if (trm_codec_decompress(shared->codec, stored, header->stored_bytes, self->buffer, header->raw_bytes,
                             NULL))
        return bad_block(self, "a block does not decompress", err);
    if (shared->policy && shared->now_ns)
        trm_compress_policy_decompressed(shared->policy, header->raw_bytes, shared->now_ns() - began);
    self->at = self->buffer;
    return TRM_OK;
}

/* Reads the block at self->offset whole: header and stored bytes are in *at, which is the
 * reader's buffer when the block is stored as it is and the shared one when it is compressed. One
 * system call, unless the guess of its size was too small. */
static trm_status fetch_block(trm_segment_reader *self, trm_block_header *header, uint8_t **at, trm_err *err)
{
    const size_t head = TRM_RUN_BLOCK_HEADER_BYTES;
    uint64_t left = self->offset_end - self->offset;
    size_t guess = head + self->stored_guess;
    size_t have = guess < left ? guess : (size_t)left;
    uint8_t *into = self->packed ? self->shared->stored : self->buffer;
    if (left <= head)
        return bad_block(self, "a block is cut off", err);
    trm_status status = read_exactly(self->file, self->source->path, self->offset, into, have, err);
    if (status != TRM_OK)
        return status;
    if (!trm_block_header_load(header, into) || header->raw_bytes > self->source->segment.block_bytes_max ||
        header->stored_bytes > left - head || header->partition != self->source->segment.partition)
        return bad_block(self, "this is no block", err);
    bool packed = header->codec != TRM_CODEC_NONE;
    size_t whole = head + header->stored_bytes;
    if (packed != self->packed) {
        uint8_t *other = packed ? self->shared->stored : self->buffer;
        memcpy(other, into, have < whole ? have : whole);
        into = other;
    }
    if (have < whole)
        status =
            read_exactly(self->file, self->source->path, self->offset + have, into + have, whole - have, err);
    self->packed = packed;
    self->stored_guess =
        packed ? header->stored_bytes + header->stored_bytes / 8 : self->source->segment.block_bytes_max;
    if (self->stored_guess > self->source->segment.block_bytes_max)
        self->stored_guess = self->source->segment.block_bytes_max;
    self->shared->stored_bytes_read += whole;
    *at = into;
    return status;
}

/* Loads the next block: its raw bytes are [self->at, self->end). */
static trm_status next_block(trm_segment_reader *self, uint8_t *kind, trm_err *err)
{
    trm_block_header header;
    uint8_t *at = NULL;
    trm_status status = fetch_block(self, &header, &at, err);
    if (status != TRM_OK)
        return status;
    if (!trm_block_check(at, at + TRM_RUN_BLOCK_HEADER_BYTES, header.stored_bytes))
        return bad_block(self, "a block has a wrong checksum", err);
    self->at = at + TRM_RUN_BLOCK_HEADER_BYTES;
    if (header.codec != TRM_CODEC_NONE) {
        status = unpack(self, &header, self->at, err);
        if (status != TRM_OK)
            return status;
    }
    self->end = self->at + header.raw_bytes;
    self->offset += TRM_RUN_BLOCK_HEADER_BYTES + header.stored_bytes;
    *kind = header.kind;
    return TRM_OK;
}

/* ---- Records ------------------------------------------------------------------------- */

trm_status trm_segment_value(trm_segment_reader *self, const uint8_t **piece, size_t *len, trm_err *err)
{
    if (self->value_left == 0)
        return TRM_EOF;
    uint8_t kind;
    trm_status status = next_block(self, &kind, err);
    if (status != TRM_OK)
        return status;
    size_t n = (size_t)(self->end - self->at);
    if (kind != TRM_RUN_BLOCK_VALUE || n > self->value_left)
        return bad_block(self, "a large value is damaged", err);
    self->value_left -= n;
    *piece = self->at;
    *len = n;
    self->at = self->end;
    return TRM_OK;
}

/* Parses the record at self->at; `head` when its value lies in the blocks after this. */
static trm_status parse_record(trm_segment_reader *self, bool head, trm_err *err)
{
    trm_reader in;
    trm_reader_init(&in, self->at, (size_t)(self->end - self->at));
    uint64_t key_len = trm_get_varint_max(&in, TRM_KEY_BYTES_MAX), value_len = trm_get_varint(&in);
    const uint8_t *key = trm_get_bytes(&in, (size_t)key_len);
    const uint8_t *value =
        head ? NULL : trm_get_bytes(&in, value_len < SIZE_MAX ? (size_t)value_len : SIZE_MAX);
    if (!trm_reader_ok(&in) || self->records_left == 0 || (head && (!trm_reader_done(&in) || value_len == 0)))
        return bad_block(self, "a record is damaged", err);
    self->key = key;
    self->key_len = (size_t)key_len;
    self->value = value;
    self->value_len = value_len;
    self->spread = head;
    self->record = self->at;
    self->record_len = (size_t)(in.at - self->at);
    self->value_left = head ? value_len : 0;
    self->records_left--;
    self->at = in.at;
    return TRM_OK;
}

trm_status trm_segment_next_slow(trm_segment_reader *self, trm_err *err)
{
    const uint8_t *piece;
    size_t len;
    while (self->value_left) {
        trm_status status = trm_segment_value(self, &piece, &len, err);
        if (status != TRM_OK)
            return status;
    }
    uint8_t kind = TRM_RUN_BLOCK_RECORDS;
    if (self->at == self->end) {
        if (self->offset == self->offset_end)
            return self->records_left ? bad_block(self, "records are missing", err) : TRM_EOF;
        trm_status status = next_block(self, &kind, err);
        if (status != TRM_OK)
            return status;
        if (kind == TRM_RUN_BLOCK_VALUE)
            return bad_block(self, "a large value has no head", err);
    }
    return parse_record(self, kind == TRM_RUN_BLOCK_HEAD, err);
}
