#include "config.h" /* system extensions, before any header of the system */

#include "tool/leader.h"

#include "jobs/exit_code.h"
#include "runtime/clock.h"
#include "runtime/diag.h"
#include "scheduler/epochs.h"
#include "scheduler/master.h"
#include "scheduler/state_dir.h"
#include "tool/gather.h"
#include "tool/progress.h"

#include <stdlib.h>
#include <string.h>

#define LOCK_AGAIN_MS 500u
#define ANNOUNCE_MS 100u /* between two LEADS to ranks that have not come */

struct trm_leader {
    const trm_spec *spec;
    const trm_ground *ground;
    trm_node *node;
    uint64_t epoch;
    trm_gather gather; /* until there is a master */
    trm_submission submission;
    trm_file *lock;          /* of the output directory, once the rank that had it is dead; NULL: not ours */
    uint64_t lock_ns;        /* when it is tried again */
    uint64_t greet_until_ns; /* 0: nobody has come */
    uint64_t announce_ns;
    bool submitted, failed, said_end, forgot;
    trm_master *master;
    trm_progress_view view;
    trm_end end;
    uint8_t *dead;           /* one a rank: its process is gone */
    const char *interrupted; /* before there was a master; NULL: not */
};

/* ---- The master --------------------------------------------------------------------------------------- */

static trm_status send(void *context, uint32_t to, const void *frame, size_t len)
{
    trm_transport *transport = context;
    return transport->ops->send(transport, to, frame, len);
}

static bool is_voter(void *context, uint32_t rank)
{
    const trm_leader *self = context;
    return trm_node_is_voter(self->node, rank);
}

static trm_status make_master(trm_leader *self, uint64_t wall_ms, trm_err *err)
{
    const trm_ground *ground = self->ground;
    trm_status status =
        trm_state_dir_submission(&self->submission, self->spec, &self->gather.traits, ground->fs, err);
    self->submitted = status == TRM_OK;
    trm_master_config config = {.spec = self->spec,
                                .submission = &self->submission,
                                .fs = ground->fs,
                                .replica = trm_node_replica(self->node),
                                .outbox = {.send = send, .context = ground->transport},
                                .ranks = ground->transport->ranks,
                                .epoch = self->epoch,
                                .is_voter = is_voter,
                                .is_voter_context = self,
                                .may_be_followed = trm_node_voters(self->node) > 1,
                                .seed = ground->entropy(ground->context),
                                .wall_ms = wall_ms};
    return status == TRM_OK ? trm_master_create(&self->master, &config, err) : status;
}

/* All that was said before there was a master. */
static void greet_master(trm_leader *self, uint64_t now_ns)
{
    for (uint32_t i = 0; i < self->gather.ranks; i++) {
        const trm_greeting *slot = &self->gather.greeting[i];
        trm_reader body;
        trm_reader_init(&body, slot->body, slot->len);
        if (slot->body)
            trm_master_receive(self->master, i, &slot->header, &body, now_ns);
    }
    trm_gather_close(&self->gather);
    for (uint32_t i = 0; i < self->ground->transport->ranks; i++)
        if (self->dead[i])
            trm_master_rank_dead(self->master, i);
}

/* Whether nobody has led this launch before. */
static bool is_first(const trm_leader *self)
{
    return trm_node_replica(self->node)->table.epoch < self->epoch;
}

static uint32_t count_dead(const trm_leader *self)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < self->ground->transport->ranks; i++)
        count += self->dead[i] && !self->gather.greeting[i].body;
    return count;
}

/* A rank without a log does not see who is elected, and waits for the word of a master. */
static void announce(trm_leader *self, uint64_t term, uint64_t now_ns, uint64_t *wake_ns)
{
    trm_transport *transport = self->ground->transport;
    if (now_ns >= self->announce_ns) {
        trm_writer frame = {0};
        trm_wire_header header = {.type = TRM_WIRE_LEADS, .epoch = self->epoch, .term = term};
        trm_leads leads = {0};
        for (uint32_t i = 0; i < transport->ranks && leads.voters < TRM_LEADS_VOTERS_MAX; i++)
            if (trm_node_is_voter(self->node, i))
                leads.voter[leads.voters++] = i;
        trm_wire_begin(&frame, &header);
        trm_leads_encode(&leads, &frame);
        trm_wire_seal(&frame);
        for (uint32_t i = 0; i < transport->ranks && trm_writer_ok(&frame); i++)
            if (i != transport->rank && !self->dead[i] && !self->gather.greeting[i].body)
                transport->ops->send(transport, i, frame.data, frame.len);
        trm_writer_close(&frame);
        self->announce_ns = now_ns + ANNOUNCE_MS * TRM_NS_PER_MS;
    }
    *wake_ns = self->announce_ns < *wake_ns ? self->announce_ns : *wake_ns;
}

