/* workers/shuffle: of runs that have gone since their indexes were read, all that a reduce would miss are
 * told LOST when it misses the first, and what is there still is not. */
#include "workers/shuffle.h"

#include "tests/support/fs_mem.h"
#include "tests/support/transport_mem.h"
#include "workers/attempt.h"
#include "workers/run_writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#define EPOCH 3u
#define MAPS 200u /* far more than a reduce may be given back */
#define STORE "/store"

typedef struct world {
    trm_fs *fs;
    trm_transport_net *net;
    trm_sender sender;
    trm_shuffle *shuffle;
    uint64_t now_ns;
    unsigned told[MAPS]; /* LOST */
    trm_err err;
} world;

static void path_of(char out[1024], uint32_t task, uint32_t attempt)
{
    assert_int_equal(trm_run_name(STORE, EPOCH, task, attempt, out, 1024), TRM_OK);
}

/* A record of partition 0, unless there is to be none. */
static void make_run(world *self, uint32_t task, uint32_t attempt, bool any)
{
    char path[1024];
    trm_run_writer *writer;
    path_of(path, task, attempt);
    assert_int_equal(trm_run_writer_create(&writer, self->fs, NULL, NULL, &self->err), TRM_OK);
    assert_int_equal(trm_run_writer_open(writer, path, task, attempt, 1, &self->err), TRM_OK);
    if (any) {
        assert_int_equal(trm_run_writer_segment(writer, 0, 0, false, &self->err), TRM_OK);
        assert_int_equal(trm_run_writer_put(writer, "k", 1, "v", 1, &self->err), TRM_OK);
    }
    assert_int_equal(trm_run_writer_finish(writer, NULL, &self->err), TRM_OK);
    trm_run_writer_destroy(writer);
}

static void remove_run(world *self, uint32_t task)
{
    char path[1024];
    path_of(path, task, 0);
    assert_int_equal(self->fs->ops->remove(self->fs, path, &self->err), TRM_OK);
}

/* What is due is done, and LOST counted. */
static void settle(world *self)
{
    trm_output_at lost;
    uint64_t wake_ns = UINT64_MAX;
    while (trm_shuffle_step(self->shuffle, self->now_ns, &wake_ns))
        ;
    while (trm_shuffle_lost(self->shuffle, &lost)) {
        assert_true(lost.task < MAPS && lost.attempt == 0 && lost.rank == 0);
        self->told[lost.task]++;
    }
}

/* All runs lie in the store of the one rank, whose reduce is ready to begin. */
static void begin(world *self)
{
    trm_peer peer = {.run_store = STORE};
    trm_setup setup = {.tasks = MAPS, .partitions = 1, .peers_count = 1, .peers = &peer};
    *self = (world){.now_ns = 1};
    self->fs = trm_fs_mem_create(1);
    assert_int_equal(self->fs->ops->make_dir(self->fs, STORE, 0, &self->err), TRM_OK);
    self->net = trm_transport_net_create(&(trm_transport_net_options){.ranks = 1});
    self->sender = (trm_sender){.transport = trm_transport_net_rank(self->net, 0), .epoch = EPOCH};
    assert_int_equal(trm_shuffle_create(&self->shuffle, self->fs, &self->sender, STORE, &setup, &self->err),
                     TRM_OK);
    assert_int_equal(trm_shuffle_want(self->shuffle, 0), TRM_OK);
    for (uint32_t task = 0; task < MAPS; task++) {
        make_run(self, task, 0, task % 4 != 3);
        trm_shuffle_output(self->shuffle, &(trm_output_at){.task = task});
    }
    settle(self);
    assert_int_equal(trm_shuffle_state(self->shuffle, 0, &self->err), TRM_OK);
}

static void end(world *self)
{
    trm_shuffle_done(self->shuffle, 0);
    trm_shuffle_destroy(self->shuffle);
    trm_sender_close(&self->sender);
    trm_transport_net_destroy(self->net);
    trm_fs_mem_destroy(self->fs);
}

/* Those of every fourth map have nothing for the reduce: nobody misses them. */
static void all_that_are_gone_are_told_at_once(void **state)
{
    world self;
    begin(&self);
    for (uint32_t task = 0; task < MAPS; task++)
        if (task % 2)
            remove_run(&self, task);
    trm_shuffle_unreadable(self.shuffle, 0, 1, 0, TRM_ELOST, self.now_ns);
    settle(&self);
    for (uint32_t task = 0; task < MAPS; task++)
        assert_int_equal(self.told[task], task % 4 == 1);
    assert_int_equal(trm_shuffle_state(self.shuffle, 0, &self.err), TRM_AGAIN);
    for (uint32_t task = 1; task < MAPS; task += 4) { /* they are made again */
        make_run(&self, task, 1, true);
        trm_shuffle_output(self.shuffle, &(trm_output_at){.task = task, .attempt = 1});
    }
    settle(&self);
    assert_int_equal(trm_shuffle_state(self.shuffle, 0, &self.err), TRM_OK);
    end(&self);
}

/* It may have moved meanwhile: only a reduce that fails again is believed. */
static void what_is_there_is_not_told(void **state)
{
    world self;
    begin(&self);
    trm_shuffle_unreadable(self.shuffle, 0, 1, 0, TRM_ELOST, self.now_ns);
    settle(&self);
    assert_int_equal(trm_shuffle_state(self.shuffle, 0, &self.err), TRM_OK);
    trm_shuffle_unreadable(self.shuffle, 0, 1, 0, TRM_ELOST, self.now_ns);
    settle(&self);
    for (uint32_t task = 0; task < MAPS; task++)
        assert_int_equal(self.told[task], task == 1);
    end(&self);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_that_are_gone_are_told_at_once),
        cmocka_unit_test(what_is_there_is_not_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
