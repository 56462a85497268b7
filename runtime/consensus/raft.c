/* See raft.h: creation, terms and roles, receive, tick, take. */
#include "runtime/consensus/raft_internal.h"

#include "runtime/random.h"

#include <assert.h>
#include <stdlib.h>

/* ---- Creation. ---- */

#define DEFAULT(field, value) self->options.field = self->options.field ? self->options.field : (value)

static void fill_options(trm_raft *self, const trm_raft_options *options)
{
    self->options = *options;
    DEFAULT(election_ns, 1000000000ull);
    DEFAULT(heartbeat_ns, self->options.election_ns / 10);
    DEFAULT(window_messages, 64);
    DEFAULT(window_bytes, 1u << 20);
    DEFAULT(append_bytes_max, 64u << 10);
    DEFAULT(chunk_bytes, 128u << 10);
    DEFAULT(uncommitted_bytes_max, 16u << 20);
    DEFAULT(log_bytes_max, 256u << 20);
    DEFAULT(keep_entries, 4096);
    assert(options->node != TRM_RAFT_NONE);
    assert(self->options.heartbeat_ns > 0 && self->options.heartbeat_ns <= self->options.election_ns / 2);
    assert(self->options.window_messages <= TRM_RAFT_WINDOW_MESSAGES_MAX);
    assert(self->options.chunk_bytes <= TRM_RAFT_CHUNK_BYTES_MAX);
}

static trm_status load_members(trm_raft *self, const trm_raft_boot *boot, trm_err *err)
{
    if (boot->snapshot.index > 0) {
        trm_status status = trm_raft_members_decode(&self->base_members, boot->snapshot.config,
                                                    boot->snapshot.config_len, err);
        if (status != TRM_OK) {
            trm_err_wrap(err, "the snapshot of the replicated log");
            return status;
        }
    } else if (boot->first_members) {
        self->base_members = *boot->first_members;
    }
    self->members = self->base_members;
    self->members_index = boot->snapshot.index;
    raft_snapshot_set(self, boot->snapshot.index, boot->snapshot.term, boot->snapshot.data_bytes,
                      &self->base_members);
    return TRM_OK;
}

static trm_status check_entry(const trm_raft *self, const trm_raft_entry *entry, trm_err *err)
{
    uint64_t last = raft_log_last(&self->log);
    trm_raft_members members;
    if (entry->index != last + 1 || entry->index > TRM_RAFT_INDEX_MAX ||
        entry->term < raft_log_term(&self->log, last) || entry->term > self->term ||
        entry->type < TRM_RAFT_COMMAND || entry->type > TRM_RAFT_CONFIG ||
        entry->len > TRM_RAFT_ENTRY_BYTES_MAX)
        return trm_err_set(
            err, TRM_ECORRUPT,
            "the replicated log: entry %llu of term %llu does not follow entry %llu in term %llu",
            (unsigned long long)entry->index, (unsigned long long)entry->term, (unsigned long long)last,
            (unsigned long long)self->term);
    if (entry->type != TRM_RAFT_CONFIG)
        return TRM_OK;
    return trm_raft_members_decode(&members, entry->payload, entry->len, err);
}

static trm_status load_entries(trm_raft *self, const trm_raft_boot *boot, trm_err *err)
{
    for (size_t i = 0; i < boot->entries_len; i++) {
        trm_status status = check_entry(self, &boot->entries[i], err);
        if (status == TRM_OK)
            status = raft_log_put(&self->log, &boot->entries[i], 1, err);
        if (status != TRM_OK)
            return status;
    }
    self->log.handed = self->log.durable = raft_log_last(&self->log);
    raft_members_refresh(self, boot->snapshot.index + 1);
    return TRM_OK;
}

