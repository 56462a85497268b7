/* The replicated log of one voter: a write-ahead log and one thread that writes it.
 *
 *   control loop                            log thread (owns the wal)
 *   propose → queue, batch `filling` ──┐
 *                                      └──► swap → write → sync → committed ─┐
 *   step ◄── eventfd ◄───────────────────────────────────────────────────────┘
 *   next ◄── queue, up to committed
 *
 * Whatever is proposed while a sync is under way goes into the next one: one write and
 * one sync, however many commands. With one voter durable is committed.
 */
#include "config.h"

#include "runtime/clock.h"
#include "runtime/diag.h"
#include "runtime/replog.h"
#include "runtime/replog_queue.h"
#include "runtime/wal.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define SYNC_INTERVAL_US 2000u
#define PENDING_BYTES_MAX (16u * 1024u * 1024u)
#define PENDING_BYTES_LIMIT (32u * 1024u * 1024u) /* the batch must fit a segment */
#define SNAPSHOT_BYTES (16u * 1024u * 1024u)
/* What a command costs beside its bytes, so that empty ones are bounded too. */
#define COMMAND_COST_BYTES 24u
/* A batch of this size does not wait for its turn. */
#define EAGER_BYTES (256u * 1024u)
/* An image is written in pieces, between which the log goes on. */
#define PIECE_BYTES (1024u * 1024u)
#define NO_SPACE_RETRY_MS 50u
#define COMMAND_TYPE 1u

typedef struct image_job {
    uint8_t *bytes; /* NULL: none */
    size_t len;
    size_t written;
    bool begun;
    uint64_t index;
    uint64_t term;
} image_job;

typedef struct local_log {
    trm_replog base;
    uint32_t rank;
    uint64_t term;
    int event_fd;

    /* The control loop's own. */
    replog_queue queue;
    uint64_t next_index;
    uint64_t committed;      /* as the last step has seen it */
    uint64_t recovered_last; /* entries up to here are from earlier launches */
    uint64_t delivered_index;
    uint64_t delivered_term;
    uint64_t image_index; /* of the last image that was taken over */
    size_t pending_bytes; /* proposed in this launch and not yet taken by next */
    size_t pending_bytes_max;
    size_t logged_bytes;   /* since the last image */
    size_t snapshot_bytes; /* at which an image is wanted */
    size_t snapshot_bytes_min;
    uint8_t *restore; /* the image to begin with */
    size_t restore_len;
    bool restore_due;
    bool kick; /* something was proposed since the last step */
    trm_status health;
    trm_err why;

    /* Shared, under the mutex. */
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    trm_wal_batch filling;
    uint64_t filling_last;
    uint64_t durable;
    trm_status shared_health;
    trm_err shared_why;
    image_job image;
    bool stop;
    atomic_bool news;

    /* The log thread's own. */
    pthread_t thread;
    bool thread_runs;
    trm_wal *wal;
    trm_wal_batch writing;
    uint64_t writing_last;
    uint64_t sync_interval_ns;
    uint64_t sync_begun_ns;
} local_log;

/* ---- The log thread. ---- */

static void tell(local_log *self)
{
    atomic_store(&self->news, true);
    uint64_t one = 1;
    while (write(self->event_fd, &one, sizeof one) < 0 && errno == EINTR)
        continue;
}

/* Waits until woken or `deadline_ns`; the mutex is held. */
static void wait_until(local_log *self, uint64_t deadline_ns)
{
    struct timespec at = {(time_t)(deadline_ns / TRM_NS_PER_S), (long)(deadline_ns % TRM_NS_PER_S)};
    pthread_cond_timedwait(&self->wake, &self->mutex, &at);
}

/* Under the mutex: the state of health that the control loop will see. */
static void report(local_log *self, trm_status health, const trm_err *why)
{
    self->shared_health = health;
    if (health != TRM_OK)
        self->shared_why = *why;
    tell(self);
}

/* Writes and syncs `writing`, trying again for as long as the disk is full. Returns
 * false when the log has failed or is to stop. The mutex is held around it. */
static bool write_batch(local_log *self)
{
    for (;;) {
        pthread_mutex_unlock(&self->mutex);
        self->sync_begun_ns = trm_clock_now_ns();
        trm_err err;
        trm_status status = trm_wal_write(self->wal, &self->writing, &err);
        if (status == TRM_OK)
            status = trm_wal_sync(self->wal, &err);
        pthread_mutex_lock(&self->mutex);
        if (status == TRM_OK) {
            if (self->writing_last)
                self->durable = self->writing_last;
            trm_wal_batch_reset(&self->writing);
            report(self, TRM_OK, NULL);
            return true;
        }
        if (self->shared_health != status)
            report(self, status, &err);
        if (status != TRM_ENOSPACE || self->stop)
            return false;
        wait_until(self, trm_clock_now_ns() + NO_SPACE_RETRY_MS * TRM_NS_PER_MS);
    }
}

