#include "config.h" /* system extensions, before any header of the system */

#include "tool/options.h"

#include "jobs/names.h"
#include "jobs/params.h"
#include "runtime/codec.h"

#include <inttypes.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct option_rule option_rule;
typedef trm_status (*option_reader)(trm_options *self, const option_rule *option, const char *value,
                                    trm_err *err);

struct option_rule {
    char letter; /* 0: none */
    const char *name;
    const char *argument; /* as --help shows it; NULL: a switch; in brackets: it may be left out, and else
                             follows a '=' */
    option_reader read;
    size_t at; /* in trm_options */
    uint64_t min, max;
    const char *help;
};

/* ---- What an option takes --------------------------------------------------------------- */

static void *place(trm_options *self, const option_rule *option)
{
    return (char *)self + option->at;
}

static trm_status no_memory(trm_err *err)
{
    return trm_err_set(err, TRM_ENOMEM, "no memory for the options");
}

static trm_status read_flag(trm_options *self, const option_rule *option, const char *value, trm_err *err)
{
    *(bool *)place(self, option) = true;
    return TRM_OK;
}

static trm_status check_bounds(const option_rule *option, const char *value, uint64_t number, trm_err *err)
{
    if (number >= option->min && number <= option->max)
        return TRM_OK;
    return trm_err_set(err, TRM_EUSAGE, "--%s %s is out of range: %" PRIu64 " to %" PRIu64, option->name,
                       value, option->min, option->max);
}

static trm_status read_number(const option_rule *option, const char *value, uint64_t *out, trm_err *err)
{
    int64_t number;
    if (!trm_parse_int(value, &number) || number < 0)
        return trm_err_set(err, TRM_EUSAGE, "--%s takes a whole number, not '%s'", option->name, value);
    *out = (uint64_t)number;
    return check_bounds(option, value, *out, err);
}

static trm_status read_u32(trm_options *self, const option_rule *option, const char *value, trm_err *err)
{
    uint64_t number = 0;
    trm_status status = read_number(option, value, &number, err);
    if (status == TRM_OK)
        *(uint32_t *)place(self, option) = (uint32_t)number;
    return status;
}

static trm_status read_u64(trm_options *self, const option_rule *option, const char *value, trm_err *err)
{
    uint64_t number = 0;
    trm_status status = read_number(option, value, &number, err);
    if (status == TRM_OK)
        *(uint64_t *)place(self, option) = number;
    return status;
}

/* 16M, and not 16777216. */
static const char *size_text(uint64_t bytes, char out[24])
{
    static const char units[] = "\0KMGT";
    unsigned unit = 0;
    while (bytes && bytes % 1024 == 0 && unit < 4) {
        bytes /= 1024;
        unit++;
    }
    snprintf(out, 24, "%" PRIu64 "%.1s", bytes, units + unit);
    return out;
}

static trm_status read_size(trm_options *self, const option_rule *option, const char *value, trm_err *err)
{
    uint64_t bytes;
    if (!trm_parse_size(value, &bytes))
        return trm_err_set(err, TRM_EUSAGE, "--%s takes a size such as 64M, not '%s'", option->name, value);
    if (bytes < option->min || bytes > option->max) {
        char min[24], max[24];
        return trm_err_set(err, TRM_EUSAGE, "--%s %s is out of range: %s to %s", option->name, value,
                           size_text(option->min, min), size_text(option->max, max));
    }
    *(uint64_t *)place(self, option) = bytes;
    return TRM_OK;
}

static trm_status read_duration(trm_options *self, const option_rule *option, const char *value, trm_err *err)
{
    uint64_t ms;
    if (!trm_parse_duration_ms(value, &ms))
        return trm_err_set(err, TRM_EUSAGE, "--%s takes a time such as 500ms, 30s or 2h, not '%s'",
                           option->name, value);
    if (ms < option->min || ms > option->max)
        return trm_err_set(err, TRM_EUSAGE, "--%s %s is out of range: %" PRIu64 "ms to %" PRIu64 "h",
                           option->name, value, option->min, option->max / 3600000);
    *(uint64_t *)place(self, option) = ms;
    return TRM_OK;
}

