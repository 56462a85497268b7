#include "config.h" /* system extensions, before any header of the system */

#include "runtime/replog_raft.h"

#include "runtime/diag.h"
#include "runtime/replog_queue.h"
#include "runtime/wal_writer.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FRAME_MAGIC 0x524d5254u /* "TRMR", in front of each message: others share the network */
#define FRAME_HEAD_BYTES 4u
#define SNAPSHOT_BYTES (16u * 1024u * 1024u)
#define COMMAND_COST_BYTES 24u       /* beside its bytes: the queue's and the log's own */
#define TAKES_MAX 256u               /* updates of the core in one step */
#define INSTALL_BYTES_MAX (1u << 30) /* of an image that another node sends */

_Static_assert(TRM_REPLOG_COMMAND_BYTES_MAX <= TRM_RAFT_ENTRY_BYTES_MAX, "a command is an entry");

/* An image of the state machine: what a snapshot holds. */
typedef struct image {
    uint8_t *bytes; /* NULL: none */
    size_t len;
    uint64_t index, term;
} image;

typedef struct raft_log {
    trm_replog base;
    trm_replog_raft_config config;
    trm_raft *raft;
    trm_wal_writer *writer;
    trm_raft_entry *room; /* of a message being decoded */
    trm_writer frame;     /* being encoded */
    uint64_t persisted;   /* the newest sequence that is durable */
    uint64_t disk_ns;     /* without a thread: the disk is busy until then */

    /* What next yields. */
    replog_queue queue;
    uint64_t delivered_index, delivered_term;
    image restore; /* to be yielded first; its bytes stay valid until the next call */
    bool restore_due;

    /* Images. */
    image saved;    /* the durable one: what followers that are far behind are sent */
    image saving;   /* on its way to the disk */
    image incoming; /* from the leader, chunk by chunk */
    size_t incoming_room;
    bool install_due; /* the incoming one is whole and waits for the writer */
    bool installing;
    trm_writer incoming_config;
    size_t logged_bytes, snapshot_bytes;
    uint64_t image_index; /* delivered_index when the last one was taken over */

    uint64_t proposed;
    trm_status health;
    trm_err why;
} raft_log;

static void image_free(image *self)
{
    free(self->bytes);
    *self = (image){0};
}

/* ---- Updates of the core ------------------------------------------------------------------------ */

static void fail(raft_log *self, trm_status status, const char *why)
{
    self->health = status;
    snprintf(self->why.text, sizeof self->why.text, "%s", why);
}

static void persist(raft_log *self, const trm_raft_update *update)
{
    if (!update->persist_sequence)
        return;
    trm_wal_batch *batch = trm_wal_writer_batch(self->writer);
    if (update->hard_changed)
        trm_wal_batch_hard_state(batch, &update->hard);
    for (size_t i = 0; i < update->entries_len; i++)
        trm_wal_batch_entry(batch, &update->entries[i]);
    bool ok = trm_wal_batch_ok(batch);
    trm_wal_writer_put(self->writer, update->persist_sequence);
    if (!ok) /* what is in the core and not in the log would be a lie */
        fail(self, TRM_ENOMEM, "no memory for the log's entries");
    for (size_t i = 0; i < update->entries_len; i++)
        self->logged_bytes += update->entries[i].len + COMMAND_COST_BYTES;
}

/* A chunk of the durable image, in place of the NULL that the core gives. */
static bool fill_chunk(const raft_log *self, trm_raft_message *message)
{
    const image *from = &self->saved;
    if (!from->bytes || message->snapshot.index != from->index || message->offset > from->len ||
        message->data_len > from->len - message->offset)
        return false;
    message->data = from->bytes + message->offset;
    return true;
}

static void send_messages(raft_log *self, const trm_raft_update *update)
{
    for (size_t i = 0; i < update->messages_len; i++) {
        trm_raft_message message = update->messages[i];
        if (message.type == TRM_RAFT_SNAPSHOT && !message.data && message.data_len &&
            !fill_chunk(self, &message))
            continue;
        trm_writer_reset(&self->frame);
        trm_put_u32(&self->frame, FRAME_MAGIC);
        trm_raft_message_encode(&message, &self->frame);
        if (trm_writer_ok(&self->frame))
            self->config.send(self->config.context, (uint32_t)message.to, self->frame.data, self->frame.len);
    }
}

