/* What became of attempts.
 *
 *     REPORT  prepared ──▶ COMMIT ──▶ applied: it counts, its output is told or published
 *             failed   ──▶ FAIL ────▶ applied: again elsewhere, or the job fails
 *             not its own fault ───▶ again, RETURNS_MAX times at most
 *
 * Of a task that runs only the attempt that is known to run, on the rank that runs it, is listened
 * to. One that waits is taken from whoever has done it: a rank that was given up too early, or was
 * ordered by a master before this one. All others are settled: what they left is of no use. */
#include "scheduler/master_self.h"

#include "runtime/diag.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_WORDS_BYTES 512u

/* ---- Prepared ---------------------------------------------------------------------------------- */

static void learn_time(master_phase *in, const trm_report *report)
{
    uint64_t ms = report->ended_ms > report->started_ms ? report->ended_ms - report->started_ms : 0;
    uint32_t us = ms == 0 ? TASK_US_MIN : ms < 1000000 ? (uint32_t)ms * 1000 : 1000000000u;
    in->task_us = in->task_us ? (uint32_t)((in->task_us * 7ull + us) / 8) : us;
    if (in->task_us < TASK_US_MIN)
        in->task_us = TASK_US_MIN;
}

/* From now on the log decides. */
static void decide(trm_master *self, uint32_t from, const trm_report *report, soft_state state)
{
    soft_task *task = &self->phase[report->phase].task[report->task];
    master_task_unlink(self, report->phase, report->task);
    task->state = (uint8_t)state;
    task->rank = from;
    task->attempt = report->attempt;
}

static void prepared(trm_master *self, uint32_t from, const trm_report *report)
{
    master_note_prepared(self, from, report);
    if (report->phase == TRM_PHASE_MAP)
        master_hunt_drop(self, report->task);
    decide(self, from, report, SOFT_PREPARED);
    trm_commit commit = {.phase = report->phase,
                         .task = report->task,
                         .attempt = report->attempt,
                         .rank = from,
                         .output_bytes = report->output_bytes,
                         .output_records = report->output_records,
                         .output_crc = report->output_crc,
                         .counters = report->counters};
    master_commit_add(self, &commit);
}

void master_committed(trm_master *self, const trm_commit *commit, bool accepted)
{
    if (commit->task >= self->phase[commit->phase].tasks)
        return;
    soft_task *task = &self->phase[commit->phase].task[commit->task];
    const trm_table_phase *known = &self->job->phase[commit->phase];
    master_settle(self, commit->rank,
                  &(trm_order){.phase = commit->phase, .task = commit->task, .attempt = commit->attempt});
    if (task->state == SOFT_PREPARED)
        task->state = SOFT_IDLE;
    if (!accepted) {
        if (known->task[commit->task].state == TRM_TASK_PENDING && task->state == SOFT_IDLE)
            master_task_queue(self, commit->phase, commit->task, true);
        return;
    }
    if (!known->part)
        master_copy_forget(self, commit->task);
    if (known->part)
        master_publish_add(self, commit->task);
    else
        master_output_committed(self, commit->task, commit->rank);
    if (commit->phase == TRM_PHASE_MAP && master_maps_are_live(self))
        self->all_hungry = true; /* for reduces */
}

/* ---- Failed --------------------------------------------------------------------------------------- */

bool master_failure_counts(const trm_report *report)
{
    if (report->status == TRM_EPEER || report->status == TRM_AGAIN || report->status == TRM_EFENCED)
        return false;
    return !(report->status == TRM_ELOST && report->phase == TRM_PHASE_REDUCE);
}

/* A rank on which one task after the other fails is not to blame the tasks for. */
static void strike(trm_master *self, uint32_t from, uint32_t task)
{
    master_rank *rank = &self->ranks[from];
    if (rank->struck_task == task)
        return;
    rank->struck_task = task;
    if (++rank->strikes >= STRIKES_MAX)
        master_rank_aside(self, from, "one task after the other fails there");
}

static void settle_report(trm_master *self, uint32_t from, const trm_report *report)
{
    master_settle(self, from,
                  &(trm_order){.phase = report->phase, .task = report->task, .attempt = report->attempt});
}

