/* The world of the control plane's simulation: launches of a job, one after the other or two at the
 * same time, each with ranks on hosts. A rank is what tool/rank.c makes of it but for its worker and
 * its machine: the real control plane (opener, node, leader, master, job table) over the real Raft
 * and its log, with a simulated worker, on files and messages in memory. One thread, one seed,
 * virtual time.
 *
 *   plane_sim.c      the program: totals
 *   plane_world.c    a history: the job, launches, then faults, then calm until the job is over
 *   plane_launch.c   a launch, and what its launcher makes of how it ends
 *   plane_process.c  a rank's process: its turns, its death
 *   plane_chaos.c    faults
 *   plane_check.c    what must hold: the log against what the table may do
 *   plane_output.c   what must hold: files, orders, and the end
 *
 * The files are on one file system that all hosts share; runs are in scratch directories of hosts. */
#ifndef TRM_TESTS_PLANE_WORLD_H
#define TRM_TESTS_PLANE_WORLD_H

#include "runtime/clock.h"
#include "tests/support/draw.h"
#include "tests/support/sim_worker.h"
#include "tests/support/transport_mem.h"
#include "tool/control.h"

#define MS TRM_NS_PER_MS
#define RANKS_MAX 8u
#define HOSTS_MAX 4u
#define LIVE_LAUNCHES_MAX 3u
#define NOBODY UINT32_MAX
#define OUT "/out"
#define STATE "/out/.trireme"

typedef struct world world;
typedef struct launch launch;

/* ---- A rank. ---- */

typedef struct process {
    launch *of;
    uint32_t rank, host;
    char host_name[32], store[64];
    trm_draw draw;
    trm_fs *fs; /* its view; NULL: the process is gone */
    trm_ground ground;
    trm_control *control;
    sim_worker *worker;
    bool alive, unfit;
    bool watches;                /* its system has pidfds, and BEGIN has come */
    uint32_t watched, told_dead; /* bits of ranks */
    uint64_t wake_ns, paused_until_ns;
    uint64_t kill_ns; /* UINT64_MAX: nobody will kill it */
    uint64_t slow_disk_until_ns;
} process;

/* ---- A launch. ---- */

struct launch {
    world *in;
    uint64_t number;
    uint64_t epoch; /* 0: it has not begun on disk */
    uint32_t ranks;
    bool live;
    bool disturbed; /* ranks were paused, links cut, messages lost: silence may be taken for death */
    bool interrupted;
    bool lacks_log; /* one could not be reached when it began */
    bool lost_runs; /* that ranks thought they had */
    int result;     /* that a rank has told; -1: none */
    uint64_t result_ns;
    trm_transport_net *net;
    process process[RANKS_MAX];
};

/* ---- What is known for sure. ---- */

typedef struct known_task {
    uint8_t state; /* trm_table_task_state */
    bool ever;     /* it was committed: its counters count */
    bool once;     /* … or was before a launch went on without a majority of logs: its part may be there */
    uint32_t attempt, epoch, rank;
    uint32_t made; /* epoch whose attempt it is; 0: not known. An output may be taken over by a later one */
} known_task;

typedef struct known_phase {
    known_task *task;
    uint32_t tasks;
} known_phase;

/* An item of an epoch's log, as the first rank that applied it has seen it. */
typedef struct known_item {
    uint64_t index, term;
    uint32_t kind, crc;
    uint32_t image_crc; /* of the table after it */
} known_item;

typedef struct truth {
    uint64_t newest; /* epoch that has begun on disk */
    uint64_t epoch;  /* of the items */
    bool anew;       /* one after that was begun without a majority of logs */
    known_item *items;
    size_t items_count, items_room;
    bool submitted;
    known_phase phase[TRM_PHASES];
    uint64_t table_epoch, master_term, lost, failovers;
    uint32_t job_state;
    trm_counters counters;
    /* Orders that were sent: a set. */
    uint64_t *orders;
    size_t orders_count, orders_room;
} truth;

/* ---- Faults. ---- */

