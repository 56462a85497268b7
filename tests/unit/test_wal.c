/* runtime/wal: what is written is read, what a crash may leave is repaired, full and failing
 * disks are survived. What is refused is in test_wal_damage.c; random histories are in
 * tests/simulation/wal_crash.c. */
#include "tests/unit/wal_files.h"

/* ---- The plain way. ---- */

static void a_new_log_is_empty(void **state)
{
    bool there;
    trm_wal_config only_open = {.create = false};
    assert_int_equal(trm_wal_exists(fs, DIR, &there, &err), TRM_OK);
    assert_false(there);
    assert_int_equal(trm_wal_open(&wal, fs, DIR, &only_open, &err), TRM_ELOST);
    assert_int_equal(trm_fs_make_dirs(fs, DIR, 0, &err), TRM_OK);
    assert_int_equal(trm_wal_exists(fs, DIR, &there, &err), TRM_OK);
    assert_false(there);
    assert_int_equal(trm_wal_open(&wal, fs, DIR, &only_open, &err), TRM_ELOST);
    assert_int_equal(trm_wal_open(&wal, fs, "", &only_open, &err), TRM_EIO);
    open_ok();
    assert_int_equal(trm_wal_exists(fs, DIR, &there, &err), TRM_OK);
    assert_true(there);
    trm_wal_hard_state hard;
    trm_wal_snapshot snapshot;
    trm_wal_hard_state_get(wal, &hard);
    trm_wal_snapshot_get(wal, &snapshot);
    assert_true(hard.term == 0 && hard.vote == TRM_WAL_VOTE_NONE && hard.commit == 0 && snapshot.index == 0);
    assert_true(trm_wal_first_index(wal) == 1 && trm_wal_last_index(wal) == 0 &&
                trm_wal_term_at(wal, 0) == 0);
    assert_true(trm_wal_log_id(wal) == 42 && trm_wal_repairs(wal) == 0);
    trm_wal_close(NULL);
}

static void what_is_written_is_read(void **state)
{
    open_ok();
    trm_wal_batch batch;
    trm_wal_batch_init(&batch);
    assert_int_equal(trm_wal_write(wal, &batch, &err), TRM_OK); /* an empty one */
    trm_wal_hard_state hard = {5, 0, 2};
    trm_wal_batch_hard_state(&batch, &hard);
    add(&batch, 1, 3, "one");
    add(&batch, 2, 5, "");
    add(&batch, 3, 5, "three");
    add(&batch, 2, 6, "two again"); /* voids 2 and 3 */
    add(&batch, 3, 6, "x");
    add(&batch, 4, 6, "y");
    trm_wal_batch_truncate(&batch, 4);
    trm_wal_batch_truncate(&batch, 9);
    assert_true(trm_wal_batch_bytes(&batch) > 0);
    assert_int_equal(write_batch(&batch), TRM_OK);
    for (int again = 0; again < 2; again++) {
        open_ok();
        trm_wal_hard_state_get(wal, &hard);
        assert_true(hard.term == 5 && hard.vote == 0 && hard.commit == 2);
        assert_int_equal(trm_wal_last_index(wal), 3);
        expect_entry(1, 3, "one");
        expect_entry(2, 6, "two again");
        expect_entry(3, 6, "x");
        assert_int_equal(trm_wal_repairs(wal), 0);
    }
}

static void large_entries_and_many_records(void **state)
{
    open_ok();
    size_t len = TRM_WAL_ENTRY_BYTES_MAX;
    char *payload = malloc(len + 1);
    memset(payload, 'p', len);
    payload[len] = '\0';
    put(1, 1, payload);
    trm_wal_batch batch;
    trm_wal_batch_init(&batch);
    for (uint64_t i = 2; i <= 10; i++)
        add(&batch, i, 1, payload);
    assert_int_equal(trm_wal_write(wal, &batch, &err), TRM_ELIMIT);
    trm_wal_batch_reset(&batch);
    for (uint64_t i = 2; i <= 4; i++)
        add(&batch, i, 1, payload);
    assert_int_equal(write_batch(&batch), TRM_OK);
    put(5, 1, "small");
    open_ok();
    assert_int_equal(trm_wal_last_index(wal), 5);
    expect_entry(1, 1, payload);
    expect_entry(4, 1, payload);
    expect_entry(5, 1, "small");
    assert_true(trm_wal_segment_bytes(wal) > 4 * len);
    free(payload);
}

