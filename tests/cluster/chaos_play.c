/* Plays a schedule: one launch after the other, each step when the job has come so far. */
#include "config.h" /* system extensions, before any header of the system */

#include "tests/cluster/chaos_play.h"

#include "jobs/exit_code.h"
#include "runtime/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define COPIED_EVERY 16u /* seeds: every other one that is played on hosts keeps outputs on two */
#define ARGUMENTS_MAX 64u
#define SCRATCH_BYTES "24m" /* of one that can be filled */

void chaos_say(chaos_play *self, const char *format, ...)
{
    va_list args;
    uint64_t ms = (trm_clock_now_ns() - self->began_ns) / TRM_NS_PER_MS;
    fprintf(self->story, "    %3llu.%03llu  ", (unsigned long long)ms / 1000, (unsigned long long)ms % 1000);
    va_start(args, format);
    vfprintf(self->story, format, args);
    va_end(args);
    fputc('\n', self->story);
}

bool chaos_fail(chaos_play *self, const char *format, ...)
{
    va_list args;
    if (self->failed)
        return false;
    self->failed = true;
    va_start(args, format);
    vsnprintf(self->why, sizeof self->why, format, args);
    va_end(args);
    chaos_say(self, "FAILED: %s", self->why);
    return false;
}

/* ---- A launch -------------------------------------------------------------------------------------- */

typedef struct arguments {
    const char *item[ARGUMENTS_MAX];
    unsigned count;
    char text[ARGUMENTS_MAX][CHAOS_PATH_BYTES + 64];
} arguments;

static void put(arguments *args, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(arguments *args, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(args->text[args->count], sizeof args->text[0], format, list);
    va_end(list);
    args->item[args->count] = args->text[args->count];
    args->item[++args->count] = NULL;
}

static void compose(const chaos_play *self, arguments *args)
{
    const chaos_schedule *schedule = self->schedule;
    const chaos_job_shape *shape = &chaos_shapes[schedule->job];
    if (schedule->hosts) {
        put(args, "%s/tests/cluster/chaos_hosts.sh", self->world->source);
        put(args, "run");
        put(args, "%s", self->world->id);
        put(args, "%s", self->world->dir);
    }
    put(args, "%s/trireme", self->world->build);
    put(args, "run");
    put(args, "--ranks=%u", self->ranks);
    put(args, "--executors=%u", schedule->executors);
    put(args, "--relaunch=5");
    put(args, "--election-timeout=%ums", CHAOS_ELECTION_MS);
    put(args, "--compress=%s", schedule->compress);
    put(args, "--split-size=%s", shape->split_size);
    put(args, "--partitions=%u", CHAOS_PARTITIONS);
    put(args, "--max-attempts=20"); /* executors are killed, and that counts */
    if (!schedule->hosts)
        put(args, "--scratch=%s", self->scratch); /* each host has its own as TMPDIR */
    else
        put(args, "--replicas=%u", schedule->seed % COPIED_EVERY ? 1 : 2);
    put(args, "--output=%s", self->out);
    put(args, "--param=trace=%s", self->trace);
    put(args, "--param=pace=%u", schedule->steps ? CHAOS_PACE_MS * schedule->ranks * schedule->executors : 0);
    put(args, "%s/tests/kernels/.libs/%s.so", self->world->build, shape->kernel);
    for (unsigned i = 0; i < 2 && shape->inputs[i]; i++)
        put(args, "%s/%s", self->world->dir, shape->inputs[i]);
}

static _Noreturn void be_launcher(const chaos_play *self, const arguments *args)
{
    char said[CHAOS_PATH_BYTES + 32];
    snprintf(said, sizeof said, "%s/said-%u", self->dir, self->launches);
    int fd = open(said, O_CREAT | O_WRONLY | O_APPEND, 0600), null = open("/dev/null", O_RDONLY);
    setpgid(0, 0);
    if (fd >= 0 && null >= 0 && dup2(null, 0) == 0 && dup2(fd, 1) == 1 && dup2(fd, 2) == 2)
        execv(args->item[0], (char **)(uintptr_t)args->item);
    _exit(126);
}

static bool launch(chaos_play *self, unsigned ranks)
{
    static arguments args;
    args.count = 0;
    self->ranks = ranks;
    self->launches++;
    self->excused = 0;
    self->moved_ns = trm_clock_now_ns();
    compose(self, &args);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        be_launcher(self, &args);
    if (pid < 0)
        return chaos_fail(self, "cannot fork");
    self->launcher = pid;
    chaos_say(self, "started with %u ranks: pid %d", ranks, (int)pid);
    return true;
}

static bool is_excused(const chaos_play *self)
{
    int status = self->wait_status;
    switch (self->excused) {
    case CHAOS_EXCUSED_SIGNAL:
        return WIFSIGNALED(status);
    case CHAOS_EXCUSED_INTERRUPTED:
        return WIFEXITED(status) && WEXITSTATUS(status) == TRM_EXIT_INTERRUPTED;
    case CHAOS_EXCUSED_MACHINE:
        return WIFEXITED(status) && WEXITSTATUS(status) == TRM_EXIT_LAUNCH;
    default:
        return false;
    }
}

/* The launcher has ended: that was the job, or it is to be started again. */
static bool ended(chaos_play *self)
{
    int status = self->wait_status;
    if (WIFEXITED(status))
        chaos_say(self, "the launcher has ended with status %d", WEXITSTATUS(status));
    else
        chaos_say(self, "the launcher was ended by signal %d", WTERMSIG(status));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        self->done = true;
        return false;
    }
    if (!is_excused(self))
        return chaos_fail(self, "the launcher ended as it should not");
    if (self->launches == CHAOS_LAUNCHES_MAX)
        return chaos_fail(self, "%u launches were not enough", self->launches);
    return true;
}

