/* See transport_mem.h. */
#include "tests/support/transport_mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_BYTES_MAX (4u << 20)

typedef struct message {
    struct message *next;
    uint64_t at_ns;
    uint32_t from;
    size_t len;
    uint8_t bytes[];
} message;

typedef struct endpoint {
    trm_transport base;
    trm_transport_net *net;
    bool dead;
    message *first; /* on their way to it, by the time of arrival */
    message *arrived, *arrived_last;
    message *current; /* what receive has given out */
    size_t *queued;   /* bytes on their way to it, by sender */
    uint64_t *cut_ns; /* until when the link from a sender is down */
} endpoint;

struct trm_transport_net {
    trm_transport_net_options options;
    uint64_t now_ns, random;
    endpoint *ranks;
    trm_transport_net_counts counts;
};

static uint64_t draw(trm_transport_net *self)
{
    uint64_t z = self->random += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static void free_list(message *first)
{
    while (first) {
        message *next = first->next;
        free(first);
        first = next;
    }
}

/* Behind what arrives before it, and behind everything from the same rank. */
static void post(endpoint *to, message *made)
{
    if (made->at_ns < to->cut_ns[made->from])
        made->at_ns = to->cut_ns[made->from];
    for (message *at = to->first; at; at = at->next)
        if (at->from == made->from && at->at_ns > made->at_ns)
            made->at_ns = at->at_ns;
    message **place = &to->first;
    while (*place && (*place)->at_ns <= made->at_ns)
        place = &(*place)->next;
    made->next = *place;
    *place = made;
    to->queued[made->from] += made->len;
}

static trm_status mem_send(trm_transport *base, uint32_t to, const void *bytes, size_t len)
{
    endpoint *self = (endpoint *)base;
    trm_transport_net *net = self->net;
    assert(to < net->options.ranks && len <= TRM_MESSAGE_BYTES_MAX);
    endpoint *other = &net->ranks[to];
    if (self->dead || other->dead)
        return TRM_OK;
    if (other->queued[base->rank] + len > net->options.queue_bytes_max && other->queued[base->rank]) {
        net->counts.refused++;
        return TRM_AGAIN;
    }
    net->counts.sent++;
    net->counts.bytes += len;
    if (to != base->rank && draw(net) % 1000 < net->options.loss_permille) {
        net->counts.lost++;
        return TRM_OK;
    }
    if (net->options.sent)
        net->options.sent(net->options.context, base->rank, to, bytes, len);
    message *made = malloc(sizeof *made + len);
    assert(made);
    uint64_t spread = net->options.delay_max_ns - net->options.delay_min_ns;
    uint64_t delay = net->options.delay_min_ns + (spread ? draw(net) % (spread + 1) : 0);
    *made = (message){.at_ns = net->now_ns + (to == base->rank ? 0 : delay), .from = base->rank, .len = len};
    memcpy(made->bytes, bytes, len);
    post(other, made);
    return TRM_OK;
}

static void release(endpoint *self)
{
    free(self->current);
    self->current = NULL;
}

static trm_status mem_receive(trm_transport *base, uint32_t *from, const uint8_t **bytes, size_t *len)
{
    endpoint *self = (endpoint *)base;
    release(self);
    message *got = self->arrived;
    if (!got)
        return TRM_AGAIN;
    self->arrived = got->next;
    if (!self->arrived)
        self->arrived_last = NULL;
    self->current = got;
    *from = got->from;
    *bytes = got->bytes;
    *len = got->len;
    return TRM_OK;
}

static unsigned mem_poll(trm_transport *base)
{
    endpoint *self = (endpoint *)base;
    unsigned moved = 0;
    release(self);
    while (self->first && self->first->at_ns <= self->net->now_ns) {
        message *got = self->first;
        self->first = got->next;
        got->next = NULL;
        self->queued[got->from] -= got->len;
        *(self->arrived_last ? &self->arrived_last->next : &self->arrived) = got;
        self->arrived_last = got;
        moved++;
    }
    return moved;
}

static size_t mem_pending_bytes(trm_transport *base, uint32_t to)
{
    endpoint *self = (endpoint *)base;
    return self->net->ranks[to].queued[base->rank];
}

static void drop_all(endpoint *self)
{
    release(self);
    free_list(self->first);
    free_list(self->arrived);
    self->first = self->arrived = self->arrived_last = NULL;
    memset(self->queued, 0, self->net->options.ranks * sizeof *self->queued);
}

static void mem_close(trm_transport *base, uint64_t linger_ms)
{
    drop_all((endpoint *)base);
}

static const trm_transport_ops mem_ops = {.send = mem_send,
                                          .receive = mem_receive,
                                          .poll = mem_poll,
                                          .pending_bytes = mem_pending_bytes,
                                          .close = mem_close};

trm_transport_net *trm_transport_net_create(const trm_transport_net_options *options)
{
    trm_transport_net *self = calloc(1, sizeof *self);
    if (!self)
        return NULL;
    self->options = *options;
    self->random = options->seed;
    if (!self->options.queue_bytes_max)
        self->options.queue_bytes_max = QUEUE_BYTES_MAX;
    self->ranks = calloc(options->ranks, sizeof *self->ranks);
    bool made = self->ranks != NULL;
    for (uint32_t i = 0; made && i < options->ranks; i++) {
        self->ranks[i].base = (trm_transport){.ops = &mem_ops, .rank = i, .ranks = options->ranks};
        self->ranks[i].net = self;
        self->ranks[i].queued = calloc(options->ranks, sizeof(size_t));
        self->ranks[i].cut_ns = calloc(options->ranks, sizeof(uint64_t));
        made = self->ranks[i].queued && self->ranks[i].cut_ns;
    }
    if (made)
        return self;
    trm_transport_net_destroy(self);
    return NULL;
}

void trm_transport_net_destroy(trm_transport_net *self)
{
    if (!self)
        return;
    for (uint32_t i = 0; self->ranks && i < self->options.ranks; i++) {
        if (self->ranks[i].queued)
            drop_all(&self->ranks[i]);
        free(self->ranks[i].queued);
        free(self->ranks[i].cut_ns);
    }
    free(self->ranks);
    free(self);
}

trm_transport *trm_transport_net_rank(trm_transport_net *self, uint32_t rank)
{
    return &self->ranks[rank].base;
}

void trm_transport_net_set_now(trm_transport_net *self, uint64_t now_ns)
{
    assert(now_ns >= self->now_ns);
    self->now_ns = now_ns;
}

uint64_t trm_transport_net_next_ns(const trm_transport_net *self)
{
    uint64_t next = UINT64_MAX;
    for (uint32_t i = 0; i < self->options.ranks; i++)
        if (self->ranks[i].first && self->ranks[i].first->at_ns < next)
            next = self->ranks[i].first->at_ns;
    return next;
}

uint64_t trm_transport_net_arrival_ns(const trm_transport_net *self, uint32_t rank)
{
    return self->ranks[rank].first ? self->ranks[rank].first->at_ns : UINT64_MAX;
}

void trm_transport_net_set_delay(trm_transport_net *self, uint64_t min_ns, uint64_t max_ns)
{
    self->options.delay_min_ns = min_ns;
    self->options.delay_max_ns = max_ns;
}

/* Takes what is on its way from a rank out of what is on its way to another. */
static message *take_out(endpoint *to, uint32_t from)
{
    message *taken = NULL, **last = &taken;
    for (message **at = &to->first; *at;) {
        message *it = *at;
        if (it->from != from) {
            at = &it->next;
            continue;
        }
        *at = it->next;
        it->next = NULL;
        *last = it;
        last = &it->next;
        to->queued[from] -= it->len;
    }
    return taken;
}

void trm_transport_net_cut(trm_transport_net *self, uint32_t from, uint32_t to, uint64_t until_ns)
{
    endpoint *other = &self->ranks[to];
    other->cut_ns[from] = until_ns;
    for (message *at = take_out(other, from), *next; at; at = next) {
        next = at->next;
        post(other, at);
    }
}

void trm_transport_net_set_loss(trm_transport_net *self, unsigned permille)
{
    self->options.loss_permille = permille;
}

void trm_transport_net_kill_late(trm_transport_net *self, uint32_t rank)
{
    drop_all(&self->ranks[rank]);
    self->ranks[rank].dead = true;
}

void trm_transport_net_kill(trm_transport_net *self, uint32_t rank)
{
    trm_transport_net_kill_late(self, rank);
    for (uint32_t i = 0; i < self->options.ranks; i++)
        free_list(take_out(&self->ranks[i], rank));
}

void trm_transport_net_counts_get(const trm_transport_net *self, trm_transport_net_counts *out)
{
    *out = self->counts;
}
