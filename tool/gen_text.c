#include "tool/gen_text.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WEIGHT_ONE 4294967296.0 /* of the most frequent word; whole numbers, so that no libm shows */
#define LINE_BYTES_MIN 32u
#define LINE_BYTES_SPREAD 64u
#define SYLLABLES_ALL 100u
#define SYLLABLES 20u /* of a text; so few make words as long as English ones, 4.7 letters */

/* ---- Words ------------------------------------------------------------------------- */

static void shuffle_syllables(char syllables[SYLLABLES_ALL][2], trm_gen_random *random)
{
    static const char consonants[] = "bcdfghjklmnpqrstvwxz", vowels[] = "aeiou";
    for (unsigned i = 0; i < SYLLABLES_ALL; i++) {
        unsigned at = trm_gen_random_below((uint32_t)(trm_gen_random_next(random) >> 32), i + 1);
        memcpy(syllables[i], syllables[at], 2);
        syllables[at][0] = consonants[i / 5];
        syllables[at][1] = vowels[i % 5];
    }
}

/* Ranks are counted in syllables, a digit each without a zero, so that no two words are the
 * same; three of four end in a consonant. */
static void make_word(trm_gen_word *out, uint32_t rank, char syllables[SYLLABLES_ALL][2])
{
    static const char endings[] = "nrs";
    memset(out->text, ' ', sizeof out->text);
    unsigned len = 0, ending = rank % 4;
    for (uint32_t left = rank / 4 + 1; left; left = (left - 1) / SYLLABLES, len += 2)
        memcpy(out->text + len, syllables[(left - 1) % SYLLABLES], 2);
    if (ending)
        out->text[len++] = endings[ending - 1];
    assert(len < TRM_GEN_WORD_BYTES_MAX);
    out->len = (uint8_t)(len + 1);
}

/* ---- Drawing ----------------------------------------------------------------------- */

/* Vose: A linear algorithm for generating random numbers with a given distribution (1991).
 * `share` holds weights times the number of words, so that the mean is their sum; `stack` has
 * room for all words. */
static void level(trm_gen_column *column, uint32_t words, uint64_t *share, uint64_t mean, uint32_t *stack)
{
    uint32_t poor = 0, rich = words; /* two stacks that grow towards each other */
    for (uint32_t i = 0; i < words; i++) {
        column[i] = (trm_gen_column){UINT32_MAX, i};
        stack[share[i] < mean ? poor++ : --rich] = i;
    }
    while (poor && rich < words) {
        uint32_t from = stack[--poor], to = stack[rich];
        column[from].cut = (uint32_t)(((unsigned __int128)share[from] << 32) / mean);
        column[from].other = to;
        share[to] -= mean - share[from];
        if (share[to] < mean) {
            rich++;
            stack[poor++] = to;
        }
    }
}

static trm_status make_columns(trm_gen_text *self, double skew, trm_err *err)
{
    uint64_t *share = malloc(self->words * sizeof *share), mean = 0;
    uint32_t *stack = malloc(self->words * sizeof *stack);
    trm_status status = TRM_OK;
    if (share && stack) {
        for (uint32_t i = 0; i < self->words; i++) {
            double weight = WEIGHT_ONE * pow(i + 1.0, -skew);
            share[i] = weight < 1 ? 1 : (uint64_t)(weight + 0.5);
            mean += share[i];
        }
        for (uint32_t i = 0; i < self->words; i++)
            share[i] *= self->words;
        level(self->column, self->words, share, mean, stack);
    } else {
        status = trm_err_set(err, TRM_ENOMEM, "no memory for %u words", self->words);
    }
    free(share);
    free(stack);
    return status;
}

static void draw_words(trm_gen_text *self)
{
    for (unsigned k = 0; k < TRM_GEN_DRAWN; k++) {
        uint64_t random = trm_gen_random_next(&self->random);
        uint32_t i = trm_gen_random_below((uint32_t)(random >> 32), self->words);
        const trm_gen_column *column = &self->column[i];
        /* Without a branch, which chance would decide. */
        uint32_t other = -(uint32_t)((uint32_t)random >= column->cut);
        self->drawn[k] = &self->word[i ^ ((i ^ column->other) & other)];
        __builtin_prefetch(self->drawn[k]);
    }
    self->drawn_at = 0;
}

static uint32_t draw_line_bytes(trm_gen_text *self)
{
    uint32_t bits = (uint32_t)(trm_gen_random_next(&self->random_lines) >> 32);
    return LINE_BYTES_MIN + trm_gen_random_below(bits, LINE_BYTES_SPREAD);
}

/* ---- Text -------------------------------------------------------------------------- */

trm_status trm_gen_text_init(trm_gen_text *self, uint32_t words, double skew, uint64_t seed, trm_err *err)
{
    assert(words >= 1 && words <= TRM_GEN_WORDS_MAX && skew >= 0 && skew <= TRM_GEN_SKEW_MAX);
    *self = (trm_gen_text){.words = words, .drawn_at = TRM_GEN_DRAWN};
    self->random.state = trm_gen_random_mix(seed);
    self->random_lines.state = trm_gen_random_mix(~seed);
    self->word = malloc(words * sizeof *self->word);
    self->column = malloc(words * sizeof *self->column);
    trm_status status = TRM_OK;
    if (self->word && self->column)
        status = make_columns(self, skew, err);
    else
        status = trm_err_set(err, TRM_ENOMEM, "no memory for %u words", words);
    if (status != TRM_OK) {
        trm_gen_text_close(self);
        return status;
    }
    char syllables[SYLLABLES_ALL][2];
    shuffle_syllables(syllables, &self->random);
    for (uint32_t i = 0; i < words; i++)
        make_word(&self->word[i], i, syllables);
    self->line_left = draw_line_bytes(self);
    return TRM_OK;
}

void trm_gen_text_close(trm_gen_text *self)
{
    free(self->word);
    free(self->column);
    self->word = NULL;
    self->column = NULL;
}

/* A word and what comes after it, at `out`, where 16 bytes may be written. */
static inline size_t put_word(trm_gen_text *self, char *out)
{
    if (self->drawn_at == TRM_GEN_DRAWN)
        draw_words(self);
    const trm_gen_word *word = self->drawn[self->drawn_at++];
    memcpy(out, word, sizeof *word);
    size_t len = word->len;
    if (len < self->line_left) {
        self->line_left -= (uint32_t)len;
    } else {
        out[len - 1] = '\n';
        self->line_left = draw_line_bytes(self);
    }
    return len;
}

void trm_gen_text_fill(trm_gen_text *self, char *out, size_t len)
{
    _Static_assert(sizeof(trm_gen_word) == 16, "what a word may write");
    size_t at = 0;
    for (;;) {
        size_t now = self->rest_len < len - at ? self->rest_len : len - at;
        memcpy(out + at, self->rest, now);
        at += now;
        memmove(self->rest, self->rest + now, self->rest_len - now);
        self->rest_len -= now;
        if (at == len)
            return;
        while (at + sizeof(trm_gen_word) <= len)
            at += put_word(self, out + at);
        self->rest_len = put_word(self, self->rest);
    }
}
