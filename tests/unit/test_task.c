/* Whole tasks against a plain reference: what maps emit, through runs, lists and reduces, is
 * what sorting all of it in memory gives, whatever the records, keys, sizes, partitions, memory
 * and ways to reduce; in this process and by a real crew.
 *
 * TRM_TEST_SEED=N (or the first argument) runs case N alone. */
#include "config.h"

#include "tests/support/draw.h"
#include "tests/support/whole_job.h"
#include "tests/unit/task_tree.h"
#include "workers/key.h"
#include "workers/collector.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef TRM_SANITIZED
#define CASES 25u
#else
#define CASES 60u
#endif
#define KEY_BYTES_DRAWN 600u
#define LINE_BYTES 17u /* of an input: a number of 16 digits */
#define MANY_MAX 90u
#define LARGE_VALUE_BYTES 300000u /* larger than a block */
#define CREW_CASE_EVERY 10u

static uint64_t first_case = 1, cases = CASES;

/* ---- A case ------------------------------------------------------------------------- */

typedef enum key_kind { KEYS_WORDS, KEYS_BINARY, KEYS_FEW, KEYS_LONG, KEYS_NUMBERS, KEY_KINDS } key_kind;

typedef enum reduction {
    LIST_ALL,   /* reduce emits every value */
    LIST_FIRST, /* reduce reads one value of a key, emits how many that were */
    COMBINED,   /* combine and reduce add up */
    FOLD_SUM,
    FOLD_COUNT,
    FOLD_OWN, /* 24 bytes, with a finish that emits two pairs */
    MAP_ONLY,
    REDUCTIONS
} reduction;

typedef enum partitioner { BY_HASH, BY_CALL, BY_RANGE, PARTITIONERS } partitioner;
typedef enum order_of_keys { BY_BYTES, REVERSED, BY_LENGTH, ORDERS } order_of_keys;

typedef struct pair {
    uint8_t *key, *value;
    size_t key_len, value_len;
    uint32_t task; /* of the map that emits it, or the part that it was found in */
    size_t number; /* in the order of emission, or in the part */
} pair;

typedef struct pairs {
    pair *at;
    size_t count, room;
} pairs;

static struct {
    uint64_t seed;
    key_kind keys;
    reduction reduction;
    partitioner partitioner;
    order_of_keys order;
    bool around; /* setup and cleanup emit */
    bool many;   /* the pairs of a record have one value, and are emitted with one call */
    unsigned pairs_a_record_max;
    size_t value_bytes_max;
    unsigned large_one_in; /* values that are large; 0: none */
    pairs emitted;         /* by the reference */
} now;

