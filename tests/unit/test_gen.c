/* Made input: the same for a seed, whole, of the exact size, and distributed as it says. */
#include "jobs/exit_code.h"
#include "tests/unit/temp_tree.h"
#include "tool/gen.h"
#include "tool/gen_records.h"
#include "tool/gen_text.h"

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/resource.h>
#include <signal.h>

#include <cmocka.h>

#define TEXT_BYTES (1u << 20)

static void make_text(char *out, size_t len, uint32_t words, double skew, uint64_t seed, size_t step)
{
    trm_gen_text text;
    trm_err err;
    assert_int_equal(trm_gen_text_init(&text, words, skew, seed, &err), TRM_OK);
    for (size_t at = 0; at < len; at += step)
        trm_gen_text_fill(&text, out + at, len - at < step ? len - at : step);
    trm_gen_text_close(&text);
}

static void a_seed_is_a_text(void **state)
{
    static char one[TEXT_BYTES], two[TEXT_BYTES];
    make_text(one, TEXT_BYTES, 1000, 1, 7, TEXT_BYTES);
    static const size_t steps[] = {1, 3, 15, 16, 17, 31, 4096, 65537};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        make_text(two, TEXT_BYTES, 1000, 1, 7, steps[i]);
        assert_memory_equal(one, two, TEXT_BYTES);
    }
    make_text(two, TEXT_BYTES, 1000, 1, 8, TEXT_BYTES);
    assert_memory_not_equal(one, two, TEXT_BYTES);
    /* For good: whoever compares rates over the years compares the same bytes. */
    assert_memory_equal(one, "hiris qur zo guris zo ru", 24);
}

static void lines_are_of_words(void **state)
{
    static char text[TEXT_BYTES];
    make_text(text, TEXT_BYTES, 5000, 1, 3, TEXT_BYTES);
    size_t line = 0, word = 0;
    for (size_t i = 0; i < TEXT_BYTES; i++) {
        bool letter = text[i] >= 'a' && text[i] <= 'z';
        assert_true(letter || text[i] == ' ' || text[i] == '\n');
        word = letter ? word + 1 : 0;
        assert_true(word < TRM_GEN_WORD_BYTES_MAX);
        assert_false(i > 0 && !letter && !(text[i - 1] >= 'a'));
        line = text[i] == '\n' ? 0 : line + 1;
        assert_true(line <= 96 + TRM_GEN_WORD_BYTES_MAX);
    }
}

static void words_differ(void **state)
{
    trm_gen_text text;
    trm_err err;
    assert_int_equal(trm_gen_text_init(&text, 60000, 1, 5, &err), TRM_OK);
    /* By rank the words are made of syllables of two letters, which must differ. */
    for (uint32_t i = 0; i < 3000; i++)
        for (uint32_t j = 0; j < i; j++)
            assert_false(text.word[i].len == text.word[j].len &&
                         memcmp(text.word[i].text, text.word[j].text, text.word[i].len) == 0);
    for (uint32_t i = 0; i + 1 < 60000; i++)
        assert_true(text.word[i].len < TRM_GEN_WORD_BYTES_MAX && text.word[i].len >= 3);
    trm_gen_text_close(&text);
}

/* How often each of the first ranks comes, out of `draws`, is within five standard deviations
 * of what the law says; the seed is fixed, so that this holds or does not for ever. */
static void check_law(uint32_t words, double skew)
{
    enum { RANKS = 50 };
    static char text[8u << 20];
    make_text(text, sizeof text, words, skew, 11, sizeof text);
    trm_gen_text names;
    trm_err err;
    assert_int_equal(trm_gen_text_init(&names, words, skew, 11, &err), TRM_OK);
    uint32_t ranks = words < RANKS ? words : RANKS;
    double counts[RANKS] = {0}, draws = 0, weights = 0;
    const char *end = text + sizeof text;
    for (const char *at = text; at < end;) {
        const char *stop = at;
        while (stop < end && *stop >= 'a')
            stop++;
        for (uint32_t rank = 0; stop < end && rank < ranks; rank++)
            counts[rank] += names.word[rank].len == stop - at + 1 &&
                            memcmp(names.word[rank].text, at, (size_t)(stop - at)) == 0;
        draws++;
        at = stop + 1;
    }
    for (uint32_t i = 0; i < words; i++)
        weights += pow(i + 1.0, -skew);
    for (uint32_t rank = 0; rank < ranks; rank++) {
        double share = pow(rank + 1.0, -skew) / weights;
        assert_true(fabs(counts[rank] - draws * share) < 5 * sqrt(draws * share * (1 - share)) + 2);
    }
    trm_gen_text_close(&names);
}

