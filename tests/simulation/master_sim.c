/* The real master and the real job table, with simulated workers, over a network in memory and a
 * log in memory: whole jobs in virtual time, through failing tasks, lost outputs, ranks that die,
 * a log that is full, interruptions, masters that die or are cut off and are followed by another
 * on another rank's replica, and launches that die and are started again.
 *
 *   master_sim [SEED [HISTORIES]]    runs HISTORIES from SEED on; a failing one prints the
 *                                    command that replays it
 *   master_sim --bench [TASKS]       what a task costs the master
 *
 * What is checked, by a second job table that is given what the log has taken:
 *   a task is committed once, until its output is lost; a committed part is never ordered again;
 *   a part is in place only if it is committed; _SUCCESS is there only when all parts are, whole;
 *   the records that are left out are those that kill; counters are those of every task once; every job ends;
 * no attempt is ordered twice, whoever leads; what a living rank holds and has claimed is not ordered again
 * because the master changed. */
#include "jobs/names.h"
#include "runtime/clock.h"
#include "runtime/diag.h"
#include "scheduler/master.h"
#include "tests/support/fs_mem.h"
#include "tests/support/replog_mem.h"
#include "tests/support/sim_worker.h"
#include "tests/support/transport_mem.h"

#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HISTORIES 200u
#define RANKS_MAX 8u
#define HOSTS_MAX 3u
#define LAUNCHES_MAX 12u
#define ELECTIONS_MAX 12u /* of a launch */
#define MISSED_MAX 6u
#define NOBODY UINT32_MAX
#define STEPS_MAX 400000u
#define OUT "/out"
#define STATE "/out/.trireme"

typedef struct history {
    uint64_t seed;
    trm_draw draw;
    trm_spec spec;
    trm_traits traits;
    trm_submission submission;
    sim_habits habits;
    trm_fs *fs;
    trm_log_disk *disk;
    sim_runs runs;
    uint64_t now_ns;
    unsigned launch;
    bool must_fail; /* a task is poisoned */
    bool measured;  /* no time for checks */

    /* This launch. */
    uint32_t ranks, hosts;
    bool alive[RANKS_MAX];
    char host[RANKS_MAX][64], store[RANKS_MAX][64];
    sim_worker *workers[RANKS_MAX];
    trm_transport_net *net;
    trm_replog *logs[RANKS_MAX];
    trm_replica replicas[RANKS_MAX];
    trm_master *masters[RANKS_MAX]; /* one leads; others may not know yet that they do not */
    uint32_t leader, keeper;        /* NOBODY: an election goes on; a rank that works and lives on */
    uint64_t epoch;
    unsigned elections, seldom; /* per thousand: a rank misses that another leads, … */
    unsigned missed[RANKS_MAX]; /* … MISSED_MAX times at most */
    uint64_t elect_ns, depose_ns, tell_ns[RANKS_MAX];
    uint64_t kill_ns[RANKS_MAX]; /* 0: never */
    uint64_t crash_ns, interrupt_ns, full_ns, room_ns, lose_ns;
    bool interrupted;

    /* The second table, and what was ever ordered: a set. */
    trm_table table;
    size_t applied;
    uint64_t *seen;
    size_t seen_count, seen_room;
    uint64_t steps, orders, commits, losses, kills, crashes, launches, failovers, again, skips;
} history;

static trm_master *master_of(const history *self)
{
    return self->leader == NOBODY ? NULL : self->masters[self->leader];
}

static void fail(const history *self, const char *what, uint64_t number)
{
    fprintf(stderr, "master_sim: %s (%" PRIu64 "), launch %u, at %" PRIu64 " ms\n", what, number,
            self->launch, (uint64_t)(self->now_ns / TRM_NS_PER_MS));
    if (master_of(self)) {
        trm_progress at;
        trm_master_progress(master_of(self), &at);
        fprintf(stderr, "%s, %u ranks, %u alive, maps %u of %u (%u run), reduces %u of %u (%u run)\n",
                at.phase, at.ranks, at.ranks_alive, at.of[1].done, at.of[1].total, at.of[1].running,
                at.of[2].done, at.of[2].total, at.of[2].running);
    }
    fprintf(stderr, "replay with: tests/simulation/master_sim %" PRIu64 " 1\n", self->seed);
    exit(1);
}

static uint64_t below(history *self, uint64_t bound)
{
    return trm_draw_below(&self->draw, bound);
}

static bool often(history *self, unsigned permille)
{
    return trm_draw_often(&self->draw, permille);
}

