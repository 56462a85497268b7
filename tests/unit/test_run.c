/* workers/run_writer, run_reader, collector and merge when files are damaged, disks are full, and
 * records are larger than anything: no wrong record is ever given out, no file is left. */
#include "tests/support/fs_mem.h"
#include "workers/collector.h"
#include "workers/folds.h"
#include "workers/merge.h"
#include "workers/run_format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

static trm_err err;
static trm_region region;

static int open_region(void **state)
{
    return trm_region_open(&region, 4u << 20, &err);
}
static int close_region(void **state)
{
    trm_region_close(&region);
    return 0;
}

static trm_fs *make_fs(void)
{
    trm_fs *fs = trm_fs_mem_create(1);
    assert_non_null(fs);
    return fs;
}

static bool is_there(trm_fs *fs, const char *path)
{
    trm_file *file;
    if (fs->ops->open(fs, path, TRM_FS_READ, &file, NULL) != TRM_OK)
        return false;
    fs->ops->close(file);
    return true;
}

/* ---- A small run: two spills, three partitions, a large record -------------------------- */

#define LARGE_BYTES 150000u
static uint8_t large[LARGE_BYTES];

static void write_run(trm_fs *fs, const char *path, trm_compress_mode mode)
{
    trm_compress_policy policy;
    trm_run_writer *writer;
    trm_run_totals totals;
    trm_compress_policy_init(&policy, mode, 1, 0);
    for (size_t i = 0; i < LARGE_BYTES; i++)
        large[i] = (uint8_t)(i * i >> 9);
    assert_int_equal(trm_run_writer_create(&writer, fs, &policy, NULL, &err), TRM_OK);
    assert_int_equal(trm_run_writer_open(writer, path, 7, 2, 3, &err), TRM_OK);
    for (uint32_t spill = 0; spill < 2; spill++)
        for (uint32_t partition = 0; partition < 3; partition++) {
            assert_int_equal(trm_run_writer_segment(writer, spill, partition, false, &err), TRM_OK);
            for (unsigned i = 0; i < (partition == 1 ? 0u : 40u); i++) {
                char key[16];
                int len = snprintf(key, sizeof key, "key%02u", i);
                assert_int_equal(trm_run_writer_put(writer, key, (size_t)len, "some value", 10, &err),
                                 TRM_OK);
            }
            if (partition == 2)
                assert_int_equal(trm_run_writer_put(writer, "large", 5, large, sizeof large, &err), TRM_OK);
        }
    assert_int_equal(trm_run_writer_finish(writer, &totals, &err), TRM_OK);
    assert_int_equal(totals.segments, 4);
    assert_int_equal(totals.spills, 2);
    assert_int_equal(totals.records, 4 * 40 + 2);
    trm_run_writer_destroy(writer);
}

/* Reads all values of all groups; TRM_EOF after the last. */
static trm_status drain(trm_merge *merge, size_t *values)
{
    trm_group *group;
    const void *value;
    size_t len;
    trm_status status;
    *values = 0;
    while ((status = trm_merge_next(merge, &group, &err)) == TRM_OK) {
        while ((status = trm_group_next(group, &value, &len, &err)) == TRM_OK)
            ++*values;
        if (status != TRM_EOF)
            return status;
    }
    return status;
}

/* Reads everything of partitions [first, last). Any status; on TRM_OK *records is how many there
 * were, and each was one that was written. */
static trm_status read_run(trm_fs *fs, const char *path, uint32_t first, uint32_t last, size_t *records)
{
    trm_run_index index;
    trm_segment_at segments[8];
    trm_merge *merge;
    trm_group *group;
    const void *value;
    size_t len;
    trm_status status = trm_run_index_load(&index, fs, path, &err);
    if (status != TRM_OK)
        return status;
    size_t count = trm_run_index_segments(&index, path, first, last, 0, segments, 8);
    assert_true(count <= 8);
    trm_run_index_close(&index);
    trm_merge_options options = {.fs = fs, .region = region, .scratch_dir = ".", .value_bytes_max = 1 << 20};
    assert_int_equal(trm_merge_create(&merge, &options, &err), TRM_OK);
    status = trm_merge_open(merge, "t", segments, count, &err);
    *records = 0;
    while (status == TRM_OK && (status = trm_merge_next(merge, &group, &err)) == TRM_OK) {
        while ((status = trm_group_next(group, &value, &len, &err)) == TRM_OK) {
            if (group->key_len == 5 && !memcmp(group->key, "large", 5))
                assert_true(len == LARGE_BYTES && !memcmp(value, large, len));
            else
                assert_true(group->key_len == 5 && len == 10 && !memcmp(value, "some value", 10));
            ++*records;
        }
        status = status == TRM_EOF ? TRM_OK : status;
    }
    trm_merge_destroy(merge);
    return status == TRM_EOF ? TRM_OK : status;
}

