#include "workers/merge_self.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#define KEY_SLACK 16u

trm_status trm_merge_create(trm_merge **out, const trm_merge_options *options, trm_err *err)
{
    assert(options->region.bytes >= TRM_MERGE_REGION_BYTES_MIN);
    assert(!options->fold || options->fold->state_bytes <= TRM_FOLD_BYTES_MAX);
    trm_merge *self = calloc(1, sizeof *self);
    if (!self)
        return trm_err_set(err, TRM_ENOMEM, "no memory for a merge");
    self->options = *options;
    self->options.scratch_dir = strdup(options->scratch_dir);
    self->op = options->fold ? trm_fold_op_of(options->fold) : TRM_FOLD_OP_CALL;
    self->key = malloc(TRM_KEY_BYTES_MAX + KEY_SLACK);
    self->lost = TRM_MERGE_NOT_AN_INPUT;
    trm_status status = trm_block_reader_init(&self->blocks, options->policy, options->now_ns, err);
    if (status == TRM_OK && (!self->key || !self->options.scratch_dir))
        status = trm_err_set(err, TRM_ENOMEM, "no memory for a merge");
    if (status != TRM_OK) {
        trm_merge_destroy(self);
        return status;
    }
    *out = self;
    return TRM_OK;
}

void trm_merge_destroy(trm_merge *self)
{
    if (!self)
        return;
    trm_merge_close(self);
    free(self->inputs);
    trm_run_writer_destroy(self->writer);
    trm_block_reader_close(&self->blocks);
    free((char *)(uintptr_t)self->options.scratch_dir);
    free(self->key);
    free(self);
}

void trm_merge_close_cursors(trm_merge *self)
{
    for (uint32_t i = 0; i < self->tree.count; i++)
        trm_merge_cursor_release(&self->tree.cursors[i]);
    self->tree.count = self->tree.left = 0;
    self->in_group = false;
}

void trm_merge_close(trm_merge *self)
{
    trm_merge_close_cursors(self);
    if (self->writer)
        trm_run_writer_abort(self->writer);
    for (size_t i = 0; i < self->sources_count; i++)
        trm_merge_drop_source(self, &self->sources[i]);
    free(self->sources);
    self->sources = NULL;
    self->sources_count = 0;
    free(self->name);
    self->name = NULL;
}

const trm_segment_at *trm_merge_lost(const trm_merge *self)
{
    return self->lost == TRM_MERGE_NOT_AN_INPUT ? NULL : &self->inputs[self->lost];
}

void trm_merge_stats_get(const trm_merge *self, trm_merge_stats *out)
{
    *out = self->stats;
    out->stored_bytes_read = self->blocks.stored_bytes_read;
}

/* ---- Cursors --------------------------------------------------------------------- */

trm_status trm_merge_failed_at(trm_merge *self, const trm_merge_source *source, trm_status status)
{
    if (status == TRM_ELOST || status == TRM_ECORRUPT)
        self->lost = source->input;
    return status;
}

/* Opens sources [first, first + count), which fit, and stands on their first records. Segments
 * of one file that are neighbours share it. */
