/* See topology.h. */
#include "config.h" /* system extensions, before any header of the system */

#include "runtime/topology.h"

#include <assert.h>
#include <errno.h>
#include <hwloc.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ANCESTORS_MAX 16 /* between a rank and its launcher */
#define CPUS_TEXT_BYTES 96

typedef struct place {
    hwloc_bitmap_t cpus; /* the processors of one core that the process may run on */
    hwloc_bitmap_t nodes;
    unsigned core; /* the system's number of the core; UINT_MAX: unknown */
} place;

struct trm_topology {
    hwloc_topology_t hwloc;
    hwloc_bitmap_t set; /* what the process was given, then this rank's share of it */
    place *cores;       /* `count` of them are this rank's, from `first` on */
    unsigned allocated, first, count;
    unsigned given;   /* cores in the set that the process was given */
    unsigned machine; /* cores of the machine */
    bool floating;    /* executors are bound to the whole set */
};

static void close_places(trm_topology *self)
{
    for (unsigned i = 0; i < self->allocated; i++) {
        hwloc_bitmap_free(self->cores[i].cpus);
        hwloc_bitmap_free(self->cores[i].nodes);
    }
    free(self->cores);
}

void trm_topology_destroy(trm_topology *self)
{
    if (!self)
        return;
    close_places(self);
    hwloc_bitmap_free(self->set);
    if (self->hwloc)
        hwloc_topology_destroy(self->hwloc);
    free(self);
}

/* The part of `set` on one core (or one processor, where cores are not known). */
static bool add_place(trm_topology *self, hwloc_obj_t object)
{
    place *at = &self->cores[self->allocated];
    at->cpus = hwloc_bitmap_alloc();
    at->nodes = object->nodeset ? hwloc_bitmap_dup(object->nodeset) : hwloc_bitmap_alloc();
    at->core = object->type == HWLOC_OBJ_CORE ? object->os_index : UINT32_MAX;
    self->allocated++;
    return at->cpus && at->nodes && !hwloc_bitmap_and(at->cpus, self->set, object->cpuset);
}

static bool find_places(trm_topology *self)
{
    int depth = hwloc_get_type_or_below_depth(self->hwloc, HWLOC_OBJ_CORE);
    unsigned all = hwloc_get_nbobjs_by_depth(self->hwloc, depth);
    self->cores = calloc(all + 1, sizeof *self->cores);
    if (!self->cores)
        return false;
    for (unsigned i = 0; i < all; i++) {
        hwloc_obj_t object = hwloc_get_obj_by_depth(self->hwloc, depth, i);
        if (hwloc_bitmap_intersects(object->cpuset, self->set) && !add_place(self, object))
            return false;
    }
    self->machine = all;
    self->given = self->count = self->allocated;
    return true;
}

/* hwloc's plug-ins look for devices, which nobody here asks about, and take their time. */
static int load_quietly(trm_topology *self)
{
    if (hwloc_topology_init(&self->hwloc))
        return -1;
    hwloc_topology_set_io_types_filter(self->hwloc, HWLOC_TYPE_FILTER_KEEP_NONE);
    hwloc_topology_set_icache_types_filter(self->hwloc, HWLOC_TYPE_FILTER_KEEP_NONE);
    return hwloc_topology_load(self->hwloc);
}

trm_status trm_topology_create(trm_topology **out, trm_err *err)
{
    trm_topology *self = calloc(1, sizeof *self);
    if (!self)
        return trm_err_set(err, TRM_ENOMEM, "no memory to read the machine's topology");
    self->set = hwloc_bitmap_alloc();
    if (!self->set || load_quietly(self)) {
        int error = errno;
        trm_topology_destroy(self);
        return trm_err_errno(err, TRM_ELAUNCH, error, "cannot read the machine's topology");
    }
    hwloc_const_cpuset_t all = hwloc_topology_get_topology_cpuset(self->hwloc);
    if (hwloc_get_cpubind(self->hwloc, self->set, HWLOC_CPUBIND_THREAD) ||
        !hwloc_bitmap_intersects(self->set, all))
        hwloc_bitmap_copy(self->set, all);
    hwloc_bitmap_and(self->set, self->set, all);
    if (!find_places(self) || self->count == 0) {
        trm_topology_destroy(self);
        return trm_err_set(err, TRM_ELAUNCH,
                           "the machine's topology shows no core that this process may run on");
    }
    *out = self;
    return TRM_OK;
}

