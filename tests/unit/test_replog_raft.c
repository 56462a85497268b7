/* runtime/replog_raft: several logs in one process, over files of their own, with messages that
 * may be lost. Time is virtual; the writers' threads are real, and are waited for. */
#include "config.h" /* system extensions, before any header of the system */

#include "runtime/replog_raft.h"

#include "runtime/clock.h"
#include "temp_tree.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define NODES 5u
#define TURN_NS (5 * TRM_NS_PER_MS)
#define TURNS_MAX 20000u /* of 5 ms: what must happen happens in 100 s of virtual time */
#define WAIT_MS 1        /* for a writer's thread, when nothing else moves */

typedef struct message {
    struct message *next;
    uint32_t from, to;
    size_t len;
    uint8_t bytes[];
} message;

/* The state machine: the commands in their order, as one text. */
typedef struct node {
    trm_replog *log;
    char state[1 << 16];
    uint32_t rank;
    unsigned restores;
    struct world *world;
} node;

typedef struct world {
    node nodes[NODES];
    message *first, **last;
    uint64_t now_ns;
    uint64_t random;
    unsigned loss_percent;
    bool cut[NODES]; /* neither sends nor receives */
    temp_tree tree;
} world;

static uint64_t draw(world *self)
{
    self->random = self->random * 6364136223846793005u + 1442695040888963407u;
    return self->random >> 33;
}

static void send(void *context, uint32_t to, const void *bytes, size_t len)
{
    node *from = context;
    world *in = from->world;
    if (to >= NODES || in->cut[from->rank] || in->cut[to] || draw(in) % 100 < in->loss_percent)
        return;
    message *copy = malloc(sizeof *copy + len);
    assert_non_null(copy);
    *copy = (message){.from = from->rank, .to = to, .len = len};
    memcpy(copy->bytes, bytes, len);
    *in->last = copy;
    in->last = &copy->next;
}

static void start(world *self, uint32_t rank, const trm_raft_members *members, const char *image)
{
    node *at = &self->nodes[rank];
    char dir[320];
    trm_err err = {""};
    snprintf(dir, sizeof dir, "%.300s/n%u", self->tree.path, rank);
    trm_replog_raft_config config = {.dir = dir,
                                     .rank = rank,
                                     .group = 7,
                                     .log_id = rank + 1,
                                     .seed = draw(self),
                                     .first_members = members,
                                     .image = image,
                                     .image_len = image ? strlen(image) : 0,
                                     .voters_wanted = 3,
                                     .sync_interval_us = 1,
                                     .snapshot_bytes = 2000,
                                     .keep_entries = 5,
                                     .send = send,
                                     .context = at};
    at->rank = rank;
    at->world = self;
    at->state[0] = 0;
    at->restores = 0;
    if (trm_replog_raft_open(&at->log, &config, self->now_ns, &err) != TRM_OK)
        fail_msg("rank %u: %s", rank, err.text);
}

static void stop(world *self, uint32_t rank)
{
    trm_replog_close(self->nodes[rank].log);
    self->nodes[rank].log = NULL;
}

static void begin(world *self, uint32_t voters, uint64_t seed, const char *image)
{
    *self = (world){.now_ns = TRM_NS_PER_S, .random = seed};
    self->last = &self->first;
    temp_tree_init(&self->tree);
    trm_raft_members members = {0};
    for (uint32_t i = 0; i < voters; i++)
        assert_int_equal(trm_raft_members_set(&members, i, true), TRM_OK);
    for (uint32_t i = 0; i < voters; i++)
        start(self, i, &members, image);
}

static void end(world *self)
{
    for (uint32_t i = 0; i < NODES; i++)
        stop(self, i);
    while (self->first) {
        message *next = self->first->next;
        free(self->first);
        self->first = next;
    }
    temp_tree_close(&self->tree);
}

static bool deliver(world *self)
{
    message *all = self->first;
    bool any = all != NULL;
    self->first = NULL;
    self->last = &self->first;
    while (all) {
        message *next = all->next;
        node *to = &self->nodes[all->to];
        if (to->log && !self->cut[all->to])
            trm_replog_raft_receive(to->log, all->from, all->bytes, all->len, self->now_ns);
        free(all);
        all = next;
    }
    return any;
}

static bool follow(node *self)
{
    trm_replog_item item;
    bool any = false;
    while (trm_replog_next(self->log, &item) == TRM_OK) {
        size_t len = item.kind == TRM_REPLOG_RESTORE ? 0 : strlen(self->state);
        self->restores += item.kind == TRM_REPLOG_RESTORE;
        assert_true(len + item.len < sizeof self->state);
        memcpy(self->state + len, item.bytes, item.len);
        self->state[len + item.len] = 0;
        any = true;
    }
    trm_err err;
    if (trm_replog_wants_snapshot(self->log))
        trm_replog_snapshot(self->log, self->state, strlen(self->state), &err);
    return any;
}

