#include "workers/run_format.h"

#include "runtime/codec.h"
#include "runtime/crc32c.h"

#define BLOCK_CRC_AT 20u
#define HEADER_CRC_AT 20u

void trm_block_header_store(uint8_t *at, const trm_block_header *header)
{
    trm_store_u32(at, header->raw_bytes);
    trm_store_u32(at + 4, header->stored_bytes);
    trm_store_u32(at + 8, header->records);
    trm_store_u32(at + 12, header->partition);
    at[16] = header->codec;
    at[17] = header->kind;
    at[18] = at[19] = 0;
    uint32_t crc = trm_crc32c(0, at, BLOCK_CRC_AT);
    trm_store_u32(at + BLOCK_CRC_AT, trm_crc32c(crc, at + TRM_RUN_BLOCK_HEADER_BYTES, header->stored_bytes));
}

bool trm_block_header_load(trm_block_header *header, const uint8_t *at)
{
    *header = (trm_block_header){
        .raw_bytes = trm_load_u32(at),
        .stored_bytes = trm_load_u32(at + 4),
        .records = trm_load_u32(at + 8),
        .partition = trm_load_u32(at + 12),
        .codec = at[16],
        .kind = at[17],
    };
    if (header->raw_bytes == 0 || header->raw_bytes > TRM_RUN_BLOCK_BYTES || header->stored_bytes == 0)
        return false;
    if (header->codec == TRM_CODEC_NONE
            ? header->stored_bytes != header->raw_bytes
            : header->codec != TRM_CODEC_ZLIB || header->stored_bytes >= header->raw_bytes)
        return false;
    return header->kind <= TRM_RUN_BLOCK_VALUE && at[18] == 0 && at[19] == 0;
}

bool trm_block_check(const uint8_t *header_at, const uint8_t *stored, size_t stored_bytes)
{
    uint32_t crc = trm_crc32c(0, header_at, BLOCK_CRC_AT);
    return trm_crc32c(crc, stored, stored_bytes) == trm_load_u32(header_at + BLOCK_CRC_AT);
}

void trm_run_header_store(uint8_t *at, uint8_t kind, uint32_t task, uint32_t attempt, uint32_t partitions)
{
    trm_store_u32(at, TRM_RUN_MAGIC);
    at[4] = TRM_RUN_VERSION & 0xff;
    at[5] = TRM_RUN_VERSION >> 8;
    at[6] = kind;
    at[7] = 0;
    trm_store_u32(at + 8, task);
    trm_store_u32(at + 12, attempt);
    trm_store_u32(at + 16, partitions);
    trm_store_u32(at + HEADER_CRC_AT, trm_crc32c(0, at, HEADER_CRC_AT));
}

trm_status trm_run_header_load(const uint8_t *at, uint8_t *kind, uint32_t *task, uint32_t *attempt,
                               uint32_t *partitions)
{
    if (trm_load_u32(at) != TRM_RUN_MAGIC ||
        trm_crc32c(0, at, HEADER_CRC_AT) != trm_load_u32(at + HEADER_CRC_AT))
        return TRM_ECORRUPT;
    if ((at[4] | at[5] << 8) != TRM_RUN_VERSION)
        return TRM_EVERSION;
    if ((at[6] != TRM_RUN_KIND_RUN && at[6] != TRM_RUN_KIND_EXTRACT) || at[7] != 0)
        return TRM_ECORRUPT;
    *kind = at[6];
    *task = trm_load_u32(at + 8);
    *attempt = trm_load_u32(at + 12);
    *partitions = trm_load_u32(at + 16);
    return TRM_OK;
}

