/* See machine.h. */
#include "runtime/machine.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY_UNKNOWN_BYTES (1ull << 30)
#define PATH_BYTES 1024
#define LOCAL_RANKS_MAX 65536ul

/* A whole decimal number in the environment; false when it is not there or is none. */
static bool env_number(const char *name, unsigned long *out)
{
    const char *text = getenv(name);
    if (!text || !isdigit((unsigned char)*text))
        return false;
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    /* Slurm writes "4(x2)" and "4,3": the first number is the one of most nodes. */
    if (errno || (*end && *end != '(' && *end != ','))
        return false;
    *out = value;
    return true;
}

void trm_machine_local_rank(uint32_t *local_rank, uint32_t *local_ranks)
{
    static const char *const names[][2] = {
        {"OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"}, /* Open MPI */
        {"MPI_LOCALRANKID", "MPI_LOCALNRANKS"},                       /* MPICH's Hydra */
        {"PMI_LOCAL_RANK", "PMI_LOCAL_SIZE"},
        {"PALS_LOCAL_RANKID", "PALS_LOCAL_SIZE"},
        {"SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"},
        {"SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"},
        {"SLURM_LOCALID", "SLURM_TASKS_PER_NODE"},
    };
    *local_rank = 0;
    *local_ranks = 1;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        unsigned long rank, ranks;
        if (!env_number(names[i][0], &rank) || !env_number(names[i][1], &ranks))
            continue;
        if (rank >= ranks || ranks > LOCAL_RANKS_MAX)
            continue;
        *local_rank = (uint32_t)rank;
        *local_ranks = (uint32_t)ranks;
        return;
    }
}

/* The first word of a small file as a number; false for "max" and for nothing. */
static bool file_number(const char *path, uint64_t *out)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    unsigned long long value;
    bool found = fscanf(file, "%llu", &value) == 1;
    fclose(file);
    if (found)
        *out = value;
    return found;
}

/* The number after `name` in a file of lines "name number …". */
static bool line_number(const char *path, const char *name, uint64_t *out)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    char line[256];
    size_t name_len = strlen(name);
    unsigned long long value;
    bool found = false;
    while (!found && fgets(line, sizeof line, file))
        found = !strncmp(line, name, name_len) && sscanf(line + name_len, " %llu", &value) == 1;
    fclose(file);
    if (found)
        *out = value;
    return found;
}

static void lower(uint64_t *least, uint64_t value)
{
    if (value < *least)
        *least = value;
}

/* What one directory of the memory controller leaves: its limit less what is used and
 * cannot be given back (page cache can). */
static void lower_by_cgroup(uint64_t *least, const char *dir, bool version_2)
{
    char path[PATH_BYTES + 64];
    uint64_t limit, used = 0, cache = 0;
    snprintf(path, sizeof path, "%s/%s", dir, version_2 ? "memory.max" : "memory.limit_in_bytes");
    if (!file_number(path, &limit))
        return;
    snprintf(path, sizeof path, "%s/%s", dir, version_2 ? "memory.current" : "memory.usage_in_bytes");
    file_number(path, &used);
    snprintf(path, sizeof path, "%s/memory.stat", dir);
    uint64_t active = 0;
    line_number(path, version_2 ? "inactive_file" : "total_inactive_file", &cache);
    line_number(path, version_2 ? "active_file" : "total_active_file", &active);
    cache += active;
    used -= cache < used ? cache : used;
    lower(least, limit > used ? limit - used : 0);
}

/* All directories from the process's own up to the root of the mount. In a container the
 * path of /proc/self/cgroup may not be there; the root of the mount then is its own. */
static void lower_by_path(uint64_t *least, const char *root, const char *below, bool version_2)
{
    char dir[PATH_BYTES];
    int len = snprintf(dir, sizeof dir, "%s%s", root, below);
    size_t root_len = strlen(root);
    if (len < 0 || (size_t)len >= sizeof dir)
        return;
    for (;;) {
        lower_by_cgroup(least, dir, version_2);
        char *slash = strrchr(dir, '/');
        if (!slash || (size_t)(slash - dir) < root_len)
            break;
        *slash = 0;
    }
}

static void lower_by_cgroups(uint64_t *least, const char *proc, const char *cgroup)
{
    char path[PATH_BYTES], line[PATH_BYTES], root[PATH_BYTES];
    snprintf(path, sizeof path, "%s/self/cgroup", proc);
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':');
        char *below = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!below)
            continue;
        *below++ = 0;
        if (controllers[1] == 0) {
            lower_by_path(least, cgroup, below, true);
        } else if (strstr(controllers + 1, "memory")) {
            snprintf(root, sizeof root, "%.1000s/memory", cgroup);
            lower_by_path(least, root, below, false);
        }
    }
    fclose(file);
}

uint64_t trm_machine_memory_at(const char *proc, const char *cgroup)
{
    char path[PATH_BYTES];
    uint64_t least = UINT64_MAX, kib;
    snprintf(path, sizeof path, "%s/meminfo", proc);
    if (line_number(path, "MemAvailable:", &kib) || line_number(path, "MemTotal:", &kib))
        lower(&least, kib * 1024);
    lower_by_cgroups(&least, proc, cgroup);
    return least == UINT64_MAX ? MEMORY_UNKNOWN_BYTES : least;
}

uint64_t trm_machine_memory_bytes(void)
{
    uint64_t least = trm_machine_memory_at("/proc", "/sys/fs/cgroup");
    unsigned long mib;
    if (env_number("SLURM_MEM_PER_NODE", &mib) && mib > 0 && mib < (1ul << 40))
        lower(&least, (uint64_t)mib << 20);
    return least;
}

void trm_machine_boot_id(char *out, size_t out_bytes)
{
    out[0] = 0;
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (!file)
        return;
    if (!fgets(out, (int)out_bytes, file))
        out[0] = 0;
    fclose(file);
    out[strcspn(out, "\n")] = 0;
}
