/* Inside of a simulated worker: what sim_worker.c and sim_copies.c share. */
#ifndef TRM_TESTS_SIM_WORKER_SELF_H
#define TRM_TESTS_SIM_WORKER_SELF_H

#include "runtime/clock.h"
#include "tests/support/draw.h"
#include "tests/support/sim_worker.h"
#include "workers/ledger.h"

#define SIM_COPIES_MAX 64u        /* asked for at once */
#define SIM_FULL_NS TRM_NS_PER_MS /* until what found no room is sent again */

typedef struct running {
    trm_order order;
    uint64_t begin_ns, end_ns; /* end 0: idle */
} running;

typedef struct copying {
    trm_output_at at;
    uint64_t due_ns;
} copying;

struct sim_worker {
    sim_worker_config config;
    char host[64], store[64];
    trm_draw draw;
    uint64_t now_ns, heard_ns, hello_ns, pulse_ns, epoch, term, dropped;
    uint32_t master;
    bool hello_sent, set_up, attached, claim_due, ended;
    trm_end end;
    trm_setup setup;
    trm_output_at *known; /* by map task; rank NOWHERE: not known */
    uint64_t *lost_ns;    /* when LOST may be said again */
    trm_order *queue;
    size_t queue_at, queue_count, queue_room;
    running *executor;
    trm_ledger ledger;
    trm_writer frame, report;
    uint64_t claimed_term;
    copying copies[SIM_COPIES_MAX];
    unsigned copies_count;
    bool copies_due; /* all that are held are to be told */
};

/* A frame to the master: begun, and sent as it is then. */
trm_writer *sim_worker_begin(sim_worker *self, trm_wire_type type);
trm_status sim_worker_send(sim_worker *self);

/* Copies of others' runs: COPIES is obeyed, what is due is made. */
void sim_copies_order(sim_worker *self, trm_reader *body);
/* Tells of all that are held: there are few. False: it found no room. */
bool sim_copies_tell(sim_worker *self);
bool sim_copies_is_own(const sim_worker *self, const sim_run *run);
void sim_copies_step(sim_worker *self, uint64_t *wake_ns);

#endif
