/* The data path against a plain reference: random pairs through collectors, runs, extracts and
 * merges give what sorting all of them in memory gives, whatever the keys, sizes, partitions,
 * memory, folds, combiners and codecs.
 *
 * TRM_TEST_SEED=N (or the first argument) runs case N alone. */
#include "config.h"

#include "datapath_case.h"

#ifdef TRM_SANITIZED
#define CASES 30u
#else
#define CASES 120u
#endif
#define MAPS_MAX 6u

static uint64_t first_case = 1, cases = CASES, all_spills, all_passes;

/* ---- The reference ----------------------------------------------------------------------- */

static datapath_case *sorting;
static int by_key(const void *a, const void *b)
{
    const expected *x = a, *y = b;
    int order = trm_key_compare(x->key, x->key_len, y->key, y->key_len);
    return sorting->reversed ? -order : order;
}

static void expect(datapath_case *c, const uint8_t *key, size_t key_len, const uint8_t *value,
                   size_t value_len)
{
    if (c->table_count == c->table_capacity) {
        c->table_capacity = c->table_capacity ? c->table_capacity * 2 : 1024;
        c->table = realloc(c->table, c->table_capacity * sizeof *c->table);
        assert_non_null(c->table);
    }
    uint8_t *copy = malloc(key_len + 1);
    memcpy(copy, key, key_len);
    uint64_t number = value_len >= 8 ? trm_load_u64(value) : 0;
    c->table[c->table_count++] =
        (expected){copy, key_len, 1, number, number, hash_value(value, value_len), false};
}

/* Sorted, one entry a key. */
static void settle(datapath_case *c)
{
    sorting = c;
    if (c->table_count)
        qsort(c->table, c->table_count, sizeof *c->table, by_key);
    size_t kept = 0;
    for (size_t i = 0; i < c->table_count; i++) {
        if (kept && by_key(&c->table[kept - 1], &c->table[i]) == 0) {
            expected *e = &c->table[kept - 1], *other = &c->table[i];
            e->count += other->count;
            e->sum += other->sum;
            e->hash += other->hash;
            e->least = e->least < other->least ? e->least : other->least;
            free(other->key);
        } else {
            c->table[kept++] = c->table[i];
        }
    }
    c->table_count = kept;
}

static uint32_t expected_partition(datapath_case *c, const expected *e)
{
    if (c->partitions == 1)
        return 0;
    if (c->partitioner == BY_CALL)
        return partition_by_call(c, e->key, e->key_len);
    return c->partitioner == BY_CUTS ? trm_cuts_find(&c->cuts, e->key, e->key_len)
                                     : trm_key_partition(e->key, e->key_len, c->partitions);
}

/* ---- Maps ---------------------------------------------------------------------------------- */

static datapath_case *timing;
static uint64_t now_ns(void)
{
    return timing->clock += 40000;
}

static void path_of(char *out, const char *kind, uint32_t map, uint32_t partition)
{
    snprintf(out, 64, "store/%s%u.%u", kind, map, partition);
}

static bool is_remote(void *context, uint32_t partition)
{
    return partition % 2;
}

static trm_collector *make_collector(datapath_case *c)
{
    trm_err err;
    trm_collector *collector;
    trm_region region = {c->region.base, c->map_bytes};
    trm_collector_options options = {
        .fs = c->fs,
        .region = region,
        .partitions = c->partitions,
        .record_bytes_max = 1 << 20,
        .fold = fold_of(c),
        .compare = c->reversed ? compare_reversed : NULL,
        .partition = c->partitioner == BY_CALL ? partition_by_call : NULL,
        .partition_context = c,
        .cuts = c->partitioner == BY_CUTS ? &c->cuts : NULL,
        .combine = c->reduction == COMBINED ? combine : NULL,
        .combine_context = c,
        .is_remote = is_remote,
        .policy = &c->policy,
        .now_ns = now_ns,
        .seed = c->seed,
    };
    CHECK_OK(c, trm_collector_create(&collector, &options, &err));
    return collector;
}

