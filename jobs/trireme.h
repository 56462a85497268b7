/* trireme.h: write batch jobs for clusters in C.
 *
 * A job is a `const trm_job`: a map function, a way to reduce, and what its input
 * and output look like. Put it into a shared object and run it with
 *
 *     trireme run -n 4 ./mine.so 'data/ *.txt' -o out
 *
 *     #include <trireme.h>
 *     static int map(trm_task *task, const trm_record *line) {
 *         … trm_emit_u64(task, word, word_len, 1); …
 *         return 0;
 *     }
 *     TRM_EXPORT_JOB = {
 *         TRM_JOB_HEADER, .name = "mine", .map = map, .fold = TRM_FOLD_SUM_U64,
 *         .value_type = TRM_U64,
 *     };
 *
 * or make it a program of your own:  int main(int argc, char **argv)
 *                                    { return trm_main(argc, argv, &job); }
 *
 * The way of the data:
 *     input → records → map → emitted (key, value) pairs → sorted by key and cut
 *     by partition → [fold | combine] → shuffle → merge → [fold | reduce] → part
 *
 * What you can rely on
 *  - Your functions run in a process of their own that runs one task at a time, on
 *    one thread: no locks, and globals are yours within a task. A crash costs one
 *    attempt of one task, which is tried again: make a task depend on nothing but
 *    its input and parameters.
 *  - Pointers that you are given are valid until your function returns. What you
 *    emit is copied before trm_emit returns.
 *  - A function returns 0, or anything else to fail the attempt (say why with
 *    trm_task_fail).
 */
#ifndef TRIREME_H
#define TRIREME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define TRM_API __attribute__((visibility("default")))
#else
#define TRM_API
#endif

/* The version of this interface: a job built for another one is refused. */
#define TRM_ABI 1u
#define TRM_JOB_MAGIC 0x4a4d5254u /* "TRMJ" */

/* Limits. */
#define TRM_KEY_BYTES_MAX (64u * 1024u)
#define TRM_FOLD_BYTES_MAX 256u
#define TRM_COUNTERS_MAX 64u
#define TRM_PARAMS_MAX 64u

typedef struct trm_task trm_task;     /* the running attempt of a task */
typedef struct trm_values trm_values; /* the values of one key, streamed */

/* ---- Input ------------------------------------------------------------- */

typedef enum trm_input {
    TRM_INPUT_LINES = 0, /* a record is a line, without its newline ("\r" is kept) */
    TRM_INPUT_FIXED = 1, /* a record is `record_bytes` bytes */
    TRM_INPUT_FILES = 2, /* a record is a whole file */
    TRM_INPUT_NONE = 3,  /* no input: one record a task, see `index`; --tasks N says how many */
    TRM_INPUT_BLOCKS = 4 /* a record is a block of whole lines, with their newlines (the last line of a
                            file may have none): for kernels that look at text and not at lines */
} trm_input;
#define TRM_INPUT_LAST TRM_INPUT_BLOCKS

/* So many bytes behind a record may be read, whatever is there: a kernel can look at 64 bytes at a time
 * without a copy. */
#define TRM_RECORD_PAD_BYTES 64u

typedef struct trm_record {
    const char *data; /* `len` bytes; not terminated */
    size_t len;
    uint64_t offset;  /* where it begins in the (uncompressed) file, in bytes */
    const char *path; /* the file, terminated; "" without input */
    uint64_t index;   /* number of the task, from 0 */
    uint64_t tasks;   /* how many tasks the phase has */
} trm_record;

/* ---- Folding: the fast way to reduce ------------------------------------
 *
 * An accumulator of fixed size a key, updated in place as pairs are emitted and
 * merged later in any order and grouping: `add` and `merge` must be associative
 * and commutative. The ready-made ones cost no call. */
typedef struct trm_fold {
    size_t state_bytes; /* 1 … TRM_FOLD_BYTES_MAX; the accumulator, 8-byte aligned */
    /* Makes an accumulator of the first value of a key. */
    void (*init)(void *state, const void *value, size_t value_len);
    /* Adds one more value. */
    void (*add)(void *state, const void *value, size_t value_len);
    /* Adds what another accumulator holds. */
    void (*merge)(void *state, const void *other);
} trm_fold;

