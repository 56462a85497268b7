/* scheduler/master: what it orders, told by hand what workers would say. Whole jobs, with everything that
 * can go wrong on their way, are tests/simulation/master_sim. */
#include "config.h" /* system extensions, before any header of the system */

#include "jobs/names.h"
#include "runtime/clock.h"
#include "scheduler/master.h"
#include "tests/support/fs_mem.h"
#include "tests/support/replog_mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define MS TRM_NS_PER_MS
#define RANKS 2u
#define RANKS_MAX 3u
#define ORDERS_MAX 256u
#define PAUSE_MS 200u /* longer than a rank that has refused an order is left alone */
#define SET_UP_MS 100u
#define KILLER 7u /* the record at which kernels die */

typedef struct given {
    uint32_t to;
    bool cancelled, recalled, done; /* … since */
    bool as_probe;                  /* as it was asked back */
    uint64_t began_ns;              /* 0: it has not begun, as far as was said */
    trm_order order;
} given;

typedef struct asked { /* COPY */
    uint32_t to;
    trm_copy at;
} asked;

typedef struct world {
    uint32_t ranks, hosts;
    trm_spec spec;
    trm_traits traits;
    trm_submission submission;
    trm_fs *fs;
    trm_log_disk *disk;
    trm_replog *log;
    trm_replica replica;
    trm_master *master;
    uint64_t now_ns, term;
    given given[ORDERS_MAX]; /* all that was ordered, in order */
    unsigned count;
    unsigned runs[RANKS_MAX]; /* how many of what it was ordered the rank says to run, the oldest ones */
    asked asked[ORDERS_MAX];  /* all that was to be copied, in order */
    unsigned asked_count;
    trm_output_at outputs[ORDERS_MAX]; /* as told last, by task */
    bool dead[RANKS_MAX];
} world;

/* ---- Messages ---------------------------------------------------------------------------------- */

static void take_order(world *self, uint32_t to, uint8_t type, const trm_order *order)
{
    if (type == TRM_WIRE_ORDER) {
        assert_true(self->count < ORDERS_MAX);
        self->given[self->count++] = (given){.to = to, .order = *order};
        return;
    }
    for (unsigned i = 0; i < self->count; i++) {
        given *at = &self->given[i];
        if (at->to != to || at->order.phase != order->phase || at->order.task != order->task ||
            at->order.attempt != order->attempt)
            continue;
        assert_false(at->recalled && type == TRM_WIRE_RECALL); /* once is enough */
        at->as_probe = order->probe;
        *(type == TRM_WIRE_RECALL ? &at->recalled : &at->cancelled) = true;
    }
}

static trm_status outbox_send(void *context, uint32_t to, const void *frame, size_t len)
{
    trm_wire_header header;
    trm_reader body;
    world *self = context;
    assert_int_equal(trm_wire_open(frame, len, &header, &body), TRM_OK);
    self->term = header.term;
    bool orders =
        header.type == TRM_WIRE_ORDER || header.type == TRM_WIRE_CANCEL || header.type == TRM_WIRE_RECALL;
    while (orders && trm_reader_left(&body)) {
        trm_order order;
        trm_order_decode(&order, &body);
        assert_true(trm_reader_ok(&body));
        take_order(self, to, header.type, &order);
    }
    while (header.type == TRM_WIRE_OUTPUTS && trm_reader_left(&body)) {
        trm_output_at at;
        trm_output_at_decode(&at, &body);
        assert_true(trm_reader_ok(&body) && at.task < ORDERS_MAX);
        self->outputs[at.task] = at;
    }
    while (header.type == TRM_WIRE_COPY && trm_reader_left(&body)) {
        asked *added = &self->asked[self->asked_count++];
        assert_true(self->asked_count < ORDERS_MAX);
        added->to = to;
        trm_copy_decode(&added->at, &body);
        assert_true(trm_reader_ok(&body));
    }
    return TRM_OK;
}

static void hear(world *self, uint32_t from, trm_wire_type type, const trm_writer *encoded)
{
    trm_wire_header header = {
        .type = (uint8_t)type, .epoch = trm_master_epoch(self->master), .term = self->term};
    trm_reader body;
    trm_reader_init(&body, encoded->data, encoded->len);
    trm_master_receive(self->master, from, &header, &body, self->now_ns);
}

