/* The worker of a rank: between the master's orders and the crew's executors, and the
 * shuffle between hosts. Part of the control loop: one thread, nothing blocks.
 *
 *   ORDER → queue → [reduce: wait until every segment is on this host] → executor
 *         → REPORT (batched) → kept until SETTLED
 *   another master: HELLO → SETUP → CLAIM of all that is held, and its reports again
 *   OUTPUTS → for each run on another host: FETCH with credits → BLOCK → fetched run
 *   FETCH from a peer → a range of one of this rank's runs → BLOCK
 */
#ifndef TRM_WORKERS_WORKER_H
#define TRM_WORKERS_WORKER_H

#include "jobs/spec.h"
#include "jobs/wire.h"
#include "runtime/fs.h"
#include "runtime/transport.h"
#include "workers/crew.h"

typedef struct trm_worker trm_worker;

/* Borrows its arguments, which must outlive it, but for the crew: that is the worker's from now
 * on, also on failure, and is stopped at the end. Without a crew (NULL) all that it does is to
 * tell the master so: `why_not` says it, with `why_not_status`. The master is rank 0 until
 * trm_worker_set_master says otherwise; frames before SETUP carry epoch 0. TRM_ENOMEM. */
trm_status trm_worker_create(trm_worker **out, const trm_spec *spec, trm_fs *fs, trm_transport *transport,
                             trm_crew *crew, trm_status why_not_status, const char *why_not, trm_err *err);
/* Stops the crew if END has not. NULL is fine. */
void trm_worker_destroy(trm_worker *self);
/* The rank to say HELLO to and to report to: another one leads, known from the replicated log, or
 * from a PULSE of this epoch with a higher term than trm_worker_term. What runs goes on. Of an
 * older term, or the one that is known: nothing happens. */
void trm_worker_set_master(trm_worker *self, uint32_t master, uint64_t epoch, uint64_t term);

/* Of the master that is known: 0 before the first SETUP. */
uint64_t trm_worker_term(const trm_worker *self);
uint64_t trm_worker_epoch(const trm_worker *self);

/* A frame for the worker (any type that the master or a peer sends), opened already.
 * Anything wrong is dropped and counted. */
void trm_worker_receive(trm_worker *self, uint32_t from, const trm_wire_header *header, trm_reader *body,
                        uint64_t now_ns);
/* Takes what the crew has to say, starts what can be started, sends reports, fetches
 * and the pulse. Returns whether anything was done, so that the loop knows whether it
 * may sleep; *wake_ns is lowered to when it must be called again at the latest. At the end
 * it stops the crew, which takes a while. */
bool trm_worker_step(trm_worker *self, uint64_t now_ns, uint64_t *wake_ns);
/* Descriptors for the loop's poll, as trm_crew_fds. */
unsigned trm_worker_fds(const trm_worker *self, int *out, unsigned max);
/* Leaves the job without being told to: as if `end` had come. */
void trm_worker_leave(trm_worker *self, const trm_end *end);
/* END has come, the executors have stopped and BYE is sent: `end` says how it ended. */
bool trm_worker_ended(const trm_worker *self, trm_end *end);

/* The name of this host, as ranks that share one must agree on: TRIREME_HOST in the
 * environment, or the system's. `out` has TRM_HOST_NAME_BYTES. */
void trm_worker_host(char *out);

#endif
