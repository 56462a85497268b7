/* jobs/plan and jobs/inputs: files are found in order, splits cover everything once. */
#include "jobs/plan.h"

#include "runtime/crc32c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/temp_tree.h"

static const uint64_t big_memory = 1ull << 30;
static const trm_traits lines = {.name = "t", .input = TRM_INPUT_LINES, .folds = true};

static temp_tree tree;

static int make_tree(void **state)
{
    temp_tree_init(&tree);
    return 0;
}

static int remove_tree(void **state)
{
    temp_tree_close(&tree);
    return 0;
}

static trm_status build(trm_plan *plan, const trm_traits *traits, uint64_t split_bytes, trm_err *err,
                        unsigned count, char **inputs)
{
    trm_spec spec = {.inputs = inputs, .inputs_count = count, .split_bytes = split_bytes};
    spec.output_dir = temp_tree_name(&tree, "out");
    return trm_plan_build(plan, &spec, traits, 4, big_memory, err);
}

static trm_status build_one(trm_plan *plan, const trm_traits *traits, uint64_t split_bytes, trm_err *err,
                            const char *input)
{
    char *inputs[] = {(char *)input};
    return build(plan, traits, split_bytes, err, 1, inputs);
}

static void expect_files(const trm_plan *plan, unsigned count, const char *const *names)
{
    for (unsigned i = 0; i < plan->files_count && i < count; i++) {
        const char *path = plan->files[i].path;
        assert_true(strncmp(path, tree.path, strlen(tree.path)) == 0);
        assert_string_equal(path + strlen(tree.path) + 1, names[i]);
    }
    assert_int_equal(plan->files_count, count);
}

static void expect_refusal(const trm_traits *traits, trm_status status, const char *input,
                           const char *sentence)
{
    trm_plan plan;
    trm_err err = {""};
    assert_int_equal(build_one(&plan, traits, 0, &err, input), status);
    if (!strstr(err.text, sentence))
        fail_msg("'%s' does not say '%s'", err.text, sentence);
}

/* ---- Inputs ---------------------------------------------------------------------- */

static void a_directory_is_walked_in_order(void **state)
{
    temp_tree_dir(&tree, "d");
    temp_tree_dir(&tree, "d/b");
    temp_tree_dir(&tree, "d/.hidden");
    temp_tree_text(&tree, "d/.hidden/x", "no");
    temp_tree_text(&tree, "d/_SUCCESS", "no");
    temp_tree_text(&tree, "d/.x", "no");
    temp_tree_text(&tree, "d/c", "33");
    temp_tree_text(&tree, "d/b/z", "22");
    temp_tree_text(&tree, "d/b/_y", "2");
    temp_tree_text(&tree, "d/a", "1");
    temp_tree_text(&tree, "d/b.", "4");
    assert_int_equal(symlink("a", temp_tree_name(&tree, "d/link")), 0);
    assert_int_equal(symlink("..", temp_tree_name(&tree, "d/loop")), 0);
    assert_int_equal(symlink("d/a", temp_tree_name(&tree, "outer")), 0);
    trm_plan plan;
    trm_err err;
    char *inputs[] = {temp_tree_name(&tree, "d//"), temp_tree_name(&tree, "outer")};
    assert_int_equal(build(&plan, &lines, 0, &err, 2, inputs), TRM_OK);
    static const char *const names[] = {"d/a", "d/b/_y", "d/b/z", "d/b.", "d/c", "outer"};
    expect_files(&plan, 6, names);
    assert_int_equal(plan.bytes, 8);
    assert_int_equal(plan.files[4].begin, 5);
    trm_plan_close(&plan);
}

