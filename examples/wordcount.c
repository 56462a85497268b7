/* wordcount: how often each word occurs. A word is a longest run of ASCII letters and digits, as
 * `tr -cs '[:alnum:]' '\n'` finds them in the C locale.
 *
 * The shape of a fast kernel: it takes text by the block, because where lines end is nothing to it;
 * code without a branch makes 64 bits of 64 bytes (is this byte of a word?); words begin and end where
 * neighbouring bits differ. It emits many words with one call, and the fold adds up in place, so that
 * an emit is a look-up in a table.
 */
#include <trireme.h>

#include <endian.h>
#include <stdlib.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define STEP_BYTES 64u
#define STEP_WORDS_MAX 32u /* that end within one step */
#define WORDS_MAX 128u     /* that are emitted at once */
#define LAST_BIT ((uint64_t)1 << 63)

_Static_assert(STEP_BYTES <= TRM_RECORD_PAD_BYTES, "a step may begin at a block's end");

static char *lowered; /* the block in lower case, and room to read a step at its end; grows */
static size_t lowered_room;
static bool lower;

static bool make_room(size_t len)
{
    size_t need = len + STEP_BYTES;
    if (need <= lowered_room)
        return true;
    char *more = realloc(lowered, need * 2);
    if (!more)
        return false;
    memset(more, 0, need * 2);
    lowered = more;
    lowered_room = need * 2;
    return true;
}

/* The bit of a byte is 1 where it is a letter or digit, the first byte's the lowest. */
#if defined(__SSE2__)
static inline uint64_t word_bits(const char *step)
{
    uint64_t bits = 0;
    for (unsigned i = 0; i < STEP_BYTES; i += 16) {
        __m128i c = _mm_loadu_si128((const __m128i *)(step + i));
        __m128i letter = _mm_sub_epi8(_mm_or_si128(c, _mm_set1_epi8(0x20)), _mm_set1_epi8('a'));
        __m128i digit = _mm_sub_epi8(c, _mm_set1_epi8('0'));
        __m128i in_word = _mm_or_si128(_mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8(25)), letter),
                                       _mm_cmpeq_epi8(_mm_min_epu8(digit, _mm_set1_epi8(9)), digit));
        bits |= (uint64_t)(uint32_t)_mm_movemask_epi8(in_word) << i;
    }
    return bits;
}
#else
static uint64_t word_bits(const char *step)
{
    uint8_t in_word[STEP_BYTES];
    for (unsigned i = 0; i < STEP_BYTES; i++) {
        uint8_t c = (uint8_t)step[i];
        in_word[i] = (uint8_t)((uint8_t)((c | 0x20) - 'a') < 26) | (uint8_t)((uint8_t)(c - '0') < 10);
    }
    uint64_t bits = 0, eight;
    for (unsigned i = STEP_BYTES; i > 0; i -= 8) {
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

/* The words of a block; what is in front of it and behind it ends words. Each bit of `begins` is a byte that
 * begins a word, each of `ends` one right behind a word, and they alternate. */
static void find_words(trm_task *task, const char *text, size_t len)
{
    trm_key words[WORDS_MAX];
    size_t n = 0;
    const char *begin = text; /* of the word that is to end next */
    uint64_t before = 0;      /* the last bit of the step before */
    for (size_t at = 0; at <= len; at += STEP_BYTES) {
        uint64_t bits = word_bits(text + at);
        if (len - at < STEP_BYTES)
            bits &= ((uint64_t)1 << (len - at)) - 1;
        uint64_t shifted = bits << 1 | before, begins = bits & ~shifted, ends = shifted & ~bits;
        if (!before && begins) {
            begin = text + at + (unsigned)__builtin_ctzll(begins);
            begins &= begins - 1;
        }
        for (; ends; ends &= ends - 1, begins &= begins - 1) {
            words[n++] = (trm_key){begin, (size_t)(text + at + (unsigned)__builtin_ctzll(ends) - begin)};
            begin = text + at + (unsigned)__builtin_ctzll(begins | LAST_BIT);
        }
        before = bits >> 63;
        if (n > WORDS_MAX - STEP_WORDS_MAX) {
            trm_emit_many_u64(task, words, n, 1);
            n = 0;
        }
    }
    trm_emit_many_u64(task, words, n, 1);
}

static int map(trm_task *task, const trm_record *block)
{
    if (!lower) {
        find_words(task, block->data, block->len);
        return 0;
    }
    if (!make_room(block->len))
        return trm_task_fail(task, "no memory for a block of %zu bytes", block->len);
    copy_lowered(lowered, block->data, block->len);
    find_words(task, lowered, block->len);
    return 0;
}

static const trm_param params[] = {{.name = "lower",
                                    .type = TRM_PARAM_BOOL,
                                    .value = "false",
                                    .help = "count words as if they were in lower case"},
                                   {0}};

TRM_EXPORT_JOB = {
    TRM_JOB_HEADER,
    .name = "wordcount",
    .help = "counts words: runs of letters and digits",
    .input = TRM_INPUT_BLOCKS,
    .params = params,
    .setup = setup,
    .map = map,
    .fold = TRM_FOLD_SUM_U64,
    .value_type = TRM_U64,
};
