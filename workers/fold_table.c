#include "workers/fold_table.h"

#include <assert.h>

#define ENTRY_ROOM (2 * sizeof(trm_sort_entry)) /* that a spill needs a key */
_Static_assert(sizeof(trm_fold_slot) == 32, "two slots a cache line");

static size_t slots_of(const trm_fold_table *self)
{
    return self->mask + 1;
}

/* Tables of slots_max, and of a quarter of that, lie at the region's begin; those of a half,
 * and of an eighth, behind the place of the largest. */
static uint64_t place_of(const trm_fold_table *self, size_t slots)
{
    unsigned steps = (unsigned)__builtin_ctzll(self->slots_max) - (unsigned)__builtin_ctzll(slots);
    return steps % 2 ? self->slots_max * sizeof(trm_fold_slot) : 0;
}

static size_t fill_max(const trm_fold_table *self, size_t slots)
{
    return slots < self->slots_max ? slots / 2 : slots / 16 * 11;
}

/* Takes a table of `slots` in its place, as it is there. */
static void take_table(trm_fold_table *self, size_t slots)
{
    uint64_t place = place_of(self, slots), end = place + slots * sizeof(trm_fold_slot);
    self->slots = (trm_fold_slot *)(self->region.base + place);
    self->mask = slots - 1;
    self->shift = 32 - (unsigned)__builtin_ctzll(slots);
    self->used_max = fill_max(self, slots);
    /* The room for sorting is in front of a table that lies behind, after one that lies first. */
    self->floor = end;
}

void trm_fold_table_init(trm_fold_table *self, trm_region region, const trm_fold *fold, uint64_t seed)
{
    assert(fold->state_bytes > 0 && fold->state_bytes <= TRM_FOLD_BYTES_MAX);
    *self = (trm_fold_table){.fold = fold, .op = trm_fold_op_of(fold), .region = region, .seed = seed};
    self->state_inline = fold->state_bytes <= 8;
    self->waits = self->op != TRM_FOLD_OP_CALL;
    self->slots_max = TRM_FOLD_SLOTS_FIRST;
    while (self->slots_max * 2 * sizeof(trm_fold_slot) <= region.bytes / 2 && self->slots_max < (size_t)1
                                                                                                    << 31)
        self->slots_max *= 2;
    assert(self->slots_max * sizeof(trm_fold_slot) <= region.bytes / 2);
    take_table(self, TRM_FOLD_SLOTS_FIRST);
    memset(self->slots, 0, TRM_FOLD_SLOTS_FIRST * sizeof(trm_fold_slot));
    self->arena = region.bytes / 8 * 8;
}

void trm_fold_table_clear(trm_fold_table *self)
{
    self->arena = self->region.bytes / 8 * 8;
    if (self->used == 0)
        return;
    size_t slots = slots_of(self);
    while (slots > TRM_FOLD_SLOTS_FIRST && self->used < fill_max(self, slots / 2) / 4)
        slots /= 2;
    take_table(self, slots);
    memset(self->slots, 0, slots * sizeof(trm_fold_slot));
    self->used = 0;
}

/* Whether the arena may begin at `arena` when there are `used` keys. */
static bool fits(const trm_fold_table *self, uint64_t arena, size_t used)
{
    bool first = (const uint8_t *)self->slots == self->region.base;
    return arena >= self->floor + (first ? used * ENTRY_ROOM : 0);
}

/* Moves everything into a table of twice the slots. False: there is no room for one. */
static bool grow(trm_fold_table *self)
{
    size_t slots = slots_of(self);
    if (slots == self->slots_max)
        return false;
    uint64_t end = place_of(self, slots * 2) + slots * 2 * sizeof(trm_fold_slot);
    if (self->arena < end + (end == 2 * slots * sizeof(trm_fold_slot) ? (self->used + 1) * ENTRY_ROOM : 0))
        return false;
    const trm_fold_slot *old = self->slots;
    take_table(self, slots * 2);
    memset(self->slots, 0, slots * 2 * sizeof(trm_fold_slot));
    for (size_t i = 0; i < slots; i++) {
        if (old[i].len == 0)
            continue;
        size_t at = old[i].hash >> self->shift;
        while (self->slots[at].len)
            at = (at + 1) & self->mask;
        self->slots[at] = old[i];
    }
    return true;
}

/* Makes the first accumulator of a key at `state`. */
static void init_state(const trm_fold_table *self, void *state, const void *value, size_t value_len)
{
    if (self->op == TRM_FOLD_OP_CALL)
        self->fold->init(state, value, value_len);
    else if (self->op == TRM_FOLD_OP_COUNT)
        trm_store_u64(state, 1);
    else
        memcpy(state, value, 8);
}

