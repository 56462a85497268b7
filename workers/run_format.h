/* The bytes of run.h, encoded and decoded: shared by run_writer.c and run_reader.c. */
#ifndef TRM_WORKERS_RUN_FORMAT_H
#define TRM_WORKERS_RUN_FORMAT_H

#include "runtime/bytes.h"
#include "workers/run.h"

typedef struct trm_block_header {
    uint32_t raw_bytes, stored_bytes, records, partition;
    uint8_t codec, kind;
} trm_block_header;

/* Stores the header in front of the stored bytes, which must follow it in memory, and the
 * checksum over both. */
void trm_block_header_store(uint8_t *at, const trm_block_header *header);
/* Loads TRM_RUN_BLOCK_HEADER_BYTES and checks their shape: sizes within bounds, a known codec and
 * kind. The checksum is checked by trm_block_check, when the stored bytes are there. */
bool trm_block_header_load(trm_block_header *header, const uint8_t *at);
bool trm_block_check(const uint8_t *header_at, const uint8_t *stored, size_t stored_bytes);

/* TRM_RUN_HEADER_BYTES. */
void trm_run_header_store(uint8_t *at, uint8_t kind, uint32_t task, uint32_t attempt, uint32_t partitions);
/* TRM_ECORRUPT or TRM_EVERSION, without words. */
trm_status trm_run_header_load(const uint8_t *at, uint8_t *kind, uint32_t *task, uint32_t *attempt,
                               uint32_t *partitions);

void trm_run_index_encode(trm_writer *out, const trm_segment *segments, uint32_t count);
/* Reads the count of segments from the first TRM_RUN_INDEX_HEAD_BYTES; the whole index then has
 * trm_run_index_bytes. False when it cannot be one. */
bool trm_run_index_count(const uint8_t *at, uint32_t *count);
static inline size_t trm_run_index_bytes(uint32_t count)
{
    return TRM_RUN_INDEX_HEAD_BYTES + (size_t)count * TRM_RUN_INDEX_ENTRY_BYTES + 4;
}
/* Decodes a whole index into `segments` (room for its count). Segments must be in order, not
 * overlap, and lie within [begin, end) of the file; their numbers must be possible. */
bool trm_run_index_decode(const uint8_t *at, size_t len, uint32_t partitions, uint64_t begin, uint64_t end,
                          trm_segment *segments);

/* TRM_RUN_FOOTER_BYTES; the index begins at `index_offset` and is what `out` holds already. */
void trm_run_footer_encode(trm_writer *out, uint64_t index_offset);
bool trm_run_footer_load(const uint8_t *at, uint64_t *index_offset, uint32_t *index_bytes);

#endif
