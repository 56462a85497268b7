#include "config.h" /* system extensions, before any header of the system */

#include "tool/job_status.h"

#include "jobs/exit_code.h"
#include "jobs/names.h"
#include "runtime/clock.h"
#include "runtime/diag.h"
#include "tool/progress.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define EXIT_STATUS_MAX 125u /* more is no exit status of a program */

/* ---- The record ------------------------------------------------------------------------------- */

static trm_status check_record(const trm_json_doc *doc, const char *path, trm_err *err)
{
    static const char *const states[] = {"running", "done", "failed", "interrupted", "stopped"};
    const trm_json_value *root = trm_json_root(doc);
    uint64_t version = trm_json_get_u64(doc, root, "version", 0);
    const char *state = trm_json_get_string(doc, root, "state", "");
    if (version > TRM_RECORD_VERSION)
        return trm_err_set(err, TRM_EVERSION, "'%s' is of version %" PRIu64 ", this program reads version %u",
                           path, version, TRM_RECORD_VERSION);
    for (size_t i = 0; version && i < sizeof states / sizeof states[0]; i++)
        if (strcmp(state, states[i]) == 0)
            return TRM_OK;
    return trm_err_set(err, TRM_ECORRUPT, "'%s' is not the record of a job", path);
}

trm_status trm_record_read(const char *state_dir, trm_fs *fs, trm_json_doc *doc, uint8_t **bytes, size_t *len,
                           trm_err *err)
{
    char path[TRM_FS_PATH_BYTES_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s/" TRM_STATUS_NAME, state_dir) >= sizeof path)
        return trm_err_set(err, TRM_EINPUT, "the path is too long: %.200s…", state_dir);
    trm_status status = trm_fs_read_whole(fs, path, TRM_RECORD_BYTES_MAX, bytes, len, err);
    if (status != TRM_OK)
        return status;
    status = trm_json_parse(doc, *bytes, *len, err);
    if (status == TRM_OK) {
        status = check_record(doc, path, err);
        if (status != TRM_OK)
            trm_json_doc_close(doc);
    } else {
        trm_err_wrap(err, "'%s' is damaged", path);
    }
    if (status != TRM_OK)
        free(*bytes);
    return status;
}

/* ---- What it means ------------------------------------------------------------------------------ */

typedef enum standing { ENDED, DONE_UNSAID, RUNS, RESUMABLE } standing;

static uint64_t age_ms(const trm_json_doc *doc, const trm_json_value *record, uint64_t now_ms)
{
    uint64_t written_ms = trm_json_get_u64(doc, record, "written_ms", 0);
    return now_ms > written_ms ? now_ms - written_ms : 0; /* clocks differ */
}

/* The table in job_status.h. */
static standing stands(const trm_json_doc *doc, const trm_json_value *record, const trm_state_look *look,
                       uint64_t now_ms)
{
    const char *state = record ? trm_json_get_string(doc, record, "state", "") : "";
    if (strcmp(state, "done") == 0 || strcmp(state, "failed") == 0)
        return ENDED;
    if (look->in_use)
        return RUNS;
    if (look->done)
        return DONE_UNSAID;
    bool young = strcmp(state, "running") == 0 && age_ms(doc, record, now_ms) <= TRM_RECORD_OLD_MS;
    return young ? RUNS : RESUMABLE;
}

static int own_exit_status(const trm_json_doc *doc, const trm_json_value *record)
{
    bool done = strcmp(trm_json_get_string(doc, record, "state", ""), "done") == 0;
    uint64_t status = trm_json_get_u64(doc, record, "exit_status", done ? TRM_EXIT_DONE : TRM_EXIT_FAILED);
    return status <= EXIT_STATUS_MAX ? (int)status : TRM_EXIT_FAILED;
}

int trm_record_judge(const trm_json_doc *doc, const trm_json_value *record, const trm_state_look *look,
                     uint64_t now_ms)
{
    switch (stands(doc, record, look, now_ms)) {
    case ENDED:
        return own_exit_status(doc, record);
    case RESUMABLE:
        return TRM_EXIT_INTERRUPTED;
    default:
        return TRM_EXIT_DONE;
    }
}

/* ---- For people ------------------------------------------------------------------------------------ */

/* What is in a record is not to steer a terminal. */
static void print_text(FILE *out, const char *text)
{
    for (const uint8_t *at = (const uint8_t *)text; *at; at++) {
        bool control = *at < 0x20 || *at == 0x7f || (*at == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0);
        putc(control ? '?' : *at, out);
        at += *at == 0xc2 && control;
    }
}

static void print_member(FILE *out, const trm_json_doc *doc, const trm_json_value *object, const char *key)
{
    print_text(out, trm_json_get_string(doc, object, key, "?"));
}

static void print_number(FILE *out, const trm_json_doc *doc, const trm_json_value *object, const char *key)
{
    const trm_json_value *value = trm_json_find(doc, object, key);
    if (value && value->is_u64)
        fprintf(out, "%" PRIu64, value->u64);
    else
        putc('?', out);
}

static void print_head(FILE *out, const trm_json_doc *doc, const trm_json_value *record, standing now)
{
    static const char resumable[] = "the same command goes on with it";
    const char *state = trm_json_get_string(doc, record, "state", "?");
    print_member(out, doc, record, "job");
    if (now == ENDED) {
        fprintf(out, ": %s, exit status %d", state, own_exit_status(doc, record));
    } else if (now == DONE_UNSAID) {
        fprintf(out, ": done; its record is of before that");
    } else if (now == RESUMABLE) {
        fprintf(out, ": %s; %s", strcmp(state, "running") == 0 ? "lost" : state, resumable);
    } else if (strcmp(state, "running") == 0) {
        fprintf(out, ": running, ");
        print_member(out, doc, record, "phase");
    } else {
        fprintf(out, ": running again; the record is of the launch before (%s)", state);
    }
    putc('\n', out);
    const char *why = trm_json_get_string(doc, record, "why", "");
    if (why[0] && now != RUNS) {
        fprintf(out, "  why       ");
        print_text(out, why);
        putc('\n', out);
    }
}

static void print_phase(FILE *out, const trm_json_doc *doc, const trm_json_value *tasks, const char *phase,
                        const char *title)
{
    const trm_json_value *at = trm_json_find(doc, tasks, phase);
    if (!trm_json_get_u64(doc, at, "total", 0))
        return;
    fprintf(out, "  %-9s ", title);
    print_number(out, doc, at, "done");
    fprintf(out, " of ");
    print_number(out, doc, at, "total");
    fprintf(out, " done, ");
    print_number(out, doc, at, "running");
    fprintf(out, " running\n");
}

static void print_progress(FILE *out, const trm_json_doc *doc, const trm_json_value *record)
{
    char in[TRM_HUMAN_BYTES], total[TRM_HUMAN_BYTES];
    const trm_json_value *tasks = trm_json_find(doc, record, "tasks");
    print_phase(out, doc, tasks, "sample", "samples");
    print_phase(out, doc, tasks, "map", "maps");
    print_phase(out, doc, tasks, "reduce", "reduces");
    trm_human_bytes((double)trm_json_get_u64(doc, record, "bytes_in", 0), in);
    trm_human_bytes((double)trm_json_get_u64(doc, record, "bytes_total", 0), total);
    fprintf(out, "  input     %s of %s\n", in, total);
    fprintf(out, "  attempts  ");
    print_number(out, doc, record, "attempts_failed");
    fprintf(out, " failed; outputs lost: ");
    print_number(out, doc, record, "outputs_lost");
    putc('\n', out);
    if (trm_json_get_u64(doc, record, "outputs_copied", 0) ||
        trm_json_get_u64(doc, record, "copies_missing", 0)) {
        fprintf(out, "  copies    ");
        print_number(out, doc, record, "outputs_copied");
        fprintf(out, " made, ");
        print_number(out, doc, record, "copies_used");
        fprintf(out, " used; outputs without one: ");
        print_number(out, doc, record, "copies_missing");
        putc('\n', out);
    }
    if (trm_json_get_u64(doc, record, "records_skipped", 0)) {
        fprintf(out, "  skipped   ");
        print_number(out, doc, record, "records_skipped");
        fprintf(out, " bad records\n");
    }
}

static void print_leader(FILE *out, const trm_json_doc *doc, const trm_json_value *record)
{
    fprintf(out, "  leader    rank ");
    print_number(out, doc, record, "leader_rank");
    fprintf(out, " on ");
    print_member(out, doc, record, "leader_host");
    fprintf(out, ", pid ");
    print_number(out, doc, record, "leader_pid");
    fprintf(out, ", since term ");
    print_number(out, doc, record, "term");
    fprintf(out, " of launch ");
    print_number(out, doc, record, "epoch");
    fprintf(out, "; failovers: ");
    print_number(out, doc, record, "failovers");
    putc('\n', out);
}

static void print_ranks(FILE *out, const trm_json_doc *doc, const trm_json_value *record)
{
    const trm_json_value *ranks = trm_json_find(doc, record, "ranks");
    uint64_t count = 0, ready = 0, shown = 0;
    for (const trm_json_value *at = trm_json_first(doc, ranks); at; at = trm_json_next(doc, at)) {
        count++;
        ready += strcmp(trm_json_get_string(doc, at, "state", ""), "ready") == 0;
    }
    fprintf(out, "  ranks     %" PRIu64 ", %" PRIu64 " ready\n", count, ready);
    for (const trm_json_value *at = trm_json_first(doc, ranks); at; at = trm_json_next(doc, at)) {
        if (shown++ == TRM_STATUS_RANKS_MAX) {
            fprintf(out, "    … (--json lists them all)\n");
            return;
        }
        fprintf(out, "    %5" PRIu64 "  ", trm_json_get_u64(doc, at, "rank", 0));
        print_member(out, doc, at, "state");
        fprintf(out, "%s, ", trm_json_get_bool(doc, at, "voter", false) ? ", voter" : "");
        print_member(out, doc, at, "host");
        fprintf(out, ", pid ");
        print_number(out, doc, at, "pid");
        putc('\n', out);
    }
}

static void print_age(FILE *out, const trm_json_doc *doc, const trm_json_value *record, standing now,
                      uint64_t now_ms)
{
    char text[32];
    uint64_t age = age_ms(doc, record, now_ms);
    bool running = strcmp(trm_json_get_string(doc, record, "state", ""), "running") == 0;
    trm_human_seconds((double)(age / 1000), text);
    fprintf(out, "  written   %s ago%s\n", text,
            now == RUNS && running && age > TRM_RECORD_OLD_MS ? ": it may be dead" : "");
}

int trm_record_print(const trm_json_doc *doc, const trm_json_value *record, const trm_state_look *look,
                     uint64_t now_ms, FILE *out)
{
    standing now = stands(doc, record, look, now_ms);
    if (!record) {
        fprintf(out, "%s\n",
                now == RUNS ? "a job begins; it has written no record yet"
                : now == DONE_UNSAID
                    ? "done; there is no record of it"
                    : "a job has begun and left no record; the same command goes on with it");
        return trm_record_judge(doc, record, look, now_ms);
    }
    print_head(out, doc, record, now);
    print_progress(out, doc, record);
    print_leader(out, doc, record);
    print_ranks(out, doc, record);
    print_age(out, doc, record, now, now_ms);
    return trm_record_judge(doc, record, look, now_ms);
}

/* ---- The command ------------------------------------------------------------------------------------- */

static int usage(bool asked)
{
    FILE *out = asked ? stdout : stderr;
    fprintf(out, "Usage: trireme status [--json] DIR\n\n"
                 "Says how a job stands, on any machine that sees DIR: the output directory of the\n"
                 "job, or its state directory.\n"
                 "  --json   print the record itself (docs/events.md)\n\n"
                 "Exit status: the job's own when it has ended; 0 while it runs; 4 when the same command\n"
                 "goes on with it; 3 when there is no job or its record is damaged; 2 usage.\n");
    return asked ? TRM_EXIT_DONE : TRM_EXIT_USAGE;
}

static int show(const char *dir, bool json)
{
    static trm_state_look look;
    trm_err err = {""};
    trm_json_doc doc = {.count = 0};
    uint8_t *bytes = NULL;
    size_t len = 0;
    trm_fs *fs = trm_fs_posix();
    trm_status status = trm_state_look_at(&look, dir, fs, &err);
    if (status == TRM_OK)
        status = trm_record_read(look.state_dir, fs, &doc, &bytes, &len, &err);
    bool none = status == TRM_ELOST;
    if (status != TRM_OK && !none) {
        trm_error("%s", err.text);
        return TRM_EXIT_REFUSED;
    }
    uint64_t now_ms = trm_clock_wall_ms();
    const trm_json_value *record = none ? NULL : trm_json_root(&doc);
    int code;
    if (!json) {
        code = trm_record_print(&doc, record, &look, now_ms, stdout);
    } else {
        code = trm_record_judge(&doc, record, &look, now_ms);
        if (none)
            trm_error("there is no record yet in '%s'", look.state_dir);
        else
            fwrite(bytes, 1, len, stdout);
    }
    if (!none) {
        trm_json_doc_close(&doc);
        free(bytes);
    }
    return code;
}

int trm_status_command(int argc, char **argv)
{
    const char *dir = NULL;
    bool json = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return usage(true);
        if (strcmp(argv[i], "--json") == 0) {
            json = true;
        } else if (argv[i][0] == '-' || dir) {
            trm_error("`trireme status` does not take '%s'", argv[i]);
            return usage(false);
        } else {
            dir = argv[i];
        }
    }
    if (dir)
        return show(dir, json);
    trm_error("which directory? (the output directory of a job, or its state directory)");
    return usage(false);
}
