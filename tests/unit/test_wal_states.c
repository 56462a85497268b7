/* runtime/wal: each state that a crash may leave, made on purpose at every byte: it is
 * repaired, said, dumped as sound without being touched, and costs nothing that was synced. */
#include "tests/unit/wal_files.h"

#include <unistd.h>

/* ---- What the log says while it opens. ---- */

static FILE *said_file;
static int kept_stderr;

static void listen_to_stderr(void)
{
    trm_diag_configure(TRM_DIAG_INFO, -1);
    fflush(stderr);
    said_file = tmpfile();
    kept_stderr = dup(STDERR_FILENO);
    assert_true(said_file && kept_stderr >= 0 && dup2(fileno(said_file), STDERR_FILENO) >= 0);
}

/* What was written to standard error since; valid until the next call. */
static const char *heard(void)
{
    static char text[4096];
    dup2(kept_stderr, STDERR_FILENO);
    close(kept_stderr);
    rewind(said_file);
    text[fread(text, 1, sizeof text - 1, said_file)] = '\0';
    fclose(said_file);
    trm_diag_configure(TRM_DIAG_WARN, -1);
    return text;
}

/* The dump finds the state sound and does not touch it; NULL: the words do not matter. */
static void expect_sound(const char *words)
{
    trm_fs_mem_counts before, after;
    trm_fs_mem_counts_get(fs, &before);
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    trm_status status = trm_wal_dump(fs, DIR, true, out, &err);
    fclose(out);
    trm_fs_mem_counts_get(fs, &after);
    if (status != TRM_OK || (words && !strstr(text, words)))
        fail_msg("%s\n%s", status == TRM_OK ? "" : err.text, text);
    assert_true(before.changes == after.changes);
    free(text);
}

/* Opens, expects so many repairs, and that the log tells of them. */
static void expect_repaired(unsigned repairs, const char *words)
{
    listen_to_stderr();
    trm_status status = open_sized(16384, 16384);
    const char *text = heard();
    if (status != TRM_OK)
        fail_msg("%s", err.text);
    assert_int_equal(trm_wal_repairs(wal), repairs);
    if (words && !strstr(text, words))
        fail_msg("expected \"%s\" in: %s", words, text);
    trm_wal_forget(wal);
}

static void close_log(void)
{
    trm_wal_close(wal);
    wal = NULL;
}

