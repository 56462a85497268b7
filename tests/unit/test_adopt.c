/* workers/adopt: runs of another store are had by two ranks one after the other, none takes the name of
 * what the rank has made itself, and what was never committed gives way to what was. */
#include "workers/adopt.h"

#include "temp_tree.h"
#include "tests/support/transport_mem.h"
#include "workers/attempt.h"
#include "workers/run_reader.h"
#include "workers/run_writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define EPOCH 3u

typedef struct world {
    temp_tree tree;
    trm_transport_net *net;
    trm_sender sender;
    char *own;
    trm_adopter *adopter;
    trm_err err;
} world;

static void world_init(world *self)
{
    memset(self, 0, sizeof *self);
    temp_tree_init(&self->tree);
    self->net = trm_transport_net_create(&(trm_transport_net_options){.ranks = 1});
    self->sender = (trm_sender){.transport = trm_transport_net_rank(self->net, 0), .epoch = EPOCH};
    self->own = strdup(temp_tree_dir(&self->tree, "own"));
    assert_int_equal(trm_adopter_create(&self->adopter, trm_fs_posix(), &self->sender, self->own, &self->err),
                     0);
}

static void world_close(world *self)
{
    trm_adopter_destroy(self->adopter, false);
    trm_sender_close(&self->sender);
    trm_transport_net_destroy(self->net);
    free(self->own);
    temp_tree_close(&self->tree);
}

/* A store is believed when it is private. */
static char *make_store(world *self, const char *name)
{
    char *path = temp_tree_dir(&self->tree, name);
    assert_int_equal(chmod(path, 0700), 0);
    return path;
}

static void path_of(char out[1024], const char *store, uint64_t epoch, uint32_t task, uint32_t attempt)
{
    assert_int_equal(trm_run_name(store, epoch, task, attempt, out, 1024), TRM_OK);
}

/* With so many bytes in it, by which it is known. */
static void make_run(const char *store, uint64_t epoch, uint32_t task, size_t bytes)
{
    char path[1024], value[512] = {0};
    trm_run_writer *writer;
    trm_err err;
    path_of(path, store, epoch, task, 0);
    assert_int_equal(trm_run_writer_create(&writer, trm_fs_posix(), NULL, NULL, &err), TRM_OK);
    assert_int_equal(trm_run_writer_open(writer, path, task, 0, 1, &err), TRM_OK);
    assert_int_equal(trm_run_writer_segment(writer, 0, 0, false, &err), TRM_OK);
    assert_int_equal(trm_run_writer_put(writer, "k", 1, value, bytes, &err), TRM_OK);
    assert_int_equal(trm_run_writer_finish(writer, NULL, &err), TRM_OK);
    trm_run_writer_destroy(writer);
}

static off_t size_of(const char *store, uint64_t epoch, uint32_t task)
{
    char path[1024];
    struct stat about;
    path_of(path, store, epoch, task, 0);
    return stat(path, &about) == 0 ? about.st_size : -1;
}

/* Returns how many runs it says it has. */
static unsigned adopt(world *self, const char *path, uint64_t epoch)
{
    trm_store store = {.epoch = epoch};
    unsigned held = 0;
    bool last = false;
    snprintf(store.path, sizeof store.path, "%s", path);
    assert_true(trm_adopter_add(self->adopter, &store));
    while (trm_adopter_step(self->adopter, 0))
        continue;
    while (!last) {
        uint32_t from;
        const uint8_t *bytes;
        size_t len;
        trm_wire_header header;
        trm_reader body;
        trm_held said;
        trm_output_at at;
        self->sender.transport->ops->poll(self->sender.transport);
        assert_int_equal(self->sender.transport->ops->receive(self->sender.transport, &from, &bytes, &len),
                         0);
        assert_int_equal(trm_wire_open(bytes, len, &header, &body), TRM_OK);
        assert_int_equal(header.type, TRM_WIRE_HELD);
        for (trm_held_decode(&said, &body); trm_reader_left(&body); held++)
            trm_output_at_decode(&at, &body);
        assert_true(trm_reader_done(&body));
        last = said.last;
    }
    return held;
}

static void runs_stay_where_they_were(void **state)
{
    world self;
    world_init(&self);
    char *store = make_store(&self, "store");
    make_run(store, EPOCH, 1, 10);
    make_run(store, EPOCH, 2, 10);
    assert_int_equal(adopt(&self, store, EPOCH), 2);
    assert_int_equal(size_of(self.own, EPOCH, 1), size_of(store, EPOCH, 1));
    assert_int_equal(adopt(&self, store, EPOCH), 2); /* another master asks again */
    assert_int_equal(adopt(&self, "/there/is/none", EPOCH), 0);
    world_close(&self);
}

static void a_run_that_was_not_committed_gives_way(void **state)
{
    world self;
    world_init(&self);
    char *older = make_store(&self, "older"), *store = make_store(&self, "store");
    make_run(older, EPOCH - 1, 1, 10); /* its launch was lost before it could be committed … */
    make_run(store, EPOCH, 1, 200);    /* … and the task was run again */
    assert_int_equal(adopt(&self, older, EPOCH - 1), 1);
    assert_int_equal(adopt(&self, store, EPOCH), 1);
    assert_int_equal(size_of(self.own, EPOCH, 1), size_of(store, EPOCH, 1));
    assert_int_equal(adopt(&self, older, EPOCH - 1), 0); /* and not the other way round */
    assert_int_equal(size_of(self.own, EPOCH, 1), size_of(store, EPOCH, 1));
    world_close(&self);
}

static void what_it_has_made_itself_stays(void **state)
{
    world self;
    world_init(&self);
    char *older = make_store(&self, "older");
    make_run(older, EPOCH - 1, 1, 10);
    make_run(self.own, EPOCH, 1, 200);
    off_t size = size_of(self.own, EPOCH, 1);
    assert_int_equal(adopt(&self, older, EPOCH - 1), 0);
    assert_int_equal(size_of(self.own, EPOCH, 1), size);
    world_close(&self);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_stay_where_they_were),
        cmocka_unit_test(a_run_that_was_not_committed_gives_way),
        cmocka_unit_test(what_it_has_made_itself_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
