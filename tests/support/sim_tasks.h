/* How simulated tasks go, and what they leave: of their number alone, so that it is known beforehand. */
#ifndef TRM_TESTS_SIM_TASKS_H
#define TRM_TESTS_SIM_TASKS_H

#include "jobs/spec.h"
#include "jobs/wire.h"

#define SIM_NO_RECORD UINT32_MAX

/* How tasks go, the same for all workers of a launch. */
typedef struct sim_habits {
    uint64_t task_min_ns, task_max_ns;
    unsigned fail_permille;   /* attempts that fail in a way that counts */
    unsigned refuse_permille; /* … that are refused without being begun */
    unsigned empty_permille;  /* maps that emit nothing; by task, not by attempt */
    uint32_t poison_task;     /* this map always fails; UINT32_MAX: none */
    unsigned bad_permille;    /* maps with bad records, see sim_bad_records; by task */
    uint64_t hang_ns;         /* so long an attempt takes that comes to a bad record: it times out */
    bool writes_parts;        /* parts as files in `fs` */
    bool leaves_nothing;      /* no output, no counters: empty tasks */
} sim_habits;

/* What every attempt of a task counts and leaves, so that totals are known beforehand. */
void sim_task_counters(uint8_t phase, uint32_t task, trm_counters *out);
uint64_t sim_part_bytes(uint32_t task);
/* A map task has SIM_RECORDS records, of which some may be bad: a killer, and a spoiler after which another
 * record kills. Fills in those that must be left out, ascending; returns how many. */
#define SIM_RECORDS 100u
unsigned sim_bad_records(const sim_habits *habits, uint32_t task, uint32_t out[2]);
bool sim_map_is_empty(const sim_habits *habits, uint32_t task);

/* The record at which the attempt dies; SIM_NO_RECORD: it does not. */
uint32_t sim_task_dies_at(const sim_habits *habits, const trm_order *order);

#endif
