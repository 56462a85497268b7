/* The jobs: their inputs, their undisturbed runs, and that those give what other programs give. */
#include "config.h" /* system extensions, before any header of the system */

#include "tests/cluster/chaos.h"
#include "tests/cluster/chaos_play.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const chaos_job_shape chaos_shapes[CHAOS_JOBS] = {
    [CHAOS_WORDS] = {"kernel_words", "8K", {"words.txt", NULL}},
    [CHAOS_SORT] = {"kernel_sort", "10000", {"records", NULL}},
    [CHAOS_JOIN] = {"kernel_join", "8K", {"left.txt", "right.txt"}},
};

bool chaos_shell(const chaos_world *world, const char *format, ...)
{
    char *command, *whole;
    va_list args;
    va_start(args, format);
    int len = vasprintf(&command, format, args);
    va_end(args);
    if (len < 0 || asprintf(&whole, "cd '%s' && { %s ; } >>shell.log 2>&1", world->dir, command) < 0)
        return false;
    int status = system(whole);
    if (status)
        fprintf(stderr, "status %d: %s\n", status, command);
    free(whole);
    free(command);
    return status == 0;
}

/* Some keys come often, some on one side only. */
static bool make_join_input(const chaos_world *world, const char *name, unsigned lines, unsigned step)
{
    return chaos_shell(
        world,
        "awk 'BEGIN { for (i = 0; i < %u; i++) printf \"k%%05d %s%%06d\\n\", (i * %u) %% 20011, i }'"
        " >%s.txt",
        lines, name, step, name);
}

static bool make_inputs(const chaos_world *world, chaos_job job)
{
    switch (job) {
    case CHAOS_WORDS:
        return chaos_shell(world, "'%s/trireme' gen text --bytes 1500K --words 5000 --seed 4 -o words.txt",
                           world->build);
    case CHAOS_SORT:
        return chaos_shell(world, "'%s/trireme' gen records --records 19000 --seed 4 -o records",
                           world->build);
    default:
        return make_join_input(world, "left", 60000, 7919) && make_join_input(world, "right", 30000, 104729);
    }
}

/* What other programs say of the same inputs, or the validator of the benchmark. */
static bool check_answer(const chaos_world *world, chaos_job job)
{
    switch (job) {
    case CHAOS_WORDS:
        return chaos_shell(world, "tr -cs '[:alnum:]' '\\n' <words.txt | grep . | LC_ALL=C sort | uniq -c |"
                                  " awk '{ print $2 \"\\t\" $1 }' | LC_ALL=C sort >words.want &&"
                                  " cat ref-words/out/part-* | LC_ALL=C sort | cmp - words.want");
    case CHAOS_SORT:
        return chaos_shell(world,
                           "TRIREME_KERNEL_DIR='%s/examples/.libs' '%s/trireme' run -n 2 teravalidate"
                           " -p strict -p records=19000 'ref-sort/out/part-*' -o valid",
                           world->build, world->build);
    default:
        return chaos_shell(world,
                           "LC_ALL=C; export LC_ALL; sort left.txt >l && sort right.txt >r && join l r |"
                           " sed 's/ /\\t/' | sort >join.want && [ -s join.want ] &&"
                           " cat ref-join/out/part-* | sort | cmp - join.want");
    }
}

static void count_tasks(const chaos_play *play, chaos_reference *out)
{
    chaos_trace trace;
    chaos_trace_read(play, &trace);
    out->maps = trace.maps;
    out->reduces = trace.reduces;
    out->parts = chaos_parts_in(play->out);
}

bool chaos_reference_make(chaos_world *world, chaos_job job)
{
    chaos_reference *self = &world->reference[job];
    chaos_schedule undisturbed = {.job = job, .ranks = 3, .executors = 1, .compress = "auto"};
    chaos_play play;
    char name[32];
    if (self->made)
        return true;
    snprintf(name, sizeof name, "ref-%s", chaos_job_name(job));
    if (!make_inputs(world, job) || !chaos_play_begin(&play, world, &undisturbed, name))
        return false;
    bool well = chaos_play_steps(&play);
    if (!well)
        fprintf(stderr, "the undisturbed run of %s: %s\n", chaos_job_name(job), play.why);
    snprintf(self->out, sizeof self->out, "%.1000s", play.out);
    count_tasks(&play, self);
    chaos_play_end(&play);
    self->made = well && check_answer(world, job);
    if (well && !self->made)
        fprintf(stderr, "the undisturbed run of %s has another output than it should have\n",
                chaos_job_name(job));
    return self->made;
}
