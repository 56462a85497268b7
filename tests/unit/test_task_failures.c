/* Whole tasks that fail, by what the kernel does, or by what it is given: which sentence and status the
 * attempt ends with, and that nothing of it stays; in this process, and by a real crew what only a process
 * of its own survives. */
#include "config.h"

#include "tests/support/crew_wait.h"
#include "tests/support/whole_job.h"
#include "tests/unit/task_tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

/* ---- Kernels that do what they must not ------------------------------------------------- */

static const char *misdeed; /* what the kernel does, once */
static uint32_t misdeed_attempts;

static bool now_do(const char *what)
{
    if (!misdeed || strcmp(misdeed, what) != 0)
        return false;
    misdeed_attempts++;
    return true;
}

static int naughty_setup(trm_task *task)
{
    return now_do("setup returns") ? 7 : 0;
}
static int naughty_cleanup(trm_task *task)
{
    return now_do("cleanup fails") ? trm_task_fail(task, "too late for %s", "that") : 0;
}

static int naughty_map(trm_task *task, const trm_record *record)
{
    static char large[TRM_KEY_BYTES_MAX + 1];
    static const size_t value_bytes = 2u << 20; /* the limit of these jobs is 1 MiB */
    trm_emit_u64(task, record->data, record->len, 1);
    if (memcmp(record->data, "b", 1) != 0)
        return 0;
    if (now_do("map returns"))
        return -3;
    if (now_do("map fails")) {
        trm_task_fail(task, "no more of %.*s", (int)record->len, record->data);
        return trm_task_fail(task, "the first reason is the reason");
    }
    if (now_do("map fails and says 0")) {
        trm_task_fail(task, "failed all the same");
        return 0;
    }
    if (now_do("key"))
        trm_emit_u64(task, large, sizeof large, 1);
    if (now_do("value"))
        trm_emit(task, "v", 1, calloc(1, value_bytes), value_bytes);
    if (now_do("fold value"))
        trm_emit(task, "v", 1, "four", 4);
    if (now_do("unknown parameter"))
        trm_param_int(task, "nobody");
    if (now_do("wrong type"))
        return trm_param_bool(task, "n");
    if (now_do("counter"))
        trm_count(task, 3, 1);
    if (now_do("segfault"))
        raise(SIGSEGV);
    return 0;
}

static int naughty_combine(trm_task *task, const void *key, size_t key_len, trm_values *values)
{
    if (now_do("combine key"))
        trm_emit_u64(task, "other", 5, 1);
    if (now_do("combine returns"))
        return 9;
    const void *value;
    size_t value_len;
    uint64_t sum = 0;
    while (trm_values_next(values, &value, &value_len))
        sum += trm_load_u64(value);
    trm_emit_u64(task, key, key_len, sum);
    return 0;
}

static int naughty_reduce(trm_task *task, const void *key, size_t key_len, trm_values *values)
{
    trm_emit_u64(task, key, key_len, 1);
    if (*(const char *)key != 'b')
        return 0;
    if (now_do("reduce returns"))
        return 5;
    if (now_do("reduce fails"))
        return trm_task_fail(task, "I do not like it");
    if (now_do("reduce key")) {
        static char large[TRM_KEY_BYTES_MAX + 1];
        trm_emit_u64(task, large, sizeof large, 1);
    }
    return 0;
}

static int naughty_finish(trm_task *task, const void *key, size_t key_len, const void *state)
{
    trm_emit(task, key, key_len, state, 8);
    return now_do("finish returns") && *(const char *)key == 'b' ? 1 : 0;
}

static uint32_t naughty_partition(trm_task *task, const void *key, size_t key_len, uint32_t partitions)
{
    if (now_do("partition emits"))
        trm_emit_u64(task, key, key_len, 1);
    return now_do("partition") ? partitions : 0;
}

static const char *const naughty_counters[] = {"records", "pairs", NULL};
static const trm_param naughty_params[] = {{.name = "n", .type = TRM_PARAM_INT, .value = "1"}, {0}};

