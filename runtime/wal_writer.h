/* A thread that writes a write-ahead log, so that the control loop never waits for a disk.
 *
 *   control loop                            the thread (owns the wal)
 *   batch … put(mark) ─────────────────┐
 *                                      └──► swap → write → sync → durable mark ─┐
 *   step ◄── descriptor ◄──────────────────────────────────────────────────────┘
 *
 * Whatever is put while a sync is under way goes into the next one: one write and one sync,
 * however much it is. Images of a state machine (snapshots) are written in between, in pieces.
 *
 * A full disk: the batch is tried again until there is room; health says so meanwhile. Any
 * other failure is for good. */
#ifndef TRM_RUNTIME_WAL_WRITER_H
#define TRM_RUNTIME_WAL_WRITER_H

#include "runtime/wal.h"

#define TRM_WAL_SYNC_INTERVAL_US 2000u

typedef struct trm_wal_writer trm_wal_writer;

typedef struct trm_wal_writer_news {
    uint64_t durable;  /* the newest mark that is durable; 0: none */
    trm_status health; /* TRM_OK, TRM_ENOSPACE, or why nothing is written any more */
    const char *why;   /* valid until step or close */
    bool image_ended;  /* since the last step; `image` says how, and of which index */
    trm_status image;
    uint64_t image_index;
} trm_wal_writer_news;

/* Takes `wal`, also on failure. A sync begins at most every `sync_interval_us` (0: the default)
 * unless much is waiting. TRM_ENOMEM, TRM_EIO, TRM_ELAUNCH. */
trm_status trm_wal_writer_start(trm_wal_writer **out, trm_wal *wal, uint32_t sync_interval_us, trm_err *err);
/* Without a thread, for a simulator: nothing is written but by turn. As start; TRM_ENOMEM. */
trm_status trm_wal_writer_start_stepped(trm_wal_writer **out, trm_wal *wal, trm_err *err);
/* One piece of what the thread would do: a write, the sync of it, a part of an image. False: nothing is
 * to be done. */
bool trm_wal_writer_turn(trm_wal_writer *self);
/* Whether turn has something to do. */
bool trm_wal_writer_waits(const trm_wal_writer *self);
/* Writes and syncs what was put, drops an image that is not saved yet, ends the thread, closes the
 * log. NULL is fine. */
void trm_wal_writer_close(trm_wal_writer *self);

/* The batch to be filled; nothing else may be called until put. */
trm_wal_batch *trm_wal_writer_batch(trm_wal_writer *self);
/* `mark` is told by step once all that is in the batch is durable. Marks grow. */
void trm_wal_writer_put(trm_wal_writer *self, uint64_t mark);
/* Saves an image and lets the log forget what it covers. Takes `bytes` (from malloc) on TRM_OK only.
 * With `install` it takes the place of the log (thesis 5.1): what was put before is written
 * first, what is put after it later. TRM_AGAIN: another is being saved. */
trm_status trm_wal_writer_save(trm_wal_writer *self, const trm_wal_snapshot *meta, uint8_t *bytes, size_t len,
                               bool install, trm_err *err);

/* Wakes the thread if something was put; tells what it has done. Whether anything is new. */
bool trm_wal_writer_step(trm_wal_writer *self, trm_wal_writer_news *out);
/* Polls readable when step has news. */
int trm_wal_writer_fd(const trm_wal_writer *self);

#endif
