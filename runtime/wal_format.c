/* See wal_format.h. */
#include "runtime/wal_format.h"

#include "runtime/crc32c.h"

#include <assert.h>
#include <string.h>

static const char segment_magic[8] = "trm-wal\n";
static const char snapshot_magic[8] = {'t', 'r', 'm', '-', 's', 'n', 'a', 'p'};

void wal_header_encode(wal_header *header, uint8_t out[TRM_WAL_BLOCK_BYTES])
{
    memset(out, 0, TRM_WAL_BLOCK_BYTES);
    memcpy(out, segment_magic, 8);
    trm_store_u32(out + 8, TRM_WAL_VERSION);
    trm_store_u32(out + 12, WAL_HEADER_BYTES);
    trm_store_u64(out + 16, header->log_id);
    trm_store_u64(out + 24, header->sequence);
    trm_store_u64(out + 32, header->capacity);
    trm_store_u64(out + 40, header->first_index);
    trm_store_u64(out + 48, header->previous_term);
    trm_store_u64(out + 56, header->hard.term);
    trm_store_u64(out + 64, header->hard.vote);
    trm_store_u64(out + 72, header->hard.commit);
    trm_store_u64(out + 80, header->previous_end);
    trm_store_u32(out + 88, header->previous_chain);
    header->seed = trm_crc32c(0, out, WAL_HEADER_BYTES - 4);
    trm_store_u32(out + 96, header->seed);
}

trm_status wal_header_decode(wal_header *out, const uint8_t *bytes, size_t len, trm_err *err)
{
    if (len < WAL_HEADER_BYTES || memcmp(bytes, segment_magic, 8) != 0)
        return trm_err_set(err, TRM_ECORRUPT, "bad segment header at offset 0: not a segment of a log");
    if (trm_load_u32(bytes + 8) != TRM_WAL_VERSION)
        return trm_err_set(err, TRM_EVERSION, "log format version %u; this program reads version %u",
                           trm_load_u32(bytes + 8), TRM_WAL_VERSION);
    uint32_t crc = trm_load_u32(bytes + 96);
    if (crc != trm_crc32c(0, bytes, WAL_HEADER_BYTES - 4))
        return trm_err_set(err, TRM_ECORRUPT, "bad segment header at offset 0: the checksum does not fit");
    wal_header header = {
        .log_id = trm_load_u64(bytes + 16),
        .sequence = trm_load_u64(bytes + 24),
        .capacity = trm_load_u64(bytes + 32),
        .first_index = trm_load_u64(bytes + 40),
        .previous_term = trm_load_u64(bytes + 48),
        .hard = {trm_load_u64(bytes + 56), trm_load_u64(bytes + 64), trm_load_u64(bytes + 72)},
        .previous_end = trm_load_u64(bytes + 80),
        .previous_chain = trm_load_u32(bytes + 88),
        .seed = crc,
    };
    if (header.capacity > WAL_SEGMENT_BYTES_MAX || header.capacity < 2 * TRM_WAL_BLOCK_BYTES ||
        header.capacity % TRM_WAL_BLOCK_BYTES || header.first_index == 0 ||
        header.first_index > WAL_INDEX_MAX || header.previous_end > WAL_SEGMENT_BYTES_MAX ||
        header.previous_end % TRM_WAL_BLOCK_BYTES || trm_load_u32(bytes + 12) != WAL_HEADER_BYTES)
        return trm_err_set(err, TRM_ECORRUPT, "bad segment header at offset 0: a field is out of its range");
    *out = header;
    return TRM_OK;
}

static size_t record_bytes(uint32_t len)
{
    return (size_t)wal_round_up(WAL_RECORD_HEADER_BYTES + (uint64_t)len, 8);
}

size_t wal_batch_record(const uint8_t *records, size_t len, size_t at, wal_record *out)
{
    const uint8_t *head = records + at;
    assert(at % 8 == 0 && len - at >= WAL_RECORD_HEADER_BYTES);
    *out = (wal_record){
        .at = at, .type = head[20], .payload = head + WAL_RECORD_HEADER_BYTES, .len = trm_load_u32(head + 8)};
    assert(out->len <= len - at - WAL_RECORD_HEADER_BYTES);
    return at + record_bytes(out->len);
}

void wal_stamp(uint8_t *records, size_t len, uint32_t seed, uint32_t synced, uint32_t *chain,
               uint32_t *number)
{
    for (size_t at = 0; at < len;) {
        wal_record record;
        size_t after = wal_batch_record(records, len, at, &record);
        uint8_t *head = records + at;
        trm_store_u32(head + 4, *chain);
        trm_store_u32(head + 12, synced);
        trm_store_u32(head + 16, *number);
        trm_store_u32(head + 20, (uint32_t)record.type | seed << 8);
        *chain = trm_crc32c(seed, head + 4, WAL_RECORD_HEADER_BYTES - 4 + (size_t)record.len);
        *number += 1;
        trm_store_u32(head, *chain);
        at = after;
    }
}

void wal_cursor_init(wal_cursor *self, const uint8_t *bytes, size_t len, uint32_t seed)
{
    *self = (wal_cursor){.bytes = bytes, .len = len, .at = TRM_WAL_BLOCK_BYTES, .seed = seed, .chain = seed};
}

/* Whether the 24 bytes at `at` can be the head of a record of this segment; no more is
 * read than they are. */
