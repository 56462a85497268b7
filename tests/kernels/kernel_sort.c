/* examples/terasort.c, paced. */
#include "tests/kernels/paced.h"

#include "examples/terasort.c"

static int paced_setup(trm_task *task)
{
    return paced_begin(task, 'm');
}

static int paced_reduce(trm_task *task, const void *key, size_t key_len, trm_values *values)
{
    return paced_begin_reduce(task) ? -1 : trm_reduce_identity(task, key, key_len, values);
}

static const trm_param paced_params[] = {PACED_TRACE, PACED_PACE, {0}};

PACED_EXPORT_JOB = {TRM_JOB_HEADER,
                    .name = "sort",
                    .params = paced_params,
                    .input = TRM_INPUT_FIXED,
                    .record_bytes = RECORD_BYTES,
                    .setup = paced_setup,
                    .map = map,
                    .cleanup = paced_end,
                    .partitioner = TRM_PARTITION_RANGE,
                    .reduce = paced_reduce,
                    .output = TRM_OUTPUT_RAW};
