/* Merges sorted segments, from any number of files, into one stream of groups: a key with its
 * values, or with its merged accumulator.
 *
 *     segments ─┬─ as many as memory and file descriptors bear ──▶ loser tree ──▶ groups
 *               └─ too many: merged in passes, the smallest first (folded and combined on
 *                  the way), into scratch runs that are removed once read
 *
 * Memory: the region is divided into one block buffer a segment (a small segment's is as
 * small) and, when a value is larger than a block, room to put that value together: at most
 * half of the region. Besides it TRM_MERGE_BYTES.
 *
 * Values are streamed; a key with more values than memory works. Equal keys come together
 * whatever segment they are in; their values come in no particular order.
 */
#ifndef TRM_WORKERS_MERGE_H
#define TRM_WORKERS_MERGE_H

#include "jobs/trireme.h"
#include "workers/group.h"
#include "workers/region.h"
#include "workers/run_reader.h"
#include "workers/run_writer.h"

#define TRM_MERGE_FAN_IN_MAX 512u /* segments open at once: file descriptors */
#define TRM_MERGE_REGION_BYTES_MIN (1024u * 1024u)
#define TRM_MERGE_BYTES (TRM_BLOCK_READER_BYTES + TRM_RUN_WRITER_BYTES + 256u * 1024u)

typedef struct trm_merge trm_merge;

typedef struct trm_merge_options {
    trm_fs *fs;
    trm_region region;        /* TRM_MERGE_REGION_BYTES_MIN or more, the caller's */
    const char *scratch_dir;  /* private; where passes put their runs; copied */
    uint64_t value_bytes_max; /* of a value to be put together; at most half of the region is used */
    const trm_fold *fold;     /* or NULL */
    int (*compare)(const void *a, size_t a_len, const void *b, size_t b_len); /* NULL: bytes */
    trm_combine_cb combine; /* run by passes, not by the last merge; NULL: none */
    void *combine_context;
    trm_compress_policy *policy; /* for scratch runs; told how fast blocks decompress; may be NULL */
    uint64_t (*now_ns)(void);    /* may be NULL */
} trm_merge_options;

typedef struct trm_merge_stats {
    uint64_t records_in;      /* of the segments given */
    uint64_t groups;          /* given out */
    uint64_t stored_bytes_in; /* of the segments given */
    uint64_t raw_bytes_in;
    uint64_t stored_bytes_read; /* so far, of segments and of what passes have written */
    uint64_t passes;            /* intermediate merges */
    uint64_t pass_stored_bytes; /* written by them */
} trm_merge_stats;

/* Copies the options; what they point to must outlive the merge. Serves one reduce after
 * another. TRM_ENOMEM. */
trm_status trm_merge_create(trm_merge **out, const trm_merge_options *options, trm_err *err);
void trm_merge_destroy(trm_merge *self); /* closes; NULL is fine */

/* Begins a merge of `count` segments (copied; their paths are borrowed until close), and runs
 * all passes but the last. `name` (copied) tells its scratch files from those of others in the
 * same directory, such as "r12.a0". Any failure leaves it closed. TRM_ELOST and TRM_ECORRUPT
 * concern an input: see trm_merge_lost. */
trm_status trm_merge_open(trm_merge *self, const char *name, const trm_segment_at *segments, size_t count,
                          trm_err *err);
/* The next group in key order; it is valid until the next call, and what was not read of
 * the group before is skipped. TRM_EOF after the last. TRM_ELIMIT: a value is larger than the
 * room for it. */
trm_status trm_merge_next(trm_merge *self, trm_group **group, trm_err *err);
/* Instead of that: the next pair in key order, whatever group it is of; key and value are valid until
 * the next call. Groups are counted all the same. Not with a fold. TRM_EOF after the last, and again. */
typedef struct trm_merge_pair {
    const void *key, *value;
    size_t key_len, value_len;
} trm_merge_pair;
trm_status trm_merge_next_pair(trm_merge *self, trm_merge_pair *out, trm_err *err);
/* Closes files and removes scratch. Safe in every state. */
void trm_merge_close(trm_merge *self);

/* After TRM_ELOST or TRM_ECORRUPT: the segment given to open that cannot be read, so that its
 * map can be run again; NULL when it was none of them (scratch of this merge). Valid until
 * the next open or destroy; its path is the caller's. */
const trm_segment_at *trm_merge_lost(const trm_merge *self);
void trm_merge_stats_get(const trm_merge *self, trm_merge_stats *out);

#endif
