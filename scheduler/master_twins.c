/* Stragglers: a task that takes much longer than others of its phase is given to an idle executor as well,
 * of another rank if there is a choice, once nothing waits any more. The first of both that reports success
 * is the one that counts; the other is cancelled.
 *
 *     RUNNING on a rank ── overdue, somebody idle ─▶ RUNNING, with a twin elsewhere
 *         it succeeds ─▶ the twin is cancelled
 *         the twin succeeds ─▶ it takes its place, which is cancelled; the rank has lost a race
 *         one of both fails for what the kernel does ─▶ so would the other, which is cancelled
 *         it fails otherwise, or its rank is lost ─▶ the twin takes its place
 *         the twin fails otherwise, is overdue itself, or its rank is lost ─▶ as if it had never been
 *
 * One of both is committed, as of any two attempts: the job table takes one. Nothing of it is
 * replicated; a master that follows another takes what it is told in CLAIM, the second one of a task as
 * its twin. Jobs lose nothing by it but work of executors that were idle. A rank that only loses
 * is set aside, until nothing moves without it.
 *
 * What waits behind long tasks of its rank is asked back when an executor is idle elsewhere, without
 * speculation too, as nothing is run twice by that. What an executor itself has queued cannot be given
 * back: it is overdue as well, counted from its order, but its rank has not lost a race by that. PULSE says
 * what has begun. */
#include "scheduler/master_self.h"

#include "runtime/diag.h"

#include <stdlib.h>

#define TWINS_MAX 1024u         /* at once */
#define TWINS_FREE 8u           /* of a phase that have not won, and … */
#define TWINS_SHARE 10u         /* … one of so many tasks; then one at a time */
#define TWINS_OF_TASK_MAX 8u    /* one after the other */
#define TWINS_MS 250u           /* between two looks … */
#define TWINS_LOOK_MAX 64u      /* … each of which makes no more */
#define OVERDUE_FACTOR 2u       /* times what is expected of the task */
#define OVERDUE_MS_MIN 1000u    /* less is not worth an executor */
#define OVERDUE_BLIND_MS 60000u /* when no task of the phase has ended yet: one twin, to learn from */
#define STUCK_MS 500u           /* that a task may wait behind others of its rank while somebody is idle */
#define RECALLS_MAX 50u         /* a task that came back so often stays where it waits */
#define STALLED_MS 10000u /* nothing was done for so long: ranks that are aside for being slow are needed */
#define SLOW_MAX 4u       /* tasks in a row that a rank has lost to twins elsewhere: it is set aside */

struct master_twin {
    struct master_twin *next;
    uint8_t phase;
    bool begun; /* as of a soft_task */
    uint32_t task, rank, attempt, since_ms;
};

static master_twin *twin_of(const trm_master *self, unsigned phase, uint32_t task)
{
    master_twin *at = self->phase[phase].task[task].twinned ? self->twins : NULL;
    while (at && (at->phase != phase || at->task != task))
        at = at->next;
    return at;
}

static void twin_free(trm_master *self, master_twin *twin)
{
    master_twin **at = &self->twins;
    while (*at != twin)
        at = &(*at)->next;
    *at = twin->next;
    self->phase[twin->phase].task[twin->task].twinned = 0;
    self->phase[twin->phase].twins--;
    self->ranks[twin->rank].twins--;
    self->ranks[twin->rank].unbegun -= twin->phase == TRM_PHASE_REDUCE && !twin->begun;
    self->twins_count--;
    free(twin);
}

static master_twin *twin_make(trm_master *self, unsigned phase, uint32_t task, uint32_t rank,
                              uint32_t attempt)
{
    master_twin *twin = self->twins_count < TWINS_MAX ? malloc(sizeof *twin) : NULL;
    if (!twin)
        return NULL;
    *twin = (master_twin){.next = self->twins,
                          .phase = (uint8_t)phase,
                          .task = task,
                          .rank = rank,
                          .attempt = attempt,
                          .since_ms = (uint32_t)(self->now_ns / MS)};
    self->twins = twin;
    self->twins_count++;
    self->phase[phase].twins++;
    self->phase[phase].task[task].twinned = 1;
    self->ranks[rank].twins++;
    self->ranks[rank].unbegun += phase == TRM_PHASE_REDUCE;
    return twin;
}

void master_twins_close(trm_master *self)
{
    while (self->twins) {
        master_twin *next = self->twins->next;
        free(self->twins);
        self->twins = next;
    }
}

/* ---- The end of one of both ----------------------------------------------------------------- */

