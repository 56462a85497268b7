/* A simulated node: the loop that raft.h describes around the core. */
#include "tests/simulation/raft_world.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define LOG_DIR "host/log"

static uint32_t slot_of(uint64_t id)
{
    return (uint32_t)(id % SLOT_STRIDE);
}

/* Every node has a clock of its own: another begin, and a little faster or slower. */
uint64_t node_clock(const world *w, const node *n)
{
    return n->clock_offset_ns + now_ns(w) / 1000 * (uint64_t)(1000 + n->clock_drift_permille);
}

static uint64_t sim_time(const node *n, uint64_t clock_ns)
{
    if (clock_ns <= n->clock_offset_ns)
        return 0;
    return ((clock_ns - n->clock_offset_ns) / (uint64_t)(1000 + n->clock_drift_permille) + 1) * 1000;
}

void node_make(world *w, uint32_t slot, bool voter)
{
    node *n = &w->nodes[slot];
    memset(n, 0, offsetof(node, log));
    memset(&n->hard, 0, sizeof *n - offsetof(node, hard));
    n->surely_last = 0;
    n->log.base = n->log.last = n->disk.base = n->disk.last = 0;
    n->log.hash[0] = n->disk.hash[0] = 0;
    n->log.term[0] = n->disk.term[0] = 0;
    n->slot = slot;
    n->id = slot;
    n->first_voter = voter;
    n->slow_disk = w->mood.slow_disks;
    n->fs = trm_fs_mem_create(trm_draw_next(&w->draw));
    if (!n->fs)
        abort();
    n->ops_last = &n->ops_first;
    n->clock_offset_ns = below(w, 2) ? 0 : below(w, 1ull << 50);
    n->clock_drift_permille = (int64_t)below(w, 41) - 20;
    n->hard.vote = n->durable_hard.vote = TRM_RAFT_NONE;
    n->tick_at_ns = UINT64_MAX;
    if (voter)
        n->members = w->first_members;
}

/* ---- Its life. ---- */

static trm_status open_log(world *w, node *n, trm_err *err)
{
    static const uint32_t sizes[] = {8192, 16384, 65536};
    trm_wal_config config = {.create = true,
                             .log_id = n->id,
                             .segment_bytes_first = sizes[w->seed % 3],
                             .segment_bytes_max = 2 * sizes[w->seed % 3]};
    return trm_wal_open(&n->wal, n->fs, LOG_DIR, &config, err);
}

/* The core, from what is in the log. */
static void create_core(world *w, node *n)
{
    trm_err err;
    trm_raft_boot boot;
    trm_raft_boot_init(&boot);
    trm_wal_hard_state_get(n->wal, &boot.hard);
    trm_wal_snapshot_get(n->wal, &boot.snapshot);
    if (n->first_voter && boot.snapshot.index == 0)
        boot.first_members = &w->first_members;
    uint64_t first = trm_wal_first_index(n->wal);
    boot.entries_len = (size_t)(trm_wal_last_index(n->wal) + 1 - first);
    trm_raft_entry *entries = calloc(boot.entries_len + 1, sizeof *entries);
    if (!entries)
        abort();
    for (size_t i = 0; i < boot.entries_len; i++)
        trm_wal_entry_at(n->wal, first + i, &entries[i]);
    boot.entries = entries;
    check_opened(w, n);
    trm_raft_options options = w->mood.options;
    options.node = n->id;
    options.group = GROUP;
    options.seed = trm_draw_next(&w->draw);
    trm_status status = trm_raft_create(&n->raft, &options, &boot, node_clock(w, n), &err);
    if (status != TRM_OK)
        world_fail(w, "n%" PRIu64 " does not start: %s", n->id, err.text);
    free(entries);
    trm_wal_forget(n->wal);
}

static bool restore_machine(world *w, node *n)
{
    trm_wal_snapshot meta;
    trm_wal_snapshot_get(n->wal, &meta);
    memset(&n->machine, 0, sizeof n->machine);
    n->saved_index = meta.index;
    if (meta.index == 0)
        return true;
    trm_err err;
    size_t got;
    uint8_t *bytes = malloc((size_t)meta.data_bytes + 1);
    if (!bytes)
        abort();
    bool read = trm_wal_snapshot_read(n->wal, 0, bytes, (size_t)meta.data_bytes, &got, &err) == TRM_OK &&
                got == meta.data_bytes;
    if (read && (!machine_decode(&n->machine, bytes, got) || n->machine.index != meta.index))
        world_fail(w, "n%" PRIu64 ": its own snapshot is not whole", n->id);
    free(bytes);
    return read;
}

