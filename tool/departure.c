#include "tool/departure.h"

#include "jobs/wire.h"
#include "runtime/clock.h"

#include <stdlib.h>

trm_status trm_departure_init(trm_departure *self, trm_transport *transport, trm_node *node, trm_err *err)
{
    *self = (trm_departure){.transport = transport, .node = node};
    self->going = calloc(transport->ranks, 1);
    return self->going ? TRM_OK : trm_err_set(err, TRM_ENOMEM, "no memory to know who leaves");
}

void trm_departure_close(trm_departure *self)
{
    free(self->going);
    self->going = NULL;
}

void trm_departure_signal(trm_departure *self, uint64_t now_ns)
{
    if (self->until_ns)
        return;
    self->until_ns = now_ns + TRM_SIGNAL_WAIT_MS * TRM_NS_PER_MS;
    trm_departure_goes(self, self->transport->rank);
}

bool trm_departure_is_due(const trm_departure *self)
{
    return self->until_ns != 0;
}

void trm_departure_goes(trm_departure *self, uint32_t rank)
{
    if (rank < self->transport->ranks)
        self->going[rank] = 1;
}

static bool everybody_goes(const trm_departure *self)
{
    for (uint32_t i = 0; i < self->transport->ranks; i++)
        if (!self->going[i])
            return false;
    return true;
}

static void say_leaving(trm_departure *self, uint32_t leader, uint64_t now_ns, uint64_t *wake_ns)
{
    if (now_ns >= self->say_ns && leader < self->transport->ranks && leader != self->transport->rank) {
        trm_wire_header header = {.type = TRM_WIRE_LEAVING};
        trm_node_state node;
        trm_writer frame;
        trm_node_state_get(self->node, &node);
        header.epoch = node.epoch;
        header.term = node.term;
        trm_writer_init(&frame);
        trm_wire_begin(&frame, &header);
        trm_wire_seal(&frame);
        if (trm_writer_ok(&frame))
            self->transport->ops->send(self->transport, leader, frame.data, frame.len);
        trm_writer_close(&frame);
        self->say_ns = now_ns + TRM_LEAVING_AGAIN_MS * TRM_NS_PER_MS;
    }
    *wake_ns = self->say_ns > now_ns && self->say_ns < *wake_ns ? self->say_ns : *wake_ns;
}

static void wake_at(uint64_t *wake_ns, uint64_t at_ns)
{
    *wake_ns = at_ns < *wake_ns ? at_ns : *wake_ns;
}

/* Whether somebody else is to lead, so that the job goes on. Asks one when its time has come. */
static bool others_stay(trm_departure *self, uint64_t now_ns, uint64_t *wake_ns)
{
    if (everybody_goes(self) || !trm_node_may_lose(self->node, self->going))
        return false;
    if (now_ns < self->alone_ns) {
        wake_at(wake_ns, self->alone_ns);
        return true;
    }
    if (!self->hand_ns) {
        self->hand_ns = now_ns + TRM_HAND_OVER_MS * TRM_NS_PER_MS;
        if (!trm_node_hand_over(self->node, self->going, now_ns))
            return false;
    }
    wake_at(wake_ns, self->hand_ns);
    return now_ns < self->hand_ns;
}

static trm_departure_advice advise_leader(trm_departure *self, uint64_t now_ns, uint64_t *wake_ns)
{
    if (!self->led) { /* what others have said to who led before is not known here */
        self->alone_ns = now_ns + TRM_ALONE_MS * TRM_NS_PER_MS;
        self->until_ns = now_ns + TRM_SIGNAL_WAIT_MS * TRM_NS_PER_MS; /* it may lead since a moment */
    }
    self->led = true;
    if (now_ns >= self->until_ns)
        return TRM_LEAVE;
    self->ending |= !others_stay(self, now_ns, wake_ns);
    wake_at(wake_ns, self->until_ns);
    return self->ending ? TRM_END_JOB : TRM_STAY;
}

trm_departure_advice trm_departure_step(trm_departure *self, bool leads, uint32_t leader, uint64_t now_ns,
                                        uint64_t *wake_ns)
{
    if (!self->until_ns)
        return TRM_STAY;
    if (leads)
        return advise_leader(self, now_ns, wake_ns);
    self->led = false;
    if (self->hand_ns || now_ns >= self->until_ns)
        return TRM_LEAVE; /* another has taken the lead, or nobody has ended the job */
    say_leaving(self, leader, now_ns, wake_ns);
    wake_at(wake_ns, self->until_ns);
    return TRM_STAY;
}