/* Whether `filling` should wait for its turn: few bytes, and a sync not long ago. */
static bool too_early(const local_log *self)
{
    return !self->stop && trm_wal_batch_bytes(&self->filling) < EAGER_BYTES &&
           trm_clock_now_ns() < self->sync_begun_ns + self->sync_interval_ns;
}

/* One step of saving an image: begin, a piece, or commit. */
static trm_status save_piece(local_log *self, image_job *job, trm_err *err)
{
    if (!job->begun) {
        trm_wal_snapshot meta = {.index = job->index, .term = job->term};
        job->begun = true;
        return trm_wal_snapshot_begin(self->wal, &meta, err);
    }
    if (job->written < job->len) {
        size_t piece = job->len - job->written < PIECE_BYTES ? job->len - job->written : PIECE_BYTES;
        job->written += piece;
        return trm_wal_snapshot_write(self->wal, job->bytes + job->written - piece, piece, err);
    }
    trm_status status = trm_wal_snapshot_commit(self->wal, err);
    if (status == TRM_OK)
        status = trm_wal_compact(self->wal, err);
    return status == TRM_OK ? TRM_EOF : status;
}

/* The mutex is held around it. An image that cannot be saved is dropped: the log is
 * whole without it, only longer. */
static void save_image(local_log *self)
{
    image_job job = self->image; /* nobody else touches it before it is NULL again */
    pthread_mutex_unlock(&self->mutex);
    trm_err err;
    trm_status status = save_piece(self, &job, &err);
    if (status != TRM_OK && status != TRM_EOF)
        trm_warn("the state of the job could not be saved, its log grows on: %s", err.text);
    pthread_mutex_lock(&self->mutex);
    if (status != TRM_OK) {
        free(job.bytes);
        job = (image_job){0};
    }
    self->image = job;
}

static void *log_thread(void *argument)
{
    local_log *self = argument;
    bool prepared = false;
    pthread_mutex_lock(&self->mutex);
    for (;;) {
        if (trm_wal_batch_bytes(&self->filling) > 0) {
            if (too_early(self)) {
                if (self->image.bytes)
                    save_image(self);
                else
                    wait_until(self, self->sync_begun_ns + self->sync_interval_ns);
                continue;
            }
            trm_wal_batch swap = self->writing;
            self->writing = self->filling;
            self->filling = swap;
            self->writing_last = self->filling_last;
            if (!write_batch(self))
                break;
            prepared = false;
        } else if (self->stop) {
            break;
        } else if (self->image.bytes) {
            save_image(self);
        } else if (!prepared) {
            pthread_mutex_unlock(&self->mutex);
            trm_wal_prepare(self->wal);
            pthread_mutex_lock(&self->mutex);
            prepared = true;
        } else {
            pthread_cond_wait(&self->wake, &self->mutex);
        }
    }
    pthread_mutex_unlock(&self->mutex);
    return NULL;
}

/* ---- The control loop's side. ---- */

static trm_status local_propose(trm_replog *base, const void *command, size_t len, uint64_t *index,
                                trm_err *err)
{
    local_log *self = (local_log *)base;
    if (self->health != TRM_OK)
        return trm_err_set(err, self->health, "%s", self->why.text);
    if (len > TRM_REPLOG_COMMAND_BYTES_MAX)
        return trm_err_set(err, TRM_ELIMIT, "a command of %zu bytes is to be logged; at most %u can be", len,
                           TRM_REPLOG_COMMAND_BYTES_MAX);
    size_t cost = len + COMMAND_COST_BYTES;
    if (self->pending_bytes > 0 && self->pending_bytes + cost > self->pending_bytes_max)
        return trm_err_set(err, TRM_AGAIN, "%zu bytes of commands are undecided", self->pending_bytes);
    replog_queued item = {.index = self->next_index, .term = self->term, .len = len};
    if (!replog_queue_push(&self->queue, &item, command))
        return trm_err_set(err, TRM_ENOMEM, "no memory for a command of %zu bytes", len);
    pthread_mutex_lock(&self->mutex);
    trm_wal_entry entry = {item.index, item.term, COMMAND_TYPE, command, len};
    trm_wal_batch_entry(&self->filling, &entry);
    self->filling_last = item.index;
    pthread_mutex_unlock(&self->mutex);
    self->kick = true;
    self->next_index++;
    self->pending_bytes += cost;
    self->logged_bytes += cost;
    *index = item.index;
    return TRM_OK;
}

