/* A spill: the pairs or the table, sorted, combined, written as one segment a partition. */
#include "workers/collector_self.h"

#include "runtime/bytes.h"
#include "workers/group_out.h"

#include <assert.h>

#define PREFETCH_LINE_BYTES 64u
#define PREFETCH_BYTES_MAX 512u /* of a pair; the processor sees where it goes from there */
#define PREFETCH_AHEAD 16u      /* entries: their pairs are all over the region */

/* What the pieces of one spill need; on the stack of trm_collector_spill. */
typedef struct spilling {
    size_t pair_bytes; /* of an average pair, within bounds, and a cache line more */
    trm_collector *collector;
    const trm_sort_entry *entries;
    size_t count;
    uint32_t partition; /* of the open segment; UINT32_MAX: none */
    size_t cut_at;      /* partitioned by sorting: the first entry of the next partition */
} spilling;

static trm_status need_file(trm_collector *self, trm_err *err)
{
    if (trm_run_writer_is_open(self->writer))
        return TRM_OK;
    return trm_run_writer_open(self->writer, self->path, self->task, self->attempt, self->options.partitions,
                               err);
}

static trm_status open_segment(trm_collector *self, uint32_t partition, trm_err *err)
{
    const trm_collector_options *o = &self->options;
    bool remote = o->is_remote && o->is_remote(o->is_remote_context, partition);
    return trm_run_writer_segment(self->writer, self->spills, partition, remote, err);
}

/* ---- Pairs ----------------------------------------------------------------------- */

typedef struct pair {
    const uint8_t *record, *key, *value;
    size_t key_len, value_len;
} pair;

static inline pair pair_at(const uint8_t *base, uint64_t where)
{
    const uint8_t *at = base + (where & TRM_SORT_PLACE_MASK);
    pair p = {.record = at};
    if (__builtin_expect(!((at[0] | at[1]) & 0x80), 1)) {
        p.key_len = at[0];
        p.value_len = at[1];
        p.key = at + 2;
    } else {
        trm_reader in;
        trm_reader_init(&in, at, TRM_RUN_RECORD_HEAD_BYTES_MAX);
        p.key_len = (size_t)trm_get_varint(&in);
        p.value_len = (size_t)trm_get_varint(&in);
        assert(trm_reader_ok(&in));
        p.key = in.at;
    }
    p.value = p.key + p.key_len;
    return p;
}

static trm_sort_key locate_pair(const trm_sort_keys *keys, uint64_t where)
{
    pair p = pair_at(keys->base, where);
    return (trm_sort_key){p.key, p.key_len};
}

static trm_sort_key locate_slot(const trm_sort_keys *keys, uint64_t where)
{
    return trm_fold_table_key(keys->base, (size_t)(where & TRM_SORT_PLACE_MASK));
}

/* All lines of a pair of the usual size that is to come. Inlined in any case: gcc takes a function
 * that only prefetches for one that does nothing, and leaves its calls out. */
__attribute__((always_inline)) static inline void prefetch_pair(const spilling *s, size_t i)
{
    if (i + PREFETCH_AHEAD >= s->count)
        return;
    uint64_t where = s->entries[i + PREFETCH_AHEAD].where;
    const uint8_t *at = s->collector->options.region.base + (where & TRM_SORT_PLACE_MASK);
    for (const uint8_t *end = at + s->pair_bytes; at < end; at += PREFETCH_LINE_BYTES)
        __builtin_prefetch(at);
}

/* ---- Segments -------------------------------------------------------------------- */

/* Sorted by bytes as a whole: the first entry from `from` on whose key is not below cut
 * number `cut`. */
