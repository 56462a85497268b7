/* The worker's life, and its frames. See worker.h; orders are in worker_orders.c, the data's way
 * in shuffle.c, fetch.c, fetch_serve.c, adopt.c and copies.c.
 *
 *     HELLO (an executor is up, or none will be) ─▶ SETUP ─▶ ORDER, OUTPUTS, ADOPT … ─▶ END
 *       ─▶ the crew is stopped ─▶ BYE
 *     another master ─▶ HELLO ─▶ SETUP ─▶ CLAIM, reports again ─▶ ORDER … as before
 */
#include "config.h" /* system extensions, before any header of the system */

#include "workers/worker_self.h"

#include "runtime/clock.h"
#include "runtime/diag.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MS TRM_NS_PER_MS

void trm_worker_host(char *out)
{
    const char *named = getenv("TRIREME_HOST");
    char host[TRM_HOST_NAME_BYTES] = "";
    if (gethostname(host, sizeof host - 1) != 0 || !host[0])
        strcpy(host, "?");
    snprintf(out, TRM_HOST_NAME_BYTES, "%s", named && named[0] ? named : host);
}

/* ---- Making -------------------------------------------------------------------------------- */

static void take_crew(trm_worker *self, trm_status why_not_status, const char *why_not)
{
    self->crew_status = TRM_AGAIN;
    if (self->crew) {
        self->executors = trm_crew_executors(self->crew);
        snprintf(self->run_store, sizeof self->run_store, "%s", trm_crew_run_store(self->crew));
        return;
    }
    self->crew_status = why_not_status;
    snprintf(self->crew_text, sizeof self->crew_text, "%s", why_not);
    self->hello_due = true;
}

trm_status trm_worker_create(trm_worker **out, const trm_spec *spec, trm_fs *fs, trm_transport *transport,
                             trm_crew *crew, trm_status why_not_status, const char *why_not, trm_err *err)
{
    assert(crew || (why_not_status != TRM_OK && why_not_status != TRM_AGAIN));
    trm_worker *self = calloc(1, sizeof *self);
    if (!self) {
        trm_crew_stop(crew, STOP_GRACE_MS);
        return trm_err_set(err, TRM_ENOMEM, "no memory for the worker");
    }
    self->spec = spec;
    self->fs = fs;
    self->transport = transport;
    self->crew = crew;
    self->sender = (trm_sender){.transport = transport};
    trm_ledger_init(&self->ledger);
    trm_worker_host(self->host);
    take_crew(self, why_not_status, why_not);
    trm_status status = trm_fetch_server_create(&self->server, fs, &self->sender, self->run_store, err);
    if (status == TRM_OK)
        status = trm_copies_create(&self->copies, fs, &self->sender, self->run_store, err);
    if (status == TRM_OK)
        status = trm_adopter_create(&self->adopter, fs, &self->sender, self->run_store, self->copies, err);
    if (status != TRM_OK) {
        trm_worker_destroy(self);
        return status;
    }
    *out = self;
    return TRM_OK;
}

/* What is kept for a later launch is the runs: everything else in the store goes. */
static void stop_crew(trm_worker *self, bool keep)
{
    trm_fetch_server_reset(self->server);
    if (self->shuffle && self->ending && !keep)
        trm_shuffle_abandon(self->shuffle);
    trm_shuffle_destroy(self->shuffle);
    self->shuffle = NULL;
    trm_adopter_destroy(self->adopter, keep || !self->ending);
    self->adopter = NULL;
    trm_copies_destroy(self->copies);
    self->copies = NULL;
    if (!self->crew)
        return;
    if (self->keeps && !keep)
        trm_crew_keep_scratch(self->crew, false);
    trm_crew_stop(self->crew, STOP_GRACE_MS);
    self->crew = NULL;
}

