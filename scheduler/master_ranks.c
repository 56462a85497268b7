/* The ranks, as the master sees them.
 *
 *     ABSENT ── HELLO ──▶ READY ── silent ──▶ LOST ── heard again ──▶ READY
 *        │        └─ its crew cannot work ─▶ UNFIT
 *        └── no HELLO for RANK_BEGIN_MS ──▶ LOST
 *
 * A rank that is READY may be set aside: it serves its runs and gets no orders. */
#include "scheduler/master_self.h"

#include "runtime/crc32c.h"
#include "runtime/diag.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define LOOKOUT_MS 250u

/* ---- Frames out ------------------------------------------------------------------------------ */

void master_frame_begin(trm_master *self, trm_wire_type type)
{
    trm_wire_header header = {.type = (uint8_t)type, .epoch = self->epoch, .term = self->term};
    trm_wire_begin(&self->frame, &header);
}

trm_status master_frame_send(trm_master *self, uint32_t to)
{
    trm_wire_seal(&self->frame);
    if (!trm_writer_ok(&self->frame))
        return TRM_AGAIN; /* no memory now */
    return self->config.outbox.send(self->config.outbox.context, to, self->frame.data, self->frame.len);
}

/* ---- Who works ------------------------------------------------------------------------------- */

bool master_rank_works(const master_rank *rank)
{
    return rank->state == RANK_READY && !rank->aside;
}

static const char *host_of(const trm_master *self, uint32_t rank)
{
    if (self->ranks[rank].host_name)
        return self->ranks[rank].host_name;
    const trm_member *member = trm_table_member(self->table, self->epoch, rank); /* told to a master before */
    return member ? member->host : "?";
}

/* The first rank that cannot work for a reason that is the job's own decides what is said. */
static void nobody_left(trm_master *self)
{
    const master_rank *first = NULL;
    for (uint32_t i = 0; i < self->config.ranks; i++) {
        const master_rank *rank = &self->ranks[i];
        bool blames_job = rank->state == RANK_UNFIT && (rank->unfit == TRM_EJOB || rank->unfit == TRM_EUSAGE);
        if (rank->state == RANK_UNFIT && (!first || (blames_job && first->unfit != rank->unfit)))
            first = rank;
    }
    if (first && (first->unfit == TRM_EJOB || first->unfit == TRM_EUSAGE) && self->stage == STAGE_RUN)
        master_job_fail(self, first->unfit, "%s", first->text);
    else
        master_give_up(self, first ? first->unfit : TRM_ELAUNCH,
                       first ? first->text : "no rank is left that can work");
}

/* A rank is counted by what it is: out before a change of that, and in after it. */
static void count_out(trm_master *self, const master_rank *rank)
{
    self->ready -= rank->state == RANK_READY;
    self->coming -= rank->state == RANK_ABSENT;
    self->executors -= master_rank_works(rank) ? rank->executors : 0;
}

static void count_in(trm_master *self, const master_rank *rank)
{
    self->ready += rank->state == RANK_READY;
    self->coming += rank->state == RANK_ABSENT;
    self->executors += master_rank_works(rank) ? rank->executors : 0;
}

static void change_state(trm_master *self, master_rank *rank, rank_state state)
{
    count_out(self, rank);
    rank->state = (uint8_t)state;
    count_in(self, rank);
}

/* After every change of a rank's state. */
static void see_who_is_left(trm_master *self)
{
    self->all_hungry = true;
    if (!self->executors && !self->coming && self->stage < STAGE_FLUSH)
        nobody_left(self);
}

void master_rank_unfit(trm_master *self, uint32_t number, trm_status status, const char *why)
{
    master_rank *rank = &self->ranks[number];
    if (rank->state == RANK_UNFIT)
        return;
    free(rank->text);
    rank->text = strdup(why);
    if (!rank->text)
        rank->text = strdup("it has no memory");
    rank->unfit = status;
    change_state(self, rank, RANK_UNFIT);
    master_note_rank(self, number, "rank_unfit", why);
    if (self->config.ranks > 1)
        trm_warn("rank %u on %s cannot work: %s", number, host_of(self, number), why);
    if (self->job) {
        master_homes_leave(self, number);
        master_tasks_take_back(self, number, "its rank cannot work");
        master_outputs_of_lost_rank(self, number);
        master_copies_of_lost_rank(self, number);
    }
    see_who_is_left(self);
}

