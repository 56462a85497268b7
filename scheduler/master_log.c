/* The master and the replicated log: commands out, committed commands in.
 *
 * Commands wait in a queue of their own while the log has no room. Commits are gathered while one
 * COMMIT is undecided: under load they come in batches, at leisure none waits. */
#include "scheduler/master_self.h"

#include "jobs/exit_code.h"
#include "runtime/diag.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_FULL_AGAIN_MS 100u /* until a full log is asked again */

void master_give_up(trm_master *self, trm_status status, const char *why)
{
    if (self->stage >= STAGE_END)
        return;
    trm_error("the job stops here: %s", why);
    self->end = (trm_end){.exit_code = (uint32_t)trm_exit_code_of(status), .keep_runs = true};
    snprintf(self->end.text, sizeof self->end.text, "%s", why);
    self->stage = STAGE_END;
    self->end_ns = 0;
}

/* Another rank leads, or will: nothing more is said or written here. Once the job is over it is to be
 * said all the same: the ranks that have left may be those that made this one lead. */
void master_depose(trm_master *self, const char *why)
{
    if (self->deposed || self->stage >= STAGE_END)
        return;
    self->deposed = true;
    snprintf(self->deposed_why, sizeof self->deposed_why, "%s", why);
    trm_debug("this rank is not the master any more: %s", why);
}

/* After which the table is not what the log says. */
static void fail_for_good(trm_master *self, trm_status status, const char *why)
{
    self->failed = true;
    if (self->config.may_be_followed)
        master_depose(self, why);
    else
        master_give_up(self, status, why);
}

/* ---- Out ------------------------------------------------------------------------------------ */

trm_writer *master_command_begin(trm_master *self, trm_command_type type)
{
    trm_command_begin(&self->scratch, type, 0);
    return &self->scratch;
}

static void enqueue(trm_master *self, const trm_writer *from, bool is_commit)
{
    assert(from->len <= TRM_REPLOG_COMMAND_BYTES_MAX || !trm_writer_ok(from));
    master_command *command = trm_writer_ok(from) ? malloc(sizeof *command + from->len) : NULL;
    if (!command) {
        master_give_up(self, TRM_ENOMEM, "no memory for a command of the job table");
        return;
    }
    *command = (master_command){.is_commit = is_commit, .len = from->len};
    memcpy(command->bytes, from->data, from->len);
    *self->commands_last = command;
    self->commands_last = &command->next;
    self->backlog_bytes += command->len;
}

static void close_commit(trm_master *self)
{
    if (self->commit_items)
        enqueue(self, &self->commit, true);
    self->commit_items = 0;
}

void master_command_enqueue(trm_master *self)
{
    close_commit(self);
    enqueue(self, &self->scratch, false);
}

void master_commit_add(trm_master *self, const trm_commit *commit)
{
    if (!self->commit_items) {
        trm_command_begin(&self->commit, TRM_COMMAND_COMMIT, 0);
        trm_put_varint(&self->commit, self->epoch);
        self->commit_previous = 0;
    }
    trm_commit_encode(commit, &self->commit_previous, &self->commit);
    self->commit_items++;
    if (self->commit.len >= COMMIT_BYTES || self->commit_items == COMMIT_ITEMS_MAX)
        close_commit(self);
}

static void watch_health(trm_master *self, uint64_t *wake_ns)
{
    trm_replog_state log;
    trm_replog_state_get(self->log, &log);
    bool full = log.health == TRM_ENOSPACE;
    if (full)
        master_wake(wake_ns, self->now_ns + LOG_FULL_AGAIN_MS * MS);
    if (full && !self->log_full)
        trm_warn("the job waits until there is room for its log: %s", log.why);
    else if (!full && self->log_full && log.health == TRM_OK)
        trm_info("there is room for the log of the job again: it goes on");
    self->log_full = full;
    if (log.health != TRM_OK && !full)
        fail_for_good(self, log.health, log.why);
    else if (!log.leader || log.term != self->term)
        master_depose(self, "another rank leads the log");
}

