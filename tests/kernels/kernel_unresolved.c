/* A kernel that needs what is nowhere. */
#include <trireme.h>

int nowhere_to_be_found(void);

static int map(trm_task *task, const trm_record *record)
{
    return nowhere_to_be_found();
}

TRM_EXPORT_JOB = {TRM_JOB_HEADER, .name = "unresolved", .map = map};
