/* workers/reader: no record lost, doubled or torn, wherever splits and buffers end. */
#include "workers/reader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <zlib.h>

#include "tests/unit/temp_tree.h"

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

typedef struct setting {
    trm_input input;
    uint64_t record_bytes, split_bytes;
    size_t buffer_bytes;
    uint64_t line_bytes_max, record_bytes_max, memory_bytes;
} setting;

static setting usual(trm_input input)
{
    return (setting){.input = input,
                     .buffer_bytes = TRM_READER_BUFFER_BYTES,
                     .line_bytes_max = 1u << 20,
                     .record_bytes_max = 1u << 20,
                     .memory_bytes = 8u << 20};
}

static void plan_files(trm_plan *plan, const setting *with, unsigned count, char **paths)
{
    trm_err err;
    trm_traits traits = {.name = "t", .input = with->input, .record_bytes = with->record_bytes};
    trm_spec spec = {.inputs = paths, .inputs_count = count, .split_bytes = with->split_bytes};
    if (trm_plan_build(plan, &spec, &traits, 1, 64u << 20, &err) != TRM_OK)
        fail_msg("%s", err.text);
}

static void put_record(trm_writer *out, uint32_t file, uint64_t offset, const char *text, size_t len)
{
    char head[64];
    snprintf(head, sizeof head, "%u:%llu=", file, (unsigned long long)offset);
    trm_put_bytes(out, head, strlen(head));
    trm_put_bytes(out, text, len);
    trm_put_u8(out, ';');
}

/* The lines of a text, which begins at this offset. */
static void put_lines(trm_writer *out, uint32_t file, uint64_t offset, const char *text, size_t len)
{
    for (size_t at = 0; at < len;) {
        const char *newline = memchr(text + at, '\n', len - at);
        size_t line = newline ? (size_t)(newline - text) - at : len - at;
        put_record(out, file, offset + at, text + at, line);
        at += line + 1;
    }
}

/* What is behind a record can be read, and is not always nothing. */
static void read_pad(const trm_record *record)
{
    static volatile char seen;
    for (size_t i = 0; i < TRM_RECORD_PAD_BYTES; i++)
        seen = record->data[record->len + i];
    (void)seen;
}

/* Blocks end where lines do, but for the last of a file. */
static void expect_whole_lines(const trm_plan *plan, const trm_record *record, uint32_t file)
{
    assert_true(record->len > 0);
    if (record->data[record->len - 1] != '\n' && !plan->files[file].gzip)
        assert_int_equal(record->offset + record->len, plan->files[file].bytes);
}

/* All records of all tasks in order, each behind its file and offset: "0:5=text;". */
static trm_status read_plan(const trm_plan *plan, const setting *with, trm_writer *out, trm_err *err)
{
    trm_record_reader reader;
    trm_board board = {0};
    trm_record_reader_init(&reader, with->line_bytes_max, with->record_bytes_max, with->memory_bytes);
    reader.buffer_bytes = with->buffer_bytes;
    trm_status status = TRM_OK;
    uint64_t bytes_in = 0;
    for (uint32_t task = 0; task < plan->tasks && status == TRM_OK; task++) {
        trm_record_reader_begin(&reader, plan, task, &board);
        uint64_t records = 0;
        while ((status = trm_record_reader_next(&reader, err)) == TRM_OK) {
            const trm_record *record = &reader.record;
            uint32_t file = 0;
            while (plan->files_count && strcmp(plan->files[file].path, record->path) != 0)
                file++;
            if (with->input == TRM_INPUT_BLOCKS) {
                expect_whole_lines(plan, record, file);
                put_lines(out, file, record->offset, record->data, record->len);
            } else {
                put_record(out, file, record->offset, record->data, record->len);
            }
            read_pad(record);
            records++;
            assert_int_equal(record->index, task);
            assert_int_equal(record->tasks, plan->tasks);
            assert_int_equal(board.place_offset, record->offset);
            if (plan->files_count)
                assert_string_equal(board.place, record->path);
        }
        trm_record_reader_end(&reader);
        assert_int_equal(reader.records_in, records);
        assert_int_equal(board.records_in, records);
        bytes_in += trm_record_reader_bytes_in(&reader);
        status = status == TRM_EOF ? TRM_OK : status;
    }
    if (status == TRM_OK && plan->files_count && !plan->files[0].gzip)
        assert_int_equal(bytes_in, plan->bytes);
    trm_record_reader_close(&reader);
    return status;
}

