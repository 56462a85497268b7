#include "workers/task_context.h"

#include "jobs/names.h"
#include "runtime/clock.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* ---- Memory ------------------------------------------------------------------------- */

static uint64_t record_share(const trm_executor_env *env)
{
    return env->memory_bytes / 8;
}

static trm_status need_region(trm_task *task)
{
    if (task->region.base)
        return TRM_OK;
    const trm_executor_env *env = task->env;
    uint64_t fixed = TRM_TASK_PROCESS_BYTES + TRM_TASK_STAGE_BYTES + record_share(env);
    uint64_t bytes = env->memory_bytes > fixed ? env->memory_bytes - fixed : 0;
    if (bytes < env->memory_bytes / 4)
        bytes = env->memory_bytes / 4;
    if (bytes < TRM_TASK_REGION_BYTES_MIN)
        bytes = TRM_TASK_REGION_BYTES_MIN;
    return trm_region_open(&task->region, bytes, &task->err);
}

/* ---- One an executor ---------------------------------------------------------------- */

static trm_status create(trm_executor_env *env, trm_err *err)
{
    const trm_spec *spec = env->spec;
    trm_task *task = calloc(1, sizeof *task);
    if (!task)
        return trm_err_set(err, TRM_ENOMEM, "no memory for a task");
    task->env = env;
    task->board = env->board ? env->board : &task->no_board;
    trm_record_reader_init(
        &task->reader, spec->line_bytes_max ? spec->line_bytes_max : TRM_LINE_BYTES_DEFAULT,
        spec->record_bytes_max ? spec->record_bytes_max : TRM_RECORD_BYTES_DEFAULT, record_share(env));
    int level = spec->compress_level ? spec->compress_level : 1;
    trm_compress_policy_init(&task->policy, spec->compress, level,
                             env->host_count > 1 ? TRM_TASK_LINK_BYTES_S : 0);
    env->task = task;
    return TRM_OK;
}

void trm_executor_env_close(trm_executor_env *env)
{
    trm_task *task = env->task;
    if (!task)
        return;
    trm_collector_destroy(task->collector);
    trm_merge_destroy(task->merge);
    trm_part_writer_destroy(task->part);
    trm_record_reader_close(&task->reader);
    if (task->region.base)
        trm_region_close(&task->region);
    trm_writer_close(&task->sample.keys);
    trm_writer_close(&task->lost);
    free(task);
    env->task = NULL;
}

trm_status trm_task_begin(trm_task **out, trm_executor_env *env, const trm_order *order, uint32_t tasks,
                          trm_err *err)
{
    trm_status status = env->task ? TRM_OK : create(env, err);
    if (status != TRM_OK)
        return status;
    trm_task *task = env->task;
    assert(task->mode == TRM_EMIT_ENDED && !task->escape);
    task->thread = trm_thread_mark();
    task->order = *order;
    task->tasks = tasks;
    task->user_state = NULL;
    task->failed = task->begun = false;
    task->err.text[0] = 0;
    memset(&task->counters, 0, sizeof task->counters);
    *out = task;
    return TRM_OK;
}

trm_status trm_task_end(trm_task *task, trm_status status, trm_report *report, trm_err *err)
{
    task->mode = TRM_EMIT_ENDED;
    trm_record_reader_end(&task->reader);
    if (status != TRM_OK) {
        if (task->collector)
            trm_collector_abort(task->collector);
        if (task->part)
            trm_part_writer_abort(task->part);
        if (err)
            *err = task->err;
    }
    if (task->merge)
        trm_merge_close(task->merge);
    report->counters = task->counters;
    return status;
}

trm_status trm_task_discard(trm_task *task, trm_report *report, trm_err *err)
{
    trm_task_end(task, TRM_EOF, report, err);
    memset(&report->counters, 0, sizeof report->counters);
    return TRM_OK;
}

/* ---- User code ---------------------------------------------------------------------- */

trm_status trm_task_guard(trm_task *task, trm_status (*body)(trm_task *task, void *context), void *context)
{
    jmp_buf here, *before = task->escape;
    trm_emit_mode mode = task->mode;
    trm_status status;
    task->escape = &here;
    if (_setjmp(here) == 0)
        status = body(task, context);
    else
        status = task->escaped;
    task->escape = before;
    task->mode = mode;
    return status;
}

_Noreturn void trm_task_escape(trm_task *task, trm_status status)
{
    assert(task->escape && status != TRM_OK);
    task->escaped = status;
    _longjmp(*task->escape, 1);
}

trm_status trm_task_refuse(trm_task *task, const char *function, int result)
{
    if (task->failed)
        trm_err_wrap(&task->err, "%s failed", function);
    else
        trm_err_set(&task->err, TRM_EKERNEL, "%s returned %d", function, result);
    return TRM_EKERNEL;
}

trm_status trm_task_call(trm_task *task, int (*function)(trm_task *), const char *name)
{
    int result = function ? function(task) : 0;
    return trm_task_went_well(task, result) ? TRM_OK : trm_task_refuse(task, name, result);
}

typedef struct combining {
    trm_group *group;
} combining;

static trm_status call_combine(trm_task *task, void *context)
{
    combining *self = context;
    trm_values values = {.task = task, .group = self->group};
    int result = task->env->job->combine(task, self->group->key, self->group->key_len, &values);
    return trm_task_went_well(task, result) ? TRM_OK : trm_task_refuse(task, "combine", result);
}

