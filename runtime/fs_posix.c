/* The file system as the operating system has it. See fs.h for the contract.
 *
 * Every path is taken without following a link in its last component; files are
 * opened close-on-exec and without blocking, so that a pipe laid in the way of a
 * log cannot stop the process. */
#include "config.h"

#include "runtime/fs.h"

#include "runtime/diag.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Zeros are written in pieces of this size by `allocate`. */
#define ZERO_BYTES (256u * 1024u)

typedef struct posix_file {
    trm_file base;
    int fd;
    char path[];
} posix_file;

static int fd_of(trm_file *file)
{
    return ((posix_file *)file)->fd;
}
static const char *path_of(trm_file *file)
{
    return ((posix_file *)file)->path;
}

static trm_status failed(trm_err *err, const char *verb, const char *path)
{
    int number = errno;
    trm_status status = number == ENOENT || number == ENOTDIR ? TRM_ELOST : TRM_EIO;
    return trm_err_errno(err, status, number, "cannot %s %s", verb, path);
}

static int open_flags(int flags)
{
    int out = O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK;
    out |= flags & TRM_FS_WRITE ? O_RDWR : O_RDONLY;
    out |= flags & TRM_FS_CREATE ? O_CREAT : 0;
    out |= flags & TRM_FS_EXCLUSIVE ? O_EXCL : 0;
    out |= flags & TRM_FS_TRUNCATE ? O_TRUNC : 0;
    return out;
}

static trm_status posix_open(trm_fs *fs, const char *path, int flags, trm_file **out, trm_err *err)
{
    size_t path_bytes = strlen(path) + 1;
    posix_file *file = malloc(sizeof *file + path_bytes);
    if (!file)
        return trm_err_set(err, TRM_ENOMEM, "no memory to open %s", path);
    file->base.fs = fs;
    memcpy(file->path, path, path_bytes);
    trm_status status = TRM_OK;
    file->fd = open(path, open_flags(flags), flags & TRM_FS_SHARED ? 0666 : 0600);
    if (file->fd < 0) {
        status = errno == EEXIST ? trm_err_set(err, TRM_AGAIN, "%s is there already", path)
                                 : failed(err, "open", path);
        goto free_file;
    }
    struct stat about;
    if (fstat(file->fd, &about) != 0 || !S_ISREG(about.st_mode)) {
        status = trm_err_set(err, TRM_EIO, "%s is not a plain file", path);
        goto close_fd;
    }
    *out = &file->base;
    return TRM_OK;
close_fd:
    close(file->fd);
free_file:
    free(file);
    return status;
}

static void posix_close(trm_file *file)
{
    close(fd_of(file));
    free(file);
}

static trm_status posix_read_at(trm_file *file, uint64_t offset, void *out, size_t len, size_t *got,
                                trm_err *err)
{
    size_t done = 0;
    while (done < len) {
        ssize_t now = pread(fd_of(file), (uint8_t *)out + done, len - done, (off_t)(offset + done));
        if (now < 0 && errno == EINTR)
            continue;
        if (now < 0)
            return failed(err, "read", path_of(file));
        if (now == 0)
            break;
        done += (size_t)now;
    }
    *got = done;
    return TRM_OK;
}

static trm_status posix_write_at(trm_file *file, uint64_t offset, const void *bytes, size_t len, trm_err *err)
{
    size_t done = 0;
    while (done < len) {
        ssize_t now = pwrite(fd_of(file), (const uint8_t *)bytes + done, len - done, (off_t)(offset + done));
        if (now < 0 && errno == EINTR)
            continue;
        if (now < 0)
            return failed(err, "write", path_of(file));
        done += (size_t)now;
    }
    return TRM_OK;
}

static trm_status posix_size(trm_file *file, uint64_t *out, trm_err *err)
{
    struct stat about;
    if (fstat(fd_of(file), &about) != 0)
        return failed(err, "ask for the size of", path_of(file));
    *out = (uint64_t)about.st_size;
    return TRM_OK;
}

static trm_status posix_truncate(trm_file *file, uint64_t len, trm_err *err)
{
    while (ftruncate(fd_of(file), (off_t)len) != 0)
        if (errno != EINTR)
            return failed(err, "set the length of", path_of(file));
    return TRM_OK;
}

