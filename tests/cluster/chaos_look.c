/* What can be seen of a job from outside: its record, the kernel's trace, files, processes. */
#include "config.h" /* system extensions, before any header of the system */

#include "tests/cluster/chaos.h"

#include "runtime/fs.h"
#include "tool/job_status.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define TASKS_MAX 4096u

bool chaos_exists(const char *dir, const char *name)
{
    char path[2 * CHAOS_PATH_BYTES];
    struct stat stat_of;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return lstat(path, &stat_of) == 0;
}

unsigned chaos_parts_in(const char *dir)
{
    DIR *open_dir = opendir(dir);
    unsigned count = 0;
    for (struct dirent *at; open_dir && (at = readdir(open_dir));)
        count += strncmp(at->d_name, "part-", 5) == 0;
    if (open_dir)
        closedir(open_dir);
    return count;
}

/* ---- Processes --------------------------------------------------------------------------------------- */

static size_t read_file(const char *path, char *out, size_t room)
{
    FILE *file = fopen(path, "r");
    size_t len = file ? fread(out, 1, room - 1, file) : 0;
    if (file)
        fclose(file);
    out[len] = 0;
    return len;
}

/* The value of a variable in an environment, or NULL. */
static const char *variable(const char *environment, size_t len, const char *name)
{
    size_t name_len = strlen(name);
    for (const char *at = environment; at < environment + len; at += strlen(at) + 1)
        if (strncmp(at, name, name_len) == 0 && at[name_len] == '=')
            return at + name_len + 1;
    return NULL;
}

/* "pid (name) state parent …", where the name may hold anything. */
static bool read_stat(pid_t pid, chaos_process *out, char *state)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (!read_file(path, text, sizeof text))
        return false;
    char *begin = strchr(text, '('), *end = strrchr(text, ')');
    int parent;
    if (!begin || !end || sscanf(end + 1, " %c %d", state, &parent) != 2)
        return false;
    *end = 0;
    *out = (chaos_process){.pid = pid, .parent = parent, .rank = -1};
    snprintf(out->name, sizeof out->name, "%.*s", (int)sizeof out->name - 1, begin + 1);
    return true;
}

static bool read_process(const chaos_world *world, pid_t pid, chaos_process *out)
{
    static char environment[256 * 1024];
    char path[64], state;
    snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    size_t len = read_file(path, environment, sizeof environment);
    const char *id = variable(environment, len, "TRIREME_TEST_ID");
    if (!id || strcmp(id, world->id) != 0 || !read_stat(pid, out, &state) || state == 'Z' || state == 'X')
        return false;
    const char *rank = variable(environment, len, "OMPI_COMM_WORLD_RANK");
    out->rank = rank ? atoi(rank) : -1;
    const char *host = variable(environment, len, "TRIREME_HOST");
    out->host = host && strncmp(host, "host", 4) == 0 ? (unsigned)atoi(host + 4) : 0;
    return true;
}

unsigned chaos_processes(const chaos_world *world, chaos_process out[CHAOS_PROCESSES_MAX])
{
    DIR *proc = opendir("/proc");
    unsigned count = 0;
    for (struct dirent *at; proc && count < CHAOS_PROCESSES_MAX && (at = readdir(proc));) {
        pid_t pid = atoi(at->d_name);
        if (pid > 0 && pid != getpid())
            count += read_process(world, pid, &out[count]);
    }
    if (proc)
        closedir(proc);
    return count;
}

unsigned chaos_signal(const chaos_world *world, int rank, const char *name, int number)
{
    chaos_process all[CHAOS_PROCESSES_MAX];
    unsigned count = chaos_processes(world, all), sent = 0;
    for (unsigned i = 0; i < count; i++)
        if ((rank < 0 || all[i].rank == rank) && strncmp(all[i].name, name, strlen(name)) == 0)
            sent += kill(all[i].pid, number) == 0;
    return sent;
}

