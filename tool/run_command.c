#include "config.h" /* system extensions, before any header of the system */

#include "tool/run_command.h"

#include "jobs/exit_code.h"
#include "runtime/diag.h"
#include "tool/kernels.h"
#include "tool/launch.h"
#include "tool/launched.h"
#include "tool/rank.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* All ranks find the same mistake: one of them says it. */
static bool speaks(void)
{
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    rank = rank ? rank : getenv("PMIX_RANK");
    rank = rank ? rank : getenv("PMI_RANK");
    return !rank || strcmp(rank, "0") == 0;
}

static int refuse(trm_status status, const char *command, const trm_err *err)
{
    int code = (int)trm_exit_code_of(status);
    if (!speaks())
        return code;
    char text[16];
    trm_error("%s", err->text);
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
        if (speaks())
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
