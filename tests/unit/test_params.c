/* jobs/params: every type, bound, default and wrong argument. */
#include "jobs/params.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

static const trm_param all[] = {
    {.name = "word", .type = TRM_PARAM_STRING, .value = "hello"},
    {.name = "n", .type = TRM_PARAM_INT, .value = "3", .min = 1, .max = 10},
    {.name = "room", .type = TRM_PARAM_SIZE, .value = "1K"},
    {.name = "rate", .type = TRM_PARAM_DOUBLE, .value = "0.5", .min = 0, .max = 1},
    {.name = "loud", .type = TRM_PARAM_BOOL, .value = "no"},
    {0},
};
static const trm_job job = {.name = "test", .params = all};

static trm_status give(trm_params *out, const char *name, const char *value, trm_err *err)
{
    trm_param_arg arg = {(char *)name, (char *)value};
    return trm_params_init(out, &job, &arg, name != NULL, err);
}

static void defaults_hold(void **state)
{
    trm_params params;
    trm_err err;
    assert_int_equal(give(&params, NULL, NULL, &err), TRM_OK);
    assert_string_equal(trm_params_find(&params, "word")->string, "hello");
    assert_int_equal(trm_params_find(&params, "n")->integer, 3);
    assert_int_equal(trm_params_find(&params, "room")->size, 1024);
    assert_true(trm_params_find(&params, "rate")->number == 0.5);
    assert_false(trm_params_find(&params, "loud")->flag);
    assert_null(trm_params_find(&params, "quiet"));
    trm_params_close(&params);
}

static void arguments_replace_them(void **state)
{
    trm_params params;
    trm_err err;
    trm_param_arg args[] = {{"word", ""}, {"n", "10"}, {"room", "3g"}, {"rate", "1"}, {"loud", NULL}};
    assert_int_equal(trm_params_init(&params, &job, args, 5, &err), TRM_OK);
    assert_string_equal(trm_params_find(&params, "word")->string, "");
    assert_int_equal(trm_params_find(&params, "n")->integer, 10);
    assert_true(trm_params_find(&params, "room")->size == 3ull << 30);
    assert_true(trm_params_find(&params, "rate")->number == 1);
    assert_true(trm_params_find(&params, "loud")->flag);
    trm_params_close(&params);
}

