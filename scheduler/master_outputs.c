/* Where the outputs of the maps are, and what is done when they are not there any more.
 *
 *     committed ─▶ OUTPUTS to all ranks, in the order in which it happened; each rank has its place
 *     LOST from a rank ─▶ LOST command ─▶ the map runs again
 *     of an earlier launch, or a rank that is silent ─▶ ADOPT to a rank of the same host
 *          ─▶ HELD: ADOPT command for what it has ─▶ OUTPUTS; for what it has not: ADOPT command
 *          for the rank that holds a copy (master_copies.c), or LOST command
 *
 * Nothing of it is done for a job whose reduces are all committed. */
#include "scheduler/master_self.h"

#include "runtime/crc32c.h"
#include "runtime/diag.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool master_maps_are_needed(const trm_master *self)
{
    const trm_table_phase *reduces = &self->job->phase[TRM_PHASE_REDUCE];
    return reduces->committed < reduces->tasks;
}

static const trm_table_task *known_map(const trm_master *self, uint32_t task)
{
    return &self->job->phase[TRM_PHASE_MAP].task[task];
}

bool master_output_is_live(const trm_master *self, uint32_t task)
{
    const trm_table_task *known = known_map(self, task);
    return known->state == TRM_TASK_COMMITTED && known->epoch == self->epoch;
}

/* ---- Telling ------------------------------------------------------------------------------------ */

void master_output_tell(trm_master *self, uint32_t task)
{
    if (self->outputs_count == self->outputs_room) {
        size_t room = self->outputs_room ? self->outputs_room * 2 : 1024;
        uint32_t *grown = realloc(self->outputs, room * sizeof *grown);
        if (!grown) {
            master_give_up(self, TRM_ENOMEM, "no memory to say where outputs are");
            return;
        }
        self->outputs = grown;
        self->outputs_room = room;
    }
    self->outputs[self->outputs_count++] = task;
    self->outputs_due = true;
}

/* A frame of what comes after `at`; returns where the next begins. What is not live any more is
 * left out: it will be told when it is. */
static size_t compose(trm_master *self, size_t at)
{
    size_t end = self->outputs_count - at > OUTPUTS_FRAME_MAX ? at + OUTPUTS_FRAME_MAX : self->outputs_count;
    master_frame_begin(self, TRM_WIRE_OUTPUTS);
    for (size_t i = at; i < end; i++) {
        uint32_t task = self->outputs[i];
        const trm_table_task *known = known_map(self, task);
        /* What is empty is nowhere, and may be from a launch with more ranks. */
        trm_output_at output = {.task = task,
                                .attempt = known->attempt,
                                .rank = known->empty ? 0 : known->rank,
                                .empty = known->empty};
        if (master_output_is_live(self, task))
            trm_output_at_encode(&output, &self->frame);
    }
    return end;
}

/* Ranks are at the same place as a rule: a frame is composed once. */
static bool tell(trm_master *self, uint64_t *wake_ns)
{
    bool any = false, left = false;
    size_t begin = SIZE_MAX, end = 0;
    for (uint32_t i = 0; i < self->config.ranks; i++) {
        master_rank *rank = &self->ranks[i];
        if (rank->state != RANK_READY || rank->outputs_at == self->outputs_count)
            continue;
        if (!rank->setup_due && rank->outputs_at != begin) {
            begin = rank->outputs_at;
            end = compose(self, begin);
        }
        if (!rank->setup_due && master_frame_send(self, i) == TRM_OK) {
            rank->outputs_at = end;
            any = true;
        } else {
            master_wake(wake_ns, self->now_ns + SEND_AGAIN_MS * MS);
        }
        left |= rank->outputs_at != self->outputs_count;
    }
    self->outputs_due = left;
    self->outputs_ns = self->now_ns + (uint64_t)self->config.ranks * OUTPUTS_RANK_US * 1000;
    return any;
}

static bool tell_step(trm_master *self, uint64_t *wake_ns)
{
    if (!self->outputs_due || !self->outputs_count)
        return false;
    if (self->now_ns >= self->outputs_ns)
        return tell(self, wake_ns);
    master_wake(wake_ns, self->outputs_ns);
    return false;
}

/* ---- Losing --------------------------------------------------------------------------------------- */

typedef struct ref_batch {
    trm_command_type type;
    uint32_t rank; /* ADOPT */
    bool copies;   /* … of its copies */
    uint32_t count, previous;
} ref_batch;

