/* See scenario.h: the statements about log files, over the real wal on a disk in memory.
 *
 * A script writes; what the log should hold is kept beside it, one state for each write
 * since the last mark. `wal cut` then makes, for each byte of what was written since,
 * the disk that a crash there leaves, opens it, and sees that the log is in one of these
 * states and can be written on. */
#include "tests/simulation/scenario.h"

#include "runtime/fs.h"
#include "runtime/wal.h"
#include "tests/support/fs_mem.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define DIR "log"
#define FILES_MAX 64u
#define FILE_BYTES_MAX (1u << 20)
#define STATES_MAX 64u
#define PAYLOAD_BYTES_MAX 20000u

/* What the log may hold. Payloads follow from index and term. */
typedef struct log_state {
    trm_wal_hard_state hard;
    uint64_t snapshot;
    uint64_t last;
    uint64_t terms[SCENARIO_INDEX_MAX];
} log_state;

typedef struct log_file {
    char name[64];
    uint8_t *bytes;
    size_t len;
} log_file;

typedef struct log_files {
    log_file files[FILES_MAX];
    uint32_t len;
} log_files;

struct scenario_log {
    trm_fs *fs;
    trm_wal *wal;
    uint32_t segment_bytes;
    size_t payload_bytes;
    log_state states[STATES_MAX]; /* since the mark; the last one is now */
    uint32_t states_len;
    log_files marked;
    uint64_t opened;
    trm_err err;
};

/* ---- States. ---- */

static log_state *now(struct scenario_log *self)
{
    return &self->states[self->states_len - 1];
}

/* The state after the next write, to be changed. */
static log_state *next(scenario_world *world, struct scenario_log *self)
{
    if (self->states_len == STATES_MAX) {
        scenario_fail(world, "more than %u writes since the mark", STATES_MAX);
        return now(self);
    }
    self->states[self->states_len] = *now(self);
    return &self->states[self->states_len++];
}

static size_t payload_of(const struct scenario_log *self, uint64_t index, uint64_t term, uint8_t *out)
{
    for (size_t i = 0; i < self->payload_bytes; i++)
        out[i] = (uint8_t)(index * 31 + term * 7 + i);
    return self->payload_bytes;
}

static bool holds_entries(const struct scenario_log *self, const trm_wal *wal, const log_state *state)
{
    uint8_t payload[PAYLOAD_BYTES_MAX];
    for (uint64_t i = state->snapshot + 1; i <= state->last; i++) {
        trm_wal_entry entry;
        trm_wal_entry_at(wal, i, &entry);
        size_t len = payload_of(self, i, state->terms[i], payload);
        if (entry.term != state->terms[i] || entry.len != len || memcmp(entry.payload, payload, len) != 0)
            return false;
    }
    return true;
}

static bool holds(const struct scenario_log *self, const trm_wal *wal, const log_state *state)
{
    trm_wal_hard_state hard;
    trm_wal_snapshot snapshot;
    trm_wal_hard_state_get(wal, &hard);
    trm_wal_snapshot_get(wal, &snapshot);
    return hard.term == state->hard.term && hard.vote == state->hard.vote &&
           hard.commit == state->hard.commit && snapshot.index == state->snapshot &&
           trm_wal_last_index(wal) == state->last && holds_entries(self, wal, state);
}

static bool holds_any(const struct scenario_log *self, const trm_wal *wal)
{
    for (uint32_t i = 0; i < self->states_len; i++)
        if (holds(self, wal, &self->states[i]))
            return true;
    return false;
}

/* ---- Files. ---- */

static void free_files(log_files *self)
{
    while (self->len > 0)
        free(self->files[--self->len].bytes);
}

static trm_status add_name(const char *name, void *context)
{
    log_files *self = context;
    if (self->len == FILES_MAX || strcmp(name, "lock") == 0)
        return TRM_OK;
    log_file *file = &self->files[self->len++];
    *file = (log_file){0};
    snprintf(file->name, sizeof file->name, "%s", name);
    return TRM_OK;
}