void node_start(world *w, node *n)
{
    trm_err err;
    if (n->raft)
        return;
    trm_status status = open_log(w, n, &err);
    if (status == TRM_OK && !restore_machine(w, n))
        status = TRM_EIO;
    if (status != TRM_OK) {
        if (status != TRM_EIO && status != TRM_ENOSPACE)
            world_fail(w, "n%" PRIu64 " cannot open its log: %s", n->id, err.text);
        world_trace(w, "n%" PRIu64 " cannot open its log: %s", n->id, err.text);
        trm_fs_mem_crash(n->fs);
        trm_wal_close(n->wal);
        n->wal = NULL;
        world_add(w, EVENT_START, 20 * MS + below(w, 50 * MS), n->slot, n->life, NULL);
        return;
    }
    n->tick_at_ns = UINT64_MAX;
    create_core(w, n);
    w->totals->starts++;
    world_trace(w, "n%" PRIu64 " starts: entries %" PRIu64 " to %" PRIu64 ", term %" PRIu64 ", %u repairs",
                n->id, n->log.base + 1, n->log.last, n->hard.term, trm_wal_repairs(n->wal));
    node_settle(w, n);
}

void node_stop(world *w, node *n, bool power, uint64_t down_ns)
{
    if (n->raft) {
        power |= n->machine_must_crash;
        trm_raft_state state;
        trm_raft_state_get(n->raft, &state);
        w->totals->elections += state.counts.elections;
        trm_raft_destroy(n->raft);
        n->raft = NULL;
        if (power)
            trm_fs_mem_crash(n->fs);
        else
            trm_fs_mem_kill(n->fs);
        trm_wal_close(n->wal);
        n->wal = NULL;
        w->totals->crashes += power;
        w->totals->kills += !power;
        world_trace(w, "n%" PRIu64 " %s", n->id, power ? "crashes" : "is killed");
        n->surely_last = disk_surely_last(n);
    } else if (power) {
        trm_fs_mem_crash(n->fs); /* of a process that was killed before, what it had not synced */
    }
    disk_drop(n);
    n->life++;
    n->reads_len = 0;
    n->paused_until_ns = 0;
    n->machine_must_crash = n->disk_full = n->wants_down = false;
    n->receiving = n->broken = n->saving = false;
    n->role = TRM_RAFT_FOLLOWER;
    n->counted_on = false;
    if (down_ns != UINT64_MAX)
        world_add(w, EVENT_START, down_ns, n->slot, n->life, NULL);
}

void node_wipe(world *w, node *n, uint64_t down_ns)
{
    node_stop(w, n, true, down_ns);
    trm_fs_mem_wipe(n->fs);
    n->graves[n->wipes++] = n->disk;
    n->id += SLOT_STRIDE;
    n->first_voter = false;
    n->log.base = n->log.last = n->disk.base = n->disk.last = 0;
    n->surely_last = 0;
    n->hard = n->durable_hard = (trm_wal_hard_state){0, TRM_RAFT_NONE, 0};
    n->commit = n->applied = 0;
    n->members.count = 0;
    w->totals->wipes++;
    world_trace(w, "n%" PRIu64 " is wiped and will be n%" PRIu64, n->id - SLOT_STRIDE, n->id);
}

void node_close(world *w, node *n)
{
    trm_fs_mem_counts counts;
    trm_fs_mem_counts_get(n->fs, &counts);
    w->totals->torn_sectors += counts.sectors_torn;
    w->totals->lost_sectors += counts.sectors_lost;
    if (n->raft) {
        trm_raft_state state;
        trm_raft_state_get(n->raft, &state);
        w->totals->elections += state.counts.elections;
    }
    disk_drop(n);
    trm_raft_destroy(n->raft);
    trm_wal_close(n->wal);
    trm_fs_mem_destroy(n->fs);
    n->raft = NULL;
    n->wal = NULL;
    n->fs = NULL;
}

/* ---- Messages. ---- */

static void trace_message(world *w, const char *what, const trm_raft_message *m)
{
    if (w->trace)
        world_trace(w,
                    "%s n%" PRIu64 " -> n%" PRIu64 " %s%s term %" PRIu64 " index %" PRIu64 "/%" PRIu64
                    " entries %u commit %" PRIu64 " context %" PRIu64 " offset %" PRIu64,
                    what, m->from, m->to, trm_raft_message_name(m->type), m->reject ? " REJECT" : "", m->term,
                    m->index, m->log_term, m->entries_len, m->commit, m->context, m->offset);
}

