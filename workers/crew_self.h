/* The inside of a crew, for crew.c and crew_start.c only. */
#ifndef TRM_WORKERS_CREW_SELF_H
#define TRM_WORKERS_CREW_SELF_H

#include "workers/crew.h"
#include "workers/supervisor.h"

#include <stdio.h>
#include <sys/types.h>

/* What the rank knows of one executor. */
typedef struct trm_crew_member {
    int fd;                  /* the rank's end of the socket for its orders */
    uint64_t generation;     /* of the one that is alive, or will be next */
    bool ready;              /* READY has come: orders may go */
    bool set_up;             /* … after SETUP went */
    bool failed;             /* the kernel cannot be loaded */
    bool condemned;          /* KILL went to the supervisor: nothing in its ring is read */
    bool cancelled;          /* KILL went, for an order that is of no use */
    bool has_died;           /* DIED has come, in `died`; told once the ring is empty */
    bool gone;               /* and nobody will take its place */
    unsigned unready_deaths; /* in a row */
    unsigned finished;       /* orders of this generation that were reported … */
    trm_order reported;      /* … and the last of them */
    unsigned first, queued;
    trm_order queue[TRM_CREW_QUEUE_MAX]; /* in its hands, in order */
    trm_crew_died died;
} trm_crew_member;

struct trm_crew {
    unsigned executors;
    uint64_t executor_memory_bytes;
    char *bindings;
    trm_scratch scratch;
    const char *output_dir; /* borrowed, of the job */
    trm_lanes lanes;
    trm_topology *topology;
    trm_crew_member *member;
    int *order_fds; /* the executors' ends; only until the supervisor is forked */
    int wake_fd;    /* eventfd: written by executors */
    int supervisor_fd;
    pid_t supervisor_pid;
    bool supervisor_gone, told_gone;
    bool has_setup;
    trm_crew_setup_msg setup;
    trm_traits traits;
    unsigned turn, streak; /* which executor is asked next, and how often it has been */
    uint64_t dropped;
    trm_writer out;
    trm_crew_died died; /* being decoded */
    trm_order lost[TRM_CREW_QUEUE_MAX];
    char last_words[TRM_LAST_WORDS_BYTES];
    uint8_t record[TRM_RING_RECORD_BYTES_MAX];
};

/* Makes a crew whose executors run `ops`: trm_crew_start, and tests with their own. */
trm_status trm_crew_start_with(trm_crew **out, const trm_spec *spec, int rank_hint,
                               const trm_executor_ops *ops, trm_err *err);
/* Closes and frees what the rank holds. */
void trm_crew_free(trm_crew *self);

#endif
