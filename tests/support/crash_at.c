/* Kills a process in front of its n-th call that changes what lies below a directory. Preloaded
 * (LD_PRELOAD) into everything that a launch starts:
 *
 *   TRM_CRASH_NOTE    a file of 65536 zeros: how many such calls there were, and which one was
 *                     the last; the processes of a role count together
 *   TRM_CRASH_UNDER   the directories, with colons; without a trailing slash
 *   TRM_CRASH_ROLE    who counts: `rank3` (the process that mpirun has started), `crew3` (all that it
 *                     has forked), `launcher` (`trireme run` itself)
 *   TRM_CRASH_AT      n, from 1; 0: only counts
 *   TRM_CRASH_HOW     torn: if the n-th call is a write, half of it is done; power: what the processes
 *                     of the rank have written to files and not synced is lost, so that these are
 *                     empty (logs left out: tests/simulation/wal_crash.c does more to them), and
 *                     whoever would write or sync more ends, too
 *
 * A call on a name that is a link, or on a descriptor, is judged by where it leads. */
#include "config.h" /* system extensions, before any header of the system */

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SHOWN __attribute__((visibility("default")))

#define FILES_MAX 2048u
#define NOBODY UINT64_MAX
#define LAUNCHER (UINT64_MAX - 1)

/* A file that was written and not synced since; by its inode, as names change. */
typedef struct unsynced {
    uint64_t inode; /* 0: free */
    uint64_t rank;
} unsynced;

typedef struct note {
    uint64_t calls;
    uint64_t dead; /* 1: the n-th came */
    char what[496];
    unsynced file[FILES_MAX];
    uint64_t dark; /* the rank that has lost its power, and one; 0: none has */
} note;

static note *shared; /* NULL: this process is not looked at */
static bool counts;
static uint64_t own_rank;
static pid_t counting_pid;
static bool counts_children;
static uint64_t at;
static bool torn, power;
static volatile bool dying; /* a thread of this process takes the rank's files away, and ends it then */
static const char *under;

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found)
        abort();
    return found;
}

/* ---- Who counts --------------------------------------------------------------------------- */