static void post(world *w, node *n, const trm_raft_message *message)
{
    static trm_writer out;
    uint64_t after_ns[TRM_SIM_NET_COPIES_MAX];
    uint32_t to = slot_of(message->to);
    trace_message(w, "send", message);
    if (to >= w->slots)
        world_fail(w, "n%" PRIu64 " writes to n%" PRIu64 ", who has never been", n->id, message->to);
    unsigned copies = trm_sim_net_send(&w->net, after_ns, n->slot, to, &w->draw);
    if (copies == 0)
        return;
    trm_writer_reset(&out);
    trm_raft_message_encode(message, &out);
    if (!trm_writer_ok(&out) || out.len > TRM_RAFT_MESSAGE_BYTES_MAX)
        world_fail(w, "a message of %zu bytes", out.len);
    for (unsigned i = 0; i < copies; i++) {
        letter *what = malloc(sizeof *what + out.len);
        if (!what)
            abort();
        what->from = n->slot;
        what->len = out.len;
        what->garbled = !w->calm && below(w, 400) == 0;
        memcpy(what->bytes, out.data, out.len);
        if (what->garbled) {
            what->bytes[below(w, out.len)] ^= (uint8_t)(1 + below(w, 255));
            w->totals->garbled++;
        }
        world_add(w, EVENT_ARRIVE, after_ns[i], to, 0, what);
    }
}

static void send_messages(world *w, node *n, const trm_raft_update *update)
{
    static uint8_t chunk[TRM_RAFT_CHUNK_BYTES_MAX];
    for (size_t i = 0; i < update->messages_len; i++) {
        trm_raft_message message = update->messages[i];
        if (message.type == TRM_RAFT_SNAPSHOT) {
            trm_err err;
            size_t got;
            trm_wal_snapshot durable;
            trm_wal_snapshot_get(n->wal, &durable);
            if (durable.index != message.snapshot.index || durable.term != message.snapshot.term)
                world_fail(w, "n%" PRIu64 " sends a snapshot of entry %" PRIu64 " and has one of %" PRIu64,
                           n->id, message.snapshot.index, durable.index);
            if (trm_wal_snapshot_read(n->wal, message.offset, chunk, message.data_len, &got, &err) !=
                    TRM_OK ||
                got != message.data_len)
                continue;
            message.data = chunk;
        }
        check_message(w, n, &message);
        post(w, n, &message);
    }
}

void node_arrive(world *w, node *n, const letter *what)
{
    static trm_raft_entry room[TRM_RAFT_MESSAGE_ENTRIES_MAX];
    trm_raft_message message;
    trm_err err;
    if (!n->raft)
        return;
    if (trm_raft_message_decode(&message, room, what->bytes, what->len, &err) != TRM_OK) {
        if (!what->garbled)
            world_fail(w, "a message cannot be read: %s", err.text);
        return;
    }
    if (what->garbled)
        world_fail(w, "a garbled message is read");
    trace_message(w, "recv", &message);
    check_received(n, &message);
    trm_status status = trm_raft_receive(n->raft, &message, node_clock(w, n), &err);
    if (status != TRM_OK)
        world_fail(w, "n%" PRIu64 " refuses a message: %s: %s", n->id, trm_status_name(status), err.text);
    node_settle(w, n);
}

/* ---- What the core wants done. ---- */

static void persist(world *w, node *n, const trm_raft_update *update)
{
    disk_op *op = disk_add(n, DISK_BATCH);
    op->sequence = update->persist_sequence;
    if (update->hard_changed) {
        trm_wal_batch_hard_state(&op->batch, &update->hard);
        op->has_hard = true;
        op->hard = update->hard;
    }
    if (update->entries_len == 0)
        return;
    check_append(w, n, update->entries, update->entries_len);
    op->first_index = update->entries[0].index;
    op->entries_len = update->entries_len;
    op->entries = calloc(op->entries_len, sizeof *op->entries);
    if (!op->entries)
        abort();
    for (size_t i = 0; i < op->entries_len; i++) {
        uint64_t index = op->first_index + i;
        trm_wal_batch_entry(&op->batch, &update->entries[i]);
        op->entries[i].hash = n->log.hash[index];
        op->entries[i].term = n->log.term[index];
        op->entries[i].config = n->log.config[index];
    }
}

static void apply(world *w, node *n, const trm_raft_update *update)
{
    for (size_t i = 0; i < update->apply_len; i++) {
        const trm_raft_entry *entry = &update->apply[i];
        check_apply(w, n, entry);
        clients_applied(w, n, entry);
    }
}

