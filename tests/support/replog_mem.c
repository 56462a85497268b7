/* See replog_mem.h. */
#include "tests/support/replog_mem.h"

#include "tests/support/draw.h"

#include <stdlib.h>
#include <string.h>

#define PENDING_MAX 64u
#define FOLLOWER_LATE 700u  /* per thousand: it has not heard of what is committed */
#define FOLLOWER_IMAGE 200u /* … it is given the image, being behind that */

typedef struct entry {
    uint8_t *bytes;
    size_t len;
    uint64_t term;
    uint64_t due_ns;
} entry;

struct trm_log_disk {
    entry *entries; /* command number i has index i + 1 */
    size_t count, room;
    uint8_t *image;
    size_t image_len, image_count; /* commands that it covers */
    uint64_t term, bytes;
    struct mem_log *leader; /* NULL: nobody leads now */
    bool full, forget;
};

typedef struct mem_log {
    trm_replog base;
    trm_log_disk *disk;
    uint32_t rank;
    uint64_t term;  /* in which it leads, or believes so; 0: it follows */
    size_t visible; /* commands that it knows of while it only believes so */
    trm_draw draw;
    uint64_t delay_min_ns, delay_max_ns, now_ns;
    entry pending[PENDING_MAX];
    size_t pending_count;
    size_t yielded; /* commands of the disk */
    bool restored;
    unsigned snapshot_commands;
} mem_log;

static void *must(void *memory)
{
    if (!memory)
        abort();
    return memory;
}

static uint8_t *copy_of(const void *bytes, size_t len)
{
    return memcpy(must(malloc(len + 1)), bytes, len);
}

trm_log_disk *trm_log_disk_create(void)
{
    return must(calloc(1, sizeof(trm_log_disk)));
}

void trm_log_disk_destroy(trm_log_disk *self)
{
    for (size_t i = 0; i < self->count; i++)
        free(self->entries[i].bytes);
    free(self->entries);
    free(self->image);
    free(self);
}

void trm_log_disk_set_full(trm_log_disk *self, bool full)
{
    self->full = full;
}

void trm_log_disk_forget(trm_log_disk *self, bool forget)
{
    self->forget = forget;
}

uint64_t trm_log_disk_bytes(const trm_log_disk *self)
{
    return self->bytes;
}

bool trm_log_disk_command(const trm_log_disk *self, size_t at, const uint8_t **bytes, size_t *len)
{
    if (at >= self->count || !self->entries[at].bytes)
        return false;
    *bytes = self->entries[at].bytes;
    *len = self->entries[at].len;
    return true;
}

static void take(trm_log_disk *self, const entry *from)
{
    if (self->count == self->room) {
        self->room = self->room ? self->room * 2 : 64;
        self->entries = must(realloc(self->entries, self->room * sizeof *self->entries));
    }
    self->entries[self->count++] = *from;
    self->bytes += from->len;
}

static trm_status mem_propose(trm_replog *base, const void *command, size_t len, uint64_t *index,
                              trm_err *err)
{
    mem_log *self = (mem_log *)base;
    if (!self->term)
        return trm_err_set(err, TRM_EFENCED, "another rank leads");
    if (self->disk->full)
        return trm_err_set(err, TRM_ENOSPACE, "the disk is full");
    if (self->pending_count == PENDING_MAX)
        return trm_err_set(err, TRM_AGAIN, "too much is undecided");
    uint64_t spread = self->delay_max_ns - self->delay_min_ns;
    uint64_t due_ns = self->now_ns + self->delay_min_ns + (spread ? trm_draw_below(&self->draw, spread) : 0);
    if (self->pending_count && self->pending[self->pending_count - 1].due_ns > due_ns)
        due_ns = self->pending[self->pending_count - 1].due_ns;
    self->pending[self->pending_count++] =
        (entry){.bytes = copy_of(command, len), .len = len, .term = self->term, .due_ns = due_ns};
    *index = self->disk->count + self->pending_count;
    return TRM_OK;
}

static trm_status mem_next(trm_replog *base, trm_replog_item *out)
{
    mem_log *self = (mem_log *)base;
    trm_log_disk *disk = self->disk;
    bool leads = disk->leader == self, behind = self->yielded < disk->image_count;
    if (!leads && !self->term && self->restored && trm_draw_often(&self->draw, FOLLOWER_LATE))
        return TRM_AGAIN;
    if ((!self->restored && disk->image) ||
        (behind && !self->term && trm_draw_often(&self->draw, FOLLOWER_IMAGE))) {
        self->restored = true;
        self->yielded = disk->image_count;
        *out = (trm_replog_item){TRM_REPLOG_RESTORE, disk->image_count, disk->term, disk->image,
                                 disk->image_len};
        return TRM_OK;
    }
    self->restored = true;
    if (self->yielded == (leads || !self->term ? disk->count : self->visible))
        return TRM_AGAIN;
    if (disk->forget && self->yielded) {
        free(disk->entries[self->yielded - 1].bytes);
        disk->entries[self->yielded - 1].bytes = NULL;
    }
    const entry *found = &disk->entries[self->yielded++];
    *out = (trm_replog_item){TRM_REPLOG_COMMAND, self->yielded, found->term, found->bytes, found->len};
    return TRM_OK;
}