/* ---- What the log says ------------------------------------------------------------------------ */

static void on_commit(void *context, uint32_t job, const trm_commit *commit, bool accepted)
{
    history *self = context;
    self->commits += accepted;
    if (!accepted)
        fail(self, "a commit was refused", commit->task);
}

static void on_failed(void *context, uint32_t job, const trm_fail *failed, bool accepted)
{
    if (!accepted)
        fail(context, "a failure was refused", failed->task);
}

static void on_lost(void *context, uint32_t job, const trm_output_ref *ref, bool accepted)
{
    history *self = context;
    self->losses += accepted;
}

static void follow_log(history *self)
{
    const uint8_t *bytes;
    size_t len;
    trm_err err;
    trm_table_watch watch = {.committed = on_commit, .failed = on_failed, .lost = on_lost, .context = self};
    for (; trm_log_disk_command(self->disk, self->applied, &bytes, &len); self->applied++)
        if (trm_table_apply(&self->table, bytes, len, &watch, &err) != TRM_OK)
            fail(self, err.text, self->applied);
}

static const trm_table_job *job_of(const history *self)
{
    return self->table.jobs_count ? self->table.jobs[0] : NULL;
}

/* ---- What is on the disk ------------------------------------------------------------------------ */

static bool file_is_there(history *self, const char *path, uint64_t *bytes)
{
    trm_file *file;
    if (self->fs->ops->open(self->fs, path, TRM_FS_READ, &file, NULL) != TRM_OK)
        return false;
    if (self->fs->ops->size(file, bytes, NULL) != TRM_OK)
        *bytes = UINT64_MAX;
    self->fs->ops->close(file);
    return true;
}

static void check_output(history *self)
{
    char path[256];
    uint64_t bytes;
    const trm_table_job *job = job_of(self);
    const trm_table_phase *parts = job ? &job->phase[trm_table_output_phase(job)] : NULL;
    bool success = file_is_there(self, OUT "/" TRM_SUCCESS_NAME, &bytes);
    if (success && (!job || parts->published != parts->tasks))
        fail(self, "_SUCCESS is there before all parts are published", job ? parts->published : 0);
    uint32_t tasks = parts ? parts->tasks : self->submission.plan.tasks;
    for (uint32_t i = 0; i < tasks; i++) {
        trm_part_name(OUT, i, false, path, sizeof path);
        bool there = file_is_there(self, path, &bytes);
        if (there && (!parts || parts->task[i].state == TRM_TASK_PENDING))
            fail(self, "a part is in place that is not committed", i);
        if (there && bytes != sim_part_bytes(i))
            fail(self, "a part has not its length", i);
        if (success && !there && sim_part_bytes(i))
            fail(self, "_SUCCESS is there and a part is not", i);
    }
}

/* All bad records are left out, and no others; returns how many. */
static unsigned check_skips(history *self, uint32_t task)
{
    uint32_t bad[2], skipped[TRM_ORDER_SKIPS_MAX];
    unsigned count = sim_bad_records(&self->habits, task, bad);
    bool same = trm_table_skips(job_of(self), task, skipped) == count &&
                memcmp(bad, skipped, count * sizeof *bad) == 0;
    if (!same)
        fail(self, "not its bad records are left out of a task", task);
    self->skips += count;
    return count;
}

static void check_counters(history *self)
{
    trm_counters expected = {{0}}, one;
    const trm_table_job *job = job_of(self);
    for (uint8_t phase = TRM_PHASE_MAP; phase < TRM_PHASES; phase++) {
        for (uint32_t i = 0; i < job->phase[phase].tasks; i++) {
            sim_task_counters(phase, i, &one);
            trm_counters_add(&expected, &one);
        }
    }
    for (uint32_t i = 0; i < job->phase[TRM_PHASE_MAP].tasks; i++)
        expected.value[TRM_COUNTER_MAP_RECORDS_SKIPPED] += check_skips(self, i);
    for (unsigned i = 0; i < TRM_COUNTER_COUNT; i++)
        if (expected.value[i] != job->counters.value[i])
            fail(self, "a counter is wrong", i);
}

/* ---- Workers ---------------------------------------------------------------------------------------- */

static void seen_put(uint64_t *seen, size_t room, uint64_t key)
{
    size_t at = (size_t)(key * 0x9e3779b97f4a7c15u >> 20) & (room - 1);
    while (seen[at])
        at = (at + 1) & (room - 1);
    seen[at] = key;
}

