/* terasort: sorts the 100-byte records of the sort benchmark by their first 10 bytes. The
 * framework does all of it: map cuts a record into key and value, the sampled ranges make the
 * parts, one after the other, one sorted whole, and the ready-made reduce writes what comes.
 */
#include <trireme.h>

#define RECORD_BYTES 100u
#define KEY_BYTES 10u

static int map(trm_task *task, const trm_record *record)
{
    trm_emit(task, record->data, KEY_BYTES, record->data + KEY_BYTES, RECORD_BYTES - KEY_BYTES);
    return 0;
}

TRM_EXPORT_JOB = {
    TRM_JOB_HEADER,
    .name = "terasort",
    .help = "sorts 100-byte records by their first 10 bytes",
    .input = TRM_INPUT_FIXED,
    .record_bytes = RECORD_BYTES,
    .map = map,
    .partitioner = TRM_PARTITION_RANGE,
    .reduce = trm_reduce_identity,
    .output = TRM_OUTPUT_RAW,
};
