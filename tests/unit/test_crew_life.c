/* workers/crew: it is loaded and set up, or says why not; no process or file is left behind, whoever dies. */
#include "config.h" /* system extensions, before any header of the system */

#include "tests/unit/crew_under_test.h"

/* ---- Loading and setting up --------------------------------------------------------------------- */

static trm_status open_refused(const trm_executor_place *place, void **job, trm_traits *traits, trm_err *err)
{
    return trm_err_set(err, TRM_EJOB, "mine.so: no such job");
}

static trm_status open_crashes(const trm_executor_place *place, void **job, trm_traits *traits, trm_err *err)
{
    abort();
}

static trm_status open_loops(const trm_executor_place *place, void **job, trm_traits *traits, trm_err *err)
{
    for (volatile bool forever = true; forever;)
        poll(NULL, 0, 1000);
    return TRM_OK;
}

static const trm_executor_ops loops = {.open = open_loops, .setup = set_up, .run = run};
static const trm_executor_ops refused = {.open = open_refused, .setup = set_up, .run = run};
static const trm_executor_ops crashes = {.open = open_crashes, .setup = set_up, .run = run};

static void a_refused_kernel_is_said(void **state)
{
    fixture it;
    init(&it, 2);
    start_with(&it, &refused);
    for (unsigned i = 0; i < 2; i++) {
        trm_crew_event *event = next(&it);
        assert_int_equal(event->kind, TRM_CREW_READY);
        assert_int_equal(event->status, TRM_EJOB);
        assert_says(event->err.text, "mine.so: no such job");
    }
    trm_order order = order_of(0);
    set_up_all(&it, 1);
    assert_int_equal(trm_crew_submit(it.crew, 0, &order, 1), TRM_AGAIN);
    stop(&it);
}

static void a_kernel_that_crashes_on_loading_is_given_up(void **state)
{
    fixture it;
    init(&it, 1);
    start_with(&it, &crashes);
    trm_crew_event *event = next(&it);
    for (unsigned i = 0; event->kind == TRM_CREW_DIED; i++) {
        assert_true(i < 8);
        assert_says(event->err.text, "while it was loading the kernel");
        event = next(&it);
    }
    assert_int_equal(event->kind, TRM_CREW_READY);
    assert_int_equal(event->status, TRM_EJOB);
    assert_says(event->err.text, "SIGABRT");
    assert_int_equal(trm_crew_next(it.crew, event), TRM_AGAIN);
    stop(&it);
}

static void a_kernel_that_loops_on_loading_is_ended(void **state)
{
    fixture it;
    init(&it, 1);
    it.spec.task_timeout_ms = 50;
    start_with(&it, &loops);
    trm_crew_event *event = next(&it);
    while (event->kind == TRM_CREW_DIED) {
        assert_int_equal(event->status, TRM_ETIMEOUT);
        event = next(&it);
    }
    assert_int_equal(event->kind, TRM_CREW_READY);
    assert_int_equal(event->status, TRM_EJOB);
    assert_says(event->err.text, "--task-timeout of 0.05 s while it was loading the kernel");
    stop(&it);
}

static void a_bad_plan_fails_the_attempts(void **state)
{
    fixture it;
    char text[TRM_TEXT_BYTES_MAX + 1];
    init(&it, 1);
    start(&it);
    set_up_all(&it, 0xbad);
    submit(&it, 0, 0);
    expect_report(&it, 0, TRM_ECORRUPT);
    text_of(&it, text, sizeof text);
    assert_says(text, "that plan is not the plan");
    set_up_all(&it, 1); /* and again, when there is a good one */
    submit(&it, 0, 0);
    expect_report(&it, 0, TRM_OK);
    stop(&it);
}

static void what_cannot_be_is_refused(void **state)
{
    fixture it;
    trm_err err;
    init(&it, 4);
    it.spec.memory_bytes = 16 << 20;
    assert_int_equal(trm_crew_start_with(&it.crew, &it.spec, 0, &misdeeds, &err), TRM_EUSAGE);
    assert_says(err.text, "16 MiB");
    it.spec.memory_bytes = 0;
    it.spec.scratch_dir = temp_tree_name(&it.tree, "missing");
    assert_int_equal(trm_crew_start_with(&it.crew, &it.spec, 0, &misdeeds, &err), TRM_EIO);
    assert_says(err.text, "missing");
    assert_int_equal(entries(it.tree.path), 0);
    temp_tree_close(&it.tree);
}

