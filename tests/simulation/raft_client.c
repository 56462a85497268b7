/* Clients of the simulated nodes. Each does one thing at a time: a write of a value that
 * nobody else writes, or a read. A write that was not answered is proposed again under the
 * same number of the session, so it is done once; a client that gives up begins a new
 * session, and the history keeps the write as one that may have happened. */
#include "tests/simulation/raft_world.h"

#include <inttypes.h>

static void wake_after(world *w, uint32_t number, uint64_t after_ns)
{
    client *self = &w->clients[number];
    self->slot = NOBODY;
    world_add(w, EVENT_CLIENT, after_ns, number, ++self->turn, NULL);
}

static uint64_t patience_ns(const world *w)
{
    return 3 * w->mood.options.election_ns;
}

/* ---- What it wants. ---- */

static bool new_operation(world *w, client *self)
{
    if (w->calm || w->ops_len == OPS_MAX - 1)
        return false;
    bool write = below(w, 5) < 3;
    if (write && self->session == NOBODY) {
        if (w->sessions == SESSIONS_MAX - 1)
            return false;
        self->session = w->sessions++;
        self->number = 0;
    }
    operation *op = &w->ops[w->ops_len];
    *op = (operation){
        .linear = {.key = below(w, KEYS), .begin = ++w->moment, .end = TRM_LINEAR_OPEN, .write = write}};
    if (write) {
        op->linear.value = ++w->value;
        op->session = self->session;
        op->number = ++self->number;
    }
    self->op = w->ops_len++;
    self->give_up_ns = now_ns(w) + patience_ns(w) * (1 + below(w, 8));
    return true;
}

static void finished(world *w, uint32_t number)
{
    client *self = &w->clients[number];
    operation *op = &w->ops[self->op];
    op->linear.end = ++w->moment;
    world_trace(w, "client %u: %s register %" PRIu64 ", %" PRIu64, number,
                op->linear.write ? "wrote" : "read", op->linear.key, op->linear.value);
    self->op = NOBODY;
    wake_after(w, number, below(w, 20 * MS));
}

static void give_up(world *w, client *self)
{
    if (w->ops[self->op].linear.write)
        self->session = NOBODY;
    self->op = NOBODY;
}

/* ---- Whom it asks. ---- */

static node *whom(world *w)
{
    node *leader = leader_now(w);
    if (leader && below(w, 10) < 7)
        return leader;
    node *n = &w->nodes[below(w, w->slots)];
    return node_runs(w, n) ? n : NULL;
}

static void propose(world *w, uint32_t number, node *n)
{
    client *self = &w->clients[number];
    operation *op = &w->ops[self->op];
    static trm_writer bytes;
    trm_writer_reset(&bytes);
    command what = {op->session, op->number, (uint32_t)op->linear.key, op->linear.value};
    command_encode(&what, below(w, 8) ? below(w, 40) : below(w, w->mood.payload_max), &bytes);
    trm_err err;
    uint64_t index, term;
    trm_status status = trm_raft_propose(n->raft, bytes.data, bytes.len, &index, &term, &err);
    if (status != TRM_OK) {
        if (status != TRM_EFENCED && status != TRM_AGAIN && status != TRM_ENOSPACE)
            world_fail(w, "a proposal is refused: %s: %s", trm_status_name(status), err.text);
        wake_after(w, number, 2 * MS + below(w, 40 * MS));
        return;
    }
    op->proposals++;
    world_trace(w, "client %u proposes %" PRIu64 " to n%" PRIu64 ": entry %" PRIu64 " of term %" PRIu64,
                number, op->linear.value, n->id, index, term);
    wake_after(w, number, patience_ns(w));
    self->slot = n->slot;
    self->life = n->life;
    self->index = index;
    self->term = term;
    node_settle(w, n);
}

