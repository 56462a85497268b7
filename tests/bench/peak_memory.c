/* Runs a command and says how much memory each of its processes had at most.
 *
 *   peak_memory REPORT COMMAND [ARGUMENT…]
 *
 * Every process that descends from the command is sampled each SAMPLE_MS until it ends. The
 * report has a line a process, "pid parent rank own_kib pss_kib hwm_kib name":
 *
 *   own   the most that was seen of anonymous and shared memory, a page that n processes have
 *         counted as 1/n (Pss_Anon + Pss_Shmem of smaps_rollup): what the system cannot get
 *         back without swapping
 *   pss   the same with mapped files, whose pages are the page cache's
 *   hwm   what the kernel saw of all pages mapped at any time, shared ones counted whole
 *         (VmHWM): exact between samples, and never too small
 *   rank  OMPI_COMM_WORLD_RANK of its environment; - where there is none
 *
 * Exits as the command does.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SAMPLE_MS 10
#define PROCESSES_MAX 4096u
#define NAME_BYTES 64u

typedef struct process {
    int pid, parent, rank;
    long own_kib, pss_kib, hwm_kib;
    char name[NAME_BYTES];
} process;

static process known[PROCESSES_MAX];
static size_t known_count;

static void fail(const char *what)
{
    fprintf(stderr, "peak_memory: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* /proc/PID/NAME into `out`, terminated; false: the process is gone, or not to be read. */
static bool read_proc(int pid, const char *name, char *out, size_t room, size_t *len)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    FILE *in = fopen(path, "r");
    if (!in)
        return false;
    *len = fread(out, 1, room - 1, in);
    out[*len] = 0;
    fclose(in);
    return *len > 0;
}

static long field(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    return at ? atol(at + strlen(name)) : 0;
}

static void keep_larger(long *kept, long now)
{
    if (now > *kept)
        *kept = now;
}

static int rank_of(int pid)
{
    static char environment[1u << 18];
    size_t len;
    if (!read_proc(pid, "environ", environment, sizeof environment, &len))
        return -1;
    static const char name[] = "OMPI_COMM_WORLD_RANK=";
    for (const char *at = environment; at < environment + len; at += strlen(at) + 1)
        if (strncmp(at, name, sizeof name - 1) == 0)
            return atoi(at + sizeof name - 1);
    return -1;
}

static process *find(int pid)
{
    for (size_t i = 0; i < known_count; i++)
        if (known[i].pid == pid)
            return &known[i];
    return NULL;
}

static void sample(process *self)
{
    char text[8192];
    size_t len;
    if (read_proc(self->pid, "status", text, sizeof text, &len)) {
        sscanf(text, "Name:\t%63[^\n]", self->name);
        keep_larger(&self->hwm_kib, field(text, "\nVmHWM:"));
    }
    if (read_proc(self->pid, "smaps_rollup", text, sizeof text, &len)) {
        keep_larger(&self->own_kib, field(text, "\nPss_Anon:") + field(text, "\nPss_Shmem:"));
        keep_larger(&self->pss_kib, field(text, "\nPss:"));
    }
    if (self->rank < 0)
        self->rank = rank_of(self->pid);
}

static int parent_of(int pid)
{
    char text[1024];
    size_t len;
    if (!read_proc(pid, "stat", text, sizeof text, &len))
        return -1;
    const char *after = strrchr(text, ')');
    int parent = -1;
    return after && sscanf(after, ") %*c %d", &parent) == 1 ? parent : -1;
}

/* Takes in the children of what is known, as long as there are new ones; a process whose
 * parent has died stays known. */
static void find_children(void)
{
    DIR *proc = opendir("/proc");
    if (!proc)
        fail("/proc");
    for (const struct dirent *entry; (entry = readdir(proc));) {
        int pid = atoi(entry->d_name), parent = pid > 0 ? parent_of(pid) : -1;
        if (pid <= 0 || find(pid) || !find(parent) || known_count == PROCESSES_MAX)
            continue;
        known[known_count++] = (process){.pid = pid, .parent = parent, .rank = -1};
    }
    closedir(proc);
}

static void sample_all(void)
{
    find_children();
    for (size_t i = 0; i < known_count; i++)
        sample(&known[i]);
}

static void write_report(const char *path)
{
    FILE *out = fopen(path, "w");
    if (!out)
        fail(path);
    for (size_t i = 0; i < known_count; i++) {
        const process *p = &known[i];
        char rank[16] = "-";
        if (p->rank >= 0)
            snprintf(rank, sizeof rank, "%d", p->rank);
        fprintf(out, "%d %d %s %ld %ld %ld %s\n", p->pid, p->parent, rank, p->own_kib, p->pss_kib, p->hwm_kib,
                p->name);
    }
    if (fclose(out) != 0)
        fail(path);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: peak_memory REPORT COMMAND [ARGUMENT...]\n");
        return 2;
    }
    pid_t child = fork();
    if (child < 0)
        fail("cannot fork");
    if (child == 0) {
        execvp(argv[2], argv + 2);
        fail(argv[2]);
    }
    known[known_count++] = (process){.pid = child, .parent = getpid(), .rank = -1};
    int status;
    const struct timespec pause = {0, SAMPLE_MS * 1000000L};
    while (waitpid(child, &status, WNOHANG) == 0) {
        sample_all();
        nanosleep(&pause, NULL);
    }
    write_report(argv[1]);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
