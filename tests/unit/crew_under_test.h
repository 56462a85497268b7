/* A crew under test, whose executors run a table of small kernels in place of a job: the number of the task
 * says which one (see run). Included by one file a program, after config.h. */
#ifndef TRM_TESTS_UNIT_CREW_UNDER_TEST_H
#define TRM_TESTS_UNIT_CREW_UNDER_TEST_H

#include "workers/crew_self.h"

#include "runtime/clock.h"
#include "runtime/diag.h"
#include "temp_tree.h"
#include "tests/support/crew_wait.h"

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

/* What a test leaves in a process that is killed is no leak; memory may be refused. */
const char *__asan_default_options(void);
__attribute__((visibility("default"))) const char *__asan_default_options(void)
{
    return "detect_leaks=0:allocator_may_return_null=1";
}

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

static inline trm_status open_fine(const trm_executor_place *place, void **job, trm_traits *traits,
                                   trm_err *err)
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

static inline trm_status set_up(void *job, const trm_crew_setup_msg *setup, trm_err *err)
{
    return setup->plan_crc == 0xbad ? trm_err_set(err, TRM_ECORRUPT, "that plan is not the plan") : TRM_OK;
}

__attribute__((noinline, unused)) static int recurse(int depth)
{
    volatile char room[4096];
    room[depth % 4096] = (char)depth;
    return depth < 0 ? room[7] : recurse(depth + 1) + room[depth % 4096];
}

static inline void write_to(uintptr_t where)
{
    volatile uintptr_t address = where; /* not known to the compiler */
    *(volatile int *)address = 1;
}

static inline void leak(void)
{
    for (unsigned i = 0; i < 4096; i++) {
        char *volatile more = malloc(1 << 20); /* or a compiler leaves it out */
        if (!more)
            break;
        memset(more, 1, 1 << 20);
    }
}

#define LEFT_BYTES (4u << 20)

/* All that it may but LEFT_BYTES, of which it uses nothing. */
static inline void map_much(void)
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
static inline void leave_child(bool own_session)
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

static inline void forge_report(void)
{
    trm_report report = {.phase = TRM_PHASE_MAP, .task = 77, .attempt = 3};
    trm_writer out;
    trm_writer_init(&out);
    trm_crew_report_encode(own_generation, &report, &out);
    trm_lane_put(own_lane, out.data, out.len);
    poll(NULL, 0, 3600 * 1000);
}

static inline trm_status run(void *job, const trm_order *order, trm_report *report, trm_err *err)
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

static const trm_executor_ops misdeeds = {.open = open_fine, .setup = set_up, .run = run};

/* ---- A crew under test ------------------------------------------------------------------------ */

typedef struct fixture {
    temp_tree tree;
    trm_spec spec;
    trm_crew *crew;
    trm_crew_event event;
} fixture;

static inline void init(fixture *self, unsigned executors)
{
    memset(self, 0, sizeof *self);
    temp_tree_init(&self->tree);
    self->spec.scratch_dir = self->tree.path;
    self->spec.state_dir = self->tree.path;
    self->spec.executors = executors;
    self->spec.memory_bytes = executors * (64ull << 20);
}

static inline void start_with(fixture *self, const trm_executor_ops *ops)
{
    trm_err err;
    trm_status status = trm_crew_start_with(&self->crew, &self->spec, 0, ops, &err);
    if (status)
        print_message("%s\n", err.text);
    assert_int_equal(status, TRM_OK);
}

/* The next event; fails when there is none in time. */
static inline trm_crew_event *next(fixture *self)
{
    assert_int_equal(crew_wait(self->crew, &self->event), TRM_OK);
    return &self->event;
}

static inline void set_up_all(fixture *self, uint32_t plan_crc)
{
    trm_setup setup = {.plan_crc = plan_crc};
    assert_int_equal(trm_crew_setup(self->crew, &setup, 1), TRM_OK);
}

static inline void start(fixture *self)
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

static inline trm_order order_of(unsigned task)
{
    return (trm_order){.phase = TRM_PHASE_MAP, .task = task, .attempt = 2};
}

static inline void submit(fixture *self, unsigned executor, unsigned task)
{
    trm_order order = order_of(task);
    assert_int_equal(trm_crew_submit(self->crew, executor, &order, 1), TRM_OK);
}

static inline void expect_report(fixture *self, unsigned task, trm_status status)
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

static inline trm_crew_event *expect_died(fixture *self, unsigned executor, trm_status status)
{
    trm_crew_event *event = next(self);
    if (event->kind == TRM_CREW_DIED && event->status != status)
        print_message("%s: %s\n", trm_status_name(event->status), event->err.text);
    assert_int_equal(event->kind, TRM_CREW_DIED);
    assert_int_equal(event->executor, executor);
    assert_int_equal(event->status, status);
    return event;
}

static inline void expect_ready(fixture *self, unsigned executor)
{
    trm_crew_event *event = next(self);
    assert_int_equal(event->kind, TRM_CREW_READY);
    assert_int_equal(event->executor, executor);
    assert_int_equal(event->status, TRM_OK);
}

static inline void assert_says(const char *text, const char *part)
{
    if (!strstr(text, part))
        print_message("'%s' is not in '%s'\n", part, text);
    assert_non_null(strstr(text, part));
}

/* Gone, or dead and not reaped by whoever adopted it. */
static inline bool is_gone(pid_t pid)
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

static inline void expect_gone(pid_t pid)
{
    uint64_t end_ns = trm_clock_now_ns() + CREW_WAIT_S * TRM_NS_PER_S;
    while (!is_gone(pid)) {
        assert_true(trm_clock_now_ns() < end_ns);
        poll(NULL, 0, 1);
    }
}

static inline pid_t executor_pid(const fixture *self, unsigned executor)
{
    return (pid_t)self->crew->lanes.lane[executor].pid;
}

static inline unsigned entries(const char *path)
{
    unsigned count = 0;
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

static inline void stop(fixture *self)
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

static inline void text_of(const fixture *self, char *out, size_t out_bytes)
{
    assert_true(self->event.report.text_len < out_bytes);
    memcpy(out, self->event.report.text, self->event.report.text_len);
    out[self->event.report.text_len] = 0;
}

#endif
