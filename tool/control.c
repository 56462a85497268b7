#include "config.h" /* system extensions, before any header of the system */

#include "tool/control.h"

#include "jobs/exit_code.h"
#include "runtime/clock.h"
#include "runtime/diag.h"
#include "tool/departure.h"
#include "tool/leader.h"
#include "tool/leaderless.h"
#include "tool/opener.h"

#include <stdlib.h>

struct trm_control {
    trm_control_config config;
    const trm_spec *spec;
    const trm_ground *ground;
    trm_transport *transport;
    trm_node *node;
    trm_opener *opener;   /* rank 0 alone */
    trm_leader *leader;   /* NULL on ranks that do not lead */
    uint8_t *dead;        /* one a rank: its process is gone */
    uint32_t master;      /* of whom the worker knows … */
    uint64_t master_term; /* … and its term */
    uint64_t dropped;     /* messages that are no frames */
    trm_leaderless leaderless;
    uint32_t deaths; /* in `dead` */
    trm_departure departure;
    bool left_alone; /* it has left by itself: how the job ends is not known here */
};

static void worker_leave(trm_control *self, const trm_end *end)
{
    self->config.worker_ops->leave(self->config.worker, end);
}

/* ---- Stopping --------------------------------------------------------------------------------- */

static const char interrupted[] = "interrupted; the same command goes on with the job";

void trm_control_interrupt(trm_control *self, uint64_t now_ns)
{
    if (trm_departure_is_due(&self->departure))
        return;
    trm_departure_signal(&self->departure, now_ns);
    if (self->opener)
        trm_opener_interrupt(self->opener, interrupted);
}

static void departure_step(trm_control *self, uint64_t now_ns, uint64_t *wake_ns)
{
    trm_end end = {.exit_code = TRM_EXIT_INTERRUPTED, .keep_runs = true};
    if (self->left_alone)
        return;
    switch (trm_departure_step(&self->departure, self->leader != NULL, self->master, now_ns, wake_ns)) {
    case TRM_STAY:
        break;
    case TRM_END_JOB:
        trm_leader_interrupt(self->leader, interrupted);
        break;
    case TRM_LEAVE:
        self->left_alone = !self->leader;
        worker_leave(self, &end);
        break;
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
    case TRM_WIRE_COPIED:
        return true;
    default:
        return false;
    }
}

static void begin_launch(trm_control *self, uint64_t epoch, const trm_begin *begin, uint64_t now_ns)
{
    trm_err err = {""};
    trm_node_state node;
    trm_node_state_get(self->node, &node);
    if (node.begun)
        return;
    self->config.meet(self->config.context, begin);
    if (trm_node_begin(self->node, epoch, begin, now_ns, &err) != TRM_OK)
        trm_warn("this rank cannot keep a copy of the job's log: %s", err.text);
}

/* It decodes; but ranks that there are not would be written behind the end of what is kept of each. */
static bool makes_sense(const trm_control *self, const trm_begin *begin)
{
    for (uint32_t i = 0; i < begin->neighbours; i++)
        if (begin->neighbour[i].rank >= self->transport->ranks)
            return false;
    return true;
}

static void take_begin(trm_control *self, uint32_t from, const trm_wire_header *header, trm_reader *body,
                       uint64_t now_ns)
{
    trm_begin *begin = calloc(1, sizeof *begin);
    if (begin)
        trm_begin_decode(begin, body);
    if (!begin || from != 0 || !trm_reader_done(body) || !makes_sense(self, begin))
        self->dropped++;
    else if (header->epoch)
        begin_launch(self, header->epoch, begin, now_ns);
    else
        self->config.meet(self->config.context, begin);
    free(begin);
}

static void take_leads(trm_control *self, uint32_t from, const trm_wire_header *header, trm_reader body)
{
    trm_leads leads;
    trm_leads_decode(&leads, &body);
    if (trm_reader_done(&body))
        trm_node_hear_leader(self->node, from, header->epoch, header->term, &leads);
    else
        self->dropped++;
}

