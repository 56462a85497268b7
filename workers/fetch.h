/* Fetching: the extracts of runs (run.h) that lie on other hosts, into files of the own store,
 * while maps still run. And its other side, fetch_serve.h.
 *
 *     want ─▶ waiting at its peer ─▶ FETCH, the first block ─▶ FETCH …, those behind it, several
 *             at once ─▶ all bytes written ─▶ taken by trm_fetcher_next
 *
 * A FETCH that is out is a credit: at most TRM_FETCH_CREDITS a peer and TRM_FETCH_CREDITS_ALL in
 * all, so that no more can come than has been asked for. One that is not answered in
 * TRM_FETCH_TIMEOUT_MS is sent again; after TRM_FETCH_TRIES the extract is given up. What comes
 * without a credit is dropped.
 *
 * No clock: time is passed in. Files are not synced: what is lost is fetched or made again.
 */
#ifndef TRM_WORKERS_FETCH_H
#define TRM_WORKERS_FETCH_H

#include "runtime/fs.h"
#include "workers/sender.h"

#define TRM_FETCH_CREDITS 8u
#define TRM_FETCH_CREDITS_ALL 64u
#define TRM_FETCH_TIMEOUT_MS 5000u
#define TRM_FETCH_TRIES 4u
#define TRM_FETCH_PATH_BYTES (TRM_STORE_PATH_BYTES + 128u)

typedef struct trm_fetcher trm_fetcher;

/* Partitions [first, last) of the run of (task, attempt). */
typedef struct trm_extract_id {
    uint32_t task, attempt, first, last;
} trm_extract_id;

/* Borrows all of it; `ranks`: of the job; `kind`: the first letter of its files' names, so that two fetchers
 * of one store do not meet. TRM_ENOMEM. */
trm_status trm_fetcher_create(trm_fetcher **out, trm_fs *fs, trm_sender *sender, const char *run_store,
                              uint32_t ranks, char kind, trm_err *err);
/* Removes the files of what was not fetched to its end. NULL is fine. */
void trm_fetcher_destroy(trm_fetcher *self);

/* Where the extract will lie: <store>/<kind><task>.e<epoch>.a<attempt>.p<first>-<last>.run, of
 * TRM_FETCH_PATH_BYTES. */
void trm_fetcher_path(const trm_fetcher *self, const trm_extract_id *id, char *out);
/* Asks `from` for an extract, behind what it was asked for before. One that is being fetched
 * from there already goes on; one from elsewhere begins again. TRM_ENOMEM. */
trm_status trm_fetcher_want(trm_fetcher *self, const trm_extract_id *id, uint32_t from);
/* It is of no use any more; its file is removed, whole or not. Nothing is said of it. */
void trm_fetcher_forget(trm_fetcher *self, const trm_extract_id *id);

/* A BLOCK. False: nobody asked for it. */
bool trm_fetcher_take(trm_fetcher *self, uint32_t from, const trm_block *block, uint64_t now_ns);
/* Sends what may be sent; whether anything was. */
bool trm_fetcher_step(trm_fetcher *self, uint64_t now_ns, uint64_t *wake_ns);

/* The next extract that has come to its end: TRM_OK: its file is whole (its content is not
 * checked). TRM_ELOST: the peer does not have it, or does not answer; TRM_ECORRUPT: it cannot
 * read it, or makes no sense; TRM_EIO, TRM_ENOSPACE: it could not be written here. */
bool trm_fetcher_next(trm_fetcher *self, trm_extract_id *id, trm_status *status, trm_err *err);

uint64_t trm_fetcher_bytes(const trm_fetcher *self); /* of blocks taken, since the begin */
uint32_t trm_fetcher_open(const trm_fetcher *self);  /* extracts wanted and not at their end */

#endif