void master_rank_aside(trm_master *self, uint32_t number, const char *why)
{
    master_rank *rank = &self->ranks[number];
    uint32_t others = 0;
    for (uint32_t i = 0; i < self->config.ranks; i++)
        others += i != number && master_rank_works(&self->ranks[i]);
    if (rank->aside || !others)
        return; /* the last one goes on as well as it can */
    count_out(self, rank);
    rank->aside = true;
    count_in(self, rank);
    master_note_rank(self, number, "rank_aside", why);
    trm_warn("rank %u on %s is set aside: %s", number, host_of(self, number), why);
    master_homes_leave(self, number);
    see_who_is_left(self);
}

void master_rank_needed(trm_master *self, uint32_t number)
{
    count_out(self, &self->ranks[number]);
    self->ranks[number].aside = false;
    count_in(self, &self->ranks[number]);
    self->ranks[number].slow = 0;
    trm_info("rank %u on %s is given tasks again: nothing moves without it", number, host_of(self, number));
    master_note_rank(self, number, "rank_back", NULL);
    see_who_is_left(self);
}

static void lose_rank(trm_master *self, uint32_t number)
{
    master_rank *rank = &self->ranks[number];
    bool came = rank->state == RANK_READY;
    change_state(self, rank, RANK_LOST);
    rank->pulse = (trm_pulse){0};
    master_note_rank(self, number, "rank_lost",
                     rank->dead ? "its process is gone"
                     : came     ? "it is silent"
                                : "it has not come");
    if (rank->dead)
        trm_warn("rank %u on %s is gone: its tasks are given to others", number, host_of(self, number));
    else if (came)
        trm_warn("rank %u on %s has not been heard of for %u s: its tasks are given to others", number,
                 host_of(self, number), RANK_SILENT_MS / 1000);
    else
        trm_warn("rank %u has not come within %u s: the job goes on without it", number,
                 (self->follows ? RANK_SILENT_MS : RANK_BEGIN_MS) / 1000);
    if (self->job) {
        master_homes_leave(self, number);
        master_tasks_take_back(self, number, rank->dead ? "its rank is gone" : "its rank is silent");
        master_outputs_of_lost_rank(self, number);
        master_copies_of_lost_rank(self, number);
    }
    see_who_is_left(self);
}

void trm_master_rank_dead(trm_master *self, uint32_t number)
{
    assert(number < self->config.ranks);
    master_rank *rank = &self->ranks[number];
    if (rank->dead)
        return;
    rank->dead = true;
    if (self->deposed || rank->state == RANK_GONE || rank->state == RANK_LOST)
        return;
    if (self->stage < STAGE_END)
        lose_rank(self, number);
    else
        change_state(self, rank, RANK_LOST); /* no BYE of it will come */
    rank->end_due = false;
}

void master_rank_back(trm_master *self, uint32_t number)
{
    master_rank *rank = &self->ranks[number];
    trm_info("rank %u on %s is heard of again", number, host_of(self, number));
    change_state(self, rank, RANK_READY);
    master_note_rank(self, number, "rank_back", NULL);
    rank->unclaimed_ns = 0;
    master_rank_set_up(self, number);
    rank->outputs_at = 0; /* what was sent meanwhile may be lost */
    rank->idle_pulses = rank->stuck_pulses = rank->refusals = 0;
    see_who_is_left(self);
}

void master_rank_list_add(rank_list *list, bool *listed, uint32_t rank)
{
    if (!*listed)
        list->rank[list->count++] = rank;
    *listed = true;
}

void master_rank_hungry(trm_master *self, uint32_t rank)
{
    master_rank_list_add(&self->hungry, &self->ranks[rank].hungry, rank);
}

void master_rank_set_up(trm_master *self, uint32_t rank)
{
    self->ranks[rank].setup_due = self->any_setup_due = self->outputs_due = true;
}

/* ---- HELLO, SETUP ------------------------------------------------------------------------------ */

/* Where the host is in the table, or the empty place where it goes. */
static uint32_t *host_place(trm_master *self, const char *name)
{
    uint32_t at = trm_crc32c(0, name, strlen(name));
    for (;; at++) {
        uint32_t *place = &self->host_table[at & (self->host_room - 1)];
        if (!*place || strcmp(self->ranks[self->host_first[*place - 1]].host_name, name) == 0)
            return place;
    }
}

uint32_t master_host_first(trm_master *self, const char *name)
{
    uint32_t host = *host_place(self, name);
    return host ? self->host_first[host - 1] : NO_RANK;
}

