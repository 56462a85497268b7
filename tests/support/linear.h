/* Whether a history of reads and writes of registers is linearizable: whether every
 * operation can be given one moment between its call and its answer so that, in the order
 * of these moments, every read returns what was written last (Herlihy and Wing,
 * "Linearizability", 1990). The search is Wing and Gong's ("Testing and verifying
 * concurrent objects", 1993, section 4) with Lowe's memory of configurations ("Testing for
 * linearizability", 2017, section 3): a set of operations and a register's value that were
 * reached before are not searched again. Registers are independent of each other, so each
 * is searched alone (Herlihy and Wing, theorem 1).
 *
 * A write that nobody answered may have happened at any time after its call, or never; a
 * read that nobody answered says nothing. The search is exact. It is bounded: a history
 * that would take more is TRM_LINEAR_TOO_LARGE, which is no verdict.
 */
#ifndef TRM_TESTS_LINEAR_H
#define TRM_TESTS_LINEAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Operations on one register that count (answered ones, and unanswered writes that
 * somebody has read). */
#define TRM_LINEAR_OPS_MAX 512u
/* Configurations remembered for one register. */
#define TRM_LINEAR_CONFIGURATIONS_MAX (1u << 18)
/* The end of an operation that was not answered. */
#define TRM_LINEAR_OPEN UINT64_MAX

typedef struct trm_linear_op {
    uint64_t key;
    uint64_t value; /* written, or read */
    uint64_t begin; /* its call: numbers of events, all different, growing with time */
    uint64_t end;   /* its answer, above begin; TRM_LINEAR_OPEN: none */
    bool write;
} trm_linear_op;

typedef enum trm_linear_verdict {
    TRM_LINEAR_OK = 0,
    TRM_LINEAR_VIOLATION = 1,
    TRM_LINEAR_TOO_LARGE = 2
} trm_linear_verdict;

/* Judges `ops`, in any order. Every register holds `initial` at the begin. On a violation
 * *culprit (unless NULL) is an operation that no order could take: the one whose answer
 * the longest attempt could not get past. Aborts when there is no memory. */
trm_linear_verdict trm_linear_check(const trm_linear_op *ops, size_t ops_len, uint64_t initial,
                                    size_t *culprit);

#endif
