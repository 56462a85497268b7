/* The orders that a worker holds: from ORDER until SETTLED, the report once there is one. A master
 * may die at any moment; whoever follows it is told all that is here.
 *
 *     add ─▶ held ─ report ─▶ to be sent ─ sent ─▶ kept ─ settle ─▶ gone
 *                                 ▲                  │
 *                                 └───── send_again ─┘   (another master)
 *
 * O(1) an order; one allocation a report. Control loop. */
#ifndef TRM_WORKERS_LEDGER_H
#define TRM_WORKERS_LEDGER_H

#include "jobs/wire.h"
#include "runtime/transport.h"

#define LEDGER_NONE UINT32_MAX

typedef struct ledger_entry {
    trm_order order;
    uint32_t chain; /* of its bucket; of the free ones */
    uint32_t next, previous;
    uint32_t len;   /* of the report; 0: there is none yet */
    bool sent;      /* to the master that is now */
    bool cancelled; /* it is of no use to the master */
    uint8_t *bytes; /* as it goes into a frame */
} ledger_entry;

typedef struct ledger_list {
    uint32_t first, last;
} ledger_list;

typedef struct trm_ledger {
    ledger_entry *entry;
    uint32_t *bucket; /* as many as there is room for entries: a power of two */
    uint32_t room, count, free;
    ledger_list held, due, kept; /* without a report; to be sent; sent */
    size_t due_bytes, bytes;     /* of reports: to be sent; all */
} trm_ledger;

void trm_ledger_init(trm_ledger *self);
void trm_ledger_close(trm_ledger *self);
/* TRM_OK; TRM_AGAIN: it is held already; TRM_ENOMEM. */
trm_status trm_ledger_add(trm_ledger *self, const trm_order *order);
/* How it ended; copies. Reports of what is not held, or ended before, are not taken (false). Without
 * memory the order is forgotten (false): whoever gave it will miss it. */
bool trm_ledger_report(trm_ledger *self, const trm_order *order, const void *bytes, size_t len);
/* False: it is not held, or has not ended. */
bool trm_ledger_settle(trm_ledger *self, const trm_order *order);

/* False: it is not held, or has ended: then it is as before. */
bool trm_ledger_cancel(trm_ledger *self, const trm_order *order);
bool trm_ledger_is_cancelled(const trm_ledger *self, const trm_order *order);

/* The report that is to be sent first; NULL: none. */
const ledger_entry *trm_ledger_due(const trm_ledger *self);
const ledger_entry *trm_ledger_after(const trm_ledger *self, const ledger_entry *entry);
/* The first `count` of those have been sent. */
void trm_ledger_sent(trm_ledger *self, uint32_t count);
/* All reports are to be sent again, before those that have not been. */
void trm_ledger_send_again(trm_ledger *self);

/* Goes through all orders, whatever is added or taken away meanwhile: *at from 0 on; false: that
 * was the last. What was there from the begin to the end is told. */
bool trm_ledger_next(const trm_ledger *self, uint32_t *at, trm_order *out);

#endif
