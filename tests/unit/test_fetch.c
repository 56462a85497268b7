/* workers/fetch, fetch_serve: extracts arrive whole over a slow and lossy network, what cannot
 * be had is said, and no more is asked for than there are credits. */
#include "workers/fetch.h"
#include "workers/fetch_serve.h"

#include "runtime/clock.h"
#include "tests/support/fs_mem.h"
#include "tests/support/transport_mem.h"
#include "workers/attempt.h"
#include "workers/run_reader.h"
#include "workers/run_writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RANKS 4u
#define PARTITIONS 6u
#define EPOCH 7u
#define HOUR_NS (3600u * TRM_NS_PER_S)

typedef struct node {
    trm_sender sender;
    trm_fetch_server *server;
    trm_fetcher *fetcher;
    char store[32];
    uint32_t out[RANKS], out_most; /* FETCHes under way, by peer; the most at once of any */
    uint64_t stray;
} node;

typedef struct world {
    trm_fs *fs;
    trm_transport_net *net;
    node nodes[RANKS];
    uint64_t now_ns;
    trm_err err;
} world;

static void world_init(world *self, const trm_transport_net_options *options)
{
    memset(self, 0, sizeof *self);
    self->fs = trm_fs_mem_create(3);
    self->net = trm_transport_net_create(options);
    for (uint32_t i = 0; i < RANKS; i++) {
        node *own = &self->nodes[i];
        snprintf(own->store, sizeof own->store, "/store%u", i);
        assert_int_equal(self->fs->ops->make_dir(self->fs, own->store, 0, &self->err), TRM_OK);
        own->sender = (trm_sender){.transport = trm_transport_net_rank(self->net, i), .epoch = EPOCH};
        assert_int_equal(
            trm_fetch_server_create(&own->server, self->fs, &own->sender, own->store, &self->err), 0);
        assert_int_equal(
            trm_fetcher_create(&own->fetcher, self->fs, &own->sender, own->store, RANKS, 'f', &self->err),
            TRM_OK);
    }
}

static void world_close(world *self)
{
    for (uint32_t i = 0; i < RANKS; i++) {
        trm_fetcher_destroy(self->nodes[i].fetcher);
        trm_fetch_server_destroy(self->nodes[i].server);
        trm_sender_close(&self->nodes[i].sender);
    }
    trm_transport_net_destroy(self->net);
    trm_fs_mem_destroy(self->fs);
}

/* A run with a few records a partition, of about `bytes` in all, none in partition 2. */
static void make_run(world *self, uint32_t rank, uint32_t task, uint32_t attempt, size_t bytes)
{
    char path[128], key[32];
    trm_run_writer *writer;
    char *value = malloc(bytes / PARTITIONS + 1);
    memset(value, 'a' + (int)(task % 26), bytes / PARTITIONS + 1);
    assert_int_equal(trm_run_name(self->nodes[rank].store, EPOCH, task, attempt, path, sizeof path), TRM_OK);
    assert_int_equal(trm_run_writer_create(&writer, self->fs, NULL, NULL, &self->err), TRM_OK);
    assert_int_equal(trm_run_writer_open(writer, path, task, attempt, PARTITIONS, &self->err), TRM_OK);
    for (uint32_t partition = 0; partition < PARTITIONS; partition++) {
        assert_int_equal(trm_run_writer_segment(writer, 0, partition, false, &self->err), TRM_OK);
        int len = snprintf(key, sizeof key, "key %u of %u", partition, task);
        if (partition != 2)
            assert_int_equal(
                trm_run_writer_put(writer, key, (size_t)len, value, bytes / PARTITIONS, &self->err), 0);
    }
    assert_int_equal(trm_run_writer_finish(writer, NULL, &self->err), TRM_OK);
    trm_run_writer_destroy(writer);
    free(value);
}

static void count_out(world *self, uint32_t from, uint32_t to, int change)
{
    node *own = &self->nodes[from];
    own->out[to] += (uint32_t)change;
    own->out_most = own->out[to] > own->out_most ? own->out[to] : own->out_most;
}

static void receive(world *self, uint32_t number)
{
    node *own = &self->nodes[number];
    trm_transport *transport = own->sender.transport;
    uint32_t from;
    const uint8_t *bytes;
    size_t len;
    transport->ops->poll(transport);
    while (transport->ops->receive(transport, &from, &bytes, &len) == TRM_OK) {
        trm_wire_header header;
        trm_reader body;
        assert_int_equal(trm_wire_open(bytes, len, &header, &body), TRM_OK);
        assert_int_equal(header.epoch, EPOCH);
        if (header.type == TRM_WIRE_FETCH) {
            trm_fetch fetch;
            trm_fetch_decode(&fetch, &body);
            assert_true(trm_reader_done(&body));
            count_out(self, from, number, 1);
            assert_true(trm_fetch_server_request(own->server, from, &fetch));
        } else {
            trm_block block;
            assert_int_equal(header.type, TRM_WIRE_BLOCK);
            trm_block_decode(&block, &body);
            assert_true(trm_reader_done(&body));
            count_out(self, number, from, -1);
            own->stray += !trm_fetcher_take(own->fetcher, from, &block, self->now_ns);
        }
    }
}

