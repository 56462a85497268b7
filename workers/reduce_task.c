/* list of segments → merge → group → REDUCE | finish | fold → part. */
#include "workers/reduce_inputs.h"
#include "workers/task_context.h"

#include <limits.h>
#include <stdio.h>

#define GROUPS_BETWEEN_SHOWN 256u /* after which the board is told how far the reduce has come */

typedef struct reducing {
    trm_reduce_inputs inputs;
    trm_group *group; /* NULL before the first and after the last */
} reducing;

/* ---- One group ------------------------------------------------------------------------ */

static trm_status reduce_group(trm_task *task, trm_group *group)
{
    trm_values values = {.task = task, .group = group};
    int result = task->env->job->reduce(task, group->key, group->key_len, &values);
    return trm_task_went_well(task, result) ? TRM_OK : trm_task_refuse(task, "reduce", result);
}

static trm_status finish_group(trm_task *task, trm_group *group)
{
    int result = task->env->job->finish(task, group->key, group->key_len, group->state);
    return trm_task_went_well(task, result) ? TRM_OK : trm_task_refuse(task, "finish", result);
}

static trm_status write_folded(trm_task *task, trm_group *group)
{
    trm_emit(task, group->key, group->key_len, group->state, task->env->job->fold->state_bytes);
    return TRM_OK;
}

/* ---- All of them ------------------------------------------------------------------------- */

static trm_status open_merge(trm_task *task, const trm_reduce_inputs *inputs)
{
    char name[64];
    snprintf(name, sizeof name, "r%u.a%u", task->order.task, task->order.attempt);
    trm_status status = trm_task_need_merge(task);
    return status == TRM_OK ? trm_merge_open(task->merge, name, inputs->segments, inputs->count, &task->err)
                            : status;
}

static void show_progress(trm_task *task)
{
    trm_merge_stats stats;
    trm_merge_stats_get(task->merge, &stats);
    __atomic_store_n(&task->env->board->bytes_in, stats.stored_bytes_read, __ATOMIC_RELAXED);
}

/* The ready-made identity: pairs pass as they come, and no group is made of them. Limits were held when
 * they were emitted. */
static trm_status pass_pairs(trm_task *task)
{
    trm_merge_pair it;
    trm_status status = TRM_OK;
    for (unsigned pairs = 1; status == TRM_OK; pairs++) {
        status = trm_merge_next_pair(task->merge, &it, &task->err);
        if (status == TRM_OK && task->mode == TRM_EMIT_PART)
            status = trm_part_writer_put(task->part, it.key, it.key_len, it.value, it.value_len, &task->err);
        else if (status == TRM_OK) /* the first, which begins the part */
            trm_emit(task, it.key, it.key_len, it.value, it.value_len);
        if (pairs % GROUPS_BETWEEN_SHOWN == 0)
            show_progress(task);
    }
    return status == TRM_EOF ? TRM_OK : status;
}

/* Also the passes run user code: its combiner, fold and comparison. */
static trm_status reduce_body(trm_task *task, void *context)
{
    reducing *self = context;
    const trm_job *job = task->env->job;
    trm_status (*end)(trm_task *, trm_group *) = job->reduce   ? reduce_group
                                                 : job->finish ? finish_group
                                                               : write_folded;
    trm_status status = open_merge(task, &self->inputs);
    if (status == TRM_OK && job->reduce == trm_reduce_identity && !job->fold)
        return pass_pairs(task);
    for (unsigned groups = 1; status == TRM_OK; groups++) {
        self->group = NULL;
        status = trm_merge_next(task->merge, &self->group, &task->err);
        if (status == TRM_OK)
            status = end(task, self->group);
        if (groups % GROUPS_BETWEEN_SHOWN == 0)
            show_progress(task);
    }
    return status == TRM_EOF ? TRM_OK : status;
}

