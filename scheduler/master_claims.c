/* What ranks hold of orders: CLAIM; what they may forget: SETTLED.
 *
 *     SETUP ─▶ CLAIM: every attempt that the rank was ordered and that is not settled, by
 *     whichever master of this launch ─▶ those that are queued here run there
 *     attempt committed, refused, failed or of no use any more ─▶ SETTLED: it is not held any more
 *
 * An attempt is settled only when what became of it is in the log, so that a master which dies
 * before that leaves the report with its rank. */
#include "scheduler/master_self.h"

#include "runtime/diag.h"

#include <stdlib.h>
#include <string.h>

/* ---- CLAIM -------------------------------------------------------------------------------------- */

bool master_attempt_may_count(const trm_master *self, unsigned phase, uint32_t task, uint32_t attempt)
{
    uint32_t mine = trm_table_first_attempt(self->table);
    if (attempt >= mine && attempt - mine >= TRM_MASTER_ATTEMPTS)
        return false; /* nobody has given it out */
    if (phase == TRM_PHASE_SAMPLE)
        return !self->cuts_made;
    const trm_table_task *known = &self->job->phase[phase].task[task];
    return known->state == TRM_TASK_PENDING && attempt >= known->attempt;
}

/* One whose failure has been counted has ended: its report comes, and is settled. */
static bool has_failed(const trm_master *self, unsigned phase, uint32_t task, uint32_t attempt)
{
    return phase != TRM_PHASE_SAMPLE && attempt < self->job->phase[phase].task[task].failed_high;
}

static void claim_one(trm_master *self, uint32_t from, const trm_order *order)
{
    master_phase *in = &self->phase[order->phase];
    uint32_t number = order->phase == TRM_PHASE_SAMPLE && in->tasks ? master_sample_of_task(self, order->task)
                                                                    : order->task;
    if (number >= in->tasks || order->probe || in->task[number].hunted ||
        !master_attempt_may_count(self, order->phase, number, order->attempt) ||
        has_failed(self, order->phase, number, order->attempt))
        return; /* it is over: its report will be settled */
    if (in->task[number].state == SOFT_RUNNING)
        master_twin_claimed(self, from, order->phase, number, order->attempt);
    if (in->task[number].state != SOFT_QUEUED)
        return; /* another has it */
    master_task_unlink(self, order->phase, number);
    soft_task *task = &in->task[number];
    task->state = SOFT_RUNNING;
    task->rank = from;
    task->attempt = order->attempt;
    task->since_ms = (uint32_t)(self->now_ns / MS);
    task->begun = task->recalled = 0;
    task_list_put(&self->ranks[from].running[order->phase], in->task, number);
    in->running++;
}

/* A frame is obeyed whole or not at all. */
static bool is_whole(trm_reader check)
{
    trm_order order;
    while (trm_reader_left(&check) && trm_reader_ok(&check))
        trm_order_decode(&order, &check);
    return trm_reader_ok(&check);
}

void master_claim(trm_master *self, uint32_t from, trm_reader *body)
{
    master_rank *rank = &self->ranks[from];
    trm_claim claim;
    trm_claim_decode(&claim, body);
    if (!is_whole(*body) || rank->state != RANK_READY) {
        self->dropped++;
        return;
    }
    while (trm_reader_left(body)) {
        trm_order order;
        trm_order_decode(&order, body);
        claim_one(self, from, &order);
    }
    if (!claim.last)
        return;
    rank->claimed = true;
    master_rank_hungry(self, from);
}

bool master_waits_for_claims(trm_master *self, uint64_t *wake_ns)
{
    if (!self->follows || self->claims_in)
        return false;
    uint64_t end_ns = self->run_ns + TAKEOVER_MS * MS;
    uint32_t missing = 0;
    for (uint32_t i = 0; i < self->config.ranks; i++) {
        const master_rank *rank = &self->ranks[i];
        missing += rank->state == RANK_ABSENT || (rank->state == RANK_READY && !rank->claimed);
    }
    self->claims_in = !missing || self->now_ns >= end_ns;
    if (!self->claims_in)
        master_wake(wake_ns, end_ns);
    else if (missing)
        trm_debug("%u ranks have not said what they hold: their tasks are given out again", missing);
    return !self->claims_in;
}

/* ---- SETTLED --------------------------------------------------------------------------------------- */

void master_settle(trm_master *self, uint32_t number, const trm_order *order)
{
    if (number >= self->config.ranks || self->ranks[number].state != RANK_READY)
        return; /* should it come back, it will ask */
    master_rank *rank = &self->ranks[number];
    if (rank->settled_count == rank->settled_room) {
        uint32_t room = rank->settled_room ? rank->settled_room * 2 : 64;
        trm_order *grown = realloc(rank->settled, room * sizeof *grown);
        if (!grown) {
            master_rank_set_up(self, number); /* it will report again */
            return;
        }
        rank->settled = grown;
        rank->settled_room = room;
    }
    rank->settled[rank->settled_count++] = *order;
    master_rank_list_add(&self->settling, &rank->settling, number);
}

/* As much as its queue takes; whether all of it. */
static bool tell_settled(trm_master *self, uint32_t number)
{
    master_rank *rank = &self->ranks[number];
    uint32_t at = 0;
    while (at < rank->settled_count) {
        uint32_t left = rank->settled_count - at,
                 count = left < TRM_CLAIM_FRAME_MAX ? left : TRM_CLAIM_FRAME_MAX;
        master_frame_begin(self, TRM_WIRE_SETTLED);
        for (uint32_t i = 0; i < count; i++)
            trm_order_encode(&rank->settled[at + i], &self->frame);
        if (master_frame_send(self, number) != TRM_OK)
            break;
        at += count;
    }
    rank->settled_count -= at;
    if (at)
        memmove(rank->settled, rank->settled + at, rank->settled_count * sizeof *rank->settled);
    return rank->settled_count == 0;
}

bool master_settled_step(trm_master *self, uint64_t *wake_ns)
{
    rank_list *list = &self->settling;
    uint32_t due = list->count, left = 0;
    for (uint32_t i = 0; i < due; i++) {
        uint32_t number = list->rank[i];
        master_rank *rank = &self->ranks[number];
        if (rank->state != RANK_READY)
            rank->settled_count = 0;
        rank->settling = rank->settled_count && !tell_settled(self, number);
        if (rank->settling)
            list->rank[left++] = number;
    }
    list->count = left;
    if (left)
        master_wake(wake_ns, self->now_ns + SEND_AGAIN_MS * MS);
    return left < due;
}
