/* Output and state directories: what is fresh, resumed, done, refused; and that what was refused
 * leaves nothing behind. */
#include "jobs/names.h"
#include "scheduler/state_dir.h"
#include "scheduler/state_look.h"
#include "tests/support/fs_mem.h"
#include "tests/unit/temp_tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define MANIFEST "{\"version\":1,\"job\":\"count\",\"partitions\":1}\n"

typedef struct place {
    temp_tree tree;
    char output[600], state[600], other_state[600];
    char *inputs[1];
    trm_spec spec;
    trm_traits traits;
    trm_submission submission;
    trm_state_dir dir;
    trm_err err;
} place;

static void place_init(place *self)
{
    memset(self, 0, sizeof *self);
    temp_tree_init(&self->tree);
    snprintf(self->output, sizeof self->output, "%s/out", self->tree.path);
    snprintf(self->state, sizeof self->state, "%s/out/.trireme", self->tree.path);
    snprintf(self->other_state, sizeof self->other_state, "%s/state", self->tree.path);
    self->inputs[0] = strdup(temp_tree_text(&self->tree, "in", "a\nb\nc\n"));
    self->spec = (trm_spec){
        .output_dir = self->output, .state_dir = self->state, .inputs = self->inputs, .inputs_count = 1};
    self->traits = (trm_traits){.name = "count", .input = TRM_INPUT_LINES, .folds = true, .params_hash = 7};
}

static void place_close(place *self)
{
    free(self->inputs[0]);
    temp_tree_close(&self->tree);
}

static trm_status open_it(place *self)
{
    trm_status status = trm_submission_init(&self->submission, &self->spec, &self->traits, 2, 64u << 20,
                                            trm_fs_posix(), &self->err);
    assert_int_equal(status, TRM_OK);
    self->err.text[0] = '\0';
    status = trm_state_dir_open(&self->dir, &self->spec, &self->submission, trm_fs_posix(), &self->err);
    if (status != TRM_OK)
        trm_submission_close(&self->submission);
    return status;
}

static void close_it(place *self)
{
    trm_state_dir_close(&self->dir);
    trm_submission_close(&self->submission);
}

static bool there(const place *self, const char *name)
{
    struct stat about;
    return lstat(temp_tree_name(&self->tree, "%s", name), &about) == 0;
}

static void run_to_success(place *self)
{
    assert_int_equal(open_it(self), TRM_OK);
    temp_tree_text(&self->tree, "out/part-00000", "x\n");
    temp_tree_text(&self->tree, "out/_SUCCESS", "{}\n");
    close_it(self);
}

static void assert_refused(place *self, trm_status status, const char *words)
{
    assert_int_equal(open_it(self), status);
    if (!strstr(self->err.text, words))
        fail_msg("'%s' does not say '%s'", self->err.text, words);
}

static void a_fresh_place_is_made_and_unmade(void **state)
{
    place self;
    place_init(&self);
    snprintf(self.output, sizeof self.output, "%s/a/b/out", self.tree.path);
    snprintf(self.state, sizeof self.state, "%s/a/b/out/.trireme", self.tree.path);
    assert_int_equal(open_it(&self), TRM_OK);
    assert_int_equal(self.dir.found, TRM_STATE_FRESH);
    struct stat about;
    assert_int_equal(stat(self.state, &about), 0);
    assert_int_equal(about.st_mode & 0777, 0700);
    assert_true(there(&self, "a/b/out/.trireme/attempts") && there(&self, "a/b/out/.trireme/identity"));
    trm_state_dir_undo(&self.dir);
    trm_submission_close(&self.submission);
    assert_false(there(&self, "a"));
    place_close(&self);
}

static void an_empty_directory_stays_when_it_is_undone(void **state)
{
    place self;
    place_init(&self);
    temp_tree_dir(&self.tree, "out");
    assert_int_equal(open_it(&self), TRM_OK);
    trm_state_dir_undo(&self.dir);
    trm_submission_close(&self.submission);
    assert_true(there(&self, "out"));
    assert_false(there(&self, "out/.trireme"));
    place_close(&self);
}

