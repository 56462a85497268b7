/* See scenario.h: nodes, their disks, the network, what must always hold. */
#include "tests/simulation/scenario.h"

#include "runtime/crc32c.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void *scenario_must(void *memory)
{
    if (!memory) {
        fprintf(stderr, "scenario: no memory\n");
        abort();
    }
    return memory;
}

void scenario_fail(scenario_world *world, const char *format, ...)
{
    if (world->failed)
        return;
    world->failed = true;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(world->why, sizeof world->why, format, arguments);
    va_end(arguments);
}

void scenario_trace(scenario_world *world, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(world->trace[world->traced++ % SCENARIO_TRACE_LINES], SCENARIO_TRACE_BYTES, format, arguments);
    va_end(arguments);
}

scenario_node *scenario_node_find(scenario_world *world, uint64_t id)
{
    for (uint32_t i = 0; i < world->nodes_len; i++)
        if (world->nodes[i].id == id)
            return &world->nodes[i];
    return NULL;
}

uint64_t scenario_node_now(const scenario_world *world, const scenario_node *node)
{
    return world->now_ns + node->skew_ns;
}

scenario_node *scenario_leader(scenario_world *world)
{
    scenario_node *best = NULL;
    uint64_t best_term = 0;
    for (uint32_t i = 0; i < world->nodes_len; i++) {
        trm_raft_state state;
        if (!world->nodes[i].raft)
            continue;
        trm_raft_state_get(world->nodes[i].raft, &state);
        if (state.role == TRM_RAFT_LEADER && state.term > best_term) {
            best = &world->nodes[i];
            best_term = state.term;
        }
    }
    return best;
}

/* ---- Disks. ---- */

static trm_raft_entry copy_entry(const trm_raft_entry *entry)
{
    trm_raft_entry copy = *entry;
    uint8_t *payload = scenario_must(malloc(entry->len + 1));
    if (entry->len > 0)
        memcpy(payload, entry->payload, entry->len);
    copy.payload = payload;
    return copy;
}

static void free_entry(trm_raft_entry *entry)
{
    free((void *)(uintptr_t)entry->payload);
}

static void truncate_to(scenario_disk *disk, size_t len)
{
    while (disk->len > len)
        free_entry(&disk->entries[--disk->len]);
}

void scenario_disk_put(scenario_disk *disk, const trm_raft_entry *entry)
{
    truncate_to(disk, (size_t)(entry->index - disk->snapshot.index - 1));
    if (disk->len == disk->capacity) {
        disk->capacity = disk->capacity ? 2 * disk->capacity : 16;
        disk->entries = scenario_must(realloc(disk->entries, disk->capacity * sizeof *disk->entries));
    }
    disk->entries[disk->len++] = copy_entry(entry);
}

/* As wal.h: what a snapshot covers is void, and everything when the log does not hold the
 * last entry that it covers. */
static void disk_save(scenario_disk *disk, const trm_wal_snapshot *meta, const char *image, size_t len)
{
    size_t covered = (size_t)(meta->index - disk->snapshot.index);
    if (covered > disk->len || disk->entries[covered - 1].term != meta->term) {
        truncate_to(disk, 0);
    } else {
        for (size_t i = 0; i < covered; i++)
            free_entry(&disk->entries[i]);
        disk->len -= covered;
        memmove(disk->entries, disk->entries + covered, disk->len * sizeof *disk->entries);
    }
    disk->snapshot = *meta;
    memcpy(disk->config, meta->config, meta->config_len);
    disk->snapshot.config = disk->config;
    disk->snapshot.data_bytes = len;
    free(disk->image);
    disk->image = scenario_must(malloc(len + 1));
    memcpy(disk->image, image, len);
    disk->image_len = len;
}

static void free_write(scenario_write *write)
{
    for (size_t i = 0; i < write->len; i++)
        free_entry(&write->entries[i]);
    free(write->entries);
    free(write);
}

