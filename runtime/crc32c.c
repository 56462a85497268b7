/* CRC-32C, reflected polynomial 0x82f63b78: by the processor's instruction where
 * there is one (SSE4.2), else by eight tables, eight bytes a step. Which one is
 * decided once, at the first call. */
#include "runtime/crc32c.h"

#include "runtime/bytes.h"

#include <pthread.h>

#define POLYNOMIAL 0x82f63b78u

typedef uint32_t (*crc_function)(uint32_t crc, const uint8_t *at, size_t len);

/* table[k][b]: what byte b contributes once k more bytes have followed. */
static uint32_t table[8][256];

static void table_fill(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (crc & 1 ? POLYNOMIAL : 0);
        table[0][byte] = crc;
    }
    for (int more = 1; more < 8; more++)
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t before = table[more - 1][byte];
            table[more][byte] = (before >> 8) ^ table[0][before & 0xff];
        }
}

static uint32_t crc_by_table(uint32_t crc, const uint8_t *at, size_t len)
{
    for (; len >= 8; at += 8, len -= 8) {
        uint64_t word = trm_load_u64(at) ^ crc;
        crc = 0;
        for (int byte = 0; byte < 8; byte++)
            crc ^= table[7 - byte][(word >> (8 * byte)) & 0xff];
    }
    for (; len > 0; at++, len--)
        crc = (crc >> 8) ^ table[0][(crc ^ *at) & 0xff];
    return crc;
}

#if defined(__x86_64__)
#include <nmmintrin.h>

__attribute__((target("sse4.2"))) static uint32_t crc_by_instruction(uint32_t crc, const uint8_t *at,
                                                                     size_t len)
{
    uint64_t wide = crc;
    for (; len >= 8; at += 8, len -= 8)
        wide = _mm_crc32_u64(wide, trm_load_u64(at));
    crc = (uint32_t)wide;
    for (; len > 0; at++, len--)
        crc = _mm_crc32_u8(crc, *at);
    return crc;
}

static crc_function choose(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("sse4.2") ? crc_by_instruction : crc_by_table;
}
#else
static crc_function choose(void)
{
    return crc_by_table;
}
#endif

static pthread_once_t once = PTHREAD_ONCE_INIT;
static crc_function chosen;

static void decide(void)
{
    table_fill();
    chosen = choose();
}

uint32_t trm_crc32c(uint32_t crc, const void *bytes, size_t len)
{
    pthread_once(&once, decide);
    return ~chosen(~crc, bytes, len);
}

uint32_t trm_crc32c_portable(uint32_t crc, const void *bytes, size_t len)
{
    pthread_once(&once, decide);
    return ~crc_by_table(~crc, bytes, len);
}