/* (The commit index is only ever stored of entries that were durable before it.) */
static trm_status load(trm_raft *self, const trm_raft_boot *boot, trm_err *err)
{
    if (boot->hard.term > TRM_RAFT_INDEX_MAX || boot->snapshot.index > TRM_RAFT_INDEX_MAX ||
        boot->snapshot.term > boot->hard.term || (boot->snapshot.index == 0) != (boot->snapshot.term == 0))
        return trm_err_set(err, TRM_ECORRUPT,
                           "the replicated log: its snapshot is of term %llu, itself of %llu",
                           (unsigned long long)boot->snapshot.term, (unsigned long long)boot->hard.term);
    self->term = boot->hard.term;
    self->vote = boot->hard.vote;
    raft_log_init(&self->log, boot->snapshot.index, boot->snapshot.term);
    trm_status status = load_members(self, boot, err);
    if (status == TRM_OK)
        status = load_entries(self, boot, err);
    if (status != TRM_OK)
        return status;
    uint64_t last = raft_log_last(&self->log);
    self->commit = boot->hard.commit < last ? boot->hard.commit : last;
    if (self->commit < boot->snapshot.index)
        self->commit = boot->snapshot.index;
    self->applied = boot->snapshot.index;
    self->hard_commit = self->verified = self->commit;
    return TRM_OK;
}

trm_status trm_raft_create(trm_raft **out, const trm_raft_options *options, const trm_raft_boot *boot,
                           uint64_t now_ns, trm_err *err)
{
    trm_raft *self = calloc(1, sizeof *self);
    if (!self)
        return trm_err_set(err, TRM_ENOMEM, "no memory for a node of the replicated log");
    fill_options(self, options);
    self->random = options->seed;
    /* Answers to reads of an earlier life must not be taken for those of this one. */
    uint64_t other = ~options->seed;
    self->read_context = trm_random_next(&other) >> 4; /* well below TRM_RAFT_INDEX_MAX */
    self->now_ns = now_ns;
    self->role = self->role_told = TRM_RAFT_FOLLOWER;
    self->leader = self->leader_told = self->transfer_to = TRM_RAFT_NONE;
    self->heard_ns = RAFT_NEVER;
    self->transfer_ended = TRM_AGAIN;
    self->flights = calloc((size_t)TRM_RAFT_NODES_MAX * self->options.window_messages, sizeof *self->flights);
    trm_status status = self->flights ? load(self, boot, err)
                                      : trm_err_set(err, TRM_ENOMEM, "no memory for a node's windows");
    if (status != TRM_OK) {
        trm_raft_destroy(self);
        return status;
    }
    self->term_told = self->term;
    raft_reset_election_timer(self);
    *out = self;
    return TRM_OK;
}

void trm_raft_destroy(trm_raft *self)
{
    if (!self)
        return;
    raft_log_close(&self->log);
    free(self->flights);
    free(self);
}

/* ---- Terms and roles. ---- */

void raft_set_hard(trm_raft *self, uint64_t term, uint64_t vote)
{
    assert(term >= self->term);
    if (term > self->term) {
        self->waited_for = 0;
        self->acked = 0;
        self->ack_due = false;
        self->ack_context = 0;
        /* What waits for the disk belongs to the old term. */
        uint32_t kept = 0;
        for (uint32_t i = 0; i < self->pending_len; i++)
            if (self->pending[i].after <= self->persisted)
                self->pending[kept++] = self->pending[i];
        self->pending_len = kept;
    }
    self->term = term;
    self->vote = vote;
    self->hard_dirty = true;
}

uint64_t raft_hard_after(const trm_raft *self)
{
    if (self->hard_dirty)
        return self->sequence + 1;
    return self->hard_sequence > self->persisted ? self->hard_sequence : 0;
}

/* Randomised (3.4), so that votes are seldom split. A whole timeout, so that a leader that is only slow
 * is not disturbed; a part of one when it is known to be dead, as all hear of that together: votes that
 * were split, or refused by who had not heard of it yet, are soon asked for again. */
void raft_reset_election_timer(trm_raft *self)
{
    uint64_t least_ns = self->options.election_ns;
    if (self->leader != TRM_RAFT_NONE)
        self->hurries = self->waited_for = 0;
    if (self->hurries > 0) {
        self->hurries--;
        least_ns = (least_ns + RAFT_HURRY_PART - 1) / RAFT_HURRY_PART;
    }
    self->election_at_ns = self->now_ns + least_ns + trm_random_next(&self->random) % least_ns;
}