static trm_status read_values(trm_fs *fs, const char *path, size_t *records)
{
    *records = 0;
    return read_run(fs, path, 0, 3, records);
}

static void what_is_written_is_read(void **state)
{
    for (trm_compress_mode mode = TRM_COMPRESS_AUTO; mode <= TRM_COMPRESS_ZLIB; mode++) {
        trm_fs *fs = make_fs();
        size_t records;
        trm_run_index index;
        write_run(fs, "run", mode);
        assert_int_equal(trm_run_index_load(&index, fs, "run", &err), TRM_OK);
        assert_int_equal(index.task, 7);
        assert_int_equal(index.attempt, 2);
        assert_int_equal(index.partitions, 3);
        assert_int_equal(index.count, 4);
        assert_int_equal(index.segments[3].spill, 1);
        assert_int_equal(index.segments[3].partition, 2);
        assert_true(index.segments[3].record_bytes_max > LARGE_BYTES);
        assert_int_equal(index.segments[3].block_bytes_max, TRM_RUN_BLOCK_BYTES);
        trm_run_index_close(&index);
        assert_int_equal(read_run(fs, "run", 0, 1, &records), TRM_OK);
        assert_int_equal(records, 80);
        assert_int_equal(read_run(fs, "run", 1, 2, &records), TRM_OK);
        assert_int_equal(records, 0);
        assert_int_equal(read_values(fs, "run", &records), TRM_OK);
        assert_int_equal(records, 162);
        trm_fs_mem_destroy(fs);
    }
}

/* ---- Damage ------------------------------------------------------------------------------ */

static size_t load(trm_fs *fs, const char *path, uint8_t **bytes)
{
    size_t len;
    assert_int_equal(trm_fs_read_whole(fs, path, 1 << 24, bytes, &len, &err), TRM_OK);
    return len;
}

static void store(trm_fs *fs, const char *path, const uint8_t *bytes, size_t len)
{
    trm_file *file;
    assert_int_equal(fs->ops->open(fs, path, TRM_FS_WRITE | TRM_FS_CREATE | TRM_FS_TRUNCATE, &file, &err),
                     TRM_OK);
    assert_int_equal(fs->ops->write_at(file, 0, bytes, len, &err), TRM_OK);
    fs->ops->close(file);
}

static void make_extract(trm_fs *fs, const char *from, const char *to, uint32_t first, uint32_t last)
{
    trm_run_index index;
    trm_run_extract extract;
    trm_file *file;
    assert_int_equal(trm_run_index_load(&index, fs, from, &err), TRM_OK);
    assert_int_equal(trm_run_extract_open(&extract, &index, first, last, &err), TRM_OK);
    uint8_t *bytes = malloc((size_t)extract.total_bytes);
    assert_int_equal(fs->ops->open(fs, from, TRM_FS_READ, &file, &err), TRM_OK);
    assert_int_equal(trm_run_extract_read(&extract, file, 0, bytes, (size_t)extract.total_bytes, &err),
                     TRM_OK);
    fs->ops->close(file);
    store(fs, to, bytes, (size_t)extract.total_bytes);
    free(bytes);
    trm_run_extract_close(&extract);
    trm_run_index_close(&index);
}

