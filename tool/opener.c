#include "config.h" /* system extensions, before any header of the system */

#include "tool/opener.h"

#include "jobs/exit_code.h"
#include "runtime/clock.h"
#include "runtime/diag.h"
#include "scheduler/epochs.h"
#include "tool/gather.h"
#include "tool/node.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum life {
    LIFE_GATHERING = 0, /* HELLO of the ranks */
    LIFE_WAITING,       /* ranks of the launch before still have their logs */
    LIFE_TELLING,       /* the launch has begun: BEGIN goes to all */
    LIFE_OVER,          /* … has gone: nothing is left to be done */
    LIFE_REFUSED,       /* the job was refused, or was done already: END goes to all */
    LIFE_ENDED
} life;

struct trm_opener {
    const trm_spec *spec;
    const trm_ground *ground;
    life life;
    trm_gather gather;
    uint64_t gather_until_ns; /* 0: not set yet */
    trm_submission submission;
    trm_state_dir state_dir;
    bool submitted, opened;
    uint64_t try_ns, wait_until_ns; /* WAITING: the next try, and the last; 0: none is due */
    uint64_t epoch;
    trm_begin begin; /* as this rank itself gets it */
    bool begun;      /* … and has not taken it yet */
    trm_end end;
    uint8_t *told;       /* one a rank: of the launch … */
    uint8_t *introduced; /* … and before that, of this process */
    uint32_t untold, byes, introductions;
    uint64_t refuse_until_ns;
    const char *interrupted; /* NULL: not */
};

/* ---- Preparing: everything is looked at before anything is written --------------------------------- */

static trm_status submit(trm_opener *self, trm_err *err)
{
    const trm_gather *gather = &self->gather;
    if (self->interrupted)
        return trm_err_set(err, TRM_EINTERRUPTED, "%s", self->interrupted);
    if (!gather->able && gather->first_status != TRM_OK)
        return trm_err_set(err, gather->first_status, "%s", gather->first_text);
    if (!gather->able)
        return trm_err_set(err, TRM_ELAUNCH, "no rank has executors that work");
    uint32_t executors = gather->executors < UINT32_MAX ? (uint32_t)gather->executors : UINT32_MAX;
    trm_status status = trm_submission_init(&self->submission, self->spec, &gather->traits, executors,
                                            gather->executor_memory_bytes, self->ground->fs, err);
    self->submitted = status == TRM_OK;
    return status;
}

static trm_status choose_voters(trm_opener *self, trm_raft_members *members, trm_err *err)
{
    uint32_t ranks = self->ground->transport->ranks;
    uint32_t *host = malloc(ranks * sizeof *host);
    trm_writer out = {0};
    if (!host)
        return trm_err_set(err, TRM_ENOMEM, "no memory to choose the voters");
    for (uint32_t i = 0; i < ranks; i++)
        host[i] = self->gather.greeting[i].able ? self->gather.greeting[i].host : UINT32_MAX;
    self->begin.voters_wanted = trm_node_choose(host, ranks, self->spec->voters, members);
    free(host);
    trm_raft_members_encode(members, &out);
    if (trm_writer_ok(&out) && out.len <= sizeof self->begin.members) {
        memcpy(self->begin.members, out.data, out.len);
        self->begin.members_len = (uint32_t)out.len;
    }
    trm_writer_close(&out);
    return self->begin.members_len ? TRM_OK : trm_err_set(err, TRM_ENOMEM, "no memory for the voters");
}

static trm_status begin_launch(trm_opener *self, trm_err *err)
{
    trm_raft_members members;
    trm_epochs_begun begun;
    char launch[512];
    uint64_t entropy = self->ground->entropy(self->ground->context);
    const trm_greeting *own = &self->gather.greeting[self->ground->transport->rank];
    snprintf(launch, sizeof launch, "process %" PRIu64 " on host %.256s (launch %016" PRIx64 ")", own->pid,
             own->host_name ? own->host_name : "?", entropy);
    trm_status status = choose_voters(self, &members, err);
    trm_epochs_config config = {.fs = self->ground->fs,
                                .state_dir = self->spec->state_dir,
                                .ranks = self->ground->transport->ranks,
                                .voters = &members,
                                .launch = launch,
                                .entropy = entropy,
                                .unsafe_recover = self->spec->unsafe_recover};
    if (status == TRM_OK)
        status = trm_epochs_begin(&config, &begun, err);
    if (status == TRM_ELOST || status == TRM_ECORRUPT) /* what is in the state directory is not enough */
        status = TRM_EOUTPUT;
    if (status != TRM_OK)
        return status;
    self->epoch = begun.epoch;
    if (begun.resumed)
        trm_info("launch %" PRIu64 " goes on with what is done", begun.epoch);
    if (self->ground->transport->ranks < 3)
        trm_info(
            "with fewer than 3 ranks the job does not outlive the rank that leads without another launch");
    return TRM_OK;
}