static void one_opening_at_a_time(void **state)
{
    trm_wal *other;
    trm_wal_config config = {.create = true, .owner = "process 17 on host a"};
    assert_int_equal(trm_wal_open(&wal, fs, DIR, &config, &err), TRM_OK);
    assert_int_equal(trm_wal_open(&other, fs, DIR, &config, &err), TRM_EFENCED);
    assert_string_equal(err.text, DIR " is in use by process 17 on host a");
    trm_wal_close(wal);
    assert_int_equal(trm_wal_open(&wal, fs, DIR, &config, &err), TRM_OK);
}

/* ---- What a crash may leave. ---- */

static void every_cut_of_the_last_records(void **state)
{
    open_ok();
    put(1, 1, "first");
    put_hard(1, 3, 1);
    trm_wal_batch batch;
    trm_wal_batch_init(&batch);
    add(&batch, 2, 1, "second");
    trm_wal_hard_state hard = {2, TRM_WAL_VOTE_NONE, 1};
    trm_wal_batch_hard_state(&batch, &hard);
    add(&batch, 3, 2, "third");
    assert_int_equal(write_batch(&batch), TRM_OK);
    trm_wal_close(wal);
    wal = NULL;
    size_t len;
    uint8_t *bytes = read_file(SEGMENT_1, &len);
    size_t start = 3 * TRM_WAL_BLOCK_BYTES, seen[4] = {0};
    uint64_t last_before = 1;
    for (size_t cut = start - 40; cut <= start + 200; cut++) {
        write_file(SEGMENT_1, bytes, cut);
        open_ok();
        uint64_t last = trm_wal_last_index(wal);
        assert_true(last >= last_before && last <= 3);
        last_before = last;
        seen[last]++;
        trm_wal_hard_state_get(wal, &hard);
        assert_true(hard.term == 1 ? hard.vote == 3 : hard.term == 2 && last >= 2);
        expect_entry(1, 1, "first");
        if (last >= 2)
            expect_entry(2, 1, "second");
        if (last == 3)
            expect_entry(3, 2, "third");
        assert_true(trm_wal_repairs(wal) == 1);
        trm_wal_forget(wal);
        put(last + 1, 7, "goes on");
        open_ok();
        assert_int_equal(trm_wal_repairs(wal), 0);
        expect_entry(last + 1, 7, "goes on");
        fs->ops->remove(fs, SEGMENT_2, NULL);
    }
    assert_true(seen[1] > 30 && seen[2] > 20 && seen[3] > 20);
    free(bytes);
}

/* As above, but the rest of the file holds other bytes instead of being cut off. */
static void every_tear_of_the_last_records(void **state)
{
    open_ok();
    put(1, 1, "first");
    put(2, 1, "second");
    trm_wal_close(wal);
    wal = NULL;
    size_t len;
    uint8_t *bytes = read_file(SEGMENT_1, &len);
    uint8_t *torn = malloc(len);
    size_t start = 2 * TRM_WAL_BLOCK_BYTES;
    for (size_t at = start; at < start + 64; at++) {
        memcpy(torn, bytes, len);
        memset(torn + at, 0xa5, start + 512 - at);
        write_file(SEGMENT_1, torn, len);
        open_ok();
        uint64_t last = trm_wal_last_index(wal);
        assert_int_equal(last, at < start + 24 + 8 + 3 + 6 ? 1 : 2);
        put(last + 1, 1, "goes on");
        open_ok();
        expect_entry(last + 1, 1, "goes on");
    }
    free(torn);
    free(bytes);
}

