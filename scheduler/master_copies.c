/* Second copies of map outputs (--replicas 2): on another host than the first, so that a host can go and
 * nothing is made again.
 *
 *     committed ─▶ WANTED ─ COPY to a rank of another host ─▶ ASKED ─ COPIED ─▶ HELD
 *                    ▲                                          │                │
 *                    └── its rank is gone, or could not ────────┴────────────────┘
 *     the first copy is gone ─▶ the rank that holds the second is the one that has the output: an ADOPT
 *          command, as when a neighbour takes a store over (master_outputs.c) ─▶ WANTED: another second copy
 *
 * Which copies there are is soft: the log knows where the first one is, and a rank tells each master what
 * it holds before it has claimed. So a copy costs the log nothing; a master that follows another waits for
 * what ranks hold before it gives anything up (master_copies_may_come). A copy names the launch that made
 * it, or was asked to keep it: which output of the table it is one of. One of the launch before is told when
 * its store is taken over; once the output itself is of this launch, its rank is asked to keep the copy as
 * such (renewed).
 *
 * Copies wait for nothing and nothing waits for them: COPIES_AHEAD_MAX a rank are asked for at once. */
#include "scheduler/master_self.h"

#include "runtime/diag.h"

#include <stdlib.h>
#include <string.h>

/* ---- Making ------------------------------------------------------------------------------------ */

/* Also for a job that goes on with one copy of each: there may be some of the launch before. */
trm_status master_copies_begin(trm_master *self, trm_err *err)
{
    const trm_table_phase *maps = &self->job->phase[TRM_PHASE_MAP];
    bool any = self->spec->replicas > 1;
    self->copies_first = self->copies_last = NO_TASK;
    if (!self->job->identity.partitions || !master_maps_are_needed(self))
        return TRM_OK;
    for (uint32_t i = 0; i < maps->tasks && !any; i++)
        any = maps->task[i].state == TRM_TASK_COMMITTED && maps->task[i].epoch != self->epoch;
    if (!any)
        return TRM_OK;
    self->copies = calloc(maps->tasks, sizeof *self->copies);
    if (!self->copies)
        return trm_err_set(err, TRM_ENOMEM, "no memory for the copies of %u map outputs", maps->tasks);
    for (uint32_t i = 0; i < maps->tasks; i++) {
        bool committed = maps->task[i].state == TRM_TASK_COMMITTED;
        self->copies[i].epoch = committed ? maps->task[i].epoch : (uint32_t)self->epoch;
    }
    return TRM_OK;
}

void master_copies_close(trm_master *self)
{
    free(self->copies);
    self->copies = NULL;
}

/* ---- What is known ------------------------------------------------------------------------------- */

static const trm_table_task *known_map(const trm_master *self, uint32_t task)
{
    return &self->job->phase[TRM_PHASE_MAP].task[task];
}

/* Whether a rank and that of the output as it is now share a host, and so its end. */
static bool is_near_output(const trm_master *self, uint32_t task, uint32_t number)
{
    uint32_t rank = known_map(self, task)->rank;
    return master_output_is_live(self, task) && rank < self->config.ranks &&
           self->ranks[rank].host == self->ranks[number].host;
}

uint32_t master_copy_holder(const trm_master *self, uint32_t task)
{
    const master_copy *copy = self->copies ? &self->copies[task] : NULL;
    if (!copy || copy->state != COPY_HELD || self->ranks[copy->rank].state != RANK_READY)
        return NO_RANK;
    return master_output_is_live(self, task) && known_map(self, task)->rank == copy->rank ? NO_RANK
                                                                                          : copy->rank;
}

/* From ranks that have not said yet what they hold, if another master may have asked them to; from stores
 * that are being taken over. */
bool master_copies_may_come(const trm_master *self)
{
    if (!self->copies)
        return false;
    for (const master_store *at = self->stores; at; at = at->next)
        if (!at->gone)
            return true;
    if (self->spec->replicas < 2)
        return false;
    for (uint32_t i = 0; i < self->config.ranks; i++) {
        const master_rank *rank = &self->ranks[i];
        bool unheard = rank->state == RANK_READY && !rank->claimed &&
                       (!rank->unclaimed_ns || self->now_ns < rank->unclaimed_ns + COPY_UNHEARD_MS * MS);
        if (unheard || (rank->state == RANK_ABSENT && self->follows))
            return true;
    }
    return false;
}

