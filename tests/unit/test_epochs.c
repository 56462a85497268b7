/* scheduler/epochs: launches begin one after the other with what the one before has decided, one at
 * a time, and not on too few logs. */
#include "config.h" /* system extensions, before any header of the system */

#include "scheduler/epochs.h"

#include "jobs/command.h"
#include "jobs/names.h"
#include "jobs/table.h"
#include "runtime/clock.h"
#include "runtime/replog_raft.h"
#include "temp_tree.h"

#include <poll.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define TURNS_MAX 20000u

typedef struct world {
    temp_tree tree;
    trm_raft_members voters;
    uint64_t entropy;
    bool unsafe;
    const char *launch;
} world;

static void open_world(world *self, uint32_t voters)
{
    *self = (world){.entropy = 17, .launch = "this test"};
    temp_tree_init(&self->tree);
    for (uint32_t i = 0; i < voters; i++)
        trm_raft_members_set(&self->voters, i, true);
}

static trm_status begin(world *self, trm_epochs_begun *out, trm_err *err)
{
    trm_epochs_config config = {.fs = trm_fs_posix(),
                                .state_dir = self->tree.path,
                                .ranks = 3,
                                .voters = &self->voters,
                                .launch = self->launch,
                                .entropy = self->entropy++ * 1000,
                                .unsafe_recover = self->unsafe};
    err->text[0] = 0;
    return trm_epochs_begin(&config, out, err);
}

static void send_nowhere(void *context, uint32_t to, const void *bytes, size_t len) {}

/* The log of a rank, which leads when it is the only voter. */
static trm_replog *open_log(world *self, uint64_t epoch, uint32_t rank)
{
    char dir[TRM_FS_PATH_BYTES_MAX];
    trm_err err = {""};
    trm_replog *log = NULL;
    assert_int_equal(trm_epoch_store_name(self->tree.path, epoch, rank, dir, &err), TRM_OK);
    trm_replog_raft_config config = {.dir = dir,
                                     .rank = rank,
                                     .group = epoch,
                                     .first_members = &self->voters,
                                     .sync_interval_us = 1,
                                     .send = send_nowhere};
    if (trm_replog_raft_open(&log, &config, TRM_NS_PER_S, &err) != TRM_OK)
        fail_msg("%s", err.text);
    return log;
}

/* Applies to `table` what comes; proposes the launch's EPOCH once it leads. */
static void run_launch(trm_replog *log, uint64_t epoch, trm_table *table)
{
    uint64_t now_ns = TRM_NS_PER_S, index = 0;
    trm_err err = {""};
    for (unsigned i = 0; i < TURNS_MAX && table->epoch != epoch; i++) {
        uint64_t wake_ns = UINT64_MAX;
        bool any = trm_replog_step(log, now_ns, &wake_ns);
        trm_replog_item item;
        while (trm_replog_next(log, &item) == TRM_OK) {
            any = true;
            if (item.kind == TRM_REPLOG_RESTORE) {
                trm_table_close(table);
                assert_int_equal(trm_table_decode(table, item.bytes, item.len, &err), TRM_OK);
            } else {
                assert_int_equal(trm_table_apply(table, item.bytes, item.len, NULL, &err), TRM_OK);
            }
        }
        trm_replog_state state;
        trm_replog_state_get(log, &state);
        if (state.leader && !index) {
            trm_writer command = {0};
            trm_epoch begun = {.epoch = epoch, .ranks = 3, .wall_ms = 5};
            trm_command_begin(&command, TRM_COMMAND_EPOCH, 0);
            trm_epoch_encode(&begun, &command);
            assert_int_equal(trm_replog_propose(log, command.data, command.len, &index, &err), TRM_OK);
            trm_writer_close(&command);
        }
        struct pollfd fd = {.fd = trm_replog_fd(log), .events = POLLIN};
        if (!any && poll(&fd, 1, 1) == 0)
            now_ns += 10 * TRM_NS_PER_MS;
    }
    assert_int_equal(table->epoch, epoch);
}