static void batch_flush(trm_master *self, ref_batch *batch)
{
    if (batch->count) {
        master_command_enqueue(self);
        master_note_count(self,
                          batch->type != TRM_COMMAND_ADOPT ? "lost"
                          : batch->copies                  ? "copies_used"
                                                           : "adopted",
                          batch->count);
    }
    batch->count = batch->previous = 0;
}

/* The output of the task as the table knows it. Nothing else may be composed meanwhile. */
static void batch_add(trm_master *self, ref_batch *batch, uint32_t task)
{
    const trm_table_task *known = known_map(self, task);
    if (!batch->count) {
        master_command_begin(self, batch->type);
        trm_put_varint(&self->scratch, self->epoch);
        if (batch->type == TRM_COMMAND_ADOPT)
            trm_put_varint(&self->scratch, batch->rank);
    }
    trm_output_ref ref = {.epoch = known->epoch, .task = task, .attempt = known->attempt};
    trm_output_ref_encode(&ref, &batch->previous, &self->scratch);
    if (++batch->count == REFS_MAX)
        batch_flush(self, batch);
}

static bool lose(trm_master *self, ref_batch *batch, uint32_t task)
{
    soft_task *soft = &self->phase[TRM_PHASE_MAP].task[task];
    if (soft->returns >= RETURNS_MAX) {
        master_job_fail(self, TRM_EFAILED, "the output of map task %u was lost %u times", task,
                        RETURNS_MAX + 1);
        return false;
    }
    soft->returns++;
    soft->state = SOFT_FAILING;
    batch_add(self, batch, task);
    return true;
}

/* What is to be read on that rank from now on: its copies. */
static void move(trm_master *self, ref_batch *batch, uint32_t task)
{
    self->phase[TRM_PHASE_MAP].task[task].state = SOFT_PREPARED;
    self->copies_used++;
    batch_add(self, batch, task);
}

/* Whether there is a copy that takes its place. A complaint may be wrong, and so bounded. */
static bool move_one(trm_master *self, uint32_t task)
{
    soft_task *soft = &self->phase[TRM_PHASE_MAP].task[task];
    ref_batch batch = {.type = TRM_COMMAND_ADOPT, .rank = master_copy_holder(self, task), .copies = true};
    if (batch.rank == NO_RANK || soft->returns >= RETURNS_MAX)
        return false;
    soft->returns++;
    move(self, &batch, task);
    batch_flush(self, &batch);
    return true;
}

/* A rank's complaint: the output is looked for elsewhere, or made again. */
static bool complain(trm_master *self, ref_batch *batch, uint32_t from, const trm_output_at *at)
{
    trm_debug("rank %u cannot read the output of map task %u on rank %u", from, at->task, at->rank);
    if (master_copy_holder(self, at->task) != NO_RANK)
        batch_flush(self, batch); /* for a command of its own */
    if (move_one(self, at->task) || master_copies_may_come(self))
        return true; /* if none comes, it is said again */
    return lose(self, batch, at->task);
}

void master_lost(trm_master *self, uint32_t from, trm_reader *body)
{
    ref_batch batch = {.type = TRM_COMMAND_LOST};
    while (trm_reader_left(body) && self->stage == STAGE_RUN) {
        trm_output_at at;
        trm_output_at_decode(&at, body);
        if (!trm_reader_ok(body) || at.task >= self->phase[TRM_PHASE_MAP].tasks ||
            !self->job->identity.partitions) {
            self->dropped++;
            break;
        }
        const trm_table_task *known = known_map(self, at.task);
        bool idle = self->phase[TRM_PHASE_MAP].task[at.task].state == SOFT_IDLE;
        if (!master_output_is_live(self, at.task) || !idle || known->empty)
            continue; /* that is known, and what is to be done is being done */
        if (known->rank < self->config.ranks && self->ranks[known->rank].state == RANK_ABSENT)
            continue; /* it may come; if not, its neighbours are asked for what it had */
        if (known->attempt != at.attempt || known->rank != at.rank) {
            master_output_tell(self, at.task); /* it is elsewhere by now */
        } else if (master_maps_are_needed(self)) {
            if (!complain(self, &batch, from, &at))
                return;
        }
    }
    batch_flush(self, &batch);
}