void raft_postpone_election(trm_raft *self)
{
    uint64_t least_ns = (self->options.election_ns + RAFT_HURRY_PART - 1) / RAFT_HURRY_PART;
    uint64_t at = self->now_ns + least_ns + trm_random_next(&self->random) % least_ns;
    if (at > self->election_at_ns)
        self->election_at_ns = at;
}

void raft_become_follower(trm_raft *self, uint64_t term, uint64_t leader)
{
    bool is_new_term = term > self->term, led = self->role == TRM_RAFT_LEADER;
    if (is_new_term || self->role != TRM_RAFT_FOLLOWER || leader != self->leader)
        raft_reads_fail(self);
    if (is_new_term)
        raft_set_hard(self, term, TRM_RAFT_NONE);
    self->role = TRM_RAFT_FOLLOWER;
    self->leader = leader;
    if (is_new_term || led) {
        self->verified = self->commit;
        self->heard_ns = RAFT_NEVER;
    }
    if (led) {
        raft_transfer_end(self, TRM_OK);
        self->peers_len = 0;
        self->uncommitted_bytes = 0;
        raft_reset_election_timer(self);
    }
}

/* ---- Hints. ---- */

const raft_hint *raft_hint_find(const trm_raft *self, uint64_t node)
{
    for (uint32_t i = 0; i < self->hints_len; i++)
        if (self->hints[i].node == node)
            return &self->hints[i];
    return NULL;
}

bool raft_believed_alive(const trm_raft *self, uint64_t node)
{
    const raft_hint *hint = raft_hint_find(self, node);
    return !hint || hint->alive;
}

static void remember_hint(trm_raft *self, uint64_t node, bool alive, uint32_t preference)
{
    raft_hint *hint = (raft_hint *)raft_hint_find(self, node);
    if (!hint && self->hints_len == RAFT_HINTS_MAX) {
        memmove(self->hints, self->hints + 1, (RAFT_HINTS_MAX - 1) * sizeof *self->hints);
        self->hints_len--;
    }
    if (!hint)
        hint = &self->hints[self->hints_len++];
    *hint = (raft_hint){node, alive, preference};
}

void trm_raft_node_hint(trm_raft *self, uint64_t node, bool alive, uint32_t preference, uint64_t now_ns)
{
    if (now_ns > self->now_ns)
        self->now_ns = now_ns;
    remember_hint(self, node, alive, preference);
    if (alive || node != self->leader || self->role != TRM_RAFT_FOLLOWER)
        return;
    /* The leader is gone: do not wait for its silence. A random part of the time stays, so that not
     * all call at once; who has not heard of the death may still refuse. */
    raft_become_follower(self, self->term, TRM_RAFT_NONE);
    self->heard_ns = RAFT_NEVER;
    self->hurries = RAFT_HURRIES_MAX;
    uint64_t at = self->now_ns + trm_random_next(&self->random) % (self->options.heartbeat_ns + 1);
    if (at < self->election_at_ns)
        self->election_at_ns = at;
}

/* ---- Messages, small ones. ---- */

trm_raft_message raft_message_to(const trm_raft *self, trm_raft_message_type type, uint64_t to)
{
    return (trm_raft_message){
        .type = type, .group = self->options.group, .from = self->options.node, .to = to, .term = self->term};
}

void raft_send(trm_raft *self, const trm_raft_message *message, uint64_t after)
{
    if (self->pending_len == RAFT_PENDING_MAX) {
        self->counts.results_lost++;
        return;
    }
    self->pending[self->pending_len++] = (raft_pending){after, *message};
}

trm_raft_message *raft_out(trm_raft *self)
{
    if (self->out_len == TRM_RAFT_UPDATE_MESSAGES_MAX) {
        self->out_more = true;
        return NULL;
    }
    return &self->out[self->out_len++];
}

void raft_drop(trm_raft *self)
{
    self->counts.messages_dropped++;
}

static void fill_pending(trm_raft *self)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < self->pending_len; i++) {
        trm_raft_message *out = self->pending[i].after <= self->persisted ? raft_out(self) : NULL;
        if (out)
            *out = self->pending[i].message;
        else
            self->pending[kept++] = self->pending[i];
    }
    self->pending_len = kept;
}

