/* What must hold of files, orders and the end:
 *
 *   a part gets its name only when it is committed, and _SUCCESS only when every part is in place;
 *   only the launch whose epoch is the newest gives such names;
 *   no attempt is ordered twice, and no task that the master's own table has as committed;
 *   a launch says that the job is done only if it is; what is done is there after a loss of power. */
#include "tests/simulation/plane_world.h"

#include "jobs/exit_code.h"
#include "jobs/names.h"
#include "tests/support/fs_mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- The output directory. ---- */

static bool bytes_of(world *w, const char *path, uint64_t *bytes)
{
    trm_file *file;
    if (w->fs->ops->open(w->fs, path, TRM_FS_READ, &file, NULL) != TRM_OK)
        return false;
    if (w->fs->ops->size(file, bytes, NULL) != TRM_OK)
        *bytes = UINT64_MAX;
    w->fs->ops->close(file);
    return true;
}

static const known_phase *parts_of(const world *w)
{
    return &w->truth.phase[w->traits.map_only ? TRM_PHASE_MAP : TRM_PHASE_REDUCE];
}

void check_output(world *w)
{
    char path[128];
    uint64_t bytes;
    const known_phase *parts = parts_of(w);
    bool success = bytes_of(w, OUT "/" TRM_SUCCESS_NAME, &bytes);
    if (success && (!parts->tasks || !bytes))
        world_fail(w, "_SUCCESS is there and nothing was done, or it is empty");
    for (uint32_t i = 0; i < parts->tasks; i++) {
        trm_part_name(OUT, i, false, path, sizeof path);
        bool there = bytes_of(w, path, &bytes);
        if (there && !parts->task[i].once)
            world_fail(w, "part %u is in place and not committed", i);
        if (there && bytes != sim_part_bytes(i))
            world_fail(w, "part %u has %" PRIu64 " bytes", i, bytes);
        if (!there && success && sim_part_bytes(i))
            world_fail(w, "_SUCCESS is there and part %u is not", i);
        if (!there && parts->task[i].state == TRM_TASK_PUBLISHED && sim_part_bytes(i))
            world_fail(w, "part %u was in place and is not any more", i);
        if (success && parts->task[i].state != TRM_TASK_PUBLISHED)
            world_fail(w, "_SUCCESS is there and part %u is not known to be in place", i);
    }
}

void check_renamed(process *p, const char *path)
{
    launch *l = p->of;
    world *w = l->in;
    uint64_t epoch;
    if (sscanf(path, STATE "/" TRM_LOG_NAME "/epoch-%" SCNu64, &epoch) == 1) {
        if (epoch <= w->truth.newest)
            world_fail(w, "epoch %" PRIu64 " begins after %" PRIu64, epoch, w->truth.newest);
        world_trace(w, "launch %" PRIu64 " begins epoch %" PRIu64, l->number, epoch);
        w->truth.anew |= lacks_log(w) && w->spec.unsafe_recover;
        w->spec.unsafe_recover &= often(w, 500); /* who launches next may know nothing of it */
        w->truth.newest = l->epoch = epoch;
        return;
    }
    size_t len = strlen(OUT "/");
    if (strncmp(path, OUT "/", len) != 0 || strchr(path + len, '/'))
        return;
    world_trace(w, "%" PRIu64 ".%u puts %s into place", l->number, p->rank, path);
    if (l->epoch != w->truth.newest)
        world_fail(w, "a launch of epoch %" PRIu64 " writes %s, and %" PRIu64 " has begun", l->epoch, path,
                   w->truth.newest);
    check_output(w);
}

/* ---- Orders. ---- */

static void put_order(uint64_t *orders, size_t room, uint64_t key)
{
    size_t at = (size_t)(key * 0x9e3779b97f4a7c15u >> 20) & (room - 1);
    while (orders[at])
        at = (at + 1) & (room - 1);
    orders[at] = key;
}

static bool is_ordered(const truth *t, uint64_t key)
{
    size_t at = t->orders_room ? (size_t)(key * 0x9e3779b97f4a7c15u >> 20) & (t->orders_room - 1) : 0;
    while (t->orders_room && t->orders[at] && t->orders[at] != key)
        at = (at + 1) & (t->orders_room - 1);
    return t->orders_room && t->orders[at] == key;
}

