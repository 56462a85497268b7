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
    self->shift = 64 - (unsigned)__builtin_ctzll(slots);
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

void trm_fold_table_begin(trm_fold_table *self)
{
    self->waiting = 0;
    self->pairs_in = self->bytes_in = 0;
    trm_fold_table_clear(self);
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
        if (old[i].tag == 0)
            continue;
        size_t at = old[i].tag >> self->shift;
        while (self->slots[at].tag)
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

/* A key that is not there yet, at the free slot `at`. A long one lies at `key`, which is else NULL. */
__attribute__((noinline)) static trm_status insert(trm_fold_table *self, size_t at, trm_key16 k, uint64_t tag,
                                                   const void *key, const void *value, size_t value_len)
{
    if (self->used >= self->used_max) {
        if (!grow(self))
            return TRM_AGAIN;
        for (at = tag >> self->shift; self->slots[at].tag;)
            at = (at + 1) & self->mask;
    }
    uint64_t key_room = key ? (trm_fold_tag_len(tag) + 7) / 8 * 8 : 0;
    uint64_t state_room = self->state_inline ? 0 : (self->fold->state_bytes + 7) / 8 * 8;
    if (self->arena < key_room + state_room ||
        !fits(self, self->arena - key_room - state_room, self->used + 1))
        return TRM_AGAIN;
    trm_fold_slot *slot = &self->slots[at];
    slot->low = k.low;
    slot->high = k.high;
    slot->state = 0;
    if (key_room) {
        self->arena -= key_room;
        memcpy(self->region.base + self->arena, key, trm_fold_tag_len(tag));
        slot->high = self->arena;
    }
    if (state_room) {
        self->arena -= state_room;
        slot->state = self->arena;
    }
    /* The user's init may fail by a jump: the slot is not taken before it is done. */
    init_state(self, state_room ? self->region.base + self->arena : (uint8_t *)&slot->state, value,
               value_len);
    slot->tag = tag;
    self->used++;
    return TRM_OK;
}

static void update(const trm_fold_table *self, trm_fold_slot *slot, const void *value, size_t value_len)
{
    if (self->op == TRM_FOLD_OP_CALL)
        self->fold->add(self->state_inline ? (uint8_t *)&slot->state : self->region.base + slot->state, value,
                        value_len);
    else if (self->op == TRM_FOLD_OP_COUNT)
        slot->state++;
    else
        slot->state = trm_fold_merge_u64(self->op, slot->state, trm_load_u64(value));
}

static trm_status add_short(trm_fold_table *self, const void *key, size_t key_len, const void *value,
                            size_t value_len)
{
    trm_key16 k = trm_key16_load(key, key_len);
    uint64_t tag = trm_fold_tag(trm_key16_hash(k, key_len, self->seed), key_len);
    size_t at = tag >> self->shift;
    for (; self->slots[at].tag; at = (at + 1) & self->mask) {
        trm_fold_slot *slot = &self->slots[at];
        if (slot->tag == tag && slot->low == k.low && slot->high == k.high) {
            update(self, slot, value, value_len);
            return TRM_OK;
        }
    }
    return insert(self, at, k, tag, NULL, value, value_len);
}

static trm_status add_long(trm_fold_table *self, const void *key, size_t key_len, const void *value,
                           size_t value_len)
{
    uint64_t tag = trm_fold_tag(trm_key_hash_long(key, key_len, self->seed), key_len);
    trm_key16 k = {.low = trm_load_u64(key)};
    size_t at = tag >> self->shift;
    for (; self->slots[at].tag; at = (at + 1) & self->mask) {
        trm_fold_slot *slot = &self->slots[at];
        if (slot->tag == tag && slot->low == k.low &&
            memcmp(self->region.base + slot->high, key, key_len) == 0) {
            update(self, slot, value, value_len);
            return TRM_OK;
        }
    }
    return insert(self, at, k, tag, key, value, value_len);
}

trm_status trm_fold_table_add(trm_fold_table *self, const void *key, size_t key_len, const void *value,
                              size_t value_len)
{
    trm_status status = key_len <= TRM_FOLD_KEY_INLINE ? add_short(self, key, key_len, value, value_len)
                                                       : add_long(self, key, key_len, value, value_len);
    if (status == TRM_OK) {
        self->pairs_in++;
        self->bytes_in += key_len + value_len;
    }
    return status;
}

/* Finds where a pair that waits belongs: its slot, or the free one where it would be. One branch, because
 * nearly always the first slot is the pair's own. */
static inline trm_fold_slot *find(trm_fold_slot *slots, size_t mask, size_t at, const trm_fold_pair *pair,
                                  bool *found)
{
    for (;; at = (at + 1) & mask) {
        trm_fold_slot *slot = &slots[at];
        *found = ((slot->low ^ pair->low) | (slot->high ^ pair->high) | (slot->tag ^ pair->tag)) == 0;
        if (__builtin_expect(*found || slot->tag == 0, 1))
            return slot;
    }
}

/* How many were added; made for one fold each, because a switch a pair is dear, as is to ask the table
 * again where it lies: only an insert moves it. */
__attribute__((always_inline)) static inline unsigned settle(trm_fold_table *self, trm_fold_op op)
{
    trm_fold_slot *slots = self->slots;
    size_t mask = self->mask;
    unsigned shift = self->shift, done = 0, waiting = self->waiting;
    for (; done < waiting; done++) {
        const trm_fold_pair *pair = &self->pair[done];
        bool found;
        trm_fold_slot *slot = find(slots, mask, pair->tag >> shift, pair, &found);
        if (__builtin_expect(found, 1)) {
            uint64_t value = op == TRM_FOLD_OP_COUNT ? 1 : pair->value;
            slot->state = trm_fold_merge_u64(op, slot->state, value);
            continue;
        }
        if (insert(self, (size_t)(slot - slots), (trm_key16){pair->low, pair->high}, pair->tag, NULL,
                   &pair->value, sizeof pair->value) != TRM_OK)
            break;
        slots = self->slots;
        mask = self->mask;
        shift = self->shift;
    }
    return done;
}

trm_status trm_fold_table_settle(trm_fold_table *self)
{
    unsigned done =
        self->op == TRM_FOLD_OP_SUM_U64 ? settle(self, TRM_FOLD_OP_SUM_U64) : settle(self, self->op);
    self->pairs_in += done;
    self->waiting -= done;
    memmove(self->pair, self->pair + done, self->waiting * sizeof *self->pair);
    return self->waiting ? TRM_AGAIN : TRM_OK;
}

size_t trm_fold_table_wait_many(trm_fold_table *self, const trm_key *keys, size_t n, uint64_t value)
{
    const trm_fold_slot *slots = self->slots;
    const unsigned shift = self->shift;
    const uint64_t seed = self->seed;
    uint64_t bytes = 0;
    trm_fold_pair *to = self->pair + self->waiting;
    size_t done = 0;
    if (n > TRM_FOLD_WAITING - self->waiting)
        n = TRM_FOLD_WAITING - self->waiting;
    for (; done < n && keys[done].len <= TRM_FOLD_KEY_INLINE; done++, to++) {
        size_t len = keys[done].len;
        trm_key16 k = trm_key16_load(keys[done].data, len);
        uint64_t tag = trm_fold_tag(trm_key16_hash(k, len, seed), len);
        __builtin_prefetch(&slots[tag >> shift], 1);
        *to = (trm_fold_pair){k.low, k.high, value, tag};
        bytes += len + sizeof value;
    }
    self->bytes_in += bytes;
    self->waiting += (unsigned)done;
    return done;
}

trm_sort_entry *trm_fold_table_entries(trm_fold_table *self, trm_sort_entry **scratch)
{
    bool first = (uint8_t *)self->slots == self->region.base;
    trm_sort_entry *entries = (trm_sort_entry *)(self->region.base + (first ? self->floor : 0));
    size_t n = 0;
    for (size_t i = 0; i <= self->mask; i++) {
        entries[n] = (trm_sort_entry){__builtin_bswap64(self->slots[i].low), i};
        n += self->slots[i].tag != 0;
    }
    assert(n == self->used);
    *scratch = entries + n;
    return entries;
}
