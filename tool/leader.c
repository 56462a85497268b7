#include "config.h" /* system extensions, before any header of the system */

#include "tool/leader.h"

#include "jobs/exit_code.h"
#include "runtime/clock.h"
#include "runtime/diag.h"
#include "scheduler/master.h"
#include "scheduler/state_dir.h"
#include "tool/progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum life {
    LIFE_GATHERING = 0, /* HELLO of the ranks */
    LIFE_LEADING,       /* there is a master */
    LIFE_REFUSED,       /* the job was refused, or was done already: ranks are told */
    LIFE_ENDED
} life;

/* A HELLO that came before there was a master to be given it. */
typedef struct greeting {
    uint8_t *body;
    size_t len;
    trm_wire_header header;
} greeting;

struct trm_leader {
    const trm_spec *spec;
    trm_transport *transport;
    life life;

    /* Gathering. */
    greeting *greetings;                       /* one a rank; len 0: it has not come */
    uint32_t greeted, able;                    /* ranks that said HELLO; those of them whose executors work */
    uint64_t executors, executor_memory_bytes; /* of all ranks; of the smallest executor */
    trm_traits traits;
    trm_status first_status; /* why the first rank that is not able is not */
    char first_text[TRM_TEXT_BYTES_MAX];
    uint64_t gather_until_ns; /* 0: not set yet */

    /* Leading. */
    trm_submission submission;
    trm_state_dir state_dir;
    bool submitted, opened;
    trm_replog *log;
    trm_replica replica; /* of it */
    trm_master *master;
    trm_progress_view view;

    /* The end. */
    trm_end end;
    uint8_t *told; /* one a rank, when refused: END is on its way */
    uint32_t byes;
    uint64_t refuse_until_ns;
    const char *interrupted; /* before there was a master; NULL: not */
};

/* ---- Gathering ----------------------------------------------------------------------------------- */

static void show_bindings(const trm_leader *self, const trm_hello *hello)
{
    const char *at = hello->bindings, *end = at + hello->bindings_len;
    while (self->spec->report_bindings && at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        int len = (int)((newline ? newline : end) - at);
        fprintf(stderr, "%.*s\n", len, at);
        at += len + 1;
    }
}

static void take_facts(trm_leader *self, uint32_t from, const trm_hello *hello)
{
    if (hello->status == TRM_OK) {
        if (self->able++ == 0)
            self->traits = hello->traits;
        self->executors += hello->executors;
        if (!self->executor_memory_bytes || hello->executor_memory_bytes < self->executor_memory_bytes)
            self->executor_memory_bytes = hello->executor_memory_bytes;
        show_bindings(self, hello);
    } else if (self->first_status == TRM_OK) {
        self->first_status = (trm_status)hello->status;
        if (self->transport->ranks > 1 && hello->status != TRM_EJOB && hello->status != TRM_EUSAGE)
            snprintf(self->first_text, sizeof self->first_text, "rank %u on %s: %.3800s", from, hello->host,
                     hello->text);
        else
            snprintf(self->first_text, sizeof self->first_text, "%s", hello->text);
    }
}

/* Keeps the frame for the master; the newest of a rank counts. */
static void take_hello(trm_leader *self, uint32_t from, const trm_wire_header *header, trm_reader *body)
{
    greeting *slot = &self->greetings[from];
    size_t len = trm_reader_left(body);
    uint8_t *copy = malloc(len ? len : 1);
    trm_hello *hello = calloc(1, sizeof *hello);
    if (copy && hello) {
        memcpy(copy, body->at, len);
        trm_hello_decode(hello, body);
    }
    if (!copy || !hello || !trm_reader_done(body) || slot->len) {
        free(copy); /* it is said again until SETUP comes */
        free(hello);
        return;
    }
    *slot = (greeting){.body = copy, .len = len, .header = *header};
    self->greeted++;
    take_facts(self, from, hello);
    free(hello);
}

static void forget_greetings(trm_leader *self)
{
    for (uint32_t i = 0; self->greetings && i < self->transport->ranks; i++)
        free(self->greetings[i].body);
    free(self->greetings);
    self->greetings = NULL;
}

/* ---- Preparing: everything is looked at before anything is written --------------------------------- */

static trm_status send(void *context, uint32_t to, const void *frame, size_t len)
{
    trm_transport *transport = context;
    return transport->ops->send(transport, to, frame, len);
}