static void enqueue(trm_master *self, uint32_t task)
{
    master_copy *copy = &self->copies[task];
    if (copy->queued)
        return;
    copy->queued = true;
    copy->next = NO_TASK;
    *(self->copies_last == NO_TASK ? &self->copies_first : &self->copies[self->copies_last].next) = task;
    self->copies_last = task;
}

static void queue(trm_master *self, uint32_t task)
{
    self->copies[task].state = COPY_WANTED;
    enqueue(self, task);
}

static void unqueue_first(trm_master *self)
{
    uint32_t task = self->copies_first;
    self->copies_first = self->copies[task].next;
    if (self->copies_first == NO_TASK)
        self->copies_last = NO_TASK;
    self->copies[task].queued = false;
}

/* Whatever was asked for it is not waited for any more. */
static void clear(trm_master *self, master_copy *copy)
{
    if (copy->state == COPY_ASKED && self->ranks[copy->rank].copying)
        self->ranks[copy->rank].copying--;
    copy->state = COPY_NONE;
}

void master_copy_forget(trm_master *self, uint32_t task)
{
    if (!self->copies)
        return;
    clear(self, &self->copies[task]);
    self->copies[task].epoch = (uint32_t)self->epoch;
}

void master_copy_want(trm_master *self, uint32_t task)
{
    master_copy *copy = self->copies ? &self->copies[task] : NULL;
    if (!copy || known_map(self, task)->empty)
        return;
    bool has_one = copy->state == COPY_HELD || copy->state == COPY_ASKED;
    if (has_one && !is_near_output(self, task, copy->rank)) {
        enqueue(self, task); /* to be renewed, if it must be */
        return;
    }
    clear(self, copy);
    copy->failures = 0;
    if (self->spec->replicas > 1)
        queue(self, task);
}

void master_copies_of_lost_rank(trm_master *self, uint32_t number)
{
    uint32_t tasks = self->copies && self->stage == STAGE_RUN ? self->phase[TRM_PHASE_MAP].tasks : 0;
    self->ranks[number].copying = 0;
    for (uint32_t i = 0; i < tasks; i++) {
        master_copy *copy = &self->copies[i];
        bool has_one = copy->state == COPY_HELD || copy->state == COPY_ASKED;
        if (!has_one || copy->rank != number)
            continue;
        copy->state = COPY_NONE;
        master_copy_want(self, i);
    }
}

uint64_t master_copies_missing(const trm_master *self)
{
    uint64_t missing = 0;
    uint32_t tasks = self->copies && self->spec->replicas > 1 && master_maps_are_needed(self)
                         ? self->phase[TRM_PHASE_MAP].tasks
                         : 0;
    for (uint32_t i = 0; i < tasks; i++) {
        const trm_table_task *known = known_map(self, i);
        bool has_one = self->copies[i].state == COPY_HELD && self->copies[i].held_epoch == self->epoch;
        missing += known->state == TRM_TASK_COMMITTED && !known->empty && !has_one;
    }
    return missing;
}

/* ---- COPIED --------------------------------------------------------------------------------------- */

/* Whether it is a copy of the output that the table has. */
static bool is_of_output(const trm_master *self, const trm_copied *it)
{
    const trm_table_task *known = known_map(self, it->task);
    bool same = known->state == TRM_TASK_COMMITTED && known->attempt == it->attempt && !known->empty;
    return same && (it->epoch == self->copies[it->task].epoch ||
                    (it->epoch == self->epoch && known->epoch == self->epoch));
}