static trm_status read_text(trm_options *self, const option_rule *option, const char *value, trm_err *err)
{
    char **text = place(self, option);
    if (!value[0])
        return trm_err_set(err, TRM_EUSAGE, "--%s takes %s, not nothing", option->name, option->argument);
    free(*text);
    *text = strdup(value);
    return *text ? TRM_OK : no_memory(err);
}

/* Absolute, without a slash at the end. */
static char *absolute(const char *path)
{
    char here[PATH_MAX] = "";
    if (path[0] != '/' && !getcwd(here, sizeof here))
        return NULL;
    char *out = NULL;
    if (asprintf(&out, "%s%s%s", here, path[0] == '/' || strcmp(here, "/") == 0 ? "" : "/", path) < 0)
        return NULL;
    for (size_t len = strlen(out); len > 1 && out[len - 1] == '/'; len--)
        out[len - 1] = 0;
    return out;
}

static trm_status read_path(trm_options *self, const option_rule *option, const char *value, trm_err *err)
{
    char **path = place(self, option);
    if (!value[0])
        return trm_err_set(err, TRM_EUSAGE, "--%s takes %s, not nothing", option->name, option->argument);
    if (strlen(value) >= PATH_MAX / 2)
        return trm_err_set(err, TRM_EUSAGE, "--%s: the path is too long", option->name);
    free(*path);
    *path = absolute(value);
    return *path ? TRM_OK
                 : trm_err_set(err, TRM_EUSAGE, "--%s %s: the working directory cannot be read", option->name,
                               value);
}

static trm_status read_skips(trm_options *self, const option_rule *option, const char *value, trm_err *err)
{
    if (value)
        return read_u32(self, option, value, err);
    self->spec.skips_max = TRM_SKIPS_DEFAULT;
    return TRM_OK;
}

static trm_status read_speculate(trm_options *self, const option_rule *option, const char *value,
                                 trm_err *err)
{
    bool on = strcmp(value, "on") == 0;
    if (!on && strcmp(value, "off") != 0)
        return trm_err_set(err, TRM_EUSAGE, "--speculate takes on or off, not '%s'", value);
    self->spec.never_twice = !on;
    return TRM_OK;
}

/* NAME=VALUE, or NAME alone for a boolean. */
static trm_status read_param(trm_options *self, const option_rule *option, const char *value, trm_err *err)
{
    trm_spec *spec = &self->spec;
    size_t len = strcspn(value, "=");
    if (len == 0)
        return trm_err_set(err, TRM_EUSAGE, "-p takes NAME=VALUE, not '%s'", value);
    if (spec->params_count == TRM_PARAMS_MAX)
        return trm_err_set(err, TRM_EUSAGE, "more than %u parameters", TRM_PARAMS_MAX);
    trm_param_arg arg = {.name = strndup(value, len), .value = value[len] ? strdup(value + len + 1) : NULL};
    trm_param_arg *params = realloc(spec->params, (spec->params_count + 1) * sizeof *params);
    if (params)
        spec->params = params;
    if (!params || !arg.name || (value[len] && !arg.value)) {
        free(arg.name);
        free(arg.value);
        return no_memory(err);
    }
    params[spec->params_count++] = arg;
    return TRM_OK;
}

static trm_status read_bind(trm_options *self, const option_rule *option, const char *value, trm_err *err)
{
    static const char *const names[] = {"core", "numa", "none"};
    for (unsigned i = 0; i < 3; i++) {
        if (strcmp(value, names[i]) == 0) {
            self->spec.bind = (trm_bind_mode)i;
            return TRM_OK;
        }
    }
    return trm_err_set(err, TRM_EUSAGE, "--bind takes core, numa or none, not '%s'", value);
}

