/* examples/: each kernel, loaded as it is installed, on input whose answer is known.
 * tests/cluster/examples.sh runs them under mpirun on real text, against other programs. */
#include "config.h"

#include "tests/support/whole_job.h"
#include "tests/unit/temp_tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* The test command runs in the build directory. */
#define BUILT(name) "examples/.libs/" name ".so"
#define RECORD_BYTES 100u

/* The kernels bring the installed library along, whose folds are those that are linked in here;
 * and they keep memory for as long as a process lives, which here outlives them. */
const char *__asan_default_options(void);
__attribute__((visibility("default"))) const char *__asan_default_options(void)
{
    return "detect_odr_violation=0:detect_leaks=0";
}

static temp_tree tree;
static whole_job job;
static trm_param_arg params[8];
static char *inputs[1];

static int init(void **state)
{
    temp_tree_init(&tree);
    whole_job_init(&job, tree.path);
    job.spec.params = params;
    job.spec.inputs = inputs;
    job.spec.partitions = 3;
    job.spec.split_bytes = 5000;
    return 0;
}

static int close_all(void **state)
{
    whole_job_close(&job);
    temp_tree_close(&tree);
    return 0;
}

static void give(const char *name, const char *value)
{
    params[job.spec.params_count++] = (trm_param_arg){(char *)name, (char *)value};
}

static void load(const char *path)
{
    static char kept[512];
    snprintf(kept, sizeof kept, "%s", path);
    job.spec.kernel_path = kept;
}

/* All parts end to end, terminated; freed by the caller. */
static char *run(size_t *len)
{
    trm_status status = whole_job_run(&job);
    if (status != TRM_OK)
        fail_msg("%s: %s", trm_status_name(status), job.err.text);
    char *all = calloc(1, 1);
    *len = 0;
    for (uint32_t i = 0; i < (job.plan.partitions ? job.plan.partitions : job.plan.tasks); i++) {
        size_t more;
        uint8_t *part = whole_job_part(&job, i, &more);
        all = realloc(all, *len + more + 1);
        assert_non_null(all);
        memcpy(all + *len, part, more);
        *len += more;
        all[*len] = 0;
        free(part);
    }
    return all;
}

static uint64_t user_counter(unsigned number)
{
    return job.counters.value[TRM_COUNTER_USER + number];
}

/* ---- Words ---------------------------------------------------------------------------- */

/* Lines of all lengths around the blocks that words are looked for in, and all bytes. */
static size_t make_text(char *out)
{
    size_t len = 0;
    for (unsigned i = 0; i < 300; i++) {
        for (unsigned at = 0; at < i; at++)
            out[len++] = at % (1 + i % 11) == i % 7 ? ' ' : (char)("aBc09Z"[(i + at / 3) % 6]);
        out[len++] = '\n';
    }
    for (unsigned i = 0; i < 1024; i++)
        out[len++] = (char)(i * 7 / 3);
    return len;
}

typedef struct word_count {
    char text[400];
    uint64_t count;
} word_count;

static word_count counted[8192];
static unsigned counted_words;

static void count_one(const char *word, size_t len)
{
    unsigned i = 0;
    while (i < counted_words && (strlen(counted[i].text) != len || memcmp(counted[i].text, word, len) != 0))
        i++;
    if (i == counted_words) {
        assert_true(i < 8192 && len < sizeof counted[0].text);
        memcpy(counted[counted_words++].text, word, len);
    }
    counted[i].count++;
}

static void count_plainly(const char *text, size_t len, bool lower)
{
    char word[400];
    size_t word_len = 0;
    memset(counted, 0, sizeof counted);
    counted_words = 0;
    for (size_t i = 0; i <= len; i++) {
        unsigned char c = i < len ? (unsigned char)text[i] : 0;
        if (c < 0x80 && isalnum(c)) {
            word[word_len++] = (char)(lower ? tolower(c) : c);
        } else if (word_len) {
            count_one(word, word_len);
            word_len = 0;
        }
    }
}