static void note_order(truth *t, uint64_t key)
{
    if (2 * t->orders_count >= t->orders_room) {
        size_t room = t->orders_room ? 2 * t->orders_room : 1024;
        uint64_t *grown = calloc(room, sizeof *grown);
        if (!grown)
            abort();
        for (size_t i = 0; i < t->orders_room; i++)
            if (t->orders[i])
                put_order(grown, room, t->orders[i]);
        free(t->orders);
        t->orders = grown;
        t->orders_room = room;
    }
    put_order(t->orders, t->orders_room, key);
    t->orders_count++;
}

static void check_order(process *p, const trm_order *order)
{
    world *w = p->of->in;
    const trm_master *master = trm_control_master(p->control);
    uint64_t key = 1ull << 63 | p->of->epoch << 54 | (uint64_t)order->phase << 52 |
                   (uint64_t)order->task << 32 | order->attempt;
    if (is_ordered(&w->truth, key))
        world_fail(w, "attempt %u of task %u, phase %u, is ordered a second time", order->attempt,
                   order->task, order->phase);
    note_order(&w->truth, key);
    w->totals->orders++;
    if (!master)
        world_fail(w, "a rank without a master gives orders");
    const trm_table *table = trm_master_table(master);
    if (order->phase == TRM_PHASE_SAMPLE || !table->jobs_count)
        return;
    if (table->jobs[0]->phase[order->phase].task[order->task].state != TRM_TASK_PENDING)
        world_fail(w, "task %u of phase %u is ordered and was committed", order->task, order->phase);
}

void check_sent(process *p, uint32_t to, const void *bytes, size_t len)
{
    trm_wire_header header;
    trm_reader body;
    if (len < TRM_WIRE_HEADER_BYTES || trm_load_u32(bytes) != TRM_WIRE_MAGIC ||
        ((const uint8_t *)bytes)[6] != TRM_WIRE_ORDER || trm_wire_open(bytes, len, &header, &body) != TRM_OK)
        return;
    while (trm_reader_left(&body)) {
        trm_order order;
        trm_order_decode(&order, &body);
        check_order(p, &order);
    }
}

/* ---- The end. ---- */

static void check_done(world *w)
{
    uint64_t bytes;
    if (w->must_fail)
        world_fail(w, "a job that must fail is done");
    if (!bytes_of(w, OUT "/" TRM_SUCCESS_NAME, &bytes))
        world_fail(w, "the job is done and there is no _SUCCESS");
    const known_phase *parts = parts_of(w);
    for (uint32_t i = 0; i < parts->tasks; i++)
        if (parts->task[i].state != TRM_TASK_PUBLISHED)
            world_fail(w, "the job is done and part %u is not in place", i);
    check_output(w);
}

/* Too few logs were left. They are found again, or given up for lost, unless there is none at all. */
static void refused(launch *l)
{
    world *w = l->in;
    if (!w->spec.unsafe_recover && often(w, 500)) {
        world_trace(w, "the logs that cannot be reached are given up");
        w->spec.unsafe_recover = true;
    } else {
        w->spec.unsafe_recover = false;
        w->hidden = 0;
    }
}

void check_result(launch *l)
{
    world *w = l->in;
    switch (l->result) {
    case -1: /* nobody could say so */
    case TRM_EXIT_LAUNCH:
        break;
    case TRM_EXIT_DONE:
        check_done(w);
        w->done = true;
        break;
    case TRM_EXIT_INTERRUPTED:
        if (!l->interrupted)
            world_fail(w, "launch %" PRIu64 " says that it was interrupted", l->number);
        break;
    case TRM_EXIT_FAILED:
        if (!w->may_fail && !w->must_fail && !w->was_full)
            world_fail(w, "launch %" PRIu64 " says that the job has failed", l->number);
        w->done |= w->must_fail && w->truth.job_state == TRM_JOB_FAILED;
        break;
    default:
        if (l->lacks_log && l->result == TRM_EXIT_REFUSED)
            refused(l);
        else if (!w->was_full)
            world_fail(w, "launch %" PRIu64 " ends with %d", l->number, l->result);
        break;
    }
}

void check_end(world *w)
{
    trm_fs_mem_crash(w->fs);
    check_output(w);
    if (w->done && !w->must_fail)
        check_done(w);
}
