/* Maps with --skip-bad-records: what is left out, what is written aside, what a probe runs and leaves,
 * and which record is named when the kernel dies; for every kind of input. */
#include "config.h"

#include "runtime/json_reader.h"
#include "jobs/names.h"
#include "tests/support/fs_mem.h"
#include "tests/support/whole_job.h"
#include "tests/unit/temp_tree.h"
#include "workers/skipped.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define CREW_MEMORY_BYTES (2ull << 30)

static temp_tree tree;
static whole_job job;
static char seen[64]; /* the first byte of each record that map was given */

const char *__asan_default_options(void);
__attribute__((visibility("default"))) const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

/* ---- A kernel ----------------------------------------------------------------------- */

static int map(trm_task *task, const trm_record *record)
{
    size_t used = strlen(seen);
    seen[used] = record->data[0];
    seen[used + 1] = 0;
    if (record->data[0] == 'k')
        raise(SIGSEGV);
    if (record->data[0] == 'f')
        return trm_task_fail(task, "no");
    trm_emit_u64(task, record->data, 2, 1);
    return 0;
}

static int die_at_end(trm_task *task)
{
    return trm_task_fail(task, "too late");
}

static trm_job kernel;
static char *inputs[8];

static const char *gzip_lines; /* not NULL: the only input is these, compressed */

static void compress_input(const char *path)
{
    gzFile out = gzopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(gzwrite(out, gzip_lines, (unsigned)strlen(gzip_lines)), strlen(gzip_lines));
    assert_int_equal(gzclose(out), Z_OK);
}

static void open_job(trm_input input, const char *const *texts, unsigned count, bool through_crew)
{
    temp_tree_init(&tree);
    whole_job_init(&job, tree.path);
    kernel = (trm_job){TRM_JOB_HEADER,
                       .name = "k",
                       .map = map,
                       .fold = TRM_FOLD_SUM_U64,
                       .value_type = TRM_U64,
                       .input = input,
                       .record_bytes = input == TRM_INPUT_FIXED ? 3 : 0};
    for (unsigned i = 0; i < count; i++) {
        char name[16];
        snprintf(name, sizeof name, "in%u", i);
        inputs[i] = strdup(temp_tree_text(&tree, name, texts[i]));
    }
    if (gzip_lines)
        compress_input(inputs[0]);
    job.spec.own_job = &kernel;
    job.spec.inputs = inputs;
    job.spec.inputs_count = count;
    job.spec.partitions = 1;
    job.spec.split_bytes = 1u << 20;
    job.spec.skips_max = 10;
    job.spec.executors = 1;
    job.spec.memory_bytes = CREW_MEMORY_BYTES;
    job.through_crew = through_crew;
    if (whole_job_open(&job) != TRM_OK)
        fail_msg("%s", job.err.text);
    assert_int_equal(job.plan.tasks, 1);
}

static void close_job(void)
{
    whole_job_close(&job);
    temp_tree_close(&tree);
    for (unsigned i = 0; i < job.spec.inputs_count; i++)
        free(inputs[i]);
}

static trm_status run(trm_order records)
{
    seen[0] = 0;
    job.records = records;
    return whole_job_order(&job, TRM_PHASE_MAP, 0);
}

static char *skipped_dir(void)
{
    return temp_tree_name(&tree, "state/skipped");
}

/* Record `number` of the task lies there whole, and nobody else may read it. */
static void assert_aside(unsigned number, const char *path, uint64_t offset, const char *bytes)
{
    char name[1100];
    uint8_t *found;
    size_t len;
    struct stat about;
    trm_json_doc doc;
    snprintf(name, sizeof name, "%s/map-00000.record-%u", skipped_dir(), number);
    assert_int_equal(trm_fs_read_whole(trm_fs_posix(), name, 1 << 20, &found, &len, NULL), TRM_OK);
    assert_int_equal(stat(name, &about), 0);
    assert_int_equal(about.st_mode & 07777, 0600);
    assert_int_equal(stat(skipped_dir(), &about), 0);
    assert_int_equal(about.st_mode & 07777, 0700);
    char *end = memchr(found, '\n', len);
    assert_non_null(end);
    assert_int_equal(trm_json_parse(&doc, found, (size_t)(end - (char *)found), NULL), TRM_OK);
    const trm_json_value *root = trm_json_root(&doc);
    assert_int_equal(trm_json_get_u64(&doc, root, "record", 99), number);
    assert_int_equal(trm_json_get_u64(&doc, root, "offset", 99), offset);
    assert_int_equal(trm_json_get_u64(&doc, root, "bytes", 99), strlen(bytes));
    assert_non_null(strstr((char *)found, path));
    assert_int_equal(len - (size_t)(end + 1 - (char *)found), strlen(bytes));
    assert_memory_equal(end + 1, bytes, strlen(bytes));
    trm_json_doc_close(&doc);
    free(found);
}

