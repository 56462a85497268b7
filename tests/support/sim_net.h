/* A network that misbehaves, for simulations: it says whether and when a message arrives,
 * and how many times. It delays (so reorders), drops, repeats, and cuts links, each way on
 * its own. It carries nothing itself.
 */
#ifndef TRM_TESTS_SIM_NET_H
#define TRM_TESTS_SIM_NET_H

#include "tests/support/draw.h"

#include <stddef.h>

#define TRM_SIM_NET_NODES_MAX 16u
/* Arrivals of one message. */
#define TRM_SIM_NET_COPIES_MAX 3u

typedef struct trm_sim_net {
    unsigned nodes;
    uint64_t delay_ns_min;
    uint64_t delay_ns_max;
    uint64_t straggle_ns;       /* some come later by up to this */
    unsigned straggle_permille; /* how often */
    unsigned drop_permille;
    unsigned repeat_permille;
    uint16_t cut[TRM_SIM_NET_NODES_MAX]; /* [from]: bits of those whom nothing reaches */
    uint64_t sent, dropped, repeated, cut_off, straggled;
} trm_sim_net;

/* A network of `nodes` without faults: every message arrives once, within delay_ns. */
void trm_sim_net_init(trm_sim_net *self, unsigned nodes, uint64_t delay_ns_min, uint64_t delay_ns_max);
/* No faults any more, no link cut; the delays stay. */
void trm_sim_net_heal(trm_sim_net *self);
/* Cuts links so that `side` (bits of nodes) and the others are apart: both ways, or only
 * from `side` to the others. Links that were cut before stay so. */
void trm_sim_net_partition(trm_sim_net *self, uint32_t side, bool both_ways);
/* Restores all links, and nothing else. */
void trm_sim_net_join(trm_sim_net *self);
bool trm_sim_net_is_cut(const trm_sim_net *self, unsigned from, unsigned to);
/* A message from one node to another: when its copies arrive, after now, in
 * arrive_after_ns. Returns how many do; 0: it is lost. */
unsigned trm_sim_net_send(trm_sim_net *self, uint64_t arrive_after_ns[TRM_SIM_NET_COPIES_MAX], unsigned from,
                          unsigned to, trm_draw *draw);

#endif
