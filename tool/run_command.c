#include "config.h" /* system extensions, before any header of the system */

#include "tool/run_command.h"

#include "jobs/exit_code.h"
#include "runtime/diag.h"
#include "tool/kernels.h"
#include "tool/launch.h"
#include "tool/launched.h"
#include "tool/rank.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SILENT_MS 5000 /* for rank 0 to say what all have found: mpirun ends it for another's status */

/* NULL: not a rank. */
static const char *rank_name(void)
{
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    rank = rank ? rank : getenv("PMIX_RANK");
    return rank ? rank : getenv("PMI_RANK");
}

static bool is_first(const char *rank)
{
    return !rank || strcmp(rank, "0") == 0;
}

/* Usually all ranks find the same mistake, and one of them says it. What is wrong with the options is the
 * same everywhere; the kernel may be missing on one host only. If our launcher has started this rank, so
 * it is, since the launcher has found the kernel. */
static bool speaks(const char *rank, trm_status status)
{
    if (is_first(rank) || (trm_launch_token() && status != TRM_EUSAGE))
        return true;
    poll(NULL, 0, SILENT_MS);
    return status != TRM_EUSAGE;
}

static int refuse(trm_status status, const char *command, const trm_err *err)
{
    int code = (int)trm_exit_code_of(status);
    const char *rank = rank_name();
    if (!speaks(rank, status))
        return code;
    char text[16], host[256] = "";
    gethostname(host, sizeof host - 1);
    if (is_first(rank))
        trm_error("%s", err->text);
    else
        trm_error("rank %s on %s: %s", rank, host, err->text);
    if (status == TRM_EUSAGE)
        fprintf(stderr, "`%s --help` shows the options.\n", command);
    snprintf(text, sizeof text, "%d", code);
    trm_launch_tell("result", text);
    return code;
}

static int be_rank(trm_options *options)
{
    options->spec.overwrite &= !trm_launch_keeps_output();
    return trm_rank_run(options);
}

int trm_run_command(int argc, char **argv, const char *command, const trm_job *own_job)
{
    trm_options options;
    trm_err err = {""};
    int code = TRM_EXIT_DONE;
    trm_status status = trm_options_read(&options, argc, argv, own_job, &err);
    if (status == TRM_OK && options.help) {
        if (is_first(rank_name()))
            trm_options_print_help(command, own_job);
    } else {
        if (status == TRM_OK)
            status = trm_kernel_find(&options.spec, &err);
        if (status != TRM_OK)
            code = refuse(status, command, &err);
        else if (trm_launched_as_rank())
            code = be_rank(&options);
        else
            code = trm_launch(&options, argc, argv);
    }
    trm_options_close(&options);
    return code;
}
