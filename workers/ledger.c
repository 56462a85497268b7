/* See ledger.h. Entries lie in an array, and are found by a table of chains. */
#include "workers/ledger.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define ROOM_FIRST 64u
#define EMPTY ((ledger_list){LEDGER_NONE, LEDGER_NONE})

void trm_ledger_init(trm_ledger *self)
{
    *self = (trm_ledger){.free = LEDGER_NONE, .held = EMPTY, .due = EMPTY, .kept = EMPTY};
}

void trm_ledger_close(trm_ledger *self)
{
    ledger_list lists[] = {self->due, self->kept};
    for (unsigned i = 0; i < 2; i++)
        for (uint32_t at = lists[i].first; at != LEDGER_NONE; at = self->entry[at].next)
            free(self->entry[at].bytes);
    free(self->entry);
    free(self->bucket);
    trm_ledger_init(self);
}

/* ---- Lists ------------------------------------------------------------------------------------ */

static void put(trm_ledger *self, ledger_list *list, uint32_t at)
{
    ledger_entry *entry = &self->entry[at];
    entry->next = LEDGER_NONE;
    entry->previous = list->last;
    *(list->last == LEDGER_NONE ? &list->first : &self->entry[list->last].next) = at;
    list->last = at;
}

static void take(trm_ledger *self, ledger_list *list, uint32_t at)
{
    ledger_entry *entry = &self->entry[at];
    *(entry->previous == LEDGER_NONE ? &list->first : &self->entry[entry->previous].next) = entry->next;
    *(entry->next == LEDGER_NONE ? &list->last : &self->entry[entry->next].previous) = entry->previous;
}

/* ---- Finding ---------------------------------------------------------------------------------- */

static uint32_t *bucket_of(const trm_ledger *self, const trm_order *order)
{
    uint64_t key = ((uint64_t)order->attempt << 32 | order->task) * 4 + order->phase;
    return &self->bucket[(uint32_t)((key * 0x9e3779b97f4a7c15u) >> 32) & (self->room - 1)];
}

static bool is_of(const ledger_entry *entry, const trm_order *order)
{
    return entry->order.task == order->task && entry->order.attempt == order->attempt &&
           entry->order.phase == order->phase;
}

static uint32_t find(const trm_ledger *self, const trm_order *order)
{
    if (!self->room)
        return LEDGER_NONE;
    uint32_t at = *bucket_of(self, order);
    while (at != LEDGER_NONE && !is_of(&self->entry[at], order))
        at = self->entry[at].chain;
    return at;
}

static void chain_in(trm_ledger *self, uint32_t at)
{
    uint32_t *bucket = bucket_of(self, &self->entry[at].order);
    self->entry[at].chain = *bucket;
    *bucket = at;
}

static void chain_out(trm_ledger *self, uint32_t at)
{
    uint32_t *link = bucket_of(self, &self->entry[at].order);
    while (*link != at)
        link = &self->entry[*link].chain;
    *link = self->entry[at].chain;
}

/* ---- In and out -------------------------------------------------------------------------------- */

static bool grow(trm_ledger *self)
{
    uint32_t room = self->room ? self->room * 2 : ROOM_FIRST, was = self->room;
    ledger_entry *entry = realloc(self->entry, room * sizeof *entry);
    if (!entry)
        return false;
    self->entry = entry;
    uint32_t *bucket = malloc(room * sizeof *bucket);
    if (!bucket)
        return false;
    free(self->bucket);
    self->bucket = bucket;
    self->room = room;
    memset(bucket, 0xff, room * sizeof *bucket); /* LEDGER_NONE */
    for (uint32_t i = 0; i < was; i++)           /* all are in use: that is why it grows */
        chain_in(self, i);
    for (uint32_t i = room; i-- > was;) {
        self->entry[i] = (ledger_entry){.order = {.phase = UINT8_MAX}, .chain = self->free};
        self->free = i;
    }
    return true;
}

