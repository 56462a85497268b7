/* See fetch_serve.h. */
#include "workers/fetch_serve.h"

#include "runtime/diag.h"
#include "workers/attempt.h"
#include "workers/run_reader.h"

#include <assert.h>
#include <stdlib.h>

typedef struct request {
    uint32_t from;
    trm_fetch fetch;
} request;

typedef struct open_run {
    bool used;
    uint32_t task, attempt, first, last;
    trm_file *file;
    trm_run_extract extract;
    uint64_t used_last; /* the request that used it */
} open_run;

struct trm_fetch_server {
    trm_fs *fs;
    trm_sender *sender;
    const char *run_store;
    open_run runs[TRM_SERVE_OPEN_MAX];
    uint64_t requests;
    request *queue; /* a ring */
    unsigned first, count;
    uint8_t *bytes; /* of the block that is being sent */
};

trm_status trm_fetch_server_create(trm_fetch_server **out, trm_fs *fs, trm_sender *sender,
                                   const char *run_store, trm_err *err)
{
    trm_fetch_server *self = calloc(1, sizeof *self);
    if (self) {
        *self = (trm_fetch_server){.fs = fs, .sender = sender, .run_store = run_store};
        self->queue = malloc(TRM_SERVE_QUEUE_MAX * sizeof *self->queue);
        self->bytes = malloc(TRM_FETCH_BLOCK_BYTES);
        if (self->queue && self->bytes) {
            *out = self;
            return TRM_OK;
        }
    }
    trm_fetch_server_destroy(self);
    return trm_err_set(err, TRM_ENOMEM, "no memory to serve runs");
}

static void close_run(trm_fetch_server *self, open_run *run)
{
    if (!run->used)
        return;
    self->fs->ops->close(run->file);
    trm_run_extract_close(&run->extract);
    run->used = false;
}

void trm_fetch_server_reset(trm_fetch_server *self)
{
    for (unsigned i = 0; i < TRM_SERVE_OPEN_MAX; i++)
        close_run(self, &self->runs[i]);
}

void trm_fetch_server_destroy(trm_fetch_server *self)
{
    if (!self)
        return;
    trm_fetch_server_reset(self);
    free(self->queue);
    free(self->bytes);
    free(self);
}

bool trm_fetch_server_request(trm_fetch_server *self, uint32_t from, const trm_fetch *fetch)
{
    if (self->count == TRM_SERVE_QUEUE_MAX || fetch->first >= fetch->last || fetch->bytes == 0)
        return false;
    self->queue[(self->first + self->count++) % TRM_SERVE_QUEUE_MAX] =
        (request){.from = from, .fetch = *fetch};
    return true;
}

/* The run's own index says whether it is what its name says. */
static trm_status open_extract(trm_fetch_server *self, open_run *run, const trm_fetch *fetch,
                               const char *path, trm_err *err)
{
    trm_run_index index;
    trm_status status = trm_run_index_read(&index, run->file, path, err);
    if (status != TRM_OK)
        return status;
    if (index.task != fetch->task || index.attempt != fetch->attempt || fetch->last > index.partitions)
        status = trm_err_set(err, TRM_ECORRUPT, "%s: not the run of map task %u, attempt %u", path,
                             fetch->task, fetch->attempt);
    else
        status = trm_run_extract_open(&run->extract, &index, fetch->first, fetch->last, err);
    trm_run_index_close(&index);
    return status;
}

static open_run *least_used(trm_fetch_server *self)
{
    open_run *found = &self->runs[0];
    for (unsigned i = 0; i < TRM_SERVE_OPEN_MAX; i++) {
        open_run *run = &self->runs[i];
        if (!run->used)
            return run;
        if (run->used_last < found->used_last)
            found = run;
    }
    return found;
}

static trm_status find_run(trm_fetch_server *self, const trm_fetch *fetch, open_run **out, trm_err *err)
{
    self->requests++;
    for (unsigned i = 0; i < TRM_SERVE_OPEN_MAX; i++) {
        open_run *run = &self->runs[i];
        if (run->used && run->task == fetch->task && run->attempt == fetch->attempt &&
            run->first == fetch->first && run->last == fetch->last) {
            run->used_last = self->requests;
            *out = run;
            return TRM_OK;
        }
    }
    char path[TRM_STORE_PATH_BYTES + 128];
    open_run *run = least_used(self);
    close_run(self, run);
    trm_status status =
        trm_run_name(self->run_store, self->sender->epoch, fetch->task, fetch->attempt, path, sizeof path);
    if (status == TRM_OK)
        status = self->fs->ops->open(self->fs, path, TRM_FS_READ, &run->file, err);
    if (status != TRM_OK)
        return status;
    status = open_extract(self, run, fetch, path, err);
    if (status != TRM_OK) {
        self->fs->ops->close(run->file);
        return status;
    }
    *run = (open_run){.used = true,
                      .task = fetch->task,
                      .attempt = fetch->attempt,
                      .first = fetch->first,
                      .last = fetch->last,
                      .file = run->file,
                      .extract = run->extract,
                      .used_last = self->requests};
    *out = run;
    return TRM_OK;
}

/* What the asking rank can do something with. */
static uint32_t told_status(trm_status status)
{
    return status == TRM_ECORRUPT || status == TRM_EVERSION ? TRM_ECORRUPT : TRM_ELOST;
}

static trm_status answer(trm_fetch_server *self, const request *asked)
{
    const trm_fetch *fetch = &asked->fetch;
    trm_block block = {.task = fetch->task,
                       .attempt = fetch->attempt,
                       .first = fetch->first,
                       .last = fetch->last,
                       .offset = fetch->offset,
                       .bytes = self->bytes};
    trm_err err = {""};
    open_run *run = NULL;
    trm_status status = find_run(self, fetch, &run, &err);
    if (status == TRM_OK && fetch->offset >= run->extract.total_bytes)
        status =
            trm_err_set(&err, TRM_ECORRUPT, "rank %u asks for bytes behind the end of a run", asked->from);
    if (status == TRM_OK) {
        uint64_t left = run->extract.total_bytes - fetch->offset;
        block.total_bytes = run->extract.total_bytes;
        block.bytes_len = left < fetch->bytes ? (uint32_t)left : fetch->bytes;
        status =
            trm_run_extract_read(&run->extract, run->file, fetch->offset, self->bytes, block.bytes_len, &err);
        if (status != TRM_OK)
            close_run(self, run);
    }
    if (status != TRM_OK) {
        trm_debug("map task %u, attempt %u cannot be served to rank %u: %s", fetch->task, fetch->attempt,
                  asked->from, err.text);
        block.status = told_status(status);
        block.total_bytes = block.bytes_len = 0;
    }
    trm_block_encode(&block, trm_sender_begin(self->sender, TRM_WIRE_BLOCK));
    return trm_sender_send(self->sender, asked->from);
}

bool trm_fetch_server_step(trm_fetch_server *self)
{
    bool any = false;
    unsigned waiting = self->count;
    for (unsigned i = 0; i < waiting && i < TRM_SERVE_STEP_BLOCKS; i++) {
        request asked = self->queue[self->first];
        self->first = (self->first + 1) % TRM_SERVE_QUEUE_MAX;
        self->count--;
        if (answer(self, &asked) == TRM_OK)
            any = true;
        else /* its turn comes again, behind the others: they may go to a rank that has room */
            self->queue[(self->first + self->count++) % TRM_SERVE_QUEUE_MAX] = asked;
    }
    return any;
}