static void the_same_job_is_resumed_with_its_plan(void **state)
{
    place self;
    place_init(&self);
    assert_int_equal(open_it(&self), TRM_OK);
    uint32_t partitions = self.submission.plan.partitions;
    close_it(&self);
    temp_tree_text(&self.tree, "out/part-00000", "x\n");
    self.spec.overwrite = true; /* an unfinished run goes on all the same */
    trm_status status = trm_submission_init(&self.submission, &self.spec, &self.traits, 9, 64u << 20,
                                            trm_fs_posix(), &self.err);
    assert_int_equal(status, TRM_OK);
    assert_int_not_equal(self.submission.plan.partitions, partitions);
    status = trm_state_dir_open(&self.dir, &self.spec, &self.submission, trm_fs_posix(), &self.err);
    assert_int_equal(status, TRM_OK);
    assert_int_equal(self.dir.found, TRM_STATE_RESUME);
    assert_int_equal(self.submission.plan.partitions, partitions);
    assert_int_equal(self.submission.identity.partitions, partitions);
    assert_true(there(&self, "out/part-00000"));
    trm_state_dir_undo(&self.dir); /* of a resumed one nothing is unmade */
    trm_submission_close(&self.submission);
    assert_true(there(&self, "out/.trireme/identity"));
    place_close(&self);
}

static void what_is_done_is_done_until_it_is_overwritten(void **state)
{
    place self;
    place_init(&self);
    run_to_success(&self);
    temp_tree_text(&self.tree, "out/.trireme/attempts/part-00000.e1.a0", "x"); /* its launch was lost */
    assert_int_equal(open_it(&self), TRM_OK);
    assert_int_equal(self.dir.found, TRM_STATE_DONE);
    assert_false(there(&self, "out/.trireme/attempts"));
    close_it(&self);
    self.spec.overwrite = true;
    temp_tree_text(&self.tree, "out/.trireme/cuts-0badf00d", "x");
    assert_int_equal(open_it(&self), TRM_OK);
    assert_int_equal(self.dir.found, TRM_STATE_FRESH);
    assert_false(there(&self, "out/.trireme/cuts-0badf00d"));
    assert_false(there(&self, "out/part-00000") || there(&self, "out/_SUCCESS"));
    close_it(&self);
    place_close(&self);
}

static void another_job_is_refused_by_what_differs(void **state)
{
    place self;
    place_init(&self);
    run_to_success(&self);
    self.traits.params_hash = 8;
    assert_refused(&self, TRM_EOUTPUT, "parameters");
    self.traits.params_hash = 7;
    strcpy(self.traits.name, "grep");
    assert_refused(&self, TRM_EOUTPUT, "the job was 'count' and is 'grep'");
    strcpy(self.traits.name, "count");
    self.spec.partitions = 3;
    assert_refused(&self, TRM_EOUTPUT, "--partitions was not given and is 3 now");
    self.spec.partitions = 0;
    self.spec.split_bytes = 65536;
    assert_refused(&self, TRM_EOUTPUT, "--split-size was not given and is 65536 now");
    self.spec.split_bytes = 0;
    self.spec.gzip_output = true;
    assert_refused(&self, TRM_EOUTPUT, "--gzip");
    self.spec.gzip_output = false;
    temp_tree_text(&self.tree, "in", "other words\n");
    assert_refused(&self, TRM_EOUTPUT, "has changed");
    assert_true(there(&self, "out/part-00000"));
    self.spec.overwrite = true;
    assert_int_equal(open_it(&self), TRM_OK);
    assert_int_equal(self.dir.found, TRM_STATE_FRESH);
    close_it(&self);
    place_close(&self);
}

