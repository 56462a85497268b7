/* Makes a test kernel of one that is as fast as it can be: each attempt says in the file `trace` when
 * it begins and, of a map, when it has ended, and takes `pace` milliseconds more, so that a job of
 * small tasks lasts long enough to be disturbed. Include it before the kernel, whose job is named
 * example_job then; export one that calls paced_begin and paced_end.
 *
 * A line of `trace`: what (m a map begins, M it has ended, r a reduce begins), the number of the task,
 * milliseconds since 1970, the process. Written by one write each, so that lines stay whole.
 */
#ifndef TRM_TESTS_PACED_H
#define TRM_TESTS_PACED_H

#include <trireme.h>

#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#undef TRM_EXPORT_JOB
#define TRM_EXPORT_JOB __attribute__((unused)) static const trm_job example_job
#define PACED_EXPORT_JOB                                                                                     \
    extern TRM_API const trm_job trm_exported_job;                                                           \
    const trm_job trm_exported_job

/* Parameters of every such kernel. */
#define PACED_TRACE                                                                                          \
    {                                                                                                        \
        "trace", TRM_PARAM_STRING, NULL, "what begins and ends is written down here", 0, 0                   \
    }
#define PACED_PACE                                                                                           \
    {                                                                                                        \
        "pace", TRM_PARAM_INT, "0", "milliseconds that each attempt takes more", 0, 60000                    \
    }

static int paced_note(trm_task *task, char what)
{
    char line[96];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int len = snprintf(line, sizeof line, "%c %llu %llu %d\n", what, (unsigned long long)trm_task_index(task),
                       (unsigned long long)now.tv_sec * 1000 + (unsigned long long)now.tv_nsec / 1000000,
                       (int)getpid());
    int fd = open(trm_param_string(task, "trace"), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
    int wrote = fd >= 0 && write(fd, line, (size_t)len) == len;
    if (fd >= 0)
        close(fd);
    return wrote ? 0 : trm_task_fail(task, "the trace cannot be written");
}

static int paced_begin(trm_task *task, char what)
{
    int64_t ms = trm_param_int(task, "pace");
    struct timespec pace = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    if (paced_note(task, what))
        return -1;
    nanosleep(&pace, NULL);
    return 0;
}

/* Of a reduce: before its first key. */
static int paced_begin_reduce(trm_task *task)
{
    static char begun;
    if (trm_task_state(task))
        return 0;
    trm_task_set_state(task, &begun);
    return paced_begin(task, 'r');
}

static int paced_end(trm_task *task)
{
    return paced_note(task, 'M');
}

#endif
