/* The scheduler's master against many workers and tasks, in virtual time: what a task costs the rank
 * that leads, and whether that grows with the number of tasks or of workers.
 *
 * The master, the job table and the frames are the real ones. Workers obey and report and do nothing
 * else; tasks are empty and take about a second of virtual time; messages arrive at once; what is
 * proposed is committed within 5 ms. Measured is the processor time of the master's own calls: frames
 * in, a step, frames out (copied once, as a transport would), and the memory that they hold; by the
 * wall clock, of which the process is given its share of the processor. What the
 * replicated log itself takes is not in it: bench_raft and bench_log measure that.
 *
 *   bench_master [map|reduce [TASKS [WORKERS]]]     one markdown table; default: all of it
 */
#include "config.h" /* system extensions, before any header of the system */

#include "runtime/clock.h"
#include "runtime/diag.h"
#include "scheduler/master.h"
#include "tests/support/draw.h"
#include "tests/support/fs_mem.h"
#include "tests/support/replog_mem.h"
#include "tests/support/sim_queue.h"
#include "jobs/names.h"

#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EXECUTORS 8u /* of a worker: a rank of eight cores */
#define HOST_RANKS 8u
#define TASK_NS (1000 * TRM_NS_PER_MS)
#define MESSAGES_MAX 256u /* in one turn, as in tool/control.c */
#define OUT "/out"
#define STATE "/out/.trireme"

typedef enum event_kind { EVENT_TASKS = 1, EVENT_PULSE, EVENT_HELLO } event_kind;

typedef struct attempt {
    trm_order order;
    uint64_t begin_ns, end_ns;
} attempt;

typedef struct worker {
    attempt running[EXECUTORS];
    uint32_t runs;
    trm_order *queue;
    uint32_t queue_at, queue_len, queue_room;
    uint64_t due_ns; /* of the event that is in the queue; 0: none is */
    bool set_up, left;
} worker;

typedef struct letter {
    uint32_t from, len;
    uint8_t *bytes;
} letter;

typedef struct bench {
    uint32_t tasks, partitions, ranks;
    trm_draw draw;
    trm_spec spec;
    trm_traits traits;
    trm_submission submission;
    trm_fs *fs;
    trm_log_disk *disk;
    trm_replog *log;
    trm_replica replica;
    trm_master *master;
    trm_sim_queue events;
    worker *workers;
    letter *inbox; /* a ring */
    size_t inbox_at, inbox_len, inbox_room;
    trm_writer out;                         /* orders for workers: u32 to, u32 len, frame */
    uint32_t set_up, ended;                 /* workers */
    uint64_t longest_ns;                    /* turn, by the wall clock */
    uint64_t master_ns, start_ns;           /* of the master; until all workers were set up */
    double share;                           /* of the processor that this process had: others may run, too */
    uint64_t bytes_out, start_out, reports; /* sent; until all workers were set up */
    uint64_t epoch, term;
    trm_writer frame;
} bench;

static void must(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "bench_master: %s\n", what);
    exit(1);
}

/* ---- Workers. ---- */

static void post(bench *self, uint32_t from)
{
    if (self->inbox_len == self->inbox_room) {
        size_t room = self->inbox_room ? 2 * self->inbox_room : 1024;
        letter *grown = malloc(room * sizeof *grown);
        must(grown, "no memory");
        for (size_t i = 0; i < self->inbox_len; i++)
            grown[i] = self->inbox[(self->inbox_at + i) % self->inbox_room];
        free(self->inbox);
        self->inbox = grown;
        self->inbox_at = 0;
        self->inbox_room = room;
    }
    trm_wire_seal(&self->frame);
    letter *it = &self->inbox[(self->inbox_at + self->inbox_len++) % self->inbox_room];
    *it = (letter){.from = from, .len = (uint32_t)self->frame.len, .bytes = malloc(self->frame.len)};
    must(it->bytes, "no memory");
    memcpy(it->bytes, self->frame.data, self->frame.len);
}

static trm_writer *begin_frame(bench *self, trm_wire_type type)
{
    trm_wire_header header = {.type = (uint8_t)type, .epoch = self->epoch, .term = self->term};
    trm_wire_begin(&self->frame, &header);
    return &self->frame;
}

static void add_event(bench *self, event_kind kind, uint32_t of, uint64_t at_ns)
{
    trm_sim_event event = {.at_ns = at_ns, .kind = kind, .node = of};
    trm_sim_queue_add(&self->events, &event);
}

