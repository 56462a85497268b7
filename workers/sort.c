#include "workers/sort.h"
#include "workers/key.h"

#include <assert.h>
#include <string.h>

#define INSERTION_MAX 20u /* entries that are sorted by insertion */
#define DIGIT_BITS_MAX 11u
#define DIGITS_MAX (1u << DIGIT_BITS_MAX)
#define KEY_STEP 8u /* bytes of the key in a prefix */

typedef trm_sort_entry entry;

/* ---- Bytes ------------------------------------------------------------------- */

/* The order of two entries that agree in the first `depth` bytes of their keys, whose next 8
 * are in their prefixes. */
static bool bytes_less(const entry *a, const entry *b, const trm_sort_keys *keys, size_t depth)
{
    if (a->prefix != b->prefix)
        return a->prefix < b->prefix;
    trm_sort_key x = keys->locate(keys, a->where), y = keys->locate(keys, b->where);
    size_t from = depth + KEY_STEP;
    if (x.len <= from || y.len <= from)
        return x.len < y.len;
    return trm_key_compare(x.bytes + from, x.len - from, y.bytes + from, y.len - from) < 0;
}

static void insertion_sort(entry *e, size_t n, const trm_sort_keys *keys, size_t depth)
{
    for (size_t i = 1; i < n; i++) {
        entry moving = e[i];
        size_t j = i;
        for (; j > 0 && bytes_less(&moving, &e[j - 1], keys, depth); j--)
            e[j] = e[j - 1];
        e[j] = moving;
    }
}

/* All prefixes are equal. Puts the keys that end within them in front, by length (keys of
 * the same length are the same), and loads the next 8 bytes of the others. Returns how many
 * are in front. */
static size_t descend(entry *e, entry *scratch, size_t n, const trm_sort_keys *keys, size_t depth)
{
    size_t counts[KEY_STEP + 2] = {0};
    size_t from = depth + KEY_STEP, at = 0;
    for (size_t i = 0; i < n; i++) {
        trm_sort_key key = keys->locate(keys, e[i].where);
        size_t rank = key.len > from ? KEY_STEP + 1 : key.len > depth ? key.len - depth : 0;
        counts[rank]++;
        scratch[i].where = rank;
        if (key.len > from)
            e[i].prefix = trm_key_prefix(key.bytes + from, key.len - from);
    }
    if (counts[KEY_STEP + 1] == n)
        return 0;
    size_t longer = counts[KEY_STEP + 1];
    for (size_t rank = 0; rank < KEY_STEP + 2; rank++) {
        size_t count = counts[rank];
        counts[rank] = at;
        at += count;
    }
    /* Permuted in place, by cycles, the ranks along with the entries. */
    size_t ends[KEY_STEP + 2], next[KEY_STEP + 2];
    for (size_t rank = 0; rank < KEY_STEP + 2; rank++) {
        next[rank] = counts[rank];
        ends[rank] = rank < KEY_STEP + 1 ? counts[rank + 1] : n;
    }
    for (size_t rank = 0; rank < KEY_STEP + 2; rank++)
        while (next[rank] < ends[rank]) {
            size_t i = next[rank], of = scratch[i].where;
            if (of == rank) {
                next[rank]++;
                continue;
            }
            size_t to = next[of]++;
            entry swapped = e[to];
            uint64_t swapped_rank = scratch[to].where;
            e[to] = e[i];
            scratch[to].where = of;
            e[i] = swapped;
            scratch[i].where = swapped_rank;
        }
    return n - longer;
}

static unsigned digit_bits(size_t n)
{
    unsigned bits = 63 - (unsigned)__builtin_clzll(n);
    return bits < DIGIT_BITS_MAX ? bits : DIGIT_BITS_MAX;
}

/* Distributes by `bits` bits from `shift` on; the entries agree in those above. Leaves the
 * end of bucket d in ends[d] and returns the size of the largest. */
static size_t distribute(entry *e, entry *scratch, size_t n, unsigned shift, unsigned bits, uint32_t *ends)
{
    size_t buckets = (size_t)1 << bits, largest = 0;
    uint64_t mask = buckets - 1;
    memset(ends, 0, buckets * sizeof ends[0]);
    for (size_t i = 0; i < n; i++)
        ends[e[i].prefix >> shift & mask]++;
    uint32_t at = 0;
    for (size_t d = 0; d < buckets; d++) {
        uint32_t count = ends[d];
        largest = count > largest ? count : largest;
        ends[d] = at;
        at += count;
    }
    for (size_t i = 0; i < n; i++)
        scratch[ends[e[i].prefix >> shift & mask]++] = e[i];
    memcpy(e, scratch, n * sizeof e[0]);
    return largest;
}

/* Sorts entries whose keys agree in their first `depth` bytes. Calls itself for all buckets
 * but the largest, so it is never deeper than log2(n). */
