/* chaos [-v] [-k] [-l] [FIRST [COUNT]]: plays the schedules of seeds FIRST … (CHAOS_FIRST, 1), COUNT of them
 * (CHAOS_COUNT; 1 when FIRST is given, else a dozen). -v tells what was done when; -k keeps what was
 * left in the directory that it names; -l only lists the schedules. See chaos.h, and docs/running.md for what
 * is expected of a job.
 */
#include "config.h" /* system extensions, before any header of the system */

#include "tests/cluster/chaos.h"

#include "runtime/clock.h"
#include "runtime/diag.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <unistd.h>

#define COUNT_DEFAULT 12u
#define SKIPPED 77 /* of automake */

volatile sig_atomic_t chaos_interrupted;

static void on_signal(int number)
{
    chaos_interrupted = number;
}

/* ---- The world --------------------------------------------------------------------------------------------
 */

static void absolute(const char *variable, char *out)
{
    const char *path = getenv(variable);
    char *found = realpath(path && *path ? path : ".", NULL);
    snprintf(out, CHAOS_PATH_BYTES, "%.1000s", found ? found : ".");
    free(found);
}

static bool may_mount(const chaos_world *world)
{
    if (geteuid() != 0 || mount("tmpfs", world->dir, "tmpfs", 0, "size=1m,mode=0700") != 0)
        return false;
    return umount2(world->dir, MNT_DETACH) == 0;
}

static bool world_make(chaos_world *self)
{
    const char *tmp = getenv("TMPDIR");
    char kernels[CHAOS_PATH_BYTES + 32];
    absolute("builddir", self->build);
    absolute("srcdir", self->source);
    snprintf(self->dir, sizeof self->dir, "%.900s/trireme-chaos-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(self->dir))
        return false;
    snprintf(self->id, sizeof self->id, "chaos-%d-%s", (int)getpid(), self->dir + strlen(self->dir) - 6);
    snprintf(kernels, sizeof kernels, "%s/examples/.libs", self->build);
    setenv("TRIREME_TEST_ID", self->id, 1);
    setenv("TRIREME_KERNEL_DIR", kernels, 1);
    setenv("TMPDIR", self->dir, 1); /* also Open MPI's, and what a mpirun that is killed leaves of it */
    if (geteuid() == 0) {
        setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
        setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    }
    self->may_mount = may_mount(self);
    return true;
}

static void world_remove(chaos_world *self)
{
    chaos_kill_all(self);
    chaos_hosts_remove(self);
    if (self->keep)
        printf("kept: %s\n", self->dir);
    else
        chaos_shell(self, "rm -rf '%s'", self->dir);
}

/* ---- The command ------------------------------------------------------------------------------------------
 */

static uint64_t number_of(const char *text, uint64_t otherwise)
{
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

static int list_all(uint64_t first, uint64_t count)
{
    chaos_schedule schedule;
    for (uint64_t seed = first; seed < first + count; seed++) {
        chaos_schedule_draw(&schedule, seed);
        chaos_schedule_print(&schedule, stdout);
    }
    return 0;
}

static bool any_hosts(uint64_t first, uint64_t count)
{
    chaos_schedule schedule;
    for (uint64_t seed = first; seed < first + count; seed++) {
        chaos_schedule_draw(&schedule, seed);
        if (schedule.hosts)
            return true;
    }
    return false;
}

static int play_all(chaos_world *world, uint64_t first, uint64_t count)
{
    unsigned passed = 0, failed = 0, skipped = 0;
    uint64_t began_ns = trm_clock_now_ns();
    for (uint64_t seed = first; seed < first + count && !chaos_interrupted; seed++) {
        chaos_schedule schedule;
        bool left_out;
        uint64_t then_ns = trm_clock_now_ns();
        chaos_schedule_draw(&schedule, seed);
        bool well = chaos_play_run(world, &schedule, &left_out);
        failed += !well;
        skipped += left_out;
        passed += well && !left_out;
        printf("%s: seed %llu", left_out ? "skipped" : well ? "ok" : "FAILED", (unsigned long long)seed);
        printf(left_out ? ": %s\n" : ", %s", left_out ? world->hosts_why : chaos_job_name(schedule.job));
        if (!left_out)
            printf(" on %u ranks, %u steps, %.1f s\n", schedule.ranks, schedule.steps,
                   (double)(trm_clock_now_ns() - then_ns) / TRM_NS_PER_S);
        fflush(stdout);
    }
    printf("%.0f s\nchaos: %u passed, %u failed, %u skipped\n",
           (double)(trm_clock_now_ns() - began_ns) / TRM_NS_PER_S, passed, failed, skipped);
    return failed || chaos_interrupted ? 1 : passed ? 0 : SKIPPED;
}

int main(int argc, char **argv)
{
    static chaos_world world;
    bool list = false;
    int option;
    while ((option = getopt(argc, argv, "vkl")) != -1) {
        list |= option == 'l';
        world.verbose |= option == 'v';
        world.keep |= option == 'k';
        if (option == '?')
            return 2;
    }
    uint64_t first = number_of(optind < argc ? argv[optind] : getenv("CHAOS_FIRST"), 1);
    uint64_t count = number_of(optind + 1 < argc ? argv[optind + 1] : getenv("CHAOS_COUNT"),
                               optind < argc ? 1 : COUNT_DEFAULT);
    if (list)
        return list_all(first, count);
    if (system("command -v mpirun.openmpi >/dev/null || command -v mpirun >/dev/null") != 0) {
        printf("skipped: no mpirun\n");
        return SKIPPED;
    }
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    trm_diag_configure(TRM_DIAG_ERROR, -1);
    if (!world_make(&world)) {
        printf("FAILED: no directory for it\n");
        return 1;
    }
    if (any_hosts(first, count))
        chaos_hosts_make(&world);
    int code = play_all(&world, first, count);
    world_remove(&world);
    return code;
}
