/* wordcount: how often each word occurs. A word is a longest run of ASCII letters and digits, as
 * `tr -cs '[:alnum:]' '\n'` finds them in the C locale.
 *
 * The shape of a fast kernel: every record is looked at in blocks of 64 bytes, of which code
 * without a branch makes 64 bits (is this byte of a word?); words begin and end where
 * neighbouring bits differ. The fold adds up in place, so that an emit is a look-up in a table.
 */
#include <trireme.h>

#include <endian.h>
#include <stdlib.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define BLOCK_BYTES 64u

static char *line; /* the record, and zeros up to a whole block and one more byte; grows */
static size_t line_room;
static bool lower;

static bool make_room(size_t len)
{
    size_t need = len + BLOCK_BYTES + 1;
    if (need <= line_room)
        return true;
    char *more = realloc(line, need * 2);
    if (!more)
        return false;
    line = more;
    line_room = need * 2;
    return true;
}

/* The bit of a byte is 1 where it is a letter or digit, the first byte's the lowest. */
#if defined(__SSE2__)
static uint64_t word_bits(const char *block)
{
    uint64_t bits = 0;
    for (unsigned i = 0; i < BLOCK_BYTES; i += 16) {
        __m128i c = _mm_loadu_si128((const __m128i *)(block + i));
        __m128i letter = _mm_sub_epi8(_mm_or_si128(c, _mm_set1_epi8(0x20)), _mm_set1_epi8('a'));
        __m128i digit = _mm_sub_epi8(c, _mm_set1_epi8('0'));
        __m128i in_word = _mm_or_si128(_mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8(25)), letter),
                                       _mm_cmpeq_epi8(_mm_min_epu8(digit, _mm_set1_epi8(9)), digit));
        bits |= (uint64_t)(uint32_t)_mm_movemask_epi8(in_word) << i;
    }
    return bits;
}
#else
static uint64_t word_bits(const char *block)
{
    uint8_t in_word[BLOCK_BYTES];
    for (unsigned i = 0; i < BLOCK_BYTES; i++) {
        uint8_t c = (uint8_t)block[i];
        in_word[i] = (uint8_t)((uint8_t)((c | 0x20) - 'a') < 26) | (uint8_t)((uint8_t)(c - '0') < 10);
    }
    uint64_t bits = 0, eight;
    for (unsigned i = BLOCK_BYTES; i > 0; i -= 8) {
        memcpy(&eight, in_word + i - 8, 8);
        bits = bits << 8 |
               le64toh(eight) * 0x0102040810204080ull >> 56; /* gathers the lowest bit of each byte */
    }
    return bits;
}
#endif

static void copy_lowered(char *to, const char *from, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        uint8_t c = (uint8_t)from[i];
        to[i] = (char)(c | ((uint8_t)(c - 'A') < 26) << 5);
    }
}

static int setup(trm_task *task)
{
    lower = trm_param_bool(task, "lower");
    return 0;
}

static int map(trm_task *task, const trm_record *record)
{
    if (!make_room(record->len))
        return trm_task_fail(task, "no memory for a line of %zu bytes", record->len);
    if (lower)
        copy_lowered(line, record->data, record->len);
    else
        memcpy(line, record->data, record->len);
    memset(line + record->len, 0, BLOCK_BYTES + 1);

    const char *word = NULL;                                    /* where it begins, while we are in one */
    uint64_t before = 0;                                        /* the last bit of the block before */
    for (size_t at = 0; at <= record->len; at += BLOCK_BYTES) { /* a zero ends the last word */
        uint64_t bits = word_bits(line + at), edges = bits ^ (bits << 1 | before);
        for (; edges; edges &= edges - 1) {
            const char *edge = line + at + __builtin_ctzll(edges);
            if (word)
                trm_emit_u64(task, word, (size_t)(edge - word), 1);
            word = word ? NULL : edge;
        }
        before = bits >> 63;
    }
    return 0;
}

static const trm_param params[] = {{.name = "lower",
                                    .type = TRM_PARAM_BOOL,
                                    .value = "false",
                                    .help = "count words as if they were in lower case"},
                                   {0}};

TRM_EXPORT_JOB = {
    TRM_JOB_HEADER,           .name = "wordcount",   .help = "counts words: runs of letters and digits",
    .params = params,         .setup = setup,        .map = map,
    .fold = TRM_FOLD_SUM_U64, .value_type = TRM_U64,
};
