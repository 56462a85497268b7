/* runtime/crc32c: the numbers of RFC 3720, and both ways agree. */
#include "runtime/crc32c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

static void the_numbers_of_the_rfc(void **state)
{
    uint8_t bytes[32];
    memset(bytes, 0, sizeof bytes);
    assert_true(trm_crc32c(0, bytes, sizeof bytes) == 0x8a9136aau);
    memset(bytes, 0xff, sizeof bytes);
    assert_true(trm_crc32c(0, bytes, sizeof bytes) == 0x62a8ab43u);
    for (int i = 0; i < 32; i++)
        bytes[i] = (uint8_t)i;
    assert_true(trm_crc32c(0, bytes, sizeof bytes) == 0x46dd794eu);
    assert_true(trm_crc32c_portable(0, bytes, sizeof bytes) == 0x46dd794eu);
    for (int i = 0; i < 32; i++)
        bytes[i] = (uint8_t)(31 - i);
    assert_true(trm_crc32c(0, bytes, sizeof bytes) == 0x113fdb5cu);
    assert_true(trm_crc32c(0, "123456789", 9) == 0xe3069283u);
    assert_true(trm_crc32c(0, "", 0) == 0);
}

static void both_ways_agree_and_continue(void **state)
{
    uint8_t bytes[300];
    uint32_t seed = 1;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)((seed = seed * 1664525u + 1013904223u) >> 24);
    for (size_t at = 0; at < 16; at++)
        for (size_t len = 0; at + len <= sizeof bytes; len += 7) {
            uint32_t whole = trm_crc32c(0, bytes + at, len);
            assert_true(whole == trm_crc32c_portable(0, bytes + at, len));
            size_t half = len / 3;
            assert_true(whole == trm_crc32c(trm_crc32c(0, bytes + at, half), bytes + at + half, len - half));
        }
}

/* Long input takes another way than short. */
static void long_input_agrees_too(void **state)
{
    static uint8_t bytes[20000];
    uint32_t seed = 7;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)((seed = seed * 1664525u + 1013904223u) >> 24);
    for (size_t len = 1400; len + 8 <= sizeof bytes; len += 1 + len / 40)
        for (size_t at = 0; at < 8; at += 3)
            assert_true(trm_crc32c((uint32_t)at * 77u, bytes + at, len) ==
                        trm_crc32c_portable((uint32_t)at * 77u, bytes + at, len));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_numbers_of_the_rfc),
        cmocka_unit_test(both_ways_agree_and_continue),
        cmocka_unit_test(long_input_agrees_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
