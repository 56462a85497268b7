/* Which task where. A rank is given what keeps its executors busy for AHEAD_US and no more, so
 * that what remains goes to whoever is free first; by the end no more than its fair share. A
 * reduce is given out where it is at home (jobs/placement.h): the outputs of the maps have been
 * brought there while maps ran. Only an idle rank takes what is at home with a busy one.
 *
 *     [at home]  ─┐
 *     queue ──────┴─▶ RUNNING on a rank ─ report ─▶ PREPARED ─ applied ─▶ IDLE
 *        ▲                  │                            FAILING ─┐
 *        └──────────────────┴─────────────────────────────────────┘
 *
 * All of it is O(1) a task. */
#include "scheduler/master_self.h"

#include "jobs/placement.h"
#include "runtime/diag.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(PROBES_MAX + RETURNS_MAX + TRM_ORDER_SKIPS_MAX + 200 < TRM_MASTER_ATTEMPTS,
               "a master has numbers for all attempts of a task that it may give out");
_Static_assert(ORDERS_FRAME_MAX *TRM_ORDER_BYTES_MAX + TRM_WIRE_HEADER_BYTES < 256 * 1024,
               "all orders fit into a frame");

/* ---- Making ------------------------------------------------------------------------------------ */

static trm_status phase_init(master_phase *self, uint32_t tasks, trm_err *err)
{
    self->queue = TASK_LIST_EMPTY;
    self->tasks = tasks;
    if (!tasks)
        return TRM_OK;
    self->task = calloc(tasks, sizeof *self->task);
    if (!self->task)
        return trm_err_set(err, TRM_ENOMEM, "no memory for %u tasks", tasks);
    for (uint32_t i = 0; i < tasks; i++)
        self->task[i].rank = NO_RANK;
    return TRM_OK;
}

/* Everything that is to be run: nothing that is committed is. */
trm_status master_tasks_init(trm_master *self, trm_err *err)
{
    trm_status status = phase_init(&self->phase[TRM_PHASE_SAMPLE], self->phase[TRM_PHASE_SAMPLE].tasks, err);
    for (unsigned phase = TRM_PHASE_MAP; status == TRM_OK && phase < TRM_PHASES; phase++)
        status = phase_init(&self->phase[phase], self->job->phase[phase].tasks, err);
    if (status != TRM_OK)
        return status;
    for (uint32_t i = 0; i < self->phase[TRM_PHASE_SAMPLE].tasks; i++) {
        self->phase[TRM_PHASE_SAMPLE].task[i].attempts = trm_table_first_attempt(self->table);
        master_task_queue(self, TRM_PHASE_SAMPLE, i, false);
    }
    for (unsigned phase = TRM_PHASE_MAP; phase < TRM_PHASES; phase++) {
        const trm_table_phase *known = &self->job->phase[phase];
        for (uint32_t i = 0; i < known->tasks; i++) {
            self->phase[phase].task[i].attempts = trm_table_first_attempt(self->table);
            if (known->task[i].state == TRM_TASK_PENDING)
                master_task_queue(self, phase, i, false);
        }
    }
    return TRM_OK;
}

void master_tasks_close(trm_master *self)
{
    for (unsigned phase = 0; phase < TRM_PHASES; phase++) {
        free(self->phase[phase].task);
        self->phase[phase].task = NULL;
    }
}

/* ---- Queues -------------------------------------------------------------------------------------- */

static uint32_t home_of(const trm_master *self, uint32_t task)
{
    return trm_partition_home(task, self->phase[TRM_PHASE_REDUCE].tasks, self->config.ranks);
}

void master_task_queue(trm_master *self, unsigned phase, uint32_t number, bool first)
{
    master_phase *in = &self->phase[phase];
    soft_task *task = &in->task[number];
    assert(task->state != SOFT_QUEUED && task->state != SOFT_RUNNING);
    task->state = SOFT_QUEUED;
    task->at_home = 0;
    task_list *list = &in->queue;
    if (phase == TRM_PHASE_REDUCE && task->rank == NO_RANK) {
        master_rank *home = &self->ranks[home_of(self, number)];
        task->at_home = home->state == RANK_ABSENT || master_rank_works(home);
        list = task->at_home ? &home->home : list;
    }
    if (first)
        task_list_put_first(list, in->task, number);
    else
        task_list_put(list, in->task, number);
    in->waiting++;
    self->all_hungry = true;
}

