/* A replicated log in memory, for simulations: virtual time, a disk that outlives the process and
 * that can be full. What the disk has taken is committed; several ranks may have the same disk open,
 * one of which leads.
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
/* As one that follows: it learns late what is committed, at times by an image. */
trm_replog *trm_replog_mem_follow(trm_log_disk *disk, uint64_t seed, uint64_t delay_min_ns,
                                  uint64_t delay_max_ns, unsigned snapshot_commands);
/* It is elected. Of what is pending with the leader before it the first few are committed. That one
 * believes that it leads until it is told; it learns of no command meanwhile, and none of its own
 * is committed. */
void trm_replog_mem_lead(trm_replog *self, uint32_t rank);
void trm_replog_mem_tell(trm_replog *self);
/* The process dies: of what is pending, the first few may have reached the disk. */
void trm_replog_mem_crash(trm_replog *self);

#endif
