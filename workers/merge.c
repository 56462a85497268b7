#include "workers/merge.h"

#include "workers/folds.h"
#include "workers/group_out.h"
#include "workers/merge_tree.h"

#include <assert.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#define KEY_SLACK 16u
#define NOT_AN_INPUT UINT32_MAX

typedef struct merge_source {
    trm_segment_at at;
    uint32_t input; /* its number among the segments given; NOT_AN_INPUT: scratch */
    char *scratch;  /* its path, ours to remove and free; NULL */
} merge_source;

struct trm_merge {
    trm_group group; /* first: what is given out is the merge itself */
    trm_merge_options options;
    trm_fold_op op;
    trm_merge_tree tree;
    uint64_t prefix; /* of the group's key */
    bool in_group;   /* its champion has been given out, or is the first and has not */
    bool fresh;      /* … has not */
    bool group_ended;
    uint8_t *key; /* TRM_KEY_BYTES_MAX: of the group, at one place while it lasts */
    uint64_t state[TRM_FOLD_BYTES_MAX / 8], other[TRM_FOLD_BYTES_MAX / 8];
    uint8_t *value_room; /* for values larger than a block; at the region's end */
    size_t value_room_bytes;

    char *name;
    merge_source *sources; /* what is still to be merged */
    size_t sources_count;
    trm_segment_at *inputs;
    uint32_t lost; /* NOT_AN_INPUT: none */
    uint32_t scratch_files;
    trm_block_reader blocks;
    trm_run_writer *writer; /* made by the first pass */
    trm_merge_stats stats;
};

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
    self->lost = NOT_AN_INPUT;
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

static void drop_source(trm_merge *self, merge_source *source)
{
    if (!source->scratch)
        return;
    trm_fs *fs = self->options.fs;
    fs->ops->remove(fs, source->scratch, NULL); /* what stays goes with the directory */
    free(source->scratch);
    source->scratch = NULL;
}

static void close_cursors(trm_merge *self)
{
    for (uint32_t i = 0; i < self->tree.count; i++)
        trm_merge_cursor_release(&self->tree.cursors[i]);
    self->tree.count = self->tree.left = 0;
    self->in_group = false;
}

void trm_merge_close(trm_merge *self)
{
    close_cursors(self);
    if (self->writer)
        trm_run_writer_abort(self->writer);
    for (size_t i = 0; i < self->sources_count; i++)
        drop_source(self, &self->sources[i]);
    free(self->sources);
    self->sources = NULL;
    self->sources_count = 0;
    free(self->name);
    self->name = NULL;
}

const trm_segment_at *trm_merge_lost(const trm_merge *self)
{
    return self->lost == NOT_AN_INPUT ? NULL : &self->inputs[self->lost];
}

void trm_merge_stats_get(const trm_merge *self, trm_merge_stats *out)
{
    *out = self->stats;
}

/* ---- Cursors --------------------------------------------------------------------- */

static size_t cursor_bytes(const merge_source *source)
{
    return sizeof(trm_merge_cursor) + sizeof(trm_merge_node) + sizeof(trm_merge_file) +
           trm_segment_buffer_bytes(&source->at.segment);
}

static size_t cursors_room(const trm_merge *self)
{
    return self->options.region.bytes - self->value_room_bytes;
}

static trm_status failed_at(trm_merge *self, const merge_source *source, trm_status status)
{
    if (status == TRM_ELOST || status == TRM_ECORRUPT)
        self->lost = source->input;
    return status;
}

/* Opens sources [first, first + count), which fit, and stands on their first records. Segments
 * of one file that are neighbours share it. */