/* A rank is called trireme, as the launcher is, which is of no rank. */
pid_t chaos_find(const chaos_world *world, int rank, const char *name)
{
    chaos_process all[CHAOS_PROCESSES_MAX];
    unsigned count = chaos_processes(world, all);
    for (unsigned i = 0; i < count; i++)
        if (all[i].rank == rank && strcmp(all[i].name, name) == 0)
            return all[i].pid;
    return 0;
}

bool chaos_lives(pid_t pid)
{
    chaos_process process;
    char state;
    return pid > 0 && read_stat(pid, &process, &state) && state != 'Z' && state != 'X';
}

bool chaos_reap(chaos_play *self)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (pid == self->launcher) {
            self->launcher = 0;
            self->wait_status = status;
        }
    return pid == 0;
}

void chaos_kill_all(const chaos_world *world)
{
    chaos_process all[CHAOS_PROCESSES_MAX];
    unsigned count = chaos_processes(world, all);
    for (unsigned i = 0; i < count; i++)
        kill(all[i].pid, SIGKILL);
    while (waitpid(-1, NULL, WNOHANG) > 0)
        continue;
}

/* ---- status.json --------------------------------------------------------------------------------------- */

static void take_rank(const trm_json_doc *doc, const trm_json_value *at, chaos_status *out)
{
    if (out->ranks == CHAOS_RANKS_MAX)
        return;
    chaos_rank *rank = &out->rank[out->ranks++];
    const char *state = trm_json_get_string(doc, at, "state", "");
    rank->pid = (pid_t)trm_json_get_u64(doc, at, "pid", 0);
    rank->voter = trm_json_get_bool(doc, at, "voter", false);
    if (sscanf(trm_json_get_string(doc, at, "host", ""), "host%u", &rank->host) != 1)
        rank->host = 0;
    snprintf(rank->state, sizeof rank->state, "%.15s", state);
}

bool chaos_status_read(const chaos_play *self, chaos_status *out)
{
    trm_json_doc doc;
    uint8_t *bytes;
    size_t len;
    trm_err err;
    *out = (chaos_status){0};
    if (trm_record_read(self->state, trm_fs_posix(), &doc, &bytes, &len, &err) != TRM_OK)
        return false;
    const trm_json_value *record = trm_json_root(&doc);
    out->running = strcmp(trm_json_get_string(&doc, record, "state", ""), "running") == 0;
    out->epoch = trm_json_get_u64(&doc, record, "epoch", 0);
    out->term = trm_json_get_u64(&doc, record, "term", 0);
    out->written_ms = trm_json_get_u64(&doc, record, "written_ms", 0);
    out->failovers = trm_json_get_u64(&doc, record, "failovers", 0);
    out->outputs_lost = trm_json_get_u64(&doc, record, "outputs_lost", 0);
    out->leader = (unsigned)trm_json_get_u64(&doc, record, "leader_rank", 0);
    out->leader_pid = (pid_t)trm_json_get_u64(&doc, record, "leader_pid", 0);
    const trm_json_value *ranks = trm_json_find(&doc, record, "ranks");
    for (const trm_json_value *at = trm_json_first(&doc, ranks); at; at = trm_json_next(&doc, at))
        take_rank(&doc, at, out);
    trm_json_doc_close(&doc);
    free(bytes);
    return true;
}

/* ---- The trace --------------------------------------------------------------------------------------------
 */

void chaos_trace_read(const chaos_play *self, chaos_trace *out)
{
    uint8_t seen[2][TASKS_MAX] = {{0}};
    FILE *file = fopen(self->trace, "r");
    char what;
    unsigned task;
    unsigned long long ms;
    int pid;
    *out = (chaos_trace){0};
    while (file && fscanf(file, " %c %u %llu %d", &what, &task, &ms, &pid) == 4) {
        out->lines++;
        if (task >= TASKS_MAX || what == 'm' || seen[what == 'r'][task])
            continue;
        seen[what == 'r'][task] = 1;
        out->maps += what == 'M';
        out->reduces += what == 'r';
    }
    if (file)
        fclose(file);
}