static void say_hello(bench *self, uint32_t number)
{
    static trm_hello hello;
    hello = (trm_hello){.pid = 1000 + number, .executors = EXECUTORS, .traits = self->traits};
    snprintf(hello.host, sizeof hello.host, "node%05u.cluster.example", number / HOST_RANKS);
    snprintf(hello.run_store, sizeof hello.run_store, "/scratch/trireme.1000.%u/runs", number);
    trm_hello_encode(&hello, begin_frame(self, TRM_WIRE_HELLO));
    post(self, number);
    add_event(self, EVENT_PULSE, number,
              self->events.now_ns + trm_draw_below(&self->draw, TRM_PULSE_MS * TRM_NS_PER_MS));
}

static void start_tasks(bench *self, uint32_t number)
{
    worker *it = &self->workers[number];
    uint64_t now_ns = self->events.now_ns, next_ns = UINT64_MAX;
    while (it->runs < EXECUTORS && it->queue_at < it->queue_len) {
        uint64_t ns = TASK_NS / 2 + trm_draw_below(&self->draw, TASK_NS);
        it->running[it->runs++] =
            (attempt){.order = it->queue[it->queue_at++], .begin_ns = now_ns, .end_ns = now_ns + ns};
    }
    for (uint32_t i = 0; i < it->runs; i++)
        next_ns = it->running[i].end_ns < next_ns ? it->running[i].end_ns : next_ns;
    if (it->runs && (!it->due_ns || next_ns < it->due_ns)) {
        it->due_ns = next_ns;
        add_event(self, EVENT_TASKS, number, next_ns);
    }
}

static void end_tasks(bench *self, uint32_t number)
{
    worker *it = &self->workers[number];
    uint64_t now_ns = self->events.now_ns;
    uint32_t reports = 0;
    it->due_ns = 0;
    for (uint32_t i = 0; i < it->runs;) {
        const attempt *at = &it->running[i];
        if (at->end_ns > now_ns) {
            i++;
            continue;
        }
        trm_report report = {.phase = at->order.phase,
                             .task = at->order.task,
                             .attempt = at->order.attempt,
                             .started_ms = at->begin_ns / TRM_NS_PER_MS,
                             .ended_ms = at->end_ns / TRM_NS_PER_MS};
        if (at->order.phase == TRM_PHASE_MAP && self->partitions)
            report.output_bytes = report.output_records = 1000;
        report.counters.value[TRM_COUNTER_MAP_RECORDS_IN] = 1000;
        trm_report_encode(&report, reports++ ? &self->frame : begin_frame(self, TRM_WIRE_REPORT));
        it->running[i] = it->running[--it->runs];
    }
    if (reports)
        post(self, number);
    self->reports += reports;
    start_tasks(self, number);
}

static void say_pulse(bench *self, uint32_t number)
{
    worker *it = &self->workers[number];
    if (it->left)
        return;
    trm_pulse pulse = {.running = it->runs, .queued = it->queue_len - it->queue_at};
    trm_pulse_encode(&pulse, begin_frame(self, TRM_WIRE_PULSE));
    post(self, number);
    add_event(self, EVENT_PULSE, number, self->events.now_ns + TRM_PULSE_MS * TRM_NS_PER_MS);
}

static void take_orders(bench *self, uint32_t number, trm_reader *body)
{
    worker *it = &self->workers[number];
    while (trm_reader_left(body)) {
        if (it->queue_at == it->queue_len)
            it->queue_at = it->queue_len = 0;
        if (it->queue_len == it->queue_room) {
            it->queue_room = it->queue_room ? 2 * it->queue_room : 64;
            it->queue = realloc(it->queue, it->queue_room * sizeof *it->queue);
            must(it->queue, "no memory");
        }
        trm_order_decode(&it->queue[it->queue_len++], body);
        must(trm_reader_ok(body), "an order that does not decode");
    }
    start_tasks(self, number);
}

static void take_setup(bench *self, uint32_t number)
{
    self->set_up += !self->workers[number].set_up;
    self->workers[number].set_up = true;
    trm_claim_encode(&(trm_claim){.last = true}, begin_frame(self, TRM_WIRE_CLAIM));
    post(self, number);
}