static trm_status open_cursors(trm_merge *self, size_t first, uint32_t count, trm_err *err)
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
        const merge_source *source = &self->sources[first + i];
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
                status = failed_at(self, source, status);
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
        status = failed_at(self, source, trm_segment_next(&cursor->reader, err));
        if (status == TRM_OK && cursor->reader.offset == cursor->reader.offset_end)
            trm_merge_cursor_release(cursor); /* all of it is in its buffer */
    }
    assert(at <= self->options.region.base + cursors_room(self));
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
        failed_at(self, &self->sources[trm_merge_tree_champion(&self->tree)->source], status);
    return status;
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
    trm_merge_cursor *champion = trm_merge_tree_champion(&self->tree);
    trm_segment_reader *r = &champion->reader;
    if (__builtin_expect(r->spread, 0)) {
        trm_status status = gather_value(self, r, err);
        if (status != TRM_OK)
            return failed_at(self, &self->sources[champion->source], status);
        *value = self->value_room;
    } else {
        *value = r->value;
    }
    *value_len = (size_t)r->value_len;
    return TRM_OK;
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

static trm_status next_group(trm_merge *self, trm_err *err)
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
    return failed_at(self, &self->sources[champion->source], TRM_ECORRUPT);
}

static trm_status no_values(trm_group *group, const void **value, size_t *value_len, trm_err *err)
{
    return TRM_EOF;
}

/* Merges all accumulators of the next key. */
static trm_status next_folded(trm_merge *self, trm_err *err)
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
    trm_status status = self->options.fold ? next_folded(self, err) : next_group(self, err);
    if (__builtin_expect(status != TRM_OK, 0))
        return status;
    self->stats.groups++;
    *group = &self->group;
    return TRM_OK;
}

/* ---- Passes ---------------------------------------------------------------------- */

static trm_status copy_spread(trm_merge *self, trm_segment_reader *r, trm_err *err)
{
    const uint8_t *piece;
    size_t len;
    trm_status status = trm_run_writer_put_key(self->writer, r->key, r->key_len, r->value_len, err);
    while (status == TRM_OK) {
        status = trm_segment_value(r, &piece, &len, err);
        if (status == TRM_OK)
            status = trm_run_writer_put_value(self->writer, piece, len, err);
    }
    return status == TRM_EOF ? TRM_OK : status;
}

static trm_status pass_records(trm_merge *self, trm_err *err)
{
    trm_status status = TRM_OK;
    while (status == TRM_OK && self->tree.left) {
        trm_merge_cursor *champion = trm_merge_tree_champion(&self->tree);
        trm_segment_reader *r = &champion->reader;
        if (r->spread)
            status = failed_at(self, &self->sources[champion->source], copy_spread(self, r, err));
        else
            status = trm_run_writer_put_record(self->writer, r->record, r->record_len, err);
        if (status == TRM_OK)
            status = advance(self, err);
    }
    return status;
}

static trm_status pass_folded(trm_merge *self, trm_err *err)
{
    trm_status status;
    while ((status = next_folded(self, err)) == TRM_OK) {
        status = trm_run_writer_put(self->writer, self->key, self->group.key_len, self->state,
                                    self->options.fold->state_bytes, err);
        if (status != TRM_OK)
            return status;
    }
    return status == TRM_EOF ? TRM_OK : status;
}

static trm_status pass_combined(trm_merge *self, trm_err *err)
{
    const trm_merge_options *o = &self->options;
    trm_group_out out = {self->writer, &self->group, o->value_bytes_max, o->compare};
    trm_status status;
    while ((status = next_group(self, err)) == TRM_OK) {
        status = o->combine(o->combine_context, &self->group, &out, err);
        if (status != TRM_OK)
            return status;
    }
    return status == TRM_EOF ? TRM_OK : status;
}

static char *scratch_path(const trm_merge *self)
{
    char path[PATH_MAX];
    int len = snprintf(path, sizeof path, "%s/%s.p%u.merge", self->options.scratch_dir, self->name,
                       self->scratch_files);
    return len > 0 && (size_t)len < sizeof path ? strdup(path) : NULL;
}

