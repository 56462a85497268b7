/* Inside of trm_group_out: a combiner's pairs go straight into the run that is being written. */
#ifndef TRM_WORKERS_GROUP_OUT_H
#define TRM_WORKERS_GROUP_OUT_H

#include "workers/group.h"
#include "workers/run_writer.h"

struct trm_group_out {
    trm_run_writer *writer;
    const trm_group *group;
    uint64_t record_bytes_max;
    int (*compare)(const void *a, size_t a_len, const void *b, size_t b_len);
};

#endif
