/* What a signal to this rank means: that the job is to stop, or that this rank alone has to go (its host
 * is drained, a person wants the core back) and the job goes on without it.
 *
 *     signal ─▶ LEAVING to the leader, and to each that follows it
 *            ├─ this rank does not lead: it leaves when its time is over, or the leader has ended the job
 *            └─ it leads: all others leave as well, or those that stay are too few ─▶ the job ends, resumable
 *                         others stay ─▶ one of them is handed the lead ─▶ this rank leaves
 *
 * Part of the control loop; nothing blocks. */
#ifndef TRM_TOOL_DEPARTURE_H
#define TRM_TOOL_DEPARTURE_H

#include "runtime/transport.h"
#include "tool/node.h"

#define TRM_SIGNAL_WAIT_MS 3000u  /* for the leader to end the job, at a signal to this rank */
#define TRM_ALONE_MS 500u         /* for other ranks to say that they leave too */
#define TRM_HAND_OVER_MS 1000u    /* for another rank to take the lead */
#define TRM_LEAVING_AGAIN_MS 200u /* LEAVING is said again: it may find no room, or nobody who leads */

typedef enum trm_departure_advice {
    TRM_STAY = 0,
    TRM_END_JOB, /* of the rank that leads: everybody is to stop */
    TRM_LEAVE    /* time is over: of the rank that leads, the job has not ended in time */
} trm_departure_advice;

typedef struct trm_departure {
    trm_transport *transport;
    trm_node *node;
    uint8_t *going;    /* one a rank: it is dead, or leaves */
    uint64_t until_ns; /* this rank leaves by then; 0: no signal has come */
    bool led;          /* when it was asked last … */
    uint64_t alone_ns; /* … and by then all that leave have said so */
    uint64_t hand_ns;  /* by then another rank leads; 0: none has been asked to */
    bool ending;       /* the job is to end */
    uint64_t say_ns;   /* when LEAVING is said again */
} trm_departure;

/* Borrows its arguments. TRM_ENOMEM. */
trm_status trm_departure_init(trm_departure *self, trm_transport *transport, trm_node *node, trm_err *err);
void trm_departure_close(trm_departure *self);

/* A signal has come to this rank; only the first counts. */
void trm_departure_signal(trm_departure *self, uint64_t now_ns);
bool trm_departure_is_due(const trm_departure *self); /* one has come */
/* A rank is dead, or has said LEAVING. */
void trm_departure_goes(trm_departure *self, uint32_t rank);
/* What this rank is to do. `leads`: it has been elected; `leader`: who leads, as far as is known. The
 * advice is given again until it is followed. *wake_ns is lowered. */
trm_departure_advice trm_departure_step(trm_departure *self, bool leads, uint32_t leader, uint64_t now_ns,
                                        uint64_t *wake_ns);

#endif