static bool has_role(const char *role)
{
    const char *own = program_invocation_short_name, *rank = getenv("OMPI_COMM_WORLD_RANK");
    char name[32];
    if (strcmp(own, "trireme") != 0 && strcmp(own, "lt-trireme") != 0)
        return false;
    if (strcmp(role, "launcher") == 0)
        return !rank;
    snprintf(name, sizeof name, "crew%.8s", rank ? rank : "");
    counts_children = rank && strcmp(role, name) == 0;
    snprintf(name, sizeof name, "rank%.8s", rank ? rank : "");
    return rank && (counts_children || strcmp(role, name) == 0);
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("TRM_CRASH_NOTE"), *role = getenv("TRM_CRASH_ROLE"),
               *n = getenv("TRM_CRASH_AT"), *how = getenv("TRM_CRASH_HOW"),
               *rank = getenv("OMPI_COMM_WORLD_RANK");
    under = getenv("TRM_CRASH_UNDER");
    if (!path || !role || !n || !under)
        return;
    counts = has_role(role);
    own_rank = rank ? strtoull(rank, NULL, 10) : LAUNCHER;
    if (!counts && !rank)
        return;
    int fd = REAL(open)(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *memory = mmap(NULL, sizeof(note), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory == MAP_FAILED)
        return;
    at = strtoull(n, NULL, 10);
    torn = how && strcmp(how, "torn") == 0;
    power = how && strcmp(how, "power") == 0;
    counting_pid = getpid();
    shared = memory;
}

static bool is_below(const char *path)
{
    for (const char *dir = under; *dir;) {
        size_t len = strcspn(dir, ":");
        if (strncmp(path, dir, len) == 0 && (path[len] == '/' || path[len] == '\0'))
            return true;
        dir += len + (dir[len] == ':');
    }
    return false;
}

static bool resolve(int dir_fd, const char *path, char out[PATH_MAX])
{
    char link[64];
    if (path && path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
        return true;
    }
    snprintf(link, sizeof link, dir_fd == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", dir_fd);
    ssize_t len = readlink(link, out, PATH_MAX - 1);
    if (len < 0)
        return false;
    out[len] = '\0';
    if (path && len < PATH_MAX - 1)
        snprintf(out + len, (size_t)(PATH_MAX - len), "/%s", path);
    return true;
}

/* The rank has no power any more: nothing that this process would do, or has just done, is done. A loss
 * takes a while here, and the rank's other threads and processes run on meanwhile: what they sync too late
 * for it must not be told to anybody as durable. */
static void end_if_dark(void)
{
    if (!shared || !power || __atomic_load_n(&shared->dark, __ATOMIC_SEQ_CST) != own_rank + 1)
        return;
    if (!dying)
        kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/* True: the n-th call has come, and the caller ends. */
static bool is_due(const char *call, int dir_fd, const char *path)
{
    char where[PATH_MAX];
    if (!shared || !counts || (getpid() == counting_pid) == counts_children)
        return false;
    int before = errno;
    bool changes = resolve(dir_fd, path, where) && is_below(where);
    errno = before;
    if (!changes)
        return false;
    uint64_t n = __atomic_add_fetch(&shared->calls, 1, __ATOMIC_SEQ_CST);
    if (n != at)
        return false;
    snprintf(shared->what, sizeof shared->what, "%s %.400s", call, where);
    shared->dead = 1;
    return true;
}

/* ---- Power ---------------------------------------------------------------------------------- */

static unsynced *find(uint64_t inode)
{
    for (unsigned i = 0; i < FILES_MAX; i++)
        if (__atomic_load_n(&shared->file[i].inode, __ATOMIC_SEQ_CST) == inode)
            return &shared->file[i];
    return NULL;
}

/* Before a write, or after a sync, to a file below the directories. */
static void note_file(int fd, bool synced)
{
    struct stat about;
    char path[PATH_MAX];
    int before = errno;
    if (!shared || !power || fstat(fd, &about) != 0 || !S_ISREG(about.st_mode) || !resolve(fd, NULL, path) ||
        !is_below(path)) {
        errno = before;
        return;
    }
    unsynced *file = find(about.st_ino);
    uint64_t none = 0;
    for (unsigned i = 0; i < FILES_MAX && !file && !synced; i++, none = 0)
        if (__atomic_compare_exchange_n(&shared->file[i].inode, &none, about.st_ino, false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST))
            file = &shared->file[i];
    if (file) /* nobody's when it is given away, so that its next user is never taken for its last */
        __atomic_store_n(&file->rank, synced ? NOBODY : own_rank, __ATOMIC_SEQ_CST);
    if (file && synced)
        __atomic_store_n(&file->inode, 0, __ATOMIC_SEQ_CST);
    errno = before;
    /* Whoever is let through was noted before the rank went dark, and lose() sees it. */
    end_if_dark();
}

static int lose(const char *path, const struct stat *about, int type, struct FTW *where)
{
    const unsynced *file = type == FTW_F ? find(about->st_ino) : NULL;
    if (!file || __atomic_load_n(&file->rank, __ATOMIC_SEQ_CST) != own_rank ||
        strncmp(path + where->base, "segment-", 8) == 0)
        return 0;
    return truncate(path, 0);
}

static void lose_unsynced(void)
{
    char dirs[PATH_MAX], *rest = dirs;
    dying = true;
    __atomic_store_n(&shared->dark, own_rank + 1, __ATOMIC_SEQ_CST);
    snprintf(dirs, sizeof dirs, "%s", under);
    for (char *dir; (dir = strsep(&rest, ":"));)
        nftw(dir, lose, 16, FTW_PHYS);
}

static void die(void)
{
    if (power)
        lose_unsynced();
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

static void crash_point(const char *call, int dir_fd, const char *path)
{
    if (is_due(call, dir_fd, path))
        die();
}

/* ---- Writes ------------------------------------------------------------------------------- */

SHOWN ssize_t write(int fd, const void *bytes, size_t len)
{
    bool due = is_due("write", fd, NULL);
    if (due && torn)
        REAL(write)(fd, bytes, len / 2);
    if (due)
        die();
    note_file(fd, false);
    return REAL(write)(fd, bytes, len);
}

SHOWN ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset)
{
    bool due = is_due("pwrite", fd, NULL);
    if (due && torn)
        REAL(pwrite)(fd, bytes, len / 2, offset);
    if (due)
        die();
    note_file(fd, false);
    return REAL(pwrite)(fd, bytes, len, offset);
}

SHOWN ssize_t writev(int fd, const struct iovec *pieces, int count)
{
    crash_point("writev", fd, NULL);
    note_file(fd, false);
    return REAL(writev)(fd, pieces, count);
}

SHOWN int ftruncate(int fd, off_t len)
{
    crash_point("ftruncate", fd, NULL);
    return REAL(ftruncate)(fd, len);
}

SHOWN int fallocate(int fd, int mode, off_t offset, off_t len)
{
    crash_point("fallocate", fd, NULL);
    return REAL(fallocate)(fd, mode, offset, len);
}

SHOWN int fsync(int fd)
{
    crash_point("fsync", fd, NULL);
    int status = REAL(fsync)(fd);
    note_file(fd, status == 0);
    return status;
}

SHOWN int fdatasync(int fd)
{
    crash_point("fdatasync", fd, NULL);
    int status = REAL(fdatasync)(fd);
    note_file(fd, status == 0);
    return status;
}

/* ---- Names -------------------------------------------------------------------------------- */

SHOWN int open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list arguments;
        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
        crash_point("open", AT_FDCWD, path);
    }
    return REAL(open)(path, flags, mode);
}

SHOWN int openat(int dir_fd, const char *path, int flags, ...)
{
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list arguments;
        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
        crash_point("openat", dir_fd, path);
    }
    return REAL(openat)(dir_fd, path, flags, mode);
}

SHOWN int rename(const char *from, const char *to)
{
    crash_point("rename", AT_FDCWD, to);
    return REAL(rename)(from, to);
}

SHOWN int mkdir(const char *path, mode_t mode)
{
    crash_point("mkdir", AT_FDCWD, path);
    return REAL(mkdir)(path, mode);
}

SHOWN int unlink(const char *path)
{
    crash_point("unlink", AT_FDCWD, path);
    return REAL(unlink)(path);
}

SHOWN int unlinkat(int dir_fd, const char *path, int flags)
{
    crash_point("unlinkat", dir_fd, path);
    return REAL(unlinkat)(dir_fd, path, flags);
}

SHOWN int rmdir(const char *path)
{
    crash_point("rmdir", AT_FDCWD, path);
    return REAL(rmdir)(path);
}

SHOWN int link(const char *from, const char *to)
{
    crash_point("link", AT_FDCWD, to);
    return REAL(link)(from, to);
}

/* A program that is built for large files on a small machine has other names for these. */
#if defined(__USE_LARGEFILE64) && __WORDSIZE == 64
SHOWN ssize_t pwrite64(int, const void *, size_t, off_t) __attribute__((alias("pwrite")));
SHOWN int ftruncate64(int, off_t) __attribute__((alias("ftruncate")));
SHOWN int fallocate64(int, int, off_t, off_t) __attribute__((alias("fallocate")));
SHOWN int open64(const char *, int, ...) __attribute__((alias("open")));
SHOWN int openat64(int, const char *, int, ...) __attribute__((alias("openat")));
#endif
