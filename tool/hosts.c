#include "config.h" /* system extensions, before any header of the system */

#include "tool/hosts.h"

#include "jobs/params.h"
#include "runtime/clock.h"
#include "runtime/fs.h"
#include "tool/mpirun.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAME_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-:@"

/* ---- What is written -------------------------------------------------------------------------- */

/* One entry of a list or line of a file, and the host in it. */
typedef struct host_entry {
    const char *text; /* the whole of it, without what separates it from the next */
    size_t len;
    char name[TRM_HOST_NAME_BYTES]; /* "": none that can be asked */
    uint32_t slots;                 /* 0: it is not said */
    bool is_host;                   /* no comment, no empty line */
} host_entry;

/* A name that begins with '-' would be an option of the agent. */
static void set_name(host_entry *out, const char *name, size_t len)
{
    out->name[0] = 0;
    if (len == 0 || len >= sizeof out->name || name[0] == '-' || name[0] == ':')
        return;
    for (size_t i = 0; i < len; i++)
        if (!name[i] || !strchr(NAME_CHARACTERS, name[i]))
            return;
    memcpy(out->name, name, len);
    out->name[len] = 0;
}

static uint32_t read_slots(const char *digits, size_t len)
{
    uint32_t slots = 0;
    for (size_t i = 0; i < len && digits[i] >= '0' && digits[i] <= '9' && slots < TRM_RANKS_MAX; i++)
        slots = slots * 10 + (uint32_t)(digits[i] - '0');
    return slots;
}

/* NAME[:SLOTS] up to a comma; a name alone is one slot. */
static bool next_of_list(const char **at, host_entry *out)
{
    if (!*at || !**at)
        return false;
    const char *text = *at;
    size_t len = strcspn(text, ","), name = strcspn(text, ":,");
    *out = (host_entry){.text = text, .len = len, .is_host = len > 0};
    set_name(out, text, name);
    out->slots = name < len ? read_slots(text + name + 1, len - name - 1) : 1;
    *at = text + len + (text[len] == ',');
    return true;
}

/* A line; "slots=N" and "slots = N" are both right. */
static void read_line(host_entry *out)
{
    const char *end = out->text + out->len, *hash = memchr(out->text, '#', out->len);
    end = hash ? hash : end;
    const char *name = out->text;
    while (name < end && strchr(" \t\r", *name))
        name++;
    const char *after = name;
    while (after < end && !strchr(" \t\r", *after))
        after++;
    out->is_host = after > name;
    set_name(out, name, (size_t)(after - name));
    for (const char *word = after; out->is_host && word + 6 <= end; word++) {
        if (strncmp(word, "slots", 5) != 0 || !strchr(" \t", word[-1]))
            continue;
        word += 5;
        while (word < end && strchr(" \t=", *word))
            word++;
        out->slots = read_slots(word, (size_t)(end - word));
        return;
    }
}

static bool next_of_file(const trm_hosts *self, size_t *at, host_entry *out)
{
    if (!self->file || *at >= self->file_len)
        return false;
    const char *text = self->file + *at, *newline = memchr(text, '\n', self->file_len - *at);
    size_t len = newline ? (size_t)(newline - text) : self->file_len - *at;
    *out = (host_entry){.text = text, .len = len};
    read_line(out);
    *at += len + 1;
    return true;
}

/* ---- Names ------------------------------------------------------------------------------------ */

static trm_host *find(const trm_hosts *self, const char *name)
{
    for (size_t i = 0; i < self->count; i++)
        if (strcmp(self->hosts[i].name, name) == 0)
            return &self->hosts[i];
    return NULL;
}

static bool is_left(const trm_hosts *self, const host_entry *entry)
{
    const trm_host *host = entry->name[0] ? find(self, entry->name) : NULL;
    return !host || host->answers;
}

static void add(trm_hosts *self, const host_entry *entry)
{
    if (!entry->name[0] || self->count == TRM_HOSTS_MAX || find(self, entry->name))
        return;
    trm_host *host = &self->hosts[self->count++];
    host->answers = true;
    memcpy(host->name, entry->name, sizeof host->name);
}

trm_status trm_hosts_init(trm_hosts *self, const char *list, const char *hostfile, trm_err *err)
{
    host_entry entry;
    uint8_t *text = NULL;
    *self = (trm_hosts){.list = list};
    if (hostfile) {
        trm_status status =
            trm_fs_read_whole(trm_fs_posix(), hostfile, TRM_HOSTFILE_BYTES_MAX, &text, &self->file_len, err);
        if (status != TRM_OK)
            return TRM_EINPUT;
    }
    self->file = (char *)text;
    self->hosts = calloc(TRM_HOSTS_MAX, sizeof *self->hosts);
    if (!self->hosts) {
        trm_hosts_close(self);
        return trm_err_set(err, TRM_ENOMEM, "no memory for the hosts");
    }
    for (const char *at = list; next_of_list(&at, &entry);)
        add(self, &entry);
    for (size_t at = 0; next_of_file(self, &at, &entry);)
        add(self, &entry);
    return TRM_OK;
}

