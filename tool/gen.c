/* The command: options, and the file made aside, synced and renamed. */
#include "tool/gen.h"
#include "jobs/exit_code.h"
#include "jobs/params.h"
#include "runtime/diag.h"
#include "runtime/fs.h"
#include "tool/gen_records.h"
#include "tool/gen_text.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUFFER_RECORDS 10000u
#define BUFFER_BYTES (BUFFER_RECORDS * TRM_GEN_RECORD_BYTES)
#define WORDS_DEFAULT 100000u
#define SKEW_DEFAULT 1.0
#define SEED_DEFAULT 1u

typedef struct generator {
    bool records, ascii, overwrite;
    uint64_t bytes, seed, words;
    double skew;
    const char *path;
    trm_gen_text text;
} generator;

static volatile sig_atomic_t stopped;

static void stop(int signal_number)
{
    (void)signal_number;
    stopped = 1;
}

/* ---- The file ------------------------------------------------------------------------ */

/* What is at `offset` of the file. */
static void fill(generator *self, char *out, uint64_t offset, size_t len)
{
    if (self->records) {
        trm_gen_records_fill(out, offset / TRM_GEN_RECORD_BYTES, len / TRM_GEN_RECORD_BYTES, self->seed,
                             self->ascii);
        return;
    }
    trm_gen_text_fill(&self->text, out, len);
    if (offset + len == self->bytes)
        out[len - 1] = '\n'; /* the last line ends, if in the middle of a word */
}

static trm_status write_all(generator *self, trm_file *file, trm_err *err)
{
    char *buffer = malloc(BUFFER_BYTES);
    if (!buffer)
        return trm_err_set(err, TRM_ENOMEM, "no memory for a buffer");
    trm_status status = TRM_OK;
    for (uint64_t at = 0; at < self->bytes && status == TRM_OK;) {
        size_t len = self->bytes - at < BUFFER_BYTES ? (size_t)(self->bytes - at) : BUFFER_BYTES;
        fill(self, buffer, at, len);
        status = file->fs->ops->write_at(file, at, buffer, len, err);
        if (status == TRM_OK && file->fs->ops->write_back)
            file->fs->ops->write_back(file, at, len);
        at += len;
        if (status == TRM_OK && stopped)
            status = trm_err_set(err, TRM_EINTERRUPTED, "interrupted: %s is not made", self->path);
    }
    free(buffer);
    return status;
}

/* The directory that `path` is in, into `out`. */
static void directory_of(const char *path, char *out)
{
    const char *slash = strrchr(path, '/');
    size_t len = !slash ? 1 : slash == path ? 1 : (size_t)(slash - path);
    memcpy(out, slash ? path : ".", len);
    out[len] = 0;
}

static trm_status put_in_place(const generator *self, trm_file *file, const char *aside, trm_err *err)
{
    trm_fs *fs = file->fs;
    char directory[TRM_FS_PATH_BYTES_MAX];
    directory_of(self->path, directory);
    trm_status status = fs->ops->sync(file, err);
    if (status == TRM_OK)
        status = fs->ops->rename(fs, aside, self->path, err);
    return status == TRM_OK ? fs->ops->sync_dir(fs, directory, err) : status;
}

static trm_status make_file(generator *self, trm_err *err)
{
    char aside[TRM_FS_PATH_BYTES_MAX];
    if ((size_t)snprintf(aside, sizeof aside, "%s.%ld.new", self->path, (long)getpid()) >= sizeof aside)
        return trm_err_set(err, TRM_EOUTPUT, "the path of the output is too long");
    if (!self->overwrite && access(self->path, F_OK) == 0)
        return trm_err_set(err, TRM_EOUTPUT, "%s is there already: give --overwrite to replace it",
                           self->path);
    trm_file *file;
    trm_fs *fs = trm_fs_posix();
    int flags = TRM_FS_WRITE | TRM_FS_CREATE | TRM_FS_EXCLUSIVE | TRM_FS_SHARED;
    trm_status status = fs->ops->open(fs, aside, flags, &file, err);
    if (status == TRM_ELOST)
        return trm_err_set(err, TRM_EOUTPUT, "the directory of %s is not there: make it first", self->path);
    if (status != TRM_OK)
        return status;
    status = write_all(self, file, err);
    if (status == TRM_OK)
        status = put_in_place(self, file, aside, err);
    if (status != TRM_OK) {
        trm_err ignored;
        (void)fs->ops->remove(fs, aside, &ignored);
    }
    fs->ops->close(file);
    return status;
}

