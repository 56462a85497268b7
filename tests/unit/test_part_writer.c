/* workers/part_writer: the three formats, numbers, gzip, checksums and failing disks. */
#include "workers/part_writer.h"

#include "runtime/crc32c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <inttypes.h>
#include <math.h>
#include <zlib.h>

#include "tests/unit/temp_tree.h"

static temp_tree tree;

static int make_tree(void **state)
{
    temp_tree_init(&tree);
    return 0;
}

static int remove_tree(void **state)
{
    temp_tree_close(&tree);
    return 0;
}

static trm_part_writer *writer_of(trm_output output, trm_type key_type, trm_type value_type, bool gzip)
{
    trm_part_writer *writer;
    trm_err err;
    assert_int_equal(
        trm_part_writer_create(&writer, trm_fs_posix(), output, key_type, value_type, gzip, &err), TRM_OK);
    return writer;
}

/* Finishes and reads the file back; it is what totals say. */
static uint8_t *finish(trm_part_writer *writer, const char *path, trm_part_totals *totals)
{
    trm_err err;
    uint8_t *bytes;
    size_t len;
    assert_int_equal(trm_part_writer_finish(writer, totals, &err), TRM_OK);
    assert_int_equal(trm_fs_read_whole(trm_fs_posix(), path, 1u << 30, &bytes, &len, &err), TRM_OK);
    assert_int_equal(len, totals->file_bytes);
    assert_int_equal(trm_crc32c(0, bytes, len), totals->crc);
    return bytes;
}

static void formats(void **state)
{
    static const struct {
        trm_output output;
        const char *bytes;
        size_t len;
    } cases[] = {
        {TRM_OUTPUT_TEXT, "key\tvalue\n\t\n", 12},
        {TRM_OUTPUT_PAIRS, "\3\0\0\0\5\0\0\0keyvalue\0\0\0\0\0\0\0\0", 24},
        {TRM_OUTPUT_RAW, "keyvalue", 8},
    };
    for (unsigned i = 0; i < 3; i++) {
        trm_part_writer *writer = writer_of(cases[i].output, TRM_BYTES, TRM_BYTES, false);
        trm_part_totals totals;
        trm_err err;
        char *path = temp_tree_name(&tree, "part");
        assert_false(trm_part_writer_is_open(writer));
        assert_int_equal(trm_part_writer_open(writer, path, &err), TRM_OK);
        assert_int_equal(trm_part_writer_put(writer, "key", 3, "value", 5, &err), TRM_OK);
        assert_int_equal(trm_part_writer_put(writer, NULL, 0, NULL, 0, &err), TRM_OK);
        uint8_t *bytes = finish(writer, path, &totals);
        assert_int_equal(totals.file_bytes, cases[i].len);
        assert_memory_equal(bytes, cases[i].bytes, cases[i].len);
        assert_int_equal(totals.records, 2);
        assert_int_equal(totals.pair_bytes, 8);
        free(bytes);
        trm_part_writer_destroy(writer);
    }
}

static void expect_number(trm_type type, const void *number, const char *text)
{
    char out[TRM_NUMBER_BYTES_MAX + 1];
    out[trm_number_format(type, number, out)] = 0;
    assert_string_equal(out, text);
}

