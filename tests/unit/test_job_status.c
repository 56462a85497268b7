/* tool/job_status: what a record and a lock mean, what people read, and that a record which is none is
 * refused in a sentence. */
#include "config.h" /* system extensions, before any header of the system */

#include "tests/unit/temp_tree.h"
#include "tool/job_status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define NOW_MS 1000000u

static trm_err err;

static const trm_json_value *parse(trm_json_doc *doc, const char *text)
{
    assert_int_equal(trm_json_parse(doc, text, strlen(text), &err), TRM_OK);
    return trm_json_root(doc);
}

static void the_exit_status(void **state)
{
    static const struct {
        const char *record; /* NULL: none */
        bool in_use, done;
        int code;
    } cases[] = {
        {NULL, true, false, 0},
        {NULL, false, false, 4},
        {NULL, false, true, 0},
        {"{\"state\":\"running\",\"written_ms\":999000}", false, false, 0},
        {"{\"state\":\"running\",\"written_ms\":990000}", false, false, 0},
        {"{\"state\":\"running\",\"written_ms\":989999}", false, false, 4},
        {"{\"state\":\"running\",\"written_ms\":989999}", true, false, 0},
        {"{\"state\":\"running\",\"written_ms\":989999}", false, true, 0},
        {"{\"state\":\"running\",\"written_ms\":1999999}", false, false, 0}, /* a clock before ours */
        {"{\"state\":\"running\"}", false, false, 4},
        {"{\"state\":\"interrupted\",\"written_ms\":999999,\"exit_status\":4}", false, false, 4},
        {"{\"state\":\"interrupted\",\"written_ms\":1,\"exit_status\":4}", true, false, 0},
        {"{\"state\":\"stopped\",\"written_ms\":999999,\"exit_status\":5}", false, false, 4},
        {"{\"state\":\"done\",\"written_ms\":1,\"exit_status\":0}", false, true, 0},
        {"{\"state\":\"done\",\"written_ms\":1,\"exit_status\":0}", true, true, 0},
        {"{\"state\":\"failed\",\"written_ms\":1,\"exit_status\":1}", false, false, 1},
        {"{\"state\":\"failed\",\"written_ms\":1,\"exit_status\":3}", true, false, 3},
        {"{\"state\":\"failed\",\"written_ms\":1,\"exit_status\":256}", false, false, 1},
        {"{\"state\":\"failed\"}", false, false, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        trm_json_doc doc = {.count = 0};
        static trm_state_look look;
        look.in_use = cases[i].in_use;
        look.done = cases[i].done;
        const trm_json_value *record = cases[i].record ? parse(&doc, cases[i].record) : NULL;
        int code = trm_record_judge(&doc, record, &look, NOW_MS);
        if (code != cases[i].code)
            fail_msg("case %zu: %d, not %d", i, code, cases[i].code);
        if (record)
            trm_json_doc_close(&doc);
    }
}

static const char *print(const char *text, bool in_use, bool done)
{
    static char out[8192];
    static trm_state_look look;
    trm_json_doc doc = {.count = 0};
    FILE *file = fmemopen(out, sizeof out, "w");
    look.in_use = in_use;
    look.done = done;
    trm_record_print(&doc, text ? parse(&doc, text) : NULL, &look, NOW_MS, file);
    fclose(file);
    if (text)
        trm_json_doc_close(&doc);
    return out;
}

#define REST                                                                                                 \
    "\"epoch\":2,\"term\":7,\"leader_rank\":1,\"leader_host\":\"b\",\"leader_pid\":12,\"failovers\":3,"      \
    "\"ranks\":["                                                                                            \
    "{\"rank\":0,\"host\":\"a\",\"pid\":11,\"state\":\"lost\",\"voter\":false},{\"rank\":1,\"host\":\"b\","  \
    "\"pid\":12,\"state\":\"ready\",\"voter\":true}],\"tasks\":{\"sample\":{\"total\":0,\"done\":0,"         \
    "\"running\":0},"                                                                                        \
    "\"map\":{\"total\":48,\"done\":12,\"running\":4},\"reduce\":{\"total\":8,\"done\":0,\"running\":0}},"   \
    "\"attempts_failed\":5,\"outputs_lost\":6,\"bytes_in\":310000000,\"bytes_total\":1200000000"

#define BODY                                                                                                 \
    "  maps      12 of 48 done, 4 running\n"                                                                 \
    "  reduces   0 of 8 done, 0 running\n"                                                                   \
    "  input     310 MB of 1.2 GB\n"                                                                         \
    "  attempts  5 failed; outputs lost: 6\n"                                                                \
    "  leader    rank 1 on b, pid 12, since term 7 of launch 2; failovers: 3\n"                              \
    "  ranks     2, 1 ready\n"                                                                               \
    "        0  lost, a, pid 11\n"                                                                           \
    "        1  ready, voter, b, pid 12\n"

static void what_people_read(void **state)
{
    static const char running[] =
        "{\"job\":\"words\",\"state\":\"running\",\"phase\":\"mapping\",\"written_ms\":988000," REST "}";
    assert_string_equal(print(running, true, false),
                        "words: running, mapping\n" BODY "  written   12 s ago: it may be dead\n");
    assert_string_equal(print(running, false, false),
                        "words: lost; the same command goes on with it\n" BODY "  written   12 s ago\n");
    assert_string_equal(
        print("{\"job\":\"words\",\"state\":\"failed\",\"written_ms\":988000,\"exit_status\":1,"
              "\"why\":\"map 3\\u001b[2J\\u009b: no\"," REST "}",
              false, false),
        "words: failed, exit status 1\n  why       map 3?[2J?: no\n" BODY "  written   12 s ago\n");
    assert_non_null(strstr(print(NULL, true, false), "no record yet"));
    assert_non_null(strstr(print(NULL, false, false), "the same command goes on"));
    assert_non_null(strstr(print("{\"state\":\"running\",\"outputs_copied\":3,\"copies_used\":1,"
                                 "\"copies_missing\":2}",
                                 true, false),
                           "  copies    3 made, 1 used; outputs without one: 2\n"));
    /* Whatever is missing is a question, not a number. */
    assert_non_null(strstr(
        print("{\"state\":\"running\",\"ranks\":[7,{}],\"tasks\":{\"map\":{\"total\":1}}}", true, false),
        "  maps      ? of 1 done, ? running\n"));
}

static trm_status read_it(const temp_tree *tree, const char *text)
{
    trm_json_doc doc;
    uint8_t *bytes;
    size_t len;
    if (text)
        temp_tree_text(tree, "status.json", text);
    trm_status status = trm_record_read(tree->path, trm_fs_posix(), &doc, &bytes, &len, &err);
    if (status != TRM_OK)
        return status;
    assert_int_equal(len, strlen(text));
    trm_json_doc_close(&doc);
    free(bytes);
    return TRM_OK;
}

static void records_that_are_none(void **state)
{
    static const char whole[] = "{\"version\":1,\"state\":\"running\"}";
    static const struct {
        const char *text;
        trm_status status;
        const char *says;
    } cases[] = {
        {"", TRM_ECORRUPT, "is damaged: no JSON: the end at byte 0"},
        {"<html>", TRM_ECORRUPT, "is damaged: no JSON"},
        {"{}", TRM_ECORRUPT, "is not the record of a job"},
        {"[1]", TRM_ECORRUPT, "is not the record of a job"},
        {"7", TRM_ECORRUPT, "is not the record of a job"},
        {"{\"version\":1,\"state\":\"asleep\"}", TRM_ECORRUPT, "is not the record of a job"},
        {"{\"version\":1,\"state\":7}", TRM_ECORRUPT, "is not the record of a job"},
        {"{\"version\":\"1\",\"state\":\"done\"}", TRM_ECORRUPT, "is not the record of a job"},
        {"{\"version\":2,\"state\":\"done\"}", TRM_EVERSION, "is of version 2, this program reads version 1"},
        {whole, TRM_OK, ""},
    };
    temp_tree tree;
    temp_tree_init(&tree);
    assert_int_equal(read_it(&tree, NULL), TRM_ELOST);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        err.text[0] = 0;
        trm_status status = read_it(&tree, cases[i].text);
        if (status != cases[i].status || !strstr(err.text, cases[i].says))
            fail_msg("'%s': %s, '%s'", cases[i].text, trm_status_name(status), err.text);
    }
    for (size_t len = 0; len < sizeof whole - 1; len++) {
        char cut[sizeof whole];
        memcpy(cut, whole, len);
        cut[len] = 0;
        assert_int_equal(read_it(&tree, cut), TRM_ECORRUPT);
    }
    temp_tree_close(&tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_exit_status),
        cmocka_unit_test(what_people_read),
        cmocka_unit_test(records_that_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