/* 0 is not what anybody has written. */
static void an_option_that_is_left_out_is_said_in_words(void **state)
{
    place self;
    place_init(&self);
    self.spec.partitions = 2;
    self.spec.split_bytes = 65536;
    assert_int_equal(open_it(&self), TRM_OK);
    close_it(&self);
    self.spec.partitions = 3;
    assert_refused(&self, TRM_EOUTPUT, "--partitions was 2 and is 3");
    self.spec.partitions = 0;
    assert_refused(&self, TRM_EOUTPUT, "--partitions was 2 and is not given now");
    self.spec.partitions = 2;
    self.spec.split_bytes = 0;
    assert_refused(&self, TRM_EOUTPUT, "--split-size was 65536 and is not given now");
    place_close(&self);
}

static void a_foreign_directory_is_refused_and_left_as_it_was(void **state)
{
    place self;
    place_init(&self);
    temp_tree_dir(&self.tree, "out");
    temp_tree_text(&self.tree, "out/thesis.txt", "words\n");
    assert_refused(&self, TRM_EOUTPUT, "thesis.txt");
    assert_false(there(&self, "out/.trireme"));
    assert_null(strstr(self.err.text, "--overwrite"));
    assert_true(there(&self, "out/thesis.txt"));
    self.spec.overwrite = true;
    assert_refused(&self, TRM_EOUTPUT,
                   "out' is not empty ('thesis.txt' is in it), and there is no job in it");
    assert_non_null(strstr(self.err.text, "remove it yourself"));
    assert_false(there(&self, "out/.trireme"));
    temp_tree_dir(&self.tree, "out/.trireme"); /* a launch that was refused was killed at once */
    temp_tree_text(&self.tree, "out/.trireme/lock", "");
    temp_tree_text(&self.tree, "out/_SUCCESS", ""); /* of another program */
    assert_refused(&self, TRM_EOUTPUT, "there is no job in it");
    temp_tree_text(&self.tree, "out/_SUCCESS", "{\"version\":true,\"job\":\"x\"}");
    assert_refused(&self, TRM_EOUTPUT, "there is no job in it");
    assert_true(there(&self, "out/thesis.txt") && there(&self, "out/_SUCCESS"));
    place_close(&self);
}

static void an_output_is_known_by_its_manifest(void **state)
{
    place self;
    place_init(&self);
    temp_tree_dir(&self.tree, "out");
    temp_tree_text(&self.tree, "out/part-00000", "x\n");
    temp_tree_text(&self.tree, "out/_SUCCESS", MANIFEST);
    assert_refused(&self, TRM_EOUTPUT, "choose another, or --overwrite");
    self.spec.overwrite = true;
    assert_int_equal(open_it(&self), TRM_OK);
    assert_int_equal(self.dir.found, TRM_STATE_FRESH);
    assert_false(there(&self, "out/part-00000") || there(&self, "out/_SUCCESS"));
    assert_false(there(&self, "out/.trireme/clearing"));
    close_it(&self);
    place_close(&self);
}

/* The state is asked for at another place than the output's own: it is found out before the output goes. */
static void nothing_is_cleared_when_the_state_is_of_another_output(void **state)
{
    place self;
    place_init(&self);
    self.spec.state_dir = self.other_state;
    run_to_success(&self);
    snprintf(self.output, sizeof self.output, "%s/second", self.tree.path);
    temp_tree_dir(&self.tree, "second");
    temp_tree_text(&self.tree, "second/part-00000", "x\n");
    temp_tree_text(&self.tree, "second/_SUCCESS", MANIFEST);
    self.spec.overwrite = true;
    assert_refused(&self, TRM_EOUTPUT, "belongs to the output");
    assert_true(there(&self, "second/part-00000") && there(&self, "second/_SUCCESS"));
    assert_true(there(&self, "state/identity") && there(&self, "state/plan"));
    place_close(&self);
}

static void a_home_is_not_cleared(void **state)
{
    place self;
    place_init(&self);
    char *home = getenv("HOME") ? strdup(getenv("HOME")) : NULL;
    run_to_success(&self);
    temp_tree_text(&self.tree, "out/thesis.txt", "words\n");
    setenv("HOME", self.output, 1);
    self.spec.overwrite = true;
    assert_refused(&self, TRM_EOUTPUT, "home");
    assert_true(there(&self, "out/thesis.txt") && there(&self, "out/_SUCCESS"));
    assert_true(there(&self, "out/.trireme/identity"));
    if (home)
        setenv("HOME", home, 1);
    free(home);
    place_close(&self);
}

