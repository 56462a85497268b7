/* runtime/topology and runtime/machine: which cores, which memory, which of the host's ranks. */
#include "config.h" /* system extensions, before any header of the system */

#include "runtime/machine.h"
#include "runtime/topology.h"

#include "temp_tree.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static int first_cpu(void)
{
    cpu_set_t set;
    assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &set))
            return cpu;
    return -1;
}

static trm_topology *create(void)
{
    trm_topology *topology;
    trm_err err;
    assert_int_equal(trm_topology_create(&topology, &err), TRM_OK);
    return topology;
}

static void cores_and_text_are_sane(void **state)
{
    trm_topology *topology = create();
    assert_true(trm_topology_cores(topology) >= 1);
    assert_true(trm_topology_cores(topology) <= trm_topology_machine_cores(topology));
    char text[TRM_PLACE_TEXT_BYTES];
    for (int grain = TRM_GRAIN_CORE; grain <= TRM_GRAIN_NONE; grain++) {
        trm_topology_describe(topology, (trm_grain)grain, 1000001, text, sizeof text);
        assert_non_null(strstr(text, "cpus "));
        assert_null(strchr(text, '?'));
    }
    trm_topology_destroy(topology);
}

/* Ranks that were given the same cores divide them: disjoint where there are enough. */
static void a_shared_set_is_divided(void **state)
{
    trm_topology *topology = create();
    unsigned all = trm_topology_cores(topology), sum = 0;
    for (uint32_t ranks = 1; ranks <= 2 * all + 1; ranks++) {
        sum = 0;
        for (uint32_t rank = 0; rank < ranks; rank++) {
            trm_topology *own = create();
            trm_topology_share(own, rank, ranks, true);
            assert_true(trm_topology_cores(own) >= 1);
            sum += trm_topology_cores(own);
            trm_topology_destroy(own);
        }
        assert_int_equal(sum, ranks > all ? ranks : all);
    }
    trm_topology_destroy(topology);
}

/* Runs `body` in a child, so that what it binds is not this test. */
static void in_child(int (*body)(int cpu))
{
    int cpu = first_cpu(), status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(body(cpu));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static int with_one_cpu(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set))
        return 1;
    trm_topology *topology;
    if (trm_topology_create(&topology, NULL) || trm_topology_cores(topology) != 1)
        return 2;
    char text[TRM_PLACE_TEXT_BYTES], want[32];
    snprintf(want, sizeof want, "cpus %d", cpu);
    trm_topology_describe(topology, TRM_GRAIN_CORE, 5, text, sizeof text);
    if (!strstr(text, want))
        return 3;
    /* A set of its own, given by the launcher, on a machine with more: it keeps it. */
    trm_topology_share(topology, 0, 1, false);
    if (trm_topology_cores(topology) != 1)
        return 4;
    for (int grain = TRM_GRAIN_CORE; grain <= TRM_GRAIN_NONE; grain++)
        if (trm_topology_bind(topology, (trm_grain)grain, 3, NULL))
            return 5;
    cpu_set_t now;
    if (sched_getaffinity(0, sizeof now, &now) || CPU_COUNT(&now) != 1 || !CPU_ISSET(cpu, &now))
        return 6;
    trm_topology_destroy(topology);
    return 0;
}

static void a_restricted_mask_is_respected(void **state)
{
    in_child(with_one_cpu);
}

/* On a made-up machine of two nodes with two cores each, of which the launcher gave this rank
 * one node: of four ranks two share it, and nobody knows which. */
static int half_a_machine(int cpu)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) || !CPU_ISSET(0, &set) || !CPU_ISSET(1, &set))
        return 0; /* needs processors 0 and 1 */
    CPU_ZERO(&set);
    CPU_SET(0, &set);
    CPU_SET(1, &set);
    if (sched_setaffinity(0, sizeof set, &set))
        return 1;
    setenv("HWLOC_SYNTHETIC", "numa:2 core:2 pu:1", 1);
    setenv("HWLOC_THISSYSTEM", "1", 1);
    char text[TRM_PLACE_TEXT_BYTES];
    trm_topology *topology;
    if (trm_topology_create(&topology, NULL) || trm_topology_machine_cores(topology) != 4 ||
        trm_topology_cores(topology) != 2)
        return 2;
    trm_topology_describe(topology, TRM_GRAIN_CORE, 1, text, sizeof text);
    if (strcmp(text, "core 1 (cpus 1), NUMA node 0"))
        return 3;
    trm_topology_describe(topology, TRM_GRAIN_NUMA, 1, text, sizeof text);
    if (strcmp(text, "cpus 0-1, NUMA node 0"))
        return 4;
    trm_topology_share(topology, 3, 4, false);
    trm_topology_describe(topology, TRM_GRAIN_CORE, 0, text, sizeof text);
    if (trm_topology_cores(topology) != 1 || strcmp(text, "cpus 0-1"))
        return 5;
    trm_topology_destroy(topology);
    /* As many ranks as nodes: the node is this rank's own. */
    if (trm_topology_create(&topology, NULL))
        return 6;
    trm_topology_share(topology, 1, 2, false);
    trm_topology_describe(topology, TRM_GRAIN_CORE, 3, text, sizeof text);
    if (trm_topology_cores(topology) != 2 || strcmp(text, "core 1 (cpus 1), NUMA node 0"))
        return 7;
    trm_topology_destroy(topology);
    return 0;
}

