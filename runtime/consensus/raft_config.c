/* Membership (thesis, chapter 4), and its bytes:
 *
 *   u8 version, varint count, then by growing node: u64 node, u8 voter
 */
#include "runtime/consensus/raft_internal.h"

#include <assert.h>

#define MEMBERS_VERSION 1u

/* ---- The set. ---- */

const trm_raft_member *trm_raft_members_find(const trm_raft_members *self, uint64_t node)
{
    for (uint32_t i = 0; i < self->count; i++)
        if (self->member[i].node == node)
            return &self->member[i];
    return NULL;
}

trm_status trm_raft_members_set(trm_raft_members *self, uint64_t node, bool voter)
{
    assert(node != TRM_RAFT_NONE);
    uint32_t at = 0;
    while (at < self->count && self->member[at].node < node)
        at++;
    if (at < self->count && self->member[at].node == node) {
        self->member[at].voter = voter;
        return TRM_OK;
    }
    if (self->count == TRM_RAFT_NODES_MAX)
        return TRM_ELIMIT;
    memmove(self->member + at + 1, self->member + at, (self->count - at) * sizeof *self->member);
    memset(&self->member[at], 0, sizeof self->member[at]);
    self->member[at].node = node;
    self->member[at].voter = voter;
    self->count++;
    return TRM_OK;
}

void trm_raft_members_remove(trm_raft_members *self, uint64_t node)
{
    const trm_raft_member *found = trm_raft_members_find(self, node);
    if (!found)
        return;
    uint32_t at = (uint32_t)(found - self->member);
    self->count--;
    memmove(self->member + at, self->member + at + 1, (self->count - at) * sizeof *self->member);
}

uint32_t trm_raft_members_voters(const trm_raft_members *self)
{
    uint32_t voters = 0;
    for (uint32_t i = 0; i < self->count; i++)
        voters += self->member[i].voter;
    return voters;
}

void trm_raft_members_encode(const trm_raft_members *self, trm_writer *out)
{
    trm_put_u8(out, MEMBERS_VERSION);
    trm_put_varint(out, self->count);
    for (uint32_t i = 0; i < self->count; i++) {
        trm_put_u64(out, self->member[i].node);
        trm_put_u8(out, self->member[i].voter);
    }
}

static void read_members(trm_reader *in, trm_raft_members *out)
{
    memset(out, 0, sizeof *out);
    out->count = (uint32_t)trm_get_varint_max(in, TRM_RAFT_NODES_MAX);
    for (uint32_t i = 0; i < out->count; i++) {
        uint64_t node = trm_get_u64(in);
        uint8_t voter = trm_get_u8(in);
        if (voter > 1 || node == TRM_RAFT_NONE || (i > 0 && node <= out->member[i - 1].node))
            trm_reader_fail(in);
        out->member[i].node = node;
        out->member[i].voter = voter == 1;
    }
}

trm_status trm_raft_members_decode(trm_raft_members *out, const void *bytes, size_t len, trm_err *err)
{
    trm_reader in;
    trm_reader_init(&in, bytes, len);
    uint8_t version = trm_get_u8(&in);
    if (trm_reader_ok(&in) && version != MEMBERS_VERSION)
        return trm_err_set(err, TRM_EVERSION, "a membership has version %u; this program reads %u", version,
                           MEMBERS_VERSION);
    trm_raft_members members;
    read_members(&in, &members);
    if (!trm_reader_done(&in))
        return trm_err_set(err, TRM_ECORRUPT, "a membership is malformed");
    *out = members;
    return TRM_OK;
}

/* ---- The membership in effect: the newest in the log, committed or not (4.1). ---- */

bool raft_is_voter(const trm_raft *self, uint64_t node)
{
    const trm_raft_member *member = trm_raft_members_find(&self->members, node);
    return member && member->voter;
}

uint32_t raft_quorum(const trm_raft *self)
{
    return trm_raft_members_voters(&self->members) / 2 + 1;
}

