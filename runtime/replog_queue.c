/* See replog_queue.h. */
#include "runtime/replog_queue.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES (64u * 1024u)

struct replog_chunk {
    replog_chunk *next;
    size_t capacity;
    size_t written;
    size_t taken;
    uint8_t bytes[];
};

static size_t item_bytes(size_t len)
{
    return (sizeof(replog_queued) + len + 7) & ~(size_t)7;
}

void replog_queue_close(replog_queue *self)
{
    free(self->spent);
    for (replog_chunk *chunk = self->first; chunk;) {
        replog_chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
    *self = (replog_queue){0};
}

static bool room(replog_queue *self, size_t need)
{
    if (self->last && self->last->capacity - self->last->written >= need)
        return true;
    size_t capacity = need > CHUNK_BYTES ? need : CHUNK_BYTES;
    replog_chunk *chunk = malloc(sizeof *chunk + capacity);
    if (!chunk)
        return false;
    *chunk = (replog_chunk){.capacity = capacity};
    if (self->last)
        self->last->next = chunk;
    else
        self->first = chunk;
    self->last = chunk;
    return true;
}

bool replog_queue_push(replog_queue *self, const replog_queued *item, const void *bytes)
{
    size_t need = item_bytes(item->len);
    if (!room(self, need))
        return false;
    uint8_t *at = self->last->bytes + self->last->written;
    memcpy(at, item, sizeof *item);
    if (item->len > 0)
        memcpy(at + sizeof *item, bytes, item->len);
    self->last->written += need;
    return true;
}

/* A chunk whose items have all been taken is passed over, and forgotten. */
static void pass_spent(replog_queue *self)
{
    while (self->first && self->first->taken == self->first->written && self->first->next) {
        free(self->spent);
        self->spent = self->first;
        self->first = self->first->next;
    }
}

uint64_t replog_queue_peek(const replog_queue *self)
{
    const replog_chunk *chunk = self->first;
    while (chunk && chunk->taken == chunk->written)
        chunk = chunk->next;
    if (!chunk)
        return 0;
    replog_queued item;
    memcpy(&item, chunk->bytes + chunk->taken, sizeof item);
    return item.index;
}

const uint8_t *replog_queue_pop(replog_queue *self, replog_queued *item)
{
    pass_spent(self);
    replog_chunk *chunk = self->first;
    assert(chunk && chunk->taken < chunk->written);
    memcpy(item, chunk->bytes + chunk->taken, sizeof *item);
    const uint8_t *bytes = chunk->bytes + chunk->taken + sizeof *item;
    chunk->taken += item_bytes(item->len);
    return bytes;
}
