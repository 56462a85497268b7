/* The inside of a worker: worker.c (its life, frames in and out) and worker_orders.c (orders,
 * executors, reports). */
#ifndef TRM_WORKERS_WORKER_SELF_H
#define TRM_WORKERS_WORKER_SELF_H

#include "workers/adopt.h"
#include "workers/copies.h"
#include "workers/fetch_serve.h"
#include "workers/ledger.h"
#include "workers/shuffle.h"
#include "workers/worker.h"

#define HELLO_AGAIN_MS 1000u    /* until SETUP comes */
#define HELLO_FOLLOW_MS 200u    /* … from a master that follows another */
#define MASTER_SILENT_MS 30000u /* without any frame from it the rank leaves */
#define MASTER_BEGIN_MS 120000u /* … before SETUP: it may be clearing a large output directory */
#define BYE_WAIT_MS 2000u       /* for room to say BYE */
#define PAUSE_MS 1000u          /* the loop did not turn for so long: silence proves nothing */
#define STOP_GRACE_MS 200u      /* for executors at the end */
#define ORDERS_MAX (TRM_EXECUTORS_MAX * TRM_CREW_QUEUE_MAX)
#define EVENTS_STEP_MAX 4096u        /* of the crew in one step */
#define LOST_FRAME_MAX 4096u         /* outputs in one LOST */
#define LISTS_STEP_MAX 2u            /* of reduces in one step */
#define REPORTS_BYTES_MAX (1u << 20) /* to be sent; then the crew is not asked for more */
#define KEPT_BYTES_MAX (64u << 20)   /* … of reports that are not settled */
#define AHEAD_US 20000u              /* of work that an executor has queued behind what it runs */
#define TASK_US_MIN 50u              /* what a task counts for that took less than the clock shows */

/* A ring of orders. */
typedef struct order_queue {
    trm_order *items;
    uint32_t first, count, room; /* room: a power of two, or 0 */
} order_queue;

struct trm_worker {
    const trm_spec *spec;
    trm_fs *fs;
    trm_transport *transport;
    trm_crew *crew; /* NULL: there is none, or it has been stopped */
    trm_sender sender;
    char host[TRM_HOST_NAME_BYTES];
    char run_store[TRM_STORE_PATH_BYTES];

    /* Its master. */
    uint32_t master;
    bool hello_due, hello_sent, set_up;
    bool attached;          /* it has answered HELLO with SETUP: it may be reported to */
    bool claim_due;         /* it is to be told what is held … */
    uint32_t claim_at;      /* … from here on */
    trm_status crew_status; /* TRM_AGAIN: no executor is up yet; else what HELLO says */
    char crew_text[TRM_TEXT_BYTES_MAX];
    trm_traits traits;
    trm_setup setup; /* without peers */
    uint64_t hello_ns, pulse_ns, heard_ns, step_ns, bye_ns;
    uint64_t dropped;

    /* Orders. */
    order_queue ready;   /* to be given to an executor */
    order_queue reduces; /* whose inputs are not all here */
    uint32_t executors, executors_failed;
    uint32_t running_us;                /* about what a task takes */
    trm_order held[TRM_CREW_QUEUE_MAX]; /* room for a batch */
    trm_ledger ledger;                  /* all that is held: ordered, and not settled */
    trm_writer report;                  /* being composed */
    bool keeps;                         /* the scratch directory is marked to be kept */

    /* The data. */
    trm_shuffle *shuffle; /* since SETUP */
    trm_fetch_server *server;
    trm_copies *copies;
    trm_adopter *adopter;

    /* The end. */
    bool ending, stopped, ended;
    trm_end end;
};

bool order_queue_put(order_queue *self, const trm_order *order); /* false: no memory */
bool order_queue_put_first(order_queue *self, const trm_order *order);
bool order_queue_remove(order_queue *self, const trm_order *order); /* false: it is not in it */
bool order_queue_take(order_queue *self, trm_order *out);
void order_queue_close(order_queue *self);

/* An order from the master, and its end when that is decided otherwise. */
void worker_order(trm_worker *self, const trm_order *order);
void worker_cancel(trm_worker *self, const trm_order *order);
void worker_recall(trm_worker *self, const trm_order *order);
/* What the crew says, what can be given to it; whether anything was. */
bool worker_crew_step(trm_worker *self);
bool worker_reduces_step(trm_worker *self);
bool worker_feed(trm_worker *self);
/* The scratch directory outlives this rank from the moment that it has something of use to others: see
 * ADOPT, COPY. */
void worker_keep_scratch(trm_worker *self);
/* Sends the reports that are due; false: the transport has no room, or there is no master now. */
bool worker_reports_send(trm_worker *self);
/* Says what is held; false: not all of it yet. */
bool worker_claim_send(trm_worker *self);
/* Ends an order without running it. */
void worker_refuse(trm_worker *self, const trm_order *order, trm_status status, const char *text);
/* It was begun, and died; `record` as in a report. */
void worker_died(trm_worker *self, const trm_order *order, trm_status status, uint32_t record,
                 const char *text);

#endif
