/* The records of a task's input: lines, fixed records, whole files, or none.
 *
 *     pieces of the task ─▶ source (plain, gzip) ─▶ one buffer ─▶ records, in place
 *
 * Nothing is lost or read twice where splits meet: a line belongs to the piece in which it
 * begins, so a piece that begins inside a line (the byte before it is no newline) skips to the
 * next one, and the last line of a piece is read beyond its end. A last line without a newline
 * is a line. Records lie in the buffer; only what is cut by its end is moved, once a refill.
 *
 * Memory: TRM_READER_BUFFER_BYTES, more only for a record that is larger and until the next
 * task, and TRM_SOURCE_GZIP_BYTES once there was a gzip file.
 */
#ifndef TRM_WORKERS_READER_H
#define TRM_WORKERS_READER_H

#include "workers/attempt.h"
#include "workers/reader_source.h"

#define TRM_READER_BUFFER_BYTES (256u * 1024u)
#define TRM_READER_PIECES 16u

typedef struct trm_record_reader {
    /* Hot: what every record touches. */
    const char *at, *end; /* of the buffer: what is not given out yet */
    const char *limit;    /* no line begins at or behind it */
    trm_record record;    /* the last one given out; valid until the next call */
    uint64_t base;        /* offset of buffer[0] in the uncompressed file */
    uint64_t line_bytes_max;
    uint64_t records_in;
    trm_board *board;
    bool lines;

    /* Private. */
    char *buffer;
    size_t room;
    size_t buffer_bytes; /* what it begins with; tests make it small */
    uint64_t room_max;   /* as far as the buffer may grow */
    uint64_t record_bytes_max;
    const trm_plan *plan; /* NULL: no task */
    uint32_t task;
    unsigned piece, pieces, pieces_before; /* the open piece, of those in `ahead`, and before them */
    trm_piece ahead[TRM_READER_PIECES];
    bool opened;           /* ahead[piece] is being read */
    bool ended;            /* its source has no more bytes */
    bool one_line;         /* blocks are of one line each: the caller's, from begin to end */
    bool given;            /* its whole file, or the only record of a task without input */
    uint64_t from;         /* where its first record begins */
    uint64_t bytes_before; /* consumed of the task's pieces before it */
    trm_source source;
    trm_board no_board;
} trm_record_reader;

/* `memory_bytes` bounds what one record may take. Allocates nothing yet. */
void trm_record_reader_init(trm_record_reader *self, uint64_t line_bytes_max, uint64_t record_bytes_max,
                            uint64_t memory_bytes);
void trm_record_reader_close(trm_record_reader *self);

/* Begins a task; `plan` and `board` (which may be NULL) are borrowed until end. Opens nothing
 * yet. */
void trm_record_reader_begin(trm_record_reader *self, const trm_plan *plan, uint32_t task, trm_board *board);
/* The slow way to the next record. */
trm_status trm_record_reader_advance(trm_record_reader *self, trm_err *err);
/* Closes what is open; safe in every state. */
void trm_record_reader_end(trm_record_reader *self);
/* Uncompressed bytes of the records given out so far, newlines included. */
uint64_t trm_record_reader_bytes_in(const trm_record_reader *self);

static inline trm_status trm_record_reader_give(trm_record_reader *self, const char *at, size_t len)
{
    self->record.data = at;
    self->record.len = len;
    self->record.offset = self->base + (uint64_t)(at - self->buffer);
    self->records_in++;
    __atomic_store_n(&self->board->place_offset, self->record.offset, __ATOMIC_RELAXED);
    return TRM_OK;
}

/* The next record, in self->record; TRM_EOF after the last. TRM_EINPUT and the like as
 * reader_source.h says; TRM_ELIMIT names a line or file that is over its limit, its place and
 * the option that raises it. */
static inline trm_status trm_record_reader_next(trm_record_reader *self, trm_err *err)
{
    if (self->lines && self->at < self->limit) {
        const char *newline = memchr(self->at, '\n', (size_t)(self->end - self->at));
        if (newline && (uint64_t)(newline - self->at) <= self->line_bytes_max) {
            const char *line = self->at;
            self->at = newline + 1;
            return trm_record_reader_give(self, line, (size_t)(newline - line));
        }
    }
    return trm_record_reader_advance(self, err);
}

#endif