static void apply(raft_log *self, const trm_raft_update *update)
{
    for (size_t i = 0; i < update->apply_len; i++) {
        const trm_raft_entry *entry = &update->apply[i];
        if (entry->type != TRM_RAFT_COMMAND)
            continue;
        replog_queued item = {.index = entry->index, .term = entry->term, .len = entry->len};
        if (!replog_queue_push(&self->queue, &item, entry->payload))
            fail(self, TRM_ENOMEM, "no memory for committed commands");
    }
}

/* ---- An image from the leader (thesis, figure 5.3) ------------------------------------------------ */

static bool incoming_grow(raft_log *self, size_t len)
{
    if (len <= self->incoming_room)
        return true;
    size_t room = self->incoming_room ? self->incoming_room : 64 * 1024;
    while (room < len)
        room *= 2;
    uint8_t *bytes = len <= INSTALL_BYTES_MAX ? realloc(self->incoming.bytes, room) : NULL;
    if (!bytes)
        return false;
    self->incoming.bytes = bytes;
    self->incoming_room = room;
    return true;
}

static void incoming_drop(raft_log *self)
{
    image_free(&self->incoming);
    self->incoming_room = 0;
    self->install_due = false;
}

static void take_chunk(raft_log *self, const trm_raft_snapshot_work *work)
{
    if (work->op == TRM_RAFT_SNAPSHOT_NOTHING)
        return;
    if (work->op != TRM_RAFT_SNAPSHOT_WRITE)
        incoming_drop(self);
    if (work->op == TRM_RAFT_SNAPSHOT_ABORT)
        return;
    if (work->op == TRM_RAFT_SNAPSHOT_BEGIN) {
        self->incoming.index = work->meta.index;
        self->incoming.term = work->meta.term;
        trm_writer_reset(&self->incoming_config);
        trm_put_bytes(&self->incoming_config, work->meta.config, work->meta.config_len);
    }
    size_t end = work->offset + work->data_len;
    bool ok = work->offset == self->incoming.len && incoming_grow(self, end + 1) &&
              trm_writer_ok(&self->incoming_config);
    if (ok && work->data_len)
        memcpy(self->incoming.bytes + work->offset, work->data, work->data_len);
    if (ok)
        self->incoming.len = end;
    if (!work->install)
        return; /* what could not be kept is found missing at the end */
    self->installing = true;
    self->install_due = ok;
    if (!ok) {
        incoming_drop(self);
        self->installing = false;
        trm_raft_snapshot_installed(self->raft, TRM_ENOMEM);
    }
}

/* Hands the incoming image to the writer, as soon as that has no other. */
static void install_step(raft_log *self)
{
    if (!self->install_due)
        return;
    trm_wal_snapshot meta = {.index = self->incoming.index,
                             .term = self->incoming.term,
                             .config = self->incoming_config.data,
                             .config_len = self->incoming_config.len};
    uint8_t *copy = malloc(self->incoming.len + 1);
    trm_err err = {""};
    trm_status status = TRM_ENOMEM;
    if (copy) {
        memcpy(copy, self->incoming.bytes, self->incoming.len);
        status = trm_wal_writer_save(self->writer, &meta, copy, self->incoming.len, true, &err);
    }
    if (status != TRM_OK)
        free(copy);
    if (status == TRM_AGAIN)
        return;
    self->install_due = false;
    if (status != TRM_OK) {
        self->installing = false;
        incoming_drop(self);
        trm_raft_snapshot_installed(self->raft, status);
    }
}

/* The state is the image's now: nothing that was to be yielded before it counts. */
static void installed(raft_log *self)
{
    replog_queue_close(&self->queue);
    image_free(&self->restore);
    image_free(&self->saved);
    self->saved = self->incoming;
    self->incoming = (image){0};
    self->incoming_room = 0;
    self->restore = (image){.len = self->saved.len, .index = self->saved.index, .term = self->saved.term};
    self->restore.bytes = malloc(self->saved.len + 1);
    if (!self->restore.bytes) {
        fail(self, TRM_ENOMEM, "no memory for the state that the leader sent");
        return;
    }
    memcpy(self->restore.bytes, self->saved.bytes, self->saved.len);
    self->restore_due = true;
    self->logged_bytes = 0;
}