/* Every byte of the format itself, and some of the data. */
static void a_changed_byte_is_noticed(void **state)
{
    for (unsigned kind = 0; kind < 4; kind++) {
        trm_fs *fs = make_fs();
        uint8_t *bytes;
        size_t records;
        write_run(fs, "run", kind & 1 ? TRM_COMPRESS_ZLIB : TRM_COMPRESS_NONE);
        if (kind & 2)
            make_extract(fs, "run", "run", 0, 3);
        size_t len = load(fs, "run", &bytes);
        for (size_t at = 0; at < len; at += at < 600 || len - at < 600 ? 1 : 977) {
            bytes[at] ^= (uint8_t)(1 << at % 8);
            store(fs, "run", bytes, len);
            trm_status status = read_values(fs, "run", &records);
            if (status != TRM_ECORRUPT)
                fail_msg("kind %u, byte %zu of %zu: %s", kind, at, len, trm_status_name(status));
            assert_non_null(strstr(err.text, "run"));
            bytes[at] ^= (uint8_t)(1 << at % 8);
        }
        free(bytes);
        trm_fs_mem_destroy(fs);
    }
}

static void a_cut_is_noticed(void **state)
{
    for (unsigned kind = 0; kind < 2; kind++) {
        trm_fs *fs = make_fs();
        uint8_t *bytes;
        size_t records;
        write_run(fs, "run", TRM_COMPRESS_NONE);
        if (kind)
            make_extract(fs, "run", "run", 0, 3);
        size_t len = load(fs, "run", &bytes);
        for (size_t cut = 0; cut < len; cut += cut < 300 || len - cut < 300 ? 1 : 4999) {
            store(fs, "run", bytes, cut);
            assert_int_equal(read_values(fs, "run", &records), TRM_ECORRUPT);
        }
        free(bytes);
        trm_fs_mem_destroy(fs);
    }
}

static void the_lost_segment_is_named(void **state)
{
    trm_fs *fs = make_fs();
    trm_merge *merge;
    trm_segment_at segments[12];
    size_t values, count = 0;
    for (unsigned i = 0; i < 3; i++) {
        char *names[] = {"a", "b", "c"};
        trm_run_index index;
        write_run(fs, names[i], TRM_COMPRESS_NONE);
        assert_int_equal(trm_run_index_load(&index, fs, names[i], &err), TRM_OK);
        count += trm_run_index_segments(&index, names[i], 0, 3, 0, segments + count, 12 - count);
        trm_run_index_close(&index);
    }
    assert_int_equal(count, 12);
    trm_merge_options options = {.fs = fs, .region = region, .scratch_dir = ".", .value_bytes_max = 1 << 20};
    assert_int_equal(trm_merge_create(&merge, &options, &err), TRM_OK);
    uint8_t *bytes;
    size_t file_len = load(fs, "b", &bytes);
    bytes[segments[7].segment.offset + 100000]++; /* in the large value of b's last segment */
    store(fs, "b", bytes, file_len);
    free(bytes);
    trm_status status = trm_merge_open(merge, "t", segments, count, &err);
    status = status == TRM_OK ? drain(merge, &values) : status;
    assert_int_equal(status, TRM_ECORRUPT);
    assert_string_equal(trm_merge_lost(merge)->path, "b");
    assert_int_equal(trm_merge_lost(merge)->segment.offset, segments[7].segment.offset);
    assert_non_null(strstr(err.text, "map task 7 (attempt 2)"));
    trm_merge_close(merge);
    assert_int_equal(fs->ops->remove(fs, "c", &err), TRM_OK);
    assert_int_equal(trm_merge_open(merge, "t", segments, count, &err), TRM_ELOST);
    assert_string_equal(trm_merge_lost(merge)->path, "c");
    trm_merge_destroy(merge);
    trm_fs_mem_destroy(fs);
}

