/* Which record kills a kernel (--skip-bad-records), by probes: attempts that are given some records of
 * the task, and leave nothing behind.
 *
 *     a map dies at record r
 *       ─▶ ALONE [r, r]   dies ─────────────────────────────────────▶ r is skipped
 *       ─▶ PREFIX [0, r]  lives ────────────────────────────────────▶ not the record's fault: FAIL
 *       ─▶ HALVES [m, r]: the greatest m from which on it dies, by bisection: what record m has done
 *          to the kernel's memory kills it at r
 *       ─▶ CONFIRM [0, r] without m   lives ─▶ m is skipped   dies ─▶ no single record's fault: FAIL
 *
 * Probes leave out what is known to be bad already. They do not count as attempts: PROBES_MAX
 * bounds them, and a failure that has been hunted in vain counts. A SKIP is in the log before the task is
 * run without the record, and fences every attempt that was given it. A hunt itself is soft: a
 * master that follows another meets the task's failure again and hunts anew. */
#include "scheduler/master_self.h"

#include "runtime/diag.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum hunt_stage { HUNT_ALONE, HUNT_PREFIX, HUNT_HALVES, HUNT_CONFIRM, HUNT_FOUND } hunt_stage;

struct master_hunt {
    struct master_hunt *next;
    hunt_stage stage;
    uint32_t last;      /* the record at which it dies */
    uint32_t low, high; /* HALVES: from low on it dies, from high on it lives */
    uint32_t found;     /* CONFIRM, FOUND */
    uint32_t rank;      /* of the attempt that failed … */
    trm_report failure; /* … and how; its text is behind this */
    char text[];
};

static master_hunt *hunt_of(const trm_master *self, uint32_t task)
{
    master_hunt *at = self->hunts;
    while (at && at->failure.task != task)
        at = at->next;
    return at;
}

/* Of no use any more; what it began with is settled. */
static void drop(trm_master *self, master_hunt *hunt)
{
    const trm_report *failure = &hunt->failure;
    master_settle(self, hunt->rank,
                  &(trm_order){.phase = failure->phase, .task = failure->task, .attempt = failure->attempt});
    self->phase[TRM_PHASE_MAP].task[failure->task].hunted = 0;
    master_hunt **at = &self->hunts;
    while (*at != hunt)
        at = &(*at)->next;
    *at = hunt->next;
    self->hunts_count--;
    free(hunt);
}

void master_hunt_drop(trm_master *self, uint32_t task)
{
    if (self->phase[TRM_PHASE_MAP].task[task].hunted)
        drop(self, hunt_of(self, task));
}

void master_hunts_close(trm_master *self)
{
    while (self->hunts) {
        master_hunt *next = self->hunts->next;
        free(self->hunts);
        self->hunts = next;
    }
}

/* ---- Its begin ---------------------------------------------------------------------------------- */

bool master_blames_kernel(uint32_t status)
{
    return status == TRM_EKERNEL || status == TRM_ETIMEOUT || status == TRM_ELIMIT || status == TRM_ERECORD;
}

static bool blames_a_record(const trm_report *report)
{
    return report->phase == TRM_PHASE_MAP && report->record && master_blames_kernel(report->status);
}

/* Where it failed is not where it is run next, if there is a choice. */
static void queue_probe(trm_master *self, const master_hunt *hunt)
{
    soft_task *task = &self->phase[TRM_PHASE_MAP].task[hunt->failure.task];
    master_task_unlink(self, TRM_PHASE_MAP, hunt->failure.task);
    task->rank = hunt->rank;
    master_task_queue(self, TRM_PHASE_MAP, hunt->failure.task, true);
}

bool master_hunt_begin(trm_master *self, uint32_t from, const trm_report *report)
{
    if (!self->spec->skips_max || !blames_a_record(report) || self->hunts_count == HUNTS_MAX)
        return false;
    soft_task *task = &self->phase[TRM_PHASE_MAP].task[report->task];
    master_hunt *hunt = task->probes < PROBES_MAX ? malloc(sizeof *hunt + report->text_len) : NULL;
    if (!hunt)
        return false; /* it counts as any other failure */
    *hunt = (master_hunt){.next = self->hunts, .last = report->record - 1, .rank = from, .failure = *report};
    if (report->text_len)
        memcpy(hunt->text, report->text, report->text_len);
    hunt->failure.text = hunt->text;
    hunt->failure.sample_len = 0;
    self->hunts = hunt;
    self->hunts_count++;
    task->hunted = 1;
    queue_probe(self, hunt);
    return true;
}

