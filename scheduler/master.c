/* The master's life. See master.h and, for what lies where, master_self.h.
 *
 *     create: the log is read ─▶ [EPOCH] ─▶ MASTER ─▶ [SUBMIT] ─▶ the job runs ─▶ FINISH ─▶ END ─▶ BYE
 *       STAGE_BEGIN ──────────────────────▶ STAGE_RUN ─▶ STAGE_FLUSH ─▶ STAGE_END ─▶ STAGE_ENDED
 */
#include "scheduler/master_self.h"

#include "jobs/cuts.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- Making --------------------------------------------------------------------------------- */

static trm_status check_log(const trm_master *self, trm_err *err)
{
    if (self->epoch < self->table->epoch)
        return trm_err_set(err, TRM_EFENCED, "launch %llu is over: launch %llu owns the job",
                           (unsigned long long)self->epoch, (unsigned long long)self->table->epoch);
    if (self->table->jobs_count == 0)
        return TRM_OK;
    const trm_table_job *job = self->table->jobs[0];
    const trm_identity *saved = &job->identity, *now = &self->config.submission->identity;
    if (!trm_identity_same_job(saved, now, err)) {
        trm_err_wrap(err, "the log is of another job");
        return TRM_EOUTPUT;
    }
    if (saved->plan_crc != now->plan_crc || saved->tasks != now->tasks ||
        saved->partitions != now->partitions)
        return trm_err_set(err, TRM_ECORRUPT, "the log and the plan in %s are not of the same job",
                           self->spec->state_dir);
    if (!job->cuts_crc || job->state == TRM_JOB_DONE)
        return TRM_OK;
    trm_cuts cuts;
    trm_status status = trm_cuts_load(&cuts, self->fs, self->spec->state_dir, job->cuts_crc, err);
    if (status == TRM_OK)
        trm_cuts_close(&cuts);
    return status;
}

/* A log of several voters may have more to give than has been read: what was proposed before this
 * rank led. EPOCH and MASTER come after all of it, and so the job begins with all of it. */
static void propose_epoch(trm_master *self)
{
    if (self->epoch == self->table->epoch)
        return; /* another rank of this launch has led before */
    trm_epoch epoch = {.epoch = self->epoch, .ranks = self->config.ranks, .wall_ms = self->wall_ms};
    trm_epoch_encode(&epoch, master_command_begin(self, TRM_COMMAND_EPOCH));
    master_command_enqueue(self);
}

static void propose_master(trm_master *self)
{
    trm_mastership master = {.epoch = self->epoch, .term = self->term};
    trm_mastership_encode(&master, master_command_begin(self, TRM_COMMAND_MASTER));
    master_command_enqueue(self);
}

trm_status trm_master_create(trm_master **out, const trm_master_config *config, trm_err *err)
{
    assert(config->ranks > 0 && config->ranks <= TRM_RANKS_MAX);
    trm_master *self = calloc(1, sizeof *self);
    if (!self)
        return trm_err_set(err, TRM_ENOMEM, "no memory for the master");
    self->config = *config;
    self->spec = config->spec;
    self->fs = config->fs;
    self->replica = config->replica;
    self->log = self->replica->log;
    self->table = &self->replica->table;
    self->wall_ms = config->wall_ms;
    self->commands_last = &self->commands;
    trm_journal_init(&self->journal, self->fs, self->spec->state_dir);
    trm_status status = master_ranks_init(self, err);
    if (status == TRM_OK)
        status = trm_replica_catch_up(self->replica, err);
    if (status == TRM_OK) {
        trm_replog_state log;
        trm_replog_state_get(self->log, &log);
        self->term = log.term;
        self->own_rank = log.leader_rank;
        self->epoch = config->epoch ? config->epoch : self->table->epoch + 1;
        status = check_log(self, err);
    }
    if (status == TRM_OK && !master_outputs_note_stores(self))
        status = trm_err_set(err, TRM_ENOMEM, "no memory for the stores of earlier launches");
    if (status != TRM_OK) {
        trm_master_destroy(self);
        return status;
    }
    master_log_begin(self);
    propose_epoch(self);
    propose_master(self);
    *out = self;
    return TRM_OK;
}

