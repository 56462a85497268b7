#include "config.h" /* system extensions, before any header of the system */

#include "tool/launch.h"

#include "jobs/exit_code.h"
#include "jobs/params.h"
#include "runtime/clock.h"
#include "runtime/diag.h"
#include "tool/kernels.h"
#include "tool/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARGUMENTS_MAX 64u    /* of mpirun, before the user's own and the command */
#define STOP_WAIT_MS 10000u  /* for the job to stop by itself when a person asks for it */
#define RESULT_WAIT_MS 5000u /* for mpirun to end once the job has */
#define TERM_WAIT_MS 5000u   /* for mpirun to end at SIGTERM, before SIGKILL */
#define DRAIN_WAIT_MS 300u   /* for what is still in the pipes when mpirun is gone */
#define TERMINAL_COLUMNS_DEFAULT 80u

typedef struct launch {
    const trm_options *options;
    char token[TRM_LAUNCH_TOKEN_BYTES];
    pid_t mpirun; /* 0: it is gone */
    int wait_status;
    int out_fd, err_fd, signal_fd; /* -1: closed */
    trm_relay out, err;
    int result; /* -1: not known */
    bool interrupted, progress_shown;
    uint64_t next_ns; /* when the next signal goes to mpirun; 0: none is due */
    int next_signal;
} launch;

/* ---- What is shown ---------------------------------------------------------------------------- */

static void write_all(int fd, const char *bytes, size_t len)
{
    while (len) {
        ssize_t wrote = write(fd, bytes, len);
        if (wrote < 0 && errno != EINTR)
            return; /* nobody reads any more */
        bytes += wrote > 0 ? wrote : 0;
        len -= wrote > 0 ? (size_t)wrote : 0;
    }
}

static void progress_clear(launch *self)
{
    if (self->progress_shown)
        write_all(STDERR_FILENO, "\r\033[K", 4);
    self->progress_shown = false;
}

static void show_out(void *context, const char *text, size_t len)
{
    progress_clear(context);
    write_all(STDOUT_FILENO, text, len);
}

static void show_err(void *context, const char *text, size_t len)
{
    progress_clear(context);
    write_all(STDERR_FILENO, text, len);
}

/* Schedules a signal to mpirun, in place of a later one. */
static void signal_later(launch *self, int number, uint64_t ms)
{
    uint64_t at = trm_clock_now_ns() + ms * TRM_NS_PER_MS;
    if (self->next_ns && self->next_ns <= at && self->next_signal == number)
        return;
    self->next_ns = at;
    self->next_signal = number;
}

static void told(void *context, const char *kind, const char *text)
{
    launch *self = context;
    int64_t number;
    if (strcmp(kind, "progress") == 0) {
        char line[TRM_RELAY_LINE_BYTES];
        int len = snprintf(line, sizeof line, "\r\033[K%s", text);
        write_all(STDERR_FILENO, line, len < (int)sizeof line ? (size_t)len : sizeof line - 1);
        self->progress_shown = true;
    } else if (strcmp(kind, "result") == 0 && trm_parse_int(text, &number) && number >= 0 && number < 128) {
        progress_clear(self);
        self->result = (int)number;
        signal_later(self, SIGTERM, RESULT_WAIT_MS);
    }
}

/* ---- Starting mpirun -------------------------------------------------------------------------- */

static bool on_path(const char *name, char *out)
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
        return on_path(options->mpirun, out)
                   ? TRM_OK
                   : trm_err_set(err, TRM_ELAUNCH, "--mpirun %s: there is no such program", options->mpirun);
    if (on_path("mpirun.openmpi", out) || on_path("mpirun", out))
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

static void compose(arguments *args, const launch *self, const char *mpirun, const char *ranks,
                    const char *program, int argc, char **argv)
{
    const trm_options *options = self->options;
    put(args, mpirun);
    put(args, "--enable-recovery");
    put(args, "--oversubscribe");
    put_pair(args, "--bind-to", "none"); /* ranks divide the cores that they find themselves */
    put_mca(args, "pml", "ob1");         /* the ways of messages whose behaviour at a rank's death is known */
    put_mca(args, "btl", "self,vader,tcp");
    if (options->ranks)
        put_pair(args, "-np", ranks);
    if (options->hosts)
        put_pair(args, "--host", options->hosts);
    if (options->hostfile)
        put_pair(args, "--hostfile", options->hostfile);
    static const char *const passed_on[] = {TRM_LAUNCH_VARIABLE, TRM_TERMINAL_VARIABLE,
                                            TRM_KERNEL_DIR_VARIABLE};
    for (size_t i = 0; i < sizeof passed_on / sizeof passed_on[0]; i++)
        if (getenv(passed_on[i]))
            put_pair(args, "-x", passed_on[i]);
    for (unsigned i = 0; i < options->mpirun_options_count; i++)
        put(args, options->mpirun_options[i]);
    put(args, program);
    if (!options->spec.own_job)
        put(args, "run");
    for (int i = 1; i < argc; i++)
        put(args, argv[i]);
    args->items[args->count] = NULL;
}

