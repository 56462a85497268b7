#include "workers/key.h"
#include "workers/collector.h"

#define LOW(n)                                                                                               \
    {                                                                                                        \
        (1ull << (8 * (n))) - 1, 0                                                                           \
    }
#define HIGH(n)                                                                                              \
    {                                                                                                        \
        UINT64_MAX, (1ull << (8 * (n))) - 1                                                                  \
    }
const uint64_t trm_key_masks[17][2] = {
    LOW(0),
    LOW(1),
    LOW(2),
    LOW(3),
    LOW(4),
    LOW(5),
    LOW(6),
    LOW(7),
    HIGH(0),
    HIGH(1),
    HIGH(2),
    HIGH(3),
    HIGH(4),
    HIGH(5),
    HIGH(6),
    HIGH(7),
    {UINT64_MAX, UINT64_MAX},
};

trm_key16 trm_key16_load_exactly(const void *key, size_t len)
{
    uint8_t room[16] = {0};
    if (len)
        memcpy(room, key, len < 16 ? len : 16);
    return (trm_key16){trm_load_u64(room), trm_load_u64(room + 8)};
}

uint64_t trm_key_hash_long(const void *key, size_t len, uint64_t seed)
{
    const uint8_t *at = key;
    size_t left = len;
    uint64_t h = seed;
    for (; left > 16; at += 16, left -= 16)
        h = trm_key_mix(trm_load_u64(at) ^ h, trm_load_u64(at + 8) ^ TRM_KEY_HASH_A);
    /* The last 16 bytes, overlapping what was before: the key is longer than that. */
    at = (const uint8_t *)key + len - 16;
    h = trm_key_mix(trm_load_u64(at) ^ h, trm_load_u64(at + 8) ^ TRM_KEY_HASH_B ^ (uint64_t)len);
    return trm_key_mix(h ^ seed, TRM_KEY_HASH_B);
}

uint32_t trm_key_partition(const void *key, size_t key_len, uint32_t partitions)
{
    uint64_t hash = trm_key_hash_seeded(key, key_len, TRM_KEY_HASH_SEED);
    return trm_hash_partition(trm_key_mix(hash ^ TRM_KEY_HASH_SEED, TRM_KEY_HASH_B), partitions);
}