/* ---- Orders --------------------------------------------------------------------------------------- */

static uint32_t middle(const master_hunt *hunt)
{
    return hunt->low + (hunt->high - hunt->low) / 2;
}

/* One more record, in its place. */
static void leave_out(trm_order *order, uint32_t record)
{
    unsigned at = order->skips_count;
    if (at == TRM_ORDER_SKIPS_MAX)
        return; /* and so the probe dies, and the hunt ends in vain */
    for (; at > 0 && order->skip[at - 1] > record; at--)
        order->skip[at] = order->skip[at - 1];
    order->skip[at] = record;
    order->skips_count++;
}

void master_order_records(const trm_master *self, trm_order *order)
{
    if (self->job->skips_count)
        order->skips_count = (uint8_t)trm_table_skips(self->job, order->task, order->skip);
    if (!self->phase[TRM_PHASE_MAP].task[order->task].hunted)
        return;
    const master_hunt *hunt = hunt_of(self, order->task);
    order->probe = true;
    order->end = hunt->last + 1;
    order->first = hunt->stage == HUNT_ALONE ? hunt->last : hunt->stage == HUNT_HALVES ? middle(hunt) : 0;
    if (hunt->stage == HUNT_CONFIRM)
        leave_out(order, hunt->found);
}

/* ---- What probes say ------------------------------------------------------------------------------- */

static void in_vain(trm_master *self, master_hunt *hunt, const char *why)
{
    trm_debug("map task %u: %s; the failure counts as an attempt", hunt->failure.task, why);
    self->phase[TRM_PHASE_MAP].task[hunt->failure.task].hunted = 0; /* its report is settled with FAIL */
    master_propose_fail(self, hunt->rank, &hunt->failure);
    master_hunt **at = &self->hunts;
    while (*at != hunt)
        at = &(*at)->next;
    *at = hunt->next;
    self->hunts_count--;
    free(hunt);
}

/* Records whose SKIP is under way count. */
static uint32_t skips_so_far(const trm_master *self)
{
    uint32_t count = self->job->skips_count;
    for (const master_hunt *at = self->hunts; at; at = at->next)
        count += at->stage == HUNT_FOUND;
    return count;
}

static void found(trm_master *self, master_hunt *hunt, uint32_t record)
{
    uint32_t number = hunt->failure.task, others[TRM_ORDER_SKIPS_MAX];
    soft_task *task = &self->phase[TRM_PHASE_MAP].task[number];
    bool all_of_job = skips_so_far(self) >= self->spec->skips_max;
    if (all_of_job || trm_table_skips(self->job, number, others) == TRM_ORDER_SKIPS_MAX) {
        master_job_fail(
            self, (trm_status)hunt->failure.status,
            "record %u of map task %u kills the kernel, and %u records %s are skipped already: %.*s", record,
            number, all_of_job ? self->spec->skips_max : TRM_ORDER_SKIPS_MAX,
            all_of_job ? "(--skip-bad-records)" : "of it (there may be no more)", (int)hunt->failure.text_len,
            hunt->text);
        return;
    }
    hunt->stage = HUNT_FOUND;
    hunt->found = record;
    master_task_unlink(self, TRM_PHASE_MAP, number);
    task->state = SOFT_FAILING;
    trm_skip skip = {.epoch = self->epoch, .task = number, .record = record, .fence = task->attempts};
    trm_skip_encode(&skip, master_command_begin(self, TRM_COMMAND_SKIP));
    master_command_enqueue(self);
}

/* It dies already at an earlier record than before. */
static void shorten(master_hunt *hunt, const trm_report *report)
{
    if (report->record && report->record - 1 < hunt->last && report->record - 1 >= hunt->low)
        hunt->last = report->record - 1;
    if (hunt->high > hunt->last + 1)
        hunt->high = hunt->last + 1;
}

