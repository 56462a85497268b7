/* The part of the log that is in memory: a tail over a snapshot. Which of it has been
 * handed out to be persisted, and which is durable. No I/O.
 *
 *     base          durable        handed        last
 *      │              │              │             │
 *   ───┴──────────────┴──────────────┴─────────────┘
 *   gone   on the disk   being written   not taken yet
 */
#ifndef TRM_RUNTIME_CONSENSUS_RAFT_LOG_H
#define TRM_RUNTIME_CONSENSUS_RAFT_LOG_H

#include "runtime/consensus/raft.h"

/* Writes on their way to the disk. Of more, the newest count as one. */
#define RAFT_LOG_WRITES_MAX 64u

/* "When the write `sequence` is durable, all up to `last` is." */
typedef struct raft_log_write {
    uint64_t sequence;
    uint64_t last;
} raft_log_write;

typedef struct raft_log {
    trm_raft_entry *slots;
    size_t capacity;
    size_t head; /* the entry `base_index + 1` is slots[head] */
    size_t len;
    uint64_t base_index; /* the last one that is not here */
    uint64_t base_term;
    size_t bytes; /* of payloads, and of slots in use */
    uint64_t handed;
    uint64_t durable;
    raft_log_write writes[RAFT_LOG_WRITES_MAX];
    uint32_t writes_len;
} raft_log;

void raft_log_init(raft_log *self, uint64_t base_index, uint64_t base_term);
void raft_log_close(raft_log *self);

static inline uint64_t raft_log_last(const raft_log *self)
{
    return self->base_index + self->len;
}
/* base_index < index <= last. */
static inline const trm_raft_entry *raft_log_at(const raft_log *self, uint64_t index)
{
    return &self->slots[self->head + (size_t)(index - self->base_index - 1)];
}
/* base_index <= index <= last. */
static inline uint64_t raft_log_term(const raft_log *self, uint64_t index)
{
    return index == self->base_index ? self->base_term : raft_log_at(self, index)->term;
}
/* Whether the entry is known to be of this term: false also when it is not in memory. */
bool raft_log_has(const raft_log *self, uint64_t index, uint64_t term);
/* What an entry counts for in `bytes`. */
static inline size_t raft_log_cost(size_t len)
{
    return len + sizeof(trm_raft_entry);
}

/* Room for `more` entries behind the last, so that appends of empty entries cannot fail. */
trm_status raft_log_reserve(raft_log *self, size_t more, trm_err *err);
/* Copies of `entries`, which follow each other, in the place of what is at the index of
 * the first and behind (Raft paper, figure 2, AppendEntries rules 3 and 4). On
 * TRM_ENOMEM nothing has changed. */
trm_status raft_log_put(raft_log *self, const trm_raft_entry *entries, size_t len, trm_err *err);
/* Forgets the entries up to `index` <= durable. */
void raft_log_compact(raft_log *self, uint64_t index);
/* All is void; the log goes on behind this entry, which a durable snapshot covers. */
void raft_log_reset(raft_log *self, uint64_t index, uint64_t term);

/* The last index <= `index` (and >= base_index) whose term is not above `term`; base_index
 * when there is none. */
uint64_t raft_log_find_term(const raft_log *self, uint64_t index, uint64_t term);
/* The last TRM_RAFT_CONFIG at or before `index`; NULL: none in memory. */
const trm_raft_entry *raft_log_find_config(const raft_log *self, uint64_t index);

/* Entries that are not handed out yet; they are now, as a part of the write `sequence`. */
size_t raft_log_hand_out(raft_log *self, uint64_t sequence, const trm_raft_entry **out);
/* All writes up to `sequence` are durable. Returns whether `durable` has moved. */
bool raft_log_written(raft_log *self, uint64_t sequence);

#endif
