#include "config.h"

#include "workers/reader.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* How far beyond its piece a last line is looked for at first. */
#define LOOKAHEAD_BYTES 4096u

void trm_record_reader_init(trm_record_reader *self, uint64_t line_bytes_max, uint64_t record_bytes_max,
                            uint64_t memory_bytes)
{
    *self = (trm_record_reader){
        .line_bytes_max = line_bytes_max,
        .record_bytes_max = record_bytes_max,
        .buffer_bytes = TRM_READER_BUFFER_BYTES,
        .room_max = memory_bytes > TRM_READER_BUFFER_BYTES ? memory_bytes : TRM_READER_BUFFER_BYTES,
    };
    self->board = &self->no_board;
}

void trm_record_reader_close(trm_record_reader *self)
{
    trm_source_destroy(&self->source);
    free(self->buffer);
    *self = (trm_record_reader){0};
}

void trm_record_reader_begin(trm_record_reader *self, const trm_plan *plan, uint32_t task, trm_board *board)
{
    trm_record_reader_end(self);
    if (self->room > 4 * self->buffer_bytes) {
        free(self->buffer);
        self->buffer = NULL;
        self->room = 0;
    }
    self->plan = plan;
    self->task = task;
    self->board = board ? board : &self->no_board;
    self->lines = plan->input == TRM_INPUT_LINES;
    static const char nothing[TRM_RECORD_PAD_BYTES + 1];
    self->record = (trm_record){.data = nothing, .path = "", .index = task, .tasks = plan->tasks};
    self->at = self->end = self->limit = self->buffer;
    self->records_in = self->bytes_before = self->base = self->from = 0;
    self->piece = self->pieces = self->pieces_before = 0;
    self->opened = self->given = self->one_line = false;
    self->board->place[0] = 0;
    __atomic_store_n(&self->board->place_offset, 0, __ATOMIC_RELAXED);
}

void trm_record_reader_end(trm_record_reader *self)
{
    trm_source_close(&self->source);
    if (self->plan) {
        self->bytes_before = trm_record_reader_bytes_in(self);
        __atomic_store_n(&self->board->bytes_in, self->bytes_before, __ATOMIC_RELAXED);
        __atomic_store_n(&self->board->records_in, self->records_in, __ATOMIC_RELAXED);
    }
    self->opened = false;
    self->lines = false;
    self->plan = NULL;
    self->at = self->end = self->limit = self->buffer;
    self->board = &self->no_board;
}

/* ---- The buffer -------------------------------------------------------------------- */

static uint64_t position(const trm_record_reader *self, const char *at)
{
    return self->base + (uint64_t)(at - self->buffer);
}

uint64_t trm_record_reader_bytes_in(const trm_record_reader *self)
{
    if (!self->opened)
        return self->bytes_before;
    uint64_t here = position(self, self->at);
    return self->bytes_before + (here > self->from ? here - self->from : 0);
}

static bool has_lines(const trm_record_reader *self)
{
    return self->plan->input == TRM_INPUT_LINES || self->plan->input == TRM_INPUT_BLOCKS;
}

static const trm_piece *piece_of(const trm_record_reader *self)
{
    return &self->ahead[self->piece];
}

static unsigned long long piece_end(const trm_record_reader *self)
{
    const trm_piece *piece = piece_of(self);
    return piece->file->gzip ? UINT64_MAX : piece->offset + piece->bytes;
}

static trm_status too_large(const trm_record_reader *self, uint64_t max, const char *option, trm_err *err)
{
    const char *path = piece_of(self)->file->path;
    if (self->plan->input == TRM_INPUT_FILES)
        return trm_err_set(err, TRM_ELIMIT,
                           "input '%s' is larger than the %llu bytes that a record may have: raise %s", path,
                           (unsigned long long)max, option);
    return trm_err_set(err, TRM_ELIMIT, "%s of input '%s' at byte %llu is longer than %llu bytes: raise %s",
                       has_lines(self) ? "the line" : "the record", path,
                       (unsigned long long)position(self, self->at), (unsigned long long)max, option);
}

/* Room for at least `want` bytes in all, that is for one record. */
static trm_status grow(trm_record_reader *self, uint64_t want, trm_err *err)
{
    if (want > self->room_max)
        return too_large(self, self->room_max, "--memory", err);
    uint64_t room = self->room ? self->room : self->buffer_bytes;
    while (room < want)
        room = room * 2;
    if (room > self->room_max)
        room = self->room_max;
    size_t at = (size_t)(self->at - self->buffer), end = (size_t)(self->end - self->buffer);
    char *buffer = realloc(self->buffer, room + TRM_RECORD_PAD_BYTES);
    if (!buffer)
        return trm_err_set(err, TRM_ENOMEM, "no memory for a record of %llu bytes of input '%s'",
                           (unsigned long long)want, piece_of(self)->file->path);
    buffer[room] = '\0'; /* some regexec look for the end of a string, whatever they are told */
    self->buffer = buffer;
    self->room = room;
    self->at = buffer + at;
    self->end = buffer + end;
    return TRM_OK;
}

