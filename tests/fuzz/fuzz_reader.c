/* Input files of any bytes, read as every format: as they are, behind a gzip header, and as a gzip
 * file whose damage is one turned byte. Plain lines are those that memchr finds, wherever splits and
 * buffers end; the rest is read to its end or refused as an input, within its memory.
 *
 * And the same bytes as a list of inputs (@LIST). */
#include "config.h" /* memfd_create, before any header of the system */

#include "workers/reader.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

#define BYTES_MAX 65536u
#define LINE_MAX_BYTES 200u

static void check(bool holds)
{
    if (!holds)
        abort();
}

/* An open file without a name, and the path that leads to it. */
static int hold(const void *bytes, size_t len, char path[64])
{
    int fd = memfd_create("input", MFD_CLOEXEC);
    check(fd >= 0 && (len == 0 || write(fd, bytes, len) == (ssize_t)len));
    snprintf(path, 64, "/proc/self/fd/%d", fd);
    return fd;
}

/* The next line of `text` from *at on; NULL behind the last. */
static const uint8_t *next_line(const uint8_t *text, size_t len, size_t *at, size_t *line_len)
{
    if (*at >= len)
        return NULL;
    const uint8_t *line = text + *at, *newline = memchr(line, '\n', len - *at);
    *line_len = newline ? (size_t)(newline - line) : len - *at;
    *at += *line_len + 1;
    return line;
}

static trm_status read_task(trm_record_reader *reader, const trm_plan *plan, uint32_t task,
                            const uint8_t *text, size_t len, size_t *at)
{
    trm_err err;
    trm_status status;
    trm_record_reader_begin(reader, plan, task, NULL);
    while ((status = trm_record_reader_next(reader, &err)) == TRM_OK) {
        const trm_record *record = &reader->record;
        size_t line_len;
        if (!text)
            continue;
        check(record->offset == *at);
        if (plan->input == TRM_INPUT_BLOCKS) {
            check(record->len > 0 && record->len <= len - *at &&
                  memcmp(text + *at, record->data, record->len) == 0);
            *at += record->len;
            check(record->data[record->len - 1] == '\n' || *at == len);
            continue;
        }
        const uint8_t *line = next_line(text, len, at, &line_len);
        check(line && line_len == record->len && memcmp(line, record->data, line_len) == 0);
    }
    trm_record_reader_end(reader);
    return status;
}

/* `text`: what must be read as lines, if the plan's file is to be taken for plain. */
static void read_all(const trm_plan *plan, size_t buffer_bytes, const uint8_t *text, size_t len)
{
    trm_record_reader reader;
    trm_record_reader_init(&reader, LINE_MAX_BYTES, 1 << 16, 1 << 20);
    reader.buffer_bytes = buffer_bytes;
    trm_status status = TRM_EOF;
    size_t at = 0;
    for (uint32_t task = 0; task < plan->tasks && status == TRM_EOF; task++)
        status = read_task(&reader, plan, task, text, len, &at);
    check(status == TRM_EOF || status == TRM_EINPUT || status == TRM_ELIMIT);
    if (text && status == TRM_EOF)
        check(at >= len);
    if (text && status == TRM_ELIMIT) {
        size_t line_len = 0;
        check(next_line(text, len, &at, &line_len) && line_len > LINE_MAX_BYTES); /* of a block, its first */
    }
    trm_record_reader_close(&reader);
}

static void as_format(const char *input_name, trm_input input, uint64_t record_bytes, uint64_t split_bytes,
                      size_t buffer_bytes, const uint8_t *text, size_t len)
{
    char *inputs[] = {(char *)(uintptr_t)input_name};
    trm_plan plan;
    trm_err err;
    trm_traits traits = {.name = "t", .input = input, .record_bytes = record_bytes};
    trm_spec spec = {.inputs = inputs, .inputs_count = 1, .split_bytes = split_bytes};
    trm_status status = trm_plan_build(&plan, &spec, &traits, 1, 64u << 20, &err);
    if (status != TRM_OK) {
        check(status == TRM_EINPUT || status == TRM_EUSAGE);
        return;
    }
    bool plain = plan.files_count == 1 && !plan.files[0].gzip;
    read_all(&plan, buffer_bytes, plain ? text : NULL, len);
    trm_plan_close(&plan);
}

static void as_file(const uint8_t *bytes, size_t len, const uint8_t shape[3])
{
    char path[64];
    int fd = hold(bytes, len, path);
    uint64_t split = 1 + shape[0] % 64;
    size_t buffer = 16u << shape[1] % 8;
    as_format(path, TRM_INPUT_LINES, 0, split, buffer, bytes, len);
    as_format(path, TRM_INPUT_BLOCKS, 0, split, buffer, bytes, len);
    as_format(path, TRM_INPUT_FIXED, 1 + shape[2] % 16, split, buffer, NULL, 0);
    as_format(path, TRM_INPUT_FILES, 0, 0, buffer, NULL, 0);
    close(fd);
}

/* Members with the right trailers; then one byte is another. */
static void as_gzip(const uint8_t *bytes, size_t len, const uint8_t shape[3])
{
    static uint8_t packed[BYTES_MAX + 1024];
    z_stream stream = {0};
    check(deflateInit2(&stream, 1 + shape[0] % 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    stream.next_in = (uint8_t *)(uintptr_t)bytes;
    stream.avail_in = (uInt)len;
    stream.next_out = packed;
    stream.avail_out = sizeof packed;
    check(deflate(&stream, Z_FINISH) == Z_STREAM_END);
    size_t packed_len = sizeof packed - stream.avail_out;
    deflateEnd(&stream);
    packed[(shape[1] | shape[2] << 8) % packed_len] ^= shape[0];
    as_file(packed, packed_len, shape);
}

static void as_stored_gzip(const uint8_t *bytes, size_t len, const uint8_t shape[3])
{
    static uint8_t file[BYTES_MAX + 10] = {0x1f, 0x8b, 8};
    memcpy(file + 10, bytes, len);
    as_file(file, len + 10, shape);
}

/* No name in it may lead out of what a fuzzer should touch: relative ones only, without "..". */
static void as_list(const uint8_t *bytes, size_t len)
{
    char path[64], name[72];
    for (size_t i = 0; i < len; i++)
        if (bytes[i] == '/' || bytes[i] == '.')
            return;
    int fd = hold(bytes, len, path);
    snprintf(name, sizeof name, "@%s", path);
    as_format(name, TRM_INPUT_LINES, 0, 0, 4096, NULL, 0);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len < 4 || len > BYTES_MAX)
        return 0;
    const uint8_t *shape = bytes + 1, *text = bytes + 4;
    switch (bytes[0] % 4) {
    case 0:
        as_file(text, len - 4, shape);
        break;
    case 1:
        as_gzip(text, len - 4, shape);
        break;
    case 2:
        as_stored_gzip(text, len - 4, shape);
        break;
    default:
        as_list(text, len - 4);
    }
    return 0;
}