static void wrong_arguments_are_named(void **state)
{
    static const struct {
        const char *name, *value, *sentence;
    } cases[] = {
        {"n", "0", "parameter 'n' must be a whole number from 1 to 10, not 0"},
        {"n", "11", "parameter 'n' must be a whole number from 1 to 10, not 11"},
        {"n", "3x", "parameter 'n' must be a whole number, not '3x'"},
        {"n", " 3", "parameter 'n' must be a whole number, not ' 3'"},
        {"n", "", "parameter 'n' must be a whole number, not ''"},
        {"n", "9223372036854775808", "parameter 'n' must be a whole number, not '9223372036854775808'"},
        {"n", NULL, "parameter 'n' needs a value: -p n=NUMBER"},
        {"word", NULL, "parameter 'word' needs a value: -p word=TEXT"},
        {"room", "-1", "parameter 'room' must be a size such as 64K or 1G, not '-1'"},
        {"room", "1KK", "parameter 'room' must be a size such as 64K or 1G, not '1KK'"},
        {"room", "18014398509481984K",
         "parameter 'room' must be a size such as 64K or 1G, not '18014398509481984K'"},
        {"rate", "1.01", "parameter 'rate' must be a number from 0 to 1, not 1.01"},
        {"rate", "nan", "parameter 'rate' must be a number, not 'nan'"},
        {"rate", "1e999", "parameter 'rate' must be a number, not '1e999'"},
        {"loud", "maybe", "parameter 'loud' must be true or false, not 'maybe'"},
        {"nn", "1", "job 'test' has no parameter 'nn' (it has 'word', 'n', 'room', 'rate', 'loud')"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        trm_params params;
        trm_err err;
        assert_int_equal(give(&params, cases[i].name, cases[i].value, &err), TRM_EUSAGE);
        assert_string_equal(err.text, cases[i].sentence);
    }
}

static void twice_and_missing(void **state)
{
    trm_params params;
    trm_err err;
    trm_param_arg args[] = {{"n", "1"}, {"n", "1"}};
    assert_int_equal(trm_params_init(&params, &job, args, 2, &err), TRM_EUSAGE);
    assert_string_equal(err.text, "parameter 'n' is given twice");
    static const trm_param needed[] = {{.name = "pattern", .help = "what to look for"}, {0}};
    const trm_job grep = {.name = "grep", .params = needed};
    assert_int_equal(trm_params_init(&params, &grep, NULL, 0, &err), TRM_EUSAGE);
    assert_string_equal(err.text, "parameter 'pattern' must be given: -p pattern=TEXT; what to look for");
    const trm_job none = {.name = "plain"};
    assert_int_equal(trm_params_init(&params, &none, args, 1, &err), TRM_EUSAGE);
    assert_string_equal(err.text, "job 'plain' has no parameter 'n' (it has none)");
}

static void wrong_lists_are_the_job_s_fault(void **state)
{
    static const trm_param lists[][3] = {
        {{.name = "a"}, {.name = "a"}},
        {{.name = "a b", .value = ""}},
        {{.name = "", .value = ""}},
        {{.name = "a", .type = (trm_param_type)9}},
        {{.name = "a", .type = TRM_PARAM_INT, .value = "1", .min = 2, .max = 1}},
        {{.name = "a", .type = TRM_PARAM_INT, .value = "5", .min = 1, .max = 4}},
        {{.name = "a", .type = TRM_PARAM_BOOL, .value = "x"}},
        {{.name = "a", .value = "", .max = 4}},
    };
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        trm_params params;
        trm_err err = {""};
        const trm_job wrong = {.name = "wrong", .params = lists[i]};
        trm_param_arg arg = {"a", "3"};
        assert_int_equal(trm_params_init(&params, &wrong, i == 5 ? &arg : NULL, i == 5, &err), TRM_EJOB);
        assert_true(err.text[0]);
    }
}

static void hashes_tell_values_apart(void **state)
{
    trm_err err;
    static const trm_param_arg given[] = {{NULL, NULL},     {"word", "hallo"}, {"n", "4"},
                                          {"room", "1025"}, {"rate", "0.25"},  {"loud", "1"}};
    uint64_t hashes[6];
    for (unsigned i = 0; i < 6; i++) {
        trm_params params;
        assert_int_equal(give(&params, given[i].name, given[i].value, &err), TRM_OK);
        hashes[i] = trm_params_hash(&params);
        trm_params_close(&params);
        for (unsigned k = 0; k < i; k++)
            assert_true(hashes[i] != hashes[k]);
    }
    trm_params params; /* the same in other words */
    assert_int_equal(give(&params, "room", "1024", &err), TRM_OK);
    assert_true(trm_params_hash(&params) == hashes[0]);
    trm_params_close(&params);
}

static void durations_and_their_units(void **state)
{
    static const struct {
        const char *text;
        uint64_t ms;
    } good[] = {{"500ms", 500},  {"30s", 30000}, {"1.5s", 1500}, {"2m", 120000},
                {"2h", 7200000}, {"7", 7000},    {"0", 0}};
    static const char *const bad[] = {
        "", "s", "-1s", "1 s", "1d", "1ss", "1.2.3s", "1e3s", "99999999999999999999999999999999999s"};
    uint64_t ms = 0;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(trm_parse_duration_ms(good[i].text, &ms));
        assert_int_equal(ms, good[i].ms);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(trm_parse_duration_ms(bad[i], &ms));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_hold),
        cmocka_unit_test(arguments_replace_them),
        cmocka_unit_test(wrong_arguments_are_named),
        cmocka_unit_test(twice_and_missing),
        cmocka_unit_test(wrong_lists_are_the_job_s_fault),
        cmocka_unit_test(hashes_tell_values_apart),
        cmocka_unit_test(durations_and_their_units),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
