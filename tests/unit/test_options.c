/* tool/options: what a command line means, and one sentence for everything that is wrong. */
#include "config.h" /* system extensions, before any header of the system */

#include "tool/options.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define ARGS_MAX 64

/* Splits at spaces; arguments have none of their own here. */
static trm_status read_line(trm_options *options, const char *line, const trm_job *own_job, trm_err *err)
{
    static char text[4096];
    char *argv[ARGS_MAX + 1];
    int argc = 0;
    snprintf(text, sizeof text, "run %s", line);
    for (char *save = NULL, *word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        assert_true(argc < ARGS_MAX);
        argv[argc++] = word;
    }
    argv[argc] = NULL;
    err->text[0] = 0;
    return trm_options_read(options, argc, argv, own_job, err);
}

static void test_everything(void **state)
{
    trm_options options;
    trm_err err;
    assert_int_equal(
        read_line(
            &options,
            "-n4 wordcount a --output=/tmp/out// b -p x=1 -p flag --param y=a=b --gzip --overwrite "
            "--partitions 7 --tasks 9 --split-size 64M --line-max 1K --record-max 2MiB --executors 3 "
            "--bind numa --memory 128M --max-attempts 2 --task-timeout 1.5s --compress zlib:6 --replicas 2 "
            "-v --report-bindings --relaunch 7 --start-timeout 2m --speculate off -- -c",
            NULL, &err),
        TRM_OK);
    const trm_spec *spec = &options.spec;
    assert_int_equal(options.ranks, 4);
    assert_int_equal(options.relaunches, 7);
    assert_int_equal(options.start_timeout_ms, 120000);
    assert_string_equal(spec->kernel_name, "wordcount");
    assert_string_equal(spec->output_dir, "/tmp/out");
    assert_string_equal(spec->state_dir, "/tmp/out/.trireme");
    assert_int_equal(spec->inputs_count, 3);
    assert_string_equal(spec->inputs[0], "a");
    assert_string_equal(spec->inputs[1], "b");
    assert_string_equal(spec->inputs[2], "-c");
    assert_int_equal(spec->params_count, 3);
    assert_string_equal(spec->params[0].value, "1");
    assert_null(spec->params[1].value);
    assert_string_equal(spec->params[2].name, "y");
    assert_string_equal(spec->params[2].value, "a=b");
    assert_true(spec->gzip_output && spec->overwrite && spec->verbose && spec->report_bindings &&
                !spec->quiet);
    assert_int_equal(spec->partitions, 7);
    assert_int_equal(spec->tasks, 9);
    assert_int_equal(spec->split_bytes, 64 << 20);
    assert_int_equal(spec->line_bytes_max, 1024);
    assert_int_equal(spec->record_bytes_max, 2 << 20);
    assert_int_equal(spec->executors, 3);
    assert_int_equal(spec->bind, TRM_BIND_NUMA);
    assert_int_equal(spec->memory_bytes, 128 << 20);
    assert_int_equal(spec->attempts_max, 2);
    assert_int_equal(spec->task_timeout_ms, 1500);
    assert_int_equal(spec->compress, TRM_COMPRESS_ZLIB);
    assert_int_equal(spec->compress_level, 6);
    assert_int_equal(spec->skips_max, 0);
    assert_true(spec->never_twice);
    assert_int_equal(spec->replicas, 2);
    trm_options_close(&options);
}

/* Its number, if there is one, is not the next argument. */
static void test_bad_records(void **state)
{
    trm_options options;
    trm_err err;
    assert_int_equal(read_line(&options, "--skip-bad-records wordcount in -o o", NULL, &err), TRM_OK);
    assert_int_equal(options.spec.skips_max, TRM_SKIPS_DEFAULT);
    assert_string_equal(options.spec.kernel_name, "wordcount");
    trm_options_close(&options);
    assert_int_equal(read_line(&options, "--skip-bad-records=7 wordcount in -o o", NULL, &err), TRM_OK);
    assert_int_equal(options.spec.skips_max, 7);
    trm_options_close(&options);
}

static void test_paths_are_absolute(void **state)
{
    trm_options options;
    trm_err err;
    char here[PATH_MAX], want[2 * PATH_MAX];
    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(read_line(&options, "grep -o out --scratch s --state t in", NULL, &err), TRM_OK);
    snprintf(want, sizeof want, "%s/out", here);
    assert_string_equal(options.spec.output_dir, want);
    snprintf(want, sizeof want, "%s/s", here);
    assert_string_equal(options.spec.scratch_dir, want);
    snprintf(want, sizeof want, "%s/t", here);
    assert_string_equal(options.spec.state_dir, want);
    trm_options_close(&options);
}