static void image_ended(raft_log *self, const trm_wal_writer_news *news)
{
    if (self->installing && !self->install_due) { /* else it is one of our own that was under way */
        self->installing = false;
        if (news->image == TRM_OK)
            installed(self);
        else
            incoming_drop(self);
        trm_raft_snapshot_installed(self->raft, news->image);
        return;
    }
    if (news->image != TRM_OK) {
        image_free(&self->saving);
        return;
    }
    image_free(&self->saved);
    self->saved = self->saving;
    self->saving = (image){0};
    trm_wal_snapshot meta = {
        .index = self->saved.index, .term = self->saved.term, .data_bytes = self->saved.len};
    trm_raft_snapshot_saved(self->raft, &meta);
}

/* ---- A step ---------------------------------------------------------------------------------------------
 */

static bool take_updates(raft_log *self)
{
    trm_raft_update update;
    bool any = false;
    for (unsigned i = 0; i < TAKES_MAX && self->health != TRM_ENOMEM && trm_raft_take(self->raft, &update);
         i++) {
        any = true;
        persist(self, &update);
        send_messages(self, &update);
        apply(self, &update);
        take_chunk(self, &update.snapshot);
        if (!update.more)
            break;
    }
    install_step(self);
    return any;
}

static bool writer_step(raft_log *self)
{
    trm_wal_writer_news news;
    if (!trm_wal_writer_step(self->writer, &news))
        return false;
    if (news.durable > self->persisted) {
        self->persisted = news.durable;
        trm_raft_persisted(self->raft, news.durable);
    }
    if (self->health != TRM_ENOMEM && news.health != self->health) {
        trm_raft_disk_full(self->raft, news.health != TRM_OK);
        fail(self, news.health, news.why);
    }
    if (news.image_ended)
        image_ended(self, &news);
    return true;
}

static void disk_step(raft_log *self, uint64_t now_ns)
{
    while (self->config.disk_ns && now_ns >= self->disk_ns && trm_wal_writer_turn(self->writer))
        self->disk_ns = now_ns + self->config.disk_ns(self->config.context);
}

static bool raft_step(trm_replog *base, uint64_t now_ns, uint64_t *wake_ns)
{
    raft_log *self = (raft_log *)base;
    trm_err err;
    disk_step(self, now_ns);
    bool any = writer_step(self);
    if (now_ns >= trm_raft_wake_ns(self->raft))
        trm_raft_tick(self->raft, now_ns, &err); /* one that finds no memory is tried again */
    any |= take_updates(self);
    any |= writer_step(self); /* wakes the thread for what was just put */
    uint64_t due_ns = trm_raft_wake_ns(self->raft);
    if (self->config.disk_ns && trm_wal_writer_waits(self->writer) && self->disk_ns < due_ns)
        due_ns = self->disk_ns;
    *wake_ns = due_ns < *wake_ns ? due_ns : *wake_ns;
    return any;
}

bool trm_replog_raft_receive(trm_replog *log, uint32_t from, const void *bytes, size_t len, uint64_t now_ns)
{
    raft_log *self = (raft_log *)log;
    trm_raft_message message;
    trm_err err;
    if (!trm_replog_raft_is_message(bytes, len) ||
        trm_raft_message_decode(&message, self->room, (const uint8_t *)bytes + FRAME_HEAD_BYTES,
                                len - FRAME_HEAD_BYTES, &err) != TRM_OK ||
        message.from != from)
        return false;
    trm_status status = trm_raft_receive(self->raft, &message, now_ns, &err);
    if (status == TRM_EPEER)
        trm_warn("a message of rank %u contradicts the log: %s", from, err.text);
    if (message.type == TRM_RAFT_SNAPSHOT) /* the chunk lies in `bytes` */
        take_updates(self);
    return status == TRM_OK;
}

bool trm_replog_raft_is_message(const void *bytes, size_t len)
{
    return len >= FRAME_HEAD_BYTES && trm_load_u32(bytes) == FRAME_MAGIC;
}

trm_raft *trm_replog_raft_core(trm_replog *log)
{
    return ((raft_log *)log)->raft;
}

/* ---- As a trm_replog
 * --------------------------------------------------------------------------------------- */

