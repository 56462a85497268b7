/* A master that is driven by hand: a test says what ranks say, and sees what they are ordered. One world a
 * program; included by the tests of what the master decides, after config.h. */
#ifndef TRM_TESTS_UNIT_HAND_MASTER_H
#define TRM_TESTS_UNIT_HAND_MASTER_H

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
#define RANKS_MAX 512u
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

typedef struct adopting { /* ADOPT */
    uint32_t to;
    trm_store store;
} adopting;

typedef struct world {
    uint32_t ranks, hosts;
    bool one_path; /* all run stores are called the same, each on its host */
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
    adopting adopting[RANKS_MAX]; /* stores that were to be taken over, in order */
    unsigned adopting_count;
    trm_output_at outputs[ORDERS_MAX]; /* as told last, by task */
    bool dead[RANKS_MAX], set_up[RANKS_MAX];
    unsigned setups, setups_max; /* SETUPs of this step; of any */
    uint32_t full_below;         /* ranks whose queues take no SETUP */
    bool failed;                 /* END says so */
} world;

/* ---- Messages ---------------------------------------------------------------------------------- */

static inline void take_order(world *self, uint32_t to, uint8_t type, const trm_order *order)
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

static inline trm_status outbox_send(void *context, uint32_t to, const void *frame, size_t len)
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
    self->setups += header.type == TRM_WIRE_SETUP;
    if (header.type == TRM_WIRE_SETUP && to < self->full_below)
        return TRM_AGAIN;
    self->set_up[to] |= header.type == TRM_WIRE_SETUP;
    while (header.type == TRM_WIRE_OUTPUTS && trm_reader_left(&body)) {
        trm_output_at at;
        trm_output_at_decode(&at, &body);
        assert_true(trm_reader_ok(&body) && at.task < ORDERS_MAX);
        self->outputs[at.task] = at;
    }
    if (header.type == TRM_WIRE_END) {
        static trm_end end;
        trm_end_decode(&end, &body);
        assert_true(trm_reader_done(&body));
        self->failed |= end.exit_code == 1;
    }
    while (header.type == TRM_WIRE_ADOPT && trm_reader_left(&body)) {
        assert_true(self->adopting_count < RANKS_MAX);
        adopting *added = &self->adopting[self->adopting_count++];
        added->to = to;
        trm_store_decode(&added->store, &body);
        assert_true(trm_reader_ok(&body));
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

static inline void hear(world *self, uint32_t from, trm_wire_type type, const trm_writer *encoded)
{
    trm_wire_header header = {
        .type = (uint8_t)type, .epoch = trm_master_epoch(self->master), .term = self->term};
    trm_reader body;
    trm_reader_init(&body, encoded->data, encoded->len);
    trm_master_receive(self->master, from, &header, &body, self->now_ns);
}

static inline void say_hello(world *self, uint32_t from, uint32_t executors)
{
    static trm_hello hello;
    trm_writer body = {0};
    hello = (trm_hello){.pid = 100 + from, .executors = executors, .traits = self->traits};
    snprintf(hello.host, sizeof hello.host, "host%u", from % self->hosts);
    snprintf(hello.run_store, sizeof hello.run_store, "/scratch/%u", self->one_path ? 0 : from);
    trm_hello_encode(&hello, &body);
    hear(self, from, TRM_WIRE_HELLO, &body);
    trm_writer_close(&body);
}

/* It holds nothing. */
static inline void say_claim(world *self, uint32_t from)
{
    trm_writer body = {0};
    trm_claim_encode(&(trm_claim){.last = true}, &body);
    hear(self, from, TRM_WIRE_CLAIM, &body);
    trm_writer_close(&body);
}

static inline void say_pulse_of(world *self, uint32_t from, const trm_pulse *pulse)
{
    trm_writer body = {0};
    trm_pulse_encode(pulse, &body);
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

static inline void say_pulse(world *self, uint32_t from)
{
    say_pulse_of(self, from, &(trm_pulse){.running = 1});
}

static inline void say_report(world *self, given *of, trm_status status, uint64_t took_ms)
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

static inline void say_copied(world *self, const asked *of, uint64_t epoch, trm_status status)
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

/* As it was told where it is; then the master decides. */
static inline void say_lost(world *self, uint32_t from, const trm_output_at *at)
{
    trm_writer body = {0};
    trm_output_at_encode(at, &body);
    hear(self, from, TRM_WIRE_LOST, &body);
    trm_writer_close(&body);
}

/* It has taken the store over, and found `count` runs in it. */
static inline void say_held(world *self, const adopting *of, const trm_output_at *found, unsigned count)
{
    trm_writer body = {0};
    trm_held_encode(&(trm_held){.store = of->store, .last = true}, &body);
    for (unsigned i = 0; i < count; i++)
        trm_output_at_encode(&found[i], &body);
    hear(self, of->to, TRM_WIRE_HELD, &body);
    trm_writer_close(&body);
}

/* Time goes on, and everybody says that it lives. */
static inline void wait_ms(world *self, uint64_t ms)
{
    uint64_t end_ns = self->now_ns + ms * MS;
    for (; self->now_ns < end_ns; self->now_ns += 10 * MS) {
        uint64_t wake_ns = UINT64_MAX;
        if (self->now_ns / MS % TRM_PULSE_MS == 0)
            for (uint32_t i = 0; i < self->ranks; i++)
                if (!self->dead[i])
                    say_pulse(self, i);
        for (bool any = true; any;) {
            self->setups = 0;
            any = trm_master_step(self->master, self->now_ns, self->now_ns / MS, &wake_ns);
            self->setups_max = self->setups > self->setups_max ? self->setups : self->setups_max;
        }
    }
}

/* SETUP has been said, and is answered. */
static inline void claim_all(world *self)
{
    for (uint32_t i = 0; i < self->ranks; i++)
        if (!self->dead[i])
            say_claim(self, i);
    wait_ms(self, SET_UP_MS);
}

/* ---- What was ordered --------------------------------------------------------------------------- */

/* The last order of the task; NULL: it was never ordered. */
static inline given *order_of(world *self, trm_phase phase, uint32_t task)
{
    for (unsigned i = self->count; i-- > 0;)
        if (self->given[i].order.phase == phase && self->given[i].order.task == task)
            return &self->given[i];
    return NULL;
}

static inline unsigned orders_of(const world *self, trm_phase phase)
{
    unsigned count = 0;
    for (unsigned i = 0; i < self->count; i++)
        count += self->given[i].order.phase == phase;
    return count;
}

/* ---- Begin and end -------------------------------------------------------------------------------- */

typedef struct shape {
    uint32_t tasks, partitions;
    bool range_partitioned, one_path;
    uint32_t ranks, hosts, replicas;
} shape;

/* The table of `epoch` goes on; 0: another launch begins. */
static inline void make_master(world *self, uint64_t epoch)
{
    trm_err err = {""};
    self->log = trm_replog_mem_open(self->disk, 1, MS, MS, 0);
    trm_replica_init(&self->replica, self->log);
    trm_master_config config = {.spec = &self->spec,
                                .submission = &self->submission,
                                .fs = self->fs,
                                .replica = &self->replica,
                                .outbox = {outbox_send, self},
                                .ranks = self->ranks,
                                .epoch = epoch,
                                .seed = 1,
                                .wall_ms = self->now_ns / MS};
    assert_int_equal(trm_master_create(&self->master, &config, &err), TRM_OK);
}

static inline void unmake_master(world *self)
{
    trm_master_destroy(self->master);
    trm_replica_close(&self->replica);
    trm_replog_close(self->log);
}

/* The master dies, and another one follows in the same launch. */
static inline void follow(world *self)
{
    uint64_t epoch = trm_master_epoch(self->master);
    unmake_master(self);
    make_master(self, epoch);
}

static inline world *begin(const shape *of)
{
    static char out[] = "/out", state[] = "/out/.trireme";
    static world whole;
    world *self = &whole;
    trm_err err = {""};
    uint32_t crc;
    *self = (world){.now_ns = TRM_NS_PER_S, .ranks = of->ranks, .hosts = of->hosts, .one_path = of->one_path};
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
    make_master(self, 0);
    return self;
}

static inline void end(world *self)
{
    unmake_master(self);
    trm_log_disk_destroy(self->disk);
    trm_submission_close(&self->submission);
    trm_fs_mem_destroy(self->fs);
}

static inline world *begin_shaped(const shape *of, const uint32_t executors[])
{
    world *self = begin(of);
    wait_ms(self, SET_UP_MS);
    for (uint32_t i = 0; i < self->ranks; i++)
        say_hello(self, i, executors[i]);
    wait_ms(self, SET_UP_MS);
    claim_all(self);
    return self;
}

static inline world *begin_with_ranks(uint32_t tasks, uint32_t partitions, bool range_partitioned,
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

#endif