static bool is_seen(const history *self, uint64_t key)
{
    size_t at = self->seen_room ? (size_t)(key * 0x9e3779b97f4a7c15u >> 20) & (self->seen_room - 1) : 0;
    while (self->seen_room && self->seen[at] && self->seen[at] != key)
        at = (at + 1) & (self->seen_room - 1);
    return self->seen_room && self->seen[at] == key;
}

static void check_once(history *self, const trm_order *order)
{
    uint64_t key = 1ull << 63 | self->epoch << 54 | (uint64_t)order->phase << 52 |
                   (uint64_t)order->task << 32 | order->attempt;
    if (is_seen(self, key))
        fail(self, "an attempt is ordered twice", order->task);
    if (self->seen_count * 2 >= self->seen_room) {
        size_t room = self->seen_room ? self->seen_room * 2 : 1024;
        uint64_t *grown = calloc(room, sizeof *grown);
        if (!grown)
            abort();
        for (size_t i = 0; i < self->seen_room; i++)
            if (self->seen[i])
                seen_put(grown, room, self->seen[i]);
        free(self->seen);
        self->seen = grown;
        self->seen_room = room;
    }
    seen_put(self->seen, self->seen_room, key);
    self->seen_count++;
}

/* Somebody holds an attempt of it that would count: only a rank that could not tell the master so in
 * time. */
static void check_new(history *self, uint64_t term, const trm_order *order)
{
    const trm_table_task *task = &job_of(self)->phase[order->phase].task[order->task];
    for (uint32_t i = 0; i < self->ranks; i++) {
        trm_order held;
        if (!self->alive[i] || task->state != TRM_TASK_PENDING ||
            !sim_worker_holds(self->workers[i], order->phase, order->task, &held))
            continue;
        if (held.attempt < task->attempt || held.attempt < task->failed_high)
            continue;
        self->again++;
        if (!self->seldom && self->spec.never_twice && sim_worker_claimed_term(self->workers[i]) == term)
            fail(self, "a task is ordered again that a living rank has claimed", order->task);
    }
}

static void on_order(void *context, uint32_t rank, const trm_order *order)
{
    history *self = context;
    const trm_table_job *job = job_of(self);
    uint64_t term = sim_worker_term(self->workers[rank]);
    self->orders++;
    check_once(self, order);
    if (!job || order->phase == TRM_PHASE_SAMPLE)
        return;
    const trm_table_task *task = &job->phase[order->phase].task[order->task];
    bool part = job->phase[order->phase].part != NULL;
    /* By the log as it was when the order was made it was not committed; if it is now, then by
     * another attempt, and that order is from before. */
    if (part && task->state != TRM_TASK_PENDING && task->epoch < self->table.epoch)
        fail(self, "a part that an earlier launch has committed is ordered", order->task);
    if (term == self->table.master_term)
        check_new(self, term, order);
}

static bool is_readable(void *context, uint32_t reader, const trm_output_at *at)
{
    history *self = context;
    const char *store = self->store[at->rank];
    if (!sim_runs_find(&self->runs, store, self->table.epoch, at->task, at->attempt))
        return false;
    return self->alive[at->rank] || strcmp(self->host[reader], self->host[at->rank]) == 0;
}

static trm_status outbox_send(void *context, uint32_t to, const void *frame, size_t len)
{
    trm_transport *transport = context; /* of the rank that leads */
    return transport->ops->send(transport, to, frame, len);
}

/* ---- A launch ------------------------------------------------------------------------------------------ */

static void make_workers(history *self)
{
    for (uint32_t i = 0; i < self->ranks; i++) {
        snprintf(self->host[i], sizeof self->host[i], "host%u", (unsigned)(i % self->hosts));
        snprintf(self->store[i], sizeof self->store[i], "/scratch/%u/%u", self->launch, i);
        sim_worker_config config = {
            .spec = &self->spec,
            .traits = &self->traits,
            .habits = &self->habits,
            .fs = self->fs,
            .transport = trm_transport_net_rank(self->net, i),
            .runs = &self->runs,
            .host = self->host[i],
            .store = self->store[i],
            .executors = 1 + (uint32_t)below(self, 3),
            .hello_status = i != self->keeper && often(self, 50) ? TRM_ELAUNCH : TRM_OK,
            .hello_ns = self->now_ns + below(self, 100 * TRM_NS_PER_MS),
            .seed = trm_draw_next(&self->draw),
            .slowness = !self->spec.never_twice && often(self, 200) ? 20 : 0,
            .sick_ns = !self->spec.never_twice && i != self->keeper && often(self, 200)
                           ? self->now_ns + below(self, 5000) * TRM_NS_PER_MS
                           : 0,
            .is_readable = is_readable,
            .ordered = self->measured ? NULL : on_order,
            .context = self,
        };
        self->workers[i] = sim_worker_create(&config);
        self->alive[i] = true;
        self->kill_ns[i] =
            i != self->keeper && often(self, 250) ? self->now_ns + below(self, 5000) * TRM_NS_PER_MS : 0;
    }
}

