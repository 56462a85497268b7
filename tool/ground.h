/* What a rank's part in the control plane stands on: files, messages, chance, the disk's pace. All
 * of it behind tables, so that a simulator can stand in for the machine; time is passed in. */
#ifndef TRM_TOOL_GROUND_H
#define TRM_TOOL_GROUND_H

#include "runtime/fs.h"
#include "runtime/transport.h"
#include "scheduler/replica.h"

typedef struct trm_ground {
    trm_fs *fs;
    trm_transport *transport;
    uint64_t (*entropy)(void *context); /* as trm_clock_entropy */
    uint64_t (*disk_ns)(void *context); /* as in replog_raft.h; NULL: a thread writes this rank's log */
    /* Told of every item that the log has yielded, after it was applied; NULL: nobody is. */
    trm_replica_witness_cb witness;
    uint32_t segment_bytes; /* of a log's first segment; 0: the default */
    size_t snapshot_bytes;  /* as in replog_raft.h */
    void *context;
} trm_ground;

#endif
