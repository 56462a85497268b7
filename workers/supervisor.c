/* See supervisor.h. One loop around poll; nothing in it blocks but the end. */
#include "config.h" /* system extensions, before any header of the system */

#include "workers/supervisor.h"

#include "runtime/clock.h"
#include "workers/descriptors.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUTPUT_READ_BYTES 16384u
#define OUTPUT_READS_MAX 8u /* of one pipe in one turn: more than a pipe holds */
#define TICK_MS_MIN 5u      /* between two looks at the time of running attempts */
#define TICK_MS_MAX 250u
#define END_WAIT_MS 5000u /* for processes that were killed to be gone */
#define ADOPTED_READ_BYTES 4096u

typedef enum life { LIFE_ALIVE = 1, LIFE_DEAD, LIFE_TOLD, LIFE_WAITING } life;

typedef struct child {
    life life;
    pid_t pid;
    uint64_t generation;
    int output_fd; /* of the pipe; -1: none */
    int file_fd;   /* what was printed, in scratch; -1: not begun */
    uint64_t file_bytes;
    unsigned deaths;     /* in a row without an order finished */
    uint64_t respawn_ns; /* LIFE_WAITING */
    bool timed_out, condemned;
    char why[256];      /* condemned */
    trm_crew_died died; /* LIFE_DEAD: to be sent */
} child;

typedef struct supervisor {
    const trm_supervisor_args *args;
    child *children;
    int signal_fd;
    pid_t own_pid;
    trm_writer out;
} supervisor;

static trm_lane *lane_of(const supervisor *self, unsigned index)
{
    return &self->args->lanes.lane[index];
}

/* ---- What kernels print -------------------------------------------------------------- */

static void write_file(supervisor *self, unsigned index, const char *bytes, size_t len)
{
    child *at = &self->children[index];
    if (at->file_bytes >= TRM_OUTPUT_FILE_BYTES_MAX)
        return;
    if (at->file_fd < 0) {
        char path[TRM_SCRATCH_PATH_BYTES + 32];
        snprintf(path, sizeof path, "%s/executor-%u", self->args->scratch->output, index);
        at->file_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (at->file_fd < 0)
            return; /* the last words are kept in the lane all the same */
    }
    if (len > TRM_OUTPUT_FILE_BYTES_MAX - at->file_bytes)
        len = TRM_OUTPUT_FILE_BYTES_MAX - at->file_bytes;
    ssize_t wrote = write(at->file_fd, bytes, len);
    at->file_bytes += wrote > 0 ? (uint64_t)wrote : len; /* a full disk is not tried for ever */
}

/* Moves what is in the pipe to the lane and the file. */
static void read_output(supervisor *self, unsigned index)
{
    child *at = &self->children[index];
    trm_lane *lane = lane_of(self, index);
    char bytes[OUTPUT_READ_BYTES];
    for (unsigned i = 0; at->output_fd >= 0 && i < OUTPUT_READS_MAX; i++) {
        __atomic_store_n(&lane->words_busy, 1, __ATOMIC_SEQ_CST);
        ssize_t len = read(at->output_fd, bytes, sizeof bytes);
        int error = errno;
        if (len > 0)
            trm_lane_words_add(lane, bytes, (size_t)len);
        __atomic_store_n(&lane->words_busy, 0, __ATOMIC_SEQ_CST);
        if (len > 0) {
            write_file(self, index, bytes, (size_t)len);
        } else {
            if (len == 0 || (error != EAGAIN && error != EINTR)) {
                close(at->output_fd);
                at->output_fd = -1;
            }
            return;
        }
    }
}

/* ---- Death ------------------------------------------------------------------------------ */

static void end_child(const child *at, int number)
{
    kill(-at->pid, number); /* with what the kernel has forked */
    kill(at->pid, number);  /* in case it has left its group */
}

/* The sentence and the last words, to be sent when there is room. */
static void bury(supervisor *self, unsigned index, const trm_err *err, trm_status status)
{
    child *at = &self->children[index];
    const trm_lane *lane = lane_of(self, index);
    at->life = LIFE_DEAD;
    at->deaths = __atomic_load_n(&lane->board.orders_done, __ATOMIC_RELAXED) ? 0 : at->deaths + 1;
    at->died =
        (trm_crew_died){.executor = index, .generation = at->generation, .status = status, .err = *err};
    trm_lane_words(lane, lane->words_since, at->died.words, sizeof at->died.words);
    if (at->output_fd >= 0)
        close(at->output_fd);
    at->output_fd = -1;
}

