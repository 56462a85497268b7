#include "config.h" /* system extensions, before any header of the system */

#include "tool/node.h"

#include "runtime/clock.h"
#include "runtime/diag.h"
#include "runtime/replog_raft.h"
#include "scheduler/epochs.h"

#include <stdlib.h>
#include <string.h>

struct trm_node {
    const trm_spec *spec;
    const trm_ground *ground;
    bool begun, failed;
    uint64_t epoch;
    uint32_t voters_wanted;
    trm_raft_members told; /* who votes, as BEGIN and then LEADS have it */
    trm_replog *log;       /* NULL: none yet */
    trm_replica replica;
    uint32_t leader; /* as heard: of a rank without a log */
    uint64_t leader_term;
    uint64_t tend_ns;
    uint64_t relieve_ns; /* its disk is full: when the lead is to be handed over; 0: it is not */
};

/* ---- The log of this rank -------------------------------------------------------------------------- */

static void send(void *context, uint32_t to, const void *bytes, size_t len)
{
    trm_node *self = context;
    trm_transport *transport = self->ground->transport;
    if (to < transport->ranks) /* one that finds no room is lost: the core sends it again */
        transport->ops->send(transport, to, bytes, len);
}

static uint64_t disk_ns(void *context)
{
    const trm_node *self = context;
    return self->ground->disk_ns(self->ground->context);
}

static trm_status open_log(trm_node *self, const trm_raft_members *first, uint64_t now_ns, trm_err *err)
{
    char dir[TRM_FS_PATH_BYTES_MAX];
    const trm_ground *ground = self->ground;
    uint32_t rank = ground->transport->rank;
    trm_status status = trm_epoch_store_name(self->spec->state_dir, self->epoch, rank, dir, err);
    trm_replog_raft_config config = {.fs = ground->fs,
                                     .dir = dir,
                                     .rank = rank,
                                     .group = self->epoch,
                                     .log_id = ground->entropy(ground->context),
                                     .seed = ground->entropy(ground->context),
                                     .first_members = first,
                                     .voters_wanted = self->voters_wanted,
                                     .election_ns = self->spec->election_timeout_ms * TRM_NS_PER_MS,
                                     .segment_bytes = ground->segment_bytes,
                                     .snapshot_bytes = ground->snapshot_bytes,
                                     .disk_ns = ground->disk_ns ? disk_ns : NULL,
                                     .send = send,
                                     .context = self};
    if (status == TRM_OK)
        status = trm_replog_raft_open(&self->log, &config, now_ns, err);
    if (status == TRM_OK && !first)
        status = trm_epochs_join(ground->fs, dir, ground->entropy(ground->context), err);
    if (status != TRM_OK)
        return status;
    trm_replica_init(&self->replica, self->log);
    self->replica.witness = ground->witness;
    self->replica.witness_context = ground->context;
    return TRM_OK;
}

trm_status trm_node_begin(trm_node *self, uint64_t epoch, const trm_begin *begin, uint64_t now_ns,
                          trm_err *err)
{
    trm_raft_members members;
    if (self->begun)
        return TRM_OK;
    trm_status status = trm_raft_members_decode(&members, begin->members, begin->members_len, err);
    if (status != TRM_OK)
        return status;
    self->begun = true;
    self->epoch = epoch;
    self->voters_wanted = begin->voters_wanted;
    self->told = members;
    const trm_raft_member *own = trm_raft_members_find(&members, self->ground->transport->rank);
    if (!own)
        return TRM_OK;
    status = open_log(self, &members, now_ns, err);
    /* Rank 0 has made the launch, and knows all of it: it need not wait for a timeout. */
    if (status == TRM_OK && own->voter && self->ground->transport->rank == 0)
        status = trm_raft_campaign(trm_replog_raft_core(self->log), now_ns, err);
    return status;
}

/* A leader wants this rank as a learner. */
static void join(trm_node *self, uint64_t now_ns)
{
    trm_err err = {""};
    if (open_log(self, NULL, now_ns, &err) == TRM_OK)
        return;
    self->failed = true;
    trm_warn("this rank cannot keep a copy of the job's log: %s", err.text);
}

bool trm_node_receive(trm_node *self, uint32_t from, const uint8_t *bytes, size_t len, uint64_t now_ns)
{
    if (!trm_replog_raft_is_message(bytes, len))
        return false;
    if (self->begun && !self->log && !self->failed)
        join(self, now_ns);
    if (self->log)
        trm_replog_raft_receive(self->log, from, bytes, len, now_ns);
    return true;
}

bool trm_node_step(trm_node *self, uint64_t now_ns, uint64_t *wake_ns)
{
    if (!self->log || self->failed)
        return false;
    bool any = trm_replica_step(&self->replica, now_ns, wake_ns);
    if (self->replica.health != TRM_OK) {
        self->failed = true;
        trm_warn("this rank's copy of the job's log is of no use any more: %s", self->replica.why.text);
    }
    return any;
}

/* ---- Who leads --------------------------------------------------------------------------------------- */