/* What the last launch has left ends by itself; then the next one begins, and finds room. */
static bool launch_again(chaos_play *self)
{
    char filler[CHAOS_PATH_BYTES + 32];
    snprintf(filler, sizeof filler, "%s/filler", self->scratch);
    unlink(filler);
    uint64_t until_ns = trm_clock_now_ns() + CHAOS_WATCHDOG_MS * TRM_NS_PER_MS;
    while (chaos_reap(self)) {
        if (trm_clock_now_ns() > until_ns)
            return chaos_fail(self, "processes of the launch before do not end");
        usleep(CHAOS_POLL_US);
    }
    return launch(self, self->next_ranks);
}

/* ---- Time goes on ------------------------------------------------------------------------------------- */

/* Something that changes as long as anything goes on. */
static uint64_t movement(const chaos_play *self)
{
    chaos_trace trace;
    chaos_trace_read(self, &trace);
    return trace.lines * 4096ull + chaos_parts_in(self->out) * 64ull + self->launches * 8 + self->done_faults;
}

static bool hangs(chaos_play *self)
{
    uint64_t now_ns = trm_clock_now_ns(), what = movement(self);
    if (what != self->moved_what) {
        self->moved_what = what;
        self->moved_ns = now_ns;
    }
    return now_ns > self->moved_ns + CHAOS_WATCHDOG_MS * TRM_NS_PER_MS;
}

bool chaos_tick(chaos_play *self)
{
    if (self->done || self->failed)
        return false;
    if (chaos_interrupted)
        return chaos_fail(self, "signal %d", (int)chaos_interrupted);
    chaos_reap(self);
    if (!self->launcher)
        return ended(self) && launch_again(self);
    if (hangs(self))
        return chaos_fail(self, "nothing has gone on for %u s", CHAOS_WATCHDOG_MS / 1000);
    usleep(CHAOS_POLL_US);
    return true;
}

static bool is_at(const chaos_play *self, const chaos_step *step)
{
    chaos_trace trace;
    const chaos_reference *all = self->reference;
    switch (step->point) {
    case CHAOS_AT_BEGIN:
        return chaos_exists(self->state, "");
    case CHAOS_AT_MAPS:
        chaos_trace_read(self, &trace);
        return trace.maps * 1000 >= all->maps * step->permille;
    case CHAOS_AT_REDUCES:
        chaos_trace_read(self, &trace);
        return trace.maps >= all->maps && trace.reduces * 1000 > all->reduces * step->permille;
    case CHAOS_AT_PARTS:
        return chaos_parts_in(self->out) * 1000 > all->parts * step->permille;
    default:
        return chaos_exists(self->out, "_SUCCESS");
    }
}

