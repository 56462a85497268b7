/* What test_datapath.c draws of a seed: keys, and which of the reductions, partitions and orders; with the
 * folds and the combiner of a user's own. Included by it alone, after config.h. */
#ifndef TRM_TESTS_UNIT_DATAPATH_CASE_H
#define TRM_TESTS_UNIT_DATAPATH_CASE_H

#include "jobs/cuts.h"
#include "tests/support/draw.h"
#include "tests/support/fs_mem.h"
#include "workers/collector.h"
#include "workers/fold_table.h"
#include "workers/key.h"
#include "workers/merge.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define KEY_BYTES_MAX_DRAWN 300u

static inline bool one_in(trm_draw *random, uint64_t n)
{
    return trm_draw_below(random, n) == 0;
}

/* ---- A case ------------------------------------------------------------------------- */

typedef enum key_kind {
    KEYS_WORDS,
    KEYS_BINARY,
    KEYS_SAME_PREFIX,
    KEYS_FEW,
    KEYS_NESTED,
    KEYS_LONG,
    KEYS_HIGH,
    KEY_KINDS
} key_kind;
typedef enum reduction {
    GENERAL,
    COMBINED,
    FOLD_SUM,
    FOLD_COUNT,
    FOLD_MIN,
    FOLD_SMALL,
    FOLD_LARGE,
    REDUCTIONS
} reduction;
typedef enum partitioner { BY_HASH, BY_CALL, BY_CUTS, PARTITIONERS } partitioner;

typedef struct expected {
    uint8_t *key;
    size_t key_len;
    uint64_t count, sum, least, hash;
    bool seen;
} expected;

typedef struct datapath_case {
    uint64_t seed;
    trm_draw random;
    key_kind keys;
    reduction reduction;
    partitioner partitioner;
    bool reversed, through_extract;
    uint32_t partitions, maps;
    size_t pairs, value_bytes_max, map_bytes, reduce_bytes;
    trm_compress_policy policy;
    trm_fs *fs;
    trm_region region;
    trm_cuts cuts;
    expected *table;
    size_t table_count, table_capacity;
    uint64_t spills, passes, clock;
} datapath_case;