/* Until nothing happens any more, in virtual time; at most an hour of it. */
static void run(world *self)
{
    uint64_t end_ns = self->now_ns + HOUR_NS;
    for (;;) {
        uint64_t wake_ns = UINT64_MAX;
        bool any = false;
        for (uint32_t i = 0; i < RANKS; i++) {
            receive(self, i);
            any |= trm_fetch_server_step(self->nodes[i].server);
            any |= trm_fetcher_step(self->nodes[i].fetcher, self->now_ns, &wake_ns);
        }
        uint64_t next_ns = trm_transport_net_next_ns(self->net);
        next_ns = next_ns < wake_ns ? next_ns : wake_ns;
        if (!any && next_ns == UINT64_MAX)
            return;
        self->now_ns = any || next_ns <= self->now_ns ? self->now_ns + 1000 : next_ns;
        assert_true(self->now_ns < end_ns);
        trm_transport_net_set_now(self->net, self->now_ns);
    }
}

static trm_status ended(world *self, uint32_t number, trm_extract_id *id)
{
    trm_status status;
    if (!trm_fetcher_next(self->nodes[number].fetcher, id, &status, &self->err))
        return TRM_AGAIN;
    return status;
}

/* What was fetched has the segments of the run, byte for byte. */
static void expect_extract(world *self, uint32_t number, uint32_t owner, const trm_extract_id *id)
{
    char path[TRM_FETCH_PATH_BYTES], run_path[128];
    trm_run_index whole, part;
    trm_fetcher_path(self->nodes[number].fetcher, id, path);
    trm_run_name(self->nodes[owner].store, EPOCH, id->task, id->attempt, run_path, sizeof run_path);
    assert_int_equal(trm_run_index_load(&whole, self->fs, run_path, &self->err), TRM_OK);
    assert_int_equal(trm_run_index_load(&part, self->fs, path, &self->err), TRM_OK);
    uint8_t *a, *b;
    size_t a_len, b_len, found = 0;
    assert_int_equal(trm_fs_read_whole(self->fs, run_path, 1 << 28, &a, &a_len, &self->err), TRM_OK);
    assert_int_equal(trm_fs_read_whole(self->fs, path, 1 << 28, &b, &b_len, &self->err), TRM_OK);
    for (uint32_t i = 0; i < whole.count; i++) {
        const trm_segment *from = &whole.segments[i];
        if (from->partition < id->first || from->partition >= id->last)
            continue;
        assert_true(found < part.count);
        const trm_segment *to = &part.segments[found++];
        assert_int_equal(from->partition, to->partition);
        assert_int_equal(from->records, to->records);
        assert_int_equal(from->stored_bytes, to->stored_bytes);
        assert_memory_equal(a + from->offset, b + to->offset, from->stored_bytes);
    }
    assert_int_equal(found, part.count);
    free(a);
    free(b);
    trm_run_index_close(&whole);
    trm_run_index_close(&part);
}

static void want(world *self, uint32_t number, uint32_t from, trm_extract_id id)
{
    assert_int_equal(trm_fetcher_want(self->nodes[number].fetcher, &id, from), TRM_OK);
}

static bool is_there(world *self, uint32_t number, const trm_extract_id *id)
{
    char path[TRM_FETCH_PATH_BYTES];
    trm_file *file;
    trm_fetcher_path(self->nodes[number].fetcher, id, path);
    if (self->fs->ops->open(self->fs, path, TRM_FS_READ, &file, &self->err) != TRM_OK)
        return false;
    self->fs->ops->close(file);
    return true;
}

static const trm_transport_net_options clean = {
    .ranks = RANKS, .seed = 5, .delay_min_ns = 1000, .delay_max_ns = 200000};

