/* What the master writes down: events, STATE/status.json and STATE/bindings. */
#include "scheduler/master_self.h"

#include "jobs/names.h"
#include "runtime/diag.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STATUS_VERSION 1u
#define STATUS_MS 1000u
#define EVENT_WORDS_BYTES 512u /* of a failure, in its event */

static const char *const phase_names[TRM_PHASES] = {"sample", "map", "reduce"};

/* ---- Events ----------------------------------------------------------------------------------- */

trm_json *master_event(trm_master *self, const char *what)
{
    return trm_journal_begin(&self->journal, what, self->wall_ms);
}

void master_note_launch(trm_master *self)
{
    const trm_identity *identity = &self->job->identity;
    trm_json *json = master_event(self, "launch");
    trm_json_string(json, "job", identity->name);
    trm_json_u64(json, "epoch", self->epoch);
    trm_json_u64(json, "term", self->term);
    trm_json_u64(json, "ranks", self->config.ranks);
    trm_json_u64(json, "maps", identity->tasks);
    trm_json_u64(json, "reduces", identity->partitions);
    trm_json_u64(json, "maps_committed", self->job->phase[TRM_PHASE_MAP].committed);
    trm_json_u64(json, "reduces_committed", self->job->phase[TRM_PHASE_REDUCE].committed);
    trm_journal_end(&self->journal);
}

void master_note_rank(trm_master *self, uint32_t number, const char *what, const char *why)
{
    const master_rank *rank = &self->ranks[number];
    trm_json *json = master_event(self, what);
    trm_json_u64(json, "rank", number);
    trm_json_string(json, "host", rank->host_name ? rank->host_name : "");
    trm_json_u64(json, "pid", rank->pid);
    trm_json_u64(json, "executors", rank->executors);
    if (why)
        trm_json_string(json, "why", why);
    trm_journal_end(&self->journal);
}

static void put_attempt(trm_json *json, uint32_t from, const trm_report *report)
{
    trm_json_string(json, "phase", phase_names[report->phase]);
    trm_json_u64(json, "task", report->task);
    trm_json_u64(json, "attempt", report->attempt);
    trm_json_u64(json, "rank", from);
    trm_json_u64(json, "executor", report->executor);
    trm_json_u64(json, "from", report->started_ms);
    trm_json_u64(json, "to", report->ended_ms);
}

/* The first one only: how long it took a master to come to that. */
void master_note_order(trm_master *self, uint32_t rank, unsigned phase, uint32_t task)
{
    if (self->order_noted)
        return;
    self->order_noted = true;
    trm_json *json = master_event(self, "first_order");
    trm_json_u64(json, "rank", rank);
    trm_json_string(json, "phase", phase_names[phase]);
    trm_json_u64(json, "task", task);
    trm_journal_end(&self->journal);
}

/* A million tasks of nothing are counted, not listed. */
void master_note_prepared(trm_master *self, uint32_t from, const trm_report *report)
{
    if (self->tasks_noted == TRM_EVENT_TASKS_MAX) {
        self->unlisted[report->phase].tasks++;
        self->unlisted[report->phase].bytes += report->output_bytes;
        self->unlisted[report->phase].records += report->output_records;
        return;
    }
    self->tasks_noted++;
    trm_json *json = master_event(self, "task");
    put_attempt(json, from, report);
    trm_json_u64(json, "bytes", report->output_bytes);
    trm_json_u64(json, "records", report->output_records);
    trm_journal_end(&self->journal);
}

static void note_unlisted(trm_master *self)
{
    for (unsigned phase = 0; phase < TRM_PHASES; phase++) {
        if (!self->unlisted[phase].tasks)
            continue;
        trm_json *json = master_event(self, "tasks");
        trm_json_string(json, "phase", phase_names[phase]);
        trm_json_u64(json, "tasks", self->unlisted[phase].tasks);
        trm_json_u64(json, "bytes", self->unlisted[phase].bytes);
        trm_json_u64(json, "records", self->unlisted[phase].records);
        trm_journal_end(&self->journal);
        memset(&self->unlisted[phase], 0, sizeof self->unlisted[phase]);
    }
}

