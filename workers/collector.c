#include "workers/collector_self.h"

#include <assert.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>

static void choose_partitioning(trm_collector *self)
{
    const trm_collector_options *o = &self->options;
    if (o->partitions == 1)
        self->partitioning = TRM_COLLECTOR_ONE;
    else if (o->partition)
        self->partitioning = TRM_COLLECTOR_BY_CALL;
    else if (!o->cuts)
        self->partitioning = TRM_COLLECTOR_BY_HASH;
    else
        self->partitioning = o->compare ? TRM_COLLECTOR_BY_CUTS : TRM_COLLECTOR_BY_SORTING;
    assert(!o->cuts || o->cuts->partitions == o->partitions);
}

trm_status trm_collector_create(trm_collector **out, const trm_collector_options *options, trm_err *err)
{
    assert(options->region.bytes >= TRM_COLLECTOR_BYTES_MIN);
    assert(options->partitions > 0 && options->partitions <= TRM_PARTITIONS_MAX);
    assert(!options->fold || !options->combine);
    trm_collector *self = calloc(1, sizeof *self);
    if (!self)
        return trm_err_set(err, TRM_ENOMEM, "no memory for a collector");
    self->options = *options;
    self->folds = options->fold != NULL;
    self->pair_bytes_max = options->region.bytes / TRM_COLLECTOR_PAIR_SHARE;
    choose_partitioning(self);
    trm_status status =
        trm_run_writer_create(&self->writer, options->fs, options->policy, options->now_ns, err);
    if (status != TRM_OK) {
        free(self);
        return status;
    }
    if (self->folds)
        trm_fold_table_init(&self->table, options->region, options->fold, options->seed);
    *out = self;
    return TRM_OK;
}

void trm_collector_destroy(trm_collector *self)
{
    if (!self)
        return;
    trm_collector_abort(self);
    trm_run_writer_destroy(self->writer);
    free(self);
}

void trm_collector_set_cuts(trm_collector *self, const struct trm_cuts *cuts)
{
    assert(!self->begun || cuts == self->options.cuts);
    self->options.cuts = cuts;
    choose_partitioning(self);
}

static void forget_pairs(trm_collector *self)
{
    self->pairs = self->options.region.base;
    self->entries = trm_collector_entries_end(self);
    self->count = 0;
    if (self->folds)
        trm_fold_table_begin(&self->table);
}

void trm_collector_abort(trm_collector *self)
{
    trm_run_writer_abort(self->writer);
    free(self->path);
    self->path = NULL;
    self->begun = false;
    forget_pairs(self);
}

trm_status trm_collector_begin(trm_collector *self, const char *path, uint32_t task, uint32_t attempt,
                               trm_err *err)
{
    trm_collector_abort(self);
    if (strlen(path) >= PATH_MAX)
        return trm_err_set(err, TRM_ELIMIT, "a path is too long: %s", path);
    self->path = strdup(path);
    if (!self->path)
        return trm_err_set(err, TRM_ENOMEM, "no memory for a collector");
    self->task = task;
    self->attempt = attempt;
    self->spills = 0;
    self->records_in = self->bytes_in = 0;
    self->begun = true;
    return TRM_OK;
}

trm_status trm_collector_finish(trm_collector *self, trm_collector_stats *stats, trm_err *err)
{
    assert(self->begun);
    trm_status status = trm_collector_spill(self, err);
    trm_collector_stats done = {.records_in = self->folds ? self->table.pairs_in : self->records_in,
                                .bytes_in = self->folds ? self->table.bytes_in : self->bytes_in};
    if (status == TRM_OK && trm_run_writer_is_open(self->writer))
        status = trm_run_writer_finish(self->writer, &done.run, err);
    trm_collector_abort(self);
    if (status == TRM_OK)
        *stats = done;
    return status;
}

/* ---- Adding ---------------------------------------------------------------------- */

trm_status trm_collector_partition(trm_collector *self, const void *key, size_t key_len, uint32_t *out,
                                   trm_err *err)
{
    const trm_collector_options *o = &self->options;
    switch (self->partitioning) {
    case TRM_COLLECTOR_ONE:
    case TRM_COLLECTOR_BY_SORTING:
        *out = 0;
        break;
    case TRM_COLLECTOR_BY_HASH:
        *out = trm_key_partition(key, key_len, o->partitions);
        break;
    case TRM_COLLECTOR_BY_CUTS:
        *out = trm_cuts_find(o->cuts, key, key_len);
        break;
    case TRM_COLLECTOR_BY_CALL:
        *out = o->partition(o->partition_context, key, key_len);
        if (*out >= o->partitions)
            return trm_err_set(err, TRM_EKERNEL, "partition returned %u, but there are %u partitions", *out,
                               o->partitions);
        break;
    }
    return TRM_OK;
}

__attribute__((noinline, cold)) static trm_status over_limit(const trm_collector *self, size_t key_len,
                                                             size_t value_len, trm_err *err)
{
    if (key_len > TRM_KEY_BYTES_MAX)
        return trm_err_set(err, TRM_ERECORD, "a key of %zu bytes was emitted, the limit is %u", key_len,
                           TRM_KEY_BYTES_MAX);
    return trm_err_set(err, TRM_ERECORD,
                       "a value of %zu bytes was emitted, the limit is %" PRIu64 ": raise --record-max",
                       value_len, self->options.record_bytes_max);
}