static void expect_same(const trm_writer *expected, const trm_writer *got, const char *what)
{
    if (expected->len == got->len && (got->len == 0 || memcmp(expected->data, got->data, got->len) == 0))
        return;
    fail_msg("%s: expected '%.*s', got '%.*s'", what, (int)expected->len, (char *)expected->data,
             (int)got->len, (char *)got->data);
}

/* ---- Lines ------------------------------------------------------------------------- */

static void read_every_way(unsigned count, char **paths, const trm_writer *expected, uint64_t bytes,
                           const char *what)
{
    for (uint64_t i = 0; i < 2 * bytes; i++) {
        static const size_t buffers[] = {1, 2, 3, 5, 4096};
        setting with = usual(i % 2 ? TRM_INPUT_BLOCKS : TRM_INPUT_LINES);
        with.split_bytes = 1 + i / 2;
        trm_plan plan;
        plan_files(&plan, &with, count, paths);
        for (unsigned b = 0; b < 5; b++) {
            trm_writer got = {0};
            trm_err err;
            with.buffer_bytes = buffers[b];
            if (read_plan(&plan, &with, &got, &err) != TRM_OK)
                fail_msg("%s: %s", what, err.text);
            expect_same(expected, &got, what);
            trm_writer_close(&got);
        }
        trm_plan_close(&plan);
    }
}

/* The text of `len` bytes whose newlines are the bits of `bits`. */
static void make_text(char *out, unsigned len, unsigned bits)
{
    for (unsigned i = 0; i < len; i++)
        out[i] = bits >> i & 1 ? '\n' : (char)('a' + i);
    out[len] = 0;
}

static void every_file_at_every_split(void **state)
{
    for (unsigned len = 1; len <= 7; len++) {
        for (unsigned bits = 0; bits < 1u << len; bits++) {
            char text[16], *path;
            make_text(text, len, bits);
            path = temp_tree_text(&tree, "f", text);
            trm_writer expected = {0};
            put_lines(&expected, 0, 0, text, len);
            read_every_way(1, &path, &expected, len, text);
            trm_writer_close(&expected);
        }
    }
}

static void every_pair_of_files_at_every_split(void **state)
{
    char *paths[] = {strdup(temp_tree_name(&tree, "a")), strdup(temp_tree_name(&tree, "b"))};
    for (unsigned pair = 0; pair < 256; pair++) {
        char a[8], b[8];
        unsigned a_len = 1 + (pair >> 3 & 1) * 2, b_len = pair >> 7 ? 3 : 0;
        make_text(a, a_len, pair & 7);
        make_text(b, b_len, pair >> 4 & 7);
        temp_tree_text(&tree, "a", a);
        temp_tree_text(&tree, "b", b);
        trm_writer expected = {0};
        put_lines(&expected, 0, 0, a, a_len);
        put_lines(&expected, 1, 0, b, b_len);
        read_every_way(2, paths, &expected, a_len + b_len, a);
        trm_writer_close(&expected);
    }
    free(paths[0]);
    free(paths[1]);
}

