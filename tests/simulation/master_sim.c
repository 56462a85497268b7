/* The real master and the real job table, with simulated workers, over a network in memory and a
 * log in memory: whole jobs in virtual time, through failing tasks, lost outputs, ranks that die,
 * a log that is full, interruptions, masters that die or are cut off and are followed by another
 * on another rank's replica, and launches that die and are started again.
 *
 *   master_sim [SEED [HISTORIES]]    runs HISTORIES from SEED on; a failing one prints the
 *                                    command that replays it
 *
 * What is checked, by a second job table that is given what the log has taken:
 *   a task is committed once, until its output is lost; a committed part is never ordered again;
 *   a part is in place only if it is committed; _SUCCESS is there only when all parts are, whole;
 *   the records that are left out are those that kill; counters are those of every task once; every job ends;
 * no attempt is ordered twice, whoever leads; what a living rank holds and has claimed is not ordered again
 * because the master changed. */
#include "tests/simulation/master_world.h"

void fail(const history *self, const char *what, uint64_t number)
{
    fprintf(stderr, "master_sim: %s (%" PRIu64 "), launch %u, at %" PRIu64 " ms\n", what, number,
            self->launch, (uint64_t)(self->now_ns / TRM_NS_PER_MS));
    if (master_of(self)) {
        trm_progress at;
        trm_master_progress(master_of(self), &at);
        fprintf(stderr, "%s, %u ranks, %u alive, maps %u of %u (%u run), reduces %u of %u (%u run)\n",
                at.phase, at.ranks, at.ranks_alive, at.of[1].done, at.of[1].total, at.of[1].running,
                at.of[2].done, at.of[2].total, at.of[2].running);
    }
    fprintf(stderr, "replay with: tests/simulation/master_sim %" PRIu64 " 1\n", self->seed);
    exit(1);
}

/* ---- A history ---------------------------------------------------------------------------------------- */

static void draw_job(history *self)
{
    static char out[] = OUT, state[] = STATE;
    self->spec = (trm_spec){.output_dir = out,
                            .state_dir = state,
                            .attempts_max = TRM_ATTEMPTS_DEFAULT,
                            .replicas = 1 + self->seed % 2,
                            .tasks = 1 + below(self, often(self, 100) ? 2000 : 60),
                            .partitions = 1 + (uint32_t)below(self, 12)};
    self->traits =
        (trm_traits){.name = "sim", .input = TRM_INPUT_NONE, .counters_count = 1, .counters = {"attempts"}};
    self->traits.map_only = often(self, 200);
    self->traits.range_partitioned = !self->traits.map_only && often(self, 250);
    self->habits = (sim_habits){.task_min_ns = below(self, 2) * 100000,
                                .poison_task = UINT32_MAX,
                                .empty_permille = often(self, 300) ? 500 : 0,
                                .writes_parts = true};
    self->habits.task_max_ns = self->habits.task_min_ns + (1 + below(self, 400)) * TRM_NS_PER_MS;
    self->habits.fail_permille = often(self, 300) ? (unsigned)below(self, 100) : 0;
    self->habits.refuse_permille = often(self, 200) ? (unsigned)below(self, 100) : 0;
    self->spec.never_twice = often(self, 500);
    if (often(self, 300)) {
        self->habits.bad_permille = (unsigned)below(self, 500);
        self->spec.skips_max = TRM_SKIPS_MAX;
        if (self->seed % 4 == 0) { /* they do not kill it, they hang it */
            self->spec.task_timeout_ms = 20000;
            self->habits.hang_ns = self->spec.task_timeout_ms * TRM_NS_PER_MS;
        }
    }
    if (often(self, 100)) {
        self->habits.poison_task = (uint32_t)below(self, self->spec.tasks);
        self->must_fail = true;
    }
}

