#include "config.h" /* system extensions, before any header of the system */

#include "tool/rank.h"

#include "jobs/exit_code.h"
#include "runtime/clock.h"
#include "runtime/diag.h"
#include "runtime/transport.h"
#include "tool/launched.h"
#include "tool/leader.h"
#include "workers/worker.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FDS_MAX 8u

typedef struct rank {
    const trm_spec *spec;
    trm_transport *transport;
    trm_worker *worker;
    trm_leader *leader; /* NULL on ranks that do not lead */
    uint64_t dropped;   /* messages that are no frames */
    uint64_t leave_ns;  /* a signal has come: the rank leaves by then; 0: none has */
    uint32_t sleep_us;
} rank;

/* ---- Signals --------------------------------------------------------------------------------- */

static volatile sig_atomic_t signalled;

static void on_signal(int number)
{
    signalled = number;
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* The leader ends the job for all; a rank that hears nothing of that leaves by itself. */
static void signal_step(rank *self, uint64_t now_ns)
{
    if (signalled && !self->leave_ns) {
        self->leave_ns = now_ns + TRM_SIGNAL_WAIT_MS * TRM_NS_PER_MS;
        if (self->leader)
            trm_leader_interrupt(self->leader, "interrupted; the same command goes on with the job");
    }
    if (self->leave_ns && now_ns >= self->leave_ns) {
        trm_end end = {.exit_code = TRM_EXIT_INTERRUPTED, .keep_runs = true};
        trm_worker_leave(self->worker, &end);
    }
}

/* ---- Messages ----------------------------------------------------------------------------------- */

static bool is_for_leader(const trm_wire_header *header)
{
    switch (header->type) {
    case TRM_WIRE_HELLO:
    case TRM_WIRE_CLAIM:
    case TRM_WIRE_REPORT:
    case TRM_WIRE_LOST:
    case TRM_WIRE_PULSE:
    case TRM_WIRE_BYE:
    case TRM_WIRE_HELD:
        return true;
    default:
        return false;
    }
}

static void take_message(rank *self, uint32_t from, const uint8_t *bytes, size_t len, uint64_t now_ns)
{
    trm_wire_header header;
    trm_reader body;
    if (trm_wire_open(bytes, len, &header, &body) != TRM_OK) {
        if (self->dropped++ == 0)
            trm_debug("a message of rank %u is no frame: dropped", from);
        return;
    }
    /* A PULSE goes both ways: workers send theirs to the leader, the leader its own to them. */
    if (is_for_leader(&header) && self->leader)
        trm_leader_receive(self->leader, from, &header, &body, now_ns);
    else
        trm_worker_receive(self->worker, from, &header, &body, now_ns);
}

static bool messages_step(rank *self, uint64_t now_ns)
{
    bool any = self->transport->ops->poll(self->transport) > 0;
    for (unsigned i = 0; i < TRM_LOOP_MESSAGES_MAX; i++) {
        uint32_t from;
        const uint8_t *bytes;
        size_t len;
        if (self->transport->ops->receive(self->transport, &from, &bytes, &len) != TRM_OK)
            break;
        take_message(self, from, bytes, len, now_ns);
        any = true;
    }
    return any;
}

/* ---- The loop --------------------------------------------------------------------------------------- */

/* Longer each time that there is nothing to do, but never past `wake_ns`. */
static void sleep_a_little(rank *self, uint64_t now_ns, uint64_t wake_ns)
{
    struct pollfd fds[FDS_MAX];
    int numbers[FDS_MAX];
    unsigned count = trm_worker_fds(self->worker, numbers, FDS_MAX - 1);
    int leader_fd = self->leader ? trm_leader_fd(self->leader) : -1;
    if (leader_fd >= 0)
        numbers[count++] = leader_fd;
    for (unsigned i = 0; i < count; i++)
        fds[i] = (struct pollfd){.fd = numbers[i], .events = POLLIN};
    uint64_t ns = (uint64_t)self->sleep_us * 1000;
    if (wake_ns <= now_ns)
        ns = 0;
    else if (wake_ns - now_ns < ns)
        ns = wake_ns - now_ns;
    struct timespec time = {.tv_nsec = (long)ns};
    ppoll(fds, count, &time, NULL);
    self->sleep_us = self->sleep_us * 5 / 4 + 1 < TRM_LOOP_SLEEP_US_MAX ? self->sleep_us * 5 / 4 + 1
                                                                        : TRM_LOOP_SLEEP_US_MAX;
}

/* Until the job is over here: the worker has left and, on the rank that leads, so has
 * everybody whom it has to wait for. */
static void loop(rank *self, trm_end *end)
{
    trm_end worker_end;
    for (;;) {
        uint64_t now_ns = trm_clock_now_ns();
        uint64_t wake_ns = UINT64_MAX;
        signal_step(self, now_ns);
        bool any = messages_step(self, now_ns);
        if (self->leader)
            any |= trm_leader_step(self->leader, now_ns, trm_clock_wall_ms(), &wake_ns);
        any |= trm_worker_step(self->worker, now_ns, &wake_ns);
        if (trm_worker_ended(self->worker, &worker_end) &&
            (!self->leader || trm_leader_ended(self->leader, end)))
            break;
        if (any)
            self->sleep_us = TRM_LOOP_SLEEP_US_MIN;
        else
            sleep_a_little(self, now_ns, wake_ns);
    }
    if (!self->leader)
        *end = worker_end;
}

/* ---- Begin and end ----------------------------------------------------------------------------------- */

static trm_status check_ranks(const trm_options *options, const trm_transport *transport, trm_err *err)
{
    if (trm_launch_token() || !options->ranks || options->ranks == transport->ranks)
        return TRM_OK;
    return trm_err_set(err, TRM_EUSAGE, "-n %u: this runs under mpirun already, with %u ranks",
                       options->ranks, transport->ranks);
}

static int rank_hint(void)
{
    const char *text = getenv("OMPI_COMM_WORLD_RANK");
    text = text ? text : getenv("PMIX_RANK");
    text = text ? text : getenv("PMI_RANK");
    return text ? atoi(text) : -1;
}

/* Rank 0 speaks for the job: its lines need no number. */
static void name_rank(const trm_spec *spec, uint32_t number)
{
    trm_diag_level level = spec->quiet ? TRM_DIAG_ERROR : spec->verbose ? TRM_DIAG_DEBUG : TRM_DIAG_INFO;
    trm_diag_configure(level, number == 0 && !spec->verbose ? -1 : (int)number);
}

static trm_status begin(rank *self, const trm_options *options, trm_err *err)
{
    trm_crew *crew = NULL;
    trm_err crew_err = {""};
    name_rank(self->spec, (uint32_t)(rank_hint() > 0 ? rank_hint() : 0));
    /* Before MPI_Init: what is forked after it may not even exit in peace. */
    trm_status crew_status = trm_crew_start(&crew, self->spec, rank_hint(), &crew_err);
    catch_signals();
    trm_status status = trm_transport_mpi_open(&self->transport, err);
    if (status == TRM_OK) {
        name_rank(self->spec, self->transport->rank);
        status = check_ranks(options, self->transport, err);
    }
    if (status != TRM_OK) {
        trm_crew_stop(crew, 0);
        return status;
    }
    status = trm_worker_create(&self->worker, self->spec, trm_fs_posix(), self->transport, crew, crew_status,
                               crew_err.text, err);
    if (status == TRM_OK && self->transport->rank == 0)
        status = trm_leader_create(&self->leader, self->spec, self->transport, err);
    return status;
}

static void close_all(rank *self, int code)
{
    trm_worker_destroy(self->worker);
    trm_leader_destroy(self->leader);
    if (!self->transport)
        return;
    if (self->dropped)
        trm_debug("%llu messages were no frames", (unsigned long long)self->dropped);
    trm_transport_mpi_exit_status(code);
    self->transport->ops->close(self->transport, TRM_CLOSE_LINGER_MS);
}

int trm_rank_run(const trm_options *options)
{
    rank self = {.spec = &options->spec, .sleep_us = TRM_LOOP_SLEEP_US_MIN};
    trm_err err = {""};
    trm_end end = {0};
    trm_status status = begin(&self, options, &err);
    if (status == TRM_OK) {
        loop(&self, &end);
    } else {
        end.exit_code = (uint32_t)trm_exit_code_of(status);
        if (!self.transport || self.transport->rank == 0)
            trm_error("%s", err.text);
    }
    char text[16];
    snprintf(text, sizeof text, "%u", end.exit_code);
    if (!self.transport || self.transport->rank == 0) {
        fflush(NULL);
        trm_launch_tell("result", text);
    }
    close_all(&self, (int)end.exit_code);
    return (int)end.exit_code;
}
