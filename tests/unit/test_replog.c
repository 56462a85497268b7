/* runtime/replog_raft with one voter, and the writer beneath it, over real files: what is decided comes
 * back, in order, whenever the log is opened again; who opens it twice is kept out; a full disk is
 * survived. (Several voters: test_replog_raft.) */
#include "runtime/replog_raft.h"

#include "runtime/clock.h"
#include "runtime/diag.h"
#include "runtime/wal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char root[64];
static trm_err err;

static int set_up(void **state)
{
    strcpy(root, "/tmp/trm-test-replog-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int tear_down(void **state)
{
    return trm_fs_remove_tree(trm_fs_posix(), root, &err) == TRM_OK ? 0 : -1;
}

static void send_nowhere(void *context, uint32_t to, const void *bytes, size_t len)
{
    fail_msg("one voter has said something to %u", to);
}

static trm_status try_open(trm_replog **out, trm_fs *fs, const char *dir, size_t pending, size_t snapshot)
{
    trm_raft_members voters = {0};
    assert_int_equal(trm_raft_members_set(&voters, 3, true), TRM_OK);
    trm_replog_raft_config config = {.fs = fs,
                                     .dir = dir,
                                     .rank = 3,
                                     .group = 1,
                                     .log_id = 77,
                                     .seed = 5,
                                     .first_members = &voters,
                                     .pending_bytes_max = pending,
                                     .snapshot_bytes = snapshot,
                                     .send = send_nowhere};
    return trm_replog_raft_open(out, &config, trm_clock_now_ns(), &err);
}

/* Steps until something has moved. */
static void turn(trm_replog *log)
{
    uint64_t wake = UINT64_MAX;
    struct pollfd news = {.fd = trm_replog_fd(log), .events = POLLIN};
    if (!trm_replog_step(log, trm_clock_now_ns(), &wake)) {
        assert_int_equal(poll(&news, 1, 20000), 1);
        trm_replog_step(log, trm_clock_now_ns(), &wake);
    }
}

/* Opens it and waits until it leads. */
static trm_replog *open_on(trm_fs *fs, size_t pending, size_t snapshot)
{
    trm_replog *log = NULL;
    trm_replog_state now;
    trm_status status = try_open(&log, fs, root, pending, snapshot);
    if (status != TRM_OK)
        print_message("%s\n", err.text);
    assert_int_equal(status, TRM_OK);
    assert_int_equal(trm_raft_campaign(trm_replog_raft_core(log), trm_clock_now_ns(), &err), TRM_OK);
    for (trm_replog_state_get(log, &now); !now.leader; trm_replog_state_get(log, &now))
        turn(log);
    return log;
}

static trm_replog *open_log(size_t pending, size_t snapshot)
{
    return open_on(NULL, pending, snapshot);
}

static void settle(trm_replog *log)
{
    trm_replog_state now;
    for (trm_replog_state_get(log, &now); now.committed < now.proposed; trm_replog_state_get(log, &now))
        turn(log);
}

static void propose_number(trm_replog *log, uint64_t number)
{
    uint64_t index;
    assert_int_equal(trm_replog_propose(log, &number, sizeof number, &index, &err), TRM_OK);
}

static void expect_numbers(trm_replog *log, uint64_t first, uint64_t last)
{
    trm_replog_item item;
    uint64_t index = 0;
    for (uint64_t number = first; number <= last; number++) {
        assert_int_equal(trm_replog_next(log, &item), TRM_OK);
        assert_int_equal(item.kind, TRM_REPLOG_COMMAND);
        assert_true(item.index > index);
        index = item.index;
        assert_int_equal(item.len, sizeof number);
        assert_memory_equal(item.bytes, &number, sizeof number);
    }
    assert_int_equal(trm_replog_next(log, &item), TRM_AGAIN);
}

static void commands_come_back_in_order(void **state)
{
    trm_replog *log = open_log(0, 0);
    trm_replog_state now;
    trm_replog_state_get(log, &now);
    assert_true(now.leader && now.leader_rank == 3 && now.term == 1);
    for (uint64_t i = 1; i <= 20000; i++)
        propose_number(log, i);
    settle(log);
    expect_numbers(log, 1, 20000);
    trm_replog_close(log);

    log = open_log(0, 0);
    trm_replog_state_get(log, &now);
    assert_int_equal(now.term, 2);
    expect_numbers(log, 1, 20000);
    propose_number(log, 20001);
    settle(log);
    trm_replog_item item;
    assert_int_equal(trm_replog_next(log, &item), TRM_OK);
    assert_int_equal(item.term, 2);
    trm_replog_close(log);
    trm_replog_close(NULL);
}

static void closing_writes_what_was_proposed(void **state)
{
    trm_replog *log = open_log(0, 0);
    propose_number(log, 1);
    trm_replog_close(log);
    log = open_log(0, 0);
    expect_numbers(log, 1, 1);
    trm_replog_close(log);
}

static void nothing_is_given_before_it_is_durable(void **state)
{
    trm_replog *log = open_log(0, 0);
    trm_replog_item item;
    propose_number(log, 1);
    assert_int_equal(trm_replog_next(log, &item), TRM_AGAIN);
    trm_replog_close(log);
}

static void a_second_launch_is_kept_out(void **state)
{
    trm_replog *log = open_log(0, 0);
    trm_replog *other;
    assert_int_equal(try_open(&other, NULL, root, 0, 0), TRM_EFENCED);
    assert_non_null(strstr(err.text, root));
    assert_non_null(strstr(err.text, "in use by process "));
    trm_replog_close(log);
    log = open_log(0, 0);
    trm_replog_close(log);
}

static void undecided_bytes_are_bounded(void **state)
{
    trm_replog *log = open_log(4096, 0);
    static uint8_t command[1000];
    uint64_t index;
    int taken = 0;
    while (trm_replog_propose(log, command, sizeof command, &index, &err) == TRM_OK)
        taken++;
    assert_true(taken >= 1 && taken <= 4);
    assert_int_equal(trm_replog_propose(log, command, sizeof command, &index, &err), TRM_AGAIN);
    settle(log);
    trm_replog_item item;
    assert_int_equal(trm_replog_next(log, &item), TRM_OK);
    assert_int_equal(trm_replog_propose(log, command, sizeof command, &index, &err), TRM_OK);
    static uint8_t huge[TRM_REPLOG_COMMAND_BYTES_MAX + 1];
    assert_int_equal(trm_replog_propose(log, huge, sizeof huge, &index, &err), TRM_ELIMIT);
    for (int i = 0; i < taken; i++) {
        settle(log);
        assert_int_equal(trm_replog_next(log, &item), TRM_OK);
    }
    /* A command above the bound goes alone. */
    assert_int_equal(trm_replog_propose(log, huge, sizeof huge - 1, &index, &err), TRM_OK);
    settle(log);
    assert_int_equal(trm_replog_next(log, &item), TRM_OK);
    assert_int_equal(item.len, sizeof huge - 1);
    trm_replog_close(log);
}

static void images_are_restored_and_shorten_the_log(void **state)
{
    trm_replog *log = open_log(0, 10000);
    trm_replog_item item;
    static uint8_t image[3000000];
    assert_int_equal(trm_replog_snapshot(log, image, 1, &err), TRM_AGAIN);
    for (uint64_t i = 1; i <= 1000; i++)
        propose_number(log, i);
    assert_false(trm_replog_wants_snapshot(log));
    settle(log);
    expect_numbers(log, 1, 1000);
    trm_replog_state now;
    trm_replog_state_get(log, &now);
    uint64_t first_covered = now.committed;
    assert_true(trm_replog_wants_snapshot(log));
    memset(image, 'x', sizeof image);
    assert_int_equal(trm_replog_snapshot(log, image, sizeof image, &err), TRM_OK);
    assert_int_equal(trm_replog_snapshot(log, image, sizeof image, &err), TRM_AGAIN);
    assert_false(trm_replog_wants_snapshot(log));
    trm_status status = TRM_AGAIN;
    for (uint64_t i = 1001; status == TRM_AGAIN; i++) { /* until the first is saved */
        propose_number(log, i);
        settle(log);
        assert_int_equal(trm_replog_next(log, &item), TRM_OK);
        status = trm_replog_snapshot(log, &i, sizeof i, &err);
    }
    assert_int_equal(status, TRM_OK);
    uint64_t covered = item.index, last = 0;
    memcpy(&last, item.bytes, sizeof last);
    propose_number(log, ++last);
    trm_replog_close(log);

    log = open_log(0, 0);
    assert_int_equal(trm_replog_next(log, &item), TRM_OK);
    assert_int_equal(item.kind, TRM_REPLOG_RESTORE);
    assert_true(item.index == covered || item.index == first_covered);
    uint64_t number = item.index - covered + last - 1; /* the last command that the image covers */
    if (item.index == first_covered) {
        assert_int_equal(item.len, sizeof image);
        assert_memory_equal(item.bytes, image, sizeof image);
    } else {
        assert_memory_equal(item.bytes, &number, sizeof number);
    }
    expect_numbers(log, number + 1, last);
    trm_replog_close(log);
}

/* The real file system, failing when told to. The log's thread calls it. */
static _Atomic(trm_status) write_fault, large_write_fault, sync_fault;

static trm_status faulty_write_at(trm_file *file, uint64_t offset, const void *bytes, size_t len,
                                  trm_err *why)
{
    if (write_fault)
        return trm_err_set(why, write_fault, "writing fails");
    if (large_write_fault && len > 4096)
        return trm_err_set(why, large_write_fault, "writing much fails");
    return trm_fs_posix()->ops->write_at(file, offset, bytes, len, why);
}

static trm_status faulty_sync(trm_file *file, trm_err *why)
{
    if (sync_fault)
        return trm_err_set(why, sync_fault, "syncing fails");
    return trm_fs_posix()->ops->sync(file, why);
}

static trm_replog *open_faulty(void)
{
    static trm_fs_ops ops;
    static trm_fs faulty = {&ops};
    ops = *trm_fs_posix()->ops;
    ops.write_at = faulty_write_at;
    ops.sync = faulty_sync;
    write_fault = large_write_fault = sync_fault = TRM_OK;
    return open_on(&faulty, 0, 1000);
}

static trm_status health_of(trm_replog *log)
{
    trm_replog_state now;
    trm_replog_state_get(log, &now);
    return now.health;
}

static void a_full_disk_refuses_and_goes_on(void **state)
{
    trm_replog *log = open_faulty();
    trm_replog_state now;
    uint64_t index;
    propose_number(log, 1);
    settle(log);
    trm_replog_state_get(log, &now);
    uint64_t decided = now.committed;
    write_fault = TRM_ENOSPACE;
    propose_number(log, 2);
    propose_number(log, 3);
    while (health_of(log) == TRM_OK)
        turn(log);
    assert_int_equal(trm_replog_propose(log, "x", 1, &index, &err), TRM_ENOSPACE);
    trm_replog_state_get(log, &now);
    assert_true(now.committed == decided && now.proposed == decided + 2);
    assert_string_equal(now.why, "writing fails");
    write_fault = TRM_OK;
    while (health_of(log) != TRM_OK)
        turn(log);
    settle(log);
    propose_number(log, 4);
    settle(log);
    expect_numbers(log, 1, 4);
    trm_replog_close(log);
    log = open_log(0, 0);
    expect_numbers(log, 1, 4);
    trm_replog_close(log);
}

static void closing_on_a_full_disk_gives_up(void **state)
{
    trm_replog *log = open_faulty();
    write_fault = TRM_ENOSPACE;
    propose_number(log, 1);
    while (health_of(log) == TRM_OK)
        turn(log);
    trm_replog_close(log);
    log = open_log(0, 0);
    expect_numbers(log, 1, 0);
    trm_replog_close(log);
}

static void a_failed_sync_is_for_good(void **state)
{
    trm_replog *log = open_faulty();
    uint64_t index;
    sync_fault = TRM_EIO;
    propose_number(log, 1);
    while (health_of(log) == TRM_OK)
        turn(log);
    assert_int_equal(trm_replog_propose(log, "x", 1, &index, &err), TRM_EIO);
    assert_string_equal(err.text, "syncing fails");
    trm_replog_item item;
    assert_int_equal(trm_replog_next(log, &item), TRM_AGAIN);
    trm_replog_close(log);
}

static void an_image_that_cannot_be_saved_costs_nothing(void **state)
{
    trm_diag_configure(TRM_DIAG_ERROR, -1);
    trm_replog *log = open_faulty();
    static uint8_t image[10000];
    trm_replog_item item;
    uint64_t count = 0;
    large_write_fault = TRM_ENOSPACE;
    for (int images = 0; images < 3;) { /* the third is taken when the second is done with */
        propose_number(log, ++count);
        settle(log);
        assert_int_equal(trm_replog_next(log, &item), TRM_OK);
        images += trm_replog_snapshot(log, image, sizeof image, &err) == TRM_OK;
    }
    trm_replog_close(log);
    log = open_log(0, 0);
    expect_numbers(log, 1, count);
    trm_replog_close(log);
    trm_diag_configure(TRM_DIAG_WARN, -1);
}

static void a_place_that_cannot_be_used_is_said(void **state)
{
    trm_replog *log;
    char path[100];
    snprintf(path, sizeof path, "%s/file", root);
    assert_int_equal(trm_fs_write_whole(trm_fs_posix(), path, "x", 1, 0, &err), TRM_OK);
    assert_int_equal(try_open(&log, NULL, path, 0, 0), TRM_EIO);
    assert_non_null(strstr(err.text, path));
}

int main(void)
{
    trm_diag_configure(TRM_DIAG_WARN, -1);
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(commands_come_back_in_order),
        TEST(closing_writes_what_was_proposed),
        TEST(nothing_is_given_before_it_is_durable),
        TEST(a_second_launch_is_kept_out),
        TEST(undecided_bytes_are_bounded),
        TEST(images_are_restored_and_shorten_the_log),
        TEST(a_full_disk_refuses_and_goes_on),
        TEST(closing_on_a_full_disk_gives_up),
        TEST(a_failed_sync_is_for_good),
        TEST(an_image_that_cannot_be_saved_costs_nothing),
        TEST(a_place_that_cannot_be_used_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
