/* A run: what one attempt of a map leaves for the reduces, one file.
 *
 * Cut by partition; within a partition one or more sorted segments (one a spill), each
 * a sequence of blocks; each block holds whole records, stored as they are or in
 * zlib's format, with its own checksum. The index at the end says where each
 * partition's bytes lie: a partition's segments are contiguous when the run was
 * written by one spill, else the writer lays the spills one after another and the
 * index lists each segment.
 *
 *   header │ segment (spill 0, partition 0) │ (0, 1) │ … │ (spill 1, partition 0) │ … │
 *   index: per segment {partition, offset, stored bytes, raw bytes, records} │ footer
 *
 *   block: u32 raw bytes · u32 stored bytes · u32 records · u8 codec · u8[3] 0 ·
 *          u32 CRC-32C of the stored bytes and the fields before it · stored bytes
 *   record: varint key length · varint value length · key · value
 *
 * Readable by many at once; written by one. Only pread and pwrite: a file that shrinks
 * under a reader is an error, not a signal.
 */
#ifndef TRM_WORKERS_RUN_H
#define TRM_WORKERS_RUN_H

#include "jobs/spec.h"
#include "runtime/fs.h"

#define TRM_RUN_BLOCK_BYTES (128u * 1024u) /* raw, aimed at; a larger record gets a block of its own */
#define TRM_RUN_SEGMENTS_MAX (1u << 24)

typedef struct trm_segment {
    uint32_t partition;
    uint32_t spill;
    uint64_t offset; /* in the file */
    uint64_t stored_bytes;
    uint64_t raw_bytes;
    uint64_t records;
} trm_segment;

/* Where one sorted segment can be read: what a merge takes. */
typedef struct trm_segment_at {
    const char *path;
    trm_segment segment;
    uint32_t task, attempt; /* of the map that made it, for messages */
} trm_segment_at;

#endif
