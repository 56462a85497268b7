/* teravalidate: whether terasort's parts are sorted, each and one after the other, and what they
 * hold: how many records, and the sum of their CRC-32s, which teragen has counted too. A record
 * that is missing, twice there or changed changes one of the two.
 *
 * A map goes through its records and emits one summary of each file's piece: its first and last
 * key, its count, checksum and disorder. All of them have one key, so that one reduce sees them;
 * it puts them in the order of path and offset and looks at what lies between two of them.
 */
#include <trireme.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define RECORD_BYTES 100u
#define KEY_BYTES 10u

enum { RECORDS, CHECKSUM, ERRORS, DUPLICATE_KEYS };
static const char *const counters[] = {[RECORDS] = "records",
                                       [CHECKSUM] = "checksum",
                                       [ERRORS] = "errors",
                                       [DUPLICATE_KEYS] = "duplicate_keys",
                                       NULL};

typedef struct summary {
    uint64_t offset; /* in the file, of the first record */
    uint64_t records, checksum, duplicate_keys;
    uint64_t errors;   /* records below the one before */
    uint64_t error_at; /* where the first of them begins in its file */
    char first[KEY_BYTES], last[KEY_BYTES];
    uint32_t path_len;
    char path[4096]; /* only path_len bytes of it travel */
} summary;
#define SUMMARY_HEAD_BYTES offsetof(summary, path)

/* ---- map --------------------------------------------------------------------------------- */

static summary piece; /* of the records since setup or the begin of a file; none: records is 0 */

static int setup(trm_task *task)
{
    memset(&piece, 0, SUMMARY_HEAD_BYTES);
    return 0;
}

static void emit_piece(trm_task *task)
{
    if (piece.records)
        trm_emit(task, "", 0, &piece, SUMMARY_HEAD_BYTES + piece.path_len);
    memset(&piece, 0, SUMMARY_HEAD_BYTES);
}

static int begin_piece(trm_task *task, const trm_record *record)
{
    size_t len = strlen(record->path);
    if (len > sizeof piece.path)
        return trm_task_fail(task, "the path is too long: %s", record->path);
    piece.offset = record->offset;
    piece.path_len = (uint32_t)len;
    memcpy(piece.path, record->path, len);
    memcpy(piece.first, record->data, KEY_BYTES);
    return 0;
}

static int map(trm_task *task, const trm_record *record)
{
    if (piece.records && record->offset == 0) /* another file */
        emit_piece(task);
    if (piece.records == 0 && begin_piece(task, record))
        return -1;
    int order = piece.records ? memcmp(piece.last, record->data, KEY_BYTES) : -1;
    if (order > 0 && piece.errors++ == 0)
        piece.error_at = record->offset;
    piece.duplicate_keys += order == 0;
    piece.records++;
    piece.checksum += crc32(0, (const Bytef *)record->data, RECORD_BYTES);
    memcpy(piece.last, record->data, KEY_BYTES);
    return 0;
}

static int cleanup(trm_task *task)
{
    emit_piece(task);
    return 0;
}

/* ---- reduce ------------------------------------------------------------------------------ */

static summary *pieces; /* of all files; grows */
static size_t pieces_count, pieces_room;

static int take_piece(trm_task *task, const void *value, size_t value_len)
{
    if (pieces_count == pieces_room) {
        size_t room = pieces_room ? pieces_room * 2 : 64;
        summary *more = realloc(pieces, room * sizeof *more);
        if (!more)
            return trm_task_fail(task, "no memory for the summaries of %zu pieces", room);
        pieces = more;
        pieces_room = room;
    }
    memcpy(&pieces[pieces_count++], value, value_len);
    return 0;
}

static int in_place(const void *a, const void *b)
{
    const summary *x = a, *y = b;
    uint32_t len = x->path_len < y->path_len ? x->path_len : y->path_len;
    int order = memcmp(x->path, y->path, len);
    if (order == 0)
        order = (x->path_len > y->path_len) - (x->path_len < y->path_len);
    return order ? order : (x->offset > y->offset) - (x->offset < y->offset);
}

static void emit_line(trm_task *task, const char *name, const char *text)
{
    trm_emit(task, name, strlen(name), text, strlen(text));
}

static void emit_error(trm_task *task, const summary *at, uint64_t offset)
{
    char where[sizeof at->path + 64];
    snprintf(where, sizeof where, "%.*s at byte %" PRIu64, (int)at->path_len, at->path, offset);
    emit_line(task, "out_of_order", where);
}

/* Adds all pieces up in the first, and what is wrong between them. */
static summary add_up(trm_task *task)
{
    summary all = pieces[0];
    for (size_t i = 0; i < pieces_count; i++) {
        const summary *at = &pieces[i];
        if (at->errors)
            emit_error(task, at, at->error_at);
        if (i == 0)
            continue;
        int order = memcmp(at[-1].last, at->first, KEY_BYTES);
        if (order > 0)
            emit_error(task, at, at->offset);
        all.errors += at->errors + (order > 0);
        all.duplicate_keys += at->duplicate_keys + (order == 0);
        all.records += at->records;
        all.checksum += at->checksum;
    }
    return all;
}

static int judge(trm_task *task, const summary *all)
{
    uint64_t records = trm_param_size(task, "records");
    const char *checksum = trm_param_string(task, "checksum");
    if (all->errors)
        return trm_task_fail(task, "%" PRIu64 " records are out of order", all->errors);
    if (records && records != all->records)
        return trm_task_fail(task, "there are %" PRIu64 " records, not %" PRIu64, all->records, records);
    if (*checksum && strtoull(checksum, NULL, 0) != all->checksum)
        return trm_task_fail(task, "the checksum is %" PRIu64 ", not %s", all->checksum, checksum);
    return 0;
}

static void emit_number(trm_task *task, unsigned counter, uint64_t number)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRIu64, number);
    emit_line(task, counters[counter], text);
    trm_count(task, counter, number);
}

static int reduce(trm_task *task, const void *key, size_t key_len, trm_values *values)
{
    (void)key;
    (void)key_len;
    const void *value;
    size_t value_len;
    pieces_count = 0;
    while (trm_values_next(values, &value, &value_len))
        if (take_piece(task, value, value_len))
            return -1;
    qsort(pieces, pieces_count, sizeof *pieces, in_place);
    summary all = add_up(task);
    emit_number(task, RECORDS, all.records);
    emit_number(task, CHECKSUM, all.checksum);
    emit_number(task, ERRORS, all.errors);
    emit_number(task, DUPLICATE_KEYS, all.duplicate_keys);
    return trm_param_bool(task, "strict") ? judge(task, &all) : 0;
}

static const trm_param params[] = {
    {.name = "strict",
     .type = TRM_PARAM_BOOL,
     .value = "false",
     .help = "fail the job when something is wrong"},
    {.name = "records",
     .type = TRM_PARAM_SIZE,
     .value = "0",
     .help = "with strict: how many there must be; 0: any"},
    {.name = "checksum", .type = TRM_PARAM_STRING, .value = "", .help = "with strict: what it must be"},
    {0}};

TRM_EXPORT_JOB = {
    TRM_JOB_HEADER,
    .name = "teravalidate",
    .help = "checks that 100-byte records are sorted, and adds them up",
    .params = params,
    .counters = counters,
    .input = TRM_INPUT_FIXED,
    .record_bytes = RECORD_BYTES,
    .setup = setup,
    .map = map,
    .cleanup = cleanup,
    .reduce = reduce,
};