trm_status trm_fold_table_insert(trm_fold_table *self, size_t at, trm_key16 k, uint32_t hash, const void *key,
                                 size_t key_len, const void *value, size_t value_len)
{
    if (self->used >= self->used_max) {
        if (!grow(self))
            return TRM_AGAIN;
        for (at = hash >> self->shift; self->slots[at].len;)
            at = (at + 1) & self->mask;
    }
    uint64_t key_room = key_len > TRM_FOLD_KEY_INLINE ? (key_len + 7) / 8 * 8 : 0;
    uint64_t state_room = self->state_inline ? 0 : (self->fold->state_bytes + 7) / 8 * 8;
    if (self->arena < key_room + state_room ||
        !fits(self, self->arena - key_room - state_room, self->used + 1))
        return TRM_AGAIN;
    trm_fold_slot *slot = &self->slots[at];
    slot->low = k.low;
    slot->high = k.high;
    slot->state = 0;
    slot->hash = hash;
    if (key_room) {
        self->arena -= key_room;
        memcpy(self->region.base + self->arena, key, key_len);
        slot->high = self->arena;
    }
    if (state_room) {
        self->arena -= state_room;
        slot->state = self->arena;
    }
    /* The user's init may fail by a jump: the slot is not taken before it is done. */
    init_state(self, state_room ? self->region.base + self->arena : (uint8_t *)&slot->state, value,
               value_len);
    slot->len = (uint32_t)key_len + 1;
    self->used++;
    return TRM_OK;
}

void trm_fold_table_update(const trm_fold_table *self, trm_fold_slot *slot, const void *value,
                           size_t value_len)
{
    if (self->op == TRM_FOLD_OP_CALL)
        self->fold->add(self->state_inline ? (uint8_t *)&slot->state : self->region.base + slot->state, value,
                        value_len);
    else if (self->op == TRM_FOLD_OP_COUNT)
        slot->state++;
    else
        slot->state = trm_fold_merge_u64(self->op, slot->state, trm_load_u64(value));
}

trm_status trm_fold_table_add_now(trm_fold_table *self, trm_key16 k, uint32_t hash, size_t key_len,
                                  const void *value, size_t value_len)
{
    size_t at = hash >> self->shift;
    for (;; at = (at + 1) & self->mask) {
        trm_fold_slot *slot = &self->slots[at];
        if (slot->low == k.low && slot->high == k.high && slot->len == key_len + 1) {
            trm_fold_table_update(self, slot, value, value_len);
            return TRM_OK;
        }
        if (slot->len == 0)
            return trm_fold_table_insert(self, at, k, hash, NULL, key_len, value, value_len);
    }
}

/* One of those that wait. */
static inline trm_status settle_pair(trm_fold_table *self, const trm_fold_pair *pair)
{
    size_t at = pair->hash >> self->shift;
    for (;; at = (at + 1) & self->mask) {
        trm_fold_slot *slot = &self->slots[at];
        if (slot->low == pair->key.low && slot->high == pair->key.high && slot->len == pair->len) {
            if (__builtin_expect(self->op == TRM_FOLD_OP_SUM_U64, 1))
                slot->state += pair->value;
            else
                slot->state = trm_fold_merge_u64(self->op, slot->state, pair->value);
            return TRM_OK;
        }
        if (slot->len == 0)
            return trm_fold_table_insert(self, at, pair->key, pair->hash, NULL, pair->len - 1, &pair->value,
                                         sizeof pair->value);
    }
}

trm_status trm_fold_table_settle(trm_fold_table *self)
{
    unsigned done = 0, waiting = self->waiting;
    trm_status status = TRM_OK;
    while (done < waiting && (status = settle_pair(self, &self->pair[done])) == TRM_OK)
        done++;
    self->waiting -= done;
    if (status != TRM_OK)
        memmove(self->pair, self->pair + done, self->waiting * sizeof *self->pair);
    return status;
}

trm_status trm_fold_table_add_long(trm_fold_table *self, const void *key, size_t key_len, const void *value,
                                   size_t value_len)
{
    uint32_t hash = (uint32_t)(trm_key_hash_long(key, key_len, self->seed) >> 32);
    trm_key16 k = {.low = trm_load_u64(key)};
    size_t at = hash >> self->shift;
    for (; self->slots[at].len; at = (at + 1) & self->mask) {
        trm_fold_slot *slot = &self->slots[at];
        if (slot->hash == hash && slot->low == k.low && slot->len == key_len + 1 &&
            memcmp(self->region.base + slot->high, key, key_len) == 0) {
            trm_fold_table_update(self, slot, value, value_len);
            return TRM_OK;
        }
    }
    return trm_fold_table_insert(self, at, k, hash, key, key_len, value, value_len);
}

trm_sort_entry *trm_fold_table_entries(trm_fold_table *self, trm_sort_entry **scratch)
{
    bool first = (uint8_t *)self->slots == self->region.base;
    trm_sort_entry *entries = (trm_sort_entry *)(self->region.base + (first ? self->floor : 0));
    size_t n = 0;
    for (size_t i = 0; i <= self->mask; i++) {
        entries[n] = (trm_sort_entry){__builtin_bswap64(self->slots[i].low), i};
        n += self->slots[i].len != 0;
    }
    assert(n == self->used);
    *scratch = entries + n;
    return entries;
}
