/* tool/relay: marked lines are taken out, mpirun's noise too, and nothing else is lost, however
 * the bytes come. */
#include "config.h" /* system extensions, before any header of the system */

#include "tool/relay.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define TOKEN "0123456789abcdef"

typedef struct seen {
    char shown[65536], told[4096];
    size_t shown_len;
} seen;

static void show(void *context, const char *text, size_t len)
{
    seen *self = context;
    assert_true(self->shown_len + len < sizeof self->shown);
    memcpy(self->shown + self->shown_len, text, len);
    self->shown_len += len;
    self->shown[self->shown_len] = 0;
}

static void told(void *context, const char *kind, const char *text)
{
    seen *self = context;
    size_t len = strlen(self->told);
    snprintf(self->told + len, sizeof self->told - len, "%s(%s)", kind, text);
}

/* Puts `text` in pieces of `piece` bytes. */
static seen *relay(const char *text, size_t len, size_t piece, bool keep_noise)
{
    static seen self;
    static trm_relay relay;
    memset(&self, 0, sizeof self);
    memset(&relay, 0, sizeof relay);
    relay.calls = (trm_relay_calls){.show = show, .told = told, .context = &self};
    memcpy(relay.token, TOKEN, sizeof relay.token);
    relay.keep_noise = keep_noise;
    for (size_t at = 0; at < len; at += piece)
        trm_relay_put(&relay, text + at, len - at < piece ? len - at : piece);
    trm_relay_end(&relay);
    return &self;
}

#define RULE "--------------------------------------------------------------------------\n"

static const char mixed[] =
    "trireme: one\n"
    "\x1e" TOKEN " progress map 5%\n"
    "[host:123] PMIX ERROR: BAD-PARAM in file dstore_base.c at line 1\n" RULE
    "mpirun noticed that process rank 2 with PID 0 on node a exited on signal 9 (Killed).\n" RULE "two\n" RULE
    "There are not enough slots available in the system.\n" RULE "\x1e" TOKEN " result 0\n"
    "\x1e"
    "ffffffffffffffff result 3\n"
    "the end";
static const char kept[] =
    "trireme: one\ntwo\n" RULE "There are not enough slots available in the system.\n" RULE "\x1e"
    "ffffffffffffffff result 3\nthe end";

static void test_every_cut(void **state)
{
    for (size_t piece = 1; piece <= sizeof mixed; piece++) {
        seen *got = relay(mixed, sizeof mixed - 1, piece, false);
        assert_string_equal(got->shown, kept);
        assert_string_equal(got->told, "progress(map 5%)result(0)");
    }
}

static void test_noise_is_kept_when_asked_for(void **state)
{
    seen *got = relay(mixed, sizeof mixed - 1, 7, true);
    assert_non_null(strstr(got->shown, "PMIX ERROR"));
    assert_non_null(strstr(got->shown, "exited on signal 9"));
    assert_string_equal(got->told, "progress(map 5%)result(0)");
}

static void test_banner_without_end(void **state)
{
    static const char text[] = RULE "who ended me?\n";
    assert_string_equal(relay(text, sizeof text - 1, 5, false)->shown, text);
}

/* A user's table between rules, longer than any banner, is theirs. */
static void test_banner_too_long(void **state)
{
    static char text[TRM_RELAY_BANNER_BYTES + 8192];
    size_t len = (size_t)sprintf(text, RULE);
    while (len < sizeof text - 64)
        len += (size_t)sprintf(text + len, "row %zu of a long table\n", len);
    len += (size_t)sprintf(text + len, "mpirun noticed that process rank\n");
    assert_string_equal(relay(text, len, 100, false)->shown, text);
}

static void test_line_too_long(void **state)
{
    static char text[3 * TRM_RELAY_LINE_BYTES];
    memset(text, 'x', sizeof text);
    memcpy(text + TRM_RELAY_LINE_BYTES, "ORTE_ERROR_LOG", 14); /* in the middle of a long line */
    text[sizeof text - 2] = '\n';
    text[sizeof text - 1] = 0;
    assert_string_equal(relay(text, sizeof text - 1, 1000, false)->shown, text);
}

static void test_marks_that_are_none(void **state)
{
    static const char *const lines[] = {"\x1e\n", "\x1e" TOKEN "\n", "\x1e" TOKEN "x result 1\n",
                                        "\x1e"
                                        "0123 result 1\n",
                                        "\x1e" TOKEN " a-kind-of-word-that-is-much-too-long-for-it 1\n"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        seen *got = relay(lines[i], strlen(lines[i]), 3, false);
        assert_string_equal(got->shown, lines[i]);
        assert_string_equal(got->told, "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cut),          cmocka_unit_test(test_noise_is_kept_when_asked_for),
        cmocka_unit_test(test_banner_without_end), cmocka_unit_test(test_banner_too_long),
        cmocka_unit_test(test_line_too_long),      cmocka_unit_test(test_marks_that_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
