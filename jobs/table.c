/* Applying commands to the job table; see table.h for the rules, command.h for the forms.
 *
 * Every list is decoded twice: once to see that the whole command is well-formed, so that
 * a damaged one changes nothing, and once to apply it. */
#include "jobs/table.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(TRM_RANKS_MAX - 1 <= UINT16_MAX, "a task keeps a rank in 16 bits");
_Static_assert(sizeof(trm_table_task) == 16, "a million tasks are 16 MB");

void trm_table_init(trm_table *self)
{
    *self = (trm_table){0};
}

static void job_destroy(trm_table_job *job)
{
    if (!job)
        return;
    for (unsigned phase = 0; phase < TRM_PHASES; phase++) {
        free(job->phase[phase].task);
        free(job->phase[phase].part);
    }
    free(job->skips);
    free(job->text);
    free(job);
}

void trm_table_close(trm_table *self)
{
    for (uint32_t i = 0; i < self->jobs_count; i++)
        job_destroy(self->jobs[i]);
    free(self->jobs);
    free(self->members);
    trm_table_init(self);
}

trm_phase trm_table_output_phase(const trm_table_job *job)
{
    return job->identity.partitions ? TRM_PHASE_REDUCE : TRM_PHASE_MAP;
}

uint32_t trm_table_first_attempt(const trm_table *self)
{
    return self->masters ? (self->masters - 1) * TRM_MASTER_ATTEMPTS : 0;
}

void trm_table_masters_unknown(trm_table *self)
{
    uint32_t left = TRM_TABLE_MASTERS_MAX - self->masters;
    self->masters += left < TRM_TABLE_MASTERS_UNKNOWN ? left : TRM_TABLE_MASTERS_UNKNOWN;
}

static trm_status no_memory(trm_err *err)
{
    return trm_err_set(err, TRM_ENOMEM, "no memory for the job table");
}

static trm_status malformed(trm_err *err, const char *what)
{
    return trm_err_set(err, TRM_ECORRUPT, "job table: a malformed %s command", what);
}

/* ---- jobs, launches, members --------------------------------------------------------- */

static bool phase_make(trm_table_phase *phase, uint32_t tasks, bool parts)
{
    phase->tasks = tasks;
    if (tasks == 0)
        return true;
    phase->task = calloc(tasks, sizeof *phase->task);
    phase->part = parts ? calloc(tasks, sizeof *phase->part) : NULL;
    return phase->task && (phase->part || !parts);
}

static trm_status apply_submit(trm_table *self, uint32_t number, trm_reader *body, trm_err *err)
{
    trm_table_job *job = calloc(1, sizeof *job);
    if (!job)
        return no_memory(err);
    trm_identity_decode(&job->identity, body);
    if (!trm_reader_done(body)) {
        job_destroy(job);
        return malformed(err, "SUBMIT");
    }
    if (number != self->jobs_count || number >= TRM_TABLE_JOBS_MAX || self->epoch == 0) {
        self->refused++;
        job_destroy(job);
        return TRM_OK;
    }
    job->submitted_epoch = self->epoch;
    bool map_only = job->identity.partitions == 0;
    trm_table_job **jobs = realloc(self->jobs, (number + 1) * sizeof(*jobs));
    if (jobs)
        self->jobs = jobs;
    if (!jobs || !phase_make(&job->phase[TRM_PHASE_MAP], job->identity.tasks, map_only) ||
        !phase_make(&job->phase[TRM_PHASE_REDUCE], job->identity.partitions, !map_only)) {
        job_destroy(job);
        return no_memory(err);
    }
    jobs[number] = job;
    self->jobs_count++;
    return TRM_OK;
}

/* A launch begins: nothing of the ones before runs any more, so that what they counted is void,
 * and no map output is known to be readable. */
static void phase_begin_epoch(trm_table_phase *phase)
{
    phase->live = 0;
    for (uint32_t i = 0; i < phase->tasks; i++)
        phase->task[i].failures = 0;
}

