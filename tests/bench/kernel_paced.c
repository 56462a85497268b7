/* Tasks that take `ms` milliseconds each, of sleep or, with `busy`, of work; from task `after` on they
 * first wait until the file `gate` is there. Each emits its own number under one of 64 keys, so that
 * there are runs to lose and parts to commit. */
#include <trireme.h>

#include <stdio.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void take(uint64_t ms, bool busy)
{
    struct timespec pace = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    if (!busy) {
        nanosleep(&pace, NULL);
        return;
    }
    uint64_t until = now_ns() + ms * 1000000u;
    while (now_ns() < until)
        ;
}

static int map(trm_task *task, const trm_record *record)
{
    const char *gate = trm_param_string(task, "gate");
    uint64_t number = trm_task_index(task);
    while ((int64_t)number >= trm_param_int(task, "after") && access(gate, F_OK) != 0)
        usleep(5000);
    if (trm_param_int(task, "ms"))
        take((uint64_t)trm_param_int(task, "ms"), trm_param_bool(task, "busy"));
    char key[8];
    int len = snprintf(key, sizeof key, "k%u", (unsigned)(number % 64));
    trm_emit_u64(task, key, (size_t)len, number);
    return 0;
}

static const trm_param params[] = {{"ms", TRM_PARAM_INT, "0", "that a task takes", 0, 60000},
                                   {"busy", TRM_PARAM_BOOL, "false", "of work, not of sleep", 0, 0},
                                   {"gate", TRM_PARAM_STRING, "/", "a file that tasks wait for …", 0, 0},
                                   {"after", TRM_PARAM_INT, "0", "… from this number on", 0, INT64_MAX},
                                   {NULL, TRM_PARAM_STRING, NULL, NULL, 0, 0}};

TRM_EXPORT_JOB = {TRM_JOB_HEADER, .name = "paced",          .input = TRM_INPUT_NONE, .params = params,
                  .map = map,     .fold = TRM_FOLD_SUM_U64, .value_type = TRM_U64};