/* About once a second, like the tasks that are not listed. */
static void note_copies(trm_master *self)
{
    if (self->copies_noted == self->copies_made)
        return;
    trm_json *json = master_event(self, "copied");
    trm_json_u64(json, "count", self->copies_made - self->copies_noted);
    trm_json_u64(json, "bytes", self->copies_bytes - self->copies_bytes_noted);
    trm_journal_end(&self->journal);
    self->copies_noted = self->copies_made;
    self->copies_bytes_noted = self->copies_bytes;
}

/* Whether it counts or not. */
void master_note_failure(trm_master *self, uint32_t from, const trm_report *report, bool counts)
{
    char name[96];
    if (self->failures_noted < TRM_EVENT_TASKS_MAX) {
        self->failures_noted++;
        trm_json *json = master_event(self, counts ? "failed" : "returned");
        put_attempt(json, from, report);
        trm_json_string(json, "status", trm_status_name((trm_status)report->status));
        uint32_t len = report->text_len < EVENT_WORDS_BYTES ? report->text_len : EVENT_WORDS_BYTES;
        trm_json_text(json, "why", len ? report->text : "", len);
        trm_journal_end(&self->journal);
    }
    if (!counts)
        return;
    snprintf(name, sizeof name, "%s-%05u.e%llu.a%u", phase_names[report->phase], report->task,
             (unsigned long long)self->epoch, report->attempt);
    trm_journal_words(&self->journal, name, report->text_len ? report->text : "", report->text_len);
}

void master_note_twin(trm_master *self, const trm_order *order, uint32_t rank, uint32_t first_rank)
{
    if (self->tasks_noted == TRM_EVENT_TASKS_MAX)
        return;
    self->tasks_noted++;
    trm_json *json = master_event(self, "speculated");
    trm_json_string(json, "phase", phase_names[order->phase]);
    trm_json_u64(json, "task", order->task);
    trm_json_u64(json, "attempt", order->attempt);
    trm_json_u64(json, "rank", rank);
    trm_json_u64(json, "first_rank", first_rank);
    trm_journal_end(&self->journal);
}

void master_note_probe(trm_master *self, uint32_t from, const trm_report *report)
{
    if (self->failures_noted == TRM_EVENT_TASKS_MAX)
        return;
    self->failures_noted++;
    trm_json *json = master_event(self, "probe");
    put_attempt(json, from, report);
    trm_json_bool(json, "died", report->status != TRM_OK);
    trm_journal_end(&self->journal);
}

void master_note_skip(trm_master *self, const trm_skip *skip, const char *why, size_t why_len)
{
    trm_json *json = master_event(self, "skipped");
    trm_json_u64(json, "task", skip->task);
    trm_json_u64(json, "record", skip->record);
    trm_json_text(json, "why", why, why_len < EVENT_WORDS_BYTES ? why_len : EVENT_WORDS_BYTES);
    trm_journal_end(&self->journal);
}

void master_note_why(trm_master *self, const char *what, const char *why)
{
    trm_json *json = master_event(self, what);
    trm_json_string(json, "why", why);
    trm_journal_end(&self->journal);
}

void master_note_count(trm_master *self, const char *what, uint64_t count)
{
    trm_json *json = master_event(self, what);
    trm_json_u64(json, "count", count);
    trm_journal_end(&self->journal);
}

static void note_phase(trm_master *self, const char *phase)
{
    if (self->phase_noted == phase)
        return;
    self->phase_noted = phase;
    trm_json *json = master_event(self, "phase");
    trm_json_string(json, "phase", phase);
    trm_journal_end(&self->journal);
}