static void reap_child(supervisor *self, unsigned index)
{
    child *at = &self->children[index];
    struct rusage usage;
    trm_obituary obituary = {.executor = index, .pid = at->pid};
    end_child(at, SIGKILL); /* before it is reaped, so that the number is still its own */
    if (wait4(at->pid, &obituary.wait_status, 0, &usage) != at->pid)
        return;
    read_output(self, index);
    obituary.peak_bytes = (uint64_t)usage.ru_maxrss * 1024;
    obituary.memory_bytes = self->args->executor_memory_bytes;
    obituary.timeout_ms = at->timed_out ? self->args->spec->task_timeout_ms : 0;
    obituary.condemned = at->condemned ? at->why : NULL;
    trm_err err;
    trm_status status = trm_obituary_write(&obituary, lane_of(self, index), &err);
    lane_of(self, index)->pid = 0;
    bury(self, index, &err, status);
}

static void reap(supervisor *self)
{
    for (;;) {
        siginfo_t info = {.si_pid = 0};
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) || info.si_pid == 0)
            return;
        unsigned index = 0;
        while (index < self->args->executors &&
               (self->children[index].life != LIFE_ALIVE || self->children[index].pid != info.si_pid))
            index++;
        if (index < self->args->executors)
            reap_child(self, index);
        else
            waitpid(info.si_pid, NULL, 0); /* adopted: a kernel had left it behind */
    }
}

