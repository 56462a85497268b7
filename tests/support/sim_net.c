/* See sim_net.h. */
#include "tests/support/sim_net.h"

#include <assert.h>

void trm_sim_net_init(trm_sim_net *self, unsigned nodes, uint64_t delay_ns_min, uint64_t delay_ns_max)
{
    assert(nodes <= TRM_SIM_NET_NODES_MAX && delay_ns_min <= delay_ns_max);
    *self = (trm_sim_net){.nodes = nodes, .delay_ns_min = delay_ns_min, .delay_ns_max = delay_ns_max};
}

void trm_sim_net_join(trm_sim_net *self)
{
    for (unsigned i = 0; i < TRM_SIM_NET_NODES_MAX; i++)
        self->cut[i] = 0;
}

void trm_sim_net_heal(trm_sim_net *self)
{
    trm_sim_net_join(self);
    self->straggle_permille = self->drop_permille = self->repeat_permille = 0;
}

void trm_sim_net_partition(trm_sim_net *self, uint32_t side, bool both_ways)
{
    for (unsigned from = 0; from < self->nodes; from++)
        for (unsigned to = 0; to < self->nodes; to++) {
            bool out = (side >> from & 1) && !(side >> to & 1);
            bool in = !(side >> from & 1) && (side >> to & 1);
            if (out || (in && both_ways))
                self->cut[from] |= (uint16_t)(1u << to);
        }
}

bool trm_sim_net_is_cut(const trm_sim_net *self, unsigned from, unsigned to)
{
    return self->cut[from] >> to & 1;
}

static uint64_t delay(trm_sim_net *self, trm_draw *draw)
{
    uint64_t ns = self->delay_ns_min + trm_draw_below(draw, self->delay_ns_max - self->delay_ns_min + 1);
    if (self->straggle_ns > 0 && trm_draw_often(draw, self->straggle_permille)) {
        self->straggled++;
        ns += trm_draw_below(draw, self->straggle_ns);
    }
    return ns;
}

unsigned trm_sim_net_send(trm_sim_net *self, uint64_t arrive_after_ns[TRM_SIM_NET_COPIES_MAX], unsigned from,
                          unsigned to, trm_draw *draw)
{
    self->sent++;
    if (trm_sim_net_is_cut(self, from, to)) {
        self->cut_off++;
        return 0;
    }
    if (trm_draw_often(draw, self->drop_permille)) {
        self->dropped++;
        return 0;
    }
    unsigned copies = 1;
    while (copies < TRM_SIM_NET_COPIES_MAX && trm_draw_often(draw, self->repeat_permille))
        copies++;
    self->repeated += copies - 1;
    for (unsigned i = 0; i < copies; i++)
        arrive_after_ns[i] = delay(self, draw);
    return copies;
}
