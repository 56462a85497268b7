/* The commands of the job table: the only way in which it changes. They travel through
 * the replicated log, which delivers each committed one to every replica, in one order.
 *
 *   u8 version · u8 type · varint job · body (below), to the last byte
 *
 *   SUBMIT     a job enters: what it is (trm_identity)
 *   EPOCH      a launch begins: it owns the table; counted attempts begin at 0 again
 *   MASTER     a master begins: the first of the launch, or after one that is lost
 *   MEMBER     a rank of this epoch: its host and the store of its runs
 *   CUTS       the cut points of a range partitioned job are saved, with this checksum
 *   COMMIT     these attempts are the ones that count, with their output and counters
 *   FAIL       an attempt failed in a way that counts
 *   LOST       these committed map outputs are gone: their tasks are to be run again
 *   ADOPT      these map outputs, made elsewhere, are in this rank's store now
 *   PUBLISHED  these parts are in place
 *   SKIP       a record that kills the kernel is left out of its map task from now on
 *   FINISH     the job is over
 *
 * `job` is the number that SUBMIT gave (0 for the first); EPOCH, MASTER and
 * MEMBER are of the whole table and carry 0. Lists hold at most TRM_COMMAND_ITEMS_MAX items; an item's
 * task is stored as the (zigzag) distance from the item before it, so that runs of small
 * tasks cost about six bytes each in the log.
 */
#ifndef TRM_JOBS_COMMAND_H
#define TRM_JOBS_COMMAND_H

#include "jobs/counters.h"
#include "jobs/traits.h"
#include "jobs/wire.h"

#define TRM_COMMAND_VERSION 3u
#define TRM_COMMAND_ITEMS_MAX 65536u
#define TRM_IDENTITY_PATH_BYTES 4096u

typedef enum trm_command_type {
    TRM_COMMAND_SUBMIT = 1,
    TRM_COMMAND_EPOCH,
    TRM_COMMAND_MEMBER,
    TRM_COMMAND_CUTS,
    TRM_COMMAND_COMMIT,
    TRM_COMMAND_FAIL,
    TRM_COMMAND_LOST,
    TRM_COMMAND_ADOPT,
    TRM_COMMAND_PUBLISHED,
    TRM_COMMAND_FINISH,
    TRM_COMMAND_MASTER,
    TRM_COMMAND_SKIP
} trm_command_type;

/* What makes two launches launches of the same job. */
typedef struct trm_identity {
    char kernel[TRM_IDENTITY_PATH_BYTES]; /* the path, or "" for a program of its own */
    char name[TRM_JOB_NAME_BYTES];
    uint32_t kernel_crc;       /* CRC-32C of the shared object; 0: unknown */
    uint64_t params_hash;      /* names and converted values */
    uint32_t plan_crc;         /* inputs by path, size and time, splits, partitions: state_dir/plan */
    uint32_t tasks;            /* of the map phase */
    uint32_t partitions;       /* tasks of the reduce phase; 0: map-only */
    uint32_t asked_partitions; /* as given by the user; 0: chosen */
    uint64_t asked_split_bytes;
    uint32_t input, output; /* trm_input, trm_output */
    bool range_partitioned;
    bool gzip_output;
    uint32_t counters_count; /* the job's own */
} trm_identity;

typedef struct trm_epoch {
    uint64_t epoch; /* grows with every launch; from 1 */
    uint32_t ranks;
    uint64_t wall_ms;
} trm_epoch;

/* What a master proposes before anything else of its own: once it is applied the table holds all
 * that masters before it have committed, and tells it which one of the launch it is. */
typedef struct trm_mastership {
    uint64_t epoch;
    uint64_t term; /* of the replicated log; grows from one master to the next */
} trm_mastership;

typedef struct trm_member {
    uint64_t epoch;
    uint32_t rank;
    uint64_t pid;
    char host[TRM_HOST_NAME_BYTES];
    char run_store[TRM_STORE_PATH_BYTES];
} trm_member;

