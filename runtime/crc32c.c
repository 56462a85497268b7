/* CRC-32C, reflected polynomial 0x82f63b78: by the processor's instruction where
 * there is one (SSE4.2), else by eight tables, eight bytes a step. Which one is
 * decided once, at the first call.
 *
 * The instruction has a latency of three and could begin one a cycle, so long input goes
 * through three lanes side by side. A lane's checksum is moved over the bytes of the next
 * one by a table: feeding zeros is linear in the bits of the register. */
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

#define LANE_BYTES 512u

/* over_lane[k][b]: the register after LANE_BYTES zeros, when its byte k was b. */
static uint32_t over_lane[4][256];

static void over_lane_fill(void)
{
    static const uint8_t zeros[LANE_BYTES];
    for (int k = 0; k < 4; k++)
        for (uint32_t bit = 1; bit < 256; bit <<= 1) {
            uint32_t moved = crc_by_table(bit << (8 * k), zeros, LANE_BYTES);
            for (uint32_t byte = 0; byte < bit; byte++)
                over_lane[k][bit + byte] = over_lane[k][byte] ^ moved;
        }
}

static uint32_t move_over_lane(uint32_t crc)
{
    return over_lane[0][crc & 0xff] ^ over_lane[1][crc >> 8 & 0xff] ^ over_lane[2][crc >> 16 & 0xff] ^
           over_lane[3][crc >> 24];
}

__attribute__((target("sse4.2"))) static uint32_t crc_by_instruction(uint32_t crc, const uint8_t *at,
                                                                     size_t len)
{
    uint64_t wide = crc;
    for (; len >= 3 * LANE_BYTES; at += 3 * LANE_BYTES, len -= 3 * LANE_BYTES) {
        uint64_t second = 0, third = 0;
        for (size_t i = 0; i < LANE_BYTES; i += 8) {
            wide = _mm_crc32_u64(wide, trm_load_u64(at + i));
            second = _mm_crc32_u64(second, trm_load_u64(at + LANE_BYTES + i));
            third = _mm_crc32_u64(third, trm_load_u64(at + 2 * LANE_BYTES + i));
        }
        wide = move_over_lane((uint32_t)wide) ^ second;
        wide = move_over_lane((uint32_t)wide) ^ third;
    }
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
    over_lane_fill();
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
