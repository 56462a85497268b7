#include "config.h" /* system extensions, before any header of the system */

#include "runtime/wal_writer.h"

#include "runtime/clock.h"
#include "runtime/diag.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* A batch of this size does not wait for its turn. */
#define EAGER_BYTES (256u * 1024u)
/* An image is written in pieces, between which the log goes on. */
#define PIECE_BYTES (1024u * 1024u)
#define NO_SPACE_RETRY_MS 50u

typedef struct image_job {
    uint8_t *bytes; /* NULL: none */
    uint8_t *config;
    size_t len;
    size_t written;
    bool begun, install;
    trm_wal_snapshot meta;
} image_job;

struct trm_wal_writer {
    int event_fd;
    bool kick; /* the control loop's own: something was put since the last step */

    /* Shared, under the mutex. */
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    trm_wal_batch filling, later; /* later: behind an image that is being installed */
    uint64_t filling_mark, later_mark;
    uint64_t durable;
    trm_status health;
    trm_err why;
    image_job image;
    bool image_ended, stop;
    trm_status image_status;
    uint64_t image_index;
    atomic_bool news;

    /* The thread's own. */
    pthread_t thread;
    bool runs;
    bool prepared; /* the segment that comes next */
    bool unsynced; /* without a thread: `writing` is written */
    trm_wal *wal;
    trm_wal_batch writing;
    uint64_t writing_mark;
    uint64_t sync_interval_ns, sync_begun_ns;
    trm_err told_why; /* the control loop's copy */
};

/* ---- The thread ------------------------------------------------------------------------------ */

/* The mutex is held, as where the news are taken: else the descriptor could stay readable with none. */
static void tell(trm_wal_writer *self)
{
    atomic_store(&self->news, true);
    uint64_t one = 1;
    while (self->event_fd >= 0 && write(self->event_fd, &one, sizeof one) < 0 && errno == EINTR)
        continue;
}

/* Waits until woken or `deadline_ns`; the mutex is held. */
static void wait_until(trm_wal_writer *self, uint64_t deadline_ns)
{
    struct timespec at = {(time_t)(deadline_ns / TRM_NS_PER_S), (long)(deadline_ns % TRM_NS_PER_S)};
    pthread_cond_timedwait(&self->wake, &self->mutex, &at);
}

/* Under the mutex: the state of health that the control loop will see. */
static void report(trm_wal_writer *self, trm_status health, const trm_err *why)
{
    self->health = health;
    if (health != TRM_OK)
        self->why = *why;
    tell(self);
}

static void written(trm_wal_writer *self)
{
    self->durable = self->writing_mark;
    trm_wal_batch_reset(&self->writing);
    report(self, TRM_OK, NULL);
}

/* Writes and syncs `writing`, trying again for as long as the disk is full. Returns false when
 * the log has failed or is to stop. The mutex is held around it. */
static bool write_batch(trm_wal_writer *self)
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
            written(self);
            return true;
        }
        if (self->health != status)
            report(self, status, &err);
        if (status != TRM_ENOSPACE || self->stop)
            return false;
        wait_until(self, trm_clock_now_ns() + NO_SPACE_RETRY_MS * TRM_NS_PER_MS);
    }
}

/* Whether `filling` should wait for its turn: few bytes, and a sync not long ago. */
static bool too_early(const trm_wal_writer *self)
{
    return !self->stop && !self->image.install && trm_wal_batch_bytes(&self->filling) < EAGER_BYTES &&
           trm_clock_now_ns() < self->sync_begun_ns + self->sync_interval_ns;
}

/* One step of saving an image: begin, a piece, or commit. TRM_EOF: it is saved. */
static trm_status save_piece(trm_wal_writer *self, image_job *job, trm_err *err)
{
    if (!job->begun) {
        job->begun = true;
        return trm_wal_snapshot_begin(self->wal, &job->meta, err);
    }
    if (job->written < job->len) {
        size_t piece = job->len - job->written < PIECE_BYTES ? job->len - job->written : PIECE_BYTES;
        job->written += piece;
        return trm_wal_snapshot_write(self->wal, job->bytes + job->written - piece, piece, err);
    }
    trm_status status = trm_wal_snapshot_commit(self->wal, err);
    trm_err ignored;
    if (status == TRM_OK) /* what cannot be removed now is removed later */
        trm_wal_compact(self->wal, &ignored);
    return status == TRM_OK ? TRM_EOF : status;
}

static void image_free(image_job *job)
{
    free(job->bytes);
    free(job->config);
    *job = (image_job){0};
}

