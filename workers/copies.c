/* See copies.h. */
#include "workers/copies.h"

#include "jobs/spec.h"
#include "runtime/diag.h"
#include "workers/attempt.h"
#include "workers/run_reader.h"
#include "workers/scratch.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct trm_copies {
    trm_fs *fs;
    trm_sender *sender;
    const char *run_store;
    trm_fetcher *fetcher; /* since the first COPY */
    uint32_t partitions;
    trm_copy *queue; /* a ring of TRM_COPY_QUEUE_MAX */
    uint32_t first, count;
    trm_copied *said; /* what is held, and what failed and is not told yet */
    size_t said_at, said_count, said_room;
    uint32_t failures; /* among them */
    bool replaced;
};

trm_status trm_copies_create(trm_copies **out, trm_fs *fs, trm_sender *sender, const char *run_store,
                             trm_err *err)
{
    trm_copies *self = calloc(1, sizeof *self);
    if (!self)
        return trm_err_set(err, TRM_ENOMEM, "no memory for copies of runs");
    *self = (trm_copies){.fs = fs, .sender = sender, .run_store = run_store};
    *out = self;
    return TRM_OK;
}

void trm_copies_destroy(trm_copies *self)
{
    if (!self)
        return;
    trm_fetcher_destroy(self->fetcher);
    free(self->queue);
    free(self->said);
    free(self);
}

/* ---- What is told ---------------------------------------------------------------------------- */

/* Without room for it the master hears nothing: it asks another rank after a while. */
static void say(trm_copies *self, const trm_copied *what)
{
    if (self->said_count == TRM_COPIES_SAID_MAX)
        return;
    if (self->said_count == self->said_room) {
        size_t room = self->said_room ? self->said_room * 2 : 64;
        trm_copied *grown = realloc(self->said, room * sizeof *grown);
        if (!grown)
            return;
        self->said = grown;
        self->said_room = room;
    }
    self->said[self->said_count++] = *what;
}

static void say_failed(trm_copies *self, uint32_t task, uint32_t attempt, trm_status status, const char *why)
{
    trm_debug("map task %u, attempt %u is not copied: %s", task, attempt, why);
    self->failures++;
    say(self,
        &(trm_copied){
            .task = task, .attempt = attempt, .epoch = self->sender->epoch, .status = (uint32_t)status});
}

void trm_copies_note(trm_copies *self, uint32_t task, uint32_t attempt, uint64_t epoch, uint64_t bytes)
{
    say(self,
        &(trm_copied){.task = task, .attempt = attempt, .epoch = epoch, .status = TRM_OK, .bytes = bytes});
}

/* What failed is told once. */
static void forget_failures(trm_copies *self)
{
    size_t kept = 0;
    for (size_t i = 0; i < self->said_count; i++)
        if (self->said[i].status == TRM_OK)
            self->said[kept++] = self->said[i];
    self->said_count = self->said_at = kept;
    self->failures = 0;
}

void trm_copies_tell_again(trm_copies *self)
{
    forget_failures(self);
    self->said_at = 0;
}

bool trm_copies_tell(trm_copies *self, uint32_t master)
{
    while (self->said_at < self->said_count) {
        size_t end = self->said_count - self->said_at > TRM_COPIED_FRAME_MAX
                         ? self->said_at + TRM_COPIED_FRAME_MAX
                         : self->said_count;
        trm_writer *frame = trm_sender_begin(self->sender, TRM_WIRE_COPIED);
        for (size_t i = self->said_at; i < end; i++)
            trm_copied_encode(&self->said[i], frame);
        if (trm_sender_send(self->sender, master) != TRM_OK)
            return false;
        self->said_at = end;
    }
    if (self->failures)
        forget_failures(self);
    return true;
}

/* ---- Making ------------------------------------------------------------------------------------ */

trm_status trm_copy_name(const char *store, uint64_t epoch, uint32_t task, uint32_t attempt, char *out,
                         size_t out_bytes)
{
    int len =
        snprintf(out, out_bytes, "%s/c%u.e%llu.a%u.run", store, task, (unsigned long long)epoch, attempt);
    return len > 0 && (size_t)len < out_bytes ? TRM_OK : TRM_ELIMIT;
}

/* The other file is the same attempt's, and nobody is sent to it: else none would be asked for. This one has
 * just been looked at. */
static trm_status give_run_name(trm_copies *self, const char *from, const char *to, trm_err *err)
{
    trm_status status = self->fs->ops->link(self->fs, from, to, err);
    if (status != TRM_AGAIN)
        return status;
    status = self->fs->ops->remove(self->fs, to, err);
    self->replaced = true;
    return status == TRM_OK ? self->fs->ops->link(self->fs, from, to, err) : status;
}

/* Whether it is the run of the task's attempt, and how long. */
static trm_status check(trm_copies *self, const trm_extract_id *id, const char *path, uint64_t *bytes,
                        trm_err *err)
{
    trm_file *file;
    trm_run_index index;
    trm_status status = self->fs->ops->open(self->fs, path, TRM_FS_READ, &file, err);
    if (status != TRM_OK)
        return status;
    status = self->fs->ops->size(file, bytes, err);
    if (status == TRM_OK)
        status = trm_run_index_read(&index, file, path, err);
    self->fs->ops->close(file);
    if (status != TRM_OK)
        return status;
    if (index.task != id->task || index.attempt != id->attempt || index.partitions != id->last)
        status = trm_err_set(err, TRM_ECORRUPT, "%s: not the run of map task %u, attempt %u", path, id->task,
                             id->attempt);
    trm_run_index_close(&index);
    return status;
}