void master_lost_applied(trm_master *self, const trm_output_ref *ref, bool accepted)
{
    if (ref->task >= self->phase[TRM_PHASE_MAP].tasks)
        return;
    soft_task *task = &self->phase[TRM_PHASE_MAP].task[ref->task];
    const trm_table_task *known = known_map(self, ref->task);
    if (task->state != SOFT_FAILING)
        return;
    task->state = SOFT_IDLE;
    if (known->state != TRM_TASK_PENDING)
        return;
    task->rank = NO_RANK;
    master_task_queue(self, TRM_PHASE_MAP, ref->task, true);
}

/* ---- Stores that are to be taken over -------------------------------------------------------------- */

/* A launch that goes on may have as many as the ranks of those before it. */
static master_store **store_bucket(trm_master *self, uint64_t epoch, const char *path)
{
    return &self->store_bucket[trm_crc32c((uint32_t)epoch, path, strlen(path)) & (STORE_BUCKETS - 1)];
}

static master_store *store_of(trm_master *self, uint64_t epoch, uint32_t rank, const char *host,
                              const char *path)
{
    master_store **bucket = store_bucket(self, epoch, path);
    for (master_store *at = *bucket; at; at = at->next_hashed)
        if (at->epoch == epoch && at->rank == rank)
            return at;
    master_store *made = calloc(1, sizeof *made);
    if (!made)
        return NULL;
    *made = (master_store){.next = self->stores,
                           .next_hashed = *bucket,
                           .epoch = epoch,
                           .rank = rank,
                           .adopter = NO_RANK,
                           .heard_ns = self->now_ns,
                           .tasks = TASK_LIST_EMPTY};
    snprintf(made->host, sizeof made->host, "%s", host);
    snprintf(made->path, sizeof made->path, "%s", path);
    if (made->next)
        made->next->previous = made;
    self->stores = *bucket = made;
    return made;
}

static void store_put(trm_master *self, master_store *store, uint32_t task)
{
    soft_task *tasks = self->phase[TRM_PHASE_MAP].task;
    task_list_put(&store->tasks, tasks, task);
    tasks[task].state = SOFT_ADOPTING;
}

/* What there are copies of is read from those; a command for each rank that holds some. */
static void move_to_copies(trm_master *self, master_store *store)
{
    soft_task *tasks = self->phase[TRM_PHASE_MAP].task;
    for (uint32_t first = store->tasks.first, next; first != NO_TASK; first = next) {
        ref_batch batch = {
            .type = TRM_COMMAND_ADOPT, .rank = master_copy_holder(self, first), .copies = true};
        next = tasks[first].next;
        if (batch.rank == NO_RANK)
            continue;
        for (uint32_t task = first, behind; task != NO_TASK; task = behind) {
            behind = tasks[task].next;
            if (master_copy_holder(self, task) != batch.rank)
                continue;
            if (task == next)
                next = behind;
            task_list_remove(&store->tasks, tasks, task);
            move(self, &batch, task);
        }
        batch_flush(self, &batch);
    }
}

/* What nobody has a copy of is made again. */
static void give_up(trm_master *self, master_store *store)
{
    if (master_maps_are_needed(self))
        move_to_copies(self, store);
    ref_batch batch = {.type = TRM_COMMAND_LOST};
    soft_task *tasks = self->phase[TRM_PHASE_MAP].task;
    bool needed = master_maps_are_needed(self);
    if (store->tasks.count && needed)
        trm_debug("%u map outputs of rank %u, launch %llu, on %s are gone", store->tasks.count, store->rank,
                  (unsigned long long)store->epoch, store->host);
    while (store->tasks.count) {
        uint32_t task = store->tasks.first;
        task_list_remove(&store->tasks, tasks, task);
        tasks[task].state = SOFT_IDLE;
        if (needed && !lose(self, &batch, task))
            return;
    }
    batch_flush(self, &batch);
}

/* What nobody has told to have there is gone. False: a copy may be told yet. */
static bool store_gone(trm_master *self, master_store *store)
{
    store->gone = true;
    if (store->tasks.count && master_copies_may_come(self))
        return false;
    give_up(self, store);
    return true;
}

static void store_free(trm_master *self, master_store *gone)
{
    master_store **at = store_bucket(self, gone->epoch, gone->path);
    while (*at != gone)
        at = &(*at)->next_hashed;
    *at = gone->next_hashed;
    *(gone->previous ? &gone->previous->next : &self->stores) = gone->next;
    if (gone->next)
        gone->next->previous = gone->previous;
    free(gone);
}