static void test_own_job_needs_no_name(void **state)
{
    static const trm_job job = {.name = "mine"};
    trm_options options;
    trm_err err;
    assert_int_equal(read_line(&options, "in -o /tmp/o", &job, &err), TRM_OK);
    assert_null(options.spec.kernel_name);
    assert_int_equal(options.relaunches, TRM_RELAUNCHES_DEFAULT);
    assert_int_equal(options.start_timeout_ms, TRM_START_TIMEOUT_MS_DEFAULT);
    assert_int_equal(options.spec.inputs_count, 1);
    trm_options_close(&options);
}

static void test_help_wins(void **state)
{
    trm_options options;
    trm_err err;
    assert_int_equal(read_line(&options, "--help --nonsense", NULL, &err), TRM_OK);
    assert_true(options.help);
    trm_options_close(&options);
}

static void test_mistakes(void **state)
{
    static const struct {
        const char *line, *says;
    } mistakes[] = {
        {"", "which job?"},
        {"wordcount in", "where does the output go?"},
        {"wordcount in -o", "--output takes DIR"},
        {"wordcount in -o /", "root directory"},
        {"wordcount in -o o --frobnicate", "unknown option --frobnicate"},
        {"wordcount in -o o -z", "unknown option -z"},
        {"wordcount in -o o -n 0", "--ranks 0 is out of range"},
        {"wordcount in -o o -n four", "--ranks takes a whole number, not 'four'"},
        {"wordcount in -o o -n -1", "--ranks takes a whole number, not '-1'"},
        {"wordcount in -o o -n 99999999999999999999", "--ranks takes a whole number"},
        {"wordcount in -o o -np 4", "unknown option -np: how many ranks is -n N"},
        {"wordcount in -o o --memory 1K", "--memory 1K is out of range: 16M to 1024T"},
        {"wordcount in -o o --line-max 3G", "--line-max 3G is out of range: 1 to 2G"},
        {"wordcount in -o o --memory lots", "--memory takes a size"},
        {"wordcount in -o o --task-timeout soon", "--task-timeout takes a time"},
        {"wordcount in -o o --task-timeout 1ms", "--task-timeout 1ms is out of range"},
        {"wordcount in -o o --replicas 3", "--replicas 3 is out of range: 1 to 2"},
        {"wordcount in -o o --compress lz4", "--compress takes auto"},
        {"wordcount in -o o --compress zlib:12", "--compress takes auto"},
        {"wordcount in -o o --bind socket", "--bind takes core"},
        {"wordcount in -o o -p =3", "-p takes NAME=VALUE"},
        {"wordcount in -o o --gzip=yes", "--gzip takes no value"},
        {"wordcount in -o o --scratch=", "--scratch takes DIR, not nothing"},
        {"wordcount in -o o -qv", "exclude each other"},
        {"wordcount in -o o --partitions 65537", "--partitions 65537 is out of range"},
        {"wordcount in -o o --relaunch 1001", "--relaunch 1001 is out of range: 0 to 1000"},
        {"wordcount in -o o --start-timeout 0", "--start-timeout 0 is out of range"},
        {"wordcount in -o o --relaunch often", "--relaunch takes a whole number, not 'often'"},
        {"wordcount in -o o --max-attempts 0", "--max-attempts 0 is out of range"},
        {"wordcount in -o o --speculate maybe", "--speculate takes on or off"},
        {"wordcount in -o o --speculate", "--speculate takes on|off"},
        {"wordcount in -o o --skip-bad-records=0", "--skip-bad-records 0 is out of range"},
        {"wordcount in -o o --skip-bad-records=", "--skip-bad-records takes a whole number"},
    };
    for (size_t i = 0; i < sizeof mistakes / sizeof mistakes[0]; i++) {
        trm_options options;
        trm_err err;
        trm_status status = read_line(&options, mistakes[i].line, NULL, &err);
        if (status != TRM_EUSAGE || !strstr(err.text, mistakes[i].says))
            fail_msg("'%s': %s, '%s' (wanted '%s')", mistakes[i].line, trm_status_name(status), err.text,
                     mistakes[i].says);
        trm_options_close(&options);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything),         cmocka_unit_test(test_bad_records),
        cmocka_unit_test(test_paths_are_absolute), cmocka_unit_test(test_own_job_needs_no_name),
        cmocka_unit_test(test_help_wins),          cmocka_unit_test(test_mistakes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