static void write_down(scenario_node *node, const trm_raft_update *update)
{
    scenario_write *write = scenario_must(calloc(1, sizeof *write));
    write->sequence = update->persist_sequence;
    write->has_hard = update->hard_changed;
    write->hard = update->hard;
    write->len = update->entries_len;
    write->entries = scenario_must(calloc(write->len + 1, sizeof *write->entries));
    for (size_t i = 0; i < write->len; i++)
        write->entries[i] = copy_entry(&update->entries[i]);
    scenario_write **last = &node->writes;
    while (*last)
        last = &(*last)->next;
    *last = write;
}

void scenario_persist(scenario_world *world, scenario_node *node, uint64_t count)
{
    for (; count > 0 && node->writes; count--) {
        scenario_write *write = node->writes;
        node->writes = write->next;
        if (write->has_hard && write->hard.term < node->disk.hard.term)
            scenario_fail(world, "the durable term of node %" PRIu64 " goes back", node->id);
        if (write->has_hard)
            node->disk.hard = write->hard;
        for (size_t i = 0; i < write->len; i++)
            scenario_disk_put(&node->disk, &write->entries[i]);
        scenario_trace(world, "  %" PRIu64 ": write %" PRIu64 " is durable", node->id, write->sequence);
        trm_raft_persisted(node->raft, write->sequence);
        free_write(write);
    }
}

/* ---- Nodes. ---- */

static void set_state(scenario_node *node, const char *image, size_t len)
{
    free(node->state);
    node->state = scenario_must(malloc(len + 1));
    if (len > 0)
        memcpy(node->state, image, len);
    node->state[len] = '\0';
    node->state_len = len;
}

static void first_members(const scenario_world *world, const scenario_node *node, trm_raft_members *out)
{
    *out = (trm_raft_members){0};
    if (!node->first_voter && !node->first_learner)
        return;
    for (uint32_t i = 0; i < world->nodes_len; i++)
        if (world->nodes[i].first_voter || world->nodes[i].first_learner)
            trm_raft_members_set(out, world->nodes[i].id, world->nodes[i].first_voter);
}

void scenario_node_start(scenario_world *world, scenario_node *node)
{
    trm_raft_options options = world->options;
    options.node = node->id;
    options.seed = world->seed * 1000 + node->id * 100 + node->lives++;
    trm_raft_members members;
    first_members(world, node, &members);
    trm_raft_boot boot = {
        .hard = node->disk.hard,
        .snapshot = node->disk.snapshot,
        .first_members = &members,
        .entries = node->disk.entries,
        .entries_len = node->disk.len,
    };
    trm_err err;
    set_state(node, node->disk.image, node->disk.image_len);
    if (trm_raft_create(&node->raft, &options, &boot, scenario_node_now(world, node), &err) != TRM_OK)
        scenario_fail(world, "node %" PRIu64 " does not start: %s", node->id, err.text);
    node->term_seen = node->commit_seen = 0;
    node->transferred = TRM_AGAIN;
}

void scenario_node_stop(scenario_world *world, scenario_node *node)
{
    trm_raft_destroy(node->raft);
    node->raft = NULL;
    node->paused = node->install_due = false;
    while (node->writes) {
        scenario_write *next = node->writes->next;
        free_write(node->writes);
        node->writes = next;
    }
    free(node->incoming);
    node->incoming = NULL;
    free(node->reads);
    node->reads = NULL;
    node->reads_len = 0;
    for (uint32_t i = world->letters_len; i-- > 0;)
        if (world->letters[i].to == node->id)
            scenario_letter_drop(world, i);
}

void scenario_node_wipe(scenario_world *world, scenario_node *node)
{
    truncate_to(&node->disk, 0);
    free(node->disk.entries);
    free(node->disk.image);
    node->disk = (scenario_disk){.hard.vote = TRM_RAFT_NONE};
    (void)world;
}

void scenario_world_close(scenario_world *world)
{
    for (uint32_t i = 0; i < world->nodes_len; i++) {
        scenario_node_stop(world, &world->nodes[i]);
        scenario_node_wipe(world, &world->nodes[i]);
        free(world->nodes[i].state);
    }
    while (world->letters_len > 0)
        scenario_letter_drop(world, world->letters_len - 1);
    trm_writer_close(&world->bytes);
    scenario_log_close(world);
}

/* ---- The network. ---- */

static uint32_t place_of(const scenario_world *world, const scenario_node *node)
{
    return (uint32_t)(node - world->nodes);
}

