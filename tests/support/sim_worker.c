/* See sim_worker.h. */
#include "tests/support/sim_worker_self.h"

#include "jobs/names.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOST_AGAIN_NS (15000 * TRM_NS_PER_MS)
#define HELLO_AGAIN_NS (5000 * TRM_NS_PER_MS)
#define NOWHERE UINT32_MAX
#define HELLO_FOLLOW_NS (200 * TRM_NS_PER_MS)
#define PULSE_NS (TRM_PULSE_MS * TRM_NS_PER_MS)
#define MASTER_SILENT_NS (30000 * TRM_NS_PER_MS)
#define MASTER_BEGIN_NS (120000 * TRM_NS_PER_MS)
#define PAUSE_NS (1000 * TRM_NS_PER_MS)

static void *must(void *memory)
{
    if (!memory)
        abort();
    return memory;
}

/* ---- Out -------------------------------------------------------------------------------------- */

trm_writer *sim_worker_begin(sim_worker *self, trm_wire_type type)
{
    trm_wire_header header = {.type = (uint8_t)type, .epoch = self->epoch, .term = self->term};
    trm_wire_begin(&self->frame, &header);
    return &self->frame;
}

trm_status sim_worker_send(sim_worker *self)
{
    trm_transport *transport = self->config.transport;
    trm_wire_seal(&self->frame);
    return transport->ops->send(transport, self->master, self->frame.data, self->frame.len);
}

static void say_hello(sim_worker *self)
{
    trm_hello *hello = must(calloc(1, sizeof *hello));
    hello->status = self->config.hello_status;
    hello->pid = 100 + self->config.transport->rank;
    hello->executors = self->config.executors;
    hello->traits = *self->config.traits;
    strcpy(hello->text, hello->status == TRM_OK ? "" : "its crew is drunk");
    strcpy(hello->host, self->host);
    strcpy(hello->run_store, self->store);
    trm_hello_encode(hello, sim_worker_begin(self, TRM_WIRE_HELLO));
    free(hello);
    sim_worker_send(self);
    self->hello_sent = true;
    self->hello_ns = self->now_ns + (self->set_up ? HELLO_FOLLOW_NS : HELLO_AGAIN_NS);
}

static uint32_t running_count(const sim_worker *self)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < self->config.executors; i++)
        count += self->executor[i].end_ns != 0;
    return count;
}

static void say_pulse(sim_worker *self)
{
    trm_pulse pulse = {.running = running_count(self),
                       .queued = (uint32_t)(self->queue_count - self->queue_at)};
    trm_writer *frame = sim_worker_begin(self, TRM_WIRE_PULSE);
    trm_pulse_encode(&pulse, frame);
    for (uint32_t i = 0; i < self->config.executors; i++) {
        const running *it = &self->executor[i];
        trm_begun begun = {.phase = it->order.phase,
                           .task = it->order.task,
                           .attempt = it->order.attempt,
                           .ms = (uint32_t)((self->now_ns - it->begin_ns) / TRM_NS_PER_MS)};
        if (it->end_ns)
            trm_begun_encode(&begun, frame);
    }
    sim_worker_send(self);
}

/* ---- What is held -------------------------------------------------------------------------- */

static void report(sim_worker *self, const trm_report *report)
{
    trm_order order = {.phase = report->phase, .task = report->task, .attempt = report->attempt};
    trm_writer_reset(&self->report);
    trm_report_encode(report, &self->report);
    bool taken = trm_ledger_report(&self->ledger, &order, self->report.data, self->report.len);
    assert(taken);
}

static bool claim_send(sim_worker *self)
{
    if (self->copies_due && !sim_copies_tell(self))
        return false;

    trm_order order;
    trm_writer *frame = sim_worker_begin(self, TRM_WIRE_CLAIM);
    trm_claim_encode(&(trm_claim){.last = true}, frame);
    for (uint32_t at = 0; trm_ledger_next(&self->ledger, &at, &order);)
        trm_order_encode(&order, frame);
    if (sim_worker_send(self) == TRM_AGAIN)
        return false;
    self->claim_due = false;
    self->claimed_term = self->term;
    return true;
}

