/* A rank's part in the control plane: its messages, its copy of the log, who leads, and whether the
 * job is over here. What is of the machine (MPI, processes, signals, the clock) is in rank.c, so that a
 * simulator can run many of these in one process.
 *
 *     messages ─┬─▶ node      the log
 *               ├─▶ opener    rank 0, until the launch has begun
 *               ├─▶ leader    while this rank leads
 *               └─▶ worker    behind a table
 *
 * One thread; what blocks is said in node.h, opener.h and leader.h. */
#ifndef TRM_TOOL_CONTROL_H
#define TRM_TOOL_CONTROL_H

#include "jobs/spec.h"
#include "jobs/wire.h"
#include "scheduler/master.h"
#include "tool/ground.h"
#include "tool/node.h"

#define TRM_LOOP_MESSAGES_MAX 256u /* taken in one turn */

typedef struct trm_control trm_control;

/* This rank's worker; as the functions of workers/worker.h. */
typedef struct trm_control_worker {
    void (*receive)(void *worker, uint32_t from, const trm_wire_header *header, trm_reader *body,
                    uint64_t now_ns);
    bool (*step)(void *worker, uint64_t now_ns, uint64_t *wake_ns);
    void (*set_master)(void *worker, uint32_t master, uint64_t epoch, uint64_t term);
    void (*leave)(void *worker, const trm_end *end);
    bool (*ended)(void *worker, trm_end *end);
} trm_control_worker;

typedef struct trm_control_config {
    const trm_spec *spec;
    const trm_ground *ground;
    const trm_control_worker *worker_ops;
    void *worker;
    /* Who this rank's neighbours are, as BEGIN says: those that are known before the launch has begun,
     * then all of them. */
    void (*meet)(void *context, const trm_begin *begin);
    void *context;
} trm_control_config;

/* Borrows what config points to. TRM_ENOMEM. */
trm_status trm_control_create(trm_control **out, const trm_control_config *config, trm_err *err);
/* The worker is the caller's. NULL is fine. */
void trm_control_destroy(trm_control *self);

/* One turn of the loop. Returns whether anything was done, so that the loop knows whether it may sleep;
 * *wake_ns is lowered to when the next turn must be at the latest. */
bool trm_control_turn(trm_control *self, uint64_t now_ns, uint64_t wall_ms, uint64_t *wake_ns);
/* The process of a rank is gone for good. */
void trm_control_rank_dead(trm_control *self, uint32_t rank, uint64_t now_ns);
/* A signal has come to this rank (departure.h). */
void trm_control_interrupt(trm_control *self, uint64_t now_ns);
/* Polls readable when the log has something to take; -1: there is none. */
int trm_control_fd(const trm_control *self);
/* Whether the job is over here; `end` says how. */
bool trm_control_is_over(const trm_control *self, trm_end *end);
/* The job is over here, with `end`: whether this rank knows how it ended for all, and is to say so. */
bool trm_control_knows_end(const trm_control *self, const trm_end *end);
/* Messages that were no frames. */
uint64_t trm_control_dropped(const trm_control *self);

/* For those who look on: this rank's part in the log, and its master (NULL: it has none). */
const trm_node *trm_control_node(const trm_control *self);
const trm_master *trm_control_master(const trm_control *self);

#endif
