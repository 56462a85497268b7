/* See master_world.h: a launch, who leads it, its troubles. */
#include "tests/simulation/master_world.h"

trm_master *master_of(const history *self)
{
    return self->leader == NOBODY ? NULL : self->masters[self->leader];
}

static const sim_run *find_output(void *context, uint32_t reader, const trm_output_at *at)
{
    history *self = context;
    const char *store = self->store[at->rank];
    const sim_run *run = sim_runs_find(&self->runs, store, self->table.epoch, at->task, at->attempt);
    return self->alive[at->rank] || strcmp(self->host[reader], self->host[at->rank]) == 0 ? run : NULL;
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
            .find_output = find_output,
            .ordered = on_order,
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

void begin_launch(history *self, uint32_t ranks, uint32_t hosts)
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
void end_launch(history *self, bool crash)
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
           type == TRM_WIRE_LOST || type == TRM_WIRE_BYE || type == TRM_WIRE_HELD ||
           type == TRM_WIRE_COPIED || type == TRM_WIRE_PULSE;
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
bool run_launch(history *self, trm_end *end)
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
