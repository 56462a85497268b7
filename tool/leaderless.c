#include "tool/leaderless.h"

#include "runtime/clock.h"

void trm_leaderless_heard(trm_leaderless *self)
{
    self->since_ns = 0;
}

bool trm_leaderless_step(trm_leaderless *self, bool leads, bool lost, uint64_t now_ns, uint64_t *wake_ns)
{
    const uint64_t most_ns = TRM_LOOP_PAUSED_MS * TRM_NS_PER_MS;
    uint64_t turned_ns = now_ns - self->turn_ns;
    bool paused = turned_ns > most_ns;
    self->turn_ns = now_ns;
    if (leads || (lost && paused))
        self->since_ns = 0;
    if (leads)
        return false;
    if (!self->since_ns)
        self->since_ns = now_ns;
    else if (paused)
        self->since_ns += turned_ns - most_ns;
    uint64_t due_ns = self->since_ns + (lost ? TRM_LOST_MS : TRM_LEADERLESS_MS) * TRM_NS_PER_MS;
    if (now_ns >= due_ns)
        return true;
    *wake_ns = due_ns < *wake_ns ? due_ns : *wake_ns;
    return false;
}
