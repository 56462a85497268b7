/* The master: a function of (job table, soft state of the workers, time) to (orders,
 * commands). Runs on the rank that leads the replicated log; part of the control loop:
 * one thread, no I/O but through what it is given.
 *
 *   HELLO, REPORT, PULSE … → soft state ┐
 *                                        ├→ pick → ORDER
 *   committed commands → job table ──────┘
 *   REPORT(prepared) → COMMIT command → log → applied → publish (rename) → …
 *   all parts in place → manifest → FINISH command → log → END
 */
#ifndef TRM_SCHEDULER_MASTER_H
#define TRM_SCHEDULER_MASTER_H

#include "jobs/spec.h"
#include "jobs/wire.h"
#include "runtime/fs.h"
#include "runtime/replog.h"

typedef struct trm_master trm_master;

/* Where frames go. `send` copies; TRM_AGAIN: try again on the next step. */
typedef struct trm_outbox {
    trm_status (*send)(void *context, uint32_t to, const void *frame, size_t len);
    void *context;
} trm_outbox;

typedef struct trm_master_config {
    const trm_spec *spec;
    trm_fs *fs;
    trm_replog *log;   /* open, leading */
    trm_outbox outbox;
    uint32_t ranks;
    uint64_t epoch;
    uint64_t seed;
    uint64_t wall_ms;  /* at the begin; later times come with step */
} trm_master_config;

/* Borrows what config points to. */
trm_status trm_master_create(trm_master **out, const trm_master_config *config, trm_err *err);
void trm_master_destroy(trm_master *self);
void trm_master_receive(trm_master *self, uint32_t from, const trm_wire_header *header, trm_reader *body,
                        uint64_t now_ns);
/* As trm_worker_step. */
bool trm_master_step(trm_master *self, uint64_t now_ns, uint64_t wall_ms, uint64_t *wake_ns);
/* Ends the job as interrupted, resumable: everything is flushed, END is sent. */
void trm_master_interrupt(trm_master *self, const char *why);
/* The job is over, its record is durable and every live worker has said BYE (or a
 * bounded time has passed). */
bool trm_master_ended(const trm_master *self, trm_end *end);

#endif