static void path_of(const char *name, char *out, size_t out_bytes)
{
    snprintf(out, out_bytes, "%s/%s", DIR, name);
}

static void read_files(scenario_world *world, struct scenario_log *self, log_files *out)
{
    free_files(out);
    trm_status status = self->fs->ops->list(self->fs, DIR, add_name, out, &self->err);
    for (uint32_t i = 0; i < out->len && status == TRM_OK; i++) {
        char path[128];
        path_of(out->files[i].name, path, sizeof path);
        status = trm_fs_read_whole(self->fs, path, FILE_BYTES_MAX, &out->files[i].bytes, &out->files[i].len,
                                   &self->err);
    }
    if (status != TRM_OK)
        scenario_fail(world, "the files cannot be read: %s", self->err.text);
}

static const log_file *find_file(const log_files *files, const char *name)
{
    for (uint32_t i = 0; i < files->len; i++)
        if (strcmp(files->files[i].name, name) == 0)
            return &files->files[i];
    return NULL;
}

static trm_status write_files(trm_fs *fs, const log_files *files, const log_file *changed, trm_err *err)
{
    trm_status status = trm_fs_make_dirs(fs, DIR, 0, err);
    for (uint32_t i = 0; i < files->len && status == TRM_OK; i++) {
        char path[128];
        path_of(files->files[i].name, path, sizeof path);
        const log_file *file = &files->files[i];
        if (changed && strcmp(changed->name, file->name) == 0)
            file = changed;
        status = trm_fs_write_whole(fs, path, file->bytes, file->len, 0, err);
    }
    return status;
}

/* ---- The log. ---- */

static trm_status open_log(struct scenario_log *self, trm_fs *fs, trm_wal **out)
{
    trm_wal_config config = {.create = true,
                             .log_id = 42,
                             .segment_bytes_first = self->segment_bytes,
                             .segment_bytes_max = self->segment_bytes};
    return trm_wal_open(out, fs, DIR, &config, &self->err);
}

static struct scenario_log *log_of(scenario_world *world)
{
    if (world->log)
        return world->log;
    struct scenario_log *self = scenario_must(calloc(1, sizeof *self));
    self->fs = scenario_must(trm_fs_mem_create(world->seed));
    self->segment_bytes = 65536;
    self->payload_bytes = 20;
    self->states_len = 1;
    self->states[0].hard.vote = TRM_WAL_VOTE_NONE;
    world->log = self;
    return self;
}

static void close_wal(struct scenario_log *self)
{
    trm_wal_close(self->wal);
    self->wal = NULL;
}

void scenario_log_close(scenario_world *world)
{
    if (!world->log)
        return;
    close_wal(world->log);
    free_files(&world->log->marked);
    trm_fs_mem_destroy(world->log->fs);
    free(world->log);
    world->log = NULL;
}

static bool write_batch(scenario_world *world, struct scenario_log *self, trm_wal_batch *batch)
{
    world->last = trm_wal_write(self->wal, batch, &self->err);
    trm_wal_batch_close(batch);
    return world->last == TRM_OK;
}

/* wal append COUNT [TERM]: one write of so many entries behind the last. wal put INDEX COUNT
 * TERM: from that index on, over what is there. */
static void do_append(scenario_world *world, struct scenario_log *self, uint64_t from, uint64_t count,
                      uint64_t term)
{
    const log_state *before = now(self);
    bool is_ordered = from > before->snapshot && from <= before->last + 1 &&
                      (from - 1 == 0 || term >= before->terms[from - 1]) && term > 0;
    if (!is_ordered || count == 0 || count > 1000 || from + count >= SCENARIO_INDEX_MAX) {
        scenario_fail(world, "such entries do not follow the log");
        return;
    }
    trm_wal_batch batch;
    trm_wal_batch_init(&batch);
    uint8_t payload[PAYLOAD_BYTES_MAX];
    for (uint64_t i = from; i < from + count; i++) {
        trm_wal_entry entry = {.index = i, .term = term, .type = 1, .payload = payload};
        entry.len = payload_of(self, i, term, payload);
        trm_wal_batch_entry(&batch, &entry);
    }
    if (!write_batch(world, self, &batch))
        return;
    for (uint64_t i = from; i < from + count && !world->failed; i++) { /* a crash may leave a part of them */
        log_state *state = next(world, self);
        state->last = i;
        state->terms[i] = term;
    }
}

