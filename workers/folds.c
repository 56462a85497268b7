#include "workers/folds.h"

/* Each of them also as functions, for whoever calls a fold without knowing it. */
static void init_u64(void *state, const void *value, size_t value_len)
{
    memcpy(state, value, 8);
}

#define READY_MADE(name, OP)                                                                                 \
    static void merge_##name(void *state, const void *other)                                                 \
    {                                                                                                        \
        trm_store_u64(state, trm_fold_merge_u64(OP, trm_load_u64(state), trm_load_u64(other)));              \
    }                                                                                                        \
    static void add_##name(void *state, const void *value, size_t value_len)                                 \
    {                                                                                                        \
        merge_##name(state, value);                                                                          \
    }                                                                                                        \
    const trm_fold trm_fold_##name = {8, init_u64, add_##name, merge_##name}

READY_MADE(sum_u64, TRM_FOLD_OP_SUM_U64);
READY_MADE(sum_i64, TRM_FOLD_OP_SUM_U64);
READY_MADE(sum_f64, TRM_FOLD_OP_SUM_F64);
READY_MADE(min_u64, TRM_FOLD_OP_MIN_U64);
READY_MADE(max_u64, TRM_FOLD_OP_MAX_U64);
READY_MADE(min_i64, TRM_FOLD_OP_MIN_I64);
READY_MADE(max_i64, TRM_FOLD_OP_MAX_I64);
READY_MADE(min_f64, TRM_FOLD_OP_MIN_F64);
READY_MADE(max_f64, TRM_FOLD_OP_MAX_F64);
READY_MADE(first_8, TRM_FOLD_OP_FIRST_8);

static void init_count(void *state, const void *value, size_t value_len)
{
    trm_store_u64(state, 1);
}
static void add_count(void *state, const void *value, size_t value_len)
{
    trm_store_u64(state, trm_load_u64(state) + 1);
}
static void merge_count(void *state, const void *other)
{
    trm_store_u64(state, trm_load_u64(state) + trm_load_u64(other));
}
const trm_fold trm_fold_count = {8, init_count, add_count, merge_count};

trm_fold_op trm_fold_op_of(const trm_fold *fold)
{
    static const struct {
        const trm_fold *fold;
        trm_fold_op op;
    } known[] = {
        {&trm_fold_sum_u64, TRM_FOLD_OP_SUM_U64}, {&trm_fold_sum_i64, TRM_FOLD_OP_SUM_U64},
        {&trm_fold_sum_f64, TRM_FOLD_OP_SUM_F64}, {&trm_fold_min_u64, TRM_FOLD_OP_MIN_U64},
        {&trm_fold_max_u64, TRM_FOLD_OP_MAX_U64}, {&trm_fold_min_i64, TRM_FOLD_OP_MIN_I64},
        {&trm_fold_max_i64, TRM_FOLD_OP_MAX_I64}, {&trm_fold_min_f64, TRM_FOLD_OP_MIN_F64},
        {&trm_fold_max_f64, TRM_FOLD_OP_MAX_F64}, {&trm_fold_first_8, TRM_FOLD_OP_FIRST_8},
        {&trm_fold_count, TRM_FOLD_OP_COUNT},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i].fold == fold)
            return known[i].op;
    return TRM_FOLD_OP_CALL;
}
