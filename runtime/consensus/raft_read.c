/* Linearizable reads without a log entry (thesis 6.4): the commit index at the time of the
 * request, once a round of heartbeats has shown that this node still led then.
 *
 * Reads that arrive between two takes share a round. A follower asks its leader for the
 * index and waits until it has applied so far. */
#include "runtime/consensus/raft_internal.h"

#include <assert.h>

static void remove_read(trm_raft *self, uint32_t at)
{
    self->reads_len--;
    memmove(self->reads + at, self->reads + at + 1, (self->reads_len - at) * sizeof *self->reads);
}

static void done(trm_raft *self, uint64_t id, trm_status status)
{
    assert(self->reads_done_len < TRM_RAFT_READS_MAX);
    self->reads_done[self->reads_done_len++] = (trm_raft_read_done){id, status};
}

static bool is_own(const trm_raft *self, const raft_read *read)
{
    return read->from == self->options.node;
}

static raft_read *add(trm_raft *self, uint64_t id, uint64_t from)
{
    if (self->reads_len + self->reads_done_len >= TRM_RAFT_READS_MAX)
        return NULL;
    raft_read *read = &self->reads[self->reads_len++];
    *read = (raft_read){.id = id, .from = from, .deadline_ns = self->now_ns + 2 * self->options.election_ns};
    return read;
}

trm_status trm_raft_read(trm_raft *self, uint64_t id, uint64_t now_ns, trm_err *err)
{
    if (now_ns > self->now_ns)
        self->now_ns = now_ns;
    if (self->leader == TRM_RAFT_NONE)
        return trm_err_set(err, TRM_EFENCED, "no leader is known");
    raft_read *read = add(self, id, self->options.node);
    if (!read)
        return trm_err_set(err, TRM_AGAIN, "%u reads wait already", TRM_RAFT_READS_MAX);
    if (self->role == TRM_RAFT_LEADER)
        return TRM_OK;
    read->context = ++self->read_context;
    trm_raft_message message = raft_message_to(self, TRM_RAFT_READ, self->leader);
    message.context = read->context;
    raft_send(self, &message, raft_hard_after(self));
    return TRM_OK;
}

static void answer(trm_raft *self, uint64_t to, uint64_t context, uint64_t index, bool reject)
{
    trm_raft_message message = raft_message_to(self, TRM_RAFT_READ_RESULT, to);
    message.context = context;
    message.index = index;
    message.reject = reject;
    raft_send(self, &message, raft_hard_after(self));
}

void raft_on_read(trm_raft *self, const trm_raft_message *message)
{
    raft_read *read = self->role == TRM_RAFT_LEADER ? add(self, 0, message->from) : NULL;
    if (read)
        read->context = message->context;
    else
        answer(self, message->from, message->context, 0, true);
}

void raft_on_read_result(trm_raft *self, const trm_raft_message *message)
{
    for (uint32_t i = 0; i < self->reads_len; i++) {
        raft_read *read = &self->reads[i];
        if (self->role == TRM_RAFT_LEADER || read->confirmed || !is_own(self, read) ||
            read->context != message->context || message->from != self->leader)
            continue;
        if (message->reject) {
            done(self, read->id, TRM_EFENCED);
            remove_read(self, i);
        } else {
            read->index = message->index;
            read->confirmed = true;
        }
        return;
    }
    raft_drop(self); /* the answer to a duplicate, or too late */
}

/* A leader knows what is committed only when an entry of its own term is (6.4, step 1);
 * until then reads wait. */
void raft_reads_begin_round(trm_raft *self)
{
    if (self->commit < self->term_start)
        return;
    bool any = false;
    for (uint32_t i = 0; i < self->reads_len; i++) {
        raft_read *read = &self->reads[i];
        if (read->round != 0 || read->confirmed)
            continue;
        read->round = self->round + 1;
        read->index = self->commit;
        any = true;
    }
    if (!any)
        return;
    self->round++;
    for (uint32_t i = 0; i < self->peers_len; i++)
        self->peers[i].heartbeat_due |= self->peers[i].voter;
    raft_reads_confirm(self);
}

void raft_reads_confirm(trm_raft *self)
{
    uint64_t round = raft_quorum_round(self, self->round);
    for (uint32_t i = 0; i < self->reads_len;) {
        raft_read *read = &self->reads[i];
        if (read->confirmed || read->round == 0 || read->round > round) {
            i++;
        } else if (is_own(self, read)) {
            read->confirmed = true;
            i++;
        } else {
            answer(self, read->from, read->context, read->index, false);
            remove_read(self, i);
        }
    }
}

void raft_reads_fail(trm_raft *self)
{
    for (uint32_t i = 0; i < self->reads_len;) {
        raft_read *read = &self->reads[i];
        if (read->confirmed) {
            i++;
            continue;
        }
        if (is_own(self, read))
            done(self, read->id, TRM_EFENCED);
        else
            answer(self, read->from, read->context, 0, true);
        remove_read(self, i);
    }
}

void raft_reads_expire(trm_raft *self)
{
    for (uint32_t i = 0; i < self->reads_len;) {
        raft_read *read = &self->reads[i];
        if (read->deadline_ns > self->now_ns) {
            i++;
            continue;
        }
        if (is_own(self, read))
            done(self, read->id, TRM_ETIMEOUT);
        remove_read(self, i);
    }
}

uint64_t raft_reads_wake_ns(const trm_raft *self)
{
    /* They are in the order of their deadlines. */
    return self->reads_len > 0 ? self->reads[0].deadline_ns : RAFT_NEVER;
}

void raft_reads_finish(trm_raft *self)
{
    for (uint32_t i = 0; i < self->reads_len;) {
        const raft_read *read = &self->reads[i];
        if (!read->confirmed || read->index > self->applied) {
            i++;
            continue;
        }
        done(self, read->id, TRM_OK);
        remove_read(self, i);
    }
}