static void numbers(void **state)
{
    uint64_t u = UINT64_MAX;
    int64_t i = INT64_MIN;
    expect_number(TRM_U64, &u, "18446744073709551615");
    expect_number(TRM_I64, &i, "-9223372036854775808");
    u = 0;
    expect_number(TRM_U64, &u, "0");
    static const struct {
        double number;
        const char *text;
    } reals[] = {{0, "0"},        {-0.0, "-0"},      {1, "1"},
                 {-17, "-17"},    {0.1, "0.1"},      {1.0 / 3, "0.3333333333333333"},
                 {1e15, "1e+15"}, {1e300, "1e+300"}, {123456789012345, "123456789012345"},
                 {2.5, "2.5"},    {INFINITY, "inf"}, {5e-324, "4.94065645841247e-324"}};
    for (unsigned k = 0; k < sizeof reals / sizeof reals[0]; k++)
        expect_number(TRM_F64, &reals[k].number, reals[k].text);
    uint64_t seed = 1;
    for (unsigned k = 0; k < 20000; k++) { /* doubles of any bits read back as they were */
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        double number;
        memcpy(&number, &seed, 8);
        char out[TRM_NUMBER_BYTES_MAX + 1], plain[32];
        out[trm_number_format(TRM_F64, &number, out)] = 0;
        assert_true(isnan(number) || strtod(out, NULL) == number);
        out[trm_number_format(TRM_I64, &seed, out)] = 0;
        snprintf(plain, sizeof plain, "%" PRId64, (int64_t)seed);
        assert_string_equal(out, plain);
    }
}

static void wrong_numbers_are_refused(void **state)
{
    trm_part_writer *writer = writer_of(TRM_OUTPUT_TEXT, TRM_BYTES, TRM_U64, false);
    trm_err err;
    assert_int_equal(trm_part_writer_open(writer, temp_tree_name(&tree, "part"), &err), TRM_OK);
    assert_int_equal(trm_part_writer_put(writer, "k", 1, "1234567", 7, &err), TRM_EKERNEL);
    assert_string_equal(err.text, "the value of the output is a number of 8 bytes, but one of 7 was emitted");
    trm_part_writer_destroy(writer);
    assert_int_not_equal(access(temp_tree_name(&tree, "part"), F_OK), 0);
}

/* Pairs of all sizes around the buffer's, plain and compressed, come back whole. */
static void sizes(void **state)
{
    size_t largest = 2 * TRM_PART_BUFFER_BYTES + 6;
    uint8_t *value = malloc(largest), *expected = malloc(16u << 20), *back = malloc(16u << 20);
    assert_true(value && expected && back);
    uint64_t seed = 7;
    for (size_t i = 0; i < largest; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        value[i] = (uint8_t)('a' + (seed >> 33) % 20);
    }
    for (unsigned gzip = 0; gzip < 2; gzip++) {
        trm_part_writer *writer = writer_of(TRM_OUTPUT_RAW, TRM_BYTES, TRM_BYTES, gzip);
        for (unsigned again = 0; again < 2; again++) { /* a writer is used more than once */
            char *path = temp_tree_name(&tree, "part");
            trm_part_totals totals;
            trm_err err;
            size_t len = 0;
            assert_int_equal(trm_part_writer_open(writer, path, &err), TRM_OK);
            for (int delta = -3; delta <= 3; delta++) {
                for (unsigned times = 0; times < 3; times++) {
                    size_t bytes = (size_t)((int)(times * TRM_PART_BUFFER_BYTES) + delta + 3);
                    assert_int_equal(trm_part_writer_put(writer, "k", 1, value, bytes, &err), TRM_OK);
                    expected[len++] = 'k';
                    memcpy(expected + len, value, bytes);
                    len += bytes;
                }
            }
            free(finish(writer, path, &totals));
            gzFile in = gzopen(path, "rb"); /* reads plain files too */
            assert_non_null(in);
            assert_int_equal(gzread(in, back, 16u << 20), len);
            gzclose(in);
            assert_memory_equal(back, expected, len);
            assert_true(!gzip || totals.file_bytes < len * 3 / 4);
        }
        trm_part_writer_destroy(writer);
    }
    free(value);
    free(expected);
    free(back);
}

static void an_empty_part_is_a_file(void **state)
{
    for (unsigned gzip = 0; gzip < 2; gzip++) {
        trm_part_writer *writer = writer_of(TRM_OUTPUT_TEXT, TRM_BYTES, TRM_BYTES, gzip);
        trm_part_totals totals;
        trm_err err;
        char *path = temp_tree_name(&tree, "empty");
        assert_int_equal(trm_part_writer_open(writer, path, &err), TRM_OK);
        free(finish(writer, path, &totals));
        assert_int_equal(totals.records, 0);
        assert_int_equal(totals.file_bytes, gzip ? 20 : 0);
        trm_part_writer_destroy(writer);
    }
}