static trm_status write_pass(trm_merge *self, const char *path, trm_err *err)
{
    const trm_merge_options *o = &self->options;
    trm_status status = TRM_OK;
    if (!self->writer)
        status = trm_run_writer_create(&self->writer, o->fs, o->policy, o->now_ns, err);
    if (status == TRM_OK)
        status = trm_run_writer_open(self->writer, path, 0, 0, 1, err);
    if (status == TRM_OK)
        status = trm_run_writer_segment(self->writer, 0, 0, false, err);
    if (status == TRM_OK)
        status = o->fold      ? pass_folded(self, err)
                 : o->combine ? pass_combined(self, err)
                              : pass_records(self, err);
    return status == TRM_OK ? trm_run_writer_finish(self->writer, NULL, err) : status;
}

/* What a pass has written becomes a source. A pass whose combiner has emitted nothing leaves none. */
static trm_status take_result(trm_merge *self, char *path, merge_source *out, bool *any, trm_err *err)
{
    trm_run_index index;
    trm_status status = trm_run_index_load(&index, self->options.fs, path, err);
    if (status != TRM_OK)
        return status;
    *any = index.count > 0;
    if (*any) {
        assert(index.count == 1);
        *out = (merge_source){{path, index.segments[0], 0, 0}, NOT_AN_INPUT, path};
        self->stats.pass_stored_bytes += index.segments[0].stored_bytes;
    }
    trm_run_index_close(&index);
    return TRM_OK;
}

/* Merges the first `count` sources into one, which takes their place. */
static trm_status run_pass(trm_merge *self, uint32_t count, trm_err *err)
{
    char *path = scratch_path(self);
    if (!path)
        return trm_err_set(err, TRM_ENOMEM, "no room for the name of a scratch file in '%s'",
                           self->options.scratch_dir);
    self->scratch_files++;
    merge_source result;
    bool any = false;
    trm_status status = open_cursors(self, 0, count, err);
    if (status == TRM_OK)
        status = write_pass(self, path, err);
    close_cursors(self);
    if (status == TRM_OK)
        status = take_result(self, path, &result, &any, err);
    if (!any) {
        self->options.fs->ops->remove(self->options.fs, path, NULL);
        free(path);
    }
    if (status != TRM_OK)
        return status;
    for (uint32_t i = 0; i < count; i++)
        drop_source(self, &self->sources[i]);
    memmove(self->sources, self->sources + count, (self->sources_count - count) * sizeof self->sources[0]);
    self->sources_count -= count;
    if (any)
        self->sources[self->sources_count++] = result;
    self->stats.passes++;
    return TRM_OK;
}

/* ---- The plan -------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    const merge_source *x = a, *y = b;
    uint64_t m = x->at.segment.raw_bytes, n = y->at.segment.raw_bytes;
    return m != n ? (m > n) - (m < n) : (x->input > y->input) - (x->input < y->input);
}

static int by_input(const void *a, const void *b)
{
    const merge_source *x = a, *y = b;
    return (x->input > y->input) - (x->input < y->input);
}

/* How many sources may be open at once: the first ones, in memory and descriptors. */
static size_t count_fitting(const trm_merge *self)
{
    size_t room = cursors_room(self), used = 0, files = 0, count = 0;
    for (; count < self->sources_count && count < UINT32_MAX; count++) {
        const merge_source *source = &self->sources[count];
        used += cursor_bytes(source);
        files += source->at.segment.blocks > 1;
        if (used > room || files > TRM_MERGE_FAN_IN_MAX)
            break;
    }
    return count;
}

/* How many of the smallest sources the next pass takes: as many as are needed, so that the last
 * merge is as wide as can be and no byte is moved once more than it must. */