static inline bool within_limits(const trm_collector *self, size_t key_len, size_t value_len)
{
    return key_len <= TRM_KEY_BYTES_MAX && value_len <= self->options.record_bytes_max;
}

static trm_status fold_pair(trm_collector *self, const void *key, size_t key_len, const void *value,
                            size_t value_len, trm_err *err)
{
    trm_fold_table *table = &self->table;
    if (table->waits && key_len <= TRM_FOLD_KEY_INLINE) {
        uint64_t number = table->op == TRM_FOLD_OP_COUNT ? 1 : trm_load_u64(value);
        return trm_fold_table_wait(table, key, key_len, number, value_len) ? TRM_OK
                                                                           : trm_collector_settle(self, err);
    }
    trm_status status = trm_fold_table_add(table, key, key_len, value, value_len);
    if (status != TRM_AGAIN)
        return status;
    status = trm_collector_spill(self, err);
    if (status != TRM_OK)
        return status;
    status = trm_fold_table_add(table, key, key_len, value, value_len);
    assert(status == TRM_OK);
    return status;
}

/* Makes room, or finds that the pair is too large for any. TRM_EOF: it is written already. */
__attribute__((noinline)) static trm_status make_room(trm_collector *self, const void *key, size_t key_len,
                                                      const void *value, size_t value_len, trm_err *err)
{
    trm_status status = trm_collector_spill(self, err);
    if (status != TRM_OK || key_len + value_len <= self->pair_bytes_max)
        return status;
    status = trm_collector_spill_pair(self, key, key_len, value, value_len, err);
    return status == TRM_OK ? TRM_EOF : status;
}

static inline bool has_room(const trm_collector *self, size_t len)
{
    size_t room = (size_t)((const uint8_t *)self->entries - self->pairs);
    return room >= len + (self->count + 2) * sizeof(trm_sort_entry) && self->count < UINT32_MAX;
}

static inline void copy_key(uint8_t *to, const void *key, size_t key_len)
{
    if (__builtin_expect(key_len <= 16, 1)) {
        trm_key16 k = trm_key16_load(key, key_len);
        trm_store_u64(to, k.low);
        trm_store_u64(to + 8, k.high);
    } else {
        memcpy(to, key, key_len);
    }
}

static trm_status keep_pair(trm_collector *self, const void *key, size_t key_len, const void *value,
                            size_t value_len, trm_err *err)
{
    uint32_t partition = 0;
    size_t pair_bytes = key_len + value_len + TRM_RUN_RECORD_HEAD_BYTES_MAX + TRM_COLLECTOR_SLACK;
    if (self->partitioning == TRM_COLLECTOR_BY_HASH) {
        partition = trm_key_partition(key, key_len, self->options.partitions);
    } else if (self->partitioning >= TRM_COLLECTOR_BY_CALL) {
        trm_status status = trm_collector_partition(self, key, key_len, &partition, err);
        if (status != TRM_OK)
            return status;
    }
    if (__builtin_expect(!has_room(self, pair_bytes) || key_len + value_len > self->pair_bytes_max, 0)) {
        trm_status status = make_room(self, key, key_len, value, value_len, err);
        if (status != TRM_OK)
            return status == TRM_EOF ? TRM_OK : status;
    }
    uint8_t *at = self->pairs;
    uint64_t place = (uint64_t)(at - self->options.region.base);
    at = trm_varint_store(trm_varint_store(at, key_len), value_len);
    copy_key(at, key, key_len);
    at += key_len;
    if (value_len == 8)
        trm_store_u64(at, trm_load_u64(value));
    else if (value_len)
        memcpy(at, value, value_len);
    self->pairs = at + value_len;
    self->entries--;
    *self->entries =
        (trm_sort_entry){trm_key_prefix(key, key_len), (uint64_t)partition << TRM_SORT_PLACE_BITS | place};
    self->count++;
    return TRM_OK;
}

trm_status trm_collector_add(trm_collector *self, const void *key, size_t key_len, const void *value,
                             size_t value_len, trm_err *err)
{
    assert(self->begun);
    if (__builtin_expect(!within_limits(self, key_len, value_len), 0))
        return over_limit(self, key_len, value_len, err);
    if (self->folds) {
        trm_fold_op op = self->table.op;
        if (op != TRM_FOLD_OP_CALL && op != TRM_FOLD_OP_COUNT && value_len != 8)
            return trm_err_set(err, TRM_EKERNEL,
                               "a value of %zu bytes was emitted, but the job's fold takes 8", value_len);
        return fold_pair(self, key, key_len, value, value_len, err);
    }
    self->records_in++;
    self->bytes_in += key_len + value_len;
    return keep_pair(self, key, key_len, value, value_len, err);
}

trm_fold_table *trm_collector_table(trm_collector *self)
{
    return self->folds && self->table.waits ? &self->table : NULL;
}
