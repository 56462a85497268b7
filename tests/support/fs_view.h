/* A process's own view of a file system that others share, for simulations of many processes in one:
 * its open files are closed, and so unlocked, when it dies, and whatever it does after that has no
 * effect. Where its machine loses power, so does what it has written and not synced.
 *
 * One thread. A view opens, writes and renames in the file system that it is of, which outlives it. */
#ifndef TRM_TESTS_FS_VIEW_H
#define TRM_TESTS_FS_VIEW_H

#include "runtime/fs.h"

#include <stdbool.h>

typedef struct trm_fs_view_config {
    trm_fs *fs; /* of fs_mem.h */
    /* Told of each file that got its name by a rename, after it: `path` is the new one. */
    void (*renamed)(void *context, const char *path);
    void (*died)(void *context); /* by trm_fs_view_kill_after, in the middle of something */
    /* Whether what lies there cannot be reached, nor is its name told; NULL: all can. */
    bool (*hidden)(void *context, const char *path);
    void *context;
} trm_fs_view_config;

trm_fs *trm_fs_view_create(const trm_fs_view_config *config); /* aborts without memory */
/* Kills it, if it is not dead. Its files may be closed before or be left; their handles must not be
 * used any more. NULL is fine. */
void trm_fs_view_destroy(trm_fs *view);
void trm_fs_view_kill(trm_fs *view);
/* … and of its open files what was not synced is lost. */
void trm_fs_view_lose_power(trm_fs *view);
/* It dies instead of the call after so many more that change something. */
void trm_fs_view_kill_after(trm_fs *view, uint64_t changes);
bool trm_fs_view_is_dead(const trm_fs *view);

#endif