static void links_and_files_are_refused(void **state)
{
    place self;
    place_init(&self);
    temp_tree_dir(&self.tree, "real");
    assert_int_equal(symlink("real", self.output), 0);
    assert_refused(&self, TRM_EOUTPUT, "symbolic link");
    assert_int_equal(unlink(self.output), 0);
    temp_tree_text(&self.tree, "out", "a file\n");
    assert_refused(&self, TRM_EOUTPUT, "not a directory");
    place_close(&self);
}

static void damage_and_other_versions_are_said(void **state)
{
    place self;
    place_init(&self);
    assert_int_equal(open_it(&self), TRM_OK);
    close_it(&self);
    uint8_t *bytes;
    size_t len;
    char *path = temp_tree_name(&self.tree, "out/.trireme/identity");
    assert_int_equal(trm_fs_read_whole(trm_fs_posix(), path, 1u << 20, &bytes, &len, NULL), TRM_OK);
    bytes[len - 9] ^= 1;
    temp_tree_file(&self.tree, "out/.trireme/identity", bytes, len);
    assert_refused(&self, TRM_ECORRUPT, "damaged");
    bytes[len - 9] ^= 1;
    bytes[4]++;
    temp_tree_file(&self.tree, "out/.trireme/identity", bytes, len);
    assert_refused(&self, TRM_EVERSION, "version 2");
    bytes[4]--;
    temp_tree_file(&self.tree, "out/.trireme/identity", bytes, len);
    temp_tree_text(&self.tree, "out/.trireme/plan", "no plan");
    assert_refused(&self, TRM_ECORRUPT, "plan");
    self.spec.overwrite = true; /* asked to, it begins anew */
    assert_int_equal(open_it(&self), TRM_OK);
    assert_int_equal(self.dir.found, TRM_STATE_FRESH);
    close_it(&self);
    free(bytes);
    place_close(&self);
}

static void two_launches_do_not_share_an_output(void **state)
{
    place self, other;
    place_init(&self);
    assert_int_equal(open_it(&self), TRM_OK);
    other = self;
    other.spec.overwrite = true;
    assert_refused(&other, TRM_EFENCED, "another launch");
    assert_true(there(&self, "out/.trireme/identity"));
    close_it(&self);
    place_close(&self);
}

static void a_state_elsewhere_belongs_to_one_output(void **state)
{
    place self;
    place_init(&self);
    self.spec.state_dir = self.other_state;
    run_to_success(&self);
    assert_true(there(&self, "state/identity") && there(&self, "out/.trireme/elsewhere"));
    assert_false(there(&self, "out/.trireme/identity"));
    assert_int_equal(open_it(&self), TRM_OK);
    assert_int_equal(self.dir.found, TRM_STATE_DONE);
    close_it(&self);
    self.spec.state_dir = self.state; /* forgotten to say */
    assert_refused(&self, TRM_EOUTPUT, "--state");
    self.spec.state_dir = self.other_state;
    snprintf(self.output, sizeof self.output, "%s/second", self.tree.path);
    assert_refused(&self, TRM_EOUTPUT, "belongs to the output");
    assert_false(there(&self, "second"));
    assert_true(there(&self, "state/identity"));
    snprintf(self.output, sizeof self.output, "%s/out", self.tree.path);
    assert_int_equal(trm_fs_remove_tree(trm_fs_posix(), self.output, NULL),
                     TRM_OK); /* the user wants it anew */
    assert_int_equal(open_it(&self), TRM_OK);
    assert_int_equal(self.dir.found, TRM_STATE_FRESH);
    close_it(&self);
    place_close(&self);
}