static trm_status run(generator *self, trm_err *err)
{
    struct sigaction act = {.sa_handler = stop}, interrupt, terminate;
    sigaction(SIGINT, &act, &interrupt);
    sigaction(SIGTERM, &act, &terminate);
    stopped = 0;
    trm_status status = TRM_OK;
    if (!self->records)
        status = trm_gen_text_init(&self->text, (uint32_t)self->words, self->skew, self->seed, err);
    if (status == TRM_OK)
        status = make_file(self, err);
    if (!self->records)
        trm_gen_text_close(&self->text);
    sigaction(SIGINT, &interrupt, NULL);
    sigaction(SIGTERM, &terminate, NULL);
    return status;
}

/* ---- The command line ------------------------------------------------------------------ */

static const char usage[] =
    "usage: trireme gen text --bytes SIZE [--seed N] [--words N] [--skew S] [--overwrite] -o FILE\n"
    "       trireme gen records (--bytes SIZE | --records N) [--seed N] [--ascii] [--overwrite] -o FILE\n"
    "\n"
    "text      lines of words drawn by Zipf's law\n"
    "records   the 100-byte records of the sort benchmark\n"
    "\n"
    "  -b, --bytes SIZE   how large, such as 64M or 1G; records: rounded down to whole ones\n"
    "  -n, --records N    how many records\n"
    "  -s, --seed N       equal seeds, equal bytes (default 1)\n"
    "      --words N      how many different words, up to 4194304 (default 100000)\n"
    "      --skew S       the word of rank r is drawn in proportion to 1/r^S, 0 to 4 (default 1)\n"
    "      --ascii        printable keys and lines that end, for sort(1)\n"
    "      --overwrite    replace FILE\n"
    "  -o, --output FILE  written aside, synced and renamed\n";

enum { OPTION_WORDS = 256, OPTION_SKEW, OPTION_ASCII, OPTION_OVERWRITE };

static const struct option options[] = {{"bytes", required_argument, NULL, 'b'},
                                        {"records", required_argument, NULL, 'n'},
                                        {"seed", required_argument, NULL, 's'},
                                        {"words", required_argument, NULL, OPTION_WORDS},
                                        {"skew", required_argument, NULL, OPTION_SKEW},
                                        {"ascii", no_argument, NULL, OPTION_ASCII},
                                        {"overwrite", no_argument, NULL, OPTION_OVERWRITE},
                                        {"output", required_argument, NULL, 'o'},
                                        {"help", no_argument, NULL, 'h'},
                                        {0}};

static trm_status whole_number(const char *name, const char *text, uint64_t min, uint64_t max, uint64_t *out,
                               trm_err *err)
{
    int64_t value;
    if (!trm_parse_int(text, &value) || value < 0 || (uint64_t)value < min || (uint64_t)value > max)
        return trm_err_set(err, TRM_EUSAGE, "%s must be a whole number from %llu to %llu, not '%s'", name,
                           (unsigned long long)min, (unsigned long long)max, text);
    *out = (uint64_t)value;
    return TRM_OK;
}

static trm_status only_for(const generator *self, bool records, const char *name, trm_err *err)
{
    if (self->records == records)
        return TRM_OK;
    return trm_err_set(err, TRM_EUSAGE, "%s is an option of 'gen %s'", name, records ? "records" : "text");
}

static trm_status take_bytes(generator *self, const char *text, trm_err *err)
{
    if (self->bytes)
        return trm_err_set(err, TRM_EUSAGE, "the size is given twice");
    if (!trm_parse_size(text, &self->bytes) || self->bytes == 0 || self->bytes > INT64_MAX)
        return trm_err_set(err, TRM_EUSAGE, "--bytes must be a size such as 64M or 1G, not '%s'", text);
    if (self->records && self->bytes < TRM_GEN_RECORD_BYTES)
        return trm_err_set(err, TRM_EUSAGE, "--bytes must have room for a record of %u bytes, not '%s'",
                           TRM_GEN_RECORD_BYTES, text);
    if (self->records)
        self->bytes -= self->bytes % TRM_GEN_RECORD_BYTES;
    return TRM_OK;
}