void trm_worker_destroy(trm_worker *self)
{
    if (!self)
        return;
    if (self->server)
        stop_crew(self, false);
    trm_crew_stop(self->crew, STOP_GRACE_MS);
    trm_fetch_server_destroy(self->server);
    trm_adopter_destroy(self->adopter, true);
    trm_copies_destroy(self->copies);
    order_queue_close(&self->ready);
    order_queue_close(&self->reduces);
    trm_ledger_close(&self->ledger);
    trm_writer_close(&self->report);
    trm_sender_close(&self->sender);
    free(self);
}

void trm_worker_set_master(trm_worker *self, uint32_t master, uint64_t epoch, uint64_t term)
{
    bool older = epoch < self->sender.epoch || (epoch == self->sender.epoch && term < self->sender.term);
    bool known = master == self->master && epoch == self->sender.epoch && term == self->sender.term;
    if (older || known || self->ending)
        return;
    self->master = master;
    self->sender.epoch = epoch;
    self->sender.term = term;
    self->attached = self->claim_due = false;
    self->hello_due = self->crew_status != TRM_AGAIN;
    self->heard_ns = self->step_ns;
}

uint64_t trm_worker_term(const trm_worker *self)
{
    return self->sender.term;
}

uint64_t trm_worker_epoch(const trm_worker *self)
{
    return self->sender.epoch;
}

/* ---- Frames in --------------------------------------------------------------------------------- */

/* The same job as before: what may have changed are the cuts and who is there. */
static trm_status set_up_again(trm_worker *self, const trm_setup *setup)
{
    if (setup->plan_crc != self->setup.plan_crc || setup->tasks != self->setup.tasks ||
        setup->partitions != self->setup.partitions)
        return TRM_ECORRUPT;
    return trm_shuffle_peers(self->shuffle, setup);
}

static void on_setup(trm_worker *self, const trm_wire_header *header, trm_reader *body)
{
    trm_setup setup;
    trm_err err = {""};
    if (trm_setup_decode(&setup, body) != TRM_OK || !trm_reader_done(body)) {
        self->dropped++;
        return;
    }
    self->sender.epoch = header->epoch;
    self->sender.term = header->term;
    self->attached = false;
    trm_status status = self->shuffle ? set_up_again(self, &setup)
                                      : trm_shuffle_create(&self->shuffle, self->fs, &self->sender,
                                                           self->run_store, &setup, &err);
    if (status == TRM_OK) {
        bool news = !self->set_up || setup.cuts_crc != self->setup.cuts_crc;
        if (self->crew && news)
            trm_crew_setup(self->crew, &setup, header->epoch);
        self->setup = setup;
        self->setup.peers = NULL;
        self->setup.peers_count = 0;
        self->set_up = self->attached = true;
        self->claim_due = true;
        self->claim_at = 0;
        trm_ledger_send_again(&self->ledger);
        trm_copies_tell_again(self->copies);
    } else { /* HELLO again, and so SETUP again: there may be memory then */
        self->dropped++;
        trm_debug("a set-up cannot be followed: %s", err.text[0] ? err.text : trm_status_name(status));
    }
    trm_setup_close(&setup);
}

/* Lists are obeyed whole or not at all: `one` first decodes all of it with `obey` false. */
static void on_list(trm_worker *self, trm_reader *body,
                    void (*one)(trm_worker *self, trm_reader *in, bool obey))
{
    trm_reader check = *body;
    while (trm_reader_left(&check) && trm_reader_ok(&check))
        one(self, &check, false);
    if (!trm_reader_ok(&check)) {
        self->dropped++;
        return;
    }
    while (trm_reader_left(body))
        one(self, body, true);
}

static void on_order(trm_worker *self, trm_reader *in, bool obey)
{
    trm_order order;
    trm_order_decode(&order, in);
    if (obey)
        worker_order(self, &order);
}

static void on_settled(trm_worker *self, trm_reader *in, bool obey)
{
    trm_order order;
    trm_order_decode(&order, in);
    if (obey && !trm_ledger_settle(&self->ledger, &order))
        self->dropped++;
}

