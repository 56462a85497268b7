/* The shuffle of a rank: what it knows of the map outputs, and which of them lie where its
 * reduces can read them.
 *
 * A range of partitions is what is brought here together: the one that is at home on this rank
 * (jobs/placement.h) from the begin, others when a reduce of theirs is ordered. Within a range
 * every map task goes its way:
 *
 *     UNKNOWN ── OUTPUTS ──▶ [other host] WANTED ── fetched ──▶ HERE ── index read ──▶ READY
 *        ▲                   [same host] ──────────────────────▶ HERE
 *        │                   [it emitted nothing] ──────────────────────────────────▶ READY
 *        └── LOST is told ◀── cannot be fetched, or read
 *
 * A range whose tasks are all READY can be reduced: its segments are known, and their list is
 * written for the executor. A run of this host that cannot be opened in place is fetched, if
 * its rank can (hosts are told apart by name, and names may lie).
 *
 * Control loop; no clock; nothing blocks longer than reading some indexes.
 */
#ifndef TRM_WORKERS_SHUFFLE_H
#define TRM_WORKERS_SHUFFLE_H

#include "workers/fetch.h"
#include "workers/reduce_inputs.h"

typedef struct trm_shuffle trm_shuffle;

#define TRM_SHUFFLE_STEP_INDEXES 32u /* read in one step */
#define TRM_SHUFFLE_AGAIN_MS 2000u   /* before what failed for a reason of this host is tried again … */
#define TRM_SHUFFLE_TRIES 3u         /* … so often; then the reduces of its range fail */
#define TRM_SHUFFLE_LOST_MS 15000u   /* after which a LOST that nothing came of is said again */

/* Borrows all of it; copies of `setup` what it needs. TRM_ENOMEM. */
trm_status trm_shuffle_create(trm_shuffle **out, trm_fs *fs, trm_sender *sender, const char *run_store,
                              const trm_setup *setup, trm_err *err);
void trm_shuffle_destroy(trm_shuffle *self);
/* Another SETUP of the same job: ranks that came later. TRM_ENOMEM. */
trm_status trm_shuffle_peers(trm_shuffle *self, const trm_setup *setup);

/* An output is committed there. Told twice is no harm. */
void trm_shuffle_output(trm_shuffle *self, const trm_output_at *at);
/* A BLOCK; false: not asked for. */
bool trm_shuffle_block(trm_shuffle *self, uint32_t from, const trm_block *block, uint64_t now_ns);
bool trm_shuffle_step(trm_shuffle *self, uint64_t now_ns, uint64_t *wake_ns);
/* The next output to be told LOST. */
bool trm_shuffle_lost(trm_shuffle *self, trm_output_at *out);

/* A reduce of `partition` is ordered, is over: in pairs, they may be several. TRM_ENOMEM. */
trm_status trm_shuffle_want(trm_shuffle *self, uint32_t partition);
void trm_shuffle_done(trm_shuffle *self, uint32_t partition);
/* Of a partition that is wanted: TRM_OK: everything is here. TRM_AGAIN: not yet. Else it cannot
 * be brought here, and why. */
trm_status trm_shuffle_state(trm_shuffle *self, uint32_t partition, trm_err *err);
/* Writes the list of its segments to `path`; trm_shuffle_state has said TRM_OK. */
trm_status trm_shuffle_list(trm_shuffle *self, uint32_t partition, uint32_t attempt, const char *path,
                            trm_err *err);
/* A reduce of `partition` could not read the output of (task, attempt): `status` TRM_ELOST or
 * TRM_ECORRUPT. It is looked for again, and told LOST if it is; and so is what else its range reads, if it
 * was not there. */
void trm_shuffle_unreadable(trm_shuffle *self, uint32_t partition, uint32_t task, uint32_t attempt,
                            trm_status status, uint64_t now_ns);

/* The job is done: no run is of use any more, those of the ranks of this host that died included. */
void trm_shuffle_abandon(const trm_shuffle *self);

uint64_t trm_shuffle_fetched_bytes(const trm_shuffle *self);

#endif
