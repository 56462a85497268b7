/* split → reader → MAP → collect → sort | fold → run, or for a map-only job → part. */
#include "workers/task_context.h"

typedef struct mapping {
    uint64_t records_max, bytes_max;
} mapping;

static trm_status map_body(trm_task *task, void *context)
{
    const mapping *bounds = context;
    const trm_job *job = task->env->job;
    trm_record_reader *reader = &task->reader;
    trm_status status = trm_task_call(task, job->setup, "setup");
    uint64_t records_left = bounds->records_max;
    while (status == TRM_OK) {
        status = records_left-- ? trm_record_reader_next(reader, &task->err) : TRM_EOF;
        if (status != TRM_OK)
            break;
        int result = job->map(task, &reader->record);
        if (!trm_task_went_well(task, result))
            status = trm_task_refuse(task, "map", result);
        else if (bounds->bytes_max != UINT64_MAX && trm_record_reader_bytes_in(reader) >= bounds->bytes_max)
            records_left = 0;
    }
    return status == TRM_EOF ? trm_task_call(task, job->cleanup, "cleanup") : status;
}

trm_status trm_task_map_records(trm_task *task, uint64_t records_max, uint64_t bytes_max)
{
    mapping bounds = {records_max, bytes_max};
    const trm_executor_env *env = task->env;
    trm_record_reader *reader = &task->reader;
    trm_record_reader_begin(reader, env->plan, task->order.task, env->board);
    trm_status status = trm_task_guard(task, map_body, &bounds);
    /* What the user's own code has done is said with where it did it. */
    if ((status == TRM_EKERNEL || status == TRM_ERECORD) && reader->records_in && reader->record.path[0])
        trm_err_wrap(&task->err, "'%s' at byte %llu", reader->record.path,
                     (unsigned long long)reader->record.offset);
    trm_record_reader_end(reader);
    task->counters.value[TRM_COUNTER_MAP_RECORDS_IN] = reader->records_in;
    task->counters.value[TRM_COUNTER_MAP_BYTES_IN] = trm_record_reader_bytes_in(reader);
    return status;
}

static trm_status finish_run(trm_task *task, trm_report *report)
{
    trm_collector_stats stats;
    trm_status status = trm_collector_finish(task->collector, &stats, &task->err);
    if (status != TRM_OK)
        return status;
    report->output_bytes = stats.run.file_bytes;
    report->output_records = stats.run.records;
    uint64_t *value = task->counters.value;
    value[TRM_COUNTER_MAP_RECORDS_OUT] = stats.records_in;
    value[TRM_COUNTER_MAP_BYTES_OUT] = stats.bytes_in;
    value[TRM_COUNTER_COMBINE_RECORDS_OUT] = stats.run.records;
    value[TRM_COUNTER_SPILLS] = stats.run.spills;
    value[TRM_COUNTER_RUN_BYTES_RAW] = stats.run.raw_bytes;
    value[TRM_COUNTER_RUN_BYTES_STORED] = stats.run.stored_bytes;
    return TRM_OK;
}

trm_status trm_map_task_run(trm_executor_env *env, const trm_order *order, trm_report *report, trm_err *err)
{
    trm_task *task;
    trm_status status = trm_task_begin(&task, env, order, env->plan->tasks, err);
    if (status != TRM_OK)
        return status;
    task->mode = env->traits->map_only ? TRM_EMIT_PART_FIRST : TRM_EMIT_COLLECT_FIRST;
    status = trm_task_map_records(task, UINT64_MAX, UINT64_MAX);
    task->mode = TRM_EMIT_ENDED;
    if (status == TRM_OK && task->begun)
        status = env->traits->map_only ? trm_task_finish_part(task, report) : finish_run(task, report);
    return trm_task_end(task, status, report, err);
}
