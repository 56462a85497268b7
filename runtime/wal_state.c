/* See wal_state.h. */
#include "runtime/wal_state.h"

#include <assert.h>
#include <stdlib.h>

void wal_state_init(wal_state *self, bool keep)
{
    *self = (wal_state){.keep = keep, .hard.vote = TRM_WAL_VOTE_NONE};
}

void wal_state_close(wal_state *self)
{
    free(self->runs);
    free(self->kept);
    *self = (wal_state){0};
}

void wal_state_begin(wal_state *self, const wal_header *header)
{
    self->hard = header->hard;
    self->base_index = self->last_index = self->kept_base = header->first_index - 1;
    self->base_term = header->previous_term;
    self->runs_len = 0;
}

void wal_state_forget(wal_state *self)
{
    free(self->kept);
    self->kept = NULL;
    self->kept_capacity = 0;
    self->keep = false;
}

/* The run that `index` lies in. */
static size_t run_of(const wal_state *self, uint64_t index)
{
    size_t low = 0, high = self->runs_len;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (self->runs[middle].first <= index)
            low = middle;
        else
            high = middle;
    }
    return low;
}

uint64_t wal_state_term_at(const wal_state *self, uint64_t index)
{
    assert(index >= self->base_index && index <= self->last_index);
    return index == self->base_index ? self->base_term : self->runs[run_of(self, index)].term;
}

/* Voids the entries from `from` on. In a log whose first segments are gone `from` may
 * lie before what is known; then nothing is known of the entry before it either. */
static void truncate_from(wal_state *self, uint64_t from)
{
    if (from > self->last_index)
        return;
    self->last_index = from - 1;
    while (self->runs_len > 0 && self->runs[self->runs_len - 1].first >= from)
        self->runs_len--;
    if (from <= self->base_index) {
        self->base_index = self->kept_base = from - 1;
        self->base_term = 0;
    }
}

static void reset_to(wal_state *self, uint64_t index, uint64_t term)
{
    self->base_index = self->last_index = self->kept_base = index;
    self->base_term = term;
    self->runs_len = 0;
}

static void *grown(void *items, size_t *capacity, size_t item_bytes)
{
    size_t wanted = *capacity ? 2 * *capacity : 16;
    void *out = realloc(items, wanted * item_bytes);
    if (out)
        *capacity = wanted;
    return out;
}

static bool append(wal_state *self, const trm_wal_entry *entry)
{
    bool new_run = self->runs_len == 0 || self->runs[self->runs_len - 1].term != entry->term;
    if (new_run && self->runs_len == self->runs_capacity) {
        wal_run *runs = grown(self->runs, &self->runs_capacity, sizeof *runs);
        if (!runs)
            return false;
        self->runs = runs;
    }
    size_t slot = (size_t)(entry->index - self->kept_base - 1);
    if (self->keep && slot == self->kept_capacity) {
        wal_kept *kept = grown(self->kept, &self->kept_capacity, sizeof *kept);
        if (!kept)
            return false;
        self->kept = kept;
    }
    if (new_run)
        self->runs[self->runs_len++] = (wal_run){entry->index, entry->term};
    if (self->keep)
        self->kept[slot] = (wal_kept){entry->payload, entry->term, (uint32_t)entry->len, entry->type};
    self->last_index = entry->index;
    return true;
}

void wal_entries_init(wal_entries *self, const wal_record *record)
{
    trm_reader_init(&self->reader, record->payload, record->len);
    self->next_index = trm_get_u64(&self->reader);
}

bool wal_entries_next(wal_entries *self, trm_wal_entry *out)
{
    if (!trm_reader_ok(&self->reader) || trm_reader_left(&self->reader) == 0)
        return false;
    trm_wal_entry entry = {.index = self->next_index};
    entry.term = trm_get_varint(&self->reader);
    entry.type = trm_get_u8(&self->reader);
    entry.payload = trm_get_blob(&self->reader, TRM_WAL_ENTRY_BYTES_MAX, &entry.len);
    if (!trm_reader_ok(&self->reader))
        return false;
    self->next_index++;
    *out = entry;
    return true;
}

static trm_status apply_entries(wal_state *self, const wal_record *record, trm_err *err)
{
    wal_entries entries;
    wal_entries_init(&entries, record);
    uint64_t first = entries.next_index;
    if (!trm_reader_ok(&entries.reader) || first == 0 || first > self->last_index + 1)
        return trm_err_set(err, TRM_ECORRUPT, "entries from %llu on do not follow entry %llu",
                           (unsigned long long)first, (unsigned long long)self->last_index);
    truncate_from(self, first);
    trm_wal_entry entry;
    while (wal_entries_next(&entries, &entry)) {
        if (entry.term < wal_state_term_at(self, self->last_index))
            return trm_err_set(err, TRM_ECORRUPT, "entry %llu has an older term than the one before it",
                               (unsigned long long)entry.index);
        if (!append(self, &entry))
            return trm_err_set(err, TRM_ENOMEM, "no memory for the log's entries");
    }
    if (!trm_reader_done(&entries.reader) || self->last_index < first)
        return trm_err_set(err, TRM_ECORRUPT, "entries from %llu on are malformed",
                           (unsigned long long)first);
    return TRM_OK;
}

static trm_status apply_hard_state(wal_state *self, trm_reader *reader, trm_err *err)
{
    trm_wal_hard_state hard = {trm_get_u64(reader), trm_get_u64(reader), trm_get_u64(reader)};
    if (!trm_reader_done(reader) || hard.term < self->hard.term)
        return trm_err_set(err, TRM_ECORRUPT, "the term goes back from %llu to %llu",
                           (unsigned long long)self->hard.term, (unsigned long long)hard.term);
    self->hard = hard;
    return TRM_OK;
}

trm_status wal_state_apply(wal_state *self, const wal_record *record, trm_err *err)
{
    trm_reader reader;
    trm_reader_init(&reader, record->payload, record->len);
    if (record->type == WAL_ENTRIES)
        return apply_entries(self, record, err);
    if (record->type == WAL_HARD_STATE)
        return apply_hard_state(self, &reader, err);
    uint64_t index = trm_get_u64(&reader);
    uint64_t term = record->type == WAL_RESET ? trm_get_u64(&reader) : 0;
    if (!trm_reader_done(&reader) || index == 0 || index > WAL_INDEX_MAX)
        return trm_err_set(err, TRM_ECORRUPT, "a record of type %u is malformed", record->type);
    if (record->type == WAL_RESET)
        reset_to(self, index, term);
    else
        truncate_from(self, index);
    return TRM_OK;
}

bool wal_state_cover(wal_state *self, uint64_t index, uint64_t term)
{
    if (index < self->base_index || index > self->last_index || wal_state_term_at(self, index) != term) {
        reset_to(self, index, term);
        return false;
    }
    size_t run = index < self->last_index ? run_of(self, index + 1) : self->runs_len;
    self->runs_len -= run;
    for (size_t i = 0; i < self->runs_len; i++)
        self->runs[i] = self->runs[run + i];
    if (self->runs_len > 0)
        self->runs[0].first = index + 1;
    self->base_index = index;
    self->base_term = term;
    return true;
}
