#include "workers/group_out.h"

#include "workers/key.h"

#include <inttypes.h>

trm_status trm_group_out_put(trm_group_out *self, const void *key, size_t key_len, const void *value,
                             size_t value_len, trm_err *err)
{
    const trm_group *group = self->group;
    if (key_len > TRM_KEY_BYTES_MAX)
        return trm_err_set(err, TRM_ERECORD, "a key of %zu bytes was emitted, the limit is %u", key_len,
                           TRM_KEY_BYTES_MAX);
    if (value_len > self->record_bytes_max)
        return trm_err_set(err, TRM_ERECORD,
                           "a value of %zu bytes was emitted, the limit is %" PRIu64 ": raise --record-max",
                           value_len, self->record_bytes_max);
    int order = self->compare ? self->compare(group->key, group->key_len, key, key_len)
                              : trm_key_compare(group->key, group->key_len, key, key_len);
    if (order)
        return trm_err_set(err, TRM_EKERNEL, "combine emitted another key than the one it was given");
    return trm_run_writer_put(self->writer, key, key_len, value, value_len, err);
}