static void say_hello(world *self, uint32_t from, uint32_t executors)
{
    static trm_hello hello;
    trm_writer body = {0};
    hello = (trm_hello){.pid = 100 + from, .executors = executors, .traits = self->traits};
    snprintf(hello.host, sizeof hello.host, "host%u", from % self->hosts);
    snprintf(hello.run_store, sizeof hello.run_store, "/scratch/%u", from);
    trm_hello_encode(&hello, &body);
    hear(self, from, TRM_WIRE_HELLO, &body);
    trm_writer_close(&body);
}

/* It holds nothing. */
static void say_claim(world *self, uint32_t from)
{
    trm_writer body = {0};
    trm_claim_encode(&(trm_claim){.last = true}, &body);
    hear(self, from, TRM_WIRE_CLAIM, &body);
    trm_writer_close(&body);
}

static void say_pulse(world *self, uint32_t from)
{
    trm_writer body = {0};
    trm_pulse_encode(&(trm_pulse){.running = 1}, &body);
    for (unsigned i = 0, runs = 0; i < self->count && runs < self->runs[from]; i++) {
        given *at = &self->given[i];
        if (at->to != from || at->done || at->cancelled)
            continue;
        if (!at->began_ns)
            at->began_ns = self->now_ns;
        trm_begun begun = {.phase = at->order.phase,
                           .task = at->order.task,
                           .attempt = at->order.attempt,
                           .ms = (uint32_t)((self->now_ns - at->began_ns) / MS)};
        trm_begun_encode(&begun, &body);
        runs++;
    }
    hear(self, from, TRM_WIRE_PULSE, &body);
    trm_writer_close(&body);
}

static void say_report(world *self, given *of, trm_status status, uint64_t took_ms)
{
    uint32_t record = status == TRM_EKERNEL && of->order.phase == TRM_PHASE_MAP ? KILLER + 1 : 0;
    static const uint8_t keys[] = {1, 'k'};
    trm_writer body = {0};
    uint64_t now_ms = self->now_ns / MS;
    trm_report report = {.phase = of->order.phase,
                         .task = of->order.task,
                         .attempt = of->order.attempt,
                         .status = status,
                         .probe = of->as_probe,
                         .record = record,
                         .started_ms = now_ms - took_ms,
                         .ended_ms = now_ms};
    if (status == TRM_OK && report.phase == TRM_PHASE_SAMPLE) {
        report.sample = keys;
        report.sample_len = sizeof keys;
    } else if (status == TRM_OK && !self->traits.map_only) {
        report.output_bytes = 100;
        report.output_records = 1;
    }
    of->done = true;
    trm_report_encode(&report, &body);
    hear(self, of->to, TRM_WIRE_REPORT, &body);
    trm_writer_close(&body);
}

static void say_copied(world *self, const asked *of, uint64_t epoch, trm_status status)
{
    trm_writer body = {0};
    trm_copied copied = {.task = of->at.task,
                         .attempt = of->at.attempt,
                         .epoch = epoch,
                         .status = status,
                         .bytes = status == TRM_OK ? 100 : 0};
    trm_copied_encode(&copied, &body);
    hear(self, of->to, TRM_WIRE_COPIED, &body);
    trm_writer_close(&body);
}

/* Time goes on, and everybody says that it lives. */
static void wait_ms(world *self, uint64_t ms)
{
    uint64_t end_ns = self->now_ns + ms * MS;
    for (; self->now_ns < end_ns; self->now_ns += 10 * MS) {
        uint64_t wake_ns = UINT64_MAX;
        if (self->now_ns / MS % TRM_PULSE_MS == 0)
            for (uint32_t i = 0; i < self->ranks; i++)
                if (!self->dead[i])
                    say_pulse(self, i);
        while (trm_master_step(self->master, self->now_ns, self->now_ns / MS, &wake_ns))
            ;
    }
}

/* SETUP has been said, and is answered. */
static void claim_all(world *self)
{
    for (uint32_t i = 0; i < self->ranks; i++)
        if (!self->dead[i])
            say_claim(self, i);
    wait_ms(self, SET_UP_MS);
}

/* ---- What was ordered --------------------------------------------------------------------------- */