/* What the user's own code has done is said with the key that it did it at. */
static void say_key(trm_task *task, const trm_group *group)
{
    char shown[TRM_TASK_KEY_SHOWN_BYTES + 1];
    const uint8_t *key = group->key;
    size_t len = group->key_len < TRM_TASK_KEY_SHOWN_BYTES ? group->key_len : TRM_TASK_KEY_SHOWN_BYTES;
    for (size_t i = 0; i < len; i++)
        shown[i] = key[i] >= ' ' && key[i] < 0x7f ? (char)key[i] : '?';
    shown[len] = 0;
    trm_err_wrap(&task->err, "key '%s%s'", shown, len < group->key_len ? "…" : "");
}

static void count_inputs(trm_task *task, const trm_reduce_inputs *inputs)
{
    uint64_t *value = task->counters.value;
    value[TRM_COUNTER_SHUFFLE_LOCAL_BYTES] = inputs->local_bytes;
    value[TRM_COUNTER_SHUFFLE_REMOTE_BYTES] = inputs->remote_bytes;
    value[TRM_COUNTER_SHUFFLE_RAW_BYTES] = inputs->raw_bytes;
}

static void count_merge(trm_task *task)
{
    trm_merge_stats stats;
    trm_merge_stats_get(task->merge, &stats);
    uint64_t *value = task->counters.value;
    value[TRM_COUNTER_MERGE_PASSES] = stats.passes;
    value[TRM_COUNTER_MERGE_BYTES] = stats.pass_stored_bytes;
    value[TRM_COUNTER_REDUCE_KEYS_IN] = stats.groups;
    value[TRM_COUNTER_REDUCE_RECORDS_IN] = stats.records_in;
}

/* Which map has to be run again, if that is why the merge has failed. */
static void name_lost(trm_task *task, trm_report *report)
{
    const trm_segment_at *segment = trm_merge_lost(task->merge);
    if (!segment)
        return;
    trm_output_at lost = {.task = segment->task, .attempt = segment->attempt, .rank = UINT32_MAX};
    trm_writer_reset(&task->lost);
    trm_output_at_encode(&lost, &task->lost);
    if (!trm_writer_ok(&task->lost))
        return;
    report->sample = task->lost.data;
    report->sample_len = (uint32_t)task->lost.len;
}

static trm_status reduce_all(trm_task *task, reducing *self, trm_report *report)
{
    count_inputs(task, &self->inputs);
    task->mode = TRM_EMIT_PART_FIRST;
    trm_status status = trm_task_guard(task, reduce_body, self);
    task->mode = TRM_EMIT_ENDED;
    if ((status == TRM_EKERNEL || status == TRM_ERECORD) && self->group)
        say_key(task, self->group);
    if (status == TRM_ELOST || status == TRM_ECORRUPT)
        name_lost(task, report);
    if (status == TRM_OK)
        count_merge(task);
    if (task->merge)
        trm_merge_close(task->merge); /* before the paths that it borrows */
    return status == TRM_OK && task->begun ? trm_task_finish_part(task, report) : status;
}

trm_status trm_reduce_task_run(trm_executor_env *env, const trm_order *order, trm_report *report,
                               trm_err *err)
{
    trm_task *task;
    trm_status status = trm_task_begin(&task, env, order, env->plan->partitions, err);
    if (status != TRM_OK)
        return status;
    char path[PATH_MAX];
    if (trm_reduce_list_name(env->run_store, env->epoch, order->task, order->attempt, path, sizeof path) !=
        TRM_OK) {
        trm_err_set(&task->err, TRM_ELIMIT, "the path of the run store is too long: %s", env->run_store);
        return trm_task_end(task, TRM_ELIMIT, report, err);
    }
    reducing self = {.group = NULL};
    status = trm_reduce_inputs_load(&self.inputs, env->fs, path, order->task, order->attempt, &task->err);
    if (status == TRM_OK) {
        status = reduce_all(task, &self, report);
        trm_reduce_inputs_close(&self.inputs);
    }
    return trm_task_end(task, status, report, err);
}