void scenario_letter_drop(scenario_world *world, uint32_t at)
{
    free(world->letters[at].bytes);
    world->letters_len--;
    memmove(world->letters + at, world->letters + at + 1, (world->letters_len - at) * sizeof *world->letters);
}

void scenario_post(scenario_world *world, const trm_raft_message *message)
{
    scenario_node *from = scenario_node_find(world, message->from);
    scenario_node *to = scenario_node_find(world, message->to);
    bool is_cut = from && to && (world->cut[place_of(world, from)] >> place_of(world, to) & 1);
    scenario_trace(world,
                   "  %" PRIu64 "->%" PRIu64 " %s%s term %" PRIu64 " index %" PRIu64 "/%" PRIu64
                   " commit %" PRIu64 " context %" PRIu64 " hint %" PRIu64 "/%" PRIu64 " entries %u%s",
                   message->from, message->to, trm_raft_message_name(message->type),
                   message->reject ? " reject" : "", message->term, message->index, message->log_term,
                   message->commit, message->context, message->hint_index, message->hint_term,
                   message->entries_len, is_cut ? " (cut)" : "");
    if (!to || is_cut)
        return;
    if (world->letters_len == SCENARIO_MESSAGES_MAX) {
        scenario_fail(world, "more than %u messages are on their way", SCENARIO_MESSAGES_MAX);
        return;
    }
    trm_writer_reset(&world->bytes);
    trm_raft_message_encode(message, &world->bytes);
    if (!trm_writer_ok(&world->bytes) || world->bytes.len > TRM_RAFT_MESSAGE_BYTES_MAX) {
        scenario_fail(world, "a message of %zu bytes cannot be encoded", world->bytes.len);
        return;
    }
    scenario_letter *letter = &world->letters[world->letters_len++];
    *letter = (scenario_letter){message->type, message->from, message->to,
                                scenario_must(malloc(world->bytes.len)), world->bytes.len};
    memcpy(letter->bytes, world->bytes.data, world->bytes.len);
}

static void take_all(scenario_world *world, scenario_node *node);

void scenario_deliver(scenario_world *world, uint32_t at)
{
    scenario_letter letter = world->letters[at];
    world->letters[at].bytes = NULL;
    scenario_letter_drop(world, at);
    scenario_node *to = scenario_node_find(world, letter.to);
    trm_raft_message message;
    trm_err err;
    if (to->raft) {
        trm_status status = trm_raft_message_decode(&message, world->room, letter.bytes, letter.len, &err);
        if (status != TRM_OK)
            scenario_fail(world, "a message cannot be decoded: %s", err.text);
        else
            world->last = trm_raft_receive(to->raft, &message, scenario_node_now(world, to), &err);
        if (world->last != TRM_OK)
            scenario_trace(world, "  %" PRIu64 ": %s", to->id, err.text);
        if (letter.type == TRM_RAFT_SNAPSHOT)
            take_all(world, to);
    }
    free(letter.bytes);
}

/* ---- Snapshots. ---- */

void scenario_snapshot(scenario_world *world, scenario_node *node)
{
    trm_wal_snapshot meta;
    trm_raft_snapshot_describe(node->raft, &meta);
    if (meta.index <= node->disk.snapshot.index)
        return;
    meta.data_bytes = node->state_len;
    disk_save(&node->disk, &meta, node->state, node->state_len);
    trm_raft_snapshot_saved(node->raft, &meta);
    scenario_trace(world, "  %" PRIu64 ": snapshot of %" PRIu64, node->id, meta.index);
}

static void take_chunk(scenario_world *world, scenario_node *node, const trm_raft_snapshot_work *work)
{
    if (work->op == TRM_RAFT_SNAPSHOT_NOTHING)
        return;
    if (work->op != TRM_RAFT_SNAPSHOT_WRITE) {
        free(node->incoming);
        node->incoming = NULL;
        node->incoming_len = 0;
    }
    if (work->op == TRM_RAFT_SNAPSHOT_ABORT)
        return;
    if (work->offset != node->incoming_len)
        scenario_fail(world, "node %" PRIu64 " writes a snapshot at %" PRIu64 " instead of %zu", node->id,
                      work->offset, node->incoming_len);
    node->incoming = scenario_must(realloc(node->incoming, node->incoming_len + work->data_len + 1));
    if (work->data_len > 0)
        memcpy(node->incoming + node->incoming_len, work->data, work->data_len);
    node->incoming_len += work->data_len;
    node->incoming_meta = work->meta;
    memcpy(node->incoming_config, work->meta.config, work->meta.config_len);
    node->incoming_meta.config = node->incoming_config;
    node->install_due = work->install;
}

