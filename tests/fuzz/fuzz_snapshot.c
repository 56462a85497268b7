/* A snapshot file from outside, as it is and with its checksums made good. */
#include "runtime/crc32c.h"
#include "runtime/wal_format.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void decode(const uint8_t *bytes, size_t len)
{
    trm_wal_snapshot meta;
    uint64_t log_id;
    trm_err err;
    trm_status status = wal_snapshot_decode(&meta, &log_id, bytes, len, &err);
    if (status != TRM_OK)
        return;
    /* All that it names lies inside, and it encodes to the same header. */
    if (meta.index == 0 || meta.config != bytes + WAL_SNAPSHOT_HEADER_BYTES ||
        meta.config_len + meta.data_bytes != len - WAL_SNAPSHOT_HEADER_BYTES)
        abort();
    uint8_t again[WAL_SNAPSHOT_HEADER_BYTES];
    wal_snapshot_encode(again, log_id, &meta, trm_load_u32(bytes + 48));
    if (memcmp(again, bytes, sizeof again) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    decode(bytes, len);
    if (len < WAL_SNAPSHOT_HEADER_BYTES)
        return 0;
    uint8_t *good = malloc(len);
    if (!good)
        return 0;
    memcpy(good, bytes, len);
    memcpy(good, "trm-snap\1\0\0\0", 12);
    trm_store_u32(good + 48,
                  trm_crc32c(0, good + WAL_SNAPSHOT_HEADER_BYTES, len - WAL_SNAPSHOT_HEADER_BYTES));
    trm_store_u32(good + 52, trm_crc32c(0, good, 52));
    decode(good, len);
    uint64_t config = trm_load_u32(good + 12) % (len - WAL_SNAPSHOT_HEADER_BYTES + 1);
    trm_store_u32(good + 12, (uint32_t)config);
    trm_store_u64(good + 40, len - WAL_SNAPSHOT_HEADER_BYTES - config);
    trm_store_u32(good + 52, trm_crc32c(0, good, 52));
    decode(good, len);
    free(good);
    return 0;
}