/* ---- A disk that fails -------------------------------------------------------------- */

static trm_fs_ops failing_ops;
static trm_fs failing_fs = {&failing_ops};
static unsigned writes_left, syncs_left;

static trm_status failing_write(trm_file *file, uint64_t offset, const void *bytes, size_t len, trm_err *err)
{
    if (writes_left-- == 0)
        return trm_err_set(err, TRM_ENOSPACE, "no space");
    return trm_fs_posix()->ops->write_at(file, offset, bytes, len, err);
}

static trm_status failing_sync(trm_file *file, trm_err *err)
{
    if (syncs_left-- == 0)
        return trm_err_set(err, TRM_EIO, "no sync");
    return trm_fs_posix()->ops->sync(file, err);
}

static trm_status failing_sync_dir(trm_fs *fs, const char *path, trm_err *err)
{
    if (syncs_left-- == 0)
        return trm_err_set(err, TRM_EIO, "no sync");
    return trm_fs_posix()->ops->sync_dir(fs, path, err);
}

static trm_status write_much(trm_part_writer *writer, const char *path, trm_err *err)
{
    static char value[50000];
    trm_part_totals totals;
    trm_status status = trm_part_writer_open(writer, path, err);
    for (unsigned i = 0; i < 100 && status == TRM_OK; i++)
        status = trm_part_writer_put(writer, "k", 1, value, sizeof value, err);
    if (status == TRM_OK)
        status = trm_part_writer_finish(writer, &totals, err);
    trm_part_writer_abort(writer);
    return status;
}

static void a_failing_disk_leaves_nothing(void **state)
{
    failing_ops = *trm_fs_posix()->ops;
    failing_ops.write_at = failing_write;
    failing_ops.sync = failing_sync;
    failing_ops.sync_dir = failing_sync_dir;
    trm_part_writer *writer;
    trm_err err;
    char *path = temp_tree_name(&tree, "part");
    assert_int_equal(
        trm_part_writer_create(&writer, &failing_fs, TRM_OUTPUT_RAW, TRM_BYTES, TRM_BYTES, false, &err),
        TRM_OK);
    for (unsigned bad = 0; bad < 22; bad++) {
        writes_left = bad < 20 ? bad : 1000;
        syncs_left = bad < 20 ? 1000 : bad - 20;
        assert_int_equal(write_much(writer, path, &err), bad < 20 ? TRM_ENOSPACE : TRM_EIO);
        assert_int_not_equal(access(path, F_OK), 0);
    }
    writes_left = syncs_left = 1000;
    assert_int_equal(write_much(writer, path, &err), TRM_OK);
    assert_int_equal(access(path, F_OK), 0);
    trm_part_writer_destroy(writer);
}

/* ---- The way to the device ------------------------------------------------------------- */

/* The real file system, watched: what was sent to the device and what has left the cache. */
static struct {
    trm_fs fs;
    trm_fs_ops ops;
    uint64_t sent, dropped_from, dropped_until;
    bool device_fails;
} watched;

static trm_status watched_open(trm_fs *fs, const char *path, int flags, trm_file **out, trm_err *err)
{
    trm_status status = trm_fs_posix()->ops->open(trm_fs_posix(), path, flags, out, err);
    if (status == TRM_OK)
        (*out)->fs = fs;
    return status;
}

static void watched_write_back(trm_file *file, uint64_t offset, uint64_t len)
{
    assert_int_equal(offset, watched.sent);
    watched.sent += len;
    trm_fs_posix()->ops->write_back(file, offset, len);
}