/* The batch that had to wait for the image is the one to be filled now. */
static void release_later(trm_wal_writer *self)
{
    if (trm_wal_batch_bytes(&self->later) == 0)
        return;
    trm_wal_batch swap = self->filling;
    self->filling = self->later;
    self->filling_mark = self->later_mark;
    self->later = swap;
    trm_wal_batch_reset(&self->later);
}

/* The mutex is held around it. An image of one's own that cannot be saved is dropped: the log is
 * whole without it, only longer. */
static void save_image(trm_wal_writer *self)
{
    image_job job = self->image; /* nobody else touches it before it is NULL again */
    pthread_mutex_unlock(&self->mutex);
    trm_err err;
    trm_status status = save_piece(self, &job, &err);
    if (status != TRM_OK && status != TRM_EOF) {
        trm_wal_snapshot_abort(self->wal);
        trm_warn("the state of the job could not be saved, its log grows on: %s", err.text);
    }
    pthread_mutex_lock(&self->mutex);
    self->image = job;
    if (status == TRM_OK)
        return;
    self->image_ended = true;
    self->image_status = status == TRM_EOF ? TRM_OK : status;
    self->image_index = job.meta.index;
    image_free(&self->image);
    release_later(self);
    tell(self);
}

static void take_filling(trm_wal_writer *self)
{
    trm_wal_batch swap = self->writing;
    self->writing = self->filling;
    self->writing_mark = self->filling_mark;
    self->filling = swap;
    self->prepared = false;
}

static bool batch_turn(trm_wal_writer *self)
{
    take_filling(self);
    return write_batch(self);
}

static void *thread_main(void *argument)
{
    trm_wal_writer *self = argument;
    bool sound = true;
    pthread_mutex_lock(&self->mutex);
    while (sound) {
        if (trm_wal_batch_bytes(&self->filling) > 0 && !too_early(self)) {
            sound = batch_turn(self);
        } else if (self->image.bytes && !self->stop) {
            save_image(self);
        } else if (trm_wal_batch_bytes(&self->filling) > 0) {
            wait_until(self, self->sync_begun_ns + self->sync_interval_ns);
        } else if (self->stop) {
            break;
        } else if (!self->prepared) {
            pthread_mutex_unlock(&self->mutex);
            trm_wal_prepare(self->wal);
            pthread_mutex_lock(&self->mutex);
            self->prepared = true;
        } else {
            pthread_cond_wait(&self->wake, &self->mutex);
        }
    }
    pthread_mutex_unlock(&self->mutex);
    return NULL;
}

/* ---- Without a thread ------------------------------------------------------------------------- */

bool trm_wal_writer_waits(const trm_wal_writer *self)
{
    bool failed = self->health != TRM_OK && self->health != TRM_ENOSPACE;
    return !failed && (trm_wal_batch_bytes(&self->writing) || trm_wal_batch_bytes(&self->filling) ||
                       self->image.bytes || !self->prepared);
}

/* A write, and the next time the sync of it. */
static void batch_piece(trm_wal_writer *self)
{
    trm_err err;
    trm_status status =
        self->unsynced ? trm_wal_sync(self->wal, &err) : trm_wal_write(self->wal, &self->writing, &err);
    self->unsynced = status == TRM_OK && !self->unsynced;
    if (status == TRM_OK && !self->unsynced)
        written(self);
    else if (status != TRM_OK && self->health != status)
        report(self, status, &err);
}

bool trm_wal_writer_turn(trm_wal_writer *self)
{
    assert(!self->runs);
    if (!trm_wal_writer_waits(self))
        return false;
    pthread_mutex_lock(&self->mutex);
    if (!trm_wal_batch_bytes(&self->writing) && trm_wal_batch_bytes(&self->filling))
        take_filling(self);
    bool batch = trm_wal_batch_bytes(&self->writing) > 0;
    if (batch)
        batch_piece(self);
    else if (self->image.bytes)
        save_image(self);
    pthread_mutex_unlock(&self->mutex);
    if (!batch && !self->prepared && !self->image.bytes) {
        trm_wal_prepare(self->wal);
        self->prepared = true;
    }
    return true;
}

/* ---- The control loop's side ------------------------------------------------------------------- */

trm_wal_batch *trm_wal_writer_batch(trm_wal_writer *self)
{
    pthread_mutex_lock(&self->mutex);
    return self->image.install ? &self->later : &self->filling;
}

void trm_wal_writer_put(trm_wal_writer *self, uint64_t mark)
{
    if (self->image.install)
        self->later_mark = mark;
    else
        self->filling_mark = mark;
    self->kick = true;
    pthread_mutex_unlock(&self->mutex);
}

