/* Emits more than an executor's memory holds, makes `gate`.waiting and waits until the file `gate` is there:
 * a run lies half written meanwhile. Each record gives 1 to each of `keys` keys of 1,000 bytes. */
#include "jobs/trireme.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int map(trm_task *task, const trm_record *record)
{
    char key[1000], waiting[4096];
    memset(key, 'k', sizeof key);
    for (int64_t i = 0; i < trm_param_int(task, "keys"); i++) {
        snprintf(key, 20, "%lld", (long long)i);
        trm_emit_u64(task, key, sizeof key, 1);
    }
    snprintf(waiting, sizeof waiting, "%s.waiting", trm_param_string(task, "gate"));
    close(open(waiting, O_CREAT | O_WRONLY, 0600));
    while (access(trm_param_string(task, "gate"), F_OK) != 0)
        usleep(10000);
    return 0;
}

static const trm_param params[] = {{"gate", TRM_PARAM_STRING, NULL, "the file", 0, 0},
                                   {"keys", TRM_PARAM_INT, "0", "how many", 0, 1 << 30},
                                   {NULL, TRM_PARAM_STRING, NULL, NULL, 0, 0}};

TRM_EXPORT_JOB = {TRM_JOB_HEADER,       .name = "spill", .help = "emits more than memory holds, then waits",
                  .params = params,     .map = map,      .fold = TRM_FOLD_SUM_U64,
                  .value_type = TRM_U64};