static void what_a_crash_left_before_the_identity_is_cleared(void **state)
{
    place self;
    place_init(&self);
    temp_tree_dir(&self.tree, "out");
    temp_tree_dir(&self.tree, "out/.trireme");
    temp_tree_dir(&self.tree, "out/.trireme/attempts");
    temp_tree_text(&self.tree, "out/.trireme/plan", "half");
    assert_int_equal(open_it(&self), TRM_OK);
    assert_int_equal(self.dir.found, TRM_STATE_FRESH);
    close_it(&self);
    assert_int_equal(open_it(&self), TRM_OK);
    assert_int_equal(self.dir.found, TRM_STATE_RESUME);
    close_it(&self);
    place_close(&self);
}

static trm_status look_at(trm_state_look *look, const char *dir, trm_err *err)
{
    err->text[0] = '\0';
    return trm_state_look_at(look, dir, trm_fs_posix(), err);
}

/* A state directory may hold what is a person's. */
static void what_is_half_written_is_cleared_and_nothing_else(void **state)
{
    place self;
    place_init(&self);
    self.spec.state_dir = self.other_state;
    assert_int_equal(open_it(&self), TRM_OK);
    close_it(&self);
    temp_tree_text(&self.tree, "state/plan.new", "half");
    temp_tree_text(&self.tree, "state/cuts-01234567.new", "half");
    temp_tree_text(&self.tree, "state/notes.new", "mine");
    assert_int_equal(open_it(&self), TRM_OK);
    assert_int_equal(self.dir.found, TRM_STATE_RESUME);
    assert_false(there(&self, "state/plan.new"));
    assert_false(there(&self, "state/cuts-01234567.new"));
    assert_true(there(&self, "state/notes.new"));
    close_it(&self);
    place_close(&self);
}

static void who_only_looks_sees_where_and_whether(void **state)
{
    static place self;
    static trm_state_look look;
    for (int elsewhere = 0; elsewhere < 2; elsewhere++) {
        place_init(&self);
        if (elsewhere)
            self.spec.state_dir = self.other_state;
        const char *dirs[] = {self.output, self.spec.state_dir};
        assert_int_equal(look_at(&look, self.output, &self.err), TRM_EINPUT);
        assert_non_null(strstr(self.err.text, "there is no job in"));
        assert_int_equal(open_it(&self), TRM_OK);
        for (size_t i = 0; i < 2; i++) {
            assert_int_equal(look_at(&look, dirs[i], &self.err), TRM_OK);
            assert_string_equal(look.output_dir, self.output);
            assert_string_equal(look.state_dir, self.spec.state_dir);
            assert_true(look.in_use && !look.done);
        }
        assert_true(trm_state_in_use(self.output, trm_fs_posix()));
        temp_tree_text(&self.tree, "out/_SUCCESS", "{}\n");
        close_it(&self);
        assert_false(trm_state_in_use(self.output, trm_fs_posix()));
        assert_int_equal(look_at(&look, dirs[1], &self.err), TRM_OK);
        assert_true(!look.in_use && look.done);
        temp_tree_text(&self.tree, elsewhere ? "state/identity" : "out/.trireme/identity", "who?");
        assert_int_equal(look_at(&look, dirs[1], &self.err), TRM_ECORRUPT);
        assert_non_null(strstr(self.err.text, "identity: not the identity of a job"));
        place_close(&self);
    }
}

/* Opens a job without inputs in a file system in memory; the submission is closed. */
static trm_status open_in_memory(trm_state_dir *dir, const trm_spec *spec, trm_fs *fs)
{
    trm_traits traits = {.name = "none", .input = TRM_INPUT_NONE};
    trm_submission submission;
    trm_err err;
    trm_status status = trm_submission_init(&submission, spec, &traits, 2, 64u << 20, fs, &err);
    assert_int_equal(status, TRM_OK);
    status = trm_state_dir_open(dir, spec, &submission, fs, &err);
    trm_submission_close(&submission);
    return status;
}

/* Also when a process before it died between making a directory and making its name durable: it is
 * stopped after each change. */