typedef enum fault {
    FAULT_KILL_LEADER = 0,
    FAULT_KILL,    /* any rank */
    FAULT_KILL_IN, /* … in the middle of what it writes */
    FAULT_PAUSE_LEADER,
    FAULT_PAUSE,
    FAULT_HOST,   /* with what it had not synced, and perhaps its scratch */
    FAULT_CUT,    /* links between two sets of hosts, perhaps one way */
    FAULT_LOSS,   /* messages that never arrive */
    FAULT_SLOW,   /* the network, or a disk */
    FAULT_FULL,   /* no room for files */
    FAULT_RUNS,   /* runs that cannot be read any more */
    FAULT_LAUNCH, /* mpirun is lost */
    FAULT_POWER,  /* … and the file server stops, with what was not synced */
    FAULT_SIGNAL, /* to all ranks of a launch */
    FAULT_SIGNAL_ONE,
    FAULT_TWICE, /* the same command is given again while the job runs */
    FAULT_WIPE,  /* a store of the log is lost while no launch runs */
    FAULTS
} fault;

typedef struct mood {
    unsigned weight[FAULTS];
    uint64_t chaos_every_ns;
    uint64_t calm_ns; /* faults end then */
    uint64_t delay_max_ns;
    size_t snapshot_bytes;
    unsigned pidfds; /* permille of processes */
} mood;

typedef struct totals {
    uint64_t histories, virtual_ns, turns, launches, done, failed, refused, interrupted, lost_launches;
    uint64_t commits, commands, orders, failovers, outputs_lost, outputs_lost_early, images;
    uint64_t outputs_moved, outputs_copied;
    uint64_t faults[FAULTS];
    uint64_t unsafe; /* launches that went on without a majority of logs */
    uint64_t killed, powerless, messages, messages_lost;
} totals;

struct world {
    uint64_t seed;
    bool trace, calm, over;
    trm_draw draw;
    totals *totals;
    mood mood;
    trm_spec spec;
    trm_traits traits;
    sim_habits habits;
    bool must_fail; /* a task is poisoned */
    bool may_fail;  /* failures are drawn */
    trm_fs *fs;
    sim_runs runs;
    uint64_t now_ns, chaos_ns, launch_ns, heal_ns;
    uint64_t launches;
    bool done;  /* a launch has told so */
    bool again; /* … and another was started after it */
    bool was_full;
    uint64_t hidden_epoch; /* whose logs cannot be reached … */
    uint32_t hidden;       /* … of these ranks: bits; for ever when spec.unsafe_recover is given for it */
    launch launch[LIVE_LAUNCHES_MAX];
    truth truth;
    process *turning; /* whose turn it is; NULL: nobody's */
};

/* ---- plane_world.c ---- */
void world_run(world *w);
void world_trace(world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
void world_fail(world *w, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));
static inline uint64_t below(world *w, uint64_t bound)
{
    return trm_draw_below(&w->draw, bound);
}
static inline bool often(world *w, unsigned permille)
{
    return trm_draw_often(&w->draw, permille);
}

/* Logs of the last launch that is known to have gone on cannot be reached. */
static inline bool lacks_log(const world *w)
{
    return w->hidden && w->hidden_epoch >= w->truth.epoch;
}

/* ---- plane_launch.c ---- */
launch *launch_begin(world *w); /* NULL: there are too many */
void launch_close(launch *l);
/* Whether it is over now: what its launcher does next is decided. */
bool launch_step(launch *l);
uint32_t launch_alive(const launch *l);
process *launch_leader(launch *l); /* NULL: nobody holds a master */
launch *launch_any(world *w);      /* one that lives, by chance; NULL: none */

/* ---- plane_process.c ---- */
void process_begin(launch *l, uint32_t rank);
void process_turn(process *p);
uint64_t process_next_ns(const process *p);
void process_show(const process *p);
typedef enum death { DEATH_KILLED, DEATH_POWER, DEATH_LEFT } death;
void process_end(process *p, death how);

/* ---- plane_chaos.c ---- */
void mood_draw(world *w);
void chaos(world *w);
void chaos_step(world *w); /* what ends by itself */
void chaos_end(world *w);

/* ---- plane_check.c ---- */
void check_begin(world *w);
void check_close(world *w);
/* A rank has applied an item of its log. */
void check_applied(process *p, const trm_replica *replica, const trm_replog_item *item);

/* ---- plane_output.c ---- */
/* A file has got this name. */
void check_renamed(process *p, const char *path);
/* A message leaves. */
void check_sent(process *p, uint32_t to, const void *bytes, size_t len);
/* The output directory as it is. */
void check_output(world *w);
/* A launch has told how the job ended. */
void check_result(launch *l);
/* The history is over: what was done is there after a loss of power, too. */
void check_end(world *w);

#endif