/* If there is no room for it, it runs to its end for nothing. */
static void cancel(trm_master *self, uint32_t rank, unsigned phase, uint32_t task, uint32_t attempt)
{
    trm_order order = {.phase = (uint8_t)phase,
                       .attempt = attempt,
                       .task = phase == TRM_PHASE_SAMPLE ? master_sample_task(self, task) : task};
    if (self->ranks[rank].state != RANK_READY)
        return;
    master_frame_begin(self, TRM_WIRE_CANCEL);
    trm_order_encode(&order, &self->frame);
    master_frame_send(self, rank);
}

void master_twin_cancel(trm_master *self, unsigned phase, uint32_t task)
{
    master_twin *twin = twin_of(self, phase, task);
    if (!twin)
        return;
    cancel(self, twin->rank, phase, task, twin->attempt);
    twin_free(self, twin);
}

bool master_twin_promote(trm_master *self, unsigned phase, uint32_t number)
{
    master_twin *twin = twin_of(self, phase, number);
    if (!twin)
        return false;
    soft_task *tasks = self->phase[phase].task, *task = &tasks[number];
    task_list_remove(&self->ranks[task->rank].running[phase], tasks, number);
    task->rank = twin->rank;
    task->attempt = twin->attempt;
    task->since_ms = twin->since_ms;
    task->begun = twin->begun;
    task->recalled = 0;
    task_list_put(&self->ranks[task->rank].running[phase], tasks, number);
    twin_free(self, twin);
    return true;
}

/* About what the task should take; 0: unknown. A map of a larger split takes longer. */
static uint64_t expected_us(const trm_master *self, unsigned phase, uint32_t number)
{
    const trm_plan *plan = &self->config.submission->plan;
    uint64_t us = self->phase[phase].task_us;
    if (phase == TRM_PHASE_REDUCE || !plan->begin || !plan->bytes)
        return us;
    uint32_t map = phase == TRM_PHASE_SAMPLE ? master_sample_task(self, number) : number;
    double bytes = (double)(plan->begin[map + 1] - plan->begin[map]);
    double share = bytes * plan->tasks / (double)plan->bytes;
    return share > 1 ? (uint64_t)((double)us * share) : us;
}

static bool is_overdue(const trm_master *self, unsigned phase, uint32_t number, uint32_t since_ms)
{
    uint32_t ms = (uint32_t)(self->now_ns / MS) - since_ms;
    uint64_t us = expected_us(self, phase, number);
    if (!us)
        return ms > OVERDUE_BLIND_MS;
    return ms > OVERDUE_MS_MIN && (uint64_t)ms * 1000 > us * OVERDUE_FACTOR;
}

/* Whether the rank is too slow for too long. What only waits there, behind a task that may take long with
 * good reason, says nothing of it. */
static void slow(trm_master *self, uint32_t number)
{
    if (++self->ranks[number].slow >= SLOW_MAX)
        master_rank_aside(self, number, "it is slow: others have done its tasks before it");
}

static void take_over(trm_master *self, unsigned phase, uint32_t number, bool won)
{
    const soft_task *task = &self->phase[phase].task[number];
    uint32_t loser = task->rank, attempt = task->attempt;
    bool slowly = task->begun && is_overdue(self, phase, number, task->since_ms);
    self->twins_won += won;
    if (won && self->phase[phase].doubled) /* one that was claimed has not been counted */
        self->phase[phase].doubled--;
    master_twin_promote(self, phase, number);
    cancel(self, loser, phase, number, attempt);
    if (won && slowly && task->rank != loser)
        slow(self, loser);
}

bool master_twin_report(trm_master *self, uint32_t from, const trm_report *report)
{
    master_twin *twin = twin_of(self, report->phase, report->task);
    const soft_task *task = &self->phase[report->phase].task[report->task];
    if (!twin)
        return false;
    bool of_twin = twin->rank == from && twin->attempt == report->attempt;
    bool of_first = task->rank == from && task->attempt == report->attempt;
    bool decides = report->status == TRM_OK || master_blames_kernel(report->status);
    if (of_twin && decides) {
        take_over(self, report->phase, report->task, report->status == TRM_OK);
    } else if (of_twin) {
        twin_free(self, twin);
        return true;
    } else if (of_first && decides) {
        master_twin_cancel(self, report->phase, report->task);
    } else if (of_first) {
        master_twin_promote(self, report->phase, report->task);
        return true;
    }
    return false;
}

void master_twins_of_lost_rank(trm_master *self, uint32_t number)
{
    for (master_twin *at = self->twins, *next; at; at = next) {
        next = at->next;
        if (at->rank == number)
            twin_free(self, at);
    }
}