static trm_status raft_propose(trm_replog *base, const void *command, size_t len, uint64_t *index,
                               trm_err *err)
{
    raft_log *self = (raft_log *)base;
    uint64_t term;
    if (self->health != TRM_OK)
        return trm_err_set(err, self->health, "%s", self->why.text);
    if (len > TRM_REPLOG_COMMAND_BYTES_MAX)
        return trm_err_set(err, TRM_ELIMIT, "a command of %zu bytes is to be logged; at most %u can be", len,
                           TRM_REPLOG_COMMAND_BYTES_MAX);
    trm_status status = trm_raft_propose(self->raft, command, len, index, &term, err);
    if (status == TRM_OK)
        self->proposed = *index;
    return status;
}

static trm_status raft_next(trm_replog *base, trm_replog_item *out)
{
    raft_log *self = (raft_log *)base;
    if (self->restore_due) {
        self->restore_due = false;
        self->delivered_index = self->image_index = self->restore.index;
        self->delivered_term = self->restore.term;
        *out = (trm_replog_item){TRM_REPLOG_RESTORE, self->restore.index, self->restore.term,
                                 self->restore.bytes, self->restore.len};
        return TRM_OK;
    }
    image_free(&self->restore);
    if (replog_queue_peek(&self->queue) == 0)
        return TRM_AGAIN;
    replog_queued item;
    const uint8_t *bytes = replog_queue_pop(&self->queue, &item);
    *out = (trm_replog_item){TRM_REPLOG_COMMAND, item.index, item.term, bytes, item.len};
    self->delivered_index = item.index;
    self->delivered_term = item.term;
    return TRM_OK;
}

/* It leads for those above once an entry of its term is committed: only then is all that was
 * committed before known here (thesis 3.6.2). */
static void raft_state(const trm_replog *base, trm_replog_state *out)
{
    const raft_log *self = (const raft_log *)base;
    trm_raft_state core;
    trm_raft_state_get(self->raft, &core);
    bool leads = core.role == TRM_RAFT_LEADER && core.term_committed;
    *out = (trm_replog_state){
        .leader = leads,
        .leader_rank = core.leader == TRM_RAFT_NONE || (core.leader == core.node && !leads)
                           ? TRM_REPLOG_NOBODY
                           : (uint32_t)core.leader,
        .term = core.term,
        .proposed = self->proposed,
        .committed = core.applied,
        .health = self->health,
        .why = self->health == TRM_OK ? "" : self->why.text,
    };
}

static int raft_fd(const trm_replog *base)
{
    return trm_wal_writer_fd(((const raft_log *)base)->writer);
}

static bool raft_wants_snapshot(const trm_replog *base)
{
    const raft_log *self = (const raft_log *)base;
    return self->logged_bytes >= self->snapshot_bytes && !self->saving.bytes && !self->installing &&
           self->delivered_index > self->image_index;
}

/* The image is of what next has yielded; the core speaks of what it has given out. They are the
 * same only when nothing waits in between. */
static trm_status raft_snapshot(trm_replog *base, const void *bytes, size_t len, trm_err *err)
{
    raft_log *self = (raft_log *)base;
    trm_wal_snapshot meta;
    trm_raft_snapshot_describe(self->raft, &meta);
    if (self->saving.bytes || self->installing || self->restore_due || replog_queue_peek(&self->queue) != 0 ||
        self->delivered_index <= self->image_index)
        return trm_err_set(err, TRM_AGAIN, "an image is being saved, or nothing has changed since the last");
    uint8_t *mine = malloc(len + 1), *writers = malloc(len + 1);
    trm_status status = trm_err_set(err, TRM_ENOMEM, "no memory for an image of %zu bytes", len);
    if (mine && writers) {
        memcpy(mine, bytes, len);
        memcpy(writers, bytes, len);
        status = trm_wal_writer_save(self->writer, &meta, writers, len, false, err);
    }
    if (status != TRM_OK) {
        free(mine);
        free(writers);
        return status;
    }
    self->image_index = self->delivered_index;
    self->saving = (image){.bytes = mine, .len = len, .index = meta.index, .term = meta.term};
    self->logged_bytes = 0;
    /* A large image is worth saving only after as much has been logged again. */
    size_t least = self->config.snapshot_bytes ? self->config.snapshot_bytes : SNAPSHOT_BYTES;
    self->snapshot_bytes = len > least ? len : least;
    return TRM_OK;
}

