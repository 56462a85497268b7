/* From a fresh child of the supervisor to a process that may run user code. */
#include "config.h" /* system extensions, before any header of the system */

#include "workers/executor.h"

#include "runtime/diag.h"
#include "workers/descriptors.h"

#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define FILES_MAX 65536u          /* a merge has many runs open */
#define SIGNAL_STACK_BYTES 65536u /* unwinding needs some */
#define BACKTRACE_MAX 32
#define STATM_FIELDS 6u
#define OOM_SCORE "500" /* the system shall end an executor rather than a rank */

/* ---- Descriptors and signals --------------------------------------------------- */

/* 0 /dev/null · 1, 2 what kernels print · 3 orders · 4 wakes. First they are moved out of
 * the way of each other. */
static void keep_own_descriptors(trm_executor_args *args)
{
    int null_fd = open("/dev/null", O_RDONLY);
    int own[] = {null_fd, args->output_fd, args->output_fd, args->order_fd, args->wake_fd};
    enum { OWN = sizeof own / sizeof own[0] };
    for (int i = 0; i < OWN; i++) {
        own[i] = fcntl(own[i], F_DUPFD, OWN); /* no higher: the limit of descriptors may be low */
        if (own[i] < 0)
            _exit(127);
    }
    for (int i = 0; i < OWN; i++)
        if (dup2(own[i], i) < 0)
            _exit(127);
    static const int kept[] = {0, 1, 2, 3, 4};
    trm_descriptors_keep_only(kept, OWN);
    /* A program that a kernel starts gets the three standard ones only. */
    fcntl(3, F_SETFD, FD_CLOEXEC);
    fcntl(4, F_SETFD, FD_CLOEXEC);
    args->output_fd = STDERR_FILENO;
    args->order_fd = 3;
    args->wake_fd = 4;
}

static void reset_signals(void)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    for (int number = 1; number < NSIG; number++)
        sigaction(number, &action, NULL); /* fails for SIGKILL, SIGSTOP and libc's own */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* ---- Limits --------------------------------------------------------------------- */

/* From /proc/self/statm, in pages: field 2 is what is resident, 3 what of that is of files or shared, 6 data
 * and stack. Used in signal handlers. */
static void note_memory(trm_fault *out)
{
    char text[256];
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t len = read(fd, text, sizeof text - 1);
    close(fd);
    uint64_t pages[STATM_FIELDS] = {0};
    unsigned field = 0;
    for (ssize_t i = 0; i < len && field < STATM_FIELDS; i++) {
        if (text[i] == ' ')
            field++;
        else if (text[i] >= '0' && text[i] <= '9')
            pages[field] = pages[field] * 10 + (uint64_t)(text[i] - '0');
    }
    out->data_bytes = pages[5] * 4096u;
    out->used_bytes = pages[1] > pages[2] ? (pages[1] - pages[2]) * 4096u : 0;
}

uint64_t trm_executor_data_limit_bytes(uint64_t memory_bytes)
{
#ifdef TRM_SANITIZED
    (void)memory_bytes;
    return 0;
#else
    return memory_bytes + TRM_EXECUTOR_SLACK_BYTES;
#endif
}

static void set_limits(const trm_executor_args *args)
{
    struct rlimit none = {0, 0}, files, data;
    setrlimit(RLIMIT_CORE, &none);
    if (!getrlimit(RLIMIT_NOFILE, &files) && files.rlim_cur < FILES_MAX) {
        files.rlim_cur = files.rlim_max < FILES_MAX ? files.rlim_max : FILES_MAX;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    uint64_t bytes = trm_executor_data_limit_bytes(args->place.memory_bytes);
    if (bytes && !getrlimit(RLIMIT_DATA, &data) && data.rlim_max >= bytes) {
        data.rlim_cur = bytes;
        setrlimit(RLIMIT_DATA, &data);
    }
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (write(fd, OOM_SCORE, strlen(OOM_SCORE)) < 0)
            trm_debug("oom_score_adj: %s", strerror(errno)); /* nothing depends on it */
        close(fd);
    }
}

void trm_executor_prepare(trm_executor_args *args)
{
    /* The parent may have died between the fork and the prctl. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != args->parent)
        _exit(0);
    setpgid(0, 0); /* what a kernel forks is ended with it */
    reset_signals();
    char name[16];
    snprintf(name, sizeof name, "trireme-x%u", args->place.executor);
    prctl(PR_SET_NAME, name);

    trm_err err;
    trm_status bound = trm_topology_bind(args->topology, args->grain, args->place.executor, &err);
    keep_own_descriptors(args);
    setvbuf(stdout, NULL, _IOLBF, 0); /* what was printed before a crash is not lost */
    if (bound)
        trm_warn("%s; it runs unbound", err.text);
    set_limits(args);
    trm_lanes_keep_only(&args->lanes, args->place.executor);
}

/* ---- The end of a kernel ----------------------------------------------------------- */

static trm_fault *noted; /* in the lane */
static pid_t noting_pid; /* a child that a kernel forks is not this executor */

static void note(int number, uint64_t address, int error)
{
    if (!noted || getpid() != noting_pid)
        return;
    note_memory(noted);
    noted->refused = error == ENOMEM;
    noted->address = address;
    __atomic_store_n(&noted->signal, (uint32_t)number, __ATOMIC_RELEASE);
}

/* Says where, then dies of the same signal: it is blocked until the handler returns. */
static void on_fault(int number, siginfo_t *info, void *context)
{
    int error = errno;
    (void)context;
    note(number, (uint64_t)(uintptr_t)info->si_addr, error);
    static const char title[] = "stack, innermost first:\n";
    void *frames[BACKTRACE_MAX];
    int count = backtrace(frames, BACKTRACE_MAX);
    if (count > 2 && write(STDERR_FILENO, title, sizeof title - 1) > 0)
        backtrace_symbols_fd(frames + 2, count - 2, STDERR_FILENO); /* this handler and its frame */
    signal(number, SIG_DFL);
    raise(number);
}

static void on_exit_called(void)
{
    if (!noted || getpid() != noting_pid)
        return;
    int error = errno;
    note(0, 0, error);
    noted->called_exit = 1;
}

void trm_executor_watch_faults(trm_fault *fault)
{
    noted = fault;
    noting_pid = getpid();
    atexit(on_exit_called);
    static char stack[SIGNAL_STACK_BYTES];
    stack_t alternative = {.ss_sp = stack, .ss_size = sizeof stack};
    void *frame;
    backtrace(&frame, 1); /* loads the unwinder now: it allocates */
    sigaltstack(&alternative, NULL);
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        sigaction(numbers[i], &action, NULL);
}
