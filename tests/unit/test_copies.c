/* workers/copies: a run of another host is had whole, under both names, over a slow and lossy network;
 * what cannot be copied is said and leaves nothing behind. */
#include "workers/copies.h"

#include "runtime/clock.h"
#include "tests/support/fs_mem.h"
#include "tests/support/transport_mem.h"
#include "workers/attempt.h"
#include "workers/fetch_serve.h"
#include "workers/run_reader.h"
#include "workers/run_writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#define MASTER 0u
#define OWNER 1u
#define COPIER 2u
#define RANKS 3u
#define PARTITIONS 4u
#define EPOCH 7u
#define HOUR_NS (3600u * TRM_NS_PER_S)
#define SAID_MAX 64u

typedef struct world {
    trm_fs *fs;
    trm_transport_net *net;
    trm_sender sender[RANKS];
    trm_fetch_server *server;
    trm_copies *copies;
    trm_copied said[SAID_MAX]; /* to the master */
    unsigned said_count;
    uint64_t now_ns;
    trm_err err;
} world;

static void world_init(world *self, uint64_t delay_ns, unsigned loss_permille)
{
    memset(self, 0, sizeof *self);
    self->fs = trm_fs_mem_create(3);
    self->net = trm_transport_net_create(&(trm_transport_net_options){
        .ranks = RANKS, .seed = 5, .delay_max_ns = delay_ns, .loss_permille = loss_permille});
    for (uint32_t i = 0; i < RANKS; i++)
        self->sender[i] = (trm_sender){.transport = trm_transport_net_rank(self->net, i), .epoch = EPOCH};
    assert_int_equal(self->fs->ops->make_dir(self->fs, "/owner", 0, &self->err), TRM_OK);
    assert_int_equal(self->fs->ops->make_dir(self->fs, "/copier", 0, &self->err), TRM_OK);
    assert_int_equal(
        trm_fetch_server_create(&self->server, self->fs, &self->sender[OWNER], "/owner", &self->err), 0);
    assert_int_equal(trm_copies_create(&self->copies, self->fs, &self->sender[COPIER], "/copier", &self->err),
                     0);
}

static void world_close(world *self)
{
    trm_copies_destroy(self->copies);
    trm_fetch_server_destroy(self->server);
    for (uint32_t i = 0; i < RANKS; i++)
        trm_sender_close(&self->sender[i]);
    trm_transport_net_destroy(self->net);
    trm_fs_mem_destroy(self->fs);
}

static void make_run(world *self, const char *store, uint32_t task, size_t bytes)
{
    char path[128], *value = calloc(1, bytes);
    trm_run_writer *writer;
    assert_non_null(value);
    assert_int_equal(trm_run_name(store, EPOCH, task, 0, path, sizeof path), TRM_OK);
    assert_int_equal(trm_run_writer_create(&writer, self->fs, NULL, NULL, &self->err), TRM_OK);
    assert_int_equal(trm_run_writer_open(writer, path, task, 0, PARTITIONS, &self->err), TRM_OK);
    for (uint32_t partition = 0; partition < PARTITIONS; partition++) {
        assert_int_equal(trm_run_writer_segment(writer, 0, partition, false, &self->err), TRM_OK);
        assert_int_equal(trm_run_writer_put(writer, "k", 1, value, bytes, &self->err), TRM_OK);
    }
    assert_int_equal(trm_run_writer_finish(writer, NULL, &self->err), TRM_OK);
    trm_run_writer_destroy(writer);
    free(value);
}

/* ---- Messages ----------------------------------------------------------------------------------- */

static void take(world *self, uint32_t number, uint32_t from, trm_wire_type type, trm_reader *body)
{
    trm_fetch fetch;
    trm_block block;
    if (number == OWNER) {
        assert_int_equal(type, TRM_WIRE_FETCH);
        trm_fetch_decode(&fetch, body);
        assert_true(trm_fetch_server_request(self->server, from, &fetch));
    } else if (number == COPIER) {
        assert_int_equal(type, TRM_WIRE_BLOCK);
        trm_block_decode(&block, body);
        trm_copies_block(self->copies, from, &block, self->now_ns);
    } else {
        assert_int_equal(type, TRM_WIRE_COPIED);
        assert_true(self->said_count < SAID_MAX);
        trm_copied_decode(&self->said[self->said_count++], body);
    }
}