static size_t draw_value(datapath_case *c, uint8_t *value)
{
    size_t len = c->reduction == GENERAL || c->reduction == FOLD_LARGE || c->reduction == FOLD_COUNT
                     ? trm_draw_below(&c->random, c->value_bytes_max + 1)
                     : 8;
    if (c->reduction == GENERAL && c->value_bytes_max > 64 && !one_in(&c->random, 50))
        len %= 64;
    uint64_t step = trm_draw_next(&c->random);
    for (size_t i = 0; i < len; i++)
        value[i] = (uint8_t)(i % 3 ? 'x' : step >> (i % 64));
    return len;
}

/* Returns whether the map left a run. */
static bool run_map(datapath_case *c, trm_collector *collector, uint32_t map, size_t pairs)
{
    static uint8_t value[1 << 20];
    uint8_t key[KEY_BYTES_MAX_DRAWN + 1];
    trm_err err;
    char path[64];
    trm_collector_stats stats;
    path_of(path, "m", map, 0);
    if (one_in(&c->random, 3)) { /* an attempt that comes to nothing leaves nothing */
        CHECK_OK(c, trm_collector_begin(collector, "store/aborted", map, 0, &err));
        for (size_t i = 0; i < pairs / 2; i++)
            CHECK_OK(c, trm_collector_add(collector, "lost", 4, &i, sizeof i, &err));
        trm_collector_abort(collector);
    }
    CHECK_OK(c, trm_collector_begin(collector, path, map, 1, &err));
    trm_fold_table *table = trm_collector_table(collector);
    for (size_t i = 0; i < pairs; i++) {
        size_t key_len = draw_key(c, key), value_len = draw_value(c, value);
        if (i % 2 && value_len == 8 && key_len <= TRM_FOLD_KEY_INLINE && table) {
            if (!trm_fold_table_wait(table, key, key_len, trm_load_u64(value), 8))
                CHECK_OK(c, trm_collector_settle(collector, &err));
        } else {
            CHECK_OK(c, trm_collector_add(collector, key, key_len, value, value_len, &err));
        }
        expect(c, key, key_len, value, value_len);
    }
    CHECK_OK(c, trm_collector_finish(collector, &stats, &err));
    CHECK(c, stats.records_in == pairs);
    CHECK(c, (stats.run.file_bytes > 0) == (pairs > 0));
    c->spills += stats.run.spills;
    return pairs > 0;
}

/* ---- Reduces ------------------------------------------------------------------------------- */

/* Copies the extract of a partition into a file of its own, in pieces of odd sizes. */
static void fetch(datapath_case *c, const char *from, const char *to, uint32_t partition)
{
    trm_err err;
    trm_run_index index;
    trm_run_extract extract;
    trm_file *in, *out;
    uint8_t piece[7001];
    CHECK_OK(c, trm_run_index_load(&index, c->fs, from, &err));
    CHECK_OK(c, trm_run_extract_open(&extract, &index, partition, partition + 1, &err));
    CHECK_OK(c, c->fs->ops->open(c->fs, from, TRM_FS_READ, &in, &err));
    CHECK_OK(c, c->fs->ops->open(c->fs, to, TRM_FS_WRITE | TRM_FS_CREATE | TRM_FS_TRUNCATE, &out, &err));
    for (uint64_t at = 0; at < extract.total_bytes;) {
        size_t n = 1 + trm_draw_below(&c->random, sizeof piece);
        if (n > extract.total_bytes - at)
            n = (size_t)(extract.total_bytes - at);
        CHECK_OK(c, trm_run_extract_read(&extract, in, at, piece, n, &err));
        CHECK_OK(c, c->fs->ops->write_at(out, at, piece, n, &err));
        at += n;
    }
    c->fs->ops->close(in);
    c->fs->ops->close(out);
    trm_run_extract_close(&extract);
    trm_run_index_close(&index);
}