static void words_follow_the_law(void **state)
{
    check_law(20000, 1);
    check_law(300, 0);
    check_law(7, 2.5);
    check_law(1, 1);
}

static void records_are_numbered(void **state)
{
    static char all[1000 * 100], some[1000 * 100];
    for (int ascii = 0; ascii < 2; ascii++) {
        trm_gen_records_fill(all, 0, 1000, 9, ascii);
        for (unsigned first = 0; first < 1000; first += 250)
            trm_gen_records_fill(some + first * 100, first, 250, 9, ascii);
        assert_memory_equal(all, some, sizeof all);
        assert_memory_equal(all + 999 * 100 + 12, "000000000000000000000000000003E7", 32);
        for (unsigned i = 0; i < 1000 && ascii; i++) {
            for (unsigned k = 0; k < 98; k++)
                assert_true(all[i * 100 + k] >= ' ' && all[i * 100 + k] <= '~');
            assert_memory_equal(all + i * 100 + 98, "\r\n", 2);
        }
        trm_gen_records_fill(some, 0, 1000, 10, ascii);
        assert_memory_not_equal(all, some, 10);
    }
}

/* ---- The command --------------------------------------------------------------------- */

/* With what it says on standard error in `said`. */
static int command(char *said, size_t room, const char *const *args)
{
    char *argv[16] = {(char *)"gen"};
    int argc = 1;
    for (; args[argc - 1]; argc++)
        argv[argc] = (char *)args[argc - 1];
    int ends[2], saved = dup(STDERR_FILENO);
    assert_int_equal(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    int code = trm_gen_command(argc, argv);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(ends[1]);
    ssize_t got = read(ends[0], said, room - 1);
    said[got > 0 ? got : 0] = 0;
    close(ends[0]);
    return code;
}

static void check_names(const temp_tree *tree, unsigned count)
{
    DIR *dir = opendir(tree->path);
    assert_non_null(dir);
    unsigned found = 0;
    for (const struct dirent *entry; (entry = readdir(dir));)
        found += entry->d_name[0] != '.';
    closedir(dir);
    assert_int_equal(found, count);
}

static void files_are_whole(void **state)
{
    temp_tree tree;
    temp_tree_init(&tree);
    char *path = temp_tree_name(&tree, "text"), *records = temp_tree_name(&tree, "records"), said[1024];
    assert_int_equal(
        command(said, sizeof said, (const char *const[]){"text", "--bytes", "3000001", "-o", path, NULL}), 0);
    assert_string_equal(said, "");
    uint8_t *bytes;
    size_t len;
    trm_err err;
    assert_int_equal(trm_fs_read_whole(trm_fs_posix(), path, 1u << 24, &bytes, &len, &err), TRM_OK);
    assert_int_equal(len, 3000001);
    assert_int_equal(bytes[len - 1], '\n');
    static char same[3000000];
    make_text(same, sizeof same, 100000, 1, 1, sizeof same);
    assert_memory_equal(same, bytes, sizeof same);
    free(bytes);
    assert_int_equal(command(said, sizeof said,
                             (const char *const[]){"records", "-b", "2M", "--ascii", "-o", records, NULL}),
                     0);
    struct stat about;
    assert_int_equal(stat(records, &about), 0);
    assert_int_equal(about.st_size, 2097100);
    check_names(&tree, 2);
    /* Refused when there, replaced when asked. */
    assert_int_equal(
        command(said, sizeof said, (const char *const[]){"records", "-n", "3", "-o", records, NULL}),
        TRM_EXIT_REFUSED);
    assert_non_null(strstr(said, "is there already: give --overwrite to replace it"));
    assert_int_equal(stat(records, &about), 0);
    assert_int_equal(about.st_size, 2097100);
    assert_int_equal(command(said, sizeof said,
                             (const char *const[]){"records", "-n", "3", "--overwrite", "-o", records, NULL}),
                     0);
    assert_int_equal(stat(records, &about), 0);
    assert_int_equal(about.st_size, 300);
    char *nowhere = temp_tree_name(&tree, "none/records");
    assert_int_equal(
        command(said, sizeof said, (const char *const[]){"records", "-n", "3", "-o", nowhere, NULL}),
        TRM_EXIT_REFUSED);
    assert_non_null(strstr(said, "none/records is not there: make it first"));
    check_names(&tree, 2);
    temp_tree_close(&tree);
}

static void a_full_disk_leaves_nothing(void **state)
{
    temp_tree tree;
    temp_tree_init(&tree);
    char *path = temp_tree_name(&tree, "text"), said[1024];
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 2500000;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int code = command(said, sizeof said, (const char *const[]){"text", "-b", "4M", "-o", path, NULL});
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, handler);
    assert_int_equal(code, TRM_EXIT_REFUSED);
    assert_non_null(strstr(said, "cannot write"));
    check_names(&tree, 0);
    temp_tree_close(&tree);
}

