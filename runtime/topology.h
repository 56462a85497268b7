/* Cores and NUMA nodes: which of them this process may use, and how to bind to one.
 *
 * The only file that calls hwloc is topology.c. A topology is made once, in the rank,
 * before anything is forked, and holds the set of processors that the process was given
 * (by mpirun, Slurm, a cgroup, taskset) at that moment. Ranks that were all given the same
 * set divide it:
 *
 *     set of the rank    is                       then
 *     its own            bound by the launcher    all of it
 *     everybody's        launched without binding slice number local_rank of local_ranks
 *     a few ranks'       e.g. --bind-to socket    its share in number; its executors float on
 *                                                 the set, because nobody says who shares it
 */
#ifndef TRM_RUNTIME_TOPOLOGY_H
#define TRM_RUNTIME_TOPOLOGY_H

#include "runtime/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct trm_topology trm_topology;

/* What a process is bound to. */
typedef enum trm_grain {
    TRM_GRAIN_CORE = 0, /* one core, and its NUMA node's memory first */
    TRM_GRAIN_NUMA = 1, /* the cores of one NUMA node among those of the rank, and its memory first */
    TRM_GRAIN_NONE = 2  /* what the rank itself was given */
} trm_grain;

#define TRM_PLACE_TEXT_BYTES 192u

/* Reads the machine and the set of this process. The caller destroys it; a child that was
 * forked meanwhile may go on using its copy. TRM_ELAUNCH, TRM_ENOMEM. */
trm_status trm_topology_create(trm_topology **out, trm_err *err);
void trm_topology_destroy(trm_topology *self); /* NULL is fine */

/* Takes this rank's share, as the table above says. `set_is_shared`: every rank of this host
 * was given the same set (see trm_topology_set_is_shared). At least one core is left. */
void trm_topology_share(trm_topology *self, uint32_t local_rank, uint32_t local_ranks, bool set_is_shared);
/* Whether the launcher of this process (or else its parent) may run on the very same set,
 * which means that it gave no rank a set of its own. */
bool trm_topology_set_is_shared(const trm_topology *self);

/* How many cores this rank has; at least 1. */
unsigned trm_topology_cores(const trm_topology *self);
/* How many cores the machine (or the container) has. */
unsigned trm_topology_machine_cores(const trm_topology *self);

/* Binds the calling process as number `index`, which wraps over the cores (or nodes). A
 * memory policy that the system refuses is left as it is. TRM_ELAUNCH when the system
 * refuses the processors. */
trm_status trm_topology_bind(const trm_topology *self, trm_grain grain, unsigned index, trm_err *err);
/* Where trm_topology_bind puts it: "core 3 (cpus 3,35), NUMA node 1". */
void trm_topology_describe(const trm_topology *self, trm_grain grain, unsigned index, char *out,
                           size_t out_bytes);

#endif