static trm_status local_next(trm_replog *base, trm_replog_item *out)
{
    local_log *self = (local_log *)base;
    if (self->restore_due) {
        self->restore_due = false;
        *out = (trm_replog_item){TRM_REPLOG_RESTORE, self->delivered_index, self->delivered_term,
                                 self->restore, self->restore_len};
        return TRM_OK;
    }
    free(self->restore);
    self->restore = NULL;
    uint64_t index = replog_queue_peek(&self->queue);
    if (index == 0 || index > self->committed)
        return TRM_AGAIN;
    replog_queued item;
    const uint8_t *bytes = replog_queue_pop(&self->queue, &item);
    *out = (trm_replog_item){TRM_REPLOG_COMMAND, item.index, item.term, bytes, item.len};
    if (item.index > self->recovered_last)
        self->pending_bytes -= item.len + COMMAND_COST_BYTES;
    self->delivered_index = item.index;
    self->delivered_term = item.term;
    return TRM_OK;
}

static bool local_step(trm_replog *base, uint64_t now_ns, uint64_t *wake_ns)
{
    local_log *self = (local_log *)base;
    (void)now_ns;  /* the thread waits by itself, */
    (void)wake_ns; /* and the descriptor says when */
    bool news = atomic_exchange(&self->news, false);
    if (!news && !self->kick)
        return false;
    uint64_t count;
    if (news)
        while (read(self->event_fd, &count, sizeof count) < 0 && errno == EINTR)
            continue;
    uint64_t committed = self->committed;
    trm_status health = self->health;
    pthread_mutex_lock(&self->mutex);
    if (self->kick)
        pthread_cond_signal(&self->wake);
    self->kick = false;
    self->committed = self->durable;
    self->health = self->shared_health;
    if (self->health != TRM_OK && self->health != health)
        self->why = self->shared_why;
    pthread_mutex_unlock(&self->mutex);
    return committed != self->committed || health != self->health;
}

static void local_state(const trm_replog *base, trm_replog_state *out)
{
    const local_log *self = (const local_log *)base;
    *out = (trm_replog_state){
        .leader = true,
        .leader_rank = self->rank,
        .term = self->term,
        .proposed = self->next_index - 1,
        .committed = self->committed,
        .health = self->health,
        .why = self->health == TRM_OK ? "" : self->why.text,
    };
}

static int local_fd(const trm_replog *base)
{
    return ((const local_log *)base)->event_fd;
}

static bool local_wants_snapshot(const trm_replog *base)
{
    const local_log *self = (const local_log *)base;
    return self->logged_bytes >= self->snapshot_bytes && self->delivered_index > self->image_index;
}

static trm_status local_snapshot(trm_replog *base, const void *image, size_t len, trm_err *err)
{
    local_log *self = (local_log *)base;
    if (self->delivered_index <= self->image_index)
        return trm_err_set(err, TRM_AGAIN, "nothing has changed since the last image");
    uint8_t *copy = malloc(len + 1);
    if (!copy)
        return trm_err_set(err, TRM_ENOMEM, "no memory for an image of %zu bytes", len);
    memcpy(copy, image, len);
    pthread_mutex_lock(&self->mutex);
    bool busy = self->image.bytes != NULL;
    if (!busy) {
        self->image = (image_job){
            .bytes = copy, .len = len, .index = self->delivered_index, .term = self->delivered_term};
        pthread_cond_signal(&self->wake);
    }
    pthread_mutex_unlock(&self->mutex);
    if (busy) {
        free(copy);
        return trm_err_set(err, TRM_AGAIN, "an image is being saved");
    }
    self->image_index = self->delivered_index;
    self->logged_bytes = self->pending_bytes;
    /* A large image is worth saving only after as much has been logged again. */
    self->snapshot_bytes = len > self->snapshot_bytes_min ? len : self->snapshot_bytes_min;
    return TRM_OK;
}

static void local_close(trm_replog *base)
{
    local_log *self = (local_log *)base;
    if (self->thread_runs) {
        pthread_mutex_lock(&self->mutex);
        self->stop = true;
        pthread_cond_signal(&self->wake);
        pthread_mutex_unlock(&self->mutex);
        pthread_join(self->thread, NULL);
    }
    free(self->image.bytes);
    trm_wal_batch_close(&self->filling);
    trm_wal_batch_close(&self->writing);
    trm_wal_close(self->wal);
    replog_queue_close(&self->queue);
    free(self->restore);
    if (self->event_fd >= 0)
        close(self->event_fd);
    pthread_cond_destroy(&self->wake);
    pthread_mutex_destroy(&self->mutex);
    free(self);
}

/* ---- Open. ---- */