/* The last order of the task; NULL: it was never ordered. */
static given *order_of(world *self, trm_phase phase, uint32_t task)
{
    for (unsigned i = self->count; i-- > 0;)
        if (self->given[i].order.phase == phase && self->given[i].order.task == task)
            return &self->given[i];
    return NULL;
}

static unsigned orders_of(const world *self, trm_phase phase)
{
    unsigned count = 0;
    for (unsigned i = 0; i < self->count; i++)
        count += self->given[i].order.phase == phase;
    return count;
}

/* ---- Begin and end -------------------------------------------------------------------------------- */

typedef struct shape {
    uint32_t tasks, partitions;
    bool range_partitioned;
    uint32_t ranks, hosts, replicas;
} shape;

static world *begin(const shape *of)
{
    static char out[] = "/out", state[] = "/out/.trireme";
    static world whole;
    world *self = &whole;
    trm_err err = {""};
    uint32_t crc;
    *self = (world){.now_ns = TRM_NS_PER_S, .ranks = of->ranks, .hosts = of->hosts};
    self->spec = (trm_spec){.output_dir = out,
                            .state_dir = state,
                            .attempts_max = TRM_ATTEMPTS_DEFAULT,
                            .tasks = of->tasks,
                            .partitions = of->partitions,
                            .replicas = of->replicas};
    self->traits =
        (trm_traits){.name = "hand", .input = TRM_INPUT_NONE, .range_partitioned = of->range_partitioned};
    self->traits.map_only = !of->partitions;
    self->fs = trm_fs_mem_create(1);
    self->disk = trm_log_disk_create();
    assert_int_equal(
        trm_submission_init(&self->submission, &self->spec, &self->traits, 4, 64u << 20, self->fs, &err),
        TRM_OK);
    assert_int_equal(trm_fs_make_dirs(self->fs, "/out/.trireme/" TRM_ATTEMPTS_NAME, 0, &err), TRM_OK);
    assert_int_equal(trm_fs_make_dirs(self->fs, "/out/.trireme/" TRM_STDERR_NAME, 0, &err), TRM_OK);
    assert_int_equal(trm_plan_save(&self->submission.plan, self->fs, state, &crc, &err), TRM_OK);
    self->log = trm_replog_mem_open(self->disk, 1, MS, MS, 0);
    trm_replica_init(&self->replica, self->log);
    trm_master_config config = {.spec = &self->spec,
                                .submission = &self->submission,
                                .fs = self->fs,
                                .replica = &self->replica,
                                .outbox = {outbox_send, self},
                                .ranks = of->ranks,
                                .seed = 1,
                                .wall_ms = 1};
    assert_int_equal(trm_master_create(&self->master, &config, &err), TRM_OK);
    return self;
}

static void end(world *self)
{
    trm_master_destroy(self->master);
    trm_replica_close(&self->replica);
    trm_replog_close(self->log);
    trm_log_disk_destroy(self->disk);
    trm_submission_close(&self->submission);
    trm_fs_mem_destroy(self->fs);
}

static world *begin_shaped(const shape *of, const uint32_t executors[])
{
    world *self = begin(of);
    wait_ms(self, SET_UP_MS);
    for (uint32_t i = 0; i < self->ranks; i++)
        say_hello(self, i, executors[i]);
    wait_ms(self, SET_UP_MS);
    claim_all(self);
    return self;
}

static world *begin_with_ranks(uint32_t tasks, uint32_t partitions, bool range_partitioned,
                               const uint32_t executors[RANKS])
{
    return begin_shaped(&(shape){.tasks = tasks,
                                 .partitions = partitions,
                                 .range_partitioned = range_partitioned,
                                 .ranks = RANKS,
                                 .hosts = RANKS,
                                 .replicas = 1},
                        executors);
}

/* ---- Samples -------------------------------------------------------------------------------------- */

/* Its executor was ended for another order, it was cancelled, or there was no room for it: nothing is known
 * of its keys. */