static unsigned files_in(const char *dir)
{
    char command[1100];
    unsigned count = 0;
    snprintf(command, sizeof command, "ls -A '%s' 2>/dev/null | wc -l", dir);
    FILE *in = popen(command, "r");
    assert_non_null(in);
    assert_int_equal(fscanf(in, "%u", &count), 1);
    pclose(in);
    return count;
}

static void assert_left_out(const char *what)
{
    assert_string_equal(seen, what);
    assert_true(job.report.counters.value[TRM_COUNTER_MAP_RECORDS_IN] == strlen(what));
    assert_true(job.report.counters.value[TRM_COUNTER_MAP_RECORDS_SKIPPED] == 2);
    assert_true(job.report.output_records == strlen(what));
    assert_int_equal(files_in(skipped_dir()), 2);
}

static const trm_order second_and_last = {.skips_count = 2, .skip = {1, 4}};

/* ---- What is left out ------------------------------------------------------------------- */

static void lines_are_left_out(void **state)
{
    static const char *const text[] = {"a1\nb2b\nc3\nd4\ne5"};
    open_job(TRM_INPUT_LINES, text, 1, false);
    assert_int_equal(run(second_and_last), TRM_OK);
    assert_left_out("acd");
    assert_aside(1, inputs[0], 3, "b2b");
    assert_aside(4, inputs[0], 13, "e5");
    assert_int_equal(run(second_and_last), TRM_OK); /* another attempt writes the same */
    assert_left_out("acd");
    assert_aside(1, inputs[0], 3, "b2b");
    close_job();
}

/* Blocks are of one line each then; a launch that does not ask for it leaves out the same ones. */
static void blocks_are_left_out_by_the_line(void **state)
{
    static const char *const text[] = {"a1\nb2b\nc3\nd4\ne5"};
    open_job(TRM_INPUT_BLOCKS, text, 1, false);
    job.spec.skips_max = 0;
    assert_int_equal(run((trm_order){0}), TRM_OK);
    assert_string_equal(seen, "ae"); /* the last one has no newline */
    assert_int_equal(run(second_and_last), TRM_OK);
    assert_left_out("acd");
    assert_aside(1, inputs[0], 3, "b2b\n");
    assert_aside(4, inputs[0], 13, "e5");
    close_job();
}

static void fixed_records_are_left_out(void **state)
{
    static const char *const text[] = {"a1.b2.c3.d4.e5."};
    open_job(TRM_INPUT_FIXED, text, 1, false);
    assert_int_equal(run(second_and_last), TRM_OK);
    assert_left_out("acd");
    assert_aside(1, inputs[0], 3, "b2.");
    assert_aside(4, inputs[0], 12, "e5.");
    close_job();
}

static void files_are_left_out(void **state)
{
    static const char *const text[] = {"a1", "b2 and more", "c3", "d4", "e5"};
    open_job(TRM_INPUT_FILES, text, 5, false);
    assert_int_equal(run(second_and_last), TRM_OK);
    assert_left_out("acd");
    assert_aside(1, inputs[1], 0, "b2 and more");
    assert_aside(4, inputs[4], 0, "e5");
    close_job();
}

static void lines_of_gzip_are_left_out(void **state)
{
    static const char *const text[] = {""}, lines[] = "a1\nb2b\nc3\nd4\ne5\n";
    gzip_lines = lines;
    open_job(TRM_INPUT_LINES, text, 1, false);
    gzip_lines = NULL;
    assert_int_equal(run(second_and_last), TRM_OK);
    assert_left_out("acd");
    assert_aside(1, inputs[0], 3, "b2b");
    assert_aside(4, inputs[0], 13, "e5");
    close_job();
}

/* A link that somebody has put there is replaced, not followed. */
static void no_link_is_followed(void **state)
{
    static const char *const text[] = {"a1\nb2\n"};
    char name[1100];
    open_job(TRM_INPUT_LINES, text, 1, false);
    char *precious = strdup(temp_tree_text(&tree, "precious", "keep me"));
    assert_int_equal(mkdir(skipped_dir(), 0700), 0);
    snprintf(name, sizeof name, "%s/map-00000.record-1", skipped_dir());
    assert_int_equal(symlink(precious, name), 0);
    char aside[1200];
    snprintf(aside, sizeof aside, "%s.e%u.a0.new", name, WHOLE_JOB_EPOCH);
    assert_int_equal(symlink(precious, aside), 0);
    assert_int_not_equal(run((trm_order){.skips_count = 1, .skip = {1}}), TRM_OK);
    unlink(aside); /* it may have been removed as what the attempt had begun */
    assert_int_equal(run((trm_order){.skips_count = 1, .skip = {1}}), TRM_OK);
    assert_aside(1, inputs[0], 3, "b2");
    uint8_t *found;
    size_t len;
    assert_int_equal(trm_fs_read_whole(trm_fs_posix(), precious, 100, &found, &len, NULL), TRM_OK);
    assert_string_equal((char *)found, "keep me");
    free(found);
    free(precious);
    close_job();
}

/* ---- Probes ------------------------------------------------------------------------------- */

