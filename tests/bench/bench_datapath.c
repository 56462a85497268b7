/* What a record costs in each stage of the data path, in nanoseconds, on one core: the same
 * stages that tasks are made of, without reading and without user code.
 *
 *     tests/bench/bench_datapath [MIB [DIRECTORY [words|records]]]    defaults: 128, $TMPDIR or /tmp, both
 *
 * Each line is the median of five. Beside the fold stands what is hard to beat: hashing the
 * words and doing nothing; beside the sort, a copy of the pairs. */
#include "runtime/clock.h"
#include "runtime/fs.h"
#include "workers/collector.h"
#include "workers/key.h"
#include "workers/merge.h"
#include "workers/sort.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ROUNDS 5u
#define WORDS 200000u /* in the vocabulary */
#define TERA_KEY_BYTES 10u
#define TERA_VALUE_BYTES 90u

static trm_err err;
static char run_path[8][600], scratch[512];

static void must(trm_status status, const char *what)
{
    if (status == TRM_OK)
        return;
    fprintf(stderr, "bench_datapath: %s: %s\n", what, err.text);
    exit(1);
}

static uint64_t draw(uint64_t *random)
{
    uint64_t z = *random += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *ns)
{
    qsort(ns, ROUNDS, sizeof *ns, by_value);
    return ns[ROUNDS / 2];
}

static void report(const char *what, double *total_ns, uint64_t records, uint64_t bytes)
{
    double ns = median(total_ns);
    printf("%-44s %8.1f ns/record %9.0f MB/s\n", what, ns / (double)records, (double)bytes / ns * 1000);
    fflush(stdout);
}

/* ---- Words ---------------------------------------------------------------------------- */

/* Text of Zipf words (exponent 1), each followed by a blank. Frequent words are short. */
static char *make_text(size_t bytes)
{
    static char vocabulary[WORDS][16];
    static uint8_t lens[WORDS];
    static double cumulated[WORDS];
    uint64_t random = 1;
    double sum = 0;
    for (size_t i = 0; i < WORDS; i++) {
        lens[i] = (uint8_t)(1 + (i > 20) + (i > 200) + (i > 1000) + draw(&random) % 8);
        for (size_t j = 0; j < lens[i]; j++)
            vocabulary[i][j] = (char)('a' + draw(&random) % 26);
        sum += 1.0 / (double)(i + 1);
        cumulated[i] = sum;
    }
    char *text = malloc(bytes + 32);
    size_t at = 0;
    while (text && at < bytes) {
        double u = (double)(draw(&random) >> 11) / 9007199254740992.0 * sum;
        size_t low = 0, high = WORDS - 1;
        while (low < high) {
            size_t middle = (low + high) / 2;
            if (cumulated[middle] < u)
                low = middle + 1;
            else
                high = middle;
        }
        memcpy(text + at, vocabulary[low], lens[low]);
        at += lens[low];
        text[at++] = ' ';
    }
    memset(text + bytes, ' ', 1);
    return text;
}

typedef uint64_t (*word_function)(void *context, const char *word, size_t len);

static uint64_t each_word(const char *text, size_t bytes, word_function visit, void *context)
{
    uint64_t words = 0;
    for (const char *at = text, *end = text + bytes; at < end;) {
        const char *blank = at;
        while (*blank != ' ')
            blank++;
        if (blank > at) {
            visit(context, at, (size_t)(blank - at));
            words++;
        }
        at = blank + 1;
    }
    return words;
}

static uint64_t hash_word(void *context, const char *word, size_t len)
{
    return *(uint64_t *)context += trm_key16_hash(trm_key16_load(word, len), len, 1);
}

static uint64_t add_word(void *context, const char *word, size_t len)
{
    uint64_t one = 1;
    return trm_collector_add(context, word, len, &one, sizeof one, &err);
}

/* ---- Merging ---------------------------------------------------------------------------- */

