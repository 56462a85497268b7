/* runtime/bytes: what is written is read back, and nothing is read past the end. */
#include "runtime/bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static void varints_round_trip(void **state)
{
    static const uint64_t values[] = {0, 1, 127, 128, 16383, 16384, UINT32_MAX, UINT64_MAX / 2, UINT64_MAX};
    trm_writer writer;
    trm_writer_init(&writer);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        size_t before = writer.len;
        trm_put_varint(&writer, values[i]);
        assert_int_equal(writer.len - before, trm_varint_bytes(values[i]));
    }
    trm_reader reader;
    trm_reader_init(&reader, writer.data, writer.len);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        assert_true(trm_get_varint(&reader) == values[i]);
    assert_true(trm_reader_done(&reader));
    trm_writer_close(&writer);
}

static void overlong_varints_are_refused(void **state)
{
    static const uint8_t two_bytes_for_zero[] = {0x80, 0x00};
    static const uint8_t sixty_five_bits[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02};
    trm_reader reader;
    trm_reader_init(&reader, two_bytes_for_zero, sizeof two_bytes_for_zero);
    trm_get_varint(&reader);
    assert_false(trm_reader_ok(&reader));
    trm_reader_init(&reader, sixty_five_bits, sizeof sixty_five_bits);
    trm_get_varint(&reader);
    assert_false(trm_reader_ok(&reader));
}

static void every_cut_is_noticed(void **state)
{
    trm_writer writer;
    trm_writer_init(&writer);
    trm_put_u16(&writer, 7);
    trm_put_u64(&writer, 1ull << 40);
    trm_put_string(&writer, "hello");
    for (size_t len = 0; len <= writer.len; len++) {
        trm_reader reader;
        trm_reader_init(&reader, writer.data, len);
        char text[16];
        uint16_t small = trm_get_u16(&reader);
        uint64_t large = trm_get_u64(&reader);
        trm_get_string(&reader, text, sizeof text);
        assert_int_equal(trm_reader_done(&reader), len == writer.len);
        if (len == writer.len) {
            assert_int_equal(small, 7);
            assert_true(large == 1ull << 40);
            assert_string_equal(text, "hello");
        } else {
            assert_string_equal(text, "");
        }
    }
    trm_writer_close(&writer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(varints_round_trip),
        cmocka_unit_test(overlong_varints_are_refused),
        cmocka_unit_test(every_cut_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
