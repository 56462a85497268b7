/* Bytes out and bytes in: the one way that messages, log records and file
 * headers are encoded and decoded.
 *
 * All integers are little-endian or LEB128 varints. A writer grows a buffer and
 * remembers the first failure; a reader walks over bytes that it does not own
 * and remembers the first overrun. Neither needs a check after every call: check
 * `trm_writer_ok` / `trm_reader_done` once at the end. After a failure a reader
 * returns zeros and NULLs, so that a decoder cannot walk away with stale data.
 */
#ifndef TRM_RUNTIME_BYTES_H
#define TRM_RUNTIME_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define TRM_VARINT_BYTES_MAX 10u

/* A growing buffer. Zero-initialise, or trm_writer_init; release with
 * trm_writer_close. `failed` is set when memory was refused. */
typedef struct trm_writer {
    uint8_t *data;
    size_t len;
    size_t capacity;
    bool failed;
} trm_writer;

void trm_writer_init(trm_writer *self);
void trm_writer_close(trm_writer *self);
/* Forgets the content and the failure, keeps the memory. */
void trm_writer_reset(trm_writer *self);
static inline bool trm_writer_ok(const trm_writer *self)
{
    return !self->failed;
}
/* Room for `len` more bytes at the end, which count at once; NULL on failure.
 * Valid until the next call on the writer. */
uint8_t *trm_writer_extend(trm_writer *self, size_t len);

void trm_put_u8(trm_writer *self, uint8_t value);
void trm_put_u16(trm_writer *self, uint16_t value);
void trm_put_u32(trm_writer *self, uint32_t value);
void trm_put_u64(trm_writer *self, uint64_t value);
void trm_put_varint(trm_writer *self, uint64_t value);
void trm_put_bytes(trm_writer *self, const void *bytes, size_t len);
/* varint length, then the bytes. */
void trm_put_blob(trm_writer *self, const void *bytes, size_t len);
void trm_put_string(trm_writer *self, const char *text);

/* A cursor over bytes of somebody else. */
typedef struct trm_reader {
    const uint8_t *at;
    const uint8_t *end;
    bool failed;
} trm_reader;

void trm_reader_init(trm_reader *self, const void *bytes, size_t len);
static inline size_t trm_reader_left(const trm_reader *self)
{
    return (size_t)(self->end - self->at);
}
static inline bool trm_reader_ok(const trm_reader *self)
{
    return !self->failed;
}
/* No failure and nothing left over: what a whole message must end with. */
static inline bool trm_reader_done(const trm_reader *self)
{
    return !self->failed && self->at == self->end;
}
/* Marks the reader failed: for a decoder that finds a value out of its range. */
void trm_reader_fail(trm_reader *self);

uint8_t trm_get_u8(trm_reader *self);
uint16_t trm_get_u16(trm_reader *self);
uint32_t trm_get_u32(trm_reader *self);
uint64_t trm_get_u64(trm_reader *self);
uint64_t trm_get_varint(trm_reader *self);
/* A varint that must not be above `max`. */
uint64_t trm_get_varint_max(trm_reader *self, uint64_t max);
/* `len` bytes in place; NULL on overrun. */
const uint8_t *trm_get_bytes(trm_reader *self, size_t len);
/* A blob in place, of at most `max` bytes; sets *len, returns NULL on failure
 * (and for an empty blob a pointer that must not be read). */
const uint8_t *trm_get_blob(trm_reader *self, size_t max, size_t *len);
/* A blob copied as a terminated string into `out` of `out_bytes`; fails on
 * overrun and on an embedded NUL. */
void trm_get_string(trm_reader *self, char *out, size_t out_bytes);

/* Unchecked little-endian access for hot loops. */
static inline uint32_t trm_load_u32(const void *at)
{
    uint32_t v;
    memcpy(&v, at, 4);
    return v;
}
static inline uint64_t trm_load_u64(const void *at)
{
    uint64_t v;
    memcpy(&v, at, 8);
    return v;
}
static inline void trm_store_u32(void *at, uint32_t v)
{
    memcpy(at, &v, 4);
}
static inline void trm_store_u64(void *at, uint64_t v)
{
    memcpy(at, &v, 8);
}
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "Trireme's formats are little-endian and this build reads them in place"
#endif

/* Hot-loop varints, bounded by the caller: `at` must have TRM_VARINT_BYTES_MAX
 * bytes of room. Returns the byte after. */
static inline uint8_t *trm_varint_store(uint8_t *at, uint64_t value)
{
    while (value >= 0x80) {
        *at++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *at++ = (uint8_t)value;
    return at;
}
static inline size_t trm_varint_bytes(uint64_t value)
{
    return value < 0x80 ? 1 : (size_t)(63 - __builtin_clzll(value)) / 7 + 1;
}

#endif
