/* Text to measure with: words drawn by Zipf's law, in lines. Pure: bytes out of a seed, the
 * same on every machine.
 *
 * The word of rank r (from 1) is drawn with a probability in proportion to 1 / r^skew; the
 * frequent ones are short, as in a language. Words are lower-case letters, lines 32 to 95
 * bytes and a newline.
 */
#ifndef TRM_TOOL_GEN_TEXT_H
#define TRM_TOOL_GEN_TEXT_H

#include "runtime/status.h"
#include "tool/gen_random.h"

#include <stddef.h>

#define TRM_GEN_WORDS_MAX (1u << 22)
#define TRM_GEN_SKEW_MAX 4.0
#define TRM_GEN_WORD_BYTES_MAX 15u

typedef struct trm_gen_word {
    char text[TRM_GEN_WORD_BYTES_MAX]; /* and a space */
    uint8_t len;                       /* with the space */
} trm_gen_word;

/* Walker's alias method: a draw takes column i, or with what is above `cut` its other word. */
typedef struct trm_gen_column {
    uint32_t cut;
    uint32_t other;
} trm_gen_column;

/* Words are drawn as many at a time, so that their places in memory are fetched side by side. */
#define TRM_GEN_DRAWN 64u

typedef struct trm_gen_text {
    uint32_t words;
    trm_gen_word *word; /* by rank - 1 */
    trm_gen_column *column;
    trm_gen_random random, random_lines;
    const trm_gen_word *drawn[TRM_GEN_DRAWN];
    uint32_t drawn_at; /* the next one; TRM_GEN_DRAWN: none */
    /* What does not fit into a buffer waits for the next. */
    char rest[TRM_GEN_WORD_BYTES_MAX + 1];
    size_t rest_len;
    uint32_t line_left; /* bytes before the line ends */
} trm_gen_text;

/* 1 <= words <= TRM_GEN_WORDS_MAX, 0 <= skew <= TRM_GEN_SKEW_MAX. TRM_ENOMEM. */
trm_status trm_gen_text_init(trm_gen_text *self, uint32_t words, double skew, uint64_t seed, trm_err *err);
void trm_gen_text_close(trm_gen_text *self);
/* The next `len` bytes of an endless text: the cutting into calls changes nothing. */
void trm_gen_text_fill(trm_gen_text *self, char *out, size_t len);

#endif