/* Two segments: an entry in the first, which is full, and another in the second. */
static void two_segments(void)
{
    char big[5000];
    memset(big, 'b', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    open_ok();
    put_hard(3, 0, 0);
    put(1, 1, big);
    put(2, 2, "second");
    close_log();
}

/* ---- The states. ---- */

static void a_newest_segment_that_ends_anywhere(void **state)
{
    two_segments();
    size_t len;
    uint8_t *bytes = read_file(SEGMENT_2, &len);
    size_t record = TRM_WAL_BLOCK_BYTES + 24 + 8 + 3 + 6; /* its bytes, without the padding */
    size_t end = TRM_WAL_BLOCK_BYTES + 48;
    for (size_t cut = 0; cut <= end + 8; cut++) {
        write_file(SEGMENT_2, bytes, cut);
        if (cut < WAL_HEADER_BYTES) {
            expect_refused(TRM_ECORRUPT, SEGMENT_2, "offset 0");
            continue;
        }
        expect_sound("an unfinished write");
        expect_repaired(1, "dropped an unfinished write at offset");
        assert_int_equal(trm_wal_last_index(wal), cut < record ? 1 : 2);
        trm_wal_hard_state hard;
        trm_wal_hard_state_get(wal, &hard);
        assert_true(hard.term == 3 && hard.vote == 0); /* a vote for node 0 */
        put(trm_wal_last_index(wal) + 1, 4, "goes on");
        expect_repaired(0, NULL);
        close_log();
    }
    free(bytes);
}

/* The power goes between the second segment's name and its first record; and the spare
 * that was made ahead is there, of any length. */
static void two_open_segments_and_a_spare_of_any_length(void **state)
{
    two_segments();
    size_t len;
    uint8_t *bytes = read_file(SEGMENT_2, &len);
    uint8_t *empty = calloc(1, len);
    memcpy(empty, bytes, TRM_WAL_BLOCK_BYTES);
    for (size_t spare = 0; spare <= TRM_WAL_BLOCK_BYTES + 64; spare += spare < 200 ? 1 : 61) {
        write_file(SEGMENT_2, empty, len);
        write_file(DIR "/spare", bytes, spare);
        expect_sound("end at offset 4096 of segment 2");
        expect_repaired(0, NULL);
        assert_int_equal(trm_wal_last_index(wal), 1);
        put(2, 4, "another");
        open_ok();
        expect_entry(2, 4, "another");
        close_log();
    }
    free(empty);
    free(bytes);
}

static void a_snapshot_aside_of_any_length(void **state)
{
    open_ok();
    put(1, 1, "first");
    save(1, 1, "the first state");
    put(2, 1, "second");
    put(3, 1, "third");
    save(3, 1, "the second state");
    close_log();
    const char *path = DIR "/snapshot-0000000000000003", *aside = DIR "/snapshot.new";
    size_t len;
    uint8_t *bytes = read_file(path, &len);
    /* Half of the next one is there, the one before counts. */
    for (size_t cut = 0; cut <= len; cut++) {
        write_file(aside, bytes, cut);
        expect_sound("a snapshot half written");
        expect_repaired(1, "removed a snapshot that was not finished");
        trm_wal_snapshot snapshot;
        trm_wal_snapshot_get(wal, &snapshot);
        assert_int_equal(snapshot.index, 3);
        close_log();
    }
    /* The same with only the older one, and with both. */
    trm_fs_mem_wipe(fs);
    open_ok();
    put(1, 1, "first");
    save(1, 1, "the first state");
    put(2, 1, "second");
    put(3, 1, "third");
    close_log();
    for (size_t cut = 0; cut <= len; cut++) {
        write_file(aside, bytes, cut);
        expect_repaired(1, "removed a snapshot that was not finished");
        assert_int_equal(trm_wal_first_index(wal), 2);
        close_log();
    }
    write_file(path, bytes, len);
    expect_sound("snapshot of entry 3");
    expect_repaired(1, "removed a snapshot that a newer one replaces");
    assert_true(trm_wal_first_index(wal) == 4 && trm_wal_last_index(wal) == 3);
    free(bytes);
}

/* A batch of a hard state is torn at every byte, with everything behind it old, zero or
 * wild: the hard state is the one before or the new one, whole. */
static void a_torn_hard_state_is_the_old_or_the_new(void **state)
{
    open_ok();
    put_hard(5, 1, 0);
    put_hard(6, TRM_WAL_VOTE_NONE, 0);
    close_log();
    size_t len;
    uint8_t *bytes = read_file(SEGMENT_1, &len);
    uint8_t *torn = malloc(len);
    size_t start = 2 * TRM_WAL_BLOCK_BYTES;
    unsigned seen[2] = {0, 0};
    for (size_t at = start; at <= start + 48; at++)
        for (int fill = 0; fill < 3; fill++) {
            memcpy(torn, bytes, len);
            for (size_t i = at; i < start + 512; i++)
                torn[i] = fill == 0 ? 0 : fill == 1 ? 0xff : (uint8_t)(i * 31);
            write_file(SEGMENT_1, torn, len);
            expect_sound(NULL);
            open_ok();
            trm_wal_hard_state hard;
            trm_wal_hard_state_get(wal, &hard);
            bool newer = hard.term == 6;
            assert_true(newer ? hard.vote == TRM_WAL_VOTE_NONE : hard.term == 5 && hard.vote == 1);
            seen[newer]++;
            close_log();
        }
    assert_true(seen[0] > 50 && seen[1] > 3);
    free(torn);
    free(bytes);
}

/* A busy life: entries, votes, rolls, snapshots, compactions. Returns what was synced. */
static uint64_t busy_life(uint64_t *term)
{
    uint64_t synced = 0;
    char payload[3000];
    memset(payload, 'p', sizeof payload - 1);
    payload[sizeof payload - 1] = '\0';
    for (uint64_t i = 1; i <= 8; i++) {
        trm_wal_batch batch;
        trm_wal_batch_init(&batch);
        trm_wal_hard_state hard = {i, i % 3, synced};
        trm_wal_batch_hard_state(&batch, &hard);
        add(&batch, i, i, payload);
        if (write_batch(&batch) != TRM_OK)
            return synced;
        synced = *term = i;
        trm_wal_prepare(wal);
        trm_wal_snapshot meta = {.index = i, .term = i};
        if (i % 3 == 0 && trm_wal_snapshot_begin(wal, &meta, &err) == TRM_OK &&
            trm_wal_snapshot_write(wal, "s", 1, &err) == TRM_OK &&
            trm_wal_snapshot_commit(wal, &err) == TRM_OK)
            trm_wal_compact(wal, &err);
    }
    return synced;
}

/* The machine stops at every one of its operations on files, and comes up with what it
 * happened to have on its disk. */
static void a_crash_at_every_operation(void **state)
{
    bool whole = false;
    for (uint64_t changes = 0; !whole; changes++)
        for (uint64_t seed = 1; seed <= 6; seed++) {
            close_log();
            trm_fs_mem_destroy(fs);
            fs = trm_fs_mem_create(seed);
            uint64_t synced = 0, term = 0;
            trm_fs_mem_stop_after(fs, changes);
            if (open_sized(8192, 16384) == TRM_OK)
                synced = busy_life(&term);
            whole = synced == 8;
            trm_fs_mem_crash(fs);
            close_log();
            bool there;
            assert_int_equal(trm_wal_exists(fs, DIR, &there, &err), TRM_OK);
            assert_true(there || synced == 0);
            if (there)
                expect_sound(NULL);
            trm_status status = open_sized(8192, 16384);
            if (status != TRM_OK)
                fail_msg("stopped after %llu operations, seed %llu: %s", (unsigned long long)changes,
                         (unsigned long long)seed, err.text);
            trm_wal_hard_state hard;
            trm_wal_hard_state_get(wal, &hard);
            assert_true(trm_wal_last_index(wal) >= synced && trm_wal_last_index(wal) <= synced + 1);
            assert_true(hard.term >= term && hard.term <= term + 1);
            assert_int_equal(hard.vote, hard.term ? hard.term % 3 : TRM_WAL_VOTE_NONE);
        }
}

int main(void)
{
    trm_diag_configure(getenv("V") ? TRM_DIAG_DEBUG : TRM_DIAG_WARN, -1);
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_newest_segment_that_ends_anywhere), TEST(two_open_segments_and_a_spare_of_any_length),
        TEST(a_snapshot_aside_of_any_length),      TEST(a_torn_hard_state_is_the_old_or_the_new),
        TEST(a_crash_at_every_operation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