static void patterns_and_lists(void **state)
{
    temp_tree_text(&tree, "p2", "1");
    temp_tree_text(&tree, "p10", "1");
    temp_tree_text(&tree, "p*", "1");
    temp_tree_dir(&tree, "pd");
    temp_tree_text(&tree, "pd/in", "1");
    trm_plan plan;
    trm_err err;
    assert_int_equal(build_one(&plan, &lines, 0, &err, temp_tree_name(&tree, "p[0-9d]*")), TRM_OK);
    static const char *const sorted[] = {"p10", "p2", "pd/in"};
    expect_files(&plan, 3, sorted);
    trm_plan_close(&plan);
    assert_int_equal(build_one(&plan, &lines, 0, &err, temp_tree_name(&tree, "p*")), TRM_OK);
    static const char *const literal[] = {"p*"};
    expect_files(&plan, 1, literal);
    trm_plan_close(&plan);

    char text[4096], list[1024];
    snprintf(text, sizeof text, "%s/p2\r\n\n%s/p*\n%s/pd", tree.path, tree.path, tree.path);
    snprintf(list, sizeof list, "@%s", temp_tree_text(&tree, "list", text));
    assert_int_equal(build_one(&plan, &lines, 0, &err, list), TRM_OK);
    static const char *const listed[] = {"p2", "p*", "pd/in"};
    expect_files(&plan, 3, listed);
    trm_plan_close(&plan);
    snprintf(text, sizeof text, "%s/p2\n%s/gone\n", tree.path, tree.path);
    temp_tree_text(&tree, "list", text);
    expect_refusal(&lines, TRM_EINPUT, list, "', line 2: input '");
    temp_tree_text(&tree, "list", "\n\n");
    expect_refusal(&lines, TRM_EINPUT, list, "names no file");
    temp_tree_file(&tree, "list", "/tmp\0x\n", 7);
    expect_refusal(&lines, TRM_EINPUT, list, "line 1: the name holds a byte 0");
}

static void relative_names_become_absolute(void **state)
{
    temp_tree_text(&tree, "here", "1");
    char before[4096];
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(tree.path), 0);
    trm_plan plan;
    trm_err err;
    static const char *const names[] = {"here", "here"};
    char *inputs[] = {"here", ".//./here"};
    trm_status status = build(&plan, &lines, 0, &err, 2, inputs);
    assert_int_equal(chdir(before), 0);
    assert_int_equal(status, TRM_OK);
    expect_files(&plan, 2, names);
    trm_plan_close(&plan);
}

static void wrong_inputs_are_named(void **state)
{
    expect_refusal(&lines, TRM_EINPUT, temp_tree_name(&tree, "missing"), "/missing' is not there");
    expect_refusal(&lines, TRM_EINPUT, temp_tree_name(&tree, "no*thing"), "no input matches '");
    expect_refusal(&lines, TRM_EINPUT, "/dev/null", "input '/dev/null' is neither a file nor a directory");
    expect_refusal(&lines, TRM_EINPUT, "", "empty name");
    expect_refusal(&lines, TRM_EINPUT, "@/nowhere/list",
                   "the list of inputs '/nowhere/list' cannot be read: No such");
    temp_tree_dir(&tree, "empty");
    expect_refusal(&lines, TRM_EINPUT, temp_tree_name(&tree, "empty"), "holds no file");
    expect_refusal(&lines, TRM_EINPUT, temp_tree_text(&tree, "zero", ""), "the input is empty: '");
    temp_tree_dir(&tree, "out");
    expect_refusal(&lines, TRM_EINPUT, temp_tree_text(&tree, "out/part-00000", "x"),
                   "lies in the output directory");
    trm_traits fixed = {.name = "t", .input = TRM_INPUT_FIXED, .record_bytes = 3};
    expect_refusal(&fixed, TRM_EINPUT, temp_tree_text(&tree, "four", "1234"),
                   "four' has 4 bytes, which is not a multiple of the record size 3");
    trm_traits none = {.name = "t", .input = TRM_INPUT_NONE};
    expect_refusal(&none, TRM_EUSAGE, "x", "job 't' takes no input, but 'x' is given");
    trm_plan plan;
    trm_err err;
    assert_int_equal(build(&plan, &lines, 0, &err, 0, NULL), TRM_EUSAGE);
    char *secret = temp_tree_text(&tree, "secret", "1");
    assert_int_equal(chmod(secret, 0), 0);
    if (access(secret, R_OK) != 0) /* not for root */
        expect_refusal(&lines, TRM_EINPUT, secret, "cannot be read: Permission denied");
    char deep[TRM_ERR_TEXT_BYTES * 5];
    memset(deep, 'x', sizeof deep - 1);
    deep[0] = '/';
    deep[sizeof deep - 1] = 0;
    expect_refusal(&lines, TRM_EINPUT, deep, "the path of an input is too long");
}