static trm_status open_log(trm_leader *self, trm_err *err)
{
    char dir[TRM_FS_PATH_BYTES_MAX];
    if (snprintf(dir, sizeof dir, "%s/log", self->spec->state_dir) >= (int)sizeof dir)
        return trm_err_set(err, TRM_EOUTPUT, "the path of the state directory is too long");
    trm_replog_local_config config = {
        .fs = trm_fs_posix(), .dir = dir, .rank = self->transport->rank, .log_id = trm_clock_entropy()};
    return trm_replog_local_open(&self->log, &config, err);
}

static trm_status make_master(trm_leader *self, trm_err *err)
{
    trm_master_config config = {.spec = self->spec,
                                .submission = &self->submission,
                                .fs = trm_fs_posix(),
                                .replica = &self->replica,
                                .outbox = {.send = send, .context = self->transport},
                                .ranks = self->transport->ranks,
                                .seed = trm_clock_entropy(),
                                .wall_ms = trm_clock_wall_ms()};
    return trm_master_create(&self->master, &config, err);
}

static trm_status prepare(trm_leader *self, trm_err *err)
{
    if (self->interrupted)
        return trm_err_set(err, TRM_EINTERRUPTED, "%s", self->interrupted);
    if (!self->able)
        return trm_err_set(err, self->first_status == TRM_OK ? TRM_ELAUNCH : self->first_status, "%s",
                           self->first_status == TRM_OK ? "no rank has executors that work"
                                                        : self->first_text);
    trm_fs *fs = trm_fs_posix();
    uint32_t executors = self->executors < UINT32_MAX ? (uint32_t)self->executors : UINT32_MAX;
    trm_status status = trm_submission_init(&self->submission, self->spec, &self->traits, executors,
                                            self->executor_memory_bytes, fs, err);
    self->submitted = status == TRM_OK;
    if (status == TRM_OK)
        status = trm_state_dir_open(&self->state_dir, self->spec, &self->submission, fs, err);
    self->opened = status == TRM_OK;
    if (status != TRM_OK || self->state_dir.found == TRM_STATE_DONE)
        return status;
    status = open_log(self, err);
    if (status != TRM_OK)
        return status;
    trm_replica_init(&self->replica, self->log);
    return make_master(self, err);
}

static void greet_master(trm_leader *self, uint64_t now_ns)
{
    for (uint32_t i = 0; i < self->transport->ranks; i++) {
        greeting *slot = &self->greetings[i];
        trm_reader body;
        trm_reader_init(&body, slot->body, slot->len);
        if (slot->len)
            trm_master_receive(self->master, i, &slot->header, &body, now_ns);
    }
    forget_greetings(self);
}

/* ---- Refusing: everybody is told, and what was made is removed ---------------------------------------- */

static void refuse(trm_leader *self, trm_status status, const char *why, uint64_t now_ns)
{
    self->end = (trm_end){.exit_code = trm_exit_code_of(status)};
    snprintf(self->end.text, sizeof self->end.text, "%s", why);
    self->life = LIFE_REFUSED;
    self->refuse_until_ns = now_ns + TRM_REFUSE_WAIT_MS * TRM_NS_PER_MS;
    trm_replica_close(&self->replica);
    trm_replog_close(self->log);
    self->log = NULL;
    if (self->opened && status != TRM_OK) {
        trm_state_dir_undo(&self->state_dir);
        self->opened = false;
    }
}

/* The rank's own number comes last in the byes too: its worker has an end like all others. */
static bool tell_end(trm_leader *self)
{
    trm_writer frame = {0};
    trm_wire_header header = {.type = TRM_WIRE_END};
    bool any = false;
    trm_wire_begin(&frame, &header);
    trm_end_encode(&self->end, &frame);
    trm_wire_seal(&frame);
    for (uint32_t i = 0; i < self->transport->ranks && trm_writer_ok(&frame); i++) {
        if (self->told[i] || send(self->transport, i, frame.data, frame.len) != TRM_OK)
            continue;
        self->told[i] = 1;
        any = true;
    }
    trm_writer_close(&frame);
    return any;
}

static bool refused_step(trm_leader *self, uint64_t now_ns, uint64_t *wake_ns)
{
    if (self->byes == self->transport->ranks || now_ns >= self->refuse_until_ns) {
        self->life = LIFE_ENDED;
        return true;
    }
    *wake_ns = self->refuse_until_ns < *wake_ns ? self->refuse_until_ns : *wake_ns;
    return tell_end(self);
}