static trm_status watched_drop(trm_file *file, uint64_t offset, uint64_t len, trm_err *err)
{
    if (watched.dropped_until == 0)
        watched.dropped_from = offset;
    else
        assert_int_equal(offset, watched.dropped_until);
    watched.dropped_until = offset + len;
    assert_true(watched.dropped_until + TRM_PART_WRITE_BACK_BYTES <= watched.sent);
    if (watched.device_fails)
        return trm_err_set(err, TRM_EIO, "the device has failed");
    return trm_fs_posix()->ops->drop(file, offset, len, err);
}

static trm_status put_until(trm_part_writer *writer, uint64_t len, trm_err *err)
{
    uint8_t value[1000];
    for (uint64_t at = 0; at < len; at += sizeof value) {
        memset(value, (int)(at / sizeof value % 251), sizeof value);
        trm_status status = trm_part_writer_put(writer, NULL, 0, value, sizeof value, err);
        if (status != TRM_OK)
            return status;
    }
    return TRM_OK;
}

static trm_part_writer *watched_writer(const char *path)
{
    trm_part_writer *writer;
    trm_err err;
    memset(&watched, 0, sizeof watched);
    watched.ops = *trm_fs_posix()->ops;
    watched.ops.open = watched_open;
    watched.ops.write_back = watched_write_back;
    watched.ops.drop = watched_drop;
    watched.fs.ops = &watched.ops;
    assert_int_equal(
        trm_part_writer_create(&writer, &watched.fs, TRM_OUTPUT_RAW, TRM_BYTES, TRM_BYTES, false, &err),
        TRM_OK);
    assert_int_equal(trm_part_writer_open(writer, path, &err), TRM_OK);
    return writer;
}

static void the_rest_of_a_large_part_leaves_the_cache(void **state)
{
    const uint64_t len = TRM_PART_CACHED_BYTES + 10 * TRM_PART_WRITE_BACK_BYTES;
    char *path = temp_tree_name(&tree, "large");
    trm_part_writer *writer = watched_writer(path);
    trm_part_totals totals;
    trm_err err;
    assert_int_equal(put_until(writer, len, &err), TRM_OK);
    assert_true(watched.sent + TRM_PART_WRITE_BACK_BYTES >= len);
    assert_int_equal(watched.dropped_from, TRM_PART_CACHED_BYTES);
    assert_true(watched.dropped_until >= len - 4 * TRM_PART_WRITE_BACK_BYTES);
    free(finish(writer, path, &totals));

    /* The next part of the same writer begins anew. */
    watched.sent = watched.dropped_from = watched.dropped_until = 0;
    assert_int_equal(trm_part_writer_open(writer, path, &err), TRM_OK);
    assert_int_equal(put_until(writer, TRM_PART_CACHED_BYTES, &err), TRM_OK);
    assert_int_equal(watched.dropped_until, 0);
    free(finish(writer, path, &totals));
    trm_part_writer_destroy(writer);
}

/* It is not told once more by the sync at the end. */
static void a_device_that_fails_early_fails_the_part(void **state)
{
    char *path = temp_tree_name(&tree, "failing");
    trm_part_writer *writer = watched_writer(path);
    trm_err err;
    watched.device_fails = true;
    assert_int_equal(put_until(writer, 2 * TRM_PART_CACHED_BYTES, &err), TRM_EIO);
    trm_part_writer_abort(writer);
    assert_int_not_equal(access(path, F_OK), 0);
    trm_part_writer_destroy(writer);
}

#define IN_TREE(test) cmocka_unit_test_setup_teardown(test, make_tree, remove_tree)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_TREE(formats),
        cmocka_unit_test(numbers),
        IN_TREE(wrong_numbers_are_refused),
        IN_TREE(sizes),
        IN_TREE(an_empty_part_is_a_file),
        IN_TREE(a_failing_disk_leaves_nothing),
        IN_TREE(the_rest_of_a_large_part_leaves_the_cache),
        IN_TREE(a_device_that_fails_early_fails_the_part),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
