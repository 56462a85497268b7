/* A program of a user's own: counts lines. With -p fail=true its map says something and fails. */
#include "jobs/trireme.h"

#include <stdio.h>

static int map(trm_task *task, const trm_record *line)
{
    if (trm_param_bool(task, "fail")) {
        fprintf(stderr, "said by task %llu\n", (unsigned long long)trm_task_index(task));
        return trm_task_fail(task, "as it was told");
    }
    trm_emit_u64(task, line->data, line->len, 1);
    trm_count(task, 0, 1);
    return 0;
}

static const trm_param params[] = {{"fail", TRM_PARAM_BOOL, "false", "fails", 0, 0},
                                   {NULL, TRM_PARAM_STRING, NULL, NULL, 0, 0}};
static const char *const counters[] = {"lines_seen", NULL};
static const trm_job job = {TRM_JOB_HEADER,       .name = "own", .params = params,
                            .counters = counters, .map = map,    .fold = TRM_FOLD_SUM_U64,
                            .value_type = TRM_U64};

int main(int argc, char **argv)
{
    return trm_main(argc, argv, &job);
}
