/* What a trm_task of the user's really is: one an executor, used by one attempt after another,
 * so that memory stays warm and a task that does nothing costs nothing.
 *
 * User code runs under trm_task_guard. What must not return to it (an emit that cannot be done)
 * leaves it by a jump to the guard; frames of the house in between hold nothing that their
 * abort does not release. trm_emit finds its way by one branch on `mode`:
 *
 *     map      COLLECT_FIRST ─▶ COLLECT          PART_FIRST ─▶ PART (map-only)
 *     sample   SAMPLE          reduce  PART      combine  COMBINE, within the others
 *     FORBIDDEN in a partition function, ENDED between tasks
 *
 * Memory of an executor (`memory_bytes`): the process itself, the buffers of the stages, an
 * eighth for a large record, and the rest is one region that collector and merge share.
 */
#ifndef TRM_WORKERS_TASK_CONTEXT_H
#define TRM_WORKERS_TASK_CONTEXT_H

#include "jobs/params.h"
#include "workers/attempt.h"
#include "workers/collector.h"
#include "workers/fold_table.h"
#include "workers/merge.h"
#include "workers/part_writer.h"
#include "workers/reader.h"

#include <setjmp.h>

#define TRM_TASK_PROCESS_BYTES (4u << 20) /* code, libraries, the C library's heap */
#define TRM_TASK_STAGE_BYTES (TRM_MERGE_BYTES + TRM_PART_BUFFER_BYTES) /* collecting takes less */
#define TRM_TASK_REGION_BYTES_MIN (2u << 20)
/* A guess of what one executor has of the link to other hosts, for the compression policy. */
#define TRM_TASK_LINK_BYTES_S 100e6
#define TRM_TASK_KEY_SHOWN_BYTES 64u /* of a key in a message */

typedef enum trm_emit_mode {
    TRM_EMIT_ENDED = 0,
    TRM_EMIT_COLLECT,
    TRM_EMIT_COLLECT_FIRST, /* the run is named by the first pair */
    TRM_EMIT_PART,
    TRM_EMIT_PART_FIRST, /* the part is made by the first pair */
    TRM_EMIT_COMBINE,
    TRM_EMIT_SAMPLE,
    TRM_EMIT_FORBIDDEN
} trm_emit_mode;

/* Keys, as blobs, an even sample of those emitted: when it is full every other one is dropped
 * and from then on half as many are taken. */
typedef struct trm_key_sample {
    trm_writer keys;
    uint64_t stride, until_next;
} trm_key_sample;

struct trm_task {
    /* Hot: what every emit touches. */
    trm_emit_mode mode;
    bool failed;      /* trm_task_fail was called; err says why */
    bool begun;       /* the run or part of a map: there was a pair */
    uintptr_t thread; /* the only one that may emit */
    trm_collector *collector;
    trm_fold_table *table; /* of the collector, while it collects and pairs may wait in it; else anything */
    trm_part_writer *part;

    trm_executor_env *env;
    trm_order order; /* stays after the end, for who asks late */
    uint32_t tasks;  /* of the phase */
    void *user_state;
    jmp_buf *escape;    /* NULL: no user code runs */
    trm_status escaped; /* why it was left */
    trm_err err;
    trm_group_out *group_out; /* TRM_EMIT_COMBINE */
    trm_counters counters;
    trm_key_sample sample;
    trm_writer lost;
    trm_record_reader reader;
    trm_board *board, no_board; /* of the executor, or its own */
    trm_merge *merge;
    trm_region region;
    trm_compress_policy policy;
};

struct trm_values {
    trm_task *task;
    trm_group *group;
    bool ended;
};

/* The thread that runs now, in one instruction where the compiler knows how. */
#if defined(__has_builtin)
#if __has_builtin(__builtin_thread_pointer)
#define TRM_HAVE_THREAD_POINTER 1
#endif
#endif
#ifdef TRM_HAVE_THREAD_POINTER
static inline uintptr_t trm_thread_mark(void)
{
    return (uintptr_t)__builtin_thread_pointer();
}
#else
#include <pthread.h>
static inline uintptr_t trm_thread_mark(void)
{
    return (uintptr_t)pthread_self();
}
#endif

/* The executor's task, made on first use, ready for an attempt: counters and the user's state
 * are zero. Called on the thread that will run user code. TRM_ENOMEM. */
trm_status trm_task_begin(trm_task **out, trm_executor_env *env, const trm_order *order, uint32_t tasks,
                          trm_err *err);
/* After it user code can do nothing. Aborts what is not finished when `status` is a failure,
 * fills in the report's counters, and passes `status` and the task's message on. */
trm_status trm_task_end(trm_task *task, trm_status status, trm_report *report, trm_err *err);

/* The end of an attempt that went well and is not wanted: nothing is left of it. */
trm_status trm_task_discard(trm_task *task, trm_report *report, trm_err *err);

/* Runs `body` so that trm_task_escape within it ends it; keeps the mode as it was. Nests. */
trm_status trm_task_guard(trm_task *task, trm_status (*body)(trm_task *task, void *context), void *context);
/* Leaves user code for its guard; task->err is set. */
_Noreturn void trm_task_escape(trm_task *task, trm_status status);
/* What a user's function has returned: TRM_OK, or TRM_EKERNEL with what it has said in task->err. */
static inline bool trm_task_went_well(const trm_task *task, int result)
{
    return result == 0 && !task->failed;
}
trm_status trm_task_refuse(trm_task *task, const char *function, int result);

/* The stages, made when they are first needed; the memory of one is the other's. */
trm_status trm_task_need_collector(trm_task *task);
trm_status trm_task_need_merge(trm_task *task);
trm_status trm_task_open_part(trm_task *task);
/* Finishes the part, and what the report says of it. */
trm_status trm_task_finish_part(trm_task *task, trm_report *report);

void trm_key_sample_reset(trm_key_sample *self);
void trm_key_sample_add(trm_key_sample *self, const void *key, size_t key_len);

/* A user's setup or cleanup, which may be missing. */
trm_status trm_task_call(trm_task *task, int (*function)(trm_task *), const char *name);

/* map_task.c: all records of the task through setup, map and cleanup, under the guard. At most
 * `records_max` and about `bytes_max`. */
trm_status trm_task_map_records(trm_task *task, uint64_t records_max, uint64_t bytes_max);

#endif