static void a_sample_that_was_not_taken_is_taken_again(void **state)
{
    static const trm_status reasons[] = {TRM_AGAIN, TRM_EFENCED, TRM_EPEER};
    for (unsigned i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        world *self = begin_with_ranks(4, 3, true, (uint32_t[]){2, 2});
        assert_int_equal(orders_of(self, TRM_PHASE_SAMPLE), 4);
        for (uint32_t task = 1; task < 4; task++)
            say_report(self, order_of(self, TRM_PHASE_SAMPLE, task), TRM_OK, 1);
        say_report(self, order_of(self, TRM_PHASE_SAMPLE, 0), reasons[i], 0);
        wait_ms(self, PAUSE_MS);
        assert_int_equal(orders_of(self, TRM_PHASE_SAMPLE), 5);
        say_report(self, order_of(self, TRM_PHASE_SAMPLE, 0), TRM_OK, 1);
        wait_ms(self, PAUSE_MS);
        claim_all(self); /* the cuts have been told */
        assert_int_equal(orders_of(self, TRM_PHASE_MAP), 4);
        end(self);
    }
}

/* Its map will fail in earnest. */
static void a_sample_that_fails_is_left_out(void **state)
{
    world *self = begin_with_ranks(4, 3, true, (uint32_t[]){2, 2});
    for (uint32_t task = 0; task < 4; task++)
        say_report(self, order_of(self, TRM_PHASE_SAMPLE, task), task ? TRM_OK : TRM_EKERNEL, 1);
    wait_ms(self, PAUSE_MS);
    claim_all(self);
    assert_int_equal(orders_of(self, TRM_PHASE_SAMPLE), 4);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), 4);
    end(self);
}

/* ---- Stragglers ------------------------------------------------------------------------------------ */

/* An attempt that was given to rank 1 though rank 0 has its task, and has not ended; NULL: there is none. */
static given *open_twin(world *self)
{
    for (unsigned i = 0; i < self->count; i++) {
        given *at = &self->given[i];
        if (at->to == 1 && !at->done && !at->cancelled)
            return at;
    }
    return NULL;
}

/* Rank 0 is given nearly all maps and ends none of them, rank 1 is soon done with its own and does those of
 * rank 0 as well. Whether rank 0 is given reduces then. */
static bool is_trusted_when_others_do_its_tasks(unsigned runs)
{
    world *self = begin_with_ranks(20, 8, false, (uint32_t[]){8, 2});
    unsigned reduces = 0;
    self->runs[0] = runs;
    wait_ms(self, 100);
    for (unsigned i = 0; i < ORDERS_MAX && !orders_of(self, TRM_PHASE_REDUCE); i++) {
        given *twin = open_twin(self);
        if (twin)
            say_report(self, twin, TRM_OK, 100);
        wait_ms(self, 100);
    }
    for (unsigned i = 0; i < self->count; i++)
        reduces += self->given[i].to == 0 && self->given[i].order.phase == TRM_PHASE_REDUCE;
    assert_true(orders_of(self, TRM_PHASE_REDUCE) > 0);
    end(self);
    return reduces > 0;
}

static void a_rank_that_runs_slowly_is_set_aside(void **state)
{
    assert_false(is_trusted_when_others_do_its_tasks(8));
}

/* Behind tasks that may take long with good reason. */
static void what_only_waits_does_not_set_a_rank_aside(void **state)
{
    assert_true(is_trusted_when_others_do_its_tasks(1));
}

/* ---- The end ----------------------------------------------------------------------------------------- */

static trm_status pass_over(const char *name, void *context)
{
    return TRM_OK;
}

static bool has_attempts(world *self)
{
    trm_err err;
    return self->fs->ops->list(self->fs, "/out/.trireme/" TRM_ATTEMPTS_NAME, pass_over, NULL, &err) == TRM_OK;
}

static const trm_fs_ops *mem_ops;
static unsigned trees_removed;

/* The first time somebody is quicker. */
static trm_status remove_tree_in_a_race(trm_fs *fs, const char *path, trm_err *err)
{
    return trees_removed++ ? mem_ops->remove_tree(fs, path, err)
                           : trm_err_set(err, TRM_EIO, "%s: directory not empty", path);
}

/* A part that is begun while they are removed keeps their directory: none is when everybody has left. */
static void attempts_are_gone_when_all_have_left(void **state)
{
    trm_writer nothing = {0};
    trm_end how;
    world *self = begin_with_ranks(1, 0, false, (uint32_t[]){1, 1});
    static trm_fs_ops racing;
    mem_ops = self->fs->ops;
    racing = *mem_ops;
    racing.remove_tree = remove_tree_in_a_race;
    self->fs->ops = &racing;
    say_report(self, order_of(self, TRM_PHASE_MAP, 0), TRM_OK, 1);
    wait_ms(self, 1000);
    assert_true(trm_master_is_over(self->master) && has_attempts(self));
    for (uint32_t i = 0; i < RANKS; i++)
        hear(self, i, TRM_WIRE_BYE, &nothing);
    wait_ms(self, 1000);
    assert_true(trm_master_ended(self->master, &how));
    assert_int_equal(how.exit_code, 0);
    assert_false(has_attempts(self));
    end(self);
}

