/* Keys and their accumulators, in an open-addressing hash table with linear probing.
 *
 * A slot is 32 bytes: a key of up to 16 bytes lies in it padded with zeros, so that comparing
 * it is comparing two words and a length; a longer one lies in the arena, its first 8 bytes
 * in the slot. An accumulator of up to 8 bytes lies in the slot, a larger one in the arena.
 *
 *   region:  [ table │ free │ … ← arena ]      even generations
 *            [ free  │ table of half │ … ← arena ]   odd ones
 *
 * The table doubles by moving into the other half of its place, so both are there for that
 * moment and no memory is asked for. What is free always has room for two sort entries a
 * key, because spilling sorts.
 *
 * The table is larger than the cache, and words come in no order. So a pair of a short key
 * and a ready-made fold waits, its slot being fetched, until TRM_FOLD_WAITING others have
 * come: the memory's delays pass side by side, and branches that wait for it are decided at
 * once.
 */
#ifndef TRM_WORKERS_FOLD_TABLE_H
#define TRM_WORKERS_FOLD_TABLE_H

#include "workers/folds.h"
#include "workers/key.h"
#include "workers/region.h"
#include "workers/sort.h"

#define TRM_FOLD_SLOTS_FIRST 1024u
#define TRM_FOLD_KEY_INLINE 16u
#define TRM_FOLD_WAITING 32u

typedef struct trm_fold_slot {
    uint64_t low;   /* the key's first 8 bytes, as loaded */
    uint64_t high;  /* … the next 8, or where a longer key lies in the region */
    uint64_t state; /* the accumulator, or where it lies in the region */
    uint32_t hash;  /* the upper half */
    uint32_t len;   /* of the key, plus 1; 0: the slot is free */
} trm_fold_slot;

typedef struct trm_fold_pair {
    trm_key16 key;
    uint64_t value;
    uint32_t hash;
    uint32_t len; /* of the key, plus 1 */
} trm_fold_pair;

typedef struct trm_fold_table {
    trm_fold_slot *slots;
    unsigned shift; /* slot of a hash: hash >> shift, of 32 bits */
    size_t mask;    /* slots - 1 */
    size_t used, used_max;
    trm_fold_op op;
    const trm_fold *fold;
    bool state_inline;
    uint64_t seed;
    uint64_t arena; /* where the arena begins in the region; it grows down */
    uint64_t floor; /* the arena's lower bound without the room for sorting */
    size_t slots_max;
    trm_region region;
    bool waits; /* pairs of short keys do; else they are added at once */
    unsigned waiting;
    trm_fold_pair pair[TRM_FOLD_WAITING];
} trm_fold_table;

/* `fold` is borrowed. The region is the table's until it is emptied. */
void trm_fold_table_init(trm_fold_table *self, trm_region region, const trm_fold *fold, uint64_t seed);
/* Forgets all but the pairs that wait; keeps a table about as large as was of use. */
void trm_fold_table_clear(trm_fold_table *self);

/* The rare part of adding: a key that is not there yet, at free slot `at`. */
trm_status trm_fold_table_insert(trm_fold_table *self, size_t at, trm_key16 k, uint32_t hash, const void *key,
                                 size_t key_len, const void *value, size_t value_len);
trm_status trm_fold_table_add_long(trm_fold_table *self, const void *key, size_t key_len, const void *value,
                                   size_t value_len);
void trm_fold_table_update(const trm_fold_table *self, trm_fold_slot *slot, const void *value,
                           size_t value_len);

/* The same at once, for any fold. */
trm_status trm_fold_table_add_now(trm_fold_table *self, trm_key16 k, uint32_t hash, size_t key_len,
                                  const void *value, size_t value_len);

/* Adds the pairs that wait. TRM_AGAIN: the table is full, and some wait still. */
trm_status trm_fold_table_settle(trm_fold_table *self);

/* Adds a pair of a key of up to 16 bytes: TRM_OK; TRM_AGAIN: it is full, nothing was added.
 * With a ready-made fold the value has 8 bytes (but for count, where it is not read). */
static inline trm_status trm_fold_table_add_short(trm_fold_table *self, const void *key, size_t key_len,
                                                  const void *value, size_t value_len)
{
    trm_key16 k = trm_key16_load(key, key_len);
    uint32_t hash = (uint32_t)(trm_key16_hash(k, key_len, self->seed) >> 32);
    if (__builtin_expect(!self->waits, 0))
        return trm_fold_table_add_now(self, k, hash, key_len, value, value_len);
    __builtin_prefetch(&self->slots[hash >> self->shift], 1);
    if (__builtin_expect(self->waiting == TRM_FOLD_WAITING, 0)) {
        trm_status status = trm_fold_table_settle(self);
        if (status != TRM_OK)
            return status;
    }
    uint64_t number = self->op == TRM_FOLD_OP_COUNT ? 1 : trm_load_u64(value);
    self->pair[self->waiting++] = (trm_fold_pair){k, number, hash, (uint32_t)key_len + 1};
    return TRM_OK;
}

static inline trm_status trm_fold_table_add(trm_fold_table *self, const void *key, size_t key_len,
                                            const void *value, size_t value_len)
{
    return key_len <= TRM_FOLD_KEY_INLINE ? trm_fold_table_add_short(self, key, key_len, value, value_len)
                                          : trm_fold_table_add_long(self, key, key_len, value, value_len);
}

/* The key and accumulator of a slot by its number, which is an entry's place. */
static inline trm_sort_key trm_fold_table_key(const trm_fold_table *self, size_t at)
{
    const trm_fold_slot *slot = &self->slots[at];
    size_t len = slot->len - 1;
    return (trm_sort_key){
        len <= TRM_FOLD_KEY_INLINE ? (const uint8_t *)&slot->low : self->region.base + slot->high, len};
}
static inline const void *trm_fold_table_state(const trm_fold_table *self, size_t at)
{
    const trm_fold_slot *slot = &self->slots[at];
    return self->state_inline ? (const void *)&slot->state : self->region.base + slot->state;
}

/* Makes one entry a key of those that do not wait, with partition 0, in memory of the region that is free
 * until the next clear. Returns them; *scratch has room for as many. */
trm_sort_entry *trm_fold_table_entries(trm_fold_table *self, trm_sort_entry **scratch);

#endif
