#include "config.h" /* system extensions, before any header of the system */

#include "tool/launch.h"

#include "jobs/exit_code.h"
#include "jobs/names.h"
#include "jobs/params.h"
#include "runtime/clock.h"
#include "runtime/diag.h"
#include "scheduler/state_look.h"
#include "tool/hosts.h"
#include "tool/job_status.h"
#include "tool/mpirun.h"
#include "tool/relay.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define STOP_WAIT_MS 10000u  /* for the job to stop by itself when a person asks for it */
#define RESULT_WAIT_MS 5000u /* for mpirun to end once the job has */
#define TERM_WAIT_MS 5000u   /* for mpirun to end at SIGTERM, before SIGKILL */
#define LEFT_WAIT_MS 15000u  /* a rank has left and the job's record says nothing new: the launch is lost */
#define LEFT_LOOK_MS 1000u   /* between two looks at it */
#define DRAIN_WAIT_MS 300u   /* for what is still in the pipes when mpirun is gone */
#define PAUSE_MS 1000u       /* before the first relaunch; twice as long before each further one */
#define PAUSE_MS_MAX 30000u
#define LOCK_WAIT_MS 30000u /* for the ranks of a launch that was lost to leave the output */
#define LOCK_LOOK_MS 100u   /* between two looks whether they have */
#define LEFT_OUT_BYTES 512u /* of the names of hosts, in the line that says so */
#define TERMINAL_COLUMNS_DEFAULT 80u