static void answer_reads(world *w, node *n, const trm_raft_update *update)
{
    for (size_t i = 0; i < update->reads_len; i++) {
        const trm_raft_read_done *done = &update->reads[i];
        uint32_t at = 0;
        while (at < n->reads_len && n->reads[at].id != done->id)
            at++;
        if (at == n->reads_len)
            world_fail(w, "n%" PRIu64 " answers a read that nobody waits for", n->id);
        if (done->status == TRM_OK && n->machine.index < n->reads[at].needs)
            world_fail(w,
                       "n%" PRIu64 " answers a read at entry %" PRIu64 "; %" PRIu64
                       " was committed when it was asked for",
                       n->id, n->machine.index, n->reads[at].needs);
        n->reads[at] = n->reads[--n->reads_len];
        clients_read_done(w, n, done->id, done->status);
    }
}

static void copy_meta(disk_op *op, const trm_wal_snapshot *meta)
{
    op->meta = *meta;
    memcpy(op->config, meta->config, meta->config_len);
}

static void snapshot_work(world *w, node *n, const trm_raft_update *update)
{
    const trm_raft_snapshot_work *work = &update->snapshot;
    if (work->op == TRM_RAFT_SNAPSHOT_NOTHING)
        return;
    if (work->op == TRM_RAFT_SNAPSHOT_ABORT) {
        disk_add(n, DISK_ABORT);
        n->receiving = false;
        return;
    }
    if (work->op == TRM_RAFT_SNAPSHOT_BEGIN) {
        copy_meta(disk_add(n, DISK_BEGIN), &work->meta);
        n->receiving = true;
        n->receiving_index = work->meta.index;
        world_trace(w, "n%" PRIu64 " begins to receive a snapshot of entry %" PRIu64, n->id,
                    work->meta.index);
    } else if (!n->receiving) {
        world_fail(w, "n%" PRIu64 ": a chunk of a snapshot that was not begun", n->id);
    }
    trm_put_bytes(&disk_add(n, DISK_WRITE)->bytes, work->data, work->data_len);
    if (work->install)
        disk_add(n, DISK_INSTALL);
}

/* Saves a snapshot of its own when enough was applied since the last. */
static void save(world *w, node *n)
{
    trm_raft_state state;
    trm_raft_state_get(n->raft, &state);
    bool large = state.log_bytes > w->mood.options.log_bytes_max / 2;
    uint64_t every = state.sending_snapshot ? 4 * w->mood.snapshot_every : w->mood.snapshot_every;
    bool due = n->machine.index >= n->saved_index + every || (large && n->machine.index > n->saved_index);
    if (!due || n->saving || n->receiving || state.installing || n->disk_full)
        return;
    trm_wal_snapshot meta;
    trm_raft_snapshot_describe(n->raft, &meta);
    if (meta.index != n->machine.index || meta.term != n->log.term[meta.index])
        world_fail(w, "n%" PRIu64 " describes a snapshot of entry %" PRIu64 " and has applied %" PRIu64,
                   n->id, meta.index, n->machine.index);
    disk_op *op = disk_add(n, DISK_SAVE);
    copy_meta(op, &meta);
    machine_encode(&n->machine, below(w, 4) ? below(w, 300) : below(w, 6000), &op->bytes);
    n->saving = true;
}

static void set_tick(world *w, node *n)
{
    uint64_t at = sim_time(n, trm_raft_wake_ns(n->raft));
    if (at <= now_ns(w))
        at = now_ns(w) + 1000;
    if (at >= n->tick_at_ns)
        return; /* an earlier one will set it */
    n->tick_at_ns = at;
    world_add(w, EVENT_TICK, at - now_ns(w), n->slot, at, NULL);
}

void node_tick(world *w, node *n)
{
    trm_err err;
    n->tick_at_ns = UINT64_MAX;
    if (!n->raft)
        return;
    if (trm_raft_tick(n->raft, node_clock(w, n), &err) != TRM_OK)
        world_fail(w, "n%" PRIu64 ": tick: %s", n->id, err.text);
    node_settle(w, n);
    if (n->raft)
        check_reads(w, n);
}

void node_settle(world *w, node *n)
{
    if (!n->raft)
        return;
    trm_raft_update update;
    unsigned turns = 0;
    do {
        if (!trm_raft_take(n->raft, &update))
            break;
        if (update.persist_sequence > 0)
            persist(w, n, &update);
        send_messages(w, n, &update);
        apply(w, n, &update);
        answer_reads(w, n, &update);
        snapshot_work(w, n, &update);
        if (update.transfer != TRM_AGAIN)
            world_trace(w, "n%" PRIu64 ": its transfer has ended: %s", n->id,
                        trm_status_name(update.transfer));
        if (++turns > 1000)
            world_fail(w, "n%" PRIu64 " has always more to do", n->id);
    } while (update.more);
    check_node(w, n);
    save(w, n);
    disk_begin(w, n);
    if (n->wants_down) {
        node_stop(w, n, true, 10 * MS + below(w, 200 * MS));
        return;
    }
    set_tick(w, n);
}
