/* What this rank may have of its host: which of the host's ranks it is, and memory.
 *
 * Everything here is a question to the system or to the environment that a launcher set;
 * values that make no sense are taken as not there.
 */
#ifndef TRM_RUNTIME_MACHINE_H
#define TRM_RUNTIME_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* This rank's number among the ranks of its host, and how many they are, as Open MPI, MPICH,
 * PMIx or Slurm tell it in the environment. (0, 1) when nobody does. Main thread. */
void trm_machine_local_rank(uint32_t *local_rank, uint32_t *local_ranks);

/* Memory that can still be had on this host, in bytes: the smallest of what the machine has
 * available and what the cgroups above this process (version 1 or 2) and Slurm allow.
 * 1 GiB when nothing can be read. */
uint64_t trm_machine_memory_bytes(void);

/* The same, with the roots of /proc and /sys/fs/cgroup given: for tests. */
uint64_t trm_machine_memory_at(const char *proc, const char *cgroup);

/* What names this boot of this kernel; "" when it cannot be read. */
void trm_machine_boot_id(char *out, size_t out_bytes);

#endif
