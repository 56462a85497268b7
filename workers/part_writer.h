/* Writes a part: pairs as text, binary pairs or raw bytes, optionally gzip; durable when
 * finish returns.
 *
 *     pair ─▶ formatted into one buffer ─▶ [deflate] ─▶ CRC-32C ─▶ file ─▶ write-back ─▶ drop ─▶ sync
 *
 * Text: key TAB value NEWLINE, numbers in decimal (doubles in the fewest digits that read back
 * as the same). Pairs: u32 key length · u32 value length · key · value. Raw: key, value.
 */
#ifndef TRM_WORKERS_PART_WRITER_H
#define TRM_WORKERS_PART_WRITER_H

#include "jobs/trireme.h"
#include "runtime/fs.h"

#define TRM_PART_BUFFER_BYTES (256u * 1024u)
/* What has been written is sent to the device this much at a time, so that the sync at the end
 * has little left to do. */
#define TRM_PART_WRITE_BACK_BYTES (4u << 20)
/* So much of a part stays in the cache for who reads it next; the rest of a larger one does not. */
#define TRM_PART_CACHED_BYTES (64u << 20)
#define TRM_PART_GZIP_LEVEL 6

typedef struct trm_part_writer trm_part_writer;

typedef struct trm_part_totals {
    uint64_t records;
    uint64_t pair_bytes; /* keys and values as given */
    uint64_t file_bytes;
    uint32_t crc; /* CRC-32C of the file */
} trm_part_totals;

/* One writer serves one part after another; buffers are made by the first. `fs` is borrowed. */
trm_status trm_part_writer_create(trm_part_writer **out, trm_fs *fs, trm_output output, trm_type key_type,
                                  trm_type value_type, bool gzip, trm_err *err);
void trm_part_writer_destroy(trm_part_writer *self); /* aborts; NULL is fine */

/* Begins a part at `path` (copied), for the user's eyes (TRM_FS_SHARED). None may be open. */
trm_status trm_part_writer_open(trm_part_writer *self, const char *path, trm_err *err);
bool trm_part_writer_is_open(const trm_part_writer *self);
/* TRM_EKERNEL when a number has not 8 bytes, TRM_ERECORD for pairs of 4 GiB and more, or what
 * writing says: then abort must follow. */
trm_status trm_part_writer_put(trm_part_writer *self, const void *key, size_t key_len, const void *value,
                               size_t value_len, trm_err *err);
/* Writes the rest, syncs file and directory, closes. On failure the file is removed. */
trm_status trm_part_writer_finish(trm_part_writer *self, trm_part_totals *totals, trm_err *err);
/* Closes and removes the file; nothing when none is open. */
void trm_part_writer_abort(trm_part_writer *self);

#define TRM_NUMBER_BYTES_MAX 32u
/* A native 8-byte number as text; returns its length. */
size_t trm_number_format(trm_type type, const void *number, char out[TRM_NUMBER_BYTES_MAX]);

#endif
