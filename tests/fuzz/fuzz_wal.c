/* A segment from outside: raw bytes behind a good header, or records with good checksums
 * and any content. Whatever opens must go on being a log: what is written then is read
 * again. */
#include "runtime/diag.h"
#include "runtime/wal_format.h"
#include "tests/support/fs_mem.h"

#include <stdlib.h>

#define DIR "log"
#define SEGMENT DIR "/segment-0000000000000001"
#define SEGMENT_BYTES (16u * 1024u)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void check(bool holds)
{
    if (!holds)
        abort();
}

/* [type u8, len u16, payload]…, each made a record of the segment. */
static void fill_records(uint8_t *segment, uint32_t seed, const uint8_t *bytes, size_t len)
{
    trm_reader in;
    trm_reader_init(&in, bytes, len);
    uint32_t chain = seed, number = 0;
    size_t at = TRM_WAL_BLOCK_BYTES;
    while (trm_reader_left(&in) > 0) {
        uint8_t type = trm_get_u8(&in);
        size_t payload_len = trm_get_u16(&in) % 512;
        if (payload_len > trm_reader_left(&in))
            payload_len = trm_reader_left(&in);
        const uint8_t *payload = trm_get_bytes(&in, payload_len);
        size_t record = (size_t)wal_round_up(WAL_RECORD_HEADER_BYTES + payload_len, 8);
        if (!payload || at + record > SEGMENT_BYTES)
            return;
        trm_store_u32(segment + at + 8, (uint32_t)payload_len);
        segment[at + 20] = (uint8_t)(1 + type % 5);
        memcpy(segment + at + WAL_RECORD_HEADER_BYTES, payload, payload_len);
        wal_stamp(segment + at, record, seed, TRM_WAL_BLOCK_BYTES, &chain, &number);
        at = type & 0x80 ? (size_t)wal_round_up(at + record, TRM_WAL_BLOCK_BYTES) : at + record;
    }
}

static void use(trm_fs *fs)
{
    static const trm_wal_config config = {.segment_bytes_first = SEGMENT_BYTES,
                                          .segment_bytes_max = SEGMENT_BYTES};
    trm_wal *wal;
    trm_err err;
    trm_status status = trm_wal_open(&wal, fs, DIR, &config, &err);
    if (status != TRM_OK) {
        check(status == TRM_ECORRUPT || status == TRM_EVERSION);
        return;
    }
    uint64_t last = trm_wal_last_index(wal), term = trm_wal_term_at(wal, last);
    for (uint64_t index = trm_wal_first_index(wal); index <= last; index++) {
        trm_wal_entry entry;
        trm_wal_entry_at(wal, index, &entry);
        check(entry.index == index && entry.term <= term);
    }
    trm_wal_batch batch;
    trm_wal_batch_init(&batch);
    trm_wal_entry next = {last + 1, term, 1, (const uint8_t *)"next", 4};
    trm_wal_batch_entry(&batch, &next);
    check(trm_wal_write(wal, &batch, &err) == TRM_OK && trm_wal_sync(wal, &err) == TRM_OK);
    trm_wal_batch_close(&batch);
    trm_wal_close(wal);
    trm_fs_mem_crash(fs);
    check(trm_wal_open(&wal, fs, DIR, &config, &err) == TRM_OK);
    check(trm_wal_last_index(wal) == last + 1 && trm_wal_repairs(wal) == 0);
    trm_wal_close(wal);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    trm_diag_configure(TRM_DIAG_WARN, -1);
    if (len < 1)
        return 0;
    static uint8_t segment[SEGMENT_BYTES];
    memset(segment, 0, sizeof segment);
    wal_header header = {.log_id = 1, .sequence = 1, .capacity = SEGMENT_BYTES, .first_index = 1};
    wal_header_encode(&header, segment);
    size_t raw =
        len - 1 < SEGMENT_BYTES - TRM_WAL_BLOCK_BYTES ? len - 1 : SEGMENT_BYTES - TRM_WAL_BLOCK_BYTES;
    if (bytes[0] == 0)
        memcpy(segment + TRM_WAL_BLOCK_BYTES, bytes + 1, raw);
    else if (bytes[0] == 1)
        memcpy(segment, bytes + 1, raw);
    else
        fill_records(segment, header.seed, bytes + 1, len - 1);
    trm_fs *fs = trm_fs_mem_create(1);
    trm_err err;
    check(trm_fs_make_dirs(fs, DIR, 0, &err) == TRM_OK);
    check(trm_fs_write_whole(fs, SEGMENT, segment, sizeof segment, 0, &err) == TRM_OK);
    use(fs);
    trm_fs_mem_destroy(fs);
    return 0;
}
