/* The functions of trireme.h that a kernel calls inside a task. */
#include "config.h"

#include "workers/task_context.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- Emitting ----------------------------------------------------------------------- */

/* No task of this thread's is running: nothing that the process goes on to do can be trusted. */
static _Noreturn void emitted_outside(const char *when)
{
    char line[160];
    int len = snprintf(line, sizeof line, "trireme: the kernel emitted %s\n", when);
    if (len > 0 && write(STDERR_FILENO, line, (size_t)len) < 0)
        len = 0;
    _exit(TRM_EXIT_EMIT_AFTER_END);
}

static trm_status begin_run(trm_task *task)
{
    const trm_executor_env *env = task->env;
    char path[4096];
    trm_status status = trm_task_need_collector(task);
    if (status != TRM_OK)
        return status;
    if (trm_run_name(env->run_store, env->epoch, task->order.task, task->order.attempt, path, sizeof path) !=
        TRM_OK)
        return trm_err_set(&task->err, TRM_ELIMIT, "the path of the run store is too long: %s",
                           env->run_store);
    status = trm_collector_begin(task->collector, path, task->order.task, task->order.attempt, &task->err);
    if (status == TRM_OK) {
        task->mode = TRM_EMIT_COLLECT;
        task->table = trm_collector_table(task->collector);
        task->begun = true;
    }
    return status;
}

static trm_status check_pair(trm_task *task, size_t key_len, size_t value_len)
{
    uint64_t most =
        task->env->spec->record_bytes_max ? task->env->spec->record_bytes_max : TRM_RECORD_BYTES_DEFAULT;
    if (key_len > TRM_KEY_BYTES_MAX)
        return trm_err_set(&task->err, TRM_ERECORD, "a key of %zu bytes was emitted, the limit is %u",
                           key_len, TRM_KEY_BYTES_MAX);
    if (value_len > most)
        return trm_err_set(&task->err, TRM_ERECORD,
                           "a value of %zu bytes was emitted, the limit is %llu: raise --record-max",
                           value_len, (unsigned long long)most);
    return TRM_OK;
}

/* Wherever the pair goes; the collector checks limits by itself. */
__attribute__((noinline)) static trm_status emit_otherwise(trm_task *task, const void *key, size_t key_len,
                                                           const void *value, size_t value_len)
{
    trm_status status = TRM_OK;
    switch (task->mode) {
    case TRM_EMIT_COLLECT_FIRST:
        status = begin_run(task);
        if (status != TRM_OK)
            return status;
        /* fall through */
    case TRM_EMIT_COLLECT:
        return trm_collector_add(task->collector, key, key_len, value, value_len, &task->err);
    case TRM_EMIT_PART_FIRST:
        status = trm_task_open_part(task);
        if (status != TRM_OK)
            return status;
        task->mode = TRM_EMIT_PART;
        task->begun = true;
        /* fall through */
    case TRM_EMIT_PART:
        status = check_pair(task, key_len, value_len);
        return status == TRM_OK ? trm_part_writer_put(task->part, key, key_len, value, value_len, &task->err)
                                : status;
    case TRM_EMIT_COMBINE:
        return trm_group_out_put(task->group_out, key, key_len, value, value_len, &task->err);
    case TRM_EMIT_SAMPLE:
        status = check_pair(task, key_len, value_len);
        if (status == TRM_OK)
            trm_key_sample_add(&task->sample, key, key_len);
        return status;
    case TRM_EMIT_FORBIDDEN:
        return trm_err_set(&task->err, TRM_EKERNEL, "a partition function emitted");
    case TRM_EMIT_ENDED:
        emitted_outside("after its task ended");
    }
    return TRM_OK;
}

void trm_emit(trm_task *task, const void *key, size_t key_len, const void *value, size_t value_len)
{
    if (__builtin_expect(task->thread != trm_thread_mark(), 0))
        emitted_outside("from another thread than its task's");
    trm_status status = task->mode == TRM_EMIT_COLLECT
                            ? trm_collector_add(task->collector, key, key_len, value, value_len, &task->err)
                            : emit_otherwise(task, key, key_len, value, value_len);
    if (__builtin_expect(status != TRM_OK, 0))
        trm_task_escape(task, status);
}

__attribute__((noinline)) static void emit_u64_otherwise(trm_task *task, const void *key, size_t key_len,
                                                         uint64_t value)
{
    trm_emit(task, key, key_len, &value, sizeof value);
}

__attribute__((noinline)) static void settle(trm_task *task)
{
    trm_status status = trm_collector_settle(task->collector, &task->err);
    if (status != TRM_OK)
        trm_task_escape(task, status);
}