static void set_limit(trm_record_reader *self)
{
    uint64_t end = piece_end(self);
    if (position(self, self->end) <= end)
        self->limit = self->end;
    else
        self->limit = end > position(self, self->at) ? self->buffer + (end - self->base) : self->at;
}

/* Moves what is left to the front and reads behind it; `self->ended` when there is no more. */
static trm_status refill(trm_record_reader *self, trm_err *err)
{
    size_t have = (size_t)(self->end - self->at);
    if (self->at > self->buffer) {
        self->base += (uint64_t)(self->at - self->buffer);
        memmove(self->buffer, self->at, have);
        self->at = self->buffer;
        self->end = self->buffer + have;
    }
    trm_status status = have == self->room ? grow(self, (uint64_t)have + 1, err) : TRM_OK;
    if (status != TRM_OK)
        return status;
    uint64_t room = self->room - have, end = piece_end(self), here = position(self, self->end);
    uint64_t beyond = have > LOOKAHEAD_BYTES ? have : LOOKAHEAD_BYTES;
    uint64_t want = here >= end ? beyond : end - here > room ? room : end - here + beyond;
    size_t got;
    status = trm_source_read(&self->source, self->buffer + have, want < room ? want : room, &got, err);
    if (status != TRM_OK)
        return status;
    self->end += got;
    self->ended = got == 0;
    set_limit(self);
    __atomic_store_n(&self->board->bytes_in, trm_record_reader_bytes_in(self) + got, __ATOMIC_RELAXED);
    __atomic_store_n(&self->board->records_in, self->records_in, __ATOMIC_RELAXED);
    return TRM_OK;
}

/* ---- Pieces ------------------------------------------------------------------------ */

static void say_place(trm_record_reader *self, const char *path, uint64_t offset)
{
    size_t len = strlen(path), room = sizeof self->board->place - 1;
    if (len > room) /* the end says more than the begin */
        path += len - room, len = room;
    memcpy(self->board->place, path, len + 1);
    __atomic_store_n(&self->board->place_offset, offset, __ATOMIC_RELAXED);
}

static void close_piece(trm_record_reader *self)
{
    self->bytes_before = trm_record_reader_bytes_in(self);
    trm_source_close(&self->source);
    self->opened = false;
    self->at = self->end = self->limit = self->buffer;
    self->piece++;
}

/* The piece begins in the middle of a line, or behind a newline: its source is opened one byte
 * before. Leaves `at` at the first line that begins in the piece or behind it. */
static trm_status skip_line(trm_record_reader *self, trm_err *err)
{
    for (;;) {
        const char *newline = memchr(self->at, '\n', (size_t)(self->end - self->at));
        self->at = newline ? newline + 1 : self->end;
        if (newline || self->ended || position(self, self->at) >= piece_end(self))
            return TRM_OK;
        trm_status status = refill(self, err);
        if (status != TRM_OK)
            return status;
    }
}

static trm_status open_piece(trm_record_reader *self, trm_err *err)
{
    const trm_piece *piece = piece_of(self);
    trm_status status = TRM_OK;
    if (!self->buffer) {
        status = grow(self, self->buffer_bytes, err);
        if (status != TRM_OK)
            return status;
    }
    bool skip = has_lines(self) && piece->offset > 0;
    uint64_t from = piece->offset - skip;
    say_place(self, piece->file->path, piece->offset);
    status = trm_source_open(&self->source, piece->file, from, err);
    if (status != TRM_OK)
        return status;
    self->record.path = piece->file->path;
    self->base = self->from = from;
    self->at = self->end = self->limit = self->buffer;
    self->opened = true;
    self->ended = self->given = false;
    if (skip) {
        status = skip_line(self, err);
        self->from = position(self, self->at);
    }
    set_limit(self);
    return status;
}

/* The next piece that has a record; TRM_EOF. */
static trm_status next_piece(trm_record_reader *self, trm_err *err)
{
    for (;;) {
        if (self->piece == self->pieces) {
            self->pieces_before += self->pieces;
            self->pieces =
                trm_plan_pieces(self->plan, self->task, self->pieces_before, self->ahead, TRM_READER_PIECES);
            self->piece = 0;
            if (self->pieces == 0)
                return TRM_EOF;
        }
        if (piece_of(self)->bytes || self->plan->input == TRM_INPUT_FILES)
            return open_piece(self, err);
        self->piece++;
    }
}

/* ---- Records ----------------------------------------------------------------------- */

static trm_status give(trm_record_reader *self, size_t len, size_t skip)
{
    const char *at = self->at;
    self->at += len + skip;
    return trm_record_reader_give(self, at, len);
}

/* Of the open piece; TRM_EOF when it has no more. No newline lies in [at, end), or the line
 * there is over the limit, or it is behind the piece. */
