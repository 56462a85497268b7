/* runtime/wal: what a crash may leave is repaired, what it cannot is refused with file
 * and offset. Random histories are in tests/simulation/wal_crash.c. */
#include "runtime/wal.h"

#include "runtime/crc32c.h"
#include "runtime/diag.h"
#include "runtime/wal_format.h"
#include "tests/support/fs_mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIR "log"
#define SEGMENT_1 DIR "/segment-0000000000000001"
#define SEGMENT_2 DIR "/segment-0000000000000002"
#define SEGMENT_3 DIR "/segment-0000000000000003"

static trm_fs *fs;
static trm_wal *wal;
static trm_err err;

static int set_up(void **state)
{
    fs = trm_fs_mem_create(1);
    wal = NULL;
    return fs ? 0 : -1;
}

static int tear_down(void **state)
{
    trm_wal_close(wal);
    trm_fs_mem_destroy(fs);
    return 0;
}

static trm_status open_sized(uint32_t first, uint32_t max)
{
    trm_wal_close(wal);
    wal = NULL;
    trm_wal_config config = {.create = true, .log_id = 42, .segment_bytes_first = first, .segment_bytes_max = max};
    return trm_wal_open(&wal, fs, DIR, &config, &err);
}

static void open_ok(void)
{
    trm_status status = open_sized(16384, 16384);
    if (status != TRM_OK)
        print_message("%s\n", err.text);
    assert_int_equal(status, TRM_OK);
}

static void expect_refused(trm_status wanted, const char *file, const char *offset)
{
    assert_int_equal(open_sized(16384, 16384), wanted);
    if (!strstr(err.text, file) || !strstr(err.text, offset))
        print_message("%s\n", err.text);
    assert_non_null(strstr(err.text, file));
    assert_non_null(strstr(err.text, offset));
    FILE *nowhere = fopen("/dev/null", "w");
    assert_int_equal(trm_wal_dump(fs, DIR, true, nowhere, &err), wanted);
    fclose(nowhere);
}

static void add(trm_wal_batch *batch, uint64_t index, uint64_t term, const char *payload)
{
    trm_wal_entry entry = {index, term, 1, (const uint8_t *)payload, strlen(payload)};
    trm_wal_batch_entry(batch, &entry);
}

static trm_status write_batch(trm_wal_batch *batch)
{
    trm_status status = trm_wal_write(wal, batch, &err);
    if (status == TRM_OK)
        status = trm_wal_sync(wal, &err);
    trm_wal_batch_close(batch);
    return status;
}

/* One synced batch of one entry. */
static void put(uint64_t index, uint64_t term, const char *payload)
{
    trm_wal_batch batch;
    trm_wal_batch_init(&batch);
    add(&batch, index, term, payload);
    assert_int_equal(write_batch(&batch), TRM_OK);
}

static void put_hard(uint64_t term, uint64_t vote, uint64_t commit)
{
    trm_wal_batch batch;
    trm_wal_batch_init(&batch);
    trm_wal_hard_state hard = {term, vote, commit};
    trm_wal_batch_hard_state(&batch, &hard);
    assert_int_equal(write_batch(&batch), TRM_OK);
}

static void save(uint64_t index, uint64_t term, const char *data)
{
    trm_wal_snapshot meta = {.index = index, .term = term, .config = (const uint8_t *)"cfg", .config_len = 3};
    assert_int_equal(trm_wal_snapshot_begin(wal, &meta, &err), TRM_OK);
    assert_int_equal(trm_wal_snapshot_write(wal, data, strlen(data), &err), TRM_OK);
    assert_int_equal(trm_wal_snapshot_commit(wal, &err), TRM_OK);
}

static void expect_entry(uint64_t index, uint64_t term, const char *payload)
{
    trm_wal_entry entry;
    assert_true(index >= trm_wal_first_index(wal) && index <= trm_wal_last_index(wal));
    trm_wal_entry_at(wal, index, &entry);
    assert_int_equal(entry.term, term);
    assert_int_equal(trm_wal_term_at(wal, index), term);
    assert_int_equal(entry.len, strlen(payload));
    assert_memory_equal(entry.payload, payload, entry.len);
}

static uint8_t *read_file(const char *path, size_t *len)
{
    uint8_t *bytes;
    assert_int_equal(trm_fs_read_whole(fs, path, 1 << 24, &bytes, len, &err), TRM_OK);
    return bytes;
}

static void write_file(const char *path, const void *bytes, size_t len)
{
    assert_int_equal(trm_fs_write_whole(fs, path, bytes, len, 0, &err), TRM_OK);
}

static void flip(const char *path, size_t at)
{
    size_t len;
    uint8_t *bytes = read_file(path, &len);
    assert_true(at < len);
    bytes[at] ^= 0x10;
    write_file(path, bytes, len);
    free(bytes);
}

