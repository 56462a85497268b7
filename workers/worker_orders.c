/* Orders to executors, and what becomes of them to the master.
 *
 *     ORDER ─▶ [reduce: reduces ─ inputs here, list written ─▶] ready ─▶ an executor ─▶ REPORT
 *
 * All the way, and until its report is settled, it is in the ledger: what this rank holds.
 *
 * An executor has little queued behind what it runs (AHEAD_US of work, by what tasks have taken
 * so far): what waits, waits here, where whoever is idle first can take it. */
#include "workers/worker_self.h"

#include "runtime/diag.h"
#include "jobs/names.h"
#include "workers/attempt.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Queues ------------------------------------------------------------------------------- */

static bool order_queue_grow(order_queue *self)
{
    uint32_t room = self->room ? self->room * 2 : 64;
    trm_order *items = malloc(room * sizeof *items);
    if (!items)
        return false;
    for (uint32_t i = 0; i < self->count; i++)
        items[i] = self->items[(self->first + i) & (self->room - 1)];
    free(self->items);
    *self = (order_queue){.items = items, .count = self->count, .room = room};
    return true;
}

bool order_queue_put(order_queue *self, const trm_order *order)
{
    if (self->count == self->room && !order_queue_grow(self))
        return false;
    self->items[(self->first + self->count++) & (self->room - 1)] = *order;
    return true;
}

bool order_queue_put_first(order_queue *self, const trm_order *order)
{
    if (self->count == self->room && !order_queue_grow(self))
        return false;
    self->first = (self->first - 1) & (self->room - 1);
    self->items[self->first] = *order;
    self->count++;
    return true;
}

bool order_queue_take(order_queue *self, trm_order *out)
{
    if (self->count == 0)
        return false;
    *out = self->items[self->first];
    self->first = (self->first + 1) & (self->room - 1);
    self->count--;
    return true;
}

bool order_queue_remove(order_queue *self, const trm_order *order)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < self->count; i++) {
        const trm_order *at = &self->items[(self->first + i) & (self->room - 1)];
        bool is_it = at->phase == order->phase && at->task == order->task && at->attempt == order->attempt;
        if (!is_it)
            self->items[(self->first + kept++) & (self->room - 1)] = *at;
    }
    bool found = kept < self->count;
    self->count = kept;
    return found;
}

void order_queue_close(order_queue *self)
{
    free(self->items);
    *self = (order_queue){0};
}

/* ---- Reports ------------------------------------------------------------------------------- */

bool worker_claim_send(trm_worker *self)
{
    trm_order order;
    uint32_t at = self->claim_at;
    while (self->claim_due) {
        uint32_t end = at, count = 0;
        while (count < TRM_CLAIM_FRAME_MAX && trm_ledger_next(&self->ledger, &end, &order))
            count++;
        uint32_t none = end;
        trm_claim claim = {.last = !trm_ledger_next(&self->ledger, &none, &order)};
        trm_writer *frame = trm_sender_begin(&self->sender, TRM_WIRE_CLAIM);
        trm_claim_encode(&claim, frame);
        while (count-- > 0 && trm_ledger_next(&self->ledger, &at, &order)) {
            order.skips_count = 0; /* whoever has ordered it knows */
            trm_order_encode(&order, frame);
        }
        if (trm_sender_send(&self->sender, self->master) != TRM_OK)
            return false;
        self->claim_at = at;
        self->claim_due = !claim.last;
    }
    return true;
}

/* In frames as long as they may be. What the master does not know yet to be held waits for the
 * claim. */
bool worker_reports_send(trm_worker *self)
{
    const ledger_entry *first;
    if (!self->attached || self->claim_due)
        return false;
    while ((first = trm_ledger_due(&self->ledger))) {
        trm_writer *frame = trm_sender_begin(&self->sender, TRM_WIRE_REPORT);
        uint32_t count = 0;
        for (const ledger_entry *at = first; at; at = trm_ledger_after(&self->ledger, at)) {
            if (frame->len + at->len > TRM_MESSAGE_BYTES_MAX)
                break;
            trm_put_bytes(frame, at->bytes, at->len);
            count++;
        }
        if (trm_sender_send(&self->sender, self->master) != TRM_OK)
            return false;
        trm_ledger_sent(&self->ledger, count);
    }
    return true;
}

/* Whether more reports may be taken: what is to be sent has a bound, and what is kept. */
static bool has_room(trm_worker *self)
{
    if (self->ledger.bytes >= KEPT_BYTES_MAX)
        return false;
    return self->ledger.due_bytes < REPORTS_BYTES_MAX || worker_reports_send(self);
}