void trm_node_hear_leader(trm_node *self, uint32_t from, uint64_t epoch, uint64_t term,
                          const trm_leads *leads)
{
    trm_raft_members voters = {0};
    if (!self->begun || epoch != self->epoch || term < self->leader_term)
        return;
    self->leader = from;
    self->leader_term = term;
    for (uint32_t i = 0; i < leads->voters; i++)
        if (trm_raft_members_set(&voters, leads->voter[i], true) != TRM_OK)
            return; /* more than there can be */
    if (voters.count)
        self->told = voters;
}

void trm_node_state_get(const trm_node *self, trm_node_state *out)
{
    *out = (trm_node_state){
        .begun = self->begun, .epoch = self->epoch, .leader = self->leader, .term = self->leader_term};
    if (!self->log || self->failed)
        return;
    trm_replog_state log;
    trm_replog_state_get(self->log, &log);
    trm_raft_state core;
    trm_raft_state_get(trm_replog_raft_core(self->log), &core);
    out->elected = core.role == TRM_RAFT_LEADER;
    out->leads = log.leader;
    out->leaderless = !out->elected && log.leader_rank == TRM_REPLOG_NOBODY;
    if (log.term >= out->term && log.leader_rank != TRM_REPLOG_NOBODY) {
        out->leader = log.leader_rank;
        out->term = log.term;
    }
}

void trm_node_rank_dead(trm_node *self, uint32_t rank, uint64_t now_ns)
{
    if (self->log)
        trm_raft_node_hint(trm_replog_raft_core(self->log), rank, false, 0, now_ns);
}

/* ---- Who is a member ---------------------------------------------------------------------------------- */

uint32_t trm_node_voters(const trm_node *self)
{
    return self->log ? trm_raft_members_voters(trm_raft_members_now(trm_replog_raft_core(self->log))) : 0;
}

bool trm_node_is_voter(const trm_node *self, uint32_t rank)
{
    if (!self->log)
        return false;
    const trm_raft_member *member =
        trm_raft_members_find(trm_raft_members_now(trm_replog_raft_core(self->log)), rank);
    return member && member->voter;
}

bool trm_node_is_lost(const trm_node *self, const uint8_t *dead)
{
    const trm_raft_members *members =
        self->log ? trm_raft_members_now(trm_replog_raft_core(self->log)) : &self->told;
    uint32_t voters = 0, gone = 0;
    for (uint32_t i = 0; i < members->count; i++) {
        const trm_raft_member *member = &members->member[i];
        voters += member->voter;
        gone += member->voter && member->node < self->ground->transport->ranks && dead[member->node];
    }
    return voters && 2 * (voters - gone) <= voters;
}

/* Nobody can take the place of a voter that was the only one. */
static uint32_t spare_learners(uint32_t voters_wanted)
{
    return voters_wanted > 1 ? TRM_SPARE_LEARNERS : 0;
}

/* One change at a time; the core refuses a second. Voters are its own business. */
static void tend(trm_node *self, trm_node_lives_cb lives, void *context, uint64_t now_ns)
{
    trm_raft *core = trm_replog_raft_core(self->log);
    const trm_raft_members *members = trm_raft_members_now(core);
    uint32_t learners = 0;
    uint64_t index;
    trm_err err;
    for (uint32_t i = 0; i < members->count; i++) {
        const trm_raft_member *member = &members->member[i];
        bool alive = member->node == self->ground->transport->rank || lives(context, (uint32_t)member->node);
        trm_raft_node_hint(core, member->node, alive, 0, now_ns);
        if (!alive && !member->voter) {
            trm_raft_change_members(core, TRM_RAFT_REMOVE, member->node, &index, &err);
            return;
        }
        learners += !member->voter;
    }
    uint32_t voters = trm_raft_members_voters(members), wanted = spare_learners(self->voters_wanted);
    wanted += self->voters_wanted > voters ? self->voters_wanted - voters : 0;
    for (uint32_t rank = 0; rank < self->ground->transport->ranks && learners < wanted; rank++) {
        if (trm_raft_members_find(members, rank) || !lives(context, rank))
            continue;
        trm_raft_change_members(core, TRM_RAFT_ADD_LEARNER, rank, &index, &err);
        return;
    }
}

void trm_node_tend(trm_node *self, trm_node_lives_cb lives, void *context, uint64_t now_ns, uint64_t *wake_ns)
{
    if (!self->log || self->failed)
        return;
    if (now_ns >= self->tend_ns) {
        tend(self, lives, context, now_ns);
        self->tend_ns = now_ns + TRM_TEND_MS * TRM_NS_PER_MS;
    }
    *wake_ns = self->tend_ns < *wake_ns ? self->tend_ns : *wake_ns;
}

bool trm_node_may_lose(const trm_node *self, const uint8_t *going)
{
    uint32_t stay = 0, voters = trm_node_voters(self);
    for (uint32_t rank = 0; rank < self->ground->transport->ranks; rank++)
        stay += !going[rank] && trm_node_is_voter(self, rank);
    return voters && stay > voters / 2;
}

