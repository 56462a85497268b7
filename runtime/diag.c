#include "runtime/diag.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#define LINE_BYTES_MAX 2048

static trm_diag_level max_level = TRM_DIAG_INFO;
static int own_rank = -1;

void trm_diag_configure(trm_diag_level level, int rank)
{
    max_level = level;
    own_rank = rank;
}

trm_diag_level trm_diag_level_max(void)
{
    return max_level;
}

void trm_diag(trm_diag_level level, const char *format, ...)
{
    if (level > max_level)
        return;
    int saved_errno = errno;
    static const char *const kinds[] = {"error: ", "warning: ", "", ""};
    char line[LINE_BYTES_MAX];
    int at = own_rank < 0 ? snprintf(line, sizeof line, "trireme: %s", kinds[level])
                          : snprintf(line, sizeof line, "trireme[%d]: %s", own_rank, kinds[level]);
    va_list args;
    va_start(args, format);
    int more = vsnprintf(line + at, sizeof line - (size_t)at - 1, format, args);
    va_end(args);
    size_t len = (size_t)at + (more > 0 ? (size_t)more : 0);
    if (len > sizeof line - 2)
        len = sizeof line - 2;
    line[len++] = '\n';
    while (write(STDERR_FILENO, line, len) < 0 && errno == EINTR)
        continue;
    errno = saved_errno;
}