static void unqueue(trm_master *self, unsigned phase, uint32_t number)
{
    master_phase *in = &self->phase[phase];
    task_list *list = in->task[number].at_home ? &self->ranks[home_of(self, number)].home : &in->queue;
    task_list_remove(list, in->task, number);
    in->waiting--;
    in->task[number].state = SOFT_IDLE;
}

void master_task_unlink(trm_master *self, unsigned phase, uint32_t number)
{
    master_phase *in = &self->phase[phase];
    soft_task *task = &in->task[number];
    if (task->state == SOFT_QUEUED) {
        unqueue(self, phase, number);
    } else if (task->state == SOFT_RUNNING) {
        assert(!task->twinned);
        task_list_remove(&self->ranks[task->rank].running[phase], in->task, number);
        in->running--;
    }
    task->state = SOFT_IDLE;
}

void master_task_return(trm_master *self, unsigned phase, uint32_t number, const char *why)
{
    soft_task *task = &self->phase[phase].task[number];
    master_task_unlink(self, phase, number);
    if (task->returns < RETURNS_MAX) {
        task->returns++;
        master_task_queue(self, phase, number, true);
        return;
    }
    master_job_fail(self, TRM_EFAILED, "%s task %u came back %u times; the last time %s",
                    phase == TRM_PHASE_REDUCE ? "reduce" : "map", number, RETURNS_MAX + 1, why);
}

void master_tasks_take_back(trm_master *self, uint32_t number, const char *why)
{
    master_rank *rank = &self->ranks[number];
    master_twins_of_lost_rank(self, number);
    for (unsigned phase = 0; phase < TRM_PHASES; phase++) {
        while (rank->running[phase].count && self->stage == STAGE_RUN) {
            uint32_t last = rank->running[phase].last; /* so that the order stays when each is put first */
            if (master_twin_promote(self, phase, last))
                continue;
            master_task_unlink(self, phase, last);
            self->phase[phase].task[last].rank = NO_RANK;
            master_task_return(self, phase, last, why);
        }
    }
}

void master_homes_leave(trm_master *self, uint32_t number)
{
    master_phase *reduces = &self->phase[TRM_PHASE_REDUCE];
    task_list *home = &self->ranks[number].home;
    while (home->count) {
        uint32_t task = home->first;
        task_list_remove(home, reduces->task, task);
        reduces->task[task].at_home = 0;
        task_list_put(&reduces->queue, reduces->task, task);
    }
}

/* ---- Picking ---------------------------------------------------------------------------------------- */

bool master_maps_are_live(const trm_master *self)
{
    return self->job->phase[TRM_PHASE_MAP].live == self->job->phase[TRM_PHASE_MAP].tasks;
}

/* How many tasks of the phase the rank should have in hand. */
static uint32_t target_of(const trm_master *self, const master_rank *rank, unsigned phase)
{
    const master_phase *in = &self->phase[phase];
    uint32_t each = 2; /* what runs, and one behind it */
    if (in->task_us && AHEAD_US / in->task_us > 1)
        each = 1 + AHEAD_US / in->task_us;
    if (each > AHEAD_TASKS_MAX)
        each = AHEAD_TASKS_MAX;
    uint64_t left = (uint64_t)in->waiting + in->running;
    uint64_t fair = (left + self->executors - 1) / self->executors;
    if (fair < each)
        each = fair ? (uint32_t)fair : 1;
    return each * rank->executors;
}