static uint64_t merge_all(trm_region region, const trm_fold *fold, unsigned runs, uint32_t partitions,
                          uint64_t *ns)
{
    trm_merge_options options = {.fs = trm_fs_posix(),
                                 .region = region,
                                 .scratch_dir = scratch,
                                 .value_bytes_max = 1 << 20,
                                 .fold = fold};
    trm_merge *merge;
    uint64_t records = 0;
    must(trm_merge_create(&merge, &options, &err), "merge");
    uint64_t began = trm_clock_now_ns();
    for (uint32_t partition = 0; partition < partitions; partition++) {
        trm_segment_at segments[1024];
        size_t count = 0;
        for (unsigned i = 0; i < runs; i++) {
            trm_run_index index;
            must(trm_run_index_load(&index, trm_fs_posix(), run_path[i], &err), "index");
            count += trm_run_index_segments(&index, run_path[i], partition, partition + 1, 0,
                                            segments + count, 1024 - count);
            trm_run_index_close(&index);
        }
        must(trm_merge_open(merge, "bench", segments, count, &err), "merge");
        trm_group *group;
        const void *value;
        size_t len;
        while (trm_merge_next(merge, &group, &err) == TRM_OK)
            while (!fold && trm_group_next(group, &value, &len, &err) == TRM_OK)
                ;
        trm_merge_stats stats;
        trm_merge_stats_get(merge, &stats);
        records += stats.records_in;
        trm_merge_close(merge);
    }
    *ns = trm_clock_now_ns() - began;
    trm_merge_destroy(merge);
    return records;
}

static void bench_words(trm_region region, size_t bytes, uint32_t partitions)
{
    char *text = make_text(bytes);
    double hashing[ROUNDS], folding[ROUNDS], spilling[ROUNDS], merging[ROUNDS];
    uint64_t words = 0, keys = 0, merged = 0, run_bytes = 0;
    trm_compress_policy policy;
    trm_compress_policy_init(&policy, TRM_COMPRESS_AUTO, 1, 0);
    trm_collector_options options = {
        .fs = trm_fs_posix(),
        .region = region,
        .partitions = partitions,
        .record_bytes_max = 1 << 20,
        .fold = TRM_FOLD_SUM_U64,
        .policy = &policy,
        .now_ns = trm_clock_now_ns,
        .seed = 77,
    };
    trm_collector *collector;
    must(trm_collector_create(&collector, &options, &err), "collector");
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t sum = 0, t0 = trm_clock_now_ns();
        words = each_word(text, bytes, hash_word, &sum);
        uint64_t t1 = trm_clock_now_ns();
        hashing[round] = (double)(t1 - t0) + (sum == 1);
        must(trm_collector_begin(collector, run_path[round % 8], 0, 0, &err), "begin");
        t0 = trm_clock_now_ns();
        each_word(text, bytes, add_word, collector);
        t1 = trm_clock_now_ns();
        trm_collector_stats stats;
        must(trm_collector_finish(collector, &stats, &err), "finish");
        folding[round] = (double)(t1 - t0);
        spilling[round] = (double)(trm_clock_now_ns() - t1);
        keys = stats.run.records;
        run_bytes = stats.run.raw_bytes;
    }
    trm_collector_destroy(collector);
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t ns;
        merged = merge_all(region, TRM_FOLD_SUM_U64, ROUNDS, partitions, &ns);
        merging[round] = (double)ns;
    }
    printf("%" PRIu64 " words, %" PRIu64 " of them different\n", words, keys);
    report("words: scan and hash, nothing else", hashing, words, bytes);
    report("words: scan, hash and fold", folding, words, bytes);
    report("words: sort and spill the table (a key)", spilling, keys, run_bytes);
    report("words: merge 5 runs, folding (a record)", merging, merged, run_bytes * ROUNDS);
    free(text);
}

/* ---- TeraSort ------------------------------------------------------------------------------ */

static trm_sort_key locate(const trm_sort_keys *self, uint64_t where)
{
    return (trm_sort_key){(const uint8_t *)self->base + (where & TRM_SORT_PLACE_MASK), TERA_KEY_BYTES};
}

