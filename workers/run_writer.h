/* Writes a run (format in run.h): segments in order, each record once, large writes.
 *
 * Records are laid straight into the output buffer, compressed there block by block as the
 * policy says, and written TRM_RUN_WRITE_BYTES at a time. One writer serves one run after
 * another; no malloc or lock a record.
 */
#ifndef TRM_WORKERS_RUN_WRITER_H
#define TRM_WORKERS_RUN_WRITER_H

#include "runtime/codec.h"
#include "workers/compress_policy.h"
#include "workers/run.h"

#define TRM_RUN_WRITE_BYTES (512u * 1024u)
/* What a writer takes from malloc, its codec included; the index comes on top
 * (TRM_RUN_INDEX_ENTRY_BYTES a segment). */
#define TRM_RUN_WRITER_BYTES (TRM_RUN_WRITE_BYTES + 2u * TRM_RUN_BLOCK_BYTES + TRM_CODEC_MEMORY_BYTES)

typedef struct trm_run_writer trm_run_writer;

typedef struct trm_run_totals {
    uint64_t file_bytes; /* 0: there is no file */
    uint64_t records;
    uint64_t raw_bytes, stored_bytes; /* of all segments */
    uint32_t segments;
    uint32_t spills;
} trm_run_totals;

/* Borrows `fs`, `policy` (NULL: never compress) and `now_ns` (a clock such as
 * trm_clock_now_ns; NULL: nothing is measured), which must outlive it. TRM_ENOMEM. */
trm_status trm_run_writer_create(trm_run_writer **out, trm_fs *fs, trm_compress_policy *policy,
                                 uint64_t (*now_ns)(void), trm_err *err);
/* Aborts a run that is open. NULL is fine. */
void trm_run_writer_destroy(trm_run_writer *self);

/* Begins a new file at `path` (copied; truncated if it is there). No other may be open. On
 * failure there is no file. */
trm_status trm_run_writer_open(trm_run_writer *self, const char *path, uint32_t task, uint32_t attempt,
                               uint32_t partitions, trm_err *err);
/* Segments come in (spill, partition) order; one without records leaves nothing. `remote`:
 * the policy is told that the partition is read on another host. */
trm_status trm_run_writer_segment(trm_run_writer *self, uint32_t spill, uint32_t partition, bool remote,
                                  trm_err *err);
/* Appends a pair to the segment; keys must not decrease (not checked). */
trm_status trm_run_writer_put(trm_run_writer *self, const void *key, size_t key_len, const void *value,
                              size_t value_len, trm_err *err);
/* The same for a record that is already in the format of run.h, `len` bytes that are no
 * more than TRM_RUN_BLOCK_BYTES. */
trm_status trm_run_writer_put_record(trm_run_writer *self, const void *record, size_t len, trm_err *err);
/* A record with a value that is given in pieces: after this call `value_len` bytes must come
 * by trm_run_writer_put_value, in any number of calls, before anything else. */
trm_status trm_run_writer_put_key(trm_run_writer *self, const void *key, size_t key_len, uint64_t value_len,
                                  trm_err *err);
trm_status trm_run_writer_put_value(trm_run_writer *self, const void *piece, size_t len, trm_err *err);
/* Ends the last segment, writes index and footer, closes the file (it is not synced: a run
 * that is lost is made again). On failure the file is removed. `totals` may be NULL. */
trm_status trm_run_writer_finish(trm_run_writer *self, trm_run_totals *totals, trm_err *err);
/* Closes and removes the file; nothing when none is open. After any failure of the calls
 * above (but open and finish) this is what must follow. */
void trm_run_writer_abort(trm_run_writer *self);
bool trm_run_writer_is_open(const trm_run_writer *self);

#endif