/* Whoever was idle the last time is looked at first: it mostly is. */
static bool another_is_idle(trm_master *self, unsigned phase, uint32_t number)
{
    for (uint32_t i = 0; i < self->config.ranks; i++) {
        uint32_t at = (self->idle_turn + i) % self->config.ranks;
        const master_rank *rank = &self->ranks[at];
        if (at != number && master_rank_works(rank) && rank->claimed && !rank->setup_due &&
            self->now_ns >= rank->pause_ns && rank->running[phase].count < rank->executors) {
            self->idle_turn = at;
            return true;
        }
    }
    return false;
}

/* The first task of the list that did not fail on this rank the last time. When there is none close
 * by, the first, unless an executor elsewhere is idle: one that is idle here is worse. What was asked back
 * for those who are idle does not go to others before them. */
static uint32_t take(trm_master *self, unsigned phase, const task_list *list, uint32_t number,
                     uint32_t in_hand)
{
    master_phase *in = &self->phase[phase];
    bool busy = in_hand >= self->ranks[number].executors;
    uint32_t task = list->first;
    for (unsigned i = 0; task != NO_TASK && in->task[task].rank == number && i < LOOK_AHEAD_MAX; i++)
        task = in->task[task].next;
    if (task == NO_TASK || in->task[task].rank == number)
        task = list->first;
    bool better_elsewhere =
        task != NO_TASK && (in->task[task].rank == number || (in->task[task].recalled && busy));
    if (better_elsewhere && another_is_idle(self, phase, number)) {
        self->all_hungry = true;
        return NO_TASK;
    }
    if (task != NO_TASK)
        unqueue(self, phase, task);
    return task;
}

/* A rank with more reduces at home than it can run now. */
static task_list *busy_home(trm_master *self)
{
    task_list *most = NULL;
    for (uint32_t i = 0; i < self->config.ranks; i++) {
        master_rank *rank = &self->ranks[i];
        if (rank->home.count && rank->running[TRM_PHASE_REDUCE].count >= rank->executors &&
            (!most || rank->home.count > most->count))
            most = &rank->home;
    }
    return most;
}

static uint32_t take_reduce(trm_master *self, uint32_t number, uint32_t in_hand)
{
    master_rank *rank = &self->ranks[number];
    master_phase *in = &self->phase[TRM_PHASE_REDUCE];
    uint32_t task = rank->home.count ? take(self, TRM_PHASE_REDUCE, &rank->home, number, in_hand) : NO_TASK;
    if (task == NO_TASK && in->queue.count)
        task = take(self, TRM_PHASE_REDUCE, &in->queue, number, in_hand);
    if (task == NO_TASK && in->waiting > in->queue.count && in_hand < rank->executors) {
        task_list *home = busy_home(self);
        task = home ? take(self, TRM_PHASE_REDUCE, home, number, in_hand) : NO_TASK;
    }
    return task;
}

static bool may_run(const trm_master *self, unsigned phase)
{
    if (!self->phase[phase].waiting)
        return false;
    if (phase == TRM_PHASE_SAMPLE)
        return true;
    return !master_wants_cuts(self) && (phase == TRM_PHASE_MAP || master_maps_are_live(self));
}

/* ---- Orders -------------------------------------------------------------------------------------------- */

/* They could not be sent: as if nothing had been picked. */
static void unpick(trm_master *self, unsigned phase, uint32_t count)
{
    while (count > 0)
        master_task_queue(self, phase, self->picked[--count], true);
}

static void note_running(trm_master *self, uint32_t number, unsigned phase, uint32_t count)
{
    master_phase *in = &self->phase[phase];
    for (uint32_t i = 0; i < count; i++) {
        soft_task *task = &in->task[self->picked[i]];
        task->state = SOFT_RUNNING;
        task->rank = number;
        task->attempt = task->attempts++;
        task->since_ms = (uint32_t)(self->now_ns / MS);
        task->begun = task->recalled = 0;
        task_list_put(&self->ranks[number].running[phase], in->task, self->picked[i]);
    }
    in->running += count;
}