static void receive(world *self, uint32_t number)
{
    trm_transport *transport = self->sender[number].transport;
    const uint8_t *bytes;
    uint32_t from;
    size_t len;
    transport->ops->poll(transport);
    while (transport->ops->receive(transport, &from, &bytes, &len) == TRM_OK) {
        trm_wire_header header;
        trm_reader body;
        assert_int_equal(trm_wire_open(bytes, len, &header, &body), TRM_OK);
        do
            take(self, number, from, header.type, &body);
        while (trm_reader_ok(&body) && trm_reader_left(&body));
        assert_true(trm_reader_done(&body));
    }
}

/* Until nothing happens any more, in virtual time. */
static void run(world *self)
{
    for (uint64_t end_ns = self->now_ns + HOUR_NS; self->now_ns < end_ns;) {
        uint64_t wake_ns = UINT64_MAX;
        for (uint32_t i = 0; i < RANKS; i++)
            receive(self, i);
        bool any = trm_fetch_server_step(self->server);
        any |= trm_copies_step(self->copies, self->now_ns, &wake_ns);
        any |= !trm_copies_tell(self->copies, MASTER);
        uint64_t next_ns = trm_transport_net_next_ns(self->net);
        next_ns = next_ns < wake_ns ? next_ns : wake_ns;
        if (!any && next_ns == UINT64_MAX)
            return;
        self->now_ns = any || next_ns <= self->now_ns ? self->now_ns + 1000 : next_ns;
        trm_transport_net_set_now(self->net, self->now_ns);
    }
    fail_msg("it does not end");
}

static void ask(world *self, uint32_t task, uint32_t attempt)
{
    trm_copy what = {.task = task, .attempt = attempt, .rank = OWNER};
    assert_true(trm_copies_add(self->copies, &what, PARTITIONS));
}

static trm_status count_name(const char *name, void *context)
{
    ++*(unsigned *)context;
    return TRM_OK;
}

static unsigned files(world *self)
{
    unsigned count = 0;
    assert_int_equal(self->fs->ops->list(self->fs, "/copier", count_name, &count, &self->err), TRM_OK);
    return count;
}

/* A run of the same task with the same segments, read where it would be read if this rank had made it. */
static void expect_copy(world *self, uint32_t task)
{
    char from[128], to[128];
    trm_run_index a, b;
    trm_run_name("/owner", EPOCH, task, 0, from, sizeof from);
    trm_run_name("/copier", EPOCH, task, 0, to, sizeof to);
    assert_int_equal(trm_run_index_load(&a, self->fs, from, &self->err), TRM_OK);
    assert_int_equal(trm_run_index_load(&b, self->fs, to, &self->err), TRM_OK);
    assert_int_equal(b.task, task);
    assert_int_equal(a.count, b.count);
    for (uint32_t i = 0; i < a.count; i++) {
        assert_int_equal(a.segments[i].partition, b.segments[i].partition);
        assert_int_equal(a.segments[i].stored_bytes, b.segments[i].stored_bytes);
    }
    trm_run_index_close(&a);
    trm_run_index_close(&b);
}

/* ---- Tests ---------------------------------------------------------------------------------------- */

static void runs_are_copied_whole(void **state)
{
    world self;
    world_init(&self, 3 * TRM_NS_PER_MS, 50);
    for (uint32_t task = 0; task < 12; task++)
        make_run(&self, "/owner", task, 1 + task * 40000);
    for (uint32_t task = 0; task < 12; task++)
        ask(&self, task, 0);
    run(&self);
    trm_copies_tell_again(self.copies); /* of what was said some may be lost on its way */
    trm_transport_net_set_loss(self.net, 0);
    self.said_count = 0;
    run(&self);
    assert_int_equal(self.said_count, 12);
    for (uint32_t i = 0; i < 12; i++) {
        assert_int_equal(self.said[i].status, TRM_OK);
        assert_int_equal(self.said[i].epoch, EPOCH);
        assert_true(self.said[i].bytes > 0);
        expect_copy(&self, i);
    }
    assert_int_equal(files(&self), 24); /* two names each, and nothing else */
    assert_false(trm_copies_replaced(self.copies));
    world_close(&self);
}