void raft_members_at(const trm_raft *self, uint64_t index, trm_raft_members *out)
{
    const trm_raft_entry *entry = raft_log_find_config(&self->log, index);
    if (!entry) {
        *out = self->base_members;
        return;
    }
    trm_status status = trm_raft_members_decode(out, entry->payload, entry->len, NULL);
    assert(status == TRM_OK); /* it was looked at before it was taken into the log */
    (void)status;
}

/* An uncommitted change is rolled back when its entry is overwritten (4.1). */
void raft_members_refresh(trm_raft *self, uint64_t from)
{
    uint64_t last = raft_log_last(&self->log);
    const trm_raft_entry *newest = NULL;
    for (uint64_t i = from; i <= last; i++)
        if (raft_log_at(&self->log, i)->type == TRM_RAFT_CONFIG)
            newest = raft_log_at(&self->log, i);
    if (!newest && self->members_index < from)
        return;
    if (!newest)
        newest = raft_log_find_config(&self->log, last);
    self->members_index = newest ? newest->index : self->log.base_index;
    raft_members_at(self, last, &self->members);
    if (self->role == TRM_RAFT_LEADER)
        raft_peers_follow_members(self);
}

/* A leader that is no voter any more leads until the change is committed, without counting
 * itself, and then steps down (4.2.2). So that nobody must wait for a timeout it has the
 * voter that is furthest call the election. */
void raft_members_committed(trm_raft *self)
{
    if (self->members_index > self->commit || raft_is_voter(self, self->options.node))
        return;
    const raft_peer *best = NULL;
    for (uint32_t i = 0; i < self->peers_len; i++) {
        const raft_peer *peer = &self->peers[i];
        if (peer->voter && raft_believed_alive(self, peer->node) && (!best || peer->match > best->match))
            best = peer;
    }
    if (best) {
        trm_raft_message message = raft_message_to(self, TRM_RAFT_TIMEOUT_NOW, best->node);
        raft_send(self, &message, 0);
    }
    raft_become_follower(self, self->term, TRM_RAFT_NONE);
}

/* ---- Changes. ---- */

static trm_status refuse_now(const trm_raft *self, trm_err *err)
{
    if (self->role != TRM_RAFT_LEADER)
        return trm_err_set(err, TRM_EFENCED, "this node does not lead");
    if (self->disk_full)
        return trm_err_set(err, TRM_ENOSPACE, "the replicated log's disk is full");
    if (self->transfer_to != TRM_RAFT_NONE)
        return trm_err_set(err, TRM_AGAIN, "leadership is being handed over");
    /* Thesis 4.1 as corrected in July 2015 (raft-dev, "bug in single-server membership
     * changes"): not before an entry of this term is committed, or two leaders' changes
     * might have quorums that do not meet. */
    if (self->commit < self->term_start)
        return trm_err_set(err, TRM_AGAIN, "no entry of this term is committed yet");
    if (self->members_index > self->commit)
        return trm_err_set(err, TRM_AGAIN, "a change of the membership is not committed yet");
    return TRM_OK;
}

static trm_status apply_change(trm_raft_members *members, trm_raft_change change, uint64_t node, trm_err *err)
{
    const trm_raft_member *member = trm_raft_members_find(members, node);
    bool is_voter = member && member->voter, is_learner = member && !member->voter;
    bool is_last = is_voter && trm_raft_members_voters(members) == 1;
    bool fits = change == TRM_RAFT_ADD_LEARNER ? !member && node != TRM_RAFT_NONE
                : change == TRM_RAFT_PROMOTE   ? is_learner
                : change == TRM_RAFT_DEMOTE    ? is_voter && !is_last
                                               : member && !is_last;
    if (!fits)
        return trm_err_set(err, TRM_EPEER, "the change makes no sense: node %llu is %s",
                           (unsigned long long)node,
                           is_last      ? "the last voter"
                           : is_voter   ? "a voter"
                           : is_learner ? "a learner"
                                        : "no member");
    if (change == TRM_RAFT_REMOVE) {
        trm_raft_members_remove(members, node);
        return TRM_OK;
    }
    if (trm_raft_members_set(members, node, change == TRM_RAFT_PROMOTE) != TRM_OK)
        return trm_err_set(err, TRM_ELIMIT, "there are %u members already", TRM_RAFT_NODES_MAX);
    return TRM_OK;
}