/* Everybody fetches from everybody, small and large (several blocks), through loss. */
static void all_fetch_from_all(unsigned loss_permille)
{
    trm_transport_net_options options = clean;
    options.loss_permille = loss_permille;
    world self;
    world_init(&self, &options);
    for (uint32_t i = 0; i < 40; i++)
        make_run(&self, i % RANKS, i, i / 7, i % 10 ? 600 + i * 100 : 3000000 + i);
    for (uint32_t to = 0; to < RANKS; to++)
        for (uint32_t i = 0; i < 40; i++)
            if (i % RANKS != to)
                want(&self, to, i % RANKS, (trm_extract_id){i, i / 7, to, to + 2});
    unsigned whole = 0, left = RANKS * 30;
    for (unsigned turn = 0; turn < 50 && left; turn++) {
        run(&self);
        for (uint32_t to = 0; to < RANKS; to++) {
            trm_extract_id id;
            trm_status status;
            while ((status = ended(&self, to, &id)) != TRM_AGAIN) {
                if (status == TRM_OK) {
                    expect_extract(&self, to, id.task % RANKS, &id);
                    whole++;
                    left--;
                } else { /* four losses in a row: asked for again, as the shuffle would in the end */
                    assert_true(loss_permille > 0);
                    assert_int_equal(status, TRM_ELOST);
                    assert_false(is_there(&self, to, &id));
                    want(&self, to, id.task % RANKS, id);
                }
            }
        }
    }
    assert_int_equal(whole, RANKS * 30);
    for (uint32_t i = 0; i < RANKS; i++) {
        assert_int_equal(trm_fetcher_open(self.nodes[i].fetcher), 0);
        if (!loss_permille) {
            assert_int_equal(self.nodes[i].stray, 0);
            assert_int_equal(self.nodes[i].out_most, TRM_FETCH_CREDITS);
        }
    }
    world_close(&self);
}

static void extracts_arrive_whole(void **state)
{
    all_fetch_from_all(0);
}
static void extracts_arrive_through_loss(void **state)
{
    all_fetch_from_all(120);
}

static void what_is_not_there_is_lost(void **state)
{
    world self;
    world_init(&self, &clean);
    make_run(&self, 1, 0, 0, 1000);
    trm_extract_id id, gone = {.task = 5, .attempt = 0, .first = 0, .last = 3}, there = {0, 0, 0, 3};
    want(&self, 0, 1, gone);
    want(&self, 0, 1, there);
    run(&self);
    unsigned lost = 0, whole = 0;
    for (trm_status status; (status = ended(&self, 0, &id)) != TRM_AGAIN;) {
        lost += status == TRM_ELOST && id.task == 5;
        whole += status == TRM_OK && id.task == 0;
    }
    assert_int_equal(lost, 1);
    assert_int_equal(whole, 1);
    assert_false(is_there(&self, 0, &gone));
    world_close(&self);
}

static void what_cannot_be_read_is_corrupt(void **state)
{
    world self;
    world_init(&self, &clean);
    make_run(&self, 1, 0, 0, 1000);
    make_run(&self, 1, 1, 0, 1000);
    char path[128], other[128];
    trm_file *file;
    trm_run_name(self.nodes[1].store, EPOCH, 0, 0, path, sizeof path);
    assert_int_equal(self.fs->ops->open(self.fs, path, TRM_FS_WRITE, &file, &self.err), TRM_OK);
    assert_int_equal(self.fs->ops->truncate(file, 500, &self.err), TRM_OK);
    self.fs->ops->close(file);
    /* A run under another's name. */
    trm_run_name(self.nodes[1].store, EPOCH, 1, 0, path, sizeof path);
    trm_run_name(self.nodes[1].store, EPOCH, 2, 0, other, sizeof other);
    assert_int_equal(self.fs->ops->rename(self.fs, path, other, &self.err), TRM_OK);
    trm_extract_id id;
    want(&self, 0, 1, (trm_extract_id){0, 0, 0, 3});
    want(&self, 0, 1, (trm_extract_id){2, 0, 0, 3});
    want(&self, 0, 1, (trm_extract_id){2, 0, 0, PARTITIONS + 1}); /* more than it has */
    run(&self);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(ended(&self, 0, &id), TRM_ECORRUPT);
    assert_int_equal(ended(&self, 0, &id), TRM_AGAIN);
    world_close(&self);
}

static void a_dead_peer_is_given_up(void **state)
{
    world self;
    world_init(&self, &clean);
    make_run(&self, 2, 0, 0, 1000);
    trm_transport_net_kill(self.net, 1);
    for (uint32_t i = 0; i < 20; i++)
        want(&self, 0, 1, (trm_extract_id){i, 0, 0, 3});
    want(&self, 0, 2, (trm_extract_id){0, 0, 1, 3}); /* others are not kept waiting */
    uint64_t wake_ns = UINT64_MAX;
    trm_fetcher_step(self.nodes[0].fetcher, self.now_ns, &wake_ns);
    assert_int_equal(wake_ns, TRM_FETCH_TIMEOUT_MS * TRM_NS_PER_MS);
    run(&self);
    assert_true(self.now_ns >= TRM_FETCH_TRIES * TRM_FETCH_TIMEOUT_MS * TRM_NS_PER_MS);
    trm_extract_id id;
    assert_int_equal(ended(&self, 0, &id), TRM_OK);
    assert_int_equal(id.first, 1);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(ended(&self, 0, &id), TRM_ELOST);
    assert_int_equal(ended(&self, 0, &id), TRM_AGAIN);
    world_close(&self);
}