/* Values are a native 8-byte number; the accumulator has the same type. */
extern TRM_API const trm_fold trm_fold_sum_u64, trm_fold_sum_i64, trm_fold_sum_f64;
extern TRM_API const trm_fold trm_fold_min_u64, trm_fold_max_u64;
extern TRM_API const trm_fold trm_fold_min_i64, trm_fold_max_i64;
extern TRM_API const trm_fold trm_fold_min_f64, trm_fold_max_f64;
/* How many values; any value will do. The accumulator is a uint64_t. */
extern TRM_API const trm_fold trm_fold_count;
#define TRM_FOLD_SUM_U64 (&trm_fold_sum_u64)
#define TRM_FOLD_SUM_I64 (&trm_fold_sum_i64)
#define TRM_FOLD_SUM_F64 (&trm_fold_sum_f64)
#define TRM_FOLD_MIN_U64 (&trm_fold_min_u64)
#define TRM_FOLD_MAX_U64 (&trm_fold_max_u64)
#define TRM_FOLD_MIN_I64 (&trm_fold_min_i64)
#define TRM_FOLD_MAX_I64 (&trm_fold_max_i64)
#define TRM_FOLD_MIN_F64 (&trm_fold_min_f64)
#define TRM_FOLD_MAX_F64 (&trm_fold_max_f64)
#define TRM_FOLD_COUNT (&trm_fold_count)
/* One of the 8-byte values (the smallest by unsigned bytes, so that
 * the result does not depend on the order). */
extern TRM_API const trm_fold trm_fold_first_8;
#define TRM_FOLD_FIRST (&trm_fold_first_8)

/* ---- Output ------------------------------------------------------------ */

typedef enum trm_output {
    TRM_OUTPUT_TEXT = 0,  /* key TAB value NEWLINE */
    TRM_OUTPUT_PAIRS = 1, /* binary: u32 key length, u32 value length (little-endian), key, value */
    TRM_OUTPUT_RAW = 2    /* the key's bytes, then the value's bytes, nothing else */
} trm_output;

/* How text output writes a key or value. */
typedef enum trm_type {
    TRM_BYTES = 0,
    TRM_U64 = 1, /* native 8-byte numbers, written in decimal */
    TRM_I64 = 2,
    TRM_F64 = 3
} trm_type;

/* ---- Parameters (-p name=value) ------------------------------------------ */

typedef enum trm_param_type {
    TRM_PARAM_STRING = 0,
    TRM_PARAM_INT = 1,  /* 64-bit signed */
    TRM_PARAM_SIZE = 2, /* unsigned, with K, M, G, T (powers of 1024) */
    TRM_PARAM_DOUBLE = 3,
    TRM_PARAM_BOOL = 4 /* true|false|yes|no|1|0; the name alone is true */
} trm_param_type;

typedef struct trm_param {
    const char *name; /* NULL ends the list */
    trm_param_type type;
    const char *value; /* when it is not given; NULL: it must be given */
    const char *help;
    double min, max; /* bounds of a number; both 0: none */
} trm_param;

/* ---- The job ------------------------------------------------------------- */

typedef enum trm_partitioner {
    TRM_PARTITION_HASH = 0,
    TRM_PARTITION_RANGE = 1 /* by sampled key ranges: the parts, in order, are sorted as a whole */
} trm_partitioner;

typedef struct trm_job {
    uint32_t magic, abi; /* TRM_JOB_HEADER */
    size_t struct_bytes;

    const char *name;
    const char *help;            /* a line for --help; may be NULL */
    const trm_param *params;     /* may be NULL */
    const char *const *counters; /* names, NULL-terminated; may be NULL */

    /* Input */
    trm_input input;
    size_t record_bytes; /* TRM_INPUT_FIXED */

    /* Once an attempt of a map task, before the first and after the last record; may emit. */
    int (*setup)(trm_task *task);
    int (*map)(trm_task *task, const trm_record *record);
    int (*cleanup)(trm_task *task);

    /* Reducing: `fold`, or `reduce` (with an optional `combine`, which sees some of a
     * key's values early and emits fewer with the same key), or neither: a map-only
     * job, whose emitted pairs are its output in the order of emission. */
    const trm_fold *fold;
    int (*combine)(trm_task *task, const void *key, size_t key_len, trm_values *values);
    int (*reduce)(trm_task *task, const void *key, size_t key_len, trm_values *values);

    /* Which of `partitions` a key goes to; NULL: `partitioner`. */
    uint32_t (*partition)(trm_task *task, const void *key, size_t key_len, uint32_t partitions);
    trm_partitioner partitioner;
    /* The order of keys, as memcmp; NULL: unsigned bytes, a prefix first. Keys that
     * compare equal are one key. Must be total, and the same in every process. */
    int (*compare)(const void *a, size_t a_len, const void *b, size_t b_len);

    /* Output. With `fold`, pairs are (key, accumulator) unless `finish` is given: it is
     * called once a key with the accumulator and emits what it wants. */
    int (*finish)(trm_task *task, const void *key, size_t key_len, const void *state);
    trm_output output;
    trm_type key_type, value_type;

    /* Room to grow without a new ABI; zero. */
    const void *reserved[8];
} trm_job;