static trm_job naughty_job(void)
{
    return (trm_job){TRM_JOB_HEADER,
                     .name = "naughty",
                     .params = naughty_params,
                     .counters = naughty_counters,
                     .setup = naughty_setup,
                     .map = naughty_map,
                     .cleanup = naughty_cleanup,
                     .combine = naughty_combine,
                     .reduce = naughty_reduce,
                     .partition = naughty_partition};
}

typedef struct naughty {
    whole_job job;
    trm_job kernel;
    char *inputs[1];
} naughty;

static void open_naughty(naughty *self, const trm_job *kernel, bool through_crew)
{
    temp_tree_init(&tree);
    whole_job_init(&self->job, tree.path);
    self->kernel = *kernel;
    self->inputs[0] = temp_tree_text(&tree, "lines", "aa\nbb\ncc\nbb\n");
    self->job.spec.own_job = &self->kernel;
    self->job.spec.inputs = self->inputs;
    self->job.spec.inputs_count = 1;
    self->job.spec.partitions = kernel->partitioner == TRM_PARTITION_RANGE ? 2 : 1;
    self->job.spec.record_bytes_max = 1u << 20;
    self->job.through_crew = through_crew;
    self->job.spec.executors = 1;
    self->job.spec.memory_bytes = CREW_MEMORY_BYTES;
    trm_status status = whole_job_open(&self->job);
    if (status != TRM_OK)
        fail_msg("%s", self->job.err.text);
    misdeed_attempts = 0;
}

static void close_naughty(naughty *self)
{
    whole_job_close(&self->job);
    temp_tree_close(&tree);
    misdeed = NULL;
}

static void expect_failure(whole_job *job, trm_status status, const char *sentence)
{
    if (job->status != status || strcmp(job->err.text, sentence) != 0)
        fail_msg("%s: %s: '%s' is not %s: '%s'", misdeed, trm_status_name(job->status), job->err.text,
                 trm_status_name(status), sentence);
    assert_int_equal(whole_job_runs(job), 0);
    assert_int_equal(whole_job_attempts(job), 0);
}

/* The map of a misdeed fails so, leaves nothing, and the next attempt is as if nothing had been. */
static void map_fails(const trm_job *kernel, const char *what, trm_status status, const char *sentence)
{
    naughty it;
    char full[2048];
    open_naughty(&it, kernel, false);
    misdeed = what;
    whole_job_order(&it.job, TRM_PHASE_MAP, 0);
    snprintf(full, sizeof full, sentence, it.inputs[0]);
    expect_failure(&it.job, status, full);
    assert_true(misdeed_attempts > 0);
    misdeed = NULL;
    assert_int_equal(whole_job_order(&it.job, TRM_PHASE_MAP, 0), TRM_OK);
    assert_true(it.job.report.counters.value[TRM_COUNTER_MAP_RECORDS_OUT] == 4);
    close_naughty(&it);
}

static void maps_that_fail(void **state)
{
    trm_job job = naughty_job(), fold = job;
    fold.reduce = fold.combine = NULL;
    fold.fold = TRM_FOLD_SUM_U64;
    map_fails(&job, "setup returns", TRM_EKERNEL, "setup returned 7");
    map_fails(&job, "cleanup fails", TRM_EKERNEL, "'%s' at byte 9: cleanup failed: too late for that");
    map_fails(&job, "map returns", TRM_EKERNEL, "'%s' at byte 3: map returned -3");
    map_fails(&job, "map fails", TRM_EKERNEL, "'%s' at byte 3: map failed: no more of bb");
    map_fails(&job, "map fails and says 0", TRM_EKERNEL, "'%s' at byte 3: map failed: failed all the same");
    map_fails(&job, "key", TRM_ERECORD,
              "'%s' at byte 3: a key of 65537 bytes was emitted, the limit is 65536");
    map_fails(
        &job, "value", TRM_ERECORD,
        "'%s' at byte 3: a value of 2097152 bytes was emitted, the limit is 1048576: raise --record-max");
    map_fails(&fold, "fold value", TRM_EKERNEL,
              "'%s' at byte 3: a value of 4 bytes was emitted, but the job's fold takes 8");
    map_fails(&job, "unknown parameter", TRM_EKERNEL,
              "'%s' at byte 3: parameter 'nobody' was asked for, but the job does not list it");
    map_fails(&job, "wrong type", TRM_EKERNEL,
              "'%s' at byte 3: parameter 'n' was asked for as a bool, but the job lists it as an int");
    map_fails(&job, "counter", TRM_EKERNEL, "'%s' at byte 3: counter 3 was counted, but the job lists 2");
    map_fails(&job, "combine key", TRM_EKERNEL, "combine emitted another key than the one it was given");
    map_fails(&job, "combine returns", TRM_EKERNEL, "combine returned 9");
}

