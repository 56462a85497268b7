/* The disk of a simulated node, as a thread that writes the log would use it: one
 * operation at a time, in order; batches that wait together are synced together. */
#include "tests/simulation/raft_world.h"

#include <stdlib.h>
#include <string.h>

disk_op *disk_add(node *n, disk_kind kind)
{
    disk_op *op = calloc(1, sizeof *op);
    if (!op)
        abort();
    op->kind = kind;
    trm_wal_batch_init(&op->batch);
    trm_writer_init(&op->bytes);
    *n->ops_last = op;
    n->ops_last = &op->next;
    return op;
}

static void op_free(disk_op *op)
{
    trm_wal_batch_close(&op->batch);
    trm_writer_close(&op->bytes);
    free(op->entries);
    free(op);
}

static void op_pop(node *n)
{
    disk_op *op = n->ops_first;
    n->ops_first = op->next;
    if (!n->ops_first)
        n->ops_last = &n->ops_first;
    op_free(op);
}

uint64_t disk_surely_last(const node *n)
{
    uint64_t last = n->disk.last;
    for (const disk_op *op = n->ops_first; op; op = op->next)
        if (op->entries_len > 0 && op->first_index <= last)
            last = op->first_index - 1;
    return last;
}

void disk_drop(node *n)
{
    n->ops_last = &n->ops_first;
    while (n->ops_first)
        op_pop(n);
    n->disk_busy = n->retry_is_due = false;
    n->written = 0;
}

static uint64_t delay_ns(world *w, const node *n)
{
    if (n->slow_disk && below(w, 3) == 0)
        return below(w, 4 * w->mood.options.election_ns);
    return 50000 + below(w, n->slow_disk ? 20 * MS : MS);
}

static void occupy(world *w, node *n, uint64_t after_ns)
{
    n->disk_busy = true;
    world_add(w, EVENT_DISK, after_ns, n->slot, n->life, NULL);
}

/* An error of the disk: for want of room all can go on later, else the process ends. */
static void failed(world *w, node *n, trm_status status, const char *what, const trm_err *err)
{
    world_trace(w, "n%llu %s: %s", (unsigned long long)n->id, what, err->text);
    if (status == TRM_ENOSPACE) {
        w->totals->refused_for_room++;
        return;
    }
    if (status != TRM_EIO)
        world_fail(w, "%s: %s: %s", what, trm_status_name(status), err->text);
    w->totals->disk_errors++;
    n->wants_down = true;
}

/* Writes the batches in front; they are synced when the operation is done. */
static void write_batches(world *w, node *n)
{
    trm_err err;
    n->written = 0;
    for (disk_op *op = n->ops_first; op && op->kind == DISK_BATCH && n->written < w->mood.group_max;
         op = op->next) {
        trm_status status = trm_wal_write(n->wal, &op->batch, &err);
        if (status != TRM_OK) {
            failed(w, n, status, "write", &err);
            break;
        }
        n->written++;
    }
    bool full = n->written == 0 && !n->wants_down;
    if (full != n->disk_full)
        trm_raft_disk_full(n->raft, full);
    n->disk_full = full;
    n->retry_is_due = full;
    if (!n->wants_down)
        occupy(w, n, full ? 20 * MS + below(w, 60 * MS) : delay_ns(w, n));
}

static trm_status begin_save(node *n, disk_op *op, trm_err *err)
{
    trm_wal_snapshot durable;
    trm_wal_snapshot_get(n->wal, &durable);
    if (op->meta.index <= durable.index)
        return TRM_AGAIN; /* an installed one is ahead of it */
    op->meta.config = op->config;
    trm_status status = trm_wal_snapshot_begin(n->wal, &op->meta, err);
    size_t half = op->bytes.len / 2;
    if (status == TRM_OK)
        status = trm_wal_snapshot_write(n->wal, op->bytes.data, half, err);
    if (status == TRM_OK)
        status = trm_wal_snapshot_write(n->wal, op->bytes.data + half, op->bytes.len - half, err);
    return status;
}

/* What an operation does before the time that it takes. */
static void begin_other(world *w, node *n, disk_op *op)
{
    trm_err err;
    trm_status status = TRM_OK;
    if (op->kind == DISK_BEGIN) {
        op->meta.config = op->config;
        n->broken = false;
        status = trm_wal_snapshot_begin(n->wal, &op->meta, &err);
    } else if (op->kind == DISK_WRITE && !n->broken) {
        status = trm_wal_snapshot_write(n->wal, op->bytes.data, op->bytes.len, &err);
    } else if (op->kind == DISK_ABORT) {
        trm_wal_snapshot_abort(n->wal);
    } else if (op->kind == DISK_SAVE) {
        status = begin_save(n, op, &err);
    }
    if (status == TRM_AGAIN) {
        op->meta.index = 0;
    } else if (status != TRM_OK) {
        failed(w, n, status, "snapshot", &err);
        n->broken |= op->kind == DISK_BEGIN || op->kind == DISK_WRITE;
        if (op->kind == DISK_SAVE)
            op->meta.index = 0;
    }
    bool quick = op->kind == DISK_ABORT;
    if (!n->wants_down)
        occupy(w, n, quick ? 1000 : delay_ns(w, n));
}

