#include "config.h" /* system extensions, before any header of the system */

#include "tool/kernels.h"

#include "jobs/exit_code.h"
#include "runtime/diag.h"
#include "tool/options.h"
#include "workers/kernel.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOAD_SECONDS_MAX 10u /* of one kernel, for listing it */

static bool is_directory(const char *path)
{
    return access(path, X_OK) == 0;
}

/* BINDIR/../lib…/trireme/kernels when the installed tree was moved, BUILD/examples/.libs beside
 * a program that was only built. `out` has PATH_MAX bytes. */
static bool beside_program(char *out)
{
    static const char *const below[] = {"../lib/trireme/kernels", "examples/.libs", "../examples/.libs"};
    char program[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", program, sizeof program - 1);
    if (len <= 0)
        return false;
    program[len] = 0;
    *strrchr(program, '/') = 0;
    for (size_t i = 0; i < sizeof below / sizeof below[0]; i++)
        if (snprintf(out, PATH_MAX, "%s/%s", program, below[i]) < PATH_MAX && is_directory(out))
            return true;
    return false;
}

static void kernel_dir(char *out)
{
    const char *named = getenv(TRM_KERNEL_DIR_VARIABLE);
    if (named && named[0])
        snprintf(out, PATH_MAX, "%s", named);
    else if (!beside_program(out))
        snprintf(out, PATH_MAX, "%s", TRM_KERNEL_DIR);
}

trm_status trm_kernel_find(trm_spec *spec, trm_err *err)
{
    if (spec->own_job)
        return TRM_OK;
    char dir[PATH_MAX], path[2 * PATH_MAX];
    if (strchr(spec->kernel_name, '/')) {
        if (!realpath(spec->kernel_name, path))
            snprintf(path, sizeof path, "%s", spec->kernel_name); /* whoever opens it says what is wrong */
    } else {
        kernel_dir(dir);
        snprintf(path, sizeof path, "%s/%s.so", dir, spec->kernel_name);
        if (access(path, F_OK) != 0)
            return trm_err_set(err, TRM_EJOB,
                               "no job '%s' in %s (`trireme jobs` lists those that are there; "
                               "a path has a '/' in it: ./%s)",
                               spec->kernel_name, dir, spec->kernel_name);
    }
    spec->kernel_path = strdup(path);
    return spec->kernel_path ? TRM_OK : trm_err_set(err, TRM_ENOMEM, "no memory for the path of the kernel");
}

/* ---- Listing ------------------------------------------------------------------------------- */

static void show_param(const trm_param *param)
{
    static const char *const types[] = {"text", "number", "size", "decimal", "yes|no"};
    printf("    -p %s=%s  %s", param->name, (unsigned)param->type < 5 ? types[param->type] : "?",
           param->help ? param->help : "");
    printf(param->value ? " [%s]\n" : " (must be given)\n", param->value);
}

/* In a child: what it loads may do anything. */
static int show_in_child(const char *name, const char *path, bool whole)
{
    trm_err err = {""};
    trm_kernel kernel = {0};
    trm_spec spec = {.kernel_path = (char *)(uintptr_t)path};
    alarm(LOAD_SECONDS_MAX);
    /* Parameters that must be given are missing: of that nothing is to be said here. */
    trm_status status = trm_kernel_describe(&kernel, &spec, &err);
    if (status != TRM_OK) {
        trm_error("%s", err.text);
        return trm_exit_code_of(status);
    }
    printf("%-16s %s\n", name, kernel.job->help ? kernel.job->help : "");
    for (const trm_param *param = kernel.job->params; whole && param && param->name; param++)
        show_param(param);
    if (fflush(stdout) == 0 && !ferror(stdout))
        return TRM_EXIT_DONE;
    trm_error("the list of kernels could not be written");
    return TRM_EXIT_LAUNCH;
}

static int show(const char *name, const char *path, bool whole)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        _exit(show_in_child(name, path, whole));
    int status = 0;
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    if (child > 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE)
        return TRM_EXIT_DONE; /* nobody reads the list any more */
    if (child < 0 || !WIFEXITED(status)) {
        trm_error("kernel '%s' cannot be loaded", path);
        return TRM_EXIT_REFUSED;
    }
    return WEXITSTATUS(status);
}

static int is_kernel(const struct dirent *entry)
{
    size_t len = strlen(entry->d_name);
    return len > 3 && strcmp(entry->d_name + len - 3, ".so") == 0;
}

static int list_all(void)
{
    char dir[PATH_MAX], path[2 * PATH_MAX];
    kernel_dir(dir);
    struct dirent **entries = NULL;
    int count = scandir(dir, &entries, is_kernel, alphasort), worst = TRM_EXIT_DONE;
    if (count < 0) {
        trm_error("the directory of kernels, %s, cannot be read: %s", dir, strerror(errno));
        return TRM_EXIT_REFUSED;
    }
    for (int i = 0; i < count; i++) {
        char *name = entries[i]->d_name;
        snprintf(path, sizeof path, "%s/%s", dir, name);
        name[strlen(name) - 3] = 0;
        int code = worst == TRM_EXIT_LAUNCH ? worst : show(name, path, false); /* said once is enough */
        worst = code > worst ? code : worst;
        free(entries[i]);
    }
    free(entries);
    return worst;
}

int trm_jobs_command(int argc, char **argv)
{
    if (argc > 2 || (argc == 2 && argv[1][0] == '-')) {
        bool help = argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
        if (!help)
            trm_error("`trireme jobs` takes the name of a job or nothing");
        else
            printf("Usage: trireme jobs [JOB]\n\nLists the kernels that are installed, or one with its "
                   "parameters.\n");
        return help ? TRM_EXIT_DONE : TRM_EXIT_USAGE;
    }
    if (argc < 2)
        return list_all();
    trm_err err = {""};
    trm_spec spec = {.kernel_name = argv[1]};
    trm_status status = trm_kernel_find(&spec, &err);
    if (status != TRM_OK) {
        trm_error("%s", err.text);
        return trm_exit_code_of(status);
    }
    int code = show(argv[1], spec.kernel_path, true);
    free(spec.kernel_path);
    return code;
}
