/* A kernel that loads. */
#include <trireme.h>

static int map(trm_task *task, const trm_record *record)
{
    return 0;
}

static const trm_param params[] = {{.name = "n", .type = TRM_PARAM_INT, .value = "1"}, {0}};

TRM_EXPORT_JOB = {TRM_JOB_HEADER, .name = "good", .map = map, .params = params};