/* The last order that was asked back; NULL: none was. */
static given *recalled(world *self)
{
    for (unsigned i = self->count; i-- > 0;)
        if (self->given[i].recalled)
            return &self->given[i];
    return NULL;
}

/* One long task, and one that waits behind it; all others are done. */
static void what_waits_behind_a_long_task_is_asked_back(void **state)
{
    world *self = begin_with_ranks(4, 1, false, (uint32_t[]){1, 1});
    self->spec.never_twice = true;
    self->runs[0] = 1;
    wait_ms(self, 100);
    for (given *open; (open = open_twin(self)); wait_ms(self, 100))
        say_report(self, open, TRM_OK, 50);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), 4);
    assert_null(recalled(self));
    wait_ms(self, 2 * TRM_NS_PER_S / MS);
    given *waits = recalled(self);
    assert_non_null(waits);
    assert_int_equal(waits->to, 0);
    assert_int_equal(waits->began_ns, 0);
    say_report(self, waits, TRM_AGAIN, 0);
    wait_ms(self, PAUSE_MS);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), 5);
    assert_int_equal(order_of(self, TRM_PHASE_MAP, waits->order.task)->to, 1);
    end(self);
}

/* The probe of a map that a record kills waits behind a long task: it is not the map that comes back. */
static void a_probe_that_waits_is_asked_back(void **state)
{
    world *self = begin_with_ranks(4, 1, false, (uint32_t[]){1, 1});
    self->spec.never_twice = true;
    self->spec.skips_max = 1;
    self->runs[0] = 1;
    wait_ms(self, 100);
    given *dies = order_of(self, TRM_PHASE_MAP, 1);
    assert_int_equal(dies->to, 0);
    say_report(self, dies, TRM_EKERNEL, 50);
    wait_ms(self, 100);
    assert_int_equal(order_of(self, TRM_PHASE_MAP, 1)->to, 0);
    assert_true(order_of(self, TRM_PHASE_MAP, 1)->order.probe);
    for (given *open; (open = open_twin(self)); wait_ms(self, 100))
        say_report(self, open, TRM_OK, 50);
    wait_ms(self, 2 * TRM_NS_PER_S / MS);
    given *waits = recalled(self);
    assert_ptr_equal(waits, order_of(self, TRM_PHASE_MAP, 1));
    say_report(self, waits, TRM_AGAIN, 0);
    wait_ms(self, PAUSE_MS);
    assert_int_equal(order_of(self, TRM_PHASE_MAP, 1)->to, 1);
    assert_true(order_of(self, TRM_PHASE_MAP, 1)->order.probe);
    end(self);
}

/* Two ranks run what takes long and have one behind it, the third has nothing. */
static world *begin_unequal(uint64_t took_ms)
{
    world *self =
        begin_shaped(&(shape){.tasks = 6, .partitions = 1, .ranks = 3, .hosts = 3}, (uint32_t[]){1, 1, 1});
    self->spec.never_twice = true;
    self->runs[0] = self->runs[1] = 1;
    wait_ms(self, took_ms);
    for (unsigned i = 0; i < self->count; i++)
        if (self->given[i].to == 2)
            say_report(self, &self->given[i], TRM_OK, took_ms);
    for (unsigned i = 0; i < 200 && !recalled(self); i++)
        wait_ms(self, 10);
    return self;
}

static unsigned give_back(world *self, trm_status status)
{
    unsigned count = 0;
    for (unsigned i = 0; i < self->count; i++) {
        given *at = &self->given[i];
        if (!at->recalled || at->done)
            continue;
        say_report(self, at, status, 0);
        count++;
    }
    wait_ms(self, PAUSE_MS);
    return count;
}

/* Not to another one that has enough in hand. */
static void what_comes_back_goes_to_who_is_idle(void **state)
{
    world *self = begin_unequal(1);
    assert_int_equal(give_back(self, TRM_AGAIN), 2);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), 8);
    assert_int_equal(self->given[6].to, 2);
    end(self);
}

