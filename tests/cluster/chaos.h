/* Chaos on real mpirun: jobs with a known answer, while a schedule of faults that follows from its
 * seed does away with ranks, executors, supervisors, mpirun, hosts and links.
 *
 *     chaos_schedule.c   seed ──▶ schedule: which job, how many ranks, what is done at which progress
 *     chaos_jobs.c       inputs, the undisturbed runs, and that those are right
 *     chaos_play.c       starts a launch, waits for a point, does what is due; starts the next launch
 *     chaos_faults.c     what is done
 *     chaos_look.c       what can be seen: status.json, the kernel's trace, the processes
 *     chaos_check.c      afterwards: output, counters, scratch, processes
 *     chaos_log.c        … and whether anything that was committed was run again
 *     chaos_hosts.c      hosts made of network namespaces
 *     chaos.c            the command
 *
 * What happens when is told by progress that is observed, never by a time.
 */
#ifndef TRM_TESTS_CHAOS_H
#define TRM_TESTS_CHAOS_H

#include "runtime/status.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define CHAOS_STEPS_MAX 6u
#define CHAOS_RANKS_MAX 8u
#define CHAOS_HOSTS 3u
#define CHAOS_LAUNCHES_MAX 6u
#define CHAOS_PROCESSES_MAX 512u
#define CHAOS_WATCHDOG_MS 120000u /* nothing has been observed to go on for so long: it hangs */
#define CHAOS_POLL_US 3000u       /* between two looks */
#define CHAOS_ELECTION_MS 300u
#define CHAOS_PATH_BYTES 1024u
#define CHAOS_ASLEEP_MAX 64u
#define CHAOS_KILLED_MAX 64u

/* ---- The schedule -------------------------------------------------------------------------------- */

typedef enum chaos_job { CHAOS_WORDS, CHAOS_SORT, CHAOS_JOIN, CHAOS_JOBS } chaos_job;

/* How far the job is. */
typedef enum chaos_point {
    CHAOS_AT_BEGIN,   /* the state directory is there */
    CHAOS_AT_MAPS,    /* so many permille of the maps have ended */
    CHAOS_AT_REDUCES, /* … of the reduces have begun */
    CHAOS_AT_PARTS,   /* … of the parts are in place */
    CHAOS_AT_SUCCESS, /* _SUCCESS is there */
    CHAOS_POINTS
} chaos_point;

typedef enum chaos_fault {
    CHAOS_KILL_LEADER,
    CHAOS_KILL_RANK,      /* one that does not lead */
    CHAOS_KILL_TWO,       /* the leader and another at once */
    CHAOS_KILL_MAJORITY,  /* of the voters: the launch is lost */
    CHAOS_STOP_LEADER,    /* until another leads */
    CHAOS_STOP_RANK,      /* for some elections */
    CHAOS_KILL_EXECUTORS, /* of one rank */
    CHAOS_KILL_ALL_EXECUTORS,
    CHAOS_KILL_SUPERVISOR, /* of one rank */
    CHAOS_KILL_MPIRUN,     /* the launcher starts it again */
    CHAOS_KILL_LAUNCHER,   /* the same command, with other ranks, afterwards */
    CHAOS_TERMINATE,       /* SIGTERM to the launcher; the same */
    CHAOS_FILL_SCRATCH,    /* until something fails of it */
    CHAOS_KILL_HOST,       /* all of its processes */
    CHAOS_CUT_LINK,        /* of a host, for some elections */
    CHAOS_FAULTS
} chaos_fault;

typedef struct chaos_step {
    chaos_point point;
    unsigned permille;
    chaos_fault fault;
    uint32_t draw;  /* who of several */
    unsigned ranks; /* of the launch that follows, where one does */
} chaos_step;

typedef struct chaos_schedule {
    uint64_t seed;
    chaos_job job;
    unsigned ranks, executors;
    bool hosts; /* several of them: `ranks` on CHAOS_HOSTS */
    const char *compress;
    unsigned steps;
    chaos_step step[CHAOS_STEPS_MAX];
} chaos_schedule;

void chaos_schedule_draw(chaos_schedule *out, uint64_t seed);
void chaos_schedule_print(const chaos_schedule *self, FILE *out);
const char *chaos_job_name(chaos_job job);
/* "the leader is killed when 300 of 1000 maps are done" */
void chaos_step_print(const chaos_step *self, FILE *out);

/* ---- What all schedules share ---------------------------------------------------------------------- */

typedef struct chaos_reference {
    bool made;
    char out[CHAOS_PATH_BYTES]; /* of the undisturbed run */
    unsigned maps, reduces, parts;
} chaos_reference;

typedef struct chaos_world {
    char dir[CHAOS_PATH_BYTES]; /* everything is in it */
    char build[CHAOS_PATH_BYTES], source[CHAOS_PATH_BYTES];
    char id[64]; /* TRIREME_TEST_ID of all processes that are started */
    bool verbose, keep;
    bool may_mount;        /* file systems, for small scratches */
    bool has_hosts;        /* they are there */
    const char *hosts_why; /* or why not */
    chaos_reference reference[CHAOS_JOBS];
} chaos_world;