static void do_hard(scenario_world *world, struct scenario_log *self, uint64_t term, uint64_t vote,
                    uint64_t commit)
{
    if (term < now(self)->hard.term) {
        scenario_fail(world, "terms do not fall");
        return;
    }
    trm_wal_hard_state hard = {term, vote, commit};
    trm_wal_batch batch;
    trm_wal_batch_init(&batch);
    trm_wal_batch_hard_state(&batch, &hard);
    if (write_batch(world, self, &batch))
        next(world, self)->hard = hard;
}

static void do_snapshot(scenario_world *world, struct scenario_log *self, uint64_t index, uint64_t bytes,
                        bool commit)
{
    const log_state *before = now(self);
    if (index <= before->snapshot || index > before->last || bytes > PAYLOAD_BYTES_MAX) {
        scenario_fail(world, "such a snapshot does not fit the log");
        return;
    }
    trm_wal_snapshot meta = {
        .index = index, .term = before->terms[index], .config = (const uint8_t *)"cfg", .config_len = 3};
    uint8_t data[PAYLOAD_BYTES_MAX];
    memset(data, 's', bytes);
    world->last = trm_wal_snapshot_begin(self->wal, &meta, &self->err);
    if (world->last == TRM_OK)
        world->last = trm_wal_snapshot_write(self->wal, data, bytes, &self->err);
    if (world->last == TRM_OK && commit)
        world->last = trm_wal_snapshot_commit(self->wal, &self->err);
    if (world->last == TRM_OK && commit)
        next(world, self)->snapshot = index;
}

/* What was synced before counts no more: only the state of now may be found. */
static void do_mark(scenario_world *world, struct scenario_log *self)
{
    self->states[0] = *now(self);
    self->states_len = 1;
    read_files(world, self, &self->marked);
}

/* After a crash: one of the states that may be is there, and from now on it is the only one. */
static void do_sound(scenario_world *world, struct scenario_log *self)
{
    uint32_t at = 0;
    while (at < self->states_len && !holds(self, self->wal, &self->states[at]))
        at++;
    if (at == self->states_len) {
        scenario_fail(world, "the log holds what it must not");
        return;
    }
    self->states[0] = self->states[at];
    self->states_len = 1;
}

/* ---- Cuts. ---- */

/* Opens the disk of a crash, compares, writes on, and opens once more. */
static bool survives(scenario_world *world, struct scenario_log *self, const log_files *files,
                     const log_file *changed, const char *what, size_t at)
{
    trm_fs *fs = scenario_must(trm_fs_mem_create(1));
    trm_wal *wal = NULL;
    trm_status status = write_files(fs, files, changed, &self->err);
    if (status == TRM_OK)
        status = open_log(self, fs, &wal);
    bool fits = status == TRM_OK && holds_any(self, wal);
    self->opened++;
    if (fits) {
        trm_wal_hard_state hard;
        trm_wal_hard_state_get(wal, &hard);
        hard.term++;
        trm_wal_batch batch;
        trm_wal_batch_init(&batch);
        trm_wal_batch_hard_state(&batch, &hard);
        status = trm_wal_write(wal, &batch, &self->err);
        trm_wal_batch_close(&batch);
        if (status == TRM_OK)
            status = trm_wal_sync(wal, &self->err);
        trm_wal_close(wal);
        wal = NULL;
        if (status == TRM_OK)
            status = open_log(self, fs, &wal);
        trm_wal_hard_state again = {0};
        if (status == TRM_OK)
            trm_wal_hard_state_get(wal, &again);
        fits = again.term == hard.term;
    }
    trm_wal_close(wal);
    trm_fs_mem_destroy(fs);
    if (!fits)
        scenario_fail(world, "%s %s at byte %zu: %s", changed->name, what, at,
                      status != TRM_OK ? self->err.text : "the log holds what it must not");
    return fits;
}