static void draw_troubles(history *self)
{
    uint64_t at = self->now_ns;
    uint64_t span = self->spec.tasks * (self->habits.task_max_ns / TRM_NS_PER_MS) / (2 * self->ranks) + 50;
    bool last = self->launch + 1 >= LAUNCHES_MAX / 2;
    self->crash_ns = !last && often(self, 450) ? at + below(self, span) * TRM_NS_PER_MS : 0;
    self->interrupt_ns = !last && often(self, 200) ? at + below(self, span) * TRM_NS_PER_MS : 0;
    self->full_ns = often(self, 150) ? at + 1 + below(self, span) * TRM_NS_PER_MS : 0;
    self->room_ns = self->full_ns + (1 + below(self, 3000)) * TRM_NS_PER_MS;
    self->lose_ns = often(self, 300) ? at + below(self, span) * TRM_NS_PER_MS : 0;
    self->interrupted = false;
    self->depose_ns = often(self, 400) ? at + below(self, span) * TRM_NS_PER_MS : 0;
    self->seldom = often(self, 300) ? 1 + (unsigned)below(self, 900) : 0;
}

/* ---- Who leads ----------------------------------------------------------------------------------------- */

/* The rank's process sees another of its host die. */
static bool sees_death(history *self, uint32_t rank, uint32_t other)
{
    return strcmp(self->host[rank], self->host[other]) == 0 && often(self, 700);
}

static void lead(history *self, uint32_t rank)
{
    trm_err err;
    if (self->masters[rank])
        trm_master_destroy(self->masters[rank]);
    self->masters[rank] = NULL;
    trm_replog_mem_lead(self->logs[rank], rank);
    trm_master_config config = {.spec = &self->spec,
                                .submission = &self->submission,
                                .fs = self->fs,
                                .replica = &self->replicas[rank],
                                .may_be_followed = true,
                                .outbox = {outbox_send, trm_transport_net_rank(self->net, rank)},
                                .ranks = self->ranks,
                                .epoch = self->epoch,
                                .seed = self->seed,
                                .wall_ms = self->now_ns / TRM_NS_PER_MS};
    if (trm_master_create(&self->masters[rank], &config, &err) != TRM_OK)
        fail(self, err.text, 0);
    trm_replog_state log;
    trm_replog_state_get(self->logs[rank], &log);
    self->failovers += self->elections++ > 0;
    self->leader = rank;
    self->epoch = trm_master_epoch(self->masters[rank]);
    self->elect_ns = 0;
    sim_worker_set_master(self->workers[rank], rank, self->epoch, log.term);
    for (uint32_t i = 0; i < self->ranks; i++)
        if (!self->alive[i] && sees_death(self, rank, i))
            trm_master_rank_dead(self->masters[rank], i);
}

/* Whoever led may live on, and not know of it for a while. */
static void elect(history *self)
{
    uint32_t rank = (uint32_t)below(self, self->ranks), before = self->leader;
    while (!self->alive[rank])
        rank = (rank + 1) % self->ranks;
    lead(self, rank);
    if (before != NOBODY && before != rank)
        self->tell_ns[before] = self->now_ns + 1 + below(self, 3000) * TRM_NS_PER_MS;
}

static void begin_launch(history *self, uint32_t ranks, uint32_t hosts)
{
    self->launches++;
    self->ranks = ranks;
    self->hosts = hosts;
    self->keeper = (uint32_t)below(self, ranks);
    self->elections = 0;
    self->epoch = 0;
    self->elect_ns = 0;
    memset(self->tell_ns, 0, sizeof self->tell_ns);
    memset(self->missed, 0, sizeof self->missed);
    trm_transport_net_options options = {.ranks = self->ranks,
                                         .seed = trm_draw_next(&self->draw),
                                         .delay_max_ns = below(self, 3) * TRM_NS_PER_MS,
                                         .queue_bytes_max = often(self, 100) ? 300 : 0};
    self->net = trm_transport_net_create(&options);
    trm_transport_net_set_now(self->net, self->now_ns);
    make_workers(self);
    draw_troubles(self);
    trm_log_disk_set_full(self->disk, false);
    unsigned snapshots = often(self, 500) ? 20 : 0;
    for (uint32_t i = 0; i < self->ranks; i++) {
        self->logs[i] = trm_replog_mem_follow(self->disk, trm_draw_next(&self->draw), 10000,
                                              5 * TRM_NS_PER_MS, snapshots);
        trm_replica_init(&self->replicas[i], self->logs[i]);
        self->masters[i] = NULL;
    }
    lead(self, 0); /* whom workers begin with */
}