static void check_values(datapath_case *c, trm_group *group, const expected *e)
{
    trm_err err;
    const void *value;
    size_t len;
    uint64_t count = 0, sum = 0, hash = 0;
    bool all = !one_in(&c->random, 5);
    uint64_t most = all ? UINT64_MAX : trm_draw_below(&c->random, 3);
    trm_status status = TRM_OK;
    while (count < most && (status = trm_group_next(group, &value, &len, &err)) == TRM_OK) {
        sum += len >= 8 ? trm_load_u64(value) : 0;
        hash += hash_value(value, len);
        count++;
    }
    CHECK(c, status == TRM_OK || status == TRM_EOF);
    if (!all)
        return;
    CHECK(c, trm_group_next(group, &value, &len, &err) == TRM_EOF);
    CHECK(c, sum == e->sum);
    if (c->reduction == GENERAL)
        CHECK(c, count == e->count && hash == e->hash);
}

static void check_state(datapath_case *c, const trm_group *group, const expected *e)
{
    const large_state *large = group->state;
    CHECK(c, ((uintptr_t)group->state & 7) == 0);
    switch (c->reduction) {
    case FOLD_SUM:
        CHECK(c, trm_load_u64(group->state) == e->sum);
        break;
    case FOLD_COUNT:
        CHECK(c, trm_load_u64(group->state) == e->count);
        break;
    case FOLD_MIN:
        CHECK(c, trm_load_u64(group->state) == e->least);
        break;
    case FOLD_SMALL:
        CHECK(c, trm_load_u32(group->state) == (uint32_t)e->sum);
        break;
    case FOLD_LARGE:
        CHECK(c, large->count == e->count && large->sum == e->sum && large->hash == e->hash);
        break;
    default:
        break;
    }
}

static expected *find(datapath_case *c, const void *key, size_t key_len)
{
    expected wanted = {.key = (uint8_t *)(uintptr_t)key, .key_len = key_len};
    return bsearch(&wanted, c->table, c->table_count, sizeof *c->table, by_key);
}

static void check_sums(datapath_case *c, const expected *e, const expected *got)
{
    if (!e)
        return;
    CHECK(c, got->sum == e->sum);
    if (c->reduction == GENERAL)
        CHECK(c, got->count == e->count && got->hash == e->hash);
}

/* The same pair by pair, as the ready-made identity is given them. */
static void check_pairs(datapath_case *c, trm_merge *merge, const trm_segment_at *segments, size_t count)
{
    trm_err err;
    trm_merge_pair it;
    trm_merge_stats stats;
    trm_status status;
    expected *before = NULL, sums = {0};
    uint64_t groups = 0;
    CHECK_OK(c, trm_merge_open(merge, "p", segments, count, &err));
    while ((status = trm_merge_next_pair(merge, &it, &err)) == TRM_OK) {
        expected *e = find(c, it.key, it.key_len);
        CHECK(c, e && before <= e && memcmp(e->key, it.key, e->key_len) == 0);
        if (e != before) {
            check_sums(c, before, &sums);
            sums = (expected){0};
            groups++;
        }
        before = e;
        sums.count++;
        sums.sum += it.value_len >= 8 ? trm_load_u64(it.value) : 0;
        sums.hash += hash_value(it.value, it.value_len);
    }
    CHECK(c, status == TRM_EOF && trm_merge_next_pair(merge, &it, &err) == TRM_EOF);
    check_sums(c, before, &sums);
    trm_merge_stats_get(merge, &stats);
    CHECK(c, stats.groups == groups);
}

