#include "tool/gen_records.h"
#include "tool/gen_random.h"

#include <string.h>

#define KEY_BYTES 10u
#define NUMBER_BYTES 32u
#define DRAWS 2u /* random numbers a record */

static trm_gen_random random_of(uint64_t record, uint64_t seed)
{
    return (trm_gen_random){trm_gen_random_mix(seed) + record * DRAWS * TRM_GEN_RANDOM_STEP};
}

static void put_key(char *out, trm_gen_random random)
{
    uint64_t words[DRAWS] = {trm_gen_random_next(&random), trm_gen_random_next(&random)};
    for (unsigned i = 0; i < KEY_BYTES; i++)
        out[i] = (char)(words[i / 8] >> (i % 8 * 8));
}

/* Five characters out of each number: 95^5 is below 2^33, which leaves no bias to see. */
static void put_printable_key(char *out, trm_gen_random random)
{
    for (unsigned half = 0; half < DRAWS; half++) {
        uint64_t word = trm_gen_random_next(&random);
        for (unsigned i = 0; i < KEY_BYTES / DRAWS; i++, word /= 95)
            *out++ = (char)(' ' + word % 95);
    }
}

static void put_number(char *out, uint64_t record)
{
    for (unsigned i = NUMBER_BYTES; i-- > 0; record >>= 4)
        out[i] = "0123456789ABCDEF"[record & 15];
}

/* Letters that change with the record, so that a record in the wrong place shows. */
static void put_filler(char *out, unsigned len, uint64_t record)
{
    for (unsigned i = 0; i < len; i += 4)
        memset(out + i, 'A' + (int)((record + i / 4 * 7) % 26), 4);
}

void trm_gen_records_fill(char *out, uint64_t first, size_t count, uint64_t seed, bool ascii)
{
    for (uint64_t record = first; record < first + count; record++, out += TRM_GEN_RECORD_BYTES) {
        put_number(out + 12, record);
        if (ascii) {
            put_printable_key(out, random_of(record, seed));
            memcpy(out + 10, "  ", 2);
            memcpy(out + 44, "  ", 2);
            put_filler(out + 46, 52, record);
            memcpy(out + 98, "\r\n", 2);
        } else {
            put_key(out, random_of(record, seed));
            memcpy(out + 10, "\x00\x11", 2);
            memcpy(out + 44, "\x88\x99\xaa\xbb", 4);
            put_filler(out + 48, 48, record);
            memcpy(out + 96, "\xcc\xdd\xee\xff", 4);
        }
    }
}