void master_twin_claimed(trm_master *self, uint32_t from, unsigned phase, uint32_t number, uint32_t attempt)
{
    const soft_task *task = &self->phase[phase].task[number];
    if (task->state == SOFT_RUNNING && !task->twinned && !task->hunted &&
        (task->rank != from || task->attempt != attempt))
        twin_make(self, phase, number, from, attempt);
}

/* ---- Which tasks ----------------------------------------------------------------------------- */

static uint32_t begin_of(const trm_master *self, const trm_begun *said)
{
    return (uint32_t)(self->now_ns / MS) - said->ms;
}

void master_twins_begun(trm_master *self, uint32_t from, const trm_begun *said)
{
    master_phase *in = &self->phase[said->phase];
    bool sample = said->phase == TRM_PHASE_SAMPLE && in->tasks;
    uint32_t number = sample ? master_sample_of_task(self, said->task) : said->task;
    soft_task *task = number < in->tasks ? &in->task[number] : NULL;
    if (!task || task->state != SOFT_RUNNING)
        return;
    master_twin *twin = twin_of(self, said->phase, number);
    if (task->rank == from && task->attempt == said->attempt && !task->begun) {
        task->begun = 1;
        task->since_ms = begin_of(self, said);
    } else if (twin && twin->rank == from && twin->attempt == said->attempt && !twin->begun) {
        twin->begun = true;
        self->ranks[from].unbegun -= twin->phase == TRM_PHASE_REDUCE;
        twin->since_ms = begin_of(self, said);
    }
}

/* The loop stood still: no task has taken long because of that. */
void master_twins_forgive(trm_master *self)
{
    for (master_twin *at = self->twins; at; at = at->next)
        at->since_ms = (uint32_t)(self->now_ns / MS);
    for (uint32_t i = 0; i < self->config.ranks; i++)
        for (unsigned phase = 0; phase < TRM_PHASES; phase++)
            for (uint32_t task = self->ranks[i].running[phase].first; task != NO_TASK;
                 task = self->phase[phase].task[task].next)
                self->phase[phase].task[task].since_ms = (uint32_t)(self->now_ns / MS);
}

/* Twins, and reduces that hold an executor of the rank: while maps are made again those that have not begun
 * wait for these. */
static uint32_t twins_and_reduces(const trm_master *self, const master_rank *rank)
{
    const task_list *list = &rank->running[TRM_PHASE_REDUCE];
    const soft_task *tasks = self->phase[TRM_PHASE_REDUCE].task;
    uint32_t count = rank->twins - rank->unbegun;
    if (master_maps_are_live(self))
        return list->count + rank->twins;
    for (uint32_t task = list->first; task != NO_TASK; task = tasks[task].next)
        count += tasks[task].begun;
    return count;
}

static bool may_be_given_more(const trm_master *self, const master_rank *rank)
{
    return master_rank_works(rank) && rank->claimed && !rank->setup_due && self->now_ns >= rank->pause_ns;
}

static uint32_t idle_executors(const trm_master *self, uint32_t number)
{
    const master_rank *rank = &self->ranks[number];
    uint32_t busy = twins_and_reduces(self, rank);
    for (unsigned phase = 0; phase < TRM_PHASE_REDUCE; phase++)
        busy += rank->running[phase].count;
    return may_be_given_more(self, rank) && busy < rank->executors ? rank->executors - busy : 0;
}

/* Executors of the rank that have something which has begun or, `soon`, was given to it lately; no more than
 * it has. */
static uint32_t busy_executors(const trm_master *self, uint32_t number, bool soon)
{
    const master_rank *rank = &self->ranks[number];
    uint32_t busy = rank->twins;
    for (unsigned phase = 0; phase < TRM_PHASES && busy < rank->executors; phase++) {
        const soft_task *tasks = self->phase[phase].task;
        for (uint32_t task = rank->running[phase].first; task != NO_TASK; task = tasks[task].next)
            busy += tasks[task].begun || (soon && !is_overdue(self, phase, task, tasks[task].since_ms));
    }
    return busy < rank->executors ? busy : rank->executors;
}

/* Of the rank that has a task which is overdue. What was given to it and has not begun for too long is in the
 * hands of an executor that has hung, and keeps no other one of it busy. */
static bool is_idle_beside_hung(const trm_master *self, uint32_t number)
{
    const master_rank *rank = &self->ranks[number];
    return may_be_given_more(self, rank) && busy_executors(self, number, true) < rank->executors;
}

/* The rank with the most idle executors, of those that have lost least, the one that has the task already
 * only if no other has any; NO_RANK: nobody is idle. */