/* A report that there is no memory for is lost; the master misses it when this rank is idle for
 * long, and says so. */
static void add_report(trm_worker *self, const trm_report *report)
{
    trm_order order = {.phase = report->phase, .task = report->task, .attempt = report->attempt};
    trm_writer_reset(&self->report);
    trm_report_encode(report, &self->report);
    if (trm_writer_ok(&self->report) &&
        trm_ledger_report(&self->ledger, &order, self->report.data, self->report.len))
        return;
    self->report.failed = false;
    trm_error("no memory for the report of task %u", report->task);
}

void worker_refuse(trm_worker *self, const trm_order *order, trm_status status, const char *text)
{
    worker_died(self, order, status, 0, text);
}

void worker_died(trm_worker *self, const trm_order *order, trm_status status, uint32_t record,
                 const char *text)
{
    size_t len = strlen(text);
    trm_report report = {.phase = order->phase,
                         .task = order->task,
                         .attempt = order->attempt,
                         .status = (uint32_t)status,
                         .probe = order->probe,
                         .record = order->phase == TRM_PHASE_MAP ? record : 0,
                         .text = text,
                         .text_len = (uint32_t)(len < TRM_TEXT_BYTES_MAX ? len : TRM_TEXT_BYTES_MAX)};
    add_report(self, &report);
}

/* ---- Orders in ------------------------------------------------------------------------------ */

void worker_order(trm_worker *self, const trm_order *order)
{
    bool reduce = order->phase == TRM_PHASE_REDUCE;
    if (order->task >= (reduce ? self->setup.partitions : self->setup.tasks)) {
        self->dropped++;
        return;
    }
    if (trm_ledger_add(&self->ledger, order) != TRM_OK) { /* told twice; or there is no memory to refuse it */
        self->dropped++;
        return;
    }
    if (!self->crew || self->executors_failed == self->executors) {
        worker_refuse(self, order, TRM_EPEER, "this rank has no executor left");
        return;
    }
    trm_status status = self->ledger.count > ORDERS_MAX ? TRM_AGAIN : TRM_OK;
    if (status == TRM_OK && reduce)
        status = trm_shuffle_want(self->shuffle, order->task);
    if (status == TRM_OK && !order_queue_put(reduce ? &self->reduces : &self->ready, order)) {
        status = TRM_ENOMEM;
        if (reduce)
            trm_shuffle_done(self->shuffle, order->task);
    }
    if (status != TRM_OK) /* it is nobody's fault: later, or elsewhere */
        worker_refuse(self, order, TRM_EPEER, "this rank has no room for more orders");
}

/* ---- Reduces --------------------------------------------------------------------------------- */

static trm_status list_path(const trm_worker *self, const trm_order *order, char *out, size_t out_bytes)
{
    return trm_reduce_list_name(self->run_store, self->sender.epoch, order->task, order->attempt, out,
                                out_bytes);
}

static trm_status write_list(trm_worker *self, const trm_order *order, trm_err *err)
{
    char path[TRM_FETCH_PATH_BYTES];
    trm_status status = list_path(self, order, path, sizeof path);
    return status == TRM_OK ? trm_shuffle_list(self->shuffle, order->task, order->attempt, path, err)
                            : status;
}

/* The reduce is over, or will not be: what was brought here for it alone can go. */
static void end_reduce(trm_worker *self, const trm_order *order)
{
    char path[TRM_FETCH_PATH_BYTES];
    if (list_path(self, order, path, sizeof path) == TRM_OK)
        self->fs->ops->remove(self->fs, path, NULL);
    trm_shuffle_done(self->shuffle, order->task);
}

/* ---- Orders that are of no use any more ------------------------------------------------------- */

static void end_unbegun(trm_worker *self, const trm_order *order, trm_status status, const char *text)
{
    worker_refuse(self, order, status, text);
    if (order->phase == TRM_PHASE_REDUCE)
        end_reduce(self, order);
}

static bool unqueue(trm_worker *self, const trm_order *order)
{
    return order_queue_remove(&self->ready, order) || order_queue_remove(&self->reduces, order);
}

/* What an executor has is begun, or will be within AHEAD_US of work. */
void worker_recall(trm_worker *self, const trm_order *order)
{
    if (unqueue(self, order))
        end_unbegun(self, order, TRM_AGAIN, "it waited behind others");
}

