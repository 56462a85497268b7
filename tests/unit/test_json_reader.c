/* The JSON reader: what it finds, and that everything that is no JSON is refused with its place. */
#include "runtime/json_reader.h"

#include <stdio.h>
#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static trm_err err;

/* From memory of exactly that length, so that a sanitizer sees a byte too far. */
static trm_status parse(trm_json_doc *doc, const char *text, size_t len)
{
    char *copy = malloc(len ? len : 1);
    memcpy(copy, text, len);
    trm_status status = trm_json_parse(doc, copy, len, &err);
    free(copy);
    return status;
}

static void values_are_found(void **state)
{
    static const char text[] =
        " {\"s\":\"a\\u00e4\\ud83d\\ude00\\n\\/\",\"n\":18446744073709551615,\"t\":true,\"f\":false,"
        "\"z\":null,\"l\":[1,[],{},-2,3.5,1e3, 18446744073709551616],\"o\":{\"n\":7},\"n\":8} \n";
    trm_json_doc doc;
    assert_int_equal(parse(&doc, text, sizeof text - 1), TRM_OK);
    const trm_json_value *root = trm_json_root(&doc);
    assert_string_equal(trm_json_get_string(&doc, root, "s", ""), "a\xc3\xa4\xf0\x9f\x98\x80\n/");
    assert_true(trm_json_get_u64(&doc, root, "n", 0) == UINT64_MAX); /* the first counts */
    assert_true(trm_json_get_bool(&doc, root, "t", false));
    assert_false(trm_json_get_bool(&doc, root, "f", true));
    assert_int_equal(trm_json_find(&doc, root, "z")->kind, TRM_JSON_NULL);
    assert_int_equal(trm_json_get_u64(&doc, trm_json_find(&doc, root, "o"), "n", 0), 7);
    static const trm_json_kind kinds[] = {TRM_JSON_NUMBER, TRM_JSON_LIST,   TRM_JSON_OBJECT, TRM_JSON_NUMBER,
                                          TRM_JSON_NUMBER, TRM_JSON_NUMBER, TRM_JSON_NUMBER};
    const trm_json_value *at = trm_json_first(&doc, trm_json_find(&doc, root, "l"));
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++, at = trm_json_next(&doc, at)) {
        assert_non_null(at);
        assert_int_equal(at->kind, kinds[i]);
        assert_true(at->is_u64 == (i == 0));
    }
    assert_null(at);
    trm_json_doc_close(&doc);
}

static void what_is_not_there_is_the_default(void **state)
{
    static const char text[] = "{\"a\":\"x\",\"b\":1,\"nul\":\"a\\u0000b\"}";
    trm_json_doc doc;
    assert_int_equal(parse(&doc, text, sizeof text - 1), TRM_OK);
    const trm_json_value *root = trm_json_root(&doc);
    assert_int_equal(trm_json_get_u64(&doc, root, "a", 5), 5);
    assert_int_equal(trm_json_get_u64(&doc, root, "c", 6), 6);
    assert_string_equal(trm_json_get_string(&doc, root, "b", "none"), "none");
    assert_true(trm_json_get_bool(&doc, root, "b", true));
    assert_int_equal(trm_json_find(&doc, root, "nul")->text_len, 3);
    assert_null(trm_json_find(&doc, NULL, "a"));
    assert_null(trm_json_find(&doc, trm_json_find(&doc, root, "a"), "a"));
    assert_null(trm_json_first(&doc, NULL));
    assert_null(trm_json_first(&doc, trm_json_find(&doc, root, "b")));
    assert_null(trm_json_next(&doc, NULL));
    trm_json_doc_close(&doc);
}

