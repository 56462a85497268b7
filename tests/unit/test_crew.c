/* workers/crew: kernels that misbehave in every way cost their attempt and nothing else. */
#include "config.h" /* system extensions, before any header of the system */

#include "tests/unit/crew_under_test.h"

static void orders_are_run_and_reported_in_order(void **state)
{
    fixture it;
    init(&it, 2);
    start(&it);
    enum { TASKS = TRM_CREW_QUEUE_MAX };
    trm_order orders[TASKS];
    for (unsigned i = 0; i < TASKS; i++)
        orders[i] = order_of(i * MISDEEDS);
    for (unsigned executor = 0; executor < 2; executor++)
        assert_int_equal(trm_crew_submit(it.crew, executor, orders, TASKS), TRM_OK);
    unsigned seen[2] = {0, 0};
    while (seen[0] + seen[1] < 2 * TASKS) {
        trm_crew_event *event = next(&it);
        assert_int_equal(event->kind, TRM_CREW_REPORT);
        assert_int_equal(event->report.task, MISDEEDS * seen[event->executor]++);
        assert_int_equal(event->report.executor, event->executor);
        assert_true(event->report.ended_ms >= event->report.started_ms);
    }
    assert_int_equal(trm_crew_queued(it.crew, 0), 0);
    stop(&it);
}

static void a_full_queue_takes_nothing(void **state)
{
    fixture it;
    init(&it, 1);
    start(&it);
    trm_order orders[TRM_CREW_QUEUE_MAX];
    for (unsigned i = 0; i < TRM_CREW_QUEUE_MAX; i++)
        orders[i] = order_of(0);
    assert_int_equal(trm_crew_submit(it.crew, 0, orders, TRM_CREW_QUEUE_MAX), TRM_OK);
    assert_int_equal(trm_crew_submit(it.crew, 0, orders, 1), TRM_AGAIN); /* none was taken back yet */
    expect_report(&it, 0, TRM_OK);
    assert_int_equal(trm_crew_submit(it.crew, 0, orders, 2), TRM_AGAIN);
    assert_int_equal(trm_crew_submit(it.crew, 0, orders, 1), TRM_OK);
    stop(&it);
}

/* Far more than the ring holds: the executor waits, and nothing is lost. */
static void large_reports_wait_for_room(void **state)
{
    fixture it;
    init(&it, 1);
    start(&it);
    trm_order orders[TRM_CREW_QUEUE_MAX];
    for (unsigned i = 0; i < TRM_CREW_QUEUE_MAX; i++)
        orders[i] = (trm_order){.phase = TRM_PHASE_SAMPLE, .task = LARGE_SAMPLE, .attempt = i};
    assert_int_equal(trm_crew_submit(it.crew, 0, orders, TRM_CREW_QUEUE_MAX), TRM_OK);
    for (unsigned i = 0; i < TRM_CREW_QUEUE_MAX; i++) {
        trm_crew_event *event = next(&it);
        assert_int_equal(event->kind, TRM_CREW_REPORT);
        assert_int_equal(event->report.attempt, i);
        assert_int_equal(event->report.sample_len, TRM_SAMPLE_BYTES_MAX);
        assert_int_equal(event->report.sample[TRM_SAMPLE_BYTES_MAX - 1], i & 0xff);
    }
    stop(&it);
}

/* The misdeed in the middle of orders: the one before is reported, it alone has run, the
 * ones after it are given back, and the replacement runs them. */
static trm_crew_event misbehave(fixture *it, misdeed what, trm_status status)
{
    trm_order orders[] = {order_of(0), order_of(what), order_of(MISDEEDS), order_of(2 * MISDEEDS)};
    assert_int_equal(trm_crew_submit(it->crew, 0, orders, 4), TRM_OK);
    pid_t pid = executor_pid(it, 0);
    expect_report(it, 0, TRM_OK);
    trm_crew_event event = *expect_died(it, 0, status);
    assert_true(event.running);
    assert_int_equal(event.lost_count, 3);
    assert_int_equal(event.lost[0].task, what);
    assert_int_equal(event.lost[1].task, MISDEEDS);
    assert_int_equal(event.lost[2].task, 2 * MISDEEDS);
    assert_true(is_gone(pid));
    trm_order rest[2] = {event.lost[1], event.lost[2]};
    assert_int_equal(trm_crew_queued(it->crew, 0), 0);
    assert_int_equal(trm_crew_submit(it->crew, 0, rest, 2), TRM_AGAIN); /* not READY */
    expect_ready(it, 0);
    assert_int_not_equal(executor_pid(it, 0), pid);
    assert_int_equal(trm_crew_submit(it->crew, 0, rest, 2), TRM_OK);
    expect_report(it, MISDEEDS, TRM_OK);
    expect_report(it, 2 * MISDEEDS, TRM_OK);
    return event;
}

