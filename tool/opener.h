/* What rank 0 does before there is a leader: sees what the job is, looks at inputs and output,
 * begins the launch on disk, and tells all ranks.
 *
 *     HELLO of the ranks ─▶ plan, identity ─▶ output and state directory ─▶ epoch and voters ─▶ BEGIN
 *        gathered          nothing is written before it is known that all of it is good
 *
 * Part of the control loop: one thread; the preparation blocks, nothing before or after it. */
#ifndef TRM_TOOL_OPENER_H
#define TRM_TOOL_OPENER_H

#include "jobs/spec.h"
#include "jobs/wire.h"
#include "scheduler/state_dir.h"
#include "tool/ground.h"

#define TRM_GATHER_MS 5000u         /* after the first HELLO, for that of other ranks */
#define TRM_GATHER_FIRST_MS 120000u /* for the first */
#define TRM_FENCED_WAIT_MS 30000u   /* for ranks of the launch before to leave their logs … */
#define TRM_FENCED_AGAIN_MS 250u    /* … looked at so often */
#define TRM_REFUSE_WAIT_MS 2000u    /* for BYE, when the job was refused */

typedef struct trm_opener trm_opener;

/* Borrows its arguments. TRM_ENOMEM. */
trm_status trm_opener_create(trm_opener **out, const trm_spec *spec, const trm_ground *ground, trm_err *err);
/* Lets go of the output directory's lock. NULL is fine. */
void trm_opener_destroy(trm_opener *self);

/* HELLO, or BYE, of a worker that knows of no launch. */
void trm_opener_receive(trm_opener *self, uint32_t from, const trm_wire_header *header, trm_reader *body,
                        uint64_t now_ns);
/* Returns whether anything was done; *wake_ns is lowered to when it must be called again. */
bool trm_opener_step(trm_opener *self, uint64_t now_ns, uint64_t *wake_ns);
/* Nothing is begun any more. */
void trm_opener_interrupt(trm_opener *self, const char *why);

/* What this rank itself is to take as BEGIN, once: as the others get it. */
bool trm_opener_begun(trm_opener *self, uint64_t *epoch, const trm_begin **begin);
/* The job was refused or is done already, and others are being told. */
bool trm_opener_is_refusing(const trm_opener *self);
/* … and everybody has been told; `end` says how. */
bool trm_opener_ended(const trm_opener *self, trm_end *end);

#endif
