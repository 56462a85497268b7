/* Messages between ranks, behind a table: MPI in transport_mpi.c (the only file
 * that calls it), memory in tests.
 *
 * Datagram-like: a message arrives whole or not at all, in order between two
 * ranks while both live. Nothing here detects a dead peer (see docs: MPI tells
 * nothing); a message to a dead rank is dropped after a bounded time or a bounded
 * queue. Everything received is untrusted bytes.
 * One thread: the control loop. No call blocks.
 */
#ifndef TRM_RUNTIME_TRANSPORT_H
#define TRM_RUNTIME_TRANSPORT_H

#include "runtime/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The largest message: a data block of a fetch with its header. */
#define TRM_MESSAGE_BYTES_MAX (256u * 1024u + 512u)

typedef struct trm_transport trm_transport;

typedef struct trm_transport_ops {
    /* Queues a copy of `len` bytes for `to` (which may be the caller's own rank).
     * TRM_AGAIN: the queue to that rank is at its bound; try again after a poll. */
    trm_status (*send)(trm_transport *self, uint32_t to, const void *bytes, size_t len);
    /* The next message that has arrived. On TRM_OK *bytes is valid until the next
     * call of receive or poll. TRM_AGAIN: none. */
    trm_status (*receive)(trm_transport *self, uint32_t *from, const uint8_t **bytes, size_t *len);
    /* Moves the network on; returns how many sends and receives have completed,
     * so that the loop knows whether it may sleep. */
    unsigned (*poll)(trm_transport *self);
    /* Bytes queued for `to` and not yet taken by the network. */
    size_t (*pending_bytes)(trm_transport *self, uint32_t to);
    /* Gives what is queued a bounded time to leave, then closes. */
    void (*close)(trm_transport *self, uint64_t linger_ms);
} trm_transport_ops;

struct trm_transport {
    const trm_transport_ops *ops;
    uint32_t rank;
    uint32_t ranks;
};

/* Starts MPI. Call once, after the crew has been forked, from the thread that
 * will run the control loop. Takes errors as return codes (MPI_ERRORS_RETURN).
 * On success *out is closed with ops->close, which also ends MPI, under a
 * watchdog: MPI_Finalize may never return once a rank has died. */
trm_status trm_transport_mpi_open(trm_transport **out, trm_err *err);
/* To be set before close: what the process ends with when that watchdog has to end it, and whether the
 * others stay. Then MPI_Finalize would wait for them in vain, and close ends the process by itself. */
void trm_transport_mpi_exit_status(int status, bool others_stay);

#endif
