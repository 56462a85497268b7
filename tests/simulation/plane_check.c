/* What must hold of the log and the job table, told by every rank that applies something:
 *
 *   all ranks of an epoch apply the same items and come to the same table, whole images included;
 *   each step of the table is one that its command allows: a task is committed once (a map again
 *   only after its output was lost), a part stays committed and in place, nothing follows the end;
 *   counters are those of every task that was ever committed, once, after every step;
 *   a launch begins with all that the one before it has committed (unless a person has told it to go on
 *   without a majority of logs), and once it has begun the one before it commits nothing any more; terms
 *   and epochs grow.
 *
 * The expectations are kept here, beside the real table and without its code. */
#include "tests/simulation/plane_world.h"

#include "jobs/names.h"
#include "runtime/crc32c.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COPY_KNOWN_NS (1000 * MS) /* then the master has heard of it */

void check_begin(world *w)
{
    memset(&w->truth, 0, sizeof w->truth);
}

void check_close(world *w)
{
    truth *t = &w->truth;
    for (unsigned phase = 0; phase < TRM_PHASES; phase++)
        free(t->phase[phase].task);
    free(t->items);
    free(t->orders);
}

/* ---- The same items everywhere. ---- */

static uint32_t crc_of_image(const trm_table *table)
{
    trm_writer image = {0};
    trm_table_encode(table, &image);
    if (!trm_writer_ok(&image))
        abort();
    uint32_t crc = trm_crc32c(0, image.data, image.len);
    trm_writer_close(&image);
    return crc;
}

/* The last item that was seen at or before the index; NULL: none. */
static const known_item *find_item(const truth *t, uint64_t index)
{
    size_t low = 0, high = t->items_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (t->items[middle].index <= index)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? &t->items[low - 1] : NULL;
}

static void add_item(truth *t, const known_item *item)
{
    if (t->items_count == t->items_room) {
        t->items_room = t->items_room ? 2 * t->items_room : 256;
        t->items = realloc(t->items, t->items_room * sizeof *t->items);
        if (!t->items)
            abort();
    }
    t->items[t->items_count++] = *item;
}

/* An item that another rank has applied before. */
static void check_same(process *p, const known_item *was, const known_item *is)
{
    world *w = p->of->in;
    bool image = is->kind == TRM_REPLOG_RESTORE;
    if (!was || (!image && was->index != is->index))
        world_fail(w, "item %" PRIu64 " is applied, which others have not been given", is->index);
    if (was->image_crc != is->image_crc)
        world_fail(w, "the table after item %" PRIu64 " is another than that of the rank that was first",
                   is->index);
    bool was_image = was->kind == TRM_REPLOG_RESTORE;
    if (!image && !was_image && (was->term != is->term || was->crc != is->crc))
        world_fail(w, "item %" PRIu64 " is not the same everywhere", is->index);
}

/* ---- Steps of the table. ---- */

static const trm_table_job *job_of(const trm_table *table)
{
    return table->jobs_count ? table->jobs[0] : NULL;
}

static void make_phases(world *w, const trm_table_job *job)
{
    for (unsigned phase = 0; phase < TRM_PHASES; phase++) {
        known_phase *known = &w->truth.phase[phase];
        if (known->tasks == job->phase[phase].tasks)
            continue;
        if (known->tasks)
            world_fail(w, "the job has another number of tasks than before");
        known->tasks = job->phase[phase].tasks;
        known->task = calloc(known->tasks, sizeof *known->task);
        if (!known->task)
            abort();
    }
}

static bool part_is_there(world *w, uint32_t task)
{
    char path[128];
    trm_file *file;
    if (!sim_part_bytes(task))
        return true;
    trm_part_name(OUT, task, false, path, sizeof path);
    if (w->fs->ops->open(w->fs, path, TRM_FS_READ, &file, NULL) != TRM_OK)
        return false;
    w->fs->ops->close(file);
    return true;
}

/* Whether the run is where the table says, and the rank could be asked for it. */
static bool is_at_hand(const process *p, const known_task *was, uint32_t task)
{
    const launch *l = p->of;
    if (was->epoch != l->epoch || was->rank >= l->ranks || l->disturbed)
        return false;
    const process *holder = &l->process[was->rank];
    return holder->alive && sim_runs_find(&l->in->runs, holder->store, l->epoch, task, was->attempt);
}

