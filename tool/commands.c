/* The `trireme` command: which of its commands is meant. */
#include "config.h" /* system extensions, before any header of the system */

#include "tool/commands.h"

#include "jobs/exit_code.h"
#include "jobs/trireme.h"
#include "runtime/diag.h"
#include "tool/gen.h"
#include "tool/job_status.h"
#include "tool/kernels.h"
#include "tool/log.h"
#include "tool/run_command.h"

#include <stdio.h>
#include <string.h>

static int run(int argc, char **argv)
{
    return trm_run_command(argc, argv, "trireme run", NULL);
}

static int version(int argc, char **argv)
{
    printf("trireme %s (interface %u)\n", trm_version(), TRM_ABI);
    return TRM_EXIT_DONE;
}

static int help(int argc, char **argv);

static const struct {
    const char *name;
    int (*call)(int argc, char **argv); /* argv[0]: the command's name */
    const char *help;
} commands[] = {
    {"run", run, "run a job: trireme run -n 4 wordcount 'data/*' -o out"},
    {"status", trm_status_command, "how a job stands: trireme status out"},
    {"jobs", trm_jobs_command, "list the kernels that are installed, or show one"},
    {"gen", trm_gen_command, "make input to try things with"},
    {"log", trm_log_command, "print and check the log of a job"},
    {"version", version, "print the version"},
    {"help", help, "this text"},
};
#define COMMANDS_COUNT (sizeof commands / sizeof commands[0])

static int help(int argc, char **argv)
{
    printf("Usage: trireme COMMAND [ARGUMENT]…\n\nMap and reduce over MPI ranks that may die.\n\n");
    for (size_t i = 0; i < COMMANDS_COUNT; i++)
        printf("  %-10s %s\n", commands[i].name, commands[i].help);
    printf("\n`trireme COMMAND --help` says more of each.\n");
    return TRM_EXIT_DONE;
}

/* A full disk, a closed descriptor. Who reads a pipe no longer has ended us by SIGPIPE. */
static int check_said(int code)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return code;
    trm_error("what was to be said could not be written");
    return TRM_EXIT_LAUNCH;
}

int trm_command_main(int argc, char **argv)
{
    if (argc < 2) {
        trm_error("which command? (`trireme help` lists them)");
        return TRM_EXIT_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = "help";
    else if (strcmp(name, "--version") == 0)
        name = "version";
    for (size_t i = 0; i < COMMANDS_COUNT; i++)
        if (strcmp(commands[i].name, name) == 0)
            return check_said(commands[i].call(argc - 1, argv + 1));
    trm_error("unknown command '%s' (`trireme help` lists them)", name);
    return TRM_EXIT_USAGE;
}