static void number_host(trm_master *self, uint32_t number)
{
    master_rank *rank = &self->ranks[number];
    uint32_t *place = host_place(self, rank->host_name);
    if (!*place) {
        self->host_first[self->hosts] = NO_RANK;
        *place = ++self->hosts;
    }
    rank->host = *place - 1;
    rank->host_next = self->host_first[rank->host];
    self->host_first[rank->host] = number;
}

static bool is_same_job(const trm_traits *a, const trm_traits *b)
{
    trm_writer first = {0}, second = {0};
    trm_traits_encode(a, &first);
    trm_traits_encode(b, &second);
    bool same = trm_writer_ok(&first) && trm_writer_ok(&second) && first.len == second.len &&
                memcmp(first.data, second.data, first.len) == 0;
    trm_writer_close(&first);
    trm_writer_close(&second);
    return same;
}

static void propose_member(trm_master *self, uint32_t number, const trm_hello *hello)
{
    trm_member member = {.epoch = self->epoch, .rank = number, .pid = hello->pid};
    memcpy(member.host, hello->host, sizeof member.host);
    memcpy(member.run_store, hello->run_store, sizeof member.run_store);
    trm_member_encode(&member, master_command_begin(self, TRM_COMMAND_MEMBER));
    master_command_enqueue(self);
}

/* Ranks of its host can open its runs in place from now on. */
static void tell_neighbours(trm_master *self, uint32_t number)
{
    uint32_t at = self->host_first[self->ranks[number].host];
    for (; at != NO_RANK; at = self->ranks[at].host_next)
        if (at != number && self->ranks[at].state == RANK_READY)
            master_rank_set_up(self, at);
}

static bool name_rank(trm_master *self, uint32_t number, const char *host, const char *run_store)
{
    master_rank *rank = &self->ranks[number];
    rank->host_name = strdup(host);
    rank->run_store = strdup(run_store[0] == '/' ? run_store : "");
    if (rank->host_name && rank->run_store) {
        number_host(self, number);
        return true;
    }
    free(rank->host_name);
    free(rank->run_store);
    rank->host_name = rank->run_store = NULL;
    return false;
}

bool master_ranks_begin(trm_master *self)
{
    for (uint32_t i = 0; i < self->config.ranks; i++) {
        const trm_member *member = trm_table_member(self->table, self->epoch, i);
        if (!member || self->ranks[i].host_name)
            continue;
        if (!name_rank(self, i, member->host, member->run_store))
            return false;
        self->ranks[i].pid = member->pid;
    }
    return true;
}

static void welcome(trm_master *self, uint32_t number, const trm_hello *hello)
{
    master_rank *rank = &self->ranks[number];
    if (!rank->host_name && !name_rank(self, number, hello->host, hello->run_store))
        return; /* it will say HELLO again */
    rank->greeted = true;
    count_out(self, rank);
    rank->executors = hello->executors ? hello->executors : 1;
    rank->state = RANK_READY;
    count_in(self, rank);
    rank->pid = hello->pid;
    if (!trm_table_member(self->table, self->epoch, number))
        propose_member(self, number, hello);
    tell_neighbours(self, number);
    master_note_bindings(self, hello);
    if (self->job)
        master_note_rank(self, number, "rank_ready", NULL);
    see_who_is_left(self);
}

void master_hello(trm_master *self, uint32_t from, trm_reader *body)
{
    master_rank *rank = &self->ranks[from];
    trm_hello *hello = malloc(sizeof *hello);
    if (hello)
        trm_hello_decode(hello, body);
    if (!hello || !trm_reader_done(body)) {
        self->dropped++;
    } else if (hello->status != TRM_OK) {
        master_rank_unfit(self, from, (trm_status)hello->status, hello->text);
    } else if (!is_same_job(&hello->traits, &self->config.submission->traits)) {
        master_rank_unfit(self, from, TRM_EJOB,
                          "the kernel that it has loaded is not the one that the job began with");
    } else {
        if (!rank->greeted && rank->state != RANK_GONE)
            welcome(self, from, hello);
        if (rank->state == RANK_READY) /* also if it has missed the one before */
            master_rank_set_up(self, from);
        rank->end_due |= self->stage >= STAGE_END && rank->state == RANK_READY;
    }
    free(hello);
}

/* Stores of its own host alone: a frame is bounded. */
static void put_peers(trm_master *self, uint32_t number)
{
    for (uint32_t i = 0; i < self->config.ranks; i++) {
        const master_rank *rank = &self->ranks[i];
        bool near = rank->run_store && rank->host == self->ranks[number].host;
        trm_setup_encode_peer(rank->host, near ? rank->run_store : "", &self->frame);
    }
}