static void send_deaths(supervisor *self)
{
    for (unsigned i = 0; i < self->args->executors; i++) {
        child *at = &self->children[i];
        if (at->life != LIFE_DEAD)
            continue;
        trm_writer_reset(&self->out);
        trm_crew_died_encode(&at->died, &self->out);
        if (!trm_writer_ok(&self->out))
            return; /* no memory: again at the next turn */
        if (send(self->args->rank_fd, self->out.data, self->out.len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
            return; /* full: the rank is slow; gone: seen by the next poll */
        at->life = LIFE_TOLD;
    }
}

/* ---- Birth ------------------------------------------------------------------------------ */

/* Orders for the one before are still in the socket: its rank counts them as lost. */
static void drain_orders(int fd)
{
    uint8_t bytes[TRM_CREW_DATAGRAM_BYTES_MAX];
    while (recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        continue;
}

static _Noreturn void become_executor(supervisor *self, unsigned index, int output_fd)
{
    const trm_supervisor_args *args = self->args;
    lane_of(self, index)->pid = (uint64_t)getpid(); /* before it can say READY */
    trm_executor_args executor = {
        .place = {.spec = args->spec,
                  .run_store = args->scratch->runs,
                  .executor = index,
                  .memory_bytes = args->executor_memory_bytes},
        .ops = args->ops,
        .topology = args->topology,
        .grain = (trm_grain)args->spec->bind,
        .lanes = args->lanes,
        .generation = self->children[index].generation,
        .order_fd = args->order_fds[index],
        .wake_fd = args->wake_fd,
        .output_fd = output_fd,
        .parent = self->own_pid,
    };
    trm_executor_main(&executor);
}

static void spawn(supervisor *self, unsigned index)
{
    child *at = &self->children[index];
    at->timed_out = at->condemned = false;
    drain_orders(self->args->order_fds[index]);
    int ends[2] = {-1, -1};
    pid_t pid = -1;
    if (!pipe2(ends, O_CLOEXEC) && !fcntl(ends[0], F_SETFL, O_NONBLOCK))
        pid = fork();
    if (pid == 0)
        become_executor(self, index, ends[1]);
    int error = errno;
    if (ends[1] >= 0)
        close(ends[1]);
    at->output_fd = ends[0];
    at->pid = pid;
    if (pid < 0) {
        trm_err err;
        trm_status status = trm_err_errno(&err, TRM_ELAUNCH, error, "cannot fork executor %u", index);
        bury(self, index, &err, status);
        return;
    }
    setpgid(pid, pid); /* as the child does: whoever is first */
    at->life = LIFE_ALIVE;
}

static uint64_t respawn_delay_ms(unsigned deaths)
{
    if (deaths < 2)
        return 0;
    uint64_t delay_ms = deaths < 10 ? 5ull << (deaths - 2) : TRM_RESPAWN_DELAY_MS_MAX;
    return delay_ms < TRM_RESPAWN_DELAY_MS_MAX ? delay_ms : TRM_RESPAWN_DELAY_MS_MAX;
}

/* ---- The end ------------------------------------------------------------------------------ */

/* Kills processes that kernels forked and that left their executor's group: being its
 * subreaper, the supervisor is their parent by now. Returns whether there was one. */
static bool kill_adopted(void)
{
    char text[ADOPTED_READ_BYTES + 1];
    int fd = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
    ssize_t len = fd < 0 ? 0 : read(fd, text, ADOPTED_READ_BYTES);
    if (fd >= 0)
        close(fd);
    text[len > 0 ? len : 0] = 0;
    bool found = false;
    for (char *at = text, *end = NULL;; at = end) {
        long pid = strtol(at, &end, 10);
        if (end == at || pid <= 1)
            return found;
        kill((pid_t)pid, SIGKILL);
        found = true;
    }
}

static void signal_all(supervisor *self, int number)
{
    for (unsigned i = 0; i < self->args->executors; i++)
        if (self->children[i].life == LIFE_ALIVE)
            end_child(&self->children[i], number);
}

/* Waits until there is no child, at most `wait_ms`. */
static bool wait_for_all(supervisor *self, uint64_t wait_ms)
{
    uint64_t end_ns = trm_clock_now_ns() + wait_ms * TRM_NS_PER_MS;
    for (;;) {
        reap(self);
        if (waitid(P_ALL, 0, &(siginfo_t){.si_pid = 0}, WEXITED | WNOHANG | WNOWAIT) && errno == ECHILD)
            return true;
        if (trm_clock_now_ns() >= end_ns)
            return false;
        struct pollfd signals = {.fd = self->signal_fd, .events = POLLIN};
        struct signalfd_siginfo drained;
        if (poll(&signals, 1, 10) > 0 && read(self->signal_fd, &drained, sizeof drained) < 0)
            return false;
    }
}

static _Noreturn void leave(supervisor *self, uint64_t grace_ms)
{
    if (grace_ms > 0) {
        signal_all(self, SIGTERM);
        wait_for_all(self, grace_ms);
    }
    signal_all(self, SIGKILL);
    uint64_t end_ns = trm_clock_now_ns() + END_WAIT_MS * TRM_NS_PER_MS;
    while (!wait_for_all(self, 20) && trm_clock_now_ns() < end_ns)
        kill_adopted();
    /* The rank may have been ended when the job was done, by others. */
    bool keep = __atomic_load_n(self->args->lanes.keep_scratch, __ATOMIC_ACQUIRE);
    if (!keep || !trm_scratch_is_kept(self->args->scratch))
        trm_scratch_remove(self->args->scratch, NULL);
    _exit(EXIT_SUCCESS);
}

/* ---- The loop ------------------------------------------------------------------------------ */

static void obey(supervisor *self, const trm_crew_command *command)
{
    if (command->kind == TRM_CREW_KIND_STOP)
        leave(self, command->number);
    if (command->executor >= self->args->executors)
        return;
    child *at = &self->children[command->executor];
    if (command->kind == TRM_CREW_KIND_RESPAWN && at->life == LIFE_TOLD &&
        command->number == at->generation + 1) {
        at->generation++;
        at->respawn_ns = trm_clock_now_ns() + respawn_delay_ms(at->deaths) * TRM_NS_PER_MS;
        at->life = LIFE_WAITING;
    }
    if (command->kind == TRM_CREW_KIND_KILL && at->life == LIFE_ALIVE && command->number == at->generation) {
        at->condemned = true;
        snprintf(at->why, sizeof at->why, "%s", command->text);
        end_child(at, SIGKILL);
    }
}

static void read_rank(supervisor *self)
{
    for (;;) {
        uint8_t bytes[TRM_CREW_DATAGRAM_BYTES_MAX];
        ssize_t len = recv(self->args->rank_fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (len < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (len <= 0)
            leave(self, 0); /* the rank is gone */
        trm_reader in;
        trm_reader_init(&in, bytes, (size_t)len);
        trm_crew_command command;
        trm_crew_command_decode(&command, (trm_crew_kind)trm_get_u8(&in), &in);
        if (trm_reader_done(&in))
            obey(self, &command);
    }
}

/* Ends what runs too long, makes what is due. Returns when it must be called again. */
static uint64_t run_timers(supervisor *self, uint64_t now_ns)
{
    uint64_t timeout_ns = self->args->spec->task_timeout_ms * TRM_NS_PER_MS;
    uint64_t tick_ms = self->args->spec->task_timeout_ms / 8;
    tick_ms = tick_ms < TICK_MS_MIN ? TICK_MS_MIN : tick_ms > TICK_MS_MAX ? TICK_MS_MAX : tick_ms;
    uint64_t next_ns = timeout_ns ? now_ns + tick_ms * TRM_NS_PER_MS : UINT64_MAX;
    for (unsigned i = 0; i < self->args->executors; i++) {
        child *at = &self->children[i];
        uint64_t began_ns = __atomic_load_n(&lane_of(self, i)->board.began_ns, __ATOMIC_ACQUIRE);
        if (at->life == LIFE_ALIVE && timeout_ns && !at->condemned && !at->timed_out && began_ns &&
            began_ns < now_ns && now_ns - began_ns > timeout_ns) {
            at->timed_out = true;
            end_child(at, SIGKILL);
        } else if (at->life == LIFE_WAITING && at->respawn_ns <= now_ns) {
            spawn(self, i);
        } else if (at->life == LIFE_WAITING && at->respawn_ns < next_ns) {
            next_ns = at->respawn_ns;
        }
        if (at->life == LIFE_DEAD && now_ns + TICK_MS_MAX * TRM_NS_PER_MS < next_ns)
            next_ns = now_ns + TICK_MS_MAX * TRM_NS_PER_MS; /* DIED did not go out, or the fork failed */
    }
    return next_ns;
}

static void turn(supervisor *self)
{
    unsigned count = self->args->executors;
    struct pollfd polled[TRM_EXECUTORS_MAX + 2];
    polled[0] = (struct pollfd){.fd = self->args->rank_fd, .events = POLLIN};
    polled[1] = (struct pollfd){.fd = self->signal_fd, .events = POLLIN};
    for (unsigned i = 0; i < count; i++)
        polled[2 + i] = (struct pollfd){.fd = self->children[i].output_fd, .events = POLLIN};
    uint64_t now_ns = trm_clock_now_ns();
    uint64_t next_ns = run_timers(self, now_ns);
    send_deaths(self);
    int wait_ms = next_ns == UINT64_MAX ? -1 : (int)((next_ns - now_ns) / TRM_NS_PER_MS + 1);
    /* A child made by run_timers is polled from the next turn on: look at once. */
    for (unsigned i = 0; i < count; i++)
        if (polled[2 + i].fd != self->children[i].output_fd)
            wait_ms = 0;
    if (poll(polled, count + 2, wait_ms) < 0)
        return;
    if (polled[0].revents)
        read_rank(self);
    for (unsigned i = 0; i < count; i++)
        if (polled[2 + i].revents && polled[2 + i].fd == self->children[i].output_fd)
            read_output(self, i);
    if (polled[1].revents) {
        struct signalfd_siginfo drained;
        if (read(self->signal_fd, &drained, sizeof drained) > 0)
            reap(self);
    }
}

/* In a session of its own: signals of a terminal or a launcher are for the rank, which
 * decides; and a launcher that kills the rank's group leaves the supervisor to clean up. */
static void settle(supervisor *self)
{
    setsid();
    prctl(PR_SET_NAME, "trireme-crew");
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    static const int ignored[] = {SIGINT,  SIGTERM, SIGHUP,  SIGQUIT, SIGPIPE,
                                  SIGALRM, SIGUSR1, SIGUSR2, SIGTSTP};
    for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++)
        signal(ignored[i], SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD);
    sigprocmask(SIG_SETMASK, &blocked, NULL);

    const trm_supervisor_args *args = self->args;
    int kept[TRM_DESCRIPTORS_KEPT_MAX];
    unsigned count = 0;
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null_fd >= 0) {
        dup2(null_fd, STDIN_FILENO);
        dup2(null_fd, STDOUT_FILENO);
    }
    for (int fd = 0; fd <= 2; fd++)
        kept[count++] = fd;
    kept[count++] = args->rank_fd;
    kept[count++] = args->wake_fd;
    kept[count++] = args->scratch->lock_fd;
    for (unsigned i = 0; i < args->executors; i++)
        kept[count++] = args->order_fds[i];
    trm_descriptors_keep_only(kept, count);
    self->signal_fd = signalfd(-1, &blocked, SFD_CLOEXEC | SFD_NONBLOCK);
}

_Noreturn void trm_supervisor_main(const trm_supervisor_args *args)
{
    assert(args->executors <= TRM_EXECUTORS_MAX);
    static supervisor self;
    self.args = args;
    self.own_pid = getpid();
    settle(&self);
    trm_writer_init(&self.out);
    self.children = calloc(args->executors, sizeof *self.children);
    if (self.signal_fd < 0 || !self.children)
        _exit(EXIT_FAILURE); /* the rank sees the end of the socket */
    for (unsigned i = 0; i < args->executors; i++) {
        self.children[i] = (child){.generation = 1, .output_fd = -1, .file_fd = -1};
        spawn(&self, i);
    }
    for (;;)
        turn(&self);
}