/* As a process dies: nothing is said to anybody. */
static void end_launch(history *self, bool crash)
{
    for (uint32_t i = 0; i < self->ranks; i++) {
        trm_master_destroy(self->masters[i]);
        self->masters[i] = NULL;
        trm_replica_close(&self->replicas[i]);
        if (crash)
            trm_replog_mem_crash(self->logs[i]);
        else
            trm_replog_close(self->logs[i]);
        sim_worker_destroy(self->workers[i]);
    }
    self->leader = NOBODY;
    trm_transport_net_destroy(self->net);
    if (crash && often(self, 500))
        trm_fs_mem_crash(self->fs);
    self->crashes += crash;
    self->launch++;
    follow_log(self);
    check_output(self);
}

static void kill_rank(history *self, uint32_t rank)
{
    self->alive[rank] = false;
    self->kill_ns[rank] = 0;
    trm_master_destroy(self->masters[rank]);
    self->masters[rank] = NULL;
    if (self->leader == rank) {
        self->leader = NOBODY;
        self->elect_ns = self->now_ns + 1 + below(self, 400) * TRM_NS_PER_MS;
    } else if (master_of(self) && sees_death(self, self->leader, rank)) {
        trm_master_rank_dead(master_of(self), rank);
    }
    self->kills++;
    trm_transport_net_kill(self->net, rank);
    for (size_t i = 0; i < self->runs.count && often(self, 500); i++) /* its disk, too */
        if (strcmp(self->runs.run[i].store, self->store[rank]) == 0)
            self->runs.run[i].gone = true;
}

static void lose_some(history *self)
{
    self->lose_ns = 0;
    for (size_t i = 0; i < self->runs.count; i++)
        if (often(self, 200))
            self->runs.run[i].gone = true;
}

static bool is_for_master(uint8_t type)
{
    return type == TRM_WIRE_HELLO || type == TRM_WIRE_CLAIM || type == TRM_WIRE_REPORT ||
           type == TRM_WIRE_LOST || type == TRM_WIRE_BYE || type == TRM_WIRE_HELD || type == TRM_WIRE_PULSE;
}

static void learn_leader(history *self, uint32_t rank, uint32_t from, const trm_wire_header *header)
{
    if (header->epoch != self->epoch || header->term <= sim_worker_term(self->workers[rank]))
        return;
    if (often(self, self->seldom) && self->missed[rank]++ < MISSED_MAX)
        return;
    self->missed[rank] = 0;
    sim_worker_set_master(self->workers[rank], from, header->epoch, header->term);
    trm_replog_mem_tell(self->logs[rank]);
}

static void receive(history *self, uint32_t rank)
{
    trm_transport *transport = trm_transport_net_rank(self->net, rank);
    const uint8_t *bytes;
    uint32_t from;
    size_t len;
    while (transport->ops->receive(transport, &from, &bytes, &len) == TRM_OK) {
        trm_wire_header header;
        trm_reader body;
        if (trm_wire_open(bytes, len, &header, &body) != TRM_OK)
            fail(self, "a frame that does not open", from);
        if (header.type == TRM_WIRE_LEADS)
            learn_leader(self, rank, from, &header);
        if (!is_for_master(header.type))
            sim_worker_receive(self->workers[rank], from, &header, &body, self->now_ns);
        else if (self->masters[rank])
            trm_master_receive(self->masters[rank], from, &header, &body, self->now_ns);
    }
}