void trm_master_destroy(trm_master *self)
{
    if (!self)
        return;
    master_log_end(self);
    while (self->commands) {
        master_command *next = self->commands->next;
        free(self->commands);
        self->commands = next;
    }
    master_tasks_close(self);
    master_outputs_close(self);
    master_copies_close(self);
    master_failures_close(self);
    master_hunts_close(self);
    master_twins_close(self);
    master_ranks_close(self);
    free(self->parts);
    trm_journal_close(&self->journal);
    trm_writer_close(&self->bindings);
    trm_writer_close(&self->commit);
    trm_writer_close(&self->scratch);
    trm_writer_close(&self->samples);
    trm_writer_close(&self->frame);
    free(self);
}

/* ---- The begin -------------------------------------------------------------------------------- */

static trm_status start_job(trm_master *self, trm_err *err)
{
    self->job = self->table->jobs[0];
    if (self->job->state != TRM_JOB_RUNNING)
        return TRM_OK;
    if (!master_ranks_begin(self))
        return trm_err_set(err, TRM_ENOMEM, "no memory for a master of %u ranks", self->config.ranks);
    trm_status status = master_sample_begin(self, err);
    if (status == TRM_OK)
        status = master_tasks_init(self, err);
    if (status == TRM_OK)
        status = master_copies_begin(self, err);
    if (status == TRM_OK)
        status = master_outputs_begin(self, err);
    const trm_table_phase *output = &self->job->phase[trm_table_output_phase(self->job)];
    for (uint32_t i = 0; status == TRM_OK && i < output->tasks; i++)
        if (output->task[i].state == TRM_TASK_COMMITTED)
            master_publish_add(self, i);
    return status;
}

/* Ranks that were gone before the job began. */
static void tell_outputs_of_lost(trm_master *self)
{
    for (uint32_t i = 0; i < self->config.ranks; i++)
        if (self->ranks[i].state == RANK_LOST)
            master_outputs_of_lost_rank(self, i);
}

static bool begin_step(trm_master *self)
{
    if (self->table->epoch > self->epoch)
        master_give_up(self, TRM_EFENCED, "a later launch owns the job");
    bool is_master = self->table->epoch == self->epoch && self->table->master_term == self->term;
    if (!is_master && self->table->masters == TRM_TABLE_MASTERS_MAX)
        master_give_up(self, TRM_EOUTPUT, "the job has had as many masters as it may have: begin it anew");
    if (!is_master)
        return false; /* the log has not said yet that it is */
    if (self->table->jobs_count == 0) {
        if (!self->submitted) {
            trm_identity_encode(&self->config.submission->identity,
                                master_command_begin(self, TRM_COMMAND_SUBMIT));
            master_command_enqueue(self);
        }
        self->submitted = true;
        return false;
    }
    trm_err err = {""};
    self->follows = self->table->epoch_masters > 1;
    trm_status status = check_log(self, &err);
    if (status == TRM_OK)
        status = start_job(self, &err);
    if (status != TRM_OK) {
        master_give_up(self, status, err.text);
        return true;
    }
    self->stage = STAGE_RUN;
    self->run_ns = self->now_ns;
    master_log_watch(self);
    master_note_launch(self);
    for (uint32_t i = 0; i < self->config.ranks; i++)
        if (self->ranks[i].state == RANK_READY)
            master_note_rank(self, i, "rank_ready", NULL);
    self->all_hungry = true;
    if (self->job->state == TRM_JOB_DONE)
        master_manifest_restore(self);
    if (self->job->state == TRM_JOB_RUNNING)
        tell_outputs_of_lost(self);
    else /* an earlier launch has done it, or the master before has ended it */
        master_job_finish(self, (trm_job_state)self->job->state, self->job->exit_code,
                          self->job->text ? self->job->text : "");
    return true;
}

/* ---- Frames in ---------------------------------------------------------------------------------- */