static void gzip_is_known_by_content(void **state)
{
    temp_tree_text(&tree, "a.gz", "not compressed");
    temp_tree_file(&tree, "b", "\x1f\x8b\x08\0\0\0\0\0\0\3", 10);
    temp_tree_file(&tree, "c", "\x1f\x8b\x08\xff\0\0\0\0\0\3", 10);
    temp_tree_file(&tree, "d", "\x1f\x8b", 2);
    trm_plan plan;
    trm_err err;
    assert_int_equal(build_one(&plan, &lines, 2, &err, tree.path), TRM_OK);
    assert_int_equal(plan.files_count, 4);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(plan.files[i].gzip, i == 1);
    /* 14 plain bytes, 10 that stay together, 12 plain ones. */
    assert_int_equal(plan.tasks, 7 + 1 + 6);
    trm_plan_close(&plan);
}

/* ---- Splits ----------------------------------------------------------------------- */

/* Every byte of every file is in one piece, every file in one at least, each where it may be. */
static void check_cover(const trm_plan *plan)
{
    uint32_t file = 0;
    uint64_t offset = 0;
    bool seen_empty = false;
    for (uint32_t task = 0; task < plan->tasks; task++) {
        trm_piece pieces[3];
        unsigned first = 0, count;
        assert_true(plan->begin[task] < plan->begin[task + 1] || plan->bytes == 0);
        while ((count = trm_plan_pieces(plan, task, first, pieces, 3)) > 0) {
            for (unsigned i = 0; i < count; i++) {
                const trm_plan_file *at = &plan->files[file];
                if (offset == at->bytes && (at->bytes || seen_empty)) {
                    at = &plan->files[++file];
                    offset = 0;
                }
                assert_ptr_equal(pieces[i].file, at);
                assert_int_equal(pieces[i].offset, offset);
                bool whole = at->gzip || plan->input == TRM_INPUT_FILES;
                if (whole)
                    assert_int_equal(pieces[i].bytes, at->bytes);
                if (plan->input == TRM_INPUT_FIXED)
                    assert_int_equal(pieces[i].bytes % plan->record_bytes, 0);
                offset += pieces[i].bytes;
                seen_empty = at->bytes == 0;
            }
            first += count;
        }
        assert_true(first > 0);
    }
    assert_int_equal(file, plan->files_count - 1);
    assert_int_equal(offset, plan->files[file].bytes);
}

static void every_layout_is_covered_once(void **state)
{
    /* Four files of 0 to 6 bytes, made into plans without a disk. */
    static const uint64_t sizes[] = {0, 1, 2, 6};
    char paths[4][1024];
    for (unsigned i = 0; i < 4; i++) {
        char name[16];
        snprintf(name, sizeof name, "size%u", i);
        strcpy(paths[i], temp_tree_name(&tree, "%s", name));
        temp_tree_file(&tree, name, "\x1f\x8b\x08\0\0\0", sizes[i]);
    }
    trm_traits kinds[] = {lines,
                          {.name = "t", .input = TRM_INPUT_FILES},
                          {.name = "t", .input = TRM_INPUT_FIXED, .record_bytes = 1},
                          {.name = "t", .input = TRM_INPUT_FIXED, .record_bytes = 2}};
    for (unsigned layout = 0; layout < 512; layout++) {
        if (layout == 256) /* the largest is no gzip any more */
            temp_tree_text(&tree, "size3", "123456");
        char *inputs[4];
        uint64_t bytes = 0;
        bool even = true;
        for (unsigned i = 0; i < 4; i++) {
            unsigned which = layout >> (2 * i) & 3;
            inputs[i] = paths[which];
            bytes += sizes[which];
            even = even && which != 1;
        }
        for (unsigned kind = 0; kind < 4; kind++) {
            for (uint64_t split = 1; split <= 25 && (bytes || kind == 1) && (kind < 3 || even); split++) {
                trm_plan plan;
                trm_err err;
                if (build(&plan, &kinds[kind], split == 25 ? 0 : split, &err, 4, inputs) != TRM_OK)
                    fail_msg("%s", err.text);
                check_cover(&plan);
                trm_plan_close(&plan);
            }
        }
    }
}

/* A file that takes no room on the disk. */
static char *sparse_file(const char *name, uint64_t bytes)
{
    char *path = temp_tree_text(&tree, name, "");
    assert_int_equal(truncate(path, (off_t)bytes), 0);
    return path;
}