static trm_status posix_allocate(trm_file *file, uint64_t len, trm_err *err)
{
    /* Room first, so that a full disk says so before anything is written. Where the
     * file system cannot reserve, the zeros do it. */
    while (fallocate(fd_of(file), 0, 0, (off_t)len) != 0) {
        if (errno == EINTR)
            continue;
        if (errno == EOPNOTSUPP || errno == ENOSYS)
            break;
        return failed(err, "reserve room for", path_of(file));
    }
    static const uint8_t zeros[ZERO_BYTES];
    trm_status status = TRM_OK;
    for (uint64_t at = 0; at < len && status == TRM_OK; at += ZERO_BYTES)
        status =
            posix_write_at(file, at, zeros, len - at < ZERO_BYTES ? (size_t)(len - at) : ZERO_BYTES, err);
    return status;
}

static trm_status posix_sync(trm_file *file, trm_err *err)
{
    /* Never tried again, EINTR included: what a failed sync has dropped is lost. */
    if (fdatasync(fd_of(file)) != 0)
        return failed(err, "sync", path_of(file));
    return TRM_OK;
}

static void posix_write_back(trm_file *file, uint64_t offset, uint64_t len)
{
    (void)sync_file_range(fd_of(file), (off_t)offset, (off_t)len, SYNC_FILE_RANGE_WRITE);
}

static trm_status posix_drop(trm_file *file, uint64_t offset, uint64_t len, trm_err *err)
{
    int fd = fd_of(file);
    /* Whatever the number is, it may be the device's (ENODATA is a bad medium, ENOLINK a path that is
     * down), and sync would not tell it again. Only a system without this call leaves all to sync. */
    if (sync_file_range(fd, (off_t)offset, (off_t)len, SYNC_FILE_RANGE_WAIT_BEFORE) != 0)
        return errno == ENOSYS ? TRM_OK : failed(err, "write", path_of(file));
    (void)posix_fadvise(fd, (off_t)offset, (off_t)len, POSIX_FADV_DONTNEED);
    return TRM_OK;
}

static trm_status posix_sync_dir(trm_fs *fs, const char *path, trm_err *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return failed(err, "open the directory", path);
    trm_status status = TRM_OK;
    /* Some file systems cannot sync a directory and need not: EINVAL. */
    if (fsync(fd) != 0 && errno != EINVAL)
        status = failed(err, "sync the directory", path);
    close(fd);
    return status;
}

static trm_status posix_rename(trm_fs *fs, const char *from, const char *to, trm_err *err)
{
    if (rename(from, to) != 0) {
        trm_status status = failed(err, "rename", from);
        trm_err_wrap(err, "to %s", to);
        return status;
    }
    return TRM_OK;
}

static bool is_same_file(const char *a, const char *b)
{
    struct stat one, other;
    return lstat(a, &one) == 0 && lstat(b, &other) == 0 && one.st_dev == other.st_dev &&
           one.st_ino == other.st_ino;
}

static trm_status posix_link(trm_fs *fs, const char *from, const char *to, trm_err *err)
{
    if (link(from, to) == 0 || (errno == EEXIST && is_same_file(from, to)))
        return TRM_OK;
    if (errno == EEXIST)
        return trm_err_set(err, TRM_AGAIN, "cannot link %s to %s: another file is there", from, to);
    trm_status status = failed(err, "link", from);
    trm_err_wrap(err, "to %s", to);
    return status;
}

static trm_status posix_remove(trm_fs *fs, const char *path, trm_err *err)
{
    if (unlink(path) == 0)
        return TRM_OK;
    if ((errno == EISDIR || errno == EPERM) && rmdir(path) == 0)
        return TRM_OK;
    return failed(err, "remove", path);
}

static trm_status posix_make_dir(trm_fs *fs, const char *path, int flags, trm_err *err)
{
    if (mkdir(path, flags & TRM_FS_SHARED ? 0777 : 0700) == 0)
        return TRM_OK;
    if (errno != EEXIST)
        return failed(err, "make the directory", path);
    struct stat about;
    if (stat(path, &about) != 0)
        return failed(err, "look at", path);
    if (!S_ISDIR(about.st_mode))
        return trm_err_set(err, TRM_EIO, "%s is there and is not a directory", path);
    return trm_err_set(err, TRM_AGAIN, "%s is there already", path);
}

