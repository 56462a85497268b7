/* Random numbers for decisions that only must differ (time-outs, back-off, sampling), from
 * a seed that is passed in: splitmix64 (Steele, Lea and Flood, 2014). Not for secrets. */
#ifndef TRM_RUNTIME_RANDOM_H
#define TRM_RUNTIME_RANDOM_H

#include <stdint.h>

/* The next number; *state is the seed in the begin and any value is a good one. */
static inline uint64_t trm_random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

#endif