static trm_status append_members(trm_raft *self, const trm_raft_members *members, trm_err *err)
{
    trm_writer payload;
    trm_writer_init(&payload);
    trm_raft_members_encode(members, &payload);
    trm_status status = trm_writer_ok(&payload)
                            ? raft_append_own(self, TRM_RAFT_CONFIG, payload.data, payload.len, err)
                            : trm_err_set(err, TRM_ENOMEM, "no memory for a membership");
    trm_writer_close(&payload);
    if (status == TRM_OK)
        self->counts.changes++;
    return status;
}

trm_status trm_raft_change_members(trm_raft *self, trm_raft_change change, uint64_t node, uint64_t *index,
                                   trm_err *err)
{
    trm_status status = refuse_now(self, err);
    if (status != TRM_OK)
        return status;
    trm_raft_members next = self->members;
    status = apply_change(&next, change, node, err);
    if (status != TRM_OK)
        return status;
    if (change == TRM_RAFT_PROMOTE && !raft_peer_caught_up(self, raft_peer_find(self, node)))
        return trm_err_set(err, TRM_AGAIN, "learner %llu has not caught up", (unsigned long long)node);
    status = append_members(self, &next, err);
    if (status == TRM_OK)
        *index = raft_log_last(&self->log);
    return status;
}

/* ---- Replacing the dead. ---- */

static bool answers(const trm_raft *self, uint64_t node)
{
    if (node == self->options.node)
        return true;
    const raft_peer *peer = raft_peer_find(self, node);
    return peer && raft_believed_alive(self, node) && raft_peer_active(self, peer);
}

/* Whether those voters that answer are a majority: else the change might not commit. */
static bool can_commit(const trm_raft *self, const trm_raft_members *members)
{
    uint32_t alive = 0;
    for (uint32_t i = 0; i < members->count; i++)
        alive += members->member[i].voter && answers(self, members->member[i].node);
    return alive > trm_raft_members_voters(members) / 2;
}

static bool find_dead(const trm_raft *self, bool voter, uint64_t *node)
{
    for (uint32_t i = 0; i < self->members.count; i++) {
        const trm_raft_member *member = &self->members.member[i];
        if (member->voter != voter || member->node == self->options.node ||
            raft_believed_alive(self, member->node))
            continue;
        *node = member->node;
        return true;
    }
    return false;
}

static bool find_replacement(const trm_raft *self, uint64_t *node)
{
    uint64_t best = 0;
    bool found = false;
    for (uint32_t i = 0; i < self->members.count; i++) {
        const trm_raft_member *member = &self->members.member[i];
        if (member->voter || !answers(self, member->node) ||
            !raft_peer_caught_up(self, raft_peer_find(self, member->node)))
            continue;
        const raft_hint *hint = raft_hint_find(self, member->node);
        uint64_t value = hint ? hint->preference : 0;
        if (found && value <= best)
            continue;
        found = true;
        best = value;
        *node = member->node;
    }
    return found;
}

static bool choose(const trm_raft *self, trm_raft_change *change, uint64_t *node)
{
    if (find_dead(self, true, node)) {
        *change = TRM_RAFT_REMOVE;
        return true;
    }
    if (trm_raft_members_voters(&self->members) < self->options.voters_wanted &&
        find_replacement(self, node)) {
        *change = TRM_RAFT_PROMOTE;
        return true;
    }
    *change = TRM_RAFT_REMOVE;
    return find_dead(self, false, node);
}

trm_status raft_mend(trm_raft *self, trm_err *err)
{
    if (self->options.voters_wanted == 0 || refuse_now(self, NULL) != TRM_OK)
        return TRM_OK;
    trm_raft_change change;
    uint64_t node;
    trm_raft_members next = self->members;
    if (!choose(self, &change, &node) || apply_change(&next, change, node, NULL) != TRM_OK ||
        !can_commit(self, &next))
        return TRM_OK;
    return append_members(self, &next, err);
}
