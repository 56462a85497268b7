/* Names in the output and state directories. */
#include "jobs/names.h"

#include <stdarg.h>
#include <stdio.h>

static trm_status name_format(char *out, size_t out_bytes, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static trm_status name_format(char *out, size_t out_bytes, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(out, out_bytes, format, args);
    va_end(args);
    return len >= 0 && (size_t)len < out_bytes ? TRM_OK : TRM_ELIMIT;
}

trm_status trm_part_name(const char *output_dir, uint32_t task, bool gzip, char *out, size_t out_bytes)
{
    return name_format(out, out_bytes, "%s/part-%05u%s", output_dir, task, gzip ? ".gz" : "");
}

trm_status trm_part_attempt_name(const char *output_dir, uint32_t task, uint64_t epoch, uint32_t attempt,
                                 char *out, size_t out_bytes)
{
    return name_format(out, out_bytes, "%s/" TRM_STATE_DIR_NAME "/" TRM_ATTEMPTS_NAME "/part-%05u.e%llu.a%u",
                       output_dir, task, (unsigned long long)epoch, attempt);
}