static bool mem_step(trm_replog *base, uint64_t now_ns, uint64_t *wake_ns)
{
    mem_log *self = (mem_log *)base;
    size_t done = 0;
    self->now_ns = now_ns;
    while (self->disk->leader == self && done < self->pending_count && self->pending[done].due_ns <= now_ns &&
           !self->disk->full)
        take(self->disk, &self->pending[done++]);
    self->pending_count -= done;
    memmove(self->pending, self->pending + done, self->pending_count * sizeof(entry));
    if (self->disk->leader == self && self->pending_count && self->pending[0].due_ns < *wake_ns)
        *wake_ns = self->pending[0].due_ns > now_ns ? self->pending[0].due_ns : now_ns + 1000000;
    return done > 0;
}

static void mem_state(const trm_replog *base, trm_replog_state *out)
{
    const mem_log *self = (const mem_log *)base;
    *out = (trm_replog_state){.leader = self->term != 0,
                              .leader_rank = self->term ? self->rank : TRM_REPLOG_NOBODY,
                              .term = self->term,
                              .proposed = self->disk->count + self->pending_count,
                              .committed = self->disk->count,
                              .health = self->disk->full ? TRM_ENOSPACE : TRM_OK,
                              .why = self->disk->full ? "the disk is full" : ""};
}

static int mem_fd(const trm_replog *base)
{
    return -1;
}

static bool mem_wants_snapshot(const trm_replog *base)
{
    const mem_log *self = (const mem_log *)base;
    return self->snapshot_commands && self->yielded >= self->disk->image_count + self->snapshot_commands;
}

static trm_status mem_snapshot(trm_replog *base, const void *image, size_t len, trm_err *err)
{
    mem_log *self = (mem_log *)base;
    if (self->yielded <= self->disk->image_count)
        return TRM_AGAIN;
    free(self->disk->image);
    self->disk->image = copy_of(image, len);
    self->disk->image_len = len;
    self->disk->image_count = self->yielded;
    return TRM_OK;
}

/* The first `kept` of what is pending were on enough disks, the others are lost. */
static void decide_pending(mem_log *self, size_t kept)
{
    for (size_t i = 0; i < self->pending_count; i++) {
        if (i < kept)
            take(self->disk, &self->pending[i]);
        else
            free(self->pending[i].bytes);
    }
    self->pending_count = 0;
}

static void release(mem_log *self, size_t kept)
{
    bool leads = self->disk->leader == self;
    decide_pending(self, leads ? kept : 0);
    if (leads)
        self->disk->leader = NULL;
    free(self);
}

static void mem_close(trm_replog *base)
{
    mem_log *self = (mem_log *)base;
    release(self, self->disk->full ? 0 : self->pending_count);
}

void trm_replog_mem_crash(trm_replog *base)
{
    mem_log *self = (mem_log *)base;
    release(self, self->disk->full ? 0 : trm_draw_below(&self->draw, self->pending_count + 1));
}

static const trm_replog_ops mem_ops = {.propose = mem_propose,
                                       .next = mem_next,
                                       .step = mem_step,
                                       .state = mem_state,
                                       .fd = mem_fd,
                                       .wants_snapshot = mem_wants_snapshot,
                                       .snapshot = mem_snapshot,
                                       .close = mem_close};

void trm_replog_mem_lead(trm_replog *base, uint32_t rank)
{
    mem_log *self = (mem_log *)base;
    mem_log *before = self->disk->leader;
    if (before && before != self) {
        before->visible = before->yielded;
        decide_pending(before, self->disk->full ? 0 : trm_draw_below(&self->draw, before->pending_count + 1));
    }
    decide_pending(self, 0);
    self->disk->leader = self;
    self->rank = rank;
    self->term = ++self->disk->term;
}

void trm_replog_mem_tell(trm_replog *base)
{
    mem_log *self = (mem_log *)base;
    if (self->disk->leader == self)
        return;
    decide_pending(self, 0);
    self->term = 0;
}

trm_replog *trm_replog_mem_follow(trm_log_disk *disk, uint64_t seed, uint64_t delay_min_ns,
                                  uint64_t delay_max_ns, unsigned snapshot_commands)
{
    mem_log *self = must(calloc(1, sizeof *self));
    *self = (mem_log){.base = {&mem_ops},
                      .disk = disk,
                      .draw = trm_draw_from(seed),
                      .delay_min_ns = delay_min_ns,
                      .delay_max_ns = delay_max_ns,
                      .snapshot_commands = snapshot_commands};
    return &self->base;
}

trm_replog *trm_replog_mem_open(trm_log_disk *disk, uint64_t seed, uint64_t delay_min_ns,
                                uint64_t delay_max_ns, unsigned snapshot_commands)
{
    trm_replog *log = trm_replog_mem_follow(disk, seed, delay_min_ns, delay_max_ns, snapshot_commands);
    trm_replog_mem_lead(log, 0);
    return log;
}