static void carriage_returns_are_kept(void **state)
{
    char *path = temp_tree_text(&tree, "f", "a\r\n\r\nb");
    trm_writer got = {0}, expected = {0};
    setting with = usual(TRM_INPUT_LINES);
    trm_plan plan;
    trm_err err;
    plan_files(&plan, &with, 1, &path);
    assert_int_equal(read_plan(&plan, &with, &got, &err), TRM_OK);
    static const char text[] = "0:0=a\r;0:3=\r;0:5=b;";
    trm_put_bytes(&expected, text, strlen(text));
    expect_same(&expected, &got, "CRLF");
    trm_writer_close(&expected);
    trm_writer_close(&got);
    trm_plan_close(&plan);
}

/* Random lines, some of them larger than buffer and split. */
static void large_files_with_long_lines(void **state)
{
    uint64_t seed = getenv("TRM_TEST_SEED") ? strtoull(getenv("TRM_TEST_SEED"), NULL, 0) : 42;
    print_message("seed %llu: TRM_TEST_SEED=%llu tests/unit/test_reader\n", (unsigned long long)seed,
                  (unsigned long long)seed);
    size_t len = 3u << 20;
    char *text = malloc(len);
    assert_non_null(text);
    for (size_t i = 0, next = 0; i < len; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        if (i == next) {
            text[i] = '\n';
            next = i + 1 + ((seed >> 33) % 50 == 0 ? (seed >> 40) % 700000 : (seed >> 40) % 200);
        } else {
            text[i] = (char)('a' + (seed >> 33) % 26);
        }
    }
    char *path = temp_tree_file(&tree, "f", text, len);
    trm_writer expected = {0};
    put_lines(&expected, 0, 0, text, len);
    static const uint64_t splits[] = {4096, 65536, 100000, 1u << 20, 4u << 20};
    for (unsigned i = 0; i < 10; i++) {
        setting with = usual(i < 5 ? TRM_INPUT_LINES : TRM_INPUT_BLOCKS);
        with.split_bytes = splits[i % 5];
        with.buffer_bytes = i & 1 ? 10000 : TRM_READER_BUFFER_BYTES;
        trm_plan plan;
        trm_err err;
        trm_writer got = {0};
        plan_files(&plan, &with, 1, &path);
        assert_int_equal(read_plan(&plan, &with, &got, &err), TRM_OK);
        assert_int_equal(got.len, expected.len);
        assert_memory_equal(got.data, expected.data, got.len);
        trm_writer_close(&got);
        trm_plan_close(&plan);
    }
    trm_writer_close(&expected);
    free(text);
}

static void expect_error(const setting *with, char *path, trm_status status, const char *sentence)
{
    trm_plan plan;
    trm_err err = {""};
    trm_writer got = {0};
    plan_files(&plan, with, 1, &path);
    assert_int_equal(read_plan(&plan, with, &got, &err), status);
    if (!strstr(err.text, sentence))
        fail_msg("'%s' does not say '%s'", err.text, sentence);
    assert_non_null(strstr(err.text, path));
    trm_writer_close(&got);
    trm_plan_close(&plan);
}

static void limits_are_said(void **state)
{
    setting with = usual(TRM_INPUT_LINES);
    with.line_bytes_max = 3;
    char *path = temp_tree_text(&tree, "f", "abc\nabcd\nabc");
    for (with.buffer_bytes = 1; with.buffer_bytes < 20; with.buffer_bytes++)
        expect_error(&with, path, TRM_ELIMIT, "at byte 4 is longer than 3 bytes: raise --line-max");
    temp_tree_text(&tree, "f", "abc\nabcd"); /* without a newline behind it */
    expect_error(&with, path, TRM_ELIMIT, "at byte 4 is longer than 3 bytes: raise --line-max");
    temp_tree_text(&tree, "f", "abc\nabc"); /* just within it */
    trm_plan plan;
    trm_err err;
    trm_writer got = {0};
    plan_files(&plan, &with, 1, &path);
    assert_int_equal(read_plan(&plan, &with, &got, &err), TRM_OK);
    trm_writer_close(&got);
    trm_plan_close(&plan);

    with = usual(TRM_INPUT_BLOCKS); /* of a line that no block has room for */
    with.line_bytes_max = 3;
    with.buffer_bytes = 4;
    temp_tree_text(&tree, "f", "abc\nabcde\nabc");
    expect_error(&with, path, TRM_ELIMIT, "the line of input");

    with = usual(TRM_INPUT_LINES);
    with.memory_bytes = TRM_READER_BUFFER_BYTES;
    char *long_line = malloc(600000);
    assert_non_null(long_line);
    memset(long_line, 'x', 600000);
    path = temp_tree_file(&tree, "f", long_line, 600000);
    expect_error(&with, path, TRM_ELIMIT, "at byte 0 is longer than 262144 bytes: raise --memory");
    with = usual(TRM_INPUT_FILES);
    with.record_bytes_max = 599999;
    expect_error(&with, path, TRM_ELIMIT,
                 "is larger than the 599999 bytes that a record may have: raise --record-max");
    free(long_line);
}

