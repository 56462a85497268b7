/* The list of a reduce's segments: a file in the run store (trm_reduce_list_name) that the
 * rank writes when all of them are on this host, and that the executor reads. Lives and dies
 * with the attempt, never leaves the host, is not synced.
 *
 *   u32 magic "TRML" · u16 version · u16 0 · u32 reduce task · u32 attempt · u32 files ·
 *   u32 segments ·
 *   per file, in the order of the map tasks:
 *       u8 fetched (0 a run opened in place, 1 an extract that was fetched) · varint map task ·
 *       varint map attempt · blob path (no 0 in it) · varint its segments (at least 1) ·
 *       per segment, in the order of the spills: varint spill, offset, stored bytes, raw bytes,
 *       records, largest record, largest block, blocks
 *   u32 CRC-32C of everything before it
 *
 * All segments are of one partition: the reduce's own number.
 */
#ifndef TRM_WORKERS_REDUCE_INPUTS_H
#define TRM_WORKERS_REDUCE_INPUTS_H

#include "runtime/bytes.h"
#include "workers/run.h"

#include <stdbool.h>

#define TRM_REDUCE_LIST_MAGIC 0x4c4d5254u /* "TRML" */
#define TRM_REDUCE_LIST_VERSION 1u
#define TRM_REDUCE_LIST_BYTES_MAX (1u << 30)
#define TRM_REDUCE_LIST_PATH_BYTES 2048u /* of a run, at most */

/* ---- The executor's side -------------------------------------------------------------- */

typedef struct trm_reduce_inputs {
    uint32_t task, attempt;   /* of the reduce */
    trm_segment_at *segments; /* ordered by (map task, spill); what trm_merge_open takes */
    size_t count;             /* 0: the partition is empty */
    uint64_t local_bytes;     /* stored bytes of segments of runs opened in place … */
    uint64_t remote_bytes;    /* … and of those that were fetched from another host */
    uint64_t raw_bytes;       /* of both, uncompressed */
    char *paths;              /* private: where the segments' paths lie */
} trm_reduce_inputs;

/* Reads the list at `path`, which must be the one of this attempt. The caller closes it.
 * TRM_ELOST when it is not there; TRM_ECORRUPT, TRM_EVERSION, TRM_ENOMEM, TRM_EIO. */
trm_status trm_reduce_inputs_load(trm_reduce_inputs *self, trm_fs *fs, const char *path, uint32_t task,
                                  uint32_t attempt, trm_err *err);
void trm_reduce_inputs_close(trm_reduce_inputs *self);
/* The same of bytes in memory; `name` is for messages. Whatever the bytes are. */
trm_status trm_reduce_inputs_decode(trm_reduce_inputs *self, const void *bytes, size_t len, const char *name,
                                    trm_err *err);

/* ---- The rank's side --------------------------------------------------------------------- */

typedef struct trm_reduce_list { /* zero-initialise; keeps its memory from one list to the next */
    trm_writer out;
    trm_writer head, pending; /* of the file that was begun last: itself, and its segments */
    uint32_t task, attempt, files, segments, file_segments;
    uint64_t spill_next; /* a segment's spill is not below it */
    uint64_t map_next;   /* a file's map task is not below it */
} trm_reduce_list;

void trm_reduce_list_begin(trm_reduce_list *self, uint32_t task, uint32_t attempt);
/* A run or extract that has segments of the partition; then its segments follow. Map tasks
 * increase from one to the next; a file without segments leaves nothing. */
void trm_reduce_list_file(trm_reduce_list *self, const char *path, uint32_t map_task, uint32_t map_attempt,
                          bool fetched);
/* segment->partition is the reduce's task; spills increase. */
void trm_reduce_list_segment(trm_reduce_list *self, const trm_segment *segment);
/* Ends the list and writes it to `path`, which is replaced. TRM_ELIMIT above
 * TRM_REDUCE_LIST_BYTES_MAX; TRM_ENOMEM, TRM_EIO, TRM_ENOSPACE. */
trm_status trm_reduce_list_write(trm_reduce_list *self, trm_fs *fs, const char *path, trm_err *err);
void trm_reduce_list_close(trm_reduce_list *self);

#endif