/* ---- The deaths of rank and supervisor -------------------------------------------------------------- */

typedef struct family {
    pid_t supervisor, executor[2];
    char scratch[1024];
} family;

/* In a process of its own: a rank with a crew at work, which then waits to be killed. */
static _Noreturn void be_a_rank(fixture *it, int out, bool ends_itself)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    start(it);
    if (it->spec.output_dir)
        trm_crew_keep_scratch(it->crew, true);
    submit(it, 0, LOOP);
    family it_is = {.supervisor = it->crew->supervisor_pid};
    for (unsigned i = 0; i < 2; i++)
        it_is.executor[i] = executor_pid(it, i);
    snprintf(it_is.scratch, sizeof it_is.scratch, "%s", trm_crew_scratch(it->crew));
    if (write(out, &it_is, sizeof it_is) != sizeof it_is || ends_itself)
        _exit(0);
    for (;;)
        pause();
}

/* Killed; ended by itself; killed with runs that are to be kept, for a job that is done, that is not. */
static void nothing_is_left_when_the_rank_dies(void **state)
{
    for (unsigned how = 0; how < 4; how++) {
        fixture it;
        init(&it, 2);
        if (how >= 2)
            it.spec.output_dir = temp_tree_dir(&it.tree, "out");
        if (how >= 2)
            temp_tree_dir(&it.tree, "out/.trireme");
        if (how == 2)
            temp_tree_text(&it.tree, "out/_SUCCESS", "{}");
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        pid_t rank = fork();
        assert_true(rank >= 0);
        if (rank == 0) {
            close(ends[0]);
            be_a_rank(&it, ends[1], how == 1);
        }
        close(ends[1]);
        family seen;
        assert_int_equal(read(ends[0], &seen, sizeof seen), sizeof seen);
        if (how != 1)
            assert_int_equal(kill(rank, SIGKILL), 0);
        expect_gone(seen.supervisor);
        expect_gone(seen.executor[0]);
        expect_gone(seen.executor[1]);
        assert_int_equal(waitpid(rank, NULL, 0), rank);
        assert_int_equal(access(seen.scratch, F_OK), how == 3 ? 0 : -1);
        close(ends[0]);
        temp_tree_close(&it.tree);
    }
}

static void the_rank_sees_the_supervisor_die(void **state)
{
    fixture it;
    init(&it, 2);
    start(&it);
    pid_t executor[] = {executor_pid(&it, 0), executor_pid(&it, 1)};
    submit(&it, 0, LOOP);
    while (!it.crew->lanes.lane[0].board.began_ns)
        poll(NULL, 0, 1);
    kill(it.crew->supervisor_pid, SIGKILL);
    for (unsigned i = 0; i < 2; i++) {
        trm_crew_event *event = next(&it);
        assert_int_equal(event->kind, TRM_CREW_DIED);
        assert_int_equal(event->status, TRM_EPEER);
        assert_int_equal(event->lost_count, event->executor == 0);
        assert_int_equal(event->running, event->executor == 0);
    }
    assert_int_equal(trm_crew_next(it.crew, &it.event), TRM_EPEER);
    expect_gone(executor[0]);
    expect_gone(executor[1]);
    stop(&it);
}

static void kept_scratch_stays(void **state)
{
    fixture it;
    init(&it, 1);
    start(&it);
    char path[1024];
    struct stat about;
    snprintf(path, sizeof path, "%s", trm_crew_run_store(it.crew));
    trm_crew_keep_scratch(it.crew, true);
    trm_crew_stop(it.crew, 100);
    assert_int_equal(stat(path, &about), 0);
    assert_int_equal(about.st_mode & 0777, 0700);
    start(&it); /* whose sweep leaves it */
    assert_int_equal(stat(path, &about), 0);
    trm_crew_keep_scratch(it.crew, true);
    trm_crew_keep_scratch(it.crew, false);
    trm_crew_stop(it.crew, 0);
    assert_int_equal(entries(it.tree.path), 1);
    temp_tree_close(&it.tree);
}