static void test_launches_follow_each_other(void **state)
{
    world self;
    trm_epochs_begun begun;
    trm_err err;
    open_world(&self, 1);
    for (uint64_t epoch = 1; epoch <= 3; epoch++) {
        assert_int_equal(begin(&self, &begun, &err), TRM_OK);
        assert_int_equal(begun.epoch, epoch);
        assert_int_equal(begun.resumed, epoch > 1);
        trm_table table;
        trm_table_init(&table);
        trm_replog *log = open_log(&self, epoch, 0);
        trm_replog_item item;
        if (epoch > 1) { /* what the launch before has decided comes first */
            assert_int_equal(trm_replog_next(log, &item), TRM_OK);
            assert_int_equal(item.kind, TRM_REPLOG_RESTORE);
            assert_int_equal(trm_table_decode(&table, item.bytes, item.len, &err), TRM_OK);
            assert_int_equal(table.epoch, epoch - 1);
        }
        run_launch(log, epoch, &table);
        trm_replog_close(log);
        trm_table_close(&table);
        trm_epochs_forget(trm_fs_posix(), self.tree.path, epoch);
    }
    char old[TRM_FS_PATH_BYTES_MAX];
    trm_epoch_store_name(self.tree.path, 2, 0, old, &err);
    assert_int_not_equal(access(old, F_OK), 0);
    temp_tree_close(&self.tree);
}

static void test_a_launch_that_lives_is_not_taken_over(void **state)
{
    world self;
    trm_epochs_begun begun;
    trm_err err;
    open_world(&self, 1);
    assert_int_equal(begin(&self, &begun, &err), TRM_OK);
    trm_replog *log = open_log(&self, 1, 0);
    assert_int_equal(begin(&self, &begun, &err), TRM_EFENCED);
    assert_non_null(strstr(err.text, "still runs"));
    trm_replog_close(log);
    assert_int_equal(begin(&self, &begun, &err), TRM_OK);
    assert_int_equal(begun.epoch, 2);
    temp_tree_close(&self.tree);
}

static void lose_store(world *self, uint64_t epoch, uint32_t rank)
{
    char dir[TRM_FS_PATH_BYTES_MAX];
    trm_err err;
    assert_int_equal(trm_epoch_store_name(self->tree.path, epoch, rank, dir, &err), TRM_OK);
    assert_int_equal(trm_fs_remove_tree(trm_fs_posix(), dir, &err), TRM_OK);
}

/* With which its log begins. */
static uint32_t masters_at_begin(world *self, uint64_t epoch)
{
    trm_table table;
    trm_replog_item item;
    trm_err err;
    trm_table_init(&table);
    trm_replog *log = open_log(self, epoch, 0);
    assert_int_equal(trm_replog_next(log, &item), TRM_OK);
    assert_int_equal(item.kind, TRM_REPLOG_RESTORE);
    assert_int_equal(trm_table_decode(&table, item.bytes, item.len, &err), TRM_OK);
    uint32_t masters = table.masters;
    trm_replog_close(log);
    trm_table_close(&table);
    return masters;
}

static void test_a_majority_of_logs_is_needed(void **state)
{
    world self;
    trm_epochs_begun begun;
    trm_err err;
    open_world(&self, 3);
    assert_int_equal(begin(&self, &begun, &err), TRM_OK);
    lose_store(&self, 1, 2);
    assert_int_equal(begin(&self, &begun, &err), TRM_OK); /* two of three */
    assert_int_equal(begun.stores, 2);
    assert_int_equal(begun.voters, 3);
    lose_store(&self, 2, 0);
    lose_store(&self, 2, 2);
    assert_int_equal(begin(&self, &begun, &err), TRM_ELOST);
    assert_non_null(strstr(err.text, "rank 0, 2"));
    assert_non_null(strstr(err.text, "--unsafe-recover"));
    self.unsafe = true;
    assert_int_equal(begin(&self, &begun, &err), TRM_OK);
    assert_int_equal(begun.epoch, 3);
    assert_int_equal(masters_at_begin(&self, 3), TRM_TABLE_MASTERS_UNKNOWN);
    self.unsafe = false; /* and is known to the next, also when this one has not come to say anything */
    assert_int_equal(begin(&self, &begun, &err), TRM_OK);
    assert_int_equal(masters_at_begin(&self, 4), TRM_TABLE_MASTERS_UNKNOWN);
    self.unsafe = true;
    lose_store(&self, 4, 0);
    lose_store(&self, 4, 1);
    lose_store(&self, 4, 2);
    assert_int_equal(begin(&self, &begun, &err), TRM_ELOST); /* of nothing nothing comes */
    assert_null(strstr(err.text, "--unsafe-recover"));
    assert_non_null(strstr(err.text, "remove the output directory"));
    temp_tree_close(&self.tree);
}

