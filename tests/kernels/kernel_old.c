/* A kernel for another version of the interface. */
#include <trireme.h>

static int map(trm_task *task, const trm_record *record)
{
    return 0;
}

TRM_EXPORT_JOB = {.magic = TRM_JOB_MAGIC, .abi = TRM_ABI + 7, .struct_bytes = 8, .name = "old", .map = map};
