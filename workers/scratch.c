/* See scratch.h. */
#include "workers/scratch.h"

#include "jobs/names.h"
#include "runtime/fs.h"
#include "runtime/machine.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define NAME_PREFIX "trireme-"
#define NAME_BYTES 14u /* "trireme-XXXXXX" */
#define BOOT_ID_BYTES 64u

/* The name of its owner goes last: whoever is killed on the way leaves what a sweep takes. What goes before
 * is named through the open directory: others who may rename it could put a link there between two looks. */
static trm_status remove_all(const char *path, trm_err *err)
{
    static const char *const names[] = {"runs", "output", "keep"};
    trm_status status = TRM_OK;
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    for (unsigned i = 0; dir >= 0 && i < sizeof names / sizeof names[0] && status == TRM_OK; i++) {
        char below[64];
        snprintf(below, sizeof below, "/proc/self/fd/%d/%s", dir, names[i]);
        status = trm_fs_remove_tree(trm_fs_posix(), below, err);
    }
    if (dir >= 0)
        close(dir);
    return status == TRM_OK ? trm_fs_remove_tree(trm_fs_posix(), path, err) : status;
}

/* ---- What others left behind ------------------------------------------------- */

static bool is_there(const char *dir, const char *name)
{
    char path[TRM_FS_PATH_BYTES_MAX + sizeof TRM_SUCCESS_NAME + 1];
    struct stat about;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return lstat(path, &about) == 0 || errno != ENOENT; /* what cannot be looked at may be there */
}

/* Kept for a job that is neither done nor removed: the launch that would have taken it over may have
 * found nothing to do, or never come. */
