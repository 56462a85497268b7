/* The JSON writer: shape, commas, escapes, and bytes that are no text. */
#include "runtime/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void assert_written(trm_writer *out, const char *expected)
{
    trm_put_u8(out, 0);
    assert_true(trm_writer_ok(out));
    assert_string_equal((const char *)out->data, expected);
    trm_writer_close(out);
}

static void assert_text(const char *text, size_t len, const char *expected)
{
    trm_writer out = {0};
    trm_json json = {.out = &out};
    trm_json_text(&json, NULL, text, len);
    assert_written(&out, expected);
}

static void objects_and_lists_are_nested_with_commas(void **state)
{
    trm_writer out = {0};
    trm_json json = {.out = &out};
    trm_json_object(&json, NULL);
    trm_json_u64(&json, "n", UINT64_MAX);
    trm_json_list(&json, "list");
    trm_json_u64(&json, NULL, 1);
    trm_json_object(&json, NULL);
    trm_json_close(&json);
    trm_json_list(&json, NULL);
    trm_json_close(&json);
    trm_json_close(&json);
    trm_json_bool(&json, "yes", true);
    trm_json_bool(&json, "no", false);
    trm_json_crc(&json, "crc", 0xab);
    trm_json_close(&json);
    trm_json_line(&json);
    trm_json_object(&json, NULL);
    trm_json_close(&json);
    assert_written(&out, "{\"n\":18446744073709551615,\"list\":[1,{},[]],\"yes\":true,\"no\":false,"
                         "\"crc\":\"000000ab\"}\n{}");
}

static void strings_are_escaped(void **state)
{
    assert_text("a\"b\\c/", 6, "\"a\\\"b\\\\c/\"");
    assert_text("\n\r\t\b\f", 5, "\"\\n\\r\\t\\b\\f\"");
    assert_text("\x01\x1f\x7f\0x", 5, "\"\\u0001\\u001f\\u007f\\u0000x\"");
    assert_text("", 0, "\"\"");
    trm_writer out = {0};
    trm_json json = {.out = &out};
    trm_json_object(&json, NULL);
    trm_json_string(&json, "a\"k", "v");
    trm_json_close(&json);
    assert_written(&out, "{\"a\\\"k\":\"v\"}");
}

static void utf8_is_kept_and_what_is_not_is_replaced(void **state)
{
    assert_text("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 9, "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"");
    assert_text("\xff", 1, "\"\xef\xbf\xbd\"");
    assert_text("a\xc3", 2, "\"a\xef\xbf\xbd\"");               /* cut short */
    assert_text("\xc3(", 2, "\"\xef\xbf\xbd(\"");               /* no continuation */
    assert_text("\xc0\xaf", 2, "\"\xef\xbf\xbd\xef\xbf\xbd\""); /* overlong */
    assert_text("\xe0\x80\xaf", 3, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
    assert_text("\xed\xa0\x80", 3, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""); /* a surrogate */
    assert_text("\xf4\x90\x80\x80", 4, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""); /* beyond */
    assert_text("\xf5", 1, "\"\xef\xbf\xbd\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_and_lists_are_nested_with_commas),
        cmocka_unit_test(strings_are_escaped),
        cmocka_unit_test(utf8_is_kept_and_what_is_not_is_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