/* One that runs ends with its executor: see on_died. One that is behind others there is run for nothing. */
void worker_cancel(trm_worker *self, const trm_order *order)
{
    if (!trm_ledger_cancel(&self->ledger, order))
        return; /* it has ended */
    if (unqueue(self, order))
        end_unbegun(self, order, TRM_EFENCED, "it was cancelled");
    else if (self->crew)
        trm_crew_cancel(self->crew, order);
}

/* What an executor has left behind that was ended: it could not do so. */
static void remove_rest(trm_worker *self, const trm_order *order)
{
    char path[TRM_FS_PATH_BYTES_MAX];
    bool map = order->phase == TRM_PHASE_MAP, run = map && !self->traits.map_only;
    if (order->phase == TRM_PHASE_SAMPLE)
        return;
    trm_status status = run ? trm_run_name(self->run_store, self->sender.epoch, order->task, order->attempt,
                                           path, sizeof path)
                            : trm_part_attempt_name(self->spec->output_dir, order->task, self->sender.epoch,
                                                    order->attempt, path, sizeof path);
    if (status == TRM_OK)
        self->fs->ops->remove(self->fs, path, NULL);
}

bool worker_reduces_step(trm_worker *self)
{
    bool any = false;
    for (uint32_t i = self->reduces.count, lists = 0; i > 0 && lists < LISTS_STEP_MAX && has_room(self);
         i--) {
        trm_order order;
        trm_err err = {""};
        order_queue_take(&self->reduces, &order);
        trm_status status = trm_shuffle_state(self->shuffle, order.task, &err);
        if (status == TRM_OK) {
            lists++;
            status = write_list(self, &order, &err);
            if (status == TRM_OK && !order_queue_put(&self->ready, &order))
                status = trm_err_set(&err, TRM_ENOMEM, "no memory for one more order");
        } else if (status == TRM_AGAIN &&
                   order_queue_put(&self->reduces, &order)) { /* it has the room it had */
            continue;
        }
        any = true;
        if (status != TRM_OK) {
            worker_refuse(self, &order, status, err.text);
            end_reduce(self, &order);
        }
    }
    return any;
}

/* ---- What the crew says ---------------------------------------------------------------------- */

void worker_keep_scratch(trm_worker *self)
{
    if (self->keeps)
        return;
    self->keeps = true;
    trm_crew_keep_scratch(self->crew, true);
}

/* A reduce that could not read one of its inputs: that is to be made again, the reduce is not
 * to blame. `sample` has a trm_output_at whose rank is nobody's, so that it is taken apart here. */
static void input_unreadable(trm_worker *self, trm_report *report, uint64_t now_ns)
{
    trm_reader in;
    trm_reader_init(&in, report->sample, report->sample_len);
    uint64_t task = trm_get_varint(&in), attempt = trm_get_varint(&in);
    if (trm_reader_ok(&in) && task < self->setup.tasks && attempt <= UINT32_MAX) {
        trm_shuffle_unreadable(self->shuffle, report->task, (uint32_t)task, (uint32_t)attempt,
                               (trm_status)report->status, now_ns);
        report->status = TRM_ELOST;
    }
    report->sample_len = 0;
}

static void learn_time(trm_worker *self, const trm_report *report)
{
    uint64_t ms = report->ended_ms > report->started_ms ? report->ended_ms - report->started_ms : 0;
    uint32_t us = ms == 0 ? TASK_US_MIN : ms < 1000000 ? (uint32_t)ms * 1000 : 1000000000u;
    self->running_us = self->running_us ? (uint32_t)((self->running_us * 7ull + us) / 8) : us;
}

static void on_report(trm_worker *self, trm_report *report)
{
    trm_order order = {.phase = report->phase, .task = report->task, .attempt = report->attempt};
    if (report->phase == TRM_PHASE_REDUCE) {
        if ((report->status == TRM_ELOST || report->status == TRM_ECORRUPT) && report->sample_len)
            input_unreadable(self, report, self->step_ns);
        end_reduce(self, &order);
    }
    if (report->status == TRM_OK) {
        if (report->phase == TRM_PHASE_MAP && !self->traits.map_only && report->output_bytes)
            worker_keep_scratch(self);
        if (!report->probe)
            learn_time(self, report);
    }
    add_report(self, report);
}

static void no_executor_left(trm_worker *self, trm_status status, const char *why)
{
    if (self->crew_status == TRM_AGAIN || self->crew_status == TRM_OK) {
        self->crew_status = status;
        snprintf(self->crew_text, sizeof self->crew_text, "%s", why);
        self->hello_due = true;
    }
    trm_order order;
    while (has_room(self) &&
           (order_queue_take(&self->ready, &order) || order_queue_take(&self->reduces, &order))) {
        worker_refuse(self, &order, TRM_EPEER, "this rank has no executor left");
        if (order.phase == TRM_PHASE_REDUCE)
            end_reduce(self, &order);
    }
}