void trm_emit_u64(trm_task *task, const void *key, size_t key_len, uint64_t value)
{
    if (__builtin_expect(task->mode == TRM_EMIT_COLLECT && task->table && key_len <= TRM_FOLD_KEY_INLINE &&
                             task->thread == trm_thread_mark(),
                         1)) {
        if (__builtin_expect(!trm_fold_table_wait(task->table, key, key_len, value, sizeof value), 0))
            settle(task);
        return;
    }
    emit_u64_otherwise(task, key, key_len, value);
}

void trm_emit_many_u64(trm_task *task, const trm_key *keys, size_t n, uint64_t value)
{
    for (size_t done = 0; done < n;) {
        bool waits = task->mode == TRM_EMIT_COLLECT && task->table && task->thread == trm_thread_mark();
        size_t some = waits ? trm_fold_table_wait_many(task->table, keys + done, n - done, value) : 0;
        done += some;
        if (waits && task->table->waiting == TRM_FOLD_WAITING)
            settle(task);
        else if (done < n) {
            emit_u64_otherwise(task, keys[done].data, keys[done].len, value);
            done++;
        }
    }
}

/* ---- Values ------------------------------------------------------------------------- */

bool trm_values_next(trm_values *values, const void **value, size_t *value_len)
{
    if (values->ended)
        return false;
    trm_task *task = values->task;
    trm_status status = trm_group_next(values->group, value, value_len, &task->err);
    if (status == TRM_OK)
        return true;
    values->ended = true;
    if (status != TRM_EOF)
        trm_task_escape(task, status);
    return false;
}

int trm_reduce_identity(trm_task *task, const void *key, size_t key_len, trm_values *values)
{
    const void *value;
    size_t value_len;
    while (trm_values_next(values, &value, &value_len))
        trm_emit(task, key, key_len, value, value_len);
    return 0;
}

/* ---- Counters and parameters --------------------------------------------------------- */

static _Noreturn void misuse(trm_task *task)
{
    if (!task->escape)
        emitted_outside("or asked for something after its task ended");
    trm_task_escape(task, TRM_EKERNEL);
}

void trm_count(trm_task *task, unsigned counter, uint64_t n)
{
    uint32_t listed = task->env->traits->counters_count;
    if (counter >= listed) {
        trm_err_set(&task->err, TRM_EKERNEL, "counter %u was counted, but the job lists %u", counter, listed);
        misuse(task);
    }
    task->counters.value[TRM_COUNTER_USER + counter] += n;
}

static const trm_param_value *param(trm_task *task, const char *name, trm_param_type type)
{
    static const char *const types[] = {"a string", "an int", "a size", "a double", "a bool"};
    const trm_param_value *value = trm_params_find(task->env->params, name);
    if (value && value->param->type == type)
        return value;
    if (value)
        trm_err_set(&task->err, TRM_EKERNEL, "parameter '%s' was asked for as %s, but the job lists it as %s",
                    name, types[type], types[value->param->type]);
    else
        trm_err_set(&task->err, TRM_EKERNEL, "parameter '%s' was asked for, but the job does not list it",
                    name);
    misuse(task);
}

const char *trm_param_string(trm_task *task, const char *name)
{
    return param(task, name, TRM_PARAM_STRING)->string;
}
int64_t trm_param_int(trm_task *task, const char *name)
{
    return param(task, name, TRM_PARAM_INT)->integer;
}
uint64_t trm_param_size(trm_task *task, const char *name)
{
    return param(task, name, TRM_PARAM_SIZE)->size;
}
double trm_param_double(trm_task *task, const char *name)
{
    return param(task, name, TRM_PARAM_DOUBLE)->number;
}
bool trm_param_bool(trm_task *task, const char *name)
{
    return param(task, name, TRM_PARAM_BOOL)->flag;
}

/* ---- The rest ------------------------------------------------------------------------- */

void trm_task_set_state(trm_task *task, void *state)
{
    task->user_state = state;
}
void *trm_task_state(trm_task *task)
{
    return task->user_state;
}
uint64_t trm_task_index(const trm_task *task)
{
    return task->order.task;
}
uint32_t trm_task_partitions(const trm_task *task)
{
    return task->env->plan->partitions;
}

int trm_task_fail(trm_task *task, const char *format, ...)
{
    if (task->failed) /* the first reason is the reason */
        return -1;
    va_list args;
    va_start(args, format);
    vsnprintf(task->err.text, sizeof task->err.text, format, args);
    va_end(args);
    task->failed = true;
    return -1;
}

const char *trm_version(void)
{
    return PACKAGE_VERSION;
}
