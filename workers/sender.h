/* Frames out of a worker: one at a time is composed and handed to the transport, all with the
 * epoch and term that the worker is in. */
#ifndef TRM_WORKERS_SENDER_H
#define TRM_WORKERS_SENDER_H

#include "jobs/wire.h"
#include "runtime/transport.h"

typedef struct trm_sender {
    trm_transport *transport;
    uint64_t epoch, term;
    trm_writer frame; /* being composed; its memory is kept */
} trm_sender;

/* Begins a frame: its body is put into what is returned, then trm_sender_send. */
trm_writer *trm_sender_begin(trm_sender *self, trm_wire_type type);
/* TRM_AGAIN: the transport has no room now (the frame is gone); TRM_ENOMEM. */
trm_status trm_sender_send(trm_sender *self, uint32_t to);
void trm_sender_close(trm_sender *self);

#endif
