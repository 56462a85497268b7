/* What is done to a job. Each of these ends when what it did is over: a rank goes on, others lead, the
 * dead are no voters any more, the next launch is there. */
#include "config.h" /* system extensions, before any header of the system */

#include "tests/cluster/chaos_play.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define NOBODY UINT32_MAX
#define STOP_MS (3 * CHAOS_ELECTION_MS) /* as the job's own record tells the time */
#define LONG_STOPS 5u                   /* one of so many lasts until the rank is given up */
#define CUT_MS 2500u

static bool is_over(const chaos_play *self)
{
    return chaos_exists(self->out, "_SUCCESS");
}

/* ---- Who is who ---------------------------------------------------------------------------------------- */

/* Everybody who votes lives, and somebody leads: another fault can be survived. */
static bool is_settled(const chaos_status *status)
{
    if (!status->running || !chaos_lives(status->leader_pid))
        return false;
    for (unsigned i = 0; i < status->ranks; i++)
        if (status->rank[i].voter && !chaos_lives(status->rank[i].pid))
            return false;
    return true;
}

/* False: the job is over. */
static bool await_settled(chaos_play *self, chaos_status *out)
{
    do {
        if (chaos_status_read(self, out) && is_settled(out))
            return true;
    } while (!is_over(self) && chaos_tick(self));
    return false;
}

/* Whether a majority of the voters is left when so many ranks are gone; says so if it is not. */
static bool survives(chaos_play *self, const chaos_status *status, unsigned gone)
{
    unsigned voters = 0, alive = 0;
    for (unsigned i = 0; i < status->ranks; i++) {
        voters += status->rank[i].voter;
        alive += status->rank[i].voter && chaos_lives(status->rank[i].pid);
    }
    if (alive >= gone && 2 * (alive - gone) > voters)
        return true;
    chaos_say(self, "not done: %u of %u voters live", alive, voters);
    return false;
}

/* One of the ranks that live and do not lead; NOBODY. */
static unsigned other_rank(const chaos_status *status, uint32_t draw)
{
    for (unsigned i = 0; i < status->ranks; i++) {
        unsigned rank = (draw + i) % status->ranks;
        if (rank != status->leader && chaos_lives(status->rank[rank].pid))
            return rank;
    }
    return NOBODY;
}

static void kill_pid(chaos_play *self, pid_t pid)
{
    if (self->killed < CHAOS_KILLED_MAX)
        self->killed_pid[self->killed++] = pid;
    kill(pid, SIGKILL);
}

static void kill_rank(chaos_play *self, const chaos_status *status, unsigned rank)
{
    if (rank == NOBODY || !chaos_lives(status->rank[rank].pid))
        return;
    chaos_say(self, "rank %u, pid %d, is killed%s", rank, (int)status->rank[rank].pid,
              rank == status->leader ? ": it led" : "");
    kill_pid(self, status->rank[rank].pid);
}

/* ---- Ranks -----------------------------------------------------------------------------------------------
 */

/* Before there is a record, the ranks are known by what they are called; the first is the one that
 * begins the launch. */
static bool kill_early(chaos_play *self, const chaos_step *step)
{
    chaos_status status;
    if (chaos_status_read(self, &status) && status.running)
        return false;
    unsigned rank = step->fault == CHAOS_KILL_RANK ? 1 + step->draw % (self->ranks - 1) : 0;
    pid_t pid = chaos_find(self->world, (int)rank, "trireme");
    if (!pid)
        return false;
    chaos_say(self, "rank %u, pid %d, is killed before there is a record", rank, (int)pid);
    kill_pid(self, pid);
    return true;
}

static void kill_ranks(chaos_play *self, const chaos_step *step)
{
    chaos_status status;
    if (step->point == CHAOS_AT_BEGIN && kill_early(self, step))
        return;
    bool settled = await_settled(self, &status);
    if (settled ? !survives(self, &status, step->fault == CHAOS_KILL_TWO ? 2 : 1) : !is_over(self))
        return;
    if (step->fault != CHAOS_KILL_LEADER)
        kill_rank(self, &status, other_rank(&status, step->draw));
    if (step->fault != CHAOS_KILL_RANK)
        kill_rank(self, &status, status.leader);
    await_settled(self, &status);
}

