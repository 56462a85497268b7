/* Handing leadership over (thesis 3.10): the leader takes no more proposals, brings the
 * target up to date and tells it to call an election at once. When that has not ended within
 * an election timeout, the leader goes on. */
#include "runtime/consensus/raft_internal.h"

trm_status trm_raft_transfer(trm_raft *self, uint64_t node, uint64_t now_ns, trm_err *err)
{
    if (now_ns > self->now_ns)
        self->now_ns = now_ns;
    if (self->role != TRM_RAFT_LEADER)
        return trm_err_set(err, TRM_EFENCED, "this node does not lead");
    if (!raft_is_voter(self, node))
        return trm_err_set(err, TRM_EPEER, "node %llu is no voter", (unsigned long long)node);
    if (node == self->options.node || node == self->transfer_to)
        return TRM_OK;
    self->transfer_to = node;
    self->transfer_until_ns = self->now_ns + self->options.election_ns;
    self->transfer_asked = false;
    self->transfer_ended = TRM_AGAIN;
    return TRM_OK;
}

void raft_transfer_end(trm_raft *self, trm_status how)
{
    if (self->transfer_to == TRM_RAFT_NONE)
        return;
    self->transfer_to = TRM_RAFT_NONE;
    self->transfer_ended = how;
}

void raft_transfer_step(trm_raft *self)
{
    if (self->transfer_to == TRM_RAFT_NONE)
        return;
    const raft_peer *peer = raft_peer_find(self, self->transfer_to);
    if (!peer || !peer->voter) {
        raft_transfer_end(self, TRM_EPEER);
        return;
    }
    if (self->transfer_asked || peer->match != raft_log_last(&self->log))
        return;
    trm_raft_message message = raft_message_to(self, TRM_RAFT_TIMEOUT_NOW, peer->node);
    raft_send(self, &message, 0);
    self->transfer_asked = true;
}

void raft_transfer_tick(trm_raft *self)
{
    if (self->transfer_to != TRM_RAFT_NONE && self->now_ns >= self->transfer_until_ns)
        raft_transfer_end(self, TRM_ETIMEOUT);
}

trm_status raft_on_timeout_now(trm_raft *self, const trm_raft_message *message, trm_err *err)
{
    if (self->role != TRM_RAFT_FOLLOWER || !raft_may_campaign(self) ||
        (self->leader != TRM_RAFT_NONE && self->leader != message->from)) {
        raft_drop(self);
        return TRM_OK;
    }
    return raft_campaign(self, true, err);
}
