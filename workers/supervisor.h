/* The supervisor of a crew: a small process between the rank and the executors that never
 * touches MPI and never runs user code.
 *
 *     executor:  alive ── death ──▶ dead ── DIED is sent ──▶ told ── RESPAWN ──▶ waiting ── time ──▶ alive
 *
 * It is the parent of the executors, so that it alone reaps them and they die with it; it
 * reads what their kernels print, ends attempts that take too long, and adopts what kernels
 * leave running. Leaves at STOP, or at the end of its socket: the rank is gone. Then it ends
 * every process below itself and removes the scratch directory, unless that is to be kept.
 */
#ifndef TRM_WORKERS_SUPERVISOR_H
#define TRM_WORKERS_SUPERVISOR_H

#include "workers/executor.h"
#include "workers/scratch.h"

#define TRM_OUTPUT_FILE_BYTES_MAX (1u << 20) /* of what one executor's kernels print, on disk */
#define TRM_RESPAWN_DELAY_MS_MAX 1000u       /* between an executor that keeps dying and the next */

typedef struct trm_supervisor_args {
    const trm_spec *spec;
    const trm_executor_ops *ops;
    const trm_topology *topology;
    const trm_scratch *scratch;
    trm_lanes lanes;
    unsigned executors;
    uint64_t executor_memory_bytes;
    int rank_fd;          /* to the rank */
    const int *order_fds; /* the executors' ends */
    int wake_fd;
} trm_supervisor_args;

/* The whole life of the supervisor, called in the fresh child of the rank, which has closed
 * the rank's ends of all sockets in it. */
_Noreturn void trm_supervisor_main(const trm_supervisor_args *args);

/* obituary.c: from wait4's answer and the lane to a status and one sentence. */
typedef struct trm_obituary {
    unsigned executor;
    int pid;
    int wait_status;
    uint64_t peak_bytes;   /* resident */
    uint64_t memory_bytes; /* its share */
    uint64_t timeout_ms;   /* not 0: it was ended because its task took longer */
    const char *condemned; /* not NULL: it was ended by the rank, for this */
} trm_obituary;
trm_status trm_obituary_write(const trm_obituary *self, const trm_lane *lane, trm_err *err);

#endif