static trm_status read_compress(trm_options *self, const option_rule *option, const char *value, trm_err *err)
{
    trm_spec *spec = &self->spec;
    int64_t level = 1;
    if (strcmp(value, "auto") == 0)
        spec->compress = TRM_COMPRESS_AUTO;
    else if (strcmp(value, "none") == 0)
        spec->compress = TRM_COMPRESS_NONE;
    else if (strcmp(value, "zlib") == 0)
        spec->compress = TRM_COMPRESS_ZLIB;
    else if (strncmp(value, "zlib:", 5) == 0 && trm_parse_int(value + 5, &level) &&
             level >= TRM_CODEC_LEVEL_MIN && level <= TRM_CODEC_LEVEL_MAX)
        spec->compress = TRM_COMPRESS_ZLIB;
    else
        return trm_err_set(err, TRM_EUSAGE,
                           "--compress takes auto, none, zlib or zlib:%d … zlib:%d, not '%s'",
                           TRM_CODEC_LEVEL_MIN, TRM_CODEC_LEVEL_MAX, value);
    spec->compress_level = (int)level;
    return TRM_OK;
}

static trm_status read_mpirun_option(trm_options *self, const option_rule *option, const char *value,
                                     trm_err *err)
{
    if (self->mpirun_options_count == TRM_MPIRUN_OPTIONS_MAX)
        return trm_err_set(err, TRM_EUSAGE, "--%s is given more than %u times", option->name,
                           TRM_MPIRUN_OPTIONS_MAX);
    char *copy = strdup(value);
    if (!copy)
        return no_memory(err);
    self->mpirun_options[self->mpirun_options_count++] = copy;
    return TRM_OK;
}

/* ---- The table ------------------------------------------------------------------------------ */

#define IN(field) offsetof(trm_options, field)
#define SPEC(field) offsetof(trm_options, spec.field)
#define HOUR_MS 3600000ull

