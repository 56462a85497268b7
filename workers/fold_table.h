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
#define TRM_FOLD_WAITING 64u

typedef struct trm_fold_slot {
    uint64_t low;   /* the key's first 8 bytes, as loaded */
    uint64_t high;  /* … the next 8, or where a longer key lies in the region */
    uint64_t state; /* the accumulator, or where it lies in the region */
    uint64_t tag;   /* the hash, of 32 bits, and below it the key's length plus 1; 0: the slot is free */
} trm_fold_slot;

/* Of a key that is to be found or added. */
static inline uint64_t trm_fold_tag(uint64_t hash, size_t key_len)
{
    return (hash & ~(uint64_t)UINT32_MAX) | (key_len + 1);
}
static inline size_t trm_fold_tag_len(uint64_t tag)
{
    return (size_t)(uint32_t)tag - 1;
}

typedef struct trm_fold_pair {
    uint64_t low, high, value, tag;
} trm_fold_pair;

typedef struct trm_fold_table {
    trm_fold_slot *slots;
    unsigned shift; /* slot of a key: tag >> shift */
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
    uint64_t pairs_in; /* since begin, but for those that wait */
    uint64_t bytes_in; /* of keys and values, those that wait too */
    bool waits;        /* pairs of short keys do; else they are added at once */
    unsigned waiting;  /* below TRM_FOLD_WAITING between calls */
    trm_fold_pair pair[TRM_FOLD_WAITING];
} trm_fold_table;

/* `fold` is borrowed. The region is the table's until it is emptied. */
void trm_fold_table_init(trm_fold_table *self, trm_region region, const trm_fold *fold, uint64_t seed);
/* Forgets all keys, but not the pairs that wait; keeps a table about as large as was of use. */
void trm_fold_table_clear(trm_fold_table *self);

/* Forgets everything, and begins to count what comes in. */
void trm_fold_table_begin(trm_fold_table *self);

/* Adds a pair at once, of any key and fold: TRM_OK; TRM_AGAIN: it is full, nothing was added. With a
 * ready-made fold the value has 8 bytes (but for count, where it is not read). */
trm_status trm_fold_table_add(trm_fold_table *self, const void *key, size_t key_len, const void *value,
                              size_t value_len);

/* Adds the pairs that wait. TRM_AGAIN: the table is full, and some wait still. */
trm_status trm_fold_table_settle(trm_fold_table *self);

/* Lets a pair of a key of up to 16 bytes wait, in a table that `waits`. False: no more may wait, settle
 * before the next call. `value_bytes` is counted only: the value of a count is whatever it is. */
static inline bool trm_fold_table_wait(trm_fold_table *self, const void *key, size_t key_len, uint64_t value,
                                       size_t value_bytes)
{
    trm_key16 k = trm_key16_load(key, key_len);
    uint64_t tag = trm_fold_tag(trm_key16_hash(k, key_len, self->seed), key_len);
    __builtin_prefetch(&self->slots[tag >> self->shift], 1);
    self->pair[self->waiting] = (trm_fold_pair){k.low, k.high, value, tag};
    self->bytes_in += key_len + value_bytes;
    return ++self->waiting < TRM_FOLD_WAITING;
}

/* Lets keys wait with the same value, as long as they are short and may. How many: fewer than `n` when the
 * next one is long, or the table must be settled first. */
size_t trm_fold_table_wait_many(trm_fold_table *self, const trm_key *keys, size_t n, uint64_t value);

/* The key and accumulator of a slot by its number, which is an entry's place. */
static inline trm_sort_key trm_fold_table_key(const trm_fold_table *self, size_t at)
{
    const trm_fold_slot *slot = &self->slots[at];
    size_t len = trm_fold_tag_len(slot->tag);
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
