/* workers/crew: kernels that misbehave in every way cost their attempt and nothing else, and
 * no process or file is left behind, whoever dies.
 *
 * The executors run a table of small kernels in place of a job: the number of the task says
 * which one (see run). */
#include "config.h" /* system extensions, before any header of the system */

#include "workers/crew_self.h"

#include "runtime/clock.h"
#include "runtime/diag.h"
#include "temp_tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define WAIT_S 60u /* for an event that must come: a test that hangs ends with a failure */

/* What a test leaves in a process that is killed is no leak; memory may be refused. */
const char *__asan_default_options(void);
__attribute__((visibility("default"))) const char *__asan_default_options(void)
{
    return "detect_leaks=0:allocator_may_return_null=1";
}

#define LEFT_BYTES (4u << 20)

/* ---- Kernels ------------------------------------------------------------------------------ */

typedef enum misdeed {
    FINE = 0,
    SEGFAULT,
    ABORT,
    EXIT,
    LOOP,
    LEAK,
    LEAK_AND_EXIT,
    LEAK_QUIETLY,
    MAP_MUCH,
    FAIL_AND_PRINT,
    FLOOD,
    STACK,
    LEAVE_CHILD,
    LEAVE_DAEMON,
    OVERWRITE_RING,
    FORGE_REPORT,
    OVERWRITE_BOARD,
    STOP_ITSELF,
    CLOSE_ALL,
    LONG_TEXT,
    PRINT_TO_STDOUT,
    LARGE_SAMPLE,
    MISDEEDS
} misdeed;

static trm_board *own_board;
static trm_lane *own_lane;
static uint64_t own_generation;

static trm_status open_fine(const trm_executor_place *place, void **job, trm_traits *traits, trm_err *err)
{
    own_board = place->board;
    own_lane = (trm_lane *)(void *)place->board;
    memset(traits, 0, sizeof *traits);
    snprintf(traits->name, sizeof traits->name, "misdeeds");
    traits->input = TRM_INPUT_NONE;
    own_generation = own_board->generation;
    *job = traits;
    return TRM_OK;
}

static trm_status set_up(void *job, const trm_crew_setup_msg *setup, trm_err *err)
{
    return setup->plan_crc == 0xbad ? trm_err_set(err, TRM_ECORRUPT, "that plan is not the plan") : TRM_OK;
}

__attribute__((noinline)) static int recurse(int depth)
{
    volatile char room[4096];
    room[depth % 4096] = (char)depth;
    return depth < 0 ? room[7] : recurse(depth + 1) + room[depth % 4096];
}

static void write_to(uintptr_t where)
{
    volatile uintptr_t address = where; /* not known to the compiler */
    *(volatile int *)address = 1;
}

static void leak(void)
{
    for (unsigned i = 0; i < 4096; i++) {
        char *volatile more = malloc(1 << 20); /* or a compiler leaves it out */
        if (!more)
            break;
        memset(more, 1, 1 << 20);
    }
}

/* All that it may but LEFT_BYTES, of which it uses nothing. */
static void map_much(void)
{
    struct rlimit limit;
    void *all = MAP_FAILED;
    if (getrlimit(RLIMIT_DATA, &limit))
        abort();
    for (size_t bytes = limit.rlim_cur; bytes > LEFT_BYTES && all == MAP_FAILED; bytes -= 1 << 18) {
        all = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (all != MAP_FAILED && munmap((char *)all + bytes - LEFT_BYTES, LEFT_BYTES))
            abort();
    }
    errno = 0;
}

/* A child that would live for an hour; says its number on standard error. */
static void leave_child(bool own_session)
{
    int ends[2];
    char ready;
    if (pipe(ends))
        abort();
    pid_t pid = fork();
    if (pid == 0) {
        if ((own_session && setsid() < 0) || write(ends[1], "", 1) != 1)
            _exit(1);
        for (unsigned i = 0; i < 360; i++)
            poll(NULL, 0, 10000);
        _exit(0);
    }
    if (read(ends[0], &ready, 1) != 1) /* it has settled */
        abort();
    fprintf(stderr, "child %d\n", (int)pid);
    kill(getpid(), SIGBUS);
}

static void forge_report(void)
{
    trm_report report = {.phase = TRM_PHASE_MAP, .task = 77, .attempt = 3};
    trm_writer out;
    trm_writer_init(&out);
    trm_crew_report_encode(own_generation, &report, &out);
    trm_lane_put(own_lane, out.data, out.len);
    poll(NULL, 0, 3600 * 1000);
}