static void split_size_is_chosen(void **state)
{
    trm_plan plan;
    trm_err err;
    char *path = sparse_file("gigabyte", 1ull << 30);
    assert_int_equal(build_one(&plan, &lines, 0, &err, path), TRM_OK); /* 4 executors */
    assert_int_equal(plan.tasks, 4 * (TRM_PLAN_FOLDS_AN_EXECUTOR + 1));
    assert_int_equal(plan.partitions, 4);
    check_cover(&plan);
    for (uint32_t i = 0; i < plan.tasks; i++) { /* the last quarter in halves */
        uint64_t size = i < 12 ? 1u << 26 : 1u << 25;
        assert_in_range(plan.begin[i + 1] - plan.begin[i], size - (1u << 20), size + (1u << 20));
    }
    trm_plan_close(&plan);

    trm_traits maps_only = {.name = "t", .input = TRM_INPUT_LINES, .map_only = true};
    assert_int_equal(build_one(&plan, &maps_only, 0, &err, path), TRM_OK);
    assert_int_equal(plan.tasks, 4 * TRM_PLAN_TASKS_AN_EXECUTOR);
    check_cover(&plan);
    trm_plan_close(&plan);

    trm_traits sorts = {.name = "t", .input = TRM_INPUT_FIXED, .record_bytes = 100};
    trm_spec spec = {.inputs = &path, .inputs_count = 1};
    assert_int_equal(truncate(path, 100 << 20), 0);
    assert_int_equal(trm_plan_build(&plan, &spec, &sorts, 1, 8u << 20, &err), TRM_OK);
    assert_in_range(plan.split_bytes, 3u << 20, 4u << 20);
    check_cover(&plan);
    trm_plan_close(&plan);

    assert_int_equal(truncate(path, 100), 0);
    assert_int_equal(trm_plan_build(&plan, &spec, &sorts, 1, 8u << 20, &err), TRM_OK);
    assert_int_equal(plan.tasks, 1);
    trm_plan_close(&plan);
}

static void absurd_numbers_are_refused(void **state)
{
    trm_plan plan;
    trm_err err;
    char *path = sparse_file("terabyte", 1ull << 40);
    assert_int_equal(build_one(&plan, &lines, 1, &err, path), TRM_EUSAGE);
    assert_non_null(strstr(err.text, "raise --split-size"));
    trm_spec spec = {.tasks = 1ull << 40};
    trm_spec both = {.tasks = 2, .inputs = &path, .inputs_count = 1};
    assert_int_equal(trm_plan_build(&plan, &both, &lines, 4, big_memory, &err), TRM_EUSAGE);
    assert_non_null(strstr(err.text, "--tasks 2 is for jobs without input"));
    trm_traits none = {.name = "t", .input = TRM_INPUT_NONE};
    assert_int_equal(trm_plan_build(&plan, &spec, &none, 4, big_memory, &err), TRM_EUSAGE);
    spec.tasks = 1000000;
    spec.partitions = 1u << 31;
    assert_int_equal(trm_plan_build(&plan, &spec, &none, 4, big_memory, &err), TRM_EUSAGE);
    spec.partitions = 3;
    assert_int_equal(trm_plan_build(&plan, &spec, &none, 4, big_memory, &err), TRM_OK);
    assert_int_equal(plan.tasks, 1000000);
    assert_int_equal(plan.partitions, 3);
    assert_null(plan.begin);
    trm_piece piece;
    assert_int_equal(trm_plan_pieces(&plan, 999999, 0, &piece, 1), 0);
    trm_plan_close(&plan);
}

/* ---- The encoding ------------------------------------------------------------------ */

static void expect_same(const trm_plan *a, const trm_plan *b)
{
    assert_int_equal(a->input, b->input);
    assert_int_equal(a->record_bytes, b->record_bytes);
    assert_int_equal(a->split_bytes, b->split_bytes);
    assert_int_equal(a->bytes, b->bytes);
    assert_int_equal(a->files_count, b->files_count);
    assert_int_equal(a->tasks, b->tasks);
    assert_int_equal(a->partitions, b->partitions);
    for (uint32_t i = 0; i < a->files_count; i++) {
        assert_string_equal(a->files[i].path, b->files[i].path);
        assert_int_equal(a->files[i].bytes, b->files[i].bytes);
        assert_int_equal(a->files[i].begin, b->files[i].begin);
        assert_int_equal(a->files[i].mtime_ns, b->files[i].mtime_ns);
        assert_int_equal(a->files[i].gzip, b->files[i].gzip);
    }
    assert_int_equal(a->begin == NULL, b->begin == NULL);
    if (a->begin)
        assert_memory_equal(a->begin, b->begin, (a->tasks + 1) * sizeof *a->begin);
}