/* False: later. */
static bool send_setup(trm_master *self, uint32_t number)
{
    const trm_identity *identity = &self->job->identity;
    trm_setup setup = {.plan_crc = identity->plan_crc,
                       .cuts_crc = self->job->cuts_crc,
                       .tasks = identity->tasks,
                       .partitions = identity->partitions,
                       .peers_count = self->config.ranks};
    master_frame_begin(self, TRM_WIRE_SETUP);
    trm_setup_encode_head(&setup, &self->frame);
    put_peers(self, number);
    if (master_frame_send(self, number) != TRM_OK)
        return false;
    master_rank *rank = &self->ranks[number];
    if (rank->claimed || !rank->unclaimed_ns)
        rank->unclaimed_ns = self->now_ns;
    rank->claimed = false;
    rank->setup_ns = self->now_ns;
    return true;
}

/* ---- PULSE, BYE --------------------------------------------------------------------------------- */

static uint32_t in_hand(const master_rank *rank)
{
    uint32_t count = 0;
    for (unsigned phase = 0; phase < TRM_PHASES; phase++)
        count += rank->running[phase].count;
    return count;
}

/* A rank that says for long that it has nothing to do, though it was given something, has lost
 * the order or the report; one whose reduces wait and wait has missed where outputs are. */
void master_pulse(trm_master *self, uint32_t from, trm_reader *body)
{
    master_rank *rank = &self->ranks[from];
    trm_pulse pulse;
    trm_begun begun;
    trm_pulse_decode(&pulse, body);
    trm_reader list = *body, check = *body;
    while (trm_reader_left(&check) && trm_reader_ok(&check))
        trm_begun_decode(&begun, &check);
    if (!trm_reader_ok(&check)) {
        self->dropped++;
        return;
    }
    rank->pulse = pulse;
    if (!self->job || rank->state != RANK_READY)
        return;
    while (trm_reader_left(&list)) {
        trm_begun_decode(&begun, &list);
        master_twins_begun(self, from, &begun);
    }
    bool idle = !pulse.running && !pulse.queued && in_hand(rank);
    bool stuck = !pulse.running && pulse.queued && rank->running[TRM_PHASE_REDUCE].count;
    rank->idle_pulses = idle ? rank->idle_pulses + 1 : 0;
    rank->stuck_pulses = stuck ? rank->stuck_pulses + 1 : 0;
    if (rank->idle_pulses >= IDLE_PULSES_MAX) {
        rank->idle_pulses = 0;
        trm_warn("rank %u on %s has lost what it was told: %u tasks are given out again", from,
                 host_of(self, from), in_hand(rank));
        rank->outputs_at = 0;
        master_rank_set_up(self, from);
        master_tasks_take_back(self, from, "its rank lost it");
    }
    if (rank->stuck_pulses >= STUCK_PULSES_MAX) {
        rank->stuck_pulses = 0;
        rank->outputs_at = 0;
        self->outputs_due = true;
    }
}

void master_bye(trm_master *self, uint32_t from)
{
    master_rank *rank = &self->ranks[from];
    if (rank->state == RANK_GONE)
        return;
    bool early = self->stage < STAGE_END && rank->state == RANK_READY;
    change_state(self, rank, RANK_GONE);
    rank->pulse = (trm_pulse){0};
    rank->end_due = false;
    if (early) {
        trm_warn("rank %u on %s has left", from, host_of(self, from));
        if (self->job) {
            master_homes_leave(self, from);
            master_tasks_take_back(self, from, "its rank has left");
            master_outputs_of_lost_rank(self, from);
            master_copies_of_lost_rank(self, from);
        }
    }
    see_who_is_left(self);
}

/* ---- A step ---------------------------------------------------------------------------------------- */

static void compose_leads(trm_master *self)
{
    trm_leads leads = {0};
    for (uint32_t i = 0; i < self->config.ranks && leads.voters < TRM_LEADS_VOTERS_MAX; i++)
        if (self->config.is_voter && self->config.is_voter(self->config.is_voter_context, i))
            leads.voter[leads.voters++] = i;
    master_frame_begin(self, TRM_WIRE_LEADS);
    trm_leads_encode(&leads, &self->frame);
}

static bool pulse_step(trm_master *self, uint64_t *wake_ns)
{
    bool due = self->now_ns >= self->pulse_ns;
    if (due) {
        compose_leads(self);
        for (uint32_t i = 0; i < self->config.ranks; i++)
            if (self->ranks[i].state !=
                RANK_GONE)                  /* its own too: should it not lead any more, it misses it */
                master_frame_send(self, i); /* one that finds no room is not missed */
        self->pulse_ns = self->now_ns + TRM_MASTER_PULSE_MS * MS;
    }
    master_wake(wake_ns, self->pulse_ns);
    return due;
}