static void reports_send(sim_worker *self)
{
    const ledger_entry *at = trm_ledger_due(&self->ledger);
    uint32_t count = 0;
    if (!self->attached || (self->claim_due && !claim_send(self)) || !at)
        return;
    sim_worker_begin(self, TRM_WIRE_REPORT);
    for (; at && self->frame.len + at->len <= TRM_MESSAGE_BYTES_MAX;
         at = trm_ledger_after(&self->ledger, at)) {
        trm_put_bytes(&self->frame, at->bytes, at->len);
        count++;
    }
    if (sim_worker_send(self) != TRM_AGAIN)
        trm_ledger_sent(&self->ledger, count);
}

/* ---- Attempts ---------------------------------------------------------------------------------- */

static void write_part(sim_worker *self, const trm_order *order, trm_report *out)
{
    char path[TRM_FS_PATH_BYTES_MAX];
    uint8_t bytes[128];
    trm_file *file;
    out->output_bytes = sim_part_bytes(order->task);
    out->output_records = out->output_bytes;
    out->output_crc = out->output_bytes ? order->task + 1 : 0;
    if (!out->output_bytes || !self->config.habits->writes_parts)
        return;
    memset(bytes, 'a' + (int)(order->task % 26), sizeof bytes);
    trm_fs *fs = self->config.fs;
    trm_status status = trm_part_attempt_name(self->config.spec->output_dir, order->task, self->epoch,
                                              order->attempt, path, sizeof path);
    if (status == TRM_OK)
        status = fs->ops->open(fs, path, TRM_FS_WRITE | TRM_FS_CREATE | TRM_FS_TRUNCATE, &file, NULL);
    if (status != TRM_OK) { /* the job is done, and attempts are not kept any more */
        out->status = status;
        return;
    }
    status = fs->ops->write_at(file, 0, bytes, out->output_bytes, NULL);
    if (status == TRM_OK)
        status = fs->ops->sync(file, NULL);
    if (status == TRM_OK) { /* and its name */
        *strrchr(path, '/') = '\0';
        status = fs->ops->sync_dir(fs, path, NULL);
    }
    fs->ops->close(file);
    out->status = status;
}

static void succeed(sim_worker *self, const trm_order *order, trm_report *out)
{
    bool part = order->phase == TRM_PHASE_REDUCE || !self->setup.partitions;
    if (order->phase == TRM_PHASE_SAMPLE || order->probe || self->config.habits->leaves_nothing)
        return;
    sim_task_counters(order->phase, order->task, &out->counters);
    out->counters.value[TRM_COUNTER_MAP_RECORDS_SKIPPED] = order->skips_count;
    if (part) {
        write_part(self, order, out);
    } else if (!sim_map_is_empty(self->config.habits, order->task)) {
        out->output_bytes = 100;
        out->output_records = 1;
        sim_runs_add(
            self->config.runs, self->store,
            &(sim_run){
                .epoch = self->epoch, .task = order->task, .attempt = order->attempt, .made = self->epoch});
    }
}

static void end_attempt(sim_worker *self, running *it)
{
    static const char why[] = "it was drawn to fail";
    static const uint32_t statuses[] = {TRM_EKERNEL, TRM_ETIMEOUT, TRM_ELIMIT, TRM_ENOSPACE};
    uint8_t sample[64];
    const trm_order *order = &it->order;
    trm_report out = {.phase = order->phase,
                      .task = order->task,
                      .attempt = order->attempt,
                      .probe = order->probe,
                      .started_ms = it->begin_ns / TRM_NS_PER_MS,
                      .ended_ms = self->now_ns / TRM_NS_PER_MS};
    bool map = order->phase == TRM_PHASE_MAP,
         poisoned = map && order->task == self->config.habits->poison_task;
    uint32_t record = map ? sim_task_dies_at(self->config.habits, order) : SIM_NO_RECORD;
    if (record != SIM_NO_RECORD) {
        out.status = self->config.habits->hang_ns ? TRM_ETIMEOUT : TRM_EKERNEL;
        out.record = self->config.spec->skips_max ? record + 1 : 0;
        out.text = why;
        out.text_len = sizeof why - 1;
    } else if (poisoned || trm_draw_often(&self->draw, self->config.habits->fail_permille)) {
        out.status = poisoned ? TRM_EKERNEL : statuses[trm_draw_below(&self->draw, 4)];
        if (map && !order->probe && self->config.spec->skips_max) /* an innocent one */
            out.record = (uint32_t)trm_draw_below(&self->draw, SIM_RECORDS);
        out.text = why;
        out.text_len = sizeof why - 1;
    } else {
        succeed(self, order, &out);
    }
    if (order->phase == TRM_PHASE_SAMPLE && out.status == TRM_OK) {
        sample[0] = 4;
        trm_store_u32(sample + 1, (uint32_t)trm_draw_next(&self->draw));
        out.sample = sample;
        out.sample_len = 5;
    }
    report(self, &out);
    it->end_ns = 0;
}