static void what_is_not_there_is_said(void **state)
{
    world self;
    world_init(&self, 0, 0);
    make_run(&self, "/owner", 1, 10);
    ask(&self, 0, 0);
    ask(&self, 1, 0);
    ask(&self, 1, 9);
    run(&self);
    assert_int_equal(self.said_count, 3);
    for (unsigned i = 0; i < 3; i++) {
        bool good = self.said[i].task == 1 && self.said[i].attempt == 0;
        assert_int_equal(self.said[i].status, good ? TRM_OK : TRM_ELOST);
    }
    assert_int_equal(files(&self), 2);
    trm_copies_tell_again(self.copies);
    run(&self);
    assert_int_equal(self.said_count, 4); /* failures are told once */
    world_close(&self);
}

static void a_full_disk_fails_the_copy(void **state)
{
    world self;
    world_init(&self, 0, 0);
    make_run(&self, "/owner", 0, 300000);
    trm_fs_mem_set_capacity(self.fs, trm_fs_mem_used(self.fs) + 100000);
    ask(&self, 0, 0);
    run(&self);
    assert_int_equal(self.said_count, 1);
    assert_int_equal(self.said[0].status, TRM_ENOSPACE);
    assert_int_equal(files(&self), 0);
    trm_fs_mem_set_capacity(self.fs, UINT64_MAX);
    ask(&self, 0, 0);
    run(&self);
    assert_int_equal(self.said[1].status, TRM_OK);
    expect_copy(&self, 0);
    world_close(&self);
}

/* Such as one that could not be read. */
static void what_has_its_name_gives_way(void **state)
{
    world self;
    world_init(&self, 0, 0);
    make_run(&self, "/owner", 0, 100);
    make_run(&self, "/copier", 0, 7);
    ask(&self, 0, 0);
    run(&self);
    assert_int_equal(self.said[0].status, TRM_OK);
    expect_copy(&self, 0);
    assert_true(trm_copies_replaced(self.copies));
    assert_false(trm_copies_replaced(self.copies));
    world_close(&self);
}

static void nonsense_is_refused(void **state)
{
    world self;
    world_init(&self, 0, 0);
    assert_false(trm_copies_add(self.copies, &(trm_copy){.rank = RANKS}, PARTITIONS));
    assert_false(trm_copies_add(self.copies, &(trm_copy){.rank = COPIER}, PARTITIONS)); /* from itself */
    assert_false(trm_copies_add(self.copies, &(trm_copy){.rank = OWNER, .epoch = 1}, PARTITIONS));
    assert_false(trm_copies_add(self.copies, &(trm_copy){.rank = OWNER}, 0));
    for (unsigned i = 0; i < TRM_COPY_QUEUE_MAX; i++)
        ask(&self, i, 0);
    assert_false(trm_copies_add(self.copies, &(trm_copy){.rank = OWNER}, PARTITIONS));
    world_close(&self);
}

/* In the middle of it. */
static void what_was_not_fetched_to_its_end_is_removed(void **state)
{
    world self;
    world_init(&self, 0, 0);
    make_run(&self, "/owner", 0, 900000);
    ask(&self, 0, 0);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t wake_ns = UINT64_MAX;
        for (uint32_t rank = 0; rank < RANKS; rank++)
            receive(&self, rank);
        trm_fetch_server_step(self.server);
        trm_copies_step(self.copies, self.now_ns, &wake_ns);
    }
    assert_int_equal(files(&self), 1);
    trm_copies_destroy(self.copies);
    self.copies = NULL;
    assert_int_equal(files(&self), 0);
    world_close(&self);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_are_copied_whole),
        cmocka_unit_test(what_is_not_there_is_said),
        cmocka_unit_test(a_full_disk_fails_the_copy),
        cmocka_unit_test(what_has_its_name_gives_way),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(what_was_not_fetched_to_its_end_is_removed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