static void maps_whose_partition_fails(void **state)
{
    naughty it;
    trm_job job = naughty_job();
    static const char *const what[] = {"partition", "partition emits"};
    static const char *const sentences[] = {"partition returned 2, but there are 2 partitions",
                                            "a partition function emitted"};
    for (unsigned i = 0; i < 2; i++) {
        open_naughty(&it, &job, false);
        it.job.plan.partitions = 2;
        misdeed = what[i];
        assert_int_equal(whole_job_order(&it.job, TRM_PHASE_MAP, 0), TRM_EKERNEL);
        assert_non_null(strstr(it.job.err.text, sentences[i]));
        assert_int_equal(whole_job_runs(&it.job), 0);
        close_naughty(&it);
    }
}

static void reduce_fails(const trm_job *kernel, const char *what, trm_status status, const char *sentence)
{
    naughty it;
    open_naughty(&it, kernel, false);
    assert_int_equal(whole_job_order(&it.job, TRM_PHASE_MAP, 0), TRM_OK);
    assert_int_equal(whole_job_list(&it.job, 0), TRM_OK);
    unsigned runs = whole_job_runs(&it.job);
    misdeed = what;
    assert_int_equal(whole_job_order(&it.job, TRM_PHASE_REDUCE, 0), status);
    assert_string_equal(it.job.err.text, sentence);
    assert_int_equal(it.job.report.sample_len, 0);
    assert_int_equal(whole_job_attempts(&it.job), 0);
    assert_int_equal(whole_job_runs(&it.job), runs);
    misdeed = NULL;
    assert_int_equal(whole_job_order(&it.job, TRM_PHASE_REDUCE, 0), TRM_OK);
    assert_true(it.job.report.output_records == 3);
    assert_int_equal(whole_job_attempts(&it.job), 1);
    close_naughty(&it);
}

static void reduces_that_fail(void **state)
{
    trm_job job = naughty_job(), fold = job;
    fold.reduce = fold.combine = NULL;
    fold.fold = TRM_FOLD_SUM_U64;
    fold.finish = naughty_finish;
    reduce_fails(&job, "reduce returns", TRM_EKERNEL, "key 'bb': reduce returned 5");
    reduce_fails(&job, "reduce fails", TRM_EKERNEL, "key 'bb': reduce failed: I do not like it");
    reduce_fails(&job, "reduce key", TRM_ERECORD,
                 "key 'bb': a key of 65537 bytes was emitted, the limit is 65536");
    reduce_fails(&fold, "finish returns", TRM_EKERNEL, "key 'bb': finish returned 1");
}

/* ---- Inputs of a reduce that are lost --------------------------------------------------- */

static void expect_lost_map(whole_job *job, trm_status status, uint32_t map)
{
    assert_int_equal(whole_job_order(job, TRM_PHASE_REDUCE, 0), status);
    trm_reader in;
    trm_reader_init(&in, job->report.sample, job->report.sample_len);
    assert_int_equal(trm_get_varint(&in), map); /* a trm_output_at, but of no rank */
    assert_int_equal(trm_get_varint(&in), job->attempt);
    assert_int_equal(trm_get_varint(&in), UINT32_MAX);
    trm_get_varint(&in);
    assert_true(trm_reader_done(&in));
    assert_int_equal(whole_job_attempts(job), 0);
}

static void damage(const char *path)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    fseek(file, 40, SEEK_SET); /* in the first block's head */
    int byte = fgetc(file);
    fseek(file, 40, SEEK_SET);
    fputc(byte ^ 1, file);
    fclose(file);
}

