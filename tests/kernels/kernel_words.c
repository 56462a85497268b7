/* examples/wordcount.c, paced. */
#include "tests/kernels/paced.h"

#include "examples/wordcount.c"

static int paced_setup(trm_task *task)
{
    return setup(task) || paced_begin(task, 'm') ? -1 : 0;
}

static int paced_finish(trm_task *task, const void *key, size_t key_len, const void *state)
{
    if (paced_begin_reduce(task))
        return -1;
    trm_emit(task, key, key_len, state, sizeof(uint64_t));
    return 0;
}

static const trm_param paced_params[] = {
    {"lower", TRM_PARAM_BOOL, "false", "in lower case", 0, 0}, PACED_TRACE, PACED_PACE, {0}};

PACED_EXPORT_JOB = {
    TRM_JOB_HEADER,       .name = "words",          .params = paced_params, .setup = paced_setup, .map = map,
    .cleanup = paced_end, .fold = TRM_FOLD_SUM_U64, .finish = paced_finish, .value_type = TRM_U64};