static const option_rule options[] = {
    {'n', "ranks", "N", read_u32, IN(ranks), 1, TRM_RANKS_MAX, "how many ranks mpirun starts"},
    {'o', "output", "DIR", read_path, SPEC(output_dir), 0, 0,
     "where the parts and _SUCCESS go; must be given"},
    {'p', "param", "NAME=VALUE", read_param, 0, 0, 0, "a parameter of the job; NAME alone for a yes"},
    {0, "overwrite", NULL, read_flag, SPEC(overwrite), 0, 0,
     "replace an output: all that is in its directory"},
    {0, "gzip", NULL, read_flag, SPEC(gzip_output), 0, 0, "write parts as gzip"},
    {0, "partitions", "N", read_u32, SPEC(partitions), 1, TRM_PARTITIONS_MAX,
     "how many parts [as many as executors]"},
    {0, "tasks", "N", read_u64, SPEC(tasks), 1, TRM_TASKS_MAX,
     "how many map tasks a job without input has [1]"},
    {0, "split-size", "SIZE", read_size, SPEC(split_bytes), 1, 1ull << 40, "input of a map task [chosen]"},
    {0, "line-max", "SIZE", read_size, SPEC(line_bytes_max), 1, 1ull << 31, "the longest line [16M]"},
    {0, "record-max", "SIZE", read_size, SPEC(record_bytes_max), 1, 1ull << 31,
     "the largest file or value [64M]"},
    {0, "executors", "N", read_u32, SPEC(executors), 1, TRM_EXECUTORS_MAX,
     "processes that run kernels, a rank [its cores]"},
    {0, "bind", "core|numa|none", read_bind, 0, 0, 0, "what an executor is bound to [core]"},
    {0, "memory", "SIZE", read_size, SPEC(memory_bytes), TRM_MEMORY_BYTES_MIN, 1ull << 50,
     "of a rank [its share of the host]"},
    {0, "max-attempts", "N", read_u32, SPEC(attempts_max), 1, 100, "of a task before the job fails [4]"},
    {0, "task-timeout", "TIME", read_duration, SPEC(task_timeout_ms), 10, 8760 * HOUR_MS,
     "an attempt may take [no limit]"},
    {0, "skip-bad-records", "[=N]", read_skips, SPEC(skips_max), 1, TRM_SKIPS_MAX,
     "leave out records that kill map, up to N of the job [none; 100]"},
    {0, "speculate", "on|off", read_speculate, 0, 0, 0, "run the slowest tasks a second time elsewhere [on]"},
    {0, "compress", "auto|none|zlib[:LEVEL]", read_compress, 0, 0, 0,
     "of runs and of what crosses hosts [auto]"},
    {0, "replicas", "N", read_u32, SPEC(replicas), 1, TRM_REPLICAS_MAX,
     "hosts that keep what a map task has made: 2 outlives a host [1]"},
    {0, "scratch", "DIR", read_path, SPEC(scratch_dir), 0, 0,
     "for runs and spills, on each host [$TMPDIR or /tmp]"},
    {0, "state", "DIR", read_path, SPEC(state_dir), 0, 0,
     "for the job's log and record [.trireme in the output]"},
    {0, "election-timeout", "TIME", read_duration, SPEC(election_timeout_ms), 50, HOUR_MS,
     "silence after which another rank leads [1s]"},
    {0, "voters", "N", read_u32, SPEC(voters), 1, TRM_VOTERS_MAX,
     "ranks that decide on the log, at most; an even N is one too many [5]"},
    {0, "unsafe-recover", NULL, read_flag, SPEC(unsafe_recover), 0, 0,
     "go on though logs of the last launch are missing"},
    {0, "host", "LIST", read_text, IN(hosts), 0, 0, "hosts, as mpirun takes them: a:2,b:2"},
    {0, "hostfile", "FILE", read_path, IN(hostfile), 0, 0, "hosts, as mpirun takes them, from a file"},
    {0, "relaunch", "N", read_u32, IN(relaunches), 0, TRM_RELAUNCHES_MAX,
     "how often mpirun is started again when it is lost [2]"},
    {0, "start-timeout", "TIME", read_duration, IN(start_timeout_ms), 100, 24 * HOUR_MS,
     "the start of the ranks may take, and again that of MPI [5m]"},
    {0, "mpirun", "PROGRAM", read_text, IN(mpirun), 0, 0, "what starts the ranks [mpirun.openmpi or mpirun]"},
    {0, "mpirun-option", "ARG", read_mpirun_option, 0, 0, 0, "one more argument for mpirun; may be repeated"},
    {0, "report-bindings", NULL, read_flag, SPEC(report_bindings), 0, 0,
     "print which executor runs on which core"},
    {'q', "quiet", NULL, read_flag, SPEC(quiet), 0, 0, "errors only"},
    {'v', "verbose", NULL, read_flag, SPEC(verbose), 0, 0, "say more"},
    {'h', "help", NULL, read_flag, IN(help), 0, 0, "this text"},
};
#define OPTIONS_COUNT (sizeof options / sizeof options[0])

/* ---- Reading ---------------------------------------------------------------------------------- */

typedef struct arguments {
    int argc, next;
    char **argv;
} arguments;

static trm_status read_value(trm_options *self, const option_rule *option, const char *value, arguments *args,
                             trm_err *err)
{
    bool may_be_left_out = option->argument && option->argument[0] == '[';
    if (option->argument && !value && !may_be_left_out) {
        if (args->next == args->argc)
            return trm_err_set(err, TRM_EUSAGE, "--%s takes %s", option->name, option->argument);
        value = args->argv[args->next++];
    }
    return option->read(self, option, value, err);
}