static void lost_inputs_are_named(void **state)
{
    naughty it;
    trm_job job = naughty_job();
    open_naughty(&it, &job, false);
    it.job.attempt = 3;
    whole_job_order(&it.job, TRM_PHASE_MAP, 0);
    assert_int_equal(whole_job_order(&it.job, TRM_PHASE_REDUCE, 0), TRM_ELOST); /* no list: nobody to blame */
    assert_int_equal(it.job.report.sample_len, 0);
    assert_int_equal(whole_job_list(&it.job, 0), TRM_OK);
    damage(whole_job_run_path(&it.job, 0));
    expect_lost_map(&it.job, TRM_ECORRUPT, 0);
    assert_int_equal(unlink(whole_job_run_path(&it.job, 0)), 0);
    expect_lost_map(&it.job, TRM_ELOST, 0);
    whole_job_order(&it.job, TRM_PHASE_MAP, 0);
    assert_int_equal(whole_job_order(&it.job, TRM_PHASE_REDUCE, 0), TRM_OK);
    close_naughty(&it);
}

/* ---- What only a process of its own survives ----------------------------------------------- */

static trm_task *escaped;

/* From another thread, or when the attempt has ended. */
static void *emit_late(void *unused)
{
    trm_emit_u64(escaped, "late", 4, 1);
    return NULL;
}

static void on_alarm(int number)
{
    emit_late(NULL);
}

static int emit_soon(trm_task *task, const trm_record *record)
{
    struct itimerval soon = {.it_value = {.tv_usec = 1000}};
    escaped = task;
    return signal(SIGALRM, on_alarm) == SIG_ERR || setitimer(ITIMER_REAL, &soon, NULL);
}

static int emit_from_thread(trm_task *task, const trm_record *record)
{
    pthread_t thread;
    escaped = task;
    if (pthread_create(&thread, NULL, emit_late, NULL) || pthread_join(thread, NULL))
        return 1;
    return 0;
}

static int exit_in_map(trm_task *task, const trm_record *record)
{
    exit(0);
}

static void executor_dies(int (*map)(trm_task *, const trm_record *), trm_status status, const char *sentence)
{
    naughty it;
    trm_job job = naughty_job();
    job.map = map;
    open_naughty(&it, &job, true);
    whole_job_order(&it.job, TRM_PHASE_MAP, 0);
    assert_true(it.job.died);
    assert_int_equal(it.job.status, status);
    if (!strstr(it.job.err.text, sentence))
        fail_msg("'%s' does not say '%s'", it.job.err.text, sentence);
    whole_job_order(&it.job, TRM_PHASE_MAP, 0); /* the next executor is up */
    assert_true(it.job.died);
    close_naughty(&it);
}

static void executors_that_die(void **state)
{
    misdeed = "segfault";
    executor_dies(naughty_map, TRM_EKERNEL, "at byte 3 of");
    executor_dies(emit_from_thread, TRM_EKERNEL, "the kernel emitted from another thread than its task's");
    executor_dies(exit_in_map, TRM_EKERNEL, "exit");
}

static void emitting_after_the_end_is_the_end(void **state)
{
    naughty it;
    trm_job job = naughty_job();
    trm_crew_event event;
    job.map = emit_soon;
    open_naughty(&it, &job, true);
    whole_job_order(&it.job, TRM_PHASE_MAP, 0); /* it may have happened within the attempt */
    if (!it.job.died) {
        assert_int_equal(it.job.status, TRM_OK);
        assert_int_equal(crew_wait(it.job.crew, &event), TRM_OK);
        assert_int_equal(event.kind, TRM_CREW_DIED);
        assert_false(event.running);
        assert_non_null(strstr(event.last_words, "the kernel emitted after its task ended"));
        assert_int_equal(crew_wait(it.job.crew, &event), TRM_OK);
        assert_int_equal(event.kind, TRM_CREW_READY);
    }
    close_naughty(&it);
}

static void a_crew_s_attempt_fails_alone(void **state)
{
    naughty it;
    trm_job job = naughty_job();
    misdeed = "map returns"; /* before the fork: the executors know it */
    open_naughty(&it, &job, true);
    assert_int_equal(whole_job_order(&it.job, TRM_PHASE_MAP, 0), TRM_EKERNEL);
    assert_false(it.job.died);
    assert_non_null(strstr(it.job.err.text, "at byte 3: map returned -3"));
    close_naughty(&it);
}

