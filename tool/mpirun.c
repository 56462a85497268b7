#include "config.h" /* system extensions, before any header of the system */

#include "tool/mpirun.h"

#include "tool/kernels.h"
#include "tool/launched.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define ARGUMENTS_MAX 64u /* of mpirun, before the user's own and the command */

/* ---- Finding it ------------------------------------------------------------------------------- */

bool trm_on_path(const char *name, char out[PATH_MAX])
{
    const char *path = getenv("PATH");
    if (strchr(name, '/')) {
        snprintf(out, PATH_MAX, "%s", name);
        return access(out, X_OK) == 0;
    }
    for (const char *at = path ? path : "/usr/bin:/bin"; at;) {
        size_t len = strcspn(at, ":");
        int wrote = snprintf(out, PATH_MAX, "%.*s/%s", (int)len, len ? at : ".", name);
        if (len && wrote < PATH_MAX && access(out, X_OK) == 0)
            return true;
        at = at[len] ? at + len + 1 : NULL;
    }
    return false;
}

static trm_status find_mpirun(const trm_options *options, char *out, trm_err *err)
{
    if (options->mpirun)
        return trm_on_path(options->mpirun, out)
                   ? TRM_OK
                   : trm_err_set(err, TRM_ELAUNCH, "--mpirun %s: there is no such program", options->mpirun);
    if (trm_on_path("mpirun.openmpi", out) || trm_on_path("mpirun", out))
        return TRM_OK;
    return trm_err_set(err, TRM_ELAUNCH,
                       "no mpirun on the PATH: install Open MPI (Debian: openmpi-bin), or name it "
                       "with --mpirun");
}

static trm_status check_root(trm_err *err)
{
    if (geteuid() != 0 || (getenv("OMPI_ALLOW_RUN_AS_ROOT") && getenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")))
        return TRM_OK;
    return trm_err_set(err, TRM_ELAUNCH,
                       "Open MPI's mpirun does not run as root unless OMPI_ALLOW_RUN_AS_ROOT=1 and "
                       "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 are set in the environment");
}

/* ---- Its arguments -------------------------------------------------------------------------- */

typedef struct arguments {
    char **items;
    size_t count;
} arguments;

static void put(arguments *args, const char *text)
{
    args->items[args->count++] = (char *)(uintptr_t)text;
}

static void put_pair(arguments *args, const char *name, const char *value)
{
    put(args, name);
    put(args, value);
}

/* A parameter of Open MPI that neither environment nor --mpirun-option has set. */
static void put_mca(arguments *args, const char *name, const char *value)
{
    char variable[64];
    snprintf(variable, sizeof variable, "OMPI_MCA_%s", name);
    if (getenv(variable))
        return;
    put(args, "--mca");
    put_pair(args, name, value);
}

static void compose(arguments *args, const trm_mpirun *self, const trm_mpirun_where *where, const char *ranks)
{
    const trm_options *options = self->options;
    put(args, self->path);
    put(args, "--enable-recovery");
    put(args, "--oversubscribe");
    put_pair(args, "--bind-to", "none"); /* ranks divide the cores that they find themselves */
    put_mca(args, "pml", "ob1");         /* the ways of messages whose behaviour at a rank's death is known */
    put_mca(args, "btl", "self,vader,tcp");
    if (where->ranks)
        put_pair(args, "-np", ranks);
    if (where->hosts)
        put_pair(args, "--host", where->hosts);
    if (where->hostfile)
        put_pair(args, "--hostfile", where->hostfile);
    static const char *const passed_on[] = {TRM_LAUNCH_VARIABLE, TRM_TERMINAL_VARIABLE, TRM_KEEP_VARIABLE,
                                            TRM_KERNEL_DIR_VARIABLE};
    for (size_t i = 0; i < sizeof passed_on / sizeof passed_on[0]; i++)
        if (getenv(passed_on[i]))
            put_pair(args, "-x", passed_on[i]);
    for (unsigned i = 0; i < options->mpirun_options_count; i++)
        put(args, options->mpirun_options[i]);
    put(args, self->program);
    if (!options->spec.own_job)
        put(args, "run");
    for (int i = 1; i < self->argc; i++)
        put(args, self->argv[i]);
    args->items[args->count] = NULL;
}

/* ---- Its start -------------------------------------------------------------------------------- */

static _Noreturn void be_mpirun(char **args, pid_t starter, int out_fd, int err_fd)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != starter)
        _exit(TRM_MPIRUN_UNSTARTED);
    setpgid(0, 0);
    int null = open("/dev/null", O_RDONLY);
    if (null >= 0 && dup2(null, STDIN_FILENO) >= 0 && dup2(out_fd, STDOUT_FILENO) >= 0 &&
        dup2(err_fd, STDERR_FILENO) >= 0)
        execv(args[0], args);
    _exit(TRM_MPIRUN_UNSTARTED);
}

static trm_status start(char **args, pid_t *pid, int *out_fd, int *err_fd, trm_err *err)
{
    int out[2] = {-1, -1}, errors[2] = {-1, -1};
    if (pipe2(out, O_CLOEXEC))
        return trm_err_errno(err, TRM_ELAUNCH, errno, "cannot make a pipe for mpirun");
    if (pipe2(errors, O_CLOEXEC)) {
        int error = errno;
        close(out[0]);
        close(out[1]);
        return trm_err_errno(err, TRM_ELAUNCH, error, "cannot make a pipe for mpirun");
    }
    fflush(NULL);
    pid_t starter = getpid(), child = fork();
    if (child == 0)
        be_mpirun(args, starter, out[1], errors[1]);
    int error = errno;
    close(out[1]);
    close(errors[1]);
    if (child < 0) {
        close(out[0]);
        close(errors[0]);
        return trm_err_errno(err, TRM_ELAUNCH, error, "cannot start %s", args[0]);
    }
    *pid = child;
    *out_fd = out[0];
    *err_fd = errors[0];
    return TRM_OK;
}

trm_status trm_mpirun_init(trm_mpirun *self, const trm_options *options, int argc, char **argv, trm_err *err)
{
    self->options = options;
    self->argc = argc;
    self->argv = argv;
    trm_status status = find_mpirun(options, self->path, err);
    if (status == TRM_OK)
        status = check_root(err);
    if (status != TRM_OK)
        return status;
    ssize_t len = readlink("/proc/self/exe", self->program, sizeof self->program - 1);
    if (len <= 0)
        return trm_err_errno(err, TRM_ELAUNCH, errno, "this program's own path cannot be read");
    self->program[len] = 0;
    return TRM_OK;
}

trm_status trm_mpirun_start(const trm_mpirun *self, const trm_mpirun_where *where, pid_t *pid, int *out_fd,
                            int *err_fd, trm_err *err)
{
    char ranks[16];
    size_t room = ARGUMENTS_MAX + self->options->mpirun_options_count + (size_t)self->argc + 1;
    arguments args = {.items = calloc(room, sizeof *args.items)};
    if (!args.items)
        return trm_err_set(err, TRM_ENOMEM, "no memory for the arguments of mpirun");
    snprintf(ranks, sizeof ranks, "%u", where->ranks);
    compose(&args, self, where, ranks);
    trm_status status = start(args.items, pid, out_fd, err_fd, err);
    free(args.items);
    return status;
}
