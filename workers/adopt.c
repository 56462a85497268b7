/* See adopt.h. */
#include "config.h" /* system extensions, before any header of the system */

#include "workers/adopt.h"

#include "runtime/diag.h"
#include "workers/attempt.h"
#include "workers/run_reader.h"
#include "workers/scratch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_BYTES (TRM_STORE_PATH_BYTES + 128u)

typedef struct found_run {
    uint32_t task, attempt;
    uint64_t epoch;
    bool copy;
} found_run;

typedef struct store {
    struct store *next;
    trm_store what;
} store;

struct trm_adopter {
    trm_fs *fs;
    trm_sender *sender;
    const char *run_store;
    trm_copies *copies;
    store *first, **last; /* the first is being taken */
    unsigned count;
    store *taken; /* whose directories are to be removed at the end */
    unsigned taken_count;
    bool listed;
    found_run *runs; /* of the first */
    size_t runs_at, runs_count, runs_room;
    trm_output_at *held; /* taken and not told yet */
    unsigned held_count;
};

trm_status trm_adopter_create(trm_adopter **out, trm_fs *fs, trm_sender *sender, const char *run_store,
                              trm_copies *copies, trm_err *err)
{
    trm_adopter *self = calloc(1, sizeof *self);
    trm_output_at *held = malloc(TRM_HELD_FRAME_MAX * sizeof *held);
    if (!self || !held) {
        free(self);
        free(held);
        return trm_err_set(err, TRM_ENOMEM, "no memory to take over runs");
    }
    *self = (trm_adopter){.fs = fs, .sender = sender, .run_store = run_store, .copies = copies, .held = held};
    self->last = &self->first;
    *out = self;
    return TRM_OK;
}

static void free_stores(store *first)
{
    while (first) {
        store *next = first->next;
        free(first);
        first = next;
    }
}

void trm_adopter_destroy(trm_adopter *self, bool keep)
{
    if (!self)
        return;
    for (store *at = self->taken; at && !keep; at = at->next)
        trm_scratch_abandon(at->what.path);
    free_stores(self->first);
    free_stores(self->taken);
    free(self->runs);
    free(self->held);
    free(self);
}

bool trm_adopter_add(trm_adopter *self, const trm_store *what)
{
    for (store *at = self->first; at; at = at->next)
        if (at->what.epoch == what->epoch && strcmp(at->what.path, what->path) == 0)
            return true; /* it is coming */
    store *added = self->count < TRM_ADOPT_QUEUE_MAX ? malloc(sizeof *added) : NULL;
    if (!added)
        return false;
    *added = (store){.what = *what};
    *self->last = added;
    self->last = &added->next;
    self->count++;
    return true;
}

/* ---- What lies there ------------------------------------------------------------------------ */

static const char *number(const char *at, uint64_t max, uint64_t *out)
{
    uint64_t value = 0;
    const char *begin = at;
    for (; *at >= '0' && *at <= '9'; at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        if (value > (max - digit) / 10)
            return NULL;
        value = value * 10 + digit;
    }
    *out = value;
    return at == begin || (*begin == '0' && at != begin + 1) ? NULL : at;
}

bool trm_run_name_parse(const char *name, char kind, uint32_t *task, uint64_t *epoch, uint32_t *attempt)
{
    uint64_t found_task, found_epoch, found_attempt;
    const char *at = name[0] == kind ? number(name + 1, TRM_TASKS_MAX - 1, &found_task) : NULL;
    at = at && !strncmp(at, ".e", 2) ? number(at + 2, UINT64_MAX - 9, &found_epoch) : NULL;
    at = at && !strncmp(at, ".a", 2) ? number(at + 2, UINT32_MAX, &found_attempt) : NULL;
    if (!at || strcmp(at, ".run") != 0)
        return false;
    *task = (uint32_t)found_task;
    *epoch = found_epoch;
    *attempt = (uint32_t)found_attempt;
    return true;
}

static trm_status note_run(const char *name, void *context)
{
    trm_adopter *self = context;
    found_run run = {.copy = name[0] == 'c'};
    if (!trm_run_name_parse(name, run.copy ? 'c' : 'm', &run.task, &run.epoch, &run.attempt) ||
        (!run.copy && run.epoch != self->first->what.epoch) || self->runs_count == TRM_ADOPT_RUNS_MAX)
        return TRM_OK;
    if (self->runs_count == self->runs_room) {
        size_t room = self->runs_room ? self->runs_room * 2 : 256;
        found_run *grown = realloc(self->runs, room * sizeof *grown);
        if (!grown)
            return TRM_ENOMEM;
        self->runs = grown;
        self->runs_room = room;
    }
    self->runs[self->runs_count++] = run;
    return TRM_OK;
}

/* A private directory of this user, and not the own store. */
static bool is_believable(const trm_adopter *self, const char *path)
{
    struct stat about, own;
    return path[0] == '/' && lstat(path, &about) == 0 && S_ISDIR(about.st_mode) &&
           about.st_uid == geteuid() && (about.st_mode & 077) == 0 && stat(self->run_store, &own) == 0 &&
           (own.st_dev != about.st_dev || own.st_ino != about.st_ino);
}

static void look(trm_adopter *self)
{
    trm_err err = {""};
    self->runs_at = self->runs_count = 0;
    self->listed = true;
    const char *path = self->first->what.path;
    if (!is_believable(self, path))
        trm_debug("%s is no store that can be taken over", path);
    else if (self->fs->ops->list(self->fs, path, note_run, self, &err) != TRM_OK)
        trm_debug("the runs in %s cannot be taken over: %s", path, err.text);
}