static void probes_run_a_part_and_leave_nothing(void **state)
{
    static const char *const text[] = {"a1\nb2\nc3\nd4\ne5\n"};
    open_job(TRM_INPUT_LINES, text, 1, false);
    assert_int_equal(run((trm_order){.probe = true, .first = 1, .end = 4, .skips_count = 1, .skip = {2}}),
                     TRM_OK);
    assert_string_equal(seen, "bd");
    assert_int_equal(job.report.output_bytes, 0);
    assert_true(job.report.counters.value[TRM_COUNTER_MAP_RECORDS_OUT] == 0);
    assert_int_equal(whole_job_runs(&job), 0);
    assert_int_equal(files_in(skipped_dir()), 0);
    assert_int_equal(run((trm_order){.probe = true, .first = 7, .end = 9}), TRM_OK); /* there are none */
    assert_string_equal(seen, "");
    assert_int_equal(run((trm_order){0}), TRM_OK); /* and the task itself is as ever */
    assert_string_equal(seen, "abcde");
    assert_int_equal(whole_job_runs(&job), 1);
    close_job();
}

/* ---- Which record it was ------------------------------------------------------------------ */

static void a_record_that_fails_is_named(void **state)
{
    static const char *const text[] = {"a1\nb2\nf3\nd4\n"};
    open_job(TRM_INPUT_LINES, text, 1, false);
    assert_int_equal(run((trm_order){0}), TRM_EKERNEL);
    assert_int_equal(job.report.record, 3);
    kernel.cleanup = die_at_end; /* the last that was given */
    assert_int_equal(run((trm_order){.skips_count = 1, .skip = {2}}), TRM_EKERNEL);
    assert_int_equal(job.report.record, 4);
    kernel.cleanup = NULL;
    kernel.setup = die_at_end;
    assert_int_equal(run((trm_order){0}), TRM_EKERNEL);
    assert_int_equal(job.report.record, 0);
    close_job();
}

/* It cannot be read: none of those before it is to blame. */
static void a_line_that_is_too_long_names_none(void **state)
{
    static const char *const text[] = {"a1\nbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\n"};
    open_job(TRM_INPUT_LINES, text, 1, false);
    job.spec.line_bytes_max = 10;
    assert_int_equal(run((trm_order){.probe = true, .end = 1}), TRM_OK); /* nor is it read for others */
    trm_executor_env_close(&job.env);
    assert_int_equal(run((trm_order){0}), TRM_ELIMIT);
    assert_int_equal(job.report.record, 0);
    close_job();
}

static void a_record_that_kills_is_named(void **state)
{
    static const char *const text[] = {"a1\nb2\nk3\nd4\n"};
    open_job(TRM_INPUT_LINES, text, 1, true);
    run((trm_order){0});
    assert_true(job.died);
    assert_int_equal(job.report.record, 3);
    run((trm_order){.probe = true, .first = 2, .end = 3});
    assert_true(job.died);
    assert_int_equal(job.report.record, 3);
    assert_int_equal(run((trm_order){.probe = true, .first = 0, .end = 2}), TRM_OK);
    assert_int_equal(run((trm_order){.skips_count = 1, .skip = {2}}), TRM_OK);
    assert_aside(2, inputs[0], 6, "k3");
    close_job();
}

/* The attempt that made the directory died before that was durable. */
static void what_is_written_aside_is_durable(void **state)
{
    static const char path[] = "/state/" TRM_SKIPPED_NAME "/map-00003.record-1";
    trm_record record = {.data = "bad", .len = 3, .path = "/in"};
    trm_skipped skipped = {.state_dir = "/state", .epoch = 1, .task = 3, .number = 1, .record = &record};
    for (uint64_t seed = 0; seed < 16; seed++) {
        trm_fs *fs = trm_fs_mem_create(seed);
        trm_file *file;
        trm_err err = {""};
        assert_int_equal(trm_fs_make_dirs(fs, "/state", 0, &err), TRM_OK);
        assert_int_equal(fs->ops->make_dir(fs, "/state/" TRM_SKIPPED_NAME, 0, &err), TRM_OK);
        assert_int_equal(trm_skipped_write(&skipped, fs, &err), TRM_OK);
        trm_fs_mem_crash(fs);
        if (fs->ops->open(fs, path, TRM_FS_READ, &file, &err) != TRM_OK)
            fail_msg("seed %u: %s", (unsigned)seed, err.text);
        fs->ops->close(file);
        trm_fs_mem_destroy(fs);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_left_out),
        cmocka_unit_test(blocks_are_left_out_by_the_line),
        cmocka_unit_test(fixed_records_are_left_out),
        cmocka_unit_test(files_are_left_out),
        cmocka_unit_test(lines_of_gzip_are_left_out),
        cmocka_unit_test(no_link_is_followed),
        cmocka_unit_test(probes_run_a_part_and_leave_nothing),
        cmocka_unit_test(a_record_that_fails_is_named),
        cmocka_unit_test(a_line_that_is_too_long_names_none),
        cmocka_unit_test(a_record_that_kills_is_named),
        cmocka_unit_test(what_is_written_aside_is_durable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