static void sort_bytes(entry *e, entry *scratch, size_t n, const trm_sort_keys *keys, size_t depth)
{
    uint32_t ends[DIGITS_MAX];
    while (n > INSERTION_MAX) {
        uint64_t differ = 0;
        for (size_t i = 1; i < n; i++)
            differ |= e[i].prefix ^ e[0].prefix;
        if (differ == 0) {
            size_t done = descend(e, scratch, n, keys, depth);
            e += done;
            n -= done;
            depth += KEY_STEP;
            continue;
        }
        unsigned bits = digit_bits(n), top = 64 - (unsigned)__builtin_clzll(differ);
        unsigned shift = top > bits ? top - bits : 0;
        size_t largest = distribute(e, scratch, n, shift, bits, ends);
        if (largest <= INSERTION_MAX / 2)
            break; /* nothing has far to go */
        size_t from = 0, keep = 0, keep_n = 0;
        for (size_t d = 0; d < (size_t)1 << bits; d++) {
            size_t count = ends[d] - from;
            if (count == largest && keep_n == 0) {
                keep = from;
                keep_n = count;
            } else if (count > 1) {
                sort_bytes(e + from, scratch, count, keys, depth);
            }
            from = ends[d];
        }
        e += keep;
        n = keep_n;
    }
    insertion_sort(e, n, keys, depth);
}

/* ---- A job's own order ----------------------------------------------------------- */

static int compare_entries(const entry *a, const entry *b, const trm_sort_keys *keys)
{
    trm_sort_key x = keys->locate(keys, a->where), y = keys->locate(keys, b->where);
    return keys->compare(x.bytes, x.len, y.bytes, y.len);
}

static void merge_halves(const entry *e, entry *out, size_t middle, size_t n, const trm_sort_keys *keys)
{
    size_t a = 0, b = middle, at = 0;
    while (a < middle && b < n)
        out[at++] = compare_entries(&e[b], &e[a], keys) < 0 ? e[b++] : e[a++];
    memcpy(out + at, e + a, (middle - a) * sizeof *e);
    at += middle - a;
    memcpy(out + at, e + b, (n - b) * sizeof *e);
}

/* Sorts e into e. */
static void sort_compared(entry *e, entry *scratch, size_t n, const trm_sort_keys *keys)
{
    if (n <= 8) {
        for (size_t i = 1; i < n; i++) {
            entry moving = e[i];
            size_t j = i;
            for (; j > 0 && compare_entries(&moving, &e[j - 1], keys) < 0; j--)
                e[j] = e[j - 1];
            e[j] = moving;
        }
        return;
    }
    size_t middle = n / 2;
    sort_compared(e, scratch, middle, keys);
    sort_compared(e + middle, scratch, n - middle, keys);
    if (compare_entries(&e[middle], &e[middle - 1], keys) >= 0)
        return;
    merge_halves(e, scratch, middle, n, keys);
    memcpy(e, scratch, n * sizeof *e);
}

/* ---- Partitions ---------------------------------------------------------------- */

/* One stable pass by `bits` bits of the partition. */
static void partition_pass(const entry *e, entry *out, size_t n, unsigned shift, unsigned bits)
{
    uint32_t ends[DIGITS_MAX] = {0};
    uint64_t mask = ((uint64_t)1 << bits) - 1;
    for (size_t i = 0; i < n; i++)
        ends[e[i].where >> shift & mask]++;
    uint32_t at = 0;
    for (size_t d = 0; d <= mask; d++) {
        uint32_t count = ends[d];
        ends[d] = at;
        at += count;
    }
    for (size_t i = 0; i < n; i++)
        out[ends[e[i].where >> shift & mask]++] = e[i];
}

trm_sort_entry *trm_sort(trm_sort_entry *entries, trm_sort_entry *scratch, size_t count, uint32_t partitions,
                         const trm_sort_keys *keys)
{
    assert(count <= UINT32_MAX && partitions > 0 && partitions <= 1u << (64 - TRM_SORT_PLACE_BITS));
    entry *e = entries, *other = scratch;
    unsigned bits = partitions > 1 ? 32 - (unsigned)__builtin_clz(partitions - 1) : 0;
    for (unsigned done = 0; done < bits;) {
        unsigned step = bits - done < DIGIT_BITS_MAX ? bits - done : DIGIT_BITS_MAX;
        partition_pass(e, other, count, TRM_SORT_PLACE_BITS + done, step);
        entry *swapped = e;
        e = other;
        other = swapped;
        done += step;
    }
    for (size_t from = 0, to; from < count; from = to) {
        uint64_t partition = e[from].where >> TRM_SORT_PLACE_BITS;
        for (to = bits ? from + 1 : count; to < count && e[to].where >> TRM_SORT_PLACE_BITS == partition;)
            to++;
        if (keys->compare)
            sort_compared(e + from, other + from, to - from, keys);
        else
            sort_bytes(e + from, other + from, to - from, keys, 0);
    }
    return e;
}