/* --name, --name VALUE, --name=VALUE */
static trm_status read_long(trm_options *self, const char *arg, arguments *args, trm_err *err)
{
    size_t len = strcspn(arg, "=");
    for (size_t i = 0; i < OPTIONS_COUNT; i++) {
        if (strlen(options[i].name) != len || strncmp(options[i].name, arg, len) != 0)
            continue;
        if (arg[len] && !options[i].argument)
            return trm_err_set(err, TRM_EUSAGE, "--%s takes no value", options[i].name);
        return read_value(self, &options[i], arg[len] ? arg + len + 1 : NULL, args, err);
    }
    return trm_err_set(err, TRM_EUSAGE, "unknown option --%.*s", (int)(len < 64 ? len : 64), arg);
}

/* -q, -n 4, -n4, -qv */
static trm_status read_short(trm_options *self, const char *arg, arguments *args, trm_err *err)
{
    if (strcmp(arg, "np") == 0) /* as mpirun has it; else read as -n p */
        return trm_err_set(err, TRM_EUSAGE, "unknown option -np: how many ranks is -n N");
    for (; *arg; arg++) {
        size_t i = 0;
        while (i < OPTIONS_COUNT && options[i].letter != *arg)
            i++;
        if (i == OPTIONS_COUNT)
            return trm_err_set(err, TRM_EUSAGE, "unknown option -%c", *arg);
        if (options[i].argument)
            return read_value(self, &options[i], arg[1] ? arg + 1 : NULL, args, err);
        trm_status status = options[i].read(self, &options[i], NULL, err);
        if (status != TRM_OK)
            return status;
    }
    return TRM_OK;
}

static trm_status take_argument(trm_options *self, const char *arg, trm_err *err)
{
    trm_spec *spec = &self->spec;
    if (!spec->own_job && !spec->kernel_name) {
        spec->kernel_name = strdup(arg);
        return spec->kernel_name ? TRM_OK : no_memory(err);
    }
    if (!arg[0])
        return trm_err_set(err, TRM_EUSAGE, "an input's name is empty");
    if ((spec->inputs_count & (spec->inputs_count - 1)) == 0) { /* room doubles */
        size_t room = spec->inputs_count ? 2 * (size_t)spec->inputs_count : 1;
        char **inputs = realloc(spec->inputs, room * sizeof *inputs);
        if (!inputs)
            return no_memory(err);
        spec->inputs = inputs;
    }
    if (spec->inputs_count == TRM_INPUTS_ARGS_MAX)
        return trm_err_set(err, TRM_EUSAGE, "more than %u inputs: name them in a file, @FILE",
                           TRM_INPUTS_ARGS_MAX);
    spec->inputs[spec->inputs_count] = strdup(arg);
    return spec->inputs[spec->inputs_count++] ? TRM_OK : no_memory(err);
}

static trm_status read_all(trm_options *self, arguments *args, trm_err *err)
{
    bool options_ended = false;
    trm_status status = TRM_OK;
    while (args->next < args->argc && status == TRM_OK && !self->help) {
        const char *arg = args->argv[args->next++];
        if (options_ended || arg[0] != '-' || !arg[1])
            status = take_argument(self, arg, err);
        else if (strcmp(arg, "--") == 0)
            options_ended = true;
        else if (arg[1] == '-')
            status = read_long(self, arg + 2, args, err);
        else
            status = read_short(self, arg + 1, args, err);
    }
    return status;
}

static trm_status fill_in(trm_options *self, trm_err *err)
{
    trm_spec *spec = &self->spec;
    if (!spec->own_job && !spec->kernel_name)
        return trm_err_set(err, TRM_EUSAGE, "which job? (`trireme jobs` lists those that are installed)");
    if (!spec->output_dir)
        return trm_err_set(err, TRM_EUSAGE, "where does the output go? (-o DIR)");
    if (strcmp(spec->output_dir, "/") == 0)
        return trm_err_set(err, TRM_EUSAGE, "the root directory cannot be the output");
    if (spec->quiet && spec->verbose)
        return trm_err_set(err, TRM_EUSAGE, "--quiet and --verbose exclude each other");
    if (!spec->scratch_dir) {
        const char *tmp = getenv("TMPDIR");
        spec->scratch_dir = absolute(tmp && tmp[0] ? tmp : "/tmp");
    }
    if (!spec->state_dir && asprintf(&spec->state_dir, "%s/%s", spec->output_dir, TRM_STATE_DIR_NAME) < 0)
        spec->state_dir = NULL;
    return spec->scratch_dir && spec->state_dir ? TRM_OK : no_memory(err);
}

