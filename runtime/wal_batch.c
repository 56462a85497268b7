/* The batch of the write-ahead log: records without their place, which wal_stamp gives
 * them when they are written. Pure. */
#include "runtime/wal_internal.h"

#include <assert.h>

/* Entries share a record up to this size, so that one torn block costs few. */
#define ENTRIES_BYTES_MAX (256u * 1024u)
#define NONE SIZE_MAX

void trm_wal_batch_init(trm_wal_batch *self)
{
    trm_writer_init(&self->bytes);
    self->open_at = NONE;
    self->next_index = 0;
}

void trm_wal_batch_close(trm_wal_batch *self)
{
    trm_writer_close(&self->bytes);
}

void trm_wal_batch_reset(trm_wal_batch *self)
{
    trm_writer_reset(&self->bytes);
    self->open_at = NONE;
}

static void record_begin(trm_wal_batch *self, wal_record_type type)
{
    static const uint8_t zeros[8];
    trm_put_bytes(&self->bytes, zeros, (size_t)(wal_round_up(self->bytes.len, 8) - self->bytes.len));
    self->open_at = self->bytes.len;
    uint8_t *head = trm_writer_extend(&self->bytes, WAL_RECORD_HEADER_BYTES);
    if (head) {
        memset(head, 0, WAL_RECORD_HEADER_BYTES);
        head[20] = (uint8_t)type;
    }
}

static void record_end(trm_wal_batch *self)
{
    if (!trm_writer_ok(&self->bytes))
        return;
    uint32_t len = (uint32_t)(self->bytes.len - self->open_at - WAL_RECORD_HEADER_BYTES);
    trm_store_u32(self->bytes.data + self->open_at + 8, len);
}

void trm_wal_batch_entry(trm_wal_batch *self, const trm_wal_entry *entry)
{
    assert(entry->index > 0 && entry->len <= TRM_WAL_ENTRY_BYTES_MAX);
    bool joins = self->open_at != NONE && entry->index == self->next_index &&
                 self->bytes.len - self->open_at + entry->len <= ENTRIES_BYTES_MAX;
    if (!joins) {
        record_begin(self, WAL_ENTRIES);
        trm_put_u64(&self->bytes, entry->index);
    }
    trm_put_varint(&self->bytes, entry->term);
    trm_put_u8(&self->bytes, entry->type);
    trm_put_blob(&self->bytes, entry->payload, entry->len);
    record_end(self);
    self->next_index = entry->index + 1;
}

void trm_wal_batch_hard_state(trm_wal_batch *self, const trm_wal_hard_state *hard)
{
    record_begin(self, WAL_HARD_STATE);
    trm_put_u64(&self->bytes, hard->term);
    trm_put_u64(&self->bytes, hard->vote);
    trm_put_u64(&self->bytes, hard->commit);
    record_end(self);
    self->open_at = NONE;
}

void trm_wal_batch_truncate(trm_wal_batch *self, uint64_t from_index)
{
    assert(from_index > 0);
    record_begin(self, WAL_TRUNCATE);
    trm_put_u64(&self->bytes, from_index);
    record_end(self);
    self->open_at = NONE;
}

void wal_batch_reset_to(trm_wal_batch *self, uint64_t index, uint64_t term)
{
    record_begin(self, WAL_RESET);
    trm_put_u64(&self->bytes, index);
    trm_put_u64(&self->bytes, term);
    record_end(self);
    self->open_at = NONE;
}