static void take_frame(bench *self, uint32_t number, const uint8_t *bytes, size_t len)
{
    trm_wire_header header;
    trm_reader body;
    if (!len) {
        take_setup(self, number);
        return;
    }
    must(trm_wire_open(bytes, len, &header, &body) == TRM_OK, "a frame that does not open");
    if (header.type == TRM_WIRE_ORDER) {
        take_orders(self, number, &body);
    } else if (!self->workers[number].left) {
        self->workers[number].left = true;
        begin_frame(self, TRM_WIRE_BYE);
        post(self, number);
    }
}

/* ---- Memory: every allocation is seen (the linker wraps them), and counted while the master runs. ---- */

static bool counts;
static int64_t counted, counted_max;

void *__real_malloc(size_t len);
void *__real_calloc(size_t count, size_t len);
void *__real_realloc(void *memory, size_t len);
void __real_free(void *memory);
void *__wrap_malloc(size_t len);
void *__wrap_calloc(size_t count, size_t len);
void *__wrap_realloc(void *memory, size_t len);
void __wrap_free(void *memory);

static void count(const void *memory, int sign)
{
    if (!counts || !memory)
        return;
    counted += sign * (int64_t)malloc_usable_size((void *)(uintptr_t)memory);
    counted_max = counted > counted_max ? counted : counted_max;
}

void *__wrap_malloc(size_t len)
{
    void *memory = __real_malloc(len);
    count(memory, 1);
    return memory;
}

void *__wrap_calloc(size_t count_of, size_t len)
{
    void *memory = __real_calloc(count_of, len);
    count(memory, 1);
    return memory;
}

void *__wrap_realloc(void *memory, size_t len)
{
    count(memory, -1);
    void *grown = __real_realloc(memory, len);
    count(grown ? grown : memory, 1);
    return grown;
}

void __wrap_free(void *memory)
{
    count(memory, -1);
    __real_free(memory);
}

/* ---- The master. ---- */

/* Of SETUP it is enough that it has come: ten thousand of them are large. OUTPUTS and SETTLED change
 * nothing here. */
static trm_status send(void *context, uint32_t to, const void *bytes, size_t len)
{
    bench *self = context;
    uint8_t type = ((const uint8_t *)bytes)[6];
    self->bytes_out += len;
    if (type != TRM_WIRE_ORDER && type != TRM_WIRE_SETUP && type != TRM_WIRE_END)
        return TRM_OK;
    counts = false; /* what the transport holds is not the master's */
    uint32_t kept = type == TRM_WIRE_SETUP ? 0 : (uint32_t)len;
    self->epoch = trm_load_u64((const uint8_t *)bytes + 8);
    self->term = trm_load_u64((const uint8_t *)bytes + 16);
    trm_put_u32(&self->out, to);
    trm_put_u32(&self->out, kept);
    trm_put_bytes(&self->out, bytes, kept);
    counts = true;
    return TRM_OK;
}

static uint64_t cpu_ns(void)
{
    struct timespec at;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at);
    return (uint64_t)at.tv_sec * TRM_NS_PER_S + (uint64_t)at.tv_nsec;
}

/* The log in memory is no part of what is measured. */
static const trm_replog_ops *log_ops;

static trm_status log_propose(trm_replog *log, const void *command, size_t len, uint64_t *index, trm_err *err)
{
    bool counted_before = counts;
    counts = false;
    trm_status status = log_ops->propose(log, command, len, index, err);
    counts = counted_before;
    return status;
}

static trm_status log_next(trm_replog *log, trm_replog_item *out)
{
    bool counted_before = counts;
    counts = false;
    trm_status status = log_ops->next(log, out);
    counts = counted_before;
    return status;
}

static bool log_step(trm_replog *log, uint64_t now_ns, uint64_t *wake_ns)
{
    bool counted_before = counts;
    counts = false;
    bool any = log_ops->step(log, now_ns, wake_ns);
    counts = counted_before;
    return any;
}

static void leave_out(trm_replog *log)
{
    static trm_replog_ops ops;
    log_ops = log->ops;
    ops = *log->ops;
    ops.propose = log_propose;
    ops.next = log_next;
    ops.step = log_step;
    log->ops = &ops;
}