static void turn(world *self)
{
    bool any = deliver(self);
    struct pollfd fds[NODES];
    unsigned count = 0;
    for (uint32_t i = 0; i < NODES; i++) {
        uint64_t wake_ns = UINT64_MAX;
        if (!self->nodes[i].log)
            continue;
        any |= trm_replog_step(self->nodes[i].log, self->now_ns, &wake_ns);
        any |= follow(&self->nodes[i]);
        fds[count++] = (struct pollfd){.fd = trm_replog_fd(self->nodes[i].log), .events = POLLIN};
    }
    if (!any && !self->first && poll(fds, count, WAIT_MS) > 0)
        return; /* a writer is through: time stands still for it */
    self->now_ns += TURN_NS;
}

/* The node that leads; there is one after a bounded time. */
static node *leader(world *self)
{
    for (unsigned i = 0; i < TURNS_MAX; i++) {
        for (uint32_t n = 0; n < NODES; n++) {
            trm_replog_state state;
            if (!self->nodes[n].log || self->cut[n])
                continue;
            trm_replog_state_get(self->nodes[n].log, &state);
            if (state.leader)
                return &self->nodes[n];
        }
        turn(self);
    }
    fail_msg("no leader at %llu ns", (unsigned long long)self->now_ns);
    return NULL;
}

/* Proposes until it is decided on the node that led. Retries when leadership is lost: a command may
 * then be there twice, so that tests that cut the leader off look for it anywhere. */
static void propose(world *self, const char *command)
{
    for (unsigned tries = 0; tries < 100; tries++) {
        node *at = leader(self);
        uint64_t index;
        trm_err err;
        if (trm_replog_propose(at->log, command, strlen(command), &index, &err) != TRM_OK) {
            turn(self);
            continue;
        }
        for (unsigned i = 0; i < TURNS_MAX && at->log; i++) {
            trm_replog_state state;
            trm_replog_state_get(at->log, &state);
            if (strstr(at->state, command) && state.committed >= index)
                return;
            if (!state.leader)
                break;
            turn(self);
        }
    }
    fail_msg("'%s' is never decided", command);
}

static void wait_for(world *self, uint32_t rank, const char *text)
{
    for (unsigned i = 0; i < TURNS_MAX; i++) {
        if (strstr(self->nodes[rank].state, text))
            return;
        turn(self);
    }
    fail_msg("rank %u has not got '%s', but '%s'", rank, text, self->nodes[rank].state);
}

/* ---- The tests --------------------------------------------------------------------------------------- */

static void test_one_voter(void **state)
{
    static world self;
    begin(&self, 1, 1, NULL);
    propose(&self, "a;");
    propose(&self, "b;");
    assert_string_equal(self.nodes[0].state, "a;b;");
    stop(&self, 0);
    trm_raft_members members = {0};
    trm_raft_members_set(&members, 0, true);
    start(&self, 0, &members, NULL); /* the same log again */
    propose(&self, "c;");
    assert_string_equal(self.nodes[0].state, "a;b;c;");
    end(&self);
}

/* A loop that waits for the descriptor must not find it readable for nothing, however its steps and the
 * writer's thread fall together. */
static void test_the_descriptor_is_readable_for_news_only(void **state)
{
    static world self;
    begin(&self, 1, 1, NULL);
    propose(&self, "a;");
    node *at = leader(&self);
    struct pollfd fd = {.fd = trm_replog_fd(at->log), .events = POLLIN};
    trm_replog_state log;
    trm_err err;
    for (unsigned i = 0; i < 3000; i++) {
        uint64_t index, wake_ns = UINT64_MAX;
        assert_int_equal(trm_replog_propose(at->log, "", 0, &index, &err), TRM_OK);
        do { /* all the time, so that a step often comes while there is news being made */
            trm_replog_step(at->log, self.now_ns, &wake_ns);
            follow(at);
            trm_replog_state_get(at->log, &log);
        } while (log.committed < index);
        for (unsigned tries = 0; poll(&fd, 1, 0) > 0; tries++) {
            assert_true(tries < 100);
            trm_replog_step(at->log, self.now_ns, &wake_ns);
        }
    }
    end(&self);
}

static void test_three_voters_lose_their_leader(void **state)
{
    static world self;
    begin(&self, 3, 2, NULL);
    propose(&self, "a;");
    uint32_t first = leader(&self)->rank;
    stop(&self, first);
    propose(&self, "b;");
    assert_int_not_equal(leader(&self)->rank, first);
    assert_string_equal(leader(&self)->state, "a;b;");
    end(&self);
}