/* The others would only change places. */
static void no_more_is_asked_back_than_the_idle_can_do(void **state)
{
    world *self = begin_unequal(400);
    assert_int_equal(give_back(self, TRM_AGAIN), 1);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), 7);
    assert_int_equal(self->given[6].to, 2);
    end(self);
}

/* The idle rank refuses all that it is given, and has the time to do so. */
static void a_job_does_not_fail_because_tasks_are_asked_back(void **state)
{
    world *self = begin_unequal(1);
    for (unsigned i = 0; i < 110 && !trm_master_is_over(self->master); i++) {
        give_back(self, TRM_AGAIN);
        for (unsigned k = 0; k < self->count; k++)
            if (self->given[k].to == 2 && !self->given[k].done)
                say_report(self, &self->given[k], i ? TRM_EPEER : TRM_AGAIN, 0);
        wait_ms(self, 1000);
    }
    assert_false(trm_master_is_over(self->master));
    end(self);
}

/* ---- Copies ---------------------------------------------------------------------------------------- */

#define MAPS 6u
#define COPY_PAUSED_MS 11000u /* a rank that could not make a copy is left alone for ten seconds */

/* All maps are done. */
static world *begin_mapped(uint32_t ranks, uint32_t hosts, uint32_t replicas)
{
    const shape of = {.tasks = MAPS, .partitions = 2, .ranks = ranks, .hosts = hosts, .replicas = replicas};
    world *self = begin_shaped(&of, (uint32_t[]){MAPS / ranks, MAPS / ranks, MAPS / ranks});
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS);
    for (uint32_t task = 0; task < MAPS; task++)
        say_report(self, order_of(self, TRM_PHASE_MAP, task), TRM_OK, 1);
    wait_ms(self, PAUSE_MS);
    return self;
}

/* What was to be copied last. */
static const asked *copy_of(const world *self, uint32_t task)
{
    for (unsigned i = self->asked_count; i-- > 0;)
        if (self->asked[i].at.task == task)
            return &self->asked[i];
    return NULL;
}

static void copy_all(world *self, uint64_t epoch)
{
    for (uint32_t task = 0; task < MAPS; task++)
        say_copied(self, copy_of(self, task), epoch, TRM_OK);
    wait_ms(self, PAUSE_MS);
}

static void die(world *self, uint32_t rank)
{
    self->dead[rank] = true;
    trm_master_rank_dead(self->master, rank);
    wait_ms(self, PAUSE_MS);
}

static void a_host_goes_and_its_outputs_are_read_from_their_copies(void **state)
{
    world *self = begin_mapped(3, 3, 2);
    assert_int_equal(self->asked_count, MAPS);
    for (uint32_t task = 0; task < MAPS; task++) {
        assert_int_equal(copy_of(self, task)->at.rank, self->outputs[task].rank);
        assert_true(copy_of(self, task)->to != self->outputs[task].rank);
    }
    copy_all(self, trm_master_epoch(self->master));
    trm_output_at before[MAPS];
    memcpy(before, self->outputs, sizeof before);
    die(self, 1);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS);
    for (uint32_t task = 0; task < MAPS; task++) {
        uint32_t kept = before[task].rank == 1 ? copy_of(self, task)->at.rank : before[task].rank;
        assert_true(self->outputs[task].rank != 1);
        assert_int_equal(self->outputs[task].rank, kept);
        assert_int_equal(self->outputs[task].attempt, before[task].attempt);
    }
    /* What has lost one of its two is copied again, to where there is none of it. */
    for (uint32_t task = 0; task < MAPS; task++) {
        assert_true(copy_of(self, task)->to != 1);
        assert_true(copy_of(self, task)->to != self->outputs[task].rank);
    }
    copy_all(self, trm_master_epoch(self->master));
    die(self, 2);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS);
    for (uint32_t task = 0; task < MAPS; task++)
        assert_int_equal(self->outputs[task].rank, 0);
    end(self);
}

static void without_copies_they_are_made_again(void **state)
{
    world *self = begin_mapped(3, 3, 1);
    assert_int_equal(self->asked_count, 0);
    unsigned lost = 0;
    for (uint32_t task = 0; task < MAPS; task++)
        lost += self->outputs[task].rank == 1;
    assert_true(lost > 0);
    die(self, 1);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS + lost);
    end(self);
}

