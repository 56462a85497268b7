/* Whole files as values: each is emitted with the byte that it begins with as its key, and comes out
 * again as it was, behind how many there were of the key. For values of many megabytes. */
#include "jobs/trireme.h"

#include <stdio.h>

static int map(trm_task *task, const trm_record *file)
{
    if (file->len)
        trm_emit(task, file->data, 1, file->data, file->len);
    return 0;
}

static int reduce(trm_task *task, const void *key, size_t key_len, trm_values *values)
{
    const void *value;
    size_t len;
    char text[32];
    unsigned count = 0;
    while (trm_values_next(values, &value, &len)) {
        trm_emit(task, "", 0, value, len);
        count++;
    }
    int text_len = snprintf(text, sizeof text, "%u\n", count);
    trm_emit(task, key, key_len, text, (size_t)text_len);
    return 0;
}

TRM_EXPORT_JOB = {TRM_JOB_HEADER, .name = "whole",  .help = "whole files as values", .input = TRM_INPUT_FILES,
                  .map = map,     .reduce = reduce, .output = TRM_OUTPUT_RAW};
