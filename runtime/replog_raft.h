/* The replicated log of several ranks: Raft (consensus/raft.h), its write-ahead log, and the
 * messages between them. To whoever stands on it, it is a trm_replog like any other.
 *
 *   propose ─▶ raft ─▶ messages ─▶ send            receive ◀─ messages of other nodes
 *               │ ▲                                   │
 *               ▼ └───────────── durable ◀── writer ◀─┴─ entries, hard state, images
 *              next: what is committed
 *
 * A node is a rank; a group of nodes is an epoch of a job. The first voters make their logs with
 * the same membership and the same image to begin with; a node that joins later begins with
 * nothing, and gets all of it from the leader. */
#ifndef TRM_RUNTIME_REPLOG_RAFT_H
#define TRM_RUNTIME_REPLOG_RAFT_H

#include "runtime/consensus/raft.h"
#include "runtime/replog.h"

typedef struct trm_replog_raft_config {
    trm_fs *fs;                            /* NULL: trm_fs_posix() */
    const char *dir;                       /* of this node's log; made when missing; private (0700) */
    uint32_t rank;                         /* of this process: its node */
    uint64_t group;                        /* the epoch: who is of another one is not heard */
    uint64_t log_id;                       /* marks a log when it is made (entropy) */
    uint64_t seed;                         /* of the election timeouts: another for each node and life */
    const trm_raft_members *first_members; /* NULL: this node joins a group that is there */
    const void *image; /* the state to begin with; the same on all first voters; NULL: none */
    size_t image_len;
    uint32_t voters_wanted;    /* 0: the membership changes only when asked */
    uint32_t sync_interval_us; /* 0: the writer's default */
    size_t pending_bytes_max;  /* proposed and undecided; 0: the core's default */
    size_t snapshot_bytes;     /* logged bytes after which wants_snapshot; 0: 16 MiB */
    uint64_t election_ns;      /* 0: the core's default */
    uint64_t keep_entries;     /* … */
    uint32_t segment_bytes;    /* of the log's first segment; 0: the log's default */
    /* NULL: a thread writes the log. Else, in a simulation, step writes it: a write, or a sync, keeps
     * the disk busy for so long. */
    uint64_t (*disk_ns)(void *context);
    /* Hands a message to the network; it may be lost. Not called within open. */
    void (*send)(void *context, uint32_t to, const void *bytes, size_t len);
    void *context;
} trm_replog_raft_config;

/* Opens (or makes) the log and begins as a follower. Borrows `fs` and `context`. As
 * follows.
 * TRM_EFENCED: another process has the log open; the sentence names it.
 * TRM_ECORRUPT: damaged in a way that no crash explains; names file and offset.
 * TRM_EVERSION, TRM_ENOSPACE, TRM_EIO, TRM_ENOMEM. */
trm_status trm_replog_raft_open(trm_replog **out, const trm_replog_raft_config *config, uint64_t now_ns,
                                trm_err *err);
/* Makes the log of a first voter and closes it: for whoever begins the group on behalf of all, where
 * the directories are shared. Of `config` fs, dir, log_id, first_members and image are used. A log
 * that is there already is refused with TRM_AGAIN. */
trm_status trm_replog_raft_make(const trm_replog_raft_config *config, trm_err *err);
/* A message of `from`, whatever it holds. False: dropped. */
bool trm_replog_raft_receive(trm_replog *log, uint32_t from, const void *bytes, size_t len, uint64_t now_ns);
/* Whether bytes begin as a message of this log does: to tell them from others. */
bool trm_replog_raft_is_message(const void *bytes, size_t len);
/* The core, for membership, hints, transfer and what there is to see. Call step after a change. */
trm_raft *trm_replog_raft_core(trm_replog *log);

#endif
