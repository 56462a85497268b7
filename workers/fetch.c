/* See fetch.h. Extracts are found by their id (a hash table of chains), and each is in at most
 * one list: waiting at its peer, at its peer with more to ask for, or done. */
#include "workers/fetch.h"

#include "runtime/clock.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX
#define BUCKETS_MIN 64u
#define EXTRACT_BYTES_MAX (1ull << 46)

typedef enum place { IN_NO_LIST = 0, IN_WAITING, IN_MORE, IN_DONE } place;

typedef struct extract {
    trm_extract_id id;
    uint32_t from;
    uint8_t place;
    bool used, active;
    uint32_t next, previous; /* in its list, or of the free ones */
    uint32_t next_hashed;    /* in its bucket */
    uint64_t total;          /* 0: not known yet */
    uint64_t asked, got;
    trm_file *file;
    trm_status status;
    char *why; /* of a failure; may be NULL */
} extract;

typedef struct list {
    uint32_t first, last;
} list;

typedef struct peer {
    list waiting, more;
    uint32_t credits; /* out */
    bool busy;        /* in the list of those */
} peer;

typedef struct credit {
    uint32_t extract; /* NONE: free */
    uint32_t bytes;
    uint32_t tries;
    uint64_t offset;
    uint64_t due_ns; /* to be answered until then */
} credit;

struct trm_fetcher {
    trm_fs *fs;
    trm_sender *sender;
    const char *run_store;
    uint32_t ranks;
    char kind;
    peer *peers;
    uint32_t *busy; /* peers with something to ask for, or asked */
    uint32_t busy_count, turn;
    extract *extracts;
    uint32_t count, room, free;
    uint32_t open; /* wanted and not at their end */
    uint32_t active;
    uint32_t *buckets, buckets_count;
    list done;
    credit credits[TRM_FETCH_CREDITS_ALL];
    uint32_t credits_out;
    uint64_t bytes;
};

/* ---- Lists and table --------------------------------------------------------------------- */

static list *list_of(trm_fetcher *self, const extract *of)
{
    return of->place == IN_DONE      ? &self->done
           : of->place == IN_WAITING ? &self->peers[of->from].waiting
                                     : &self->peers[of->from].more;
}

static void list_add(trm_fetcher *self, uint32_t number, place where)
{
    extract *added = &self->extracts[number];
    assert(added->place == IN_NO_LIST);
    added->place = (uint8_t)where;
    list *to = list_of(self, added);
    added->next = NONE;
    added->previous = to->last;
    *(to->last == NONE ? &to->first : &self->extracts[to->last].next) = number;
    to->last = number;
}

static void list_remove(trm_fetcher *self, uint32_t number)
{
    extract *gone = &self->extracts[number];
    if (gone->place == IN_NO_LIST)
        return;
    list *from = list_of(self, gone);
    *(gone->previous == NONE ? &from->first : &self->extracts[gone->previous].next) = gone->next;
    *(gone->next == NONE ? &from->last : &self->extracts[gone->next].previous) = gone->previous;
    gone->place = IN_NO_LIST;
}

static uint32_t hash(const trm_extract_id *id)
{
    uint64_t z = ((uint64_t)id->task << 32 | id->attempt) * 0x9e3779b97f4a7c15ull;
    z ^= ((uint64_t)id->first << 32 | id->last) * 0xbf58476d1ce4e5b9ull;
    return (uint32_t)((z ^ (z >> 29)) * 0x94d049bb133111ebull >> 32);
}

static bool same(const trm_extract_id *a, const trm_extract_id *b)
{
    return a->task == b->task && a->attempt == b->attempt && a->first == b->first && a->last == b->last;
}

static uint32_t find(const trm_fetcher *self, const trm_extract_id *id)
{
    uint32_t at = self->buckets[hash(id) & (self->buckets_count - 1)];
    while (at != NONE && !same(&self->extracts[at].id, id))
        at = self->extracts[at].next_hashed;
    return at;
}

