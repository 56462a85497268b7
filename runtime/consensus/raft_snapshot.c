/* Snapshots and compaction (thesis, chapter 5).
 *
 * A transfer is cut into chunks, some of them ahead of the answers. The receiver answers
 * each with how much it has without a gap; the sender goes on from there, after a
 * loss, a pause, or a change of its term. What is received is known by sender, index, term and
 * length: a node never makes two snapshots of one index. */
#include "runtime/consensus/raft_internal.h"

#include <assert.h>

/* ---- Own snapshots. ---- */

void raft_snapshot_set(trm_raft *self, uint64_t index, uint64_t term, uint64_t data_bytes,
                       const trm_raft_members *members)
{
    trm_writer config;
    trm_writer_init(&config);
    config.data = self->snapshot_config; /* large enough: the writer never grows it */
    config.capacity = sizeof self->snapshot_config;
    trm_raft_members_encode(members, &config);
    assert(trm_writer_ok(&config) && config.data == self->snapshot_config);
    self->snapshot = (trm_wal_snapshot){.index = index,
                                        .term = term,
                                        .config = self->snapshot_config,
                                        .config_len = config.len,
                                        .data_bytes = data_bytes};
}

void trm_raft_snapshot_describe(trm_raft *self, trm_wal_snapshot *out)
{
    trm_raft_members members;
    raft_members_at(self, self->applied, &members);
    trm_writer config;
    trm_writer_init(&config);
    config.data = self->described_config;
    config.capacity = sizeof self->described_config;
    trm_raft_members_encode(&members, &config);
    *out = (trm_wal_snapshot){.index = self->applied,
                              .term = raft_log_term(&self->log, self->applied),
                              .config = self->described_config,
                              .config_len = config.len};
}

void raft_compact(trm_raft *self)
{
    uint64_t to = self->snapshot.index;
    uint64_t kept = 0;
    size_t bytes = 0;
    while (to > self->log.base_index && kept < self->options.keep_entries) {
        bytes += raft_log_cost(raft_log_at(&self->log, to)->len);
        if (bytes > self->options.log_bytes_max / 4)
            break;
        kept++;
        to--;
    }
    if (to <= self->log.base_index)
        return;
    raft_members_at(self, to, &self->base_members);
    if (self->members_index <= to)
        self->members_index = to;
    raft_log_compact(&self->log, to);
}

void trm_raft_snapshot_saved(trm_raft *self, const trm_wal_snapshot *meta)
{
    if (meta->index <= self->snapshot.index)
        return;
    assert(meta->index <= self->applied && raft_log_has(&self->log, meta->index, meta->term));
    trm_raft_members members;
    raft_members_at(self, meta->index, &members);
    raft_snapshot_set(self, meta->index, meta->term, meta->data_bytes, &members);
    raft_compact(self);
}

/* ---- Leader: sending. ---- */

static bool fill_chunk(trm_raft *self, raft_peer *peer)
{
    trm_raft_message *message = raft_out(self);
    if (!message)
        return false;
    uint64_t left = self->snapshot.data_bytes - peer->snapshot_next;
    *message = raft_message_to(self, TRM_RAFT_SNAPSHOT, peer->node);
    message->snapshot = self->snapshot;
    message->offset = peer->snapshot_next;
    message->data_len = (uint32_t)(left < self->options.chunk_bytes ? left : self->options.chunk_bytes);
    peer->snapshot_next += message->data_len;
    peer->snapshot_all_sent = peer->snapshot_next == self->snapshot.data_bytes;
    if (peer->snapshot_all_sent)
        self->counts.snapshots_sent++;
    return true;
}

void raft_fill_chunks(trm_raft *self, raft_peer *peer)
{
    if (peer->snapshot_index != self->snapshot.index)
        raft_peer_send_snapshot(self, peer); /* a newer one: what was sent of the old is void */
    if (self->now_ns - peer->snapshot_moved_ns >= self->options.election_ns) {
        peer->snapshot_moved_ns = self->now_ns; /* lost, or the receiver is slow: from the gap on again */
        peer->snapshot_next = peer->snapshot_acked;
        peer->snapshot_all_sent = false;
    }
    if (self->now_ns < peer->snapshot_resume_ns)
        return;
    uint64_t ahead = (uint64_t)RAFT_CHUNKS_AHEAD * self->options.chunk_bytes;
    while (!peer->snapshot_all_sent && peer->snapshot_next - peer->snapshot_acked < ahead)
        if (!fill_chunk(self, peer))
            return;
}

void raft_on_snapshot_result(trm_raft *self, const trm_raft_message *message)
{
    raft_peer *peer = self->role == TRM_RAFT_LEADER ? raft_peer_find(self, message->from) : NULL;
    if (!peer) {
        raft_drop(self);
        return;
    }
    peer->heard_ns = self->now_ns;
    if (peer->mode != TRM_RAFT_SEND_SNAPSHOT || message->index != peer->snapshot_index ||
        message->index != self->snapshot.index || message->log_term != self->snapshot.term ||
        message->offset > self->snapshot.data_bytes)
        return;
    if (message->reject) { /* a gap, or it has begun again: go on from there, not at once */
        peer->snapshot_acked = peer->snapshot_next = message->offset;
        peer->snapshot_all_sent = false;
        peer->snapshot_moved_ns = self->now_ns;
        peer->snapshot_resume_ns = self->now_ns + self->options.heartbeat_ns;
        return;
    }
    if (message->offset > peer->snapshot_acked) {
        peer->snapshot_acked = message->offset;
        peer->snapshot_moved_ns = self->now_ns;
    }
    if (peer->snapshot_next < peer->snapshot_acked)
        peer->snapshot_next = peer->snapshot_acked;
    if (peer->snapshot_acked == self->snapshot.data_bytes)
        peer->snapshot_all_sent = true;
}