static void raft_close(trm_replog *base)
{
    raft_log *self = (raft_log *)base;
    if (self->writer) /* what was proposed since the last step */
        take_updates(self);
    trm_wal_writer_close(self->writer);
    trm_raft_destroy(self->raft);
    replog_queue_close(&self->queue);
    image_free(&self->restore);
    image_free(&self->saved);
    image_free(&self->saving);
    image_free(&self->incoming);
    trm_writer_close(&self->incoming_config);
    trm_writer_close(&self->frame);
    free(self->room);
    free(self);
}

static const trm_replog_ops raft_ops = {
    .propose = raft_propose,
    .next = raft_next,
    .step = raft_step,
    .state = raft_state,
    .fd = raft_fd,
    .wants_snapshot = raft_wants_snapshot,
    .snapshot = raft_snapshot,
    .close = raft_close,
};

/* ---- Open -------------------------------------------------------------------------------------------------
 */

/* A group that begins with a state has it as its first snapshot, the same on every first voter. */
#define FIRST_IMAGE_INDEX 1u
#define FIRST_IMAGE_TERM 1u

static trm_status enter_first_term(trm_wal *wal, trm_err *err)
{
    trm_wal_hard_state hard = {.term = FIRST_IMAGE_TERM, .vote = TRM_WAL_VOTE_NONE};
    trm_wal_batch batch;
    trm_wal_batch_init(&batch);
    trm_wal_batch_hard_state(&batch, &hard);
    trm_status status = trm_wal_batch_ok(&batch)
                            ? trm_wal_write(wal, &batch, err)
                            : trm_err_set(err, TRM_ENOMEM, "no memory for the first term");
    if (status == TRM_OK)
        status = trm_wal_sync(wal, err);
    trm_wal_batch_close(&batch);
    return status;
}

static trm_status begin_with_image(const trm_replog_raft_config *config, trm_wal *wal, trm_err *err)
{
    trm_writer members = {0};
    trm_raft_members_encode(config->first_members, &members);
    trm_wal_snapshot meta = {.index = FIRST_IMAGE_INDEX,
                             .term = FIRST_IMAGE_TERM,
                             .config = members.data,
                             .config_len = members.len};
    trm_status status =
        trm_writer_ok(&members) ? TRM_OK : trm_err_set(err, TRM_ENOMEM, "no memory for the members");
    if (status == TRM_OK)
        status = enter_first_term(wal, err);
    if (status == TRM_OK)
        status = trm_wal_snapshot_begin(wal, &meta, err);
    if (status == TRM_OK)
        status = trm_wal_snapshot_write(wal, config->image, config->image_len, err);
    if (status == TRM_OK)
        status = trm_wal_snapshot_commit(wal, err);
    trm_writer_close(&members);
    return status;
}

static trm_status read_image(raft_log *self, trm_wal *wal, const trm_wal_snapshot *snapshot, trm_err *err)
{
    size_t len = (size_t)snapshot->data_bytes, got = 0;
    image *images[] = {&self->saved, &self->restore};
    for (unsigned i = 0; i < 2; i++) {
        *images[i] =
            (image){.bytes = malloc(len + 1), .len = len, .index = snapshot->index, .term = snapshot->term};
        if (!images[i]->bytes)
            return trm_err_set(err, TRM_ENOMEM, "no memory for an image of %zu bytes", len);
    }
    trm_status status = trm_wal_snapshot_read(wal, 0, self->saved.bytes, len, &got, err);
    if (status != TRM_OK)
        return status;
    memcpy(self->restore.bytes, self->saved.bytes, len);
    self->restore_due = true;
    return TRM_OK;
}

