/* jobs/counters and jobs/names. */
#include "jobs/counters.h"
#include "jobs/names.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static void every_counter_has_a_name(void **state)
{
    for (unsigned i = 0; i < TRM_COUNTER_SYSTEM_COUNT; i++) {
        assert_non_null(trm_counter_name(i));
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(trm_counter_name(i), trm_counter_name(j));
    }
    assert_null(trm_counter_name(TRM_COUNTER_SYSTEM_COUNT));
    assert_null(trm_counter_name(TRM_COUNTER_USER));
}

static void counters_round_trip(void **state)
{
    trm_counters some = {{0}}, found;
    some.value[0] = 1;
    some.value[1] = UINT64_MAX;
    some.value[TRM_COUNTER_USER] = 300;
    some.value[TRM_COUNTER_COUNT - 1] = 7;
    trm_writer writer;
    trm_writer_init(&writer);
    trm_counters_encode(&some, &writer);
    for (size_t len = 0; len <= writer.len; len++) {
        trm_reader in;
        trm_reader_init(&in, writer.data, len);
        trm_counters_decode(&found, &in);
        assert_int_equal(trm_reader_done(&in), len == writer.len);
    }
    assert_memory_equal(&some, &found, sizeof some);
    trm_counters_add(&found, &some);
    assert_true(found.value[TRM_COUNTER_USER] == 600);
    trm_writer_reset(&writer);
    trm_counters_encode(&(trm_counters){{0}}, &writer);
    assert_int_equal(writer.len, 1);
    trm_writer_close(&writer);
}

static void forms_that_encode_does_not_write_are_refused(void **state)
{
    static const uint8_t bad[][4] = {
        {1, 0, 5},   /* distance 0 */
        {1, 1, 0},   /* a value of 0 */
        {1, 97, 1},  /* past the last counter */
        {200, 1, 1}, /* too many */
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        trm_reader in;
        trm_counters found;
        trm_reader_init(&in, bad[i], 3);
        trm_counters_decode(&found, &in);
        assert_false(trm_reader_ok(&in));
    }
}

static void names_are_bounded(void **state)
{
    char name[64];
    assert_int_equal(trm_part_name("/o", 7, false, name, sizeof name), TRM_OK);
    assert_string_equal(name, "/o/part-00007");
    assert_int_equal(trm_part_name("/o", 123456, true, name, sizeof name), TRM_OK);
    assert_string_equal(name, "/o/part-123456.gz");
    assert_int_equal(trm_part_attempt_name("/o", 7, 3, 1, name, sizeof name), TRM_OK);
    assert_string_equal(name, "/o/.trireme/attempts/part-00007.e3.a1");
    assert_int_equal(trm_part_name("/o", 7, false, name, 13), TRM_ELIMIT);
    assert_int_equal(trm_part_name("/o", 7, false, name, 14), TRM_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_counter_has_a_name),
        cmocka_unit_test(counters_round_trip),
        cmocka_unit_test(forms_that_encode_does_not_write_are_refused),
        cmocka_unit_test(names_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