static void a_crash_costs_one_attempt(void **state)
{
    fixture it;
    init(&it, 1);
    start(&it);
    trm_crew_event event = misbehave(&it, SEGFAULT, TRM_EKERNEL);
    assert_says(event.err.text, "SIGSEGV");
    assert_says(event.err.text, "0x10");
    assert_says(event.err.text, "map task 1, attempt 2");
    assert_says(event.err.text, "byte 4711 of /in/file-1");
    assert_says(event.last_words, "about to fall");
    event = misbehave(&it, ABORT, TRM_EKERNEL);
    assert_says(event.err.text, "SIGABRT");
    assert_says(event.last_words, "giving up");
    event = misbehave(&it, EXIT, TRM_EKERNEL);
    assert_says(event.err.text, "status 3");
    event = misbehave(&it, STACK, TRM_EKERNEL);
    assert_says(event.err.text, "SIGSEGV");
    event = misbehave(&it, STOP_ITSELF, TRM_EKERNEL);
    assert_says(event.err.text, "SIGKILL");
    stop(&it);
}

static void a_crash_says_where(void **state)
{
    fixture it;
    init(&it, 1);
    start(&it);
    trm_crew_event event = misbehave(&it, SEGFAULT, TRM_EKERNEL);
    assert_says(event.last_words, "stack, innermost first:");
    assert_says(event.last_words, "test_crew");
    stop(&it);
}

static void a_loop_is_ended(void **state)
{
    fixture it;
    init(&it, 1);
    it.spec.task_timeout_ms = 200;
    start(&it);
    trm_crew_event event = misbehave(&it, LOOP, TRM_ETIMEOUT);
    assert_says(event.err.text, "--task-timeout of 0.2 s");
    assert_says(event.err.text, "/in/file-4");
    stop(&it);
}

/* It is stopped or loops: it ends all the same, and is blamed on nothing. What is behind it runs. */
static void an_order_that_runs_can_be_cancelled(void **state)
{
    fixture it;
    init(&it, 2);
    start(&it);
    trm_order orders[] = {order_of(LOOP), order_of(MISDEEDS)};
    assert_int_equal(trm_crew_submit(it.crew, 1, orders, 2), TRM_OK);
    trm_order other = orders[0];
    other.attempt++;
    assert_false(trm_crew_cancel(it.crew, &other));
    assert_false(trm_crew_cancel(it.crew, &orders[1])); /* it is behind another */
    pid_t pid = executor_pid(&it, 1);
    while (!__atomic_load_n(&it.crew->lanes.lane[1].board.began_ns, __ATOMIC_ACQUIRE))
        poll(NULL, 0, 1);
    trm_begun begun;
    assert_false(trm_crew_begun(it.crew, 0, trm_clock_now_ns(), &begun));
    assert_true(trm_crew_begun(it.crew, 1, trm_clock_now_ns() + 7000 * TRM_NS_PER_MS, &begun));
    assert_true(begun.phase == orders[0].phase && begun.task == LOOP && begun.attempt == orders[0].attempt);
    assert_true(begun.ms >= 7000);
    kill(pid, SIGSTOP);
    assert_true(trm_crew_cancel(it.crew, &orders[0]));
    assert_true(trm_crew_cancel(it.crew, &orders[0])); /* told twice */
    trm_crew_event event = *expect_died(&it, 1, TRM_EKERNEL);
    assert_true(event.cancelled && event.running && event.lost_count == 2);
    assert_int_equal(event.lost[0].task, LOOP);
    assert_true(is_gone(pid));
    expect_ready(&it, 1);
    submit(&it, 1, SEGFAULT);
    event = *expect_died(&it, 1, TRM_EKERNEL);
    assert_false(event.cancelled); /* the next one is itself to blame */
    expect_ready(&it, 1);
    stop(&it);
}

