/* The bytes of the write-ahead log: segments, records, snapshots. No I/O.
 * docs/log-format.md says the same in words. All little-endian.
 *
 *   segment    block 0: header (100 bytes, zeros behind)
 *              then batches, each from the start of a block: records, each from a
 *              multiple of 8 bytes, zeros between and behind them
 *
 *   header     0 magic "trm-wal\n"   8 version u32      12 header bytes u32
 *             16 log id u64         24 sequence u64     32 capacity u64
 *             40 first index u64    48 previous term u64
 *             56 term u64           64 vote u64         72 commit u64
 *             80 previous end u64   88 previous chain u32  92 zero u32
 *             96 crc u32 of [0, 96): the seed of the segment
 *
 *   record     0 crc u32 of [4, 24 + length), begun with the seed
 *              4 chain u32: the crc of the record before, or the seed
 *              8 length u32 of the payload      12 synced u32
 *             16 number u32 in the segment      20 type u8, 21 low 24 bits of the seed
 *             24 payload
 *
 *   snapshot   0 magic "trm-snap"    8 version u32      12 config bytes u32
 *             16 log id u64         24 index u64        32 term u64
 *             40 data bytes u64     48 crc u32 of config and data
 *             52 crc u32 of [0, 52) 56 config, data
 *
 * The seed and the chain make a record good in one place of one segment only: what an
 * earlier life of the file has left is never taken for new. `synced` is how far the
 * segment was durable when the record was written: a good record behind a bad one
 * shows by it whether the bad one had been durable (damage) or not (a crash).
 */
#ifndef TRM_RUNTIME_WAL_FORMAT_H
#define TRM_RUNTIME_WAL_FORMAT_H

#include "runtime/wal.h"

#define WAL_HEADER_BYTES 100u
#define WAL_RECORD_HEADER_BYTES 24u
#define WAL_SNAPSHOT_HEADER_BYTES 56u
#define WAL_SEGMENT_BYTES_MAX (1u << 30)
/* No index is above: what is decoded cannot overflow what is computed from it. */
#define WAL_INDEX_MAX (1ull << 62)

typedef enum wal_record_type {
    WAL_ENTRIES = 1,    /* u64 first index, then entries: varint term, u8 type, blob payload */
    WAL_HARD_STATE = 2, /* u64 term, u64 vote, u64 commit */
    WAL_TRUNCATE = 3,   /* u64 first index that is void */
    WAL_RESET = 4       /* u64 index, u64 term: all is void, the log goes on behind this entry */
} wal_record_type;

typedef struct wal_header {
    uint64_t log_id;
    uint64_t sequence;
    uint64_t capacity;
    uint64_t first_index;   /* of the next entry when the segment was begun */
    uint64_t previous_term; /* of the entry before it */
    trm_wal_hard_state hard;
    uint64_t previous_end;   /* where the segment before ends, 0 for the first */
    uint32_t previous_chain; /* the crc of its last record */
    uint32_t seed;           /* set by encode and decode */
} wal_header;

typedef struct wal_record {
    size_t at; /* offset in the segment */
    uint8_t type;
    uint32_t crc;
    uint32_t chain;
    uint32_t number;
    uint32_t synced;
    const uint8_t *payload;
    uint32_t len;
} wal_record;

static inline uint64_t wal_round_up(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}

/* Fills a whole block and sets header->seed. */
void wal_header_encode(wal_header *header, uint8_t out[TRM_WAL_BLOCK_BYTES]);
/* TRM_ECORRUPT, TRM_EVERSION with a sentence that does not name the file. */
trm_status wal_header_decode(wal_header *out, const uint8_t *bytes, size_t len, trm_err *err);

/* Gives the records of a batch their place: crc, chain, number, synced, mark. *chain
 * and *number are those before and become those after. */
void wal_stamp(uint8_t *records, size_t len, uint32_t seed, uint32_t synced, uint32_t *chain,
               uint32_t *number);
/* Walks over the records of a batch that was made here. Returns the offset after. */
size_t wal_batch_record(const uint8_t *records, size_t len, size_t at, wal_record *out);

/* A walk over the records of a segment from outside. */
typedef struct wal_cursor {
    const uint8_t *bytes;
    size_t len;
    size_t at;
    uint32_t seed;
    uint32_t chain;
    uint32_t number;
} wal_cursor;

void wal_cursor_init(wal_cursor *self, const uint8_t *bytes, size_t len, uint32_t seed);
/* The next good record in its place. False: there is none at self->at, which is the
 * start of a block when all before it is sound. */
bool wal_cursor_next(wal_cursor *self, wal_record *out);

typedef struct wal_remains {
    size_t begun;      /* 1 when something was begun at the cursor and not finished */
    size_t synced_max; /* the largest `synced` of good records behind the cursor, 0: none */
    size_t witness_at; /* where that record is */
    size_t end;        /* the end of the last good record behind the cursor, 0: none */
} wal_remains;
/* Looks at what lies behind the place where the walk ended. */
void wal_cursor_remains(const wal_cursor *self, wal_remains *out);

void wal_snapshot_encode(uint8_t out[WAL_SNAPSHOT_HEADER_BYTES], uint64_t log_id,
                         const trm_wal_snapshot *meta, uint32_t content_crc);
/* Decodes and checks a whole snapshot file; out->config points into `bytes`. */
trm_status wal_snapshot_decode(trm_wal_snapshot *out, uint64_t *log_id, const uint8_t *bytes, size_t len,
                               trm_err *err);

#endif