/* ---- The life ---------------------------------------------------------------------------------------------
 */

trm_status trm_leader_create(trm_leader **out, const trm_spec *spec, trm_transport *transport, trm_err *err)
{
    trm_leader *self = calloc(1, sizeof *self);
    if (self) {
        self->spec = spec;
        self->transport = transport;
        self->greetings = calloc(transport->ranks, sizeof *self->greetings);
        self->told = calloc(transport->ranks, 1);
    }
    if (!self || !self->greetings || !self->told) {
        trm_leader_destroy(self);
        return trm_err_set(err, TRM_ENOMEM, "no memory to lead %u ranks", transport->ranks);
    }
    *out = self;
    return TRM_OK;
}

void trm_leader_destroy(trm_leader *self)
{
    if (!self)
        return;
    trm_master_destroy(self->master);
    trm_replica_close(&self->replica);
    trm_replog_close(self->log);
    forget_greetings(self);
    if (self->opened)
        trm_state_dir_close(&self->state_dir);
    if (self->submitted)
        trm_submission_close(&self->submission);
    free(self->told);
    free(self);
}

void trm_leader_receive(trm_leader *self, uint32_t from, const trm_wire_header *header, trm_reader *body,
                        uint64_t now_ns)
{
    if (self->life == LIFE_LEADING) {
        trm_master_receive(self->master, from, header, body, now_ns);
    } else if (header->type == TRM_WIRE_BYE) {
        self->byes++;
    } else if (self->life == LIFE_GATHERING && header->type == TRM_WIRE_HELLO) {
        take_hello(self, from, header, body);
        if (self->greeted == 1 && self->transport->ranks > 1)
            self->gather_until_ns = now_ns + TRM_GATHER_MS * TRM_NS_PER_MS;
    }
}

static bool gather_step(trm_leader *self, uint64_t now_ns, uint64_t *wake_ns)
{
    if (!self->gather_until_ns)
        self->gather_until_ns = now_ns + TRM_GATHER_FIRST_MS * TRM_NS_PER_MS;
    if (self->greeted < self->transport->ranks && now_ns < self->gather_until_ns && !self->interrupted) {
        *wake_ns = self->gather_until_ns < *wake_ns ? self->gather_until_ns : *wake_ns;
        return false;
    }
    trm_err err = {""};
    trm_status status = prepare(self, &err);
    if (status == TRM_OK && self->master) {
        self->life = LIFE_LEADING;
        greet_master(self, now_ns);
    } else if (status == TRM_OK) {
        trm_info("done already: %s", self->spec->output_dir);
        refuse(self, TRM_OK, "done already", now_ns);
    } else {
        trm_error("%s", err.text);
        refuse(self, status, err.text, now_ns);
    }
    return true;
}

static void say_end(trm_leader *self, const trm_progress *progress, uint64_t now_ns)
{
    if (self->end.exit_code != TRM_EXIT_DONE) {
        trm_error("%s", self->end.text);
        return;
    }
    trm_counters counters;
    trm_master_counters(self->master, &counters);
    trm_progress_summary(&self->view, progress, &counters, &self->traits, self->spec->output_dir, now_ns);
}

bool trm_leader_step(trm_leader *self, uint64_t now_ns, uint64_t wall_ms, uint64_t *wake_ns)
{
    if (self->life == LIFE_GATHERING)
        return gather_step(self, now_ns, wake_ns);
    if (self->life == LIFE_REFUSED)
        return refused_step(self, now_ns, wake_ns);
    if (self->life == LIFE_ENDED)
        return false;
    bool any = trm_master_step(self->master, now_ns, wall_ms, wake_ns);
    trm_progress progress;
    trm_master_progress(self->master, &progress);
    trm_progress_show(&self->view, &progress, now_ns, wake_ns);
    if (trm_master_ended(self->master, &self->end)) {
        self->life = LIFE_ENDED;
        say_end(self, &progress, now_ns);
    }
    return any;
}

int trm_leader_fd(const trm_leader *self)
{
    return self->log ? trm_replog_fd(self->log) : -1;
}

void trm_leader_interrupt(trm_leader *self, const char *why)
{
    if (self->master)
        trm_master_interrupt(self->master, why);
    else
        self->interrupted = why;
}

bool trm_leader_ended(const trm_leader *self, trm_end *end)
{
    if (self->life != LIFE_ENDED)
        return false;
    *end = self->end;
    return true;
}
