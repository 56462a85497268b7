/* Why an executor died, in one sentence: what a user reads when a kernel crashes. */
#include "config.h" /* system extensions, before any header of the system */

#include "workers/supervisor.h"

#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#define WHERE_BYTES 700u
#define HOW_BYTES 200u
#define MIB (1024.0 * 1024.0)
#define LEFT_BYTES (256u * 1024u) /* too little for what allocators ask for */

static const char *signal_name(int number, char *room, size_t room_bytes)
{
    const char *name = sigabbrev_np(number);
    snprintf(room, room_bytes, "%s%s", name ? "SIG" : "signal ", name ? name : "");
    if (!name)
        snprintf(room + strlen(room), room_bytes - strlen(room), "%d", number);
    return room;
}

/* " in map task 3, attempt 0, at FILE byte 17". The board was written by a process that may
 * have lost its mind: nothing in it is taken as terminated or as a number of its range. */
static void describe_place(const trm_lane *lane, char *out)
{
    static const char *const phases[] = {"sample", "map", "reduce"};
    uint64_t key = lane->board.task_key, phase = key >> 32;
    if (!lane->board.began_ns) {
        snprintf(out, WHERE_BYTES, " while it had no task");
        return;
    }
    if (key == TRM_IDLE) {
        snprintf(out, WHERE_BYTES, " while it was loading the kernel");
        return;
    }
    int len = snprintf(out, WHERE_BYTES, " in %s task %" PRIu32 ", attempt %" PRIu64,
                       phase < TRM_PHASES ? phases[phase] : "unknown", (uint32_t)key, lane->board.attempt);
    char path[sizeof lane->board.place];
    memcpy(path, lane->board.place, sizeof path);
    path[sizeof path - 1] = 0;
    for (char *at = path; *at; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            *at = '?';
    if (path[0])
        snprintf(out + len, WHERE_BYTES - (size_t)len, ", at byte %" PRIu64 " of %s",
                 lane->board.place_offset, path);
}

/* Whether memory was what it died of: refused, as far as the last error number tells, or there was none left
 * to map, or nearly all was used. What is only mapped says nothing: a kernel, and the collector, may have
 * mapped much and used little. */
static bool was_its_memory(const trm_obituary *self, const trm_lane *lane, bool killed)
{
    uint64_t limit = trm_executor_data_limit_bytes(self->memory_bytes);
    if (!limit)
        return false;
    if (lane->fault.refused || lane->fault.data_bytes + LEFT_BYTES > limit ||
        lane->fault.used_bytes > limit / 8 * 7)
        return true;
    return killed && self->peak_bytes > limit / 8 * 7;
}

static trm_status describe_exit(const trm_obituary *self, const trm_lane *lane, char *how)
{
    int code = WEXITSTATUS(self->wait_status);
    if (code == TRM_EXIT_EMIT_AFTER_END) {
        snprintf(how, HOW_BYTES, "was ended because its kernel emitted where no task was running");
        return TRM_EKERNEL;
    }
    if (lane->fault.called_exit && was_its_memory(self, lane, false)) {
        snprintf(how, HOW_BYTES, "exited with status %d at its memory limit of %.0f MiB", code,
                 (double)self->memory_bytes / MIB);
        return TRM_ELIMIT;
    }
    snprintf(how, HOW_BYTES, "exited with status %d (a kernel must return, not exit)", code);
    return TRM_EKERNEL;
}

static trm_status describe_signal(const trm_obituary *self, const trm_lane *lane, char *how)
{
    int number = WTERMSIG(self->wait_status);
    char name[32];
    signal_name(number, name, sizeof name);
    if (was_its_memory(self, lane, number == SIGKILL)) {
        snprintf(how, HOW_BYTES, "died of %s at its memory limit of %.0f MiB", name,
                 (double)self->memory_bytes / MIB);
        return TRM_ELIMIT;
    }
    if (number == SIGKILL)
        snprintf(how, HOW_BYTES,
                 "was killed (SIGKILL, by a person or by the system when memory ran out; it had "
                 "used up to %.0f MiB)",
                 (double)self->peak_bytes / MIB);
    else if ((number == SIGSEGV || number == SIGBUS) && lane->fault.signal == (uint32_t)number)
        snprintf(how, HOW_BYTES, "died of %s at address 0x%" PRIx64, name, lane->fault.address);
    else
        snprintf(how, HOW_BYTES, "died of %s", name);
    return TRM_EKERNEL;
}

trm_status trm_obituary_write(const trm_obituary *self, const trm_lane *lane, trm_err *err)
{
    char where[WHERE_BYTES], how[HOW_BYTES];
    describe_place(lane, where);
    trm_status status = TRM_EKERNEL;
    if (self->timeout_ms) {
        snprintf(how, HOW_BYTES, "was ended after --task-timeout of %g s", (double)self->timeout_ms / 1000);
        status = TRM_ETIMEOUT;
    } else if (self->condemned) {
        snprintf(how, HOW_BYTES, "was ended: %.180s", self->condemned);
    } else if (WIFEXITED(self->wait_status)) {
        status = describe_exit(self, lane, how);
    } else {
        assert(WIFSIGNALED(self->wait_status));
        status = describe_signal(self, lane, how);
    }
    return trm_err_set(err, status, "executor %u (process %d) %s%s", self->executor, self->pid, how, where);
}
