/* What the rank that leads does beyond what every rank does: it holds the master, and shows people
 * how far the job is. Any rank that keeps a copy of the log may come to lead.
 *
 *     elected ─▶ HELLO of a worker that has loaded the kernel ─▶ master on the replica ─▶ end
 *
 * Part of the control loop: one thread; reading the plan blocks, nothing after it does. */
#ifndef TRM_TOOL_LEADER_H
#define TRM_TOOL_LEADER_H

#include "jobs/spec.h"
#include "jobs/wire.h"
#include "scheduler/master.h"
#include "tool/node.h"

#define TRM_GREET_FIRST_MS                                                                                   \
    3000u /* for the HELLO of all ranks, once one has come: of a launch that begins … */
#define TRM_GREET_WAIT_MS 100u /* … and after another leader, when some rank may be dead */

typedef struct trm_leader trm_leader;

/* Borrows its arguments; `node` is elected, and there will be a master as soon as it leads. TRM_ENOMEM. */
trm_status trm_leader_create(trm_leader **out, const trm_spec *spec, const trm_ground *ground, trm_node *node,
                             trm_err *err);
/* The replica stays as it is. NULL is fine. */
void trm_leader_destroy(trm_leader *self);

/* A frame that a worker has sent, opened already. */
void trm_leader_receive(trm_leader *self, uint32_t from, const trm_wire_header *header, trm_reader *body,
                        uint64_t now_ns);
/* Returns whether anything was done; *wake_ns is lowered to when it must be called again. */
bool trm_leader_step(trm_leader *self, uint64_t now_ns, uint64_t wall_ms, uint64_t *wake_ns);
/* It cannot have a master here; `end` says why. The rank is to leave, so that another leads. */
bool trm_leader_failed(const trm_leader *self, trm_end *end);
/* Another rank leads, or will: it is to be destroyed. */
bool trm_leader_is_deposed(const trm_leader *self);
/* Whether the log moves with it; else somebody else must see to that. */
bool trm_leader_has_master(const trm_leader *self);
const trm_master *trm_leader_master(const trm_leader *self); /* NULL: none yet */
/* The process of a rank is gone for good. */
void trm_leader_rank_dead(trm_leader *self, uint32_t rank);
bool trm_leader_rank_lives(const trm_leader *self, uint32_t rank);
/* Ends the job, resumable. */
void trm_leader_interrupt(trm_leader *self, const char *why);
/* The job's end is decided and durable: the log is not needed any more. */
bool trm_leader_is_over(const trm_leader *self);
/* The job is over and everybody has been told; `end` says how. */
bool trm_leader_ended(const trm_leader *self, trm_end *end);

#endif
