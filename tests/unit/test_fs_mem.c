/* tests/support/fs_mem: what the crash tests stand on keeps what was synced and loses
 * what was not. */
#include "tests/support/fs_mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static trm_err err;

static void whole_files_survive_every_crash(void **state)
{
    unsigned old = 0, new = 0;
    for (uint64_t seed = 0; seed < 500; seed++) {
        trm_fs *fs = trm_fs_mem_create(seed);
        uint8_t *bytes;
        size_t len;
        assert_int_equal(trm_fs_make_dirs(fs, "a/b", 0, &err), TRM_OK);
        assert_int_equal(trm_fs_write_whole(fs, "a/b/f", "old", 3, 0, &err), TRM_OK);
        trm_fs_mem_stop_after(fs, seed % 6);
        trm_status status = trm_fs_write_whole(fs, "a/b/f", "newer", 5, 0, &err);
        assert_int_equal(status == TRM_OK, seed % 6 == 5);
        trm_fs_mem_crash(fs);
        assert_int_equal(trm_fs_read_whole(fs, "a/b/f", 10, &bytes, &len, &err), TRM_OK);
        bool is_new = len == 5 && memcmp(bytes, "newer", 5) == 0;
        assert_true(is_new || (len == 3 && memcmp(bytes, "old", 3) == 0));
        assert_true(is_new || status != TRM_OK);
        old += !is_new;
        new += is_new;
        free(bytes);
        trm_fs_mem_destroy(fs);
    }
    assert_true(old > 100 && new > 100);
}

static void unsynced_things_are_lost_in_many_ways(void **state)
{
    unsigned name_lost = 0, empty = 0, torn = 0, whole = 0;
    for (uint64_t seed = 0; seed < 500; seed++) {
        trm_fs *fs = trm_fs_mem_create(seed);
        static uint8_t data[2048];
        memset(data, 'd', sizeof data);
        trm_file *file;
        uint8_t *bytes;
        size_t len;
        assert_int_equal(trm_fs_make_dirs(fs, "a", 0, &err), TRM_OK);
        assert_int_equal(fs->ops->open(fs, "a/f", TRM_FS_WRITE | TRM_FS_CREATE, &file, &err), TRM_OK);
        assert_int_equal(fs->ops->write_at(file, 0, data, sizeof data, &err), TRM_OK);
        trm_fs_mem_crash(fs);
        assert_int_equal(fs->ops->write_at(file, 0, data, 1, &err), TRM_EIO);
        fs->ops->close(file);
        if (trm_fs_read_whole(fs, "a/f", 4096, &bytes, &len, &err) == TRM_ELOST) {
            name_lost++;
        } else {
            empty += len == 0;
            whole += len == sizeof data && memcmp(bytes, data, len) == 0;
            torn += len > 0 && memcmp(bytes, data, len) != 0;
            free(bytes);
        }
        trm_fs_mem_destroy(fs);
    }
    assert_true(name_lost > 50 && empty > 10 && torn > 50 && whole > 10);
}

static void a_full_disk_and_faults(void **state)
{
    trm_fs *fs = trm_fs_mem_create(1);
    trm_file *file;
    trm_fs_mem_counts counts;
    assert_int_equal(fs->ops->open(fs, "f", TRM_FS_WRITE | TRM_FS_CREATE, &file, &err), TRM_OK);
    trm_fs_mem_set_capacity(fs, 100);
    assert_int_equal(fs->ops->allocate(file, 101, &err), TRM_ENOSPACE);
    assert_int_equal(fs->ops->allocate(file, 100, &err), TRM_OK);
    assert_int_equal(trm_fs_mem_used(fs), 100);
    assert_int_equal(fs->ops->write_at(file, 50, "123456", 6, &err), TRM_OK);
    assert_int_equal(fs->ops->write_at(file, 96, "123456", 6, &err), TRM_ENOSPACE);
    trm_fs_mem_fail(fs, TRM_FS_MEM_SYNC, 1, 1, TRM_EIO);
    assert_int_equal(fs->ops->sync(file, &err), TRM_OK);
    assert_int_equal(fs->ops->sync(file, &err), TRM_EIO);
    assert_int_equal(fs->ops->sync(file, &err), TRM_OK);
    trm_fs_mem_fail_often(fs, TRM_FS_MEM_WRITE, 1000, TRM_EIO);
    assert_int_equal(fs->ops->write_at(file, 0, "1", 1, &err), TRM_EIO);
    trm_fs_mem_counts_get(fs, &counts);
    assert_true(counts.faults == 4 && counts.syncs == 2);
    fs->ops->close(file);
    trm_fs_mem_wipe(fs);
    assert_int_equal(fs->ops->open(fs, "f", TRM_FS_WRITE, &file, &err), TRM_ELOST);
    trm_fs_mem_destroy(fs);
    trm_fs_mem_destroy(NULL);
}