static size_t find_cut(const spilling *s, const trm_sort_keys *keys, uint32_t cut, size_t from)
{
    const trm_cuts *cuts = s->collector->options.cuts;
    const uint8_t *cut_key = cuts->keys + cuts->begin[cut];
    size_t cut_len = (size_t)(cuts->begin[cut + 1] - cuts->begin[cut]), low = from, high = s->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        trm_sort_key key = keys->locate(keys, s->entries[middle].where);
        if (trm_key_compare(key.bytes, key.len, cut_key, cut_len) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Opens the segment of entry i, if it is not the one that is open. */
static trm_status segment_of(spilling *s, const trm_sort_keys *keys, size_t i, trm_err *err)
{
    trm_collector *self = s->collector;
    uint32_t partition = (uint32_t)(s->entries[i].where >> TRM_SORT_PLACE_BITS);
    if (self->partitioning == TRM_COLLECTOR_BY_SORTING) {
        if (i < s->cut_at)
            return TRM_OK;
        trm_sort_key key = keys->locate(keys, s->entries[i].where);
        partition = trm_cuts_find(self->options.cuts, key.bytes, key.len);
        s->cut_at = partition + 1 < self->options.partitions ? find_cut(s, keys, partition, i) : s->count;
        assert(s->cut_at > i);
    }
    if (partition == s->partition)
        return TRM_OK;
    s->partition = partition;
    return open_segment(self, partition, err);
}

static trm_status write_pairs(spilling *s, const trm_sort_keys *keys, trm_err *err)
{
    const uint8_t *base = s->collector->options.region.base;
    trm_run_writer *writer = s->collector->writer;
    for (size_t i = 0; i < s->count; i++) {
        prefetch_pair(s, i);
        trm_status status = segment_of(s, keys, i, err);
        if (status != TRM_OK)
            return status;
        pair p = pair_at(base, s->entries[i].where);
        size_t len = (size_t)(p.value + p.value_len - p.record);
        status = len <= TRM_RUN_BLOCK_BYTES
                     ? trm_run_writer_put_record(writer, p.record, len, err)
                     : trm_run_writer_put(writer, p.key, p.key_len, p.value, p.value_len, err);
        if (status != TRM_OK)
            return status;
    }
    return TRM_OK;
}

static trm_status write_table(spilling *s, const trm_sort_keys *keys, trm_err *err)
{
    trm_fold_table *table = &s->collector->table;
    size_t state_bytes = table->fold->state_bytes;
    for (size_t i = 0; i < s->count; i++) {
        if (i + PREFETCH_AHEAD < s->count)
            __builtin_prefetch(&table->slots[s->entries[i + PREFETCH_AHEAD].where & TRM_SORT_PLACE_MASK]);
        trm_status status = segment_of(s, keys, i, err);
        if (status != TRM_OK)
            return status;
        size_t at = (size_t)(s->entries[i].where & TRM_SORT_PLACE_MASK);
        trm_sort_key key = trm_fold_table_key(table, at);
        status = trm_run_writer_put(s->collector->writer, key.bytes, key.len, trm_fold_table_state(table, at),
                                    state_bytes, err);
        if (status != TRM_OK)
            return status;
    }
    return TRM_OK;
}

/* ---- Combining -------------------------------------------------------------------- */

typedef struct pair_group {
    trm_group group;
    const spilling *spilling;
    size_t next, end; /* entries of the key that were not given out; of the segment's */
    bool ended;
} pair_group;

static bool same_key(const spilling *s, const pair_group *g, size_t i)
{
    const trm_collector_options *o = &s->collector->options;
    pair p = pair_at(o->region.base, s->entries[i].where);
    if (o->compare)
        return o->compare(g->group.key, g->group.key_len, p.key, p.key_len) == 0;
    return p.key_len == g->group.key_len && memcmp(p.key, g->group.key, p.key_len) == 0;
}

/* Whether entry i belongs to the open segment and has the group's key. */
static bool in_group(const pair_group *g, size_t i)
{
    const spilling *s = g->spilling;
    if (i >= g->end ||
        s->entries[i].where >> TRM_SORT_PLACE_BITS != s->entries[g->next - 1].where >> TRM_SORT_PLACE_BITS)
        return false;
    return same_key(s, g, i);
}

static trm_status next_value(trm_group *group, const void **value, size_t *value_len, trm_err *err)
{
    pair_group *g = (pair_group *)group;
    const spilling *s = g->spilling;
    if (!g->ended && g->next < g->end) {
        prefetch_pair(s, g->next);
        pair p = pair_at(s->collector->options.region.base, s->entries[g->next].where);
        *value = p.value;
        *value_len = p.value_len;
        g->next++;
        g->ended = !in_group(g, g->next);
        return TRM_OK;
    }
    return TRM_EOF;
}

/* The group that begins with entry i. Returns the first entry after it in *after. */
static trm_status combine_from(spilling *s, size_t i, size_t *after, trm_err *err)
{
    const trm_collector_options *o = &s->collector->options;
    pair p = pair_at(o->region.base, s->entries[i].where);
    pair_group g = {{.key = p.key, .key_len = p.key_len, .next = next_value}, s, i + 1, s->count, false};
    if (!in_group(&g, i + 1)) { /* alone: there is nothing to combine */
        *after = i + 1;
        return trm_run_writer_put(s->collector->writer, p.key, p.key_len, p.value, p.value_len, err);
    }
    g.next = i;
    trm_group_out out = {s->collector->writer, &g.group, o->record_bytes_max, o->compare};
    trm_status status = o->combine(o->combine_context, &g.group, &out, err);
    if (g.next == i) /* none was asked for */
        g.next = i + 1;
    while (status == TRM_OK && !g.ended && in_group(&g, g.next))
        g.next++;
    *after = g.next;
    return status;
}

static trm_status write_combined(spilling *s, const trm_sort_keys *keys, trm_err *err)
{
    trm_status status = TRM_OK;
    for (size_t i = 0; status == TRM_OK && i < s->count;) {
        status = segment_of(s, keys, i, err);
        if (status == TRM_OK)
            status = combine_from(s, i, &i, err);
    }
    return status;
}

/* ---- Spills ----------------------------------------------------------------------- */

static uint32_t sorted_partitions(const trm_collector *self)
{
    return self->partitioning == TRM_COLLECTOR_BY_SORTING ? 1 : self->options.partitions;
}

static trm_status spill_pairs(trm_collector *self, trm_err *err)
{
    trm_sort_keys keys = {locate_pair, self->options.region.base, self->options.compare};
    trm_sort_entry *scratch = self->entries - self->count;
    assert((uint8_t *)scratch >= self->pairs);
    size_t average = (size_t)(self->pairs - self->options.region.base) / self->count;
    spilling s = {
        .pair_bytes = (average < PREFETCH_BYTES_MAX ? average : PREFETCH_BYTES_MAX) + PREFETCH_LINE_BYTES - 1,
        .collector = self,
        .entries = trm_sort(self->entries, scratch, self->count, sorted_partitions(self), &keys),
        .count = self->count,
        .partition = UINT32_MAX,
    };
    trm_status status = self->options.combine ? write_combined(&s, &keys, err) : write_pairs(&s, &keys, err);
    self->pairs = self->options.region.base;
    self->entries = trm_collector_entries_end(self);
    self->count = 0;
    return status;
}

static trm_status spill_table(trm_collector *self, trm_err *err)
{
    trm_fold_table *table = &self->table;
    trm_sort_keys keys = {locate_slot, table, self->options.compare};
    trm_sort_entry *scratch, *entries = trm_fold_table_entries(table, &scratch);
    for (size_t i = 0; sorted_partitions(self) > 1 && i < table->used; i++) {
        uint32_t partition;
        trm_sort_key key = trm_fold_table_key(table, (size_t)entries[i].where);
        trm_status status = trm_collector_partition(self, key.bytes, key.len, &partition, err);
        if (status != TRM_OK)
            return status;
        entries[i].where |= (uint64_t)partition << TRM_SORT_PLACE_BITS;
    }
    spilling s = {
        .collector = self,
        .entries = trm_sort(entries, scratch, table->used, sorted_partitions(self), &keys),
        .count = table->used,
        .partition = UINT32_MAX,
    };
    trm_status status = write_table(&s, &keys, err);
    trm_fold_table_clear(table);
    return status;
}

static trm_status spill_once(trm_collector *self, trm_err *err)
{
    trm_status status = need_file(self, err);
    if (status == TRM_OK)
        status = self->folds ? spill_table(self, err) : spill_pairs(self, err);
    self->spills++;
    return status;
}

/* What waits may fill the table more than once. */
trm_status trm_collector_settle(trm_collector *self, trm_err *err)
{
    trm_status status = TRM_OK;
    while (status == TRM_OK && trm_fold_table_settle(&self->table) == TRM_AGAIN)
        status = spill_once(self, err);
    return status;
}

trm_status trm_collector_spill(trm_collector *self, trm_err *err)
{
    trm_status status = self->folds ? trm_collector_settle(self, err) : TRM_OK;
    if (status != TRM_OK || (self->folds ? self->table.used == 0 : self->count == 0))
        return status;
    return spill_once(self, err);
}

trm_status trm_collector_spill_pair(trm_collector *self, const void *key, size_t key_len, const void *value,
                                    size_t value_len, trm_err *err)
{
    uint32_t partition;
    trm_status status = need_file(self, err);
    if (status == TRM_OK && self->partitioning == TRM_COLLECTOR_BY_SORTING)
        partition = trm_cuts_find(self->options.cuts, key, key_len);
    else if (status == TRM_OK)
        status = trm_collector_partition(self, key, key_len, &partition, err);
    if (status == TRM_OK)
        status = open_segment(self, partition, err);
    if (status == TRM_OK)
        status = trm_run_writer_put(self->writer, key, key_len, value, value_len, err);
    self->spills++;
    return status;
}