static trm_status prepare(trm_opener *self, trm_err *err)
{
    trm_status status = submit(self, err);
    if (status == TRM_OK)
        status = trm_state_dir_open(&self->state_dir, self->spec, &self->submission, self->ground->fs, err);
    self->opened = self->submitted && status == TRM_OK;
    if (status == TRM_ECORRUPT) /* its identity, or its plan */
        status = TRM_EOUTPUT;
    if (status != TRM_OK || self->state_dir.found == TRM_STATE_DONE)
        return status;
    return begin_launch(self, err);
}

/* ---- Telling ------------------------------------------------------------------------------------------ */

/* Ranks of its host, so that it sees at once when one dies. */
static void put_neighbours(const trm_opener *self, uint32_t rank, trm_begin *begin)
{
    const trm_greeting *own = &self->gather.greeting[rank];
    begin->neighbours = 0;
    for (uint32_t i = 0; own->body && i < self->ground->transport->ranks; i++) {
        const trm_greeting *other = &self->gather.greeting[i];
        if (i == rank || !other->body || other->host != own->host ||
            begin->neighbours == TRM_BEGIN_NEIGHBOURS_MAX)
            continue;
        begin->neighbour[begin->neighbours].rank = i;
        begin->neighbour[begin->neighbours++].pid = other->pid;
    }
}

static bool tell(trm_opener *self, uint32_t rank, trm_writer *frame)
{
    trm_transport *transport = self->ground->transport;
    trm_wire_header header = {.epoch = self->epoch};
    header.type = self->life == LIFE_REFUSED ? TRM_WIRE_END : TRM_WIRE_BEGIN;
    trm_wire_begin(frame, &header);
    if (self->life == LIFE_REFUSED) {
        trm_end_encode(&self->end, frame);
    } else {
        put_neighbours(self, rank, &self->begin);
        trm_begin_encode(&self->begin, frame);
    }
    trm_wire_seal(frame);
    return trm_writer_ok(frame) && transport->ops->send(transport, rank, frame->data, frame->len) == TRM_OK;
}

static bool tell_all(trm_opener *self)
{
    trm_writer frame = {0};
    bool any = false;
    for (uint32_t i = 0; i < self->ground->transport->ranks; i++) {
        bool itself = i == self->ground->transport->rank && self->life == LIFE_TELLING;
        if (self->told[i] || (!itself && !tell(self, i, &frame)))
            continue;
        self->told[i] = 1;
        self->untold--;
        any = true;
    }
    trm_writer_close(&frame);
    return any;
}

/* Tells who greets who it is that prepares the launch: a BEGIN without an epoch. */
static void introduce(trm_opener *self)
{
    trm_writer frame = {0};
    const trm_greeting *greeting = self->gather.greeting, *own = &greeting[self->ground->transport->rank];
    if (self->introductions == self->gather.greeted || !own->body)
        return;
    for (uint32_t i = 0; i < self->ground->transport->ranks; i++) {
        bool watches = &greeting[i] != own && greeting[i].host == own->host;
        if (self->introduced[i] || !greeting[i].body || (watches && !tell(self, i, &frame)))
            continue;
        self->introduced[i] = 1;
        self->introductions++;
    }
    trm_writer_close(&frame);
}

/* It still asks: what it was told may be lost, and it may be one whose vote is needed. */
static void tell_again(trm_opener *self, uint32_t rank)
{
    bool told = self->told[rank] && self->life != LIFE_ENDED && rank != self->ground->transport->rank;
    if (!told)
        return;
    self->told[rank] = 0;
    self->untold++;
    if (self->life == LIFE_OVER)
        self->life = LIFE_TELLING;
}

/* What was made is removed, unless the job was done before. */
static void refuse(trm_opener *self, trm_status status, const char *why, uint64_t now_ns)
{
    self->end = (trm_end){.exit_code = trm_exit_code_of(status)};
    snprintf(self->end.text, sizeof self->end.text, "%s", why);
    self->life = LIFE_REFUSED;
    self->refuse_until_ns = now_ns + TRM_REFUSE_WAIT_MS * TRM_NS_PER_MS;
    if (self->opened && status != TRM_OK) {
        trm_state_dir_undo(&self->state_dir);
        self->opened = false;
    }
}

/* ---- The life ---------------------------------------------------------------------------------------------
 */

trm_status trm_opener_create(trm_opener **out, const trm_spec *spec, const trm_ground *ground, trm_err *err)
{
    trm_opener *self = calloc(1, sizeof *self);
    if (!self)
        return trm_err_set(err, TRM_ENOMEM, "no memory to begin the job");
    self->spec = spec;
    self->ground = ground;
    self->untold = ground->transport->ranks;
    self->told = calloc(self->untold, 1);
    self->introduced = calloc(self->untold, 1);
    trm_status status = self->told && self->introduced
                            ? trm_gather_init(&self->gather, self->untold, spec->report_bindings, err)
                            : trm_err_set(err, TRM_ENOMEM, "no memory to begin the job");
    if (status != TRM_OK) {
        trm_opener_destroy(self);
        return status;
    }
    *out = self;
    return TRM_OK;
}

