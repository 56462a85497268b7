/* What the files of the write-ahead log share and nobody else sees. */
#ifndef TRM_RUNTIME_WAL_INTERNAL_H
#define TRM_RUNTIME_WAL_INTERNAL_H

#include "runtime/wal_state.h"

/* Names in the directory. */
#define WAL_LOCK_NAME "lock"
#define WAL_SPARE_NAME "spare"
#define WAL_SNAPSHOT_ASIDE_NAME "snapshot.new"
#define WAL_SEGMENT_FORMAT "segment-%016llx"
#define WAL_SNAPSHOT_FORMAT "snapshot-%016llx"

typedef struct wal_segment {
    uint64_t sequence;
    uint64_t capacity;
    uint64_t max_index; /* no entry above it has ever been in this segment or before */
    uint8_t *bytes;     /* as read by open, until forgotten; entries point into it */
    size_t len;
    wal_header header; /* as read */
} wal_segment;

/* What a directory holds, read without changing anything. */
typedef struct wal_scan {
    trm_fs *fs;
    const char *dir;
    uint64_t *sequences; /* of the segments that are there, ascending */
    size_t sequences_len;
    uint64_t *snapshots; /* their indices, ascending */
    size_t snapshots_len;
    bool aside; /* a snapshot half written is there */
    bool spare;
    uint8_t *snapshot_bytes; /* the newest, whole */
    trm_wal_snapshot snapshot;
    wal_segment *segments; /* those that count, ascending */
    size_t segments_len;
    uint64_t log_id;
    wal_state state;
    wal_cursor end;      /* where the newest segment ends */
    wal_remains remains; /* what lies behind it */
    bool short_file;     /* the newest segment is shorter than it was made */
    bool reset;          /* the snapshot has voided all entries and no record says so yet */
    /* For the dump: called for each record in order. */
    void (*each)(const wal_segment *segment, const wal_record *record, void *context);
    void *context;
} wal_scan;

void wal_scan_init(wal_scan *self, trm_fs *fs, const char *dir);
void wal_scan_close(wal_scan *self);
/* Only the names. */
trm_status wal_scan_names(wal_scan *self, trm_err *err);
/* After the names: snapshot and segments. Not to be called when there is neither. */
trm_status wal_scan_content(wal_scan *self, trm_err *err);

struct trm_wal {
    trm_fs *fs;
    char dir[TRM_FS_PATH_BYTES_MAX];
    uint64_t log_id;
    uint64_t segment_bytes_max;
    uint64_t segment_bytes_first;
    trm_file *lock;
    wal_state state;
    wal_segment *segments; /* ascending, the last is written */
    size_t segments_len;
    size_t segments_capacity;
    trm_file *file;  /* of the newest segment */
    uint64_t offset; /* where the next batch goes */
    uint64_t synced; /* all before is durable */
    uint32_t seed;
    uint32_t chain;
    uint32_t number;
    trm_file *spare; /* made ahead and durable */
    uint64_t spare_bytes;
    trm_wal_snapshot snapshot; /* durable; its config is snapshot_config */
    uint8_t *snapshot_config;
    trm_file *aside; /* a snapshot that was begun */
    trm_wal_snapshot aside_meta;
    uint8_t *aside_config;
    uint32_t aside_crc;
    uint64_t aside_at;
    bool reset_due; /* the snapshot has voided all entries; a record must say so before the next ones */
    unsigned repairs;
    trm_status failed; /* for good */
    trm_err why;
};

/* "dir/name" of a segment or snapshot, or of a fixed name. */
void wal_path(char out[TRM_FS_PATH_BYTES_MAX], const char *dir, const char *name);
void wal_numbered_path(char out[TRM_FS_PATH_BYTES_MAX], const char *dir, const char *format, uint64_t number);
/* Remembers the failure for good and returns it. */
trm_status wal_fail(trm_wal *self, trm_status status, trm_err *err);
/* Adds a record that says: all is void, the log goes on behind (index, term). */
void wal_batch_reset_to(trm_wal_batch *self, uint64_t index, uint64_t term);
/* Begins a new segment that has room for `need` bytes of records. */
trm_status wal_roll(trm_wal *self, uint64_t need, trm_err *err);
/* Writes and syncs such a record when reset_due; when the disk is full it stays due. */
trm_status wal_write_reset(trm_wal *self, trm_err *err);

#endif