void trm_run_index_encode(trm_writer *out, const trm_segment *segments, uint32_t count)
{
    size_t begin = out->len;
    trm_put_u32(out, count);
    trm_put_u32(out, 0);
    for (uint32_t i = 0; i < count; i++) {
        const trm_segment *s = &segments[i];
        trm_put_u32(out, s->partition);
        trm_put_u32(out, s->spill);
        trm_put_u64(out, s->offset);
        trm_put_u64(out, s->stored_bytes);
        trm_put_u64(out, s->raw_bytes);
        trm_put_u64(out, s->records);
        trm_put_u64(out, s->record_bytes_max);
        trm_put_u32(out, s->block_bytes_max);
        trm_put_u32(out, s->blocks);
    }
    if (trm_writer_ok(out))
        trm_put_u32(out, trm_crc32c(0, out->data + begin, out->len - begin));
}

bool trm_run_index_count(const uint8_t *at, uint32_t *count)
{
    *count = trm_load_u32(at);
    return *count <= TRM_RUN_SEGMENTS_MAX && trm_load_u32(at + 4) == 0;
}

static void segment_load(trm_segment *s, const uint8_t *at)
{
    *s = (trm_segment){
        .partition = trm_load_u32(at),
        .spill = trm_load_u32(at + 4),
        .offset = trm_load_u64(at + 8),
        .stored_bytes = trm_load_u64(at + 16),
        .raw_bytes = trm_load_u64(at + 24),
        .records = trm_load_u64(at + 32),
        .record_bytes_max = trm_load_u64(at + 40),
        .block_bytes_max = trm_load_u32(at + 48),
        .blocks = trm_load_u32(at + 52),
    };
}

/* The numbers of one segment must fit each other: a reader makes room by them. */
static bool segment_possible(const trm_segment *s)
{
    uint64_t headers = (uint64_t)s->blocks * TRM_RUN_BLOCK_HEADER_BYTES;
    return s->blocks > 0 && s->records > 0 && s->block_bytes_max > 0 &&
           s->block_bytes_max <= TRM_RUN_BLOCK_BYTES && s->stored_bytes > headers &&
           s->stored_bytes - headers <= s->raw_bytes &&
           s->raw_bytes <= (uint64_t)s->blocks * s->block_bytes_max && s->block_bytes_max <= s->raw_bytes &&
           s->record_bytes_max >= 2 && s->record_bytes_max <= s->raw_bytes && s->records <= s->raw_bytes / 2;
}

bool trm_run_index_decode(const uint8_t *at, size_t len, uint32_t partitions, uint64_t begin, uint64_t end,
                          trm_segment *segments)
{
    uint32_t count;
    if (len < trm_run_index_bytes(0) || !trm_run_index_count(at, &count) ||
        len != trm_run_index_bytes(count) || trm_crc32c(0, at, len - 4) != trm_load_u32(at + len - 4))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        trm_segment *s = &segments[i];
        segment_load(s, at + TRM_RUN_INDEX_HEAD_BYTES + (size_t)i * TRM_RUN_INDEX_ENTRY_BYTES);
        if (!segment_possible(s) || s->partition >= partitions || s->offset < begin || s->offset > end ||
            s->stored_bytes > end - s->offset)
            return false;
        if (i && (s->spill < s[-1].spill || (s->spill == s[-1].spill && s->partition <= s[-1].partition)))
            return false;
        begin = s->offset + s->stored_bytes;
    }
    return true;
}

void trm_run_footer_encode(trm_writer *out, uint64_t index_offset)
{
    size_t index_bytes = out->len;
    trm_put_u64(out, index_offset);
    trm_put_u32(out, (uint32_t)index_bytes);
    if (trm_writer_ok(out))
        trm_put_u32(out, trm_crc32c(0, out->data + out->len - 12, 12));
    trm_put_u32(out, TRM_RUN_FOOTER_MAGIC);
}

bool trm_run_footer_load(const uint8_t *at, uint64_t *index_offset, uint32_t *index_bytes)
{
    if (trm_load_u32(at + 16) != TRM_RUN_FOOTER_MAGIC || trm_crc32c(0, at, 12) != trm_load_u32(at + 12))
        return false;
    *index_offset = trm_load_u64(at);
    *index_bytes = trm_load_u32(at + 8);
    return true;
}
