/* What the records of a log say when they are applied in order: the hard state, which
 * entries there are and of which term. The same code when a log is replayed and when
 * it is written, so that the two cannot come apart. No I/O. */
#ifndef TRM_RUNTIME_WAL_STATE_H
#define TRM_RUNTIME_WAL_STATE_H

#include "runtime/wal_format.h"

/* Entries from `first` up to the next run have this term. */
typedef struct wal_run {
    uint64_t first;
    uint64_t term;
} wal_run;

typedef struct wal_kept {
    const uint8_t *payload; /* in a segment's bytes */
    uint64_t term;
    uint32_t len;
    uint8_t type;
} wal_kept;

typedef struct wal_state {
    trm_wal_hard_state hard;
    uint64_t base_index; /* entries lie behind this one */
    uint64_t base_term;
    uint64_t last_index;
    wal_run *runs;
    size_t runs_len;
    size_t runs_capacity;
    bool keep;      /* remember where the payloads are */
    wal_kept *kept; /* the entry `index` is kept[index - kept_base - 1] */
    size_t kept_capacity;
    uint64_t kept_base;
} wal_state;

void wal_state_init(wal_state *self, bool keep);
void wal_state_close(wal_state *self);
/* Begins from the header of the first segment that is read. */
void wal_state_begin(wal_state *self, const wal_header *header);
/* TRM_OK; TRM_ECORRUPT: the record does not make sense behind those before it (the
 * sentence names no place); TRM_ENOMEM. */
trm_status wal_state_apply(wal_state *self, const wal_record *record, trm_err *err);
/* The term at base_index <= index <= last_index. */
uint64_t wal_state_term_at(const wal_state *self, uint64_t index);
/* Drops what a snapshot up to (index, term) covers. False: the log does not hold that
 * entry, all entries are void, and a reset record must say so. */
bool wal_state_cover(wal_state *self, uint64_t index, uint64_t term);
void wal_state_forget(wal_state *self);

/* A walk over the payload of an entries record. */
typedef struct wal_entries {
    trm_reader reader;
    uint64_t next_index;
} wal_entries;
void wal_entries_init(wal_entries *self, const wal_record *record);
/* False at the end; self->reader tells whether it was a clean one. */
bool wal_entries_next(wal_entries *self, trm_wal_entry *out);

#endif