static void hash_in(trm_fetcher *self, uint32_t number)
{
    uint32_t *bucket = &self->buckets[hash(&self->extracts[number].id) & (self->buckets_count - 1)];
    self->extracts[number].next_hashed = *bucket;
    *bucket = number;
}

static void hash_out(trm_fetcher *self, uint32_t number)
{
    uint32_t *at = &self->buckets[hash(&self->extracts[number].id) & (self->buckets_count - 1)];
    while (*at != number)
        at = &self->extracts[*at].next_hashed;
    *at = self->extracts[number].next_hashed;
}

/* Twice the extracts, as many buckets. */
static bool grow(trm_fetcher *self)
{
    uint32_t room = self->room ? self->room * 2 : BUCKETS_MIN;
    extract *extracts = realloc(self->extracts, room * sizeof *extracts);
    if (!extracts)
        return false;
    self->extracts = extracts;
    uint32_t *buckets = malloc(room * sizeof *buckets);
    if (!buckets)
        return false;
    free(self->buckets);
    self->buckets = buckets;
    self->buckets_count = self->room = room;
    for (uint32_t i = 0; i < room; i++)
        buckets[i] = NONE;
    for (uint32_t i = 0; i < self->count; i++)
        if (extracts[i].used)
            hash_in(self, i);
    return true;
}

static uint32_t extract_make(trm_fetcher *self)
{
    uint32_t number = self->free;
    if (number != NONE) {
        self->free = self->extracts[number].next;
        return number;
    }
    return self->count == self->room && !grow(self) ? NONE : self->count++;
}

static void extract_free(trm_fetcher *self, uint32_t number)
{
    extract *gone = &self->extracts[number];
    assert(!gone->file && !gone->active);
    list_remove(self, number);
    hash_out(self, number);
    free(gone->why);
    *gone = (extract){.next = self->free};
    self->free = number;
}

/* ---- Making -------------------------------------------------------------------------------- */

trm_status trm_fetcher_create(trm_fetcher **out, trm_fs *fs, trm_sender *sender, const char *run_store,
                              uint32_t ranks, char kind, trm_err *err)
{
    trm_fetcher *self = calloc(1, sizeof *self);
    if (self) {
        *self = (trm_fetcher){
            .fs = fs, .sender = sender, .run_store = run_store, .ranks = ranks, .kind = kind, .free = NONE};
        self->done = (list){NONE, NONE};
        self->peers = malloc(ranks * sizeof *self->peers);
        self->busy = malloc(ranks * sizeof *self->busy);
        for (uint32_t i = 0; self->peers && i < ranks; i++)
            self->peers[i] = (peer){.waiting = {NONE, NONE}, .more = {NONE, NONE}};
        for (uint32_t i = 0; i < TRM_FETCH_CREDITS_ALL; i++)
            self->credits[i].extract = NONE;
        if (self->peers && self->busy && grow(self)) {
            *out = self;
            return TRM_OK;
        }
    }
    trm_fetcher_destroy(self);
    return trm_err_set(err, TRM_ENOMEM, "no memory to fetch from %u ranks", ranks);
}

void trm_fetcher_path(const trm_fetcher *self, const trm_extract_id *id, char *out)
{
    int len = snprintf(out, TRM_FETCH_PATH_BYTES, "%s/%c%u.e%llu.a%u.p%u-%u.run", self->run_store, self->kind,
                       id->task, (unsigned long long)self->sender->epoch, id->attempt, id->first, id->last);
    assert(len > 0 && (size_t)len < TRM_FETCH_PATH_BYTES);
    (void)len;
}

static void close_file(trm_fetcher *self, extract *of, bool remove)
{
    char path[TRM_FETCH_PATH_BYTES];
    if (of->file)
        self->fs->ops->close(of->file);
    bool was_made = of->file || of->status == TRM_OK;
    of->file = NULL;
    if (!remove || !was_made)
        return;
    trm_fetcher_path(self, &of->id, path);
    self->fs->ops->remove(self->fs, path, NULL);
}