/* An index with good checksums that does not fit what is in the blocks, or itself. */
static void an_index_that_lies_is_noticed(void **state)
{
    for (unsigned lie = 0; lie < 8; lie++) {
        trm_fs *fs = make_fs();
        trm_run_index index;
        trm_writer file;
        size_t records;
        write_run(fs, "run", TRM_COMPRESS_NONE);
        assert_int_equal(trm_run_index_load(&index, fs, "run", &err), TRM_OK);
        trm_writer_init(&file);
        size_t len = load(fs, "run", &file.data);
        file.capacity = len;
        trm_segment *last = &index.segments[3], *first = &index.segments[0];
        file.len = (size_t)(last->offset + last->stored_bytes);
        first->records += lie == 1;
        first->records -= lie == 2;
        last->spill -= lie == 3;
        last->partition = lie == 4 ? 0 : lie == 5 ? 3 : last->partition;
        last->block_bytes_max -= lie == 6;
        if (lie == 7)
            index.segments[1].record_bytes_max = last->record_bytes_max = TRM_RUN_BLOCK_BYTES + 1;
        uint64_t at = file.len;
        trm_writer footer;
        trm_writer_init(&footer);
        trm_run_index_encode(&footer, index.segments, index.count);
        trm_run_footer_encode(&footer, at);
        trm_put_bytes(&file, footer.data, footer.len);
        store(fs, "run", file.data, file.len);
        assert_int_equal(read_values(fs, "run", &records), lie ? TRM_ECORRUPT : TRM_OK);
        trm_writer_close(&footer);
        trm_writer_close(&file);
        trm_run_index_close(&index);
        trm_fs_mem_destroy(fs);
    }
}

/* ---- Failing disks ---------------------------------------------------------------------- */

static trm_collector *make_collector(trm_fs *fs, size_t bytes, const trm_fold *fold)
{
    trm_collector *collector;
    trm_collector_options options = {.fs = fs,
                                     .region = {region.base, bytes},
                                     .partitions = 3,
                                     .fold = fold,
                                     .record_bytes_max = 1 << 20,
                                     .seed = 1};
    assert_int_equal(trm_collector_create(&collector, &options, &err), TRM_OK);
    return collector;
}

/* Adds until something fails or everything is done. */
static trm_status collect(trm_collector *collector, trm_collector_stats *stats)
{
    trm_status status = trm_collector_begin(collector, "run", 0, 0, &err);
    for (uint64_t i = 0; status == TRM_OK && i < 60000; i++) {
        uint64_t key = i * 0x9e3779b97f4a7c15ull;
        status = trm_collector_add(collector, &key, 8, &i, 8, &err);
    }
    if (status == TRM_OK)
        return trm_collector_finish(collector, stats, &err);
    trm_collector_abort(collector);
    return status;
}

static void a_failing_disk_leaves_no_run(void **state)
{
    for (unsigned fold = 0; fold < 2; fold++) {
        trm_fs *fs = make_fs();
        trm_collector_stats stats;
        trm_collector *collector =
            make_collector(fs, TRM_COLLECTOR_BYTES_MIN, fold ? TRM_FOLD_SUM_U64 : NULL);
        trm_status status = TRM_EIO;
        for (uint64_t after = 0; status != TRM_OK; after++) {
            trm_fs_mem_fail(fs, TRM_FS_MEM_OPEN | TRM_FS_MEM_WRITE, after, 1, TRM_EIO);
            status = collect(collector, &stats);
            trm_fs_mem_fail(fs, 0, 0, 0, TRM_EIO);
            assert_true(status == TRM_OK || status == TRM_EIO);
            assert_true(is_there(fs, "run") == (status == TRM_OK));
            assert_true(after < 1000);
            if (status == TRM_OK)
                assert_true(after >= 3);
        }
        assert_int_equal(stats.run.records, 60000);
        trm_fs_mem_set_capacity(fs, 200000);
        assert_int_equal(collect(collector, &stats), TRM_ENOSPACE);
        assert_false(is_there(fs, "run"));
        trm_fs_mem_set_capacity(fs, UINT64_MAX);
        assert_int_equal(collect(collector, &stats), TRM_OK);
        trm_collector_destroy(collector);
        trm_fs_mem_destroy(fs);
    }
}

