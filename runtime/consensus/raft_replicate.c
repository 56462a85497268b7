/* Replication, on both sides, and commitment (thesis 3.5, 3.6.2, 10.2.1). */
#include "runtime/consensus/raft_internal.h"

#include <assert.h>

/* What an entry's head takes in a message at the most, rounded up. */
#define ENTRY_HEAD_BYTES 16u
#define MESSAGE_PAYLOAD_MAX (TRM_RAFT_MESSAGE_BYTES_MAX - 1024u)

/* ---- Leader: its own log. ---- */

trm_status raft_append_own(trm_raft *self, trm_raft_entry_type type, const void *payload, size_t len,
                           trm_err *err)
{
    trm_raft_entry entry = {.index = raft_log_last(&self->log) + 1,
                            .term = self->term,
                            .type = (uint8_t)type,
                            .payload = payload,
                            .len = len};
    trm_status status = raft_log_put(&self->log, &entry, 1, err);
    if (status != TRM_OK)
        return status;
    self->uncommitted_bytes += raft_log_cost(len);
    if (type == TRM_RAFT_CONFIG)
        raft_members_refresh(self, entry.index);
    return TRM_OK;
}

trm_status trm_raft_propose(trm_raft *self, const void *command, size_t len, uint64_t *index, uint64_t *term,
                            trm_err *err)
{
    if (len > TRM_RAFT_ENTRY_BYTES_MAX)
        return trm_err_set(err, TRM_ELIMIT, "a command of %zu bytes is over the limit of %u", len,
                           TRM_RAFT_ENTRY_BYTES_MAX);
    if (self->role != TRM_RAFT_LEADER)
        return trm_err_set(err, TRM_EFENCED, "this node does not lead");
    if (self->disk_full)
        return trm_err_set(err, TRM_ENOSPACE, "the replicated log's disk is full");
    if (self->transfer_to != TRM_RAFT_NONE)
        return trm_err_set(err, TRM_AGAIN, "leadership is being handed over");
    size_t cost = raft_log_cost(len);
    if ((self->uncommitted_bytes > 0 &&
         self->uncommitted_bytes + cost > self->options.uncommitted_bytes_max) ||
        self->log.bytes + cost > self->options.log_bytes_max ||
        raft_log_last(&self->log) >= TRM_RAFT_INDEX_MAX)
        return trm_err_set(err, TRM_AGAIN, "too much is proposed and not committed, or kept in memory");
    trm_status status = raft_append_own(self, TRM_RAFT_COMMAND, command, len, err);
    if (status != TRM_OK)
        return status;
    *index = raft_log_last(&self->log);
    *term = self->term;
    return TRM_OK;
}

/* ---- Commitment. ---- */

void raft_set_commit(trm_raft *self, uint64_t commit)
{
    if (commit <= self->commit)
        return;
    if (self->role == TRM_RAFT_LEADER)
        for (uint64_t i = self->commit + 1; i <= commit; i++)
            self->uncommitted_bytes -= raft_log_cost(raft_log_at(&self->log, i)->len);
    self->commit = commit;
}

/* Only entries of its own term does a leader commit by counting; those before are committed
 * with them (3.6.2, figure 3.7). It counts itself with what is durable (10.2.1). */
void raft_advance_commit(trm_raft *self)
{
    uint64_t match = raft_quorum_match(self, self->log.durable);
    if (match <= self->commit || raft_log_term(&self->log, match) != self->term)
        return;
    raft_set_commit(self, match);
    raft_members_committed(self);
}

void raft_on_durable(trm_raft *self)
{
    uint64_t can_tell = self->verified < self->log.durable ? self->verified : self->log.durable;
    if (self->role == TRM_RAFT_LEADER)
        raft_advance_commit(self);
    else if (can_tell > self->acked)
        self->ack_due = true;
}

/* ---- Follower (AppendEntries, figure 3.1). ---- */

static trm_status contradiction(trm_raft *self, const trm_raft_message *message, uint64_t index, trm_err *err)
{
    self->counts.messages_refused++;
    return trm_err_set(err, TRM_EPEER,
                       "node %llu sends another entry %llu than the one that is committed here",
                       (unsigned long long)message->from, (unsigned long long)index);
}

/* The last entry here that can be the same as the leader's: not behind the one that it
 * asked about, and not of a later term than that one. */
static void reject(trm_raft *self, const trm_raft_message *message)
{
    uint64_t last = raft_log_last(&self->log);
    uint64_t from = message->index < last ? message->index : last;
    trm_raft_message answer = raft_message_to(self, TRM_RAFT_APPEND_RESULT, message->from);
    answer.reject = true;
    answer.index = message->index;
    answer.context = message->context;
    answer.hint_index = raft_log_find_term(&self->log, from, message->log_term);
    answer.hint_term = raft_log_term(&self->log, answer.hint_index);
    raft_send(self, &answer, raft_hard_after(self));
}