void scenario_install(scenario_world *world, scenario_node *node, trm_status status)
{
    if (!node->install_due) {
        scenario_fail(world, "node %" PRIu64 " has no snapshot to install", node->id);
        return;
    }
    node->install_due = false;
    if (status == TRM_OK) {
        scenario_persist(world, node, UINT64_MAX);
        disk_save(&node->disk, &node->incoming_meta, node->incoming, node->incoming_len);
        set_state(node, node->incoming, node->incoming_len);
    }
    free(node->incoming);
    node->incoming = NULL;
    node->incoming_len = 0;
    scenario_trace(world, "  %" PRIu64 ": snapshot of %" PRIu64 " %s", node->id, node->incoming_meta.index,
                   status == TRM_OK ? "installed" : "not installed");
    trm_raft_snapshot_installed(node->raft, status);
}

/* ---- What must always hold (Raft paper, figure 3). ---- */

static void apply(scenario_world *world, scenario_node *node, const trm_raft_entry *entry)
{
    if (entry->index >= SCENARIO_INDEX_MAX) {
        scenario_fail(world, "the log grows over %u entries", SCENARIO_INDEX_MAX);
        return;
    }
    uint64_t digest = (uint64_t)entry->type << 32 | trm_crc32c(0, entry->payload, entry->len);
    scenario_committed *slot = &world->committed[entry->index];
    if (slot->term == 0)
        *slot = (scenario_committed){entry->term, digest};
    else if (slot->term != entry->term || slot->digest != digest)
        scenario_fail(world, "state machine safety: node %" PRIu64 " applies another entry %" PRIu64,
                      node->id, entry->index);
    scenario_trace(world, "  %" PRIu64 ": applies %" PRIu64 " of term %" PRIu64 ", type %u: %.*s", node->id,
                   entry->index, entry->term, entry->type,
                   entry->type == TRM_RAFT_COMMAND ? (int)entry->len : 0, (const char *)entry->payload);
    if (entry->type != TRM_RAFT_COMMAND)
        return;
    node->state = scenario_must(realloc(node->state, node->state_len + entry->len + 2));
    if (entry->len > 0)
        memcpy(node->state + node->state_len, entry->payload, entry->len);
    node->state_len += entry->len;
    node->state[node->state_len++] = ' ';
    node->state[node->state_len] = '\0';
}

static void check(scenario_world *world, scenario_node *node)
{
    trm_raft_state state;
    trm_raft_state_get(node->raft, &state);
    if (state.term < node->term_seen || state.commit < node->commit_seen)
        scenario_fail(world, "term or commit index of node %" PRIu64 " goes back", node->id);
    node->term_seen = state.term;
    node->commit_seen = state.commit;
    if (state.applied > state.commit || state.durable > state.last)
        scenario_fail(world, "node %" PRIu64 " is in disorder", node->id);
    if (state.role != TRM_RAFT_LEADER || state.term >= SCENARIO_INDEX_MAX)
        return;
    uint64_t *leader = &world->leaders[state.term];
    if (*leader == 0)
        *leader = place_of(world, node) + 1;
    else if (*leader != place_of(world, node) + 1)
        scenario_fail(world, "election safety: two leaders in term %" PRIu64, state.term);
    if (node->disk.hard.term != state.term || node->disk.hard.vote != node->id)
        scenario_fail(world, "node %" PRIu64 " leads and its vote is not durable", node->id);
}

/* ---- The loop. ---- */

static void answer_read(scenario_node *node, const trm_raft_read_done *done)
{
    for (size_t i = 0; i < node->reads_len; i++) {
        if (node->reads[i].id != done->id || node->reads[i].status != TRM_AGAIN)
            continue;
        node->reads[i].status = done->status;
        return;
    }
}