static void do_troubles(history *self, uint64_t *wake_ns)
{
    uint64_t *due[] = {&self->interrupt_ns, &self->full_ns,  &self->room_ns,
                       &self->lose_ns,      &self->elect_ns, &self->depose_ns};
    if (self->depose_ns && self->now_ns >= self->depose_ns) {
        self->depose_ns = often(self, 500) ? self->now_ns + (1 + below(self, 2000)) * TRM_NS_PER_MS : 0;
        self->elect_ns = self->now_ns;
    }
    if (self->elect_ns && self->now_ns >= self->elect_ns) {
        self->elect_ns = 0;
        if (self->leader == NOBODY || self->elections < ELECTIONS_MAX)
            elect(self);
    }
    if (self->interrupt_ns && self->now_ns >= self->interrupt_ns && master_of(self)) {
        trm_master_interrupt(master_of(self), "a person said so");
        self->interrupted = true;
        self->interrupt_ns = 0;
    }
    if (self->full_ns && self->now_ns >= self->full_ns) {
        trm_log_disk_set_full(self->disk, true);
        self->full_ns = 0;
    }
    if (self->room_ns && self->now_ns >= self->room_ns) {
        trm_log_disk_set_full(self->disk, false);
        self->room_ns = 0;
    }
    if (self->lose_ns && self->now_ns >= self->lose_ns)
        lose_some(self);
    for (uint32_t i = 0; i < self->ranks; i++) {
        if (self->kill_ns[i] && self->now_ns >= self->kill_ns[i])
            kill_rank(self, i);
        if (self->kill_ns[i] && self->kill_ns[i] < *wake_ns)
            *wake_ns = self->kill_ns[i];
        if (self->tell_ns[i] && self->now_ns >= self->tell_ns[i]) {
            trm_replog_mem_tell(self->logs[i]);
            self->tell_ns[i] = 0;
        }
        if (self->tell_ns[i] && self->tell_ns[i] < *wake_ns)
            *wake_ns = self->tell_ns[i];
    }
    for (unsigned i = 0; i < sizeof due / sizeof due[0]; i++)
        if (*due[i] && *due[i] < *wake_ns)
            *wake_ns = *due[i];
}

static bool rank_turn(history *self, uint32_t rank, uint64_t *wake_ns)
{
    trm_master *master = self->masters[rank];
    trm_err why;
    receive(self, rank);
    bool any = master ? trm_master_step(master, self->now_ns, self->now_ns / TRM_NS_PER_MS, wake_ns)
                      : trm_replica_step(&self->replicas[rank], self->now_ns, wake_ns);
    if (master && trm_master_deposed(master, &why)) {
        if (rank == self->leader)
            fail(self, why.text, rank);
        trm_master_destroy(master);
        self->masters[rank] = NULL;
    }
    sim_worker_step(self->workers[rank], self->now_ns, wake_ns);
    return any;
}

/* One moment: everybody has a turn. Returns when the next is. */
static uint64_t turn(history *self)
{
    uint64_t wake_ns = UINT64_MAX;
    trm_transport_net_set_now(self->net, self->now_ns);
    do_troubles(self, &wake_ns);
    for (uint32_t i = 0; i < self->ranks; i++)
        trm_transport_net_rank(self->net, i)->ops->poll(trm_transport_net_rank(self->net, i));
    bool any = false;
    for (uint32_t i = 0; i < self->ranks; i++)
        if (self->alive[i])
            any |= rank_turn(self, i, &wake_ns);
    uint64_t arrival_ns = trm_transport_net_next_ns(self->net);
    wake_ns = arrival_ns < wake_ns ? arrival_ns : wake_ns;
    return any || wake_ns <= self->now_ns ? self->now_ns + 1000 : wake_ns;
}

/* Runs the launch to its end; false: it died. */
static bool run_launch(history *self, trm_end *end)
{
    for (unsigned steps = 0;; steps++) {
        self->steps++;
        if (steps == STEPS_MAX)
            fail(self, "the job does not end", self->orders);
        uint64_t next_ns = turn(self);
        follow_log(self);
        if (steps % 16 == 0)
            check_output(self);
        if (master_of(self) && trm_master_ended(master_of(self), end))
            return true;
        if (self->crash_ns && next_ns >= self->crash_ns)
            return false;
        if (next_ns == UINT64_MAX)
            fail(self, "nothing will happen any more", self->orders);
        self->now_ns = next_ns;
    }
}

/* ---- A history ---------------------------------------------------------------------------------------- */

