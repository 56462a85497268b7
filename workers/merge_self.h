/* Inside of a merge: what merge.c (cursors and groups) and merge_plan.c (which segments are
 * merged when, and passes) share. */
#ifndef TRM_WORKERS_MERGE_SELF_H
#define TRM_WORKERS_MERGE_SELF_H

#include "workers/folds.h"
#include "workers/merge.h"
#include "workers/merge_tree.h"

#define TRM_MERGE_NOT_AN_INPUT UINT32_MAX

typedef struct trm_merge_source {
    trm_segment_at at;
    uint32_t input; /* its number among the segments given; TRM_MERGE_NOT_AN_INPUT: scratch */
    char *scratch;  /* its path, ours to remove and free; NULL */
} trm_merge_source;

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
    trm_merge_source *sources; /* what is still to be merged */
    size_t sources_count;
    trm_segment_at *inputs;
    uint32_t lost; /* TRM_MERGE_NOT_AN_INPUT: none */
    uint32_t scratch_files;
    trm_block_reader blocks;
    trm_run_writer *writer; /* made by the first pass */
    trm_merge_stats stats;
};

/* Memory for cursors and their buffers. */
static inline size_t trm_merge_cursors_room(const trm_merge *self)
{
    return self->options.region.bytes - self->value_room_bytes;
}
static inline size_t trm_merge_cursor_bytes(const trm_merge_source *source)
{
    return sizeof(trm_merge_cursor) + sizeof(trm_merge_node) + sizeof(trm_merge_file) +
           trm_segment_buffer_bytes(&source->at.segment);
}

/* merge.c. Opens sources [first, first + count), which fit, and stands on their first records;
 * closes them. Segments of one file that are neighbours share it. */
trm_status trm_merge_open_cursors(trm_merge *self, size_t first, uint32_t count, trm_err *err);
void trm_merge_close_cursors(trm_merge *self);
/* Notes whose segment cannot be read; returns `status`. */
trm_status trm_merge_failed_at(trm_merge *self, const trm_merge_source *source, trm_status status);
/* Moves to the next record of all. */
trm_status trm_merge_advance(trm_merge *self, trm_err *err);
/* The next key with its values, or with its merged accumulator, in self->group; TRM_EOF. */
trm_status trm_merge_next_group(trm_merge *self, trm_err *err);
trm_status trm_merge_next_folded(trm_merge *self, trm_err *err);

/* merge_plan.c. Takes the segments over, reserves room for values, and runs passes until
 * what is left fits. */
trm_status trm_merge_plan(trm_merge *self, const char *name, const trm_segment_at *segments, size_t count,
                          trm_err *err);
/* Removes a source's scratch file, if it is one. */
void trm_merge_drop_source(trm_merge *self, trm_merge_source *source);

#endif
