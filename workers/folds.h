/* The ready-made folds of trireme.h, recognised, so that the hot loops need no call. */
#ifndef TRM_WORKERS_FOLDS_H
#define TRM_WORKERS_FOLDS_H

#include "jobs/trireme.h"
#include "runtime/bytes.h"

typedef enum trm_fold_op {
    TRM_FOLD_OP_CALL = 0, /* the user's own: by its functions */
    TRM_FOLD_OP_SUM_U64,  /* and i64: the same bits */
    TRM_FOLD_OP_SUM_F64,
    TRM_FOLD_OP_MIN_U64,
    TRM_FOLD_OP_MAX_U64,
    TRM_FOLD_OP_MIN_I64,
    TRM_FOLD_OP_MAX_I64,
    TRM_FOLD_OP_MIN_F64,
    TRM_FOLD_OP_MAX_F64,
    TRM_FOLD_OP_FIRST_8,
    TRM_FOLD_OP_COUNT /* adding and merging differ: a value counts 1, an accumulator itself */
} trm_fold_op;

/* Which one it is; TRM_FOLD_OP_CALL for any other. */
trm_fold_op trm_fold_op_of(const trm_fold *fold);

static inline double trm_fold_f64(uint64_t bits)
{
    double v;
    memcpy(&v, &bits, 8);
    return v;
}
static inline uint64_t trm_fold_bits(double value)
{
    uint64_t v;
    memcpy(&v, &value, 8);
    return v;
}

/* Doubles in one total order, so that min and max do not depend on the order of merging:
 * by value, -0 before +0; not-a-number after everything (min) or before everything (max). */
static inline uint64_t trm_fold_min_f64_bits(uint64_t a, uint64_t b)
{
    double x = trm_fold_f64(a), y = trm_fold_f64(b);
    if (x != x)
        return y != y && b < a ? b : (y != y ? a : b);
    if (y != y)
        return a;
    return x < y ? a : y < x ? b : (a | b);
}
static inline uint64_t trm_fold_max_f64_bits(uint64_t a, uint64_t b)
{
    double x = trm_fold_f64(a), y = trm_fold_f64(b);
    if (x != x)
        return y != y && b < a ? b : (y != y ? a : b);
    if (y != y)
        return a;
    return x > y ? a : y > x ? b : (a & b);
}

/* What two accumulators of a ready-made fold make; `op` is not TRM_FOLD_OP_CALL. */
static inline uint64_t trm_fold_merge_u64(trm_fold_op op, uint64_t a, uint64_t b)
{
    switch (op) {
    case TRM_FOLD_OP_SUM_U64:
    case TRM_FOLD_OP_COUNT:
        return a + b;
    case TRM_FOLD_OP_SUM_F64:
        return trm_fold_bits(trm_fold_f64(a) + trm_fold_f64(b));
    case TRM_FOLD_OP_MIN_U64:
        return a < b ? a : b;
    case TRM_FOLD_OP_MAX_U64:
        return a > b ? a : b;
    case TRM_FOLD_OP_MIN_I64:
        return (int64_t)a < (int64_t)b ? a : b;
    case TRM_FOLD_OP_MAX_I64:
        return (int64_t)a > (int64_t)b ? a : b;
    case TRM_FOLD_OP_MIN_F64:
        return trm_fold_min_f64_bits(a, b);
    case TRM_FOLD_OP_MAX_F64:
        return trm_fold_max_f64_bits(a, b);
    case TRM_FOLD_OP_FIRST_8:
        return __builtin_bswap64(a) < __builtin_bswap64(b) ? a : b;
    case TRM_FOLD_OP_CALL:
        break;
    }
    return a;
}

#endif