/* Called by the collector, within an emit of map's, and by passes of the merge. */
static trm_status combine_group(void *context, trm_group *group, trm_group_out *out, trm_err *err)
{
    trm_task *task = context;
    trm_group_out *out_before = task->group_out;
    trm_emit_mode before = task->mode;
    combining self = {.group = group};
    task->mode = TRM_EMIT_COMBINE;
    task->group_out = out;
    trm_status status = trm_task_guard(task, call_combine, &self);
    task->mode = before;
    task->group_out = out_before;
    if (status != TRM_OK && err && err != &task->err)
        *err = task->err;
    return status;
}

static uint32_t partition_of(void *context, const void *key, size_t key_len)
{
    trm_task *task = context;
    trm_emit_mode before = task->mode;
    task->mode = TRM_EMIT_FORBIDDEN;
    uint32_t partition = task->env->job->partition(task, key, key_len, task->env->plan->partitions);
    task->mode = before;
    return partition;
}

static bool is_remote(void *context, uint32_t partition)
{
    const trm_executor_env *env = context;
    return env->partition_is_remote(env, partition);
}

/* ---- Stages ------------------------------------------------------------------------- */

trm_status trm_task_need_collector(trm_task *task)
{
    const trm_executor_env *env = task->env;
    trm_merge_destroy(task->merge);
    task->merge = NULL;
    trm_status status = need_region(task);
    if (status != TRM_OK || task->collector) {
        if (status == TRM_OK && env->cuts)
            trm_collector_set_cuts(task->collector, env->cuts);
        return status;
    }
    trm_collector_options options = {
        .fs = env->fs,
        .region = task->region,
        .partitions = env->plan->partitions,
        .record_bytes_max =
            env->spec->record_bytes_max ? env->spec->record_bytes_max : TRM_RECORD_BYTES_DEFAULT,
        .fold = env->job->fold,
        .compare = env->job->compare,
        .partition = env->job->partition ? partition_of : NULL,
        .partition_context = task,
        .cuts = env->cuts,
        .combine = env->job->combine ? combine_group : NULL,
        .combine_context = task,
        .is_remote = env->partition_is_remote ? is_remote : NULL,
        .is_remote_context = task->env,
        .policy = &task->policy,
        .now_ns = trm_clock_now_ns,
        .seed = trm_clock_entropy(),
    };
    return trm_collector_create(&task->collector, &options, &task->err);
}

trm_status trm_task_need_merge(trm_task *task)
{
    const trm_executor_env *env = task->env;
    trm_collector_destroy(task->collector);
    task->collector = NULL;
    trm_status status = need_region(task);
    if (status != TRM_OK || task->merge)
        return status;
    trm_merge_options options = {
        .fs = env->fs,
        .region = task->region,
        .scratch_dir = env->run_store,
        .value_bytes_max =
            env->spec->record_bytes_max ? env->spec->record_bytes_max : TRM_RECORD_BYTES_DEFAULT,
        .fold = env->job->fold,
        .compare = env->job->compare,
        .combine = env->job->combine ? combine_group : NULL,
        .combine_context = task,
        .policy = &task->policy,
        .now_ns = trm_clock_now_ns,
    };
    return trm_merge_create(&task->merge, &options, &task->err);
}

static trm_status part_path(trm_task *task, char out[PATH_MAX])
{
    const trm_executor_env *env = task->env;
    if (trm_part_attempt_name(env->spec->output_dir, task->order.task, env->epoch, task->order.attempt, out,
                              PATH_MAX) == TRM_OK)
        return TRM_OK;
    return trm_err_set(&task->err, TRM_EOUTPUT, "the path of the output directory is too long: %s",
                       env->spec->output_dir);
}

trm_status trm_task_open_part(trm_task *task)
{
    const trm_executor_env *env = task->env;
    const trm_job *job = env->job;
    trm_status status = TRM_OK;
    if (!task->part)
        status = trm_part_writer_create(&task->part, env->fs, job->output, job->key_type, job->value_type,
                                        env->spec->gzip_output, &task->err);
    char path[PATH_MAX];
    if (status == TRM_OK)
        status = part_path(task, path);
    return status == TRM_OK ? trm_part_writer_open(task->part, path, &task->err) : status;
}

/* Raw pairs of no bytes: output_bytes 0 says that there is no part. */
static void remove_empty_part(trm_task *task)
{
    char path[PATH_MAX];
    if (part_path(task, path) == TRM_OK)
        task->env->fs->ops->remove(task->env->fs, path, NULL);
}

trm_status trm_task_finish_part(trm_task *task, trm_report *report)
{
    trm_part_totals totals;
    trm_status status = trm_part_writer_finish(task->part, &totals, &task->err);
    if (status != TRM_OK)
        return status;
    if (totals.file_bytes == 0)
        remove_empty_part(task);
    report->output_bytes = totals.file_bytes;
    report->output_records = totals.records;
    report->output_crc = totals.crc;
    task->counters.value[TRM_COUNTER_OUTPUT_RECORDS] = totals.records;
    task->counters.value[TRM_COUNTER_OUTPUT_BYTES] = totals.file_bytes;
    if (task->env->traits->map_only) {
        task->counters.value[TRM_COUNTER_MAP_RECORDS_OUT] = totals.records;
        task->counters.value[TRM_COUNTER_MAP_BYTES_OUT] = totals.pair_bytes;
    }
    return TRM_OK;
}
