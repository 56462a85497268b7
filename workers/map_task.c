/* split → reader → MAP → collect → sort | fold → run, or for a map-only job → part. */
#include "workers/skipped.h"
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

/* ---- With --skip-bad-records ---------------------------------------------------------- */

static bool is_skipped(const trm_order *order, uint64_t record, unsigned *next)
{
    bool skipped = *next < order->skips_count && order->skip[*next] == record;
    *next += skipped;
    return skipped;
}

static trm_status write_skipped(trm_task *task, uint32_t number)
{
    task->counters.value[TRM_COUNTER_MAP_RECORDS_SKIPPED]++;
    if (task->order.probe)
        return TRM_OK;
    const trm_executor_env *env = task->env;
    trm_skipped what = {.state_dir = env->spec->state_dir,
                        .epoch = env->epoch,
                        .task = task->order.task,
                        .attempt = task->order.attempt,
                        .number = number,
                        .record = &task->reader.record};
    return trm_skipped_write(&what, env->fs, &task->err);
}

/* As map_body, but each record's number is where the supervisor finds it if this process dies. Blocks are
 * of one line: where longer ones end depends on who reads them, and more than the bad line would go. */
static trm_status map_body_numbered(trm_task *task, void *context)
{
    const trm_job *job = task->env->job;
    const trm_order *order = &task->order;
    trm_record_reader *reader = &task->reader;
    uint64_t *at = &task->board->record, end = order->probe ? order->end : UINT64_MAX;
    reader->one_line = true;
    __atomic_store_n(at, 0, __ATOMIC_RELAXED);
    trm_status status = trm_task_call(task, job->setup, "setup");
    unsigned skips = 0;
    for (uint64_t number = 0; status == TRM_OK; number++) {
        status = number < end ? trm_record_reader_next(reader, &task->err) : TRM_EOF;
        if (status != TRM_OK && status != TRM_EOF)
            __atomic_store_n(at, 0, __ATOMIC_RELAXED); /* it is not the one before that is bad */
        if (status != TRM_OK)
            break;
        if (is_skipped(order, number, &skips)) {
            status = write_skipped(task, (uint32_t)number);
        } else if (!order->probe || number >= order->first) {
            __atomic_store_n(at, number + 1, __ATOMIC_RELAXED);
            int result = job->map(task, &reader->record);
            if (!trm_task_went_well(task, result))
                status = trm_task_refuse(task, "map", result);
        }
    }
    return status == TRM_EOF ? trm_task_call(task, job->cleanup, "cleanup") : status;
}

static void name_record(const trm_task *task, trm_report *report)
{
    uint64_t record = task->board->record;
    report->record = record < UINT32_MAX ? (uint32_t)record : 0;
}

/* ---- A task ------------------------------------------------------------------------------- */

trm_status trm_task_map_records(trm_task *task, uint64_t records_max, uint64_t bytes_max)
{
    mapping bounds = {records_max, bytes_max};
    const trm_executor_env *env = task->env;
    trm_record_reader *reader = &task->reader;
    trm_record_reader_begin(reader, env->plan, task->order.task, env->board);
    bool left_out = task->order.probe || task->order.skips_count; /* by a launch before, perhaps */
    bool numbered = task->order.phase == TRM_PHASE_MAP && (env->spec->skips_max || left_out);
    trm_status status = trm_task_guard(task, numbered ? map_body_numbered : map_body, &bounds);
    /* What the user's own code has done is said with where it did it. */
    if ((status == TRM_EKERNEL || status == TRM_ERECORD) && reader->records_in && reader->record.path[0])
        trm_err_wrap(&task->err, "'%s' at byte %llu", reader->record.path,
                     (unsigned long long)reader->record.offset);
    trm_record_reader_end(reader);
    task->counters.value[TRM_COUNTER_MAP_RECORDS_IN] =
        reader->records_in - task->counters.value[TRM_COUNTER_MAP_RECORDS_SKIPPED];
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
    if (order->probe && status == TRM_OK)
        return trm_task_discard(task, report, err);
    if (status == TRM_OK && task->begun)
        status = env->traits->map_only ? trm_task_finish_part(task, report) : finish_run(task, report);
    if (status != TRM_OK && env->spec->skips_max)
        name_record(task, report);
    return trm_task_end(task, status, report, err);
}
