/* Which segments are merged when: all at once where memory and descriptors allow it, else
 * the smallest first, in passes into scratch. */
#include "workers/group_out.h"
#include "workers/merge_self.h"

#include <assert.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

void trm_merge_drop_source(trm_merge *self, trm_merge_source *source)
{
    if (!source->scratch)
        return;
    trm_fs *fs = self->options.fs;
    fs->ops->remove(fs, source->scratch, NULL); /* what stays goes with the directory */
    free(source->scratch);
    source->scratch = NULL;
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
            status = trm_merge_failed_at(self, &self->sources[champion->source], copy_spread(self, r, err));
        else
            status = trm_run_writer_put_record(self->writer, r->record, r->record_len, err);
        if (status == TRM_OK)
            status = trm_merge_advance(self, err);
    }
    return status;
}

static trm_status pass_folded(trm_merge *self, trm_err *err)
{
    trm_status status;
    while ((status = trm_merge_next_folded(self, err)) == TRM_OK) {
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
    while ((status = trm_merge_next_group(self, err)) == TRM_OK) {
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
static trm_status take_result(trm_merge *self, char *path, trm_merge_source *out, bool *any, trm_err *err)
{
    trm_run_index index;
    trm_status status = trm_run_index_load(&index, self->options.fs, path, err);
    if (status != TRM_OK)
        return status;
    *any = index.count > 0;
    if (*any) {
        assert(index.count == 1);
        *out = (trm_merge_source){{path, index.segments[0], 0, 0}, TRM_MERGE_NOT_AN_INPUT, path};
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
    trm_merge_source result;
    bool any = false;
    trm_status status = trm_merge_open_cursors(self, 0, count, err);
    if (status == TRM_OK)
        status = write_pass(self, path, err);
    trm_merge_close_cursors(self);
    if (status == TRM_OK)
        status = take_result(self, path, &result, &any, err);
    if (!any) {
        self->options.fs->ops->remove(self->options.fs, path, NULL);
        free(path);
    }
    if (status != TRM_OK)
        return status;
    for (uint32_t i = 0; i < count; i++)
        trm_merge_drop_source(self, &self->sources[i]);
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
    const trm_merge_source *x = a, *y = b;
    uint64_t m = x->at.segment.raw_bytes, n = y->at.segment.raw_bytes;
    return m != n ? (m > n) - (m < n) : (x->input > y->input) - (x->input < y->input);
}

static int by_input(const void *a, const void *b)
{
    const trm_merge_source *x = a, *y = b;
    return (x->input > y->input) - (x->input < y->input);
}

/* How many sources may be open at once: the first ones, in memory and descriptors. */
static size_t count_fitting(const trm_merge *self)
{
    size_t room = trm_merge_cursors_room(self), used = 0, files = 0, count = 0;
    for (; count < self->sources_count && count < UINT32_MAX; count++) {
        const trm_merge_source *source = &self->sources[count];
        used += trm_merge_cursor_bytes(source);
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
    size_t bytes = 0, files = 0, room = trm_merge_cursors_room(self);
    for (size_t i = 0; i < self->sources_count; i++) {
        bytes += trm_merge_cursor_bytes(&self->sources[i]);
        files += self->sources[i].at.segment.blocks > 1;
    }
    bytes += result;
    files++;
    for (size_t width = 0; width < fitting; width++) {
        if (width >= 2 && bytes <= room && files <= TRM_MERGE_FAN_IN_MAX)
            return (uint32_t)width;
        bytes -= trm_merge_cursor_bytes(&self->sources[width]);
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
    assert(count < TRM_MERGE_NOT_AN_INPUT);
    free(self->inputs);
    self->inputs = malloc((count ? count : 1) * sizeof *self->inputs);
    self->sources = malloc((count ? count : 1) * sizeof *self->sources);
    self->name = strdup(name);
    if (!self->inputs || !self->sources || !self->name)
        return trm_err_set(err, TRM_ENOMEM, "no memory for a list of %zu segments", count);
    self->stats = (trm_merge_stats){0};
    self->blocks.stored_bytes_read = 0;
    for (size_t i = 0; i < count; i++) {
        self->inputs[i] = segments[i];
        self->sources[i] = (trm_merge_source){.at = segments[i], .input = (uint32_t)i};
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

trm_status trm_merge_plan(trm_merge *self, const char *name, const trm_segment_at *segments, size_t count,
                          trm_err *err)
{
    self->lost = TRM_MERGE_NOT_AN_INPUT;
    trm_status status = take_inputs(self, name, segments, count, err);
    if (status == TRM_OK)
        status = reserve_value_room(self, err);
    if (status == TRM_OK)
        status = run_passes(self, err);
    if (status == TRM_OK && self->sources_count)
        qsort(self->sources, self->sources_count, sizeof self->sources[0], by_input);
    return status;
}