void master_propose_fail(trm_master *self, uint32_t from, const trm_report *report)
{
    strike(self, from, report->task);
    if (self->stage != STAGE_RUN)
        return;
    master_failure *failure = malloc(sizeof *failure + report->text_len + 1);
    if (!failure) {
        decide(self, from, report, SOFT_IDLE);
        master_task_return(self, report->phase, report->task, "there was no memory to say why");
        settle_report(self, from, report);
        return;
    }
    failure->fail = (trm_fail){.epoch = self->epoch,
                               .phase = report->phase,
                               .task = report->task,
                               .attempt = report->attempt,
                               .rank = from,
                               .status = report->status};
    memcpy(failure->text, report->text, report->text_len);
    failure->text[report->text_len] = '\0';
    failure->next = self->failures;
    self->failures = failure;
    decide(self, from, report, SOFT_FAILING);
    trm_fail_encode(&failure->fail, master_command_begin(self, TRM_COMMAND_FAIL));
    master_command_enqueue(self);
    trm_debug("%s task %u, attempt %u, failed on rank %u: %s",
              report->phase == TRM_PHASE_REDUCE ? "reduce" : "map", report->task, report->attempt, from,
              failure->text);
}

static void refused(trm_master *self, uint32_t from, const trm_report *report)
{
    master_rank *rank = &self->ranks[from];
    char why[256];
    snprintf(why, sizeof why, "%.*s", (int)(report->text_len < 200 ? report->text_len : 200),
             report->text_len ? report->text : "it was refused");
    if (report->status == TRM_EPEER) {
        bool again = self->now_ns >= rank->pause_ns;
        rank->pause_ns = self->now_ns + RANK_PAUSE_MS * MS;
        rank->refusals += again;
    }
    master_task_return(self, report->phase, report->task, why);
    settle_report(self, from, report);
    if (rank->refusals >= REFUSALS_MAX)
        master_rank_unfit(self, from, TRM_ELAUNCH, why);
}

static void failed(trm_master *self, uint32_t from, const trm_report *report)
{
    master_note_failure(self, from, report, master_failure_counts(report));
    if (!master_failure_counts(report)) {
        refused(self, from, report);
        return;
    }
    if (!master_hunt_begin(self, from, report))
        master_propose_fail(self, from, report);
}

/* What a map task reads, for a person: "'FILE' from byte N on", or "". */
static void describe_input(const trm_master *self, const trm_fail *fail, char *out, size_t out_bytes)
{
    trm_piece piece;
    const trm_plan *plan = &self->config.submission->plan;
    out[0] = '\0';
    if (fail->phase != TRM_PHASE_MAP || fail->task >= plan->tasks ||
        !trm_plan_pieces(plan, fail->task, 0, &piece, 1))
        return;
    snprintf(out, out_bytes, " ('%.400s' from byte %llu)", piece.file->path,
             (unsigned long long)piece.offset);
}

static void fail_job(trm_master *self, const master_failure *failure, unsigned failures)
{
    char input[FILE_WORDS_BYTES];
    const trm_fail *fail = &failure->fail;
    const master_rank *rank = &self->ranks[fail->rank];
    describe_input(self, fail, input, sizeof input);
    master_job_fail(self, (trm_status)fail->status,
                    "%s task %u%s failed %u time%s, the last time on rank %u (%s): %s",
                    fail->phase == TRM_PHASE_REDUCE ? "reduce" : "map", fail->task, input, failures,
                    failures == 1 ? "" : "s", fail->rank, rank->host_name ? rank->host_name : "?",
                    failure->text[0] ? failure->text : trm_status_name((trm_status)fail->status));
}

static master_failure *take_failure(trm_master *self, const trm_fail *fail)
{
    for (master_failure **at = &self->failures; *at; at = &(*at)->next) {
        master_failure *found = *at;
        if (found->fail.phase != fail->phase || found->fail.task != fail->task ||
            found->fail.attempt != fail->attempt)
            continue;
        *at = found->next;
        return found;
    }
    return NULL;
}

void master_failed(trm_master *self, const trm_fail *fail, bool accepted)
{
    master_failure *failure = take_failure(self, fail);
    master_settle(self, fail->rank,
                  &(trm_order){.phase = fail->phase, .task = fail->task, .attempt = fail->attempt});
    if (!failure || self->stage != STAGE_RUN) {
        free(failure);
        return;
    }
    const trm_table_task *known = &self->job->phase[fail->phase].task[fail->task];
    soft_task *task = &self->phase[fail->phase].task[fail->task];
    task->state = SOFT_IDLE;
    if (accepted && known->failures >= self->spec->attempts_max) {
        fail_job(self, failure, known->failures);
    } else if (known->state == TRM_TASK_PENDING) {
        task->rank = fail->rank;
        master_task_queue(self, fail->phase, fail->task, false);
    }
    free(failure);
}

void master_failures_close(trm_master *self)
{
    while (self->failures) {
        master_failure *next = self->failures->next;
        free(self->failures);
        self->failures = next;
    }
}