static void job_begin_epoch(trm_table_job *job, uint64_t epoch)
{
    trm_table_phase *maps = &job->phase[TRM_PHASE_MAP];
    phase_begin_epoch(maps);
    phase_begin_epoch(&job->phase[TRM_PHASE_REDUCE]);
    for (uint32_t i = 0; i < maps->tasks && !maps->part; i++) { /* what is empty is readable everywhere */
        if (maps->task[i].state == TRM_TASK_COMMITTED && maps->task[i].empty) {
            maps->task[i].epoch = (uint32_t)epoch;
            maps->live++;
        }
    }
    if (job->state == TRM_JOB_DONE)
        return;
    job->state = TRM_JOB_RUNNING;
    job->exit_code = 0;
    free(job->text);
    job->text = NULL;
}

static int member_compare(const void *a, const void *b)
{
    const trm_member *x = a, *y = b;
    if (x->epoch != y->epoch)
        return x->epoch < y->epoch ? -1 : 1;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

/* Members are kept in ascending order of (epoch, rank). */
static uint32_t member_position(const trm_table *self, uint64_t epoch, uint32_t rank)
{
    trm_member wanted = {.epoch = epoch, .rank = rank};
    uint32_t low = 0, high = self->members_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (member_compare(&self->members[middle], &wanted) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const trm_member *trm_table_member(const trm_table *self, uint64_t epoch, uint32_t rank)
{
    uint32_t at = member_position(self, epoch, rank);
    bool there =
        at < self->members_count && self->members[at].epoch == epoch && self->members[at].rank == rank;
    return there ? &self->members[at] : NULL;
}

/* Members are in the order of their epochs: of those one of which is wanted, all are. */
static void want_whole_epochs(const trm_table *self, uint8_t *wanted)
{
    for (uint32_t begin = 0, end; begin < self->members_count; begin = end) {
        uint8_t any = 0;
        for (end = begin; end < self->members_count && self->members[end].epoch == self->members[begin].epoch;
             end++)
            any |= wanted[end];
        memset(wanted + begin, any, end - begin);
    }
}

/* Forgets the launches that hold no committed map output. A rank of which there is none may still have
 * copies of those of others (--replicas 2). */
static trm_status members_prune(trm_table *self, trm_err *err)
{
    if (self->members_count == 0)
        return TRM_OK;
    uint8_t *wanted = calloc(self->members_count, 1);
    if (!wanted)
        return no_memory(err);
    for (uint32_t j = 0; j < self->jobs_count; j++) {
        const trm_table_job *job = self->jobs[j];
        const trm_table_phase *phase = &job->phase[TRM_PHASE_MAP];
        if (phase->part || job->state == TRM_JOB_DONE)
            continue;
        for (uint32_t i = 0; i < phase->tasks; i++) {
            const trm_table_task *task = &phase->task[i];
            if (task->state != TRM_TASK_COMMITTED || task->empty)
                continue;
            uint32_t at = member_position(self, task->epoch, task->rank);
            if (at < self->members_count && self->members[at].epoch == task->epoch &&
                self->members[at].rank == task->rank)
                wanted[at] = 1;
        }
    }
    want_whole_epochs(self, wanted);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < self->members_count; i++)
        if (wanted[i])
            self->members[kept++] = self->members[i];
    self->members_count = kept;
    free(wanted);
    return TRM_OK;
}

static trm_status apply_epoch(trm_table *self, trm_reader *body, trm_err *err)
{
    trm_epoch epoch;
    trm_epoch_decode(&epoch, body);
    if (!trm_reader_done(body))
        return malformed(err, "EPOCH");
    if (epoch.epoch <= self->epoch) {
        self->refused++;
        return TRM_OK;
    }
    trm_status status = members_prune(self, err);
    if (status != TRM_OK)
        return status;
    self->epoch = epoch.epoch;
    self->epoch_ranks = epoch.ranks;
    self->epoch_ms = epoch.wall_ms;
    self->epoch_masters = 0;
    self->master_term = 0;
    for (uint32_t j = 0; j < self->jobs_count; j++)
        job_begin_epoch(self->jobs[j], self->epoch);
    return TRM_OK;
}

/* Told twice it is one master: its term is its own. */
static trm_status apply_master(trm_table *self, trm_reader *body, trm_err *err)
{
    trm_mastership master;
    trm_mastership_decode(&master, body);
    if (!trm_reader_done(body))
        return malformed(err, "MASTER");
    bool older = self->epoch_masters && master.term <= self->master_term;
    if (master.epoch != self->epoch || older || self->masters == TRM_TABLE_MASTERS_MAX) {
        self->refused++;
        return TRM_OK;
    }
    self->failovers += self->epoch_masters > 0;
    self->epoch_masters++;
    self->masters++;
    self->master_term = master.term;
    return TRM_OK;
}

static trm_status apply_member(trm_table *self, trm_reader *body, trm_err *err)
{
    trm_member member;
    trm_member_decode(&member, body);
    if (!trm_reader_done(body))
        return malformed(err, "MEMBER");
    uint32_t at = member_position(self, member.epoch, member.rank);
    bool there = at < self->members_count && member_compare(&self->members[at], &member) == 0;
    if (member.epoch != self->epoch || there || self->members_count >= TRM_TABLE_MEMBERS_MAX) {
        self->refused++;
        return TRM_OK;
    }
    if (self->members_count == self->members_capacity) {
        uint32_t capacity = self->members_capacity ? self->members_capacity * 2 : 16;
        trm_member *members = realloc(self->members, capacity * sizeof *members);
        if (!members)
            return no_memory(err);
        self->members = members;
        self->members_capacity = capacity;
    }
    memmove(&self->members[at + 1], &self->members[at], (self->members_count - at) * sizeof member);
    self->members[at] = member;
    self->members_count++;
    return TRM_OK;
}

/* ---- tasks ----------------------------------------------------------------------------- */

/* The task that an item names, or NULL when it names none. */
static trm_table_task *job_task(trm_table_job *job, unsigned phase, uint32_t task)
{
    return task < job->phase[phase].tasks ? &job->phase[phase].task[task] : NULL;
}

/* The job takes no more commands about its tasks, or the epoch is over. */
static bool job_is_closed(const trm_table *self, const trm_table_job *job, uint64_t epoch)
{
    return epoch != self->epoch || job->state != TRM_JOB_RUNNING;
}

static trm_status apply_cuts(trm_table *self, trm_table_job *job, trm_reader *body, trm_err *err)
{
    uint64_t epoch = trm_get_varint(body);
    uint32_t crc = trm_get_u32(body);
    if (!trm_reader_done(body))
        return malformed(err, "CUTS");
    if (job_is_closed(self, job, epoch) || job->cuts_crc || !job->identity.range_partitioned)
        self->refused++; /* maps may have run with the first ones: they stay */
    else
        job->cuts_crc = crc;
    return TRM_OK;
}

static bool commit_apply(trm_table *self, trm_table_job *job, const trm_commit *commit)
{
    trm_table_phase *phase = &job->phase[commit->phase];
    trm_table_task *task = job_task(job, commit->phase, commit->task);
    if (!task || task->state != TRM_TASK_PENDING || commit->attempt < task->attempt)
        return false;
    task->state = TRM_TASK_COMMITTED;
    task->attempt = commit->attempt;
    task->rank = (uint16_t)commit->rank;
    task->epoch = (uint32_t)self->epoch;
    task->empty = commit->output_bytes == 0;
    if (phase->part)
        phase->part[commit->task] = (trm_table_part){
            .bytes = commit->output_bytes, .records = commit->output_records, .crc = commit->output_crc};
    phase->committed++;
    phase->live++;
    if (!task->counted)
        trm_counters_add(&job->counters, &commit->counters);
    task->counted = 1;
    return true;
}

static trm_status apply_commit(trm_table *self, uint32_t number, trm_table_job *job, trm_reader *body,
                               const trm_table_watch *watch, trm_err *err)
{
    trm_commit commit;
    uint64_t epoch = trm_get_varint(body);
    trm_reader check = *body;
    for (uint32_t previous = 0; trm_reader_left(&check);)
        trm_commit_decode(&commit, &previous, &check);
    if (!trm_reader_ok(body) || !trm_reader_done(&check))
        return malformed(err, "COMMIT");
    for (uint32_t previous = 0; trm_reader_left(body);) {
        trm_commit_decode(&commit, &previous, body);
        bool accepted = !job_is_closed(self, job, epoch) && commit_apply(self, job, &commit);
        self->refused += !accepted;
        if (watch && watch->committed)
            watch->committed(watch->context, number, &commit, accepted);
    }
    return TRM_OK;
}

static trm_status apply_fail(trm_table *self, uint32_t number, trm_table_job *job, trm_reader *body,
                             const trm_table_watch *watch, trm_err *err)
{
    trm_fail fail;
    trm_fail_decode(&fail, body);
    if (!trm_reader_done(body))
        return malformed(err, "FAIL");
    trm_table_task *task = job_task(job, fail.phase, fail.task);
    bool accepted = task && !job_is_closed(self, job, fail.epoch) && task->state == TRM_TASK_PENDING &&
                    fail.attempt >= task->attempt;
    uint32_t high = fail.attempt < UINT32_MAX ? fail.attempt + 1 : UINT32_MAX;
    if (accepted && high <= task->failed_high)
        accepted = false; /* told twice */
    if (accepted) {
        task->failed_high = high;
        task->failures += task->failures < UINT8_MAX;
        job->phase[fail.phase].failures++;
    }
    self->refused += !accepted;
    if (watch && watch->failed)
        watch->failed(watch->context, number, &fail, accepted);
    return TRM_OK;
}

/* Whether `ref` names the committed map output that the table knows, of whichever epoch. */
static bool ref_is_current(const trm_table_task *task, const trm_output_ref *ref)
{
    return task && task->state == TRM_TASK_COMMITTED && task->attempt == ref->attempt &&
           task->epoch == ref->epoch;
}

static trm_status refs_check(trm_reader check, trm_err *err, const char *name)
{
    trm_output_ref ref;
    bool began = trm_reader_ok(&check);
    for (uint32_t previous = 0; trm_reader_left(&check);)
        trm_output_ref_decode(&ref, &previous, &check);
    return began && trm_reader_done(&check) ? TRM_OK : malformed(err, name);
}

static trm_status apply_lost(trm_table *self, uint32_t number, trm_table_job *job, trm_reader *body,
                             const trm_table_watch *watch, trm_err *err)
{
    uint64_t epoch = trm_get_varint(body);
    trm_status status = refs_check(*body, err, "LOST");
    if (status != TRM_OK)
        return status;
    trm_table_phase *phase = &job->phase[TRM_PHASE_MAP];
    for (uint32_t previous = 0; trm_reader_left(body);) {
        trm_output_ref ref;
        trm_output_ref_decode(&ref, &previous, body);
        trm_table_task *task = job_task(job, TRM_PHASE_MAP, ref.task);
        bool accepted = !job_is_closed(self, job, epoch) && !phase->part && ref_is_current(task, &ref);
        if (accepted) {
            phase->live -= task->epoch == self->epoch;
            task->attempt++;
            task->state = TRM_TASK_PENDING;
            phase->committed--;
            phase->lost++;
        }
        self->refused += !accepted;
        if (watch && watch->lost)
            watch->lost(watch->context, number, &ref, accepted);
    }
    return TRM_OK;
}

static trm_status apply_adopt(trm_table *self, uint32_t number, trm_table_job *job, trm_reader *body,
                              const trm_table_watch *watch, trm_err *err)
{
    uint64_t epoch = trm_get_varint(body);
    uint32_t rank = (uint32_t)trm_get_varint_max(body, TRM_RANKS_MAX - 1);
    trm_status status = refs_check(*body, err, "ADOPT");
    if (status != TRM_OK)
        return status;
    trm_table_phase *phase = &job->phase[TRM_PHASE_MAP];
    for (uint32_t previous = 0; trm_reader_left(body);) {
        trm_output_ref ref;
        trm_output_ref_decode(&ref, &previous, body);
        trm_table_task *task = job_task(job, TRM_PHASE_MAP, ref.task);
        bool accepted = !job_is_closed(self, job, epoch) && !phase->part && ref_is_current(task, &ref);
        if (accepted) {
            phase->live += task->epoch != self->epoch;
            task->epoch = (uint32_t)self->epoch;
            task->rank = (uint16_t)rank;
        }
        self->refused += !accepted;
        if (watch && watch->adopted)
            watch->adopted(watch->context, number, rank, &ref, accepted);
    }
    return TRM_OK;
}

/* Where the first skip is that is not below (task, record). */
static uint32_t skip_position(const trm_table_job *job, uint32_t task, uint32_t record)
{
    uint32_t low = 0, high = job->skips_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const trm_table_skip *at = &job->skips[middle];
        if (at->task < task || (at->task == task && at->record < record))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

unsigned trm_table_skips(const trm_table_job *job, uint32_t task, uint32_t out[TRM_ORDER_SKIPS_MAX])
{
    unsigned count = 0;
    for (uint32_t i = skip_position(job, task, 0); i < job->skips_count && job->skips[i].task == task; i++)
        out[count++] = job->skips[i].record; /* apply_skip bounds them */
    return count;
}

static trm_status skip_insert(trm_table_job *job, const trm_skip *skip, trm_err *err)
{
    if (job->skips_count == job->skips_room) {
        uint32_t room = job->skips_room ? job->skips_room * 2 : 16;
        trm_table_skip *grown = realloc(job->skips, room * sizeof *grown);
        if (!grown)
            return no_memory(err);
        job->skips = grown;
        job->skips_room = room;
    }
    uint32_t at = skip_position(job, skip->task, skip->record);
    memmove(&job->skips[at + 1], &job->skips[at], (job->skips_count - at) * sizeof *job->skips);
    job->skips[at] = (trm_table_skip){.task = skip->task, .record = skip->record};
    job->skips_count++;
    return TRM_OK;
}

static trm_status apply_skip(trm_table *self, uint32_t number, trm_table_job *job, trm_reader *body,
                             const trm_table_watch *watch, trm_err *err)
{
    trm_skip skip;
    trm_skip_decode(&skip, body);
    if (!trm_reader_done(body))
        return malformed(err, "SKIP");
    uint32_t of_task[TRM_ORDER_SKIPS_MAX], at = skip_position(job, skip.task, skip.record);
    bool there =
        at < job->skips_count && job->skips[at].task == skip.task && job->skips[at].record == skip.record;
    trm_table_task *task = job_task(job, TRM_PHASE_MAP, skip.task);
    bool accepted = task && !job_is_closed(self, job, skip.epoch) && task->state == TRM_TASK_PENDING &&
                    !there && job->skips_count < TRM_SKIPS_MAX &&
                    trm_table_skips(job, skip.task, of_task) < TRM_ORDER_SKIPS_MAX;
    if (accepted) {
        trm_status status = skip_insert(job, &skip, err);
        if (status != TRM_OK)
            return status;
        if (skip.fence > task->attempt)
            task->attempt = skip.fence;
    }
    self->refused += !accepted;
    if (watch && watch->skipped)
        watch->skipped(watch->context, number, &skip, accepted);
    return TRM_OK;
}

static trm_status apply_published(trm_table *self, uint32_t number, trm_table_job *job, trm_reader *body,
                                  const trm_table_watch *watch, trm_err *err)
{
    uint64_t epoch = trm_get_varint(body);
    trm_reader check = *body;
    for (uint32_t previous = 0; trm_reader_left(&check);)
        trm_task_number_decode(&previous, &check);
    if (!trm_reader_ok(body) || !trm_reader_done(&check))
        return malformed(err, "PUBLISHED");
    unsigned output = trm_table_output_phase(job);
    for (uint32_t previous = 0; trm_reader_left(body);) {
        uint32_t number_of_task = trm_task_number_decode(&previous, body);
        trm_table_task *task = job_task(job, output, number_of_task);
        bool accepted = task && !job_is_closed(self, job, epoch) && task->state == TRM_TASK_COMMITTED;
        if (accepted) {
            task->state = TRM_TASK_PUBLISHED;
            job->phase[output].published++;
        }
        self->refused += !accepted;
        if (watch && watch->published)
            watch->published(watch->context, number, number_of_task, accepted);
    }
    return TRM_OK;
}

static trm_status apply_finish(trm_table *self, trm_table_job *job, trm_reader *body, trm_err *err)
{
    trm_finish finish;
    trm_finish_decode(&finish, body);
    if (!trm_reader_done(body))
        return malformed(err, "FINISH");
    const trm_table_phase *output = &job->phase[trm_table_output_phase(job)];
    bool premature = finish.state == TRM_JOB_DONE && output->published != output->tasks;
    if (job_is_closed(self, job, finish.epoch) || premature) {
        self->refused++;
        return TRM_OK;
    }
    char *text = strdup(finish.text);
    if (!text)
        return no_memory(err);
    job->text = text;
    job->state = finish.state;
    job->exit_code = finish.exit_code;
    job->finished_ms = finish.wall_ms;
    return TRM_OK;
}

static trm_status apply_to_job(trm_table *self, trm_command_type type, uint32_t number, trm_reader *body,
                               const trm_table_watch *watch, trm_err *err)
{
    if (number >= self->jobs_count) { /* of a job that was refused */
        self->refused++;
        return TRM_OK;
    }
    trm_table_job *job = self->jobs[number];
    switch (type) {
    case TRM_COMMAND_CUTS:
        return apply_cuts(self, job, body, err);
    case TRM_COMMAND_COMMIT:
        return apply_commit(self, number, job, body, watch, err);
    case TRM_COMMAND_FAIL:
        return apply_fail(self, number, job, body, watch, err);
    case TRM_COMMAND_LOST:
        return apply_lost(self, number, job, body, watch, err);
    case TRM_COMMAND_ADOPT:
        return apply_adopt(self, number, job, body, watch, err);
    case TRM_COMMAND_PUBLISHED:
        return apply_published(self, number, job, body, watch, err);
    case TRM_COMMAND_SKIP:
        return apply_skip(self, number, job, body, watch, err);
    case TRM_COMMAND_FINISH:
        return apply_finish(self, job, body, err);
    default:
        return malformed(err, "unknown");
    }
}

trm_status trm_table_apply(trm_table *self, const void *command, size_t len, const trm_table_watch *watch,
                           trm_err *err)
{
    trm_command_type type;
    uint32_t job;
    trm_reader body;
    trm_status status = trm_command_open(command, len, &type, &job, &body);
    if (status != TRM_OK)
        return trm_err_set(err, status, "job table: %s",
                           status == TRM_EVERSION ? "a command of another version" : "not a command");
    switch (type) {
    case TRM_COMMAND_SUBMIT:
        status = apply_submit(self, job, &body, err);
        break;
    case TRM_COMMAND_EPOCH:
        status = apply_epoch(self, &body, err);
        break;
    case TRM_COMMAND_MASTER:
        status = apply_master(self, &body, err);
        break;
    case TRM_COMMAND_MEMBER:
        status = apply_member(self, &body, err);
        break;
    default:
        status = apply_to_job(self, type, job, &body, watch, err);
        break;
    }
    self->applied += status == TRM_OK;
    return status;
}