static void an_unused_segment_and_a_spare(void **state)
{
    open_ok();
    char big[5000];
    memset(big, 'b', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    put(1, 1, big);
    trm_wal_prepare(wal);
    trm_wal_prepare(wal);
    put(2, 1, big); /* in the second segment */
    trm_wal_close(wal);
    wal = NULL;
    size_t len;
    uint8_t *bytes = read_file(SEGMENT_2, &len);
    memset(bytes + TRM_WAL_BLOCK_BYTES, 0, len - TRM_WAL_BLOCK_BYTES);
    write_file(SEGMENT_2, bytes, len); /* as if the power had gone right after it was begun */
    write_file(DIR "/spare", bytes, 100);
    free(bytes);
    open_ok();
    assert_int_equal(trm_wal_last_index(wal), 1);
    put(2, 1, "two");
    open_ok();
    expect_entry(2, 1, "two");
}

static void snapshots_replace_what_they_cover(void **state)
{
    open_ok();
    for (uint64_t i = 1; i <= 20; i++)
        put(i, 1, "entry");
    uint64_t before = trm_wal_segment_bytes(wal);
    save(18, 1, "the state");
    trm_wal_snapshot snapshot;
    trm_wal_snapshot_get(wal, &snapshot);
    assert_true(snapshot.index == 18 && snapshot.term == 1 && snapshot.data_bytes == 9 &&
                snapshot.config_len == 3);
    assert_int_equal(trm_wal_compact(wal, &err), TRM_OK);
    assert_true(trm_wal_segment_bytes(wal) < before);
    put(21, 2, "next");
    for (int again = 0; again < 2; again++) {
        open_ok();
        assert_true(trm_wal_first_index(wal) == 19 && trm_wal_last_index(wal) == 21);
        assert_int_equal(trm_wal_term_at(wal, 18), 1);
        expect_entry(21, 2, "next");
        char data[20];
        size_t got;
        trm_wal_snapshot_get(wal, &snapshot);
        assert_memory_equal(snapshot.config, "cfg", 3);
        assert_int_equal(trm_wal_snapshot_read(wal, 4, data, sizeof data, &got, &err), TRM_OK);
        assert_true(got == 5 && memcmp(data, "state", 5) == 0);
    }
    write_file(DIR "/snapshot.new", "half", 4);
    open_ok();
    assert_int_equal(trm_wal_repairs(wal), 1);
    save(21, 2, "newer");
    save(22, 3, "ahead of the log"); /* as a leader installs it */
    assert_true(trm_wal_first_index(wal) == 23 && trm_wal_last_index(wal) == 22);
    put(23, 3, "after");
    open_ok();
    expect_entry(23, 3, "after");
    assert_int_equal(trm_wal_first_index(wal), 23);
}

static void a_snapshot_of_another_history_voids_the_log(void **state)
{
    open_ok();
    for (uint64_t i = 1; i <= 5; i++)
        put(i, 1, "old");
    save(3, 2, "another");
    assert_true(trm_wal_first_index(wal) == 4 && trm_wal_last_index(wal) == 3 &&
                trm_wal_term_at(wal, 3) == 2);
    open_ok();
    assert_int_equal(trm_wal_last_index(wal), 3);
    /* The same when the power goes before the record that says so. */
    size_t len;
    uint8_t *bytes = read_file(SEGMENT_2, &len);
    memset(bytes + TRM_WAL_BLOCK_BYTES, 0, len - TRM_WAL_BLOCK_BYTES);
    write_file(SEGMENT_2, bytes, len);
    free(bytes);
    open_ok();
    assert_int_equal(trm_wal_last_index(wal), 3);
    put(4, 2, "new");
    open_ok();
    expect_entry(4, 2, "new");
}

static void stale_records_are_not_taken_for_new(void **state)
{
    open_ok();
    /* Round and round: segments are used again, with records of the same size. */
    for (uint64_t i = 1; i <= 30; i++) {
        put(i, 1, "same size");
        if (i % 3 == 0) {
            save(i, 1, "s");
            assert_int_equal(trm_wal_compact(wal, &err), TRM_OK);
        }
        open_ok();
        assert_int_equal(trm_wal_last_index(wal), i);
        assert_int_equal(trm_wal_repairs(wal), 0);
    }
}

/* A write that fails half-way leaves its second block; a shorter one takes its place. */
static void a_failed_write_leaves_nothing_behind(void **state)
{
    open_ok();
    put(1, 1, "first");
    char payload[4096];
    size_t fits = TRM_WAL_BLOCK_BYTES - 24 - 8 - 4; /* the record fills its block */
    memset(payload, 'f', fits);
    payload[fits] = '\0';
    trm_wal_batch batch;
    trm_wal_batch_init(&batch);
    add(&batch, 2, 1, payload);
    trm_wal_hard_state hard = {9, 9, 9};
    trm_wal_batch_hard_state(&batch, &hard);
    assert_int_equal(trm_wal_write(wal, &batch, &err), TRM_OK);
    trm_wal_batch_close(&batch);
    trm_wal_close(wal);
    wal = NULL;
    size_t len;
    uint8_t *both = read_file(SEGMENT_1, &len);
    /* Undo it, as if write_at had failed, and write something shorter. */
    uint8_t *one = malloc(len);
    memcpy(one, both, len);
    memset(one + 2 * TRM_WAL_BLOCK_BYTES, 0, 2 * TRM_WAL_BLOCK_BYTES);
    write_file(SEGMENT_1, one, len);
    open_ok();
    put(2, 1, "shorter");
    trm_wal_close(wal);
    wal = NULL;
    free(one);
    one = read_file(SEGMENT_1, &len);
    memcpy(one + 3 * TRM_WAL_BLOCK_BYTES, both + 3 * TRM_WAL_BLOCK_BYTES, TRM_WAL_BLOCK_BYTES);
    write_file(SEGMENT_1, one, len);
    open_ok();
    trm_wal_hard_state_get(wal, &hard);
    assert_int_equal(hard.term, 0);
    expect_entry(2, 1, "shorter");
    assert_int_equal(trm_wal_repairs(wal), 1);
    free(one);
    free(both);
}

/* ---- Full and failing disks. ---- */

static void a_full_disk_refuses_and_goes_on(void **state)
{
    open_ok();
    trm_fs_mem_set_capacity(fs, trm_fs_mem_used(fs));
    uint64_t index = 1;
    trm_status status;
    trm_wal_batch batch;
    do {
        trm_wal_batch_init(&batch);
        add(&batch, index, 1, "entry");
        status = trm_wal_write(wal, &batch, &err);
        if (status == TRM_OK) {
            index++;
            trm_wal_batch_close(&batch);
        }
    } while (status == TRM_OK);
    assert_int_equal(status, TRM_ENOSPACE);
    assert_int_equal(index, 4);
    assert_int_equal(trm_wal_last_index(wal), 3);
    assert_int_equal(trm_wal_write(wal, &batch, &err), TRM_ENOSPACE);
    trm_wal_snapshot meta = {.index = 2, .term = 1};
    assert_int_equal(trm_wal_snapshot_begin(wal, &meta, &err), TRM_OK);
    assert_int_equal(trm_wal_snapshot_write(wal, "data", 4, &err), TRM_ENOSPACE);
    assert_int_equal(trm_wal_sync(wal, &err), TRM_OK);
    /* Even a snapshot that voids the log waits for room with its record. */
    trm_fs_mem_set_capacity(fs, trm_fs_mem_used(fs) + 100);
    save(9, 2, "small");
    assert_int_equal(trm_wal_last_index(wal), 9);
    trm_wal_batch_reset(&batch);
    add(&batch, 10, 2, "ten");
    assert_int_equal(trm_wal_write(wal, &batch, &err), TRM_ENOSPACE);
    trm_fs_mem_set_capacity(fs, UINT64_MAX);
    assert_int_equal(write_batch(&batch), TRM_OK);
    open_ok();
    assert_int_equal(trm_wal_last_index(wal), 10);
    expect_entry(10, 2, "ten");
}

static void a_failed_sync_is_for_good(void **state)
{
    open_ok();
    trm_wal_batch batch;
    trm_wal_batch_init(&batch);
    add(&batch, 1, 1, "entry");
    assert_int_equal(trm_wal_write(wal, &batch, &err), TRM_OK);
    trm_fs_mem_fail(fs, TRM_FS_MEM_SYNC, 0, 1, TRM_EIO);
    assert_int_equal(trm_wal_sync(wal, &err), TRM_EIO);
    assert_int_equal(trm_wal_sync(wal, &err), TRM_EIO);
    assert_non_null(strstr(err.text, "failed before"));
    assert_int_equal(trm_wal_write(wal, &batch, &err), TRM_EIO);
    trm_wal_batch_close(&batch);
    trm_wal_snapshot meta = {.index = 1, .term = 1};
    assert_int_equal(trm_wal_snapshot_begin(wal, &meta, &err), TRM_EIO);
    assert_int_equal(trm_wal_compact(wal, &err), TRM_EIO);
    trm_wal_prepare(wal);
}

/* Every operation of a busy life fails once, with each error; nothing is lost that was
 * acknowledged, and nobody crashes. */
static void every_operation_may_fail(void **state)
{
    static const trm_status errors[] = {TRM_EIO, TRM_ENOSPACE};
    for (unsigned op = 0; op < 9; op++)
        for (uint64_t after = 0; after < 14; after++)
            for (int which = 0; which < 2; which++) {
                trm_wal_close(wal);
                wal = NULL;
                trm_fs_mem_wipe(fs);
                trm_fs_mem_fail(fs, 1u << op, after, 1, errors[which]);
                trm_status status = open_sized(8192, 8192);
                assert_true(status == TRM_OK || status == errors[which]);
                uint64_t synced = 0;
                for (uint64_t i = 1; status == TRM_OK && i <= 6; i++) {
                    trm_wal_batch batch;
                    trm_wal_batch_init(&batch);
                    add(&batch, i, 1, "entry");
                    status = write_batch(&batch);
                    if (status == TRM_OK)
                        synced = i;
                    trm_wal_snapshot meta = {.index = i, .term = 1};
                    if (status == TRM_OK && i % 2 == 0 &&
                        trm_wal_snapshot_begin(wal, &meta, &err) == TRM_OK &&
                        trm_wal_snapshot_write(wal, "s", 1, &err) == TRM_OK &&
                        trm_wal_snapshot_commit(wal, &err) == TRM_OK)
                        trm_wal_compact(wal, &err);
                    if (wal)
                        trm_wal_prepare(wal);
                }
                trm_fs_mem_crash(fs);
                open_ok();
                assert_true(trm_wal_last_index(wal) >= synced);
            }
}

static void the_dump_says_what_is_there(void **state)
{
    open_ok();
    put_hard(1, 2, 0);
    put(1, 1, "first");
    put_hard(2, TRM_WAL_VOTE_NONE, 1);
    save(1, 1, "state");
    save(7, 3, "ahead");
    trm_wal_batch batch;
    trm_wal_batch_init(&batch);
    add(&batch, 8, 3, "eight");
    trm_wal_batch_truncate(&batch, 8);
    assert_int_equal(write_batch(&batch), TRM_OK);
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    assert_int_equal(trm_wal_dump(fs, DIR, true, out, &err), TRM_OK);
    fclose(out);
    assert_non_null(strstr(text, "snapshot of entry 7, term 3: 3 bytes of configuration, 5 of data"));
    assert_non_null(strstr(text, "segment 2: 16384 bytes, from entry 8"));
    assert_non_null(strstr(text, "entries 8 to 8, 5 bytes, term 3"));
    assert_non_null(strstr(text, "entry 8: term 3, type 1, 5 bytes"));
    assert_non_null(strstr(text, "void from entry 8 on"));
    assert_non_null(strstr(text, "log 000000000000002a: entries 8 to 7"));
    free(text);
    out = fopen("/dev/null", "w");
    assert_int_equal(trm_wal_dump(fs, "elsewhere", false, out, &err), TRM_ELOST);
    trm_wal_close(wal);
    wal = NULL;
    write_file(DIR "/snapshot.new", "", 0);
    assert_int_equal(trm_wal_dump(fs, DIR, false, out, NULL), TRM_OK);
    flip(SEGMENT_2, 0);
    assert_int_equal(trm_wal_dump(fs, DIR, false, out, NULL), TRM_ECORRUPT);
    fclose(out);
}

static char *dump_text(trm_status wanted)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    assert_int_equal(trm_wal_dump(fs, DIR, false, out, &err), wanted);
    fclose(out);
    return text;
}