static void make_history(history *self, uint64_t seed)
{
    *self = (history){.seed = seed, .draw = trm_draw_from(seed), .now_ns = TRM_NS_PER_S, .leader = NOBODY};
    trm_err err = {""};
    draw_job(self);
    self->fs = trm_fs_mem_create(seed);
    self->disk = trm_log_disk_create();
    trm_table_init(&self->table);
    uint32_t crc;
    trm_status status =
        trm_submission_init(&self->submission, &self->spec, &self->traits, 4, 64u << 20, self->fs, &err);
    if (status == TRM_OK)
        status = trm_fs_make_dirs(self->fs, STATE "/" TRM_ATTEMPTS_NAME, 0, &err);
    if (status == TRM_OK)
        status = trm_fs_make_dirs(self->fs, STATE "/" TRM_STDERR_NAME, 0, &err);
    if (status == TRM_OK)
        status = trm_plan_save(&self->submission.plan, self->fs, STATE, &crc, &err);
    if (status != TRM_OK)
        fail(self, err.text, 0);
}

static void end_history(history *self)
{
    trm_submission_close(&self->submission);
    trm_table_close(&self->table);
    trm_log_disk_destroy(self->disk);
    sim_runs_close(&self->runs);
    free(self->seen);
    trm_fs_mem_destroy(self->fs);
}

/* How a launch that came to its end may have ended. Failures that are drawn may be too many for a
 * task; the next launch counts anew. */
static bool check_end(history *self, const trm_end *end)
{
    const trm_table_job *job = job_of(self);
    if (end->exit_code == 0) {
        if (!job || job->state != TRM_JOB_DONE || self->must_fail)
            fail(self, "the job says that it is done", 0);
        check_counters(self);
        uint64_t bytes;
        if (!file_is_there(self, OUT "/" TRM_SUCCESS_NAME, &bytes))
            fail(self, "a job is done without _SUCCESS", 0);
        return true;
    }
    /* Its workers may have been told by a master that was deposed before all of them were. */
    if ((end->exit_code == 4 || (end->exit_code == 5 && self->failovers)) && self->interrupted)
        return false;
    bool may_fail = self->must_fail || self->habits.fail_permille || self->habits.refuse_permille;
    if (job && job->state == TRM_JOB_FAILED && may_fail)
        return self->must_fail;
    fprintf(stderr, "%s\n", end->text);
    fail(self, "the job ended with", end->exit_code);
    return false;
}

static void run_history(history *self, uint64_t seed)
{
    bool done = false;
    make_history(self, seed);
    while (!done) {
        trm_end end;
        if (self->launch == LAUNCHES_MAX) {
            if (!self->habits.fail_permille)
                fail(self, "so many launches, and the job is not done", self->launch);
            break;
        }
        uint32_t ranks = 1 + (uint32_t)below(self, RANKS_MAX);
        begin_launch(self, ranks, 1 + (uint32_t)below(self, HOSTS_MAX));
        bool ended = run_launch(self, &end);
        end_launch(self, !ended);
        done = ended && check_end(self, &end);
        self->now_ns += TRM_NS_PER_S;
    }
    end_history(self);
}
int main(int argc, char **argv)
{
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : HISTORIES;
    uint64_t steps = 0, orders = 0, commits = 0, losses = 0, kills = 0, crashes = 0, launches = 0;
    uint64_t failovers = 0, again = 0, skips = 0;
    trm_diag_configure(argc > 3 ? TRM_DIAG_DEBUG : TRM_DIAG_ERROR, -1);
    for (uint64_t seed = first; seed < first + count; seed++) {
        history self;
        run_history(&self, seed);
        steps += self.steps;
        orders += self.orders;
        commits += self.commits;
        losses += self.losses;
        kills += self.kills;
        crashes += self.crashes;
        launches += self.launches;
        failovers += self.failovers;
        again += self.again;
        skips += self.skips;
    }
    printf("master_sim: %" PRIu64 " histories, %" PRIu64 " launches, %" PRIu64 " steps, %" PRIu64
           " orders, %" PRIu64 " commits, %" PRIu64 " outputs lost, %" PRIu64 " ranks and %" PRIu64
           " launches killed, %" PRIu64 " masters followed, %" PRIu64
           " tasks held late and ordered again, %" PRIu64 " bad records left out\n",
           count, launches, steps, orders, commits, losses, kills, crashes, failovers, again, skips);
    return 0;
}