static void a_failing_disk_leaves_no_scratch(void **state)
{
    trm_fs *fs = make_fs();
    trm_collector_stats stats;
    trm_collector *collector = make_collector(fs, TRM_COLLECTOR_BYTES_MIN, NULL);
    trm_merge *merge;
    trm_run_index index;
    trm_segment_at segments[64];
    size_t values = 0;
    assert_int_equal(collect(collector, &stats), TRM_OK);
    assert_int_equal(trm_run_index_load(&index, fs, "run", &err), TRM_OK);
    size_t count = trm_run_index_segments(&index, "run", 0, 3, 0, segments, 64);
    assert_in_range(count, 12, 64);
    trm_run_index_close(&index);
    trm_merge_options options = {.fs = fs,
                                 .region = {region.base, TRM_MERGE_REGION_BYTES_MIN},
                                 .scratch_dir = "scratch",
                                 .value_bytes_max = 1 << 20};
    assert_int_equal(fs->ops->make_dir(fs, "scratch", 0, &err), TRM_OK);
    assert_int_equal(trm_merge_create(&merge, &options, &err), TRM_OK);
    trm_status status = TRM_EIO;
    for (uint64_t after = 0; status != TRM_OK; after++) {
        trm_fs_mem_fail(fs, TRM_FS_MEM_OPEN | TRM_FS_MEM_READ | TRM_FS_MEM_WRITE, after, 1, TRM_EIO);
        status = trm_merge_open(merge, "t", segments, count, &err);
        status = status == TRM_OK ? drain(merge, &values) : status;
        assert_true(status == TRM_EOF || status == TRM_EIO);
        status = status == TRM_EOF ? TRM_OK : status;
        trm_merge_close(merge);
        assert_int_equal(fs->ops->remove(fs, "scratch", &err), TRM_OK); /* it is empty */
        assert_int_equal(fs->ops->make_dir(fs, "scratch", 0, &err), TRM_OK);
        assert_true(after < 1000);
    }
    assert_int_equal(values, 60000);
    trm_merge_stats merged;
    trm_merge_stats_get(merge, &merged);
    assert_true(merged.passes > 0);
    trm_merge_destroy(merge);
    trm_collector_destroy(collector);
    trm_fs_mem_destroy(fs);
}

/* ---- Limits ---------------------------------------------------------------------------- */

static void limits_are_said(void **state)
{
    trm_fs *fs = make_fs();
    static uint8_t bytes[(1 << 20) + 1];
    trm_collector *collector = make_collector(fs, TRM_COLLECTOR_BYTES_MIN, NULL);
    assert_int_equal(trm_collector_begin(collector, "run", 0, 0, &err), TRM_OK);
    assert_int_equal(trm_collector_add(collector, bytes, TRM_KEY_BYTES_MAX, bytes, 1 << 20, &err), TRM_OK);
    assert_int_equal(trm_collector_add(collector, bytes, TRM_KEY_BYTES_MAX + 1, "", 0, &err), TRM_ERECORD);
    assert_non_null(strstr(err.text, "65537"));
    assert_int_equal(trm_collector_add(collector, "k", 1, bytes, (1 << 20) + 1, &err), TRM_ERECORD);
    assert_non_null(strstr(err.text, "--record-max"));
    trm_collector_destroy(collector);
    assert_false(is_there(fs, "run"));
    collector = make_collector(fs, TRM_COLLECTOR_BYTES_MIN, TRM_FOLD_SUM_U64);
    assert_int_equal(trm_collector_begin(collector, "run", 0, 0, &err), TRM_OK);
    assert_int_equal(trm_collector_add(collector, "k", 1, "1", 1, &err), TRM_EKERNEL);
    trm_collector_destroy(collector);
    trm_fs_mem_destroy(fs);
}

static void a_record_larger_than_the_memory_for_merging_is_refused(void **state)
{
    trm_fs *fs = make_fs();
    static uint8_t bytes[600000];
    trm_collector *collector = make_collector(fs, TRM_COLLECTOR_BYTES_MIN, NULL);
    trm_collector_stats stats;
    trm_run_index index;
    trm_segment_at segment;
    trm_merge *merge;
    assert_int_equal(trm_collector_begin(collector, "run", 0, 0, &err), TRM_OK);
    assert_int_equal(trm_collector_add(collector, "k", 1, bytes, sizeof bytes, &err), TRM_OK);
    assert_int_equal(trm_collector_finish(collector, &stats, &err), TRM_OK);
    assert_int_equal(trm_run_index_load(&index, fs, "run", &err), TRM_OK);
    assert_int_equal(trm_run_index_segments(&index, "run", 0, 3, 0, &segment, 1), 1);
    trm_run_index_close(&index);
    trm_merge_options options = {.fs = fs,
                                 .region = {region.base, TRM_MERGE_REGION_BYTES_MIN},
                                 .scratch_dir = ".",
                                 .value_bytes_max = 1 << 20};
    assert_int_equal(trm_merge_create(&merge, &options, &err), TRM_OK);
    assert_int_equal(trm_merge_open(merge, "t", &segment, 1, &err), TRM_ELIMIT);
    assert_non_null(strstr(err.text, "--memory"));
    assert_null(trm_merge_lost(merge));
    trm_merge_destroy(merge);
    trm_collector_destroy(collector);
    trm_fs_mem_destroy(fs);
}