static void on_cancel(trm_worker *self, trm_reader *in, bool obey)
{
    trm_order order;
    trm_order_decode(&order, in);
    if (obey)
        worker_cancel(self, &order);
}

static void on_recall(trm_worker *self, trm_reader *in, bool obey)
{
    trm_order order;
    trm_order_decode(&order, in);
    if (obey)
        worker_recall(self, &order);
}

static void on_output(trm_worker *self, trm_reader *in, bool obey)
{
    trm_output_at at;
    trm_output_at_decode(&at, in);
    if (obey)
        trm_shuffle_output(self->shuffle, &at);
}

static void on_store(trm_worker *self, trm_reader *in, bool obey)
{
    trm_store store;
    trm_store_decode(&store, in);
    if (!obey)
        return;
    if (!self->crew || !trm_adopter_add(self->adopter, &store))
        self->dropped++;
    else
        worker_keep_scratch(self);
}

static void on_copy(trm_worker *self, trm_reader *in, bool obey)
{
    trm_copy what;
    trm_copy_decode(&what, in);
    if (!obey)
        return;
    if (!self->crew || what.task >= self->setup.tasks ||
        !trm_copies_add(self->copies, &what, self->setup.partitions))
        self->dropped++;
    else
        worker_keep_scratch(self);
}

static void on_end(trm_worker *self, trm_reader *body)
{
    trm_end end;
    trm_end_decode(&end, body);
    if (!trm_reader_done(body))
        self->dropped++;
    else
        trm_worker_leave(self, &end);
}

static void on_fetch(trm_worker *self, uint32_t from, trm_reader *body)
{
    trm_fetch fetch;
    trm_fetch_decode(&fetch, body);
    if (!trm_reader_done(body) || !trm_fetch_server_request(self->server, from, &fetch))
        self->dropped++;
}

static void on_block(trm_worker *self, uint32_t from, trm_reader *body, uint64_t now_ns)
{
    trm_block block;
    trm_block_decode(&block, body);
    if (!trm_reader_done(body) || (!trm_shuffle_block(self->shuffle, from, &block, now_ns) &&
                                   !trm_copies_block(self->copies, from, &block, now_ns)))
        self->dropped++;
}

/* Of a peer: what is of this epoch. Of the master: SETUP and END of no older term, which before
 * the first SETUP may be of any epoch that is not known to be over; all else only from the master
 * that has set this rank up. */
static bool is_obeyed(const trm_worker *self, uint32_t from, const trm_wire_header *header)
{
    if (header->type == TRM_WIRE_FETCH || header->type == TRM_WIRE_BLOCK)
        return self->set_up && header->epoch == self->sender.epoch;
    bool begins = header->type == TRM_WIRE_SETUP || header->type == TRM_WIRE_END;
    if (from != self->master || !(self->attached || begins))
        return false;
    if (self->sender.epoch && header->epoch != self->sender.epoch)
        return false;
    return begins ? header->term >= self->sender.term : header->term == self->sender.term;
}

void trm_worker_receive(trm_worker *self, uint32_t from, const trm_wire_header *header, trm_reader *body,
                        uint64_t now_ns)
{
    if (from == self->master)
        self->heard_ns = now_ns;
    if (header->type == TRM_WIRE_LEADS)
        return; /* that it is alive is all that it says; the loop looks who leads */
    if (self->ending || !is_obeyed(self, from, header)) {
        self->dropped += !self->ending;
        return;
    }
    switch (header->type) {
    case TRM_WIRE_SETUP:
        on_setup(self, header, body);
        break;
    case TRM_WIRE_ORDER:
        on_list(self, body, on_order);
        break;
    case TRM_WIRE_CANCEL:
        on_list(self, body, on_cancel);
        break;
    case TRM_WIRE_RECALL:
        on_list(self, body, on_recall);
        break;
    case TRM_WIRE_SETTLED:
        on_list(self, body, on_settled);
        break;
    case TRM_WIRE_OUTPUTS:
        on_list(self, body, on_output);
        break;
    case TRM_WIRE_ADOPT:
        on_list(self, body, on_store);
        break;
    case TRM_WIRE_COPY:
        on_list(self, body, on_copy);
        break;
    case TRM_WIRE_END:
        on_end(self, body);
        break;
    case TRM_WIRE_FETCH:
        on_fetch(self, from, body);
        break;
    case TRM_WIRE_BLOCK:
        on_block(self, from, body, now_ns);
        break;
    default:
        self->dropped++;
        break;
    }
}