static void send(scenario_world *world, scenario_node *node, const trm_raft_message *message)
{
    trm_raft_message copy = *message;
    if (copy.type == TRM_RAFT_SNAPSHOT)
        copy.data = (const uint8_t *)node->disk.image + copy.offset;
    scenario_post(world, &copy);
}

static bool take(scenario_world *world, scenario_node *node)
{
    trm_raft_update update;
    if (!trm_raft_take(node->raft, &update))
        return false;
    if (update.persist_sequence != 0)
        write_down(node, &update);
    for (size_t i = 0; i < update.messages_len; i++)
        send(world, node, &update.messages[i]);
    for (size_t i = 0; i < update.apply_len; i++)
        apply(world, node, &update.apply[i]);
    for (size_t i = 0; i < update.reads_len; i++)
        answer_read(node, &update.reads[i]);
    take_chunk(world, node, &update.snapshot);
    if (update.transfer != TRM_AGAIN)
        node->transferred = update.transfer;
    if (update.role_changed) {
        trm_raft_state state;
        trm_raft_state_get(node->raft, &state);
        scenario_trace(world, "  %" PRIu64 ": %s in term %" PRIu64 ", leader %" PRId64, node->id,
                       trm_raft_role_name(state.role), state.term, (int64_t)state.leader);
    }
    return true;
}

static void take_all(scenario_world *world, scenario_node *node)
{
    while (!world->failed && node->raft && take(world, node)) {
        if (++world->steps > SCENARIO_STEPS_MAX)
            scenario_fail(world, "more than %u steps: it does not come to rest", SCENARIO_STEPS_MAX);
        check(world, node);
    }
}

static bool work_of(scenario_world *world, scenario_node *node)
{
    take_all(world, node);
    if (node->install_due && !node->installs_held) {
        scenario_install(world, node, node->install_fails ? TRM_EIO : TRM_OK);
        return true;
    }
    if (!node->writes || node->disk_held)
        return false;
    scenario_persist(world, node, UINT64_MAX);
    return true;
}

static bool deliver_next(scenario_world *world)
{
    for (uint32_t i = 0; !world->network_held && i < world->letters_len; i++) {
        if (scenario_node_find(world, world->letters[i].to)->paused)
            continue;
        scenario_deliver(world, i);
        return true;
    }
    return false;
}

void scenario_pump(scenario_world *world)
{
    bool any = true;
    while (any && !world->failed) {
        any = false;
        for (uint32_t i = 0; i < world->nodes_len; i++)
            if (world->nodes[i].raft && !world->nodes[i].paused)
                any |= work_of(world, &world->nodes[i]);
        any |= deliver_next(world);
        if (++world->steps > SCENARIO_STEPS_MAX)
            scenario_fail(world, "more than %u steps: it does not come to rest", SCENARIO_STEPS_MAX);
    }
}

/* When the next clock rings, in the world's time. */
static uint64_t next_wake(const scenario_world *world)
{
    uint64_t next = UINT64_MAX;
    for (uint32_t i = 0; i < world->nodes_len; i++) {
        const scenario_node *node = &world->nodes[i];
        if (!node->raft || node->paused)
            continue;
        uint64_t wake = trm_raft_wake_ns(node->raft);
        wake = wake > node->skew_ns ? wake - node->skew_ns : 0;
        if (wake < next)
            next = wake;
    }
    return next;
}

void scenario_run_until(scenario_world *world, uint64_t until_ns)
{
    scenario_pump(world);
    while (!world->failed && next_wake(world) <= until_ns) {
        uint64_t next = next_wake(world);
        if (next > world->now_ns)
            world->now_ns = next;
        for (uint32_t i = 0; i < world->nodes_len; i++) {
            scenario_node *node = &world->nodes[i];
            uint64_t now_ns = scenario_node_now(world, node);
            trm_err err;
            if (node->raft && !node->paused && trm_raft_wake_ns(node->raft) <= now_ns &&
                trm_raft_tick(node->raft, now_ns, &err) != TRM_OK)
                scenario_fail(world, "tick: %s", err.text);
        }
        scenario_pump(world);
    }
    if (until_ns > world->now_ns)
        world->now_ns = until_ns;
}