static void check_counts(const char *lower)
{
    static char text[64 * 1024];
    size_t text_len = make_text(text), len;
    inputs[0] = temp_tree_file(&tree, "text", text, text_len);
    job.spec.inputs_count = 1;
    load(BUILT("wordcount"));
    give("lower", lower);
    char *all = run(&len);
    count_plainly(text, text_len, *lower == 't');
    unsigned lines = 0;
    for (char *line = all, *end; line < all + len; line = end + 1, lines++) {
        end = strchr(line, '\n');
        char *tab = memchr(line, '\t', (size_t)(end - line));
        unsigned i = 0;
        while (i < counted_words && (strlen(counted[i].text) != (size_t)(tab - line) ||
                                     memcmp(counted[i].text, line, (size_t)(tab - line)) != 0))
            i++;
        assert_true(i < counted_words);
        assert_int_equal(strtoull(tab + 1, NULL, 10), counted[i].count);
    }
    assert_int_equal(lines, counted_words);
    free(all);
}

static void wordcount_counts(void **state)
{
    check_counts("false");
}
static void wordcount_counts_lower_case(void **state)
{
    check_counts("true");
}

/* ---- grep ------------------------------------------------------------------------------- */

static const char verse[] =
    "Of shoes\nand ships\nand sealing-WAX\n\nof cabbages\nand kings"; /* no newline at the end */

static void expect_lines(const char *expected)
{
    size_t len;
    char *all = run(&len);
    assert_string_equal(all, expected);
    free(all);
}

static void grep_verse(void)
{
    inputs[0] = temp_tree_text(&tree, "verse", verse);
    job.spec.inputs_count = 1;
    load(BUILT("grep"));
}

static void grep_finds_lines(void **state)
{
    grep_verse();
    give("pattern", "^and.*(s|x)$");
    expect_lines("and ships\nand kings\n");
    assert_int_equal(user_counter(0), 6);
    assert_int_equal(user_counter(1), 2);
}

static void grep_says_where(void **state)
{
    char expected[2048];
    grep_verse();
    give("pattern", "^OF|wax");
    give("ignore-case", NULL);
    give("path", "true");
    give("offset", "true");
    snprintf(expected, sizeof expected, "%s:0:Of shoes\n%s:19:and sealing-WAX\n%s:36:of cabbages\n",
             inputs[0], inputs[0], inputs[0]);
    expect_lines(expected);
}

static void grep_inverts_and_counts(void **state)
{
    grep_verse();
    give("pattern", "and");
    give("invert", "true");
    expect_lines("Of shoes\n\nof cabbages\n");
}

static void grep_only_counts(void **state)
{
    grep_verse();
    give("pattern", "and");
    give("count", "true");
    expect_lines("");
    assert_int_equal(user_counter(1), 3);
}

static void grep_refuses_a_wrong_pattern(void **state)
{
    grep_verse();
    give("pattern", "a(b");
    assert_int_equal(whole_job_run(&job), TRM_EKERNEL);
    assert_non_null(strstr(job.err.text, "the pattern 'a(b' is wrong: "));
}

/* ---- invertedindex ------------------------------------------------------------------------ */

static void invertedindex_lists_documents(void **state)
{
    temp_tree_dir(&tree, "docs");
    temp_tree_text(&tree, "docs/b", "Rose is a rose\nis a rose\n");
    temp_tree_text(&tree, "docs/a", "a rose\n");
    temp_tree_text(&tree, "docs/c", "is");
    inputs[0] = temp_tree_name(&tree, "docs");
    job.spec.inputs_count = 1;
    job.spec.partitions = 1;
    load(BUILT("invertedindex"));
    give("names", "true");
    give("separator", ",");
    expect_lines("a\ta,b\nis\tb,c\nrose\ta,b\n");
    assert_int_equal(user_counter(0), 3);
}

/* ---- The sort benchmark --------------------------------------------------------------------- */

#define TERA_RECORDS 5003u

