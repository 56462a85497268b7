/* A job that does nothing, as often as --tasks says: what is left is the framework's own cost. */
#include <trireme.h>

static int map(trm_task *task, const trm_record *record)
{
    return 0;
}

TRM_EXPORT_JOB = {TRM_JOB_HEADER, .name = "empty",        .input = TRM_INPUT_NONE,
                  .map = map,     .fold = TRM_FOLD_COUNT, .value_type = TRM_U64};