/* ---- Changed inputs ---------------------------------------------------------------- */

static void changed_inputs_are_named(void **state)
{
    setting with = usual(TRM_INPUT_LINES);
    char *path = temp_tree_text(&tree, "f", "one\ntwo\nthree\n");
    trm_plan plan;
    trm_err err;
    trm_writer got = {0}, expected = {0};
    plan_files(&plan, &with, 1, &path);
    temp_tree_text(&tree, "f", "one\ntwo\nthree\nfour\n"); /* grown: as planned */
    assert_int_equal(read_plan(&plan, &with, &got, &err), TRM_OK);
    put_lines(&expected, 0, 0, "one\ntwo\nthree\n", 14);
    expect_same(&expected, &got, "grown");
    temp_tree_text(&tree, "f", "one\ntwo\nthree");
    assert_int_equal(read_plan(&plan, &with, &got, &err), TRM_EINPUT);
    assert_non_null(strstr(err.text, "has changed: it had 14 bytes when the job was planned, now 13"));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(read_plan(&plan, &with, &got, &err), TRM_EINPUT);
    assert_non_null(strstr(err.text, "has vanished"));
    temp_tree_dir(&tree, "f");
    assert_int_equal(read_plan(&plan, &with, &got, &err), TRM_EINPUT);
    assert_non_null(strstr(err.text, "is not a plain file any more"));
    trm_writer_close(&got);
    trm_writer_close(&expected);
    trm_plan_close(&plan);
}

static void a_file_that_shrinks_while_it_is_read(void **state)
{
    size_t len = 1u << 20;
    char *text = malloc(len);
    assert_non_null(text);
    memset(text, '\n', len);
    char *path = temp_tree_file(&tree, "f", text, len);
    free(text);
    setting with = usual(TRM_INPUT_LINES);
    trm_plan plan;
    trm_err err;
    plan_files(&plan, &with, 1, &path);
    trm_record_reader reader;
    trm_record_reader_init(&reader, 100, 100, 1u << 20);
    trm_record_reader_begin(&reader, &plan, 0, NULL);
    assert_int_equal(trm_record_reader_next(&reader, &err), TRM_OK);
    assert_int_equal(truncate(path, 300000), 0);
    trm_status status;
    while ((status = trm_record_reader_next(&reader, &err)) == TRM_OK)
        continue;
    assert_int_equal(status, TRM_EINPUT);
    assert_non_null(strstr(err.text, "now 300000"));
    trm_record_reader_end(&reader);
    trm_record_reader_close(&reader);
    trm_plan_close(&plan);
}

/* ---- Records, files, none ------------------------------------------------------------ */

