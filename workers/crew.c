/* The rank's side of its crew: orders out, events in. See crew.h; crew_start.c makes it. */
#include "config.h" /* system extensions, before any header of the system */

#include "workers/crew_self.h"

#include "runtime/clock.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define UNREADY_DEATHS_MAX 3u /* executors that die before READY: the kernel cannot be loaded */
#define STOP_WAIT_MS 6000u    /* for the supervisor to be gone, beyond the grace */

unsigned trm_crew_executors(const trm_crew *self)
{
    return self->executors;
}
uint64_t trm_crew_executor_memory_bytes(const trm_crew *self)
{
    return self->executor_memory_bytes;
}
const char *trm_crew_bindings(const trm_crew *self)
{
    return self->bindings;
}
const char *trm_crew_scratch(const trm_crew *self)
{
    return self->scratch.path;
}
const char *trm_crew_run_store(const trm_crew *self)
{
    return self->scratch.runs;
}

void trm_crew_keep_scratch(trm_crew *self, bool keep)
{
    if (keep)
        trm_scratch_keep(&self->scratch, self->output_dir, NULL);
    else
        trm_scratch_keep_not(&self->scratch, NULL);
    __atomic_store_n(self->lanes.keep_scratch, keep, __ATOMIC_RELEASE);
}

/* ---- To the supervisor ------------------------------------------------------------------ */

/* Commands are few (one an executor at most is under way), so the socket has room. */
static void command(trm_crew *self, trm_crew_kind kind, unsigned executor, uint64_t number, const char *text)
{
    trm_crew_command message = {.kind = kind, .executor = executor, .number = number};
    if (text)
        snprintf(message.text, sizeof message.text, "%s", text);
    trm_writer_reset(&self->out);
    trm_crew_command_encode(&message, &self->out);
    if (trm_writer_ok(&self->out) && self->supervisor_fd >= 0 &&
        send(self->supervisor_fd, self->out.data, self->out.len, MSG_NOSIGNAL) < 0)
        self->supervisor_gone = true;
}

/* ---- To the executors ------------------------------------------------------------------- */