static void refuse(sim_worker *self, const trm_order *order, trm_status status)
{
    trm_report out = {.phase = order->phase,
                      .task = order->task,
                      .attempt = order->attempt,
                      .status = status,
                      .probe = order->probe};
    report(self, &out);
}

/* Whether all inputs of a reduce are here; what cannot be read is told. */
static bool inputs_are_here(sim_worker *self, uint64_t *wake_ns)
{
    bool all = true;
    for (uint32_t i = 0; i < self->setup.tasks; i++) {
        const trm_output_at *at = &self->known[i];
        if (at->rank == NOWHERE) {
            all = false;
            continue;
        }
        if (at->empty || self->config.find_output(self->config.context, self->config.transport->rank, at))
            continue;
        all = false;
        if (self->now_ns >= self->lost_ns[i]) {
            trm_output_at_encode(at, sim_worker_begin(self, TRM_WIRE_LOST));
            sim_worker_send(self);
            self->lost_ns[i] = self->now_ns + LOST_AGAIN_NS;
        }
        if (self->lost_ns[i] < *wake_ns)
            *wake_ns = self->lost_ns[i];
    }
    return all;
}

/* ---- Orders -------------------------------------------------------------------------------------- */

static void queue_put(sim_worker *self, const trm_order *order)
{
    if (self->queue_at == self->queue_count)
        self->queue_at = self->queue_count = 0;
    if (self->queue_count == self->queue_room) {
        self->queue_room = self->queue_room ? self->queue_room * 2 : 64;
        self->queue = must(realloc(self->queue, self->queue_room * sizeof *self->queue));
    }
    self->queue[self->queue_count++] = *order;
}

/* A reduce whose inputs are not here waits, and others pass it. */
static bool next_order(sim_worker *self, trm_order *out, uint64_t *wake_ns)
{
    bool asked = false, here = false;
    for (size_t i = self->queue_at; i < self->queue_count; i++) {
        if (self->queue[i].phase == TRM_PHASE_REDUCE && !asked) {
            here = inputs_are_here(self, wake_ns);
            asked = true;
        }
        if (self->queue[i].phase == TRM_PHASE_REDUCE && !here)
            continue;
        *out = self->queue[i];
        memmove(&self->queue[self->queue_at + 1], &self->queue[self->queue_at],
                (i - self->queue_at) * sizeof *self->queue);
        self->queue_at++;
        return true;
    }
    return false;
}

static void executors_step(sim_worker *self, uint64_t *wake_ns)
{
    const sim_habits *habits = self->config.habits;
    for (uint32_t i = 0; i < self->config.executors; i++) {
        running *it = &self->executor[i];
        bool sick = self->config.sick_ns && self->now_ns >= self->config.sick_ns && !habits->hang_ns;
        if (it->end_ns && sick) /* where attempts time out, all end */
            continue;
        if (it->end_ns && it->end_ns <= self->now_ns)
            end_attempt(self, it);
        while (!it->end_ns && next_order(self, &it->order, wake_ns)) {
            if (trm_draw_often(&self->draw, habits->refuse_permille)) {
                refuse(self, &it->order, it->order.phase == TRM_PHASE_REDUCE ? TRM_ELOST : TRM_EPEER);
                continue;
            }
            uint64_t spread = habits->task_max_ns - habits->task_min_ns;
            it->begin_ns = self->now_ns;
            uint64_t takes_ns = habits->task_min_ns + (spread ? trm_draw_below(&self->draw, spread) : 0);
            bool map = it->order.phase == TRM_PHASE_MAP;
            takes_ns *= self->config.slowness ? self->config.slowness : 1;
            if (habits->hang_ns && map && sim_task_dies_at(habits, &it->order) != SIM_NO_RECORD)
                takes_ns = habits->hang_ns;
            it->end_ns = self->now_ns + takes_ns;
            if (it->end_ns <= self->now_ns)
                end_attempt(self, it);
        }
        if (it->end_ns && it->end_ns < *wake_ns)
            *wake_ns = it->end_ns;
    }
}