static void a_leak_meets_its_limit(void **state)
{
#ifndef TRM_SANITIZED
    fixture it;
    init(&it, 1);
    start(&it);
    trm_crew_event event = misbehave(&it, LEAK, TRM_ELIMIT);
    assert_says(event.err.text, "memory limit of 56 MiB");
    assert_says(event.err.text, "SIGSEGV");
    event = misbehave(&it, LEAK_AND_EXIT, TRM_ELIMIT);
    assert_says(event.err.text, "memory limit of 56 MiB");
    assert_says(event.err.text, "status 1");
    event = misbehave(&it, LEAK_QUIETLY, TRM_ELIMIT);
    assert_says(event.err.text, "memory limit of 56 MiB");
    stop(&it);
#else
    skip(); /* the limit is off */
#endif
}

/* What is mapped is not used: it dies of what it does. */
static void a_crash_with_much_mapped_is_a_crash(void **state)
{
#ifndef TRM_SANITIZED
    fixture it;
    init(&it, 1);
    start(&it);
    trm_crew_event event = misbehave(&it, MAP_MUCH, TRM_EKERNEL);
    assert_says(event.err.text, "died of SIGSEGV at address 0x30");
    stop(&it);
#else
    skip(); /* the limit is off */
#endif
}

static void a_failure_carries_what_was_printed(void **state)
{
    fixture it;
    char text[TRM_TEXT_BYTES_MAX + 1];
    init(&it, 1);
    start(&it);
    submit(&it, 0, FAIL_AND_PRINT);
    expect_report(&it, FAIL_AND_PRINT, TRM_EKERNEL);
    text_of(&it, text, sizeof text);
    assert_string_equal(it.event.err.text, "the map said no");
    assert_says(text, "the map said no\n");
    assert_says(text, "first line\nsecond ?[31mline");
    submit(&it, 0, PRINT_TO_STDOUT);
    expect_report(&it, PRINT_TO_STDOUT, TRM_EKERNEL);
    text_of(&it, text, sizeof text);
    assert_says(text, "to standard output");
    assert_null(strstr(text, "first line")); /* that was another attempt */
    submit(&it, 0, LONG_TEXT);
    expect_report(&it, LONG_TEXT, TRM_EKERNEL);
    assert_int_equal(it.event.report.text_len, TRM_ERR_TEXT_BYTES - 1);
    stop(&it);
}

static void a_flood_is_bounded(void **state)
{
    fixture it;
    char text[TRM_TEXT_BYTES_MAX + 1], path[1200];
    struct stat about;
    init(&it, 1);
    start(&it);
    submit(&it, 0, FLOOD);
    expect_report(&it, FLOOD, TRM_EKERNEL);
    text_of(&it, text, sizeof text);
    assert_says(text, "line 199999 of");
    snprintf(path, sizeof path, "%s/output/executor-0", trm_crew_scratch(it.crew));
    assert_int_equal(stat(path, &about), 0);
    assert_int_equal(about.st_size, TRM_OUTPUT_FILE_BYTES_MAX);
    assert_int_equal(about.st_mode & 0777, 0600);
    stop(&it);
}

static void what_a_kernel_forks_is_ended(void **state)
{
    fixture it;
    init(&it, 1);
    start(&it);
    for (unsigned what = LEAVE_CHILD; what <= LEAVE_DAEMON; what++) {
        trm_crew_event event = misbehave(&it, (misdeed)what, TRM_EKERNEL);
        int pid = 0;
        const char *said = strstr(event.last_words, "child ");
        assert_non_null(said);
        assert_int_equal(sscanf(said, "child %d", &pid), 1);
        if (what == LEAVE_CHILD) {
            expect_gone(pid);
        } else { /* it has left the group: ended with the crew */
            assert_false(is_gone(pid));
            stop(&it);
            expect_gone(pid);
        }
    }
}