static trm_status send_setup(trm_crew *self, unsigned executor)
{
    trm_writer_reset(&self->out);
    trm_crew_setup_encode(&self->setup, &self->out);
    if (!trm_writer_ok(&self->out))
        return TRM_ENOMEM;
    if (send(self->member[executor].fd, self->out.data, self->out.len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        return TRM_AGAIN;
    return TRM_OK;
}

static int by_host(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint32_t count_hosts(const trm_setup *setup)
{
    uint32_t *hosts = calloc(setup->peers_count + 1u, sizeof *hosts), distinct = 0;
    if (!hosts)
        return 1;
    for (uint32_t i = 0; i < setup->peers_count; i++)
        hosts[i] = setup->peers[i].host;
    qsort(hosts, setup->peers_count, sizeof *hosts, by_host);
    for (uint32_t i = 0; i < setup->peers_count; i++)
        distinct += i == 0 || hosts[i] != hosts[i - 1];
    free(hosts);
    return distinct ? distinct : 1;
}

/* Only the ranks of this host are given with their run stores. */
static void find_near(trm_crew_setup_msg *out, const trm_setup *setup)
{
    for (uint32_t i = 0; i < setup->peers_count; i++) {
        if (!setup->peers[i].run_store[0])
            continue;
        trm_crew_ranks *last = out->near_count ? &out->near[out->near_count - 1] : NULL;
        if (last && last->end == i)
            last->end++;
        else if (out->near_count < TRM_CREW_NEAR_MAX)
            out->near[out->near_count++] = (trm_crew_ranks){i, i + 1};
    }
}

trm_status trm_crew_setup(trm_crew *self, const trm_setup *setup, uint64_t epoch)
{
    self->setup = (trm_crew_setup_msg){.plan_crc = setup->plan_crc,
                                       .cuts_crc = setup->cuts_crc,
                                       .epoch = epoch,
                                       .hosts = count_hosts(setup),
                                       .ranks = setup->peers_count};
    find_near(&self->setup, setup);
    self->has_setup = true;
    for (unsigned i = 0; i < self->executors; i++)
        self->member[i].set_up = false;
    return TRM_OK; /* each gets it before its next orders */
}

trm_status trm_crew_submit(trm_crew *self, uint32_t executor, const trm_order *orders, unsigned count)
{
    assert(executor < self->executors && count <= TRM_CREW_QUEUE_MAX);
    trm_crew_member *member = &self->member[executor];
    if (!self->has_setup || !member->ready || member->condemned ||
        member->queued + count > TRM_CREW_QUEUE_MAX)
        return TRM_AGAIN;
    if (!member->set_up) {
        trm_status status = send_setup(self, executor);
        if (status)
            return status;
        member->set_up = true;
    }
    if (count == 0)
        return TRM_OK;
    trm_writer_reset(&self->out);
    trm_crew_orders_encode(member->generation, orders, count, &self->out);
    if (!trm_writer_ok(&self->out))
        return TRM_ENOMEM;
    if (send(member->fd, self->out.data, self->out.len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        return TRM_AGAIN; /* full, or the supervisor is gone, which trm_crew_next will say */
    for (unsigned i = 0; i < count; i++)
        member->queue[(member->first + member->queued + i) % TRM_CREW_QUEUE_MAX] = orders[i];
    member->queued += count;
    return TRM_OK;
}

unsigned trm_crew_queued(const trm_crew *self, uint32_t executor)
{
    assert(executor < self->executors);
    return self->member[executor].queued;
}

bool trm_crew_cancel(trm_crew *self, const trm_order *order)
{
    for (unsigned i = 0; i < self->executors; i++) {
        trm_crew_member *member = &self->member[i];
        const trm_order *first = &member->queue[member->first];
        if (!member->queued || first->phase != order->phase || first->task != order->task ||
            first->attempt != order->attempt)
            continue;
        if (!member->cancelled && !member->condemned && !member->has_died)
            command(self, TRM_CREW_KIND_KILL, i, member->generation, "its attempt is of no use any more");
        member->cancelled = true;
        return true;
    }
    return false;
}

void trm_crew_progress(const trm_crew *self, uint64_t *bytes_in, uint64_t *records_in, uint32_t *running)
{
    *bytes_in = *records_in = 0;
    *running = 0;
    for (unsigned i = 0; i < self->executors; i++) {
        const trm_board *board = &self->lanes.lane[i].board;
        if (!self->member[i].queued || !__atomic_load_n(&board->began_ns, __ATOMIC_RELAXED))
            continue;
        *bytes_in += __atomic_load_n(&board->bytes_in, __ATOMIC_RELAXED);
        *records_in += __atomic_load_n(&board->records_in, __ATOMIC_RELAXED);
        (*running)++;
    }
}

/* ---- From the executors ------------------------------------------------------------------- */

/* An executor whose ring holds what no executor may send: user code has written over its
 * memory. Nothing from it is believed any more. */
static void condemn(trm_crew *self, unsigned executor)
{
    trm_crew_member *member = &self->member[executor];
    if (member->condemned)
        return;
    member->condemned = true;
    self->dropped++;
    command(self, TRM_CREW_KIND_KILL, executor, member->generation,
            "its messages made no sense, so its kernel must have written over memory that is not its own");
}

static bool is_order(const trm_order *order, const trm_report *report)
{
    return order->phase == report->phase && order->task == report->task &&
           order->attempt == report->attempt && order->probe == report->probe;
}

/* How many bytes come before the first `end`, or all. */
static size_t bytes_before(const char *text, size_t len, char end)
{
    const char *at = len ? memchr(text, end, len) : NULL;
    return at ? (size_t)(at - text) : len;
}

/* A report must be of the order that is next in the executor's hands. */
static bool take_report(trm_crew *self, unsigned executor, trm_reader *in, trm_crew_event *out)
{
    trm_crew_member *member = &self->member[executor];
    uint64_t generation;
    trm_crew_report_decode(&generation, &out->report, in);
    if (!trm_reader_done(in) || generation != member->generation || !member->queued ||
        !is_order(&member->queue[member->first], &out->report))
        return false;
    member->reported = member->queue[member->first];
    member->first = (member->first + 1) % TRM_CREW_QUEUE_MAX;
    member->queued--;
    member->finished++;
    out->kind = TRM_CREW_REPORT;
    out->status = (trm_status)out->report.status;
    if (out->status) /* the sentence; what was printed comes on lines after it */
        snprintf(out->err.text, sizeof out->err.text, "%.*s",
                 (int)bytes_before(out->report.text, out->report.text_len, '\n'), out->report.text);
    out->report.executor = executor;
    return true;
}

static bool take_ready(trm_crew *self, unsigned executor, trm_reader *in, trm_crew_event *out)
{
    trm_crew_member *member = &self->member[executor];
    trm_crew_ready ready;
    trm_crew_ready_decode(&ready, in);
    if (!trm_reader_done(in) || ready.generation != member->generation || member->ready || member->failed)
        return false;
    out->kind = TRM_CREW_READY;
    out->status = ready.status;
    out->err = ready.err;
    member->ready = ready.status == TRM_OK;
    member->failed = !member->ready;
    member->unready_deaths = 0;
    if (member->ready) {
        self->traits = ready.traits;
        out->traits = &self->traits;
    }
    return true;
}

static bool next_record(trm_crew *self, unsigned executor, trm_crew_event *out)
{
    trm_crew_member *member = &self->member[executor];
    size_t len;
    if (member->condemned || member->gone)
        return false;
    trm_status status = trm_lane_take(&self->lanes.lane[executor], self->record, &len);
    if (status == TRM_AGAIN)
        return false;
    memset(out, 0, sizeof *out);
    out->executor = executor;
    out->last_words = "";
    trm_reader in;
    trm_reader_init(&in, self->record, status ? 0 : len);
    uint8_t kind = trm_get_u8(&in);
    if ((kind == TRM_CREW_KIND_REPORT && take_report(self, executor, &in, out)) ||
        (kind == TRM_CREW_KIND_READY && take_ready(self, executor, &in, out)))
        return true;
    condemn(self, executor);
    return false;
}

/* ---- From the supervisor -------------------------------------------------------------------- */

static bool is_on_board(const trm_board *board, const trm_order *order)
{
    return board->task_key == ((uint64_t)order->phase << 32 | order->task) &&
           board->attempt == order->attempt;
}

/* Which of the orders in its hands ran when it died; `queued`: none. Its board says so: the
 * first, or a later one when the reports of those before it were overwritten, or the one that
 * it reported last. When the board shows none of them it was overwritten too, and the first is
 * blamed, or a kernel could die for ever at no cost. */
static unsigned find_running(const trm_crew *self, unsigned executor)
{
    const trm_crew_member *member = &self->member[executor];
    const trm_board *board = &self->lanes.lane[executor].board;
    for (unsigned i = 0; i < member->queued && board->began_ns; i++)
        if (is_on_board(board, &member->queue[(member->first + i) % TRM_CREW_QUEUE_MAX]))
            return i;
    bool idle = !board->began_ns || board->task_key == TRM_IDLE ||
                (member->finished && is_on_board(board, &member->reported));
    return idle && !member->condemned ? member->queued : 0;
}

bool trm_crew_begun(const trm_crew *self, uint32_t executor, uint64_t now_ns, trm_begun *out)
{
    const trm_crew_member *member = &self->member[executor];
    uint64_t began_ns = __atomic_load_n(&self->lanes.lane[executor].board.began_ns, __ATOMIC_ACQUIRE);
    unsigned running = began_ns ? find_running(self, executor) : member->queued;
    if (running >= member->queued)
        return false;
    const trm_order *order = &member->queue[(member->first + running) % TRM_CREW_QUEUE_MAX];
    uint64_t ms = now_ns > began_ns ? (now_ns - began_ns) / TRM_NS_PER_MS : 0;
    *out = (trm_begun){.phase = order->phase,
                       .task = order->task,
                       .attempt = order->attempt,
                       .ms = ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX};
    return true;
}

/* Lists what it had, the running one first. */
static void list_lost(trm_crew *self, unsigned executor, trm_crew_event *out)
{
    const trm_crew_member *member = &self->member[executor];
    unsigned running = find_running(self, executor);
    for (unsigned i = 0; i < member->queued; i++) {
        unsigned place = i == running ? 0 : i < running && running < member->queued ? i + 1 : i;
        self->lost[place] = member->queue[(member->first + i) % TRM_CREW_QUEUE_MAX];
    }
    out->running = running < member->queued;
    uint64_t record = self->lanes.lane[executor].board.record;
    out->record = out->running && record < UINT32_MAX ? (uint32_t)record : 0; /* written by user code, too */
    out->lost = self->lost;
    out->lost_count = member->queued;
}

/* Everything that the executor said before it died has been taken: tells the end. */
static void tell_death(trm_crew *self, unsigned executor, trm_crew_event *out)
{
    trm_crew_member *member = &self->member[executor];
    memset(out, 0, sizeof *out);
    out->kind = TRM_CREW_DIED;
    out->executor = executor;
    out->status = member->died.status;
    out->err = member->died.err;
    memcpy(self->last_words, member->died.words, sizeof self->last_words);
    out->last_words = self->last_words;
    list_lost(self, executor, out);
    out->cancelled = member->cancelled;

    bool unready = !member->ready && !member->failed;
    member->has_died = member->ready = member->condemned = member->set_up = member->cancelled = false;
    member->queued = member->finished = 0;
    member->unready_deaths = unready ? member->unready_deaths + 1 : 0;
    if (self->supervisor_gone) {
        member->gone = true;
    } else if (member->failed || member->unready_deaths >= UNREADY_DEATHS_MAX) {
        member->failed = member->gone = true;
        if (unready) { /* nobody will be READY: say it in the words of READY */
            out->kind = TRM_CREW_READY;
            out->status = out->status == TRM_ELAUNCH ? TRM_ELAUNCH : TRM_EJOB;
        }
    } else {
        member->generation++;
        trm_lane_reset(&self->lanes.lane[executor], member->generation);
        command(self, TRM_CREW_KIND_RESPAWN, executor, member->generation, NULL);
    }
}

/* The supervisor has ended: its executors die with it. */
static void lose_supervisor(trm_crew *self)
{
    self->supervisor_gone = true;
    if (self->told_gone)
        return;
    self->told_gone = true;
    for (unsigned i = 0; i < self->executors; i++) {
        trm_crew_member *member = &self->member[i];
        if (member->has_died || member->gone)
            continue;
        member->has_died = true;
        memset(&member->died, 0, sizeof member->died);
        member->died.status = trm_err_set(&member->died.err, TRM_EPEER,
                                          "the supervisor of this rank's executors (process %d) is gone, and "
                                          "executor %u with it",
                                          (int)self->supervisor_pid, i);
    }
}

/* Takes one message of the supervisor. Returns whether there may be another. */
static bool read_supervisor(trm_crew *self)
{
    ssize_t len = recv(self->supervisor_fd, self->record, TRM_RING_RECORD_BYTES_MAX, MSG_DONTWAIT);
    if (len < 0 && errno == EINTR)
        return true;
    if (len < 0 && errno == EAGAIN && !self->supervisor_gone)
        return false;
    if (len <= 0) {
        lose_supervisor(self);
        return false;
    }
    trm_reader in;
    trm_reader_init(&in, self->record, (size_t)len);
    bool died = trm_get_u8(&in) == TRM_CREW_KIND_DIED;
    trm_crew_died *message = &self->died;
    trm_crew_died_decode(message, &in);
    if (!died || !trm_reader_done(&in) || message->executor >= self->executors ||
        message->generation != self->member[message->executor].generation) {
        self->dropped++;
        return true;
    }
    self->member[message->executor].died = *message;
    self->member[message->executor].has_died = true;
    return true;
}

/* ---- Events --------------------------------------------------------------------------------- */

/* From the executor after the last one asked, so that none waits for ever. */
static bool next_of_all(trm_crew *self, trm_crew_event *out)
{
    for (unsigned i = 0; i < self->executors; i++) {
        unsigned executor = (self->turn + i) % self->executors;
        bool found = next_record(self, executor, out);
        if (!found && self->member[executor].has_died) {
            tell_death(self, executor, out);
            found = true;
        }
        if (found) {
            self->turn = executor; /* its next record first: they are in the cache */
            self->streak = self->streak + 1;
            if (self->streak >= TRM_CREW_QUEUE_MAX) {
                self->turn = executor + 1;
                self->streak = 0;
            }
            return true;
        }
        self->streak = 0;
    }
    return false;
}

trm_status trm_crew_next(trm_crew *self, trm_crew_event *out)
{
    if (next_of_all(self, out))
        return TRM_OK;
    /* First the wake is taken, then the rings are looked at again: none is missed. */
    uint64_t wakes;
    bool woken = read(self->wake_fd, &wakes, sizeof wakes) > 0;
    while (!self->told_gone && read_supervisor(self))
        continue;
    if ((woken || self->told_gone) && next_of_all(self, out))
        return TRM_OK;
    for (unsigned i = 0; i < self->executors; i++)
        if (self->member[i].has_died && next_of_all(self, out))
            return TRM_OK;
    return self->told_gone ? TRM_EPEER : TRM_AGAIN;
}

unsigned trm_crew_fds(const trm_crew *self, int *out, unsigned max)
{
    int fds[] = {self->wake_fd, self->told_gone ? -1 : self->supervisor_fd};
    unsigned count = 0;
    for (unsigned i = 0; i < 2; i++)
        if (fds[i] >= 0 && count < max)
            out[count++] = fds[i];
    return count;
}

/* ---- The end ---------------------------------------------------------------------------------- */

/* Reads away what the supervisor still says until it is gone; false: it did not go in time. */
static bool wait_for_supervisor(trm_crew *self, uint64_t wait_ms)
{
    uint64_t end_ns = trm_clock_now_ns() + wait_ms * TRM_NS_PER_MS;
    for (;;) {
        pid_t got = waitpid(self->supervisor_pid, NULL, WNOHANG);
        if (got == self->supervisor_pid || (got < 0 && errno == ECHILD))
            return true;
        uint64_t now_ns = trm_clock_now_ns();
        if (now_ns >= end_ns)
            return false;
        struct pollfd socket = {.fd = self->supervisor_fd, .events = POLLIN};
        poll(&socket, 1, 20);
        if (recv(self->supervisor_fd, self->record, TRM_RING_RECORD_BYTES_MAX, MSG_DONTWAIT) == 0)
            poll(NULL, 0, 1); /* it is leaving */
    }
}

void trm_crew_stop(trm_crew *self, uint64_t grace_ms)
{
    if (!self)
        return;
    if (self->supervisor_pid > 0) {
        command(self, TRM_CREW_KIND_STOP, 0, grace_ms, NULL);
        if (!wait_for_supervisor(self, grace_ms + STOP_WAIT_MS)) {
            kill(self->supervisor_pid, SIGKILL);
            waitpid(self->supervisor_pid, NULL, 0);
        }
    }
    if (self->scratch.path[0] && !__atomic_load_n(self->lanes.keep_scratch, __ATOMIC_RELAXED)) {
        trm_scratch_remove(&self->scratch, NULL); /* when the supervisor could not */
        trm_scratch_sweep(&self->scratch);        /* what was kept for a job that is done now */
    }
    trm_crew_free(self);
}
