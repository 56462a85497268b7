/* inputs → splits → tasks.
 *
 * The files of a job, in the order given (a directory's and a pattern's sorted by
 * name), are laid end to end. A map task is a range of that space, so that a task
 * may cover many small files or a part of a large one. A boundary falls at a
 * multiple of the split size inside plain files (moved to a record's begin for fixed
 * records), and never inside a gzip or whole-file input. Task k of n covers
 * [begin[k], begin[k+1]). Lines belong to the task in which they begin.
 *
 *      file 0 ────────────────┤ file 1 ─┤ file 2 ──────────────────────────┤
 *      task 0 ──┤ task 1 ──┤ task 2 ────────┤ task 3 ──┤ task 4 ─────────────┤
 *
 * The plan is made once, by the leader, saved in the state directory (versioned,
 * checksummed), and read by all.
 */
#ifndef TRM_JOBS_PLAN_H
#define TRM_JOBS_PLAN_H

#include "jobs/spec.h"
#include "jobs/traits.h"
#include "runtime/fs.h"

#define TRM_PLAN_FILES_MAX (1u << 24)
#define TRM_PLAN_SPLITS_MAX (1u << 24) /* tasks with an input */
#define TRM_PLAN_NAME "plan"
/* The split size that is chosen counts a file as this much more than its bytes, so that a
 * task of many small files takes no longer than one of a part of a large file. */
#define TRM_PLAN_FILE_COST_BYTES (16u << 10)
#define TRM_PLAN_TASKS_AN_EXECUTOR 8u
/* Of a job that folds: large ones, because every map task sorts and writes what it has counted and the merge
 * reads it; and the last quarter of the input in halves, so that executors end at about the same time. */
#define TRM_PLAN_FOLDS_AN_EXECUTOR 4u

typedef struct trm_plan_file {
    char *path;        /* absolute */
    uint64_t bytes;    /* on disk */
    uint64_t mtime_ns; /* to notice a changed input */
    uint64_t begin;    /* in the space of all files */
    bool gzip;         /* by its first bytes, not by its name */
} trm_plan_file;

typedef struct trm_plan {
    uint32_t input; /* trm_input */
    uint64_t record_bytes;
    uint64_t split_bytes; /* of the first task */
    uint64_t bytes;       /* of all files */
    trm_plan_file *files;
    uint32_t files_count;
    uint32_t tasks;
    uint32_t partitions;         /* 0 for a map-only job */
    uint64_t *begin;             /* tasks + 1 entries; NULL for TRM_INPUT_NONE */
    uint32_t files_room;         /* private */
    struct trm_plan_text *texts; /* private: where the paths lie */
} trm_plan;

/* One contiguous piece of a task's input. */
typedef struct trm_piece {
    const trm_plan_file *file;
    uint64_t offset; /* in the file */
    uint64_t bytes;
} trm_piece;

/* Expands inputs (inputs.h says how), checks that each is there and readable, and cuts the
 * splits. `executors` over all ranks and `memory_bytes` of one executor guide the split size:
 * some tasks an executor, the last ones smaller if the job folds; for a job that sorts, no more than what it
 * collects in memory. With spec->split_bytes a boundary falls at its multiples in the space of all plain
 * files. Partitions default to the executors. TRM_EINPUT with the input's name; refuses inputs that are all
 * empty (but of whole files) and a file of fixed records that is not a multiple. TRM_EUSAGE for a number of
 * tasks or partitions that nobody can want. */
trm_status trm_plan_build(trm_plan *self, const trm_spec *spec, const trm_traits *traits, uint32_t executors,
                          uint64_t memory_bytes, trm_err *err);
void trm_plan_close(trm_plan *self);

/* Appends a file to a plan that is being made; copies the path. TRM_ENOMEM, TRM_EINPUT above
 * TRM_PLAN_FILES_MAX. */
trm_status trm_plan_add_file(trm_plan *self, const char *path, uint64_t bytes, uint64_t mtime_ns, bool gzip,
                             trm_err *err);

/* The pieces of a task: fills up to `max` from piece number `first` on, returns how
 * many. O(log files). Empty files are pieces too. */
unsigned trm_plan_pieces(const trm_plan *self, uint32_t task, unsigned first, trm_piece *out, unsigned max);

/* Format: plan_codec.c. The encoding ends with its CRC-32C. */
void trm_plan_encode(const trm_plan *self, trm_writer *out);
/* Whatever the bytes are: TRM_ECORRUPT, TRM_EVERSION, TRM_ENOMEM. */
trm_status trm_plan_decode(trm_plan *self, const void *bytes, size_t len, trm_err *err);
/* state_dir/plan, whole and durable. The checksum names this plan in messages. */
trm_status trm_plan_save(const trm_plan *self, trm_fs *fs, const char *state_dir, uint32_t *crc,
                         trm_err *err);
/* TRM_ECORRUPT when the file is not the plan with this checksum. */
trm_status trm_plan_load(trm_plan *self, trm_fs *fs, const char *state_dir, uint32_t crc, trm_err *err);

#endif