/* It lies here as a copy of an earlier launch, and has its second name. */
static void renew(trm_copies *self, const trm_copy *what)
{
    char older[TRM_FETCH_PATH_BYTES], copy[TRM_FETCH_PATH_BYTES], run[TRM_FETCH_PATH_BYTES];
    trm_extract_id id = {.task = what->task, .attempt = what->attempt, .last = self->partitions};
    uint64_t epoch = self->sender->epoch, bytes = 0;
    trm_err err = {""};
    trm_status status =
        trm_copy_name(self->run_store, what->epoch, what->task, what->attempt, older, sizeof older);
    if (status == TRM_OK)
        status = trm_copy_name(self->run_store, epoch, what->task, what->attempt, copy, sizeof copy);
    if (status == TRM_OK)
        status = trm_run_name(self->run_store, epoch, what->task, what->attempt, run, sizeof run);
    if (status == TRM_OK)
        status = check(self, &id, older, &bytes, &err);
    if (status == TRM_OK)
        status = self->fs->ops->link(self->fs, older, copy, &err);
    if (status == TRM_OK)
        status = give_run_name(self, copy, run, &err);
    if (status == TRM_OK)
        trm_copies_note(self, what->task, what->attempt, epoch, bytes);
    else
        say_failed(self, what->task, what->attempt, status, err.text);
}

bool trm_copies_add(trm_copies *self, const trm_copy *what, uint32_t partitions)
{
    trm_err err;
    uint32_t ranks = self->sender->transport->ranks;
    bool itself = what->rank == self->sender->transport->rank;
    if (what->rank >= ranks || itself != (what->epoch != 0) || !partitions)
        return false;
    self->partitions = partitions;
    if (itself) {
        renew(self, what);
        return true;
    }
    if (self->count == TRM_COPY_QUEUE_MAX)
        return false;
    if (!self->queue)
        self->queue = malloc(TRM_COPY_QUEUE_MAX * sizeof *self->queue);
    if (!self->queue || (!self->fetcher && trm_fetcher_create(&self->fetcher, self->fs, self->sender,
                                                              self->run_store, ranks, 'g', &err) != TRM_OK))
        return false;
    self->queue[(self->first + self->count++) % TRM_COPY_QUEUE_MAX] = *what;
    return true;
}

static void begin(trm_copies *self, const trm_copy *what)
{
    trm_extract_id id = {.task = what->task, .attempt = what->attempt, .first = 0, .last = self->partitions};
    if (trm_scratch_is_tight(self->run_store))
        say_failed(self, id.task, id.attempt, TRM_ENOSPACE, "scratch is nearly full");
    else if (trm_fetcher_want(self->fetcher, &id, what->rank) != TRM_OK)
        say_failed(self, id.task, id.attempt, TRM_ENOMEM, "no memory to fetch it");
}

/* All of it has come: it gets its names. */
static trm_status keep(trm_copies *self, const trm_extract_id *id, uint64_t *bytes, trm_err *err)
{
    char fetched[TRM_FETCH_PATH_BYTES], copy[TRM_FETCH_PATH_BYTES], run[TRM_FETCH_PATH_BYTES];
    uint64_t epoch = self->sender->epoch;
    trm_fetcher_path(self->fetcher, id, fetched);
    trm_status status = trm_copy_name(self->run_store, epoch, id->task, id->attempt, copy, sizeof copy);
    assert(status == TRM_OK); /* a store's path is bounded by TRM_STORE_PATH_BYTES */
    status = trm_run_name(self->run_store, epoch, id->task, id->attempt, run, sizeof run);
    assert(status == TRM_OK);
    status = check(self, id, fetched, bytes, err);
    if (status == TRM_OK)
        status = self->fs->ops->rename(self->fs, fetched, copy, err);
    if (status == TRM_OK)
        status = give_run_name(self, copy, run, err);
    if (status != TRM_OK) {
        self->fs->ops->remove(self->fs, fetched, NULL);
        self->fs->ops->remove(self->fs, copy, NULL);
    }
    return status;
}

static bool take_fetched(trm_copies *self)
{
    trm_extract_id id;
    trm_status status;
    trm_err err;
    bool any = false;
    while (trm_fetcher_next(self->fetcher, &id, &status, &err)) {
        uint64_t bytes = 0;
        any = true;
        if (status == TRM_OK)
            status = keep(self, &id, &bytes, &err);
        if (status == TRM_OK)
            trm_copies_note(self, id.task, id.attempt, self->sender->epoch, bytes);
        else
            say_failed(self, id.task, id.attempt, status, err.text);
    }
    return any;
}

bool trm_copies_step(trm_copies *self, uint64_t now_ns, uint64_t *wake_ns)
{
    if (!self->fetcher)
        return false;
    bool any = take_fetched(self);
    while (self->count && trm_fetcher_open(self->fetcher) < TRM_COPY_OPEN_MAX) {
        trm_copy what = self->queue[self->first];
        self->first = (self->first + 1) % TRM_COPY_QUEUE_MAX;
        self->count--;
        begin(self, &what);
        any = true;
    }
    any |= trm_fetcher_step(self->fetcher, now_ns, wake_ns);
    return any;
}

bool trm_copies_block(trm_copies *self, uint32_t from, const trm_block *block, uint64_t now_ns)
{
    return self->fetcher && trm_fetcher_take(self->fetcher, from, block, now_ns);
}

bool trm_copies_replaced(trm_copies *self)
{
    bool replaced = self->replaced;
    self->replaced = false;
    return replaced;
}

uint64_t trm_copies_bytes(const trm_copies *self)
{
    return self->fetcher ? trm_fetcher_bytes(self->fetcher) : 0;
}
