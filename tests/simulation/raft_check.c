/* What must hold after every event: the properties of the Raft paper's figure 3, and what
 * this implementation promises beyond them.
 *
 * All is compared by hashes of whole prefixes: two logs have the same hash at an index only
 * if they have the same entries up to it. So log matching is one comparison per entry that
 * comes into a log, and leader completeness one per election. */
#include "tests/simulation/raft_world.h"

#include <inttypes.h>
#include <string.h>

#define UNKNOWN UINT64_MAX
#define ENTRY_SLOTS (4 * LOG_MAX)

/* ---- Every entry that was ever in a log. ---- */

static size_t entry_slot(const truth *self, uint64_t index, uint64_t term)
{
    size_t at = (size_t)((index * 0x9e3779b97f4a7c15ull) ^ (term * 0xc2b2ae3d27d4eb4full)) % ENTRY_SLOTS;
    while (self->entries[at].index && (self->entries[at].index != index || self->entries[at].term != term))
        at = (at + 1) % ENTRY_SLOTS;
    return at;
}

uint64_t truth_hash(const world *w, uint64_t index, uint64_t term)
{
    if (index == 0)
        return 0;
    size_t at = entry_slot(&w->truth, index, term);
    return w->truth.entries[at].index ? w->truth.entries[at].hash : UNKNOWN;
}

/* ---- A log in memory. ---- */

static bool is_config(world *w, const trm_raft_entry *entry, trm_raft_members *members)
{
    trm_err err;
    if (entry->type != TRM_RAFT_CONFIG)
        return false;
    if (trm_raft_members_decode(members, entry->payload, entry->len, &err) != TRM_OK)
        world_fail(w, "entry %" PRIu64 " holds no membership: %s", entry->index, err.text);
    return true;
}

/* At most one server is added, removed, promoted or demoted at once (thesis 4.1). */
static void one_change(world *w, const node *n, const trm_raft_members *before, const trm_raft_members *after)
{
    unsigned differ = 0;
    for (uint32_t i = 0; i < before->count; i++) {
        const trm_raft_member *other = trm_raft_members_find(after, before->member[i].node);
        differ += !other || other->voter != before->member[i].voter;
    }
    for (uint32_t i = 0; i < after->count; i++)
        differ += !trm_raft_members_find(before, after->member[i].node);
    if (differ > 1)
        world_fail(w, "n%" PRIu64 " changes %u members at once", n->id, differ);
}

/* A leader begins a change: the one before it is committed, and so is an entry of its
 * term (the correction to thesis 4.1). */
static void change_begins(world *w, node *n, const trm_raft_state *state, const trm_raft_entry *entry,
                          const trm_raft_members *members)
{
    for (uint64_t i = state->commit + 1; i < entry->index; i++)
        if (n->log.config[i] == i)
            world_fail(w,
                       "n%" PRIu64 " changes members at entry %" PRIu64 "; the change at %" PRIu64
                       " is not committed",
                       n->id, entry->index, i);
    if (w->truth.committed_in[state->term] == 0)
        world_fail(w, "n%" PRIu64 " changes members before an entry of its term is committed", n->id);
    if (n->members.count > 0)
        one_change(w, n, &n->members, members);
    w->totals->changes++;
}

/* A new entry is made by the leader of its term, and nobody else. */
static void entry_is_made(world *w, node *n, const trm_raft_state *state, const trm_raft_entry *entry,
                          size_t slot)
{
    if (state->role != TRM_RAFT_LEADER || state->term != entry->term)
        world_fail(w, "n%" PRIu64 " has entry %" PRIu64 " of term %" PRIu64 ", which no leader has made",
                   n->id, entry->index, entry->term);
    w->truth.entries[slot].index = entry->index;
    w->truth.entries[slot].term = entry->term;
    w->truth.entries[slot].hash = n->log.hash[entry->index];
    w->totals->entries++;
}

