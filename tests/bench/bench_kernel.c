/* What the maps and reduces of a kernel cost, one after the other in one process, without a
 * cluster: for profiling.
 *
 *     tests/bench/bench_kernel KERNEL.so INPUT [NAME=VALUE …]
 *
 * Times are of the processor, so that other programs matter less. */
#include "tests/support/whole_job.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define MEMORY_BYTES (512u << 20)
#define PARTITIONS 2u
#define ROUNDS 5u

static whole_job job;

static void must(trm_status status, const char *what)
{
    if (status == TRM_OK)
        return;
    fprintf(stderr, "bench_kernel: %s: %s: %s\n", what, trm_status_name(status), job.err.text);
    exit(1);
}

static double cpu_ns(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1e9 +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e3;
}

static double run_phase(trm_phase phase, uint32_t tasks)
{
    double began_ns = cpu_ns();
    for (uint32_t i = 0; i < tasks; i++)
        must(whole_job_order(&job, phase, i), "a task");
    return cpu_ns() - began_ns;
}

static void say(const char *what, double ns, uint64_t records, uint64_t bytes)
{
    printf("%-10s %8.1f ms  %8.1f ns/record  %8.1f MB/s\n", what, ns / 1e6,
           ns / (double)(records ? records : 1), (double)bytes / ns * 1000);
}

int main(int argc, char **argv)
{
    static trm_param_arg params[TRM_PARAMS_MAX];
    char tree[] = "/tmp/trm-bench-XXXXXX";
    if (argc < 3 || argc > 3 + (int)TRM_PARAMS_MAX || !mkdtemp(tree)) {
        fprintf(stderr, "usage: bench_kernel KERNEL.so INPUT [NAME=VALUE ...]\n");
        return 2;
    }
    whole_job_init(&job, tree);
    job.spec.kernel_path = argv[1];
    job.spec.inputs = argv + 2;
    job.spec.inputs_count = 1;
    job.spec.tasks = PARTITIONS * 4;
    job.spec.partitions = PARTITIONS;
    job.spec.params = params;
    job.memory_bytes = MEMORY_BYTES;
    for (int i = 3; i < argc; i++) {
        char *equals = strchr(argv[i], '=');
        if (equals)
            *equals = 0;
        params[job.spec.params_count++] = (trm_param_arg){argv[i], equals ? equals + 1 : NULL};
    }
    must(whole_job_open(&job), "the job");
    must(whole_job_sample(&job), "sampling");
    for (unsigned i = 0; i < ROUNDS; i++) {
        memset(&job.counters, 0, sizeof job.counters);
        double ns = run_phase(TRM_PHASE_MAP, job.plan.tasks);
        const uint64_t *value = job.counters.value;
        say("map", ns, value[TRM_COUNTER_MAP_RECORDS_OUT], value[TRM_COUNTER_MAP_BYTES_IN]);
    }
    for (uint32_t i = 0; i < job.plan.partitions; i++)
        must(whole_job_list(&job, i), "a list");
    double ns = run_phase(TRM_PHASE_REDUCE, job.plan.partitions);
    say("reduce", ns, job.counters.value[TRM_COUNTER_REDUCE_RECORDS_IN],
        job.counters.value[TRM_COUNTER_SHUFFLE_RAW_BYTES]);
    whole_job_close(&job);
    return rmdir(tree) != 0;
}