trm_status trm_options_read(trm_options *self, int argc, char **argv, const trm_job *own_job, trm_err *err)
{
    *self = (trm_options){.relaunches = TRM_RELAUNCHES_DEFAULT,
                          .start_timeout_ms = TRM_START_TIMEOUT_MS_DEFAULT,
                          .spec = {.own_job = own_job,
                                   .line_bytes_max = TRM_LINE_BYTES_DEFAULT,
                                   .record_bytes_max = TRM_RECORD_BYTES_DEFAULT,
                                   .attempts_max = TRM_ATTEMPTS_DEFAULT,
                                   .replicas = 1,
                                   .compress_level = 1}};
    arguments args = {.argc = argc, .next = 1, .argv = argv};
    trm_status status = read_all(self, &args, err);
    return status == TRM_OK && !self->help ? fill_in(self, err) : status;
}

void trm_options_close(trm_options *self)
{
    trm_spec *spec = &self->spec;
    for (unsigned i = 0; i < spec->params_count; i++) {
        free(spec->params[i].name);
        free(spec->params[i].value);
    }
    for (unsigned i = 0; i < spec->inputs_count; i++)
        free(spec->inputs[i]);
    for (unsigned i = 0; i < self->mpirun_options_count; i++)
        free(self->mpirun_options[i]);
    free(spec->params);
    free(spec->inputs);
    free(spec->kernel_name);
    free(spec->kernel_path);
    free(spec->output_dir);
    free(spec->state_dir);
    free(spec->scratch_dir);
    free(self->hosts);
    free(self->hostfile);
    free(self->mpirun);
    *self = (trm_options){0};
}

/* ---- Help ------------------------------------------------------------------------------------------ */

static void print_params(const trm_job *job)
{
    if (!job->params || !job->params[0].name)
        return;
    printf("\nParameters (-p NAME=VALUE):\n");
    for (const trm_param *param = job->params; param->name; param++)
        printf("  %-28s %s%s%s%s\n", param->name, param->help ? param->help : "", param->value ? " [" : "",
               param->value ? param->value : "", param->value ? "]" : "");
}

void trm_options_print_help(const char *command, const trm_job *own_job)
{
    printf("Usage: %s [OPTION]… %s[INPUT]… -o DIR\n", command, own_job ? "" : "JOB ");
    if (own_job && own_job->help)
        printf("%s: %s\n", own_job->name, own_job->help);
    printf("\nThe same command runs under mpirun (mpirun -n 4 %s …) and without: then it starts mpirun.\n",
           command);
    if (!own_job)
        printf("JOB is the name of an installed kernel (`trireme jobs` lists them) or the path of a shared "
               "object.\n");
    printf("An INPUT is a file, a directory, a pattern, or @FILE with a name a line.\n\n");
    for (size_t i = 0; i < OPTIONS_COUNT; i++) {
        char left[64];
        char letter[] = {'-', options[i].letter, ',', ' ', 0};
        snprintf(left, sizeof left, "%s--%s%s%s", options[i].letter ? letter : "    ", options[i].name,
                 options[i].argument && options[i].argument[0] != '[' ? " " : "",
                 options[i].argument ? options[i].argument : "");
        printf("  %-36s %s\n", left, options[i].help);
    }
    if (own_job)
        print_params(own_job);
    printf("\nExit status: 0 done, 1 the job failed, 2 usage, 3 bad input, output or kernel,\n"
           "4 interrupted (the same command goes on), 5 mpirun, MPI or the machine.\n");
}
