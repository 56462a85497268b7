#include "config.h" /* system extensions, before any header of the system */

#include "tool/log.h"

#include "jobs/exit_code.h"
#include "jobs/names.h"
#include "runtime/diag.h"
#include "runtime/wal.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

static int usage(bool asked)
{
    FILE *out = asked ? stdout : stderr;
    fprintf(out, "Usage: trireme log [--entries] DIR\n\n"
                 "Prints and checks the log of a job, without changing it. DIR is the output directory\n"
                 "of a job, its state directory, or a directory of segments.\n"
                 "  --entries   print a line for every entry\n\n"
                 "Exit status: 0 the log is sound, 3 it is damaged or there is none, 2 usage.\n");
    return asked ? TRM_EXIT_DONE : TRM_EXIT_USAGE;
}

/* DIR itself, DIR/log, DIR/.trireme/log: the first that holds a log. */
static trm_status find_log(trm_fs *fs, const char *dir, char *out, trm_err *err)
{
    static const char *const below[] = {"", "/log", "/" TRM_STATE_DIR_NAME "/log"};
    for (size_t i = 0; i < sizeof below / sizeof below[0]; i++) {
        bool there = false;
        trm_err ignored;
        if (snprintf(out, PATH_MAX, "%s%s", dir, below[i]) >= PATH_MAX)
            break;
        if (trm_wal_exists(fs, out, &there, &ignored) == TRM_OK && there)
            return TRM_OK;
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
    if (!dir)
        return usage(false);
    char path[PATH_MAX];
    trm_err err = {""};
    trm_fs *fs = trm_fs_posix();
    trm_status status = find_log(fs, dir, path, &err);
    if (status == TRM_OK)
        status = trm_wal_dump(fs, path, entries, stdout, &err);
    if (status == TRM_OK)
        return TRM_EXIT_DONE;
    fflush(stdout);
    trm_error("%s", err.text);
    return TRM_EXIT_REFUSED;
}