/* ---- Taking ------------------------------------------------------------------------------------ */

/* One that was being written when its rank died has no index, and is left there. */
static trm_status check_run(trm_adopter *self, const found_run *run, const char *path, trm_err *err)
{
    trm_run_index index;
    trm_status status = trm_run_index_load(&index, self->fs, path, err);
    if (status != TRM_OK)
        return status;
    if (index.task != run->task || index.attempt != run->attempt)
        status = trm_err_set(err, TRM_ECORRUPT, "%s: its name is not its own", path);
    trm_run_index_close(&index);
    return status;
}

/* What has this name already is the same attempt's, whoever made it: see trm_table_first_attempt. */
static trm_status give_name(trm_adopter *self, const found_run *run, const char *from, const char *to,
                            trm_err *err)
{
    trm_status status = self->fs->ops->link(self->fs, from, to, err);
    if (status != TRM_AGAIN || check_run(self, run, to, err) == TRM_OK)
        return status == TRM_AGAIN ? TRM_OK : status;
    status = self->fs->ops->remove(self->fs, to, err);
    return status == TRM_OK ? self->fs->ops->link(self->fs, from, to, err) : status;
}

static bool take_run(trm_adopter *self, const found_run *run)
{
    char from[PATH_BYTES], to[PATH_BYTES];
    trm_err err = {""};
    const trm_store *what = &self->first->what;
    if (trm_run_name(what->path, what->epoch, run->task, run->attempt, from, sizeof from) != TRM_OK ||
        trm_run_name(self->run_store, self->sender->epoch, run->task, run->attempt, to, sizeof to) != TRM_OK)
        return false;
    trm_status status = check_run(self, run, from, &err);
    if (status == TRM_OK)
        status = give_name(self, run, from, to, &err);
    if (status != TRM_OK)
        trm_debug("a run is not taken over: %s", err.text);
    return status == TRM_OK;
}

static bool is_there(trm_adopter *self, const char *path, uint64_t *bytes)
{
    trm_file *file;
    if (self->fs->ops->open(self->fs, path, TRM_FS_READ, &file, NULL) != TRM_OK)
        return false;
    bool sized = self->fs->ops->size(file, bytes, NULL) == TRM_OK;
    self->fs->ops->close(file);
    return sized;
}

/* What is there under its name already was told, or is one that this rank has made itself. */
static void take_copy(trm_adopter *self, const found_run *run)
{
    char from[PATH_BYTES], copy[PATH_BYTES], to[PATH_BYTES];
    trm_err err = {""};
    uint64_t bytes = 0;
    if (trm_copy_name(self->first->what.path, run->epoch, run->task, run->attempt, from, sizeof from) ||
        trm_copy_name(self->run_store, run->epoch, run->task, run->attempt, copy, sizeof copy) ||
        trm_run_name(self->run_store, self->sender->epoch, run->task, run->attempt, to, sizeof to) ||
        is_there(self, copy, &bytes) || !is_there(self, from, &bytes))
        return;
    trm_status status = check_run(self, run, from, &err);
    if (status == TRM_OK)
        status = give_name(self, run, from, to, &err);
    if (status == TRM_OK)
        status = self->fs->ops->link(self->fs, from, copy, &err);
    if (status == TRM_OK)
        trm_copies_note(self->copies, run->task, run->attempt, run->epoch, bytes);
    else
        trm_debug("a copy of a run is not taken over: %s", err.text);
}

static bool tell(trm_adopter *self, uint32_t master, bool last)
{
    trm_held held = {.store = self->first->what, .last = last};
    trm_writer *out = trm_sender_begin(self->sender, TRM_WIRE_HELD);
    trm_held_encode(&held, out);
    for (unsigned i = 0; i < self->held_count; i++)
        trm_output_at_encode(&self->held[i], out);
    if (trm_sender_send(self->sender, master) != TRM_OK)
        return false;
    self->held_count = 0;
    return true;
}

static void end_store(trm_adopter *self)
{
    store *done = self->first;
    trm_debug("took over %s", done->what.path);
    self->first = done->next;
    if (!self->first)
        self->last = &self->first;
    self->count--;
    self->listed = false;
    if (self->taken_count == TRM_ADOPT_TAKEN_MAX) {
        trm_debug("%s is not removed: there are too many", done->what.path);
        free(done);
        return;
    }
    done->next = self->taken;
    self->taken = done;
    self->taken_count++;
}

bool trm_adopter_step(trm_adopter *self, uint32_t master)
{
    if (!self->first)
        return false;
    if (!self->listed)
        look(self);
    for (unsigned i = 0; i < TRM_ADOPT_STEP_RUNS && self->runs_at < self->runs_count; i++) {
        if (self->held_count == TRM_HELD_FRAME_MAX && !tell(self, master, false))
            return false;
        const found_run *run = &self->runs[self->runs_at++];
        if (run->copy)
            take_copy(self, run);
        else if (take_run(self, run))
            self->held[self->held_count++] = (trm_output_at){
                .task = run->task, .attempt = run->attempt, .rank = self->sender->transport->rank};
    }
    if (self->runs_at == self->runs_count && trm_copies_tell(self->copies, master) &&
        tell(self, master, true))
        end_store(self);
    return true;
}