void check_append(world *w, node *n, const trm_raft_entry *entries, size_t len)
{
    trm_raft_state state;
    trm_raft_state_get(n->raft, &state);
    uint64_t first = entries[0].index;
    if (first == 0 || first > n->log.last + 1)
        world_fail(w, "n%" PRIu64 " has a gap before entry %" PRIu64, n->id, first);
    if (first <= n->commit || first <= n->log.base)
        world_fail(w, "n%" PRIu64 " overwrites entry %" PRIu64 ", which is committed", n->id, first);
    bool led = state.role == TRM_RAFT_LEADER && n->role == TRM_RAFT_LEADER && n->role_term == state.term;
    if (led && first != n->log.last + 1)
        world_fail(w, "n%" PRIu64 " leads and overwrites entry %" PRIu64, n->id, first);
    for (size_t i = 0; i < len; i++) {
        const trm_raft_entry *entry = &entries[i];
        if (entry->index != first + i || entry->term < n->log.term[entry->index - 1])
            world_fail(w, "n%" PRIu64 ": entry %" PRIu64 " of term %" PRIu64 " does not follow", n->id,
                       entry->index, entry->term);
        if (entry->index >= LOG_MAX - 1)
            world_fail(w, "the history is too long for its checks");
        n->log.hash[entry->index] = entry_hash(n->log.hash[entry->index - 1], entry);
        n->log.term[entry->index] = (uint32_t)entry->term;
        n->log.last = entry->index;
        trm_raft_members members;
        bool config = is_config(w, entry, &members);
        n->log.config[entry->index] = config ? (uint32_t)entry->index : n->log.config[entry->index - 1];
        size_t slot = entry_slot(&w->truth, entry->index, entry->term);
        if (!w->truth.entries[slot].index) {
            if (config)
                change_begins(w, n, &state, entry, &members);
            entry_is_made(w, n, &state, entry, slot);
        } else if (w->truth.entries[slot].hash != n->log.hash[entry->index]) {
            world_fail(w,
                       "log matching: n%" PRIu64 " has another log up to entry %" PRIu64 " of term %" PRIu64,
                       n->id, entry->index, entry->term);
        }
    }
}

/* The membership in effect is the newest one in the log, committed or not (thesis 4.1). */
static void check_members(world *w, const node *n)
{
    trm_raft_entry entry;
    trm_raft_members members;
    uint64_t index = n->log.config[n->log.last];
    if (index == 0 || !trm_raft_entry_at(n->raft, index, &entry))
        return;
    bool same = is_config(w, &entry, &members) && members.count == n->members.count;
    for (uint32_t i = 0; same && i < members.count; i++)
        same = members.member[i].node == n->members.member[i].node &&
               members.member[i].voter == n->members.member[i].voter;
    if (!same)
        world_fail(w, "n%" PRIu64 " does not go by the membership of entry %" PRIu64, n->id, index);
}

/* A leader's windows: what is on its way is bounded, and nothing is when there is nothing. */
static void check_windows(world *w, const node *n)
{
    const trm_raft_options *o = &w->mood.options;
    size_t one_message = o->append_bytes_max + w->mood.payload_max + TRM_RAFT_MEMBERS_BYTES_MAX;
    for (uint32_t i = 0; i < n->members.count; i++) {
        trm_raft_peer peer;
        if (trm_raft_peer_get(n->raft, n->members.member[i].node, &peer) &&
            (peer.window_messages > o->window_messages || peer.window_bytes > o->window_bytes + one_message ||
             (peer.window_messages == 0 && peer.window_bytes != 0)))
            world_fail(w, "n%" PRIu64 " counts %u messages and %zu bytes in flight to n%" PRIu64, n->id,
                       peer.window_messages, peer.window_bytes, peer.node);
    }
}

void check_whole(world *w, node *n)
{
    trm_raft_state state;
    trm_raft_state_get(n->raft, &state);
    uint64_t from = state.first > n->log.base + 1 ? state.first : n->log.base + 1;
    for (uint64_t i = from; i <= state.last; i++) {
        trm_raft_entry entry;
        if (!trm_raft_entry_at(n->raft, i, &entry) || entry.index != i || entry.term != n->log.term[i] ||
            entry_hash(n->log.hash[i - 1], &entry) != n->log.hash[i])
            world_fail(w, "n%" PRIu64 ": entry %" PRIu64 " has changed without being persisted", n->id, i);
    }
}

/* ---- What becomes durable. ---- */