static void nonsense_is_not_obeyed(void **state)
{
    fixture it;
    init(&it, 1);
    start(&it);
    /* It writes over the report of the order before it, which may be read by then. */
    trm_order orders[] = {order_of(0), order_of(OVERWRITE_RING), order_of(MISDEEDS)};
    assert_int_equal(trm_crew_submit(it.crew, 0, orders, 3), TRM_OK);
    bool reported = next(&it)->kind == TRM_CREW_REPORT;
    trm_crew_event event = reported ? *next(&it) : it.event;
    assert_int_equal(event.kind, TRM_CREW_DIED);
    assert_says(event.err.text, "made no sense");
    assert_true(event.running);
    assert_int_equal(event.lost[0].task, OVERWRITE_RING);
    assert_int_equal(event.lost_count, reported ? 2 : 3);
    assert_int_equal(event.lost[event.lost_count - 1].task, MISDEEDS);
    expect_ready(&it, 0);
    event = misbehave(&it, FORGE_REPORT, TRM_EKERNEL);
    assert_says(event.err.text, "made no sense");
    misbehave(&it, OVERWRITE_BOARD, TRM_EKERNEL);
    submit(&it, 0, CLOSE_ALL);
    trm_crew_event *died = next(&it);
    if (died->kind == TRM_CREW_REPORT) /* the report lay in the ring already */
        died = next(&it);
    assert_int_equal(died->kind, TRM_CREW_DIED);
    expect_ready(&it, 0);
    assert_int_equal(it.crew->dropped, 2);
    stop(&it);
}

static void one_crash_leaves_the_others_alone(void **state)
{
    fixture it;
    init(&it, 2);
    start(&it);
    pid_t other = executor_pid(&it, 1);
    for (unsigned i = 0; i < 5; i++) {
        submit(&it, 0, SEGFAULT);
        submit(&it, 1, i * MISDEEDS);
        bool died = false, reported = false, ready = false;
        while (!died || !reported || !ready) {
            trm_crew_event *event = next(&it);
            assert_int_equal(event->executor, event->kind == TRM_CREW_REPORT ? 1 : 0);
            died |= event->kind == TRM_CREW_DIED;
            ready |= event->kind == TRM_CREW_READY;
            reported |= event->kind == TRM_CREW_REPORT;
        }
    }
    assert_int_equal(executor_pid(&it, 1), other);
    stop(&it);
}

static void death_while_idle_costs_nothing(void **state)
{
    fixture it;
    init(&it, 1);
    start(&it);
    submit(&it, 0, 0);
    expect_report(&it, 0, TRM_OK);
    kill(executor_pid(&it, 0), SIGKILL);
    trm_crew_event *event = expect_died(&it, 0, TRM_EKERNEL);
    assert_false(event->running);
    assert_int_equal(event->lost_count, 0);
    assert_says(event->err.text, "while it had no task");
    expect_ready(&it, 0);
    submit(&it, 0, MISDEEDS);
    expect_report(&it, MISDEEDS, TRM_OK);
    stop(&it);
}

int main(void)
{
    trm_diag_configure(TRM_DIAG_ERROR, -1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(orders_are_run_and_reported_in_order),
        cmocka_unit_test(a_full_queue_takes_nothing),
        cmocka_unit_test(large_reports_wait_for_room),
        cmocka_unit_test(a_crash_costs_one_attempt),
        cmocka_unit_test(a_crash_says_where),
        cmocka_unit_test(a_loop_is_ended),
        cmocka_unit_test(an_order_that_runs_can_be_cancelled),
        cmocka_unit_test(a_leak_meets_its_limit),
        cmocka_unit_test(a_crash_with_much_mapped_is_a_crash),
        cmocka_unit_test(a_failure_carries_what_was_printed),
        cmocka_unit_test(a_flood_is_bounded),
        cmocka_unit_test(what_a_kernel_forks_is_ended),
        cmocka_unit_test(nonsense_is_not_obeyed),
        cmocka_unit_test(one_crash_leaves_the_others_alone),
        cmocka_unit_test(death_while_idle_costs_nothing),
    };
    return cmocka_run_group_tests_name("crew", tests, NULL, NULL);
}
