/* Transports between ranks of one process, for tests: seeded delay and loss, virtual time,
 * ranks that die. What transport.h promises holds: a message arrives whole or not at all, in
 * order between two ranks.
 *
 * One thread. The net owns its transports; their close does nothing but drop what is on its
 * way to them.
 */
#ifndef TRM_TESTS_TRANSPORT_MEM_H
#define TRM_TESTS_TRANSPORT_MEM_H

#include "runtime/transport.h"

#include <stdbool.h>

typedef struct trm_transport_net trm_transport_net;

typedef struct trm_transport_net_options {
    uint32_t ranks;
    uint64_t seed;
    uint64_t delay_min_ns, delay_max_ns; /* of a message; 0, 0: there at the next poll */
    unsigned loss_permille;              /* messages that never arrive; none to oneself */
    size_t queue_bytes_max;              /* between two ranks; 0: 4 MiB */
    /* Told of each message that is taken, before it is on its way; NULL: nobody is. */
    void (*sent)(void *context, uint32_t from, uint32_t to, const void *bytes, size_t len);
    void *context;
} trm_transport_net_options;

/* NULL: no memory. */
trm_transport_net *trm_transport_net_create(const trm_transport_net_options *options);
void trm_transport_net_destroy(trm_transport_net *self);
trm_transport *trm_transport_net_rank(trm_transport_net *self, uint32_t rank);

/* Time passes only here. */
void trm_transport_net_set_now(trm_transport_net *self, uint64_t now_ns);
/* When the next message arrives anywhere; UINT64_MAX: none is on its way. */
uint64_t trm_transport_net_next_ns(const trm_transport_net *self);
/* … at one rank. */
uint64_t trm_transport_net_arrival_ns(const trm_transport_net *self, uint32_t rank);
void trm_transport_net_set_loss(trm_transport_net *self, unsigned permille);
void trm_transport_net_set_delay(trm_transport_net *self, uint64_t min_ns, uint64_t max_ns);
/* The link is down: what has not arrived, and what is sent, waits until then. */
void trm_transport_net_cut(trm_transport_net *self, uint32_t from, uint32_t to, uint64_t until_ns);
/* What is on its way from and to it is lost, and whatever is sent to it. */
void trm_transport_net_kill(trm_transport_net *self, uint32_t rank);
/* … but what it has sent before still arrives. */
void trm_transport_net_kill_late(trm_transport_net *self, uint32_t rank);

typedef struct trm_transport_net_counts {
    uint64_t sent, bytes, lost, refused; /* refused: TRM_AGAIN */
} trm_transport_net_counts;
void trm_transport_net_counts_get(const trm_transport_net *self, trm_transport_net_counts *out);

#endif