void check_durable(world *w, node *n, const disk_op *op)
{
    if (op->has_hard) {
        const trm_wal_hard_state *old = &n->durable_hard;
        if (op->hard.term < old->term ||
            (op->hard.term == old->term && old->vote != TRM_RAFT_NONE && op->hard.vote != old->vote))
            world_fail(w, "n%" PRIu64 ": term or vote go back on the disk", n->id);
        uint64_t commit = op->hard.commit;
        if (commit > n->disk.last || commit > w->truth.committed_last ||
            (commit > n->disk.base && n->disk.hash[commit] != w->truth.committed_hash[commit]))
            world_fail(w, "n%" PRIu64 " stores that entry %" PRIu64 " is committed, which is not on its disk",
                       n->id, commit);
        n->durable_hard = op->hard;
    }
    for (size_t i = 0; i < op->entries_len; i++) {
        uint64_t index = op->first_index + i;
        n->disk.hash[index] = op->entries[i].hash;
        n->disk.term[index] = op->entries[i].term;
        n->disk.config[index] = op->entries[i].config;
        n->disk.last = index;
    }
}

void check_restored(world *w, node *n)
{
    trm_wal_snapshot meta;
    trm_wal_snapshot_get(n->wal, &meta);
    uint64_t index = meta.index, hash = truth_hash(w, index, meta.term);
    if (index > w->truth.committed_last || hash != w->truth.committed_hash[index] || hash != n->machine.hash)
        world_fail(w, "n%" PRIu64 ": the snapshot of entry %" PRIu64 " is not of what is committed", n->id,
                   index);
    shadow *logs[2] = {&n->log, &n->disk};
    for (int i = 0; i < 2; i++) {
        shadow *one = logs[i];
        bool follows = index >= one->base && index <= one->last && one->hash[index] == hash;
        if (!follows)
            one->last = index;
        one->base = index;
        one->hash[index] = hash;
        one->term[index] = (uint32_t)meta.term;
        if (!follows)
            one->config[index] = 0;
    }
    n->applied = index;
    if (n->commit < index)
        n->commit = index;
}

/* What was surely durable and not about to be overwritten is there again. */
void check_opened(world *w, node *n)
{
    trm_wal_snapshot meta;
    trm_wal_hard_state hard;
    trm_wal_snapshot_get(n->wal, &meta);
    trm_wal_hard_state_get(n->wal, &hard);
    const trm_wal_hard_state *old = &n->durable_hard;
    if (hard.term < old->term ||
        (hard.term == old->term && old->vote != TRM_RAFT_NONE && hard.vote != old->vote))
        world_fail(w, "n%" PRIu64 " has forgotten its term or vote", n->id);
    static shadow found;
    found.base = found.last = meta.index;
    found.hash[meta.index] = truth_hash(w, meta.index, meta.term);
    found.term[meta.index] = (uint32_t)meta.term;
    found.config[meta.index] = 0;
    for (uint64_t i = meta.index + 1; i <= trm_wal_last_index(n->wal); i++) {
        trm_wal_entry entry;
        trm_raft_members members;
        trm_wal_entry_at(n->wal, i, &entry);
        found.hash[i] = entry_hash(found.hash[i - 1], &entry);
        found.term[i] = (uint32_t)entry.term;
        found.config[i] = is_config(w, &entry, &members) ? (uint32_t)i : found.config[i - 1];
        found.last = i;
        if (truth_hash(w, i, entry.term) != found.hash[i])
            world_fail(w, "n%" PRIu64 " comes back with an entry %" PRIu64 " that was never made", n->id, i);
    }
    if (n->disk.base > found.last)
        world_fail(w, "n%" PRIu64 " has lost its snapshot of entry %" PRIu64, n->id, n->disk.base);
    /* What nothing unsynced was about to replace is there. (A snapshot that came in may have.) */
    uint64_t sure = n->surely_last;
    bool kept = found.base > n->disk.base ||
                (found.last >= sure && (sure <= found.base || found.hash[sure] == n->disk.hash[sure]));
    if (!kept)
        world_fail(w,
                   "n%" PRIu64 " has lost durable entries: %" PRIu64 " to %" PRIu64 " are there, %" PRIu64
                   " was the last",
                   n->id, found.base + 1, found.last, sure);
    n->log.base = n->disk.base = found.base;
    n->log.last = n->disk.last = found.last;
    size_t len = (size_t)(found.last + 1 - found.base);
    shadow *logs[2] = {&n->log, &n->disk};
    for (int i = 0; i < 2; i++) {
        memcpy(logs[i]->hash + found.base, found.hash + found.base, len * sizeof *found.hash);
        memcpy(logs[i]->term + found.base, found.term + found.base, len * sizeof *found.term);
        memcpy(logs[i]->config + found.base, found.config + found.base, len * sizeof *found.config);
    }
    n->hard = n->durable_hard = hard;
    n->commit = n->applied = meta.index;
    if (meta.index > 0 && (meta.index > w->truth.committed_last || found.hash[meta.index] != n->machine.hash))
        world_fail(w, "n%" PRIu64 " comes back with a snapshot of what is not committed", n->id);
}