static void a_failed_sync_loses_what_it_should_have_saved(void **state)
{
    trm_fs *fs = trm_fs_mem_create(2);
    trm_file *file;
    char byte = 0;
    size_t got;
    assert_int_equal(fs->ops->open(fs, "f", TRM_FS_WRITE | TRM_FS_CREATE, &file, &err), TRM_OK);
    assert_int_equal(fs->ops->write_at(file, 0, "a", 1, &err), TRM_OK);
    assert_int_equal(fs->ops->sync(file, &err), TRM_OK);
    assert_int_equal(fs->ops->sync_dir(fs, ".", &err), TRM_OK);
    assert_int_equal(fs->ops->write_at(file, 0, "b", 1, &err), TRM_OK);
    trm_fs_mem_fail(fs, TRM_FS_MEM_SYNC, 0, 1, TRM_EIO);
    assert_int_equal(fs->ops->sync(file, &err), TRM_EIO);
    assert_int_equal(fs->ops->sync(file, &err), TRM_OK);
    fs->ops->close(file);
    trm_fs_mem_crash(fs);
    assert_int_equal(fs->ops->open(fs, "f", TRM_FS_READ, &file, &err), TRM_OK);
    assert_int_equal(fs->ops->read_at(file, 0, &byte, 1, &got, &err), TRM_OK);
    assert_int_equal(byte, 'a');
    trm_fs_mem_destroy(fs);
}

static void trees_and_locks(void **state)
{
    trm_fs *fs = trm_fs_mem_create(3);
    trm_file *one, *two;
    assert_int_equal(trm_fs_make_dirs(fs, "/x/y//z/", 0, &err), TRM_OK);
    assert_int_equal(fs->ops->make_dir(fs, "/x/y", 0, &err), TRM_AGAIN);
    assert_int_equal(fs->ops->make_dir(fs, "/q/y", 0, &err), TRM_ELOST);
    assert_int_equal(trm_fs_write_whole(fs, "/x/y/f", "1", 1, 0, &err), TRM_OK);
    assert_int_equal(fs->ops->remove(fs, "/x/y", &err), TRM_EIO);
    int flags = TRM_FS_WRITE | TRM_FS_CREATE;
    assert_int_equal(fs->ops->open(fs, "/x/l", flags, &one, &err), TRM_OK);
    assert_int_equal(fs->ops->open(fs, "/x/l", flags, &two, &err), TRM_OK);
    assert_int_equal(fs->ops->open(fs, "/x/l", flags | TRM_FS_EXCLUSIVE, &two, &err), TRM_AGAIN);
    assert_int_equal(fs->ops->lock(one, &err), TRM_OK);
    assert_int_equal(fs->ops->lock(two, &err), TRM_AGAIN);
    bool locked = false;
    assert_int_equal(fs->ops->locked(two, &locked, &err), TRM_OK);
    assert_true(locked);
    assert_int_equal(fs->ops->locked(one, &locked, &err), TRM_OK);
    assert_false(locked);
    trm_fs_mem_kill(fs);
    fs->ops->close(two);
    assert_int_equal(fs->ops->open(fs, "/x/l", flags, &two, &err), TRM_OK);
    assert_int_equal(fs->ops->lock(two, &err), TRM_OK);
    fs->ops->close(one);
    fs->ops->close(two);
    assert_int_equal(trm_fs_remove_tree(fs, "/x", &err), TRM_OK);
    assert_int_equal(fs->ops->sync_dir(fs, "/x", &err), TRM_ELOST);
    trm_fs_mem_destroy(fs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_files_survive_every_crash),
        cmocka_unit_test(unsynced_things_are_lost_in_many_ways),
        cmocka_unit_test(a_full_disk_and_faults),
        cmocka_unit_test(a_failed_sync_loses_what_it_should_have_saved),
        cmocka_unit_test(trees_and_locks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