static void failed(trm_master *self, uint32_t from, const trm_copied *it)
{
    master_copy *copy = &self->copies[it->task];
    const char *why = it->status == TRM_ENOSPACE ? "scratch is full there" : "it cannot be had from its host";
    self->ranks[from].copy_pause_ns = self->now_ns + COPY_PAUSE_MS * MS;
    trm_debug("rank %u cannot copy the output of map task %u: %s", from, it->task, why);
    if (++copy->failures < COPY_TRIES_MAX) {
        queue(self, it->task);
        return;
    }
    copy->state = COPY_FAILED;
    if (!self->copies_told_failed) {
        trm_warn("--replicas 2: a map output could not be copied to a second host: %s; the job goes on", why);
        master_note_why(self, "copy_failed", why);
    }
    self->copies_told_failed = true;
}

static void copied(trm_master *self, uint32_t from, const trm_copied *it)
{
    master_copy *copy = &self->copies[it->task];
    bool asked = copy->state == COPY_ASKED && copy->rank == from && it->epoch == self->epoch;
    if (asked)
        clear(self, copy);
    bool renewed = copy->state == COPY_HELD && copy->rank == from && copy->held_epoch != self->epoch &&
                   it->epoch == self->epoch;
    if (!is_of_output(self, it)) {
        if (asked)
            queue(self, it->task); /* it has been made again meanwhile */
    } else if (it->status != TRM_OK) {
        if (asked || renewed)
            failed(self, from, it);
    } else if (renewed) {
        copy->held_epoch = (uint32_t)self->epoch;
    } else if (copy->state != COPY_HELD && !is_near_output(self, it->task, from)) {
        clear(self, copy);
        copy->state = COPY_HELD;
        copy->rank = from;
        copy->held_epoch = (uint32_t)it->epoch;
        enqueue(self, it->task);
        self->copies_made += asked;
        self->copies_bytes += asked ? it->bytes : 0;
    }
}

void master_copied(trm_master *self, uint32_t from, trm_reader *body)
{
    self->ranks[from].copy_ns = self->now_ns;
    self->copy_turn = from;
    self->copies_room = true; /* there, or close by */
    while (trm_reader_left(body)) {
        trm_copied it;
        trm_copied_decode(&it, body);
        if (!trm_reader_ok(body) || it.task >= self->phase[TRM_PHASE_MAP].tasks) {
            self->dropped++;
            return;
        }
        if (self->copies && self->ranks[from].state == RANK_READY)
            copied(self, from, &it);
    }
}

/* ---- COPY ------------------------------------------------------------------------------------------ */

/* A rank of another host than the output's that can take one more, of the next `look`; NO_RANK: none of them.
 * In turns. `may_be`: there is another host at least. */
static uint32_t copier_for(trm_master *self, uint32_t task, uint32_t look, bool *may_be)
{
    *may_be = look < self->config.ranks;
    for (uint32_t i = 0; i < look; i++) {
        uint32_t number = (self->copy_turn + i) % self->config.ranks;
        const master_rank *rank = &self->ranks[number];
        if (rank->state == RANK_ABSENT || (rank->state == RANK_READY && !is_near_output(self, task, number)))
            *may_be = true;
        if (!master_rank_works(rank) || !rank->claimed || rank->setup_due ||
            self->now_ns < rank->copy_pause_ns || rank->copying >= COPIES_AHEAD_MAX ||
            is_near_output(self, task, number))
            continue;
        self->copy_turn = (number + 1) % self->config.ranks;
        return number;
    }
    return NO_RANK;
}

static bool send_copy(trm_master *self, uint32_t to, const trm_copy *what)
{
    master_frame_begin(self, TRM_WIRE_COPY);
    trm_copy_encode(what, &self->frame);
    return master_frame_send(self, to) == TRM_OK;
}

static bool ask(trm_master *self, uint32_t task, uint32_t to)
{
    const trm_table_task *known = known_map(self, task);
    if (!send_copy(self, to, &(trm_copy){.task = task, .attempt = known->attempt, .rank = known->rank}))
        return false;
    master_rank *rank = &self->ranks[to];
    if (!rank->copying++)
        rank->copy_ns = self->now_ns;
    self->copies[task].state = COPY_ASKED;
    self->copies[task].rank = to;
    return true;
}