#define CHECK(holds)                                                                                         \
    do {                                                                                                     \
        if (!(holds))                                                                                        \
            fail_msg("case %llu: %s (TRM_TEST_SEED=%llu tests/unit/test_task)",                              \
                     (unsigned long long)now.seed, #holds, (unsigned long long)now.seed);                    \
    } while (0)

static size_t draw_key(trm_draw *r, uint8_t *key)
{
    size_t len = 0;
    switch (now.keys) {
    case KEYS_WORDS:
        len = 1 + trm_draw_below(r, 12);
        for (size_t i = 0; i < len; i++)
            key[i] = (uint8_t)('a' + trm_draw_below(r, 3));
        break;
    case KEYS_BINARY:
        len = trm_draw_below(r, 24);
        for (size_t i = 0; i < len; i++)
            key[i] = (uint8_t)(trm_draw_below(r, 3) == 0 ? 0 : trm_draw_next(r));
        break;
    case KEYS_FEW:
        len = (size_t)snprintf((char *)key, 32, "key%u", (unsigned)trm_draw_below(r, 3));
        break;
    case KEYS_LONG:
        len = trm_draw_below(r, KEY_BYTES_DRAWN);
        memset(key, 'l', len);
        if (len > 8)
            key[len - 3] = (uint8_t)trm_draw_next(r);
        break;
    case KEYS_NUMBERS:
        len = 8;
        trm_store_u64(key, trm_draw_below(r, 5000));
        break;
    case KEY_KINDS:
        break;
    }
    return len;
}

static size_t draw_value(trm_draw *r, uint8_t *value)
{
    size_t len = 8;
    bool numbers = now.reduction == COMBINED || now.reduction == FOLD_SUM;
    if (!numbers)
        len = now.large_one_in && (trm_draw_below(r, now.large_one_in) == 0)
                  ? LARGE_VALUE_BYTES + trm_draw_below(r, 1000)
                  : trm_draw_below(r, now.value_bytes_max + 1);
    uint64_t word = trm_draw_next(r);
    for (size_t i = 0; i < len; i += 8) {
        memcpy(value + i, &word, len - i < 8 ? len - i : 8);
        word += 0x9e3779b97f4a7c15ull;
    }
    return len;
}

typedef void (*emit_cb)(void *context, const void *key, size_t key_len, const void *value, size_t value_len);

/* What the record with this seed makes: the map's work, and the reference's. */
static void make_pairs(uint64_t seed, emit_cb emit, void *context)
{
    static uint8_t key[KEY_BYTES_DRAWN + 8], value[LARGE_VALUE_BYTES + 1024];
    trm_draw random = trm_draw_from(seed ^ now.seed << 40);
    size_t value_len = draw_value(&random, value);
    for (uint64_t i = trm_draw_below(&random, now.pairs_a_record_max + 1); i > 0; i--) {
        size_t key_len = draw_key(&random, key);
        value_len = now.many ? value_len : draw_value(&random, value);
        emit(context, key, key_len, value, value_len);
    }
}

/* ---- The kernel --------------------------------------------------------------------- */

/* Keys that are to be emitted with one call. */
static struct {
    trm_key keys[MANY_MAX];
    uint8_t bytes[MANY_MAX][KEY_BYTES_DRAWN + 8];
    size_t count;
    uint64_t value;
} many;

static void emit_later(const void *key, size_t key_len, uint64_t value)
{
    assert_true(many.count < MANY_MAX && (many.count == 0 || many.value == value));
    memcpy(many.bytes[many.count], key, key_len);
    many.keys[many.count] = (trm_key){many.bytes[many.count], key_len};
    many.value = value;
    many.count++;
}

static void emit_to_task(void *context, const void *key, size_t key_len, const void *value, size_t value_len)
{
    trm_task *task = context;
    trm_count(task, 1, 1);
    if (now.many)
        emit_later(key, key_len, trm_load_u64(value));
    else if (value_len == 8)
        trm_emit_u64(task, key, key_len, trm_load_u64(value));
    else
        trm_emit(task, key, key_len, value, value_len);
}

static void emit_pairs(trm_task *task, uint64_t seed)
{
    many.count = 0;
    make_pairs(seed, emit_to_task, task);
    trm_emit_many_u64(task, many.keys, many.count, many.value);
}

static uint64_t around_seed(uint64_t task, bool after)
{
    return (1ull << 62) + task * 2 + after;
}

static int kernel_setup(trm_task *task)
{
    static int state;
    if (trm_task_state(task))
        return trm_task_fail(task, "a state was left over");
    trm_task_set_state(task, &state);
    if (now.around)
        emit_pairs(task, around_seed(trm_task_index(task), false));
    return 0;
}

static int kernel_map(trm_task *task, const trm_record *record)
{
    if (record->len == 0)
        emit_pairs(task, record->index);
    for (size_t at = 0; at < record->len; at += LINE_BYTES) /* of a block; else the only one */
        emit_pairs(task, strtoull(record->data + at, NULL, 16));
    trm_count(task, 0, 1);
    return 0;
}

static int kernel_cleanup(trm_task *task)
{
    if (!trm_task_state(task))
        return trm_task_fail(task, "the state was lost");
    if (now.around)
        emit_pairs(task, around_seed(trm_task_index(task), true));
    return 0;
}

static int reduce_all(trm_task *task, const void *key, size_t key_len, trm_values *values)
{
    const void *value;
    size_t value_len;
    while (trm_values_next(values, &value, &value_len))
        trm_emit(task, key, key_len, value, value_len);
    return trm_values_next(values, &value, &value_len); /* the end stays the end */
}

static int reduce_first(trm_task *task, const void *key, size_t key_len, trm_values *values)
{
    const void *value;
    size_t value_len;
    trm_emit_u64(task, key, key_len, trm_values_next(values, &value, &value_len));
    return 0;
}

static int add_up(trm_task *task, const void *key, size_t key_len, trm_values *values)
{
    const void *value;
    size_t value_len;
    uint64_t sum = 0;
    while (trm_values_next(values, &value, &value_len))
        sum += trm_load_u64(value);
    trm_emit_u64(task, key, key_len, sum);
    return 0;
}

typedef struct own_state {
    uint64_t count, bytes, mix;
} own_state;

static void own_add(void *state, const void *value, size_t value_len)
{
    own_state *self = state;
    self->count++;
    self->bytes += value_len;
    self->mix += trm_key_hash_seeded(value, value_len, 1);
}

static void own_init(void *state, const void *value, size_t value_len)
{
    memset(state, 0, sizeof(own_state));
    own_add(state, value, value_len);
}

static void own_merge(void *state, const void *other)
{
    own_state *self = state;
    const own_state *more = other;
    self->count += more->count;
    self->bytes += more->bytes;
    self->mix += more->mix;
}

static int own_finish(trm_task *task, const void *key, size_t key_len, const void *state)
{
    const own_state *self = state;
    trm_emit_u64(task, key, key_len, self->count);
    trm_emit(task, key, key_len, self, sizeof *self);
    return 0;
}

static const trm_fold own_fold = {sizeof(own_state), own_init, own_add, own_merge};

static uint32_t partition_by_length(trm_task *task, const void *key, size_t key_len, uint32_t partitions)
{
    return (uint32_t)(key_len % partitions);
}

static int compare_reversed(const void *a, size_t a_len, const void *b, size_t b_len)
{
    return trm_key_compare(b, b_len, a, a_len);
}

/* Keys of one length are one key. */
static int compare_lengths(const void *a, size_t a_len, const void *b, size_t b_len)
{
    return (a_len > b_len) - (a_len < b_len);
}

static const char *const counter_names[] = {"records", "pairs", NULL};

static trm_job make_job(trm_input input)
{
    trm_job job = {TRM_JOB_HEADER,
                   .name = "random",
                   .counters = counter_names,
                   .input = input,
                   .record_bytes = input == TRM_INPUT_FIXED ? 17 : 0,
                   .setup = kernel_setup,
                   .map = kernel_map,
                   .cleanup = kernel_cleanup,
                   .output = TRM_OUTPUT_PAIRS};
    switch (now.reduction) {
    case LIST_ALL:
        job.reduce = reduce_all;
        break;
    case LIST_FIRST:
        job.reduce = reduce_first;
        break;
    case COMBINED:
        job.reduce = job.combine = add_up;
        break;
    case FOLD_SUM:
        job.fold = TRM_FOLD_SUM_U64;
        break;
    case FOLD_COUNT:
        job.fold = TRM_FOLD_COUNT;
        break;
    case FOLD_OWN:
        job.fold = &own_fold;
        job.finish = own_finish;
        break;
    case MAP_ONLY:
    case REDUCTIONS:
        break;
    }
    if (now.partitioner == BY_RANGE)
        job.partitioner = TRM_PARTITION_RANGE;
    if (now.partitioner == BY_CALL)
        job.partition = partition_by_length;
    if (now.order != BY_BYTES)
        job.compare = now.order == REVERSED ? compare_reversed : compare_lengths;
    return job;
}

/* ---- The reference ------------------------------------------------------------------ */

static void add_pair(pairs *self, uint32_t task, const void *key, size_t key_len, const void *value,
                     size_t value_len)
{
    if (self->count == self->room) {
        self->room = self->room ? self->room * 2 : 1024;
        self->at = realloc(self->at, self->room * sizeof *self->at);
        assert_non_null(self->at);
    }
    pair *it = &self->at[self->count];
    *it = (pair){.key = malloc(key_len + value_len + 1),
                 .key_len = key_len,
                 .value_len = value_len,
                 .task = task,
                 .number = self->count++};
    it->value = it->key + key_len;
    memcpy(it->key, key, key_len);
    memcpy(it->value, value, value_len);
}

static void drop_pairs(pairs *self)
{
    for (size_t i = 0; i < self->count; i++)
        free(self->at[i].key);
    free(self->at);
    *self = (pairs){0};
}

static uint32_t reference_task;

static void emit_to_reference(void *context, const void *key, size_t key_len, const void *value,
                              size_t value_len)
{
    add_pair(context, reference_task, key, key_len, value, value_len);
}

static int compare_keys(const pair *a, const pair *b)
{
    if (now.order == BY_LENGTH)
        return compare_lengths(a->key, a->key_len, b->key, b->key_len);
    int order = trm_key_compare(a->key, a->key_len, b->key, b->key_len);
    return now.order == REVERSED ? -order : order;
}

/* In key order; those of one key by value, so that two orders of them are told equal. */
static int in_order(const void *a, const void *b)
{
    int order = compare_keys(a, b);
    const pair *x = a, *y = b;
    return order ? order : trm_key_compare(x->value, x->value_len, y->value, y->value_len);
}

/* The accumulators of the sorted pairs [from, to), one key. */
static void reduce_reference(pairs *out, const pair *from, const pair *to)
{
    own_state own = {0};
    uint64_t sum = 0, one = 1;
    for (const pair *it = from; it < to; it++) {
        own_add(&own, it->value, it->value_len);
        if (now.reduction == COMBINED || now.reduction == FOLD_SUM)
            sum += trm_load_u64(it->value);
        if (now.reduction == LIST_ALL)
            add_pair(out, 0, from->key, from->key_len, it->value, it->value_len);
    }
    if (now.reduction == LIST_FIRST)
        add_pair(out, 0, from->key, from->key_len, &one, 8);
    if (now.reduction == COMBINED || now.reduction == FOLD_SUM)
        add_pair(out, 0, from->key, from->key_len, &sum, 8);
    if (now.reduction == FOLD_COUNT || now.reduction == FOLD_OWN)
        add_pair(out, 0, from->key, from->key_len, &own.count, 8);
    if (now.reduction == FOLD_OWN)
        add_pair(out, 0, from->key, from->key_len, &own, sizeof own);
}

static uint64_t reference_keys;

static pairs reference_output(void)
{
    pairs out = {0};
    pair *at = now.emitted.at;
    reference_keys = 0;
    qsort(at, now.emitted.count, sizeof *at, in_order);
    for (size_t from = 0, to; from < now.emitted.count; from = to) {
        for (to = from + 1; to < now.emitted.count && compare_keys(&at[from], &at[to]) == 0;)
            to++;
        reduce_reference(&out, &at[from], &at[to]);
        reference_keys++;
    }
    if (out.count)
        qsort(out.at, out.count, sizeof *out.at, in_order);
    return out;
}

/* ---- The output --------------------------------------------------------------------- */

static void parse_part(pairs *out, const whole_job *job, uint32_t task)
{
    size_t len, at = 0;
    uint8_t *bytes = whole_job_part(job, task, &len);
    while (at < len) {
        CHECK(len - at >= 8);
        size_t key_len = trm_load_u32(bytes + at), value_len = trm_load_u32(bytes + at + 4);
        CHECK(len - at - 8 >= key_len + value_len);
        add_pair(out, task, bytes + at + 8, key_len, bytes + at + 8 + key_len, value_len);
        at += 8 + key_len + value_len;
    }
    free(bytes);
}

static void check_partition(const whole_job *job, const pair *it)
{
    uint32_t partitions = job->plan.partitions;
    if (now.partitioner == BY_CALL)
        CHECK(it->task == it->key_len % partitions);
    else if (now.partitioner == BY_HASH)
        CHECK(it->task == trm_key_partition(it->key, it->key_len, partitions));
    else if (partitions > 1)
        CHECK(it->task == trm_cuts_find(&job->cuts, it->key, it->key_len));
}

/* Whether the pairs may follow each other, whatever those of one key look like. */
static void check_order(const pair *before, const pair *it)
{
    if (before->task != it->task && now.partitioner != BY_RANGE)
        return;
    int order = compare_keys(before, it);
    CHECK(order <= 0);
    CHECK(order < 0 || now.reduction == LIST_ALL || now.reduction == FOLD_OWN);
}

static bool same_pair(const pair *a, const pair *b)
{
    bool keys = now.order == BY_LENGTH && now.reduction != MAP_ONLY
                    ? a->key_len == b->key_len
                    : a->key_len == b->key_len && memcmp(a->key, b->key, a->key_len) == 0;
    return keys && a->value_len == b->value_len && memcmp(a->value, b->value, a->value_len) == 0;
}

static void check_pairs(const pairs *found, const pairs *expected)
{
    CHECK(found->count == expected->count);
    for (size_t i = 0; i < found->count; i++)
        CHECK(same_pair(&found->at[i], &expected->at[i]));
}

static void check_counters(const whole_job *job, const pairs *found)
{
    const uint64_t *value = job->counters.value;
    CHECK(value[TRM_COUNTER_OUTPUT_RECORDS] == found->count);
    CHECK(value[TRM_COUNTER_MAP_RECORDS_OUT] == now.emitted.count);
    CHECK(value[TRM_COUNTER_USER + 1] == now.emitted.count);
    CHECK(value[TRM_COUNTER_USER] == value[TRM_COUNTER_MAP_RECORDS_IN]);
    if (now.reduction == MAP_ONLY)
        return;
    CHECK(value[TRM_COUNTER_REDUCE_KEYS_IN] == reference_keys);
    CHECK(value[TRM_COUNTER_REDUCE_RECORDS_IN] == value[TRM_COUNTER_COMBINE_RECORDS_OUT]);
    CHECK(value[TRM_COUNTER_SHUFFLE_RAW_BYTES] == value[TRM_COUNTER_RUN_BYTES_RAW]);
    CHECK(value[TRM_COUNTER_SHUFFLE_REMOTE_BYTES] == 0);
}

static void check_output(const whole_job *job)
{
    pairs found = {0}, expected = {0};
    uint32_t parts = now.reduction == MAP_ONLY ? job->plan.tasks : job->plan.partitions;
    for (uint32_t i = 0; i < parts; i++)
        parse_part(&found, job, i);
    if (now.reduction == MAP_ONLY) {
        check_pairs(&found, &now.emitted);
    } else {
        for (size_t i = 0; i < found.count; i++) {
            check_partition(job, &found.at[i]);
            if (i)
                check_order(&found.at[i - 1], &found.at[i]);
        }
        if (found.count)
            qsort(found.at, found.count, sizeof *found.at, in_order);
        expected = reference_output();
        check_pairs(&found, &expected);
    }
    check_counters(job, &found);
    drop_pairs(&found);
    drop_pairs(&expected);
}

/* ---- Inputs ------------------------------------------------------------------------- */

/* Records are seeds in hexadecimal, 16 digits; the newline makes them fixed records of 17. */
static void write_inputs(trm_input input, unsigned files, unsigned records, trm_draw *random)
{
    static char text[17u * 65536u + 1];
    for (unsigned file = 0; file < files; file++) {
        size_t len = 0;
        unsigned count = input == TRM_INPUT_FILES ? 1 : records / files;
        for (unsigned i = 0; i < count; i++)
            len += (size_t)sprintf(text + len, "%016llx\n", (unsigned long long)trm_draw_next(random) >> 8);
        char name[32];
        snprintf(name, sizeof name, "input/%u", file);
        temp_tree_file(&tree, name, text, len);
    }
}

/* What the maps of the plan will emit, task after task, as the plan says which record is whose. */
static void run_reference(const trm_plan *plan)
{
    for (uint32_t task = 0; task < plan->tasks; task++) {
        reference_task = task;
        if (now.around)
            make_pairs(around_seed(task, false), emit_to_reference, &now.emitted);
        if (plan->input == TRM_INPUT_NONE)
            make_pairs(task, emit_to_reference, &now.emitted);
        trm_piece pieces[64];
        unsigned count = plan->input == TRM_INPUT_NONE ? 0 : trm_plan_pieces(plan, task, 0, pieces, 64);
        assert_true(count < 64);
        for (unsigned i = 0; i < count; i++) {
            uint8_t *bytes;
            size_t len;
            trm_err err;
            assert_int_equal(
                trm_fs_read_whole(trm_fs_posix(), pieces[i].file->path, 1 << 30, &bytes, &len, &err), 0);
            for (uint64_t at = (pieces[i].offset + 16) / 17 * 17; at < pieces[i].offset + pieces[i].bytes;
                 at += 17)
                make_pairs(strtoull((char *)bytes + at, NULL, 16), emit_to_reference, &now.emitted);
            free(bytes);
        }
        if (now.around)
            make_pairs(around_seed(task, true), emit_to_reference, &now.emitted);
    }
}

/* ---- Random cases --------------------------------------------------------------------- */

static void draw_case(trm_draw *r)
{
    now.keys = (key_kind)trm_draw_below(r, KEY_KINDS);
    now.reduction = (reduction)trm_draw_below(r, REDUCTIONS);
    now.partitioner = (partitioner)trm_draw_below(r, PARTITIONERS);
    now.order = (order_of_keys)trm_draw_below(r, ORDERS);
    if (now.partitioner == BY_RANGE)
        now.order = BY_BYTES;
    if (now.order == BY_LENGTH)
        now.partitioner = BY_CALL;
    now.around = trm_draw_below(r, 3) == 0;
    bool numbers = now.reduction == COMBINED || now.reduction == FOLD_SUM;
    now.many = numbers && trm_draw_below(r, 2) == 0;
    now.pairs_a_record_max = 1 + (unsigned)trm_draw_below(r, now.many ? MANY_MAX : 60);
    now.value_bytes_max = trm_draw_below(r, 80);
    now.large_one_in = trm_draw_below(r, 4) == 0 ? 2000 : 0;
}

static void run_case(uint64_t seed)
{
    trm_draw random = trm_draw_from(seed);
    memset(&now, 0, sizeof now);
    now.seed = seed;
    draw_case(&random);
    trm_input input = (trm_input)trm_draw_below(&random, TRM_INPUT_LAST + 1);
    temp_tree_init(&tree);
    temp_tree_dir(&tree, "input");
    write_inputs(input, 1 + (unsigned)trm_draw_below(&random, 6),
                 1 + (unsigned)trm_draw_below(&random, now.many ? 1000 : 3000), &random);

    whole_job job;
    whole_job_init(&job, tree.path);
    trm_job kernel = make_job(input);
    char *inputs[] = {temp_tree_name(&tree, "input")};
    job.spec.own_job = &kernel;
    if (input != TRM_INPUT_NONE) {
        job.spec.inputs = inputs;
        job.spec.inputs_count = 1;
    }
    uint64_t tasks = 1 + trm_draw_below(&random, 20);
    job.spec.tasks = input == TRM_INPUT_NONE ? tasks : 0;
    job.spec.partitions = 1 + (uint32_t)trm_draw_below(&random, trm_draw_below(&random, 3) == 0 ? 40 : 5);
    job.spec.split_bytes = 1000 + trm_draw_below(&random, 20000);
    job.spec.compress = (trm_compress_mode)trm_draw_below(&random, 3);
    job.memory_bytes = (4 + trm_draw_below(&random, 12)) << 20;
    job.attempt = (uint32_t)trm_draw_below(&random, 4);
    job.through_crew = seed % CREW_CASE_EVERY == 0;
    job.spec.executors = 2;
    job.spec.memory_bytes = CREW_MEMORY_BYTES;
    trm_status status = whole_job_run(&job);
    if (status != TRM_OK)
        fail_msg("case %llu: %s: %s (TRM_TEST_SEED=%llu tests/unit/test_task)", (unsigned long long)seed,
                 trm_status_name(status), job.err.text, (unsigned long long)seed);
    run_reference(&job.plan);
    check_output(&job);
    CHECK(whole_job_attempts(&job) == 0);
    whole_job_close(&job);
    drop_pairs(&now.emitted);
    temp_tree_close(&tree);
}

static void random_jobs_are_right(void **state)
{
    for (uint64_t i = 0; i < cases; i++)
        run_case(first_case + i);
}

int main(int argc, char **argv)
{
    const char *seed = argc > 1 ? argv[1] : getenv("TRM_TEST_SEED");
    if (seed) {
        first_case = strtoull(seed, NULL, 0);
        cases = 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_jobs_are_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