/* ---- In --------------------------------------------------------------------------------------------- */

static void on_setup(sim_worker *self, const trm_wire_header *header, trm_reader *body)
{
    trm_setup setup;
    if (trm_setup_decode(&setup, body) != TRM_OK || !trm_reader_done(body)) {
        self->dropped++;
        return;
    }
    if (!self->set_up) {
        self->known = must(malloc((setup.tasks + 1) * sizeof *self->known));
        self->lost_ns = must(calloc(setup.tasks + 1, sizeof *self->lost_ns));
        for (uint32_t i = 0; i < setup.tasks; i++)
            self->known[i].rank = NOWHERE;
    }
    trm_setup_close(&self->setup);
    self->setup = setup;
    self->epoch = header->epoch;
    self->term = header->term;
    self->set_up = self->attached = self->claim_due = self->copies_due = true;
    for (size_t i = 0; i < self->config.runs->count; i++)
        if (sim_copies_is_own(self, &self->config.runs->run[i]))
            self->config.runs->run[i].told_term = 0;
    trm_ledger_send_again(&self->ledger);
}

/* A run of the store that can be taken. */
static bool can_take(const trm_store *store, const sim_run *run)
{
    return !run->gone && run->epoch == store->epoch && strcmp(run->store, store->path) == 0;
}

/* It stays where it was, too. What has the name there is the same: see give_name of workers/adopt.c. */
static void take(sim_worker *self, sim_run run)
{
    sim_run *there = sim_runs_find(self->config.runs, self->store, self->epoch, run.task, run.attempt);
    run.epoch = self->epoch;
    run.told_term = 0;
    if (!there) {
        sim_runs_add(self->config.runs, self->store, &run);
        return;
    }
    assert(there->made == run.made);
    if (!there->copy_of)
        there->copy_of = run.copy_of;
}

/* Copies are told before what else is in the store. */
static void tell_copies_of(sim_worker *self, const trm_store *store)
{
    bool any = false;
    trm_writer *frame = sim_worker_begin(self, TRM_WIRE_COPIED);
    for (size_t i = 0; i < self->config.runs->count; i++) {
        const sim_run *run = &self->config.runs->run[i];
        trm_copied it = {.task = run->task, .attempt = run->attempt, .epoch = run->copy_of, .bytes = 100};
        if (!run->copy_of || !can_take(store, run))
            continue;
        trm_copied_encode(&it, frame);
        any = true;
    }
    if (any)
        sim_worker_send(self);
}

static void on_adopt(sim_worker *self, trm_reader *body)
{
    while (trm_reader_left(body)) {
        trm_held adopted = {.last = true};
        trm_store_decode(&adopted.store, body);
        assert(trm_reader_ok(body));
        tell_copies_of(self, &adopted.store);
        trm_held_encode(&adopted, sim_worker_begin(self, TRM_WIRE_HELD));
        for (size_t i = 0, count = self->config.runs->count; i < count; i++) {
            sim_run run = self->config.runs->run[i];
            if (!can_take(&adopted.store, &run))
                continue;
            take(self, run);
            trm_output_at at = {
                .task = run.task, .attempt = run.attempt, .rank = self->config.transport->rank};
            trm_output_at_encode(&at, &self->frame);
        }
        sim_worker_send(self);
    }
}

static void on_orders(sim_worker *self, trm_reader *body)
{
    while (trm_reader_left(body)) {
        trm_order order;
        trm_order_decode(&order, body);
        assert(trm_reader_ok(body));
        if (self->config.ordered)
            self->config.ordered(self->config.context, self->config.transport->rank, &order);
        trm_status added = trm_ledger_add(&self->ledger, &order);
        assert(added == TRM_OK);
        queue_put(self, &order);
    }
}