#define CHECK(c, holds)                                                                                      \
    do {                                                                                                     \
        if (!(holds))                                                                                        \
            fail_msg("case %llu: %s (TRM_TEST_SEED=%llu tests/unit/test_datapath)",                          \
                     (unsigned long long)(c)->seed, #holds, (unsigned long long)(c)->seed);                  \
    } while (0)
#define CHECK_OK(c, call)                                                                                    \
    do {                                                                                                     \
        trm_status status_ = (call);                                                                         \
        if (status_ != TRM_OK)                                                                               \
            fail_msg("case %llu: %s: %s: %s", (unsigned long long)(c)->seed, #call,                          \
                     trm_status_name(status_), err.text);                                                    \
    } while (0)

static inline size_t draw_key(datapath_case *c, uint8_t *key)
{
    trm_draw *r = &c->random;
    size_t len = 0;
    switch (c->keys) {
    case KEYS_WORDS:
        len = 1 + trm_draw_below(r, 12);
        for (size_t i = 0; i < len; i++)
            key[i] = (uint8_t)('a' + trm_draw_below(r, one_in(r, 2) ? 3 : 26));
        break;
    case KEYS_BINARY:
        len = trm_draw_below(r, 24);
        for (size_t i = 0; i < len; i++)
            key[i] = (uint8_t)(one_in(r, 3) ? 0 : trm_draw_next(r));
        break;
    case KEYS_SAME_PREFIX:
        len = 40 + trm_draw_below(r, 8);
        memset(key, 'p', len);
        for (size_t i = 38; i < len; i++)
            key[i] = (uint8_t)trm_draw_below(r, 4);
        break;
    case KEYS_FEW:
        len = (size_t)snprintf((char *)key, 32, "key%u", (unsigned)trm_draw_below(r, 3));
        break;
    case KEYS_NESTED: /* each a prefix of the next, and zeros that look like padding */
        len = trm_draw_below(r, 40);
        memset(key, one_in(r, 2) ? 0 : 'a', len);
        break;
    case KEYS_LONG:
        len = 1 + trm_draw_below(r, KEY_BYTES_MAX_DRAWN);
        for (size_t i = 0; i < len; i++)
            key[i] = (uint8_t)('a' + (i < 20 ? 0 : trm_draw_below(r, 2)));
        break;
    case KEYS_HIGH: /* like the end of everything */
        len = trm_draw_below(r, 14);
        memset(key, 0xff, len);
        if (len > 8 && one_in(r, 2))
            key[len - 1] = (uint8_t)trm_draw_next(r);
        break;
    case KEY_KINDS:
        break;
    }
    return len;
}

static inline int compare_reversed(const void *a, size_t a_len, const void *b, size_t b_len)
{
    return -trm_key_compare(a, a_len, b, b_len);
}

static inline uint32_t partition_by_call(void *context, const void *key, size_t key_len)
{
    datapath_case *c = context;
    return key_len ? *(const uint8_t *)key % c->partitions : 0;
}

static inline uint64_t hash_value(const uint8_t *value, size_t len)
{
    uint64_t h = len;
    for (size_t i = 0; i < len; i++)
        h = (h ^ value[i]) * 0x100000001b3ull;
    return h ^ h >> 29;
}

/* ---- Folds of the user's own ------------------------------------------------------------ */

static inline void small_init(void *state, const void *value, size_t len)
{
    memcpy(state, value, 4);
}
static inline void small_add(void *state, const void *value, size_t len)
{
    uint32_t a = trm_load_u32(state), b = trm_load_u32(value);
    trm_store_u32(state, a + b);
}
static inline void small_merge(void *state, const void *other)
{
    small_add(state, other, 4);
}
static const trm_fold fold_small = {4, small_init, small_add, small_merge};

typedef struct large_state {
    uint64_t count, sum, hash;
} large_state;
static inline void large_init(void *state, const void *value, size_t len)
{
    *(large_state *)state = (large_state){1, len >= 8 ? trm_load_u64(value) : 0, hash_value(value, len)};
}
static inline void large_merge(void *state, const void *other)
{
    large_state *a = state;
    const large_state *b = other;
    *a = (large_state){a->count + b->count, a->sum + b->sum, a->hash + b->hash};
}
static inline void large_add(void *state, const void *value, size_t len)
{
    large_state one;
    large_init(&one, value, len);
    large_merge(state, &one);
}
static const trm_fold fold_large = {sizeof(large_state), large_init, large_add, large_merge};

static inline const trm_fold *fold_of(const datapath_case *c)
{
    static const trm_fold *const folds[REDUCTIONS] = {
        [FOLD_SUM] = TRM_FOLD_SUM_U64, [FOLD_COUNT] = TRM_FOLD_COUNT, [FOLD_MIN] = TRM_FOLD_MIN_U64,
        [FOLD_SMALL] = &fold_small,    [FOLD_LARGE] = &fold_large,
    };
    return folds[c->reduction];
}

static inline trm_status combine(void *context, trm_group *group, trm_group_out *out, trm_err *err)
{
    datapath_case *c = context;
    const void *value;
    size_t len;
    uint64_t sum = 0;
    trm_status status = TRM_EOF;
    unsigned most = group->key_len % 7 == 3 ? 2 : UINT32_MAX, taken = 0;
    while (taken < most && (status = trm_group_next(group, &value, &len, err)) == TRM_OK) {
        CHECK(c, len == 8);
        sum += trm_load_u64(value);
        taken++;
    }
    if (taken == most) { /* goes on, and gives out in two parts */
        status = trm_group_out_put(out, group->key, group->key_len, &sum, 8, err);
        CHECK(c, status == TRM_OK);
        sum = 0;
        while ((status = trm_group_next(group, &value, &len, err)) == TRM_OK)
            sum += trm_load_u64(value);
    }
    CHECK(c, status == TRM_EOF);
    CHECK(c, trm_group_next(group, &value, &len, err) == TRM_EOF);
    return trm_group_out_put(out, group->key, group->key_len, &sum, 8, err);
}

#endif