static void its_names_outlive_a_loss_of_power(void **state)
{
    char out[] = "/a/out", inside[] = "/a/out/.trireme", elsewhere[] = "/b/state";
    for (unsigned run = 0; run < 200; run++) {
        trm_spec spec = {
            .output_dir = out, .state_dir = run % 2 ? elsewhere : inside, .tasks = 3, .partitions = 1};
        trm_fs *fs = trm_fs_mem_create(run);
        trm_state_dir dir;
        trm_err err;
        assert_int_equal(trm_fs_make_dirs(fs, "/b", 0, &err), TRM_OK);
        trm_fs_mem_stop_after(fs, run / 4);
        trm_status status = open_in_memory(&dir, &spec, fs);
        if (status == TRM_OK)
            trm_state_dir_close(&dir);
        trm_fs_mem_kill(fs);
        assert_int_equal(open_in_memory(&dir, &spec, fs), TRM_OK);
        trm_state_dir_close(&dir);
        trm_fs_mem_crash(fs);
        assert_int_equal(open_in_memory(&dir, &spec, fs), TRM_OK);
        if (dir.found != TRM_STATE_RESUME)
            fail_msg("run %u: the state of the job is gone", run);
        trm_state_dir_close(&dir);
        trm_fs_mem_destroy(fs);
    }
}

/* A file system of its own, in which the job has been begun and given up. */
static trm_fs *begin_in_memory(trm_spec *spec, unsigned run)
{
    trm_fs *fs = trm_fs_mem_create(run);
    trm_state_dir dir;
    assert_int_equal(open_in_memory(&dir, spec, fs), TRM_OK);
    trm_state_dir_close(&dir);
    return fs;
}

/* Its last launch has renamed _SUCCESS, and died before it could sync that. */
static void what_is_said_to_be_done_outlives_a_loss_of_power(void **state)
{
    char out[] = "/out", inside[] = "/out/.trireme";
    trm_spec spec = {.output_dir = out, .state_dir = inside, .tasks = 3, .partitions = 1};
    for (unsigned run = 0; run < 20; run++) { /* a disk may keep a name that was not synced */
        trm_state_dir dir;
        trm_err err;
        trm_file *file;
        trm_fs *fs = begin_in_memory(&spec, run);
        assert_int_equal(fs->ops->open(fs, "/out/_SUCCESS", TRM_FS_WRITE | TRM_FS_CREATE, &file, &err),
                         TRM_OK);
        fs->ops->close(file);
        for (unsigned launch = 0; launch < 2; launch++) {
            assert_int_equal(open_in_memory(&dir, &spec, fs), TRM_OK);
            assert_int_equal(dir.found, TRM_STATE_DONE);
            trm_state_dir_close(&dir);
            trm_fs_mem_crash(fs);
        }
        trm_fs_mem_destroy(fs);
    }
}

static void write_in_memory(trm_fs *fs, const char *path, const char *text)
{
    trm_err err;
    assert_int_equal(trm_fs_write_whole(fs, path, text, strlen(text), 0, &err), TRM_OK);
}

/* Whatever was cleared when the process died or the power failed, the rest is known to be an output. */
static void what_is_half_cleared_is_cleared_by_the_next(void **state)
{
    char out[] = "/out", inside[] = "/out/.trireme", elsewhere[] = "/b";
    bool whole[3] = {false};
    for (unsigned run = 0; run < 600; run++) {
        unsigned how = run % 3; /* the state within, the state elsewhere, nothing but a manifest */
        trm_spec spec = {
            .output_dir = out, .state_dir = how == 1 ? elsewhere : inside, .tasks = 3, .partitions = 1};
        trm_fs *fs = trm_fs_mem_create(run);
        trm_state_dir dir;
        trm_err err;
        assert_int_equal(how == 2 ? trm_fs_make_dirs(fs, out, 0, &err) : open_in_memory(&dir, &spec, fs),
                         TRM_OK);
        if (how != 2)
            trm_state_dir_close(&dir);
        write_in_memory(fs, "/out/part-00000", "x\n");
        write_in_memory(fs, "/out/part-00001", "y\n");
        write_in_memory(fs, "/out/_SUCCESS", MANIFEST);
        spec.overwrite = true;
        spec.partitions = 2; /* another job: none of what is there may be gone on with */
        trm_fs_mem_stop_after(fs, run / 6);
        trm_status status = open_in_memory(&dir, &spec, fs);
        if (status == TRM_OK)
            trm_state_dir_close(&dir);
        whole[how] |= status == TRM_OK;
        if (run / 3 % 2)
            trm_fs_mem_crash(fs);
        else
            trm_fs_mem_kill(fs);
        if (open_in_memory(&dir, &spec, fs) != TRM_OK)
            fail_msg("run %u: what is left is not known", run);
        trm_state_dir_close(&dir);
        const char *const gone[] = {"/out/part-00000", "/out/part-00001", "/out/_SUCCESS"};
        trm_file *file;
        for (unsigned i = 0; i < 3; i++)
            assert_int_equal(fs->ops->open(fs, gone[i], TRM_FS_READ, &file, &err), TRM_ELOST);
        trm_fs_mem_destroy(fs);
    }
    assert_true(whole[0] && whole[1] && whole[2]); /* so each was stopped everywhere */
}

