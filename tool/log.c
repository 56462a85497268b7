#include "config.h" /* system extensions, before any header of the system */

#include "tool/log.h"

#include "jobs/exit_code.h"
#include "jobs/names.h"
#include "runtime/diag.h"
#include "runtime/wal.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STORES_MAX 4096u
#define STORE_NAME_BYTES 32u

static int usage(bool asked)
{
    FILE *out = asked ? stdout : stderr;
    fprintf(out, "Usage: trireme log [--entries] DIR\n\n"
                 "Prints and checks the logs of a job, without changing them. DIR is the output directory\n"
                 "of a job, its state directory, or the directory of one log.\n"
                 "  --entries   print a line for every entry\n\n"
                 "Exit status: 0 the log is sound, 3 it is damaged or there is none, 2 usage.\n");
    return asked ? TRM_EXIT_DONE : TRM_EXIT_USAGE;
}

typedef struct stores {
    char (*names)[STORE_NAME_BYTES];
    size_t count;
} stores;

static trm_status note(const char *name, void *context)
{
    stores *self = context;
    unsigned epoch, rank;
    char rest;
    if (sscanf(name, "e%u.r%u%c", &epoch, &rank, &rest) != 2 || self->count == STORES_MAX)
        return TRM_OK;
    snprintf(self->names[self->count++], STORE_NAME_BYTES, "%s", name);
    return TRM_OK;
}

static int compare(const void *a, const void *b)
{
    return strverscmp(a, b);
}

/* All of them are shown, whatever is the matter with one; returns what was first. */
static trm_status dump_each(trm_fs *fs, const char *dir, const stores *found, bool entries, bool *any,
                            trm_err *err)
{
    char path[PATH_MAX];
    trm_status first = TRM_OK;
    for (size_t i = 0; i < found->count; i++) {
        trm_err why = {""};
        bool is_log = false;
        if (snprintf(path, sizeof path, "%s/%s", dir, found->names[i]) >= (int)sizeof path)
            continue;
        trm_status status = trm_wal_exists(fs, path, &is_log, &why);
        if (status == TRM_OK && !is_log)
            continue; /* a launch that died before it had one */
        printf("%s\n", path);
        *any = true;
        if (status == TRM_OK)
            status = trm_wal_dump(fs, path, entries, stdout, &why);
        if (status == TRM_OK || first != TRM_OK)
            continue;
        first = status;
        *err = why;
    }
    return first;
}

/* The logs of all launches and ranks that are there, oldest first. */
static trm_status dump_stores(trm_fs *fs, const char *dir, bool entries, bool *any, trm_err *err)
{
    stores found = {.names = calloc(STORES_MAX, STORE_NAME_BYTES)};
    if (!found.names)
        return trm_err_set(err, TRM_ENOMEM, "no memory to list the logs");
    trm_status status = fs->ops->list(fs, dir, note, &found, err);
    if (status == TRM_OK) {
        qsort(found.names, found.count, STORE_NAME_BYTES, compare);
        status = dump_each(fs, dir, &found, entries, any, err);
    }
    free(found.names);
    return status == TRM_ELOST && !*any ? TRM_OK : status; /* looked for elsewhere */
}

/* DIR itself, or the logs below DIR, DIR/log, DIR/.trireme/log. */
static trm_status dump(trm_fs *fs, const char *dir, bool entries, trm_err *err)
{
    static const char *const below[] = {"", "/" TRM_LOG_NAME, "/" TRM_STATE_DIR_NAME "/" TRM_LOG_NAME};
    trm_err ignored;
    bool any = false;
    if (trm_wal_exists(fs, dir, &any, &ignored) == TRM_OK && any)
        return trm_wal_dump(fs, dir, entries, stdout, err);
    for (size_t i = 0; i < sizeof below / sizeof below[0]; i++) {
        char path[PATH_MAX];
        if (snprintf(path, sizeof path, "%s%s", dir, below[i]) >= (int)sizeof path)
            break;
        trm_status status = dump_stores(fs, path, entries, &any, err);
        if (status != TRM_OK || any)
            return status;
    }
    return trm_err_set(err, TRM_EINPUT, "there is no log in '%s'", dir);
}

int trm_log_command(int argc, char **argv)
{
    const char *dir = NULL;
    bool entries = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return usage(true);
        if (strcmp(argv[i], "--entries") == 0) {
            entries = true;
        } else if (argv[i][0] == '-' || dir) {
            trm_error("`trireme log` does not take '%s'", argv[i]);
            return usage(false);
        } else {
            dir = argv[i];
        }
    }
    if (!dir) {
        trm_error("which directory? (the output directory of a job, or its state directory)");
        return usage(false);
    }
    trm_err err = {""};
    trm_status status = dump(trm_fs_posix(), dir, entries, &err);
    if (status == TRM_OK)
        return TRM_EXIT_DONE;
    fflush(stdout);
    trm_error("%s", err.text);
    return TRM_EXIT_REFUSED;
}