/* What an executor holds: three standard descriptors, orders, wakes. */
static void executors_hold_their_own_only(void **state)
{
    fixture it;
    init(&it, 3);
    int stray = open("/dev/null", O_RDONLY); /* without O_CLOEXEC, as launchers leave them */
    start(&it);
    char path[64];
    for (unsigned i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "/proc/%d/fd", (int)executor_pid(&it, i));
        assert_int_equal(entries(path), 5);
    }
    /* standard ones, rank, wakes, lock, signals, and an order socket and a pipe an executor */
    snprintf(path, sizeof path, "/proc/%d/fd", (int)it.crew->supervisor_pid);
    assert_int_equal(entries(path), 7 + 2 * 3);
    close(stray);
    stop(&it);
}

/* What a low limit leaves is enough: none is put out of the way higher than it must. */
static void executors_begin_with_few_descriptors(void **state)
{
    fixture it;
    struct rlimit before, few;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = (struct rlimit){64, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    init(&it, 2);
    start(&it);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    stop(&it);
}

static void bindings_are_told(void **state)
{
    fixture it;
    init(&it, 2);
    start(&it);
    assert_int_equal(trm_crew_executors(it.crew), 2);
    assert_true(trm_crew_executor_memory_bytes(it.crew) == 56 << 20);
    assert_says(trm_crew_bindings(it.crew), "rank 0 on ");
    assert_says(trm_crew_bindings(it.crew), "2 executors with 56 MiB each\n");
    assert_says(trm_crew_bindings(it.crew), "  executor 1: ");
    cpu_set_t rank, executor;
    assert_int_equal(sched_getaffinity(0, sizeof rank, &rank), 0);
    assert_int_equal(sched_getaffinity(executor_pid(&it, 0), sizeof executor, &executor), 0);
    assert_true(CPU_COUNT(&executor) <= CPU_COUNT(&rank));
    CPU_AND(&rank, &rank, &executor);
    assert_true(CPU_EQUAL(&rank, &executor));
    stop(&it);
}

/* ---- What it costs ---------------------------------------------------------------------------------- */

/* Empty orders through one executor, as many in its hands as it takes. Prints; asserts no time. */
static void what_an_order_costs(void **state)
{
    fixture it;
    init(&it, 1);
    start(&it);
    enum { TASKS = 100000 };
    static trm_order orders[TRM_CREW_QUEUE_MAX];
    for (unsigned i = 0; i < TRM_CREW_QUEUE_MAX; i++)
        orders[i] = order_of(0);
    unsigned given = 0, done = 0;
    uint64_t began_ns = trm_clock_now_ns();
    while (done < TASKS) {
        unsigned room = TRM_CREW_QUEUE_MAX - trm_crew_queued(it.crew, 0);
        unsigned count = TASKS - given < room ? TASKS - given : room;
        if (count >= TRM_EXECUTOR_WAKE_ORDERS || (count > 0 && room == TRM_CREW_QUEUE_MAX)) {
            assert_int_equal(trm_crew_submit(it.crew, 0, orders, count), TRM_OK);
            given += count;
        }
        assert_int_equal(next(&it)->kind, TRM_CREW_REPORT);
        done++;
    }
    double us = (double)(trm_clock_now_ns() - began_ns) / 1000 / TASKS;
    print_message("             %u empty orders: %.2f us each\n", TASKS, us);
    stop(&it);
}

int main(void)
{
    trm_diag_configure(TRM_DIAG_ERROR, -1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_refused_kernel_is_said),
        cmocka_unit_test(a_kernel_that_crashes_on_loading_is_given_up),
        cmocka_unit_test(a_kernel_that_loops_on_loading_is_ended),
        cmocka_unit_test(a_bad_plan_fails_the_attempts),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(nothing_is_left_when_the_rank_dies),
        cmocka_unit_test(the_rank_sees_the_supervisor_die),
        cmocka_unit_test(kept_scratch_stays),
        cmocka_unit_test(executors_hold_their_own_only),
        cmocka_unit_test(executors_begin_with_few_descriptors),
        cmocka_unit_test(bindings_are_told),
        cmocka_unit_test(what_an_order_costs),
    };
    return cmocka_run_group_tests_name("crew life", tests, NULL, NULL);
}