static void fixed_records_at_every_split(void **state)
{
    static const char text[] = "abcdefghijklmnopqrstuvwx";
    char *path = temp_tree_text(&tree, "f", text);
    for (unsigned size = 1; size <= 24; size++) {
        if (24 % size)
            continue;
        trm_writer expected = {0};
        for (unsigned at = 0; at < 24; at += size) {
            char head[64];
            snprintf(head, sizeof head, "0:%u=%.*s;", at, (int)size, text + at);
            trm_put_bytes(&expected, head, strlen(head));
        }
        for (unsigned split = 1; split < 26; split++) {
            setting with = usual(TRM_INPUT_FIXED);
            with.record_bytes = size;
            with.split_bytes = split;
            with.buffer_bytes = split % 5 + 1;
            trm_plan plan;
            trm_err err;
            trm_writer got = {0};
            plan_files(&plan, &with, 1, &path);
            assert_int_equal(read_plan(&plan, &with, &got, &err), TRM_OK);
            expect_same(&expected, &got, "fixed");
            trm_writer_close(&got);
            trm_plan_close(&plan);
        }
        trm_writer_close(&expected);
    }
}

static void whole_files(void **state)
{
    char *paths[] = {temp_tree_text(&tree, "a", "hello\n"), temp_tree_text(&tree, "b", ""),
                     temp_tree_text(&tree, "c", "x")};
    for (unsigned buffer = 1; buffer < 10; buffer++) {
        setting with = usual(TRM_INPUT_FILES);
        with.buffer_bytes = buffer;
        with.split_bytes = buffer;
        trm_plan plan;
        trm_err err;
        trm_writer got = {0}, expected = {0};
        plan_files(&plan, &with, 3, paths);
        assert_int_equal(read_plan(&plan, &with, &got, &err), TRM_OK);
        static const char text[] = "0:0=hello\n;1:0=;2:0=x;";
        trm_put_bytes(&expected, text, strlen(text));
        expect_same(&expected, &got, "files");
        trm_writer_close(&got);
        trm_writer_close(&expected);
        trm_plan_close(&plan);
    }
}

static void without_input_there_is_one_record(void **state)
{
    trm_plan plan = {.input = TRM_INPUT_NONE, .tasks = 5};
    setting with = usual(TRM_INPUT_NONE);
    trm_writer got = {0}, expected = {0};
    trm_err err;
    assert_int_equal(read_plan(&plan, &with, &got, &err), TRM_OK);
    static const char text[] = "0:0=;0:0=;0:0=;0:0=;0:0=;";
    trm_put_bytes(&expected, text, strlen(text));
    expect_same(&expected, &got, "none");
    trm_writer_close(&got);
    trm_writer_close(&expected);
}

/* ---- gzip ---------------------------------------------------------------------------- */

