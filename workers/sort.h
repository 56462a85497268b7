/* Sorts the collector's index: 16 bytes a pair, by (partition, key).
 *
 * Bytes order: a radix sort from the most significant digit down, first by partition, then
 * by the key's first 8 bytes, whose common bits are skipped; digits are as wide as the
 * number of entries makes worthwhile, small buckets are sorted by insertion. Entries whose
 * 8 bytes are equal are told apart by the next 8, loaded from the keys, and so on: the time
 * is bounded by the bytes of the keys, whatever they are. Not stable.
 *
 * A job's own comparison: a merge sort, at most n log n calls.
 */
#ifndef TRM_WORKERS_SORT_H
#define TRM_WORKERS_SORT_H

#include <stddef.h>
#include <stdint.h>

typedef struct trm_sort_entry {
    uint64_t prefix; /* trm_key_prefix; undefined after sorting */
    uint64_t where;  /* partition << 48 | place, in the collector's own terms */
} trm_sort_entry;
#define TRM_SORT_PLACE_BITS 48
#define TRM_SORT_PLACE_MASK ((1ull << TRM_SORT_PLACE_BITS) - 1)

typedef struct trm_sort_key {
    const uint8_t *bytes;
    size_t len;
} trm_sort_key;

typedef struct trm_sort_keys trm_sort_keys;
struct trm_sort_keys {
    /* The key of an entry, by its `where`. */
    trm_sort_key (*locate)(const trm_sort_keys *self, uint64_t where);
    const void *base;
    /* NULL: bytes. Need not be consistent for the sort to end and to stay within bounds. */
    int (*compare)(const void *a, size_t a_len, const void *b, size_t b_len);
};

/* Sorts `count` (at most UINT32_MAX) entries with partitions below `partitions`. `scratch`
 * has room for as many. Returns where the result is: `entries` or `scratch`; the other is
 * garbage. */
trm_sort_entry *trm_sort(trm_sort_entry *entries, trm_sort_entry *scratch, size_t count, uint32_t partitions,
                         const trm_sort_keys *keys);

#endif
