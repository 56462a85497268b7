/* Serving: what other hosts fetch of this rank's runs. A few runs are kept open with what is
 * to be read of them; a request that finds the transport full waits. A step reads at most
 * TRM_SERVE_STEP_BLOCKS blocks, so that the control loop never stands long. */
#ifndef TRM_WORKERS_FETCH_SERVE_H
#define TRM_WORKERS_FETCH_SERVE_H

#include "runtime/fs.h"
#include "workers/sender.h"

#define TRM_SERVE_OPEN_MAX 32u    /* runs kept open */
#define TRM_SERVE_QUEUE_MAX 4096u /* requests that wait; more are dropped, and made again */
#define TRM_SERVE_STEP_BLOCKS 16u

typedef struct trm_fetch_server trm_fetch_server;

/* Borrows all of it. TRM_ENOMEM. */
trm_status trm_fetch_server_create(trm_fetch_server **out, trm_fs *fs, trm_sender *sender,
                                   const char *run_store, trm_err *err);
void trm_fetch_server_destroy(trm_fetch_server *self);
/* False: dropped, for too many wait. */
bool trm_fetch_server_request(trm_fetch_server *self, uint32_t from, const trm_fetch *fetch);
/* Answers what can be answered now; whether there was anything. */
bool trm_fetch_server_step(trm_fetch_server *self);
/* Closes what is kept open: the store is about to go, or its runs were replaced. */
void trm_fetch_server_reset(trm_fetch_server *self);

#endif