/* Inputs and the undisturbed run of `job`, once; checks that its output is right. False: said why. */
bool chaos_reference_make(chaos_world *world, chaos_job job);
/* Runs `command` by sh, in the world's directory; whether it ended with 0. */
bool chaos_shell(const chaos_world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Hosts, by tests/cluster/chaos_hosts.sh. */
bool chaos_hosts_make(chaos_world *world);
void chaos_hosts_remove(chaos_world *world);
bool chaos_hosts_link(const chaos_world *world, unsigned host, bool up);

/* ---- One schedule being played ------------------------------------------------------------------------ */

enum { CHAOS_EXCUSED_SIGNAL = 1, CHAOS_EXCUSED_INTERRUPTED, CHAOS_EXCUSED_MACHINE };

typedef struct chaos_play {
    chaos_world *world;
    const chaos_schedule *schedule;
    const chaos_reference *reference;
    char dir[CHAOS_PATH_BYTES], out[CHAOS_PATH_BYTES + 8], state[CHAOS_PATH_BYTES + 32];
    char scratch[CHAOS_PATH_BYTES + 16], trace[CHAOS_PATH_BYTES + 16];
    FILE *story; /* what was done and seen when */
    char *story_text;
    size_t story_len;
    uint64_t began_ns, moved_ns; /* moved: when something was last seen to go on */
    uint64_t moved_what;
    pid_t launcher; /* 0: it has ended */
    int wait_status;
    unsigned launches, ranks, next_ranks;
    int excused; /* a way in which the launcher may end without success: the same command goes on */
    bool done, failed, mounted;
    unsigned done_faults;
    bool host_died[CHAOS_HOSTS + 1]; /* what lies in its scratch nobody can remove */
    unsigned killed;                 /* ranks: some may be thought to live at the end */
    pid_t killed_pid[CHAOS_KILLED_MAX];
    unsigned asleep; /* executors of ranks that were stopped: they may begin what was given to others */
    pid_t asleep_pid[CHAOS_ASLEEP_MAX];
    char why[512];
} chaos_play;

extern volatile sig_atomic_t chaos_interrupted; /* nothing more is begun */

/* Plays it and checks what came of it. True: all is as it should be. */
bool chaos_play_run(chaos_world *world, const chaos_schedule *schedule, bool *skipped);

void chaos_say(chaos_play *self, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The first reason stands. Returns false. */
bool chaos_fail(chaos_play *self, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Looks after the launcher, sleeps a little. False: the job is over, or has failed. */
bool chaos_tick(chaos_play *self);
/* Does what is due. */
void chaos_fault_do(chaos_play *self, const chaos_step *step);
bool chaos_check(chaos_play *self);
bool chaos_check_log(chaos_play *self); /* a part of it */

/* ---- What can be seen ------------------------------------------------------------------------------------
 */

typedef struct chaos_process {
    pid_t pid, parent;
    int rank;      /* -1: of none */
    unsigned host; /* 1 …; 0: hosts are not told apart */
    char name[20];
} chaos_process;

/* All that are marked as of this test and are no zombies. Returns how many. */
unsigned chaos_processes(const chaos_world *world, chaos_process out[CHAOS_PROCESSES_MAX]);
/* Signals those of `rank` (-1: of any) with a name that begins so; returns how many. */
unsigned chaos_signal(const chaos_world *world, int rank, const char *name, int number);
pid_t chaos_find(const chaos_world *world, int rank, const char *name); /* 0: none */
bool chaos_lives(pid_t pid);                                            /* and is no zombie */
/* Takes those that have ended; sets launcher and wait_status. False: this process has no child left. */
bool chaos_reap(chaos_play *self);
void chaos_kill_all(const chaos_world *world);

typedef struct chaos_rank {
    pid_t pid;
    bool voter;
    unsigned host; /* 1 …; 0: hosts are not told apart */
    char state[16];
} chaos_rank;

/* status.json as it is now. */
typedef struct chaos_status {
    bool running;
    uint64_t epoch, term, written_ms, failovers, outputs_lost;
    unsigned leader, ranks;
    pid_t leader_pid;
    chaos_rank rank[CHAOS_RANKS_MAX];
} chaos_status;

bool chaos_status_read(const chaos_play *self, chaos_status *out); /* false: there is none */

/* The kernel's trace: how many different maps have ended and reduces have begun, and all lines. */
typedef struct chaos_trace {
    unsigned maps, reduces, lines;
} chaos_trace;

void chaos_trace_read(const chaos_play *self, chaos_trace *out);
unsigned chaos_parts_in(const char *dir);
bool chaos_exists(const char *dir, const char *name);

#endif
