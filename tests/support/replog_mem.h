/* A replicated log in memory, for simulations: virtual time, a disk that outlives the process and
 * that can be full. One voter: what its disk has taken is committed.
 *
 *   propose ─▶ pending ─ delay ─▶ on the disk, next() yields it
 */
#ifndef TRM_TESTS_REPLOG_MEM_H
#define TRM_TESTS_REPLOG_MEM_H

#include "runtime/replog.h"

/* What is left when the process is gone. */
typedef struct trm_log_disk trm_log_disk;

trm_log_disk *trm_log_disk_create(void); /* aborts without memory, as all of this does */
void trm_log_disk_destroy(trm_log_disk *self);
/* Nothing new is taken while it is full. */
void trm_log_disk_set_full(trm_log_disk *self, bool full);
/* Command number `at`, from 0, of those that were taken; false: there are fewer. */
bool trm_log_disk_command(const trm_log_disk *self, size_t at, const uint8_t **bytes, size_t *len);
uint64_t trm_log_disk_bytes(const trm_log_disk *self);
/* Keeps no command that has been yielded: for benchmarks. An image cannot be opened then. */
void trm_log_disk_forget(trm_log_disk *self, bool forget);

/* Opens it, with the next term. A command takes delay_min_ns to delay_max_ns; snapshots are wanted
 * every `snapshot_commands` (0: never). */
trm_replog *trm_replog_mem_open(trm_log_disk *disk, uint64_t seed, uint64_t delay_min_ns,
                                uint64_t delay_max_ns, unsigned snapshot_commands);
/* The process dies: of what is pending, the first few may have reached the disk. */
void trm_replog_mem_crash(trm_replog *self);

#endif