static void ask(world *w, uint32_t number, node *n)
{
    client *self = &w->clients[number];
    trm_err err;
    uint64_t id = (uint64_t)number << 32 | (self->turn + 1);
    trm_status status = trm_raft_read(n->raft, id, node_clock(w, n), &err);
    if (status != TRM_OK) {
        if (status != TRM_EFENCED && status != TRM_AGAIN)
            world_fail(w, "a read is refused: %s: %s", trm_status_name(status), err.text);
        wake_after(w, number, 2 * MS + below(w, 40 * MS));
        return;
    }
    if (n->reads_len == READS_OPEN_MAX)
        world_fail(w, "n%" PRIu64 " takes more reads than it may", n->id);
    n->reads[n->reads_len++] = (open_read){
        .id = id,
        .needs = w->truth.committed_last,
        .deadline_ns = node_clock(w, n) + 4 * w->mood.options.election_ns + w->mood.options.heartbeat_ns,
    };
    wake_after(w, number, patience_ns(w));
    self->slot = n->slot;
    self->life = n->life;
    self->index = 0;
    node_settle(w, n);
}

void client_wake(world *w, uint32_t number, uint64_t turn)
{
    client *self = &w->clients[number];
    if (turn != self->turn)
        return;
    self->slot = NOBODY;
    if (self->op != NOBODY && now_ns(w) > self->give_up_ns)
        give_up(w, self);
    if (self->op == NOBODY && !new_operation(w, self))
        return;
    node *n = whom(w);
    if (!n)
        wake_after(w, number, below(w, 30 * MS));
    else if (w->ops[self->op].linear.write)
        propose(w, number, n);
    else
        ask(w, number, n);
}

/* ---- What it is told. ---- */

void clients_applied(world *w, node *n, const trm_raft_entry *entry)
{
    for (uint32_t i = 0; i < w->mood.clients; i++) {
        client *self = &w->clients[i];
        if (self->op == NOBODY || self->slot != n->slot || self->life != n->life ||
            self->index != entry->index)
            continue;
        if (self->term == entry->term)
            finished(w, i);
        else
            wake_after(w, i, below(w, 10 * MS)); /* another entry is in its place */
    }
    if (w->probe_index == entry->index && w->probe_slot == n->slot && w->probe_life == n->life) {
        w->probed = w->probe_term == entry->term;
        w->probe_index = 0;
        if (w->probed)
            w->ops[w->probe_op].linear.end = ++w->moment;
    }
}

void clients_read_done(world *w, node *n, uint64_t id, trm_status status)
{
    client *self = &w->clients[id >> 32];
    if (self->op == NOBODY || self->slot != n->slot || self->life != n->life || self->turn != (uint32_t)id)
        return; /* it has given up on this one */
    if (status == TRM_OK) {
        operation *op = &w->ops[self->op];
        op->linear.value = n->machine.value[op->linear.key];
        finished(w, (uint32_t)(id >> 32));
        return;
    }
    if (status != TRM_EFENCED && status != TRM_ETIMEOUT)
        world_fail(w, "a read ends with %s", trm_status_name(status));
    wake_after(w, (uint32_t)(id >> 32), below(w, 10 * MS));
}

/* ---- The last write of a history: it shows that all goes on. ---- */

static operation *probe_operation(world *w)
{
    if (w->probe_op == NOBODY) {
        w->probe_op = w->ops_len++;
        w->ops[w->probe_op] = (operation){
            .linear = {.value = ++w->value, .begin = ++w->moment, .end = TRM_LINEAR_OPEN, .write = true},
            .session = w->sessions++,
            .number = 1,
        };
    }
    return &w->ops[w->probe_op];
}

void probe(world *w)
{
    if (w->probed)
        return;
    world_add(w, EVENT_PROBE, 50 * MS, 0, 0, NULL);
    node *n = leader_now(w);
    bool waits = w->probe_index && w->nodes[w->probe_slot].life == w->probe_life;
    if (!n || (waits && n->slot == w->probe_slot && n->role_term == w->probe_term))
        return;
    operation *op = probe_operation(w);
    static trm_writer bytes;
    trm_writer_reset(&bytes);
    command_encode(&(command){op->session, op->number, 0, op->linear.value}, 0, &bytes);
    trm_err err;
    uint64_t index, term;
    if (trm_raft_propose(n->raft, bytes.data, bytes.len, &index, &term, &err) != TRM_OK)
        return;
    op->proposals++;
    w->probe_index = index;
    w->probe_term = term;
    w->probe_slot = n->slot;
    w->probe_life = n->life;
    node_settle(w, n);
}