trm_status trm_merge_open_cursors(trm_merge *self, size_t first, uint32_t count, trm_err *err)
{
    uint8_t *at = self->options.region.base;
    trm_fs *fs = self->options.fs;
    trm_merge_cursor *cursors = (trm_merge_cursor *)at;
    trm_merge_node *nodes = (trm_merge_node *)(cursors + count);
    trm_merge_file *files = (trm_merge_file *)(nodes + count), *file = files;
    at = (uint8_t *)(files + count);
    self->tree = (trm_merge_tree){.cursors = cursors, .nodes = nodes, .compare = self->options.compare};
    trm_status status = TRM_OK;
    *file = (trm_merge_file){0};
    for (uint32_t i = 0; i < count && status == TRM_OK; i++) {
        const trm_merge_source *source = &self->sources[first + i];
        trm_merge_cursor *cursor = &cursors[i];
        if (i == 0 || strcmp(source->at.path, source[-1].at.path)) {
            if (i && --file->users == 0) { /* this loop's share */
                fs->ops->close(file->file);
                file->file = NULL;
            }
            file = &files[i];
            *file = (trm_merge_file){0};
            status = fs->ops->open(fs, source->at.path, TRM_FS_READ, &file->file, err);
            if (status != TRM_OK) {
                trm_err_wrap(err, "output of map task %u (attempt %u)", source->at.task, source->at.attempt);
                file->users = 0;
                status = trm_merge_failed_at(self, source, status);
                break;
            }
            file->users = 1;
        }
        size_t bytes = trm_segment_buffer_bytes(&source->at.segment);
        file->users++;
        *cursor = (trm_merge_cursor){.file = file, .source = (uint32_t)(first + i)};
        self->tree.count++;
        trm_segment_reader_init(&cursor->reader, &source->at, file->file, &self->blocks, at, bytes);
        at += bytes;
        status = trm_merge_failed_at(self, source, trm_segment_next(&cursor->reader, err));
        if (status == TRM_OK && cursor->reader.offset == cursor->reader.offset_end)
            trm_merge_cursor_release(cursor); /* all of it is in its buffer */
    }
    assert(at <= self->options.region.base + trm_merge_cursors_room(self));
    if (file->users && --file->users == 0)
        fs->ops->close(file->file);
    if (status == TRM_OK)
        trm_merge_tree_build(&self->tree);
    return status;
}

static inline trm_status advance(trm_merge *self, trm_err *err)
{
    trm_status status = trm_merge_tree_advance(&self->tree, err);
    if (__builtin_expect(status != TRM_OK, 0))
        trm_merge_failed_at(self, &self->sources[trm_merge_tree_champion(&self->tree)->source], status);
    return status;
}

trm_status trm_merge_advance(trm_merge *self, trm_err *err)
{
    return advance(self, err);
}

/* ---- Groups ---------------------------------------------------------------------- */

static inline bool same_key(const trm_merge *self)
{
    if (self->tree.nodes[0].prefix != self->prefix || self->tree.left == 0)
        return false;
    const trm_segment_reader *r = &trm_merge_tree_champion(&self->tree)->reader;
    if (self->options.compare)
        return self->options.compare(self->key, self->group.key_len, r->key, r->key_len) == 0;
    return r->key_len == self->group.key_len &&
           (r->key_len <= 8 || memcmp(r->key, self->key, r->key_len) == 0);
}

/* The champion's key becomes the group's. */
static inline void begin_group(trm_merge *self)
{
    const trm_segment_reader *r = &trm_merge_tree_champion(&self->tree)->reader;
    memcpy(self->key, r->key, 16); /* the buffer may be read so far */
    if (r->key_len > 16)
        memcpy(self->key + 16, r->key + 16, r->key_len - 16);
    self->group.key = self->key;
    self->group.key_len = r->key_len;
    self->prefix = self->tree.nodes[0].prefix;
}

/* Puts a value that is larger than a block together. */
static trm_status gather_value(trm_merge *self, trm_segment_reader *r, trm_err *err)
{
    size_t at = 0, len;
    const uint8_t *piece;
    if (r->value_len > self->value_room_bytes)
        return trm_err_set(err, TRM_ECORRUPT, "'%s' has a larger value than its index says", r->source->path);
    trm_status status;
    while ((status = trm_segment_value(r, &piece, &len, err)) == TRM_OK) {
        memcpy(self->value_room + at, piece, len);
        at += len;
    }
    return status == TRM_EOF ? TRM_OK : status;
}

static inline trm_status champion_value(trm_merge *self, const void **value, size_t *value_len, trm_err *err)
{
    trm_merge_cursor *champion = trm_merge_tree_champion(&self->tree);
    trm_segment_reader *r = &champion->reader;
    *value = r->value;
    *value_len = (size_t)r->value_len;
    if (__builtin_expect(!r->spread, 1))
        return TRM_OK;
    trm_status status = gather_value(self, r, err);
    *value = self->value_room;
    return status == TRM_OK ? status : trm_merge_failed_at(self, &self->sources[champion->source], status);
}

static trm_status next_value(trm_group *group, const void **value, size_t *value_len, trm_err *err)
{
    trm_merge *self = (trm_merge *)group;
    if (self->group_ended)
        return TRM_EOF;
    if (!self->fresh) {
        trm_status status = advance(self, err);
        if (status != TRM_OK)
            return status;
        if (!same_key(self)) {
            self->group_ended = true;
            return TRM_EOF;
        }
    }
    self->fresh = false;
    return champion_value(self, value, value_len, err);
}