static trm_status advance_line(trm_record_reader *self, trm_err *err)
{
    size_t scanned = 0;
    for (;;) {
        if (position(self, self->at) >= piece_end(self))
            return TRM_EOF;
        const char *newline = memchr(self->at + scanned, '\n', (size_t)(self->end - self->at) - scanned);
        size_t len = (size_t)((newline ? newline : self->end) - self->at);
        if (len > self->line_bytes_max)
            return too_large(self, self->line_bytes_max, "--line-max", err);
        if (newline)
            return give(self, len, 1);
        if (self->ended)
            return len ? give(self, len, 0) : TRM_EOF;
        scanned = len;
        trm_status status = refill(self, err);
        if (status != TRM_OK)
            return status;
    }
}

/* What ends a block that lies in [at, end): behind the last line that begins in the piece, as far as it is
 * there, else behind the last whole line; `at` when there is none. */
static const char *block_end(const trm_record_reader *self)
{
    const char *newline = NULL;
    if (self->one_line)
        newline = memchr(self->at, '\n', (size_t)(self->end - self->at));
    else if (self->limit < self->end)
        newline = memchr(self->limit - 1, '\n', (size_t)(self->end - self->limit) + 1);
    if (!newline && !self->one_line)
        newline = memrchr(self->at, '\n', (size_t)(self->limit - self->at));
    return newline ? newline + 1 : self->at;
}

static trm_status advance_block(trm_record_reader *self, trm_err *err)
{
    while (position(self, self->at) < piece_end(self)) {
        size_t len = self->at < self->limit ? (size_t)(block_end(self) - self->at) : 0;
        if (len)
            return give(self, len, 0);
        len = (size_t)(self->end - self->at);
        if (len > self->line_bytes_max)
            return too_large(self, self->line_bytes_max, "--line-max", err);
        if (self->ended)
            return len ? give(self, len, 0) : TRM_EOF;
        trm_status status = refill(self, err);
        if (status != TRM_OK)
            return status;
    }
    return TRM_EOF;
}

static trm_status advance_fixed(trm_record_reader *self, trm_err *err)
{
    uint64_t record_bytes = self->plan->record_bytes;
    if (self->room < record_bytes) {
        trm_status status = grow(self, record_bytes, err);
        if (status != TRM_OK)
            return status;
        set_limit(self);
    }
    for (;;) {
        if (position(self, self->at) >= piece_end(self))
            return TRM_EOF;
        uint64_t have = (uint64_t)(self->end - self->at);
        if (have >= record_bytes)
            return give(self, record_bytes, 0);
        if (self->ended && have == 0)
            return TRM_EOF;
        if (self->ended)
            return trm_err_set(
                err, TRM_EINPUT,
                "input '%s' is not a multiple of the record size %llu: %llu bytes are left at byte %llu",
                self->record.path, (unsigned long long)record_bytes, (unsigned long long)have,
                (unsigned long long)position(self, self->at));
        trm_status status = refill(self, err);
        if (status != TRM_OK)
            return status;
    }
}

static trm_status advance_file(trm_record_reader *self, trm_err *err)
{
    if (self->given)
        return TRM_EOF;
    const trm_piece *piece = piece_of(self);
    if (piece->bytes > self->record_bytes_max)
        return too_large(self, self->record_bytes_max, "--record-max", err);
    /* One byte more, so that the end is seen without growing. */
    trm_status status =
        piece->file->gzip || piece->bytes < self->room ? TRM_OK : grow(self, piece->bytes + 1, err);
    while (status == TRM_OK && !self->ended) {
        status = refill(self, err);
        if (status == TRM_OK && (uint64_t)(self->end - self->at) > self->record_bytes_max)
            return too_large(self, self->record_bytes_max, "--record-max", err);
    }
    if (status != TRM_OK)
        return status;
    self->given = true;
    return give(self, (size_t)(self->end - self->at), 0);
}

static trm_status advance_in_piece(trm_record_reader *self, trm_err *err)
{
    switch ((trm_input)self->plan->input) {
    case TRM_INPUT_LINES:
        return advance_line(self, err);
    case TRM_INPUT_BLOCKS:
        return advance_block(self, err);
    case TRM_INPUT_FIXED:
        return advance_fixed(self, err);
    case TRM_INPUT_FILES:
        return advance_file(self, err);
    case TRM_INPUT_NONE:
        break;
    }
    assert(!"an input format that no plan has");
    return TRM_EOF;
}

trm_status trm_record_reader_advance(trm_record_reader *self, trm_err *err)
{
    assert(self->plan);
    if (self->plan->input == TRM_INPUT_NONE) {
        if (self->given)
            return TRM_EOF;
        self->given = true;
        self->records_in++;
        return TRM_OK;
    }
    for (;;) {
        trm_status status = self->opened ? TRM_OK : next_piece(self, err);
        if (status != TRM_OK)
            return status;
        status = advance_in_piece(self, err);
        if (status != TRM_EOF)
            return status;
        close_piece(self);
    }
}
