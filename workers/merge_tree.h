/* The inside of a merge: cursors over open segments, and the loser tree that says whose key
 * is the smallest.
 *
 *            champion                 nodes[0]: who has won
 *               │
 *            nodes[1]                 nodes[i]: who has lost the match at i
 *           ╱        ╲                cursor c enters at node (c + count) / 2
 *      nodes[2]    nodes[3]
 *      ╱   ╲        ╱   ╲
 *     c0    c1     c2    c3
 *
 * A node carries the first 8 bytes of its key, so that most matches touch nothing else.
 */
#ifndef TRM_WORKERS_MERGE_TREE_H
#define TRM_WORKERS_MERGE_TREE_H

#include "workers/key.h"
#include "workers/run_reader.h"

typedef struct trm_merge_file {
    trm_file *file;
    uint32_t users; /* cursors that have not read all of it; 0: closed */
} trm_merge_file;

typedef struct trm_merge_cursor {
    trm_segment_reader reader;
    trm_merge_file *file; /* NULL: everything is read */
    uint32_t source;      /* the caller's number of the segment */
    bool ended;
} trm_merge_cursor;

typedef struct trm_merge_node {
    uint64_t prefix;
    uint32_t cursor;
} trm_merge_node;

typedef struct trm_merge_tree {
    trm_merge_cursor *cursors;
    trm_merge_node *nodes; /* `count` of them */
    uint32_t count;        /* at least 1 */
    uint32_t left;         /* cursors that have not ended */
    int (*compare)(const void *a, size_t a_len, const void *b, size_t b_len);
} trm_merge_tree;

/* Plays all matches; every cursor stands on its first record or has ended. */
void trm_merge_tree_build(trm_merge_tree *self);
/* Moves the champion to its next record and plays its matches again. On failure the tree must
 * not be used; the champion is who failed. */
trm_status trm_merge_tree_advance(trm_merge_tree *self, trm_err *err);

static inline trm_merge_cursor *trm_merge_tree_champion(const trm_merge_tree *self)
{
    return &self->cursors[self->nodes[0].cursor];
}

/* Releases a cursor's share of its file. */
void trm_merge_cursor_release(trm_merge_cursor *self);

#endif