static void a_plan_is_saved_and_loaded(void **state)
{
    temp_tree_text(&tree, "one", "hello\nworld\n");
    temp_tree_text(&tree, "two", "x");
    temp_tree_text(&tree, "two-and-a-half", "");
    trm_plan plan, back;
    trm_err err;
    uint32_t crc;
    char *inputs[] = {temp_tree_name(&tree, "one"), temp_tree_name(&tree, "two"),
                      temp_tree_name(&tree, "two-and-a-half")};
    assert_int_equal(build(&plan, &lines, 5, &err, 3, inputs), TRM_OK);
    assert_int_equal(trm_plan_save(&plan, trm_fs_posix(), tree.path, &crc, &err), TRM_OK);
    assert_int_equal(trm_plan_load(&back, trm_fs_posix(), tree.path, crc, &err), TRM_OK);
    expect_same(&plan, &back);
    trm_plan_close(&back);
    assert_int_equal(trm_plan_load(&back, trm_fs_posix(), tree.path, crc + 1, &err), TRM_ECORRUPT);
    assert_non_null(strstr(err.text, "is not the plan of this job"));
    trm_plan_close(&plan);

    trm_traits none = {.name = "t", .input = TRM_INPUT_NONE, .map_only = true};
    trm_spec spec = {.tasks = 7};
    assert_int_equal(trm_plan_build(&plan, &spec, &none, 4, big_memory, &err), TRM_OK);
    assert_int_equal(trm_plan_save(&plan, trm_fs_posix(), tree.path, &crc, &err), TRM_OK);
    assert_int_equal(trm_plan_load(&back, trm_fs_posix(), tree.path, crc, &err), TRM_OK);
    expect_same(&plan, &back);
    assert_int_equal(back.partitions, 0);
    trm_plan_close(&plan);
    trm_plan_close(&back);
}

static void every_cut_and_flip_is_noticed(void **state)
{
    trm_plan plan, back;
    trm_err err;
    temp_tree_text(&tree, "one", "hello\nworld\n");
    assert_int_equal(build_one(&plan, &lines, 5, &err, temp_tree_name(&tree, "one")), TRM_OK);
    trm_writer out;
    trm_writer_init(&out);
    trm_plan_encode(&plan, &out);
    for (size_t len = 0; len < out.len; len++)
        assert_int_equal(trm_plan_decode(&back, out.data, len, &err), TRM_ECORRUPT);
    for (size_t bit = 0; bit < 8 * out.len; bit++) {
        out.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(trm_plan_decode(&back, out.data, out.len, &err), TRM_OK);
        /* With a checksum that fits, too: an error or a plan, and no more. */
        if (bit / 8 < out.len - 4) {
            uint32_t kept = trm_load_u32(out.data + out.len - 4);
            trm_store_u32(out.data + out.len - 4, trm_crc32c(0, out.data, out.len - 4));
            if (trm_plan_decode(&back, out.data, out.len, &err) == TRM_OK)
                trm_plan_close(&back);
            trm_store_u32(out.data + out.len - 4, kept);
        }
        out.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(trm_plan_decode(&back, out.data, out.len, &err), TRM_OK);
    expect_same(&plan, &back);
    trm_plan_close(&back);
    trm_plan_close(&plan);
    trm_writer_close(&out);
}

#define IN_TREE(test) cmocka_unit_test_setup_teardown(test, make_tree, remove_tree)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_TREE(a_directory_is_walked_in_order), IN_TREE(patterns_and_lists),
        IN_TREE(relative_names_become_absolute), IN_TREE(wrong_inputs_are_named),
        IN_TREE(gzip_is_known_by_content),       IN_TREE(every_layout_is_covered_once),
        IN_TREE(split_size_is_chosen),           IN_TREE(absurd_numbers_are_refused),
        IN_TREE(a_plan_is_saved_and_loaded),     IN_TREE(every_cut_and_flip_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