bool chaos_play_steps(chaos_play *self)
{
    if (!launch(self, self->schedule->ranks))
        return false;
    for (unsigned i = 0; i < self->schedule->steps; i++) {
        const chaos_step *step = &self->schedule->step[i];
        while (chaos_tick(self) && !is_at(self, step))
            continue;
        if (self->done || self->failed)
            break;
        chaos_fault_do(self, step);
    }
    while (chaos_tick(self))
        continue;
    return self->done && !self->failed;
}

/* ---- Begin and end ---------------------------------------------------------------------------------------
 */

static bool fills_scratch(const chaos_schedule *schedule)
{
    for (unsigned i = 0; i < schedule->steps; i++)
        if (schedule->step[i].fault == CHAOS_FILL_SCRATCH)
            return true;
    return false;
}

bool chaos_play_begin(chaos_play *self, chaos_world *world, const chaos_schedule *schedule, const char *name)
{
    *self = (chaos_play){.world = world,
                         .schedule = schedule,
                         .reference = &world->reference[schedule->job],
                         .next_ranks = schedule->ranks,
                         .began_ns = trm_clock_now_ns()};
    self->story = open_memstream(&self->story_text, &self->story_len);
    snprintf(self->dir, sizeof self->dir, "%.900s/%s", world->dir, name);
    snprintf(self->out, sizeof self->out, "%s/out", self->dir);
    snprintf(self->state, sizeof self->state, "%s/.trireme", self->out);
    snprintf(self->scratch, sizeof self->scratch, "%s/scratch", self->dir);
    snprintf(self->trace, sizeof self->trace, "%s/trace", self->dir);
    if (!self->story || mkdir(self->dir, 0700) || mkdir(self->scratch, 0700))
        return chaos_fail(self, "%s cannot be made", self->dir);
    if (world->may_mount && fills_scratch(schedule)) {
        self->mounted = mount("tmpfs", self->scratch, "tmpfs", 0, "size=" SCRATCH_BYTES ",mode=0700") == 0;
        if (!self->mounted)
            return chaos_fail(self, "no file system of its own for scratch: %s", strerror(errno));
    }
    return true;
}

void chaos_play_end(chaos_play *self)
{
    chaos_kill_all(self->world);
    if (self->mounted)
        umount2(self->scratch, MNT_DETACH);
    if (self->story)
        fclose(self->story);
    free(self->story_text);
    self->story_text = NULL;
}

static void show_last_words(const chaos_play *self)
{
    char path[CHAOS_PATH_BYTES + 32], line[1024];
    for (unsigned i = 1; i <= self->launches; i++) {
        snprintf(path, sizeof path, "%s/said-%u", self->dir, i);
        FILE *file = fopen(path, "r");
        printf("    what the launcher has said, %u of %u:\n", i, self->launches);
        while (file && fgets(line, sizeof line, file))
            printf("        %s", line);
        if (file)
            fclose(file);
    }
}

static void show(chaos_play *self)
{
    fflush(self->story);
    fputs(self->story_text, stdout);
    if (!self->failed)
        return;
    show_last_words(self);
    printf("    again: %s/tests/cluster/chaos -v %llu\n", self->world->build,
           (unsigned long long)self->schedule->seed);
}

bool chaos_play_run(chaos_world *world, const chaos_schedule *schedule, bool *skipped)
{
    chaos_play play;
    char name[32];
    *skipped = schedule->hosts && !world->has_hosts;
    if (*skipped)
        return true;
    snprintf(name, sizeof name, "seed-%llu", (unsigned long long)schedule->seed);
    if (!chaos_reference_make(world, schedule->job))
        return false;
    bool well =
        chaos_play_begin(&play, world, schedule, name) && chaos_play_steps(&play) && chaos_check(&play);
    if (!well || world->verbose) {
        chaos_schedule_print(schedule, stdout);
        show(&play);
    }
    chaos_play_end(&play);
    for (unsigned host = 1; schedule->hosts && host <= CHAOS_HOSTS; host++) {
        chaos_hosts_link(world, host, true);
        chaos_shell(world, "rm -rf tmp%u/trireme-*", host);
    }
    if (well && !world->keep)
        chaos_shell(world, "rm -rf '%s'", play.dir);
    return well;
}
