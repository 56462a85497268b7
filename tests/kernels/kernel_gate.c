/* Counts words, but stops at a gate: tasks from number `after` on make `gate`.waiting and wait until
 * the file `gate` is there; all of them until `begin` is, if it is named. So a test can do something in the
 * middle of a job, whatever the machine's speed.
 */
#include "jobs/trireme.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void await(const char *path)
{
    while (access(path, F_OK) != 0)
        usleep(10000);
}

static int setup(trm_task *task)
{
    if (trm_param_string(task, "begin")[0])
        await(trm_param_string(task, "begin"));
    if ((int64_t)trm_task_index(task) < trm_param_int(task, "after"))
        return 0;
    char waiting[4096];
    snprintf(waiting, sizeof waiting, "%s.waiting", trm_param_string(task, "gate"));
    close(open(waiting, O_CREAT | O_WRONLY, 0600));
    await(trm_param_string(task, "gate"));
    return 0;
}

static int map(trm_task *task, const trm_record *record)
{
    const char *at = record->data, *end = at + record->len;
    while (at < end) {
        const char *space = memchr(at, ' ', (size_t)(end - at));
        size_t len = (size_t)((space ? space : end) - at);
        trm_emit_u64(task, at, len, 1);
        at += len + 1;
    }
    return 0;
}

static const trm_param params[] = {{"gate", TRM_PARAM_STRING, NULL, "the file", 0, 0},
                                   {"begin", TRM_PARAM_STRING, "", "the file before", 0, 0},
                                   {"after", TRM_PARAM_INT, "0", "the first task that waits", 0, 0},
                                   {NULL, TRM_PARAM_STRING, NULL, NULL, 0, 0}};

TRM_EXPORT_JOB = {TRM_JOB_HEADER,           .name = "gate",       .help = "counts words behind a gate",
                  .params = params,         .setup = setup,       .map = map,
                  .fold = TRM_FOLD_SUM_U64, .value_type = TRM_U64};
