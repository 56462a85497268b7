/* The end of a job.
 *
 *     all parts in place, or a task's last attempt failed ─▶ FINISH ─▶ applied ─┐
 *     interrupted ─▶ what was proposed is in the log (or FLUSH_MS) ─────────────┴▶ END ─▶ BYE
 *
 * END is said until every live rank has said BYE, for BYE_MS at the most; and not before
 * status.json says how the job ended: should this master die, then another one says it. */
#include "scheduler/master_self.h"

#include "jobs/exit_code.h"
#include "runtime/diag.h"
#include "scheduler/state_dir.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void master_job_finish(trm_master *self, trm_job_state state, uint32_t exit_code, const char *text)
{
    if (self->stage >= STAGE_FLUSH)
        return;
    self->stage = STAGE_FLUSH;
    self->end = (trm_end){.exit_code = exit_code};
    snprintf(self->end.text, sizeof self->end.text, "%s", text);
    if (self->job->state != TRM_JOB_RUNNING)
        return; /* that is in the log already */
    trm_finish finish = {
        .epoch = self->epoch, .state = (uint32_t)state, .exit_code = exit_code, .wall_ms = self->wall_ms};
    memcpy(finish.text, self->end.text, sizeof finish.text);
    trm_finish_encode(&finish, master_command_begin(self, TRM_COMMAND_FINISH));
    master_command_enqueue(self);
}

void master_job_fail(trm_master *self, trm_status status, const char *format, ...)
{
    char text[TRM_TEXT_BYTES_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    master_job_finish(self, TRM_JOB_FAILED, (uint32_t)trm_exit_code_of(status), text);
}

void trm_master_interrupt(trm_master *self, const char *why)
{
    if (self->stage >= STAGE_FLUSH)
        return;
    bool began = self->stage == STAGE_RUN;
    self->interrupted = true;
    self->end = (trm_end){.exit_code = TRM_EXIT_INTERRUPTED, .keep_runs = true};
    snprintf(self->end.text, sizeof self->end.text, "%s", why);
    self->stage = began ? STAGE_FLUSH : STAGE_END;
    self->end_ns = 0;
}

/* ---- END, BYE ------------------------------------------------------------------------------------ */

static bool is_waited_for(const master_rank *rank)
{
    return rank->state == RANK_READY || rank->state == RANK_UNFIT;
}

/* Twice: an attempt that lost a race may be beginning its part while they are removed, and then it stays.
 * After the last BYE nobody writes any more. */
static void remove_attempts(trm_master *self)
{
    if (self->job && self->job->state == TRM_JOB_DONE)
        trm_state_dir_remove_attempts(self->spec, self->fs);
}

static void begin_end(trm_master *self)
{
    remove_attempts(self);
    self->stage = STAGE_END;
    self->end_ns = self->now_ns + BYE_MS * MS;
    self->end_again_ns = self->now_ns + END_AGAIN_MS * MS;
    for (uint32_t i = 0; i < self->config.ranks; i++)
        self->ranks[i].end_due = self->ranks[i].state != RANK_GONE;
}

static bool say_end(trm_master *self, uint64_t *wake_ns)
{
    bool any = false, composed = false;
    for (uint32_t i = 0; i < self->config.ranks; i++) {
        master_rank *rank = &self->ranks[i];
        if (!rank->end_due)
            continue;
        if (!composed) {
            master_frame_begin(self, TRM_WIRE_END);
            trm_end_encode(&self->end, &self->frame);
            composed = true;
        }
        rank->end_due = master_frame_send(self, i) != TRM_OK;
        any |= !rank->end_due;
        if (rank->end_due)
            master_wake(wake_ns, self->now_ns + SEND_AGAIN_MS * MS);
    }
    return any;
}

/* END is no news to a rank that has said BYE; one that has not come to the first master of a launch
 * is told, and does not come any more. To a later one it may still come: it does not know of it. */
static bool is_waited_for_at_the_end(const trm_master *self, const master_rank *rank)
{
    if (rank->state != RANK_ABSENT)
        return is_waited_for(rank);
    return rank->end_due || (self->follows && self->now_ns + BYE_MS * MS < self->end_ns + ABSENT_END_MS * MS);
}

static bool wait_for_byes(trm_master *self, uint64_t *wake_ns)
{
    uint32_t waited = 0;
    for (uint32_t i = 0; i < self->config.ranks; i++)
        waited += is_waited_for_at_the_end(self, &self->ranks[i]);
    if (waited == 0 || self->now_ns >= self->end_ns) {
        if (waited)
            trm_debug("%u ranks have not said that they have cleaned up", waited);
        remove_attempts(self);
        self->stage = STAGE_ENDED;
        return true;
    }
    if (self->now_ns >= self->end_again_ns) {
        for (uint32_t i = 0; i < self->config.ranks; i++)
            self->ranks[i].end_due |= is_waited_for_at_the_end(self, &self->ranks[i]);
        self->end_again_ns = self->now_ns + END_AGAIN_MS * MS;
    }
    master_wake(wake_ns, self->end_again_ns < self->end_ns ? self->end_again_ns : self->end_ns);
    return false;
}

/* Whether the log holds what it is to hold. */
static bool is_flushed(trm_master *self, uint64_t *wake_ns)
{
    if (!self->interrupted)
        return self->job->state != TRM_JOB_RUNNING;
    if (!self->end_ns)
        self->end_ns = self->now_ns + FLUSH_MS * MS;
    master_wake(wake_ns, self->end_ns);
    return self->now_ns >= self->end_ns || (master_log_quiet(self) && self->parts_at == self->parts_count);
}

bool master_end_step(trm_master *self, uint64_t *wake_ns)
{
    bool any = false;
    if (self->stage == STAGE_FLUSH && is_flushed(self, wake_ns)) {
        begin_end(self);
        any = true;
    } else if (self->stage == STAGE_END && !self->end_again_ns) { /* given up */
        begin_end(self);
        any = true;
    }
    if (self->stage != STAGE_END || !self->end_noted)
        return any;
    any |= say_end(self, wake_ns);
    any |= wait_for_byes(self, wake_ns);
    return any;
}

bool trm_master_ended(const trm_master *self, trm_end *end)
{
    if (self->stage != STAGE_ENDED)
        return false;
    *end = self->end;
    return true;
}