typedef struct launch {
    const trm_options *options;
    trm_mpirun command;
    int signal_fd;            /* -1: not open */
    struct stat success_then; /* _SUCCESS as it was before the first launch; st_ino 0: it was not */
    bool interrupted, progress_shown;

    /* One mpirun. */
    char token[TRM_LAUNCH_TOKEN_BYTES];
    pid_t mpirun; /* 0: it is gone */
    int wait_status;
    int out_fd, err_fd; /* -1: closed */
    trm_relay out, err;
    int result;                /* -1: not known */
    bool pushed;               /* a signal was sent to mpirun */
    uint64_t look_ns;          /* a rank has left: when the record is looked at; 0: none has */
    uint64_t told_ms, told_ns; /* what it says of when it was written, and since when */
    uint64_t start_ns;         /* until when a rank must say something; 0: it has */
    uint64_t start_ms;         /* what the record says when this mpirun is started */
    bool rank_runs;            /* it has begun, and said so */
    const char *stuck;         /* why mpirun was ended before MPI had started; NULL: it was not */
    uint64_t next_ns;          /* when the next signal goes to mpirun; 0: none is due */
    int next_signal;

    /* Where a relaunch goes. */
    char *hosts;     /* owned; NULL: as the options say */
    int hostfile_fd; /* -1: as the options say */
    char hostfile[64];
    uint32_t ranks;
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

/* The ranks have until then to say the next thing. */
static void expect_sign(launch *self)
{
    self->start_ns = trm_clock_now_ns() + self->options->start_timeout_ms * TRM_NS_PER_MS;
}

static void told(void *context, const char *kind, const char *text)
{
    launch *self = context;
    int64_t number;
    self->start_ns = 0;
    self->rank_runs = true;
    if (strcmp(kind, "began") == 0)
        expect_sign(self);
    if (strcmp(kind, "progress") == 0) {
        char line[TRM_RELAY_LINE_BYTES];
        int len = snprintf(line, sizeof line, "\r\033[K%s", text);
        write_all(STDERR_FILENO, line, len < (int)sizeof line ? (size_t)len : sizeof line - 1);
        self->progress_shown = true;
    } else if (strcmp(kind, "result") == 0 && trm_parse_int(text, &number) && number >= 0 && number < 128) {
        progress_clear(self);
        self->result = (int)number;
        signal_later(self, SIGTERM, RESULT_WAIT_MS);
    } else if (strcmp(kind, "left") == 0 && !self->look_ns) {
        self->told_ns = self->look_ns = trm_clock_now_ns();
    }
}

/* ---- Waiting ------------------------------------------------------------------------------------- */

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

static void send_signal(launch *self, int number)
{
    if (self->mpirun)
        kill(self->mpirun, number);
    self->pushed = true;
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

/* 0: there is no record. */
static uint64_t record_written_ms(const launch *self)
{
    trm_json_doc doc;
    uint8_t *bytes;
    size_t len;
    trm_err err;
    if (trm_record_read(self->options->spec.state_dir, trm_fs_posix(), &doc, &bytes, &len, &err) != TRM_OK)
        return 0;
    uint64_t written_ms = trm_json_get_u64(&doc, trm_json_root(&doc), "written_ms", 0);
    trm_json_doc_close(&doc);
    free(bytes);
    return written_ms;
}

/* When ranks of other hosts have died, mpirun may wait for ever though all others have left. One that
 * has left may as well have been cut off from those that go on: they write the record. */
static void look_step(launch *self)
{
    uint64_t now_ns = trm_clock_now_ns();
    if (!self->mpirun || !self->look_ns || now_ns < self->look_ns)
        return;
    uint64_t written_ms = record_written_ms(self);
    if (written_ms != self->told_ms)
        self->told_ns = now_ns;
    self->told_ms = written_ms;
    self->look_ns = now_ns + LEFT_LOOK_MS * TRM_NS_PER_MS;
    if (now_ns < self->told_ns + LEFT_WAIT_MS * TRM_NS_PER_MS || self->next_ns || self->pushed)
        return;
    progress_clear(self);
    trm_warn("ranks have left, and nobody leads the job any more: mpirun is ended");
    send_signal(self, SIGTERM);
}

/* An mpirun that hangs before its ranks can say anything would be waited for for ever. Where it hides what
 * they say, they are known by the record. */
static void start_step(launch *self)
{
    if (!self->mpirun || !self->start_ns || trm_clock_now_ns() < self->start_ns)
        return;
    self->start_ns = 0;
    if (self->next_ns || self->pushed || record_written_ms(self) != self->start_ms)
        return;
    self->stuck = self->rank_runs ? "MPI has not started on all ranks" : "mpirun has started no rank";
    progress_clear(self);
    trm_warn("%s for %g s: mpirun is ended (a limit of this shell, a host or a file system that hangs? "
             "--start-timeout gives more time)",
             self->stuck, (double)self->options->start_timeout_ms / 1e3);
    send_signal(self, SIGTERM);
}

/* With mpirun goes what it has left of its group: while it is not reaped yet, its number is nobody
 * else's. */
static void reap(launch *self)
{
    siginfo_t info = {.si_pid = 0};
    if (!self->mpirun || waitid(P_PID, (id_t)self->mpirun, &info, WEXITED | WNOWAIT | WNOHANG) ||
        !info.si_pid)
        return;
    kill(-self->mpirun, SIGKILL);
    if (waitpid(self->mpirun, &self->wait_status, 0) == self->mpirun)
        self->mpirun = 0;
}

static void on_signals(launch *self)
{
    struct signalfd_siginfo info;
    while (read(self->signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
        if (info.ssi_signo != SIGCHLD)
            on_person(self);
    reap(self);
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

/* The earlier of two times, of which 0 is none. */
static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a && (!b || a < b) ? a : b;
}

static int wait_ms(const launch *self)
{
    if (!self->mpirun)
        return DRAIN_WAIT_MS;
    uint64_t next_ns = earlier(self->next_ns, earlier(self->look_ns, self->start_ns));
    if (!next_ns)
        return -1;
    uint64_t now_ns = trm_clock_now_ns();
    return now_ns >= next_ns ? 0 : (int)((next_ns - now_ns) / TRM_NS_PER_MS + 1);
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
        look_step(self);
        start_step(self);
    }
    trm_relay_end(&self->out);
    trm_relay_end(&self->err);
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* ---- One launch ------------------------------------------------------------------------------------- */

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

static void prepare_relay(launch *self, trm_relay *relay)
{
    memset(relay, 0, sizeof *relay);
    relay->calls =
        (trm_relay_calls){.show = relay == &self->out ? show_out : show_err, .told = told, .context = self};
    relay->keep_noise = self->options->spec.verbose;
    memcpy(relay->token, self->token, sizeof self->token);
}

static trm_status run_once(launch *self, trm_err *err)
{
    trm_mpirun_where where = {.ranks = self->ranks,
                              .hosts = self->hosts ? self->hosts : self->options->hosts,
                              .hostfile = self->hostfile_fd >= 0 ? self->hostfile : self->options->hostfile};
    self->result = -1;
    self->next_ns = self->look_ns = self->told_ms = 0;
    self->pushed = self->rank_runs = false;
    self->stuck = NULL;
    self->start_ms = record_written_ms(self);
    set_environment(self);
    prepare_relay(self, &self->out);
    prepare_relay(self, &self->err);
    trm_status status =
        trm_mpirun_start(&self->command, &where, &self->mpirun, &self->out_fd, &self->err_fd, err);
    expect_sign(self);
    if (status == TRM_OK)
        wait_for_end(self);
    progress_clear(self);
    close_fd(&self->out_fd);
    close_fd(&self->err_fd);
    return status;
}

/* Nobody has said how the job ended, and nobody has asked it to end; or it was mpirun that did when it
 * failed: with a host it may end all ranks, which stop in order then. */
static bool is_lost(const launch *self)
{
    bool started = !WIFEXITED(self->wait_status) || WEXITSTATUS(self->wait_status) != TRM_MPIRUN_UNSTARTED;
    bool failed = !WIFEXITED(self->wait_status) || WEXITSTATUS(self->wait_status) != 0;
    bool unsaid = self->result < 0 || (self->result == TRM_EXIT_INTERRUPTED && failed && !self->pushed);
    return unsaid && !self->interrupted && started;
}

/* What mpirun got stuck in is there a second later, too, and each time would take as long. */
static bool may_go_again(const launch *self)
{
    return is_lost(self) && !self->stuck;
}

/* ---- Launching again ---------------------------------------------------------------------------------- */

static void say_how(const launch *self, char out[128])
{
    if (self->stuck)
        snprintf(out, 128, "%s, so that mpirun was ended", self->stuck);
    else if (WIFSIGNALED(self->wait_status))
        snprintf(out, 128, "mpirun was ended by signal %d before the job was done",
                 WTERMSIG(self->wait_status));
    else
        snprintf(out, 128, "mpirun ended with status %d before the job was done",
                 WEXITSTATUS(self->wait_status));
}

/* False: a person wants the job to stop. */
static bool wait_ms_undisturbed(launch *self, uint64_t ms)
{
    uint64_t until_ns = trm_clock_now_ns() + ms * TRM_NS_PER_MS;
    while (!self->interrupted) {
        uint64_t now_ns = trm_clock_now_ns();
        if (now_ns >= until_ns)
            return true;
        struct pollfd fd = {.fd = self->signal_fd, .events = POLLIN};
        poll(&fd, 1, (int)((until_ns - now_ns) / TRM_NS_PER_MS + 1));
        on_signals(self);
    }
    return false;
}

/* The ranks of the launch that was lost see that mpirun is gone, and leave. */
static bool wait_for_ranks(launch *self)
{
    for (uint64_t waited_ms = 0; waited_ms < LOCK_WAIT_MS; waited_ms += LOCK_LOOK_MS) {
        if (!trm_state_in_use(self->options->spec.output_dir, trm_fs_posix()))
            return true;
        if (!wait_ms_undisturbed(self, LOCK_LOOK_MS))
            return false;
    }
    return true; /* the next launch finds out who it is, and says so */
}

static void stat_success(const launch *self, struct stat *out)
{
    char path[TRM_FS_PATH_BYTES_MAX + sizeof TRM_SUCCESS_NAME + 1];
    snprintf(path, sizeof path, "%s/%s", self->options->spec.output_dir, TRM_SUCCESS_NAME);
    if (stat(path, out))
        *out = (struct stat){.st_ino = 0};
}

/* --overwrite is for what was there before the first launch, not for what that has made. */
static void keep_what_is_done(const launch *self)
{
    struct stat now;
    const struct stat *then = &self->success_then;
    stat_success(self, &now);
    if (now.st_ino &&
        (now.st_ino != then->st_ino || now.st_dev != then->st_dev ||
         now.st_mtim.tv_sec != then->st_mtim.tv_sec || now.st_mtim.tv_nsec != then->st_mtim.tv_nsec))
        setenv(TRM_KEEP_VARIABLE, "1", 1);
}

/* How many do not answer, and which. */
static uint32_t name_silent(const trm_hosts *hosts, char names[LEFT_OUT_BYTES])
{
    uint32_t count = 0;
    size_t len = 0;
    names[0] = 0;
    for (size_t i = 0; i < hosts->count; i++) {
        if (hosts->hosts[i].answers)
            continue;
        count++;
        if (len + strlen(hosts->hosts[i].name) + sizeof ", …" < LEFT_OUT_BYTES)
            len += (size_t)snprintf(names + len, LEFT_OUT_BYTES - len, "%s%s", len ? ", " : "",
                                    hosts->hosts[i].name);
        else if (len && names[len - 1] != '.')
            len += (size_t)snprintf(names + len, LEFT_OUT_BYTES - len, "...");
    }
    return count;
}

/* The hostfile without them, where mpirun can read it and nobody has to remove it. */
static trm_status make_hostfile(launch *self, const trm_hosts *hosts, trm_err *err)
{
    size_t len;
    char *text = trm_hosts_rest_of_file(hosts, &len);
    if (!text)
        return trm_err_set(err, TRM_ENOMEM, "no memory for the hosts");
    close_fd(&self->hostfile_fd);
    self->hostfile_fd = memfd_create("trireme-hostfile", MFD_CLOEXEC);
    bool written = self->hostfile_fd >= 0 && write(self->hostfile_fd, text, len) == (ssize_t)len;
    free(text);
    if (!written)
        return trm_err_errno(err, TRM_ELAUNCH, errno, "cannot write the hosts down");
    snprintf(self->hostfile, sizeof self->hostfile, "/proc/%d/fd/%d", (int)getpid(), self->hostfile_fd);
    return TRM_OK;
}

static trm_status leave_out(launch *self, const trm_hosts *hosts, trm_err *err)
{
    uint32_t wanted = self->options->ranks, all = trm_hosts_slots(hosts, true);
    uint32_t rest = trm_hosts_slots(hosts, false);
    trm_status status = TRM_OK;
    if (hosts->list) {
        free(self->hosts);
        self->hosts = trm_hosts_rest_of_list(hosts);
        status = self->hosts ? TRM_OK : trm_err_set(err, TRM_ENOMEM, "no memory for the hosts");
    }
    if (status == TRM_OK && hosts->file)
        status = make_hostfile(self, hosts, err);
    self->ranks = wanted && all && rest && wanted <= all && wanted > rest ? rest : wanted;
    if (status == TRM_OK && self->ranks != wanted)
        trm_warn("%u ranks are started, not %u: the hosts that are left have no more slots", self->ranks,
                 wanted);
    return status;
}

/* Asks anew each time: hosts come back. TRM_AGAIN: none of them answers now. */
static trm_status choose_hosts(launch *self, trm_err *err)
{
    trm_hosts hosts;
    if (!self->options->hosts && !self->options->hostfile)
        return TRM_OK;
    trm_status status = trm_hosts_init(&hosts, self->options->hosts, self->options->hostfile, err);
    if (status != TRM_OK)
        return status;
    char names[LEFT_OUT_BYTES];
    bool asked = trm_hosts_ask(&hosts, self->options, self->signal_fd);
    uint32_t silent = name_silent(&hosts, names);
    if (!asked)
        self->interrupted = true;
    else if (silent && silent == hosts.count)
        status = trm_err_set(err, TRM_AGAIN, "no host answers: %s", names);
    else {
        if (silent)
            trm_warn("%u of %zu hosts do not answer and are left out: %s", silent, hosts.count, names);
        status = leave_out(self, &hosts, err);
    }
    trm_hosts_close(&hosts);
    return status;
}

/* TRM_OK: there is another launch to be made, or `interrupted` is set. */
static trm_status prepare_again(launch *self, uint32_t done, trm_err *err)
{
    uint64_t ms = PAUSE_MS << (done < 5 ? done : 5);
    char how[128];
    say_how(self, how);
    ms = ms < PAUSE_MS_MAX ? ms : PAUSE_MS_MAX;
    trm_warn("%s: it is started again in %" PRIu64 " s (%u of %u)", how, ms / 1000, done + 1,
             self->options->relaunches);
    if (!wait_ms_undisturbed(self, ms) || !wait_for_ranks(self))
        return TRM_OK;
    keep_what_is_done(self);
    return choose_hosts(self, err);
}

/* ---- All of it ---------------------------------------------------------------------------------------- */

/* That the hostfile can be read, before mpirun says less well that it cannot. */
static trm_status check_hosts(const launch *self, trm_err *err)
{
    trm_hosts hosts;
    trm_status status = trm_hosts_init(&hosts, self->options->hosts, self->options->hostfile, err);
    if (status == TRM_OK)
        trm_hosts_close(&hosts);
    return status;
}

static trm_status run(launch *self, trm_err *err)
{
    trm_status status = check_hosts(self, err);
    if (status == TRM_OK)
        status = catch_signals(self, err);
    stat_success(self, &self->success_then);
    unsetenv(TRM_KEEP_VARIABLE);
    if (status == TRM_OK)
        status = run_once(self, err);
    for (uint32_t done = 0; status == TRM_OK && may_go_again(self) && done < self->options->relaunches;
         done++) {
        status = prepare_again(self, done, err);
        if (status == TRM_OK && !self->interrupted)
            status = run_once(self, err);
        if (status == TRM_AGAIN) {
            trm_warn("%s", err->text);
            status = TRM_OK;
        }
    }
    if (status == TRM_OK && is_lost(self))
        wait_for_ranks(self); /* "the same command goes on" is true at once */
    return status;
}

static int exit_code(launch *self)
{
    char how[128];
    uint32_t relaunches = self->options->relaunches;
    if (self->result >= 0)
        return self->result;
    if (self->interrupted) {
        trm_error("stopped before the job could say so; the same command goes on with it");
        return TRM_EXIT_INTERRUPTED;
    }
    say_how(self, how);
    if (!is_lost(self))
        trm_error("mpirun could not be started: %s", self->command.path);
    else if (relaunches && !self->stuck)
        trm_error("%s, %u relaunch%s made; the same command goes on with it", how, relaunches,
                  relaunches == 1 ? " was" : "es were");
    else
        trm_error("%s; the same command goes on with it", how);
    return TRM_EXIT_LAUNCH;
}

int trm_launch(const trm_options *options, int argc, char **argv)
{
    trm_err err = {""};
    launch *self = calloc(1, sizeof *self);
    if (!self) {
        trm_error("no memory to start mpirun");
        return TRM_EXIT_LAUNCH;
    }
    *self = (launch){.options = options,
                     .ranks = options->ranks,
                     .result = -1,
                     .out_fd = -1,
                     .err_fd = -1,
                     .signal_fd = -1,
                     .hostfile_fd = -1};
    trm_diag_configure(options->spec.quiet     ? TRM_DIAG_ERROR
                       : options->spec.verbose ? TRM_DIAG_DEBUG
                                               : TRM_DIAG_INFO,
                       -1);
    trm_status status = trm_mpirun_init(&self->command, options, argc, argv, &err);
    if (status == TRM_OK)
        status = run(self, &err);
    if (status != TRM_OK)
        trm_error("%s", err.text);
    int code = status == TRM_OK ? exit_code(self) : (int)trm_exit_code_of(status);
    close_fd(&self->signal_fd);
    close_fd(&self->hostfile_fd);
    free(self->hosts);
    free(self);
    return code;
}