void trm_hosts_close(trm_hosts *self)
{
    free(self->file);
    free(self->hosts);
    *self = (trm_hosts){0};
}

/* ---- What is left ----------------------------------------------------------------------------- */

static bool add_slots(uint64_t *sum, const host_entry *entry)
{
    *sum += entry->slots;
    return entry->slots != 0;
}

/* --host chooses among what a hostfile has, so that it alone counts when both are given. */
uint32_t trm_hosts_slots(const trm_hosts *self, bool all)
{
    host_entry entry;
    uint64_t sum = 0;
    bool known = true;
    for (const char *at = self->list; next_of_list(&at, &entry);)
        if (entry.is_host && (all || is_left(self, &entry)))
            known &= add_slots(&sum, &entry);
    for (size_t at = 0; !self->list && next_of_file(self, &at, &entry);)
        if (entry.is_host && (all || is_left(self, &entry)))
            known &= add_slots(&sum, &entry);
    return known && sum < UINT32_MAX ? (uint32_t)sum : 0;
}

char *trm_hosts_rest_of_list(const trm_hosts *self)
{
    host_entry entry;
    char *out = calloc(1, strlen(self->list) + 2), *end = out;
    for (const char *at = self->list; out && next_of_list(&at, &entry);) {
        if (!is_left(self, &entry))
            continue;
        if (end > out)
            *end++ = ',';
        memcpy(end, entry.text, entry.len);
        end += entry.len;
    }
    return out;
}

char *trm_hosts_rest_of_file(const trm_hosts *self, size_t *len)
{
    host_entry entry;
    char *out = malloc(self->file_len + 1), *end = out;
    for (size_t at = 0; out && next_of_file(self, &at, &entry);) {
        if (!is_left(self, &entry))
            continue;
        memcpy(end, entry.text, entry.len);
        end += entry.len;
        *end++ = '\n';
    }
    *len = out ? (size_t)(end - out) : 0;
    return out;
}

/* ---- Asking ----------------------------------------------------------------------------------- */

unsigned trm_agent_words(char *text, char *words[TRM_AGENT_WORDS_MAX])
{
    char program[PATH_MAX];
    unsigned count = 0;
    for (char *save = NULL, *one = strtok_r(text, ":", &save); one; one = strtok_r(NULL, ":", &save)) {
        char *within = NULL;
        count = 0;
        for (char *word = strtok_r(one, " \t", &within); word && count < TRM_AGENT_WORDS_MAX;
             word = strtok_r(NULL, " \t", &within))
            words[count++] = word;
        if (count && trm_on_path(words[0], program))
            return count;
    }
    return count; /* none is there: the last is as good as any */
}

/* What --mpirun-option or the environment says; NULL: nothing. */
static const char *given_agent(const trm_options *options)
{
    static const char name[] = "plm_rsh_agent";
    for (unsigned i = 1; i + 1 < options->mpirun_options_count; i++)
        if (strcmp(options->mpirun_options[i], name) == 0 && strstr(options->mpirun_options[i - 1], "-mca"))
            return options->mpirun_options[i + 1];
    const char *value = getenv("OMPI_MCA_plm_rsh_agent");
    return value && value[0] ? value : NULL;
}

static bool same_address(const struct sockaddr *a, const struct sockaddr *b)
{
    if (!a || !b || a->sa_family != b->sa_family)
        return false;
    if (a->sa_family == AF_INET)
        return memcmp(&((const struct sockaddr_in *)(const void *)a)->sin_addr,
                      &((const struct sockaddr_in *)(const void *)b)->sin_addr, sizeof(struct in_addr)) == 0;
    return a->sa_family == AF_INET6 &&
           memcmp(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr,
                  &((const struct sockaddr_in6 *)(const void *)b)->sin6_addr, sizeof(struct in6_addr)) == 0;
}

/* As mpirun knows its own host, which it starts no agent for. May ask name servers, unless
 * `flags` say otherwise. */