/* ---- What leaves. ---- */

static void vote_is_given(world *w, node *n, const trm_raft_message *message)
{
    uint64_t *vote = &w->truth.vote_of[message->term][n->slot],
             *id = &w->truth.vote_id[message->term][n->slot];
    if (*id == n->id + 1 && *vote != message->to + 1)
        world_fail(w, "n%" PRIu64 " votes for two in term %" PRIu64, n->id, message->term);
    *vote = message->to + 1;
    *id = n->id + 1;
    if (n->durable_hard.term < message->term ||
        (n->durable_hard.term == message->term && n->durable_hard.vote != message->to))
        world_fail(w, "n%" PRIu64 " gives a vote that is not durable", n->id);
}

void check_message(world *w, node *n, const trm_raft_message *message)
{
    trm_raft_state state;
    trm_raft_state_get(n->raft, &state);
    if (message->term >= TERMS_MAX)
        world_fail(w, "term %" PRIu64 ": more elections than a history can have", message->term);
    if (message->type == TRM_RAFT_VOTE_RESULT && !message->reject)
        vote_is_given(w, n, message);
    /* (One that waited for the disk may leave after its candidacy is over; it does no harm.) */
    if (message->type == TRM_RAFT_VOTE && state.role == TRM_RAFT_CANDIDATE)
        if (message->index > n->disk.last || message->log_term != n->disk.term[message->index])
            world_fail(w, "n%" PRIu64 " asks for a vote with entry %" PRIu64 ", which is not durable", n->id,
                       message->index);
    if (message->type == TRM_RAFT_APPEND_RESULT && !message->reject && message->term == n->durable_hard.term)
        if (message->index > n->disk.last ||
            (message->index >= n->disk.base && n->disk.hash[message->index] != n->log.hash[message->index]))
            world_fail(w, "n%" PRIu64 " acknowledges entry %" PRIu64 ", which is not durable", n->id,
                       message->index);
}

/* ---- What is applied. ---- */

static void command_is_applied(world *w, node *n, const trm_raft_entry *entry, bool first)
{
    command what;
    bool effective;
    if (!command_decode(&what, entry->payload, entry->len))
        world_fail(w, "entry %" PRIu64 " is no command of a client", entry->index);
    machine_apply(w, &n->machine, &what, &effective);
    if (!first)
        return;
    for (uint32_t i = 0; i < w->ops_len; i++) {
        operation *op = &w->ops[i];
        if (!op->linear.write || op->session != what.session || op->number != what.number)
            continue;
        if (++op->entries > op->proposals)
            world_fail(w, "a command is in the log more often than it was proposed");
        if (effective && op->effective > 0)
            world_fail(w, "a command is done twice, at entries %" PRIu64 " and %" PRIu64, op->effective,
                       entry->index);
        if (effective)
            op->effective = entry->index;
        return;
    }
    world_fail(w, "entry %" PRIu64 " was proposed by nobody", entry->index);
}

void check_apply(world *w, node *n, const trm_raft_entry *entry)
{
    trm_raft_state state;
    trm_raft_state_get(n->raft, &state);
    if (entry->index != n->machine.index + 1)
        world_fail(w, "n%" PRIu64 " applies entry %" PRIu64 " after entry %" PRIu64, n->id, entry->index,
                   n->machine.index);
    if (entry->index > n->disk.last || entry->index > state.commit)
        world_fail(w, "n%" PRIu64 " applies entry %" PRIu64 ", which is not durable or not committed", n->id,
                   entry->index);
    n->machine.index = entry->index;
    n->machine.hash = entry_hash(n->machine.hash, entry);
    if (n->machine.hash != n->log.hash[entry->index])
        world_fail(w, "n%" PRIu64 " applies at entry %" PRIu64 " what its log does not hold", n->id,
                   entry->index);
    if (entry->index <= w->truth.committed_last && n->machine.hash != w->truth.committed_hash[entry->index])
        world_fail(w, "state machine safety: n%" PRIu64 " applies another entry %" PRIu64, n->id,
                   entry->index);
    bool first = entry->index > w->truth.applied_last;
    if (first)
        w->truth.applied_last = entry->index;
    if (entry->type == TRM_RAFT_COMMAND)
        command_is_applied(w, n, entry, first);
    n->applied = entry->index;
}