static void reduce(datapath_case *c, trm_merge *merge, uint32_t partition, const bool *has_run)
{
    static char paths[MAPS_MAX][64];
    trm_segment_at *segments = NULL;
    size_t count = 0;
    trm_err err;
    for (uint32_t map = 0; map < c->maps; map++) {
        if (!has_run[map])
            continue;
        path_of(paths[map], "m", map, 0);
        if (c->through_extract) {
            char to[64];
            path_of(to, "x", map, partition);
            fetch(c, paths[map], to, partition);
            memcpy(paths[map], to, sizeof to);
        }
        trm_run_index index;
        CHECK_OK(c, trm_run_index_load(&index, c->fs, paths[map], &err));
        CHECK(c, index.task == map && index.attempt == 1);
        size_t more = trm_run_index_segments(&index, paths[map], partition, partition + 1, 0, NULL, 0);
        segments = realloc(segments, (count + more + 1) * sizeof *segments);
        trm_run_index_segments(&index, paths[map], partition, partition + 1, 0, segments + count, more);
        count += more;
        trm_run_index_close(&index);
    }
    CHECK_OK(c, trm_merge_open(merge, "r", segments, count, &err));
    trm_group *group;
    trm_status status;
    expected *before = NULL;
    while ((status = trm_merge_next(merge, &group, &err)) == TRM_OK) {
        expected *e = find(c, group->key, group->key_len);
        CHECK(c, e && !e->seen && expected_partition(c, e) == partition);
        CHECK(c, !before || before < e);
        e->seen = true;
        before = e;
        if (fold_of(c))
            check_state(c, group, e);
        else
            check_values(c, group, e);
        CHECK(c, e->key_len == group->key_len && memcmp(e->key, group->key, e->key_len) == 0);
    }
    if (status != TRM_EOF)
        fail_msg("case %llu: %s", (unsigned long long)c->seed, err.text);
    trm_merge_stats stats;
    trm_merge_stats_get(merge, &stats);
    c->passes += stats.passes;
    if (!fold_of(c))
        check_pairs(c, merge, segments, count);
    trm_merge_close(merge);
    free(segments);
}

/* ---- Cases ----------------------------------------------------------------------------------- */

static void draw_cuts(datapath_case *c)
{
    trm_err err;
    uint8_t(*keys)[KEY_BYTES_MAX_DRAWN + 1] = malloc(c->partitions * sizeof *keys);
    expected *drawn = calloc(c->partitions, sizeof *drawn);
    trm_cuts_key *cuts = calloc(c->partitions, sizeof *cuts);
    datapath_case plain = {.reversed = false};
    for (uint32_t i = 0; i + 1 < c->partitions; i++)
        drawn[i] = (expected){.key = keys[i], .key_len = draw_key(c, keys[i])};
    sorting = &plain;
    if (c->partitions > 2)
        qsort(drawn, c->partitions - 1, sizeof *drawn, by_key);
    for (uint32_t i = 0; i + 1 < c->partitions; i++)
        cuts[i] = (trm_cuts_key){drawn[i].key, drawn[i].key_len};
    CHECK_OK(c, trm_cuts_init(&c->cuts, cuts, c->partitions, &err));
    free(cuts);
    free(drawn);
    free(keys);
}

static void draw_case(datapath_case *c, uint64_t seed)
{
    static const uint32_t partition_counts[] = {1, 1, 2, 3, 8, 40, 3000};
    static const size_t value_sizes[] = {0, 8, 100, 3000, 200000, 400000};
    *c = (datapath_case){.seed = seed, .random = trm_draw_from(seed)};
    trm_draw *r = &c->random;
    c->keys = (key_kind)trm_draw_below(r, KEY_KINDS);
    c->reduction = (reduction)trm_draw_below(r, REDUCTIONS);
    c->partitioner = (partitioner)trm_draw_below(r, PARTITIONERS);
    c->reversed = one_in(r, 4);
    c->through_extract = one_in(r, 2);
    c->partitions = partition_counts[trm_draw_below(r, sizeof partition_counts / sizeof partition_counts[0])];
    c->maps = 1 + (uint32_t)trm_draw_below(r, MAPS_MAX);
    c->value_bytes_max = value_sizes[trm_draw_below(r, c->reduction == GENERAL ? 6 : 4)];
    c->pairs = one_in(r, 10) ? trm_draw_below(r, 3) : trm_draw_below(r, one_in(r, 2) ? 2000 : 30000);
    if (c->value_bytes_max > 100000)
        c->pairs %= 1000;
    if (c->through_extract && c->partitions > 1000)
        c->maps = 1;
    c->map_bytes = TRM_COLLECTOR_BYTES_MIN << trm_draw_below(r, 4);
    c->reduce_bytes = TRM_MERGE_REGION_BYTES_MIN << trm_draw_below(r, 3);
    if (seed % 5 == 0) { /* as many spills and passes as can be */
        c->partitions = 1 + (uint32_t)trm_draw_below(r, 2);
        c->map_bytes = TRM_COLLECTOR_BYTES_MIN;
        c->reduce_bytes = TRM_MERGE_REGION_BYTES_MIN;
        c->pairs = 40000 + trm_draw_below(r, 60000);
        c->value_bytes_max = c->value_bytes_max > 3000 ? 1000 : c->value_bytes_max;
        if (c->keys == KEYS_FEW || c->keys == KEYS_NESTED || c->keys == KEYS_HIGH)
            c->keys = KEYS_LONG;
    }
    trm_compress_policy_init(&c->policy, (trm_compress_mode)trm_draw_below(r, 3),
                             1 + (int)trm_draw_below(r, 9), one_in(r, 2) ? 1e7 : 0);
}

