/* The write-ahead log against a model, through crashes, full disks and failing ones.
 *
 * A history writes random batches, syncs, snapshots and compacts, and is cut at random
 * places by a loss of power. After every open the log must be in a state that it may be
 * in: the state after the last sync, or after any record that was written since.
 *
 *   wal_crash [SEED [HISTORIES]]     runs HISTORIES from SEED on; a failing one prints
 *                                    the command that replays it
 */
#include "runtime/diag.h"
#include "runtime/wal.h"
#include "tests/support/fs_mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HISTORIES 4000u
#define STEPS_MAX 80u
#define ENTRIES_MAX 1024u
#define CANDIDATES_MAX 1024u
#define DIR "host/log"

typedef struct model_entry {
    uint64_t term;
    uint64_t salt; /* the payload is drawn from it */
} model_entry;

/* A state that the log may be in. */
typedef struct model {
    trm_wal_hard_state hard;
    uint64_t snapshot_index;
    uint64_t snapshot_term;
    uint64_t snapshot_salt;
    uint64_t last;
    model_entry entries[ENTRIES_MAX]; /* [index % ENTRIES_MAX] */
} model;

typedef struct history {
    uint64_t seed;
    uint64_t random;
    uint64_t salt;
    trm_fs *fs;
    trm_wal *wal;
    model now;     /* as this process believes */
    model *may_be; /* what the disk may hold */
    size_t may_be_len;
    bool sync_fault; /* the system may believe of something that it is on the disk, and it is not */
    uint64_t crashes, kills, opens, repairs, refused, batches, snapshots;
} history;

static void fail(history *self, const char *what, const char *detail)
{
    fprintf(stderr, "wal_crash: %s: %s\nreplay with: tests/simulation/wal_crash %" PRIu64 " 1\n", what,
            detail, self->seed);
    exit(1);
}

static uint64_t draw(history *self)
{
    uint64_t z = self->random += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}
static uint64_t below(history *self, uint64_t bound)
{
    return draw(self) % bound;
}

static size_t payload_of(uint64_t salt, uint8_t out[3000])
{
    size_t len = salt % 7 == 0 ? salt % 3000 : salt % 40;
    for (size_t i = 0; i < len; i++)
        out[i] = (uint8_t)(salt >> (8 * (i % 8))) ^ (uint8_t)i;
    return len;
}

static uint64_t next_salt(history *self)
{
    return (++self->salt << 20) | below(self, 1 << 20);
}

static void may_be(history *self, const model *state)
{
    if (self->may_be_len == CANDIDATES_MAX)
        fail(self, "test", "too many candidates");
    self->may_be[self->may_be_len++] = *state;
}

static void surely_is(history *self)
{
    self->may_be_len = 0;
    may_be(self, &self->now);
}

static uint64_t term_at(const model *state, uint64_t index)
{
    if (index == state->snapshot_index)
        return state->snapshot_term;
    return state->entries[index % ENTRIES_MAX].term;
}

/* What a snapshot makes of a state: see trm_wal_snapshot_commit. */
static void cover(model *state, uint64_t index, uint64_t term, uint64_t salt)
{
    if (index <= state->snapshot_index)
        return;
    if (index > state->last || term_at(state, index) != term)
        state->last = index;
    state->snapshot_index = index;
    state->snapshot_term = term;
    state->snapshot_salt = salt;
}

/* ---- Opening, and comparing with the model. ---- */

static bool same_entries(history *self, const model *state)
{
    uint8_t wanted[3000];
    for (uint64_t index = state->snapshot_index + 1; index <= state->last; index++) {
        const model_entry *entry = &state->entries[index % ENTRIES_MAX];
        trm_wal_entry got;
        trm_wal_entry_at(self->wal, index, &got);
        size_t len = payload_of(entry->salt, wanted);
        if (got.index != index || got.term != entry->term || got.type != (uint8_t)entry->salt ||
            got.len != len || memcmp(got.payload, wanted, len) != 0)
            return false;
    }
    return true;
}

static bool same_snapshot(history *self, const model *state)
{
    trm_wal_snapshot got;
    trm_wal_snapshot_get(self->wal, &got);
    if (got.index != state->snapshot_index || got.term != state->snapshot_term)
        return false;
    if (got.index == 0)
        return true;
    uint8_t wanted[3000], bytes[3000];
    size_t len = payload_of(state->snapshot_salt, wanted), had;
    trm_err err;
    if (trm_wal_snapshot_read(self->wal, 0, bytes, sizeof bytes, &had, &err) != TRM_OK)
        fail(self, "snapshot", err.text);
    return got.config_len == 8 && memcmp(got.config, &state->snapshot_salt, 8) == 0 &&
           got.data_bytes == len && had == len && memcmp(bytes, wanted, len) == 0;
}

