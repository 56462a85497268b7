/* Virtual time: what is to happen, in the order of when. Events of one moment happen in
 * the order in which they were added, so that a run is the same every time.
 */
#ifndef TRM_TESTS_SIM_QUEUE_H
#define TRM_TESTS_SIM_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct trm_sim_event {
    uint64_t at_ns;
    uint64_t order; /* given by the queue */
    uint32_t kind;  /* the caller's, as the rest */
    uint32_t node;
    uint64_t number;
    void *data; /* owned by whoever takes the event out */
} trm_sim_event;

/* Zero-initialise. */
typedef struct trm_sim_queue {
    uint64_t now_ns;
    uint64_t added;
    trm_sim_event *heap;
    size_t len;
    size_t capacity;
} trm_sim_queue;

/* Adds a copy; `order` is set here. An event of the past happens now. Aborts when there
 * is no memory. */
void trm_sim_queue_add(trm_sim_queue *self, const trm_sim_event *event);
/* Takes the next event out and sets the time to its moment; false: there is none. */
bool trm_sim_queue_next(trm_sim_queue *self, trm_sim_event *out);
/* Frees the queue; `drop` (may be NULL) is called for each event that is left. */
void trm_sim_queue_close(trm_sim_queue *self, void (*drop)(trm_sim_event *event));

#endif