static void halve(trm_master *self, master_hunt *hunt)
{
    if (hunt->high - hunt->low > 1) {
        hunt->stage = HUNT_HALVES;
        queue_probe(self, hunt);
    } else if (hunt->low == hunt->last) { /* alone it has died */
        found(self, hunt, hunt->low);
    } else {
        hunt->stage = HUNT_CONFIRM;
        hunt->found = hunt->low;
        queue_probe(self, hunt);
    }
}

static void advance(trm_master *self, master_hunt *hunt, const trm_report *report)
{
    bool died = report->status != TRM_OK;
    switch (hunt->stage) {
    case HUNT_ALONE:
        if (died) {
            found(self, hunt, hunt->last);
        } else if (hunt->last == 0) {
            in_vain(self, hunt, "it lives through the record at which it died");
        } else {
            hunt->stage = HUNT_PREFIX;
            queue_probe(self, hunt);
        }
        break;
    case HUNT_PREFIX:
        if (!died) {
            in_vain(self, hunt, "it lives through all records up to the one at which it died");
            break;
        }
        hunt->low = 0;
        hunt->high = hunt->last;
        if (report->record && report->record - 1 < hunt->last)
            hunt->high = report->record; /* what it does from there on is not known */
        shorten(hunt, report);
        halve(self, hunt);
        break;
    case HUNT_HALVES:
        if (!died) {
            hunt->high = middle(hunt);
        } else {
            hunt->low = middle(hunt);
            shorten(hunt, report);
        }
        halve(self, hunt);
        break;
    case HUNT_CONFIRM:
        if (died)
            in_vain(self, hunt, "no single record is what it dies of");
        else
            found(self, hunt, hunt->found);
        break;
    case HUNT_FOUND:
        break; /* nothing of it runs */
    }
}

/* Whether the report is of what the task's hunt has ordered, or began with. */
bool master_hunt_knows(const trm_master *self, uint32_t from, const trm_report *report)
{
    const master_hunt *hunt = hunt_of(self, report->task);
    return hunt->rank == from && hunt->failure.attempt == report->attempt;
}

void master_hunt_probed(trm_master *self, const trm_report *report)
{
    soft_task *task = &self->phase[TRM_PHASE_MAP].task[report->task];
    master_hunt *hunt = hunt_of(self, report->task);
    if (++task->probes > PROBES_MAX)
        in_vain(self, hunt, "there were too many probes");
    else if (report->status == TRM_OK || blames_a_record(report))
        advance(self, hunt, report);
    else if (master_blames_kernel(report->status))
        in_vain(self, hunt, "it dies before its first record");
    else
        queue_probe(self, hunt); /* a disk, a file: once more */
}

/* ---- SKIP is in the log ------------------------------------------------------------------------------ */

/* Its sentence; not what it had printed. */
static int sentence_bytes(const master_hunt *hunt)
{
    const char *end = hunt->failure.text_len ? memchr(hunt->text, '\n', hunt->failure.text_len) : NULL;
    return end ? (int)(end - hunt->text) : (int)hunt->failure.text_len;
}

static void say_skip(const trm_skip *skip, const master_hunt *hunt)
{
    char where[64] = "";
    if (skip->record != hunt->last)
        snprintf(where, sizeof where, " at record %u, which it lives through otherwise", hunt->last);
    trm_warn("record %u of map task %u is skipped, because it kills the kernel%s: %.*s", skip->record,
             skip->task, where, sentence_bytes(hunt), hunt->text);
}

void master_skipped(trm_master *self, const trm_skip *skip, bool accepted)
{
    if (skip->task >= self->phase[TRM_PHASE_MAP].tasks || self->stage != STAGE_RUN)
        return;
    soft_task *task = &self->phase[TRM_PHASE_MAP].task[skip->task];
    master_hunt *hunt = task->hunted ? hunt_of(self, skip->task) : NULL;
    if (!hunt || hunt->stage != HUNT_FOUND || hunt->found != skip->record)
        return;
    if (accepted) {
        say_skip(skip, hunt);
        master_note_skip(self, skip, hunt->text, hunt->failure.text_len);
    }
    drop(self, hunt);
    if (task->state != SOFT_FAILING)
        return;
    task->state = SOFT_IDLE;
    task->rank = NO_RANK;
    if (self->job->phase[TRM_PHASE_MAP].task[skip->task].state == TRM_TASK_PENDING)
        master_task_queue(self, TRM_PHASE_MAP, skip->task, true);
}