#define TRM_JOB_HEADER .magic = TRM_JOB_MAGIC, .abi = TRM_ABI, .struct_bytes = sizeof(trm_job)
/* The symbol that `trireme run ./mine.so` looks for. */
#define TRM_JOB_SYMBOL "trm_exported_job"
#define TRM_EXPORT_JOB                                                                                       \
    extern TRM_API const trm_job trm_exported_job;                                                           \
    const trm_job trm_exported_job

/* ---- Inside a task --------------------------------------------------------
 * All of them: on the task's own thread, while the task runs. */

/* Emits a pair. Copies both. From map (and setup, cleanup of a map task) it goes to
 * the shuffle, or to the output of a map-only job; from combine to the shuffle; from
 * reduce and finish to the output. A key over TRM_KEY_BYTES_MAX, a value over
 * --record-max, or a full disk fails the attempt (this function then does not
 * return). With a fold, value_len is what the fold takes. */
TRM_API void trm_emit(trm_task *task, const void *key, size_t key_len, const void *value, size_t value_len);
TRM_API void trm_emit_u64(trm_task *task, const void *key, size_t key_len, uint64_t value);
/* Emits `n` pairs, as trm_emit_u64 would one after the other, at less cost for each. */
typedef struct trm_key {
    const void *data;
    size_t len;
} trm_key;
TRM_API void trm_emit_many_u64(trm_task *task, const trm_key *keys, size_t n, uint64_t value);

/* The next value of the key in reduce or combine, valid until the next call; false
 * when there is none. Values come in no particular order. */
TRM_API bool trm_values_next(trm_values *values, const void **value, size_t *value_len);

/* A ready-made reduce, for `.reduce`: emits every pair as it comes, so that the job sorts. The
 * framework knows it and makes no groups: it costs less than a reduce of one's own that does the same. */
TRM_API int trm_reduce_identity(trm_task *task, const void *key, size_t key_len, trm_values *values);

/* Adds to the counter with this number in the job's list. Exactly once: only the
 * counts of an attempt that is committed are added. */
TRM_API void trm_count(trm_task *task, unsigned counter, uint64_t n);

/* A parameter, checked and converted before the job began; asking for one that the
 * job does not declare, or with another type, fails the attempt. */
TRM_API const char *trm_param_string(trm_task *task, const char *name);
TRM_API int64_t trm_param_int(trm_task *task, const char *name);
TRM_API uint64_t trm_param_size(trm_task *task, const char *name);
TRM_API double trm_param_double(trm_task *task, const char *name);
TRM_API bool trm_param_bool(trm_task *task, const char *name);

/* A pointer of yours, NULL at the begin of each attempt of a map or reduce task. */
TRM_API void trm_task_set_state(trm_task *task, void *state);
TRM_API void *trm_task_state(trm_task *task);
TRM_API uint64_t trm_task_index(const trm_task *task); /* number in its phase, from 0 */
TRM_API uint32_t trm_task_partitions(const trm_task *task);

/* Says why this attempt fails and returns -1: `return trm_task_fail(task, "…", …);` */
TRM_API int trm_task_fail(trm_task *task, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    ;

/* ---- A program of your own ------------------------------------------------- */

/* Runs `job` with the options of `trireme run` (without the job's name). Call it first
 * thing in main, before any thread is made. Returns the exit status:
 * 0 done · 1 the job failed · 2 usage · 3 bad input, output or kernel ·
 * 4 interrupted (the same command goes on) · 5 mpirun, MPI or the machine. */
TRM_API int trm_main(int argc, char **argv, const trm_job *job);

TRM_API const char *trm_version(void);

#ifdef __cplusplus
}
#endif
#endif