static void remove_file(const char *path) { assert_int_equal(fs->ops->remove(fs, path, &err), TRM_OK); }

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
    assert_true(trm_wal_first_index(wal) == 1 && trm_wal_last_index(wal) == 0 && trm_wal_term_at(wal, 0) == 0);
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
    assert_true(snapshot.index == 18 && snapshot.term == 1 && snapshot.data_bytes == 9 && snapshot.config_len == 3);
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
    assert_true(trm_wal_first_index(wal) == 4 && trm_wal_last_index(wal) == 3 && trm_wal_term_at(wal, 3) == 2);
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

/* ---- What no crash explains. ---- */

static void a_bad_record_before_synced_ones_is_refused(void **state)
{
    open_ok();
    put(1, 1, "first");
    put(2, 1, "second");
    trm_wal_close(wal);
    wal = NULL;
    size_t len;
    uint8_t *bytes = read_file(SEGMENT_1, &len);
    for (size_t at = TRM_WAL_BLOCK_BYTES; at < TRM_WAL_BLOCK_BYTES + 60; at++) {
        write_file(SEGMENT_1, bytes, len);
        flip(SEGMENT_1, at);
        char offset[64];
        snprintf(offset, sizeof offset, "offset %u", at < TRM_WAL_BLOCK_BYTES + 40 ? 4096u : 4136u);
        expect_refused(TRM_ECORRUPT, SEGMENT_1, offset);
    }
    /* In the newest batch it looks like a torn write. */
    write_file(SEGMENT_1, bytes, len);
    flip(SEGMENT_1, 2 * TRM_WAL_BLOCK_BYTES + 30);
    open_ok();
    assert_int_equal(trm_wal_last_index(wal), 1);
    free(bytes);
}