static void wrong_command_lines_are_named(void **state)
{
    static const struct {
        const char *args[8];
        const char *sentence;
    } cases[] = {
        {{NULL}, "'gen' needs what to make: text or records"},
        {{"words"}, "'gen' makes text or records, not 'words'"},
        {{"text", "-o", "/x"}, "'gen text' needs --bytes SIZE"},
        {{"records", "-o", "/x"}, "'gen records' needs --bytes SIZE or --records N"},
        {{"text", "--bytes", "1M"}, "'gen text' needs -o FILE"},
        {{"text", "--bytes", "1X", "-o", "/x"}, "--bytes must be a size such as 64M or 1G, not '1X'"},
        {{"text", "--bytes", "0", "-o", "/x"}, "--bytes must be a size such as 64M or 1G, not '0'"},
        {{"records", "--bytes", "99"}, "--bytes must have room for a record of 100 bytes, not '99'"},
        {{"records", "--bytes", "1M", "-n", "4"}, "the size is given twice"},
        {{"text", "-n", "4"}, "--records is an option of 'gen records'"},
        {{"text", "--ascii"}, "--ascii is an option of 'gen records'"},
        {{"records", "--words", "4"}, "--words is an option of 'gen text'"},
        {{"records", "--skew", "1"}, "--skew is an option of 'gen text'"},
        {{"text", "--skew", "-1"}, "--skew must be a number from 0 to 4, not '-1'"},
        {{"text", "--skew", "4.1"}, "--skew must be a number from 0 to 4, not '4.1'"},
        {{"text", "--words", "0"}, "--words must be a whole number from 1 to 4194304, not '0'"},
        {{"text", "--words", "4194305"}, "--words must be a whole number from 1 to 4194304, not '4194305'"},
        {{"text", "--seed", "-1"}, "--seed must be a whole number from 0 to 9223372036854775807, not '-1'"},
        {{"text", "--seed"}, "option --seed needs a value"},
        {{"text", "--loud"}, "unknown option --loud of 'gen'"},
        {{"text", "-b", "1", "-o", "/x", "more"}, "'gen text' does not know what to do with 'more'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char said[1024];
        assert_int_equal(command(said, sizeof said, cases[i].args), TRM_EXIT_USAGE);
        char expected[300];
        snprintf(expected, sizeof expected, "trireme: error: %s (see trireme gen --help)\n",
                 cases[i].sentence);
        assert_string_equal(said, expected);
    }
    char said[1024];
    assert_int_equal(
        command(said, sizeof said, (const char *const[]){"text", "-b", "1", "-o", "/no/such/place", NULL}),
        TRM_EXIT_REFUSED);
    assert_non_null(strstr(said, "/no/such/place"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_seed_is_a_text),
        cmocka_unit_test(lines_are_of_words),
        cmocka_unit_test(words_differ),
        cmocka_unit_test(words_follow_the_law),
        cmocka_unit_test(records_are_numbered),
        cmocka_unit_test(files_are_whole),
        cmocka_unit_test(a_full_disk_leaves_nothing),
        cmocka_unit_test(wrong_command_lines_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