/* ---- A node as it is after an event. ---- */

/* Whether the disk of the member holds the node's log up to `index`. */
static bool holds(const world *w, const node *n, uint64_t member, uint64_t index)
{
    const node *other = &w->nodes[member % SLOT_STRIDE];
    const shadow *disk = other->id == member ? &other->disk : &other->graves[member / SLOT_STRIDE];
    return disk->last >= index && (disk->base >= index || disk->hash[index] == n->log.hash[index]);
}

/* A leader has moved its commit index: a majority of the voters holds the entry, durable,
 * and it is of the leader's term (Raft paper, 5.4.2). */
static void leader_commits(world *w, node *n, const trm_raft_state *state)
{
    const trm_raft_members *members = trm_raft_members_now(n->raft);
    unsigned voters = 0, have = 0;
    for (uint32_t i = 0; i < members->count; i++) {
        voters += members->member[i].voter;
        have += members->member[i].voter && holds(w, n, members->member[i].node, state->commit);
    }
    if (2 * have <= voters)
        world_fail(w, "n%" PRIu64 " commits entry %" PRIu64 ", which %u of %u voters have on their disks",
                   n->id, state->commit, have, voters);
    if (n->log.term[state->commit] != state->term)
        world_fail(w, "n%" PRIu64 " commits entry %" PRIu64 " of term %u by counting in term %" PRIu64, n->id,
                   state->commit, n->log.term[state->commit], state->term);
    for (uint64_t i = w->truth.committed_last + 1; i <= state->commit; i++)
        w->truth.committed_hash[i] = n->log.hash[i];
    w->truth.committed_last = state->commit;
}

static void commit_moves(world *w, node *n, const trm_raft_state *state)
{
    /* One that is no voter any more commits that, and steps down at once. */
    bool led = state->role == TRM_RAFT_LEADER || (n->role == TRM_RAFT_LEADER && n->role_term == state->term);
    uint64_t known = state->commit < w->truth.committed_last ? state->commit : w->truth.committed_last;
    if (known > n->log.base && n->log.hash[known] != w->truth.committed_hash[known])
        world_fail(w, "n%" PRIu64 " has committed another entry %" PRIu64, n->id, known);
    if (state->commit > w->truth.committed_last) {
        if (!led)
            world_fail(w, "n%" PRIu64 " commits entry %" PRIu64 ", which no leader has committed", n->id,
                       state->commit);
        leader_commits(w, n, state);
    }
    if (led && n->log.term[state->commit] == state->term)
        w->truth.committed_in[state->term] = state->commit;
    n->commit = state->commit;
}

static void becomes_leader(world *w, node *n, const trm_raft_state *state)
{
    w->totals->leaders++;
    if (n->durable_hard.term != state->term || n->durable_hard.vote != n->id)
        world_fail(w, "n%" PRIu64 " leads by its own vote, which is not durable", n->id);
    uint64_t committed = 0;
    for (uint64_t term = 0; term < state->term; term++)
        if (w->truth.committed_in[term] > committed)
            committed = w->truth.committed_in[term];
    if (n->log.last < committed ||
        (committed > n->log.base && n->log.hash[committed] != w->truth.committed_hash[committed]))
        world_fail(w,
                   "leader completeness: n%" PRIu64 " leads term %" PRIu64
                   " without the committed entry %" PRIu64,
                   n->id, state->term, committed);
    world_trace(w, "n%" PRIu64 " leads term %" PRIu64, n->id, state->term);
}

