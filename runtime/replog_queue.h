/* Items on their way from propose to next: a queue of byte strings in chunks, first in
 * first out, no allocation per item. */
#ifndef TRM_RUNTIME_REPLOG_QUEUE_H
#define TRM_RUNTIME_REPLOG_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct replog_chunk replog_chunk;

typedef struct replog_queue {
    replog_chunk *first;
    replog_chunk *last;
    replog_chunk *spent; /* its items have all been taken; the last may still be read */
} replog_queue;

typedef struct replog_queued {
    uint64_t index;
    uint64_t term;
    size_t len;
} replog_queued;

void replog_queue_close(replog_queue *self);
/* Copies the bytes. False: no memory. */
bool replog_queue_push(replog_queue *self, const replog_queued *item, const void *bytes);
/* The index of the next item, 0 when there is none. */
uint64_t replog_queue_peek(const replog_queue *self);
/* Takes the next item, which there must be; its bytes are valid until the next call. */
const uint8_t *replog_queue_pop(replog_queue *self, replog_queued *item);

#endif