static void draw_job(history *self)
{
    static char out[] = OUT, state[] = STATE;
    self->spec = (trm_spec){.output_dir = out,
                            .state_dir = state,
                            .attempts_max = TRM_ATTEMPTS_DEFAULT,
                            .tasks = 1 + below(self, often(self, 100) ? 2000 : 60),
                            .partitions = 1 + (uint32_t)below(self, 12)};
    self->traits =
        (trm_traits){.name = "sim", .input = TRM_INPUT_NONE, .counters_count = 1, .counters = {"attempts"}};
    self->traits.map_only = often(self, 200);
    self->traits.range_partitioned = !self->traits.map_only && often(self, 250);
    self->habits = (sim_habits){.task_min_ns = below(self, 2) * 100000,
                                .poison_task = UINT32_MAX,
                                .empty_permille = often(self, 300) ? 500 : 0,
                                .writes_parts = true};
    self->habits.task_max_ns = self->habits.task_min_ns + (1 + below(self, 400)) * TRM_NS_PER_MS;
    self->habits.fail_permille = often(self, 300) ? (unsigned)below(self, 100) : 0;
    self->habits.refuse_permille = often(self, 200) ? (unsigned)below(self, 100) : 0;
    self->spec.never_twice = often(self, 500);
    if (often(self, 300)) {
        self->habits.bad_permille = (unsigned)below(self, 500);
        self->spec.skips_max = TRM_SKIPS_MAX;
    }
    if (often(self, 100)) {
        self->habits.poison_task = (uint32_t)below(self, self->spec.tasks);
        self->must_fail = true;
    }
}

static void make_history(history *self, uint64_t seed)
{
    *self = (history){.seed = seed, .draw = trm_draw_from(seed), .now_ns = TRM_NS_PER_S, .leader = NOBODY};
    trm_err err = {""};
    draw_job(self);
    self->fs = trm_fs_mem_create(seed);
    self->disk = trm_log_disk_create();
    trm_table_init(&self->table);
    uint32_t crc;
    trm_status status =
        trm_submission_init(&self->submission, &self->spec, &self->traits, 4, 64u << 20, self->fs, &err);
    if (status == TRM_OK)
        status = trm_fs_make_dirs(self->fs, STATE "/" TRM_ATTEMPTS_NAME, 0, &err);
    if (status == TRM_OK)
        status = trm_fs_make_dirs(self->fs, STATE "/" TRM_STDERR_NAME, 0, &err);
    if (status == TRM_OK)
        status = trm_plan_save(&self->submission.plan, self->fs, STATE, &crc, &err);
    if (status != TRM_OK)
        fail(self, err.text, 0);
}

static void end_history(history *self)
{
    trm_submission_close(&self->submission);
    trm_table_close(&self->table);
    trm_log_disk_destroy(self->disk);
    sim_runs_close(&self->runs);
    free(self->seen);
    trm_fs_mem_destroy(self->fs);
}

/* How a launch that came to its end may have ended. Failures that are drawn may be too many for a
 * task; the next launch counts anew. */
static bool check_end(history *self, const trm_end *end)
{
    const trm_table_job *job = job_of(self);
    if (end->exit_code == 0) {
        if (!job || job->state != TRM_JOB_DONE || self->must_fail)
            fail(self, "the job says that it is done", 0);
        check_counters(self);
        uint64_t bytes;
        if (!file_is_there(self, OUT "/" TRM_SUCCESS_NAME, &bytes))
            fail(self, "a job is done without _SUCCESS", 0);
        return true;
    }
    /* Its workers may have been told by a master that was deposed before all of them were. */
    if ((end->exit_code == 4 || (end->exit_code == 5 && self->failovers)) && self->interrupted)
        return false;
    bool may_fail = self->must_fail || self->habits.fail_permille || self->habits.refuse_permille;
    if (job && job->state == TRM_JOB_FAILED && may_fail)
        return self->must_fail;
    fprintf(stderr, "%s\n", end->text);
    fail(self, "the job ended with", end->exit_code);
    return false;
}

static void run_history(history *self, uint64_t seed)
{
    bool done = false;
    make_history(self, seed);
    while (!done) {
        trm_end end;
        if (self->launch == LAUNCHES_MAX) {
            if (!self->habits.fail_permille)
                fail(self, "so many launches, and the job is not done", self->launch);
            break;
        }
        uint32_t ranks = 1 + (uint32_t)below(self, RANKS_MAX);
        begin_launch(self, ranks, 1 + (uint32_t)below(self, HOSTS_MAX));
        bool ended = run_launch(self, &end);
        end_launch(self, !ended);
        done = ended && check_end(self, &end);
        self->now_ns += TRM_NS_PER_S;
    }
    end_history(self);
}

/* ---- What a task costs ------------------------------------------------------------------------------- */

typedef struct bench {
    history world;
    uint64_t master_ns;
    int64_t bytes, bytes_max; /* that the master has from malloc */
    bool measures_bytes;
} bench;

static int64_t malloced(void)
{
    struct mallinfo2 info = mallinfo2();
    return (int64_t)(info.uordblks + info.hblkhd);
}