bool trm_node_hand_over(trm_node *self, const uint8_t *going, uint64_t now_ns)
{
    trm_err err;
    trm_raft *core = trm_replog_raft_core(self->log);
    trm_raft_peer peer, best = {.node = TRM_RAFT_NONE};
    for (uint32_t rank = 0; rank < self->ground->transport->ranks; rank++) {
        if (going[rank] || !trm_raft_peer_get(core, rank, &peer) || !peer.voter)
            continue;
        /* One that answers, and lacks least: it is to be brought up to date first. */
        bool better = peer.active == best.active ? peer.match > best.match : peer.active;
        if (best.node == TRM_RAFT_NONE || better)
            best = peer;
    }
    return best.node != TRM_RAFT_NONE && trm_raft_transfer(core, best.node, now_ns, &err) == TRM_OK;
}

/* The voter that has the most of what is not written here. */
static uint64_t find_roomy(trm_node *self, trm_raft *core)
{
    trm_raft_state state;
    trm_raft_peer peer;
    trm_raft_state_get(core, &state);
    uint64_t best = TRM_RAFT_NONE, most = state.durable;
    for (uint32_t rank = 0; rank < self->ground->transport->ranks; rank++) {
        if (!trm_raft_peer_get(core, rank, &peer) || !peer.voter || !peer.active || peer.match <= most)
            continue;
        best = peer.node;
        most = peer.match;
    }
    return best;
}

void trm_node_relieve(trm_node *self, uint64_t now_ns, uint64_t *wake_ns)
{
    trm_replog_state log;
    trm_err err;
    if (!self->log || self->failed)
        return;
    trm_replog_state_get(self->log, &log);
    if (log.health != TRM_ENOSPACE || !log.leader) {
        self->relieve_ns = 0;
        return;
    }
    if (!self->relieve_ns)
        self->relieve_ns = now_ns + TRM_RELIEVE_MS * TRM_NS_PER_MS;
    if (now_ns >= self->relieve_ns) {
        trm_raft *core = trm_replog_raft_core(self->log);
        uint64_t to = find_roomy(self, core);
        self->relieve_ns = now_ns + TRM_RELIEVE_MS * TRM_NS_PER_MS;
        if (to != TRM_RAFT_NONE && trm_raft_transfer(core, to, now_ns, &err) == TRM_OK)
            trm_warn("there is no room here for the log of the job: rank %u is to lead", (uint32_t)to);
    }
    *wake_ns = self->relieve_ns < *wake_ns ? self->relieve_ns : *wake_ns;
}

/* The next rank that is not a member, of a host that has the fewest of them. */
static uint32_t choose_next(const uint32_t *host, uint32_t ranks, const trm_raft_members *chosen)
{
    uint32_t best = UINT32_MAX, best_there = UINT32_MAX;
    for (uint32_t rank = 0; rank < ranks; rank++) {
        uint32_t there = 0;
        if (host[rank] == UINT32_MAX || trm_raft_members_find(chosen, rank))
            continue;
        for (uint32_t i = 0; i < chosen->count; i++)
            there += host[chosen->member[i].node] == host[rank];
        if (there < best_there) {
            best = rank;
            best_there = there;
        }
    }
    return best;
}

uint32_t trm_node_choose(const uint32_t *host, uint32_t ranks, uint32_t most, trm_raft_members *out)
{
    uint32_t able = 0;
    *out = (trm_raft_members){0};
    for (uint32_t rank = 0; rank < ranks; rank++)
        able += host[rank] != UINT32_MAX;
    uint32_t wanted = most ? most : TRM_VOTERS_DEFAULT;
    wanted = able < wanted ? able : wanted;
    wanted = wanted % 2 ? wanted : wanted > 0 ? wanted - 1 : 0;
    for (uint32_t i = 0; i < wanted + spare_learners(wanted); i++) {
        uint32_t rank = choose_next(host, ranks, out);
        if (rank == UINT32_MAX || trm_raft_members_set(out, rank, i < wanted) != TRM_OK)
            break;
    }
    return wanted;
}

/* ---- Life ------------------------------------------------------------------------------------------------
 */

trm_status trm_node_create(trm_node **out, const trm_spec *spec, const trm_ground *ground, trm_err *err)
{
    trm_node *self = calloc(1, sizeof *self);
    if (!self)
        return trm_err_set(err, TRM_ENOMEM, "no memory for this rank's part in the log");
    self->spec = spec;
    self->ground = ground;
    self->leader = TRM_REPLOG_NOBODY;
    *out = self;
    return TRM_OK;
}

void trm_node_destroy(trm_node *self)
{
    if (!self)
        return;
    if (self->log)
        trm_replica_close(&self->replica);
    trm_replog_close(self->log);
    free(self);
}

trm_replica *trm_node_replica(trm_node *self)
{
    return self->log && !self->failed ? &self->replica : NULL;
}

int trm_node_fd(const trm_node *self)
{
    return self->log ? trm_replog_fd(self->log) : -1;
}