static _Noreturn void be_mpirun(char **args, int out_fd, int err_fd)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    setpgid(0, 0); /* a terminal's SIGINT is for the launcher alone */
    int null = open("/dev/null", O_RDONLY);
    if (null >= 0 && dup2(null, STDIN_FILENO) >= 0 && dup2(out_fd, STDOUT_FILENO) >= 0 &&
        dup2(err_fd, STDERR_FILENO) >= 0)
        execv(args[0], args);
    _exit(127);
}

static trm_status start(launch *self, char **args, trm_err *err)
{
    int out[2] = {-1, -1}, errors[2] = {-1, -1};
    if (pipe2(out, O_CLOEXEC) || pipe2(errors, O_CLOEXEC))
        return trm_err_errno(err, TRM_ELAUNCH, errno, "cannot make a pipe for mpirun");
    fflush(NULL);
    self->mpirun = fork();
    if (self->mpirun == 0)
        be_mpirun(args, out[1], errors[1]);
    close(out[1]);
    close(errors[1]);
    if (self->mpirun < 0) {
        self->mpirun = 0;
        close(out[0]);
        close(errors[0]);
        return trm_err_errno(err, TRM_ELAUNCH, errno, "cannot start %s", args[0]);
    }
    self->out_fd = out[0];
    self->err_fd = errors[0];
    return TRM_OK;
}

static trm_status catch_signals(launch *self, trm_err *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    self->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return self->signal_fd >= 0 ? TRM_OK : trm_err_errno(err, TRM_ELAUNCH, errno, "cannot wait for signals");
}

/* ---- Waiting ------------------------------------------------------------------------------------- */

static void send_signal(launch *self, int number)
{
    if (self->mpirun)
        kill(self->mpirun, number);
    self->next_ns = 0;
    if (number == SIGUSR1)
        signal_later(self, SIGTERM, STOP_WAIT_MS);
    else if (number == SIGTERM)
        signal_later(self, SIGKILL, TERM_WAIT_MS);
}

static void on_person(launch *self)
{
    progress_clear(self);
    if (!self->interrupted)
        trm_info("stopping: what is done is kept (once more to stop at once)");
    send_signal(self, self->interrupted ? SIGTERM : SIGUSR1);
    self->interrupted = true;
}