trm_status trm_wal_writer_save(trm_wal_writer *self, const trm_wal_snapshot *meta, uint8_t *bytes, size_t len,
                               bool install, trm_err *err)
{
    image_job job = {.bytes = bytes, .len = len, .install = install, .meta = *meta};
    job.config = malloc(meta->config_len + 1);
    if (!job.config)
        return trm_err_set(err, TRM_ENOMEM, "no memory to save an image");
    if (meta->config_len)
        memcpy(job.config, meta->config, meta->config_len);
    job.meta.config = job.config;
    pthread_mutex_lock(&self->mutex);
    bool busy = self->image.bytes != NULL;
    if (!busy) {
        self->image = job;
        pthread_cond_signal(&self->wake);
    }
    pthread_mutex_unlock(&self->mutex);
    if (!busy)
        return TRM_OK;
    free(job.config);
    return trm_err_set(err, TRM_AGAIN, "an image is being saved");
}

bool trm_wal_writer_step(trm_wal_writer *self, trm_wal_writer_news *out)
{
    if (!atomic_load(&self->news) && !self->kick)
        return false;
    uint64_t count;
    pthread_mutex_lock(&self->mutex);
    bool news = atomic_exchange(&self->news, false);
    if (news && self->event_fd >= 0)
        while (read(self->event_fd, &count, sizeof count) < 0 && errno == EINTR)
            continue;
    if (self->kick)
        pthread_cond_signal(&self->wake);
    self->kick = false;
    if (self->health != TRM_OK)
        self->told_why = self->why;
    *out = (trm_wal_writer_news){.durable = self->durable,
                                 .health = self->health,
                                 .why = self->health == TRM_OK ? "" : self->told_why.text,
                                 .image_ended = self->image_ended,
                                 .image = self->image_status,
                                 .image_index = self->image_index};
    self->image_ended = false;
    pthread_mutex_unlock(&self->mutex);
    return news;
}

int trm_wal_writer_fd(const trm_wal_writer *self)
{
    return self->event_fd;
}

/* ---- Begin and end ------------------------------------------------------------------------------- */

void trm_wal_writer_close(trm_wal_writer *self)
{
    if (!self)
        return;
    if (self->runs) {
        pthread_mutex_lock(&self->mutex);
        self->stop = true;
        pthread_cond_signal(&self->wake);
        pthread_mutex_unlock(&self->mutex);
        pthread_join(self->thread, NULL);
    }
    while (!self->runs && self->health == TRM_OK && (self->unsynced || trm_wal_batch_bytes(&self->filling)))
        trm_wal_writer_turn(self);
    image_free(&self->image);
    trm_wal_batch_close(&self->filling);
    trm_wal_batch_close(&self->later);
    trm_wal_batch_close(&self->writing);
    trm_wal_close(self->wal);
    if (self->event_fd >= 0)
        close(self->event_fd);
    pthread_cond_destroy(&self->wake);
    pthread_mutex_destroy(&self->mutex);
    free(self);
}

static trm_status start_thread(trm_wal_writer *self, trm_err *err)
{
    /* Signals are for the control loop. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int number = pthread_create(&self->thread, NULL, thread_main, self);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (number)
        return trm_err_errno(err, TRM_ELAUNCH, number, "cannot start the log's thread");
    self->runs = true;
    return TRM_OK;
}

static trm_status make(trm_wal_writer **out, trm_wal *wal, trm_err *err)
{
    trm_wal_writer *self = calloc(1, sizeof *self);
    if (!self) {
        trm_wal_close(wal);
        return trm_err_set(err, TRM_ENOMEM, "no memory for the log's writer");
    }
    self->wal = wal;
    self->event_fd = -1;
    trm_wal_batch_init(&self->filling);
    trm_wal_batch_init(&self->later);
    trm_wal_batch_init(&self->writing);
    pthread_mutex_init(&self->mutex, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&self->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    *out = self;
    return TRM_OK;
}

trm_status trm_wal_writer_start(trm_wal_writer **out, trm_wal *wal, uint32_t sync_interval_us, trm_err *err)
{
    trm_wal_writer *self;
    trm_status status = make(&self, wal, err);
    if (status != TRM_OK)
        return status;
    self->sync_interval_ns = 1000ull * (sync_interval_us ? sync_interval_us : TRM_WAL_SYNC_INTERVAL_US);
    self->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    status = self->event_fd < 0 ? trm_err_errno(err, TRM_EIO, errno, "cannot make an event descriptor")
                                : start_thread(self, err);
    if (status != TRM_OK) {
        trm_wal_writer_close(self);
        return status;
    }
    *out = self;
    return TRM_OK;
}

trm_status trm_wal_writer_start_stepped(trm_wal_writer **out, trm_wal *wal, trm_err *err)
{
    return make(out, wal, err);
}
