/* Reads runs and extracts (format in run.h): the index, extracts for other hosts, and the
 * records of a segment.
 *
 * Whatever is read may be damaged: every length is checked, every block carries its
 * checksum. A damaged or shortened file is TRM_ECORRUPT with its path and offset, one that is
 * not there TRM_ELOST.
 */
#ifndef TRM_WORKERS_RUN_READER_H
#define TRM_WORKERS_RUN_READER_H

#include "runtime/bytes.h"
#include "runtime/codec.h"
#include "workers/compress_policy.h"
#include "workers/run.h"

/* ---- The index ------------------------------------------------------------ */

typedef struct trm_run_index {
    uint32_t task, attempt; /* of the map that wrote it */
    uint32_t partitions;
    uint32_t count;
    trm_segment *segments; /* in file order, that is by (spill, partition); from malloc */
} trm_run_index;

/* Loads the index of a run or an extract (told by its header): usually two reads. Every
 * segment lies within the file. The caller closes it. TRM_ELOST, TRM_ECORRUPT, TRM_EVERSION,
 * TRM_ENOMEM, TRM_EIO. */
trm_status trm_run_index_load(trm_run_index *self, trm_fs *fs, const char *path, trm_err *err);
/* The same of a file that is open; `path` is for messages. */
trm_status trm_run_index_read(trm_run_index *self, trm_file *file, const char *path, trm_err *err);
void trm_run_index_close(trm_run_index *self);
/* Fills up to `max` of the segments of partitions [first, last), from the `skip`th on;
 * returns how many there are in all after `skip`. `path` is borrowed by what is filled. */
size_t trm_run_index_segments(const trm_run_index *self, const char *path, uint32_t first, uint32_t last,
                              size_t skip, trm_segment_at *out, size_t max);

/* ---- Extracts: what travels to another host ---------------------------------- */

/* Partitions [first, last) of a run as one range of bytes, of which any part can be read at
 * any time: header and index in memory, the rest straight from the run. Written to a file in
 * the receiver's store, the bytes [0, total_bytes) are an extract (run.h), to be opened with
 * trm_run_index_load. Borrows nothing after open. */
typedef struct trm_run_extract {
    uint64_t total_bytes; /* header and index included; never 0 */
    trm_writer head;      /* header and index */
    struct trm_run_piece {
        uint64_t at;     /* where it begins in the extract */
        uint64_t offset; /* … and in the run */
        uint64_t bytes;
    } * pieces; /* adjacent segments are one piece */
    uint32_t pieces_count;
} trm_run_extract;

/* Makes it. A range without records has an index without segments. TRM_ENOMEM. */
trm_status trm_run_extract_open(trm_run_extract *self, const trm_run_index *index, uint32_t first,
                                uint32_t last, trm_err *err);
void trm_run_extract_close(trm_run_extract *self);
/* Reads exactly `len` bytes from `offset` on, offset + len ≤ total_bytes (asserted).
 * Checksums are the receiver's business. TRM_ECORRUPT when the file has shrunk, TRM_EIO. */
trm_status trm_run_extract_read(const trm_run_extract *self, trm_file *file, uint64_t offset, void *out,
                                size_t len, trm_err *err);

/* ---- The records of a segment ----------------------------------------------- */

/* What readers of one thread share: the codec, and room for a stored block. */
typedef struct trm_block_reader {
    trm_codec *codec;
    trm_compress_policy *policy; /* told how fast blocks decompress; may be NULL */
    uint64_t (*now_ns)(void);    /* may be NULL */
    uint8_t *stored;             /* TRM_RUN_BLOCK_HEADER_BYTES + TRM_RUN_BLOCK_BYTES, twice */
    uint64_t stored_bytes_read;
} trm_block_reader;
#define TRM_BLOCK_READER_BYTES                                                                               \
    (2u * (TRM_RUN_BLOCK_HEADER_BYTES + TRM_RUN_BLOCK_BYTES) + TRM_CODEC_MEMORY_BYTES)

trm_status trm_block_reader_init(trm_block_reader *self, trm_compress_policy *policy,
                                 uint64_t (*now_ns)(void), trm_err *err);
void trm_block_reader_close(trm_block_reader *self);

/* Walks over a segment. After TRM_OK from trm_segment_next the record's key is in place.
 * `value` too, unless `spread`: then the record is larger than a block and its value comes by
 * trm_segment_value, piece by piece; what is not asked for is skipped (and checked). */
typedef struct trm_segment_reader {
    const uint8_t *key, *value;
    size_t key_len;
    uint64_t value_len;
    const uint8_t *record; /* the whole record as stored: record_len bytes; not when spread */
    size_t record_len;
    bool spread;
    /* Private. */
    const uint8_t *at, *end; /* what is left of the block */
    uint64_t value_left;     /* of a spread value */
    uint64_t records_left;   /* of the segment, for the check at its end */
    uint64_t offset, offset_end;
    size_t stored_guess; /* the stored bytes of the block before */
    bool packed;         /* it was compressed */
    uint8_t *buffer;
    size_t buffer_bytes;
    trm_file *file;
    trm_block_reader *shared;
    const trm_segment_at *source;
} trm_segment_reader;

/* How large a buffer a segment needs: room for its largest block as it is read. */
size_t trm_segment_buffer_bytes(const trm_segment *segment);
/* Borrows everything. `file` is source->path opened for reading. Reads nothing yet. */
void trm_segment_reader_init(trm_segment_reader *self, const trm_segment_at *source, trm_file *file,
                             trm_block_reader *shared, uint8_t *buffer, size_t buffer_bytes);
trm_status trm_segment_next_slow(trm_segment_reader *self, trm_err *err);
/* The next record; TRM_EOF after the last. Key and value are valid until the next call of
 * this or of trm_segment_value; 16 bytes after either may be read (they are the buffer's). */
static inline trm_status trm_segment_next(trm_segment_reader *self, trm_err *err)
{
    const uint8_t *at = self->at;
    size_t left = (size_t)(self->end - at);
    if (__builtin_expect(left >= 2 && !((at[0] | at[1]) & 0x80) && !self->value_left, 1)) {
        size_t key_len = at[0], value_len = at[1];
        if (__builtin_expect(key_len + value_len <= left - 2 && self->records_left, 1)) {
            self->record = at;
            self->record_len = 2 + key_len + value_len;
            self->key = at + 2;
            self->key_len = key_len;
            self->value = at + 2 + key_len;
            self->value_len = value_len;
            self->at = at + 2 + key_len + value_len;
            self->spread = false;
            self->records_left--;
            return TRM_OK;
        }
    }
    return trm_segment_next_slow(self, err);
}
/* The next piece of a spread value, never empty, valid until the next call; TRM_EOF after the
 * last. The key stays valid until the first call: copy it before. */
trm_status trm_segment_value(trm_segment_reader *self, const uint8_t **piece, size_t *len, trm_err *err);

#endif