/* Finds the first entry of the message that is not here. TRM_EPEER: one of them is here,
 * committed or verified in this term, and another. */
static trm_status find_new(trm_raft *self, const trm_raft_message *message, uint32_t *first, trm_err *err)
{
    uint64_t last = raft_log_last(&self->log);
    for (*first = 0; *first < message->entries_len; (*first)++) {
        const trm_raft_entry *entry = &message->entries[*first];
        if (entry->index > last)
            return TRM_OK;
        if (entry->index < self->log.base_index || raft_log_term(&self->log, entry->index) == entry->term)
            continue;
        return entry->index <= self->verified ? contradiction(self, message, entry->index, err) : TRM_OK;
    }
    return TRM_OK;
}

/* A membership that cannot be read must not get into the log. */
static bool configs_are_sound(const trm_raft_message *message, uint32_t from)
{
    trm_raft_members members;
    for (uint32_t i = from; i < message->entries_len; i++) {
        const trm_raft_entry *entry = &message->entries[i];
        if (entry->type == TRM_RAFT_CONFIG &&
            trm_raft_members_decode(&members, entry->payload, entry->len, NULL) != TRM_OK)
            return false;
    }
    return true;
}

/* How many of the new entries there is room for. */
static uint32_t that_fit(const trm_raft *self, const trm_raft_message *message, uint32_t from)
{
    size_t bytes = self->log.bytes;
    uint32_t i = from;
    while (i < message->entries_len &&
           (bytes += raft_log_cost(message->entries[i].len)) <= self->options.log_bytes_max)
        i++;
    return i - from;
}

static trm_status append(trm_raft *self, const trm_raft_message *message, uint32_t *taken, trm_err *err)
{
    uint32_t first;
    trm_status status = find_new(self, message, &first, err);
    if (status != TRM_OK)
        return status;
    *taken = first;
    if (first == message->entries_len)
        return TRM_OK;
    if (!configs_are_sound(message, first)) {
        self->counts.messages_refused++;
        return trm_err_set(err, TRM_EPEER, "node %llu sends a membership that cannot be read",
                           (unsigned long long)message->from);
    }
    uint32_t len = that_fit(self, message, first);
    if (len == 0)
        return TRM_OK;
    status = raft_log_put(&self->log, message->entries + first, len, err);
    if (status != TRM_OK)
        return status;
    *taken = first + len;
    raft_members_refresh(self, message->entries[first].index);
    return TRM_OK;
}

trm_status raft_on_append(trm_raft *self, const trm_raft_message *message, trm_err *err)
{
    if (message->context > self->ack_context)
        self->ack_context = message->context;
    if (self->installing) { /* the log is being replaced: only say that this node is there */
        self->ack_due = true;
        return TRM_OK;
    }
    uint64_t before = message->index;
    if (before > raft_log_last(&self->log) ||
        (before > self->commit && raft_log_term(&self->log, before) != message->log_term)) {
        reject(self, message);
        return TRM_OK;
    }
    if (before == self->commit && before > 0 && raft_log_term(&self->log, before) != message->log_term)
        return contradiction(self, message, before, err);
    uint32_t taken = 0;
    trm_status status = append(self, message, &taken, err);
    if (status != TRM_OK)
        return status;
    if (before + taken > self->verified)
        self->verified = before + taken;
    /* Rule 5: not behind the last entry that this leader is known to have too; what lies
     * there may be of another. */
    raft_set_commit(self, message->commit < self->verified ? message->commit : self->verified);
    /* What is not durable yet is acknowledged when it is. */
    bool will_be_told = message->entries_len > 0 && self->verified > self->log.durable;
    self->ack_due |= !will_be_told;
    return TRM_OK;
}

/* One answer to all that has arrived: what is as the leader's and durable here. */
void raft_fill_ack(trm_raft *self)
{
    if (!self->ack_due || self->leader == TRM_RAFT_NONE || raft_hard_after(self) != 0)
        return;
    trm_raft_message *answer = raft_out(self);
    if (!answer)
        return;
    *answer = raft_message_to(self, TRM_RAFT_APPEND_RESULT, self->leader);
    answer->index = self->verified < self->log.durable ? self->verified : self->log.durable;
    answer->context = self->ack_context;
    self->acked = answer->index;
    self->ack_due = false;
}

/* ---- Leader: answers. ---- */

/* The place to go on from: the last entry here, not behind the follower's hint, that is not
 * of a later term than what lies there (3.3's shortcut, by terms, on both sides). */
static void on_rejection(trm_raft *self, raft_peer *peer, const trm_raft_message *message)
{
    self->counts.appends_rejected++;
    bool is_stale = peer->mode == TRM_RAFT_SEND_SNAPSHOT || message->index <= peer->match ||
                    (peer->mode == TRM_RAFT_PROBE && message->index != peer->next - 1);
    if (is_stale)
        return;
    uint64_t last = raft_log_last(&self->log);
    uint64_t hint = message->hint_index < message->index ? message->hint_index : message->index - 1;
    if (hint > last)
        hint = last;
    if (hint > self->log.base_index)
        hint = raft_log_find_term(&self->log, hint, message->hint_term);
    raft_peer_probe(peer, hint + 1);
}