static trm_status combine_into_another_key(void *context, trm_group *group, trm_group_out *out, trm_err *why)
{
    assert_int_equal(trm_group_out_put(out, group->key, group->key_len, "v", 1, why), TRM_OK);
    return trm_group_out_put(out, "another", 7, "v", 1, why);
}

static void a_combiner_stays_with_its_key(void **state)
{
    trm_fs *fs = make_fs();
    trm_collector *collector;
    trm_collector_stats stats;
    trm_collector_options options = {.fs = fs,
                                     .region = region,
                                     .partitions = 1,
                                     .record_bytes_max = 100,
                                     .combine = combine_into_another_key};
    assert_int_equal(trm_collector_create(&collector, &options, &err), TRM_OK);
    assert_int_equal(trm_collector_begin(collector, "run", 0, 0, &err), TRM_OK);
    assert_int_equal(trm_collector_add(collector, "k", 1, "v", 1, &err), TRM_OK);
    assert_int_equal(trm_collector_add(collector, "k", 1, "v", 1, &err), TRM_OK);
    assert_int_equal(trm_collector_finish(collector, &stats, &err), TRM_EKERNEL);
    assert_non_null(strstr(err.text, "another key"));
    assert_false(is_there(fs, "run"));
    trm_collector_destroy(collector);
    trm_fs_mem_destroy(fs);
}

static void nothing_added_leaves_nothing(void **state)
{
    trm_fs *fs = make_fs();
    trm_collector_stats stats;
    trm_merge *merge;
    trm_group *group;
    trm_collector *collector = make_collector(fs, TRM_COLLECTOR_BYTES_MIN, TRM_FOLD_COUNT);
    assert_int_equal(trm_collector_begin(collector, "run", 0, 0, &err), TRM_OK);
    assert_int_equal(trm_collector_finish(collector, &stats, &err), TRM_OK);
    assert_int_equal(stats.run.file_bytes, 0);
    assert_false(is_there(fs, "run"));
    trm_collector_destroy(collector);
    trm_merge_options options = {.fs = fs, .region = region, .scratch_dir = "."};
    assert_int_equal(trm_merge_create(&merge, &options, &err), TRM_OK);
    assert_int_equal(trm_merge_open(merge, "t", NULL, 0, &err), TRM_OK);
    assert_int_equal(trm_merge_next(merge, &group, &err), TRM_EOF);
    trm_merge_destroy(merge);
    trm_fs_mem_destroy(fs);
}

/* ---- Folds ------------------------------------------------------------------------------ */

/* The ready-made folds by their functions and by their operation are the same, and their
 * result does not depend on the order. */