/* Of another launch the number of the attempt says nothing. */
static void a_copy_of_another_launch_is_none(void **state)
{
    world *self = begin_mapped(3, 3, 2);
    copy_all(self, trm_master_epoch(self->master) + 1);
    die(self, 1);
    assert_true(orders_of(self, TRM_PHASE_MAP) > MAPS);
    end(self);
}

static void a_copy_that_cannot_be_made_is_tried_elsewhere_and_given_up(void **state)
{
    world *self = begin_mapped(3, 3, 2);
    uint64_t epoch = trm_master_epoch(self->master);
    uint32_t first = copy_of(self, 0)->to;
    say_copied(self, copy_of(self, 0), epoch, TRM_ENOSPACE);
    wait_ms(self, PAUSE_MS);
    assert_int_equal(self->asked_count, MAPS + 1);
    assert_true(copy_of(self, 0)->to != first);
    for (unsigned i = 0; i < 5; i++) {
        say_copied(self, copy_of(self, 0), epoch, TRM_ENOSPACE);
        wait_ms(self, COPY_PAUSED_MS);
    }
    assert_int_equal(self->asked_count, MAPS + 2); /* three times in all */
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS);
    assert_true(orders_of(self, TRM_PHASE_REDUCE) > 0);
    end(self);
}

/* A reduce complains of the first one, which is there but damaged. */
static void an_output_that_cannot_be_read_is_read_from_its_copy(void **state)
{
    world *self = begin_mapped(3, 3, 2);
    copy_all(self, trm_master_epoch(self->master));
    trm_writer body = {0};
    trm_output_at damaged = self->outputs[0];
    trm_output_at_encode(&damaged, &body);
    hear(self, copy_of(self, 0)->to, TRM_WIRE_LOST, &body);
    trm_writer_close(&body);
    uint32_t holder = copy_of(self, 0)->to;
    wait_ms(self, PAUSE_MS);
    assert_int_equal(self->outputs[0].rank, holder);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS);
    end(self);
}

/* It lives, and cannot follow its set-up. Perhaps it has copies; without any the maps are made again. */
static void who_never_says_what_it_holds_is_waited_for_no_longer(void **state)
{
    world *self = begin_mapped(3, 3, 2);
    say_hello(self, 2, MAPS / 3);
    die(self, 1);
    wait_ms(self, 1000);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS);
    wait_ms(self, 30000);
    assert_true(orders_of(self, TRM_PHASE_MAP) > MAPS);
    end(self);
}

static void ranks_of_one_host_copy_nothing(void **state)
{
    world *self = begin_mapped(2, 1, 2);
    wait_ms(self, COPY_PAUSED_MS);
    assert_int_equal(self->asked_count, 0);
    assert_true(orders_of(self, TRM_PHASE_REDUCE) > 0);
    end(self);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sample_that_was_not_taken_is_taken_again),
        cmocka_unit_test(a_sample_that_fails_is_left_out),
        cmocka_unit_test(a_rank_that_runs_slowly_is_set_aside),
        cmocka_unit_test(what_only_waits_does_not_set_a_rank_aside),
        cmocka_unit_test(what_waits_behind_a_long_task_is_asked_back),
        cmocka_unit_test(a_probe_that_waits_is_asked_back),
        cmocka_unit_test(what_comes_back_goes_to_who_is_idle),
        cmocka_unit_test(no_more_is_asked_back_than_the_idle_can_do),
        cmocka_unit_test(a_job_does_not_fail_because_tasks_are_asked_back),
        cmocka_unit_test(attempts_are_gone_when_all_have_left),
        cmocka_unit_test(a_host_goes_and_its_outputs_are_read_from_their_copies),
        cmocka_unit_test(without_copies_they_are_made_again),
        cmocka_unit_test(a_copy_of_another_launch_is_none),
        cmocka_unit_test(a_copy_that_cannot_be_made_is_tried_elsewhere_and_given_up),
        cmocka_unit_test(an_output_that_cannot_be_read_is_read_from_its_copy),
        cmocka_unit_test(who_never_says_what_it_holds_is_waited_for_no_longer),
        cmocka_unit_test(ranks_of_one_host_copy_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
