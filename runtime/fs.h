/* The file system, behind a table, so that tests can put a simulated disk in its
 * place: one that loses unsynced writes, tears the last one, and fills up.
 *
 * fsync and rename are called in fs_posix.c and nowhere else. Only plain files are
 * opened: a pipe or a device is refused with TRM_EIO. All calls block;
 * the control loop leaves syncs to a thread of the log store. Paths are taken as
 * given; nothing follows a symbolic link in the last component. Files are made
 * 0600 and directories 0700 unless said otherwise (`TRM_FS_SHARED`: 0666/0777
 * less umask, for what a user's output directory is to hold).
 * Errors: TRM_EIO, TRM_ENOSPACE, TRM_ENOMEM with the path and the system's words;
 * TRM_ELOST when the thing is not there.
 */
#ifndef TRM_RUNTIME_FS_H
#define TRM_RUNTIME_FS_H

#include "runtime/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct trm_fs trm_fs;
typedef struct trm_file trm_file;

enum {
    TRM_FS_READ = 1 << 0,
    TRM_FS_WRITE = 1 << 1,
    TRM_FS_CREATE = 1 << 2,    /* make it when it is not there */
    TRM_FS_EXCLUSIVE = 1 << 3, /* with CREATE: fail with TRM_AGAIN when it is there */
    TRM_FS_TRUNCATE = 1 << 4,
    TRM_FS_SHARED = 1 << 5 /* permissions by umask */
};

/* The longest path, and the deepest tree, that is handled. */
#define TRM_FS_PATH_BYTES_MAX 4096u
#define TRM_FS_DEPTH_MAX 64u

/* Called once a name in a directory, without "." and "..". */
typedef trm_status (*trm_fs_list_cb)(const char *name, void *context);

typedef struct trm_fs_ops {
    trm_status (*open)(trm_fs *fs, const char *path, int flags, trm_file **out, trm_err *err);
    void (*close)(trm_file *file);
    /* Reads up to `len` bytes at `offset`; *got < len only at the end. */
    trm_status (*read_at)(trm_file *file, uint64_t offset, void *out, size_t len, size_t *got, trm_err *err);
    /* Writes all `len` bytes or fails; after a failure the range's content is undefined. */
    trm_status (*write_at)(trm_file *file, uint64_t offset, const void *bytes, size_t len, trm_err *err);
    trm_status (*size)(trm_file *file, uint64_t *out, trm_err *err);
    trm_status (*truncate)(trm_file *file, uint64_t len, trm_err *err);
    /* Reserves and zero-writes [0, len), so that later writes change no metadata. */
    trm_status (*allocate)(trm_file *file, uint64_t len, trm_err *err);
    /* Content and length are durable when it returns TRM_OK. After a failure the
     * file must be treated as lost: a second sync proves nothing. */
    trm_status (*sync)(trm_file *file, trm_err *err);
    trm_status (*sync_dir)(trm_fs *fs, const char *path, trm_err *err);
    trm_status (*rename)(trm_fs *fs, const char *from, const char *to, trm_err *err);
    /* Gives a file a second name. TRM_OK also when it has it already; TRM_AGAIN: another file does. */
    trm_status (*link)(trm_fs *fs, const char *from, const char *to, trm_err *err);
    trm_status (*remove)(trm_fs *fs, const char *path, trm_err *err); /* a file or an empty directory */
    trm_status (*make_dir)(trm_fs *fs, const char *path, int flags, trm_err *err); /* TRM_AGAIN: is there */
    trm_status (*list)(trm_fs *fs, const char *path, trm_fs_list_cb each, void *context, trm_err *err);
    /* Removes a tree, depth first; see trm_fs_remove_tree. */
    trm_status (*remove_tree)(trm_fs *fs, const char *path, trm_err *err);
    /* Takes the file for this opening of it alone, until it is closed or the process
     * ends; never waits. TRM_AGAIN: another has it. */
    trm_status (*lock)(trm_file *file, trm_err *err);
    /* Whether another opening has taken the file; takes nothing, so that nobody is kept out by the
     * question. False where there are no locks. */
    trm_status (*locked)(trm_file *file, bool *out, trm_err *err);
    /* Begins to write what is in [offset, offset + len) back to the device and does not wait,
     * so that a later sync is short. Only a hint; NULL where there is none. */
    void (*write_back)(trm_file *file, uint64_t offset, uint64_t len);
    /* For what nobody reads soon: waits until [offset, offset + len) is on the device, as
     * `write_back` has begun it, and lets the cache forget it. It is not durable by that: `sync` is
     * still to come; but a failure of the device is told here and not once more there. NULL where
     * there is no cache. */
    trm_status (*drop)(trm_file *file, uint64_t offset, uint64_t len, trm_err *err);
} trm_fs_ops;

struct trm_fs {
    const trm_fs_ops *ops;
};
struct trm_file {
    trm_fs *fs;
};

/* The real one; never freed. Any thread. */
trm_fs *trm_fs_posix(void);

/* Made of the table, the same for every backend. */

/* Writes `path` whole and durable: aside, synced, renamed, directory synced.
 * After a crash the file is the old one or the new one. Aside is `path`.new, which
 * may be left by a crash and is replaced; writers of one path exclude each other. */
trm_status trm_fs_write_whole(trm_fs *fs, const char *path, const void *bytes, size_t len, int flags,
                              trm_err *err);
/* Reads `path` whole into memory from malloc, which the caller frees; refuses
 * files above `max` with TRM_ELIMIT. One byte more is allocated and set to 0. */
trm_status trm_fs_read_whole(trm_fs *fs, const char *path, size_t max, uint8_t **out, size_t *len,
                             trm_err *err);
/* Makes the name `path` durable: that it is there, or is not. */
trm_status trm_fs_sync_name(trm_fs *fs, const char *path, trm_err *err);
/* Makes the directory `path`, whose parent is there, and makes its name durable. TRM_AGAIN: it is
 * there already. */
trm_status trm_fs_make_dir(trm_fs *fs, const char *path, int flags, trm_err *err);
/* Makes `path` and what is missing above it, and makes what it made durable. */
trm_status trm_fs_make_dirs(trm_fs *fs, const char *path, int flags, trm_err *err);
/* Removes a tree, depth first, never following a link; TRM_OK when it is not there.
 * Refuses trees deeper than TRM_FS_DEPTH_MAX with TRM_ELIMIT. */
trm_status trm_fs_remove_tree(trm_fs *fs, const char *path, trm_err *err);

#endif