static const char *state_name(const trm_master *self)
{
    if (self->job && self->job->state == TRM_JOB_DONE)
        return "done";
    if (self->job && self->job->state == TRM_JOB_FAILED)
        return "failed";
    if (self->stage < STAGE_END)
        return "running";
    return self->interrupted ? "interrupted" : "stopped";
}

void master_note_end(trm_master *self)
{
    note_unlisted(self);
    note_copies(self);
    trm_json *json = master_event(self, "end");
    trm_json_string(json, "state", state_name(self));
    trm_json_u64(json, "exit_status", self->end.exit_code);
    trm_json_string(json, "why", self->end.text);
    if (self->job)
        master_put_counters(self, json);
    trm_journal_end(&self->journal);
}

/* ---- STATE/status.json ---------------------------------------------------------------------------- */

static const char *rank_state_name(const master_rank *rank)
{
    static const char *const names[] = {"absent", "ready", "unfit", "lost", "gone"};
    return rank->state == RANK_READY && rank->aside ? "aside" : names[rank->state];
}

static bool is_voter(const trm_master *self, uint32_t rank)
{
    if (!self->config.is_voter)
        return rank == self->own_rank;
    return self->config.is_voter(self->config.is_voter_context, rank);
}

static void put_ranks(const trm_master *self, trm_json *json)
{
    trm_json_list(json, "ranks");
    for (uint32_t i = 0; i < self->config.ranks; i++) {
        const master_rank *rank = &self->ranks[i];
        trm_json_object(json, NULL);
        trm_json_u64(json, "rank", i);
        trm_json_string(json, "host", rank->host_name ? rank->host_name : "");
        trm_json_u64(json, "pid", rank->pid);
        trm_json_string(json, "state", rank_state_name(rank));
        trm_json_bool(json, "voter", is_voter(self, i));
        trm_json_close(json);
    }
    trm_json_close(json);
}

static void put_tasks(const trm_progress *at, trm_json *json)
{
    trm_json_object(json, "tasks");
    for (unsigned phase = 0; phase < TRM_PHASES; phase++) {
        trm_json_object(json, phase_names[phase]);
        trm_json_u64(json, "total", at->of[phase].total);
        trm_json_u64(json, "done", at->of[phase].done);
        trm_json_u64(json, "running", at->of[phase].running);
        trm_json_close(json);
    }
    trm_json_close(json);
}

static void compose_status(const trm_master *self, trm_writer *out)
{
    trm_progress at;
    trm_master_progress(self, &at);
    const master_rank *own =
        self->own_rank < self->config.ranks ? &self->ranks[self->own_rank] : &self->ranks[0];
    trm_json json = {.out = out};
    trm_json_object(&json, NULL);
    trm_json_u64(&json, "version", STATUS_VERSION);
    trm_json_string(&json, "job", self->config.submission->identity.name);
    trm_json_string(&json, "state", state_name(self));
    trm_json_string(&json, "phase", at.phase);
    trm_json_u64(&json, "written_ms", self->wall_ms);
    trm_json_u64(&json, "epoch", self->epoch);
    trm_json_u64(&json, "term", self->term);
    trm_json_u64(&json, "leader_rank", self->own_rank);
    trm_json_string(&json, "leader_host", own->host_name ? own->host_name : "");
    trm_json_u64(&json, "leader_pid", own->pid);
    trm_json_u64(&json, "failovers", at.failovers);
    put_ranks(self, &json);
    put_tasks(&at, &json);
    trm_json_u64(&json, "attempts_failed", at.attempts_failed);
    trm_json_u64(&json, "outputs_lost", at.outputs_lost);
    trm_json_u64(&json, "outputs_copied", at.outputs_copied);
    trm_json_u64(&json, "outputs_copied_bytes", at.outputs_copied_bytes);
    trm_json_u64(&json, "copies_used", at.copies_used);
    trm_json_u64(&json, "copies_missing", self->job ? master_copies_missing(self) : 0);
    trm_json_u64(&json, "records_skipped", at.records_skipped);
    trm_json_u64(&json, "speculated", at.speculated);
    trm_json_u64(&json, "speculated_won", at.speculated_won);
    trm_json_u64(&json, "bytes_in", at.bytes_in);
    trm_json_u64(&json, "bytes_total", at.bytes_total);
    if (self->stage >= STAGE_END) {
        trm_json_u64(&json, "exit_status", self->end.exit_code);
        trm_json_string(&json, "why", self->end.text);
    }
    trm_json_close(&json);
    trm_json_line(&json);
}

