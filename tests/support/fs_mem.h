/* A file system in memory that fails as real ones do: for crash tests and the
 * simulator. Everything random comes from the seed.
 *
 * Power loss (trm_fs_mem_crash): what was synced stays. Of what was written and not
 * synced, any sectors may be there and any not; one of them may be torn, with anything
 * in it; a length may be the old or the new one. Of names that were made, renamed or
 * removed since their directory was synced, each change is there or is not (a rename is
 * whole). Sectors are 512 bytes.
 *
 * One thread. All functions take what trm_fs_mem_create returned.
 */
#ifndef TRM_TESTS_FS_MEM_H
#define TRM_TESTS_FS_MEM_H

#include "runtime/fs.h"

/* Operations, for faults and counts. */
enum {
    TRM_FS_MEM_OPEN = 1 << 0,
    TRM_FS_MEM_READ = 1 << 1,
    TRM_FS_MEM_WRITE = 1 << 2, /* write_at, truncate, allocate */
    TRM_FS_MEM_SYNC = 1 << 3,
    TRM_FS_MEM_SYNC_DIR = 1 << 4,
    TRM_FS_MEM_RENAME = 1 << 5,
    TRM_FS_MEM_REMOVE = 1 << 6,
    TRM_FS_MEM_MAKE_DIR = 1 << 7,
    TRM_FS_MEM_LIST = 1 << 8,
    TRM_FS_MEM_CHANGES = TRM_FS_MEM_WRITE | TRM_FS_MEM_SYNC | TRM_FS_MEM_SYNC_DIR | TRM_FS_MEM_RENAME |
                         TRM_FS_MEM_REMOVE | TRM_FS_MEM_MAKE_DIR
};

typedef struct trm_fs_mem_counts {
    uint64_t changes; /* calls of TRM_FS_MEM_CHANGES */
    uint64_t writes;
    uint64_t syncs;
    uint64_t bytes_written;
    uint64_t sectors_lost; /* in all crashes */
    uint64_t sectors_torn;
    uint64_t names_lost;
    uint64_t faults; /* injected errors and refusals for room */
} trm_fs_mem_counts;

/* NULL: no memory. */
trm_fs *trm_fs_mem_create(uint64_t seed);
/* Open files are freed too; their handles must not be used any more. */
void trm_fs_mem_destroy(trm_fs *fs);

/* The power goes. Every open file is dead (its calls return TRM_EIO; close it all the
 * same), locks are free, faults and stops are forgotten. */
void trm_fs_mem_crash(trm_fs *fs);
/* The process dies: as above, but nothing that was written is lost. */
void trm_fs_mem_kill(trm_fs *fs);
/* The machine that has written this file loses power, and not the one that the files are on: what was
 * written and not synced comes out as in trm_fs_mem_crash. The file stays open. */
void trm_fs_mem_crash_file(trm_file *file);
/* The disk is replaced by an empty one. */
void trm_fs_mem_wipe(trm_fs *fs);

/* Bytes of content that there is room for; UINT64_MAX (at the begin): no bound. Less
 * than what is there is allowed: then nothing grows. */
void trm_fs_mem_set_capacity(trm_fs *fs, uint64_t bytes);
uint64_t trm_fs_mem_used(const trm_fs *fs);

/* After `after` more calls of operations in `mask`, `count` of them fail with `status`.
 * A failed write may have written a part; after a failed sync what it should have made
 * durable is readable and will be lost. A later call replaces the fault. */
void trm_fs_mem_fail(trm_fs *fs, unsigned mask, uint64_t after, uint64_t count, trm_status status);
/* As if each call of `mask` failed with probability permille/1000; 0: never. */
void trm_fs_mem_fail_often(trm_fs *fs, unsigned mask, unsigned permille, trm_status status);
/* After `changes` more calls of TRM_FS_MEM_CHANGES nothing happens any more, everything
 * returns TRM_EIO: the machine has stopped there. Crash it, and go on. */
void trm_fs_mem_stop_after(trm_fs *fs, uint64_t changes);

void trm_fs_mem_counts_get(const trm_fs *fs, trm_fs_mem_counts *out);

#endif
