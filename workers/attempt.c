#include "workers/attempt.h"

#include <stdio.h>

static trm_status name(const char *store, char kind, uint64_t epoch, uint32_t task, uint32_t attempt,
                       const char *suffix, char *out, size_t out_bytes)
{
    int len = snprintf(out, out_bytes, "%s/%c%u.e%llu.a%u.%s", store, kind, task, (unsigned long long)epoch,
                       attempt, suffix);
    return len > 0 && (size_t)len < out_bytes ? TRM_OK : TRM_ELIMIT;
}

trm_status trm_run_name(const char *store, uint64_t epoch, uint32_t task, uint32_t attempt, char *out,
                        size_t out_bytes)
{
    return name(store, 'm', epoch, task, attempt, "run", out, out_bytes);
}

trm_status trm_reduce_list_name(const char *store, uint64_t epoch, uint32_t task, uint32_t attempt, char *out,
                                size_t out_bytes)
{
    return name(store, 'r', epoch, task, attempt, "in", out, out_bytes);
}
