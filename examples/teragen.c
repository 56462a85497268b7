/* teragen: the 100-byte records of the sort benchmark, laid out as its gensort does: a random
 * key of 10 bytes · 00 11 · the record's number, 32 hexadecimal digits · 88 99 AA BB · filler
 * of 48 · CC DD EE FF.
 *
 * A job without input: each task makes its share of the records. Record n is the same however
 * many tasks there are. The counters say what teravalidate must find.
 */
#include <trireme.h>

#include <string.h>
#include <zlib.h>

#define RECORD_BYTES 100u
#define KEY_BYTES 10u

enum { RECORDS, CHECKSUM };
static const char *const counters[] = {[RECORDS] = "records", [CHECKSUM] = "checksum", NULL};

/* Number n of the sequence of splitmix64 (Steele, Lea, Flood, OOPSLA 2014). */
static uint64_t random_number(uint64_t n)
{
    uint64_t x = (n + 1) * 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

static void make_record(char *out, uint64_t number)
{
    uint64_t high = random_number(2 * number), low = random_number(2 * number + 1);
    for (unsigned i = 0; i < KEY_BYTES; i++)
        out[i] = (char)(i < 8 ? high >> 8 * i : low >> 8 * (i - 8));
    memcpy(out + 10, "\x00\x11", 2);
    for (unsigned i = 0; i < 32; i++)
        out[12 + i] = i < 16 ? '0' : "0123456789ABCDEF"[number >> 4 * (31 - i) & 15];
    memcpy(out + 44, "\x88\x99\xaa\xbb", 4);
    for (unsigned i = 0; i < 48; i += 4)
        memset(out + 48 + i, 'A' + (int)((number + i) % 26), 4);
    memcpy(out + 96, "\xcc\xdd\xee\xff", 4);
}

static int map(trm_task *task, const trm_record *record)
{
    uint64_t records = trm_param_size(task, "records"), checksum = 0;
    uint64_t share = records / record->tasks,
             more = records % record->tasks; /* so many tasks make one more */
    uint64_t first = share * record->index + (record->index < more ? record->index : more);
    uint64_t count = share + (record->index < more);
    for (uint64_t number = first; number < first + count; number++) {
        char out[RECORD_BYTES];
        make_record(out, number);
        checksum += crc32(0, (const Bytef *)out, RECORD_BYTES);
        trm_emit(task, out, KEY_BYTES, out + KEY_BYTES, RECORD_BYTES - KEY_BYTES);
    }
    trm_count(task, RECORDS, count);
    trm_count(task, CHECKSUM, checksum);
    return 0;
}

static const trm_param params[] = {
    {.name = "records", .type = TRM_PARAM_SIZE, .help = "how many to make, of 100 bytes each"}, {0}};

TRM_EXPORT_JOB = {
    TRM_JOB_HEADER,   .name = "teragen",        .help = "makes the 100-byte records of the sort benchmark",
    .params = params, .counters = counters,     .input = TRM_INPUT_NONE,
    .map = map,       .output = TRM_OUTPUT_RAW,
};
