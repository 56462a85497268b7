/* What the rank that leads does beyond what every rank does: prepares the job, opens the log,
 * holds the master, and shows people how far it is.
 *
 *     HELLO of the ranks ─▶ plan, identity ─▶ output and state directory ─▶ log ─▶ master ─▶ end
 *        gathered          nothing is written before it is known that all of it is good
 *
 * Part of the control loop: one thread; the preparation blocks, nothing after it does. */
#ifndef TRM_TOOL_LEADER_H
#define TRM_TOOL_LEADER_H

#include "jobs/spec.h"
#include "jobs/wire.h"
#include "runtime/transport.h"

#define TRM_GATHER_MS 5000u         /* after its own crew is up, for the HELLO of other ranks */
#define TRM_GATHER_FIRST_MS 120000u /* for its own crew, or that of any rank, to be up */
#define TRM_REFUSE_WAIT_MS 2000u    /* for BYE, when the job was refused before there was a master */

typedef struct trm_leader trm_leader;

/* Borrows its arguments. TRM_ENOMEM. */
trm_status trm_leader_create(trm_leader **out, const trm_spec *spec, trm_transport *transport, trm_err *err);
void trm_leader_destroy(trm_leader *self); /* closes the log; NULL is fine */

/* A frame that a worker has sent, opened already. */
void trm_leader_receive(trm_leader *self, uint32_t from, const trm_wire_header *header, trm_reader *body,
                        uint64_t now_ns);
/* Returns whether anything was done; *wake_ns is lowered to when it must be called again. */
bool trm_leader_step(trm_leader *self, uint64_t now_ns, uint64_t wall_ms, uint64_t *wake_ns);
/* Readable when there is something to do; -1: there is none. */
int trm_leader_fd(const trm_leader *self);
/* Ends the job, resumable. */
void trm_leader_interrupt(trm_leader *self, const char *why);
/* The job is over and everybody has been told; `end` says how. */
bool trm_leader_ended(const trm_leader *self, trm_end *end);

#endif
