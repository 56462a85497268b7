/* A key and its values, streamed: what combine and reduce see, whoever makes it (the
 * collector while it spills, a merge pass, the last merge).
 *
 * A trm_values of the user's is a thin coat over this.
 */
#ifndef TRM_WORKERS_GROUP_H
#define TRM_WORKERS_GROUP_H

#include "runtime/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct trm_group trm_group;
struct trm_group {
    const void *key; /* valid, and at the same place, until the next group is asked for */
    size_t key_len;
    /* With a fold: the merged accumulator, 8-byte aligned, valid as long as the key; `next`
     * must not be called. NULL without. */
    const void *state;
    trm_status (*next)(trm_group *self, const void **value, size_t *value_len, trm_err *err);
};

/* The next value, valid until the next call: TRM_OK; TRM_EOF when there is none (and again
 * when asked again); or why it cannot be read. Values that are not asked for are skipped by
 * whoever made the group. */
static inline trm_status trm_group_next(trm_group *self, const void **value, size_t *value_len, trm_err *err)
{
    return self->next(self, value, value_len, err);
}

/* Where a combiner's pairs go. */
typedef struct trm_group_out trm_group_out;
/* Appends a pair of the group that is being combined. TRM_EKERNEL when its key is not the
 * group's (byte for byte, or by the job's comparison), TRM_ERECORD over a limit, or what
 * writing says. Copies both. */
trm_status trm_group_out_put(trm_group_out *self, const void *key, size_t key_len, const void *value,
                             size_t value_len, trm_err *err);

/* Runs the user's combine over one group, putting what it emits into `out`. Anything but
 * TRM_OK ends the attempt. */
typedef trm_status (*trm_combine_cb)(void *context, trm_group *group, trm_group_out *out, trm_err *err);

#endif
