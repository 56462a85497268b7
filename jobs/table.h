/* The job table: what is known for sure of the jobs, the same on every replica.
 *
 * It changes only by trm_table_apply, given the commands of the log in their order, and
 * apply knows no clock, no pointer and no chance. What a command may not do any more
 * (an older epoch, an attempt that is fenced, a task that is committed) it does not do,
 * on every replica alike.
 *
 *   a task:  PENDING ──COMMIT──▶ COMMITTED ──PUBLISHED──▶ PUBLISHED   (parts)
 *               ▲                    │
 *               └───────LOST─────────┘                                (map outputs)
 *
 * A task with a part stays committed over launches. A map output is of use only where it
 * is readable: it is `live` when it was committed (or adopted) in the current epoch.
 *
 * A map task whose kernel dies of a record is run without it: which records that are is of the
 * table, so that every attempt from then on leaves out the same ones, whoever orders it.
 *
 * Memory: 16 bytes a task, 24 more where a task leaves a part; 8 a record that is skipped.
 */
#ifndef TRM_JOBS_TABLE_H
#define TRM_JOBS_TABLE_H

#include "jobs/command.h"
#include "jobs/spec.h"

#define TRM_TABLE_VERSION 4u
/* Numbers of attempts of a task that one master may give out: see trm_table_first_attempt. */
#define TRM_MASTER_ATTEMPTS 1024u
#define TRM_TABLE_MASTERS_MAX (UINT32_MAX / TRM_MASTER_ATTEMPTS)
#define TRM_TABLE_MASTERS_UNKNOWN 1024u /* that logs which are missing may have had, at most */
#define TRM_TABLE_JOBS_MAX 4096u
#define TRM_TABLE_MEMBERS_MAX (4u * TRM_RANKS_MAX)

typedef enum trm_table_task_state {
    TRM_TASK_PENDING = 0,
    TRM_TASK_COMMITTED = 1,
    TRM_TASK_PUBLISHED = 2
} trm_table_task_state;

typedef struct trm_table_task {
    uint32_t attempt;     /* PENDING: attempts below it are fenced; else the committed one */
    uint32_t epoch;       /* when it was committed, or adopted … */
    uint32_t failed_high; /* 1 + the highest attempt whose failure was counted, saturating */
    uint16_t rank;        /* … and where */
    uint8_t failures;     /* counted attempts of this epoch, saturating */
    uint8_t state : 2;    /* trm_table_task_state */
    uint8_t empty : 1;    /* nothing was written */
    uint8_t counted : 1;  /* its counters are in the job's: an output that is lost and made again adds none */
} trm_table_task;

typedef struct trm_table_part {
    uint64_t bytes;
    uint64_t records;
    uint32_t crc;
} trm_table_part;

typedef struct trm_table_phase {
    uint32_t tasks;
    uint32_t committed; /* COMMITTED or PUBLISHED */
    uint32_t live;      /* … in the current epoch */
    uint32_t published;
    uint64_t failures; /* all launches */
    uint64_t lost;     /* outputs that went back, all launches */
    trm_table_task *task;
    trm_table_part *part; /* NULL: this phase leaves runs, not parts */
} trm_table_phase;

typedef struct trm_table_skip {
    uint32_t task, record;
} trm_table_skip;

typedef struct trm_table_job {
    trm_identity identity;
    uint32_t state; /* trm_job_state */
    uint32_t exit_code;
    uint64_t submitted_epoch;
    uint64_t finished_ms;
    uint32_t cuts_crc;                 /* 0: none yet */
    char *text;                        /* of FINISH; NULL: none */
    trm_table_phase phase[TRM_PHASES]; /* SAMPLE is empty: sampling leaves nothing but cuts */
    trm_table_skip *skips;             /* in ascending order of (task, record) */
    uint32_t skips_count, skips_room;
    trm_counters counters;
} trm_table_job;

typedef struct trm_table {
    uint64_t epoch; /* 0: no launch yet */
    uint32_t epoch_ranks;
    uint64_t epoch_ms;
    uint32_t epoch_masters; /* that this launch has had */
    uint32_t masters;     /* … and all launches, with those that only logs which are missing may know of */
    uint64_t master_term; /* of the last one of them; 0: none yet */
    uint64_t failovers;   /* masters that came after another of their launch, all launches */
    uint64_t applied, refused; /* commands and items; for the record */
    trm_table_job **jobs;
    uint32_t jobs_count;
    trm_member *members; /* of this epoch, and of earlier ones whose map outputs still count */
    uint32_t members_count, members_capacity;
} trm_table;

/* What applying did, told as it is done; for the leader's soft state. Any may be NULL. */
typedef struct trm_table_watch {
    void (*committed)(void *context, uint32_t job, const trm_commit *commit, bool accepted);
    void (*failed)(void *context, uint32_t job, const trm_fail *fail, bool accepted);
    void (*lost)(void *context, uint32_t job, const trm_output_ref *ref, bool accepted);
    void (*adopted)(void *context, uint32_t job, uint32_t rank, const trm_output_ref *ref, bool accepted);
    void (*published)(void *context, uint32_t job, uint32_t task, bool accepted);
    void (*skipped)(void *context, uint32_t job, const trm_skip *skip, bool accepted);
    void *context;
} trm_table_watch;

void trm_table_init(trm_table *self);
void trm_table_close(trm_table *self);

/* Applies one command of the log. `watch` may be NULL.
 * TRM_OK: applied, or (part of it) refused as the rules say: counted in `refused`.
 * TRM_ECORRUPT, TRM_EVERSION: not a command of this version; TRM_ENOMEM: nothing is
 * changed, and the replica must not go on. */
trm_status trm_table_apply(trm_table *self, const void *command, size_t len, const trm_table_watch *watch,
                           trm_err *err);

/* The phase whose tasks leave parts: REDUCE, or MAP of a map-only job. */
trm_phase trm_table_output_phase(const trm_table_job *job);
/* The records of a map task that are skipped, ascending; returns how many. */
unsigned trm_table_skips(const trm_table_job *job, uint32_t task, uint32_t out[TRM_ORDER_SKIPS_MAX]);
/* The number of the first attempt of any task that the newest master gives out. It has
 * TRM_MASTER_ATTEMPTS of them, and no other master of any launch gives out any of these: what is
 * fenced or committed when it begins is below, and two runs of one name are the same attempt's,
 * wherever they are found. */
uint32_t trm_table_first_attempt(const trm_table *self);
/* Logs are missing that may know of later masters: the numbers of these are left out. Of the image
 * that a launch begins with: no command says it, as the launch may die before one is in the log. */
void trm_table_masters_unknown(trm_table *self);
/* The member of (epoch, rank), or NULL. */
const trm_member *trm_table_member(const trm_table *self, uint64_t epoch, uint32_t rank);

/* The whole state, for a snapshot: equal tables have equal images, byte by byte.
 *   u32 magic "TRMT" · u32 version · … · u32 CRC-32C of all before it */
void trm_table_encode(const trm_table *self, trm_writer *out);
/* `self` is initialised or closed before; set only on TRM_OK. TRM_ECORRUPT,
 * TRM_EVERSION, TRM_ENOMEM. */
trm_status trm_table_decode(trm_table *self, const void *bytes, size_t len, trm_err *err);

#endif