/* ---- Receive. ---- */

/* A sender of an older term learns of this one: a leader that was deposed steps down, and a
 * node that waits in a term of its own is found (3.3, and without a vote being lost: 9.6). */
static void answer_old_term(trm_raft *self, const trm_raft_message *message)
{
    trm_raft_message answer = {0};
    switch (message->type) {
    case TRM_RAFT_PRE_VOTE:
        answer = raft_message_to(self, TRM_RAFT_PRE_VOTE_RESULT, message->from);
        break;
    case TRM_RAFT_VOTE:
        answer = raft_message_to(self, TRM_RAFT_VOTE_RESULT, message->from);
        break;
    case TRM_RAFT_APPEND:
    case TRM_RAFT_SNAPSHOT:
        answer = raft_message_to(self, TRM_RAFT_APPEND_RESULT, message->from);
        break;
    case TRM_RAFT_READ:
        answer = raft_message_to(self, TRM_RAFT_READ_RESULT, message->from);
        answer.context = message->context;
        break;
    default:
        raft_drop(self);
        return;
    }
    answer.reject = true;
    raft_send(self, &answer, raft_hard_after(self));
}

/* Terms (3.3). False: the message is not to be looked at any further. */
static bool take_term(trm_raft *self, const trm_raft_message *message)
{
    trm_raft_message_type type = message->type;
    if (message->term < self->term) {
        answer_old_term(self, message);
        return false;
    }
    if (message->term == self->term || type == TRM_RAFT_PRE_VOTE ||
        (type == TRM_RAFT_PRE_VOTE_RESULT && !message->reject))
        return true;
    if (type == TRM_RAFT_VOTE && !message->force && raft_is_sticky(self)) {
        raft_drop(self);
        return false;
    }
    bool from_leader = type == TRM_RAFT_APPEND || type == TRM_RAFT_SNAPSHOT;
    raft_become_follower(self, message->term, from_leader ? message->from : TRM_RAFT_NONE);
    return true;
}

/* The sender leads in this term. TRM_EPEER: so does another. */
static trm_status follow(trm_raft *self, const trm_raft_message *message, trm_err *err)
{
    if (self->role == TRM_RAFT_LEADER || (self->leader != TRM_RAFT_NONE && self->leader != message->from)) {
        self->counts.messages_refused++;
        return trm_err_set(err, TRM_EPEER, "nodes %llu and %llu both lead in term %llu",
                           (unsigned long long)message->from, (unsigned long long)self->leader,
                           (unsigned long long)self->term);
    }
    if (self->role != TRM_RAFT_FOLLOWER || self->leader != message->from)
        raft_become_follower(self, self->term, message->from);
    self->heard_ns = self->now_ns;
    self->counted_on = false;
    raft_reset_election_timer(self);
    return TRM_OK;
}

static trm_status handle(trm_raft *self, const trm_raft_message *message, trm_err *err)
{
    trm_status status;
    switch (message->type) {
    case TRM_RAFT_PRE_VOTE:
    case TRM_RAFT_VOTE:
        raft_on_vote(self, message);
        return TRM_OK;
    case TRM_RAFT_PRE_VOTE_RESULT:
    case TRM_RAFT_VOTE_RESULT:
        return raft_on_vote_result(self, message, err);
    case TRM_RAFT_APPEND:
        status = follow(self, message, err);
        return status == TRM_OK ? raft_on_append(self, message, err) : status;
    case TRM_RAFT_SNAPSHOT:
        status = follow(self, message, err);
        return status == TRM_OK ? raft_on_snapshot(self, message, err) : status;
    case TRM_RAFT_APPEND_RESULT:
        return raft_on_append_result(self, message, err);
    case TRM_RAFT_SNAPSHOT_RESULT:
        raft_on_snapshot_result(self, message);
        return TRM_OK;
    case TRM_RAFT_TIMEOUT_NOW:
        return raft_on_timeout_now(self, message, err);
    case TRM_RAFT_READ:
        raft_on_read(self, message);
        return TRM_OK;
    case TRM_RAFT_READ_RESULT:
        raft_on_read_result(self, message);
        return TRM_OK;
    }
    raft_drop(self);
    return TRM_OK;
}