/* Orders that no master gives, and plans that are not there. */
static void orders_that_make_no_sense(void **state)
{
    naughty it;
    trm_job job = naughty_job();
    open_naughty(&it, &job, true);
    assert_int_equal(whole_job_order(&it.job, TRM_PHASE_MAP, 1), TRM_EPEER);
    assert_int_equal(whole_job_order(&it.job, TRM_PHASE_REDUCE, 1), TRM_EPEER);
    it.job.setup.plan_crc ^= 1;
    assert_int_equal(trm_crew_setup(it.job.crew, &it.job.setup, WHOLE_JOB_EPOCH), TRM_OK);
    assert_int_equal(whole_job_order(&it.job, TRM_PHASE_MAP, 0), TRM_ECORRUPT);
    it.job.setup.plan_crc ^= 1;
    assert_int_equal(trm_crew_setup(it.job.crew, &it.job.setup, WHOLE_JOB_EPOCH), TRM_OK);
    assert_int_equal(whole_job_order(&it.job, TRM_PHASE_MAP, 0), TRM_OK);
    close_naughty(&it);
}

static void maps_wait_for_cuts(void **state)
{
    naughty it;
    trm_job job = naughty_job();
    job.partition = NULL;
    job.partitioner = TRM_PARTITION_RANGE;
    open_naughty(&it, &job, true);
    assert_int_equal(whole_job_order(&it.job, TRM_PHASE_MAP, 0), TRM_EPEER);
    assert_string_equal(it.job.err.text, "a map was ordered before there were cuts");
    assert_int_equal(whole_job_sample(&it.job), TRM_OK);
    assert_int_equal(whole_job_order(&it.job, TRM_PHASE_MAP, 0), TRM_OK);
    close_naughty(&it);
}

/* ---- Odds and ends ------------------------------------------------------------------------- */

static int emit_nothing(trm_task *task, const trm_record *record)
{
    return 0;
}
static int emit_no_bytes(trm_task *task, const trm_record *record)
{
    trm_emit(task, "", 0, "", 0);
    return 0;
}

static int reduce_to_values(trm_task *task, const void *key, size_t key_len, trm_values *values)
{
    const void *value;
    size_t value_len;
    while (trm_values_next(values, &value, &value_len))
        trm_emit(task, key, key_len, value, value_len);
    return 0;
}

/* What leaves no bytes leaves no file, and says so. */
static void nothing_is_no_part(void **state)
{
    naughty it;
    trm_job job = {TRM_JOB_HEADER, .name = "nothing", .map = emit_nothing, .output = TRM_OUTPUT_RAW};
    int (*const maps[])(trm_task *, const trm_record *) = {emit_nothing, emit_no_bytes};
    for (unsigned i = 0; i < 2; i++) {
        job.map = maps[i];
        job.reduce = NULL;
        open_naughty(&it, &job, false);
        assert_int_equal(whole_job_order(&it.job, TRM_PHASE_MAP, 0), TRM_OK);
        assert_int_equal(it.job.report.output_bytes, 0);
        assert_int_equal(whole_job_attempts(&it.job), 0);
        close_naughty(&it);
        job.reduce = reduce_to_values;
        open_naughty(&it, &job, false);
        assert_int_equal(whole_job_order(&it.job, TRM_PHASE_MAP, 0), TRM_OK);
        assert_int_equal(whole_job_list(&it.job, 0), TRM_OK);
        assert_int_equal(whole_job_order(&it.job, TRM_PHASE_REDUCE, 0), TRM_OK);
        assert_int_equal(it.job.report.output_bytes, 0);
        assert_int_equal(whole_job_attempts(&it.job), 0);
        close_naughty(&it);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(maps_that_fail),
        cmocka_unit_test(maps_whose_partition_fails),
        cmocka_unit_test(reduces_that_fail),
        cmocka_unit_test(lost_inputs_are_named),
        cmocka_unit_test(executors_that_die),
        cmocka_unit_test(emitting_after_the_end_is_the_end),
        cmocka_unit_test(a_crew_s_attempt_fails_alone),
        cmocka_unit_test(orders_that_make_no_sense),
        cmocka_unit_test(maps_wait_for_cuts),
        cmocka_unit_test(nothing_is_no_part),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
