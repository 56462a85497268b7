/* jobs/traits: what a description may not say, and the encoding. */
#include "jobs/traits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

static int map(trm_task *task, const trm_record *record)
{
    return 0;
}
static int reduce(trm_task *task, const void *key, size_t key_len, trm_values *values)
{
    return 0;
}
static int finish(trm_task *task, const void *key, size_t key_len, const void *data)
{
    return 0;
}
static uint32_t partition(trm_task *task, const void *key, size_t key_len, uint32_t partitions)
{
    return 0;
}
static int compare(const void *a, size_t a_len, const void *b, size_t b_len)
{
    return 0;
}
static void init(void *data, const void *value, size_t len) {}
static void merge(void *data, const void *other) {}
static const trm_fold fold8 = {8, init, init, merge};
static const trm_fold fold24 = {24, init, init, merge};
static const trm_fold fold0 = {0, init, init, merge};
static const trm_fold fold_huge = {TRM_FOLD_BYTES_MAX + 1, init, init, merge};
static const trm_fold fold_without_merge = {8, init, init, NULL};
static const char *const twins[] = {"a", "b", "a", NULL};
static const char *const spaced[] = {"a b", NULL};

static trm_job good(void)
{
    return (trm_job){TRM_JOB_HEADER, .name = "good", .map = map, .reduce = reduce};
}

static void facts_are_read(void **state)
{
    trm_traits traits;
    trm_err err;
    static const char *const counters[] = {"lines", "words", NULL};
    trm_job job = good();
    job.input = TRM_INPUT_FIXED;
    job.record_bytes = 100;
    job.partitioner = TRM_PARTITION_RANGE;
    job.output = TRM_OUTPUT_RAW;
    job.counters = counters;
    assert_int_equal(trm_traits_of(&traits, &job, &err), TRM_OK);
    assert_string_equal(traits.name, "good");
    assert_int_equal(traits.input, TRM_INPUT_FIXED);
    assert_int_equal(traits.record_bytes, 100);
    assert_false(traits.map_only);
    assert_false(traits.folds);
    assert_true(traits.range_partitioned);
    assert_int_equal(traits.output, TRM_OUTPUT_RAW);
    assert_int_equal(traits.counters_count, 2);
    assert_string_equal(traits.counters[1], "words");
    job.reduce = NULL;
    assert_int_equal(trm_traits_of(&traits, &job, &err), TRM_OK);
    assert_true(traits.map_only);
    assert_false(traits.range_partitioned);
    job.fold = &fold24;
    job.finish = finish;
    job.value_type = TRM_U64;
    assert_int_equal(trm_traits_of(&traits, &job, &err), TRM_OK);
    assert_true(traits.folds);
}

static trm_job mistake(unsigned number)
{
    trm_job job = good();
    static const char *const name64 = "0123456789012345678901234567890123456789012345678901234567890123";
    switch (number) {
    case 0:
        job.magic ^= 1;
        break;
    case 1:
        job.abi++;
        break;
    case 2:
        job.struct_bytes--;
        break;
    case 3:
        job.name = NULL;
        break;
    case 4:
        job.name = "";
        break;
    case 5:
        job.name = name64;
        break;
    case 6:
        job.name = "two words";
        break;
    case 7:
        job.reserved[7] = &job;
        break;
    case 8:
        job.map = NULL;
        break;
    case 9:
        job.input = (trm_input)(TRM_INPUT_LAST + 1);
        break;
    case 10:
        job.input = TRM_INPUT_FIXED;
        break;
    case 11:
        job.record_bytes = 1;
        break;
    case 12:
        job.fold = &fold8;
        break; /* and reduce */
    case 13:
        job.reduce = NULL;
        job.combine = reduce;
        break;
    case 14:
        job.fold = &fold8;
        job.reduce = NULL;
        job.combine = reduce;
        break;
    case 15:
        job.fold = &fold0;
        job.reduce = NULL;
        break;
    case 16:
        job.fold = &fold_huge;
        job.reduce = NULL;
        break;
    case 17:
        job.fold = &fold_without_merge;
        job.reduce = NULL;
        break;
    case 18:
        job.finish = finish;
        break;
    case 19:
        job.fold = &fold24;
        job.reduce = NULL;
        job.value_type = TRM_F64;
        break;
    case 20:
        job.partitioner = (trm_partitioner)2;
        break;
    case 21:
        job.partitioner = TRM_PARTITION_RANGE;
        job.partition = partition;
        break;
    case 22:
        job.output = (trm_output)3;
        break;
    case 23:
        job.key_type = (trm_type)4;
        break;
    case 24:
        job.value_type = (trm_type)-1;
        break;
    case 25:
        job.counters = twins;
        break;
    case 26:
        job.counters = spaced;
        break;
    case 27:
        job.partitioner = TRM_PARTITION_RANGE;
        job.compare = compare;
        break;
    default:
        job.name = NULL, job.magic = 0;
        break;
    }
    return job;
}

static void mistakes_are_refused(void **state)
{
    trm_traits traits;
    trm_err err;
    for (unsigned i = 0; i <= 27; i++) {
        trm_job job = mistake(i);
        err.text[0] = 0;
        if (trm_traits_of(&traits, &job, &err) != TRM_EJOB)
            fail_msg("mistake %u was accepted", i);
        assert_true(strlen(err.text) > 10);
    }
    trm_job job = mistake(1);
    trm_traits_of(&traits, &job, &err);
    assert_string_equal(err.text,
                        "the job was built for version 2 of trireme.h, this is version 1: build it again");
}

static void encoding_round_trips(void **state)
{
    trm_traits traits, back;
    trm_err err;
    static const char *const counters[] = {"lines", "words", NULL};
    trm_job job = good();
    job.counters = counters;
    assert_int_equal(trm_traits_of(&traits, &job, &err), TRM_OK);
    traits.params_hash = 0x0123456789abcdefu;
    trm_writer writer;
    trm_writer_init(&writer);
    trm_traits_encode(&traits, &writer);
    for (size_t len = 0; len <= writer.len; len++) {
        trm_reader reader;
        trm_reader_init(&reader, writer.data, len);
        trm_traits_decode(&back, &reader);
        assert_int_equal(trm_reader_done(&reader), len == writer.len);
    }
    assert_memory_equal(&traits, &back, sizeof traits);
    trm_writer_close(&writer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(facts_are_read),
        cmocka_unit_test(mistakes_are_refused),
        cmocka_unit_test(encoding_round_trips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