static void on_outputs(sim_worker *self, trm_reader *body)
{
    while (trm_reader_left(body)) {
        trm_output_at at;
        trm_output_at_decode(&at, body);
        assert(trm_reader_ok(body) && at.task < self->setup.tasks && at.rank < self->setup.peers_count);
        if (memcmp(&self->known[at.task], &at, sizeof at) != 0)
            self->lost_ns[at.task] = 0;
        self->known[at.task] = at;
    }
}

void sim_worker_leave(sim_worker *self, const trm_end *end)
{
    if (self->ended)
        return;
    self->end = *end;
    self->ended = true;
    sim_worker_begin(self, TRM_WIRE_BYE);
    sim_worker_send(self);
    for (size_t i = 0; i < self->config.runs->count && !self->end.keep_runs; i++)
        if (strcmp(self->config.runs->run[i].store, self->store) == 0)
            self->config.runs->run[i].gone = true;
}

static void on_end(sim_worker *self, trm_reader *body)
{
    trm_end end;
    trm_end_decode(&end, body);
    assert(trm_reader_done(body));
    sim_worker_leave(self, &end);
}

/* As workers/worker.c does. */
static void watch_master(sim_worker *self, uint64_t now_ns, uint64_t *wake_ns)
{
    if (!self->heard_ns || now_ns - self->now_ns > PAUSE_NS)
        self->heard_ns = now_ns;
    uint64_t due_ns = self->heard_ns + (self->set_up ? MASTER_SILENT_NS : MASTER_BEGIN_NS);
    if (!self->config.watches_master)
        return;
    if (now_ns >= due_ns)
        sim_worker_leave(self, &(trm_end){.exit_code = 5, .keep_runs = true});
    else if (due_ns < *wake_ns)
        *wake_ns = due_ns;
}

static void on_settled(sim_worker *self, trm_reader *body)
{
    while (trm_reader_left(body)) {
        trm_order order;
        trm_order_decode(&order, body);
        assert(trm_reader_ok(body));
        trm_ledger_settle(&self->ledger, &order); /* told twice is no harm */
    }
}

static bool queue_remove(sim_worker *self, const trm_order *order)
{
    size_t kept = self->queue_at, count = self->queue_count;
    for (size_t i = self->queue_at; i < count; i++) {
        const trm_order *at = &self->queue[i];
        if (at->phase != order->phase || at->task != order->task || at->attempt != order->attempt)
            self->queue[kept++] = *at;
    }
    self->queue_count = kept;
    return kept < count;
}

/* What runs, ends; what waits, too; what has ended, has. */
static void on_cancel(sim_worker *self, trm_reader *body)
{
    while (trm_reader_left(body)) {
        trm_order order;
        trm_order_decode(&order, body);
        assert(trm_reader_ok(body));
        if (!trm_ledger_cancel(&self->ledger, &order))
            continue;
        for (uint32_t i = 0; i < self->config.executors; i++) {
            running *it = &self->executor[i];
            if (it->end_ns && it->order.phase == order.phase && it->order.task == order.task &&
                it->order.attempt == order.attempt)
                it->end_ns = 0;
        }
        queue_remove(self, &order);
        refuse(self, &order, TRM_EFENCED);
    }
}

static void on_recall(sim_worker *self, trm_reader *body)
{
    while (trm_reader_left(body)) {
        trm_order order;
        trm_order_decode(&order, body);
        assert(trm_reader_ok(body));
        if (queue_remove(self, &order))
            refuse(self, &order, TRM_AGAIN);
    }
}

static void obey(sim_worker *self, const trm_wire_header *header, trm_reader *body)
{
    if ((self->epoch && header->epoch != self->epoch) || header->term < self->term) {
        self->dropped++;
    } else if (header->type == TRM_WIRE_END) {
        on_end(self, body);
    } else if (header->type == TRM_WIRE_SETUP) {
        on_setup(self, header, body);
    } else if (!self->attached || header->term != self->term) {
        self->dropped += header->type != TRM_WIRE_LEADS;
    } else if (header->type == TRM_WIRE_ORDER) {
        on_orders(self, body);
    } else if (header->type == TRM_WIRE_CANCEL) {
        on_cancel(self, body);
    } else if (header->type == TRM_WIRE_RECALL) {
        on_recall(self, body);
    } else if (header->type == TRM_WIRE_SETTLED) {
        on_settled(self, body);
    } else if (header->type == TRM_WIRE_OUTPUTS) {
        on_outputs(self, body);
    } else if (header->type == TRM_WIRE_ADOPT) {
        on_adopt(self, body);
    } else if (header->type == TRM_WIRE_COPY) {
        sim_copies_order(self, body);
    }
}