/* Whether it comes from a worker of this launch, told so by this master. */
static bool is_of_here(const trm_master *self, const trm_wire_header *header)
{
    if (header->type == TRM_WIRE_HELLO)
        return header->epoch == 0 || header->epoch == self->epoch;
    return header->epoch == self->epoch && header->term == self->term;
}

/* A rank that was silent for too long is there after all. What it was given is others' now. */
static void hear(trm_master *self, uint32_t from)
{
    master_rank *rank = &self->ranks[from];
    rank->heard_ns = self->now_ns;
    if (rank->state == RANK_LOST && rank->greeted && !rank->dead)
        master_rank_back(self, from);
}

void trm_master_receive(trm_master *self, uint32_t from, const trm_wire_header *header, trm_reader *body,
                        uint64_t now_ns)
{
    self->now_ns = now_ns > self->now_ns ? now_ns : self->now_ns;
    bool early = header->type == TRM_WIRE_PULSE && header->epoch == 0; /* before SETUP */
    if (from >= self->config.ranks || self->deposed || self->stage == STAGE_ENDED ||
        (!early && !is_of_here(self, header)) ||
        (self->ranks[from].dead && header->type != TRM_WIRE_REPORT)) {
        self->dropped++;
        return;
    }
    if (header->type != TRM_WIRE_BYE)
        hear(self, from);
    bool runs = self->stage == STAGE_RUN;
    switch (header->type) {
    case TRM_WIRE_HELLO:
        master_hello(self, from, body);
        break;
    case TRM_WIRE_PULSE:
        if (!early)
            master_pulse(self, from, body);
        break;
    case TRM_WIRE_BYE:
        master_bye(self, from);
        break;
    case TRM_WIRE_CLAIM:
        if (runs)
            master_claim(self, from, body);
        break;
    case TRM_WIRE_REPORT:
        if (runs)
            master_reports(self, from, body);
        break;
    case TRM_WIRE_LOST:
        if (runs)
            master_lost(self, from, body);
        break;
    case TRM_WIRE_HELD:
        if (runs)
            master_held(self, from, body);
        break;
    case TRM_WIRE_COPIED:
        if (runs)
            master_copied(self, from, body);
        break;
    default:
        self->dropped++;
        break;
    }
}

/* ---- A step --------------------------------------------------------------------------------------- */

/* The loop stood still (a laptop slept, a debugger, SIGSTOP): nobody is silent because of that. */
static void forgive_silence(trm_master *self)
{
    if (self->step_ns && self->now_ns - self->step_ns <= MASTER_PAUSED_MS * MS)
        return;
    for (uint32_t i = 0; i < self->config.ranks; i++)
        self->ranks[i].heard_ns = self->now_ns;
    master_twins_forgive(self);
}

bool trm_master_step(trm_master *self, uint64_t now_ns, uint64_t wall_ms, uint64_t *wake_ns)
{
    self->now_ns = now_ns > self->now_ns ? now_ns : self->now_ns;
    self->wall_ms = wall_ms;
    if (!self->begun_ns)
        self->begun_ns = self->now_ns;
    forgive_silence(self);
    self->step_ns = self->now_ns;
    if (self->stage == STAGE_ENDED || self->deposed)
        return false;
    bool any = master_log_step(self, wake_ns);
    if (self->deposed)
        return true;
    if (self->stage == STAGE_BEGIN)
        any |= begin_step(self);
    any |= master_ranks_step(self, wake_ns);
    if (self->stage == STAGE_RUN) {
        master_sample_step(self);
        any |= master_outputs_step(self, wake_ns);
        any |= master_copies_step(self, wake_ns);
        any |= master_tasks_step(self, wake_ns);
        master_twins_step(self, wake_ns);
        any |= master_settled_step(self, wake_ns);
    }
    if (self->stage == STAGE_RUN || (self->stage == STAGE_FLUSH && self->interrupted))
        any |= master_publish_step(self, wake_ns);
    any |= !self->failed && master_log_flush(self, wake_ns);
    any |= self->stage >= STAGE_FLUSH && master_end_step(self, wake_ns);
    master_record_step(self, wake_ns);
    return any;
}