void trm_fetcher_destroy(trm_fetcher *self)
{
    if (!self)
        return;
    for (uint32_t i = 0; i < self->count; i++) {
        if (self->extracts[i].file)
            close_file(self, &self->extracts[i], true);
        free(self->extracts[i].why);
    }
    free(self->extracts);
    free(self->buckets);
    free(self->peers);
    free(self->busy);
    free(self);
}

/* ---- Wanting --------------------------------------------------------------------------------- */

static void make_busy(trm_fetcher *self, uint32_t number)
{
    if (self->peers[number].busy)
        return;
    self->peers[number].busy = true;
    self->busy[self->busy_count++] = number;
}

static void drop_credits(trm_fetcher *self, uint32_t number)
{
    for (uint32_t i = 0; i < TRM_FETCH_CREDITS_ALL && self->credits_out; i++) {
        if (self->credits[i].extract != number)
            continue;
        self->credits[i].extract = NONE;
        self->credits_out--;
        self->peers[self->extracts[number].from].credits--;
    }
}

static void deactivate(trm_fetcher *self, uint32_t number)
{
    drop_credits(self, number);
    if (self->extracts[number].active)
        self->active--;
    self->extracts[number].active = false;
}

static void forget(trm_fetcher *self, uint32_t number)
{
    extract *gone = &self->extracts[number];
    deactivate(self, number);
    if (gone->place != IN_DONE)
        self->open--;
    close_file(self, gone, true);
    extract_free(self, number);
}

void trm_fetcher_forget(trm_fetcher *self, const trm_extract_id *id)
{
    char path[TRM_FETCH_PATH_BYTES];
    uint32_t number = find(self, id);
    if (number != NONE) {
        forget(self, number);
        return;
    }
    trm_fetcher_path(self, id, path);
    self->fs->ops->remove(self->fs, path, NULL);
}

trm_status trm_fetcher_want(trm_fetcher *self, const trm_extract_id *id, uint32_t from)
{
    assert(from < self->ranks && id->first < id->last);
    uint32_t number = find(self, id);
    if (number != NONE && self->extracts[number].from == from && self->extracts[number].place != IN_DONE)
        return TRM_OK;
    if (number != NONE)
        forget(self, number);
    number = extract_make(self);
    if (number == NONE)
        return TRM_ENOMEM;
    self->extracts[number] = (extract){.id = *id, .from = from, .used = true, .status = TRM_AGAIN};
    hash_in(self, number);
    list_add(self, number, IN_WAITING);
    self->open++;
    make_busy(self, from);
    return TRM_OK;
}

/* ---- The end of one --------------------------------------------------------------------------- */

static void finish(trm_fetcher *self, uint32_t number, trm_status status, const char *why)
{
    extract *ended = &self->extracts[number];
    assert(ended->place != IN_DONE);
    deactivate(self, number);
    close_file(self, ended, status != TRM_OK);
    ended->status = status;
    ended->why = why ? strdup(why) : NULL;
    self->open--;
    list_remove(self, number);
    list_add(self, number, IN_DONE);
}

bool trm_fetcher_next(trm_fetcher *self, trm_extract_id *id, trm_status *status, trm_err *err)
{
    uint32_t number = self->done.first;
    if (number == NONE)
        return false;
    const extract *ended = &self->extracts[number];
    *id = ended->id;
    *status = ended->status;
    trm_err_set(err, ended->status, "%s", ended->why ? ended->why : "");
    extract_free(self, number);
    return true;
}

/* ---- Blocks in ---------------------------------------------------------------------------------- */

static credit *credit_of(trm_fetcher *self, uint32_t number, uint64_t offset)
{
    for (uint32_t i = 0; i < TRM_FETCH_CREDITS_ALL; i++)
        if (self->credits[i].extract == number && self->credits[i].offset == offset)
            return &self->credits[i];
    return NULL;
}

static void refused(trm_fetcher *self, uint32_t number, trm_status status)
{
    trm_err err;
    const extract *of = &self->extracts[number];
    trm_err_set(&err, status, "rank %u cannot read the run of map task %u, attempt %u (%s)", of->from,
                of->id.task, of->id.attempt, trm_status_name(status));
    finish(self, number, status == TRM_ECORRUPT ? TRM_ECORRUPT : TRM_ELOST, err.text);
}