static void on_ready(trm_worker *self, const trm_crew_event *event)
{
    if (event->status == TRM_OK) {
        if (self->crew_status != TRM_AGAIN)
            return;
        self->crew_status = TRM_OK;
        self->traits = *event->traits;
        self->hello_due = true;
        return;
    }
    if (++self->executors_failed == self->executors)
        no_executor_left(self, event->status, event->err.text);
}

/* The order that ran has failed; those behind it were not begun, and go to whoever is free. When it
 * was ended for an order that is of no use, and had begun the next one, that is nobody's fault. */
static void on_died(trm_worker *self, const trm_crew_event *event)
{
    char text[TRM_TEXT_BYTES_MAX];
    bool gone = event->status == TRM_EPEER; /* and no other takes its place */
    for (unsigned i = event->lost_count; i-- > 0;) {
        const trm_order *order = &event->lost[i];
        bool ran = i == 0 && event->running;
        if (ran)
            remove_rest(self, order);
        if (trm_ledger_is_cancelled(&self->ledger, order)) {
            end_unbegun(self, order, TRM_EFENCED, "it was cancelled");
            continue;
        }
        if (!ran && order_queue_put_first(&self->ready, order))
            continue;
        snprintf(text, sizeof text, "%s%s%s", event->err.text,
                 event->last_words[0] ? "\nit had printed:\n" : "", event->last_words);
        if (ran && event->cancelled)
            worker_refuse(self, order, TRM_AGAIN, "its executor was ended for another order");
        else if (ran)
            worker_died(self, order, event->status, event->record, text);
        else
            worker_refuse(self, order, TRM_EPEER, "no memory to keep it");
        if (order->phase == TRM_PHASE_REDUCE)
            end_reduce(self, order);
    }
    if (gone && ++self->executors_failed >= self->executors) {
        trm_warn("%s", event->err.text);
        no_executor_left(self, TRM_ELAUNCH, event->err.text);
    }
}

bool worker_crew_step(trm_worker *self)
{
    bool any = false;
    trm_crew_event event;
    for (unsigned i = 0; self->crew && i < EVENTS_STEP_MAX && has_room(self); i++) {
        if (trm_crew_next(self->crew, &event) != TRM_OK)
            break;
        any = true;
        switch (event.kind) {
        case TRM_CREW_READY:
            on_ready(self, &event);
            break;
        case TRM_CREW_REPORT:
            on_report(self, &event.report);
            break;
        case TRM_CREW_DIED:
            on_died(self, &event);
            break;
        }
    }
    return any;
}

/* ---- Executors -------------------------------------------------------------------------------- */

/* How many orders an executor may have, the one that it runs included: what it has queued cannot be given
 * back, so that there is nothing behind the first, which may take long. */
static unsigned queue_target(const trm_worker *self)
{
    uint32_t us = self->running_us > TASK_US_MIN ? self->running_us : TASK_US_MIN;
    uint32_t target = self->running_us ? 1 + AHEAD_US / us : 1;
    return target < TRM_CREW_QUEUE_MAX ? target : TRM_CREW_QUEUE_MAX;
}

/* A batch to one executor; false: it cannot take it. */
static bool feed_one(trm_worker *self, uint32_t executor, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        order_queue_take(&self->ready, &self->held[i]);
    if (trm_crew_submit(self->crew, executor, self->held, count) == TRM_OK)
        return true;
    for (unsigned i = count; i-- > 0;)
        order_queue_put_first(&self->ready, &self->held[i]); /* there was room for them */
    return false;
}

bool worker_feed(trm_worker *self)
{
    bool any = false;
    if (!self->crew || !self->set_up || self->ready.count == 0)
        return false;
    unsigned target = queue_target(self), total = self->ready.count;
    for (uint32_t i = 0; i < self->executors; i++)
        total += trm_crew_queued(self->crew, i);
    unsigned fair = (total + self->executors - 1) / self->executors; /* idle ones come before queues */
    unsigned most = target < fair ? target : fair;
    for (uint32_t i = 0; i < self->executors && self->ready.count; i++) {
        unsigned queued = trm_crew_queued(self->crew, i);
        if (queued >= most)
            continue;
        unsigned count = most - queued < self->ready.count ? most - queued : self->ready.count;
        any |= feed_one(self, i, count);
    }
    return any;
}
