/* Taking over the finished runs of another rank of this host, or of an earlier launch: ADOPT in
 * jobs/wire.h. Each gets a second name, in the own store, as it would be called there, if its index can
 * be read. The first name stays as long as the job runs: the master that asked for it may be gone before
 * the log has it, and then the next one, or the next launch, asks another rank for the same store. When the
 * job is over the mark that keeps the other scratch directory is taken away, so that it is removed as soon
 * as nobody uses it.
 *
 * A store is believed only when it is a directory of the same user that nobody else may enter,
 * and no link is followed. Some files a step.
 *
 * Copies of outputs of other hosts (copies.h) that lie there are taken, too, as what they are: they keep
 * the launch in their name, and are told in COPIED before the store is done with.
 */
#ifndef TRM_WORKERS_ADOPT_H
#define TRM_WORKERS_ADOPT_H

#include "workers/copies.h"

#define TRM_ADOPT_STEP_RUNS 64u
#define TRM_ADOPT_QUEUE_MAX 65536u    /* stores that wait */
#define TRM_ADOPT_TAKEN_MAX 65536u    /* … that were taken, to be removed at the end; others stay */
#define TRM_ADOPT_RUNS_MAX (4u << 20) /* of one store; the others are as good as lost */
#define TRM_HELD_FRAME_MAX 4096u      /* runs in one HELD */

typedef struct trm_adopter trm_adopter;

/* Borrows all of it. TRM_ENOMEM. */
trm_status trm_adopter_create(trm_adopter **out, trm_fs *fs, trm_sender *sender, const char *run_store,
                              trm_copies *copies, trm_err *err);
/* Removes what it can of the stores that were taken over, unless they are to be kept; NULL is fine. */
void trm_adopter_destroy(trm_adopter *self, bool keep);
/* Takes this store too; it is answered with HELD. False: too many wait. */
bool trm_adopter_add(trm_adopter *self, const trm_store *store);
/* Takes some runs and tells `master`; whether there was anything to do. */
bool trm_adopter_step(trm_adopter *self, uint32_t master);

/* "m<task>.e<epoch>.a<attempt>.run", or of a copy "c<task>.…" → its numbers; false: not such a name. */
bool trm_run_name_parse(const char *name, char kind, uint32_t *task, uint64_t *epoch, uint32_t *attempt);

#endif