/* What it holds is as good as if it had been made in this launch. */
static bool renew(trm_master *self, uint32_t task)
{
    const master_copy *copy = &self->copies[task];
    return send_copy(self, copy->rank,
                     &(trm_copy){.task = task,
                                 .attempt = known_map(self, task)->attempt,
                                 .rank = copy->rank,
                                 .epoch = copy->held_epoch});
}

/* Said once a launch: a master that follows another says it only if it is news. */
static void say_alone(trm_master *self)
{
    static const char why[] = "there is no second host to keep copies on";
    if (self->copies_alone)
        return;
    self->copies_alone = true;
    if (self->follows && self->hosts < 2)
        return;
    trm_warn("--replicas 2: %s; the job goes on with one of each", why);
    master_note_why(self, "copies_alone", why);
}

/* A rank that was asked and says nothing: others are asked. */
static void forget_silent(trm_master *self)
{
    self->copies_silent_ns = self->now_ns + COPY_PAUSE_MS * MS;
    for (uint32_t i = 0; i < self->config.ranks; i++) {
        master_rank *rank = &self->ranks[i];
        if (!rank->copying || self->now_ns <= rank->copy_ns + COPY_SILENT_MS * MS)
            continue;
        trm_debug("rank %u says nothing of the copies that it was asked for", i);
        rank->copy_pause_ns = self->now_ns + COPY_PAUSE_MS * MS;
        for (uint32_t task = 0; task < self->phase[TRM_PHASE_MAP].tasks; task++)
            if (self->copies[task].state == COPY_ASKED && self->copies[task].rank == i)
                queue(self, task);
        rank->copying = 0;
    }
}

/* Whether the output lies somewhere, undisputed. */
static bool is_settled(const trm_master *self, uint32_t task)
{
    return master_output_is_live(self, task) && self->phase[TRM_PHASE_MAP].task[task].state == SOFT_IDLE;
}

static bool is_older(const trm_master *self, const master_copy *copy)
{
    return copy->state == COPY_HELD && copy->held_epoch != self->epoch &&
           self->ranks[copy->rank].state == RANK_READY;
}

/* What is to be done for the first of the queue is done, or nothing is. False: it has to wait. */
static bool serve(trm_master *self, uint32_t task, uint32_t look, bool *may_be)
{
    const master_copy *copy = &self->copies[task];
    if (!is_settled(self, task))
        return true;
    if (is_older(self, copy))
        return renew(self, task);
    if (copy->state != COPY_WANTED)
        return true;
    uint32_t to = copier_for(self, task, look, may_be);
    return to != NO_RANK && ask(self, task, to);
}

/* Whether it is too early to say which copies are missing, or too late. */
static bool waits(const trm_master *self)
{
    return (self->follows && !self->claims_in) || self->stores || !master_maps_are_needed(self);
}

/* All ranks are looked at for one with room only now and then, else those that have just said something: it
 * would cost each copy a look at all. */
bool master_copies_step(trm_master *self, uint64_t *wake_ns)
{
    bool any = false;
    if (!self->copies || self->spec->replicas < 2 || waits(self))
        return false;
    if (self->now_ns >= self->copies_silent_ns)
        forget_silent(self);
    bool all = self->now_ns >= self->copies_ns, go_on = all || self->copies_room;
    uint32_t look = all || self->config.ranks < COPIERS_LOOK_MAX ? self->config.ranks : COPIERS_LOOK_MAX;
    for (unsigned i = 0; go_on && self->copies_first != NO_TASK && i < COPIES_STEP_MAX; i++) {
        bool may_be = true;
        if (serve(self, self->copies_first, look, &may_be)) {
            unqueue_first(self);
            any = true;
            continue;
        }
        if (!may_be)
            say_alone(self);
        if (all)
            self->copies_ns = self->now_ns + (may_be ? COPY_LOOK_MS : COPY_ALONE_MS) * MS;
        go_on = self->copies_room = false;
    }
    if (self->copies_first != NO_TASK)
        master_wake(wake_ns, self->copies_ns);
    return any;
}