/* Leaves `input` with what teragen makes, and the job ready for another kernel. */
static void generate(uint64_t *checksum)
{
    char records[16];
    size_t len;
    load(BUILT("teragen"));
    snprintf(records, sizeof records, "%u", TERA_RECORDS);
    give("records", records);
    job.spec.tasks = 4;
    char *all = run(&len);
    assert_int_equal(len, TERA_RECORDS * RECORD_BYTES);
    assert_int_equal(user_counter(0), TERA_RECORDS);
    *checksum = user_counter(1);
    whole_job_close(&job);
    whole_job_init(&job, tree.path);
    job.spec.params = params;
    job.spec.inputs = inputs;
    inputs[0] = temp_tree_file(&tree, "input", all, len);
    job.spec.inputs_count = 1;
    job.spec.partitions = 3;
    job.spec.split_bytes = 40000;
    free(all);
}

static int by_record(const void *a, const void *b)
{
    return memcmp(a, b, RECORD_BYTES);
}

static void teragen_lays_records_out(void **state)
{
    uint64_t checksum, sum = 0;
    size_t len;
    uint8_t *all;
    trm_err err;
    generate(&checksum);
    assert_int_equal(trm_fs_read_whole(trm_fs_posix(), inputs[0], 1 << 30, &all, &len, &err), TRM_OK);
    for (unsigned i = 0; i < TERA_RECORDS; i++) {
        const uint8_t *record = all + i * RECORD_BYTES;
        char number[33];
        snprintf(number, sizeof number, "%032X", i); /* in order, whatever the tasks */
        assert_memory_equal(record + 10, "\x00\x11", 2);
        assert_memory_equal(record + 12, number, 32);
        assert_memory_equal(record + 44, "\x88\x99\xaa\xbb", 4);
        assert_memory_equal(record + 96, "\xcc\xdd\xee\xff", 4);
        sum += crc32(0, record, RECORD_BYTES);
    }
    assert_true(sum == checksum);
    free(all);
}

static void terasort_sorts(void **state)
{
    uint64_t checksum;
    size_t len, input_len;
    uint8_t *input;
    trm_err err;
    generate(&checksum);
    load(BUILT("terasort"));
    char *all = run(&len);
    assert_int_equal(trm_fs_read_whole(trm_fs_posix(), inputs[0], 1 << 30, &input, &input_len, &err), TRM_OK);
    assert_int_equal(len, input_len);
    qsort(input, TERA_RECORDS, RECORD_BYTES, by_record);
    assert_memory_equal(all, input, len);
    free(all);
    free(input);
}

/* Sorted records after `spoil`, in three parts, to teravalidate. */
static char *validate(void (*spoil)(char *records, size_t *count), const char *strict)
{
    uint64_t checksum;
    size_t len, count = TERA_RECORDS;
    uint8_t *input;
    trm_err err;
    static char expected[32], records[16];
    generate(&checksum);
    assert_int_equal(trm_fs_read_whole(trm_fs_posix(), inputs[0], 1 << 30, &input, &len, &err), TRM_OK);
    input = realloc(input, len + RECORD_BYTES);
    assert_non_null(input);
    qsort(input, count, RECORD_BYTES, by_record);
    if (spoil)
        spoil((char *)input, &count);
    temp_tree_dir(&tree, "sorted");
    size_t third = count / 3 * RECORD_BYTES;
    temp_tree_file(&tree, "sorted/part-00000", input, third);
    temp_tree_file(&tree, "sorted/part-00001", input + third, third);
    temp_tree_file(&tree, "sorted/part-00002", input + 2 * third, count * RECORD_BYTES - 2 * third);
    free(input);
    inputs[0] = temp_tree_name(&tree, "sorted");
    load(BUILT("teravalidate"));
    snprintf(expected, sizeof expected, "%llu", (unsigned long long)checksum);
    snprintf(records, sizeof records, "%u", TERA_RECORDS);
    job.spec.params_count = 0;
    give("strict", strict);
    give("records", records);
    give("checksum", expected);
    if (*strict == 't') {
        trm_status status = whole_job_run(&job);
        assert_int_equal(status, spoil ? TRM_EKERNEL : TRM_OK);
        return strdup(job.err.text);
    }
    return run(&len);
}

