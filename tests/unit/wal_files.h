/* What the tests of the write-ahead log share: a log on a disk in memory, small batches,
 * and ways to damage its files. For one source each; everything is static. */
#ifndef TRM_TESTS_WAL_FILES_H
#define TRM_TESTS_WAL_FILES_H

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

static inline int set_up(void **state)
{
    fs = trm_fs_mem_create(1);
    wal = NULL;
    return fs ? 0 : -1;
}

static inline int tear_down(void **state)
{
    trm_wal_close(wal);
    trm_fs_mem_destroy(fs);
    return 0;
}

static inline trm_status open_sized(uint32_t first, uint32_t max)
{
    trm_wal_close(wal);
    wal = NULL;
    trm_wal_config config = {
        .create = true, .log_id = 42, .segment_bytes_first = first, .segment_bytes_max = max};
    return trm_wal_open(&wal, fs, DIR, &config, &err);
}

static inline void open_ok(void)
{
    trm_status status = open_sized(16384, 16384);
    if (status != TRM_OK)
        print_message("%s\n", err.text);
    assert_int_equal(status, TRM_OK);
}

static inline void expect_refused(trm_status wanted, const char *file, const char *offset)
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

static inline void add(trm_wal_batch *batch, uint64_t index, uint64_t term, const char *payload)
{
    trm_wal_entry entry = {index, term, 1, (const uint8_t *)payload, strlen(payload)};
    trm_wal_batch_entry(batch, &entry);
}

static inline trm_status write_batch(trm_wal_batch *batch)
{
    trm_status status = trm_wal_write(wal, batch, &err);
    if (status == TRM_OK)
        status = trm_wal_sync(wal, &err);
    trm_wal_batch_close(batch);
    return status;
}

/* One synced batch of one entry. */
static inline void put(uint64_t index, uint64_t term, const char *payload)
{
    trm_wal_batch batch;
    trm_wal_batch_init(&batch);
    add(&batch, index, term, payload);
    assert_int_equal(write_batch(&batch), TRM_OK);
}

static inline void put_hard(uint64_t term, uint64_t vote, uint64_t commit)
{
    trm_wal_batch batch;
    trm_wal_batch_init(&batch);
    trm_wal_hard_state hard = {term, vote, commit};
    trm_wal_batch_hard_state(&batch, &hard);
    assert_int_equal(write_batch(&batch), TRM_OK);
}

static inline void save(uint64_t index, uint64_t term, const char *data)
{
    trm_wal_snapshot meta = {.index = index, .term = term, .config = (const uint8_t *)"cfg", .config_len = 3};
    assert_int_equal(trm_wal_snapshot_begin(wal, &meta, &err), TRM_OK);
    assert_int_equal(trm_wal_snapshot_write(wal, data, strlen(data), &err), TRM_OK);
    assert_int_equal(trm_wal_snapshot_commit(wal, &err), TRM_OK);
}

static inline void expect_entry(uint64_t index, uint64_t term, const char *payload)
{
    trm_wal_entry entry;
    assert_true(index >= trm_wal_first_index(wal) && index <= trm_wal_last_index(wal));
    trm_wal_entry_at(wal, index, &entry);
    assert_int_equal(entry.term, term);
    assert_int_equal(trm_wal_term_at(wal, index), term);
    assert_int_equal(entry.len, strlen(payload));
    assert_memory_equal(entry.payload, payload, entry.len);
}

static inline uint8_t *read_file(const char *path, size_t *len)
{
    uint8_t *bytes;
    assert_int_equal(trm_fs_read_whole(fs, path, 1 << 24, &bytes, len, &err), TRM_OK);
    return bytes;
}

static inline void write_file(const char *path, const void *bytes, size_t len)
{
    assert_int_equal(trm_fs_write_whole(fs, path, bytes, len, 0, &err), TRM_OK);
}

static inline void flip(const char *path, size_t at)
{
    size_t len;
    uint8_t *bytes = read_file(path, &len);
    assert_true(at < len);
    bytes[at] ^= 0x10;
    write_file(path, bytes, len);
    free(bytes);
}

static inline void remove_file(const char *path)
{
    assert_int_equal(fs->ops->remove(fs, path, &err), TRM_OK);
}

#endif
