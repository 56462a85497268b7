/* runtime/wal: what no crash explains is refused, with file and offset. */
#include "tests/unit/wal_files.h"

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
        expect_refused(at >= 8 && at < 12 ? TRM_EVERSION : TRM_ECORRUPT, SEGMENT_3,
                       at >= 8 && at < 12 ? "version" : "offset 0");
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
        expect_refused(at >= 8 && at < 12 ? TRM_EVERSION : TRM_ECORRUPT, path,
                       at < 8 || at >= 12 ? "bad snapshot" : "version");
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

int main(void)
{
    trm_diag_configure(getenv("V") ? TRM_DIAG_DEBUG : TRM_DIAG_WARN, -1);
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_bad_record_before_synced_ones_is_refused),
        TEST(a_bad_older_segment_is_refused),
        TEST(bad_headers_are_refused),
        TEST(segments_that_do_not_fit_together_are_refused),
        TEST(bad_snapshots_are_refused),
        TEST(nonsense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
