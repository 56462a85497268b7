/* The replicated log that the job table stands on, behind a table: Raft over
 * the ranks in replog_raft.c, memory in tests, and nothing above notices.
 *
 *   propose(command) ──► written, synced (and, with Raft, on a majority) ──► next()
 *
 * A state machine is built by giving it, in order, every item that `next` yields:
 * first what was there at the open (RESTORE, when an image was saved, then the
 * commands after it), then what is committed as the launch goes on. A command is
 * proposed when propose returns TRM_OK; it is decided when next yields it, with the
 * index and the term that it was proposed with; before that it may be lost.
 *
 * One thread, the control loop; no call blocks but open and close.
 */
#ifndef TRM_RUNTIME_REPLOG_H
#define TRM_RUNTIME_REPLOG_H

#include "runtime/fs.h"
#include "runtime/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The largest command. */
#define TRM_REPLOG_COMMAND_BYTES_MAX (192u * 1024u)
/* "No rank": rank 0 is a legal one. */
#define TRM_REPLOG_NOBODY UINT32_MAX

typedef struct trm_replog trm_replog;

typedef enum trm_replog_kind {
    TRM_REPLOG_COMMAND = 1, /* apply `bytes` */
    TRM_REPLOG_RESTORE = 2  /* forget all state and take it from the image `bytes` */
} trm_replog_kind;

typedef struct trm_replog_item {
    trm_replog_kind kind;
    uint64_t index; /* grows; not every index is yielded (some entries are the log's own) */
    uint64_t term;
    const uint8_t *bytes; /* valid until the next call of next, step or close */
    size_t len;
} trm_replog_item;

typedef struct trm_replog_state {
    bool leader;          /* propose may be called */
    uint32_t leader_rank; /* TRM_REPLOG_NOBODY: none known */
    uint64_t term;        /* fences attempts: one leader a term, terms only grow, also over launches */
    uint64_t proposed;    /* index of the last command proposed here */
    uint64_t committed;   /* next yields up to here; equal to proposed: all is decided */
    trm_status health;    /* TRM_OK; TRM_ENOSPACE: nothing new is taken until there is room, what
                             was proposed is kept and tried again; else: failed for good */
    const char *why;      /* the sentence to a health that is not TRM_OK; valid until step or close */
} trm_replog_state;

typedef struct trm_replog_ops {
    trm_status (*propose)(trm_replog *self, const void *command, size_t len, uint64_t *index, trm_err *err);
    trm_status (*next)(trm_replog *self, trm_replog_item *out);
    bool (*step)(trm_replog *self, uint64_t now_ns, uint64_t *wake_ns);
    void (*state)(const trm_replog *self, trm_replog_state *out);
    int (*fd)(const trm_replog *self);
    bool (*wants_snapshot)(const trm_replog *self);
    trm_status (*snapshot)(trm_replog *self, const void *image, size_t len, trm_err *err);
    void (*close)(trm_replog *self);
} trm_replog_ops;

struct trm_replog {
    const trm_replog_ops *ops;
};

/* Proposes a copy of `command`, and sets *index. Cheap: it only fills a buffer; what
 * is proposed between two steps is written and synced together.
 * TRM_AGAIN: too much is undecided, call again after next has yielded something.
 * TRM_EFENCED: this rank does not lead (see leader_rank). TRM_ENOSPACE: the disk is
 * full; TRM_ELIMIT: the command is too long; TRM_EIO: the log has failed for good. */
static inline trm_status trm_replog_propose(trm_replog *self, const void *command, size_t len,
                                            uint64_t *index, trm_err *err)
{
    return self->ops->propose(self, command, len, index, err);
}

/* The next committed item, in order, each once. TRM_AGAIN: none now. Every call that
 * returns TRM_OK is taken as applied: a snapshot covers it. */
static inline trm_status trm_replog_next(trm_replog *self, trm_replog_item *out)
{
    return self->ops->next(self, out);
}

/* Moves the log on: hands what was proposed to its writer, takes what has been
 * written. Call it once a turn of the control loop. Returns whether anything moved
 * (next may have something); *wake_ns is lowered to when it must be called again at
 * the latest. */
static inline bool trm_replog_step(trm_replog *self, uint64_t now_ns, uint64_t *wake_ns)
{
    return self->ops->step(self, now_ns, wake_ns);
}

static inline void trm_replog_state_get(const trm_replog *self, trm_replog_state *out)
{
    self->ops->state(self, out);
}

/* A descriptor that polls readable when step has something to take; -1 when there is
 * none (then step asks for its turn by *wake_ns). Only poll it; step drains it. */
static inline int trm_replog_fd(const trm_replog *self)
{
    return self->ops->fd(self);
}

/* So much has been logged since the last image that an image should be saved. */
static inline bool trm_replog_wants_snapshot(const trm_replog *self)
{
    return self->ops->wants_snapshot(self);
}

/* Saves a copy of `image`, the state after the last item that next has yielded, and
 * lets the log forget what the image covers. Saving goes on aside; a crash before its
 * end leaves the log as it was. TRM_AGAIN: one is being saved, or nothing has been
 * yielded since the last. */
static inline trm_status trm_replog_snapshot(trm_replog *self, const void *image, size_t len, trm_err *err)
{
    return self->ops->snapshot(self, image, len, err);
}

/* Writes and syncs what has been proposed, then closes. NULL is allowed. */
static inline void trm_replog_close(trm_replog *self)
{
    if (self)
        self->ops->close(self);
}

#endif