/* A launch has left its record, and no trace in the log; without a record none has begun. */
static void test_a_log_that_is_gone(void **state)
{
    world self;
    trm_epochs_begun begun;
    trm_err err;
    char log[TRM_FS_PATH_BYTES_MAX];
    open_world(&self, 3);
    assert_int_equal(begin(&self, &begun, &err), TRM_OK);
    unlink(temp_tree_name(&self.tree, "log/epoch-1"));
    assert_int_equal(begin(&self, &begun, &err), TRM_OK); /* it died before it was there */
    assert_int_equal(begun.epoch, 1);
    assert_false(begun.resumed);
    temp_tree_file(&self.tree, TRM_STATUS_NAME, "{}\n", 3);
    assert_int_equal(begin(&self, &begun, &err), TRM_OK); /* the usual case */
    assert_int_equal(begun.epoch, 2);
    unlink(temp_tree_name(&self.tree, "log/epoch-1"));
    unlink(temp_tree_name(&self.tree, "log/epoch-2"));
    for (unsigned i = 0; i < 4; i++) { /* with stores and without, and --unsafe-recover has nothing either */
        self.unsafe = i % 2;
        assert_int_equal(begin(&self, &begun, &err), TRM_ELOST);
        assert_non_null(strstr(err.text, self.tree.path));
        assert_non_null(strstr(err.text, "remove the output directory"));
        assert_null(strstr(err.text, "--unsafe-recover"));
        assert_int_not_equal(access(temp_tree_name(&self.tree, "log/epoch-1"), F_OK), 0);
        snprintf(log, sizeof log, "%s", temp_tree_name(&self.tree, "log"));
        if (i == 1)
            assert_int_equal(trm_fs_remove_tree(trm_fs_posix(), log, &err), TRM_OK);
    }
    temp_tree_close(&self.tree);
}

/* Whoever won a number and died before it began has used it up. */
static void test_a_number_that_was_won_and_not_begun(void **state)
{
    world self;
    trm_epochs_begun begun;
    trm_err err;
    open_world(&self, 1);
    assert_int_equal(begin(&self, &begun, &err), TRM_OK);
    assert_int_equal(begin(&self, &begun, &err), TRM_OK);
    assert_int_equal(begun.epoch, 2);
    unlink(temp_tree_name(&self.tree, "log/epoch-2"));
    assert_int_equal(begin(&self, &begun, &err), TRM_OK);
    assert_int_equal(begun.epoch, 2); /* the same value: ours */
    unlink(temp_tree_name(&self.tree, "log/epoch-2"));
    self.launch = "another launch";
    assert_int_equal(begin(&self, &begun, &err), TRM_OK);
    assert_int_equal(begun.epoch, 3);
    temp_tree_close(&self.tree);
}

static void test_damage(void **state)
{
    world self;
    trm_epochs_begun begun;
    trm_err err;
    trm_raft_members members;
    uint64_t epoch;
    uint32_t ranks;
    open_world(&self, 3);
    trm_writer out = {0};
    trm_epoch_file_encode(7, 5, &self.voters, &out);
    assert_int_equal(trm_epoch_file_decode(out.data, out.len, &epoch, &ranks, &members, &err), TRM_OK);
    assert_int_equal(epoch, 7);
    assert_int_equal(ranks, 5);
    assert_int_equal(members.count, 3);
    for (size_t i = 0; i < out.len; i++) {
        out.data[i] ^= 0x40;
        assert_int_not_equal(trm_epoch_file_decode(out.data, out.len, &epoch, &ranks, &members, &err),
                             TRM_OK);
        assert_int_not_equal(trm_epoch_file_decode(out.data, i, &epoch, &ranks, &members, &err), TRM_OK);
        out.data[i] ^= 0x40;
    }
    trm_writer_close(&out);
    assert_int_equal(begin(&self, &begun, &err), TRM_OK);
    temp_tree_file(&self.tree, "log/epoch-1", "nonsense", 8);
    assert_int_equal(begin(&self, &begun, &err), TRM_ECORRUPT);
    assert_non_null(strstr(err.text, "epoch-1"));
    temp_tree_close(&self.tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_launches_follow_each_other),
        cmocka_unit_test(test_a_launch_that_lives_is_not_taken_over),
        cmocka_unit_test(test_a_majority_of_logs_is_needed),
        cmocka_unit_test(test_a_log_that_is_gone),
        cmocka_unit_test(test_a_number_that_was_won_and_not_begun),
        cmocka_unit_test(test_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
