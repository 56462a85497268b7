/* Pseudo-random numbers for tests, all of them from one seed (SplitMix64: Steele, Lea and
 * Flood, 2014). Copy one to replay it. */
#ifndef TRM_TESTS_DRAW_H
#define TRM_TESTS_DRAW_H

#include <stdbool.h>
#include <stdint.h>

typedef struct trm_draw {
    uint64_t state;
} trm_draw;

/* Seeds that are close to each other give sequences that are not. */
static inline trm_draw trm_draw_from(uint64_t seed)
{
    return (trm_draw){seed * 0x2545f4914f6cdd1dull + 1};
}

static inline uint64_t trm_draw_next(trm_draw *self)
{
    uint64_t z = self->state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* 0 to bound - 1; `bound` is above 0. */
static inline uint64_t trm_draw_below(trm_draw *self, uint64_t bound)
{
    return trm_draw_next(self) % bound;
}

/* True in `permille` of 1000 cases. */
static inline bool trm_draw_often(trm_draw *self, unsigned permille)
{
    return trm_draw_below(self, 1000) < permille;
}

#endif