/* Whoever leads, as far as is known here, is heard. */
static void hear(trm_control *self, uint32_t from, const trm_wire_header *header)
{
    trm_node_state node;
    if (!self->leaderless.since_ns)
        return;
    trm_node_state_get(self->node, &node);
    if (node.begun && header->epoch == node.epoch && header->term == node.term && from == node.leader)
        trm_leaderless_heard(&self->leaderless);
}

static void take_frame(trm_control *self, uint32_t from, const trm_wire_header *header, trm_reader *body,
                       uint64_t now_ns)
{
    if (header->type == TRM_WIRE_BEGIN) {
        take_begin(self, from, header, body, now_ns);
        return;
    }
    if (header->type == TRM_WIRE_LEAVING) {
        trm_departure_goes(&self->departure, from);
        return;
    }
    if (is_for_leader(header)) { /* should nobody lead here, it is said again to who does */
        trm_reader copy = *body;
        if (self->leader)
            trm_leader_receive(self->leader, from, header, body, now_ns);
        if (self->opener && header->epoch == 0)
            trm_opener_receive(self->opener, from, header, &copy, now_ns);
        return;
    }
    if (header->type == TRM_WIRE_LEADS)
        take_leads(self, from, header, *body);
    hear(self, from, header);
    self->config.worker_ops->receive(self->config.worker, from, header, body, now_ns);
}

static void take_message(trm_control *self, uint32_t from, const uint8_t *bytes, size_t len, uint64_t now_ns)
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

static bool messages_step(trm_control *self, uint64_t now_ns)
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

static bool opener_step(trm_control *self, uint64_t now_ns, uint64_t *wake_ns)
{
    uint64_t epoch;
    const trm_begin *begin;
    bool any = self->opener && trm_opener_step(self->opener, now_ns, wake_ns);
    if (self->opener && trm_opener_begun(self->opener, &epoch, &begin))
        begin_launch(self, epoch, begin, now_ns);
    return any;
}

