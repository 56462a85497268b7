/* runtime/fs and fs_posix: files whole or not at all, links not followed. */
#include "config.h" /* system extensions, before any header of the system */

#include "runtime/fs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char root[64];
static trm_err err;

static const char *in(const char *name)
{
    static char paths[4][512];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", root, name);
    return path;
}

static int set_up(void **state)
{
    strcpy(root, "/tmp/trm-test-fs-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int tear_down(void **state)
{
    return trm_fs_remove_tree(trm_fs_posix(), root, &err) == TRM_OK ? 0 : -1;
}

static void whole_files_round_trip(void **state)
{
    trm_fs *fs = trm_fs_posix();
    uint8_t *bytes;
    size_t len;
    assert_int_equal(trm_fs_read_whole(fs, in("a"), 100, &bytes, &len, &err), TRM_ELOST);
    assert_non_null(strstr(err.text, in("a")));
    assert_int_equal(trm_fs_write_whole(fs, in("a"), "first", 5, 0, &err), TRM_OK);
    assert_int_equal(trm_fs_write_whole(fs, in("a"), "second!", 7, TRM_FS_SHARED, &err), TRM_OK);
    assert_int_equal(trm_fs_read_whole(fs, in("a"), 7, &bytes, &len, &err), TRM_OK);
    assert_int_equal(len, 7);
    assert_string_equal((char *)bytes, "second!");
    free(bytes);
    assert_int_equal(trm_fs_read_whole(fs, in("a"), 6, &bytes, &len, &err), TRM_ELIMIT);
    assert_int_not_equal(access(in("a.new"), F_OK), 0);
    assert_int_equal(trm_fs_write_whole(fs, in("no/a"), "x", 1, 0, &err), TRM_ELOST);
}

static void a_file_left_aside_is_replaced(void **state)
{
    trm_fs *fs = trm_fs_posix();
    assert_int_equal(trm_fs_write_whole(fs, in("a.new"), "half", 4, 0, &err), TRM_OK);
    assert_int_equal(trm_fs_write_whole(fs, in("a"), "whole", 5, 0, &err), TRM_OK);
    assert_int_not_equal(access(in("a.new"), F_OK), 0);
}

static void reads_and_writes_at_offsets(void **state)
{
    trm_fs *fs = trm_fs_posix();
    trm_file *file;
    char out[16];
    size_t got;
    uint64_t size;
    assert_int_equal(fs->ops->open(fs, in("f"), TRM_FS_WRITE, &file, &err), TRM_ELOST);
    assert_int_equal(fs->ops->open(fs, in("f"), TRM_FS_WRITE | TRM_FS_CREATE, &file, &err), TRM_OK);
    assert_int_equal(fs->ops->allocate(file, 300000, &err), TRM_OK);
    assert_int_equal(fs->ops->write_at(file, 299998, "abcd", 4, &err), TRM_OK);
    assert_int_equal(fs->ops->size(file, &size, &err), TRM_OK);
    assert_int_equal(size, 300002);
    assert_int_equal(fs->ops->sync(file, &err), TRM_OK);
    assert_int_equal(fs->ops->read_at(file, 299997, out, sizeof out, &got, &err), TRM_OK);
    assert_int_equal(got, 5);
    assert_memory_equal(out, "\0abcd", 5);
    assert_int_equal(fs->ops->truncate(file, 3, &err), TRM_OK);
    assert_int_equal(fs->ops->read_at(file, 3, out, sizeof out, &got, &err), TRM_OK);
    assert_int_equal(got, 0);
    fs->ops->close(file);
    struct stat about;
    assert_int_equal(stat(in("f"), &about), 0);
    assert_int_equal(about.st_mode & 0777, 0600);
    int exclusive = TRM_FS_WRITE | TRM_FS_CREATE | TRM_FS_EXCLUSIVE;
    assert_int_equal(fs->ops->open(fs, in("f"), exclusive, &file, &err), TRM_AGAIN);
    assert_int_equal(fs->ops->open(fs, in("f"), TRM_FS_READ, &file, &err), TRM_OK);
    assert_int_equal(fs->ops->write_at(file, 0, "x", 1, &err), TRM_EIO);
    fs->ops->close(file);
    assert_int_equal(fs->ops->open(fs, in("f"), TRM_FS_WRITE | TRM_FS_TRUNCATE, &file, &err), TRM_OK);
    assert_int_equal(fs->ops->size(file, &size, &err), TRM_OK);
    assert_int_equal(size, 0);
    fs->ops->close(file);
}

static void links_and_pipes_are_refused(void **state)
{
    trm_fs *fs = trm_fs_posix();
    trm_file *file;
    assert_int_equal(trm_fs_write_whole(fs, in("target"), "keep", 4, 0, &err), TRM_OK);
    assert_int_equal(symlink(in("target"), in("link")), 0);
    assert_int_equal(fs->ops->open(fs, in("link"), TRM_FS_WRITE | TRM_FS_CREATE, &file, &err), TRM_EIO);
    assert_int_equal(mkfifo(in("pipe"), 0600), 0);
    assert_int_equal(fs->ops->open(fs, in("pipe"), TRM_FS_READ, &file, &err), TRM_EIO);
    assert_int_equal(fs->ops->open(fs, in("pipe"), TRM_FS_WRITE, &file, &err), TRM_EIO);
}

static void directories_are_made_and_removed(void **state)
{
    trm_fs *fs = trm_fs_posix();
    assert_int_equal(trm_fs_make_dirs(fs, in("x/y//z/"), 0, &err), TRM_OK);
    assert_int_equal(trm_fs_make_dirs(fs, in("x/y/z"), 0, &err), TRM_OK);
    assert_int_equal(trm_fs_make_dirs(fs, in("w"), TRM_FS_SHARED, &err), TRM_OK);
    assert_int_equal(fs->ops->make_dir(fs, in("x"), 0, &err), TRM_AGAIN);
    struct stat about;
    assert_int_equal(stat(in("x/y"), &about), 0);
    assert_int_equal(about.st_mode & 0777, 0700);
    assert_int_equal(trm_fs_write_whole(fs, in("x/y/f"), "1", 1, 0, &err), TRM_OK);
    assert_int_equal(trm_fs_make_dirs(fs, in("x/y/f/g"), 0, &err), TRM_EIO);
    assert_int_equal(trm_fs_make_dirs(fs, in("x/y/f"), 0, &err), TRM_EIO);
    assert_int_equal(trm_fs_make_dirs(fs, "", 0, &err), TRM_EIO);
    assert_int_equal(trm_fs_write_whole(fs, in("outside"), "1", 1, 0, &err), TRM_OK);
    assert_int_equal(symlink(root, in("x/y/up")), 0);
    assert_int_equal(fs->ops->remove(fs, in("x"), &err), TRM_EIO);
    assert_int_equal(trm_fs_remove_tree(fs, in("x"), &err), TRM_OK);
    assert_int_not_equal(access(in("x"), F_OK), 0);
    assert_int_equal(access(in("outside"), F_OK), 0);
    assert_int_equal(trm_fs_remove_tree(fs, in("x"), &err), TRM_OK);
    assert_int_equal(fs->ops->remove(fs, in("w"), &err), TRM_OK);
    assert_int_equal(fs->ops->remove(fs, in("w"), &err), TRM_ELOST);
    assert_int_equal(fs->ops->rename(fs, in("outside"), in("no/where"), &err), TRM_ELOST);
    assert_int_equal(fs->ops->sync_dir(fs, in("no"), &err), TRM_ELOST);
}

static void second_names(void **state)
{
    trm_fs *fs = trm_fs_posix();
    assert_int_equal(trm_fs_write_whole(fs, in("one"), "1", 1, 0, &err), TRM_OK);
    assert_int_equal(trm_fs_write_whole(fs, in("other"), "2", 1, 0, &err), TRM_OK);
    assert_int_equal(fs->ops->link(fs, in("one"), in("two"), &err), TRM_OK);
    assert_int_equal(fs->ops->link(fs, in("one"), in("two"), &err), TRM_OK);
    assert_int_equal(fs->ops->link(fs, in("one"), in("other"), &err), TRM_AGAIN);
    assert_int_equal(fs->ops->link(fs, in("nowhere"), in("three"), &err), TRM_ELOST);
    assert_int_equal(fs->ops->remove(fs, in("one"), &err), TRM_OK);
    assert_int_equal(access(in("two"), F_OK), 0);
}

static void trees_too_deep_are_refused(void **state)
{
    trm_fs *fs = trm_fs_posix();
    char path[512];
    int at = snprintf(path, sizeof path, "%s/deep", root);
    for (unsigned i = 0; i < TRM_FS_DEPTH_MAX; i++)
        at += snprintf(path + at, sizeof path - (size_t)at, "/d");
    assert_int_equal(trm_fs_make_dirs(fs, path, 0, &err), TRM_OK);
    assert_int_equal(trm_fs_remove_tree(fs, in("deep"), &err), TRM_ELIMIT);
    assert_int_equal(trm_fs_remove_tree(fs, in("deep/d"), &err), TRM_OK);
}

static trm_status count_name(const char *name, void *context)
{
    unsigned *seen = context;
    *seen |= strcmp(name, "a") == 0 ? 1 : strcmp(name, "b") == 0 ? 2 : 4;
    return *seen >= 8 ? TRM_EOF : TRM_OK;
}

static trm_status stop_at_once(const char *name, void *context)
{
    return TRM_EOF;
}

static void names_are_listed(void **state)
{
    trm_fs *fs = trm_fs_posix();
    unsigned seen = 0;
    assert_int_equal(trm_fs_make_dirs(fs, in("l/a"), 0, &err), TRM_OK);
    assert_int_equal(trm_fs_write_whole(fs, in("l/b"), "", 0, 0, &err), TRM_OK);
    assert_int_equal(fs->ops->list(fs, in("l"), count_name, &seen, &err), TRM_OK);
    assert_int_equal(seen, 3);
    assert_int_equal(fs->ops->list(fs, in("l"), stop_at_once, &seen, &err), TRM_EOF);
    assert_int_equal(fs->ops->list(fs, in("l/no"), stop_at_once, &seen, &err), TRM_ELOST);
}

static void a_lock_excludes_another_opening(void **state)
{
    trm_fs *fs = trm_fs_posix();
    trm_file *one, *two;
    assert_int_equal(fs->ops->open(fs, in("lock"), TRM_FS_WRITE | TRM_FS_CREATE, &one, &err), TRM_OK);
    assert_int_equal(fs->ops->open(fs, in("lock"), TRM_FS_WRITE | TRM_FS_CREATE, &two, &err), TRM_OK);
    assert_int_equal(fs->ops->lock(one, &err), TRM_OK);
    assert_int_equal(fs->ops->lock(two, &err), TRM_AGAIN);
    bool locked = false;
    assert_int_equal(fs->ops->locked(two, &locked, &err), TRM_OK);
    assert_true(locked);
    fs->ops->close(one);
    assert_int_equal(fs->ops->locked(two, &locked, &err), TRM_OK);
    assert_false(locked);
    assert_int_equal(fs->ops->lock(two, &err), TRM_OK);
    fs->ops->close(two);
}

static void a_file_that_may_not_grow_is_an_error(void **state)
{
    trm_fs *fs = trm_fs_posix();
    trm_file *file;
    struct rlimit before, small;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 100000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(fs->ops->open(fs, in("huge"), TRM_FS_WRITE | TRM_FS_CREATE, &file, &err), TRM_OK);
    assert_int_equal(fs->ops->allocate(file, 1u << 20, &err), TRM_EIO);
    assert_int_equal(fs->ops->write_at(file, 100000, "x", 1, &err), TRM_EIO);
    assert_non_null(strstr(err.text, "huge"));
    assert_int_equal(trm_fs_write_whole(fs, in("whole"), "", 0, 0, &err), TRM_OK);
    static const uint8_t much[200000];
    assert_int_equal(trm_fs_write_whole(fs, in("whole"), much, sizeof much, 0, &err), TRM_EIO);
    assert_int_not_equal(access(in("whole.new"), F_OK), 0);
    fs->ops->close(file);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
}

static void what_the_system_refuses_is_said(void **state)
{
    trm_fs *fs = trm_fs_posix();
    trm_file *file;
    assert_int_equal(trm_fs_write_whole(fs, in("f"), "1", 1, 0, &err), TRM_OK);
    assert_int_equal(fs->ops->open(fs, in("f"), TRM_FS_READ, &file, &err), TRM_OK);
    assert_int_equal(fs->ops->truncate(file, 0, &err), TRM_EIO);
    assert_non_null(strstr(err.text, in("f")));
    assert_int_equal(fs->ops->allocate(file, 10, &err), TRM_EIO);
    assert_int_equal(fs->ops->lock(file, &err), TRM_EIO);
    fs->ops->close(file);
    assert_int_equal(symlink("nowhere", in("dangling")), 0);
    assert_int_equal(fs->ops->make_dir(fs, in("dangling"), 0, &err), TRM_ELOST);
    assert_int_equal(trm_fs_remove_tree(fs, in("f/x"), &err), TRM_ELOST);
    assert_int_equal(fs->ops->remove(fs, in("f/x"), &err), TRM_ELOST);
    char path[TRM_FS_PATH_BYTES_MAX + 10];
    memset(path, 'p', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_int_equal(trm_fs_write_whole(fs, path, "1", 1, 0, &err), TRM_EIO);
    path[TRM_FS_PATH_BYTES_MAX - 2] = '\0';
    assert_int_equal(trm_fs_write_whole(fs, path, "1", 1, 0, &err), TRM_EIO);
}

/* A rank and its supervisor: one of them is killed in the middle, the other must remove all the same. */
static void two_remove_one_tree(void **state)
{
    trm_fs *fs = trm_fs_posix();
    for (unsigned round = 0; round < 300; round++) {
        for (unsigned i = 0; i < 8; i++) {
            char name[32];
            snprintf(name, sizeof name, "x/%u/%u", i, i);
            assert_int_equal(trm_fs_make_dirs(fs, in(name), 0, &err), TRM_OK);
        }
        int begin[2];
        assert_int_equal(pipe(begin), 0);
        pid_t other = fork();
        if (other == 0) {
            char byte;
            if (read(begin[0], &byte, 1) == 1)
                trm_fs_remove_tree(fs, in("x"), NULL);
            _exit(0);
        }
        assert_true(other > 0);
        assert_int_equal(write(begin[1], "", 1), 1);
        trm_status status = trm_fs_remove_tree(fs, in("x"), &err);
        assert_int_equal(waitpid(other, NULL, 0), other);
        close(begin[0]);
        close(begin[1]);
        if (status != TRM_OK)
            fail_msg("round %u: %s", round, err.text);
        assert_int_equal(access(in("x"), F_OK), -1);
    }
}

/* In place of the system's: it fails with this number, unless it is 0. */
static int range_errno;

int sync_file_range(int fd, off_t offset, off_t len, unsigned flags)
{
    errno = range_errno;
    return range_errno ? -1 : 0;
}

/* The kernel tells a device's error once, by whatever number the device's driver or the file system has. */
static void what_is_told_while_dropping_is_not_lost(void **state)
{
    const int numbers[] = {EIO,    ENOSPC,    EDQUOT, ENODATA, ENOLINK, EREMOTEIO, ETIMEDOUT,
                           EILSEQ, EOVERFLOW, ESTALE, EROFS,   EINVAL,  EPERM,     EOPNOTSUPP};
    trm_fs *fs = trm_fs_posix();
    trm_file *file;
    assert_int_equal(
        fs->ops->open(fs, in("part"), TRM_FS_WRITE | TRM_FS_CREATE | TRM_FS_TRUNCATE, &file, &err), TRM_OK);
    assert_int_equal(fs->ops->write_at(file, 0, "bytes", 5, &err), TRM_OK);
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        range_errno = numbers[i];
        assert_int_not_equal(fs->ops->drop(file, 0, 5, &err), TRM_OK);
        assert_non_null(strstr(err.text, in("part")));
    }
    range_errno = ENOSYS; /* there is no such call: sync tells it */
    assert_int_equal(fs->ops->drop(file, 0, 5, &err), TRM_OK);
    range_errno = 0;
    assert_int_equal(fs->ops->drop(file, 0, 5, &err), TRM_OK);
    fs->ops->close(file);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(whole_files_round_trip),
        TEST(a_file_left_aside_is_replaced),
        TEST(reads_and_writes_at_offsets),
        TEST(links_and_pipes_are_refused),
        TEST(directories_are_made_and_removed),
        TEST(two_remove_one_tree),
        TEST(second_names),
        TEST(trees_too_deep_are_refused),
        TEST(names_are_listed),
        TEST(a_lock_excludes_another_opening),
        TEST(a_file_that_may_not_grow_is_an_error),
        TEST(what_the_system_refuses_is_said),
        TEST(what_is_told_while_dropping_is_not_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
