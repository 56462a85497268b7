#include "config.h" /* system extensions, before any header of the system */

#include "tool/rank.h"

#include "jobs/exit_code.h"
#include "runtime/clock.h"
#include "runtime/diag.h"
#include "runtime/transport.h"
#include "tool/control.h"
#include "tool/launched.h"
#include "tool/neighbours.h"
#include "workers/worker.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FDS_MAX 9u

typedef struct rank {
    const trm_spec *spec;
    trm_ground ground;
    trm_worker *worker;
    trm_control *control;
    trm_neighbours neighbours;
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

/* ---- What the control plane stands on ---------------------------------------------------------- */

static uint64_t entropy(void *context)
{
    return trm_clock_entropy();
}

static void worker_receive(void *worker, uint32_t from, const trm_wire_header *header, trm_reader *body,
                           uint64_t now_ns)
{
    trm_worker_receive(worker, from, header, body, now_ns);
}

static bool worker_step(void *worker, uint64_t now_ns, uint64_t *wake_ns)
{
    return trm_worker_step(worker, now_ns, wake_ns);
}

static void worker_set_master(void *worker, uint32_t master, uint64_t epoch, uint64_t term)
{
    trm_worker_set_master(worker, master, epoch, term);
}

static void worker_leave(void *worker, const trm_end *end)
{
    trm_worker_leave(worker, end);
}

static bool worker_ended(void *worker, trm_end *end)
{
    return trm_worker_ended(worker, end);
}

static const trm_control_worker worker_ops = {.receive = worker_receive,
                                              .step = worker_step,
                                              .set_master = worker_set_master,
                                              .leave = worker_leave,
                                              .ended = worker_ended};

static void meet(void *context, const trm_begin *begin)
{
    rank *self = context;
    trm_neighbours_watch(&self->neighbours, begin);
}

/* ---- The loop --------------------------------------------------------------------------------------- */

/* Longer each time that there is nothing to do, but never past `wake_ns`. */
static void sleep_a_little(rank *self, uint64_t now_ns, uint64_t wake_ns)
{
    struct pollfd fds[FDS_MAX];
    int numbers[FDS_MAX];
    unsigned count = trm_worker_fds(self->worker, numbers, FDS_MAX - 2);
    int log_fd = trm_control_fd(self->control), neighbours = trm_neighbours_fd(&self->neighbours);
    if (log_fd >= 0)
        numbers[count++] = log_fd;
    if (neighbours >= 0)
        numbers[count++] = neighbours;
    for (unsigned i = 0; i < count; i++)
        fds[i] = (struct pollfd){.fd = numbers[i], .events = POLLIN};
    uint64_t ns = (uint64_t)self->sleep_us * 1000;
    if (wake_ns <= now_ns)
        ns = 0;
    else if (wake_ns - now_ns < ns)
        ns = wake_ns - now_ns;
    struct timespec time = {.tv_nsec = (long)ns};
    if (ppoll(fds, count, &time, NULL) > 0 && neighbours >= 0 && fds[count - 1].revents)
        trm_neighbours_woken(&self->neighbours);
    uint32_t longer = self->sleep_us * 3 / 2 + 1;
    self->sleep_us = longer < TRM_LOOP_SLEEP_US_MAX ? longer : TRM_LOOP_SLEEP_US_MAX;
}

static void dead_step(rank *self, uint64_t now_ns)
{
    uint32_t dead;
    while (trm_neighbours_next_dead(&self->neighbours, &dead, now_ns))
        trm_control_rank_dead(self->control, dead, now_ns);
}

static void loop(rank *self, trm_end *end)
{
    while (!trm_control_is_over(self->control, end)) {
        uint64_t now_ns = trm_clock_now_ns();
        uint64_t wake_ns = UINT64_MAX;
        if (signalled)
            trm_control_interrupt(self->control, now_ns);
        dead_step(self, now_ns);
        if (trm_control_turn(self->control, now_ns, trm_clock_wall_ms(), &wake_ns))
            self->sleep_us =
                self->sleep_us / 2 + TRM_LOOP_SLEEP_US_MIN; /* one heartbeat makes no busy loop */
        else
            sleep_a_little(self, now_ns, wake_ns);
    }
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
    if (rank_hint() == 0)
        trm_launch_tell("began", "0");
    /* Before MPI_Init: what is forked after it may not even exit in peace. */
    trm_status crew_status = trm_crew_start(&crew, self->spec, rank_hint(), &crew_err);
    catch_signals();
    self->ground = (trm_ground){.fs = trm_fs_posix(), .entropy = entropy};
    trm_status status = trm_transport_mpi_open(&self->ground.transport, err);
    if (status == TRM_OK) {
        name_rank(self->spec, self->ground.transport->rank);
        if (self->ground.transport->rank == 0)
            trm_launch_tell("ready", "0");
        status = check_ranks(options, self->ground.transport, err);
    }
    if (status != TRM_OK) {
        trm_crew_stop(crew, 0);
        return status;
    }
    status = trm_worker_create(&self->worker, self->spec, trm_fs_posix(), self->ground.transport, crew,
                               crew_status, crew_err.text, err);
    trm_control_config config = {.spec = self->spec,
                                 .ground = &self->ground,
                                 .worker_ops = &worker_ops,
                                 .worker = self->worker,
                                 .meet = meet,
                                 .context = self};
    return status == TRM_OK ? trm_control_create(&self->control, &config, err) : status;
}

/* `others_stay`: mpirun, which trireme has started, goes on without this rank. */
static void close_all(rank *self, int code, bool others_stay)
{
    trm_transport *transport = self->ground.transport;
    uint64_t dropped = self->control ? trm_control_dropped(self->control) : 0;
    trm_worker_destroy(self->worker);
    trm_control_destroy(self->control);
    trm_neighbours_close(&self->neighbours);
    if (!transport)
        return;
    if (dropped)
        trm_debug("%llu messages were no frames", (unsigned long long)dropped);
    trm_transport_mpi_exit_status(code, others_stay);
    transport->ops->close(transport, TRM_CLOSE_LINGER_MS);
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
        if (!self.ground.transport || self.ground.transport->rank == 0)
            trm_error("%s", err.text);
    }
    /* Whoever knows how the job ended says so: the leader may be gone by now. */
    bool knows = status != TRM_OK || trm_control_knows_end(self.control, &end);
    char text[16];
    snprintf(text, sizeof text, "%u", knows ? end.exit_code : self.ground.transport->rank);
    fflush(NULL);
    trm_launch_tell(knows ? "result" : "left", text);
    close_all(&self, (int)end.exit_code, !knows && trm_launch_token());
    return (int)end.exit_code;
}
