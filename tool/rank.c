#include "config.h" /* system extensions, before any header of the system */

#include "tool/rank.h"

#include "jobs/exit_code.h"
#include "runtime/clock.h"
#include "runtime/diag.h"
#include "runtime/transport.h"
#include "tool/launched.h"
#include "tool/leader.h"
#include "tool/neighbours.h"
#include "tool/node.h"
#include "tool/opener.h"
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
    trm_node *node;
    trm_opener *opener; /* rank 0 alone */
    trm_leader *leader; /* NULL on ranks that do not lead */
    trm_neighbours neighbours;
    uint8_t *dead;        /* one a rank: its process is gone */
    uint32_t master;      /* of whom the worker knows … */
    uint64_t master_term; /* … and its term */
    uint64_t dropped;     /* messages that are no frames */
    uint64_t leave_ns;    /* a signal has come: the rank leaves by then; 0: none has */
    bool left_alone;      /* … and has left by itself: how the job ends is not known here */
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

static void interrupt(rank *self)
{
    static const char why[] = "interrupted; the same command goes on with the job";
    if (self->leader)
        trm_leader_interrupt(self->leader, why);
    if (self->opener)
        trm_opener_interrupt(self->opener, why);
}

/* The leader ends the job for all; a rank that hears nothing of that leaves by itself. */
static void signal_step(rank *self, uint64_t now_ns)
{
    if (signalled && !self->leave_ns) {
        self->leave_ns = now_ns + TRM_SIGNAL_WAIT_MS * TRM_NS_PER_MS;
        interrupt(self);
    }
    if (self->leave_ns && now_ns >= self->leave_ns && !self->left_alone) {
        trm_end end = {.exit_code = TRM_EXIT_INTERRUPTED, .keep_runs = true};
        self->left_alone = !self->leader;
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

static void begin_launch(rank *self, uint64_t epoch, const trm_begin *begin, uint64_t now_ns)
{
    trm_err err = {""};
    trm_node_state node;
    trm_node_state_get(self->node, &node);
    if (node.begun)
        return;
    trm_neighbours_watch(&self->neighbours, begin);
    if (trm_node_begin(self->node, epoch, begin, now_ns, &err) != TRM_OK)
        trm_warn("this rank cannot keep a copy of the job's log: %s", err.text);
}

/* It decodes; but ranks that there are not would be written behind the end of what is kept of each. */
static bool makes_sense(const rank *self, const trm_begin *begin)
{
    for (uint32_t i = 0; i < begin->neighbours; i++)
        if (begin->neighbour[i].rank >= self->transport->ranks)
            return false;
    return true;
}

static void take_begin(rank *self, uint32_t from, const trm_wire_header *header, trm_reader *body,
                       uint64_t now_ns)
{
    trm_begin *begin = calloc(1, sizeof *begin);
    if (begin)
        trm_begin_decode(begin, body);
    if (begin && from == 0 && header->epoch && trm_reader_done(body) && makes_sense(self, begin))
        begin_launch(self, header->epoch, begin, now_ns);
    else
        self->dropped++;
    free(begin);
}

static void take_frame(rank *self, uint32_t from, const trm_wire_header *header, trm_reader *body,
                       uint64_t now_ns)
{
    if (header->type == TRM_WIRE_BEGIN) {
        take_begin(self, from, header, body, now_ns);
        return;
    }
    if (self->leader && is_for_leader(header)) {
        trm_leader_receive(self->leader, from, header, body, now_ns);
    } else if (self->opener && is_for_leader(header) && header->epoch == 0) {
        trm_opener_receive(self->opener, from, header, body, now_ns);
    } else {
        if (header->type == TRM_WIRE_LEADS)
            trm_node_hear_leader(self->node, from, header->epoch, header->term);
        trm_worker_receive(self->worker, from, header, body, now_ns);
    }
}

static void take_message(rank *self, uint32_t from, const uint8_t *bytes, size_t len, uint64_t now_ns)
{
    trm_wire_header header;
    trm_reader body;
    if (trm_node_receive(self->node, from, bytes, len, now_ns))
        return;
    if (trm_wire_open(bytes, len, &header, &body) == TRM_OK) {
        take_frame(self, from, &header, &body, now_ns);
        return;
    }
    if (self->dropped++ == 0)
        trm_debug("a message of rank %u is no frame: dropped", from);
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

/* ---- Who leads -------------------------------------------------------------------------------------- */

static bool opener_step(rank *self, uint64_t now_ns, uint64_t *wake_ns)
{
    uint64_t epoch;
    const trm_begin *begin;
    bool any = self->opener && trm_opener_step(self->opener, now_ns, wake_ns);
    if (self->opener && trm_opener_begun(self->opener, &epoch, &begin))
        begin_launch(self, epoch, begin, now_ns);
    return any;
}

/* Leads from when the log says so until it says that another does, or the job is over. */
static void follow_election(rank *self, const trm_node_state *node)
{
    trm_err err = {""};
    if (node->elected && !self->leader) { /* now, since those that hear of it say HELLO at once */
        if (trm_leader_create(&self->leader, self->spec, self->transport, self->node, &err) != TRM_OK)
            trm_warn("%s", err.text);
        else if (self->leave_ns)
            interrupt(self);
        for (uint32_t i = 0; self->leader && i < self->transport->ranks; i++)
            if (self->dead[i])
                trm_leader_rank_dead(self->leader, i);
    } else if (self->leader && !trm_leader_is_over(self->leader) &&
               (!node->elected || trm_leader_is_deposed(self->leader))) {
        trm_debug("this rank does not lead any more");
        trm_leader_destroy(self->leader);
        self->leader = NULL;
    }
}

static bool lives(void *context, uint32_t number)
{
    const rank *self = context;
    return trm_leader_rank_lives(self->leader, number);
}

static void dead_step(rank *self, uint64_t now_ns)
{
    uint32_t dead;
    while (trm_neighbours_next_dead(&self->neighbours, &dead, now_ns)) {
        self->dead[dead] = 1;
        trm_node_rank_dead(self->node, dead, now_ns);
        if (self->leader)
            trm_leader_rank_dead(self->leader, dead);
    }
}

static bool lead_step(rank *self, uint64_t now_ns, uint64_t *wake_ns)
{
    trm_node_state node;
    trm_end end;
    bool any = opener_step(self, now_ns, wake_ns);
    dead_step(self, now_ns);
    if (!self->leader || !trm_leader_has_master(self->leader)) /* a master moves the log itself */
        any |= trm_node_step(self->node, now_ns, wake_ns);
    trm_node_state_get(self->node, &node);
    follow_election(self, &node);
    if (self->leader) {
        any |= trm_leader_step(self->leader, now_ns, trm_clock_wall_ms(), wake_ns);
        if (!trm_leader_is_over(self->leader))
            trm_node_tend(self->node, lives, self, now_ns, wake_ns);
    }
    if (self->leader && trm_leader_failed(self->leader, &end)) { /* others may be able to */
        self->left_alone = trm_node_voters(self->node) > 1;
        trm_worker_leave(self->worker, &end);
    }
    if (node.leader != TRM_REPLOG_NOBODY && (node.leader != self->master || node.term != self->master_term)) {
        self->master = node.leader;
        self->master_term = node.term;
        trm_worker_set_master(self->worker, node.leader, node.epoch, node.term);
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
    int node_fd = trm_node_fd(self->node);
    if (node_fd >= 0)
        numbers[count++] = node_fd;
    for (unsigned i = 0; i < count; i++)
        fds[i] = (struct pollfd){.fd = numbers[i], .events = POLLIN};
    uint64_t ns = (uint64_t)self->sleep_us * 1000;
    if (wake_ns <= now_ns)
        ns = 0;
    else if (wake_ns - now_ns < ns)
        ns = wake_ns - now_ns;
    struct timespec time = {.tv_nsec = (long)ns};
    ppoll(fds, count, &time, NULL);
    uint32_t longer = self->sleep_us * 3 / 2 + 1;
    self->sleep_us = longer < TRM_LOOP_SLEEP_US_MAX ? longer : TRM_LOOP_SLEEP_US_MAX;
}

/* Whether the job is over here: the worker has left and, on the rank that leads, so has everybody
 * whom it has to wait for. */
static bool is_over(rank *self, trm_end *end)
{
    trm_end of_worker;
    if (!trm_worker_ended(self->worker, &of_worker))
        return false;
    if (self->leader)
        return trm_leader_ended(self->leader, end);
    *end = of_worker;
    trm_end refused;
    bool telling = self->opener && of_worker.exit_code != TRM_EXIT_INTERRUPTED && !self->left_alone &&
                   !self->master_term;
    return !telling || trm_opener_ended(self->opener, &refused);
}

static void loop(rank *self, trm_end *end)
{
    while (!is_over(self, end)) {
        uint64_t now_ns = trm_clock_now_ns();
        uint64_t wake_ns = UINT64_MAX;
        signal_step(self, now_ns);
        bool any = messages_step(self, now_ns);
        any |= lead_step(self, now_ns, &wake_ns);
        any |= trm_worker_step(self->worker, now_ns, &wake_ns);
        if (any)
            self->sleep_us =
                self->sleep_us / 4 + TRM_LOOP_SLEEP_US_MIN; /* one heartbeat makes no busy loop */
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
    self->dead = calloc(self->transport->ranks, 1);
    if (status == TRM_OK && !self->dead)
        status = trm_err_set(err, TRM_ENOMEM, "no memory to know who lives");
    if (status == TRM_OK)
        status = trm_node_create(&self->node, self->spec, self->transport, err);
    if (status == TRM_OK && self->transport->rank == 0)
        status = trm_opener_create(&self->opener, self->spec, self->transport, err);
    return status;
}

static void close_all(rank *self, int code)
{
    trm_worker_destroy(self->worker);
    trm_leader_destroy(self->leader);
    trm_node_destroy(self->node);
    trm_opener_destroy(self->opener);
    trm_neighbours_close(&self->neighbours);
    free(self->dead);
    if (!self->transport)
        return;
    if (self->dropped)
        trm_debug("%llu messages were no frames", (unsigned long long)self->dropped);
    trm_transport_mpi_exit_status(code);
    self->transport->ops->close(self->transport, TRM_CLOSE_LINGER_MS);
}

int trm_rank_run(const trm_options *options)
{
    rank self = {.spec = &options->spec, .master = TRM_REPLOG_NOBODY, .sleep_us = TRM_LOOP_SLEEP_US_MIN};
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
    /* Whoever knows how the job ended says so: the leader may be gone by now. */
    trm_end refused;
    bool knows = self.leader || (self.opener && trm_opener_ended(self.opener, &refused));
    bool lost_master = !knows && end.exit_code == TRM_EXIT_LAUNCH && status == TRM_OK;
    if (!self.left_alone && !lost_master) {
        fflush(NULL);
        trm_launch_tell("result", text);
    }
    close_all(&self, (int)end.exit_code);
    return (int)end.exit_code;
}