static trm_status write_block(trm_fetcher *self, extract *to, const trm_block *block, trm_err *err)
{
    char path[TRM_FETCH_PATH_BYTES];
    trm_fetcher_path(self, &to->id, path);
    trm_status status = TRM_OK;
    if (!to->file)
        status = self->fs->ops->open(self->fs, path, TRM_FS_WRITE | TRM_FS_CREATE | TRM_FS_TRUNCATE,
                                     &to->file, err);
    if (status == TRM_OK)
        status = self->fs->ops->write_at(to->file, block->offset, block->bytes, block->bytes_len, err);
    return status;
}

/* What a block has left open of its credit: a peer may send less than was asked for. */
static void settle(trm_fetcher *self, credit *answered, const trm_block *block)
{
    extract *of = &self->extracts[answered->extract];
    uint64_t end = answered->offset + answered->bytes;
    if (end > of->total)
        end = of->total;
    if (block->offset + block->bytes_len < end) {
        answered->bytes = (uint32_t)(end - block->offset - block->bytes_len);
        answered->offset = block->offset + block->bytes_len;
        answered->due_ns = 0; /* asked for at the next step */
        answered->tries = 0;
        return;
    }
    answered->extract = NONE;
    self->credits_out--;
    self->peers[of->from].credits--;
}

bool trm_fetcher_take(trm_fetcher *self, uint32_t from, const trm_block *block, uint64_t now_ns)
{
    trm_extract_id id = {block->task, block->attempt, block->first, block->last};
    uint32_t number = find(self, &id);
    extract *to = number == NONE ? NULL : &self->extracts[number];
    credit *answered = to && to->from == from && to->active ? credit_of(self, number, block->offset) : NULL;
    if (!answered || (block->status == TRM_OK && block->bytes_len > answered->bytes))
        return false;
    if (block->status != TRM_OK) {
        refused(self, number, (trm_status)block->status);
        return true;
    }
    bool first = to->total == 0;
    if (block->bytes_len == 0 || block->total_bytes > EXTRACT_BYTES_MAX ||
        (!first && block->total_bytes != to->total)) {
        refused(self, number, TRM_ECORRUPT);
        return true;
    }
    trm_err err;
    trm_status status = write_block(self, to, block, &err);
    if (status != TRM_OK) {
        finish(self, number, status, err.text);
        return true;
    }
    to->total = block->total_bytes;
    to->got += block->bytes_len;
    self->bytes += block->bytes_len;
    settle(self, answered, block);
    if (first && to->asked < to->total)
        list_add(self, number, IN_MORE);
    if (to->got == to->total)
        finish(self, number, TRM_OK, NULL);
    return true;
}

/* ---- Asking ------------------------------------------------------------------------------------- */

static bool ask(trm_fetcher *self, credit *with, uint64_t now_ns)
{
    const extract *of = &self->extracts[with->extract];
    trm_fetch fetch = {.task = of->id.task,
                       .attempt = of->id.attempt,
                       .first = of->id.first,
                       .last = of->id.last,
                       .offset = with->offset,
                       .bytes = with->bytes};
    trm_fetch_encode(&fetch, trm_sender_begin(self->sender, TRM_WIRE_FETCH));
    if (trm_sender_send(self->sender, of->from) != TRM_OK)
        return false;
    with->due_ns = now_ns + TRM_FETCH_TIMEOUT_MS * TRM_NS_PER_MS;
    return true;
}

/* The next block of an extract, with a new credit. */
static bool ask_next(trm_fetcher *self, uint32_t number, uint64_t now_ns)
{
    extract *of = &self->extracts[number];
    credit *with = NULL;
    for (uint32_t i = 0; !with && i < TRM_FETCH_CREDITS_ALL; i++)
        if (self->credits[i].extract == NONE)
            with = &self->credits[i];
    assert(with);
    uint64_t left = of->total ? of->total - of->asked : TRM_FETCH_BLOCK_BYTES;
    *with = (credit){.extract = number,
                     .offset = of->asked,
                     .bytes = left < TRM_FETCH_BLOCK_BYTES ? (uint32_t)left : TRM_FETCH_BLOCK_BYTES};
    if (!ask(self, with, now_ns)) {
        *with = (credit){.extract = NONE};
        return false;
    }
    of->asked += with->bytes;
    self->credits_out++;
    self->peers[of->from].credits++;
    return true;
}

