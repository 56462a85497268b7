/* The copies that this rank keeps of map outputs of other hosts (--replicas 2): made when the master asks
 * for it, in the background, a few at a time, over the same way as the shuffle's extracts.
 *
 *     COPY ─▶ waits ─▶ fetched, all partitions, as g… ─▶ index read ─▶ c<task>.e<epoch>.a<attempt>.run
 *          ─▶ … and m<task>.…, the name under which it is read, in place and by FETCH ─▶ COPIED
 *
 * The first name says that the file is a copy of what was committed under that number in that launch: it
 * is what a rank that takes over the store goes by, in this launch or a later one (adopt.h). The second is
 * the one that it would have if this rank had made it, so that whoever is sent here needs to know nothing.
 * Nothing waits for a copy: one that cannot be made (the other host does not answer, scratch is full) is
 * said to the master, and the job goes on. None is begun when little of the scratch file system is free, so
 * that copies do not take the room that tasks need.
 *
 * A copy that was found in a store of an earlier launch keeps that in its first name, until the master asks
 * to keep it as of this launch: then the output that it is a copy of is known to be the one of this launch.
 *
 * What is held is told once, and to each new master anew. Control loop; no clock.
 */
#ifndef TRM_WORKERS_COPIES_H
#define TRM_WORKERS_COPIES_H

#include "workers/fetch.h"

#define TRM_COPY_OPEN_MAX 4u     /* fetched at once */
#define TRM_COPY_QUEUE_MAX 1024u /* that wait */
#define TRM_COPIES_SAID_MAX (4u << 20)

typedef struct trm_copies trm_copies;

/* Borrows all of it. TRM_ENOMEM. */
trm_status trm_copies_create(trm_copies **out, trm_fs *fs, trm_sender *sender, const char *run_store,
                             trm_err *err);
/* Removes what was not fetched to its end. NULL is fine. */
void trm_copies_destroy(trm_copies *self);

/* The output is to be brought here; `partitions`: of the job. False: too many wait, or it makes no sense. */
bool trm_copies_add(trm_copies *self, const trm_copy *what, uint32_t partitions);
/* A copy of that launch lies in the own store, under both names. */
void trm_copies_note(trm_copies *self, uint32_t task, uint32_t attempt, uint64_t epoch, uint64_t bytes);
/* A BLOCK; false: not asked for. */
bool trm_copies_block(trm_copies *self, uint32_t from, const trm_block *block, uint64_t now_ns);
bool trm_copies_step(trm_copies *self, uint64_t now_ns, uint64_t *wake_ns);

/* A new master knows of none. */
void trm_copies_tell_again(trm_copies *self);
/* Tells what was not told yet; whether all of it is. */
bool trm_copies_tell(trm_copies *self, uint32_t master);
/* Whether another file had a name that was given since this was asked last: who has it open must let go. */
bool trm_copies_replaced(trm_copies *self);

uint64_t trm_copies_bytes(const trm_copies *self); /* fetched by this rank, for copies */

/* <store>/c<task>.e<epoch>.a<attempt>.run. TRM_ELIMIT when `out_bytes` is too small. */
trm_status trm_copy_name(const char *store, uint64_t epoch, uint32_t task, uint32_t attempt, char *out,
                         size_t out_bytes);

#endif