static void run_case(uint64_t seed)
{
    datapath_case whole, *c = &whole;
    trm_err err;
    bool has_run[MAPS_MAX];
    draw_case(c, seed);
    timing = c;
    c->fs = trm_fs_mem_create(seed);
    assert_non_null(c->fs);
    CHECK_OK(c, c->fs->ops->make_dir(c->fs, "store", 0, &err));
    CHECK_OK(c, c->fs->ops->make_dir(c->fs, "scratch", 0, &err));
    CHECK_OK(c, trm_region_open(&c->region, c->map_bytes > c->reduce_bytes ? c->map_bytes : c->reduce_bytes,
                                &err));
    if (c->partitioner == BY_CUTS)
        draw_cuts(c);
    trm_collector *collector = make_collector(c);
    for (uint32_t map = 0; map < c->maps; map++)
        has_run[map] = run_map(c, collector, map, one_in(&c->random, 6) ? 0 : c->pairs / c->maps);
    trm_collector_destroy(collector);
    settle(c);
    trm_merge_options options = {
        .fs = c->fs,
        .region = {c->region.base, c->reduce_bytes},
        .scratch_dir = "scratch",
        .value_bytes_max = 1 << 20,
        .fold = fold_of(c),
        .compare = c->reversed ? compare_reversed : NULL,
        .combine = c->reduction == COMBINED ? combine : NULL,
        .combine_context = c,
        .policy = &c->policy,
        .now_ns = now_ns,
    };
    trm_merge *merge;
    CHECK_OK(c, trm_merge_create(&merge, &options, &err));
    for (uint32_t partition = 0; partition < c->partitions; partition++)
        reduce(c, merge, partition, has_run);
    trm_merge_destroy(merge);
    CHECK_OK(c, c->fs->ops->remove(c->fs, "scratch", &err)); /* it is empty */
    for (size_t i = 0; i < c->table_count; i++) {
        CHECK(c, c->table[i].seen);
        free(c->table[i].key);
    }
    all_spills += c->spills;
    all_passes += c->passes;
    free(c->table);
    trm_cuts_close(&c->cuts);
    trm_region_close(&c->region);
    trm_fs_mem_destroy(c->fs);
    if (cases == 1)
        print_message("keys %d, reduction %d, partitioner %d, %u partitions, %u maps, %zu pairs: %llu "
                      "spills, %llu passes\n",
                      c->keys, c->reduction, c->partitioner, c->partitions, c->maps, c->pairs,
                      (unsigned long long)c->spills, (unsigned long long)c->passes);
}

static void the_data_path_sorts_cuts_and_reduces(void **state)
{
    for (uint64_t i = 0; i < cases; i++)
        run_case(first_case + i);
    print_message("%llu spills, %llu passes\n", (unsigned long long)all_spills,
                  (unsigned long long)all_passes);
    if (cases == CASES) { /* or the cases do not reach what they are for */
        assert_true(all_spills > 2 * CASES);
        assert_true(all_passes > CASES / 10);
    }
}

int main(int argc, char **argv)
{
    const char *given = argc > 1 ? argv[1] : getenv("TRM_TEST_SEED");
    if (given) {
        first_case = strtoull(given, NULL, 0);
        cases = 1;
    }
    print_message("cases %llu to %llu; one alone: TRM_TEST_SEED=N tests/unit/test_datapath\n",
                  (unsigned long long)first_case, (unsigned long long)(first_case + cases - 1));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_data_path_sorts_cuts_and_reduces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