/* ---- Follower: receiving (InstallSnapshot, figure 5.3). ---- */

static void answer(trm_raft *self, const trm_raft_message *message, uint64_t offset, bool reject)
{
    trm_raft_message out = raft_message_to(self, TRM_RAFT_SNAPSHOT_RESULT, message->from);
    out.index = message->snapshot.index;
    out.log_term = message->snapshot.term;
    out.offset = offset;
    out.reject = reject;
    raft_send(self, &out, raft_hard_after(self));
}

static bool is_of_incoming(const trm_raft *self, const trm_raft_message *message)
{
    const raft_incoming *incoming = &self->incoming;
    return incoming->active && incoming->from == message->from &&
           incoming->index == message->snapshot.index && incoming->term == message->snapshot.term &&
           incoming->data_bytes == message->snapshot.data_bytes;
}

/* What the snapshot covers is here: there is nothing to install (figure 5.3, rule 6). */
static bool is_covered(trm_raft *self, const trm_raft_message *message)
{
    const trm_wal_snapshot *meta = &message->snapshot;
    if (meta->index > self->commit) {
        if (!raft_log_has(&self->log, meta->index, meta->term))
            return false;
        if (meta->index > self->verified) /* by the log matching property, all before it is the same */
            self->verified = meta->index;
        raft_set_commit(self, meta->index);
    }
    if (self->incoming.active)
        self->work.op = TRM_RAFT_SNAPSHOT_ABORT;
    self->incoming.active = false;
    self->ack_due = true;
    return true;
}

/* The entries have come from elsewhere, and the sender may be dead: no chunk would ever say so. */
void raft_snapshot_step(trm_raft *self)
{
    if (!self->incoming.active || self->installing || self->work.op != TRM_RAFT_SNAPSHOT_NOTHING ||
        self->incoming.index > self->commit)
        return;
    self->work.op = TRM_RAFT_SNAPSHOT_ABORT;
    self->incoming.active = false;
}

static trm_status begin(trm_raft *self, const trm_raft_message *message, trm_err *err)
{
    trm_raft_members members;
    trm_status status =
        trm_raft_members_decode(&members, message->snapshot.config, message->snapshot.config_len, err);
    if (status != TRM_OK) {
        self->counts.messages_refused++;
        return TRM_EPEER;
    }
    self->incoming = (raft_incoming){.active = true,
                                     .from = message->from,
                                     .index = message->snapshot.index,
                                     .term = message->snapshot.term,
                                     .data_bytes = message->snapshot.data_bytes,
                                     .members = members};
    return TRM_OK;
}

static void take_chunk(trm_raft *self, const trm_raft_message *message)
{
    raft_incoming *incoming = &self->incoming;
    self->work = (trm_raft_snapshot_work){
        .op = message->offset == 0 ? TRM_RAFT_SNAPSHOT_BEGIN : TRM_RAFT_SNAPSHOT_WRITE,
        .meta = message->snapshot,
        .offset = message->offset,
        .data = message->data,
        .data_len = message->data_len,
    };
    incoming->received = message->offset + message->data_len;
    if (incoming->received == incoming->data_bytes)
        self->work.install = self->installing = true;
    answer(self, message, incoming->received, false);
}

trm_status raft_on_snapshot(trm_raft *self, const trm_raft_message *message, trm_err *err)
{
    if (self->work.op != TRM_RAFT_SNAPSHOT_NOTHING) {
        raft_drop(self); /* the last chunk has not been taken yet; this one comes again */
        return TRM_OK;
    }
    if (self->installing) {
        if (is_of_incoming(self, message))
            answer(self, message, self->incoming.received, false);
        return TRM_OK;
    }
    if (is_covered(self, message))
        return TRM_OK;
    bool known = is_of_incoming(self, message);
    if (!known && self->incoming.active && self->incoming.from == message->from &&
        message->snapshot.index <= self->incoming.index) {
        raft_drop(self); /* older than the one that is on its way */
        return TRM_OK;
    }
    uint64_t expected = known ? self->incoming.received : 0;
    if (message->offset != expected) {
        answer(self, message, expected, message->offset > expected);
        return TRM_OK;
    }
    if (!known) {
        trm_status status = begin(self, message, err);
        if (status != TRM_OK)
            return status;
    }
    take_chunk(self, message);
    return TRM_OK;
}

void trm_raft_snapshot_installed(trm_raft *self, trm_status status)
{
    assert(self->installing && self->work.op == TRM_RAFT_SNAPSHOT_NOTHING);
    raft_incoming *incoming = &self->incoming;
    self->installing = false;
    incoming->active = false;
    if (status != TRM_OK) {
        trm_raft_message out = raft_message_to(self, TRM_RAFT_SNAPSHOT_RESULT, incoming->from);
        out.index = incoming->index;
        out.log_term = incoming->term;
        out.reject = true;
        raft_send(self, &out, raft_hard_after(self));
        return;
    }
    self->counts.snapshots_installed++;
    /* The log did not hold the last entry that it covers, so all of it is void (rule 7). */
    raft_log_reset(&self->log, incoming->index, incoming->term);
    self->base_members = self->members = incoming->members;
    self->members_index = incoming->index;
    self->commit = self->applied = self->verified = incoming->index;
    raft_snapshot_set(self, incoming->index, incoming->term, incoming->data_bytes, &incoming->members);
    self->ack_due = true;
}