/* The bytes of the file from `at` on never arrived: zeros, as the segment was made; then
 * as a file that ends there. */
static bool cut_at(scenario_world *world, struct scenario_log *self, const log_files *files,
                   const log_file *file, const log_file *before, size_t at)
{
    log_file changed = *file;
    changed.bytes = scenario_must(malloc(file->len + 1));
    memcpy(changed.bytes, file->bytes, file->len);
    for (size_t i = at; i < file->len; i++)
        changed.bytes[i] = before && i < before->len ? before->bytes[i] : 0;
    bool survived = survives(world, self, files, &changed, "is as before from", at);
    changed.len = at;
    survived = survived && survives(world, self, files, &changed, "ends", at);
    free(changed.bytes);
    return survived;
}

/* wal cut FILE: the crash at each byte of what was written to it since the mark. */
static void do_cut(scenario_world *world, struct scenario_log *self, const char *name)
{
    log_files files = {0};
    read_files(world, self, &files);
    close_wal(self);
    const log_file *file = find_file(&files, name), *before = find_file(&self->marked, name);
    if (!file) {
        scenario_fail(world, "there is no file '%s'", name);
        free_files(&files);
        return;
    }
    /* A segment has a whole and durable header before it has its name. */
    size_t first = strncmp(name, "segment-", 8) == 0 ? TRM_WAL_BLOCK_BYTES : 0, last = file->len;
    while (before && first < file->len && first < before->len && file->bytes[first] == before->bytes[first])
        first++;
    while (last > first && (before && last <= before->len ? file->bytes[last - 1] == before->bytes[last - 1]
                                                          : file->bytes[last - 1] == 0))
        last--;
    for (size_t at = first; at <= last && !world->failed; at++) {
        uint8_t was = before && at > 0 && at - 1 < before->len ? before->bytes[at - 1] : 0;
        if (at == first || file->bytes[at - 1] != was) /* else it is the cut before */
            cut_at(world, self, &files, file, before, at);
    }
    free_files(&files);
    scenario_trace(world, "  opened %" PRIu64 " times", self->opened);
}

/* ---- Damage. ---- */

static void do_flip(scenario_world *world, struct scenario_log *self, const char *name, uint64_t at)
{
    char path[128];
    uint8_t *bytes;
    size_t len;
    path_of(name, path, sizeof path);
    if (trm_fs_read_whole(self->fs, path, FILE_BYTES_MAX, &bytes, &len, &self->err) != TRM_OK) {
        scenario_fail(world, "%s", self->err.text);
        return;
    }
    if (at < len) {
        bytes[at] ^= 0x10;
        trm_fs_write_whole(self->fs, path, bytes, len, 0, &self->err);
    } else {
        scenario_fail(world, "'%s' has %zu bytes", name, len);
    }
    free(bytes);
}

/* ---- Statements. ---- */

static void expect(scenario_world *world, struct scenario_log *self, const char *field, uint64_t wanted)
{
    trm_wal_hard_state hard;
    trm_wal_snapshot snapshot;
    trm_wal_hard_state_get(self->wal, &hard);
    trm_wal_snapshot_get(self->wal, &snapshot);
    const struct {
        const char *name;
        uint64_t value;
    } fields[] = {{"first", trm_wal_first_index(self->wal)},
                  {"last", trm_wal_last_index(self->wal)},
                  {"term", hard.term},
                  {"vote", hard.vote},
                  {"commit", hard.commit},
                  {"snapshot", snapshot.index},
                  {"repairs", trm_wal_repairs(self->wal)}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (strcmp(field, fields[i].name) != 0)
            continue;
        if (fields[i].value != wanted)
            scenario_fail(world, "it is %" PRIu64, fields[i].value);
        return;
    }
    scenario_fail(world, "a log has no '%s'", field);
}