static void forgotten_ones_leave_nothing(void **state)
{
    world self;
    world_init(&self, &clean);
    make_run(&self, 1, 0, 0, 3000000);
    make_run(&self, 1, 1, 0, 3000000);
    make_run(&self, 2, 1, 0, 3000000);
    trm_extract_id ids[] = {{0, 0, 0, 6}, {1, 0, 0, 6}, {9, 0, 0, 6}}, id;
    for (unsigned i = 0; i < 3; i++)
        want(&self, 0, 1, ids[i]);
    uint64_t wake_ns = UINT64_MAX;
    for (unsigned turn = 0; turn < 200 && !is_there(&self, 0, &ids[0]); turn++) { /* in the middle */
        self.now_ns += 50000;
        trm_transport_net_set_now(self.net, self.now_ns);
        for (uint32_t i = 0; i < RANKS; i++) {
            receive(&self, i);
            trm_fetch_server_step(self.nodes[i].server);
            trm_fetcher_step(self.nodes[i].fetcher, self.now_ns, &wake_ns);
        }
    }
    assert_true(is_there(&self, 0, &ids[0]));
    trm_fetcher_forget(self.nodes[0].fetcher, &ids[0]);
    assert_false(is_there(&self, 0, &ids[0]));
    want(&self, 0, 2, ids[1]); /* now from elsewhere */
    trm_fetcher_forget(self.nodes[0].fetcher, &ids[2]);
    run(&self);
    assert_int_equal(ended(&self, 0, &id), TRM_OK);
    assert_int_equal(id.task, 1);
    expect_extract(&self, 0, 2, &id);
    assert_int_equal(ended(&self, 0, &id), TRM_AGAIN);
    trm_fetcher_forget(self.nodes[0].fetcher, &ids[1]); /* whole */
    assert_false(is_there(&self, 0, &ids[1]));
    world_close(&self);
}

static void a_full_disk_is_said(void **state)
{
    world self;
    world_init(&self, &clean);
    make_run(&self, 1, 0, 0, 3000000);
    trm_fs_mem_set_capacity(self.fs, trm_fs_mem_used(self.fs) + 700000);
    trm_extract_id id;
    want(&self, 0, 1, (trm_extract_id){0, 0, 0, 6});
    run(&self);
    assert_int_equal(ended(&self, 0, &id), TRM_ENOSPACE);
    assert_false(is_there(&self, 0, &id));
    world_close(&self);
}

/* Blocks that nobody asked for, or that are not what was asked for, change nothing. */
static void stray_blocks_are_dropped(void **state)
{
    world self;
    world_init(&self, &clean);
    static uint8_t bytes[TRM_FETCH_BLOCK_BYTES];
    trm_fetcher *fetcher = self.nodes[0].fetcher;
    trm_block block = {
        .task = 0, .attempt = 0, .first = 0, .last = 6, .total_bytes = 100, .bytes = bytes, .bytes_len = 100};
    assert_false(trm_fetcher_take(fetcher, 1, &block, 0));
    want(&self, 0, 1, (trm_extract_id){0, 0, 0, 6});
    assert_false(trm_fetcher_take(fetcher, 1, &block, 0)); /* not asked for yet */
    uint64_t wake_ns = UINT64_MAX;
    trm_fetcher_step(fetcher, 0, &wake_ns);
    assert_false(trm_fetcher_take(fetcher, 2, &block, 0)); /* of another rank */
    block.offset = 7;
    block.bytes_len = 93;
    assert_false(trm_fetcher_take(fetcher, 1, &block, 0)); /* another place */
    block.offset = 0;
    block.bytes_len = 0;
    assert_true(trm_fetcher_take(fetcher, 1, &block, 0)); /* an answer, without any sense */
    trm_extract_id id;
    assert_int_equal(ended(&self, 0, &id), TRM_ECORRUPT);
    world_close(&self);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(extracts_arrive_whole),     cmocka_unit_test(extracts_arrive_through_loss),
        cmocka_unit_test(what_is_not_there_is_lost), cmocka_unit_test(what_cannot_be_read_is_corrupt),
        cmocka_unit_test(a_dead_peer_is_given_up),   cmocka_unit_test(forgotten_ones_leave_nothing),
        cmocka_unit_test(a_full_disk_is_said),       cmocka_unit_test(stray_blocks_are_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