static void kill_majority(chaos_play *self, const chaos_step *step)
{
    chaos_status status;
    unsigned voters = 0, killed = 0;
    if (!await_settled(self, &status))
        return;
    for (unsigned i = 0; i < status.ranks; i++)
        voters += status.rank[i].voter;
    for (unsigned i = 0; i < status.ranks && killed < (voters + 1) / 2; i++) {
        unsigned rank = (step->draw + i) % status.ranks;
        if (!status.rank[rank].voter)
            continue;
        kill_rank(self, &status, rank);
        killed++;
    }
    await_settled(self, &status);
}

static void note_stopped(chaos_play *self, unsigned rank)
{
    chaos_process all[CHAOS_PROCESSES_MAX];
    unsigned count = chaos_processes(self->world, all);
    for (unsigned i = 0; i < count && self->asleep < CHAOS_ASLEEP_MAX; i++)
        if (all[i].rank == (int)rank && strncmp(all[i].name, "trireme-x", 9) == 0)
            self->asleep_pid[self->asleep++] = all[i].pid;
}

static bool has_slept(const chaos_status *then, const chaos_status *now, const chaos_step *step,
                      unsigned rank)
{
    if (step->fault == CHAOS_STOP_LEADER)
        return now->leader_pid != then->leader_pid && chaos_lives(now->leader_pid);
    if (step->draw % LONG_STOPS == 0)
        return strcmp(now->rank[rank].state, "lost") == 0;
    return now->written_ms >= then->written_ms + STOP_MS;
}

static void stop_rank(chaos_play *self, const chaos_step *step)
{
    chaos_status then, now;
    if (!await_settled(self, &then) || !survives(self, &then, 1))
        return;
    unsigned rank = step->fault == CHAOS_STOP_LEADER ? then.leader : other_rank(&then, step->draw);
    if (rank == NOBODY)
        return;
    pid_t pid = then.rank[rank].pid;
    chaos_say(self, "rank %u, pid %d, is stopped%s", rank, (int)pid, rank == then.leader ? ": it leads" : "");
    note_stopped(self, rank);
    kill(pid, SIGSTOP);
    while (chaos_tick(self) && !is_over(self))
        if (chaos_status_read(self, &now) && has_slept(&then, &now, step, rank))
            break;
    note_stopped(self, rank);
    kill(pid, SIGCONT);
    chaos_say(self, "rank %u goes on%s", rank, is_over(self) ? ": the job is over" : "");
    await_settled(self, &now);
}

/* ---- Executors, supervisors
 * -------------------------------------------------------------------------------- */

static void kill_executors(chaos_play *self, const chaos_step *step)
{
    int rank = step->fault == CHAOS_KILL_ALL_EXECUTORS ? -1 : (int)(step->draw % self->ranks);
    unsigned count = chaos_signal(self->world, rank, "trireme-x", SIGKILL);
    if (rank < 0)
        chaos_say(self, "all %u executors are killed", count);
    else
        chaos_say(self, "%u executors of rank %d are killed", count, rank);
}

static void kill_supervisor(chaos_play *self, const chaos_step *step)
{
    int rank = (int)(step->draw % self->ranks);
    unsigned count = chaos_signal(self->world, rank, "trireme-crew", SIGKILL);
    chaos_say(self, "the supervisor of rank %d is killed%s", rank, count ? "" : ": there is none");
}

/* ---- Launches
 * ------------------------------------------------------------------------------------------------ */

static void kill_mpirun(chaos_play *self)
{
    chaos_process all[CHAOS_PROCESSES_MAX];
    chaos_status status;
    unsigned count = chaos_processes(self->world, all);
    for (unsigned i = 0; i < count; i++) {
        if (all[i].parent != self->launcher || all[i].rank >= 0)
            continue;
        chaos_say(self, "mpirun, pid %d, is killed", (int)all[i].pid);
        kill(all[i].pid, SIGKILL);
    }
    await_settled(self, &status);
}

static void end_launcher(chaos_play *self, const chaos_step *step)
{
    unsigned launches = self->launches;
    bool hard = step->fault == CHAOS_KILL_LAUNCHER;
    self->excused = hard ? CHAOS_EXCUSED_SIGNAL : CHAOS_EXCUSED_INTERRUPTED;
    self->next_ranks = step->ranks;
    chaos_say(self, "the launcher, pid %d, %s", (int)self->launcher, hard ? "is killed" : "gets SIGTERM");
    kill(self->launcher, hard ? SIGKILL : SIGTERM);
    while (self->launches == launches && chaos_tick(self))
        continue;
}