static void test_messages_get_lost(void **state)
{
    static world self;
    char command[16], want[1024] = "";
    begin(&self, 3, 3, NULL);
    self.loss_percent = 20;
    for (unsigned i = 0; i < 50; i++) {
        snprintf(command, sizeof command, "<%u>", i);
        propose(&self, command);
    }
    self.loss_percent = 0;
    for (uint32_t n = 0; n < 3; n++) {
        wait_for(&self, n, "<49>");
        for (unsigned i = 0; i < 50; i++) {
            snprintf(want, sizeof want, "<%u>", i);
            assert_non_null(strstr(self.nodes[n].state, want));
        }
    }
    end(&self);
}

static void test_a_leader_that_was_cut_off(void **state)
{
    static world self;
    uint64_t index;
    trm_err err;
    begin(&self, 3, 4, NULL);
    propose(&self, "a;");
    node *old = leader(&self);
    self.cut[old->rank] = true;
    assert_int_equal(trm_replog_propose(old->log, "lost;", 5, &index, &err), TRM_OK);
    propose(&self, "b;");
    self.cut[old->rank] = false;
    wait_for(&self, old->rank, "b;");
    assert_string_equal(old->state, "a;b;");
    trm_replog_state seen;
    trm_replog_state_get(old->log, &seen);
    assert_false(seen.leader);
    end(&self);
}

static void tell_who_lives(world *self, uint32_t dead)
{
    for (uint32_t to = 0; to < 4; to++)
        for (uint32_t n = 0; to != dead && n < 4; n++)
            trm_raft_node_hint(trm_replog_raft_core(self->nodes[to].log), n, n != dead, 0, self->now_ns);
}

/* A voter dies for good and another rank, which begins with nothing, takes its place: by an image,
 * since the log has forgotten its begin. */
static void test_a_new_rank_takes_the_place_of_a_dead_voter(void **state)
{
    static world self;
    char command[128];
    begin(&self, 3, 5, NULL);
    for (unsigned i = 0; i < 100; i++) {
        snprintf(
            command, sizeof command, "[%u %.*s]", i, 90,
            "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890");
        propose(&self, command);
    }
    node *at = leader(&self);
    uint32_t dead = at->rank == 0 ? 1 : 0;
    stop(&self, dead);
    start(&self, 3, NULL, NULL);
    trm_raft *core = trm_replog_raft_core(at->log);
    tell_who_lives(&self, dead);
    uint64_t index;
    trm_err err;
    assert_int_equal(trm_raft_change_members(core, TRM_RAFT_ADD_LEARNER, 3, &index, &err), TRM_OK);
    wait_for(&self, 3, "[99 ");
    assert_true(self.nodes[3].restores > 0);
    bool replaced = false; /* by whoever leads: on a busy machine that may be another by now */
    for (unsigned i = 0; i < TURNS_MAX && !replaced; i++) {
        tell_who_lives(&self, dead);
        turn(&self);
        at = leader(&self);
        const trm_raft_members *now = trm_raft_members_now(trm_replog_raft_core(at->log));
        const trm_raft_member *joined = trm_raft_members_find(now, 3);
        replaced = joined && joined->voter && !trm_raft_members_find(now, dead);
    }
    assert_true(replaced);
    /* Two of the three that are left are enough, the new one among them. */
    uint32_t other = at->rank == 3 ? (dead == 0 ? 1 : 0) : 3 - at->rank - dead;
    stop(&self, other);
    propose(&self, "the end;");
    wait_for(&self, 3, "the end;");
    end(&self);
}

static void test_a_group_begins_with_an_image(void **state)
{
    static world self;
    begin(&self, 3, 6, "old;");
    propose(&self, "new;");
    for (uint32_t n = 0; n < 3; n++) {
        wait_for(&self, n, "new;");
        assert_string_equal(self.nodes[n].state, "old;new;");
    }
    end(&self);
}

static void test_nonsense_is_dropped(void **state)
{
    static world self;
    uint8_t bytes[64];
    begin(&self, 1, 8, NULL);
    for (unsigned i = 0; i < 1000; i++) {
        for (unsigned at = 0; at < sizeof bytes; at++)
            bytes[at] = (uint8_t)draw(&self);
        memcpy(bytes, "TRMR", i % 2 ? 4 : 0); /* half of them look like messages at first */
        assert_false(
            trm_replog_raft_receive(self.nodes[0].log, 1, bytes, draw(&self) % sizeof bytes, self.now_ns));
    }
    propose(&self, "a;");
    end(&self);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_voter),
        cmocka_unit_test(test_the_descriptor_is_readable_for_news_only),
        cmocka_unit_test(test_three_voters_lose_their_leader),
        cmocka_unit_test(test_messages_get_lost),
        cmocka_unit_test(test_a_leader_that_was_cut_off),
        cmocka_unit_test(test_a_new_rank_takes_the_place_of_a_dead_voter),
        cmocka_unit_test(test_a_group_begins_with_an_image),
        cmocka_unit_test(test_nonsense_is_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