void sim_worker_step(sim_worker *self, uint64_t now_ns, uint64_t *wake_ns)
{
    watch_master(self, now_ns, wake_ns);
    self->now_ns = now_ns;
    if (self->ended)
        return;
    if (now_ns >= self->hello_ns && !self->attached)
        say_hello(self);
    if (!self->attached && self->hello_ns < *wake_ns)
        *wake_ns = self->hello_ns;
    executors_step(self, wake_ns);
    sim_copies_step(self, wake_ns);
    reports_send(self);
    if (self->attached && (self->claim_due || self->ledger.due_bytes) && now_ns + SIM_FULL_NS < *wake_ns)
        *wake_ns = now_ns + SIM_FULL_NS;
    if (self->hello_sent && now_ns >= self->pulse_ns) {
        say_pulse(self);
        self->pulse_ns = now_ns + PULSE_NS;
    }
    if (self->hello_sent && self->pulse_ns < *wake_ns)
        *wake_ns = self->pulse_ns;
}

void sim_worker_receive(sim_worker *self, uint32_t from, const trm_wire_header *header, trm_reader *body,
                        uint64_t now_ns)
{
    if (from == self->master)
        self->heard_ns = now_ns;
    if (from == self->master && !self->ended)
        obey(self, header, body);
    else
        self->dropped += !self->ended;
}

/* ---- Life -------------------------------------------------------------------------------------------- */

sim_worker *sim_worker_create(const sim_worker_config *config)
{
    sim_worker *self = must(calloc(1, sizeof *self));
    self->config = *config;
    snprintf(self->host, sizeof self->host, "%s", config->host);
    snprintf(self->store, sizeof self->store, "%s", config->store);
    self->draw = trm_draw_from(config->seed);
    self->hello_ns = config->hello_ns;
    trm_ledger_init(&self->ledger);
    self->executor = must(calloc(config->executors, sizeof *self->executor));
    return self;
}

void sim_worker_destroy(sim_worker *self)
{
    if (!self)
        return;
    trm_setup_close(&self->setup);
    free(self->known);
    free(self->lost_ns);
    free(self->queue);
    free(self->executor);
    trm_ledger_close(&self->ledger);
    trm_writer_close(&self->report);
    trm_writer_close(&self->frame);
    free(self);
}

bool sim_worker_ended(const sim_worker *self, trm_end *end)
{
    if (self->ended)
        *end = self->end;
    return self->ended;
}

uint64_t sim_worker_dropped(const sim_worker *self)
{
    return self->dropped;
}

void sim_worker_set_master(sim_worker *self, uint32_t master, uint64_t epoch, uint64_t term)
{
    if (epoch < self->epoch || (epoch == self->epoch && term <= self->term) || self->ended)
        return;
    self->master = master;
    self->epoch = epoch;
    self->term = term;
    self->attached = self->claim_due = false;
    self->heard_ns = self->now_ns;
    if (self->hello_sent)
        self->hello_ns = self->now_ns;
}

uint64_t sim_worker_term(const sim_worker *self)
{
    return self->term;
}

uint64_t sim_worker_epoch(const sim_worker *self)
{
    return self->epoch;
}

static bool has_failed(const ledger_entry *entry)
{
    trm_report report;
    trm_reader in;
    trm_reader_init(&in, entry->bytes, entry->len);
    if (entry->len)
        trm_report_decode(&report, &in);
    return entry->len && report.status != TRM_OK;
}

bool sim_worker_holds(const sim_worker *self, uint8_t phase, uint32_t task, trm_order *out)
{
    for (uint32_t i = 0; i < self->ledger.room; i++) {
        const ledger_entry *entry = &self->ledger.entry[i];
        if (entry->order.phase != phase || entry->order.task != task || entry->order.probe ||
            has_failed(entry))
            continue;
        *out = entry->order;
        return true;
    }
    return false;
}

uint64_t sim_worker_claimed_term(const sim_worker *self)
{
    return self->claimed_term;
}