static bool is_in(history *self, const model *state)
{
    trm_wal_hard_state hard;
    trm_wal_hard_state_get(self->wal, &hard);
    return hard.term == state->hard.term && hard.vote == state->hard.vote &&
           hard.commit == state->hard.commit && trm_wal_first_index(self->wal) == state->snapshot_index + 1 &&
           trm_wal_last_index(self->wal) == state->last && same_snapshot(self, state) &&
           same_entries(self, state);
}

static void compare(history *self)
{
    for (size_t i = self->may_be_len; i-- > 0;)
        if (is_in(self, &self->may_be[i])) {
            self->now = self->may_be[i];
            surely_is(self);
            return;
        }
    char text[200];
    const model *first = &self->may_be[0], *last = &self->may_be[self->may_be_len - 1];
    snprintf(text, sizeof text,
             "entries %" PRIu64 " to %" PRIu64 "; expected a last one of %" PRIu64 " to %" PRIu64,
             trm_wal_first_index(self->wal), trm_wal_last_index(self->wal), first->last, last->last);
    fail(self, "the log is in a state that it cannot be in", text);
}

static void open_log(history *self)
{
    static const uint32_t first_sizes[] = {8192, 16384, 65536};
    trm_wal_config config = {.create = true,
                             .log_id = self->seed,
                             .segment_bytes_first = first_sizes[self->seed % 3],
                             .segment_bytes_max = 4 * first_sizes[self->seed / 3 % 3]};
    trm_err err;
    for (;;) {
        if (below(self, 4) == 0) /* a crash in the middle of the repair */
            trm_fs_mem_stop_after(self->fs, below(self, 20));
        trm_status status = trm_wal_open(&self->wal, self->fs, DIR, &config, &err);
        if (status == TRM_OK)
            break;
        if (status != TRM_EIO)
            fail(self, trm_status_name(status), err.text);
        trm_fs_mem_crash(self->fs);
        self->crashes++;
    }
    trm_fs_mem_stop_after(self->fs, UINT64_MAX);
    self->opens++;
    self->repairs += trm_wal_repairs(self->wal);
    compare(self);
    trm_wal_forget(self->wal);
}

static void crash(history *self)
{
    /* The machine, or only the process: then what it wrote is there, durable or not. */
    bool machine = self->sync_fault || below(self, 3);
    if (machine)
        trm_fs_mem_crash(self->fs);
    else
        trm_fs_mem_kill(self->fs);
    self->crashes += machine;
    self->kills += !machine;
    self->sync_fault = false;
    trm_wal_close(self->wal);
    trm_fs_mem_set_capacity(self->fs, UINT64_MAX);
    open_log(self);
}

/* ---- What a node does. ---- */

static void add_entries(history *self, model *state, trm_wal_batch *batch)
{
    uint64_t from = state->last + 1;
    if (below(self, 6) == 0 && state->last > state->snapshot_index)
        from -= below(self, state->last - state->snapshot_index);
    uint64_t count = 1 + below(self, 12);
    for (uint64_t index = from; index < from + count; index++) {
        uint64_t least = index > 1 ? term_at(state, index - 1) : 1;
        uint64_t salt = next_salt(self);
        uint8_t payload[3000];
        model_entry entry = {least + (below(self, 20) == 0), salt};
        trm_wal_entry out = {index, entry.term, (uint8_t)salt, payload, payload_of(salt, payload)};
        trm_wal_batch_entry(batch, &out);
        state->entries[index % ENTRIES_MAX] = entry;
        state->last = index;
    }
}

static void add_record(history *self, model *state, trm_wal_batch *batch)
{
    uint64_t what = below(self, 10);
    if (what < 7) {
        add_entries(self, state, batch);
    } else if (what < 9) {
        state->hard.term += below(self, 3);
        state->hard.vote = below(self, 2) ? below(self, 5) : TRM_WAL_VOTE_NONE;
        state->hard.commit = state->last;
        trm_wal_batch_hard_state(batch, &state->hard);
    } else {
        uint64_t from = state->snapshot_index + 1 + below(self, state->last - state->snapshot_index + 2);
        trm_wal_batch_truncate(batch, from);
        if (from <= state->last)
            state->last = from - 1;
    }
}

static bool write_something(history *self)
{
    static model after[8];
    trm_wal_batch batch;
    trm_wal_batch_init(&batch);
    size_t records = 1 + below(self, 6);
    model *state = &self->now;
    for (size_t i = 0; i < records; i++) {
        after[i] = *state;
        add_record(self, &after[i], &batch);
        state = &after[i];
    }
    trm_err err;
    trm_status status = trm_wal_write(self->wal, &batch, &err);
    self->batches++;
    for (size_t i = 0; i < records; i++)
        may_be(self, &after[i]);
    if (status == TRM_OK)
        self->now = after[records - 1];
    else
        self->refused += status == TRM_ENOSPACE;
    /* What was refused for room is usually written once there is some. */
    if (status == TRM_ENOSPACE && below(self, 4)) {
        trm_fs_mem_set_capacity(self->fs, UINT64_MAX);
        status = trm_wal_write(self->wal, &batch, &err);
        if (status == TRM_OK)
            self->now = after[records - 1];
    }
    trm_wal_batch_close(&batch);
    if (status == TRM_OK && below(self, 4)) {
        status = trm_wal_sync(self->wal, &err);
        if (status == TRM_OK)
            surely_is(self);
    }
    /* Some go on after a failed write, with something else. */
    return status == TRM_OK || status == TRM_ENOSPACE || below(self, 2);
}

