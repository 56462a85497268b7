#include "workers/merge_tree.h"

#include <assert.h>

void trm_merge_cursor_release(trm_merge_cursor *self)
{
    trm_merge_file *file = self->file;
    self->file = NULL;
    if (file && --file->users == 0) {
        file->file->fs->ops->close(file->file);
        file->file = NULL;
    }
}

/* A reader's buffer may be read 16 bytes past its records. */
static inline uint64_t prefix_of(const trm_merge_tree *self, const trm_merge_cursor *cursor)
{
    if (self->compare)
        return 0;
    size_t len = cursor->reader.key_len;
    return __builtin_bswap64(trm_load_u64(cursor->reader.key) & trm_key_masks[len < 8 ? len : 8][0]);
}

/* Whether a comes before b, when their prefixes are the same. */
__attribute__((noinline)) static bool tie_before(const trm_merge_tree *self, uint32_t a, uint32_t b)
{
    const trm_merge_cursor *x = &self->cursors[a], *y = &self->cursors[b];
    if (x->ended || y->ended)
        return x->ended == y->ended ? a < b : y->ended;
    const trm_segment_reader *r = &x->reader, *s = &y->reader;
    int order = self->compare ? self->compare(r->key, r->key_len, s->key, s->key_len)
                              : trm_key_compare(r->key, r->key_len, s->key, s->key_len);
    return order ? order < 0 : a < b;
}

static inline bool before(const trm_merge_tree *self, trm_merge_node a, trm_merge_node b)
{
    return a.prefix != b.prefix ? a.prefix < b.prefix : tie_before(self, a.cursor, b.cursor);
}

/* An ended cursor comes after everything. */
static trm_merge_node node_of(const trm_merge_tree *self, uint32_t cursor)
{
    const trm_merge_cursor *c = &self->cursors[cursor];
    return (trm_merge_node){c->ended ? UINT64_MAX : prefix_of(self, c), cursor};
}

#define NOBODY UINT32_MAX

void trm_merge_tree_build(trm_merge_tree *self)
{
    assert(self->count > 0);
    self->left = 0;
    for (uint32_t i = 0; i < self->count; i++) {
        self->nodes[i].cursor = NOBODY;
        self->left += !self->cursors[i].ended;
    }
    for (uint32_t c = 0; c < self->count; c++) {
        trm_merge_node here = node_of(self, c);
        uint32_t at = (c + self->count) / 2;
        for (; at > 0; at /= 2) {
            trm_merge_node *there = &self->nodes[at];
            if (there->cursor == NOBODY)
                break; /* the other side has not come yet */
            if (before(self, *there, here)) {
                trm_merge_node winner = *there;
                *there = here;
                here = winner;
            }
        }
        self->nodes[at] = here;
    }
}

trm_status trm_merge_tree_advance(trm_merge_tree *self, trm_err *err)
{
    uint32_t c = self->nodes[0].cursor;
    trm_merge_cursor *cursor = &self->cursors[c];
    trm_merge_node here = {UINT64_MAX, c};
    trm_status status = trm_segment_next(&cursor->reader, err);
    if (__builtin_expect(status == TRM_OK, 1)) {
        here.prefix = prefix_of(self, cursor);
        __builtin_prefetch(cursor->reader.at); /* the record after it, wanted when all others had a turn */
        __builtin_prefetch(cursor->reader.at + 64);
    } else if (status == TRM_EOF) {
        cursor->ended = true;
        self->left--;
        trm_merge_cursor_release(cursor);
    } else {
        return status;
    }
    /* Who wins a match is a coin's throw, which a processor guesses wrong every second time:
     * the two change places without a branch. */
    for (uint32_t at = (c + self->count) / 2; at > 0; at /= 2) {
        trm_merge_node *place = &self->nodes[at], there = *place;
        bool loses = __builtin_expect(there.prefix == here.prefix, 0)
                         ? tie_before(self, there.cursor, here.cursor)
                         : there.prefix < here.prefix;
        uint64_t prefix = (there.prefix ^ here.prefix) & -(uint64_t)loses;
        uint32_t number = (there.cursor ^ here.cursor) & -(uint32_t)loses;
        *place = (trm_merge_node){there.prefix ^ prefix, there.cursor ^ number};
        here = (trm_merge_node){here.prefix ^ prefix, here.cursor ^ number};
    }
    self->nodes[0] = here;
    return TRM_OK;
}