static bool is_kept(int dir)
{
    char output_dir[TRM_FS_PATH_BYTES_MAX];
    int fd = openat(dir, "keep", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno != ENOENT;
    ssize_t len = read(fd, output_dir, sizeof output_dir - 1);
    close(fd);
    output_dir[len > 0 ? len : 0] = 0;
    return output_dir[0] != '/' ||
           (is_there(output_dir, TRM_STATE_DIR_NAME) && !is_there(output_dir, TRM_SUCCESS_NAME));
}

/* Whether the directory open as `dir` belongs to nobody any more; then *lock holds its
 * lock, so that of several sweepers one removes it. */
static bool take_abandoned(int dir, const char *boot_id, int *lock)
{
    struct stat about;
    if (fstat(dir, &about) || about.st_uid != geteuid() || is_kept(dir))
        return false;
    int fd = openat(dir, "owner", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return false;
    char owner[BOOT_ID_BYTES] = "";
    ssize_t len = read(fd, owner, sizeof owner - 1);
    /* The owner locks before it writes: a file with a boot id and no lock has no owner. Another
     * boot may be another host of a shared file system, whose locks are not seen here. */
    if (len <= 0 || strcmp(owner, boot_id) || flock(fd, LOCK_EX | LOCK_NB)) {
        close(fd);
        return false;
    }
    *lock = fd;
    return true;
}

static bool remove_if_abandoned(const char *base, int base_fd, const char *name, const char *boot_id)
{
    int dir = openat(base_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0)
        return false;
    int lock = -1;
    bool taken = take_abandoned(dir, boot_id, &lock);
    close(dir);
    if (!taken)
        return false;
    char path[TRM_SCRATCH_PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", base, name);
    remove_all(path, NULL);
    close(lock);
    return true;
}

static void sweep(const char *base, const char *boot_id)
{
    DIR *entries = opendir(base);
    if (!entries)
        return;
    unsigned removed = 0;
    struct dirent *entry;
    while (removed < TRM_SCRATCH_SWEEP_MAX && (entry = readdir(entries)))
        if (!strncmp(entry->d_name, NAME_PREFIX, strlen(NAME_PREFIX)) && strlen(entry->d_name) == NAME_BYTES)
            removed += remove_if_abandoned(base, dirfd(entries), entry->d_name, boot_id);
    closedir(entries);
}

void trm_scratch_sweep(const trm_scratch *self)
{
    char base[TRM_SCRATCH_PATH_BYTES], boot_id[BOOT_ID_BYTES];
    snprintf(base, sizeof base, "%s", self->path);
    char *slash = strrchr(base, '/');
    trm_machine_boot_id(boot_id, sizeof boot_id);
    if (!slash || slash == base || !boot_id[0])
        return;
    *slash = 0;
    sweep(base, boot_id);
}

void trm_scratch_abandon(const char *runs)
{
    static const char runs_name[] = "/runs";
    char base[TRM_SCRATCH_PATH_BYTES], boot_id[BOOT_ID_BYTES];
    size_t len = strlen(runs), runs_len = sizeof runs_name - 1;
    if (runs[0] != '/' || len >= sizeof base || len < runs_len + NAME_BYTES + 2 ||
        strcmp(runs + len - runs_len, runs_name) != 0)
        return;
    memcpy(base, runs, len - runs_len);
    base[len - runs_len] = 0;
    char *name = strrchr(base, '/') + 1;
    if (strncmp(name, NAME_PREFIX, strlen(NAME_PREFIX)) != 0 || strlen(name) != NAME_BYTES ||
        name == base + 1)
        return;
    name[-1] = 0;
    int base_fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int dir = base_fd < 0 ? -1 : openat(base_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat about;
    if (dir >= 0 && !fstat(dir, &about) && about.st_uid == geteuid()) {
        unlinkat(dir, "keep", 0);
        trm_machine_boot_id(boot_id, sizeof boot_id);
        remove_if_abandoned(base, base_fd, name, boot_id);
    }
    if (dir >= 0)
        close(dir);
    if (base_fd >= 0)
        close(base_fd);
}

/* ---- One's own ----------------------------------------------------------------- */

static trm_status lock_it(trm_scratch *self, const char *boot_id, trm_err *err)
{
    char path[TRM_SCRATCH_PATH_BYTES + 8];
    snprintf(path, sizeof path, "%s/owner", self->path);
    self->lock_fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (self->lock_fd < 0)
        return trm_err_errno(err, TRM_EIO, errno, "%s", path);
    /* A file system without locks gets no boot id: then nobody ever sweeps it. */
    size_t len = strlen(boot_id);
    if (!flock(self->lock_fd, LOCK_EX | LOCK_NB) && write(self->lock_fd, boot_id, len) != (ssize_t)len)
        return trm_err_errno(err, TRM_EIO, errno, "%s", path);
    return TRM_OK;
}

static trm_status make_below(const trm_scratch *self, const char *name, char *out, trm_err *err)
{
    int len = snprintf(out, TRM_SCRATCH_PATH_BYTES, "%s/%s", self->path, name);
    if (len < 0 || (size_t)len >= TRM_SCRATCH_PATH_BYTES)
        return trm_err_set(err, TRM_ELIMIT, "too long a name: %s/%s", self->path, name);
    if (mkdir(out, 0700))
        return trm_err_errno(err, TRM_EIO, errno, "%s", out);
    return TRM_OK;
}

trm_status trm_scratch_create(trm_scratch *out, const char *base, trm_err *err)
{
    trm_scratch self = {.lock_fd = -1};
    char boot_id[BOOT_ID_BYTES];
    trm_machine_boot_id(boot_id, sizeof boot_id);
    if (strlen(base) + NAME_BYTES + 16 > TRM_SCRATCH_PATH_BYTES)
        return trm_err_set(err, TRM_ELIMIT, "the scratch directory's name is longer than %u bytes: %.200s…",
                           TRM_SCRATCH_PATH_BYTES - NAME_BYTES - 16, base);
    if (boot_id[0])
        sweep(base, boot_id);
    snprintf(self.path, sizeof self.path, "%s/%sXXXXXX", base, NAME_PREFIX);
    if (!mkdtemp(self.path))
        return trm_err_errno(err, TRM_EIO, errno,
                             "cannot make a private directory in the scratch directory %s", base);
    trm_status status = lock_it(&self, boot_id, err);
    if (!status)
        status = make_below(&self, "runs", self.runs, err);
    if (!status)
        status = make_below(&self, "output", self.output, err);
    if (status) {
        trm_scratch_remove(&self, NULL);
        trm_scratch_close(&self);
        return status;
    }
    *out = self;
    return TRM_OK;
}

trm_status trm_scratch_remove(const trm_scratch *self, trm_err *err)
{
    return remove_all(self->path, err);
}

/* A mark that has no room for its text is good for ever, as one without a job is. */
trm_status trm_scratch_keep(const trm_scratch *self, const char *output_dir, trm_err *err)
{
    char path[TRM_SCRATCH_PATH_BYTES + 8];
    size_t len = strlen(output_dir);
    snprintf(path, sizeof path, "%s/keep", self->path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return trm_err_errno(err, TRM_EIO, errno, "%s", path);
    if (write(fd, output_dir, len) != (ssize_t)len && ftruncate(fd, 0))
        unlink(path);
    close(fd);
    return TRM_OK;
}

trm_status trm_scratch_keep_not(const trm_scratch *self, trm_err *err)
{
    char path[TRM_SCRATCH_PATH_BYTES + 8];
    snprintf(path, sizeof path, "%s/keep", self->path);
    return unlink(path) && errno != ENOENT ? trm_err_errno(err, TRM_EIO, errno, "%s", path) : TRM_OK;
}

bool trm_scratch_is_kept(const trm_scratch *self)
{
    int dir = open(self->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0)
        return false;
    bool kept = is_kept(dir);
    close(dir);
    return kept;
}

bool trm_scratch_is_tight(const char *path)
{
    struct statvfs about;
    return statvfs(path, &about) == 0 && about.f_bavail < about.f_blocks / 16;
}

void trm_scratch_close(trm_scratch *self)
{
    if (self->lock_fd >= 0)
        close(self->lock_fd);
    self->lock_fd = -1;
}