/* The identity goes first and for good: while it is there, so is all that a job goes on with. */
static void what_is_half_cleared_is_not_gone_on_with(void **state)
{
    char out[] = "/out", inside[] = "/out/.trireme";
    for (unsigned run = 0; run < 600; run++) {
        trm_spec spec = {.output_dir = out, .state_dir = inside, .tasks = 3, .partitions = 1};
        trm_state_dir dir;
        trm_err err;
        trm_file *file;
        trm_fs *fs = begin_in_memory(&spec, run);
        write_in_memory(fs, "/out/.trireme/events.jsonl", "{}\n");
        write_in_memory(fs, "/out/part-00000", "x\n");
        spec.overwrite = true;
        spec.partitions = 2;
        trm_fs_mem_stop_after(fs, run / 12);
        if (open_in_memory(&dir, &spec, fs) == TRM_OK)
            trm_state_dir_close(&dir);
        trm_fs_mem_crash(fs);
        spec.overwrite = false;
        spec.partitions = 1; /* the job that was there */
        if (open_in_memory(&dir, &spec, fs) == TRM_OK) {
            if (dir.found == TRM_STATE_RESUME &&
                fs->ops->open(fs, "/out/.trireme/events.jsonl", TRM_FS_READ, &file, &err) != TRM_OK)
                fail_msg("run %u: half of a job is gone on with", run);
            if (dir.found == TRM_STATE_RESUME)
                fs->ops->close(file);
            trm_state_dir_close(&dir);
        }
        trm_fs_mem_destroy(fs);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fresh_place_is_made_and_unmade),
        cmocka_unit_test(an_empty_directory_stays_when_it_is_undone),
        cmocka_unit_test(the_same_job_is_resumed_with_its_plan),
        cmocka_unit_test(what_is_done_is_done_until_it_is_overwritten),
        cmocka_unit_test(another_job_is_refused_by_what_differs),
        cmocka_unit_test(an_option_that_is_left_out_is_said_in_words),
        cmocka_unit_test(a_foreign_directory_is_refused_and_left_as_it_was),
        cmocka_unit_test(an_output_is_known_by_its_manifest),
        cmocka_unit_test(nothing_is_cleared_when_the_state_is_of_another_output),
        cmocka_unit_test(a_home_is_not_cleared),
        cmocka_unit_test(links_and_files_are_refused),
        cmocka_unit_test(damage_and_other_versions_are_said),
        cmocka_unit_test(two_launches_do_not_share_an_output),
        cmocka_unit_test(a_state_elsewhere_belongs_to_one_output),
        cmocka_unit_test(what_a_crash_left_before_the_identity_is_cleared),
        cmocka_unit_test(its_names_outlive_a_loss_of_power),
        cmocka_unit_test(what_is_half_cleared_is_cleared_by_the_next),
        cmocka_unit_test(what_is_half_cleared_is_not_gone_on_with),
        cmocka_unit_test(what_is_said_to_be_done_outlives_a_loss_of_power),
        cmocka_unit_test(what_is_half_written_is_cleared_and_nothing_else),
        cmocka_unit_test(who_only_looks_sees_where_and_whether),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