static const process *rank_of_store(const launch *l, const char *store)
{
    for (uint32_t rank = 0; rank < l->ranks; rank++)
        if (strcmp(l->process[rank].store, store) == 0)
            return &l->process[rank];
    return NULL;
}

/* A rank that lives has told the master of this term long ago that it has a copy, and no rank had one that
 * has died since: that one the master may have gone by. */
static bool has_copy(const process *p, const known_task *was, uint32_t task)
{
    const launch *l = p->of;
    const world *w = l->in;
    bool any = false;
    for (size_t i = 0; i < w->runs.count; i++) {
        const sim_run *run = &w->runs.run[i];
        const process *holder = rank_of_store(l, run->store);
        if (!holder || run->task != task || run->attempt != was->attempt || run->copy_of != l->epoch ||
            holder->rank == was->rank)
            continue;
        if (!holder->alive)
            return false;
        any |=
            !run->gone && run->told_term == w->truth.master_term && run->told_ns + COPY_KNOWN_NS <= w->now_ns;
    }
    return any;
}

/* A copy of an output of an earlier launch lies on a host where a rank can take it, and no rank has died. */
static bool could_be_taken(const process *p, const known_task *was, uint32_t task)
{
    const launch *l = p->of;
    const world *w = l->in;
    unsigned there = 0, hosts = 0;
    char scratch[32];
    for (uint32_t rank = 0; rank < l->ranks; rank++)
        if (!l->process[rank].alive || l->process[rank].unfit)
            return false;
    for (size_t i = 0; i < w->runs.count; i++) {
        const sim_run *run = &w->runs.run[i];
        if (run->gone || run->task != task || run->attempt != was->attempt)
            continue;
        bool is_copy = run->copy_of == was->epoch && run->made == was->made;
        for (uint32_t rank = 0; rank < l->ranks && is_copy; rank++) {
            snprintf(scratch, sizeof scratch, "/scratch/%u/", l->process[rank].host);
            hosts += strncmp(run->store, scratch, strlen(scratch)) == 0;
        }
        there += is_copy;
    }
    return there && hosts;
}

/* What is read elsewhere from now on is what was committed. */
static void check_moved(process *p, uint32_t task, const known_task *was, const trm_table_task *now)
{
    const launch *l = p->of;
    world *w = l->in;
    bool any = false, same = false;
    for (size_t i = 0; now->rank < l->ranks && i < w->runs.count; i++) {
        const sim_run *run = &w->runs.run[i];
        if (run->gone || run->epoch != l->epoch || run->task != task || run->attempt != now->attempt ||
            strcmp(run->store, l->process[now->rank].store) != 0)
            continue;
        any = true;
        same |= run->made == was->made;
    }
    if (was->made && any && !same)
        world_fail(w, "the output of map %u is read on rank %u, where another attempt's is", task, now->rank);
    const process *before = was->rank < l->ranks ? &l->process[was->rank] : NULL;
    w->totals->outputs_moved +=
        was->epoch == l->epoch && before && before->host != l->process[now->rank].host;
}

static void check_commit(process *p, unsigned phase, uint32_t task, const known_task *was, bool parts)
{
    world *w = p->of->in;
    if (was->ever && parts)
        world_fail(w, "task %u of phase %u is committed a second time", task, phase);
    w->totals->commits++;
}

static void check_lost(process *p, uint32_t task, const known_task *was, bool parts, bool by_command)
{
    world *w = p->of->in;
    if (parts)
        world_fail(w, "part %u was committed and is not any more", task);
    w->totals->outputs_lost++;
    bool earlier = was->epoch < p->of->epoch && was->made;
    if (by_command &&
        (was->epoch == p->of->epoch ? has_copy(p, was, task) : earlier && could_be_taken(p, was, task))) {
        w->totals->outputs_copied++;
        if (!p->of->disturbed && !p->of->lost_runs)
            world_fail(w, "the output of map %u is given up though there is a copy of it", task);
    }
    if (!is_at_hand(p, was, task))
        return;
    w->totals->outputs_lost_early++;
    world_trace(w, "the output of map %u is given up while rank %u has it", task, was->rank);
}