static void what_is_no_json_is_refused(void **state)
{
    static const struct {
        const char *text, *says;
    } wrongs[] = {
        {"", "the end at byte 0"},
        {"  ", "the end at byte 2"},
        {"{", "the end at byte 1"},
        {"[1", "the end at byte 2"},
        {"{\"a\"", "a key without a colon"},
        {"{\"a\" 1}", "a key without a colon"},
        {"{\"a\":}", "no value"},
        {"{\"a\":1,}", "no key"},
        {"{1:2}", "no key"},
        {"{\"a\":1 \"b\":2}", "neither a comma nor an end"},
        {"[1,]", "no value"},
        {"[,1]", "no value"},
        {"[1}", "neither a comma nor an end"},
        {"{]", "no key"},
        {"]", "no value"},
        {"1 2", "more than one document at byte 2"},
        {"{}{}", "more than one document"},
        {"01", "a number that is none"},
        {"-", "a number that is none"},
        {"1.", "a number that is none"},
        {"1e", "a number that is none"},
        {"1e+", "a number that is none"},
        {"+1", "no value"},
        {"nul", "no value"},
        {"truE", "no value"},
        {"NaN", "no value"},
        {"\"a", "the end within a string"},
        {"\"a\\", "the end within a string"},
        {"\"\\x\"", "an escape that there is not"},
        {"\"\\u12\"", "four hexadecimal digits"},
        {"\"\\u12g4\"", "four hexadecimal digits"},
        {"\"\\ud800\"", "half of a surrogate pair"},
        {"\"\\ud800\\u0041\"", "half of a surrogate pair"},
        {"\"\\udc00\"", "half of a surrogate pair"},
        {"\"a\nb\"", "a control character"},
        {"\"\xff\"", "no UTF-8"},
        {"\"\xc3\"", "no UTF-8"},
        {"\xef\xbb\xbf{}", "no value"},
        {"<html>", "no value"},
    };
    for (size_t i = 0; i < sizeof wrongs / sizeof wrongs[0]; i++) {
        trm_json_doc doc;
        trm_status status = parse(&doc, wrongs[i].text, strlen(wrongs[i].text));
        if (status != TRM_ECORRUPT || !strstr(err.text, wrongs[i].says))
            fail_msg("'%s': %s, '%s' (wanted '%s')", wrongs[i].text, trm_status_name(status), err.text,
                     wrongs[i].says);
    }
}

/* Every beginning of a document is refused, and ends in peace. */
static void every_cut_is_refused(void **state)
{
    static const char text[] = "{\"a\":[1,2.5e-3,\"x\\u00e4\\n\",{\"b\":null}],\"c\":{\"d\":[true,false]}}";
    trm_json_doc doc;
    for (size_t len = 0; len < sizeof text - 1; len++)
        assert_int_equal(parse(&doc, text, len), TRM_ECORRUPT);
    assert_int_equal(parse(&doc, text, sizeof text - 1), TRM_OK);
    trm_json_doc_close(&doc);
}

static void bounds_hold(void **state)
{
    char deep[2 * TRM_JSON_DEPTH_MAX + 2];
    trm_json_doc doc;
    memset(deep, '[', TRM_JSON_DEPTH_MAX);
    memset(deep + TRM_JSON_DEPTH_MAX, ']', TRM_JSON_DEPTH_MAX);
    assert_int_equal(parse(&doc, deep, 2 * TRM_JSON_DEPTH_MAX), TRM_OK);
    trm_json_doc_close(&doc);
    memset(deep, '[', TRM_JSON_DEPTH_MAX + 1);
    assert_int_equal(parse(&doc, deep, TRM_JSON_DEPTH_MAX + 1), TRM_ELIMIT);
    size_t len = 2 * (size_t)TRM_JSON_VALUES_MAX + 2;
    char *many = malloc(len);
    for (size_t i = 0; i < len; i++)
        many[i] = i == 0 ? '[' : i % 2 ? '1' : ',';
    assert_int_equal(parse(&doc, many, len), TRM_ELIMIT);
    many[2 * (size_t)TRM_JSON_VALUES_MAX - 2] = ']';
    assert_int_equal(parse(&doc, many, 2 * (size_t)TRM_JSON_VALUES_MAX - 1), TRM_OK);
    trm_json_doc_close(&doc);
    free(many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_found),
        cmocka_unit_test(what_is_not_there_is_the_default),
        cmocka_unit_test(what_is_no_json_is_refused),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(bounds_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