/* Leads from when the log says so until it says that another does, or the job is over. */
static void follow_election(trm_control *self, const trm_node_state *node)
{
    trm_err err = {""};
    /* Now, since those that hear of it say HELLO at once. */
    if (node->elected && !self->leader && !self->left_alone) {
        if (trm_leader_create(&self->leader, self->spec, self->ground, self->node, &err) != TRM_OK)
            trm_warn("%s", err.text);
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
    const trm_control *self = context;
    return trm_leader_rank_lives(self->leader, number);
}

void trm_control_rank_dead(trm_control *self, uint32_t rank, uint64_t now_ns)
{
    if (rank >= self->transport->ranks)
        return;
    self->deaths += !self->dead[rank];
    self->dead[rank] = 1;
    trm_departure_goes(&self->departure, rank);
    trm_node_rank_dead(self->node, rank, now_ns);
    if (self->leader)
        trm_leader_rank_dead(self->leader, rank);
}

/* Whether nobody can lead any more: the rank that prepares the launch is dead, or too many of those
 * that vote are. A rank without a log knows from LEADS who votes; should that have changed since, whoever
 * leads is heard. */
static bool is_lost(const trm_control *self, const trm_node_state *node)
{
    if (node->elected)
        return false;
    return node->begun ? trm_node_is_lost(self->node, self->dead) : self->dead[0];
}

/* Without a leader there is an election, and soon another. When there is none for long, or can be
 * none, the job is to be taken up by another launch. */
static void leaderless_step(trm_control *self, const trm_node_state *node, uint64_t now_ns, uint64_t *wake_ns)
{
    bool lost = self->deaths && is_lost(self, node), leads = !(node->leaderless || lost);
    if (!trm_leaderless_step(&self->leaderless, leads || self->left_alone, lost, now_ns, wake_ns))
        return;
    trm_end end = {.exit_code = TRM_EXIT_LAUNCH, .keep_runs = true};
    trm_warn("this rank leaves: %s", lost ? "too few of those that keep the log are left for one to lead"
                                          : "nobody has led the job for long");
    self->left_alone = true;
    worker_leave(self, &end);
}

static bool lead_step(trm_control *self, uint64_t now_ns, uint64_t wall_ms, uint64_t *wake_ns)
{
    trm_node_state node;
    trm_end end;
    bool any = opener_step(self, now_ns, wake_ns);
    if (!self->leader || !trm_leader_has_master(self->leader)) /* a master moves the log itself */
        any |= trm_node_step(self->node, now_ns, wake_ns);
    trm_node_state_get(self->node, &node);
    follow_election(self, &node);
    leaderless_step(self, &node, now_ns, wake_ns);
    if (self->leader) {
        any |= trm_leader_step(self->leader, now_ns, wall_ms, wake_ns);
        if (!trm_leader_is_over(self->leader))
            trm_node_tend(self->node, lives, self, now_ns, wake_ns);
        trm_node_relieve(self->node, now_ns, wake_ns);
    }
    if (self->leader && trm_leader_failed(self->leader, &end)) { /* others may be able to */
        self->left_alone = trm_node_voters(self->node) > 1;
        worker_leave(self, &end);
    }
    if (node.leader != TRM_REPLOG_NOBODY && (node.leader != self->master || node.term != self->master_term)) {
        self->master = node.leader;
        self->master_term = node.term;
        self->config.worker_ops->set_master(self->config.worker, node.leader, node.epoch, node.term);
        any = true;
    }
    return any;
}

/* ---- A turn ------------------------------------------------------------------------------------------- */

bool trm_control_turn(trm_control *self, uint64_t now_ns, uint64_t wall_ms, uint64_t *wake_ns)
{
    departure_step(self, now_ns, wake_ns);
    bool any = messages_step(self, now_ns);
    any |= lead_step(self, now_ns, wall_ms, wake_ns);
    return self->config.worker_ops->step(self->config.worker, now_ns, wake_ns) || any;
}

/* Whether the job is over here: the worker has left and, on the rank that leads, so has everybody
 * whom it has to wait for. */
bool trm_control_is_over(const trm_control *self, trm_end *end)
{
    trm_end of_worker;
    if (!self->config.worker_ops->ended(self->config.worker, &of_worker))
        return false;
    if (self->leader)
        return trm_leader_ended(self->leader, end);
    *end = of_worker;
    return !self->opener || self->left_alone || !trm_opener_is_refusing(self->opener);
}

bool trm_control_knows_end(const trm_control *self, const trm_end *end)
{
    trm_end refused;
    bool knows = self->leader || (self->opener && trm_opener_ended(self->opener, &refused));
    return !self->left_alone && (knows || end->exit_code != TRM_EXIT_LAUNCH);
}

int trm_control_fd(const trm_control *self)
{
    return trm_node_fd(self->node);
}

uint64_t trm_control_dropped(const trm_control *self)
{
    return self->dropped;
}

const trm_node *trm_control_node(const trm_control *self)
{
    return self->node;
}

const trm_master *trm_control_master(const trm_control *self)
{
    return self->leader ? trm_leader_master(self->leader) : NULL;
}

/* ---- Begin and end ------------------------------------------------------------------------------------ */

trm_status trm_control_create(trm_control **out, const trm_control_config *config, trm_err *err)
{
    trm_control *self = calloc(1, sizeof *self);
    if (!self)
        return trm_err_set(err, TRM_ENOMEM, "no memory for a rank's part in the job");
    self->config = *config;
    self->spec = config->spec;
    self->ground = config->ground;
    self->transport = config->ground->transport;
    self->master = TRM_REPLOG_NOBODY;
    self->dead = calloc(self->transport->ranks, 1);
    trm_status status = self->dead ? TRM_OK : trm_err_set(err, TRM_ENOMEM, "no memory to know who lives");
    if (status == TRM_OK)
        status = trm_node_create(&self->node, self->spec, self->ground, err);
    if (status == TRM_OK)
        status = trm_departure_init(&self->departure, self->transport, self->node, err);
    if (status == TRM_OK && self->transport->rank == 0)
        status = trm_opener_create(&self->opener, self->spec, self->ground, err);
    if (status != TRM_OK) {
        trm_control_destroy(self);
        return status;
    }
    *out = self;
    return TRM_OK;
}

void trm_control_destroy(trm_control *self)
{
    if (!self)
        return;
    trm_leader_destroy(self->leader);
    trm_departure_close(&self->departure);
    trm_node_destroy(self->node);
    trm_opener_destroy(self->opener);
    free(self->dead);
    free(self);
}
