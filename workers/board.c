/* See board.h. */
#include "workers/board.h"

#include "runtime/crc32c.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RECORD_HEADER_BYTES 8u
#define PAGE_BYTES 4096u

_Static_assert(sizeof(trm_lane) % PAGE_BYTES == 0, "lanes are unmapped one by one");
_Static_assert((TRM_RING_BYTES & (TRM_RING_BYTES - 1)) == 0, "positions wrap");
_Static_assert(TRM_RING_RECORD_BYTES_MAX * 2 < TRM_RING_BYTES, "a record always fits at last");

trm_status trm_lanes_init(trm_lanes *self, unsigned count, trm_err *err)
{
    size_t bytes = count * sizeof(trm_lane) + PAGE_BYTES;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return trm_err_set(err, TRM_ENOMEM, "no memory to share with %u executors", count);
    *self = (trm_lanes){.lane = memory, .count = count, .bytes = bytes};
    self->keep_scratch = (uint32_t *)(void *)(self->lane + count);
    for (unsigned i = 0; i < count; i++)
        trm_lane_reset(&self->lane[i], 1);
    return TRM_OK;
}

void trm_lanes_close(trm_lanes *self)
{
    if (self->lane)
        munmap(self->lane, self->bytes);
    memset(self, 0, sizeof *self);
}

void trm_lanes_keep_only(trm_lanes *self, unsigned index)
{
    /* A machine with larger pages keeps some of the neighbours: munmap refuses then. */
    if (index > 0)
        munmap(self->lane, index * sizeof(trm_lane));
    munmap(self->lane + index + 1, self->bytes - (index + 1) * sizeof(trm_lane));
    self->keep_scratch = NULL;
}

void trm_lane_reset(trm_lane *self, uint64_t generation)
{
    memset(&self->board, 0, sizeof self->board);
    memset(&self->fault, 0, sizeof self->fault);
    self->board.generation = generation;
    self->board.task_key = TRM_IDLE;
    self->pid = self->words_end = self->words_since = 0;
    self->words_busy = 0;
    self->tail = 0;
    __atomic_store_n(&self->head, 0, __ATOMIC_RELEASE);
}

/* ---- The ring ------------------------------------------------------------------ */

static void copy_in(trm_lane *self, uint64_t at, const void *bytes, size_t len)
{
    size_t begin = (size_t)(at & (TRM_RING_BYTES - 1));
    size_t first = len < TRM_RING_BYTES - begin ? len : TRM_RING_BYTES - begin;
    memcpy(self->ring + begin, bytes, first);
    memcpy(self->ring, (const uint8_t *)bytes + first, len - first);
}

static void copy_out(const trm_lane *self, uint64_t at, void *out, size_t len)
{
    size_t begin = (size_t)(at & (TRM_RING_BYTES - 1));
    size_t first = len < TRM_RING_BYTES - begin ? len : TRM_RING_BYTES - begin;
    memcpy(out, self->ring + begin, first);
    memcpy((uint8_t *)out + first, self->ring, len - first);
}

static uint64_t record_bytes(size_t len)
{
    return RECORD_HEADER_BYTES + ((len + 7) & ~(uint64_t)7);
}

uint64_t trm_lane_filled(const trm_lane *self)
{
    return __atomic_load_n(&self->head, __ATOMIC_RELAXED) - __atomic_load_n(&self->tail, __ATOMIC_ACQUIRE);
}

trm_status trm_lane_put(trm_lane *self, const void *bytes, size_t len)
{
    assert(len <= TRM_RING_RECORD_BYTES_MAX);
    if (trm_lane_filled(self) + record_bytes(len) > TRM_RING_BYTES)
        return TRM_AGAIN;
    uint8_t header[RECORD_HEADER_BYTES];
    trm_store_u32(header, (uint32_t)len);
    trm_store_u32(header + 4, trm_crc32c(0, bytes, len));
    copy_in(self, self->head, header, sizeof header);
    copy_in(self, self->head + sizeof header, bytes, len);
    __atomic_store_n(&self->head, self->head + record_bytes(len), __ATOMIC_RELEASE);
    return TRM_OK;
}

trm_status trm_lane_take(trm_lane *self, uint8_t *out, size_t *len)
{
    uint64_t head = __atomic_load_n(&self->head, __ATOMIC_ACQUIRE), tail = self->tail;
    if (head == tail)
        return TRM_AGAIN;
    uint64_t filled = head - tail;
    if (filled > TRM_RING_BYTES || filled < RECORD_HEADER_BYTES)
        return TRM_ECORRUPT;
    uint8_t header[RECORD_HEADER_BYTES];
    copy_out(self, tail, header, sizeof header);
    uint32_t want = trm_load_u32(header);
    if (want > TRM_RING_RECORD_BYTES_MAX || record_bytes(want) > filled)
        return TRM_ECORRUPT;
    copy_out(self, tail + sizeof header, out, want);
    if (trm_crc32c(0, out, want) != trm_load_u32(header + 4))
        return TRM_ECORRUPT;
    __atomic_store_n(&self->tail, tail + record_bytes(want), __ATOMIC_RELEASE);
    *len = want;
    return TRM_OK;
}

/* ---- The last words -------------------------------------------------------------- */

void trm_lane_words_add(trm_lane *self, const char *bytes, size_t len)
{
    uint64_t end = self->words_end;
    if (len > TRM_WORDS_BYTES) {
        end += len - TRM_WORDS_BYTES;
        bytes += len - TRM_WORDS_BYTES;
        len = TRM_WORDS_BYTES;
    }
    for (size_t i = 0; i < len; i++)
        self->words[(end + i) % TRM_WORDS_BYTES] = bytes[i];
    __atomic_store_n(&self->words_end, end + len, __ATOMIC_RELEASE);
}

/* What a terminal could take for a command is shown as '?'. */
static char printable(char byte)
{
    unsigned char c = (unsigned char)byte;
    return (c >= 0x20 && c != 0x7f) || c == '\n' || c == '\t' ? byte : '?';
}

size_t trm_lane_words(const trm_lane *self, uint64_t since, char *out, size_t out_bytes)
{
    assert(out_bytes > 0);
    uint64_t end = __atomic_load_n(&self->words_end, __ATOMIC_ACQUIRE);
    uint64_t most = out_bytes - 1 < TRM_WORDS_BYTES ? out_bytes - 1 : TRM_WORDS_BYTES;
    uint64_t len = since < end ? end - since : 0;
    bool cut = len > most;
    if (cut)
        len = most;
    size_t used = 0;
    for (uint64_t at = end - len; at < end; at++)
        out[used++] = printable(self->words[at % TRM_WORDS_BYTES]);
    out[used] = 0;
    /* A line that was cut at its begin says so. */
    if (cut && used > 3)
        memcpy(out, "...", 3);
    while (used > 0 && out[used - 1] == '\n')
        out[--used] = 0;
    return used;
}