/* Statements on a log that is closed, and on its files. */
static bool closed_word(scenario_world *world, struct scenario_log *self, const char *word, const char *name,
                        const uint64_t *number)
{
    char path[128];
    if (strcmp(word, "open") == 0 && !self->wal) {
        world->last = open_log(self, self->fs, &self->wal);
    } else if (strcmp(word, "segments") == 0 && number[0] >= 8192 && number[0] <= FILE_BYTES_MAX) {
        self->segment_bytes = (uint32_t)number[0];
    } else if (strcmp(word, "payload") == 0 && number[0] < PAYLOAD_BYTES_MAX) {
        self->payload_bytes = number[0];
    } else if (strcmp(word, "room") == 0) {
        trm_fs_mem_set_capacity(self->fs, number[0]);
    } else if (strcmp(word, "flip") == 0 && name) {
        do_flip(world, self, name, number[1]);
    } else if (strcmp(word, "remove") == 0 && name) {
        path_of(name, path, sizeof path);
        world->last = self->fs->ops->remove(self->fs, path, &self->err);
    } else if (strcmp(word, "says") == 0 && name) {
        if (!strstr(self->err.text, name))
            scenario_fail(world, "it says '%.400s'", self->err.text);
    } else if (strcmp(word, "crash") == 0 || strcmp(word, "kill") == 0) {
        /* What is found after it must be one of the states since the last sync. */
        (word[0] == 'c' ? trm_fs_mem_crash : trm_fs_mem_kill)(self->fs);
        close_wal(self);
    } else {
        return false;
    }
    return true;
}

/* Statements on a log that is open. */
static bool open_word(scenario_world *world, struct scenario_log *self, const char *word, const char *name,
                      const uint64_t *number)
{
    if (strcmp(word, "close") == 0)
        close_wal(self);
    else if (strcmp(word, "append") == 0)
        do_append(world, self, now(self)->last + 1, number[0], number[1]);
    else if (strcmp(word, "put") == 0)
        do_append(world, self, number[0], number[1], number[2]);
    else if (strcmp(word, "hard") == 0)
        do_hard(world, self, number[0], number[1], number[2]);
    else if (strcmp(word, "sync") == 0)
        world->last = trm_wal_sync(self->wal, &self->err);
    else if (strcmp(word, "prepare") == 0)
        trm_wal_prepare(self->wal);
    else if (strcmp(word, "compact") == 0)
        world->last = trm_wal_compact(self->wal, &self->err);
    else if (strcmp(word, "snapshot") == 0 || strcmp(word, "half_snapshot") == 0)
        do_snapshot(world, self, number[0], number[1], word[0] == 's');
    else if (strcmp(word, "mark") == 0)
        do_mark(world, self);
    else if (strcmp(word, "cut") == 0 && name)
        do_cut(world, self, name);
    else if (strcmp(word, "expect") == 0 && name)
        expect(world, self, name, number[1]);
    else if (strcmp(word, "sound") == 0)
        do_sound(world, self);
    else
        return false;
    return true;
}

/* wal WORD [NUMBER | NAME]… */
void scenario_log_word(scenario_world *world, const scenario_line *line)
{
    struct scenario_log *self = log_of(world);
    uint64_t number[3] = {0};
    if (line->len < 2) {
        scenario_fail(world, "wal takes a word");
        return;
    }
    const char *word = line->words[1], *name = line->len > 2 ? line->words[2] : NULL;
    bool is_named = strcmp(word, "flip") == 0 || strcmp(word, "remove") == 0 || strcmp(word, "cut") == 0 ||
                    strcmp(word, "expect") == 0 || strcmp(word, "says") == 0;
    for (uint32_t i = 2; i < line->len && i < 5; i++)
        if ((i > 2 || !is_named) && !scenario_number(world, line->words[i], UINT64_MAX, &number[i - 2]))
            return;
    if (closed_word(world, self, word, name, number) ||
        (self->wal && open_word(world, self, word, name, number)))
        return;
    scenario_fail(world, "there is no such statement here");
}
