/* A rank's own copy of the job table: it follows the replicated log.
 *
 *     log ─ next ─▶ table            (images of the table go the other way, so that the log is bounded)
 *                     ▲
 *                     └── a master, on the rank that leads, for as long as that leads
 *
 * Every voter and learner keeps one, so that whichever leads next has the table already. Control
 * loop: one thread. */
#ifndef TRM_SCHEDULER_REPLICA_H
#define TRM_SCHEDULER_REPLICA_H

#include "jobs/table.h"
#include "runtime/replog.h"

typedef struct trm_replica trm_replica;
/* Looks on: `item` is in the replica's table now, or has made its health what it is. */
typedef void (*trm_replica_witness_cb)(void *context, const trm_replica *replica,
                                       const trm_replog_item *item);

struct trm_replica {
    trm_replog *log; /* borrowed */
    trm_table table;
    uint64_t applied; /* index of the last item that is in the table */
    trm_status
        health; /* TRM_OK, or why the table cannot follow the log any more (ECORRUPT, EVERSION, ENOMEM) */
    trm_err why;
    /* Of the master; NULL: there is none, or its job has not begun. */
    const trm_table_watch *watch;
    /* Of the master; told before the whole table is replaced, which makes void what points into it. */
    void (*restoring)(void *context);
    void *context;
    trm_replica_witness_cb witness; /* NULL: nobody looks on */
    void *witness_context;
};

void trm_replica_init(trm_replica *self, trm_replog *log);
/* There must be no master on it. The log stays open. */
void trm_replica_close(trm_replica *self);
/* Moves the log on and applies what it yields, a bounded number of commands. Returns whether
 * anything moved; *wake_ns is lowered to when it must be called again at the latest. A master does
 * it in its own step; while there is none, the loop is to do it. */
bool trm_replica_step(trm_replica *self, uint64_t now_ns, uint64_t *wake_ns);
/* Applies all that the log yields now, without moving it on: what was in it when it was opened.
 * TRM_OK, or `health` and why. */
trm_status trm_replica_catch_up(trm_replica *self, trm_err *err);

#endif