static bool is_this_host(const char *name, int flags)
{
    char own[TRM_HOST_NAME_BYTES] = "";
    gethostname(own, sizeof own - 1);
    if (strcmp(name, "localhost") == 0 || strcmp(name, own) == 0)
        return true;
    struct addrinfo *found = NULL, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags};
    struct ifaddrs *here = NULL;
    bool same = false;
    if (getaddrinfo(name, NULL, &hints, &found) == 0 && getifaddrs(&here) == 0)
        for (const struct addrinfo *at = found; at && !same; at = at->ai_next)
            for (const struct ifaddrs *own_at = here; own_at && !same; own_at = own_at->ifa_next)
                same = same_address(at->ai_addr, own_at->ifa_addr);
    if (found)
        freeaddrinfo(found);
    freeifaddrs(here);
    return same;
}

static _Noreturn void be_agent(const char *name, const trm_options *options)
{
    char text[4096] = "ssh -o BatchMode=yes -o ConnectTimeout=5";
    char own_name[TRM_HOST_NAME_BYTES], *words[TRM_AGENT_WORDS_MAX + 3];
    const char *given = given_agent(options);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (given)
        snprintf(text, sizeof text, "%s", given);
    unsigned count = trm_agent_words(text, words);
    snprintf(own_name, sizeof own_name, "%s", name);
    words[count] = own_name;
    words[count + 1] = (char[]){"true"};
    words[count + 2] = NULL;
    if (count)
        execvp(words[0], words);
    _exit(1);
}

/* The leader of a group with its agent. A name server that is slow shall not make a host that answers
 * look dead: it is asked last. */
static _Noreturn void be_asker(const char *name, const trm_options *options)
{
    sigset_t none;
    int status;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpgid(0, 0);
    int null = open("/dev/null", O_RDWR);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 ||
        dup2(null, STDERR_FILENO) < 0)
        _exit(1);
    const char *address = strrchr(name, '@') ? strrchr(name, '@') + 1 : name;
    if (is_this_host(address, AI_NUMERICHOST))
        _exit(0);
    pid_t agent = fork();
    if (agent == 0)
        be_agent(name, options);
    if (agent > 0 && waitpid(agent, &status, 0) == agent && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        _exit(0);
    _exit(is_this_host(address, 0) ? 0 : 1);
}

typedef struct asking {
    pid_t pid[TRM_HOSTS_AT_ONCE]; /* 0: it has answered, or never was */
    trm_host *host;               /* of the first */
    unsigned count, left;
} asking;

static void take_answers(asking *self)
{
    for (unsigned i = 0; i < self->count; i++) {
        int status;
        if (!self->pid[i] || waitpid(self->pid[i], &status, WNOHANG) != self->pid[i])
            continue;
        self->host[i].answers = WIFEXITED(status) && WEXITSTATUS(status) == 0;
        self->pid[i] = 0;
        self->left--;
    }
}

/* Who has not answered by now does not. The group first: an agent may be a script. */
static void give_up(asking *self)
{
    for (unsigned i = 0; i < self->count; i++) {
        if (!self->pid[i])
            continue;
        kill(-self->pid[i], SIGKILL);
        kill(self->pid[i], SIGKILL);
        while (waitpid(self->pid[i], NULL, 0) < 0 && errno == EINTR)
            continue;
        self->host[i].answers = false;
    }
}

/* False: a signal has come that is no child's. */
static bool wait_for_answers(asking *self, int signal_fd)
{
    uint64_t until_ns = trm_clock_now_ns() + TRM_HOSTS_WAIT_MS * TRM_NS_PER_MS;
    struct signalfd_siginfo info;
    for (;;) {
        take_answers(self);
        uint64_t now_ns = trm_clock_now_ns();
        if (!self->left || now_ns >= until_ns)
            return true;
        struct pollfd fd = {.fd = signal_fd, .events = POLLIN};
        poll(&fd, 1, (int)((until_ns - now_ns) / TRM_NS_PER_MS + 1));
        while (read(signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
            if (info.ssi_signo != SIGCHLD)
                return false;
    }
}

bool trm_hosts_ask(trm_hosts *self, const trm_options *options, int signal_fd)
{
    bool undisturbed = true;
    for (size_t at = 0; at < self->count && undisturbed; at += TRM_HOSTS_AT_ONCE) {
        asking now = {.host = self->hosts + at};
        now.count = (unsigned)(self->count - at < TRM_HOSTS_AT_ONCE ? self->count - at : TRM_HOSTS_AT_ONCE);
        fflush(NULL);
        for (unsigned i = 0; i < now.count; i++) {
            pid_t pid = fork();
            if (pid == 0)
                be_asker(now.host[i].name, options);
            now.pid[i] = pid > 0 ? pid : 0;
            now.left += pid > 0;
        }
        undisturbed = wait_for_answers(&now, signal_fd);
        give_up(&now);
    }
    return undisturbed;
}
