/* Elections (thesis 3.4, 3.6.1), pre-votes (9.6), stickiness (4.2.3). */
#include "runtime/consensus/raft_internal.h"

#include <assert.h>

/* The place of a member, for the bits of votes. */
static uint64_t bit_of(const trm_raft *self, uint64_t node)
{
    const trm_raft_member *member = trm_raft_members_find(&self->members, node);
    return member && member->voter ? 1ull << (member - self->members.member) : 0;
}

/* Only voters call elections (4.2.1), and not while the log is being replaced. Two others do,
 * and their own vote does not count. One that was a voter in the membership before, until the
 * change is committed: it may be the only one whose log wins, and the others cannot do without
 * it (4.2.2, figure 4.6). And one that must refuse a candidate which takes it for a voter, by an
 * entry that is not committed: it has later entries, of a leader that knew nothing of that one. If
 * that leader is dead the candidate may not win without it, nor the other voters against the
 * candidate. */
bool raft_may_campaign(const trm_raft *self)
{
    if (self->installing)
        return false;
    if (raft_is_voter(self, self->options.node) || self->counted_on)
        return true;
    if (self->members_index <= self->commit)
        return false;
    trm_raft_members before;
    raft_members_at(self, self->members_index - 1, &before);
    const trm_raft_member *member = trm_raft_members_find(&before, self->options.node);
    return member && member->voter;
}

/* What this node can vouch for: what is durable. An entry that a crash may still take away
 * must not win a vote. */
static void last_durable(const trm_raft *self, uint64_t *index, uint64_t *term)
{
    *index = self->log.durable;
    *term = raft_log_term(&self->log, self->log.durable);
}

static void ask_for_votes(trm_raft *self, trm_raft_message_type type, uint64_t term)
{
    for (uint32_t i = 0; i < self->members.count; i++) {
        const trm_raft_member *member = &self->members.member[i];
        if (!member->voter || member->node == self->options.node)
            continue;
        trm_raft_message message = raft_message_to(self, type, member->node);
        message.term = term;
        last_durable(self, &message.index, &message.log_term);
        message.force = self->campaign_forced && type == TRM_RAFT_VOTE;
        raft_send(self, &message, raft_hard_after(self));
    }
}

static bool won(const trm_raft *self)
{
    return (uint32_t)__builtin_popcountll(self->granted) >= raft_quorum(self);
}
static bool lost(const trm_raft *self)
{
    uint32_t voters = trm_raft_members_voters(&self->members);
    return (uint32_t)__builtin_popcountll(self->refused) > voters - raft_quorum(self);
}

static void begin(trm_raft *self, trm_raft_role role)
{
    self->role = role;
    self->leader = TRM_RAFT_NONE;
    self->granted = self->refused = 0;
    self->own_vote_counted = false;
    raft_reset_election_timer(self);
}

/* Candidates (3.4): a new term, a vote for itself; the vote is durable before anybody is
 * asked, and counts when it is. */
static void become_candidate(trm_raft *self)
{
    raft_set_hard(self, self->term + 1, self->options.node);
    self->verified = self->commit;
    begin(self, TRM_RAFT_CANDIDATE);
    self->counts.elections++;
    ask_for_votes(self, TRM_RAFT_VOTE, self->term);
}

/* A pre-candidate changes nothing: it asks whether it could win (9.6). */
static void become_pre_candidate(trm_raft *self)
{
    begin(self, TRM_RAFT_PRE_CANDIDATE);
    self->granted = bit_of(self, self->options.node);
    if (won(self)) {
        become_candidate(self);
        return;
    }
    ask_for_votes(self, TRM_RAFT_PRE_VOTE, self->term + 1);
}

/* A leader begins with an entry of its own term: older ones are committed only with it
 * (3.6.2), and reads and membership changes wait for it. The room was reserved. */
static void become_leader(trm_raft *self)
{
    self->role = TRM_RAFT_LEADER;
    self->leader = self->options.node;
    self->counts.elections_won++;
    self->heartbeat_at_ns = self->now_ns + self->options.heartbeat_ns;
    self->transfer_to = TRM_RAFT_NONE;
    self->round = 0;
    self->peers_len = 0;
    raft_peers_follow_members(self);
    self->uncommitted_bytes = 0;
    for (uint64_t i = self->commit + 1; i <= raft_log_last(&self->log); i++)
        self->uncommitted_bytes += raft_log_cost(raft_log_at(&self->log, i)->len);
    self->term_start = raft_log_last(&self->log) + 1;
    trm_status status = raft_append_own(self, TRM_RAFT_NOOP, NULL, 0, NULL);
    assert(status == TRM_OK);
    (void)status;
}

