/* Simulated workers: they obey the messages of jobs/wire.h as workers/ does, without processes,
 * files of runs or bytes that are moved. Time and chance are the simulation's.
 */
#ifndef TRM_TESTS_SIM_WORKER_H
#define TRM_TESTS_SIM_WORKER_H

#include "jobs/spec.h"
#include "jobs/wire.h"
#include "runtime/fs.h"
#include "runtime/transport.h"
#include "tests/support/sim_runs.h"
#include "tests/support/sim_tasks.h"

typedef struct sim_worker sim_worker;

typedef struct sim_worker_config {
    const trm_spec *spec;
    const trm_traits *traits;
    const sim_habits *habits;
    trm_fs *fs;
    trm_transport *transport;
    sim_runs *runs;
    const char *host, *store; /* copied */
    uint32_t executors;
    trm_status hello_status; /* TRM_OK, or why its crew cannot work */
    uint64_t hello_ns;       /* when it says HELLO */
    bool watches_master;     /* as trm_worker does: it leaves when it hears nothing for long */
    uint64_t seed;
    uint32_t slowness; /* how many times longer its tasks take; 0: as others' */
    uint64_t sick_ns;  /* from then on no attempt ends by itself; 0: never */
    /* The output, if this rank can read it, in place or from its rank; NULL: it cannot. */
    const sim_run *(*find_output)(void *context, uint32_t reader, const trm_output_at *at);
    /* Told of each order before it is obeyed. */
    void (*ordered)(void *context, uint32_t rank, const trm_order *order);
    void *context;
} sim_worker_config;

sim_worker *sim_worker_create(const sim_worker_config *config); /* aborts without memory */
void sim_worker_destroy(sim_worker *self);
/* A frame for the worker, opened already. */
void sim_worker_receive(sim_worker *self, uint32_t from, const trm_wire_header *header, trm_reader *body,
                        uint64_t now_ns);
/* It learns of another master, as trm_worker_set_master. */
void sim_worker_set_master(sim_worker *self, uint32_t master, uint64_t epoch, uint64_t term);
uint64_t sim_worker_term(const sim_worker *self);
/* An attempt of the task that runs here, or has succeeded, and is not settled. */
bool sim_worker_holds(const sim_worker *self, uint8_t phase, uint32_t task, trm_order *out);
/* Of the master that was told last all that is held. */
uint64_t sim_worker_claimed_term(const sim_worker *self);
/* Ends attempts that are due, sends. Lowers *wake_ns. */
void sim_worker_step(sim_worker *self, uint64_t now_ns, uint64_t *wake_ns);
/* As trm_worker_leave. */
void sim_worker_leave(sim_worker *self, const trm_end *end);
bool sim_worker_ended(const sim_worker *self, trm_end *end);
uint64_t sim_worker_epoch(const sim_worker *self);
uint64_t sim_worker_dropped(const sim_worker *self);

#endif
