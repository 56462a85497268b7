/* Keys in hot loops: their first bytes as numbers, their order, their hash.
 *
 * The hash multiplies 64 by 64 bits and folds the 128-bit product, sixteen bytes a step
 * (the construction of wyhash). With the fixed seed of trm_key_hash it decides partitions,
 * so it is the same in every process and never changes; the tables use a seed of their own,
 * which nobody can know, so that no choice of keys makes them slow.
 */
#ifndef TRM_WORKERS_KEY_H
#define TRM_WORKERS_KEY_H

#include "config.h"
#include "runtime/bytes.h"

/* The first 16 bytes of a key, padded with zeros. */
typedef struct trm_key16 {
    uint64_t low, high; /* as loaded: byte 0 is the lowest of `low` */
} trm_key16;

extern const uint64_t trm_key_masks[17][2];

#define TRM_KEY_PAGE_BYTES 4096u

/* The slow way: reads nothing but the key. */
trm_key16 trm_key16_load_exactly(const void *key, size_t len);

/* Loads up to 16 bytes. Reads past the key's end, but never into another page. */
static inline trm_key16 trm_key16_load(const void *key, size_t len)
{
#ifndef TRM_SANITIZED
    if (__builtin_expect(((uintptr_t)key & (TRM_KEY_PAGE_BYTES - 1)) <= TRM_KEY_PAGE_BYTES - 16, 1)) {
        const uint64_t *mask = trm_key_masks[len < 16 ? len : 16];
        return (trm_key16){trm_load_u64(key) & mask[0], trm_load_u64((const uint8_t *)key + 8) & mask[1]};
    }
#endif
    return trm_key16_load_exactly(key, len);
}

/* The first 8 bytes as a number that orders like them. */
static inline uint64_t trm_key_prefix(const void *key, size_t len)
{
#ifndef TRM_SANITIZED
    if (__builtin_expect(len >= 8, 1))
        return __builtin_bswap64(trm_load_u64(key));
    if (((uintptr_t)key & (TRM_KEY_PAGE_BYTES - 1)) <= TRM_KEY_PAGE_BYTES - 8)
        return __builtin_bswap64(trm_load_u64(key) & trm_key_masks[len][0]);
#endif
    uint8_t room[8] = {0};
    if (len)
        memcpy(room, key, len < 8 ? len : 8);
    return __builtin_bswap64(trm_load_u64(room));
}

/* Unsigned bytes, a prefix first. */
static inline int trm_key_compare(const void *a, size_t a_len, const void *b, size_t b_len)
{
    size_t n = a_len < b_len ? a_len : b_len;
    int order = n ? memcmp(a, b, n) : 0;
    return order ? order : (a_len > b_len) - (a_len < b_len);
}

static inline uint64_t trm_key_mix(uint64_t a, uint64_t b)
{
    __uint128_t product = (__uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

#define TRM_KEY_HASH_A 0x9e3779b97f4a7c15ull
#define TRM_KEY_HASH_B 0xd1342543de82ef95ull
#define TRM_KEY_HASH_SEED 0x2545f4914f6cdd1dull

/* Of a key of at most 16 bytes. */
static inline uint64_t trm_key16_hash(trm_key16 k, size_t len, uint64_t seed)
{
    return trm_key_mix(k.low ^ seed, k.high ^ TRM_KEY_HASH_A ^ (uint64_t)len << 56);
}

/* Of a longer one. */
uint64_t trm_key_hash_long(const void *key, size_t len, uint64_t seed);

static inline uint64_t trm_key_hash_seeded(const void *key, size_t len, uint64_t seed)
{
    return len <= 16 ? trm_key16_hash(trm_key16_load(key, len), len, seed)
                     : trm_key_hash_long(key, len, seed);
}

/* Maps a hash's upper 32 bits to [0, partitions). */
static inline uint32_t trm_hash_partition(uint64_t hash, uint32_t partitions)
{
    return (uint32_t)(((hash >> 32) * partitions) >> 32);
}

#endif