trm_status raft_campaign(trm_raft *self, bool forced, trm_err *err)
{
    raft_reset_election_timer(self);
    self->leader = TRM_RAFT_NONE;
    raft_reads_fail(self);
    if (!raft_may_campaign(self) || self->term >= TRM_RAFT_INDEX_MAX)
        return TRM_OK;
    trm_status status = raft_log_reserve(&self->log, 1, err); /* for the leader's first entry */
    if (status != TRM_OK)
        return status;
    self->campaign_forced = forced;
    if (forced || self->options.no_pre_vote)
        become_candidate(self);
    else
        become_pre_candidate(self);
    return TRM_OK;
}

void raft_own_vote_is_durable(trm_raft *self)
{
    if (self->role != TRM_RAFT_CANDIDATE || self->own_vote_counted)
        return;
    self->own_vote_counted = true;
    self->granted |= bit_of(self, self->options.node);
    if (won(self))
        become_leader(self);
}

/* 4.2.3: who has heard from a leader within the minimum election timeout keeps it. A leader
 * that has lost its quorum has stepped down, so one that leads has one. */
bool raft_is_sticky(const trm_raft *self)
{
    if (self->options.no_check_quorum)
        return false;
    if (self->role == TRM_RAFT_LEADER)
        return true;
    return self->leader != TRM_RAFT_NONE && self->heard_ns != RAFT_NEVER &&
           self->now_ns - self->heard_ns < self->options.election_ns;
}

/* The election restriction (3.6.1). */
static bool is_up_to_date(const trm_raft *self, const trm_raft_message *message)
{
    uint64_t index, term;
    last_durable(self, &index, &term);
    return message->log_term > term || (message->log_term == term && message->index >= index);
}

/* Of nodes that ask at the same time one goes first, the same for all: where every voter that lives
 * is needed, two candidates of a term are none. Nobody is refused for it: the other may never hear
 * of who goes first. */
static bool goes_first(const trm_raft *self, const trm_raft_message *message)
{
    uint64_t index, term;
    last_durable(self, &index, &term);
    return message->log_term > term || message->index > index || message->from < self->options.node;
}

/* A pre-vote that is granted is given the time to become a vote (9.6 leaves it open), once: who asks
 * again may be one that hears no answer, and must not keep others waiting. */
static void make_way(trm_raft *self, const trm_raft_message *message)
{
    uint64_t bit = bit_of(self, message->from);
    if (self->role == TRM_RAFT_PRE_CANDIDATE && goes_first(self, message))
        raft_become_follower(self, self->term, TRM_RAFT_NONE);
    if (self->role == TRM_RAFT_FOLLOWER && !(self->waited_for & bit))
        raft_postpone_election(self);
    self->waited_for |= bit;
}

/* RequestVote, figure 3.1; its pre-vote, 9.6. Who asks is answered, whatever this node
 * believes of its own membership: one that was promoted must vote before it has learnt of
 * it, and learners are not asked (4.1). */
void raft_on_vote(trm_raft *self, const trm_raft_message *message)
{
    bool pre = message->type == TRM_RAFT_PRE_VOTE;
    bool grant = is_up_to_date(self, message);
    if (!grant && message->index > self->commit)
        self->counted_on = true;
    if (pre)
        grant = grant && message->term > self->term && !raft_is_sticky(self);
    else
        grant = grant && message->term == self->term && self->role == TRM_RAFT_FOLLOWER &&
                self->leader == TRM_RAFT_NONE && (self->vote == TRM_RAFT_NONE || self->vote == message->from);
    trm_raft_message answer =
        raft_message_to(self, pre ? TRM_RAFT_PRE_VOTE_RESULT : TRM_RAFT_VOTE_RESULT, message->from);
    answer.reject = !grant;
    if (grant && pre) {
        answer.term = message->term;
        raft_send(self, &answer, 0);
        make_way(self, message);
        return;
    }
    if (grant) {
        if (self->vote == TRM_RAFT_NONE)
            raft_set_hard(self, self->term, message->from);
        raft_reset_election_timer(self);
    }
    raft_send(self, &answer, raft_hard_after(self));
}

trm_status raft_on_vote_result(trm_raft *self, const trm_raft_message *message, trm_err *err)
{
    bool pre = message->type == TRM_RAFT_PRE_VOTE_RESULT;
    trm_raft_role asking = pre ? TRM_RAFT_PRE_CANDIDATE : TRM_RAFT_CANDIDATE;
    uint64_t term = pre && !message->reject ? self->term + 1 : self->term;
    if (self->role != asking || message->term != term) {
        raft_drop(self);
        return TRM_OK;
    }
    uint64_t bit = bit_of(self, message->from);
    if (message->reject)
        self->refused |= bit;
    else
        self->granted |= bit;
    if (won(self)) {
        trm_status status = raft_log_reserve(&self->log, 1, err);
        if (status != TRM_OK)
            return status;
        if (pre)
            become_candidate(self);
        else
            become_leader(self);
    } else if (lost(self)) {
        raft_become_follower(self, self->term, TRM_RAFT_NONE);
    }
    return TRM_OK;
}