/* Takes out of the log what earlier launches have decided. */
static trm_status recover(local_log *self, trm_err *err)
{
    trm_wal_snapshot snapshot;
    trm_wal_snapshot_get(self->wal, &snapshot);
    if (snapshot.index > 0) {
        self->restore = malloc((size_t)snapshot.data_bytes + 1);
        if (!self->restore)
            return trm_err_set(err, TRM_ENOMEM, "no memory for an image of %llu bytes",
                               (unsigned long long)snapshot.data_bytes);
        trm_status status = trm_wal_snapshot_read(self->wal, 0, self->restore, (size_t)snapshot.data_bytes,
                                                  &self->restore_len, err);
        if (status != TRM_OK)
            return status;
        self->restore_due = true;
        self->delivered_index = self->image_index = snapshot.index;
        self->delivered_term = snapshot.term;
        self->snapshot_bytes =
            self->restore_len > self->snapshot_bytes_min ? self->restore_len : self->snapshot_bytes_min;
    }
    uint64_t last = trm_wal_last_index(self->wal);
    for (uint64_t index = trm_wal_first_index(self->wal); index <= last; index++) {
        trm_wal_entry entry;
        trm_wal_entry_at(self->wal, index, &entry);
        replog_queued item = {.index = index, .term = entry.term, .len = entry.len};
        if (entry.type == COMMAND_TYPE && !replog_queue_push(&self->queue, &item, entry.payload))
            return trm_err_set(err, TRM_ENOMEM, "no memory for the log's commands");
        self->logged_bytes += entry.len + COMMAND_COST_BYTES;
    }
    trm_wal_forget(self->wal);
    self->committed = self->durable = self->recovered_last = last;
    self->next_index = last + 1;
    return TRM_OK;
}

/* The term of this launch, above those of all earlier ones, durable before anything is
 * done in its name. */
static trm_status raise_term(local_log *self, trm_err *err)
{
    trm_wal_hard_state hard;
    trm_wal_hard_state_get(self->wal, &hard);
    hard = (trm_wal_hard_state){hard.term + 1, self->rank, self->committed};
    trm_wal_batch_hard_state(&self->writing, &hard);
    trm_status status = trm_wal_write(self->wal, &self->writing, err);
    if (status == TRM_OK)
        status = trm_wal_sync(self->wal, err);
    trm_wal_batch_reset(&self->writing);
    self->term = hard.term;
    return status;
}

static trm_status start_thread(local_log *self, trm_err *err)
{
    /* Signals are for the control loop. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int number = pthread_create(&self->thread, NULL, log_thread, self);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (number)
        return trm_err_errno(err, TRM_ELAUNCH, number, "cannot start the log's thread");
    self->thread_runs = true;
    return TRM_OK;
}

static const trm_replog_ops local_ops = {
    .propose = local_propose,
    .next = local_next,
    .step = local_step,
    .state = local_state,
    .fd = local_fd,
    .wants_snapshot = local_wants_snapshot,
    .snapshot = local_snapshot,
    .close = local_close,
};

static local_log *local_new(const trm_replog_local_config *config)
{
    local_log *self = calloc(1, sizeof *self);
    if (!self)
        return NULL;
    self->base.ops = &local_ops;
    self->rank = config->rank;
    self->sync_interval_ns =
        1000ull * (config->sync_interval_us ? config->sync_interval_us : SYNC_INTERVAL_US);
    self->pending_bytes_max = config->pending_bytes_max ? config->pending_bytes_max : PENDING_BYTES_MAX;
    if (self->pending_bytes_max > PENDING_BYTES_LIMIT)
        self->pending_bytes_max = PENDING_BYTES_LIMIT;
    self->snapshot_bytes_min = config->snapshot_bytes ? config->snapshot_bytes : SNAPSHOT_BYTES;
    self->snapshot_bytes = self->snapshot_bytes_min;
    trm_wal_batch_init(&self->filling);
    trm_wal_batch_init(&self->writing);
    pthread_mutex_init(&self->mutex, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&self->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    self->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return self;
}

trm_status trm_replog_local_open(trm_replog **out, const trm_replog_local_config *config, trm_err *err)
{
    local_log *self = local_new(config);
    if (!self)
        return trm_err_set(err, TRM_ENOMEM, "no memory to open the log %s", config->dir);
    char host[256] = "this host", owner[320];
    gethostname(host, sizeof host - 1);
    snprintf(owner, sizeof owner, "process %ld on host %s", (long)getpid(), host);
    trm_wal_config wal = {.create = true, .log_id = config->log_id, .owner = owner};
    trm_status status = TRM_OK;
    if (self->event_fd < 0)
        status = trm_err_errno(err, TRM_EIO, errno, "cannot make an event descriptor");
    if (status == TRM_OK)
        status = trm_wal_open(&self->wal, config->fs ? config->fs : trm_fs_posix(), config->dir, &wal, err);
    if (status == TRM_OK)
        status = recover(self, err);
    if (status == TRM_OK)
        status = raise_term(self, err);
    if (status == TRM_OK)
        status = start_thread(self, err);
    if (status != TRM_OK) {
        local_close(&self->base);
        return status;
    }
    *out = &self->base;
    return TRM_OK;
}