/* Skips what was not read of the group. */
static trm_status end_group(trm_merge *self, trm_err *err)
{
    while (!self->group_ended) {
        trm_status status = advance(self, err);
        if (status != TRM_OK)
            return status;
        self->group_ended = !same_key(self);
    }
    self->in_group = false;
    return TRM_OK;
}

trm_status trm_merge_next_group(trm_merge *self, trm_err *err)
{
    if (self->in_group) {
        trm_status status = end_group(self, err);
        if (status != TRM_OK)
            return status;
    }
    if (self->tree.left == 0)
        return TRM_EOF;
    begin_group(self);
    self->group.state = NULL;
    self->group.next = next_value;
    self->in_group = self->fresh = true;
    self->group_ended = false;
    return TRM_OK;
}

static trm_status wrong_state(trm_merge *self, trm_err *err)
{
    trm_merge_cursor *champion = trm_merge_tree_champion(&self->tree);
    trm_err_set(err, TRM_ECORRUPT, "'%s' has an accumulator of %" PRIu64 " bytes, the job's has %zu",
                champion->reader.source->path, champion->reader.value_len, self->options.fold->state_bytes);
    return trm_merge_failed_at(self, &self->sources[champion->source], TRM_ECORRUPT);
}

static trm_status no_values(trm_group *group, const void **value, size_t *value_len, trm_err *err)
{
    return TRM_EOF;
}

/* Merges all accumulators of the next key. */
trm_status trm_merge_next_folded(trm_merge *self, trm_err *err)
{
    const trm_fold *fold = self->options.fold;
    if (self->tree.left == 0)
        return TRM_EOF;
    begin_group(self);
    self->group.state = self->state;
    self->group.next = no_values;
    bool first = true;
    do {
        const trm_segment_reader *r = &trm_merge_tree_champion(&self->tree)->reader;
        if (r->value_len != fold->state_bytes || r->spread)
            return wrong_state(self, err);
        if (first) {
            memcpy(self->state, r->value, fold->state_bytes);
        } else if (self->op != TRM_FOLD_OP_CALL) {
            self->state[0] = trm_fold_merge_u64(self->op, self->state[0], trm_load_u64(r->value));
        } else {
            memcpy(self->other, r->value, fold->state_bytes);
            fold->merge(self->state, self->other);
        }
        first = false;
        trm_status status = advance(self, err);
        if (status != TRM_OK)
            return status;
    } while (same_key(self));
    return TRM_OK;
}

trm_status trm_merge_next(trm_merge *self, trm_group **group, trm_err *err)
{
    trm_status status =
        self->options.fold ? trm_merge_next_folded(self, err) : trm_merge_next_group(self, err);
    if (__builtin_expect(status != TRM_OK, 0))
        return status;
    self->stats.groups++;
    *group = &self->group;
    return TRM_OK;
}

/* The champion has been given out when `in_group` says so. */
trm_status trm_merge_next_pair(trm_merge *self, trm_merge_pair *out, trm_err *err)
{
    assert(!self->options.fold);
    if (self->in_group && self->tree.left) {
        trm_status status = advance(self, err);
        if (__builtin_expect(status != TRM_OK, 0))
            return status;
    }
    if (self->tree.left == 0)
        return TRM_EOF;
    if (!self->in_group || !same_key(self)) {
        begin_group(self);
        self->stats.groups++;
    }
    self->in_group = true;
    const trm_segment_reader *r = &trm_merge_tree_champion(&self->tree)->reader;
    out->key = r->spread ? self->key : r->key; /* gathering a value reads over it */
    out->key_len = r->key_len;
    return champion_value(self, &out->value, &out->value_len, err);
}

trm_status trm_merge_open(trm_merge *self, const char *name, const trm_segment_at *segments, size_t count,
                          trm_err *err)
{
    trm_merge_close(self);
    trm_status status = trm_merge_plan(self, name, segments, count, err);
    if (status == TRM_OK && self->sources_count)
        status = trm_merge_open_cursors(self, 0, (uint32_t)self->sources_count, err);
    if (status != TRM_OK)
        trm_merge_close(self);
    return status;
}