/* `type` 0: several commands at once, those of an image. */
static void check_task(process *p, unsigned phase, uint32_t number, const trm_table_task *now, bool parts,
                       uint32_t type)
{
    world *w = p->of->in;
    known_task *known = &w->truth.phase[phase].task[number], was = *known;
    known->state = now->state;
    known->attempt = now->attempt;
    known->epoch = now->epoch;
    known->rank = now->rank;
    known->ever |= now->state != TRM_TASK_PENDING || (!type && now->counted);
    known->once |= known->ever;
    bool same = now->attempt == was.attempt && now->epoch == was.epoch && now->rank == was.rank;
    if (type == TRM_COMMAND_COMMIT && was.state == TRM_TASK_PENDING)
        known->made = now->epoch;
    if (!type && !same)
        known->made = 0;
    if (was.state == now->state && (same || was.state == TRM_TASK_PENDING))
        return;
    bool moved = was.state == now->state;
    bool ok;
    if (moved) /* an output that another rank has now, or a launch that has it still */
        ok =
            !parts && was.attempt == now->attempt && (type == TRM_COMMAND_ADOPT || type == TRM_COMMAND_EPOCH);
    else if (was.state == TRM_TASK_PENDING)
        ok = type == TRM_COMMAND_COMMIT && now->state == TRM_TASK_COMMITTED;
    else if (now->state == TRM_TASK_PENDING)
        ok = type == TRM_COMMAND_LOST && was.state == TRM_TASK_COMMITTED;
    else
        ok = type == TRM_COMMAND_PUBLISHED && was.state == TRM_TASK_COMMITTED && same;
    if (type && !ok)
        world_fail(w, "task %u of phase %u goes from %u to %u by command %u", number, phase, was.state,
                   now->state, type);
    if (!type && parts && (now->state < was.state || (was.state != TRM_TASK_PENDING && !same)))
        world_fail(w, "the launch begins without part %u, which was committed", number);
    if (moved && type == TRM_COMMAND_ADOPT)
        check_moved(p, number, &was, now);
    if (!moved && was.state == TRM_TASK_PENDING)
        check_commit(p, phase, number, &was, parts);
    if (!moved && now->state == TRM_TASK_PENDING)
        check_lost(p, number, &was, parts, type != 0); /* an image says nothing of the launch that did it */
    if (now->state == TRM_TASK_PUBLISHED && !part_is_there(w, number))
        world_fail(w, "part %u is published and is not there", number);
}

static void check_counters(world *w, const trm_table_job *job)
{
    trm_counters expected = {{0}}, one;
    for (uint8_t phase = TRM_PHASE_MAP; phase < TRM_PHASES; phase++)
        for (uint32_t i = 0; i < w->truth.phase[phase].tasks; i++) {
            if (!w->truth.phase[phase].task[i].ever)
                continue;
            sim_task_counters(phase, i, &one);
            trm_counters_add(&expected, &one);
        }
    for (unsigned i = 0; i < TRM_COUNTER_COUNT; i++)
        if (expected.value[i] != job->counters.value[i])
            world_fail(w, "counter %u is %" PRIu64 " and should be %" PRIu64, i, job->counters.value[i],
                       expected.value[i]);
}

static void check_job(process *p, const trm_table_job *job, uint32_t type)
{
    world *w = p->of->in;
    truth *t = &w->truth;
    make_phases(w, job);
    uint32_t output = (uint32_t)trm_table_output_phase(job);
    uint64_t lost = 0;
    for (unsigned phase = TRM_PHASE_MAP; phase < TRM_PHASES; phase++) {
        for (uint32_t i = 0; i < t->phase[phase].tasks; i++)
            check_task(p, phase, i, &job->phase[phase].task[i], phase == output, type);
        lost += job->phase[phase].lost;
    }
    if (lost < t->lost)
        world_fail(w, "outputs that were lost are forgotten");
    t->lost = lost;
    check_counters(w, job);
    if (t->job_state == TRM_JOB_DONE && job->state != TRM_JOB_DONE)
        world_fail(w, "a job that was done is not done any more");
    if (job->state != t->job_state && type && type != TRM_COMMAND_FINISH && type != TRM_COMMAND_EPOCH)
        world_fail(w, "the state of the job changes by command %u", type);
    if (job->state == TRM_JOB_DONE && job->phase[output].published != job->phase[output].tasks)
        world_fail(w, "the job is done and not all parts are in place");
    t->job_state = job->state;
}