static bool is_dot(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static trm_status posix_list(trm_fs *fs, const char *path, trm_fs_list_cb each, void *context, trm_err *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return failed(err, "open the directory", path);
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return failed(err, "list", path);
    }
    trm_status status = TRM_OK;
    while (status == TRM_OK) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (!entry) {
            if (errno)
                status = failed(err, "list", path);
            break;
        }
        if (!is_dot(entry->d_name))
            status = each(entry->d_name, context);
    }
    closedir(dir);
    return status;
}

static trm_status remove_below(int parent, const char *name, unsigned depth, trm_err *err);

/* Empties the directory that `fd` is (and closes it). */
static trm_status empty_dir(int fd, const char *name, unsigned depth, trm_err *err)
{
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return failed(err, "list", name);
    }
    trm_status status = TRM_OK;
    struct dirent *entry;
    while (status == TRM_OK && (entry = readdir(dir)) != NULL)
        if (!is_dot(entry->d_name))
            status = remove_below(fd, entry->d_name, depth + 1, err);
    closedir(dir);
    return status;
}

/* Relative to an open directory at every step: no name is looked up twice by its
 * path, so nobody can put a link into the way between two looks. Others may be removing the same
 * tree: what they have removed is gone, and all that is left is removed. */
static trm_status remove_below(int parent, const char *name, unsigned depth, trm_err *err)
{
    if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
        return TRM_OK;
    if (errno != EISDIR && errno != EPERM)
        return failed(err, "remove", name);
    if (depth >= TRM_FS_DEPTH_MAX)
        return trm_err_set(err, TRM_ELIMIT, "cannot remove %s: more than %u directories deep", name,
                           TRM_FS_DEPTH_MAX);
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? TRM_OK : failed(err, "open the directory", name);
    trm_status status = empty_dir(fd, name, depth, err);
    if (status == TRM_OK && unlinkat(parent, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
        status = failed(err, "remove the directory", name);
    return status;
}

static trm_status posix_remove_tree(trm_fs *fs, const char *path, trm_err *err)
{
    trm_status status = remove_below(AT_FDCWD, path, 0, err);
    if (status != TRM_OK)
        trm_err_wrap(err, "%s", path);
    return status;
}

static trm_status posix_lock(trm_file *file, trm_err *err)
{
    /* A lock of the open file, not of the process: another opening in the same
     * process is refused too, and closing that one does not drop this. It works
     * between hosts where the file system's locks do. */
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd_of(file), F_OFD_SETLK, &all) == 0)
        return TRM_OK;
    if (errno == EAGAIN || errno == EACCES)
        return trm_err_set(err, TRM_AGAIN, "%s is locked by another process", path_of(file));
    if (errno == ENOSYS || errno == EOPNOTSUPP || errno == ENOLCK) {
        trm_warn(
            "%s: this file system has no locks; two launches at the same time would not notice each other",
            path_of(file));
        return TRM_OK;
    }
    return failed(err, "lock", path_of(file));
}

static trm_status posix_locked(trm_file *file, bool *out, trm_err *err)
{
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd_of(file), F_OFD_GETLK, &all) == 0)
        *out = all.l_type != F_UNLCK;
    else if (errno == ENOSYS || errno == EOPNOTSUPP || errno == ENOLCK)
        *out = false;
    else
        return failed(err, "ask for the lock of", path_of(file));
    return TRM_OK;
}

static const trm_fs_ops posix_ops = {
    .open = posix_open,
    .close = posix_close,
    .read_at = posix_read_at,
    .write_at = posix_write_at,
    .size = posix_size,
    .truncate = posix_truncate,
    .allocate = posix_allocate,
    .sync = posix_sync,
    .sync_dir = posix_sync_dir,
    .rename = posix_rename,
    .link = posix_link,
    .remove = posix_remove,
    .make_dir = posix_make_dir,
    .list = posix_list,
    .remove_tree = posix_remove_tree,
    .lock = posix_lock,
    .locked = posix_locked,
    .write_back = posix_write_back,
    .drop = posix_drop,
};

trm_fs *trm_fs_posix(void)
{
    static trm_fs posix = {&posix_ops};
    return &posix;
}