static void a_part_of_the_machine_is_shared_by_number(void **state)
{
    in_child(half_a_machine);
}

static int bound_to_a_core(int cpu)
{
    trm_topology *topology;
    if (trm_topology_create(&topology, NULL))
        return 1;
    cpu_set_t before, now;
    sched_getaffinity(0, sizeof before, &before);
    for (unsigned i = 0; i < 2 * trm_topology_cores(topology); i++) {
        if (trm_topology_bind(topology, TRM_GRAIN_CORE, i, NULL))
            return 2;
        if (sched_getaffinity(0, sizeof now, &now) || CPU_COUNT(&now) < 1 ||
            CPU_COUNT(&now) > CPU_COUNT(&before))
            return 3;
        if (trm_topology_cores(topology) == (unsigned)CPU_COUNT(&before) && CPU_COUNT(&now) != 1)
            return 4;
    }
    trm_topology_destroy(topology);
    return 0;
}

static void binding_takes_one_core(void **state)
{
    in_child(bound_to_a_core);
}

static void the_launcher_says_which_rank(void **state)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_LOCAL_RANK",
                                        "OMPI_COMM_WORLD_LOCAL_SIZE",
                                        "MPI_LOCALRANKID",
                                        "MPI_LOCALNRANKS",
                                        "PMI_LOCAL_RANK",
                                        "PMI_LOCAL_SIZE",
                                        "SLURM_LOCALID",
                                        "SLURM_NTASKS_PER_NODE",
                                        "SLURM_STEP_TASKS_PER_NODE",
                                        "SLURM_TASKS_PER_NODE"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unsetenv(names[i]);
    uint32_t rank, ranks;
    trm_machine_local_rank(&rank, &ranks);
    assert_int_equal(rank, 0);
    assert_int_equal(ranks, 1);
    setenv("SLURM_LOCALID", "3", 1);
    setenv("SLURM_TASKS_PER_NODE", "8(x2),4", 1);
    trm_machine_local_rank(&rank, &ranks);
    assert_int_equal(rank, 3);
    assert_int_equal(ranks, 8);
    setenv("OMPI_COMM_WORLD_LOCAL_RANK", "1", 1);
    setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "2", 1);
    trm_machine_local_rank(&rank, &ranks);
    assert_int_equal(rank, 1);
    assert_int_equal(ranks, 2);
    setenv("OMPI_COMM_WORLD_LOCAL_RANK", "7", 1); /* nonsense: not below the size */
    trm_machine_local_rank(&rank, &ranks);
    assert_int_equal(rank, 3);
    setenv("SLURM_LOCALID", "-1", 1);
    trm_machine_local_rank(&rank, &ranks);
    assert_int_equal(ranks, 1);
}

static void put(const char *root, const char *name, const char *text)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *at = path + strlen(root) + 1; (at = strchr(at, '/')); at++) {
        *at = 0;
        mkdir(path, 0700);
        *at = '/';
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void memory_is_the_least_of_all(void **state)
{
    temp_tree tree;
    temp_tree_init(&tree);
    const char *root = tree.path;
    char proc[600], cgroup[600];
    snprintf(proc, sizeof proc, "%s/proc", root);
    snprintf(cgroup, sizeof cgroup, "%s/cgroup", root);
    assert_true(trm_machine_memory_at(proc, cgroup) == 1ull << 30);
    put(root, "proc/meminfo", "MemTotal:  99 kB\nMemFree: 1 kB\nMemAvailable:    4194304 kB\n");
    assert_true(trm_machine_memory_at(proc, cgroup) == 4ull << 30);
    /* Version 2: a limit above the process's own group; page cache can be given back. */
    put(root, "proc/self/cgroup", "0::/job/step\n");
    put(root, "cgroup/job/step/memory.max", "max\n");
    put(root, "cgroup/job/memory.max", "3221225472\n");
    assert_true(trm_machine_memory_at(proc, cgroup) == 3ull << 30);
    put(root, "cgroup/job/memory.current", "2147483648\n");
    put(root, "cgroup/job/memory.stat", "anon 5\ninactive_file 1073741824\n");
    assert_true(trm_machine_memory_at(proc, cgroup) == 2ull << 30);
    /* Version 1, and a path that is not there, as in a container. */
    put(root, "proc/self/cgroup", "4:memory:/not/here\n0::/\n");
    put(root, "cgroup/memory/memory.limit_in_bytes", "1073741824\n");
    assert_true(trm_machine_memory_at(proc, cgroup) == 1ull << 30);
    put(root, "cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    assert_true(trm_machine_memory_at(proc, cgroup) == 4ull << 30);
    temp_tree_close(&tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cores_and_text_are_sane),
        cmocka_unit_test(a_shared_set_is_divided),
        cmocka_unit_test(a_restricted_mask_is_respected),
        cmocka_unit_test(binding_takes_one_core),
        cmocka_unit_test(a_part_of_the_machine_is_shared_by_number),
        cmocka_unit_test(the_launcher_says_which_rank),
        cmocka_unit_test(memory_is_the_least_of_all),
    };
    return cmocka_run_group_tests_name("topology", tests, NULL, NULL);
}
