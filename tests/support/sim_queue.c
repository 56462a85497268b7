/* See sim_queue.h: a binary heap. */
#include "tests/support/sim_queue.h"

#include <stdlib.h>

static bool earlier(const trm_sim_event *a, const trm_sim_event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

void trm_sim_queue_add(trm_sim_queue *self, const trm_sim_event *event)
{
    if (self->len == self->capacity) {
        self->capacity = self->capacity ? 2 * self->capacity : 256;
        self->heap = realloc(self->heap, self->capacity * sizeof *self->heap);
        if (!self->heap)
            abort();
    }
    trm_sim_event added = *event;
    added.order = self->added++;
    if (added.at_ns < self->now_ns)
        added.at_ns = self->now_ns;
    size_t at = self->len++;
    while (at > 0 && earlier(&added, &self->heap[(at - 1) / 2])) {
        self->heap[at] = self->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    self->heap[at] = added;
}

bool trm_sim_queue_next(trm_sim_queue *self, trm_sim_event *out)
{
    if (self->len == 0)
        return false;
    *out = self->heap[0];
    self->now_ns = out->at_ns;
    trm_sim_event last = self->heap[--self->len];
    size_t at = 0;
    for (size_t child = 1; child < self->len; child = 2 * at + 1) {
        if (child + 1 < self->len && earlier(&self->heap[child + 1], &self->heap[child]))
            child++;
        if (!earlier(&self->heap[child], &last))
            break;
        self->heap[at] = self->heap[child];
        at = child;
    }
    self->heap[at] = last;
    return true;
}

void trm_sim_queue_close(trm_sim_queue *self, void (*drop)(trm_sim_event *event))
{
    for (size_t i = 0; drop && i < self->len; i++)
        drop(&self->heap[i]);
    free(self->heap);
    *self = (trm_sim_queue){0};
}