static trm_status run(void *job, const trm_order *order, trm_report *report, trm_err *err)
{
    report->output_records = order->task;
    snprintf(own_board->place, sizeof own_board->place, "/in/file-%u", order->task);
    own_board->place_offset = 4711;
    switch (order->task % MISDEEDS) {
    case SEGFAULT:
        fprintf(stderr, "about to fall\n");
        write_to(0x10);
        break;
    case ABORT:
        fprintf(stderr, "giving up");
        abort();
    case EXIT:
        exit(3);
    case LOOP:
        for (volatile unsigned forever = 1; forever;)
            continue;
        break;
    case LEAK:
        leak();
        write_to(0x20); /* as with a NULL that nobody checked */
        break;
    case LEAK_AND_EXIT:
        leak();
        exit(1);
    case LEAK_QUIETLY:
        leak();
        errno = 0;
        write_to(0x20);
        break;
    case MAP_MUCH:
        map_much();
        write_to(0x30);
        break;
    case FAIL_AND_PRINT:
        fprintf(stderr, "first line\nsecond \033[31mline\n");
        return trm_err_set(err, TRM_EKERNEL, "the map said no");
    case FLOOD:
        for (unsigned i = 0; i < 200000; i++)
            fprintf(stderr, "line %u of a great many lines that nobody wants to read\n", i);
        return trm_err_set(err, TRM_EKERNEL, "flooded");
    case STACK:
        return (trm_status)recurse(1);
    case LEAVE_CHILD:
    case LEAVE_DAEMON:
        leave_child(order->task % MISDEEDS == LEAVE_DAEMON);
        break;
    case OVERWRITE_RING:
        memset(own_lane->ring, 0x5a, sizeof own_lane->ring);
        own_lane->head += 1000;
        poll(NULL, 0, 3600 * 1000);
        break;
    case FORGE_REPORT:
        forge_report();
        break;
    case OVERWRITE_BOARD:
        memset(own_board, 0x41, sizeof *own_board);
        abort();
    case STOP_ITSELF:
        raise(SIGKILL);
        break;
    case CLOSE_ALL:
        for (int fd = 0; fd < 64; fd++)
            close(fd);
        break;
    case LONG_TEXT:
        memset(err->text, 'x', sizeof err->text - 1);
        err->text[sizeof err->text - 1] = 0;
        return TRM_EKERNEL;
    case LARGE_SAMPLE: {
        static uint8_t sample[TRM_SAMPLE_BYTES_MAX];
        memset(sample, (int)order->attempt, sizeof sample);
        report->sample = sample;
        report->sample_len = sizeof sample;
        break;
    }
    case PRINT_TO_STDOUT:
        printf("to standard output\n");
        return trm_err_set(err, TRM_EKERNEL, "it printed");
    default:
        break;
    }
    return TRM_OK;
}

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
static const trm_executor_ops misdeeds = {.open = open_fine, .setup = set_up, .run = run};
static const trm_executor_ops refused = {.open = open_refused, .setup = set_up, .run = run};
static const trm_executor_ops crashes = {.open = open_crashes, .setup = set_up, .run = run};

/* ---- A crew under test ------------------------------------------------------------------------ */

typedef struct fixture {
    temp_tree tree;
    trm_spec spec;
    trm_crew *crew;
    trm_crew_event event;
} fixture;

static void init(fixture *self, unsigned executors)
{
    memset(self, 0, sizeof *self);
    temp_tree_init(&self->tree);
    self->spec.scratch_dir = self->tree.path;
    self->spec.state_dir = self->tree.path;
    self->spec.executors = executors;
    self->spec.memory_bytes = executors * (64ull << 20);
}

static void start_with(fixture *self, const trm_executor_ops *ops)
{
    trm_err err;
    trm_status status = trm_crew_start_with(&self->crew, &self->spec, 0, ops, &err);
    if (status)
        print_message("%s\n", err.text);
    assert_int_equal(status, TRM_OK);
}