static void check_step(process *p, const trm_table *table, uint32_t type)
{
    world *w = p->of->in;
    truth *t = &w->truth;
    if (table->epoch < t->table_epoch || (table->epoch > t->table_epoch && type && type != TRM_COMMAND_EPOCH))
        world_fail(w, "the epoch goes from %" PRIu64 " to %" PRIu64, t->table_epoch, table->epoch);
    if (type && table->epoch > p->of->epoch)
        world_fail(w, "launch %" PRIu64 " is given epoch %" PRIu64, p->of->epoch, table->epoch);
    if (table->epoch == t->table_epoch && table->master_term < t->master_term)
        world_fail(w, "the term of the master goes back");
    t->table_epoch = table->epoch;
    t->master_term = table->master_term;
    w->totals->failovers += table->failovers - t->failovers;
    t->failovers = table->failovers;
    const trm_table_job *job = job_of(table);
    if (!job && t->submitted)
        world_fail(w, "the job is forgotten");
    t->submitted |= job != NULL;
    if (job)
        check_job(p, job, type);
}

/* ---- What ranks tell. ---- */

/* A launch went on without a majority of logs: what it has found is what there is. */
static void begin_anew(world *w)
{
    truth *t = &w->truth;
    for (unsigned phase = 0; phase < TRM_PHASES; phase++)
        for (uint32_t i = 0; i < t->phase[phase].tasks; i++)
            t->phase[phase].task[i] = (known_task){.once = t->phase[phase].task[i].once};
    t->submitted = t->anew = false;
    t->table_epoch = t->master_term = t->lost = t->failovers = 0;
    t->job_state = 0;
    w->totals->unsafe++;
    world_trace(w, "epoch %" PRIu64 " goes on with what it has found", t->epoch);
}

/* The first item of a launch: there is none, or the image of what was before it. */
static void enter_epoch(process *p)
{
    world *w = p->of->in;
    truth *t = &w->truth;
    if (p->of->epoch < t->newest)
        world_fail(w, "launch %" PRIu64 " goes on though %" PRIu64 " has begun", p->of->epoch, t->newest);
    t->epoch = p->of->epoch;
    t->items_count = 0;
    if (t->anew)
        begin_anew(w);
    world_trace(w, "epoch %" PRIu64 " has its first item", t->epoch);
}

void check_applied(process *p, const trm_replica *replica, const trm_replog_item *item)
{
    world *w = p->of->in;
    truth *t = &w->truth;
    if (replica->health != TRM_OK)
        world_fail(w, "an item cannot be applied: %s", replica->why.text);
    if (p->of->epoch < t->epoch) {
        world_trace(w, "%" PRIu64 ".%u applies item %" PRIu64 " late", p->of->number, p->rank, item->index);
        return;
    }
    bool first = p->of->epoch != t->epoch;
    if (first)
        enter_epoch(p);
    known_item is = {.index = item->index,
                     .term = item->term,
                     .kind = item->kind,
                     .crc = trm_crc32c(0, item->bytes, item->len),
                     .image_crc = crc_of_image(&replica->table)};
    bool image = item->kind == TRM_REPLOG_RESTORE;
    w->totals->images += image;
    if (t->items_count && (item->index <= t->items[t->items_count - 1].index || (image && !first))) {
        check_same(p, find_item(t, item->index), &is);
        return;
    }
    if (p->of->epoch < t->newest)
        world_fail(w, "launch %" PRIu64 " commits though %" PRIu64 " has begun", p->of->epoch, t->newest);
    trm_command_type type = 0;
    uint32_t job;
    trm_reader body;
    if (!image && trm_command_open(item->bytes, item->len, &type, &job, &body) != TRM_OK)
        world_fail(w, "a command that does not open");
    if (!image)
        world_trace(w, "%" PRIu64 ".%u: item %" PRIu64 " of term %" PRIu64 ": command %u", p->of->number,
                    p->rank, item->index, item->term, (unsigned)type);
    add_item(t, &is);
    check_step(p, &replica->table, (uint32_t)type);
    w->totals->commands += !image;
}