trm_status trm_raft_receive(trm_raft *self, const trm_raft_message *message, uint64_t now_ns, trm_err *err)
{
    if (now_ns > self->now_ns)
        self->now_ns = now_ns;
    if (message->group != self->options.group || message->to != self->options.node ||
        message->from == self->options.node || message->from == TRM_RAFT_NONE || message->term == 0 ||
        message->term > TRM_RAFT_INDEX_MAX) {
        raft_drop(self);
        return TRM_OK;
    }
    if (!take_term(self, message))
        return TRM_OK;
    return handle(self, message, err);
}

/* ---- Tick. ---- */

static trm_status tick_leader(trm_raft *self, trm_err *err)
{
    raft_transfer_tick(self);
    if (self->now_ns < self->heartbeat_at_ns)
        return TRM_OK;
    self->heartbeat_at_ns = self->now_ns + self->options.heartbeat_ns;
    /* A leader that has lost its quorum does not keep others from electing one (6.2). */
    if (!self->options.no_check_quorum && !raft_quorum_active(self)) {
        self->counts.stepped_down++;
        raft_become_follower(self, self->term, TRM_RAFT_NONE);
        return TRM_OK;
    }
    for (uint32_t i = 0; i < self->peers_len; i++)
        self->peers[i].heartbeat_due = true;
    return raft_mend(self, err);
}

trm_status trm_raft_tick(trm_raft *self, uint64_t now_ns, trm_err *err)
{
    if (now_ns > self->now_ns)
        self->now_ns = now_ns;
    raft_reads_expire(self);
    if (self->role == TRM_RAFT_LEADER)
        return tick_leader(self, err);
    if (self->now_ns >= self->election_at_ns)
        return raft_campaign(self, false, err);
    return TRM_OK;
}

trm_status trm_raft_campaign(trm_raft *self, uint64_t now_ns, trm_err *err)
{
    if (now_ns > self->now_ns)
        self->now_ns = now_ns;
    return self->role == TRM_RAFT_FOLLOWER ? raft_campaign(self, false, err) : TRM_OK;
}

uint64_t trm_raft_wake_ns(const trm_raft *self)
{
    uint64_t wake_ns = self->election_at_ns;
    if (self->role == TRM_RAFT_LEADER) {
        wake_ns = self->heartbeat_at_ns;
        if (self->transfer_to != TRM_RAFT_NONE && self->transfer_until_ns < wake_ns)
            wake_ns = self->transfer_until_ns;
    }
    uint64_t reads_ns = raft_reads_wake_ns(self);
    return reads_ns < wake_ns ? reads_ns : wake_ns;
}

/* ---- The disk. ---- */

void trm_raft_persisted(trm_raft *self, uint64_t sequence)
{
    assert(sequence <= self->sequence);
    if (sequence <= self->persisted)
        return;
    self->persisted = sequence;
    if (raft_log_written(&self->log, sequence))
        raft_on_durable(self);
    if (raft_hard_after(self) == 0)
        raft_own_vote_is_durable(self);
}

void trm_raft_disk_full(trm_raft *self, bool full)
{
    self->disk_full = full;
}

/* ---- Take. ---- */

static void take_writes(trm_raft *self, trm_raft_update *out)
{
    uint64_t sequence = self->sequence + 1;
    out->entries_len = raft_log_hand_out(&self->log, sequence, &out->entries);
    if (out->entries_len == 0 && !self->hard_dirty)
        return;
    self->sequence = out->persist_sequence = sequence;
    /* The commit index alone is worth no write (it is found again, figure 3.1), but goes with one.
     * Of entries that are not durable it says nothing: when a crash tears the write, the log
     * may still end in the tail that they were to replace. */
    uint64_t commit = self->commit < self->log.durable ? self->commit : self->log.durable;
    out->hard_changed = self->hard_dirty || commit != self->hard_commit;
    out->hard = (trm_wal_hard_state){self->term, self->vote, commit};
    if (self->hard_dirty)
        self->hard_sequence = sequence;
    self->hard_dirty = false;
    self->hard_commit = commit;
}