static void ready_made_folds_do_not_depend_on_the_order(void **state)
{
    static const trm_fold *const folds[] = {
        TRM_FOLD_SUM_U64, TRM_FOLD_SUM_I64, TRM_FOLD_MIN_U64, TRM_FOLD_MAX_U64, TRM_FOLD_MIN_I64,
        TRM_FOLD_MAX_I64, TRM_FOLD_MIN_F64, TRM_FOLD_MAX_F64, TRM_FOLD_FIRST,   TRM_FOLD_COUNT};
    static const uint64_t values[] = {0,
                                      1,
                                      UINT64_MAX,
                                      1ull << 63,
                                      0x7ff8000000000000ull,
                                      0xfff8000000000001ull,
                                      0x3ff0000000000000ull,
                                      0xbff0000000000000ull,
                                      0x7ff0000000000000ull};
    enum { VALUES = sizeof values / sizeof values[0] };
    for (size_t f = 0; f < sizeof folds / sizeof folds[0]; f++)
        for (size_t i = 0; i < VALUES; i++)
            for (size_t j = 0; j < VALUES; j++)
                for (size_t k = 0; k < VALUES; k++) {
                    uint64_t left, right, other;
                    folds[f]->init(&left, &values[i], 8);
                    folds[f]->add(&left, &values[j], 8);
                    folds[f]->add(&left, &values[k], 8);
                    folds[f]->init(&right, &values[k], 8);
                    folds[f]->init(&other, &values[j], 8);
                    folds[f]->add(&other, &values[i], 8);
                    folds[f]->merge(&right, &other);
                    assert_true(left == right);
                }
}

static uint64_t folded(const trm_fold *fold, uint64_t a, uint64_t b)
{
    uint64_t state;
    fold->init(&state, &a, 8);
    fold->add(&state, &b, 8);
    return state;
}

static uint64_t of_double(double value)
{
    return trm_fold_bits(value);
}

static void ready_made_folds_do_what_they_say(void **state)
{
    uint64_t minus_one = UINT64_MAX;
    assert_true(folded(TRM_FOLD_SUM_U64, 3, 4) == 7);
    assert_true(folded(TRM_FOLD_SUM_I64, minus_one, 4) == 3);
    assert_true(folded(TRM_FOLD_SUM_F64, of_double(1.5), of_double(2)) == of_double(3.5));
    assert_true(folded(TRM_FOLD_MIN_U64, minus_one, 4) == 4);
    assert_true(folded(TRM_FOLD_MAX_U64, minus_one, 4) == minus_one);
    assert_true(folded(TRM_FOLD_MIN_I64, minus_one, 4) == minus_one);
    assert_true(folded(TRM_FOLD_MAX_I64, minus_one, 4) == 4);
    assert_true(folded(TRM_FOLD_MIN_F64, of_double(-2), of_double(1)) == of_double(-2));
    assert_true(folded(TRM_FOLD_MAX_F64, of_double(-2), of_double(1)) == of_double(1));
    assert_true(folded(TRM_FOLD_COUNT, 77, 78) == 2);
    assert_true(folded(TRM_FOLD_FIRST, 0x0100, 0x0001) == 0x0100); /* its first byte is 0 */
    const trm_fold *folds[] = {TRM_FOLD_SUM_U64, TRM_FOLD_SUM_I64, TRM_FOLD_SUM_F64, TRM_FOLD_MIN_U64,
                               TRM_FOLD_MAX_U64, TRM_FOLD_MIN_I64, TRM_FOLD_MAX_I64, TRM_FOLD_MIN_F64,
                               TRM_FOLD_MAX_F64, TRM_FOLD_FIRST,   TRM_FOLD_COUNT};
    for (size_t i = 0; i < sizeof folds / sizeof folds[0]; i++) {
        trm_fold own = *folds[i];
        assert_int_equal(trm_fold_op_of(&own), TRM_FOLD_OP_CALL);
        assert_int_not_equal(trm_fold_op_of(folds[i]), TRM_FOLD_OP_CALL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(a_changed_byte_is_noticed),
        cmocka_unit_test(a_cut_is_noticed),
        cmocka_unit_test(the_lost_segment_is_named),
        cmocka_unit_test(an_index_that_lies_is_noticed),
        cmocka_unit_test(a_failing_disk_leaves_no_run),
        cmocka_unit_test(a_failing_disk_leaves_no_scratch),
        cmocka_unit_test(limits_are_said),
        cmocka_unit_test(a_record_larger_than_the_memory_for_merging_is_refused),
        cmocka_unit_test(a_combiner_stays_with_its_key),
        cmocka_unit_test(nothing_added_leaves_nothing),
        cmocka_unit_test(ready_made_folds_do_what_they_say),
        cmocka_unit_test(ready_made_folds_do_not_depend_on_the_order),
    };
    return cmocka_run_group_tests(tests, open_region, close_region);
}