/* A turn of the loop; what the master has sent is given out afterwards. */
static bool turn(bench *self, uint64_t *wake_ns)
{
    uint64_t now_ns = self->events.now_ns;
    size_t letters = self->inbox_len < MESSAGES_MAX ? self->inbox_len : MESSAGES_MAX;
    counts = true;
    uint64_t begin_ns = trm_clock_now_ns();
    for (size_t i = 0; i < letters; i++) {
        const letter *it = &self->inbox[(self->inbox_at + i) % self->inbox_room];
        trm_wire_header header;
        trm_reader body;
        must(trm_wire_open(it->bytes, it->len, &header, &body) == TRM_OK, "a frame that does not open");
        trm_master_receive(self->master, it->from, &header, &body, now_ns);
    }
    bool any = trm_master_step(self->master, now_ns, now_ns / TRM_NS_PER_MS, wake_ns);
    uint64_t took_ns = trm_clock_now_ns() - begin_ns;
    self->master_ns += took_ns;
    self->longest_ns = took_ns > self->longest_ns ? took_ns : self->longest_ns;
    counts = false;
    for (size_t i = 0; i < letters; i++)
        free(self->inbox[(self->inbox_at + i) % self->inbox_room].bytes);
    self->inbox_at = self->inbox_room ? (self->inbox_at + letters) % self->inbox_room : 0;
    self->inbox_len -= letters;
    return any || self->inbox_len;
}

static void give_out(bench *self)
{
    trm_reader in;
    trm_reader_init(&in, self->out.data, self->out.len);
    must(trm_writer_ok(&self->out), "no memory");
    while (trm_reader_left(&in)) {
        uint32_t to = trm_get_u32(&in), len = trm_get_u32(&in);
        take_frame(self, to, trm_get_bytes(&in, len), len);
    }
    trm_writer_reset(&self->out);
}

static void happen(bench *self, const trm_sim_event *event)
{
    if (event->kind == EVENT_HELLO)
        say_hello(self, event->node);
    else if (event->kind == EVENT_PULSE)
        say_pulse(self, event->node);
    else if (self->workers[event->node].due_ns == event->at_ns)
        end_tasks(self, event->node);
}

/* Until the job has ended. */
static void run(bench *self)
{
    trm_end end;
    uint64_t wake_ns, began_ns = trm_clock_now_ns(), began_cpu_ns = cpu_ns();
    while (!trm_master_ended(self->master, &end)) {
        trm_sim_event event;
        while (self->events.len && self->events.heap[0].at_ns <= self->events.now_ns &&
               trm_sim_queue_next(&self->events, &event))
            happen(self, &event);
        wake_ns = UINT64_MAX;
        bool again = turn(self, &wake_ns);
        give_out(self);
        if (!self->start_ns && self->set_up == self->ranks && !self->inbox_len) {
            self->start_ns = self->master_ns;
            self->start_out = self->bytes_out;
        }
        if (again || self->inbox_len)
            continue;
        uint64_t next_ns = self->events.len ? self->events.heap[0].at_ns : UINT64_MAX;
        next_ns = wake_ns < next_ns ? wake_ns : next_ns;
        must(next_ns != UINT64_MAX, "nothing will happen any more");
        self->events.now_ns = next_ns > self->events.now_ns ? next_ns : self->events.now_ns + 1000;
    }
    self->share = (double)(cpu_ns() - began_cpu_ns) / (double)(trm_clock_now_ns() - began_ns);
    must(end.exit_code == 0, end.text);
    must(self->reports >= self->tasks, "not all tasks were run");
}

/* ---- A job. ---- */

static void make(bench *self)
{
    static char out[] = OUT, state[] = STATE;
    trm_err err = {""};
    uint32_t crc;
    self->spec = (trm_spec){.output_dir = out,
                            .state_dir = state,
                            .attempts_max = TRM_ATTEMPTS_DEFAULT,
                            .tasks = self->tasks,
                            .partitions = self->partitions};
    self->traits = (trm_traits){.name = "empty", .input = TRM_INPUT_NONE, .map_only = !self->partitions};
    self->draw = trm_draw_from(1);
    self->fs = trm_fs_mem_create(1);
    self->disk = trm_log_disk_create();
    trm_log_disk_forget(self->disk, true);
    self->workers = calloc(self->ranks, sizeof *self->workers);
    must(self->workers, "no memory");
    must(trm_submission_init(&self->submission, &self->spec, &self->traits, self->ranks * EXECUTORS,
                             64u << 20, self->fs, &err) == TRM_OK &&
             trm_fs_make_dirs(self->fs, STATE "/" TRM_ATTEMPTS_NAME, 0, &err) == TRM_OK &&
             trm_plan_save(&self->submission.plan, self->fs, STATE, &crc, &err) == TRM_OK,
         err.text);
    self->log = trm_replog_mem_open(self->disk, 1, 1000 * 1000, 5 * TRM_NS_PER_MS, 0);
    leave_out(self->log);
    trm_replica_init(&self->replica, self->log);
    self->events.now_ns = TRM_NS_PER_S;
    for (uint32_t i = 0; i < self->ranks; i++)
        add_event(self, EVENT_HELLO, i, TRM_NS_PER_S);
}

