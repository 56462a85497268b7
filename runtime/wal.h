/* The write-ahead log: what a voter must not forget, in a directory of its own.
 *
 *   batch (pure) ──write──► segment files ──sync──► durable
 *   snapshot: aside, synced, renamed, directory synced; then old segments go
 *
 * It holds entries (index, term, type, payload), the hard state (term, vote, commit:
 * Raft paper, figure 2 "persistent state") and one snapshot (thesis, section 5). It
 * is a journal: an entry at an index that is there already takes the place of it and
 * of all behind it. The format is described byte by byte in docs/log-format.md.
 *
 * A log belongs to one thread at a time; a batch to whoever fills it. So the control
 * loop fills batches while a thread writes and syncs: one write and one sync for all
 * that was proposed in the meantime.
 *
 * What a crash may leave is repaired on open and said with trm_info: an unfinished
 * batch at the end of the newest segment, a file cut short there, a segment that was
 * preallocated and not used, a snapshot half written, segments that a snapshot has
 * made superfluous. What no crash explains is refused with TRM_ECORRUPT and a
 * sentence that names file and offset: a bad record in front of what was once synced,
 * a missing segment or snapshot, a file of another log.
 *
 * A full disk: write returns TRM_ENOSPACE, nothing is taken, and the same batch can be
 * written again when there is room. After a failed sync the log refuses everything
 * (see fs.h) until it is opened again.
 */
#ifndef TRM_RUNTIME_WAL_H
#define TRM_RUNTIME_WAL_H

#include "runtime/bytes.h"
#include "runtime/fs.h"
#include "runtime/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define TRM_WAL_VERSION 1u
#define TRM_WAL_BLOCK_BYTES 4096u
#define TRM_WAL_ENTRY_BYTES_MAX (8u * 1024u * 1024u)
/* A batch is written whole into one segment. */
#define TRM_WAL_BATCH_BYTES_MAX (64u * 1024u * 1024u)
#define TRM_WAL_CONFIG_BYTES_MAX (64u * 1024u)
/* "Has voted for nobody"; 0 is a legal node. */
#define TRM_WAL_VOTE_NONE UINT64_MAX

typedef struct trm_wal trm_wal;

typedef struct trm_wal_entry {
    uint64_t index; /* from 1 */
    uint64_t term;  /* never falls with growing index */
    uint8_t type;   /* the caller's */
    const uint8_t *payload;
    size_t len; /* at most TRM_WAL_ENTRY_BYTES_MAX */
} trm_wal_entry;

typedef struct trm_wal_hard_state {
    uint64_t term; /* never falls */
    uint64_t vote;
    uint64_t commit;
} trm_wal_hard_state;

/* A snapshot without its data. index 0: there is none. */
typedef struct trm_wal_snapshot {
    uint64_t index;        /* of the last entry that it covers */
    uint64_t term;         /* of that entry */
    const uint8_t *config; /* the caller's (the membership); borrowed */
    size_t config_len;
    uint64_t data_bytes;
} trm_wal_snapshot;

/* ---- A batch: what is to be written at once. No I/O, no clock. ---- */
typedef struct trm_wal_batch {
    trm_writer bytes;
    size_t open_at;      /* where the record begins that takes the next entry; or none */
    uint64_t next_index; /* that the open record would take */
} trm_wal_batch;

void trm_wal_batch_init(trm_wal_batch *self);
void trm_wal_batch_close(trm_wal_batch *self);
/* Forgets the content and a failure, keeps the memory. */
void trm_wal_batch_reset(trm_wal_batch *self);
/* Adds an entry (copies the payload). It voids what the log holds at its index and
 * behind (Raft paper, figure 2, AppendEntries rule 3). */
void trm_wal_batch_entry(trm_wal_batch *self, const trm_wal_entry *entry);
void trm_wal_batch_hard_state(trm_wal_batch *self, const trm_wal_hard_state *hard);
/* Voids the entries from `from_index` on. */
void trm_wal_batch_truncate(trm_wal_batch *self, uint64_t from_index);
/* False when memory was refused: the batch must not be written. */
static inline bool trm_wal_batch_ok(const trm_wal_batch *self)
{
    return trm_writer_ok(&self->bytes);
}
static inline size_t trm_wal_batch_bytes(const trm_wal_batch *self)
{
    return self->bytes.len;
}

/* ---- The log. ---- */
typedef struct trm_wal_config {
    bool create;                  /* make the directory and an empty log when there is none */
    uint64_t log_id;              /* of a log that is made: entropy */
    const char *owner;            /* who opens, such as "process 17 on host a"; NULL: not said */
    uint32_t segment_bytes_first; /* 0: 256 KiB; rounded up to blocks */
    uint32_t segment_bytes_max;   /* 0: 8 MiB; segments double up to it */
} trm_wal_config;

