#include "config.h" /* system extensions, before any header of the system */

#include "tool/launched.h"

#include "jobs/params.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINE_BYTES_MAX 1024u
#define COLUMNS_MIN 40
#define COLUMNS_MAX 500

const char *trm_launch_token(void)
{
    const char *token = getenv(TRM_LAUNCH_VARIABLE);
    return token && strlen(token) == TRM_LAUNCH_TOKEN_BYTES - 1 ? token : NULL;
}

/* As Open MPI, PMIx, and MPICH or Slurm's PMI say it. SLURM_PROCID does not count: a batch
 * script itself has one. */
bool trm_launched_as_rank(void)
{
    return getenv("OMPI_COMM_WORLD_RANK") || getenv("PMIX_RANK") || getenv("PMI_RANK");
}

unsigned trm_launched_ranks(void)
{
    static const char *const variables[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"};
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++) {
        const char *text = getenv(variables[i]);
        int64_t ranks;
        if (text && trm_parse_int(text, &ranks) && ranks > 0 && ranks <= TRM_RANKS_MAX)
            return (unsigned)ranks;
    }
    return 0;
}

unsigned trm_launch_terminal_columns(void)
{
    const char *text = getenv(TRM_TERMINAL_VARIABLE);
    int64_t columns;
    if (!trm_launch_token() || !text || !trm_parse_int(text, &columns))
        return 0;
    return columns < COLUMNS_MIN ? COLUMNS_MIN : columns > COLUMNS_MAX ? COLUMNS_MAX : (unsigned)columns;
}

bool trm_launch_keeps_output(void)
{
    return trm_launch_token() && getenv(TRM_KEEP_VARIABLE);
}

void trm_launch_tell(const char *kind, const char *text)
{
    const char *token = trm_launch_token();
    if (!token)
        return;
    char line[LINE_BYTES_MAX];
    int len = snprintf(line, sizeof line, "%c%s %s %s\n", TRM_LAUNCH_MARK, token, kind, text);
    if (len >= (int)sizeof line) {
        len = sizeof line - 1;
        line[len - 1] = '\n';
    }
    while (write(STDERR_FILENO, line, (size_t)len) < 0 && errno == EINTR)
        continue;
}