trm_status master_outputs_begin(trm_master *self, trm_err *err)
{
    const trm_table_phase *maps = &self->job->phase[TRM_PHASE_MAP];
    if (!self->job->identity.partitions || !master_maps_are_needed(self))
        return TRM_OK;
    ref_batch batch = {.type = TRM_COMMAND_LOST};
    for (uint32_t i = 0; i < maps->tasks; i++) {
        if (maps->task[i].state != TRM_TASK_COMMITTED)
            continue;
        if (master_output_is_live(self, i)) {
            master_output_tell(self, i);
            master_copy_want(self, i);
            continue;
        }
        const trm_member *member = trm_table_member(self->table, maps->task[i].epoch, maps->task[i].rank);
        if (!member || !member->run_store[0]) {
            lose(self, &batch, i);
            continue;
        }
        master_store *store = store_of(self, member->epoch, member->rank, member->host, member->run_store);
        if (!store)
            return trm_err_set(err, TRM_ENOMEM, "no memory for the stores of an earlier launch");
        store_put(self, store, i);
    }
    batch_flush(self, &batch);
    return TRM_OK;
}

bool master_outputs_note_stores(trm_master *self)
{
    for (uint32_t i = 0; i < self->table->members_count; i++) {
        const trm_member *member = &self->table->members[i];
        if (member->epoch < self->epoch && member->run_store[0] == '/' &&
            !store_of(self, member->epoch, member->rank, member->host, member->run_store))
            return false;
    }
    return true;
}

void master_outputs_close(trm_master *self)
{
    while (self->stores) {
        master_store *next = self->stores->next;
        free(self->stores);
        self->stores = next;
    }
    free(self->outputs);
    self->outputs = NULL;
}

void master_outputs_of_lost_rank(trm_master *self, uint32_t number)
{
    master_rank *rank = &self->ranks[number];
    master_phase *maps = &self->phase[TRM_PHASE_MAP];
    if (self->stage != STAGE_RUN || !rank->host_name || !self->job->identity.partitions ||
        !master_maps_are_needed(self))
        return;
    master_store *store = NULL;
    for (uint32_t i = 0; i < maps->tasks; i++) {
        const trm_table_task *known = known_map(self, i);
        if (!master_output_is_live(self, i) || known->rank != number || known->empty ||
            maps->task[i].state != SOFT_IDLE)
            continue;
        if (!store)
            store = store_of(self, self->epoch, number, rank->host_name, rank->run_store);
        if (!store) {
            master_give_up(self, TRM_ENOMEM, "no memory to take over the runs of a rank");
            return;
        }
        store_put(self, store, i);
    }
}

/* It was told while its rank was there; by now that may be gone. */
void master_output_committed(trm_master *self, uint32_t task, uint32_t number)
{
    master_rank *rank = &self->ranks[number];
    const trm_table_task *known = known_map(self, task);
    master_output_tell(self, task);
    master_copy_want(self, task);
    if (rank->state == RANK_READY || known->empty || !rank->host_name || self->stage != STAGE_RUN)
        return;
    master_store *store = store_of(self, self->epoch, number, rank->host_name, rank->run_store);
    if (store) {
        store->sent = store->gone = false; /* it is to be looked at again */
        store_put(self, store, task);
    }
}

/* The first rank of the store's host, which is often the one that leads; NO_RANK: none. `may_come`: there may
 * be one later. */
static uint32_t adopter_for(trm_master *self, const master_store *store, bool *may_come)
{
    uint32_t first = NO_RANK;
    bool own = store->epoch == self->epoch;
    for (uint32_t at = master_host_first(self, store->host); at != NO_RANK; at = self->ranks[at].host_next)
        if (self->ranks[at].state == RANK_READY && !(own && store->rank == at) && at < first)
            first = at;
    *may_come = self->coming > 0;
    return first;
}

static bool send_adopt(trm_master *self, master_store *store)
{
    trm_store what = {.epoch = store->epoch};
    memcpy(what.path, store->path, sizeof what.path);
    master_frame_begin(self, TRM_WIRE_ADOPT);
    trm_store_encode(&what, &self->frame);
    if (master_frame_send(self, store->adopter) != TRM_OK)
        return false;
    store->sent = true;
    store->heard_ns = self->now_ns;
    return true;
}