static trm_status take_records(generator *self, const char *text, trm_err *err)
{
    trm_status status = only_for(self, true, "--records", err);
    if (status == TRM_OK && self->bytes)
        status = trm_err_set(err, TRM_EUSAGE, "the size is given twice");
    if (status == TRM_OK)
        status = whole_number("--records", text, 1, INT64_MAX / TRM_GEN_RECORD_BYTES, &self->bytes, err);
    self->bytes *= TRM_GEN_RECORD_BYTES;
    return status;
}

static trm_status take_skew(generator *self, const char *text, trm_err *err)
{
    trm_status status = only_for(self, false, "--skew", err);
    if (status == TRM_OK &&
        (!trm_parse_double(text, &self->skew) || self->skew < 0 || self->skew > TRM_GEN_SKEW_MAX))
        status = trm_err_set(err, TRM_EUSAGE, "--skew must be a number from 0 to %g, not '%s'",
                             TRM_GEN_SKEW_MAX, text);
    return status;
}

/* TRM_EOF: help was asked for. */
static trm_status take_option(generator *self, int option, char **argv, trm_err *err)
{
    trm_status status;
    switch (option) {
    case 'b':
        return take_bytes(self, optarg, err);
    case 'n':
        return take_records(self, optarg, err);
    case 's':
        return whole_number("--seed", optarg, 0, INT64_MAX, &self->seed, err);
    case OPTION_WORDS:
        status = only_for(self, false, "--words", err);
        return status == TRM_OK ? whole_number("--words", optarg, 1, TRM_GEN_WORDS_MAX, &self->words, err)
                                : status;
    case OPTION_SKEW:
        return take_skew(self, optarg, err);
    case OPTION_ASCII:
        self->ascii = true;
        return only_for(self, true, "--ascii", err);
    case OPTION_OVERWRITE:
        self->overwrite = true;
        return TRM_OK;
    case 'o':
        self->path = optarg;
        return TRM_OK;
    case 'h':
        return TRM_EOF;
    case ':':
        return trm_err_set(err, TRM_EUSAGE, "option %s needs a value", argv[optind - 1]);
    default:
        return trm_err_set(err, TRM_EUSAGE, "unknown option %s of 'gen'", argv[optind - 1]);
    }
}

static trm_status take_kind(generator *self, const char *kind, trm_err *err)
{
    if (!kind)
        return trm_err_set(err, TRM_EUSAGE, "'gen' needs what to make: text or records");
    self->records = strcmp(kind, "records") == 0;
    if (!self->records && strcmp(kind, "text") != 0)
        return trm_err_set(err, TRM_EUSAGE, "'gen' makes text or records, not '%s'", kind);
    return TRM_OK;
}

static trm_status parse(generator *self, int argc, char **argv, trm_err *err)
{
    const char *kind = argv[0];
    if (kind && (strcmp(kind, "--help") == 0 || strcmp(kind, "-h") == 0))
        return TRM_EOF;
    trm_status status = take_kind(self, kind, err);
    opterr = 0;
    optind = 0; /* from the begin, whatever was parsed before */
    int option;
    while (status == TRM_OK && (option = getopt_long(argc, argv, ":b:n:s:o:h", options, NULL)) != -1)
        status = take_option(self, option, argv, err);
    if (status != TRM_OK)
        return status;
    if (optind < argc)
        return trm_err_set(err, TRM_EUSAGE, "'gen %s' does not know what to do with '%s'", kind,
                           argv[optind]);
    if (self->bytes == 0)
        return trm_err_set(err, TRM_EUSAGE, "'gen %s' needs %s", kind,
                           self->records ? "--bytes SIZE or --records N" : "--bytes SIZE");
    if (!self->path || !self->path[0])
        return trm_err_set(err, TRM_EUSAGE, "'gen %s' needs -o FILE", kind);
    return TRM_OK;
}

int trm_gen_command(int argc, char **argv)
{
    generator self = {.seed = SEED_DEFAULT, .words = WORDS_DEFAULT, .skew = SKEW_DEFAULT};
    trm_err err;
    trm_status status = parse(&self, argc - 1, argv + 1, &err);
    if (status == TRM_EOF) {
        fputs(usage, stdout);
        return TRM_EXIT_DONE;
    }
    if (status == TRM_OK)
        status = run(&self, &err);
    if (status != TRM_OK)
        trm_error("%s%s", err.text, status == TRM_EUSAGE ? " (see trireme gen --help)" : "");
    /* What the system refuses here, it refuses of the output. */
    return status == TRM_EIO || status == TRM_ELOST ? TRM_EXIT_REFUSED : (int)trm_exit_code_of(status);
}