bool trm_master_deposed(const trm_master *self, trm_err *why)
{
    if (self->deposed)
        trm_err_set(why, TRM_EFENCED, "%s", self->deposed_why);
    return self->deposed;
}

/* ---- What others ask -------------------------------------------------------------------------------- */

bool trm_master_rank_lives(const trm_master *self, uint32_t rank)
{
    return rank < self->config.ranks && self->ranks[rank].state != RANK_LOST &&
           self->ranks[rank].state != RANK_GONE;
}

bool trm_master_is_over(const trm_master *self)
{
    return self->stage >= STAGE_END;
}

const trm_table *trm_master_table(const trm_master *self)
{
    return self->table;
}

uint64_t trm_master_epoch(const trm_master *self)
{
    return self->epoch;
}

void trm_master_counters(const trm_master *self, trm_counters *out)
{
    *out = self->job ? self->job->counters : (trm_counters){0};
}

const char *master_phase_name(const trm_master *self)
{
    if (!self->job)
        return self->stage == STAGE_BEGIN ? "starting" : "ending";
    if (self->stage == STAGE_BEGIN)
        return "starting";
    if (self->stage != STAGE_RUN)
        return self->stage == STAGE_ENDED ? "ended" : "ending";
    const trm_table_phase *maps = &self->job->phase[TRM_PHASE_MAP],
                          *reduces = &self->job->phase[TRM_PHASE_REDUCE];
    if (master_wants_cuts(self))
        return "sampling";
    if (reduces->committed == reduces->tasks && (reduces->tasks || maps->committed == maps->tasks))
        return "publishing";
    return reduces->tasks && maps->live == maps->tasks ? "reducing" : "mapping";
}

/* The launch may have begun under another master, on another host. */
static uint64_t launch_ms(const trm_master *self)
{
    return self->wall_ms > self->table->epoch_ms ? self->wall_ms - self->table->epoch_ms : 0;
}

void trm_master_progress(const trm_master *self, trm_progress *out)
{
    *out = (trm_progress){.phase = master_phase_name(self),
                          .ranks = self->config.ranks,
                          .ranks_alive = self->ready,
                          .epoch = self->epoch,
                          .term = self->term,
                          .launch_ms = launch_ms(self),
                          .failovers = self->table->failovers,
                          .dropped = self->dropped,
                          .bytes_total = self->config.submission->plan.bytes};
    for (uint32_t i = 0; i < self->config.ranks; i++) {
        const master_rank *rank = &self->ranks[i];
        /* What it said last is of maps that are committed by now, if none runs there. */
        if (rank->state != RANK_READY || !rank->running[TRM_PHASE_MAP].count)
            continue;
        out->bytes_in += rank->pulse.bytes_in;
        out->records_in += rank->pulse.records_in;
    }
    if (!self->job)
        return;
    out->bytes_in += self->job->counters.value[TRM_COUNTER_MAP_BYTES_IN];
    out->records_in += self->job->counters.value[TRM_COUNTER_MAP_RECORDS_IN];
    for (unsigned phase = TRM_PHASE_SAMPLE; phase < TRM_PHASES; phase++) {
        const trm_table_phase *known = &self->job->phase[phase];
        bool runs_alone = phase == TRM_PHASE_MAP && self->job->identity.partitions; /* leaves no parts */
        out->of[phase] = (trm_phase_progress){.total = known->tasks,
                                              .running = self->phase[phase].running,
                                              .done = runs_alone ? known->live : known->committed};
        out->attempts_failed += known->failures;
        out->outputs_lost += known->lost;
    }
    out->records_skipped = self->job->skips_count;
    out->outputs_copied = self->copies_made;
    out->outputs_copied_bytes = self->copies_bytes;
    out->copies_used = self->copies_used;
    out->speculated = self->twins_made;
    out->speculated_won = self->twins_won;
    out->of[TRM_PHASE_SAMPLE].total = self->phase[TRM_PHASE_SAMPLE].tasks;
    out->of[TRM_PHASE_SAMPLE].done = self->sampled;
}