static uint32_t idle_rank(const trm_master *self, uint32_t has_it)
{
    uint32_t best = NO_RANK, most = 0;
    for (uint32_t i = 0; i < self->config.ranks; i++) {
        uint32_t idle = i == has_it ? 0 : idle_executors(self, i);
        bool better = best == NO_RANK || self->ranks[i].slow < self->ranks[best].slow ||
                      (self->ranks[i].slow == self->ranks[best].slow && idle > most);
        if (idle && better) {
            most = idle;
            best = i;
        }
    }
    return best == NO_RANK && is_idle_beside_hung(self, has_it) ? has_it : best;
}

/* What looks for a bad record has no twin: it is tried again elsewhere. Where attempts time out one that
 * hangs is what is looked for: it has all of its time. */
static void move(trm_master *self, unsigned phase, uint32_t number)
{
    const soft_task *task = &self->phase[phase].task[number];
    uint32_t rank = task->rank, attempt = task->attempt;
    bool slowly = task->begun;
    master_task_return(self, phase, number, "its executor is slow");
    cancel(self, rank, phase, number, attempt);
    if (slowly)
        slow(self, rank);
}

/* Whether all executors of the rank have something that has begun. */
static bool is_busy(const trm_master *self, uint32_t number)
{
    return busy_executors(self, number, false) == self->ranks[number].executors;
}

/* How many tasks those who are idle can do until the next look. Looks at all ranks. */
static uint32_t wanted_by_idle(const trm_master *self, unsigned phase)
{
    uint32_t us = self->phase[phase].task_us, idle = 0;
    uint64_t each = us ? 1 + TWINS_MS * 1000 / us : 1;
    for (uint32_t i = 0; i < self->config.ranks; i++)
        idle += idle_executors(self, i);
    return (uint32_t)(idle * (each < AHEAD_TASKS_MAX ? each : AHEAD_TASKS_MAX));
}

/* The first from there on that has waited for too long, and may be asked back: once an attempt, because the
 * rank may have begun it, and not until the task fails for having come back too often. */
static uint32_t find_stuck(const trm_master *self, unsigned phase, uint32_t at)
{
    const soft_task *tasks = self->phase[phase].task;
    uint32_t now_ms = (uint32_t)(self->now_ns / MS);
    while (at != NO_TASK && (tasks[at].begun || tasks[at].recalled || tasks[at].twinned ||
                             tasks[at].returns >= RECALLS_MAX || now_ms - tasks[at].since_ms < STUCK_MS))
        at = tasks[at].next;
    return at;
}

/* What waits there although an executor is idle elsewhere. `wanted`: as many as the idle can do; UINT32_MAX:
 * nobody has looked yet. */
static void ask_back(trm_master *self, unsigned phase, uint32_t number, uint32_t *wanted)
{
    soft_task *tasks = self->phase[phase].task;
    uint32_t first = find_stuck(self, phase, self->ranks[number].running[phase].first), count = 0;
    if (first == NO_TASK || !*wanted || !is_busy(self, number))
        return;
    if (*wanted == UINT32_MAX)
        *wanted = wanted_by_idle(self, phase);
    uint32_t most = *wanted < ORDERS_FRAME_MAX ? *wanted : ORDERS_FRAME_MAX;
    master_frame_begin(self, TRM_WIRE_RECALL);
    for (uint32_t at = first; at != NO_TASK && count < most; at = find_stuck(self, phase, tasks[at].next)) {
        trm_order order = {.phase = (uint8_t)phase,
                           .attempt = tasks[at].attempt,
                           .task = phase == TRM_PHASE_SAMPLE ? master_sample_task(self, at) : at,
                           .probe = tasks[at].hunted, /* so that it is reported as one … */
                           .end = tasks[at].hunted};  /* … of whichever records */
        trm_order_encode(&order, &self->frame);
        count++;
    }
    if (!count || master_frame_send(self, number) != TRM_OK)
        return; /* at the next look, perhaps */
    *wanted -= count;
    for (uint32_t at = first; count > 0; at = find_stuck(self, phase, tasks[at].next), count--)
        tasks[at].recalled = 1;
}