/* Whole, but not durable: what is in it is old a second later. */
static trm_status replace(trm_master *self, const char *path, const trm_writer *from, trm_err *err)
{
    char aside[TRM_FS_PATH_BYTES_MAX];
    trm_file *file;
    trm_fs *fs = self->fs;
    if ((size_t)snprintf(aside, sizeof aside, "%s.new", path) >= sizeof aside)
        return trm_err_set(err, TRM_EOUTPUT, "the path is too long: %.200s…", path);
    trm_status status = fs->ops->open(fs, aside, TRM_FS_WRITE | TRM_FS_CREATE | TRM_FS_TRUNCATE, &file, err);
    if (status != TRM_OK)
        return status;
    status = fs->ops->write_at(file, 0, from->data, from->len, err);
    fs->ops->close(file);
    return status == TRM_OK ? fs->ops->rename(fs, aside, path, err) : status;
}

/* A file of the state directory that only tells people something. */
static void write_for_people(trm_master *self, const char *name, trm_writer *from, bool durable)
{
    char path[TRM_FS_PATH_BYTES_MAX];
    trm_err err = {""};
    bool fits = (size_t)snprintf(path, sizeof path, "%s/%s", self->spec->state_dir, name) < sizeof path;
    trm_status status = trm_writer_ok(from) && fits ? TRM_OK : TRM_ENOMEM;
    if (status == TRM_OK)
        status = durable ? trm_fs_write_whole(self->fs, path, from->data, from->len, 0, &err)
                         : replace(self, path, from, &err);
    if (status != TRM_OK)
        trm_debug("%s is not written: %s", name, err.text);
}

static void write_status(trm_master *self, bool durable)
{
    trm_writer out;
    trm_writer_init(&out);
    compose_status(self, &out);
    write_for_people(self, TRM_STATUS_NAME, &out, durable);
    trm_writer_close(&out);
}

/* ---- STATE/bindings --------------------------------------------------------------------------------- */

void master_note_bindings(trm_master *self, const trm_hello *hello)
{
    trm_put_bytes(&self->bindings, hello->bindings, hello->bindings_len);
    if (hello->bindings_len && hello->bindings[hello->bindings_len - 1] != '\n')
        trm_put_u8(&self->bindings, '\n');
    self->bindings_due = hello->bindings_len > 0;
}

/* ---- A step ---------------------------------------------------------------------------------------------
 */

void master_record_step(trm_master *self, uint64_t *wake_ns)
{
    bool ends = self->stage >= STAGE_END && !self->end_noted;
    if (!self->job && !ends)
        return;
    if (self->stage < STAGE_END)
        note_phase(self, master_phase_name(self));
    if (self->bindings_due)
        write_for_people(self, TRM_BINDINGS_NAME, &self->bindings, false);
    self->bindings_due = false;
    if (ends) {
        self->end_noted = true;
        master_note_end(self);
        write_status(self, true);
    } else if (self->now_ns >= self->status_ns && self->stage < STAGE_END) {
        note_unlisted(self);
        note_copies(self);
        write_status(self, false);
        self->status_ns = self->now_ns + STATUS_MS * MS;
    }
    if (self->stage < STAGE_END)
        master_wake(wake_ns, self->status_ns);
    trm_journal_step(&self->journal, self->now_ns, wake_ns);
}