static size_t gzip_member(const char *text, size_t len, uint8_t *out, size_t room)
{
    z_stream stream = {0};
    assert_int_equal(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    stream.next_in = (Bytef *)text;
    stream.avail_in = (uInt)len;
    stream.next_out = out;
    stream.avail_out = (uInt)room;
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    room -= stream.avail_out;
    deflateEnd(&stream);
    return room;
}

static void gzip_in_members(void **state)
{
    uint8_t bytes[1024] = {0};
    size_t len = gzip_member("one\ntw", 6, bytes, sizeof bytes);
    len += gzip_member("", 0, bytes + len, sizeof bytes - len);
    len += gzip_member("o\nthree", 7, bytes + len, sizeof bytes - len);
    trm_writer expected = {0};
    put_lines(&expected, 0, 0, "one\ntwo\nthree", 13);
    for (unsigned padding = 0; padding < 40; padding += 13) {
        char *path = temp_tree_file(&tree, "f", bytes, len + padding);
        for (unsigned buffer = 1; buffer < 20; buffer++) {
            setting with = usual(TRM_INPUT_LINES);
            with.buffer_bytes = buffer;
            with.split_bytes = 4;
            trm_plan plan;
            trm_err err;
            trm_writer got = {0};
            plan_files(&plan, &with, 1, &path);
            assert_int_equal(plan.tasks, 1);
            if (read_plan(&plan, &with, &got, &err) != TRM_OK)
                fail_msg("%s", err.text);
            expect_same(&expected, &got, "gzip");
            trm_writer_close(&got);
            trm_plan_close(&plan);
        }
    }
    trm_writer_close(&expected);
}

/* Behind the header every bit counts, but those that fill the last byte before the trailer. */
static void flipped_bits_are_noticed(const char *text, const uint8_t *bytes, size_t len)
{
    uint8_t copy[1024];
    unsigned ignored = 0;
    setting with = usual(TRM_INPUT_LINES);
    trm_writer expected = {0};
    put_lines(&expected, 0, 0, text, strlen(text));
    for (size_t bit = 8 * 10; bit < 8 * len; bit++) {
        memcpy(copy, bytes, len);
        copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
        char *path = temp_tree_file(&tree, "f", copy, len);
        trm_plan plan;
        trm_err err = {""};
        trm_writer got = {0};
        plan_files(&plan, &with, 1, &path);
        trm_status status = read_plan(&plan, &with, &got, &err);
        if (status == TRM_OK) {
            expect_same(&expected, &got, "flipped");
            ignored++;
        } else {
            assert_int_equal(status, TRM_EINPUT);
            assert_non_null(strstr(err.text, path));
        }
        trm_writer_close(&got);
        trm_plan_close(&plan);
    }
    assert_true(ignored < 8);
    trm_writer_close(&expected);
}

static void damaged_gzip_is_named(void **state)
{
    uint8_t bytes[1024], copy[1024];
    static const char text[] = "the quick brown fox\njumps over\nthe lazy dog\n";
    size_t len = gzip_member(text, strlen(text), bytes, sizeof bytes);
    size_t two = len + gzip_member(text, strlen(text), bytes + len, sizeof bytes - len);
    setting with = usual(TRM_INPUT_LINES);
    for (size_t cut = 4; cut < two; cut++)
        if (cut != len)
            expect_error(&with, temp_tree_file(&tree, "f", bytes, cut), TRM_EINPUT,
                         "is truncated: it ends at byte");
    memcpy(copy, bytes, two);
    copy[two] = 'x';
    expect_error(&with, temp_tree_file(&tree, "f", copy, two + 1), TRM_EINPUT, "is truncated");
    memset(copy + two, 'x', 100);
    expect_error(&with, temp_tree_file(&tree, "f", copy, two + 100), TRM_EINPUT, "corrupt at byte");
    memset(copy + two, 0, 50);
    expect_error(&with, temp_tree_file(&tree, "f", copy, two + 100), TRM_EINPUT,
                 "bytes that are no gzip at byte");
    flipped_bits_are_noticed(text, bytes, len);
    with = usual(TRM_INPUT_FIXED);
    with.record_bytes = 20; /* 44 bytes in all */
    expect_error(&with, temp_tree_file(&tree, "f", bytes, len), TRM_EINPUT,
                 "is not a multiple of the record size 20: 4 bytes are left at byte 40");
    with = usual(TRM_INPUT_FILES);
    with.record_bytes_max = 43;
    expect_error(&with, temp_tree_file(&tree, "f", bytes, len), TRM_ELIMIT, "raise --record-max");
}

#define IN_TREE(test) cmocka_unit_test_setup_teardown(test, make_tree, remove_tree)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_TREE(every_file_at_every_split),
        IN_TREE(every_pair_of_files_at_every_split),
        IN_TREE(carriage_returns_are_kept),
        IN_TREE(large_files_with_long_lines),
        IN_TREE(limits_are_said),
        IN_TREE(changed_inputs_are_named),
        IN_TREE(a_file_that_shrinks_while_it_is_read),
        IN_TREE(fixed_records_at_every_split),
        IN_TREE(whole_files),
        IN_TREE(without_input_there_is_one_record),
        IN_TREE(gzip_in_members),
        IN_TREE(damaged_gzip_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