void disk_begin(world *w, node *n)
{
    if (!n->raft || n->disk_busy || !n->ops_first || n->wants_down)
        return;
    if (n->ops_first->kind == DISK_BATCH)
        write_batches(w, n);
    else
        begin_other(w, n, n->ops_first);
}

/* ---- The end of an operation. ---- */

static void batches_done(world *w, node *n)
{
    trm_err err;
    if (n->retry_is_due)
        return; /* nothing was written: it is tried again */
    trm_status status = trm_wal_sync(n->wal, &err);
    if (status != TRM_OK) {
        failed(w, n, status, "sync", &err);
        n->wants_down = true;
        return;
    }
    uint64_t sequence = 0;
    for (uint32_t i = 0; i < n->written; i++) {
        check_durable(w, n, n->ops_first);
        sequence = n->ops_first->sequence;
        op_pop(n);
    }
    trm_raft_persisted(n->raft, sequence);
    if (below(w, 4) == 0)
        trm_wal_prepare(n->wal);
}

/* The state machine becomes what the durable snapshot says. */
static void restore(world *w, node *n, const trm_wal_snapshot *meta)
{
    trm_err err;
    size_t got = 0;
    uint8_t *bytes = malloc((size_t)meta->data_bytes + 1);
    if (!bytes)
        abort();
    if (trm_wal_snapshot_read(n->wal, 0, bytes, (size_t)meta->data_bytes, &got, &err) != TRM_OK) {
        failed(w, n, TRM_EIO, "reading a snapshot", &err);
        free(bytes);
        return;
    }
    if (got != meta->data_bytes || !machine_decode(&n->machine, bytes, got) ||
        n->machine.index != meta->index)
        world_fail(w, "n%llu: the snapshot of entry %llu is not whole", (unsigned long long)n->id,
                   (unsigned long long)meta->index);
    free(bytes);
    check_restored(w, n);
}

static void install_done(world *w, node *n)
{
    trm_err err;
    trm_status status = n->broken ? TRM_ENOSPACE : trm_wal_snapshot_commit(n->wal, &err);
    n->receiving = false;
    if (status != TRM_OK && !n->broken)
        failed(w, n, status, "snapshot", &err);
    if (status == TRM_OK) {
        trm_wal_snapshot meta;
        trm_wal_snapshot_get(n->wal, &meta);
        restore(w, n, &meta);
        w->totals->snapshots_installed++;
        if (below(w, 2) == 0)
            trm_wal_compact(n->wal, NULL);
    }
    if (n->wants_down)
        return;
    world_trace(w, "n%llu has %s the snapshot of entry %llu", (unsigned long long)n->id,
                status == TRM_OK ? "installed" : "not installed", (unsigned long long)n->receiving_index);
    trm_raft_snapshot_installed(n->raft, status);
}

static void save_done(world *w, node *n, disk_op *op)
{
    trm_err err;
    n->saving = false;
    if (op->meta.index == 0)
        return;
    trm_status status = trm_wal_snapshot_commit(n->wal, &err);
    if (status != TRM_OK) {
        failed(w, n, status, "snapshot", &err);
        return;
    }
    trm_wal_snapshot meta;
    trm_wal_snapshot_get(n->wal, &meta);
    n->saved_index = meta.index;
    w->totals->snapshots_saved++;
    world_trace(w, "n%llu has saved a snapshot of entry %llu", (unsigned long long)n->id,
                (unsigned long long)meta.index);
    trm_raft_snapshot_saved(n->raft, &meta);
    status = trm_wal_compact(n->wal, &err);
    w->totals->compactions += status == TRM_OK;
    if (status != TRM_OK)
        failed(w, n, status, "compact", &err);
}

void disk_done(world *w, node *n)
{
    disk_op *op = n->ops_first;
    n->disk_busy = false;
    if (op->kind == DISK_BATCH) {
        batches_done(w, n);
        return;
    }
    if (op->kind == DISK_INSTALL)
        install_done(w, n);
    else if (op->kind == DISK_SAVE)
        save_done(w, n, op);
    op_pop(n);
}