void trm_topology_share(trm_topology *self, uint32_t local_rank, uint32_t local_ranks, bool set_is_shared)
{
    assert(local_rank < local_ranks);
    uint64_t cores = self->given;
    if (set_is_shared || self->given == self->machine) {
        uint64_t begin = local_rank * cores / local_ranks, end = (local_rank + 1ull) * cores / local_ranks;
        self->first = (unsigned)begin;
        self->count = end > begin ? (unsigned)(end - begin) : 1;
    } else {
        /* Ranks are spread evenly over the machine: as many share this set as its part of it. */
        uint64_t sharers = (local_ranks * cores + self->machine - 1) / self->machine;
        self->first = 0;
        self->count = cores > sharers ? (unsigned)(cores / sharers) : 1;
        self->floating = sharers > 1 && cores > 1;
    }
    if (self->floating)
        return;
    hwloc_bitmap_zero(self->set);
    for (unsigned i = 0; i < self->count; i++)
        hwloc_bitmap_or(self->set, self->set, self->cores[self->first + i].cpus);
}

/* ---- The launcher's own set ------------------------------------------------- */

static bool is_launcher(const char *command)
{
    static const char *const names[] = {"mpirun",          "orterun",   "orted",   "prted",
                                        "prterun",         "prte",      "mpiexec", "mpiexec.hydra",
                                        "hydra_pmi_proxy", "slurmstepd"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (!strcmp(command, names[i]))
            return true;
    return false;
}

/* The name and the parent of a process, from /proc/PID/stat: "PID (NAME) STATE PPID …". */
static bool read_process(pid_t pid, char *name, size_t name_bytes, pid_t *parent)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    size_t len = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[len] = 0;
    char *open = strchr(text, '('), *close = strrchr(text, ')');
    long number = 0;
    if (!open || !close || close < open || sscanf(close + 1, " %*c %ld", &number) != 1)
        return false;
    *close = 0;
    snprintf(name, name_bytes, "%s", open + 1);
    *parent = (pid_t)number;
    return true;
}

/* The nearest ancestor that is a launcher; without one, the parent. */
static pid_t find_launcher(void)
{
    pid_t at = getppid(), parent = 0;
    char name[64];
    for (unsigned i = 0; i < ANCESTORS_MAX && at > 1; i++) {
        if (!read_process(at, name, sizeof name, &parent))
            break;
        if (is_launcher(name))
            return at;
        at = parent;
    }
    return getppid();
}

bool trm_topology_set_is_shared(const trm_topology *self)
{
    hwloc_bitmap_t other = hwloc_bitmap_alloc();
    bool same = other && !hwloc_get_proc_cpubind(self->hwloc, find_launcher(), other, 0) &&
                !hwloc_bitmap_and(other, other, hwloc_topology_get_topology_cpuset(self->hwloc)) &&
                hwloc_bitmap_isequal(other, self->set);
    hwloc_bitmap_free(other);
    return same;
}

/* ---- Binding ---------------------------------------------------------------- */

unsigned trm_topology_cores(const trm_topology *self)
{
    return self->count;
}
unsigned trm_topology_machine_cores(const trm_topology *self)
{
    return self->machine;
}

static const place *core_at(const trm_topology *self, unsigned index)
{
    return &self->cores[self->first + index % self->count];
}