bool master_log_flush(trm_master *self, uint64_t *wake_ns)
{
    bool any = false;
    if (!self->commit_index && !self->commands)
        close_commit(self);
    while (self->commands && !self->failed && !self->log_full) {
        master_command *first = self->commands;
        uint64_t index;
        trm_err err = {""};
        trm_status status = trm_replog_propose(self->log, first->bytes, first->len, &index, &err);
        if (status == TRM_AGAIN || status == TRM_ENOSPACE) {
            master_wake(wake_ns, self->now_ns + LOG_FULL_AGAIN_MS * MS);
            break;
        }
        if (status == TRM_EFENCED) {
            master_depose(self, err.text);
            break;
        }
        if (status != TRM_OK) {
            fail_for_good(self, status, err.text);
            break;
        }
        if (first->is_commit)
            self->commit_index = index;
        self->backlog_bytes -= first->len;
        self->commands = first->next;
        if (!self->commands)
            self->commands_last = &self->commands;
        free(first);
        any = true;
    }
    return any;
}

bool master_log_quiet(const trm_master *self)
{
    trm_replog_state log;
    trm_replog_state_get(self->log, &log);
    return !self->commands && !self->commit_items && log.proposed <= log.committed;
}

/* ---- In --------------------------------------------------------------------------------------- */

static void on_committed(void *context, uint32_t job, const trm_commit *commit, bool accepted)
{
    master_committed(context, commit, accepted);
}

static void on_failed(void *context, uint32_t job, const trm_fail *fail, bool accepted)
{
    master_failed(context, fail, accepted);
}

static void on_lost(void *context, uint32_t job, const trm_output_ref *ref, bool accepted)
{
    master_lost_applied(context, ref, accepted);
}

static void on_adopted(void *context, uint32_t job, uint32_t rank, const trm_output_ref *ref, bool accepted)
{
    master_adopted_applied(context, rank, ref, accepted);
}

static void on_published(void *context, uint32_t job, uint32_t task, bool accepted)
{
    master_published(context, task, accepted);
}

static void on_skipped(void *context, uint32_t job, const trm_skip *skip, bool accepted)
{
    master_skipped(context, skip, accepted);
}

static void on_restoring(void *context)
{
    trm_master *self = context;
    self->job = NULL;
    master_depose(self, "the state of the job was replaced by that of another rank");
}

void master_log_begin(trm_master *self)
{
    self->watch = (trm_table_watch){.committed = on_committed,
                                    .failed = on_failed,
                                    .lost = on_lost,
                                    .adopted = on_adopted,
                                    .published = on_published,
                                    .skipped = on_skipped,
                                    .context = self};
    self->replica->restoring = on_restoring;
    self->replica->context = self;
}

/* Before the job has begun nothing is known that could be told. */
void master_log_watch(trm_master *self)
{
    self->replica->watch = &self->watch;
}

void master_log_end(trm_master *self)
{
    if (self->replica->context != self)
        return;
    self->replica->watch = NULL;
    self->replica->restoring = NULL;
    self->replica->context = NULL;
}

/* Whoever does not lead any more learns it before it is given what others have committed since. */
bool master_log_step(trm_master *self, uint64_t *wake_ns)
{
    if (self->failed)
        return trm_replog_step(self->log, self->now_ns, wake_ns);
    watch_health(self, wake_ns);
    if (self->deposed || self->failed)
        return false;
    bool any = trm_replica_step(self->replica, self->now_ns, wake_ns);
    watch_health(self, wake_ns);
    if (self->replica->health != TRM_OK)
        fail_for_good(self, self->replica->health, self->replica->why.text);
    if (self->commit_index && self->replica->applied >= self->commit_index)
        self->commit_index = 0;
    return any;
}
