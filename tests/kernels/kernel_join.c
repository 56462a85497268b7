/* Joins two inputs, as join(1) does: lines `key value`, those of the files named left… with those
 * of all others, each pair of equal keys a line `key TAB left right`. Values come to a reduce in no
 * particular order; they are sorted, so that the same inputs give the same bytes.
 */
#include "tests/kernels/paced.h"

#include <stdlib.h>
#include <string.h>

#define VALUES_MAX 4096u /* of one key, on both sides together */
#define VALUE_BYTES 64u

enum { PAIRS, UNPAIRED };
static const char *const counters[] = {[PAIRS] = "pairs", [UNPAIRED] = "unpaired", NULL};

static int begin_map(trm_task *task)
{
    return paced_begin(task, 'm');
}

static int map(trm_task *task, const trm_record *record)
{
    char value[VALUE_BYTES];
    const char *slash = strrchr(record->path, '/'), *space = memchr(record->data, ' ', record->len);
    if (!space || record->len > VALUE_BYTES)
        return trm_task_fail(task, "this is no key and value");
    size_t key_len = (size_t)(space - record->data), len = record->len - key_len - 1;
    value[0] = strncmp(slash ? slash + 1 : record->path, "left", 4) == 0 ? 'l' : 'r';
    memcpy(value + 1, space + 1, len);
    trm_emit(task, record->data, key_len, value, len + 1);
    return 0;
}

typedef struct value {
    char bytes[VALUE_BYTES + 1]; /* its side first; terminated */
} value;

static value values_of_key[VALUES_MAX];

static int compare_values(const void *a, const void *b)
{
    return strcmp(((const value *)a)->bytes, ((const value *)b)->bytes);
}

/* All of the left side, then all of the right one. Returns how many. */
static size_t sort_values(trm_task *task, trm_values *values)
{
    const void *bytes;
    size_t len, count = 0;
    while (trm_values_next(values, &bytes, &len)) {
        if (count == VALUES_MAX || len > VALUE_BYTES) {
            trm_task_fail(task, "too many values of one key, or one that is too long");
            return 0;
        }
        memcpy(values_of_key[count].bytes, bytes, len);
        values_of_key[count++].bytes[len] = 0;
    }
    qsort(values_of_key, count, sizeof *values_of_key, compare_values);
    return count;
}

static int reduce(trm_task *task, const void *key, size_t key_len, trm_values *values)
{
    if (paced_begin_reduce(task))
        return -1;
    char line[2 * VALUE_BYTES + 2];
    size_t lefts = 0, count = sort_values(task, values);
    if (!count)
        return -1;
    while (lefts < count && values_of_key[lefts].bytes[0] == 'l')
        lefts++;
    for (size_t left = 0; left < lefts; left++)
        for (size_t right = lefts; right < count; right++) {
            int len = snprintf(line, sizeof line, "%s %s", values_of_key[left].bytes + 1,
                               values_of_key[right].bytes + 1);
            trm_emit(task, key, key_len, line, (size_t)len);
        }
    trm_count(task, PAIRS, lefts * (count - lefts));
    trm_count(task, UNPAIRED, lefts == 0 || lefts == count ? count : 0);
    return 0;
}

static const trm_param params[] = {PACED_TRACE, PACED_PACE, {0}};

PACED_EXPORT_JOB = {TRM_JOB_HEADER,     .name = "join", .params = params,     .counters = counters,
                    .setup = begin_map, .map = map,     .cleanup = paced_end, .reduce = reduce};
