/* Counters and how they travel.
 *
 *   varint how many, then for each that is not 0, in ascending order:
 *   varint distance from the one before (from -1 to begin; at least 1) · varint value
 */
#include "jobs/counters.h"

#include <assert.h>
#include <string.h>

static const char *const names[TRM_COUNTER_SYSTEM_COUNT] = {
    [TRM_COUNTER_MAP_RECORDS_IN] = "map_records_in",
    [TRM_COUNTER_MAP_BYTES_IN] = "map_bytes_in",
    [TRM_COUNTER_MAP_RECORDS_OUT] = "map_records_out",
    [TRM_COUNTER_MAP_BYTES_OUT] = "map_bytes_out",
    [TRM_COUNTER_COMBINE_RECORDS_OUT] = "combine_records_out",
    [TRM_COUNTER_SPILLS] = "spills",
    [TRM_COUNTER_RUN_BYTES_RAW] = "run_bytes_raw",
    [TRM_COUNTER_RUN_BYTES_STORED] = "run_bytes_stored",
    [TRM_COUNTER_SHUFFLE_LOCAL_BYTES] = "shuffle_local_bytes",
    [TRM_COUNTER_SHUFFLE_REMOTE_BYTES] = "shuffle_remote_bytes",
    [TRM_COUNTER_SHUFFLE_RAW_BYTES] = "shuffle_raw_bytes",
    [TRM_COUNTER_MERGE_PASSES] = "merge_passes",
    [TRM_COUNTER_MERGE_BYTES] = "merge_bytes",
    [TRM_COUNTER_REDUCE_KEYS_IN] = "reduce_keys_in",
    [TRM_COUNTER_REDUCE_RECORDS_IN] = "reduce_records_in",
    [TRM_COUNTER_OUTPUT_RECORDS] = "output_records",
    [TRM_COUNTER_OUTPUT_BYTES] = "output_bytes",
    [TRM_COUNTER_MAP_RECORDS_SKIPPED] = "map_records_skipped",
};

_Static_assert((int)TRM_COUNTER_SYSTEM_COUNT <= (int)TRM_COUNTER_USER, "the job's own counters begin above");

const char *trm_counter_name(unsigned counter)
{
    return counter < TRM_COUNTER_SYSTEM_COUNT ? names[counter] : NULL;
}

void trm_counters_add(trm_counters *self, const trm_counters *other)
{
    for (unsigned i = 0; i < TRM_COUNTER_COUNT; i++)
        self->value[i] += other->value[i];
}

void trm_counters_encode(const trm_counters *self, trm_writer *out)
{
    unsigned count = 0;
    for (unsigned i = 0; i < TRM_COUNTER_COUNT; i++)
        count += self->value[i] != 0;
    trm_put_varint(out, count);
    unsigned next = 0; /* one above the counter before */
    for (unsigned i = 0; count && i < TRM_COUNTER_COUNT; i++) {
        if (!self->value[i])
            continue;
        trm_put_varint(out, i - next + 1);
        trm_put_varint(out, self->value[i]);
        next = i + 1;
        count--;
    }
}

void trm_counters_decode(trm_counters *self, trm_reader *in)
{
    memset(self, 0, sizeof *self);
    unsigned count = (unsigned)trm_get_varint_max(in, TRM_COUNTER_COUNT);
    unsigned next = 0;
    for (unsigned i = 0; i < count && trm_reader_ok(in); i++) {
        unsigned distance = (unsigned)trm_get_varint_max(in, TRM_COUNTER_COUNT - next);
        uint64_t value = trm_get_varint(in);
        if (!distance || !value) {
            trm_reader_fail(in);
            break;
        }
        next += distance;
        self->value[next - 1] = value;
    }
    if (!trm_reader_ok(in))
        memset(self, 0, sizeof *self);
}
