/* See master_world.h: the log, by a second job table; files; orders. */
#include "tests/simulation/master_world.h"

/* ---- What the log says ------------------------------------------------------------------------ */

static void on_commit(void *context, uint32_t job, const trm_commit *commit, bool accepted)
{
    history *self = context;
    self->commits += accepted;
    if (!accepted)
        fail(self, "a commit was refused", commit->task);
}

static void on_failed(void *context, uint32_t job, const trm_fail *failed, bool accepted)
{
    if (!accepted)
        fail(context, "a failure was refused", failed->task);
}

static void on_lost(void *context, uint32_t job, const trm_output_ref *ref, bool accepted)
{
    history *self = context;
    self->losses += accepted;
}

void follow_log(history *self)
{
    const uint8_t *bytes;
    size_t len;
    trm_err err;
    trm_table_watch watch = {.committed = on_commit, .failed = on_failed, .lost = on_lost, .context = self};
    for (; trm_log_disk_command(self->disk, self->applied, &bytes, &len); self->applied++)
        if (trm_table_apply(&self->table, bytes, len, &watch, &err) != TRM_OK)
            fail(self, err.text, self->applied);
}

const trm_table_job *job_of(const history *self)
{
    return self->table.jobs_count ? self->table.jobs[0] : NULL;
}

/* ---- What is on the disk ------------------------------------------------------------------------ */

bool file_is_there(history *self, const char *path, uint64_t *bytes)
{
    trm_file *file;
    if (self->fs->ops->open(self->fs, path, TRM_FS_READ, &file, NULL) != TRM_OK)
        return false;
    if (self->fs->ops->size(file, bytes, NULL) != TRM_OK)
        *bytes = UINT64_MAX;
    self->fs->ops->close(file);
    return true;
}

void check_output(history *self)
{
    char path[256];
    uint64_t bytes;
    const trm_table_job *job = job_of(self);
    const trm_table_phase *parts = job ? &job->phase[trm_table_output_phase(job)] : NULL;
    bool success = file_is_there(self, OUT "/" TRM_SUCCESS_NAME, &bytes);
    if (success && (!job || parts->published != parts->tasks))
        fail(self, "_SUCCESS is there before all parts are published", job ? parts->published : 0);
    uint32_t tasks = parts ? parts->tasks : self->submission.plan.tasks;
    for (uint32_t i = 0; i < tasks; i++) {
        trm_part_name(OUT, i, false, path, sizeof path);
        bool there = file_is_there(self, path, &bytes);
        if (there && (!parts || parts->task[i].state == TRM_TASK_PENDING))
            fail(self, "a part is in place that is not committed", i);
        if (there && bytes != sim_part_bytes(i))
            fail(self, "a part has not its length", i);
        if (success && !there && sim_part_bytes(i))
            fail(self, "_SUCCESS is there and a part is not", i);
    }
}

/* All bad records are left out, and no others; returns how many. */
static unsigned check_skips(history *self, uint32_t task)
{
    uint32_t bad[2], skipped[TRM_ORDER_SKIPS_MAX];
    unsigned count = sim_bad_records(&self->habits, task, bad);
    bool same = trm_table_skips(job_of(self), task, skipped) == count &&
                memcmp(bad, skipped, count * sizeof *bad) == 0;
    if (!same)
        fail(self, "not its bad records are left out of a task", task);
    self->skips += count;
    return count;
}

void check_counters(history *self)
{
    trm_counters expected = {{0}}, one;
    const trm_table_job *job = job_of(self);
    for (uint8_t phase = TRM_PHASE_MAP; phase < TRM_PHASES; phase++) {
        for (uint32_t i = 0; i < job->phase[phase].tasks; i++) {
            sim_task_counters(phase, i, &one);
            trm_counters_add(&expected, &one);
        }
    }
    for (uint32_t i = 0; i < job->phase[TRM_PHASE_MAP].tasks; i++)
        expected.value[TRM_COUNTER_MAP_RECORDS_SKIPPED] += check_skips(self, i);
    for (unsigned i = 0; i < TRM_COUNTER_COUNT; i++)
        if (expected.value[i] != job->counters.value[i])
            fail(self, "a counter is wrong", i);
}

/* ---- Workers ---------------------------------------------------------------------------------------- */

static void seen_put(uint64_t *seen, size_t room, uint64_t key)
{
    size_t at = (size_t)(key * 0x9e3779b97f4a7c15u >> 20) & (room - 1);
    while (seen[at])
        at = (at + 1) & (room - 1);
    seen[at] = key;
}

static bool is_seen(const history *self, uint64_t key)
{
    size_t at = self->seen_room ? (size_t)(key * 0x9e3779b97f4a7c15u >> 20) & (self->seen_room - 1) : 0;
    while (self->seen_room && self->seen[at] && self->seen[at] != key)
        at = (at + 1) & (self->seen_room - 1);
    return self->seen_room && self->seen[at] == key;
}

static void check_once(history *self, const trm_order *order)
{
    uint64_t key = 1ull << 63 | self->epoch << 54 | (uint64_t)order->phase << 52 |
                   (uint64_t)order->task << 32 | order->attempt;
    if (is_seen(self, key))
        fail(self, "an attempt is ordered twice", order->task);
    if (self->seen_count * 2 >= self->seen_room) {
        size_t room = self->seen_room ? self->seen_room * 2 : 1024;
        uint64_t *grown = calloc(room, sizeof *grown);
        if (!grown)
            abort();
        for (size_t i = 0; i < self->seen_room; i++)
            if (self->seen[i])
                seen_put(grown, room, self->seen[i]);
        free(self->seen);
        self->seen = grown;
        self->seen_room = room;
    }
    seen_put(self->seen, self->seen_room, key);
    self->seen_count++;
}

/* Somebody holds an attempt of it that would count: only a rank that could not tell the master so in
 * time. */
static void check_new(history *self, uint64_t term, const trm_order *order)
{
    const trm_table_task *task = &job_of(self)->phase[order->phase].task[order->task];
    for (uint32_t i = 0; i < self->ranks; i++) {
        trm_order held;
        if (!self->alive[i] || task->state != TRM_TASK_PENDING ||
            !sim_worker_holds(self->workers[i], order->phase, order->task, &held))
            continue;
        if (held.attempt < task->attempt || held.attempt < task->failed_high)
            continue;
        self->again++;
        if (!self->seldom && self->spec.never_twice && sim_worker_claimed_term(self->workers[i]) == term)
            fail(self, "a task is ordered again that a living rank has claimed", order->task);
    }
}

void on_order(void *context, uint32_t rank, const trm_order *order)
{
    history *self = context;
    const trm_table_job *job = job_of(self);
    uint64_t term = sim_worker_term(self->workers[rank]);
    self->orders++;
    check_once(self, order);
    if (!job || order->phase == TRM_PHASE_SAMPLE)
        return;
    const trm_table_task *task = &job->phase[order->phase].task[order->task];
    bool part = job->phase[order->phase].part != NULL;
    /* By the log as it was when the order was made it was not committed; if it is now, then by
     * another attempt, and that order is from before. */
    if (part && task->state != TRM_TASK_PENDING && task->epoch < self->table.epoch)
        fail(self, "a part that an earlier launch has committed is ordered", order->task);
    if (term == self->table.master_term)
        check_new(self, term, order);
}