void trm_opener_destroy(trm_opener *self)
{
    if (!self)
        return;
    trm_gather_close(&self->gather);
    if (self->opened)
        trm_state_dir_close(&self->state_dir);
    if (self->submitted)
        trm_submission_close(&self->submission);
    free(self->told);
    free(self->introduced);
    free(self);
}

void trm_opener_receive(trm_opener *self, uint32_t from, const trm_wire_header *header, trm_reader *body,
                        uint64_t now_ns)
{
    if (header->type == TRM_WIRE_BYE) {
        self->byes++;
    } else if (self->life == LIFE_GATHERING && header->type == TRM_WIRE_HELLO) {
        trm_gather_take(&self->gather, from, header, body);
        if (self->gather.greeted == 1)
            self->gather_until_ns = now_ns + TRM_GATHER_MS * TRM_NS_PER_MS;
    } else if (header->type == TRM_WIRE_HELLO) {
        tell_again(self, from);
    }
}

static bool may_wait(trm_opener *self, trm_status status, uint64_t now_ns)
{
    if (status != TRM_EFENCED || !self->opened)
        return false;
    if (!self->wait_until_ns)
        self->wait_until_ns = now_ns + TRM_FENCED_WAIT_MS * TRM_NS_PER_MS;
    return now_ns < self->wait_until_ns;
}

/* How preparing, or waiting, has ended. */
static void settle(trm_opener *self, trm_status status, const trm_err *err, uint64_t now_ns)
{
    if (status == TRM_OK && self->epoch) {
        self->life = LIFE_TELLING;
    } else if (status == TRM_OK) {
        trm_info("done already: %s", self->spec->output_dir);
        refuse(self, TRM_OK, "done already", now_ns);
    } else if (may_wait(self, status, now_ns)) {
        if (self->life != LIFE_WAITING)
            trm_info("%s: that is waited for", err->text);
        self->life = LIFE_WAITING;
        self->try_ns = now_ns + TRM_FENCED_AGAIN_MS * TRM_NS_PER_MS;
    } else {
        trm_error("%s", err->text);
        refuse(self, status, err->text, now_ns);
    }
}

static bool gather_step(trm_opener *self, uint64_t now_ns, uint64_t *wake_ns)
{
    if (!self->gather_until_ns)
        self->gather_until_ns = now_ns + TRM_GATHER_FIRST_MS * TRM_NS_PER_MS;
    introduce(self);
    if (self->gather.greeted < self->ground->transport->ranks && now_ns < self->gather_until_ns &&
        !self->interrupted) {
        *wake_ns = self->gather_until_ns < *wake_ns ? self->gather_until_ns : *wake_ns;
        return false;
    }
    trm_err err = {""};
    settle(self, prepare(self, &err), &err, now_ns);
    return true;
}

/* What is left of the launch before needs a moment to see that its mpirun is gone: elsewhere, too,
 * where the lock of the output directory says nothing. */
static bool waiting_step(trm_opener *self, uint64_t now_ns, uint64_t *wake_ns)
{
    trm_err err = {""};
    if (now_ns < self->try_ns && !self->interrupted) {
        *wake_ns = self->try_ns < *wake_ns ? self->try_ns : *wake_ns;
        return false;
    }
    trm_status status = self->interrupted ? trm_err_set(&err, TRM_EINTERRUPTED, "%s", self->interrupted)
                                          : begin_launch(self, &err);
    settle(self, status, &err, now_ns);
    return true;
}

static bool refused_step(trm_opener *self, uint64_t now_ns, uint64_t *wake_ns)
{
    if (self->byes == self->ground->transport->ranks || now_ns >= self->refuse_until_ns) {
        self->life = LIFE_ENDED;
        return true;
    }
    *wake_ns = self->refuse_until_ns < *wake_ns ? self->refuse_until_ns : *wake_ns;
    return self->untold && tell_all(self);
}

bool trm_opener_step(trm_opener *self, uint64_t now_ns, uint64_t *wake_ns)
{
    if (self->life == LIFE_GATHERING)
        return gather_step(self, now_ns, wake_ns);
    if (self->life == LIFE_WAITING)
        return waiting_step(self, now_ns, wake_ns);
    if (self->life == LIFE_REFUSED)
        return refused_step(self, now_ns, wake_ns);
    if (self->life != LIFE_TELLING)
        return false;
    bool any = tell_all(self);
    if (!self->untold) { /* last of all itself: who votes must know of the launch when it is asked */
        put_neighbours(self, self->ground->transport->rank, &self->begin);
        self->begun = true;
        self->life = LIFE_OVER;
    }
    return any;
}

void trm_opener_interrupt(trm_opener *self, const char *why)
{
    self->interrupted = why;
}

bool trm_opener_begun(trm_opener *self, uint64_t *epoch, const trm_begin **begin)
{
    if (!self->begun)
        return false;
    self->begun = false;
    *epoch = self->epoch;
    *begin = &self->begin;
    return true;
}

bool trm_opener_is_refusing(const trm_opener *self)
{
    return self->life == LIFE_REFUSED;
}

bool trm_opener_ended(const trm_opener *self, trm_end *end)
{
    if (self->life != LIFE_ENDED)
        return false;
    *end = self->end;
    return true;
}