static void start(bench *self)
{
    trm_err err = {""};
    trm_master_config config = {.spec = &self->spec,
                                .submission = &self->submission,
                                .fs = self->fs,
                                .replica = &self->replica,
                                .outbox = {send, self},
                                .ranks = self->ranks,
                                .seed = 1,
                                .wall_ms = 1};
    counted = counted_max = 0;
    counts = true;
    must(trm_master_create(&self->master, &config, &err) == TRM_OK, err.text);
    counts = false;
}

static void stop(bench *self)
{
    trm_master_destroy(self->master);
    trm_replica_close(&self->replica);
    trm_replog_close(self->log);
    trm_log_disk_destroy(self->disk);
    trm_submission_close(&self->submission);
    trm_fs_mem_destroy(self->fs);
    for (uint32_t i = 0; i < self->ranks; i++)
        free(self->workers[i].queue);
    for (size_t i = 0; i < self->inbox_len; i++)
        free(self->inbox[(self->inbox_at + i) % self->inbox_room].bytes);
    free(self->inbox);
    free(self->workers);
    trm_writer_close(&self->out);
    trm_writer_close(&self->frame);
    trm_sim_queue_close(&self->events, NULL);
}

static bench run_job(uint32_t tasks, uint32_t partitions, uint32_t ranks)
{
    bench self = {.tasks = tasks, .partitions = partitions, .ranks = ranks};
    make(&self);
    start(&self);
    run(&self);
    bench result = self;
    stop(&self);
    return result;
}

/* ---- The table. ---- */

/* What memory a task takes is seen from the row above, of the same workers and fewer tasks. */
static void print_row(bool reduces, uint32_t tasks, uint32_t ranks, bool first)
{
    static int64_t bytes_above;
    static uint32_t tasks_above;
    uint32_t partitions = ranks * EXECUTORS < tasks / 10 ? ranks * EXECUTORS : tasks / 10;
    partitions = !reduces ? 0 : partitions < TRM_PARTITIONS_MAX ? partitions : TRM_PARTITIONS_MAX;
    bench it = run_job(tasks, partitions, ranks);
    uint32_t all = tasks + partitions;
    char a_task[32] = "·";
    if (!first)
        snprintf(a_task, sizeof a_task, "%.0f", (double)(counted_max - bytes_above) / (all - tasks_above));
    bytes_above = counted_max;
    tasks_above = all;
    printf("| %s | %u | %u | %.0f | %.2f | %.1f | %s | %.0f | %.0f |\n", reduces ? "map, reduce" : "map only",
           ranks, all, it.share * (double)it.start_ns / 1e3 / ranks,
           it.share * (double)(it.master_ns - it.start_ns) / 1e3 / all, (double)counted_max / 1e6, a_task,
           (double)(it.bytes_out - it.start_out) / all, (double)it.longest_ns / 1e6);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const uint32_t tasks[] = {10000, 100000, 1000000}, workers[] = {10, 100, 1000, 10000};
    trm_diag_configure(TRM_DIAG_ERROR, -1);
    uint32_t only_tasks = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 0;
    uint32_t only_workers = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 0;
    printf(
        "| job | workers | tasks | us to begin, a worker | us a task | MB in all | bytes a task | bytes sent "
        "a task | longest turn, ms |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for (unsigned reduces = 0; reduces < 2; reduces++) {
        if (argc > 1 && (strcmp(argv[1], "reduce") == 0) != reduces)
            continue;
        for (unsigned i = 0; i < 4; i++)
            for (unsigned j = 0; j < 3; j++)
                if ((!only_tasks || only_tasks == tasks[j]) && (!only_workers || only_workers == workers[i]))
                    print_row(reduces, tasks[j], workers[i], j == 0 || only_tasks);
    }
    return 0;
}
