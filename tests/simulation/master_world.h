/* The world of the master's simulation: one log that all masters of a job share, workers, and what is
 * known of both.
 *
 *   master_sim.c      the program, and a history: the job, its launches, its end
 *   master_launch.c   a launch: who leads, troubles, time
 *   master_check.c    what must hold */
#ifndef TRM_TESTS_MASTER_WORLD_H
#define TRM_TESTS_MASTER_WORLD_H

#include "jobs/names.h"
#include "runtime/clock.h"
#include "runtime/diag.h"
#include "scheduler/master.h"
#include "tests/support/draw.h"
#include "tests/support/fs_mem.h"
#include "tests/support/replog_mem.h"
#include "tests/support/sim_worker.h"
#include "tests/support/transport_mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HISTORIES 200u
#define RANKS_MAX 8u
#define HOSTS_MAX 3u
#define LAUNCHES_MAX 12u
#define ELECTIONS_MAX 12u /* of a launch */
#define MISSED_MAX 6u
#define NOBODY UINT32_MAX
#define STEPS_MAX 2000000u /* of a launch; hundreds of records that hang a kernel are half a million */
#define OUT "/out"
#define STATE "/out/.trireme"

typedef struct history {
    uint64_t seed;
    trm_draw draw;
    trm_spec spec;
    trm_traits traits;
    trm_submission submission;
    sim_habits habits;
    trm_fs *fs;
    trm_log_disk *disk;
    sim_runs runs;
    uint64_t now_ns;
    unsigned launch;
    bool must_fail; /* a task is poisoned */

    /* This launch. */
    uint32_t ranks, hosts;
    bool alive[RANKS_MAX];
    char host[RANKS_MAX][64], store[RANKS_MAX][64];
    sim_worker *workers[RANKS_MAX];
    trm_transport_net *net;
    trm_replog *logs[RANKS_MAX];
    trm_replica replicas[RANKS_MAX];
    trm_master *masters[RANKS_MAX]; /* one leads; others may not know yet that they do not */
    uint32_t leader, keeper;        /* NOBODY: an election goes on; a rank that works and lives on */
    uint64_t epoch;
    unsigned elections, seldom; /* per thousand: a rank misses that another leads, … */
    unsigned missed[RANKS_MAX]; /* … MISSED_MAX times at most */
    uint64_t elect_ns, depose_ns, tell_ns[RANKS_MAX];
    uint64_t kill_ns[RANKS_MAX]; /* 0: never */
    uint64_t crash_ns, interrupt_ns, full_ns, room_ns, lose_ns;
    bool interrupted;

    /* The second table, and what was ever ordered: a set. */
    trm_table table;
    size_t applied;
    uint64_t *seen;
    size_t seen_count, seen_room;
    uint64_t steps, orders, commits, losses, kills, crashes, launches, failovers, again, skips;
} history;

static inline uint64_t below(history *self, uint64_t bound)
{
    return trm_draw_below(&self->draw, bound);
}

static inline bool often(history *self, unsigned permille)
{
    return trm_draw_often(&self->draw, permille);
}

/* ---- master_sim.c ---- */
void fail(const history *self, const char *what, uint64_t number); /* with the command that replays it */

/* ---- master_launch.c ---- */
trm_master *master_of(const history *self); /* NULL: nobody leads */
void begin_launch(history *self, uint32_t ranks, uint32_t hosts);
/* Runs it to its end; false: it died. */
bool run_launch(history *self, trm_end *end);
void end_launch(history *self, bool crash);

/* ---- master_check.c ---- */
void follow_log(history *self);
const trm_table_job *job_of(const history *self);
bool file_is_there(history *self, const char *path, uint64_t *bytes);
void check_output(history *self);
void check_counters(history *self);
/* An order has come to a worker. */
void on_order(void *context, uint32_t rank, const trm_order *order);

#endif