/* ---- Scratch
 * --------------------------------------------------------------------------------------------------- */

static uint64_t fill(const char *path)
{
    static const char zeros[65536];
    uint64_t bytes = 0;
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0600);
    for (ssize_t len = 1; fd >= 0 && len > 0; bytes += len > 0 ? (uint64_t)len : 0)
        len = write(fd, zeros, sizeof zeros);
    if (fd >= 0)
        close(fd);
    return bytes;
}

static void fill_scratch(chaos_play *self, const chaos_step *step)
{
    chaos_status then, now;
    char path[CHAOS_PATH_BYTES + 32];
    unsigned launches = self->launches;
    if (!self->mounted) {
        chaos_say(self, "scratch is not filled: it has no file system of its own");
        return;
    }
    if (!await_settled(self, &then))
        return;
    snprintf(path, sizeof path, "%s/filler", self->scratch);
    self->excused = CHAOS_EXCUSED_MACHINE;
    self->next_ranks = step->ranks;
    chaos_say(self, "scratch is full: %llu bytes of nothing", (unsigned long long)fill(path));
    while (chaos_tick(self) && !is_over(self) && self->launches == launches)
        if (chaos_status_read(self, &now) && now.written_ms >= then.written_ms + CUT_MS)
            break;
    unlink(path);
    chaos_say(self, "there is room again");
}

/* ---- Hosts
 * ----------------------------------------------------------------------------------------------------- */

static void kill_host(chaos_play *self, const chaos_step *step)
{
    chaos_process all[CHAOS_PROCESSES_MAX];
    chaos_status status;
    unsigned host = 2 + step->draw % (CHAOS_HOSTS - 1);
    chaos_hosts_link(self->world, host, false); /* nobody hears of it, and it does not answer */
    unsigned count = chaos_processes(self->world, all), killed = 0;
    for (unsigned i = 0; i < count; i++)
        if (all[i].host == host)
            killed += kill(all[i].pid, SIGKILL) == 0;
    self->host_died[host] = true;
    chaos_say(self, "host %u is killed: %u processes", host, killed);
    await_settled(self, &status);
    if (step->draw & 64) {
        chaos_hosts_link(self->world, host, true);
        chaos_say(self, "host %u can be reached again", host);
    }
}

static void cut_link(chaos_play *self, const chaos_step *step)
{
    chaos_status then, now;
    unsigned host = 1 + step->draw % CHAOS_HOSTS;
    if (!await_settled(self, &then))
        return;
    chaos_hosts_link(self->world, host, false);
    chaos_say(self, "host %u is cut off", host);
    while (chaos_tick(self) && !is_over(self))
        if (chaos_status_read(self, &now) && now.written_ms >= then.written_ms + CUT_MS)
            break;
    chaos_hosts_link(self->world, host, true);
    chaos_say(self, "host %u is back", host);
    if (await_settled(self, &now) && now.epoch != then.epoch)
        self->host_died[host] = true; /* the next launch has begun without it */
}

void chaos_fault_do(chaos_play *self, const chaos_step *step)
{
    fprintf(self->story, "           ── ");
    chaos_step_print(step, self->story);
    fputc('\n', self->story);
    self->done_faults++;
    switch (step->fault) {
    case CHAOS_KILL_LEADER:
    case CHAOS_KILL_RANK:
    case CHAOS_KILL_TWO:
        kill_ranks(self, step);
        break;
    case CHAOS_KILL_MAJORITY:
        kill_majority(self, step);
        break;
    case CHAOS_STOP_LEADER:
    case CHAOS_STOP_RANK:
        stop_rank(self, step);
        break;
    case CHAOS_KILL_EXECUTORS:
    case CHAOS_KILL_ALL_EXECUTORS:
        kill_executors(self, step);
        break;
    case CHAOS_KILL_SUPERVISOR:
        kill_supervisor(self, step);
        break;
    case CHAOS_KILL_MPIRUN:
        kill_mpirun(self);
        break;
    case CHAOS_KILL_LAUNCHER:
    case CHAOS_TERMINATE:
        end_launcher(self, step);
        break;
    case CHAOS_FILL_SCRATCH:
        fill_scratch(self, step);
        break;
    case CHAOS_KILL_HOST:
        kill_host(self, step);
        break;
    case CHAOS_CUT_LINK:
        cut_link(self, step);
        break;
    default:
        break;
    }
}
