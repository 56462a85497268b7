/* See raft_log.h. */
#include "runtime/consensus/raft_log.h"

#include <assert.h>
#include <stdlib.h>

#define FIRST_SLOTS 64u

void raft_log_init(raft_log *self, uint64_t base_index, uint64_t base_term)
{
    *self = (raft_log){
        .base_index = base_index, .base_term = base_term, .handed = base_index, .durable = base_index};
}

/* Frees the payloads of `len` entries from the slot `at` on. */
static void drop(raft_log *self, size_t at, size_t len)
{
    for (size_t i = at; i < at + len; i++) {
        self->bytes -= raft_log_cost(self->slots[i].len);
        free((void *)(uintptr_t)self->slots[i].payload);
    }
}

void raft_log_close(raft_log *self)
{
    drop(self, self->head, self->len);
    free(self->slots);
    *self = (raft_log){0};
}

bool raft_log_has(const raft_log *self, uint64_t index, uint64_t term)
{
    return index >= self->base_index && index <= raft_log_last(self) && raft_log_term(self, index) == term;
}

/* Entries move to the front when half of the slots are free there, so that moving costs
 * no more than what was appended in between. */
trm_status raft_log_reserve(raft_log *self, size_t more, trm_err *err)
{
    if (self->head + self->len + more <= self->capacity)
        return TRM_OK;
    if (self->head > self->capacity / 2 && self->len + more <= self->capacity) {
        memmove(self->slots, self->slots + self->head, self->len * sizeof *self->slots);
        self->head = 0;
        return TRM_OK;
    }
    size_t wanted = self->capacity ? self->capacity : FIRST_SLOTS;
    while (wanted < self->head + self->len + more)
        wanted *= 2;
    trm_raft_entry *slots = realloc(self->slots, wanted * sizeof *slots);
    if (!slots)
        return trm_err_set(err, TRM_ENOMEM, "no memory for %zu entries of the replicated log", wanted);
    self->slots = slots;
    self->capacity = wanted;
    return TRM_OK;
}

/* Copies into the slots from `at` on; on failure frees what was copied. */
static trm_status stage(raft_log *self, size_t at, const trm_raft_entry *entries, size_t len, trm_err *err)
{
    for (size_t i = 0; i < len; i++) {
        uint8_t *copy = NULL;
        if (entries[i].len > 0 && !(copy = malloc(entries[i].len))) {
            while (i > 0)
                free((void *)(uintptr_t)self->slots[at + --i].payload);
            return trm_err_set(err, TRM_ENOMEM, "no memory for an entry of the replicated log");
        }
        if (entries[i].len > 0)
            memcpy(copy, entries[i].payload, entries[i].len);
        self->slots[at + i] = entries[i];
        self->slots[at + i].payload = copy;
    }
    return TRM_OK;
}

/* Writes that are on their way make nothing durable any more from `from` on: what they
 * wrote there is void, and an entry that will lie there, be it the same again, is a
 * part of a later write. */
static void truncate_from(raft_log *self, uint64_t from)
{
    size_t keep = (size_t)(from - self->base_index - 1);
    drop(self, self->head + keep, self->len - keep);
    self->len = keep;
    if (self->handed >= from)
        self->handed = from - 1;
    if (self->durable >= from)
        self->durable = from - 1;
    for (uint32_t i = 0; i < self->writes_len; i++)
        if (self->writes[i].last >= from)
            self->writes[i].last = from - 1;
}

trm_status raft_log_put(raft_log *self, const trm_raft_entry *entries, size_t len, trm_err *err)
{
    uint64_t first = entries[0].index;
    assert(first > self->base_index && first <= raft_log_last(self) + 1);
    trm_status status = raft_log_reserve(self, len, err);
    if (status != TRM_OK)
        return status;
    size_t staged = self->head + self->len;
    status = stage(self, staged, entries, len, err);
    if (status != TRM_OK)
        return status;
    if (first <= raft_log_last(self)) {
        truncate_from(self, first);
        memmove(self->slots + self->head + self->len, self->slots + staged, len * sizeof *self->slots);
    }
    self->len += len;
    for (size_t i = 0; i < len; i++)
        self->bytes += raft_log_cost(entries[i].len);
    return TRM_OK;
}

void raft_log_compact(raft_log *self, uint64_t index)
{
    if (index <= self->base_index)
        return;
    assert(index <= self->durable);
    uint64_t term = raft_log_term(self, index);
    size_t gone = (size_t)(index - self->base_index);
    drop(self, self->head, gone);
    self->head += gone;
    self->len -= gone;
    self->base_index = index;
    self->base_term = term;
}

void raft_log_reset(raft_log *self, uint64_t index, uint64_t term)
{
    drop(self, self->head, self->len);
    self->head = self->len = 0;
    self->base_index = self->handed = self->durable = index;
    self->base_term = term;
    self->writes_len = 0;
}

uint64_t raft_log_find_term(const raft_log *self, uint64_t index, uint64_t term)
{
    uint64_t low = self->base_index, high = index;
    while (low < high) { /* low may be it, all above high are not */
        uint64_t middle = low + (high - low + 1) / 2;
        if (raft_log_term(self, middle) <= term)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

const trm_raft_entry *raft_log_find_config(const raft_log *self, uint64_t index)
{
    for (; index > self->base_index; index--)
        if (raft_log_at(self, index)->type == TRM_RAFT_CONFIG)
            return raft_log_at(self, index);
    return NULL;
}

size_t raft_log_hand_out(raft_log *self, uint64_t sequence, const trm_raft_entry **out)
{
    uint64_t last = raft_log_last(self);
    if (self->handed == last)
        return 0;
    size_t len = (size_t)(last - self->handed);
    *out = raft_log_at(self, self->handed + 1);
    self->handed = last;
    if (self->writes_len < RAFT_LOG_WRITES_MAX)
        self->writes_len++;
    self->writes[self->writes_len - 1] = (raft_log_write){sequence, last};
    return len;
}

bool raft_log_written(raft_log *self, uint64_t sequence)
{
    uint32_t done = 0;
    uint64_t durable = self->durable;
    for (; done < self->writes_len && self->writes[done].sequence <= sequence; done++)
        if (self->writes[done].last > durable)
            durable = self->writes[done].last;
    if (done == 0)
        return false;
    self->writes_len -= done;
    memmove(self->writes, self->writes + done, self->writes_len * sizeof *self->writes);
    bool moved = durable > self->durable;
    self->durable = durable;
    return moved;
}