/* Whether it is done with. `unheard`: copies may be told yet, as found out once for all stores of a step,
 * which may be as many as ranks; UINT8_MAX: not yet. */
static bool store_step(trm_master *self, master_store *store, uint8_t *unheard)
{
    bool own = store->epoch == self->epoch;
    if (own && (store->gone || !store->sent) && self->ranks[store->rank].state == RANK_READY) {
        while (store->tasks.count) { /* the rank is back, and so are its outputs */
            uint32_t task = store->tasks.first;
            task_list_remove(&store->tasks, self->phase[TRM_PHASE_MAP].task, task);
            self->phase[TRM_PHASE_MAP].task[task].state = SOFT_IDLE;
        }
        return true;
    }
    if (store->gone) {
        if (*unheard == UINT8_MAX)
            *unheard = master_copies_may_come(self);
        if (store->tasks.count && *unheard)
            return false;
        give_up(self, store);
        return true;
    }
    if (store->adopter != NO_RANK && self->ranks[store->adopter].state != RANK_READY) {
        store->adopter = NO_RANK;
        store->sent = false;
    }
    if (store->adopter == NO_RANK) {
        bool may_come;
        store->adopter = adopter_for(self, store, &may_come);
        if (store->adopter == NO_RANK && may_come)
            return false;
        if (store->adopter == NO_RANK)
            return store_gone(self, store);
    }
    if (!store->sent && !self->ranks[store->adopter].setup_due)
        send_adopt(self, store);
    return store->sent && self->now_ns > store->heard_ns + ADOPT_SILENT_MS * MS && store_gone(self, store);
}

/* Paths of several hosts may be the same. */
static master_store *store_asked_of(trm_master *self, uint32_t adopter, const trm_store *what)
{
    master_store *at = *store_bucket(self, what->epoch, what->path);
    while (at && (at->epoch != what->epoch || at->adopter != adopter || strcmp(at->path, what->path) != 0))
        at = at->next_hashed;
    return at;
}

void master_held(trm_master *self, uint32_t from, trm_reader *body)
{
    trm_held held;
    trm_held_decode(&held, body);
    master_store *store = trm_reader_ok(body) ? store_asked_of(self, from, &held.store) : NULL;
    if (!store) {
        self->dropped++;
        return;
    }
    store->heard_ns = self->now_ns;
    ref_batch batch = {.type = TRM_COMMAND_ADOPT, .rank = from};
    master_phase *maps = &self->phase[TRM_PHASE_MAP];
    while (trm_reader_left(body)) {
        trm_output_at at;
        trm_output_at_decode(&at, body);
        if (!trm_reader_ok(body)) {
            self->dropped++;
            break;
        }
        const trm_table_task *known = at.task < maps->tasks ? known_map(self, at.task) : NULL;
        if (!known || maps->task[at.task].state != SOFT_ADOPTING || known->epoch != store->epoch ||
            known->rank != store->rank || known->attempt != at.attempt)
            continue; /* a run that was never committed, or is not of use any more */
        task_list_remove(&store->tasks, maps->task, at.task);
        maps->task[at.task].state = SOFT_PREPARED;
        batch_add(self, &batch, at.task);
    }
    batch_flush(self, &batch);
    if (held.last && store->sent && store_gone(self, store))
        store_free(self, store);
}

void master_adopted_applied(trm_master *self, uint32_t rank, const trm_output_ref *ref, bool accepted)
{
    if (ref->task >= self->phase[TRM_PHASE_MAP].tasks)
        return;
    soft_task *task = &self->phase[TRM_PHASE_MAP].task[ref->task];
    if (task->state != SOFT_PREPARED || known_map(self, ref->task)->state != TRM_TASK_COMMITTED)
        return;
    task->state = SOFT_IDLE;
    if (accepted)
        master_output_committed(self, ref->task, rank);
    if (master_maps_are_live(self))
        self->all_hungry = true; /* for reduces */
}

bool master_outputs_step(trm_master *self, uint64_t *wake_ns)
{
    uint8_t unheard = UINT8_MAX;
    for (master_store *at = self->stores, *next; at && self->stage == STAGE_RUN; at = next) {
        next = at->next;
        if (store_step(self, at, &unheard))
            store_free(self, at);
    }
    return tell_step(self, wake_ns);
}