static void expect_valid(const char *all, bool valid)
{
    char records[64];
    snprintf(records, sizeof records, "records\t%u\n", TERA_RECORDS);
    assert_int_equal(strstr(all, records) && strstr(all, "errors\t0\n"), valid);
}

static void lose(char *records, size_t *count)
{
    memmove(records + 700 * RECORD_BYTES, records + 701 * RECORD_BYTES, (*count - 701) * RECORD_BYTES);
    --*count;
}
static void repeat(char *records, size_t *count) /* one in the place of another */
{
    memcpy(records + 700 * RECORD_BYTES, records + 701 * RECORD_BYTES, RECORD_BYTES);
}
static void swap_at(char *records, size_t at)
{
    char other[RECORD_BYTES];
    memcpy(other, records + at * RECORD_BYTES, RECORD_BYTES);
    memcpy(records + at * RECORD_BYTES, records + (at + 1) * RECORD_BYTES, RECORD_BYTES);
    memcpy(records + (at + 1) * RECORD_BYTES, other, RECORD_BYTES);
}
static void swap_within(char *records, size_t *count)
{
    swap_at(records, 700);
}
static void swap_across(char *records, size_t *count)
{
    swap_at(records, *count / 3 - 1);
}
static void swap_across_tasks(char *records, size_t *count)
{
    swap_at(records, 399);
}
static void flip(char *records, size_t *count)
{
    records[700 * RECORD_BYTES + 50] ^= 1;
}

static void teravalidate_accepts(void **state)
{
    char *all = validate(NULL, "false");
    expect_valid(all, true);
    free(all);
}

static void teravalidate_says_where(void **state)
{
    char *all = validate(swap_within, "false"), place[1024];
    snprintf(place, sizeof place, "out_of_order\t%s/part-00000 at byte %u\n", inputs[0], 701 * RECORD_BYTES);
    assert_non_null(strstr(all, place));
    assert_non_null(strstr(all, "errors\t1\n"));
    free(all);
}

static void expect_refusal(void (*spoil)(char *records, size_t *count), const char *sentence)
{
    char *why = validate(spoil, "true");
    if (!strstr(why, sentence))
        fail_msg("'%s' does not say '%s'", why, sentence);
    free(why);
}

static void teravalidate_misses_a_record(void **state)
{
    expect_refusal(lose, "there are 5002 records, not 5003");
}
static void teravalidate_finds_a_repeated_one(void **state)
{
    expect_refusal(repeat, "the checksum is ");
}
static void teravalidate_finds_a_changed_one(void **state)
{
    expect_refusal(flip, "the checksum is ");
}
static void teravalidate_finds_disorder(void **state)
{
    expect_refusal(swap_within, "1 records are out of order");
}
static void teravalidate_finds_disorder_across_parts(void **state)
{
    expect_refusal(swap_across, "1 records are out of order");
}
static void teravalidate_finds_disorder_across_tasks(void **state)
{
    expect_refusal(swap_across_tasks, "1 records are out of order");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, init, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(wordcount_counts),
        TEST(wordcount_counts_lower_case),
        TEST(grep_finds_lines),
        TEST(grep_says_where),
        TEST(grep_inverts_and_counts),
        TEST(grep_only_counts),
        TEST(grep_refuses_a_wrong_pattern),
        TEST(invertedindex_lists_documents),
        TEST(teragen_lays_records_out),
        TEST(terasort_sorts),
        TEST(teravalidate_accepts),
        TEST(teravalidate_says_where),
        TEST(teravalidate_misses_a_record),
        TEST(teravalidate_finds_a_repeated_one),
        TEST(teravalidate_finds_a_changed_one),
        TEST(teravalidate_finds_disorder),
        TEST(teravalidate_finds_disorder_across_parts),
        TEST(teravalidate_finds_disorder_across_tasks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