static bool gather_step(trm_leader *self, uint64_t now_ns, uint64_t wall_ms, uint64_t *wake_ns)
{
    trm_err err = {""};
    bool all_unable = self->gather.greeted == self->ground->transport->ranks && !self->gather.able;
    trm_node_state node;
    trm_node_state_get(self->node, &node);
    if (self->failed || !node.leads)
        return false;
    if (self->gather.greeted < self->ground->transport->ranks)
        announce(self, node.term, now_ns, wake_ns);
    if (!self->gather.able && !all_unable)
        return false;
    if (!self->greet_until_ns)
        self->greet_until_ns =
            now_ns + (is_first(self) ? TRM_GREET_FIRST_MS : TRM_GREET_WAIT_MS) * TRM_NS_PER_MS;
    if (self->gather.greeted + count_dead(self) < self->ground->transport->ranks &&
        now_ns < self->greet_until_ns) {
        *wake_ns = self->greet_until_ns < *wake_ns ? self->greet_until_ns : *wake_ns;
        return false;
    }
    trm_status status = all_unable
                            ? trm_err_set(&err, self->gather.first_status, "%s", self->gather.first_text)
                            : make_master(self, wall_ms, &err);
    if (status == TRM_OK) {
        greet_master(self, now_ns);
        if (self->interrupted)
            trm_master_interrupt(self->master, self->interrupted);
        return true;
    }
    trm_error("this rank is to lead the job and cannot: %s", err.text);
    self->failed = true;
    self->end = (trm_end){.exit_code = trm_exit_code_of(status), .keep_runs = true};
    return true;
}

/* ---- The life -------------------------------------------------------------------------------------------
 */

trm_status trm_leader_create(trm_leader **out, const trm_spec *spec, const trm_ground *ground, trm_node *node,
                             trm_err *err)
{
    trm_node_state state;
    trm_node_state_get(node, &state);
    trm_leader *self = calloc(1, sizeof *self);
    if (!self)
        return trm_err_set(err, TRM_ENOMEM, "no memory to lead");
    self->spec = spec;
    self->ground = ground;
    self->node = node;
    self->epoch = state.epoch;
    self->dead = calloc(ground->transport->ranks, 1);
    trm_status status = self->dead ? trm_gather_init(&self->gather, ground->transport->ranks, false, err)
                                   : trm_err_set(err, TRM_ENOMEM, "no memory to lead");
    if (status != TRM_OK) {
        free(self->dead);
        free(self);
        return status;
    }
    *out = self;
    return TRM_OK;
}

void trm_leader_destroy(trm_leader *self)
{
    if (!self)
        return;
    trm_master_destroy(self->master);
    trm_gather_close(&self->gather);
    if (self->lock)
        self->ground->fs->ops->close(self->lock);
    if (self->submitted)
        trm_submission_close(&self->submission);
    free(self->dead);
    free(self);
}

void trm_leader_receive(trm_leader *self, uint32_t from, const trm_wire_header *header, trm_reader *body,
                        uint64_t now_ns)
{
    if (self->master)
        trm_master_receive(self->master, from, header, body, now_ns);
    else if (header->type == TRM_WIRE_HELLO)
        trm_gather_take(&self->gather, from, header, body);
}

static void say_end(trm_leader *self, const trm_progress *progress)
{
    self->said_end = true;
    if (self->end.exit_code != TRM_EXIT_DONE) {
        trm_error("%s", self->end.text);
        return;
    }
    trm_counters counters;
    trm_master_counters(self->master, &counters);
    trm_progress_summary(progress, &counters, &self->submission.traits, self->spec);
}

/* Others must see that the job is being worked on: rank 0 said so as long as it lived. */
static void hold_lock(trm_leader *self, uint64_t now_ns)
{
    trm_err err;
    if (self->lock || self->ground->transport->rank == 0 || now_ns < self->lock_ns)
        return;
    self->lock_ns = now_ns + LOCK_AGAIN_MS * TRM_NS_PER_MS;
    trm_state_dir_hold(&self->lock, self->spec, self->ground->fs,
                       &err); /* while it lives, the lock is its own */
}

bool trm_leader_step(trm_leader *self, uint64_t now_ns, uint64_t wall_ms, uint64_t *wake_ns)
{
    if (!self->master)
        return gather_step(self, now_ns, wall_ms, wake_ns);
    hold_lock(self, now_ns);
    bool any = trm_master_step(self->master, now_ns, wall_ms, wake_ns);
    trm_progress progress;
    trm_master_progress(self->master, &progress);
    trm_progress_show(&self->view, &progress, now_ns, wake_ns);
    if (!self->forgot && strcmp(progress.phase, "starting") != 0) { /* this launch is in its own log now */
        trm_epochs_forget(self->ground->fs, self->spec->state_dir, self->epoch);
        self->forgot = true;
    }
    if (!self->said_end && trm_master_ended(self->master, &self->end))
        say_end(self, &progress);
    return any;
}

bool trm_leader_failed(const trm_leader *self, trm_end *end)
{
    if (self->failed)
        *end = self->end;
    return self->failed;
}

bool trm_leader_is_deposed(const trm_leader *self)
{
    trm_err why;
    return self->master && trm_master_deposed(self->master, &why);
}

bool trm_leader_has_master(const trm_leader *self)
{
    return self->master != NULL;
}

const trm_master *trm_leader_master(const trm_leader *self)
{
    return self->master;
}

void trm_leader_rank_dead(trm_leader *self, uint32_t rank)
{
    if (rank < self->ground->transport->ranks)
        self->dead[rank] = 1;
    if (self->master)
        trm_master_rank_dead(self->master, rank);
}

bool trm_leader_rank_lives(const trm_leader *self, uint32_t rank)
{
    return !self->master || trm_master_rank_lives(self->master, rank);
}

void trm_leader_interrupt(trm_leader *self, const char *why)
{
    if (self->master)
        trm_master_interrupt(self->master, why);
    else
        self->interrupted = why;
}

bool trm_leader_is_over(const trm_leader *self)
{
    return self->master && trm_master_is_over(self->master);
}

bool trm_leader_ended(const trm_leader *self, trm_end *end)
{
    if (!self->said_end && !self->failed)
        return false;
    *end = self->end;
    return true;
}