static void three_segments(void)
{
    open_ok();
    char big[9000];
    memset(big, 'b', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    for (uint64_t i = 1; i <= 3; i++)
        put(i, 1, big);
    trm_wal_close(wal);
    wal = NULL;
}

static void a_bad_older_segment_is_refused(void **state)
{
    three_segments();
    size_t len;
    uint8_t *bytes = read_file(SEGMENT_1, &len);
    flip(SEGMENT_1, 5000);
    expect_refused(TRM_ECORRUPT, SEGMENT_1, "offset 4096");
    write_file(SEGMENT_1, bytes, 6000);
    expect_refused(TRM_ECORRUPT, SEGMENT_1, "offset 4096");
    write_file(SEGMENT_1, bytes, len);
    open_ok();
    trm_wal_close(wal);
    wal = NULL;
    remove_file(SEGMENT_2);
    expect_refused(TRM_ECORRUPT, DIR, "segment 2 is missing");
    remove_file(SEGMENT_1);
    expect_refused(TRM_ECORRUPT, DIR, "segment 2 is missing");
    free(bytes);
}

static void bad_headers_are_refused(void **state)
{
    three_segments();
    size_t len;
    uint8_t *bytes = read_file(SEGMENT_3, &len);
    for (size_t at = 0; at < WAL_HEADER_BYTES; at++) {
        write_file(SEGMENT_3, bytes, len);
        flip(SEGMENT_3, at);
        expect_refused(at >= 8 && at < 12 ? TRM_EVERSION : TRM_ECORRUPT, SEGMENT_3, at >= 8 && at < 12 ? "version" : "offset 0");
    }
    write_file(SEGMENT_3, bytes, 99);
    expect_refused(TRM_ECORRUPT, SEGMENT_3, "offset 0");
    /* A header that checks and says what it cannot. */
    memcpy(bytes + 32, "\1\0\0\0\0\0\0\0", 8);
    trm_store_u32(bytes + 96, trm_crc32c(0, bytes, 96));
    write_file(SEGMENT_3, bytes, len);
    expect_refused(TRM_ECORRUPT, SEGMENT_3, "out of its range");
    free(bytes);
    bytes = read_file(SEGMENT_2, &len);
    write_file(SEGMENT_3, bytes, len);
    expect_refused(TRM_ECORRUPT, SEGMENT_3, "segment 2");
    free(bytes);
}

/* Rewrites a header field and its checksum. */
static void forge(const char *path, size_t at, uint64_t value)
{
    size_t len;
    uint8_t *bytes = read_file(path, &len);
    trm_store_u64(bytes + at, value);
    trm_store_u32(bytes + 96, trm_crc32c(0, bytes, 96));
    write_file(path, bytes, len);
    free(bytes);
}

static void segments_that_do_not_fit_together_are_refused(void **state)
{
    three_segments();
    forge(SEGMENT_3, 16, 43);
    expect_refused(TRM_ECORRUPT, SEGMENT_3, "another log");
    forge(SEGMENT_3, 16, 42);
    forge(SEGMENT_3, 40, 5);
    expect_refused(TRM_ECORRUPT, SEGMENT_3, "does not begin where");
    forge(SEGMENT_3, 40, 3);
    forge(SEGMENT_3, 80, 4096);
    expect_refused(TRM_ECORRUPT, SEGMENT_2, "offset 4096");
}

static void bad_snapshots_are_refused(void **state)
{
    open_ok();
    put(1, 1, "first");
    save(1, 1, "the state");
    trm_wal_close(wal);
    wal = NULL;
    const char *path = DIR "/snapshot-0000000000000001";
    size_t len;
    uint8_t *bytes = read_file(path, &len);
    for (size_t at = 0; at < len; at++) {
        write_file(path, bytes, len);
        flip(path, at);
        expect_refused(at >= 8 && at < 12 ? TRM_EVERSION : TRM_ECORRUPT, path, at < 8 || at >= 12 ? "bad snapshot" : "version");
        write_file(path, bytes, at);
        expect_refused(TRM_ECORRUPT, path, "bad snapshot");
    }
    write_file(DIR "/snapshot-0000000000000002", bytes, len);
    expect_refused(TRM_ECORRUPT, "snapshot-0000000000000002", "offset 24");
    remove_file(DIR "/snapshot-0000000000000002");
    write_file(path, bytes, len);
    open_ok();
    save(5, 2, "ahead");
    put(6, 2, "six");
    trm_wal_close(wal);
    wal = NULL;
    size_t len5;
    uint8_t *bytes5 = read_file(DIR "/snapshot-0000000000000005", &len5);
    remove_file(DIR "/snapshot-0000000000000005");
    expect_refused(TRM_ECORRUPT, SEGMENT_1, "the snapshot of entry 5 that it needs is missing");
    write_file(DIR "/snapshot-0000000000000005", bytes5, len5);
    remove_file(SEGMENT_1);
    expect_refused(TRM_ECORRUPT, DIR, "all segments are missing");
    free(bytes5);
    free(bytes);
}

/* Records with a good checksum that make no sense: only a bug writes them. */
static void nonsense_is_refused(void **state)
{
    static const struct {
        uint8_t type;
        uint8_t payload[24];
        uint32_t len;
        const char *why;
    } records[] = {
        {WAL_ENTRIES, {3, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0}, 11, "do not follow"},
        {WAL_ENTRIES, {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0}, 11, "do not follow"},
        {WAL_ENTRIES, {2, 0, 0, 0, 0, 0, 0, 0}, 8, "malformed"},
        {WAL_ENTRIES, {2, 0, 0, 0, 0, 0, 0, 0, 9, 1, 5}, 11, "malformed"},
        {WAL_ENTRIES, {2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0}, 11, "older term"},
        {WAL_ENTRIES, {2, 0}, 2, "do not follow"},
        {WAL_HARD_STATE, {0}, 24, "term goes back"},
        {WAL_HARD_STATE, {9}, 23, "term goes back"},
        {WAL_TRUNCATE, {0}, 8, "malformed"},
        {WAL_TRUNCATE, {1}, 7, "malformed"},
        {WAL_RESET, {1}, 8, "malformed"},
        {WAL_RESET, {1, 0, 0, 0, 0, 0, 0, 0, 1}, 16, "snapshot of entry 1"},
    };
    for (size_t i = 0; i < sizeof records / sizeof records[0]; i++) {
        trm_fs_mem_wipe(fs);
        trm_wal_close(wal);
        wal = NULL;
        open_ok();
        trm_wal_batch batch;
        trm_wal_batch_init(&batch);
        trm_wal_hard_state hard = {5, 1, 0};
        trm_wal_batch_hard_state(&batch, &hard);
        add(&batch, 1, 1, "first");
        assert_int_equal(write_batch(&batch), TRM_OK);
        trm_wal_close(wal);
        wal = NULL;
        size_t len;
        uint8_t *bytes = read_file(SEGMENT_1, &len);
        wal_cursor cursor;
        wal_record record;
        wal_cursor_init(&cursor, bytes, len, trm_load_u32(bytes + 96));
        while (wal_cursor_next(&cursor, &record))
            continue;
        size_t at = (cursor.at + 4095) / 4096 * 4096;
        memset(bytes + at, 0, 64);
        trm_store_u32(bytes + at + 8, records[i].len);
        bytes[at + 20] = records[i].type;
        memcpy(bytes + at + 24, records[i].payload, 24);
        size_t padded = (24 + records[i].len + 7) / 8 * 8;
        memset(bytes + at + 24 + records[i].len, 0, padded - 24 - records[i].len);
        wal_stamp(bytes + at, padded, cursor.seed, 4096, &cursor.chain, &cursor.number);
        write_file(SEGMENT_1, bytes, len);
        expect_refused(TRM_ECORRUPT, "offset 8192", records[i].why);
        free(bytes);
    }
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
                    if (status == TRM_OK && i % 2 == 0 && trm_wal_snapshot_begin(wal, &meta, &err) == TRM_OK &&
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
        TEST(a_bad_record_before_synced_ones_is_refused),
        TEST(a_bad_older_segment_is_refused),
        TEST(bad_headers_are_refused),
        TEST(segments_that_do_not_fit_together_are_refused),
        TEST(bad_snapshots_are_refused),
        TEST(nonsense_is_refused),
        TEST(a_full_disk_refuses_and_goes_on),
        TEST(a_failed_sync_is_for_good),
        TEST(every_operation_may_fail),
        TEST(the_dump_says_what_is_there),
        TEST(the_dump_says_what_a_crash_has_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