static void leads(world *w, node *n, const trm_raft_state *state)
{
    uint64_t *leader = &w->truth.leader_of[state->term];
    if (*leader && *leader != n->id + 1)
        world_fail(w, "election safety: n%" PRIu64 " and n%" PRIu64 " lead term %" PRIu64, *leader - 1, n->id,
                   state->term);
    *leader = n->id + 1;
    if (n->role == TRM_RAFT_LEADER && n->role_term == state->term)
        return;
    const trm_raft_member *member = trm_raft_members_find(&n->members, n->id);
    if ((!member || !member->voter) && !state->change_pending && !n->counted_on)
        world_fail(w, "n%" PRIu64 " leads and is no voter", n->id);
    becomes_leader(w, n, state);
}

void check_received(node *n, const trm_raft_message *message)
{
    bool asks = message->type == TRM_RAFT_PRE_VOTE || message->type == TRM_RAFT_VOTE;
    if (asks && message->index > n->commit)
        n->counted_on = true;
    if (message->type == TRM_RAFT_APPEND && message->term >= n->hard.term)
        n->counted_on = false;
}

void check_reads(world *w, node *n)
{
    for (uint32_t i = 0; i < n->reads_len; i++)
        if (n->reads[i].deadline_ns < node_clock(w, n))
            world_fail(w, "n%" PRIu64 " does not answer a read", n->id);
}

void check_node(world *w, node *n)
{
    trm_raft_state state;
    trm_raft_state_get(n->raft, &state);
    if (state.term >= TERMS_MAX)
        world_fail(w, "term %" PRIu64 ": more elections than a history can have", state.term);
    if (state.term > w->truth.term_max)
        w->truth.term_max = state.term;
    if (state.node != n->id || state.term < n->hard.term ||
        (state.term == n->hard.term && n->hard.vote != TRM_RAFT_NONE && state.vote != n->hard.vote))
        world_fail(w, "n%" PRIu64 ": its term or vote go back", n->id);
    if (state.commit < n->commit || state.commit > state.last || state.applied > state.commit)
        world_fail(
            w, "n%" PRIu64 ": committed %" PRIu64 " after %" PRIu64 ", applied %" PRIu64 ", last %" PRIu64,
            n->id, state.commit, n->commit, state.applied, state.last);
    trm_raft_entry last;
    if (!state.installing && (state.last != n->log.last || (trm_raft_entry_at(n->raft, state.last, &last) &&
                                                            last.term != n->log.term[state.last])))
        world_fail(w, "n%" PRIu64 ": its log ends at %" PRIu64 ", what it told to persist at %" PRIu64, n->id,
                   state.last, n->log.last);
    n->members = *trm_raft_members_now(n->raft);
    if (state.role == TRM_RAFT_LEADER)
        leads(w, n, &state);
    commit_moves(w, n, &state);
    n->hard = (trm_wal_hard_state){state.term, state.vote, state.commit};
    n->role = state.role;
    n->role_term = state.term;
    if (!state.installing)
        check_members(w, n);
    check_windows(w, n);
    if (below(w, 40) == 0)
        check_whole(w, n);
}

/* ---- The history as a whole. ---- */

static void judge(world *w)
{
    static trm_linear_op ops[OPS_MAX];
    size_t culprit = 0;
    for (uint32_t i = 0; i < w->ops_len; i++)
        ops[i] = w->ops[i].linear;
    trm_linear_verdict verdict = trm_linear_check(ops, w->ops_len, 0, &culprit);
    w->totals->judged_not += verdict == TRM_LINEAR_TOO_LARGE;
    if (verdict != TRM_LINEAR_VIOLATION)
        return;
    const trm_linear_op *op = &ops[culprit];
    world_fail(w, "not linearizable: operation %zu, a %s of %" PRIu64 " at register %" PRIu64, culprit,
               op->write ? "write" : "read", op->value, op->key);
}

void check_end(world *w)
{
    for (uint32_t i = 0; i < w->ops_len; i++) {
        const operation *op = &w->ops[i];
        bool answered = op->linear.end != TRM_LINEAR_OPEN;
        if (op->linear.write && answered && op->effective == 0)
            world_fail(w, "the acknowledged write of %" PRIu64 " was never done", op->linear.value);
        w->totals->writes += op->linear.write && answered;
        w->totals->reads += !op->linear.write && answered;
        w->totals->unanswered += !answered;
    }
    judge(w);
}