static uint32_t choose_width(const trm_merge *self, size_t fitting)
{
    const size_t result = TRM_RUN_BLOCK_BYTES + sizeof(trm_merge_cursor) + 1024;
    size_t bytes = 0, files = 0, room = cursors_room(self);
    for (size_t i = 0; i < self->sources_count; i++) {
        bytes += cursor_bytes(&self->sources[i]);
        files += self->sources[i].at.segment.blocks > 1;
    }
    bytes += result;
    files++;
    for (size_t width = 0; width < fitting; width++) {
        if (width >= 2 && bytes <= room && files <= TRM_MERGE_FAN_IN_MAX)
            return (uint32_t)width;
        bytes -= cursor_bytes(&self->sources[width]);
        files -= self->sources[width].at.segment.blocks > 1;
    }
    if (bytes <= room && files <= TRM_MERGE_FAN_IN_MAX)
        return (uint32_t)fitting;
    /* Several passes are to come: the first takes what does not fill the others. */
    size_t width = fitting > 2 ? (self->sources_count - 1) % (fitting - 1) + 1 : 2;
    return (uint32_t)(width < 2 ? fitting : width);
}

static trm_status reserve_value_room(trm_merge *self, trm_err *err)
{
    uint64_t largest = 0;
    for (size_t i = 0; i < self->sources_count; i++)
        if (self->sources[i].at.segment.record_bytes_max > largest)
            largest = self->sources[i].at.segment.record_bytes_max;
    self->value_room_bytes = 0;
    if (largest <= TRM_RUN_BLOCK_BYTES)
        return TRM_OK;
    if (largest > self->options.region.bytes / 2)
        return trm_err_set(err, TRM_ELIMIT,
                           "a record of %" PRIu64 " bytes is larger than half of the memory for merging"
                           " (%zu bytes): raise --memory",
                           largest, self->options.region.bytes);
    self->value_room_bytes = (size_t)largest;
    self->value_room = self->options.region.base + self->options.region.bytes - largest;
    return TRM_OK;
}

static trm_status take_inputs(trm_merge *self, const char *name, const trm_segment_at *segments, size_t count,
                              trm_err *err)
{
    assert(count < NOT_AN_INPUT);
    free(self->inputs);
    self->inputs = malloc((count ? count : 1) * sizeof *self->inputs);
    self->sources = malloc((count ? count : 1) * sizeof *self->sources);
    self->name = strdup(name);
    if (!self->inputs || !self->sources || !self->name)
        return trm_err_set(err, TRM_ENOMEM, "no memory for a list of %zu segments", count);
    self->stats = (trm_merge_stats){0};
    for (size_t i = 0; i < count; i++) {
        self->inputs[i] = segments[i];
        self->sources[i] = (merge_source){.at = segments[i], .input = (uint32_t)i};
        self->stats.records_in += segments[i].segment.records;
        self->stats.stored_bytes_in += segments[i].segment.stored_bytes;
        self->stats.raw_bytes_in += segments[i].segment.raw_bytes;
    }
    self->sources_count = count;
    return TRM_OK;
}

static trm_status run_passes(trm_merge *self, trm_err *err)
{
    for (;;) {
        size_t fitting = count_fitting(self);
        if (fitting == self->sources_count)
            return TRM_OK;
        qsort(self->sources, self->sources_count, sizeof self->sources[0], by_size);
        fitting = count_fitting(self);
        if (fitting == self->sources_count)
            return TRM_OK;
        assert(fitting >= 2); /* TRM_MERGE_REGION_BYTES_MIN sees to it */
        uint32_t width = choose_width(self, fitting);
        qsort(self->sources, width, sizeof self->sources[0], by_input);
        trm_status status = run_pass(self, width, err);
        if (status != TRM_OK)
            return status;
    }
}

trm_status trm_merge_open(trm_merge *self, const char *name, const trm_segment_at *segments, size_t count,
                          trm_err *err)
{
    trm_merge_close(self);
    self->lost = NOT_AN_INPUT;
    trm_status status = take_inputs(self, name, segments, count, err);
    if (status == TRM_OK)
        status = reserve_value_room(self, err);
    if (status == TRM_OK)
        status = run_passes(self, err);
    if (status == TRM_OK) {
        qsort(self->sources, self->sources_count, sizeof self->sources[0], by_input);
        status = self->sources_count ? open_cursors(self, 0, (uint32_t)self->sources_count, err) : TRM_OK;
    }
    if (status != TRM_OK)
        trm_merge_close(self);
    return status;
}
