/* Random numbers for made input: splitmix64 (Steele, Lea, Flood: Fast splittable
 * pseudorandom number generators, OOPSLA 2014, figure 17), so that number k of a seed is the
 * same everywhere, and can be had without those before it. */
#ifndef TRM_TOOL_GEN_RANDOM_H
#define TRM_TOOL_GEN_RANDOM_H

#include <stdint.h>

#define TRM_GEN_RANDOM_STEP 0x9e3779b97f4a7c15ull

typedef struct trm_gen_random {
    uint64_t state;
} trm_gen_random;

static inline uint64_t trm_gen_random_mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}
static inline uint64_t trm_gen_random_next(trm_gen_random *self)
{
    return trm_gen_random_mix(self->state += TRM_GEN_RANDOM_STEP);
}
/* Below `bound`, out of 32 random bits. */
static inline uint32_t trm_gen_random_below(uint32_t bits, uint32_t bound)
{
    return (uint32_t)((uint64_t)bits * bound >> 32);
}

#endif
