/* The keys that a map emits for the beginning of its input: what the cut points of a range
 * partitioned job are made of. Nothing is written. */
#include "workers/task_context.h"

#define SAMPLE_RECORDS_MAX 4096u
#define SAMPLE_BYTES_MAX (1u << 20)
/* A cut needs no more of a key to be about right. */
#define SAMPLE_KEY_BYTES_MAX 512u

void trm_key_sample_reset(trm_key_sample *self)
{
    trm_writer_reset(&self->keys);
    self->stride = 1;
    self->until_next = 0;
}

/* Returns whether the key that comes now is the next one by the new stride. */
static bool drop_every_other(trm_key_sample *self)
{
    trm_reader in;
    trm_reader_init(&in, self->keys.data, self->keys.len);
    uint8_t *to = self->keys.data;
    unsigned i = 0;
    for (; trm_reader_left(&in) && trm_reader_ok(&in); i++) {
        const uint8_t *blob = in.at;
        size_t len;
        trm_get_blob(&in, TRM_KEY_BYTES_MAX, &len);
        if (i % 2 == 0) {
            memmove(to, blob, (size_t)(in.at - blob));
            to += in.at - blob;
        }
    }
    self->keys.len = (size_t)(to - self->keys.data);
    self->stride *= 2;
    return i % 2 == 0;
}

void trm_key_sample_add(trm_key_sample *self, const void *key, size_t key_len)
{
    if (self->until_next-- > 0)
        return;
    if (key_len > SAMPLE_KEY_BYTES_MAX)
        key_len = SAMPLE_KEY_BYTES_MAX;
    bool due = true;
    while (self->keys.len + trm_varint_bytes(key_len) + key_len > TRM_SAMPLE_BYTES_MAX)
        due = drop_every_other(self);
    if (due)
        trm_put_blob(&self->keys, key, key_len);
    self->until_next = due ? self->stride - 1 : self->stride / 2 - 1;
}

trm_status trm_sample_task_run(trm_executor_env *env, const trm_order *order, trm_report *report,
                               trm_err *err)
{
    trm_task *task;
    trm_status status = trm_task_begin(&task, env, order, env->plan->tasks, err);
    if (status != TRM_OK)
        return status;
    trm_key_sample_reset(&task->sample);
    task->mode = TRM_EMIT_SAMPLE;
    status = trm_task_map_records(task, SAMPLE_RECORDS_MAX, SAMPLE_BYTES_MAX);
    task->mode = TRM_EMIT_ENDED;
    if (status == TRM_OK && !trm_writer_ok(&task->sample.keys))
        status = trm_err_set(&task->err, TRM_ENOMEM, "no memory for a sample of keys");
    /* The map will be run again in earnest: what this one has counted is not counted. */
    memset(&task->counters, 0, sizeof task->counters);
    if (status == TRM_OK) {
        report->sample = task->sample.keys.data;
        report->sample_len = (uint32_t)task->sample.keys.len;
    }
    return trm_task_end(task, status, report, err);
}