static bool save_snapshot(history *self)
{
    uint64_t index =
        self->now.snapshot_index + 1 + below(self, self->now.last - self->now.snapshot_index + 3);
    bool known = index <= self->now.last && below(self, 4);
    uint64_t term =
        known ? term_at(&self->now, index) : self->now.hard.term + term_at(&self->now, self->now.last) + 1;
    uint64_t salt = next_salt(self);
    uint8_t data[3000];
    size_t len = payload_of(salt, data);
    trm_wal_snapshot meta = {.index = index, .term = term, .config = (const uint8_t *)&salt, .config_len = 8};
    trm_err err;
    trm_status status = trm_wal_snapshot_begin(self->wal, &meta, &err);
    size_t half = len / 2;
    if (status == TRM_OK)
        status = trm_wal_snapshot_write(self->wal, data, half, &err);
    if (status == TRM_OK && below(self, 3) == 0 && !write_something(self))
        return false;
    if (status == TRM_OK && index > self->now.snapshot_index)
        status = trm_wal_snapshot_write(self->wal, data + half, len - half, &err);
    if (status == TRM_OK && below(self, 10) == 0) {
        trm_wal_snapshot_abort(self->wal);
        return true;
    }
    self->snapshots++;
    size_t before = self->may_be_len;
    for (size_t i = 0; i < before; i++) {
        model covered = self->may_be[i];
        cover(&covered, index, term, salt);
        may_be(self, &covered);
    }
    if (status == TRM_OK)
        status = trm_wal_snapshot_commit(self->wal, &err);
    if (status != TRM_OK)
        return status == TRM_ENOSPACE;
    cover(&self->now, index, term, salt);
    memmove(self->may_be, self->may_be + before, before * sizeof *self->may_be);
    self->may_be_len = before;
    return !below(self, 2) || trm_wal_compact(self->wal, &err) == TRM_OK;
}

static void inject(history *self)
{
    unsigned op = below(self, 2) ? TRM_FS_MEM_WRITE : 1u << below(self, 9);
    self->sync_fault |= op == TRM_FS_MEM_SYNC;
    trm_fs_mem_fail(self->fs, op, below(self, 6), 1, TRM_EIO);
}

/* One step; false: the log has failed, as it may after an injected error. */
static bool step(history *self)
{
    uint64_t what = below(self, 20);
    if (self->now.last - self->now.snapshot_index > ENTRIES_MAX / 2)
        return save_snapshot(self);
    if (what < 13)
        return write_something(self);
    if (what < 16)
        return save_snapshot(self);
    if (what == 16)
        trm_wal_prepare(self->wal);
    else if (what == 17)
        trm_fs_mem_set_capacity(self->fs, trm_fs_mem_used(self->fs) + below(self, 20000));
    else if (what == 18)
        trm_fs_mem_stop_after(self->fs, below(self, 12));
    else
        inject(self);
    return true;
}

static void run(history *self)
{
    self->random = self->seed * 0x2545f4914f6cdd1dull + 1;
    self->fs = trm_fs_mem_create(draw(self));
    self->now = (model){.hard.vote = TRM_WAL_VOTE_NONE};
    surely_is(self);
    open_log(self);
    uint64_t steps = 1 + below(self, STEPS_MAX);
    for (uint64_t i = 0; i < steps; i++)
        if (!step(self) || below(self, 20) == 0)
            crash(self);
    crash(self);
    trm_wal_close(self->wal);
    trm_fs_mem_destroy(self->fs);
    self->fs = NULL;
}

int main(int argc, char **argv)
{
    const char *seed_text = argc > 1 ? argv[1] : getenv("TRM_TEST_SEED");
    uint64_t seed = seed_text ? strtoull(seed_text, NULL, 10) : 1;
    uint64_t histories = argc > 2 ? strtoull(argv[2], NULL, 10) : HISTORIES;
    trm_diag_configure(TRM_DIAG_WARN, -1);
    history self = {0};
    self.may_be = malloc(CANDIDATES_MAX * sizeof *self.may_be);
    if (!self.may_be)
        return 1;
    for (uint64_t i = 0; i < histories; i++) {
        self.seed = seed + i;
        run(&self);
    }
    printf("wal_crash: seed %" PRIu64 ", %" PRIu64 " histories, %" PRIu64 " crashes, %" PRIu64
           " kills, %" PRIu64 " opens, %" PRIu64 " repairs, %" PRIu64 " batches, %" PRIu64
           " refused for room, %" PRIu64 " snapshots\n",
           seed, histories, self.crashes, self.kills, self.opens, self.repairs, self.batches, self.refused,
           self.snapshots);
    free(self.may_be);
    return 0;
}