static void bench_sort_alone(const uint8_t *records, size_t n)
{
    double sorting[ROUNDS];
    trm_sort_entry *entries = malloc(2 * n * sizeof *entries);
    trm_sort_keys keys = {locate, records, NULL};
    for (unsigned round = 0; entries && round < ROUNDS; round++) {
        for (size_t i = 0; i < n; i++)
            entries[i] = (trm_sort_entry){trm_key_prefix(records + i * 100, TERA_KEY_BYTES), i * 100};
        uint64_t t0 = trm_clock_now_ns();
        trm_sort(entries, entries + n, n, 1, &keys);
        sorting[round] = (double)(trm_clock_now_ns() - t0);
    }
    report("records: sort the index alone", sorting, n, n * 100);
    free(entries);
}

static void bench_tera(trm_region region, size_t bytes, uint32_t partitions)
{
    size_t n = bytes / 100;
    uint8_t *records = malloc(n * 100 + 16), *copy = malloc(n * 100);
    double copying[ROUNDS], adding[ROUNDS], spilling[ROUNDS], merging[ROUNDS];
    uint64_t random = 5, merged = 0;
    trm_compress_policy policy;
    trm_compress_policy_init(&policy, TRM_COMPRESS_AUTO, 1, 0);
    for (size_t i = 0; i < n * 100; i += 4)
        trm_store_u32(records + i, (uint32_t)draw(&random));
    trm_collector_options options = {
        .fs = trm_fs_posix(),
        .region = region,
        .partitions = partitions,
        .record_bytes_max = 1 << 20,
        .policy = &policy,
        .now_ns = trm_clock_now_ns,
        .seed = 77,
    };
    trm_collector *collector;
    must(trm_collector_create(&collector, &options, &err), "collector");
    bench_sort_alone(records, n);
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t t0 = trm_clock_now_ns();
        memcpy(copy, records, n * 100);
        uint64_t t1 = trm_clock_now_ns();
        copying[round] = (double)(t1 - t0);
        must(trm_collector_begin(collector, run_path[round % 8], 0, 0, &err), "begin");
        t0 = trm_clock_now_ns();
        for (size_t i = 0; i < n; i++)
            must(trm_collector_add(collector, records + i * 100, TERA_KEY_BYTES,
                                   records + i * 100 + TERA_KEY_BYTES, TERA_VALUE_BYTES, &err),
                 "add");
        t1 = trm_clock_now_ns();
        trm_collector_stats stats;
        must(trm_collector_finish(collector, &stats, &err), "finish");
        adding[round] = (double)(t1 - t0);
        spilling[round] = (double)(trm_clock_now_ns() - t1);
    }
    trm_collector_destroy(collector);
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t ns;
        merged = merge_all(region, NULL, ROUNDS, partitions, &ns);
        merging[round] = (double)ns;
    }
    report("records: copy all of them once", copying, n, n * 100);
    report("records: collect (with spills if need be)", adding, n, n * 100);
    report("records: sort and spill the rest", spilling, n, n * 100);
    report("records: merge 5 runs", merging, merged, merged * 100);
    free(records);
    free(copy);
}

int main(int argc, char **argv)
{
    size_t bytes = (argc > 1 ? strtoull(argv[1], NULL, 10) : 128) << 20;
    const char *base = argc > 2 ? argv[2] : getenv("TMPDIR");
    trm_region region;
    snprintf(scratch, sizeof scratch, "%.400s/bench_datapath-XXXXXX", base ? base : "/tmp");
    if (bytes == 0 || !mkdtemp(scratch)) {
        fprintf(stderr, "usage: bench_datapath [MIB [DIRECTORY [words|records]]]\n");
        return 2;
    }
    for (unsigned i = 0; i < 8; i++)
        snprintf(run_path[i], sizeof run_path[i], "%s/run%u", scratch, i);
    must(trm_region_open(&region, bytes * 2, &err), "memory");
    if (argc < 4 || !strcmp(argv[3], "words"))
        bench_words(region, bytes, 4);
    if (argc < 4 || !strcmp(argv[3], "records"))
        bench_tera(region, bytes, 4);
    trm_region_close(&region);
    must(trm_fs_remove_tree(trm_fs_posix(), scratch, &err), "clean up");
    return 0;
}