/* One attempt of a COMMIT. */
typedef struct trm_commit {
    uint8_t phase; /* MAP or REDUCE */
    uint32_t task;
    uint32_t attempt;
    uint32_t rank;
    uint64_t output_bytes;
    uint64_t output_records;
    uint32_t output_crc;
    trm_counters counters;
} trm_commit;

typedef struct trm_fail {
    uint64_t epoch;
    uint8_t phase;
    uint32_t task;
    uint32_t attempt;
    uint32_t rank;
    uint32_t status; /* trm_status */
} trm_fail;

/* Attempts of the task below `fence` have been given the record, and do not count any more. */
typedef struct trm_skip {
    uint64_t epoch;
    uint32_t task; /* of the map phase */
    uint32_t record;
    uint32_t fence;
} trm_skip;

/* One output of a LOST or an ADOPT: as committed in `epoch`. */
typedef struct trm_output_ref {
    uint64_t epoch;
    uint32_t task;
    uint32_t attempt;
} trm_output_ref;

typedef enum trm_job_state {
    TRM_JOB_RUNNING = 0,
    TRM_JOB_DONE = 1,
    TRM_JOB_FAILED = 2 /* a later launch may try again what is not committed */
} trm_job_state;

typedef struct trm_finish {
    uint64_t epoch;
    uint32_t state; /* trm_job_state, not RUNNING */
    uint32_t exit_code;
    uint64_t wall_ms;
    char text[TRM_TEXT_BYTES_MAX];
} trm_finish;

/* The begin of every command. */
void trm_command_begin(trm_writer *out, trm_command_type type, uint32_t job); /* resets out first */
/* TRM_EVERSION, TRM_ECORRUPT; leaves `body` over the rest. */
trm_status trm_command_open(const void *bytes, size_t len, trm_command_type *type, uint32_t *job,
                            trm_reader *body);

/* Bodies. Decoders mark the reader failed on anything that encode does not write. */
void trm_identity_encode(const trm_identity *self, trm_writer *out); /* SUBMIT */
void trm_identity_decode(trm_identity *self, trm_reader *in);
void trm_epoch_encode(const trm_epoch *self, trm_writer *out); /* EPOCH */
void trm_epoch_decode(trm_epoch *self, trm_reader *in);
void trm_mastership_encode(const trm_mastership *self, trm_writer *out); /* MASTER */
void trm_mastership_decode(trm_mastership *self, trm_reader *in);
void trm_member_encode(const trm_member *self, trm_writer *out); /* MEMBER */
void trm_member_decode(trm_member *self, trm_reader *in);
void trm_fail_encode(const trm_fail *self, trm_writer *out); /* FAIL */
void trm_fail_decode(trm_fail *self, trm_reader *in);
void trm_skip_encode(const trm_skip *self, trm_writer *out); /* SKIP */
void trm_skip_decode(trm_skip *self, trm_reader *in);
void trm_finish_encode(const trm_finish *self, trm_writer *out); /* FINISH */
void trm_finish_decode(trm_finish *self, trm_reader *in);

/* Lists: a head (COMMIT, LOST, PUBLISHED: the epoch; ADOPT: the epoch and the rank; CUTS: the epoch and the
 * checksum, no list), then items until the end of the command. `previous` is the task of the item
 * before, 0 for the first; both sides keep it. */
void trm_commit_encode(const trm_commit *self, uint32_t *previous, trm_writer *out);
void trm_commit_decode(trm_commit *self, uint32_t *previous, trm_reader *in);
void trm_output_ref_encode(const trm_output_ref *self, uint32_t *previous, trm_writer *out);
void trm_output_ref_decode(trm_output_ref *self, uint32_t *previous, trm_reader *in);
void trm_task_number_encode(uint32_t task, uint32_t *previous, trm_writer *out); /* PUBLISHED */
uint32_t trm_task_number_decode(uint32_t *previous, trm_reader *in);

#endif
