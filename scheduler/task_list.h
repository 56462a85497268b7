/* Lists of tasks of one phase, linked through the tasks themselves: a task is in at most one. */
#ifndef TRM_SCHEDULER_TASK_LIST_H
#define TRM_SCHEDULER_TASK_LIST_H

#include <stdint.h>

#define NO_TASK UINT32_MAX

typedef enum soft_state {
    SOFT_IDLE = 0, /* nothing to do: committed, or not of use */
    SOFT_QUEUED,   /* in the queue of the phase, or (a reduce) of the rank where it is at home */
    SOFT_RUNNING,  /* in the list of `rank` */
    SOFT_PREPARED, /* its COMMIT is proposed */
    SOFT_FAILING,  /* its FAIL is proposed */
    SOFT_ADOPTING /* a map output of an earlier launch, or of a rank that is lost: in the list of its store */
} soft_state;

/* What the master knows of a task beside the table. */
typedef struct soft_task {
    uint32_t next, previous;
    uint32_t rank;        /* RUNNING, PREPARED: where; QUEUED: the rank that it is kept away from */
    uint32_t attempt;     /* RUNNING, PREPARED, FAILING: which one */
    uint32_t attempts;    /* the number of the next one */
    uint32_t since_ms;    /* RUNNING: since it was ordered or, once that is known, began */
    uint8_t state : 3;    /* soft_state */
    uint8_t at_home : 1;  /* QUEUED: with the rank where it is at home */
    uint8_t hunted : 1;   /* a record is looked for that kills its kernel: only probes of it run */
    uint8_t twinned : 1;  /* RUNNING: another attempt runs elsewhere, too … */
    uint8_t doubled : 4;  /* … as often so far */
    uint8_t begun : 1;    /* RUNNING: its executor has begun it … */
    uint8_t recalled : 1; /* … or its rank was asked to give it back; QUEUED: it has */
    uint8_t returns;      /* how often it came back for a reason that does not count, saturating */
    uint16_t probes;      /* that have ended */
} soft_task;

typedef struct task_list {
    uint32_t first, last, count;
} task_list;

#define TASK_LIST_EMPTY ((task_list){NO_TASK, NO_TASK, 0})

static inline void task_list_put(task_list *self, soft_task *tasks, uint32_t task)
{
    tasks[task].next = NO_TASK;
    tasks[task].previous = self->last;
    *(self->last == NO_TASK ? &self->first : &tasks[self->last].next) = task;
    self->last = task;
    self->count++;
}

static inline void task_list_put_first(task_list *self, soft_task *tasks, uint32_t task)
{
    tasks[task].previous = NO_TASK;
    tasks[task].next = self->first;
    *(self->first == NO_TASK ? &self->last : &tasks[self->first].previous) = task;
    self->first = task;
    self->count++;
}

static inline void task_list_remove(task_list *self, soft_task *tasks, uint32_t task)
{
    soft_task *it = &tasks[task];
    *(it->previous == NO_TASK ? &self->first : &tasks[it->previous].next) = it->next;
    *(it->next == NO_TASK ? &self->last : &tasks[it->next].previous) = it->previous;
    self->count--;
}

#endif