/* ---- Frames out ------------------------------------------------------------------------------------ */

static bool say_hello(trm_worker *self, uint64_t now_ns)
{
    trm_hello *hello = calloc(1, sizeof *hello);
    if (!hello)
        return false;
    *hello = (trm_hello){.status = (uint32_t)self->crew_status,
                         .pid = (uint64_t)getpid(),
                         .executors = self->executors,
                         .traits = self->traits};
    memcpy(hello->text, self->crew_text, sizeof hello->text);
    memcpy(hello->host, self->host, sizeof hello->host);
    memcpy(hello->run_store, self->run_store, sizeof hello->run_store);
    if (self->crew) {
        const char *bindings = trm_crew_bindings(self->crew);
        size_t len = bindings ? strlen(bindings) : 0;
        hello->executor_memory_bytes = trm_crew_executor_memory_bytes(self->crew);
        hello->bindings = (char *)(uintptr_t)bindings;
        hello->bindings_len = (uint32_t)(len < TRM_BINDINGS_BYTES_MAX ? len : TRM_BINDINGS_BYTES_MAX);
    }
    trm_hello_encode(hello, trm_sender_begin(&self->sender, TRM_WIRE_HELLO));
    free(hello);
    if (trm_sender_send(&self->sender, self->master) != TRM_OK)
        return false;
    self->hello_due = false;
    self->hello_sent = true;
    self->hello_ns = now_ns + (self->set_up ? HELLO_FOLLOW_MS : HELLO_AGAIN_MS) * MS;
    return true;
}

static void say_pulse(trm_worker *self, uint64_t now_ns)
{
    trm_pulse pulse = {.queued = self->ready.count + self->reduces.count, .dropped = self->dropped};
    if (self->crew) {
        trm_crew_progress(self->crew, &pulse.bytes_in, &pulse.records_in, &pulse.running);
        uint32_t given = 0;
        for (uint32_t i = 0; i < self->executors; i++)
            given += trm_crew_queued(self->crew, i);
        pulse.queued += given > pulse.running ? given - pulse.running : 0;
    }
    if (self->shuffle)
        pulse.fetched_bytes = trm_shuffle_fetched_bytes(self->shuffle) + trm_copies_bytes(self->copies);
    trm_writer *frame = trm_sender_begin(&self->sender, TRM_WIRE_PULSE);
    trm_pulse_encode(&pulse, frame);
    trm_begun begun;
    for (uint32_t i = 0; self->crew && i < self->executors; i++)
        if (trm_crew_begun(self->crew, i, now_ns, &begun))
            trm_begun_encode(&begun, frame);
    trm_sender_send(&self->sender, self->master); /* one that finds no room is not missed */
    self->pulse_ns = now_ns + TRM_PULSE_MS * MS;
}

static bool say_lost(trm_worker *self)
{
    trm_output_at lost;
    if (!self->shuffle || !self->attached ||
        self->transport->ops->pending_bytes(self->transport, self->master) > TRM_MESSAGE_BYTES_MAX)
        return false;
    uint32_t count = 0;
    trm_writer *frame = trm_sender_begin(&self->sender, TRM_WIRE_LOST);
    for (; count < LOST_FRAME_MAX && trm_shuffle_lost(self->shuffle, &lost); count++)
        trm_output_at_encode(&lost, frame);
    if (count)
        trm_sender_send(&self->sender, self->master); /* what finds no room is said again later */
    return count;
}

/* ---- The end ------------------------------------------------------------------------------------------ */