static void lookout_step(trm_master *self, uint64_t *wake_ns)
{
    if (self->now_ns >= self->lookout_ns) {
        uint64_t begin_ms = self->follows ? RANK_SILENT_MS : RANK_BEGIN_MS;
        for (uint32_t i = 0; i < self->config.ranks && self->stage < STAGE_END; i++) {
            master_rank *rank = &self->ranks[i];
            bool ready = rank->state == RANK_READY;
            bool silent = ready && self->now_ns > rank->heard_ns + RANK_SILENT_MS * MS;
            bool missing = rank->state == RANK_ABSENT && self->now_ns > self->begun_ns + begin_ms * MS;
            if (silent || missing)
                lose_rank(self, i);
            else if (ready && !rank->claimed && self->now_ns > rank->setup_ns + CLAIM_SILENT_MS * MS)
                master_rank_set_up(self, i); /* SETUP or CLAIM was lost */
        }
        self->lookout_ns = self->now_ns + LOOKOUT_MS * MS;
    }
    master_wake(wake_ns, self->lookout_ns);
}

/* Each names all ranks: when thousands come at once, some a step. */
static bool setup_step(trm_master *self, uint64_t *wake_ns)
{
    bool any = false, left = false;
    uint32_t peers = 0;
    uint32_t begin = self->setup_at;
    for (uint32_t i = 0; i < self->config.ranks; i++) {
        uint32_t number = (begin + i) % self->config.ranks;
        master_rank *rank = &self->ranks[number];
        if (!rank->setup_due || rank->state != RANK_READY)
            continue;
        if (peers >= SETUP_STEP_PEERS) {
            self->setup_at = number; /* whose queues are full do not keep others waiting */
            left = true;
            break;
        }
        peers += self->config.ranks;
        rank->setup_due = !send_setup(self, number);
        any |= !rank->setup_due;
        left |= rank->setup_due;
        master_rank_hungry(self, number);
    }
    self->any_setup_due = left;
    if (left)
        master_wake(wake_ns, self->now_ns + SEND_AGAIN_MS * MS);
    return any;
}

bool master_ranks_step(trm_master *self, uint64_t *wake_ns)
{
    bool any = pulse_step(self, wake_ns);
    if (self->stage >= STAGE_END)
        return any;
    lookout_step(self, wake_ns);
    if (self->stage == STAGE_RUN && self->any_setup_due)
        any |= setup_step(self, wake_ns);
    return any;
}

/* ---- Begin and end ------------------------------------------------------------------------------------ */

trm_status master_ranks_init(trm_master *self, trm_err *err)
{
    uint32_t ranks = self->config.ranks;
    for (self->host_room = 2; self->host_room < 2 * ranks;)
        self->host_room *= 2;
    self->ranks = calloc(ranks, sizeof *self->ranks);
    self->picked = malloc(ORDERS_FRAME_MAX * sizeof *self->picked);
    self->host_first = malloc(ranks * sizeof *self->host_first);
    self->host_table = calloc(self->host_room, sizeof *self->host_table);
    self->hungry.rank = malloc(2 * ranks * sizeof *self->hungry.rank);
    self->settling.rank = malloc(2 * ranks * sizeof *self->settling.rank);
    if (!self->ranks || !self->picked || !self->host_first || !self->host_table || !self->hungry.rank ||
        !self->settling.rank)
        return trm_err_set(err, TRM_ENOMEM, "no memory for a master of %u ranks", ranks);
    for (uint32_t i = 0; i < ranks; i++) {
        master_rank *rank = &self->ranks[i];
        rank->host = rank->struck_task = NO_RANK;
        rank->home = TASK_LIST_EMPTY;
        for (unsigned phase = 0; phase < TRM_PHASES; phase++)
            rank->running[phase] = TASK_LIST_EMPTY;
    }
    self->coming = ranks;
    return TRM_OK;
}

void master_ranks_close(trm_master *self)
{
    for (uint32_t i = 0; self->ranks && i < self->config.ranks; i++) {
        free(self->ranks[i].text);
        free(self->ranks[i].host_name);
        free(self->ranks[i].run_store);
        free(self->ranks[i].settled);
    }
    free(self->ranks);
    free(self->picked);
    free(self->host_first);
    free(self->host_table);
    free(self->hungry.rank);
    free(self->settling.rank);
}