static bool record_head(const wal_cursor *self, size_t at, wal_record *out)
{
    if (at > self->len || self->len - at < WAL_RECORD_HEADER_BYTES)
        return false;
    const uint8_t *head = self->bytes + at;
    uint32_t kind = trm_load_u32(head + 20);
    if (kind >> 8 != (self->seed & 0xffffff) || (kind & 0xff) < WAL_ENTRIES || (kind & 0xff) > WAL_RESET)
        return false;
    *out = (wal_record){.at = at,
                        .type = (uint8_t)kind,
                        .crc = trm_load_u32(head),
                        .chain = trm_load_u32(head + 4),
                        .len = trm_load_u32(head + 8),
                        .synced = trm_load_u32(head + 12),
                        .number = trm_load_u32(head + 16),
                        .payload = head + WAL_RECORD_HEADER_BYTES};
    return out->len <= self->len - at - WAL_RECORD_HEADER_BYTES && out->synced <= at;
}

static bool record_checks(const wal_cursor *self, const wal_record *record)
{
    size_t covered = WAL_RECORD_HEADER_BYTES - 4 + (size_t)record->len;
    return record->crc == trm_crc32c(self->seed, self->bytes + record->at + 4, covered);
}

static bool in_place(const wal_cursor *self, const wal_record *record)
{
    return record->chain == self->chain && record->number == self->number;
}

static bool all_zero(const uint8_t *at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (at[i])
            return false;
    return true;
}

bool wal_cursor_next(wal_cursor *self, wal_record *out)
{
    wal_record record;
    if (!record_head(self, self->at, &record) || !in_place(self, &record) || !record_checks(self, &record)) {
        /* The end of a batch: zeros up to the next block, and on there. */
        size_t block = (size_t)wal_round_up(self->at, TRM_WAL_BLOCK_BYTES);
        if (block == self->at)
            return false;
        size_t end = block < self->len ? block : self->len;
        if (self->at < end && !all_zero(self->bytes + self->at, end - self->at))
            return false;
        self->at = block;
        return wal_cursor_next(self, out);
    }
    self->at += record_bytes(record.len);
    self->chain = record.crc;
    self->number++;
    *out = record;
    return true;
}

void wal_cursor_remains(const wal_cursor *self, wal_remains *out)
{
    *out = (wal_remains){0};
    wal_record record;
    size_t block = (size_t)wal_round_up(self->at, TRM_WAL_BLOCK_BYTES);
    out->begun = block != self->at || (record_head(self, self->at, &record) && in_place(self, &record));
    /* Payloads are the callers': ones made to look like heads must not cost a walk over
     * the segment each. */
    uint64_t budget = 16 * (uint64_t)self->len;
    for (size_t at = self->at; at < self->len; at += 8) {
        if (!record_head(self, at, &record) || record.number < self->number)
            continue;
        if (budget < record.len)
            return;
        budget -= record.len;
        if (!record_checks(self, &record))
            continue;
        if (record.synced > out->synced_max) {
            out->synced_max = record.synced;
            out->witness_at = at;
        }
        at += record_bytes(record.len) - 8;
        out->end = at + 8 < self->len ? at + 8 : self->len;
    }
}

void wal_snapshot_encode(uint8_t out[WAL_SNAPSHOT_HEADER_BYTES], uint64_t log_id,
                         const trm_wal_snapshot *meta, uint32_t content_crc)
{
    memcpy(out, snapshot_magic, 8);
    trm_store_u32(out + 8, TRM_WAL_VERSION);
    trm_store_u32(out + 12, (uint32_t)meta->config_len);
    trm_store_u64(out + 16, log_id);
    trm_store_u64(out + 24, meta->index);
    trm_store_u64(out + 32, meta->term);
    trm_store_u64(out + 40, meta->data_bytes);
    trm_store_u32(out + 48, content_crc);
    trm_store_u32(out + 52, trm_crc32c(0, out, 52));
}

trm_status wal_snapshot_decode(trm_wal_snapshot *out, uint64_t *log_id, const uint8_t *bytes, size_t len,
                               trm_err *err)
{
    if (len < WAL_SNAPSHOT_HEADER_BYTES || memcmp(bytes, snapshot_magic, 8) != 0)
        return trm_err_set(err, TRM_ECORRUPT, "bad snapshot header at offset 0: not a snapshot of a log");
    if (trm_load_u32(bytes + 8) != TRM_WAL_VERSION)
        return trm_err_set(err, TRM_EVERSION, "snapshot format version %u; this program reads version %u",
                           trm_load_u32(bytes + 8), TRM_WAL_VERSION);
    if (trm_load_u32(bytes + 52) != trm_crc32c(0, bytes, 52))
        return trm_err_set(err, TRM_ECORRUPT, "bad snapshot header at offset 0: the checksum does not fit");
    trm_wal_snapshot meta = {
        .index = trm_load_u64(bytes + 24),
        .term = trm_load_u64(bytes + 32),
        .config = bytes + WAL_SNAPSHOT_HEADER_BYTES,
        .config_len = trm_load_u32(bytes + 12),
        .data_bytes = trm_load_u64(bytes + 40),
    };
    size_t content = len - WAL_SNAPSHOT_HEADER_BYTES;
    if (meta.index == 0 || meta.index > WAL_INDEX_MAX || meta.config_len > TRM_WAL_CONFIG_BYTES_MAX ||
        meta.config_len > content || meta.data_bytes != content - meta.config_len)
        return trm_err_set(err, TRM_ECORRUPT, "bad snapshot: %zu bytes are not what its header says", len);
    if (trm_load_u32(bytes + 48) != trm_crc32c(0, meta.config, content))
        return trm_err_set(err, TRM_ECORRUPT,
                           "bad snapshot: the content from offset %u does not fit its checksum",
                           WAL_SNAPSHOT_HEADER_BYTES);
    *out = meta;
    *log_id = trm_load_u64(bytes + 16);
    return TRM_OK;
}
