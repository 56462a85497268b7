/* workers/adopt: runs of another store are had by two ranks one after the other, and one that lies there
 * already stays. */
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
    trm_copies *copies;
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
    assert_int_equal(trm_copies_create(&self->copies, trm_fs_posix(), &self->sender, self->own, &self->err),
                     0);
    assert_int_equal(trm_adopter_create(&self->adopter, trm_fs_posix(), &self->sender, self->own,
                                        self->copies, &self->err),
                     0);
}

static void world_close(world *self)
{
    trm_adopter_destroy(self->adopter, false);
    trm_copies_destroy(self->copies);
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

static ino_t inode_of(const char *store, uint64_t epoch, uint32_t task)
{
    char path[1024];
    struct stat about;
    path_of(path, store, epoch, task, 0);
    assert_int_equal(stat(path, &about), 0);
    return about.st_ino;
}

static void take_frame(world *self, trm_wire_type type, trm_reader *body)
{
    uint32_t from;
    const uint8_t *bytes;
    size_t len;
    trm_wire_header header;
    self->sender.transport->ops->poll(self->sender.transport);
    assert_int_equal(self->sender.transport->ops->receive(self->sender.transport, &from, &bytes, &len), 0);
    assert_int_equal(trm_wire_open(bytes, len, &header, body), TRM_OK);
    assert_int_equal(header.type, type);
}

/* What it says of copies: the one. */
static trm_copied one_copied(world *self)
{
    trm_reader body;
    trm_copied copied;
    take_frame(self, TRM_WIRE_COPIED, &body);
    trm_copied_decode(&copied, &body);
    assert_true(trm_reader_done(&body));
    return copied;
}

static void take_over(world *self, const char *path, uint64_t epoch)
{
    trm_store store = {.epoch = epoch};
    snprintf(store.path, sizeof store.path, "%s", path);
    assert_true(trm_adopter_add(self->adopter, &store));
    while (trm_adopter_step(self->adopter, 0))
        continue;
}

/* Returns how many runs it says it has. */
static unsigned held(world *self)
{
    unsigned held = 0;
    bool last = false;
    while (!last) {
        trm_reader body;
        trm_held said;
        trm_output_at at;
        take_frame(self, TRM_WIRE_HELD, &body);
        for (trm_held_decode(&said, &body); trm_reader_left(&body); held++)
            trm_output_at_decode(&at, &body);
        assert_true(trm_reader_done(&body));
        last = said.last;
    }
    return held;
}

static unsigned adopt(world *self, const char *path, uint64_t epoch)
{
    take_over(self, path, epoch);
    return held(self);
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

/* Some were removed by somebody: before the store is looked at, and after. */
static void what_is_gone_is_not_said_to_be_held(void **state)
{
    world self;
    char path[1024];
    world_init(&self);
    char *store = make_store(&self, "store");
    unsigned runs = TRM_ADOPT_STEP_RUNS + 10;
    for (uint32_t task = 0; task < runs; task++)
        make_run(store, EPOCH, task, 10);
    path_of(path, store, EPOCH, 0, 0);
    assert_int_equal(unlink(path), 0);
    trm_store what = {.epoch = EPOCH};
    snprintf(what.path, sizeof what.path, "%s", store);
    assert_true(trm_adopter_add(self.adopter, &what));
    assert_true(trm_adopter_step(self.adopter, 0));
    unsigned left = 0; /* of those that are not taken yet, all but one are removed, too */
    for (uint32_t task = 1; task < runs; task++) {
        if (size_of(self.own, EPOCH, task) >= 0 || left++ == 0)
            continue;
        path_of(path, store, EPOCH, task, 0);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(left, runs - 1 - TRM_ADOPT_STEP_RUNS);
    while (trm_adopter_step(self.adopter, 0))
        continue;
    assert_int_equal(held(&self), TRM_ADOPT_STEP_RUNS + 1);
    world_close(&self);
}

/* What has the name there is the same attempt's: it is there, and stays. */
static void what_lies_there_already_is_held(void **state)
{
    world self;
    world_init(&self);
    char *store = make_store(&self, "store"), *other = make_store(&self, "other");
    make_run(store, EPOCH - 1, 1, 10);
    make_run(other, EPOCH - 1, 1, 10);
    make_run(store, EPOCH - 1, 2, 10);
    make_run(self.own, EPOCH, 2, 10);
    ino_t own = inode_of(self.own, EPOCH, 2);
    assert_int_equal(adopt(&self, store, EPOCH - 1), 2);
    assert_int_equal(adopt(&self, other, EPOCH - 1), 1);
    assert_int_equal(inode_of(self.own, EPOCH, 1), inode_of(store, EPOCH - 1, 1));
    assert_int_equal(inode_of(self.own, EPOCH, 2), own);
    char path[1024];
    path_of(path, self.own, EPOCH, 2, 0);
    assert_int_equal(truncate(path, 3), 0); /* unless it is damaged */
    assert_int_equal(adopt(&self, store, EPOCH - 1), 2);
    assert_int_equal(inode_of(self.own, EPOCH, 2), inode_of(store, EPOCH - 1, 2));
    world_close(&self);
}

/* As a rank of an earlier launch has left a copy behind. */
static void make_copy(const char *store, uint64_t epoch, uint32_t task, size_t bytes)
{
    char run[1024], copy[1024];
    make_run(store, epoch, task, bytes);
    path_of(run, store, epoch, task, 0);
    assert_int_equal(trm_copy_name(store, epoch, task, 0, copy, sizeof copy), TRM_OK);
    assert_int_equal(link(run, copy), 0);
}

static bool is_copy(const char *store, uint64_t epoch, uint32_t task)
{
    char copy[1024];
    assert_int_equal(trm_copy_name(store, epoch, task, 0, copy, sizeof copy), TRM_OK);
    return access(copy, F_OK) == 0;
}

/* It is told with the launch that made it, before the last of HELD; of this launch it is when the master says
 * so. */
static void a_copy_is_told_as_one_of_its_launch_until_it_is_renewed(void **state)
{
    world self;
    world_init(&self);
    char *store = make_store(&self, "store");
    make_copy(store, EPOCH - 1, 1, 10);
    take_over(&self, store, EPOCH - 1);
    trm_copied copied = one_copied(&self);
    assert_int_equal(copied.task, 1);
    assert_int_equal(copied.epoch, EPOCH - 1);
    assert_int_equal(copied.status, TRM_OK);
    assert_int_equal(copied.bytes, size_of(store, EPOCH - 1, 1));
    assert_int_equal(held(&self), 1); /* its other name says nothing of that */
    assert_int_equal(size_of(self.own, EPOCH, 1), size_of(store, EPOCH - 1, 1));
    assert_true(is_copy(self.own, EPOCH - 1, 1) && !is_copy(self.own, EPOCH, 1));
    trm_copy renew = {.task = 1, .epoch = EPOCH - 1};
    assert_true(trm_copies_add(self.copies, &renew, 1));
    assert_true(trm_copies_tell(self.copies, 0));
    copied = one_copied(&self);
    assert_int_equal(copied.epoch, EPOCH);
    assert_int_equal(copied.status, TRM_OK);
    assert_true(is_copy(self.own, EPOCH, 1));
    renew.task = 2; /* there is none */
    assert_true(trm_copies_add(self.copies, &renew, 1));
    assert_true(trm_copies_tell(self.copies, 0));
    assert_int_equal(one_copied(&self).status, TRM_ELOST);
    world_close(&self);
}

/* Another master asks for the same store: it is told what was told, and no more. */
static void a_copy_is_taken_once(void **state)
{
    world self;
    trm_reader body;
    trm_copied copied;
    world_init(&self);
    char *store = make_store(&self, "store");
    make_copy(store, EPOCH - 1, 1, 10);
    take_over(&self, store, EPOCH - 1);
    one_copied(&self);
    held(&self);
    trm_copies_tell_again(self.copies);
    take_over(&self, store, EPOCH - 1);
    take_frame(&self, TRM_WIRE_COPIED, &body);
    trm_copied_decode(&copied, &body);
    assert_true(trm_reader_done(&body));
    assert_int_equal(held(&self), 1);
    world_close(&self);
}

static void a_copy_of_what_lies_there_is_taken_as_one(void **state)
{
    world self;
    world_init(&self);
    char *store = make_store(&self, "store");
    make_copy(store, EPOCH - 1, 1, 10);
    make_run(self.own, EPOCH, 1, 10);
    ino_t own = inode_of(self.own, EPOCH, 1);
    take_over(&self, store, EPOCH - 1);
    assert_int_equal(one_copied(&self).epoch, EPOCH - 1);
    assert_int_equal(held(&self), 1);
    assert_int_equal(inode_of(self.own, EPOCH, 1), own);
    assert_true(is_copy(self.own, EPOCH - 1, 1));
    world_close(&self);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_stay_where_they_were),
        cmocka_unit_test(what_is_gone_is_not_said_to_be_held),
        cmocka_unit_test(what_lies_there_already_is_held),
        cmocka_unit_test(a_copy_is_told_as_one_of_its_launch_until_it_is_renewed),
        cmocka_unit_test(a_copy_is_taken_once),
        cmocka_unit_test(a_copy_of_what_lies_there_is_taken_as_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