/* The next event; fails when there is none in time. */
static trm_crew_event *next(fixture *self)
{
    uint64_t end_ns = trm_clock_now_ns() + WAIT_S * TRM_NS_PER_S;
    for (;;) {
        trm_status status = trm_crew_next(self->crew, &self->event);
        if (status == TRM_OK)
            return &self->event;
        assert_int_equal(status, TRM_AGAIN);
        assert_true(trm_clock_now_ns() < end_ns);
        int fds[4];
        struct pollfd polled[4];
        unsigned count = trm_crew_fds(self->crew, fds, 4);
        for (unsigned i = 0; i < count; i++)
            polled[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
        poll(polled, count, 1000);
    }
}

static void set_up_all(fixture *self, uint32_t plan_crc)
{
    trm_setup setup = {.plan_crc = plan_crc};
    assert_int_equal(trm_crew_setup(self->crew, &setup, 1), TRM_OK);
}

static void start(fixture *self)
{
    start_with(self, &misdeeds);
    for (unsigned i = 0; i < self->spec.executors; i++) {
        trm_crew_event *event = next(self);
        assert_int_equal(event->kind, TRM_CREW_READY);
        assert_int_equal(event->status, TRM_OK);
        assert_string_equal(event->traits->name, "misdeeds");
    }
    set_up_all(self, 1);
}

static trm_order order_of(unsigned task)
{
    return (trm_order){.phase = TRM_PHASE_MAP, .task = task, .attempt = 2};
}

static void submit(fixture *self, unsigned executor, unsigned task)
{
    trm_order order = order_of(task);
    assert_int_equal(trm_crew_submit(self->crew, executor, &order, 1), TRM_OK);
}

static void expect_report(fixture *self, unsigned task, trm_status status)
{
    trm_crew_event *event = next(self);
    assert_int_equal(event->kind, TRM_CREW_REPORT);
    assert_int_equal(event->report.task, task);
    assert_int_equal(event->report.attempt, 2);
    assert_int_equal(event->status, status);
    assert_int_equal(event->report.status, status);
    if (status == TRM_OK)
        assert_int_equal(event->report.output_records, task);
}

static trm_crew_event *expect_died(fixture *self, unsigned executor, trm_status status)
{
    trm_crew_event *event = next(self);
    if (event->kind == TRM_CREW_DIED && event->status != status)
        print_message("%s: %s\n", trm_status_name(event->status), event->err.text);
    assert_int_equal(event->kind, TRM_CREW_DIED);
    assert_int_equal(event->executor, executor);
    assert_int_equal(event->status, status);
    return event;
}

static void expect_ready(fixture *self, unsigned executor)
{
    trm_crew_event *event = next(self);
    assert_int_equal(event->kind, TRM_CREW_READY);
    assert_int_equal(event->executor, executor);
    assert_int_equal(event->status, TRM_OK);
}

static void assert_says(const char *text, const char *part)
{
    if (!strstr(text, part))
        print_message("'%s' is not in '%s'\n", part, text);
    assert_non_null(strstr(text, part));
}

/* Gone, or dead and not reaped by whoever adopted it. */
static bool is_gone(pid_t pid)
{
    char path[64], text[256] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return true;
    size_t len = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[len] = 0;
    char *close = strrchr(text, ')');
    return !close || close[2] == 'Z' || close[2] == 'X';
}

static void expect_gone(pid_t pid)
{
    uint64_t end_ns = trm_clock_now_ns() + WAIT_S * TRM_NS_PER_S;
    while (!is_gone(pid)) {
        assert_true(trm_clock_now_ns() < end_ns);
        poll(NULL, 0, 1);
    }
}

static pid_t executor_pid(const fixture *self, unsigned executor)
{
    return (pid_t)self->crew->lanes.lane[executor].pid;
}

static unsigned entries(const char *path)
{
    unsigned count = 0;
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

static void stop(fixture *self)
{
    pid_t supervisor = self->crew->supervisor_pid, executor = executor_pid(self, 0);
    trm_crew_stop(self->crew, 0);
    self->crew = NULL;
    assert_true(is_gone(supervisor));
    if (executor > 0)
        assert_true(is_gone(executor));
    assert_int_equal(entries(self->tree.path), 0);
    temp_tree_close(&self->tree);
}

/* ---- What kernels do ------------------------------------------------------------------------ */

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

static void text_of(const fixture *self, char *out, size_t out_bytes)
{
    assert_true(self->event.report.text_len < out_bytes);
    memcpy(out, self->event.report.text, self->event.report.text_len);
    out[self->event.report.text_len] = 0;
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

/* ---- Loading and setting up --------------------------------------------------------------------- */

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
        cmocka_unit_test(a_refused_kernel_is_said),
        cmocka_unit_test(a_kernel_that_crashes_on_loading_is_given_up),
        cmocka_unit_test(a_kernel_that_loops_on_loading_is_ended),
        cmocka_unit_test(a_bad_plan_fails_the_attempts),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(nothing_is_left_when_the_rank_dies),
        cmocka_unit_test(the_rank_sees_the_supervisor_die),
        cmocka_unit_test(kept_scratch_stays),
        cmocka_unit_test(executors_hold_their_own_only),
        cmocka_unit_test(bindings_are_told),
        cmocka_unit_test(what_an_order_costs),
    };
    return cmocka_run_group_tests_name("crew", tests, NULL, NULL);
}
