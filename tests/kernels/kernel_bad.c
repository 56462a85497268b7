/* A kernel that misbehaves as it is told: -p how=… A record that is "good" does nothing. */
#include "jobs/trireme.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static trm_task *last_task;
static volatile int forever = 1;

static void *emit_elsewhere(void *unused)
{
    trm_emit(last_task, "late", 4, "1", 1);
    return unused;
}

/* Where no task is running: on another thread. */
static void emit_late(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, emit_elsewhere, NULL) == 0)
        pthread_join(thread, NULL);
}

static void leak(void)
{
    for (;;) {
        char *bytes = malloc(1 << 20);
        if (!bytes)
            abort();
        memset(bytes, 1, 1 << 20);
    }
}

static int map(trm_task *task, const trm_record *record)
{
    const char *how = trm_param_string(task, "how");
    static char big[80 << 10];
    last_task = task;
    if (record->len == 4 && memcmp(record->data, "good", 4) == 0)
        trm_emit(task, "good", 4, "1", 1);
    else if (strcmp(how, "segfault") == 0)
        raise(SIGSEGV);
    else if (strcmp(how, "abort") == 0)
        abort();
    else if (strcmp(how, "exit") == 0)
        exit(7);
    else if (strcmp(how, "loop") == 0)
        while (forever)
            usleep(1000);
    else if (strcmp(how, "leak") == 0)
        leak();
    else if (strcmp(how, "late") == 0)
        emit_late();
    else if (strcmp(how, "key") == 0)
        trm_emit(task, big, sizeof big, "1", 1);
    else if (strcmp(how, "value") == 0)
        trm_emit(task, "k", 1, big, sizeof big);
    else if (strcmp(how, "param") == 0)
        trm_param_int(task, "nothing");
    else if (strcmp(how, "say") == 0) {
        fprintf(stderr, "these are my last words\n");
        return trm_task_fail(task, "the record is '%.*s'", (int)record->len, record->data);
    }
    return 0;
}

static int reduce(trm_task *task, const void *key, size_t key_len, trm_values *values)
{
    const void *value;
    size_t len;
    uint64_t count = 0;
    while (trm_values_next(values, &value, &len))
        count++;
    trm_emit(task, key, key_len, &count, sizeof count);
    return 0;
}

static const trm_param params[] = {{"how", TRM_PARAM_STRING, "good", "in which way", 0, 0},
                                   {NULL, 0, NULL, NULL, 0, 0}};

TRM_EXPORT_JOB = {TRM_JOB_HEADER, .name = "bad",    .help = "misbehaves", .params = params,
                  .map = map,     .reduce = reduce, .value_type = TRM_U64};
