/* A run: what one attempt of a map leaves for the reduces, one file.
 *
 * Sorted segments, one a spill and partition, each a sequence of blocks; each block
 * holds whole records, stored as they are or in zlib's format, with its own checksum.
 * The index says where each segment lies; empty segments are not listed.
 *
 *   run      header │ segment (spill 0, partition 0) │ (0, 1) │ … │ (1, 0) │ … │ index │ footer
 *   extract  header │ index │ the segments of some partitions, as they are in the run
 *
 * An extract is what travels to another host: offsets in its index are its own, blocks are
 * those of the run, byte for byte. A run ends with its index because its writer learns it
 * last, an extract begins with it because its reader has all of it anyway.
 *
 *   header   u32 magic "TRMR" · u16 version · u8 kind (1 run, 2 extract) · u8 0 ·
 *            u32 map task · u32 attempt · u32 partitions · u32 CRC-32C of the 20 bytes before
 *   index    u32 segments · u32 0 · per segment {u32 partition · u32 spill · u64 offset ·
 *            u64 stored bytes · u64 raw bytes · u64 records · u64 largest record ·
 *            u32 largest block, raw · u32 blocks} · u32 CRC-32C of the index before it
 *   footer   u64 offset of the index · u32 its bytes · u32 CRC-32C of the 12 bytes before ·
 *            u32 magic "TRME"
 *   block    u32 raw bytes · u32 stored bytes · u32 records · u32 partition · u8 codec ·
 *            u8 kind · u16 0 · u32 CRC-32C of the 20 bytes before and the stored bytes ·
 *            stored bytes
 *   record   varint key length · varint value length · key · value
 *
 * Block kinds: 0 whole records · 1 the head of a record that is larger than a block (both
 * lengths and the key) · 2 the next piece of its value, of up to TRM_RUN_BLOCK_BYTES. So no
 * block is larger than TRM_RUN_BLOCK_BYTES raw, whatever the record. `stored bytes` of a
 * segment count block headers, `raw bytes` do not.
 *
 * Segments are in (spill, partition) order; within one, keys do not decrease by the job's
 * comparison. Readable by many at once; written by one. Only pread and pwrite: a file that
 * shrinks under a reader is an error, not a signal.
 */
#ifndef TRM_WORKERS_RUN_H
#define TRM_WORKERS_RUN_H

#include "jobs/spec.h"
#include "runtime/fs.h"

#define TRM_RUN_MAGIC 0x524d5254u        /* "TRMR" */
#define TRM_RUN_FOOTER_MAGIC 0x454d5254u /* "TRME" */
#define TRM_RUN_VERSION 1u
#define TRM_RUN_KIND_RUN 1u
#define TRM_RUN_KIND_EXTRACT 2u
#define TRM_RUN_HEADER_BYTES 24u
#define TRM_RUN_FOOTER_BYTES 20u
#define TRM_RUN_INDEX_HEAD_BYTES 8u
#define TRM_RUN_INDEX_ENTRY_BYTES 56u
#define TRM_RUN_BLOCK_HEADER_BYTES 24u
#define TRM_RUN_BLOCK_RECORDS 0u
#define TRM_RUN_BLOCK_HEAD 1u
#define TRM_RUN_BLOCK_VALUE 2u

#define TRM_RUN_BLOCK_BYTES (128u * 1024u) /* raw, at most */
#define TRM_RUN_RECORD_HEAD_BYTES_MAX 20u  /* two varints */
#define TRM_RUN_SEGMENTS_MAX (1u << 24)

typedef struct trm_segment {
    uint32_t partition;
    uint32_t spill;
    uint64_t offset; /* in the file */
    uint64_t stored_bytes;
    uint64_t raw_bytes;
    uint64_t records;
    uint64_t record_bytes_max; /* of its largest record */
    uint32_t block_bytes_max;  /* raw bytes of its largest block */
    uint32_t blocks;
} trm_segment;

/* Where one sorted segment can be read: what a merge takes. */
typedef struct trm_segment_at {
    const char *path; /* of a run or an extract */
    trm_segment segment;
    uint32_t task, attempt; /* of the map that made it, for messages */
} trm_segment_at;

#endif
