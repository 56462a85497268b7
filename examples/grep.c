/* grep: the lines that match a POSIX extended regular expression, in the order of the input. A
 * job without a reduce: what map emits is the output, byte for byte (TRM_OUTPUT_RAW).
 */
#include <trireme.h>

#include <inttypes.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINES, MATCHES };
static const char *const counters[] = {[LINES] = "lines", [MATCHES] = "matches", NULL};

/* Made by the first task of a process, of parameters that never change. */
static regex_t pattern;
static bool compiled, invert, show_path, show_offset, count_only;

static char *text; /* the line that is written, with its newline; grows */
static size_t text_room;

static int setup(trm_task *task)
{
    if (compiled)
        return 0;
    invert = trm_param_bool(task, "invert");
    show_path = trm_param_bool(task, "path");
    show_offset = trm_param_bool(task, "offset");
    count_only = trm_param_bool(task, "count");
    int flags = REG_EXTENDED | (trm_param_bool(task, "ignore-case") ? REG_ICASE : 0);
    int error = regcomp(&pattern, trm_param_string(task, "pattern"), flags);
    if (error) {
        char why[256];
        regerror(error, &pattern, why, sizeof why);
        return trm_task_fail(task, "the pattern '%s' is wrong: %s", trm_param_string(task, "pattern"), why);
    }
    compiled = true;
    return 0;
}

/* REG_STARTEND: the line is not terminated, and may have zeros in it. */
static bool matches(const trm_record *record)
{
    regmatch_t range = {.rm_so = 0, .rm_eo = (regoff_t)record->len};
    return (regexec(&pattern, record->data, 1, &range, REG_STARTEND) == 0) != invert;
}

static bool make_room(size_t need)
{
    if (need <= text_room)
        return true;
    char *more = realloc(text, need * 2);
    if (!more)
        return false;
    text = more;
    text_room = need * 2;
    return true;
}

/* PATH:OFFSET:LINE, as grep -H -b writes it. */
static int write_line(trm_task *task, const trm_record *record)
{
    size_t len = 0, path_len = show_path ? strlen(record->path) : 0;
    if (!make_room(path_len + 32 + record->len))
        return trm_task_fail(task, "no memory for a line of %zu bytes", record->len);
    if (show_path) {
        memcpy(text, record->path, path_len);
        text[path_len] = ':';
        len = path_len + 1;
    }
    if (show_offset)
        len += (size_t)sprintf(text + len, "%" PRIu64 ":", record->offset);
    memcpy(text + len, record->data, record->len);
    len += record->len;
    text[len++] = '\n';
    trm_emit(task, "", 0, text, len);
    return 0;
}

static int map(trm_task *task, const trm_record *record)
{
    trm_count(task, LINES, 1);
    if (!matches(record))
        return 0;
    trm_count(task, MATCHES, 1);
    return count_only ? 0 : write_line(task, record);
}

static const trm_param params[] = {
    {.name = "pattern", .type = TRM_PARAM_STRING, .help = "a POSIX extended regular expression"},
    {.name = "ignore-case",
     .type = TRM_PARAM_BOOL,
     .value = "false",
     .help = "letters match whatever their case"},
    {.name = "invert", .type = TRM_PARAM_BOOL, .value = "false", .help = "the lines that do not match"},
    {.name = "path",
     .type = TRM_PARAM_BOOL,
     .value = "false",
     .help = "write the file's path before each line"},
    {.name = "offset",
     .type = TRM_PARAM_BOOL,
     .value = "false",
     .help = "write where the line begins, in bytes"},
    {.name = "count", .type = TRM_PARAM_BOOL, .value = "false", .help = "write no lines, only count them"},
    {0}};

TRM_EXPORT_JOB = {
    TRM_JOB_HEADER,   .name = "grep",           .help = "writes the lines that match a regular expression",
    .params = params, .counters = counters,     .setup = setup,
    .map = map,       .output = TRM_OUTPUT_RAW,
};