static bool send_twin(trm_master *self, unsigned phase, uint32_t number, uint32_t to)
{
    soft_task *task = &self->phase[phase].task[number];
    trm_order order = {.phase = (uint8_t)phase,
                       .attempt = task->attempts,
                       .task = phase == TRM_PHASE_SAMPLE ? master_sample_task(self, number) : number};
    if (phase == TRM_PHASE_MAP)
        master_order_records(self, &order);
    master_twin *twin = twin_make(self, phase, number, to, task->attempts);
    if (!twin)
        return false;
    master_frame_begin(self, TRM_WIRE_ORDER);
    trm_order_encode(&order, &self->frame);
    if (master_frame_send(self, to) != TRM_OK) {
        twin_free(self, twin);
        return false;
    }
    task->attempts++;
    task->doubled++;
    self->phase[phase].doubled++;
    self->twins_made++;
    master_note_twin(self, &order, to, task->rank);
    return true;
}

static bool may_be_doubled(const trm_master *self, unsigned phase, uint32_t number)
{
    const master_phase *in = &self->phase[phase];
    const soft_task *task = &in->task[number];
    bool pays = in->task_us && in->doubled < TWINS_FREE + in->tasks / TWINS_SHARE;
    bool share = pays || !in->twins || (in->task_us && self->ranks[task->rank].aside);
    return !task->twinned && task->doubled < TWINS_OF_TASK_MAX && share &&
           is_overdue(self, phase, number, task->since_ms);
}

/* A twin that is no faster: perhaps a third one is. It was given to an idle executor: if it has not begun,
 * its rank is to blame for that as well. */
static void drop_slow_twin(trm_master *self, unsigned phase, uint32_t number)
{
    const master_twin *twin = twin_of(self, phase, number);
    if (!twin || !is_overdue(self, phase, number, twin->since_ms) ||
        self->phase[phase].task[number].doubled == TWINS_OF_TASK_MAX)
        return;
    uint32_t rank = twin->rank;
    master_twin_cancel(self, phase, number);
    if (rank != self->phase[phase].task[number].rank)
        slow(self, rank);
}

/* False: nobody is idle, there is no room to tell, or it is enough for now. */
static bool double_tasks_of(trm_master *self, unsigned phase, uint32_t number)
{
    soft_task *tasks = self->phase[phase].task;
    uint32_t next;
    for (uint32_t task = self->ranks[number].running[phase].first; task != NO_TASK; task = next) {
        next = tasks[task].next;
        if (tasks[task].hunted && !self->spec->task_timeout_ms &&
            is_overdue(self, phase, task, tasks[task].since_ms)) {
            move(self, phase, task);
            return true; /* the list is another now */
        }
        drop_slow_twin(self, phase, task);
        if (tasks[task].hunted || !may_be_doubled(self, phase, task))
            continue;
        uint32_t to = self->twins_looked < TWINS_LOOK_MAX ? idle_rank(self, number) : NO_RANK;
        self->twins_looked++;
        if (to == NO_RANK || !send_twin(self, phase, task, to))
            return false;
    }
    return true;
}

/* Whoever is not aside has hung: slow is better. */
static void call_back(trm_master *self, unsigned phase)
{
    uint64_t since_ns = self->done_ns > self->run_ns ? self->done_ns : self->run_ns;
    uint64_t wait_ns = (uint64_t)self->phase[phase].task_us * 1000 * OVERDUE_FACTOR;
    if (self->now_ns - since_ns < wait_ns || self->now_ns - since_ns < STALLED_MS * MS)
        return;
    for (uint32_t i = 0; i < self->config.ranks; i++)
        if (self->ranks[i].aside && self->ranks[i].slow >= SLOW_MAX && self->ranks[i].state == RANK_READY)
            master_rank_needed(self, i);
}

/* False: it is enough for now. */
static bool look_at(trm_master *self, unsigned phase, uint32_t number, uint32_t *wanted)
{
    ask_back(self, phase, number, wanted);
    return self->spec->never_twice || double_tasks_of(self, phase, number);
}

void master_twins_step(trm_master *self, uint64_t *wake_ns)
{
    if (self->now_ns >= self->twins_ns) {
        self->twins_ns = self->now_ns + TWINS_MS * MS;
        self->twins_looked = 0;
        bool go_on = !master_waits_for_claims(self, wake_ns) && !self->log_full;
        for (unsigned phase = 0; phase < TRM_PHASES && go_on; phase++) {
            const master_phase *in = &self->phase[phase];
            uint32_t wanted = UINT32_MAX;
            if (in->running)
                call_back(self, phase);
            if (in->waiting || !in->running)
                continue;
            for (uint32_t i = 0; i < self->config.ranks && go_on && self->stage == STAGE_RUN; i++)
                go_on = look_at(self, phase, i, &wanted);
        }
    }
    for (unsigned phase = 0; phase < TRM_PHASES; phase++)
        if (self->phase[phase].running)
            master_wake(wake_ns, self->twins_ns);
}