void trm_worker_leave(trm_worker *self, const trm_end *end)
{
    if (self->ending)
        return;
    self->ending = true;
    self->end = *end;
}

static bool end_step(trm_worker *self, uint64_t now_ns, uint64_t *wake_ns)
{
    if (self->ended)
        return false;
    if (!self->stopped) {
        stop_crew(self, self->end.keep_runs);
        self->stopped = true;
        self->bye_ns = now_ns + BYE_WAIT_MS * MS;
    }
    trm_sender_begin(&self->sender, TRM_WIRE_BYE);
    self->ended = trm_sender_send(&self->sender, self->master) != TRM_AGAIN || now_ns >= self->bye_ns;
    *wake_ns = now_ns + MS;
    return self->ended;
}

bool trm_worker_ended(const trm_worker *self, trm_end *end)
{
    if (self->ended)
        *end = self->end;
    return self->ended;
}

/* The rank that leads is not there any more: the job is to be taken up by another launch. */
static void watch_master(trm_worker *self, uint64_t now_ns, uint64_t *wake_ns)
{
    if (self->heard_ns == 0 || self->step_ns == 0 || now_ns - self->step_ns > PAUSE_MS * MS)
        self->heard_ns = now_ns;
    uint64_t silent_ms = self->set_up ? MASTER_SILENT_MS : MASTER_BEGIN_MS;
    uint64_t due_ns = self->heard_ns + silent_ms * MS;
    if (now_ns < due_ns) {
        *wake_ns = due_ns < *wake_ns ? due_ns : *wake_ns;
        return;
    }
    trm_end end = {.exit_code = 5, .keep_runs = true};
    snprintf(end.text, sizeof end.text, "rank %u, which leads the job, has not been heard of for %u s",
             self->master, (unsigned)(silent_ms / 1000));
    trm_warn("%s", end.text);
    trm_worker_leave(self, &end);
}

/* ---- A step -------------------------------------------------------------------------------------------- */

static bool data_step(trm_worker *self, uint64_t now_ns, uint64_t *wake_ns)
{
    bool any = trm_shuffle_step(self->shuffle, now_ns, wake_ns);
    any |= trm_fetch_server_step(self->server);
    any |= trm_adopter_step(self->adopter, self->master);
    any |= trm_copies_step(self->copies, now_ns, wake_ns);
    if (trm_copies_replaced(self->copies))
        trm_fetch_server_reset(self->server);
    any |= self->reduces.count && worker_reduces_step(self);
    return any;
}

static bool talk_step(trm_worker *self, uint64_t now_ns, uint64_t *wake_ns)
{
    bool hello = self->hello_due || (self->hello_sent && !self->attached && now_ns >= self->hello_ns);
    bool any = hello && say_hello(self, now_ns);
    bool told = self->attached && trm_copies_tell(self->copies, self->master);
    any |= self->claim_due && told && worker_claim_send(self);
    any |= self->ledger.due_bytes && worker_reports_send(self);
    any |= say_lost(self);
    if (self->hello_sent && now_ns >= self->pulse_ns)
        say_pulse(self, now_ns);
    *wake_ns = self->hello_sent && self->pulse_ns < *wake_ns ? self->pulse_ns : *wake_ns;
    *wake_ns = self->hello_sent && !self->attached && self->hello_ns < *wake_ns ? self->hello_ns : *wake_ns;
    return any;
}

bool trm_worker_step(trm_worker *self, uint64_t now_ns, uint64_t *wake_ns)
{
    watch_master(self, now_ns, wake_ns);
    self->step_ns = now_ns;
    if (self->ending)
        return end_step(self, now_ns, wake_ns);
    bool any = worker_crew_step(self);
    if (self->set_up)
        any |= data_step(self, now_ns, wake_ns);
    any |= worker_feed(self);
    any |= talk_step(self, now_ns, wake_ns);
    return any;
}

unsigned trm_worker_fds(const trm_worker *self, int *out, unsigned max)
{
    return self->crew ? trm_crew_fds(self->crew, out, max) : 0;
}
