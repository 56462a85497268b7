/* A list of segments of any bytes at all: as they are, and with a right head and checksum. */
#include "workers/reduce_inputs.h"

#include "runtime/crc32c.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void decode(const uint8_t *bytes, size_t len)
{
    trm_reduce_inputs inputs;
    trm_err err;
    if (trm_reduce_inputs_decode(&inputs, bytes, len, "fuzz", &err) != TRM_OK)
        return;
    for (size_t i = 0; i < inputs.count; i++)
        if (!inputs.segments[i].path[0] || inputs.segments[i].segment.partition != inputs.task)
            abort();
    trm_reduce_inputs_close(&inputs);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    decode(bytes, len);
    if (len < 8)
        return 0;
    uint8_t *whole = malloc(16 + len + 4);
    if (!whole)
        return 0;
    trm_store_u32(whole, TRM_REDUCE_LIST_MAGIC);
    trm_store_u32(whole + 4, TRM_REDUCE_LIST_VERSION);
    trm_store_u64(whole + 8, 7);
    memcpy(whole + 16, bytes, len);
    whole[17] = whole[18] = whole[19] = whole[21] = whole[22] = whole[23] = 0; /* a few files and segments */
    trm_store_u32(whole + 16 + len, trm_crc32c(0, whole, 16 + len));
    decode(whole, 16 + len + 4);
    free(whole);
    return 0;
}