static void on_acknowledgement(trm_raft *self, raft_peer *peer, uint64_t match)
{
    bool moved = match > peer->match;
    if (moved)
        peer->match = match;
    if (peer->next <= peer->match)
        peer->next = peer->match + 1;
    if (peer->mode == TRM_RAFT_SEND_SNAPSHOT) {
        if (peer->match < self->log.base_index)
            return;
        raft_peer_replicate(peer);
    } else if (peer->mode == TRM_RAFT_PROBE) {
        raft_peer_replicate(peer);
    }
    raft_peer_window_free(self, peer, peer->match);
    if (moved && peer->voter)
        raft_advance_commit(self);
}

trm_status raft_on_append_result(trm_raft *self, const trm_raft_message *message, trm_err *err)
{
    raft_peer *peer = self->role == TRM_RAFT_LEADER ? raft_peer_find(self, message->from) : NULL;
    if (!peer) {
        raft_drop(self);
        return TRM_OK;
    }
    if (!message->reject && message->index > raft_log_last(&self->log)) {
        self->counts.messages_refused++;
        return trm_err_set(err, TRM_EPEER, "node %llu acknowledges entry %llu, which is not there",
                           (unsigned long long)message->from, (unsigned long long)message->index);
    }
    peer->heard_ns = self->now_ns;
    if (message->context > peer->round && message->context <= self->round) {
        peer->round = message->context;
        raft_reads_confirm(self);
    }
    if (message->reject)
        on_rejection(self, peer, message);
    else
        on_acknowledgement(self, peer, message->index);
    return TRM_OK;
}

/* ---- Leader: what goes out. ---- */

static uint32_t entries_that_fit(const trm_raft *self, uint64_t from, size_t *bytes)
{
    uint64_t last = raft_log_last(&self->log);
    size_t in_message = 0;
    uint32_t len = 0;
    *bytes = 0;
    for (uint64_t i = from; i <= last && len < TRM_RAFT_MESSAGE_ENTRIES_MAX; i++, len++) {
        size_t payload = raft_log_at(&self->log, i)->len;
        in_message += payload + ENTRY_HEAD_BYTES;
        if (len > 0 &&
            (*bytes + payload > self->options.append_bytes_max || in_message > MESSAGE_PAYLOAD_MAX))
            break;
        *bytes += payload;
    }
    return len;
}

/* An APPEND from peer->next on; of no entries it is a heartbeat. */
static bool fill_append(trm_raft *self, raft_peer *peer, uint32_t entries_len)
{
    trm_raft_message *message = raft_out(self);
    if (!message)
        return false;
    *message = raft_message_to(self, TRM_RAFT_APPEND, peer->node);
    if (peer->mode != TRM_RAFT_SEND_SNAPSHOT) {
        message->index = peer->next - 1;
        message->log_term = raft_log_term(&self->log, peer->next - 1);
    } /* else the entry before is no. 0, which everybody has: only a sign of life */
    message->commit = self->commit;
    message->context = self->round;
    if (entries_len > 0)
        message->entries = raft_log_at(&self->log, peer->next);
    message->entries_len = entries_len;
    peer->heartbeat_due = false;
    peer->commit_told = self->commit;
    return true;
}

static void fill_entries(trm_raft *self, raft_peer *peer)
{
    while (peer->next <= raft_log_last(&self->log) &&
           !(peer->mode == TRM_RAFT_PROBE ? peer->probe_sent : raft_peer_window_full(self, peer))) {
        size_t bytes;
        uint32_t len = entries_that_fit(self, peer->next, &bytes);
        if (!fill_append(self, peer, len))
            return;
        if (peer->mode == TRM_RAFT_PROBE) {
            peer->probe_sent = true;
            return;
        }
        peer->next += len;
        raft_peer_window_add(self, peer, peer->next - 1, bytes);
    }
}

void raft_fill_appends(trm_raft *self)
{
    for (uint32_t i = 0; i < self->peers_len; i++) {
        raft_peer *peer = &self->peers[i];
        if (peer->mode != TRM_RAFT_SEND_SNAPSHOT && peer->next <= self->log.base_index)
            raft_peer_send_snapshot(self, peer);
        if (peer->mode == TRM_RAFT_SEND_SNAPSHOT)
            raft_fill_chunks(self, peer);
        else
            fill_entries(self, peer);
        bool news = peer->mode == TRM_RAFT_REPLICATE && peer->commit_told < self->commit;
        if (peer->heartbeat_due || news)
            fill_append(self, peer, 0);
    }
}