static void on_signals(launch *self)
{
    struct signalfd_siginfo info;
    while (read(self->signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
        if (info.ssi_signo != SIGCHLD)
            on_person(self);
    if (self->mpirun && waitpid(self->mpirun, &self->wait_status, WNOHANG) == self->mpirun)
        self->mpirun = 0;
}

/* False: the stream has ended. */
static bool read_stream(int *fd, trm_relay *relay)
{
    char bytes[16384];
    ssize_t len = read(*fd, bytes, sizeof bytes);
    if (len > 0)
        trm_relay_put(relay, bytes, (size_t)len);
    if (len > 0 || (len < 0 && (errno == EINTR || errno == EAGAIN)))
        return true;
    trm_relay_end(relay);
    close(*fd);
    *fd = -1;
    return false;
}

static int wait_ms(const launch *self)
{
    if (!self->mpirun)
        return DRAIN_WAIT_MS;
    if (!self->next_ns)
        return -1;
    uint64_t now_ns = trm_clock_now_ns();
    return now_ns >= self->next_ns ? 0 : (int)((self->next_ns - now_ns) / TRM_NS_PER_MS + 1);
}

/* Until mpirun is gone and what it has printed is read. */
static void wait_for_end(launch *self)
{
    while (self->mpirun || self->out_fd >= 0 || self->err_fd >= 0) {
        struct pollfd fds[] = {{.fd = self->signal_fd, .events = POLLIN},
                               {.fd = self->out_fd, .events = POLLIN},
                               {.fd = self->err_fd, .events = POLLIN}};
        int ready = poll(fds, 3, wait_ms(self));
        if (ready == 0 && !self->mpirun)
            break; /* somebody else holds the pipes */
        if (fds[0].revents)
            on_signals(self);
        if (self->out_fd >= 0 && fds[1].revents)
            read_stream(&self->out_fd, &self->out);
        if (self->err_fd >= 0 && fds[2].revents)
            read_stream(&self->err_fd, &self->err);
        if (self->mpirun && self->next_ns && trm_clock_now_ns() >= self->next_ns)
            send_signal(self, self->next_signal);
    }
    trm_relay_end(&self->out);
    trm_relay_end(&self->err);
}

static int exit_code(launch *self)
{
    progress_clear(self);
    if (self->result >= 0)
        return self->result;
    if (self->interrupted) {
        trm_error("stopped before the job could say so; the same command goes on with it");
        return TRM_EXIT_INTERRUPTED;
    }
    if (WIFSIGNALED(self->wait_status))
        trm_error("mpirun was ended by signal %d before the job was done; the same command goes on with it",
                  WTERMSIG(self->wait_status));
    else
        trm_error("mpirun ended with status %d before the job was done", WEXITSTATUS(self->wait_status));
    return TRM_EXIT_LAUNCH;
}

/* ---- All of it ---------------------------------------------------------------------------------------- */

static void set_environment(launch *self)
{
    snprintf(self->token, sizeof self->token, "%016" PRIx64, trm_clock_entropy());
    setenv(TRM_LAUNCH_VARIABLE, self->token, 1);
    unsetenv(TRM_TERMINAL_VARIABLE);
    struct winsize size = {0};
    if (isatty(STDERR_FILENO) && !self->options->spec.quiet) {
        char columns[16];
        ioctl(STDERR_FILENO, TIOCGWINSZ, &size);
        snprintf(columns, sizeof columns, "%u", size.ws_col ? size.ws_col : TERMINAL_COLUMNS_DEFAULT);
        setenv(TRM_TERMINAL_VARIABLE, columns, 1);
    }
}

static trm_status prepare_relays(launch *self)
{
    self->out.calls = (trm_relay_calls){.show = show_out, .told = told, .context = self};
    self->err.calls = (trm_relay_calls){.show = show_err, .told = told, .context = self};
    self->out.keep_noise = self->err.keep_noise = self->options->spec.verbose;
    memcpy(self->out.token, self->token, sizeof self->token);
    memcpy(self->err.token, self->token, sizeof self->token);
    return TRM_OK;
}

static trm_status run(launch *self, int argc, char **argv, trm_err *err)
{
    char mpirun[PATH_MAX], program[PATH_MAX], ranks[16];
    trm_status status = find_mpirun(self->options, mpirun, err);
    if (status == TRM_OK)
        status = check_root(err);
    if (status != TRM_OK)
        return status;
    ssize_t len = readlink("/proc/self/exe", program, sizeof program - 1);
    if (len <= 0)
        return trm_err_errno(err, TRM_ELAUNCH, errno, "this program's own path cannot be read");
    program[len] = 0;
    snprintf(ranks, sizeof ranks, "%u", self->options->ranks);
    set_environment(self);
    prepare_relays(self);
    arguments args = {.items = calloc(ARGUMENTS_MAX + self->options->mpirun_options_count + (size_t)argc + 1,
                                      sizeof *args.items)};
    if (!args.items)
        return trm_err_set(err, TRM_ENOMEM, "no memory for the arguments of mpirun");
    compose(&args, self, mpirun, ranks, program, argc, argv);
    status = catch_signals(self, err);
    if (status == TRM_OK)
        status = start(self, args.items, err);
    free(args.items);
    if (status == TRM_OK)
        wait_for_end(self);
    return status;
}

int trm_launch(const trm_options *options, int argc, char **argv)
{
    trm_err err = {""};
    launch *self = calloc(1, sizeof *self);
    if (!self) {
        trm_error("no memory to start mpirun");
        return TRM_EXIT_LAUNCH;
    }
    *self = (launch){.options = options, .result = -1, .out_fd = -1, .err_fd = -1, .signal_fd = -1};
    trm_status status = run(self, argc, argv, &err);
    if (status != TRM_OK)
        trm_error("%s", err.text);
    int code = status == TRM_OK ? exit_code(self) : (int)trm_exit_code_of(status);
    const int fds[] = {self->out_fd, self->err_fd, self->signal_fd};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    free(self);
    return code;
}