/* Whether `dir` holds a log (TRM_OK and *out). */
trm_status trm_wal_exists(trm_fs *fs, const char *dir, bool *out, trm_err *err);

/* Opens the log in `dir`, alone: TRM_EFENCED when another opening is alive, with its
 * owner. Repairs, then loads what is in it. Borrows `fs` only. Close with
 * trm_wal_close. TRM_ELOST: there is none and `create` is not set; TRM_ECORRUPT,
 * TRM_EVERSION, TRM_ENOSPACE, TRM_EIO, TRM_ENOMEM. */
trm_status trm_wal_open(trm_wal **out, trm_fs *fs, const char *dir, const trm_wal_config *config,
                        trm_err *err);
/* Does not sync. NULL is allowed. */
void trm_wal_close(trm_wal *self);

/* As given when the log was made; the same for all files of it. */
uint64_t trm_wal_log_id(const trm_wal *self);
/* How many things open has repaired. */
unsigned trm_wal_repairs(const trm_wal *self);
/* Entries after the snapshot: [first, last]; first == last + 1: none. */
uint64_t trm_wal_first_index(const trm_wal *self);
uint64_t trm_wal_last_index(const trm_wal *self);
/* The term of the entry at `index`, for snapshot.index <= index <= last_index; 0 for 0. */
uint64_t trm_wal_term_at(const trm_wal *self, uint64_t index);
void trm_wal_hard_state_get(const trm_wal *self, trm_wal_hard_state *out);
/* Of the durable snapshot; out->config is valid until the next snapshot or close. */
void trm_wal_snapshot_get(const trm_wal *self, trm_wal_snapshot *out);
/* Bytes in segments, for a caller that decides when to compact. */
uint64_t trm_wal_segment_bytes(const trm_wal *self);

/* What was loaded by open: an entry that was in the log then, first <= index <= last.
 * The payload is valid until trm_wal_forget. Not to be called after the first write. */
void trm_wal_entry_at(const trm_wal *self, uint64_t index, trm_wal_entry *out);
/* Frees what open has loaded. */
void trm_wal_forget(trm_wal *self);

/* Writes the batch into the newest segment, or into a new one when it does not fit
 * (which syncs the old). The batch stays the caller's and as it is. On any failure
 * nothing is taken; TRM_ENOSPACE can be tried again. Asserts that entries follow the
 * log without a gap and that terms do not fall. TRM_ELIMIT: batch too large. */
trm_status trm_wal_write(trm_wal *self, trm_wal_batch *batch, trm_err *err);
/* All that was written is durable. On failure the log is failed for good. */
trm_status trm_wal_sync(trm_wal *self, trm_err *err);
/* Makes the next segment ahead when the newest is half full: for when there is
 * nothing else to do. A failure costs nothing. */
void trm_wal_prepare(trm_wal *self);

/* ---- Snapshots. One at a time; entries may be written in between. ---- */

/* Begins a snapshot aside, dropping one that was begun and not committed. Copies
 * `meta` and its config; meta->data_bytes is ignored. meta->index must be above the
 * durable snapshot's. */
trm_status trm_wal_snapshot_begin(trm_wal *self, const trm_wal_snapshot *meta, trm_err *err);
trm_status trm_wal_snapshot_write(trm_wal *self, const void *bytes, size_t len, trm_err *err);
/* Makes it durable and drops the older one. Entries that it covers are void; so are
 * all entries when the log does not hold the snapshot's last entry (thesis 5.1,
 * InstallSnapshot rule 7). On failure the old snapshot stands and the new one is
 * dropped. */
trm_status trm_wal_snapshot_commit(trm_wal *self, trm_err *err);
void trm_wal_snapshot_abort(trm_wal *self);
/* Reads the durable snapshot's data at `offset`. */
trm_status trm_wal_snapshot_read(trm_wal *self, uint64_t offset, void *out, size_t len, size_t *got,
                                 trm_err *err);
/* Removes segments that the snapshot covers whole. */
trm_status trm_wal_compact(trm_wal *self, trm_err *err);

/* Prints what the files hold, a line a segment, record and (with `entries`) entry, and
 * checks it; changes nothing and takes no lock. TRM_OK: sound, or left so by a crash. */
trm_status trm_wal_dump(trm_fs *fs, const char *dir, bool entries, FILE *out, trm_err *err);

#endif