/* One turn of the loop, with the master's part of it measured. */
static bool bench_turn(bench *self, uint64_t *wake_ns)
{
    history *world = &self->world;
    for (uint32_t i = 0; i < world->ranks; i++)
        trm_transport_net_rank(world->net, i)->ops->poll(trm_transport_net_rank(world->net, i));
    int64_t before = self->measures_bytes ? malloced() : 0;
    uint64_t begin_ns = trm_clock_now_ns();
    receive(world, 0);
    bool any = trm_master_step(master_of(world), world->now_ns, world->now_ns / TRM_NS_PER_MS, wake_ns);
    self->master_ns += trm_clock_now_ns() - begin_ns;
    self->bytes += self->measures_bytes ? malloced() - before : 0;
    self->bytes_max = self->bytes > self->bytes_max ? self->bytes : self->bytes_max;
    for (uint32_t i = 0; i < world->ranks; i++) {
        if (i)
            receive(world, i);
        sim_worker_step(world->workers[i], world->now_ns, wake_ns);
    }
    return any;
}

static void bench_run(bench *self, uint32_t tasks)
{
    history *world = &self->world;
    trm_end end;
    make_history(world, 1);
    trm_submission_close(&world->submission);
    world->measured = true;
    world->spec.tasks = tasks;
    world->traits = (trm_traits){.name = "empty",
                                 .input = TRM_INPUT_NONE,
                                 .map_only = true,
                                 .counters_count = 1,
                                 .counters = {"attempts"}};
    world->habits = (sim_habits){
        .task_min_ns = 20000, .task_max_ns = 20000, .poison_task = UINT32_MAX, .leaves_nothing = true};
    trm_status status = trm_submission_init(&world->submission, &world->spec, &world->traits, 2, 64u << 20,
                                            world->fs, &(trm_err){""});
    if (status != TRM_OK)
        fail(world, "no submission", status);
    begin_launch(world, 2, 1);
    trm_log_disk_forget(world->disk, true);
    memset(world->kill_ns, 0, sizeof world->kill_ns);
    world->seldom = 0;
    while (!trm_master_ended(master_of(world), &end)) {
        uint64_t wake_ns = UINT64_MAX;
        trm_transport_net_set_now(world->net, world->now_ns);
        bool any = bench_turn(self, &wake_ns);
        uint64_t arrival_ns = trm_transport_net_next_ns(world->net);
        wake_ns = arrival_ns < wake_ns ? arrival_ns : wake_ns;
        world->now_ns = any || wake_ns <= world->now_ns ? world->now_ns + 1000 : wake_ns;
    }
    if (end.exit_code)
        fail(world, end.text, end.exit_code);
}

/* Twice: what counts bytes takes time. */
static int master_bench(uint32_t tasks)
{
    static bench timed, weighed;
    bench_run(&timed, tasks);
    uint64_t log_bytes = trm_log_disk_bytes(timed.world.disk);
    printf("master_sim: %u empty tasks on 2 ranks: %.2f us of processor a task in the master, %.1f bytes a "
           "task in the "
           "log,",
           tasks, (double)timed.master_ns / 1e3 / tasks, (double)log_bytes / tasks);
    weighed.measures_bytes = true;
    bench_run(&weighed, tasks);
    printf(" %.1f bytes of memory a task\n", (double)weighed.bytes_max / tasks);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--bench") == 0)
        return master_bench(argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 1000000);
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : HISTORIES;
    uint64_t steps = 0, orders = 0, commits = 0, losses = 0, kills = 0, crashes = 0, launches = 0;
    uint64_t failovers = 0, again = 0, skips = 0;
    trm_diag_configure(argc > 3 ? TRM_DIAG_DEBUG : TRM_DIAG_ERROR, -1);
    for (uint64_t seed = first; seed < first + count; seed++) {
        history self;
        run_history(&self, seed);
        steps += self.steps;
        orders += self.orders;
        commits += self.commits;
        losses += self.losses;
        kills += self.kills;
        crashes += self.crashes;
        launches += self.launches;
        failovers += self.failovers;
        again += self.again;
        skips += self.skips;
    }
    printf("master_sim: %" PRIu64 " histories, %" PRIu64 " launches, %" PRIu64 " steps, %" PRIu64
           " orders, %" PRIu64 " commits, %" PRIu64 " outputs lost, %" PRIu64 " ranks and %" PRIu64
           " launches killed, %" PRIu64 " masters followed, %" PRIu64
           " tasks held late and ordered again, %" PRIu64 " bad records left out\n",
           count, launches, steps, orders, commits, losses, kills, crashes, failovers, again, skips);
    return 0;
}