static void take_applies(trm_raft *self, trm_raft_update *out)
{
    uint64_t to = self->commit < self->log.durable ? self->commit : self->log.durable;
    if (self->installing || to <= self->applied)
        return;
    out->apply = raft_log_at(&self->log, self->applied + 1);
    out->apply_len = (size_t)(to - self->applied);
    self->applied = to;
}

static void take_messages(trm_raft *self, trm_raft_update *out)
{
    self->out_len = 0;
    self->out_more = false;
    if (self->role == TRM_RAFT_LEADER) {
        raft_reads_begin_round(self);
        raft_reads_confirm(self);
        raft_transfer_step(self);
    }
    fill_pending(self);
    if (self->role == TRM_RAFT_LEADER)
        raft_fill_appends(self);
    else
        raft_fill_ack(self);
    out->messages = self->out;
    out->messages_len = self->out_len;
    out->more = self->out_more;
}

static void take_reads(trm_raft *self, trm_raft_update *out)
{
    raft_reads_finish(self);
    out->reads = self->reads_done;
    out->reads_len = self->reads_done_len;
    self->reads_done_len = 0; /* the array stays as it is until the next event */
}

static void take_role(trm_raft *self, trm_raft_update *out)
{
    out->role_changed =
        self->role != self->role_told || self->leader != self->leader_told || self->term != self->term_told;
    self->role_told = self->role;
    self->leader_told = self->leader;
    self->term_told = self->term;
    out->transfer = self->transfer_ended;
    self->transfer_ended = TRM_AGAIN;
}

bool trm_raft_take(trm_raft *self, trm_raft_update *out)
{
    *out = (trm_raft_update){.transfer = TRM_AGAIN};
    take_writes(self, out);
    take_messages(self, out);
    take_applies(self, out);
    take_reads(self, out);
    take_role(self, out);
    raft_snapshot_step(self);
    out->snapshot = self->work;
    self->work = (trm_raft_snapshot_work){0};
    return out->persist_sequence != 0 || out->messages_len > 0 || out->apply_len > 0 || out->reads_len > 0 ||
           out->snapshot.op != TRM_RAFT_SNAPSHOT_NOTHING || out->transfer != TRM_AGAIN || out->role_changed;
}

/* ---- What there is to see. ---- */

void trm_raft_state_get(const trm_raft *self, trm_raft_state *out)
{
    bool leads = self->role == TRM_RAFT_LEADER, sending = false;
    for (uint32_t i = 0; leads && i < self->peers_len; i++)
        sending |= self->peers[i].mode == TRM_RAFT_SEND_SNAPSHOT;
    *out = (trm_raft_state){
        .node = self->options.node,
        .role = self->role,
        .term = self->term,
        .vote = self->vote,
        .leader = self->leader,
        .commit = self->commit,
        .applied = self->applied,
        .first = self->log.base_index + 1,
        .last = raft_log_last(&self->log),
        .durable = self->log.durable,
        .snapshot_index = self->snapshot.index,
        .log_bytes = self->log.bytes,
        .uncommitted_bytes = self->uncommitted_bytes,
        .transfer_to = self->transfer_to,
        .term_committed = leads && self->commit >= self->term_start,
        .change_pending = self->members_index > self->commit,
        .sending_snapshot = sending,
        .installing = self->installing,
        .counts = self->counts,
    };
}

const trm_raft_members *trm_raft_members_now(const trm_raft *self)
{
    return &self->members;
}

bool trm_raft_entry_at(const trm_raft *self, uint64_t index, trm_raft_entry *out)
{
    if (index <= self->log.base_index || index > raft_log_last(&self->log))
        return false;
    *out = *raft_log_at(&self->log, index);
    return true;
}

const char *trm_raft_role_name(trm_raft_role role)
{
    static const char *const names[] = {"?", "follower", "pre-candidate", "candidate", "leader"};
    return role >= TRM_RAFT_FOLLOWER && role <= TRM_RAFT_LEADER ? names[role] : names[0];
}
