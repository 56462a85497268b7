/* workers/sort: any keys come out in order, each once, and bad keys do not make it slow. */
#include "workers/sort.h"
#include "workers/collector.h"
#include "workers/key.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t seed = 1;
static uint64_t locates, comparisons;

static uint64_t draw(void)
{
    static uint64_t random;
    if (random == 0)
        random = seed;
    uint64_t z = random += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

typedef struct key_list {
    trm_sort_keys keys;
    trm_sort_key *list;
    size_t count;
    trm_sort_entry *entries; /* two times `count` */
    uint8_t *bytes;
} key_list;

static trm_sort_key locate(const trm_sort_keys *keys, uint64_t where)
{
    locates++;
    return ((const key_list *)(const void *)keys)->list[where & TRM_SORT_PLACE_MASK];
}

static void make(key_list *self, size_t count, size_t key_bytes_max)
{
    *self = (key_list){.count = count};
    self->keys.locate = locate;
    self->list = calloc(count + 1, sizeof *self->list);
    self->entries = calloc(2 * count + 1, sizeof *self->entries);
    self->bytes = calloc(count + 1, key_bytes_max + 16);
    assert_non_null(self->bytes);
    for (size_t i = 0; i < count; i++)
        self->list[i].bytes = self->bytes + i * (key_bytes_max + 16);
}

static uint8_t *bytes_of(key_list *self, size_t i)
{
    return (uint8_t *)(uintptr_t)self->list[i].bytes;
}

static void release(key_list *self)
{
    free(self->list);
    free(self->entries);
    free(self->bytes);
}

static void check_sorted(key_list *self, uint32_t partitions)
{
    uint8_t *seen = calloc(self->count + 1, 1);
    for (size_t i = 0; i < self->count; i++)
        self->entries[i] = (trm_sort_entry){trm_key_prefix(self->list[i].bytes, self->list[i].len),
                                            (draw() % partitions) << TRM_SORT_PLACE_BITS | i};
    const trm_sort_entry *sorted =
        trm_sort(self->entries, self->entries + self->count, self->count, partitions, &self->keys);
    for (size_t i = 0; i < self->count; i++) {
        uint64_t place = sorted[i].where & TRM_SORT_PLACE_MASK;
        assert_true(place < self->count && !seen[place]);
        seen[place] = 1;
        if (i == 0)
            continue;
        uint64_t a = sorted[i - 1].where, b = sorted[i].where;
        assert_true(a >> TRM_SORT_PLACE_BITS <= b >> TRM_SORT_PLACE_BITS);
        if (a >> TRM_SORT_PLACE_BITS != b >> TRM_SORT_PLACE_BITS)
            continue;
        trm_sort_key x = locate(&self->keys, a), y = locate(&self->keys, b);
        int order = self->keys.compare ? self->keys.compare(x.bytes, x.len, y.bytes, y.len)
                                       : trm_key_compare(x.bytes, x.len, y.bytes, y.len);
        assert_true(order <= 0);
    }
    free(seen);
}

/* ---- Any keys ---------------------------------------------------------------------- */

static void draw_keys(key_list *self, unsigned kind, size_t key_bytes_max)
{
    for (size_t i = 0; i < self->count; i++) {
        uint8_t *at = bytes_of(self, i);
        size_t len = draw() % (key_bytes_max + 1);
        uint64_t spread = kind % 4 == 0 ? 256 : kind % 4 == 1 ? 2 : kind % 4 == 2 ? 26 : 3;
        for (size_t j = 0; j < len; j++)
            at[j] = (uint8_t)(j < (kind / 4) * 7 ? 0 : draw() % spread);
        self->list[i].len = len;
    }
}

static int compare_reversed(const void *a, size_t a_len, const void *b, size_t b_len)
{
    comparisons++;
    return -trm_key_compare(a, a_len, b, b_len);
}

static void any_keys_are_sorted(void **state)
{
    static const size_t counts[] = {0, 1, 2, 3, 20, 21, 22, 100, 1000, 30000};
    static const uint32_t partitions[] = {1, 2, 5, 2048, 2049, 65536};
    for (unsigned round = 0; round < 120; round++) {
        key_list list;
        size_t key_bytes_max = round % 3 ? 20 : 70;
        make(&list, counts[round % 10], key_bytes_max);
        draw_keys(&list, round % 13, key_bytes_max);
        list.keys.compare = round % 5 == 4 ? compare_reversed : NULL;
        check_sorted(&list, partitions[draw() % 6]);
        release(&list);
    }
}

/* ---- Bad keys: the time is bounded by the bytes of the keys --------------------------- */

static void equal_keys_take_linear_time(void **state)
{
    key_list list;
    make(&list, 50000, 100);
    for (size_t i = 0; i < list.count; i++) {
        memset(bytes_of(&list, i), 'x', 100);
        list.list[i].len = 100;
    }
    for (size_t i = 0; i < list.count; i++)
        list.entries[i] = (trm_sort_entry){trm_key_prefix(list.list[i].bytes, 100), i};
    locates = 0;
    trm_sort(list.entries, list.entries + list.count, list.count, 1, &list.keys);
    assert_true(locates <= list.count * (100 / 8 + 1));
    release(&list);
}

/* Key i is the first 8·i bytes of one string: each level tells one key from the rest. */
static void nested_keys_are_sorted_without_a_deep_stack(void **state)
{
    key_list list;
    make(&list, 2000, 16000);
    for (size_t i = 0; i < list.count; i++) {
        list.list[i].len = (i * 977 % 2000) * 8;
        memset(bytes_of(&list, i), 'n', list.list[i].len);
    }
    check_sorted(&list, 1);
    for (size_t i = 0; i < list.count; i++) /* … and differs from it at its end */
        if (list.list[i].len)
            bytes_of(&list, i)[list.list[i].len - 1] = (uint8_t)('a' + i % 26);
    check_sorted(&list, 1);
    release(&list);
}

static int compare_nonsense(const void *a, size_t a_len, const void *b, size_t b_len)
{
    comparisons++;
    return comparisons % 3 ? -1 : 1;
}

static void a_comparison_of_its_own_is_called_n_log_n_times(void **state)
{
    key_list list;
    make(&list, 20000, 20);
    draw_keys(&list, 0, 20);
    list.keys.compare = compare_reversed;
    comparisons = 0;
    check_sorted(&list, 1);
    assert_true(comparisons < list.count * 18);
    list.keys.compare = compare_nonsense; /* ends, and loses nothing */
    for (size_t i = 0; i < list.count; i++)
        list.entries[i] = (trm_sort_entry){0, i};
    const trm_sort_entry *sorted =
        trm_sort(list.entries, list.entries + list.count, list.count, 1, &list.keys);
    uint64_t sum = 0;
    for (size_t i = 0; i < list.count; i++)
        sum += sorted[i].where;
    assert_true(sum == (uint64_t)list.count * (list.count - 1) / 2);
    release(&list);
}

/* ---- Keys ----------------------------------------------------------------------------- */

static void partitions_are_even_and_fixed(void **state)
{
    size_t counts[7] = {0};
    char key[16];
    for (unsigned i = 0; i < 70000; i++) {
        int len = snprintf(key, sizeof key, i % 2 ? "%u" : "a longer %u", i);
        counts[trm_key_partition(key, (size_t)len, 7)]++;
    }
    for (unsigned i = 0; i < 7; i++)
        assert_in_range(counts[i], 9500, 10500);
    memset(counts, 0, sizeof counts);
    for (uint64_t i = 0; i < 70000; i++) { /* numbers, as they lie in memory */
        uint64_t big = __builtin_bswap64(i);
        counts[trm_key_partition(i % 2 ? &i : &big, 8, 7)]++;
    }
    for (unsigned i = 0; i < 7; i++)
        assert_in_range(counts[i], 9500, 10500);
    /* What a job was partitioned by does not change: a resumed job meets its old runs. */
    assert_int_equal(trm_key_partition("", 0, 1000), 209);
    assert_int_equal(trm_key_partition("trireme", 7, 1000), 118);
    assert_int_equal(trm_key_partition("a key of more than sixteen bytes", 32, 1000), 715);
}

static void prefixes_order_like_keys(void **state)
{
    uint8_t page[8192 + 16], a[20], b[20];
    uint8_t *edge = (uint8_t *)(((uintptr_t)page + 4096) / 4096 * 4096);
    for (unsigned round = 0; round < 20000; round++) {
        size_t a_len = draw() % 20, b_len = draw() % 20;
        for (size_t i = 0; i < 20; i++) {
            a[i] = (uint8_t)(draw() % 3 * 100);
            b[i] = (uint8_t)(draw() % 3 * 100);
        }
        uint8_t *at = edge - draw() % 24; /* often over a page's end */
        if (at + a_len > page + sizeof page - 16 || at < page)
            at = page;
        memcpy(at, a, a_len);
        uint64_t x = trm_key_prefix(at, a_len), y = trm_key_prefix(b, b_len);
        int order = trm_key_compare(a, a_len, b, b_len);
        assert_true(order <= 0 ? x <= y : x >= y);
        trm_key16 k = trm_key16_load(at, a_len);
        uint8_t padded[16] = {0};
        memcpy(padded, a, a_len < 16 ? a_len : 16);
        assert_true(k.low == trm_load_u64(padded) && k.high == trm_load_u64(padded + 8));
    }
}

int main(int argc, char **argv)
{
    const char *given = argc > 1 ? argv[1] : getenv("TRM_TEST_SEED");
    seed = given ? strtoull(given, NULL, 0) : 1;
    print_message("seed %llu: TRM_TEST_SEED=%llu tests/unit/test_sort\n", (unsigned long long)seed,
                  (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_keys_are_sorted),
        cmocka_unit_test(equal_keys_take_linear_time),
        cmocka_unit_test(nested_keys_are_sorted_without_a_deep_stack),
        cmocka_unit_test(a_comparison_of_its_own_is_called_n_log_n_times),
        cmocka_unit_test(partitions_are_even_and_fixed),
        cmocka_unit_test(prefixes_order_like_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
