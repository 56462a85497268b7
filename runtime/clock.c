#include "runtime/clock.h"

#include <assert.h>
#include <errno.h>
#include <sys/random.h>
#include <time.h>

static struct timespec read_clock(clockid_t id)
{
    struct timespec at;
    int failed = clock_gettime(id, &at);
    assert(!failed);
    (void)failed;
    return at;
}

uint64_t trm_clock_now_ns(void)
{
    struct timespec at = read_clock(CLOCK_MONOTONIC);
    return (uint64_t)at.tv_sec * TRM_NS_PER_S + (uint64_t)at.tv_nsec;
}

uint64_t trm_clock_wall_ms(void)
{
    struct timespec at = read_clock(CLOCK_REALTIME);
    return (uint64_t)at.tv_sec * 1000 + (uint64_t)at.tv_nsec / TRM_NS_PER_MS;
}

uint64_t trm_clock_entropy(void)
{
    uint64_t value = 0;
    while (getrandom(&value, sizeof value, 0) != (ssize_t)sizeof value)
        assert(errno == EINTR);
    return value;
}
