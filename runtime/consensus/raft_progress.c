/* What the leader knows of each other member: how far it is, and what is on its way to it.
 *
 *                   place found
 *      ┌───────┐ ───────────────► ┌───────────┐
 *      │ PROBE │                  │ REPLICATE │
 *      └───────┘ ◄─────────────── └───────────┘
 *        │   ▲     a rejection          │
 *        ▼   │ it is there              │ what it needs is compacted
 *     ┌───────────────┐                 │
 *     │ SEND_SNAPSHOT │ ◄───────────────┘
 *     └───────────────┘
 */
#include "runtime/consensus/raft_internal.h"

#include <assert.h>

raft_peer *raft_peer_find(const trm_raft *self, uint64_t node)
{
    for (uint32_t i = 0; i < self->peers_len; i++)
        if (self->peers[i].node == node)
            return (raft_peer *)&self->peers[i];
    return NULL;
}

/* A leader begins to look for a follower's place at the end of its own log (figure 3.1,
 * "volatile state on leaders"). */
void raft_peer_init(trm_raft *self, raft_peer *peer, uint64_t node, bool voter, uint32_t slot)
{
    *peer = (raft_peer){
        .node = node,
        .voter = voter,
        .mode = TRM_RAFT_PROBE,
        .next = raft_log_last(&self->log) + 1,
        .heard_ns = self->now_ns,
        .heartbeat_due = true,
        .slot = slot,
    };
}

/* A window that belongs to no peer. */
static uint32_t free_slot(const trm_raft *self)
{
    uint64_t used = 0;
    for (uint32_t i = 0; i < self->peers_len; i++)
        used |= 1ull << self->peers[i].slot;
    assert(~used != 0);
    return (uint32_t)__builtin_ctzll(~used);
}

void raft_peers_follow_members(trm_raft *self)
{
    for (uint32_t i = self->peers_len; i-- > 0;)
        if (!trm_raft_members_find(&self->members, self->peers[i].node))
            self->peers[i] = self->peers[--self->peers_len];
    for (uint32_t i = 0; i < self->members.count; i++) {
        const trm_raft_member *member = &self->members.member[i];
        if (member->node == self->options.node)
            continue;
        raft_peer *peer = raft_peer_find(self, member->node);
        if (peer) {
            peer->voter = member->voter;
            continue;
        }
        uint32_t slot = free_slot(self);
        raft_peer_init(self, &self->peers[self->peers_len], member->node, member->voter, slot);
        self->peers_len++;
    }
}

static void forget_window(raft_peer *peer)
{
    peer->window_head = peer->window_len = 0;
    peer->window_bytes = 0;
}

void raft_peer_probe(raft_peer *peer, uint64_t next)
{
    peer->mode = TRM_RAFT_PROBE;
    peer->next = next > peer->match ? next : peer->match + 1;
    peer->probe_sent = false;
    forget_window(peer);
}

void raft_peer_replicate(raft_peer *peer)
{
    peer->mode = TRM_RAFT_REPLICATE;
    peer->next = peer->match + 1;
    forget_window(peer);
}

void raft_peer_send_snapshot(trm_raft *self, raft_peer *peer)
{
    peer->mode = TRM_RAFT_SEND_SNAPSHOT;
    forget_window(peer);
    peer->snapshot_index = self->snapshot.index;
    peer->snapshot_acked = peer->snapshot_next = 0;
    peer->snapshot_all_sent = false;
    peer->snapshot_moved_ns = peer->snapshot_resume_ns = self->now_ns;
}

bool raft_peer_window_full(const trm_raft *self, const raft_peer *peer)
{
    return peer->window_len == self->options.window_messages ||
           (peer->window_len > 0 && peer->window_bytes >= self->options.window_bytes);
}

static raft_flight *flight_at(const trm_raft *self, const raft_peer *peer, uint32_t at)
{
    uint32_t window = self->options.window_messages;
    return &self->flights[(size_t)peer->slot * window + (peer->window_head + at) % window];
}

void raft_peer_window_add(trm_raft *self, raft_peer *peer, uint64_t last, size_t bytes)
{
    assert(peer->window_len < self->options.window_messages);
    *flight_at(self, peer, peer->window_len) = (raft_flight){last, bytes};
    peer->window_len++;
    peer->window_bytes += bytes;
}

void raft_peer_window_free(trm_raft *self, raft_peer *peer, uint64_t match)
{
    while (peer->window_len > 0 && flight_at(self, peer, 0)->last <= match) {
        peer->window_bytes -= flight_at(self, peer, 0)->bytes;
        peer->window_head = (peer->window_head + 1) % self->options.window_messages;
        peer->window_len--;
    }
}

bool raft_peer_active(const trm_raft *self, const raft_peer *peer)
{
    return self->now_ns - peer->heard_ns < self->options.election_ns;
}

/* Has all that is committed, and takes what comes as it comes (4.2.1). */
bool raft_peer_caught_up(const trm_raft *self, const raft_peer *peer)
{
    return peer && peer->mode == TRM_RAFT_REPLICATE && peer->match >= self->commit &&
           raft_peer_active(self, peer);
}

/* ---- Quorums: of voters only; this node counts when it is one. ---- */

static uint64_t quorum_value(const trm_raft *self, uint64_t own, uint64_t (*value)(const raft_peer *))
{
    uint64_t sorted[TRM_RAFT_NODES_MAX]; /* the highest first */
    uint32_t len = 0;
    if (raft_is_voter(self, self->options.node))
        sorted[len++] = own;
    for (uint32_t i = 0; i < self->peers_len; i++) {
        if (!self->peers[i].voter)
            continue;
        uint64_t next = value(&self->peers[i]);
        uint32_t at = len++;
        for (; at > 0 && sorted[at - 1] < next; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = next;
    }
    return len == 0 ? 0 : sorted[len / 2];
}

static uint64_t match_of(const raft_peer *peer)
{
    return peer->match;
}
static uint64_t round_of(const raft_peer *peer)
{
    return peer->round;
}

uint64_t raft_quorum_match(const trm_raft *self, uint64_t own)
{
    return quorum_value(self, own, match_of);
}

uint64_t raft_quorum_round(const trm_raft *self, uint64_t own)
{
    return quorum_value(self, own, round_of);
}

bool raft_quorum_active(const trm_raft *self)
{
    uint32_t active = raft_is_voter(self, self->options.node);
    for (uint32_t i = 0; i < self->peers_len; i++)
        active += self->peers[i].voter && raft_peer_active(self, &self->peers[i]);
    return active >= raft_quorum(self);
}

bool trm_raft_peer_get(const trm_raft *self, uint64_t node, trm_raft_peer *out)
{
    const raft_peer *peer = self->role == TRM_RAFT_LEADER ? raft_peer_find(self, node) : NULL;
    if (!peer)
        return false;
    *out = (trm_raft_peer){
        .node = node,
        .voter = peer->voter,
        .alive = raft_believed_alive(self, node),
        .active = raft_peer_active(self, peer),
        .mode = peer->mode,
        .match = peer->match,
        .next = peer->next,
        .window_messages = peer->window_len,
        .window_bytes = peer->window_bytes,
        .snapshot_offset = peer->mode == TRM_RAFT_SEND_SNAPSHOT ? peer->snapshot_acked : 0,
        .caught_up = !peer->voter && raft_peer_caught_up(self, peer),
    };
    return true;
}