/* The core whose NUMA node number `index` is bound to: the rank's distinct nodes in order. */
static const place *node_at(const trm_topology *self, unsigned index)
{
    const place *distinct[64];
    unsigned found = 0;
    for (unsigned i = 0; i < self->count && found < 64; i++) {
        const place *at = core_at(self, i);
        bool seen = false;
        for (unsigned k = 0; k < found && !seen; k++)
            seen = hwloc_bitmap_isequal(distinct[k]->nodes, at->nodes);
        if (!seen)
            distinct[found++] = at;
    }
    return distinct[index % found];
}

/* The processors of number `index`, and the core that stands for its memory; NULL memory:
 * no policy. Returns false when memory is refused. */
static bool choose(const trm_topology *self, trm_grain grain, unsigned index, hwloc_bitmap_t cpus,
                   const place **home)
{
    *home = NULL;
    if (grain == TRM_GRAIN_NONE || self->floating)
        return !hwloc_bitmap_copy(cpus, self->set);
    *home = grain == TRM_GRAIN_CORE ? core_at(self, index) : node_at(self, index);
    if (grain == TRM_GRAIN_CORE)
        return !hwloc_bitmap_copy(cpus, (*home)->cpus);
    hwloc_bitmap_zero(cpus);
    for (unsigned i = 0; i < self->count; i++)
        if (hwloc_bitmap_isequal(core_at(self, i)->nodes, (*home)->nodes))
            hwloc_bitmap_or(cpus, cpus, core_at(self, i)->cpus);
    return true;
}

trm_status trm_topology_bind(const trm_topology *self, trm_grain grain, unsigned index, trm_err *err)
{
    hwloc_bitmap_t cpus = hwloc_bitmap_alloc();
    const place *home;
    if (!cpus || !choose(self, grain, index, cpus, &home)) {
        hwloc_bitmap_free(cpus);
        return trm_err_set(err, TRM_ENOMEM, "no memory to bind executor %u", index);
    }
    trm_status status = TRM_OK;
    if (hwloc_set_cpubind(self->hwloc, cpus, HWLOC_CPUBIND_THREAD)) {
        char place_text[TRM_PLACE_TEXT_BYTES];
        int error = errno;
        trm_topology_describe(self, grain, index, place_text, sizeof place_text);
        status = trm_err_errno(err, TRM_ELAUNCH, error, "cannot bind executor %u to %s", index, place_text);
    }
    /* Without STRICT: this node first, others when it is full. Containers may refuse it. */
    if (home && !hwloc_bitmap_iszero(home->nodes))
        hwloc_set_membind(self->hwloc, home->nodes, HWLOC_MEMBIND_BIND,
                          HWLOC_MEMBIND_THREAD | HWLOC_MEMBIND_BYNODESET);
    hwloc_bitmap_free(cpus);
    return status;
}

void trm_topology_describe(const trm_topology *self, trm_grain grain, unsigned index, char *out,
                           size_t out_bytes)
{
    char cpus_text[CPUS_TEXT_BYTES] = "?", nodes_text[CPUS_TEXT_BYTES] = "";
    const place *home = NULL;
    hwloc_bitmap_t cpus = hwloc_bitmap_alloc();
    if (cpus && choose(self, grain, index, cpus, &home))
        hwloc_bitmap_list_snprintf(cpus_text, sizeof cpus_text, cpus);
    hwloc_bitmap_free(cpus);
    if (home && !hwloc_bitmap_iszero(home->nodes))
        hwloc_bitmap_list_snprintf(nodes_text, sizeof nodes_text, home->nodes);
    const char *node = nodes_text[0] ? ", NUMA node " : "";
    if (home && grain == TRM_GRAIN_CORE && home->core != UINT32_MAX)
        snprintf(out, out_bytes, "core %u (cpus %s)%s%s", home->core, cpus_text, node, nodes_text);
    else
        snprintf(out, out_bytes, "cpus %s%s%s", cpus_text, node, nodes_text);
}
