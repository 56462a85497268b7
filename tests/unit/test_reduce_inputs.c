/* workers/reduce_inputs: what the rank lists is what the executor reads; nothing else is. */
#include "workers/reduce_inputs.h"

#include "runtime/crc32c.h"
#include "tests/support/fs_mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#define LIST "/runs/r7.in"

static trm_fs *make_disk(void)
{
    trm_err err;
    trm_fs *fs = trm_fs_mem_create(1);
    assert_non_null(fs);
    assert_int_equal(fs->ops->make_dir(fs, "/runs", 0, &err), TRM_OK);
    return fs;
}

static trm_segment segment_of(uint32_t spill, uint64_t offset)
{
    return (trm_segment){.partition = 7,
                         .spill = spill,
                         .offset = offset,
                         .stored_bytes = 100 + spill,
                         .raw_bytes = 300 + spill,
                         .records = 5,
                         .record_bytes_max = 1u << 20,
                         .block_bytes_max = 1000,
                         .blocks = 2};
}

static void write_list(trm_reduce_list *list, trm_fs *fs)
{
    trm_err err;
    trm_segment a = segment_of(0, 24), b = segment_of(3, UINT64_MAX >> 2), c = segment_of(1, 99);
    trm_reduce_list_begin(list, 7, 2);
    trm_reduce_list_file(list, "/scratch/a/m0.e1.a0.run", 0, 0, false);
    trm_reduce_list_segment(list, &a);
    trm_reduce_list_segment(list, &b);
    trm_reduce_list_file(list, "/scratch/a/m1.e1.a4.run", 1, 4, false); /* leaves nothing */
    trm_reduce_list_file(list, "/scratch/b/f5.run", 5, 1, true);
    trm_reduce_list_segment(list, &c);
    assert_int_equal(trm_reduce_list_write(list, fs, LIST, &err), TRM_OK);
}

static void lists_round_trip(void **state)
{
    trm_fs *fs = make_disk();
    trm_reduce_list list = {0};
    trm_reduce_inputs inputs;
    trm_err err;
    for (unsigned turn = 0; turn < 2; turn++) { /* memory is used again */
        write_list(&list, fs);
        assert_int_equal(trm_reduce_inputs_load(&inputs, fs, LIST, 7, 2, &err), TRM_OK);
        assert_int_equal(inputs.count, 3);
        assert_string_equal(inputs.segments[0].path, "/scratch/a/m0.e1.a0.run");
        assert_ptr_equal(inputs.segments[0].path, inputs.segments[1].path);
        assert_string_equal(inputs.segments[2].path, "/scratch/b/f5.run");
        trm_segment b = segment_of(3, UINT64_MAX >> 2), c = segment_of(1, 99);
        assert_memory_equal(&inputs.segments[1].segment, &b, sizeof b);
        assert_memory_equal(&inputs.segments[2].segment, &c, sizeof c);
        assert_int_equal(inputs.segments[2].task, 5);
        assert_int_equal(inputs.segments[2].attempt, 1);
        assert_int_equal(inputs.local_bytes, 203);
        assert_int_equal(inputs.remote_bytes, 101);
        assert_int_equal(inputs.raw_bytes, 904);
        trm_reduce_inputs_close(&inputs);
    }
    trm_reduce_list_close(&list);
    trm_fs_mem_destroy(fs);
}

static void an_empty_partition_has_an_empty_list(void **state)
{
    trm_fs *fs = make_disk();
    trm_reduce_list list = {0};
    trm_reduce_inputs inputs;
    trm_err err;
    trm_reduce_list_begin(&list, 7, 0);
    assert_int_equal(trm_reduce_list_write(&list, fs, LIST, &err), TRM_OK);
    assert_int_equal(trm_reduce_inputs_load(&inputs, fs, LIST, 7, 0, &err), TRM_OK);
    assert_int_equal(inputs.count, 0);
    trm_reduce_inputs_close(&inputs);
    trm_reduce_list_close(&list);
    trm_fs_mem_destroy(fs);
}

static void another_attempts_list_is_refused(void **state)
{
    trm_fs *fs = make_disk();
    trm_reduce_list list = {0};
    trm_reduce_inputs inputs;
    trm_err err;
    write_list(&list, fs);
    assert_int_equal(trm_reduce_inputs_load(&inputs, fs, LIST, 7, 3, &err), TRM_ECORRUPT);
    assert_int_equal(trm_reduce_inputs_load(&inputs, fs, LIST, 6, 2, &err), TRM_ECORRUPT);
    assert_int_equal(trm_reduce_inputs_load(&inputs, fs, "/runs/other", 7, 2, &err), TRM_ELOST);
    trm_reduce_list_close(&list);
    trm_fs_mem_destroy(fs);
}

/* Every byte changed, and every length: with the checksum made right again, so that the
 * decoder itself is what refuses (or takes a list that makes sense). */
static void damaged_lists_are_refused(void **state)
{
    trm_fs *fs = make_disk();
    trm_reduce_list list = {0};
    trm_reduce_inputs inputs;
    trm_err err;
    uint8_t *bytes;
    size_t len;
    write_list(&list, fs);
    assert_int_equal(trm_fs_read_whole(fs, LIST, 1 << 20, &bytes, &len, &err), TRM_OK);
    for (size_t i = 0; i < len; i++) {
        bytes[i] ^= 0x10;
        assert_int_equal(trm_reduce_inputs_decode(&inputs, bytes, len, "x", &err), TRM_ECORRUPT);
        bytes[i] ^= 0x10;
    }
    for (size_t cut = 0; cut < len; cut++) {
        uint8_t *shorter = malloc(cut + 4);
        memcpy(shorter, bytes, cut);
        trm_store_u32(shorter + cut, trm_crc32c(0, shorter, cut));
        trm_status status = trm_reduce_inputs_decode(&inputs, shorter, cut + 4, "x", &err);
        assert_int_equal(status, cut == len - 4 ? TRM_OK : TRM_ECORRUPT);
        if (status == TRM_OK)
            trm_reduce_inputs_close(&inputs);
        free(shorter);
    }
    free(bytes);
    trm_reduce_list_close(&list);
    trm_fs_mem_destroy(fs);
}

static void a_list_without_room_leaves_no_file(void **state)
{
    trm_fs *fs = make_disk();
    trm_reduce_list list = {0};
    trm_err err;
    trm_segment a = segment_of(0, 24);
    trm_reduce_list_begin(&list, 7, 0);
    trm_reduce_list_file(&list, "/scratch/a/m0.e1.a0.run", 0, 0, false);
    trm_reduce_list_segment(&list, &a);
    assert_int_equal(trm_reduce_list_write(&list, fs, "/nowhere/list", &err), TRM_ELOST);
    trm_reduce_list_close(&list);
    trm_fs_mem_destroy(fs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_round_trip),
        cmocka_unit_test(an_empty_partition_has_an_empty_list),
        cmocka_unit_test(another_attempts_list_is_refused),
        cmocka_unit_test(damaged_lists_are_refused),
        cmocka_unit_test(a_list_without_room_leaves_no_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