static void expect_dump(const char *what)
{
    char *text = dump_text(TRM_OK);
    if (!strstr(text, what))
        print_message("%s", text);
    assert_non_null(strstr(text, what));
    free(text);
}

static void the_dump_says_what_a_crash_has_left(void **state)
{
    assert_int_equal(trm_fs_make_dirs(fs, DIR, 0, &err), TRM_OK);
    free(dump_text(TRM_ELOST));
    open_ok();
    expect_dump("segment 1: 16384 bytes, from entry 1, term 0, no vote, commit 0");
    put_hard(3, TRM_WAL_VOTE_NONE, 0);
    expect_dump("term 3, no vote, commit 0");
    put_hard(4, 8, 0);
    put(1, 1, "first");
    trm_wal_forget(wal);
    put(2, 1, "second");
    expect_dump("segment 2: 16384 bytes, from entry 2, term 4, vote for 8, commit 0");
    trm_wal_close(wal);
    wal = NULL;
    size_t len;
    uint8_t *bytes = read_file(SEGMENT_2, &len);
    write_file(SEGMENT_2, bytes, TRM_WAL_BLOCK_BYTES + 30);
    expect_dump("behind it an unfinished write");
    write_file(SEGMENT_2, bytes, len);
    free(bytes);
    open_ok();
    save(2, 1, "s"); /* covers segment 1, which stays until the next compaction */
    expect_dump("1 segments before it are covered");
    save(3, 5, "t");
    trm_wal_close(wal);
    wal = NULL;
    bytes = read_file(SEGMENT_2, &len);
    memset(bytes + 2 * TRM_WAL_BLOCK_BYTES, 0, len - 2 * TRM_WAL_BLOCK_BYTES);
    write_file(SEGMENT_2, bytes, len); /* before the record that voids */
    free(bytes);
    expect_dump("entries that the snapshot has made void");
}

int main(void)
{
    trm_diag_configure(getenv("V") ? TRM_DIAG_DEBUG : TRM_DIAG_WARN, -1);
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_new_log_is_empty),
        TEST(what_is_written_is_read),
        TEST(large_entries_and_many_records),
        TEST(one_opening_at_a_time),
        TEST(every_cut_of_the_last_records),
        TEST(every_tear_of_the_last_records),
        TEST(an_unused_segment_and_a_spare),
        TEST(snapshots_replace_what_they_cover),
        TEST(a_snapshot_of_another_history_voids_the_log),
        TEST(stale_records_are_not_taken_for_new),
        TEST(a_failed_write_leaves_nothing_behind),
        TEST(a_full_disk_refuses_and_goes_on),
        TEST(a_failed_sync_is_for_good),
        TEST(every_operation_may_fail),
        TEST(the_dump_says_what_is_there),
        TEST(the_dump_says_what_a_crash_has_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