trm_status trm_ledger_add(trm_ledger *self, const trm_order *order)
{
    if (find(self, order) != LEDGER_NONE)
        return TRM_AGAIN;
    if (self->free == LEDGER_NONE && !grow(self))
        return TRM_ENOMEM;
    uint32_t at = self->free;
    self->free = self->entry[at].chain;
    self->entry[at] = (ledger_entry){.order = *order};
    chain_in(self, at);
    put(self, &self->held, at);
    self->count++;
    return TRM_OK;
}

static void forget(trm_ledger *self, uint32_t at)
{
    ledger_entry *entry = &self->entry[at];
    chain_out(self, at);
    self->bytes -= entry->len;
    free(entry->bytes);
    *entry = (ledger_entry){.order = {.phase = UINT8_MAX}, .chain = self->free};
    self->free = at;
    self->count--;
}

bool trm_ledger_report(trm_ledger *self, const trm_order *order, const void *bytes, size_t len)
{
    assert(len > 0 && len <= TRM_MESSAGE_BYTES_MAX);
    uint32_t at = find(self, order);
    if (at == LEDGER_NONE || self->entry[at].len)
        return false;
    ledger_entry *entry = &self->entry[at];
    take(self, &self->held, at);
    entry->bytes = malloc(len);
    if (!entry->bytes) {
        forget(self, at);
        return false;
    }
    memcpy(entry->bytes, bytes, len);
    entry->len = (uint32_t)len;
    self->bytes += len;
    self->due_bytes += len;
    put(self, &self->due, at);
    return true;
}

bool trm_ledger_settle(trm_ledger *self, const trm_order *order)
{
    uint32_t at = find(self, order);
    if (at == LEDGER_NONE || !self->entry[at].len)
        return false;
    bool sent = self->entry[at].sent;
    take(self, sent ? &self->kept : &self->due, at);
    self->due_bytes -= sent ? 0 : self->entry[at].len;
    forget(self, at);
    return true;
}

bool trm_ledger_cancel(trm_ledger *self, const trm_order *order)
{
    uint32_t at = find(self, order);
    if (at == LEDGER_NONE || self->entry[at].len)
        return false;
    self->entry[at].cancelled = true;
    return true;
}

bool trm_ledger_is_cancelled(const trm_ledger *self, const trm_order *order)
{
    uint32_t at = find(self, order);
    return at != LEDGER_NONE && self->entry[at].cancelled;
}

/* ---- Sending ------------------------------------------------------------------------------------ */

const ledger_entry *trm_ledger_due(const trm_ledger *self)
{
    return self->due.first == LEDGER_NONE ? NULL : &self->entry[self->due.first];
}

const ledger_entry *trm_ledger_after(const trm_ledger *self, const ledger_entry *entry)
{
    return entry->next == LEDGER_NONE ? NULL : &self->entry[entry->next];
}

void trm_ledger_sent(trm_ledger *self, uint32_t count)
{
    while (count-- > 0) {
        uint32_t at = self->due.first;
        assert(at != LEDGER_NONE);
        take(self, &self->due, at);
        self->due_bytes -= self->entry[at].len;
        self->entry[at].sent = true;
        put(self, &self->kept, at);
    }
}

void trm_ledger_send_again(trm_ledger *self)
{
    if (self->kept.first == LEDGER_NONE)
        return;
    for (uint32_t at = self->kept.first; at != LEDGER_NONE; at = self->entry[at].next)
        self->entry[at].sent = false;
    if (self->due.first == LEDGER_NONE) {
        self->due = self->kept;
    } else {
        self->entry[self->kept.last].next = self->due.first;
        self->entry[self->due.first].previous = self->kept.last;
        self->due.first = self->kept.first;
    }
    self->kept = EMPTY;
    self->due_bytes = self->bytes;
}

bool trm_ledger_next(const trm_ledger *self, uint32_t *at, trm_order *out)
{
    while (*at < self->room && self->entry[*at].order.phase == UINT8_MAX)
        ++*at;
    if (*at >= self->room)
        return false;
    *out = self->entry[(*at)++].order;
    return true;
}