/* Gives the rank what it should have more of the phase. False: its queue is full. */
static bool feed(trm_master *self, uint32_t number, unsigned phase, bool *any)
{
    master_rank *rank = &self->ranks[number];
    master_phase *in = &self->phase[phase];
    uint32_t target = target_of(self, rank, phase), has = rank->running[phase].count, count = 0;
    /* In batches: a rank with much in hand waits until a part of it is done. */
    if (has >= target || (has > 2 * rank->executors && target - has < target / 4))
        return true;
    uint32_t room = target - has < ORDERS_FRAME_MAX ? target - has : ORDERS_FRAME_MAX;
    master_frame_begin(self, TRM_WIRE_ORDER);
    while (count < room) {
        uint32_t task = phase == TRM_PHASE_REDUCE ? take_reduce(self, number, has + count)
                                                  : take(self, phase, &in->queue, number, has + count);
        if (task == NO_TASK)
            break;
        trm_order order = {.phase = (uint8_t)phase,
                           .attempt = in->task[task].attempts,
                           .task = phase == TRM_PHASE_SAMPLE ? master_sample_task(self, task) : task};
        if (phase == TRM_PHASE_MAP)
            master_order_records(self, &order);
        trm_order_encode(&order, &self->frame);
        self->picked[count++] = task;
    }
    if (!count)
        return true;
    if (master_frame_send(self, number) != TRM_OK) {
        unpick(self, phase, count);
        return false;
    }
    master_note_order(self, number, phase, self->picked[0]);
    note_running(self, number, phase, count);
    *any = true;
    return true;
}

static bool feed_rank(trm_master *self, uint32_t number, uint64_t *wake_ns)
{
    master_rank *rank = &self->ranks[number];
    bool any = false, room = true;
    if (!master_rank_works(rank) || rank->setup_due || !rank->claimed)
        return false; /* it is hungry again when that changes */
    if (self->now_ns < rank->pause_ns) {
        master_rank_hungry(self, number);
        master_wake(wake_ns, rank->pause_ns);
        return false;
    }
    for (unsigned phase = 0; phase < TRM_PHASES && room; phase++)
        if (may_run(self, phase))
            room = feed(self, number, phase, &any);
    if (!room) {
        master_rank_hungry(self, number);
        master_wake(wake_ns, self->now_ns + SEND_AGAIN_MS * MS);
    }
    return any;
}

static void nobody_is_hungry(trm_master *self)
{
    while (self->hungry.count)
        self->ranks[self->hungry.rank[--self->hungry.count]].hungry = false;
}

static bool feed_all(trm_master *self, uint64_t *wake_ns)
{
    bool any = false;
    nobody_is_hungry(self);
    for (uint32_t i = 0; i < self->config.ranks && self->stage == STAGE_RUN; i++)
        any |= feed_rank(self, i, wake_ns);
    return any;
}

/* In the order of the ranks or in that of their reports: nobody is favoured for long. One that cannot be
 * given anything yet comes back into the list. */
static bool feed_hungry(trm_master *self, uint64_t *wake_ns)
{
    rank_list *list = &self->hungry;
    uint32_t count = list->count;
    bool any = false;
    for (uint32_t i = 0; i < count; i++) {
        self->ranks[list->rank[i]].hungry = false;
        if (self->stage == STAGE_RUN)
            any |= feed_rank(self, list->rank[i], wake_ns);
    }
    list->count -= count;
    memmove(list->rank, list->rank + count, list->count * sizeof *list->rank);
    return any;
}

bool master_tasks_step(trm_master *self, uint64_t *wake_ns)
{
    bool all = self->all_hungry, any = false;
    if (master_waits_for_claims(self, wake_ns) || (!all && !self->hungry.count) || !self->executors)
        return false;
    if (self->backlog_bytes > BACKLOG_BYTES_MAX || self->log_full) {
        master_wake(wake_ns, self->now_ns + SEND_AGAIN_MS * MS);
        return false; /* the log has to catch up */
    }
    self->all_hungry = false;
    any = all ? feed_all(self, wake_ns) : feed_hungry(self, wake_ns);
    if (self->all_hungry)
        master_wake(wake_ns, self->now_ns + SEND_AGAIN_MS * MS);
    return any;
}
