#include "runtime/bytes.h"

#include <assert.h>
#include <stdlib.h>

#define WRITER_FIRST_BYTES 256u

void trm_writer_init(trm_writer *self)
{
    *self = (trm_writer){0};
}

void trm_writer_close(trm_writer *self)
{
    free(self->data);
    *self = (trm_writer){0};
}

void trm_writer_reset(trm_writer *self)
{
    self->len = 0;
    self->failed = false;
}

static bool writer_reserve(trm_writer *self, size_t more)
{
    if (self->failed)
        return false;
    if (more <= self->capacity - self->len)
        return true;
    size_t wanted = self->capacity < WRITER_FIRST_BYTES ? WRITER_FIRST_BYTES : self->capacity;
    while (wanted - self->len < more) {
        if (wanted > SIZE_MAX / 2) {
            self->failed = true;
            return false;
        }
        wanted *= 2;
    }
    uint8_t *data = realloc(self->data, wanted);
    if (!data) {
        self->failed = true;
        return false;
    }
    self->data = data;
    self->capacity = wanted;
    return true;
}

uint8_t *trm_writer_extend(trm_writer *self, size_t len)
{
    if (!writer_reserve(self, len))
        return NULL;
    uint8_t *at = self->data + self->len;
    self->len += len;
    return at;
}

void trm_put_bytes(trm_writer *self, const void *bytes, size_t len)
{
    if (len == 0)
        return;
    uint8_t *at = trm_writer_extend(self, len);
    if (at)
        memcpy(at, bytes, len);
}

void trm_put_u8(trm_writer *self, uint8_t value)
{
    trm_put_bytes(self, &value, 1);
}
void trm_put_u16(trm_writer *self, uint16_t value)
{
    trm_put_bytes(self, &value, 2);
}
void trm_put_u32(trm_writer *self, uint32_t value)
{
    trm_put_bytes(self, &value, 4);
}
void trm_put_u64(trm_writer *self, uint64_t value)
{
    trm_put_bytes(self, &value, 8);
}

void trm_put_varint(trm_writer *self, uint64_t value)
{
    uint8_t room[TRM_VARINT_BYTES_MAX];
    trm_put_bytes(self, room, (size_t)(trm_varint_store(room, value) - room));
}

void trm_put_blob(trm_writer *self, const void *bytes, size_t len)
{
    trm_put_varint(self, len);
    trm_put_bytes(self, bytes, len);
}

void trm_put_string(trm_writer *self, const char *text)
{
    trm_put_blob(self, text, strlen(text));
}

void trm_reader_init(trm_reader *self, const void *bytes, size_t len)
{
    assert(bytes || len == 0);
    self->at = bytes;
    self->end = len ? self->at + len : self->at;
    self->failed = false;
}

void trm_reader_fail(trm_reader *self)
{
    self->failed = true;
    self->at = self->end;
}

const uint8_t *trm_get_bytes(trm_reader *self, size_t len)
{
    if (self->failed || len > trm_reader_left(self)) {
        trm_reader_fail(self);
        return NULL;
    }
    const uint8_t *at = self->at;
    if (len)
        self->at += len;
    return at;
}

uint8_t trm_get_u8(trm_reader *self)
{
    const uint8_t *at = trm_get_bytes(self, 1);
    return at ? *at : 0;
}

uint16_t trm_get_u16(trm_reader *self)
{
    uint16_t value = 0;
    const uint8_t *at = trm_get_bytes(self, 2);
    if (at)
        memcpy(&value, at, 2);
    return value;
}

uint32_t trm_get_u32(trm_reader *self)
{
    const uint8_t *at = trm_get_bytes(self, 4);
    return at ? trm_load_u32(at) : 0;
}

uint64_t trm_get_u64(trm_reader *self)
{
    const uint8_t *at = trm_get_bytes(self, 8);
    return at ? trm_load_u64(at) : 0;
}

uint64_t trm_get_varint(trm_reader *self)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        const uint8_t *at = trm_get_bytes(self, 1);
        if (!at)
            return 0;
        if (shift == 63 && *at > 1)
            break; /* more than 64 bits */
        value |= (uint64_t)(*at & 0x7f) << shift;
        if (!(*at & 0x80)) {
            if (*at == 0 && shift > 0)
                break; /* not the shortest form: one value has one encoding */
            return value;
        }
    }
    trm_reader_fail(self);
    return 0;
}

uint64_t trm_get_varint_max(trm_reader *self, uint64_t max)
{
    uint64_t value = trm_get_varint(self);
    if (value > max) {
        trm_reader_fail(self);
        return 0;
    }
    return value;
}

const uint8_t *trm_get_blob(trm_reader *self, size_t max, size_t *len)
{
    size_t n = (size_t)trm_get_varint_max(self, max);
    const uint8_t *at = trm_get_bytes(self, n);
    *len = self->failed ? 0 : n;
    return self->failed ? NULL : at;
}

void trm_get_string(trm_reader *self, char *out, size_t out_bytes)
{
    assert(out_bytes > 0);
    size_t len = 0;
    const uint8_t *at = trm_get_blob(self, out_bytes - 1, &len);
    if (len && memchr(at, 0, len)) {
        trm_reader_fail(self);
        len = 0;
    }
    if (len)
        memcpy(out, at, len);
    out[len] = '\0';
}
