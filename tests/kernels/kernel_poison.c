/* Counts words, and dies of what it reads, as it is told: -p how=…
 *
 *     die …     kills it
 *     rot …     spoils its memory, and kills nothing …
 *     use …     … but this does, once its memory is spoilt
 *     sulk …    kills it the first time that there is no file `once`, which it makes
 *     wait …    waits until there is a file `gate`
 */
#include "jobs/trireme.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile int forever = 1;
static int rotten;
void *leaked; /* seen from elsewhere, so that it is not left out */

static int setup(trm_task *task)
{
    rotten = 0;
    return 0;
}

static int die(trm_task *task)
{
    const char *how = trm_param_string(task, "how");
    if (strcmp(how, "segfault") == 0)
        raise(SIGSEGV);
    if (strcmp(how, "abort") == 0)
        abort();
    if (strcmp(how, "exit") == 0)
        exit(7);
    while (strcmp(how, "leak") == 0 && forever) {
        leaked = malloc(1 << 20);
        if (!leaked)
            abort();
        memset(leaked, 1, 1 << 20);
    }
    while (strcmp(how, "loop") == 0 && forever)
        usleep(1000);
    return trm_task_fail(task, "this record is bad");
}

static int begins(const trm_record *record, const char *with)
{
    size_t len = strlen(with);
    return record->len >= len && memcmp(record->data, with, len) == 0;
}

static int map(trm_task *task, const trm_record *record)
{
    if (begins(record, "rot"))
        rotten = 1;
    if (begins(record, "die") || (begins(record, "use") && rotten))
        return die(task);
    if (begins(record, "sulk")) {
        int fd = open(trm_param_string(task, "once"), O_CREAT | O_EXCL | O_WRONLY, 0600);
        if (fd >= 0)
            return die(task);
    }
    while (begins(record, "wait") && access(trm_param_string(task, "gate"), F_OK) != 0)
        usleep(1000);
    const char *at = record->data, *end = at + record->len;
    while (at < end) {
        const char *space = memchr(at, ' ', (size_t)(end - at));
        size_t len = (size_t)((space ? space : end) - at);
        trm_emit_u64(task, at, len, 1);
        at += len + 1;
    }
    return 0;
}

static const trm_param params[] = {{"how", TRM_PARAM_STRING, "segfault", "in which way it dies", 0, 0},
                                   {"once", TRM_PARAM_STRING, "/dev/null", "the file", 0, 0},
                                   {"gate", TRM_PARAM_STRING, "/dev/null", "the file", 0, 0},
                                   {NULL, TRM_PARAM_STRING, NULL, NULL, 0, 0}};

TRM_EXPORT_JOB = {TRM_JOB_HEADER,           .name = "poison",     .help = "counts words that may kill it",
                  .params = params,         .setup = setup,       .map = map,
                  .fold = TRM_FOLD_SUM_U64, .value_type = TRM_U64};
