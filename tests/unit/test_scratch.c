/* workers/scratch: private, removed, and what others abandoned is removed too. */
#include "workers/scratch.h"

#include "temp_tree.h"

#include <sys/wait.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static void is_private_and_removed(void **state)
{
    temp_tree tree;
    temp_tree_init(&tree);
    trm_scratch scratch;
    trm_err err;
    struct stat about;
    assert_int_equal(trm_scratch_create(&scratch, tree.path, &err), TRM_OK);
    assert_int_equal(stat(scratch.path, &about), 0);
    assert_int_equal(about.st_mode & 0777, 0700);
    assert_int_equal(stat(scratch.runs, &about), 0);
    assert_int_equal(about.st_mode & 0777, 0700);
    assert_int_equal(trm_scratch_remove(&scratch, &err), TRM_OK);
    assert_int_equal(access(scratch.path, F_OK), -1);
    assert_int_equal(trm_scratch_remove(&scratch, &err), TRM_OK);
    trm_scratch_close(&scratch);
    temp_tree_close(&tree);
}

/* Makes one in a child that then ends, and leaves it there; kept for a job, or (NULL) not. */
static void abandon(const temp_tree *tree, const char *keep, trm_scratch *out)
{
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        trm_scratch scratch;
        if (trm_scratch_create(&scratch, tree->path, NULL) ||
            (keep && trm_scratch_keep(&scratch, keep, NULL)) ||
            write(ends[1], &scratch, sizeof scratch) != sizeof scratch)
            _exit(1);
        _exit(0);
    }
    assert_int_equal(read(ends[0], out, sizeof *out), sizeof *out);
    close(ends[0]);
    close(ends[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void abandoned_ones_are_swept(void **state)
{
    temp_tree tree;
    temp_tree_init(&tree);
    trm_scratch mine, other, kept, abandoned;
    assert_int_equal(trm_scratch_create(&mine, tree.path, NULL), TRM_OK);
    char *foreign = temp_tree_dir(&tree, "trireme-abcdef"); /* has no owner file: not ours to judge */
    abandon(&tree, "", &kept);
    abandon(&tree, NULL, &abandoned);
    assert_int_equal(access(abandoned.path, F_OK), 0);
    assert_int_equal(trm_scratch_create(&other, tree.path, NULL), TRM_OK);
    assert_int_equal(access(abandoned.path, F_OK), -1);
    assert_int_equal(access(mine.path, F_OK), 0);
    assert_int_equal(access(kept.path, F_OK), 0);
    assert_int_equal(access(foreign, F_OK), 0);
    trm_scratch_close(&mine);
    trm_scratch_close(&other);
    temp_tree_close(&tree);
}

static bool is_swept(const temp_tree *tree, const char *path)
{
    trm_scratch other;
    assert_int_equal(trm_scratch_create(&other, tree->path, NULL), TRM_OK);
    assert_int_equal(trm_scratch_remove(&other, NULL), TRM_OK);
    trm_scratch_close(&other);
    return access(path, F_OK) != 0;
}

static void kept_ones_stay_as_long_as_their_job(void **state)
{
    temp_tree tree;
    temp_tree_init(&tree);
    trm_scratch done, removed;
    char *output = temp_tree_dir(&tree, "out"), *other = temp_tree_dir(&tree, "other");
    temp_tree_dir(&tree, "out/.trireme");
    char *other_state = temp_tree_dir(&tree, "other/.trireme");
    abandon(&tree, output, &done);
    abandon(&tree, other, &removed);
    assert_false(is_swept(&tree, done.path));
    assert_false(is_swept(&tree, removed.path));
    temp_tree_file(&tree, "out/_SUCCESS", "{}", 2);
    assert_true(is_swept(&tree, done.path));
    assert_false(is_swept(&tree, removed.path));
    assert_int_equal(rmdir(other_state), 0);
    assert_true(is_swept(&tree, removed.path));
    temp_tree_close(&tree);
}

/* As one that is killed on the way: here what lies in the runs is too deep to be removed. */
static void what_is_half_removed_is_swept(void **state)
{
    temp_tree tree;
    temp_tree_init(&tree);
    trm_scratch self, other;
    trm_err err;
    for (unsigned i = 0; i < 20; i++) { /* directories list their entries in no order */
        assert_int_equal(trm_scratch_create(&self, tree.path, &err), TRM_OK);
        char deep[TRM_FS_PATH_BYTES_MAX];
        size_t len = (size_t)snprintf(deep, sizeof deep, "%s/d", self.runs);
        for (unsigned depth = 0; depth < TRM_FS_DEPTH_MAX - 1; depth++, len += 2)
            memcpy(deep + len, "/d", 3);
        assert_int_equal(trm_fs_make_dirs(trm_fs_posix(), deep, 0, &err), TRM_OK);
        assert_int_equal(trm_scratch_remove(&self, &err), TRM_ELIMIT);
        trm_scratch_close(&self);
        char runs[TRM_SCRATCH_PATH_BYTES + 8];
        snprintf(runs, sizeof runs, "%s/d", self.runs);
        assert_int_equal(trm_fs_remove_tree(trm_fs_posix(), runs, &err), TRM_OK);
        assert_int_equal(trm_scratch_create(&other, tree.path, &err), TRM_OK);
        assert_int_equal(access(self.path, F_OK), -1);
        assert_int_equal(trm_scratch_remove(&other, &err), TRM_OK);
        trm_scratch_close(&other);
    }
    temp_tree_close(&tree);
}

/* In a directory where others may rename: what they have put into its place is not looked into. */
static void a_planted_link_is_not_followed(void **state)
{
    temp_tree tree;
    temp_tree_init(&tree);
    trm_scratch self;
    trm_err err;
    assert_int_equal(trm_scratch_create(&self, tree.path, &err), TRM_OK);
    temp_tree_dir(&tree, "victim");
    temp_tree_dir(&tree, "victim/runs");
    char *precious = temp_tree_text(&tree, "victim/runs/precious", "x");
    assert_int_equal(rename(self.path, temp_tree_name(&tree, "away")), 0);
    assert_int_equal(symlink(temp_tree_name(&tree, "victim"), self.path), 0);
    trm_scratch_remove(&self, &err);
    assert_int_equal(access(precious, F_OK), 0);
    trm_scratch_close(&self);
    temp_tree_close(&tree);
}

static void another_boot_is_left_alone(void **state)
{
    temp_tree tree;
    temp_tree_init(&tree);
    trm_scratch abandoned, mine;
    abandon(&tree, NULL, &abandoned);
    char path[TRM_SCRATCH_PATH_BYTES + 8];
    snprintf(path, sizeof path, "%s/owner", abandoned.path);
    FILE *owner = fopen(path, "w");
    assert_non_null(owner);
    fputs("00000000-1111-2222-3333-444444444444", owner);
    fclose(owner);
    assert_int_equal(trm_scratch_create(&mine, tree.path, NULL), TRM_OK);
    assert_int_equal(access(abandoned.path, F_OK), 0);
    trm_scratch_close(&mine);
    temp_tree_close(&tree);
}

static void refusals_name_the_place(void **state)
{
    trm_scratch scratch;
    trm_err err;
    assert_int_equal(trm_scratch_create(&scratch, "/no/such/place", &err), TRM_EIO);
    assert_non_null(strstr(err.text, "/no/such/place"));
    char name[2048];
    memset(name, 'a', sizeof name - 1);
    name[0] = '/';
    name[sizeof name - 1] = 0;
    assert_int_equal(trm_scratch_create(&scratch, name, &err), TRM_ELIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_private_and_removed),
        cmocka_unit_test(abandoned_ones_are_swept),
        cmocka_unit_test(kept_ones_stay_as_long_as_their_job),
        cmocka_unit_test(what_is_half_removed_is_swept),
        cmocka_unit_test(a_planted_link_is_not_followed),
        cmocka_unit_test(another_boot_is_left_alone),
        cmocka_unit_test(refusals_name_the_place),
    };
    return cmocka_run_group_tests_name("scratch", tests, NULL, NULL);
}