/* One more question to a peer; false: it has all that it may have now. */
static bool ask_peer(trm_fetcher *self, uint32_t number, uint64_t now_ns)
{
    peer *to = &self->peers[number];
    if (to->credits == TRM_FETCH_CREDITS || self->credits_out == TRM_FETCH_CREDITS_ALL)
        return false;
    uint32_t at = to->more.first;
    if (at != NONE) {
        if (!ask_next(self, at, now_ns))
            return false;
        if (self->extracts[at].asked >= self->extracts[at].total)
            list_remove(self, at);
        return true;
    }
    at = to->waiting.first;
    if (at == NONE || self->active == TRM_FETCH_CREDITS_ALL || !ask_next(self, at, now_ns))
        return false;
    list_remove(self, at);
    self->extracts[at].active = true;
    self->active++;
    return true;
}

static void give_up(trm_fetcher *self, uint32_t number)
{
    trm_err err;
    trm_err_set(&err, TRM_ELOST, "rank %u does not answer", self->extracts[number].from);
    finish(self, number, TRM_ELOST, err.text);
}

/* Questions that were not answered in time, or not wholly. */
static bool ask_again(trm_fetcher *self, uint64_t now_ns)
{
    bool asked = false;
    for (uint32_t i = 0; i < TRM_FETCH_CREDITS_ALL && self->credits_out; i++) {
        credit *with = &self->credits[i];
        if (with->extract == NONE)
            continue;
        if (now_ns < with->due_ns)
            continue;
        if (with->due_ns != 0 && ++with->tries >= TRM_FETCH_TRIES) {
            give_up(self, with->extract);
            asked = true;
        } else {
            asked |= ask(self, with, now_ns);
        }
    }
    return asked;
}

static uint64_t next_due_ns(const trm_fetcher *self, uint64_t now_ns)
{
    uint64_t next_ns = UINT64_MAX;
    for (uint32_t i = 0; i < TRM_FETCH_CREDITS_ALL && self->credits_out; i++)
        if (self->credits[i].extract != NONE && self->credits[i].due_ns < next_ns)
            next_ns = self->credits[i].due_ns;
    return next_ns > now_ns ? next_ns : now_ns + TRM_NS_PER_MS; /* the transport had no room */
}

/* Peers take turns, one question each, so that no one keeps the others waiting. */
static bool ask_new(trm_fetcher *self, uint64_t now_ns)
{
    bool asked = false;
    for (uint32_t idle = 0; self->busy_count && idle < self->busy_count;) {
        self->turn %= self->busy_count;
        uint32_t number = self->busy[self->turn];
        peer *to = &self->peers[number];
        if (ask_peer(self, number, now_ns)) {
            asked = true;
            idle = 0;
            self->turn++;
        } else if (!to->credits && to->waiting.first == NONE && to->more.first == NONE) {
            to->busy = false;
            self->busy[self->turn] = self->busy[--self->busy_count];
        } else {
            idle++;
            self->turn++;
        }
    }
    return asked;
}

bool trm_fetcher_step(trm_fetcher *self, uint64_t now_ns, uint64_t *wake_ns)
{
    if (self->busy_count == 0)
        return false;
    bool asked = ask_again(self, now_ns);
    asked |= self->credits_out < TRM_FETCH_CREDITS_ALL && ask_new(self, now_ns);
    uint64_t next_ns = next_due_ns(self, now_ns);
    *wake_ns = next_ns < *wake_ns ? next_ns : *wake_ns;
    return asked;
}

uint64_t trm_fetcher_bytes(const trm_fetcher *self)
{
    return self->bytes;
}
uint32_t trm_fetcher_open(const trm_fetcher *self)
{
    return self->open;
}