/* The core, from what the log holds. */
static trm_status boot(raft_log *self, trm_wal *wal, uint64_t now_ns, trm_err *err)
{
    const trm_replog_raft_config *config = &self->config;
    trm_raft_boot boot;
    trm_raft_boot_init(&boot);
    trm_wal_hard_state_get(wal, &boot.hard);
    trm_wal_snapshot_get(wal, &boot.snapshot);
    uint64_t first = trm_wal_first_index(wal), last = trm_wal_last_index(wal);
    trm_raft_entry *entries = calloc((size_t)(last + 1 - first) + 1, sizeof *entries);
    if (!entries)
        return trm_err_set(err, TRM_ENOMEM, "no memory for the log's entries");
    for (uint64_t i = first; i <= last; i++)
        trm_wal_entry_at(wal, i, &entries[i - first]);
    boot.entries = entries;
    boot.entries_len = (size_t)(last + 1 - first);
    boot.first_members = config->first_members;
    trm_raft_options options = {.node = config->rank,
                                .group = config->group,
                                .seed = config->seed,
                                .election_ns = config->election_ns,
                                .keep_entries = config->keep_entries,
                                .uncommitted_bytes_max = config->pending_bytes_max,
                                .voters_wanted = config->voters_wanted};
    trm_status status = TRM_OK;
    if (boot.snapshot.index > 0)
        status = read_image(self, wal, &boot.snapshot, err);
    if (status == TRM_OK)
        status = trm_raft_create(&self->raft, &options, &boot, now_ns, err);
    free(entries);
    if (status == TRM_OK)
        trm_wal_forget(wal);
    return status;
}

static trm_status open_wal(const trm_replog_raft_config *config, trm_wal **out, trm_err *err)
{
    char host[256] = "this host", owner[320];
    gethostname(host, sizeof host - 1);
    snprintf(owner, sizeof owner, "process %ld on host %s", (long)getpid(), host);
    trm_wal_config wal = {.create = true,
                          .log_id = config->log_id,
                          .owner = owner,
                          .segment_bytes_first = config->segment_bytes};
    trm_status status = trm_wal_open(out, config->fs, config->dir, &wal, err);
    if (status != TRM_OK)
        return status;
    trm_wal_snapshot snapshot;
    trm_wal_snapshot_get(*out, &snapshot);
    bool fresh = snapshot.index == 0 && trm_wal_last_index(*out) == 0;
    if (fresh && config->first_members && config->image)
        status = begin_with_image(config, *out, err);
    if (status != TRM_OK) {
        trm_wal_close(*out);
        *out = NULL;
    }
    return status;
}

trm_status trm_replog_raft_make(const trm_replog_raft_config *config, trm_err *err)
{
    bool there = false;
    trm_wal *wal = NULL;
    trm_replog_raft_config mine = *config;
    mine.fs = config->fs ? config->fs : trm_fs_posix();
    trm_status status = trm_wal_exists(mine.fs, config->dir, &there, err);
    if (status == TRM_OK && there)
        return trm_err_set(err, TRM_AGAIN, "there is a log in %s already", config->dir);
    if (status == TRM_OK)
        status = open_wal(&mine, &wal, err);
    trm_wal_close(wal);
    return status;
}

trm_status trm_replog_raft_open(trm_replog **out, const trm_replog_raft_config *config, uint64_t now_ns,
                                trm_err *err)
{
    raft_log *self = calloc(1, sizeof *self);
    if (self)
        self->room = calloc(TRM_RAFT_MESSAGE_ENTRIES_MAX, sizeof *self->room);
    if (!self || !self->room) {
        free(self);
        return trm_err_set(err, TRM_ENOMEM, "no memory to open the log %s", config->dir);
    }
    self->base.ops = &raft_ops;
    self->config = *config;
    self->config.fs = config->fs ? config->fs : trm_fs_posix();
    self->snapshot_bytes = config->snapshot_bytes ? config->snapshot_bytes : SNAPSHOT_BYTES;
    trm_wal *wal = NULL;
    trm_status status = open_wal(&self->config, &wal, err);
    if (status == TRM_OK)
        status = boot(self, wal, now_ns, err);
    if (status == TRM_OK && config->disk_ns)
        status = trm_wal_writer_start_stepped(&self->writer, wal, err);
    else if (status == TRM_OK)
        status = trm_wal_writer_start(&self->writer, wal, config->sync_interval_us, err);
    else if (wal)
        trm_wal_close(wal);
    if (status != TRM_OK) {
        raft_close(&self->base);
        return status;
    }
    /* What was pointed to is not needed any more. */
    self->config.first_members = NULL;
    self->config.image = NULL;
    self->config.dir = NULL;
    *out = &self->base;
    return TRM_OK;
}