/* ---- REPORT ----------------------------------------------------------------------------------------- */

/* It is the attempt that this master knows of the task, from where that is. */
static bool is_known(const soft_task *task, uint32_t from, const trm_report *report)
{
    return task->rank == from && task->attempt == report->attempt;
}

/* Nobody runs the task, and this ends the wait. What was refused has been given back before. */
static bool is_welcome(const trm_master *self, const trm_report *report)
{
    const soft_task *task = &self->phase[report->phase].task[report->task];
    if (task->state != SOFT_QUEUED ||
        !master_attempt_may_count(self, report->phase, report->task, report->attempt))
        return false;
    if (report->status == TRM_OK)
        return true;
    return report->phase != TRM_PHASE_SAMPLE && master_failure_counts(report) &&
           report->attempt >= self->job->phase[report->phase].task[report->task].failed_high;
}

static bool is_expected(const trm_master *self, uint32_t from, const trm_report *report)
{
    const soft_task *task = &self->phase[report->phase].task[report->task];
    return (task->state == SOFT_RUNNING && is_known(task, from, report)) || is_welcome(self, report);
}

/* Told again while what was told before is on its way through the log. */
static bool is_being_decided(const trm_master *self, uint32_t from, const trm_report *report)
{
    const soft_task *task = &self->phase[report->phase].task[report->task];
    if (!is_known(task, from, report))
        return false;
    if (report->phase == TRM_PHASE_SAMPLE)
        return master_sample_is_kept(self, report->task);
    return (task->state == SOFT_PREPARED || task->state == SOFT_FAILING) &&
           master_attempt_may_count(self, report->phase, report->task, report->attempt);
}

static void settle_stray(trm_master *self, uint32_t from, const trm_order *named)
{
    self->dropped++;
    master_settle(self, from, named);
}

/* Of a probe only how it ended is of interest, and that at once. */
static void take_probe(trm_master *self, uint32_t from, const trm_report *report, const trm_order *named)
{
    const soft_task *task = &self->phase[report->phase].task[report->task];
    if (!task->hunted || task->state != SOFT_RUNNING || !is_known(task, from, report)) {
        settle_stray(self, from, named);
    } else if (report->status != TRM_OK && !master_failure_counts(report)) {
        refused(self, from, report);
    } else {
        master_note_probe(self, from, report);
        master_settle(self, from, named);
        master_hunt_probed(self, report);
    }
}

static void take_report(trm_master *self, uint32_t from, trm_report *report)
{
    master_rank *rank = &self->ranks[from];
    const master_phase *in = &self->phase[report->phase];
    trm_order named = {.phase = report->phase, .task = report->task, .attempt = report->attempt};
    if (report->phase == TRM_PHASE_SAMPLE && in->tasks)
        report->task = master_sample_of_task(self, report->task);
    if (report->task >= in->tasks) {
        settle_stray(self, from, &named);
        return;
    }
    if (report->probe) {
        take_probe(self, from, report, &named);
        return;
    }
    if (in->task[report->task].hunted &&
        (report->status != TRM_OK || in->task[report->task].state == SOFT_RUNNING)) {
        if (!master_hunt_knows(self, from, report))
            settle_stray(self, from, &named);
        return;
    }
    if (in->task[report->task].twinned && master_twin_report(self, from, report)) {
        if (report->phase != TRM_PHASE_SAMPLE)
            master_note_failure(self, from, report, false);
        settle_stray(self, from, &named);
        return;
    }
    if (!is_expected(self, from, report)) {
        if (!is_being_decided(self, from, report))
            settle_stray(self, from, &named);
        return;
    }
    if (report->status == TRM_OK) {
        rank->strikes = rank->refusals = 0;
        rank->struck_task = NO_RANK;
        if (!rank->aside)
            rank->slow = 0;
        self->done_ns = self->now_ns;
        learn_time(&self->phase[report->phase], report);
    }
    if (report->phase == TRM_PHASE_SAMPLE)
        master_sample_report(self, from, report);
    else if (report->status == TRM_OK)
        prepared(self, from, report);
    else
        failed(self, from, report);
}

void master_reports(trm_master *self, uint32_t from, trm_reader *body)
{
    master_rank *rank = &self->ranks[from];
    rank->idle_pulses = rank->stuck_pulses = 0;
    master_rank_hungry(self, from);
    while (trm_reader_left(body) && self->stage == STAGE_RUN) {
        trm_report report;
        trm_report_decode(&report, body);
        if (!trm_reader_ok(body)) {
            self->dropped++;
            return;
        }
        take_report(self, from, &report);
    }
}
