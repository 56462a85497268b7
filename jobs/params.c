#include "jobs/params.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- Numbers ------------------------------------------------------------------- */

bool trm_parse_int(const char *text, int64_t *out)
{
    if (!isdigit((unsigned char)text[0]) &&
        !((text[0] == '-' || text[0] == '+') && isdigit((unsigned char)text[1])))
        return false;
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || *end)
        return false;
    *out = value;
    return true;
}

bool trm_parse_size(const char *text, uint64_t *out)
{
    if (!isdigit((unsigned char)text[0]))
        return false;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno)
        return false;
    unsigned shift = 0;
    if (*end) {
        static const char units[] = "KMGT";
        const char *unit = strchr(units, toupper((unsigned char)*end));
        if (!unit)
            return false;
        shift = 10 * (unsigned)(unit - units + 1);
        end++;
        if (strcasecmp(end, "") != 0 && strcasecmp(end, "B") != 0 && strcasecmp(end, "iB") != 0)
            return false;
    }
    if (value > UINT64_MAX >> shift)
        return false;
    *out = (uint64_t)value << shift;
    return true;
}

bool trm_parse_duration_ms(const char *text, uint64_t *out)
{
    static const struct {
        const char *name;
        double ms;
    } units[] = {{"ms", 1}, {"s", 1e3}, {"m", 60e3}, {"h", 3600e3}, {"", 1e3}};
    size_t len = strspn(text, "0123456789.");
    char digits[32];
    double value;
    if (len >= sizeof digits)
        return false;
    memcpy(digits, text, len);
    digits[len] = 0;
    if (!trm_parse_double(digits, &value))
        return false;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(text + len, units[i].name) == 0 && value * units[i].ms < 1e15) {
            *out = (uint64_t)(value * units[i].ms + 0.5);
            return true;
        }
    }
    return false;
}

bool trm_parse_double(const char *text, double *out)
{
    const char *digits = text + (text[0] == '-' || text[0] == '+');
    if (!isdigit((unsigned char)digits[0]) && !(digits[0] == '.' && isdigit((unsigned char)digits[1])))
        return false;
    char *end;
    double value = strtod(text, &end);
    if (*end || !isfinite(value))
        return false;
    *out = value;
    return true;
}

bool trm_parse_bool(const char *text, bool *out)
{
    static const char *const words[] = {"false", "true", "no", "yes", "0", "1"};
    for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcasecmp(text, words[i]) == 0) {
            *out = i & 1;
            return true;
        }
    }
    return false;
}

/* ---- Converting ---------------------------------------------------------------- */

static const char *kind_of(trm_param_type type)
{
    switch (type) {
    case TRM_PARAM_STRING:
        return "text";
    case TRM_PARAM_INT:
        return "a whole number";
    case TRM_PARAM_SIZE:
        return "a size such as 64K or 1G";
    case TRM_PARAM_DOUBLE:
        return "a number";
    case TRM_PARAM_BOOL:
        return "true or false";
    }
    return NULL;
}

static bool is_number(trm_param_type type)
{
    return type == TRM_PARAM_INT || type == TRM_PARAM_SIZE || type == TRM_PARAM_DOUBLE;
}

static bool has_bounds(const trm_param *param)
{
    return param->min != 0 || param->max != 0;
}

/* Sets the value but for bounds; false when the text is not of the type. */
static bool parse(trm_param_value *out, const char *text)
{
    switch (out->param->type) {
    case TRM_PARAM_STRING:
        return true;
    case TRM_PARAM_INT:
        return trm_parse_int(text, &out->integer);
    case TRM_PARAM_SIZE:
        return trm_parse_size(text, &out->size);
    case TRM_PARAM_DOUBLE:
        return trm_parse_double(text, &out->number);
    case TRM_PARAM_BOOL:
        return trm_parse_bool(text, &out->flag);
    }
    return false;
}

/* Bounds are doubles; in long double every 64-bit number compares exactly. */
static bool in_bounds(const trm_param_value *value)
{
    const trm_param *param = value->param;
    if (!is_number(param->type) || !has_bounds(param))
        return true;
    long double number = param->type == TRM_PARAM_INT    ? (long double)value->integer
                         : param->type == TRM_PARAM_SIZE ? (long double)value->size
                                                         : (long double)value->number;
    return number >= (long double)param->min && number <= (long double)param->max;
}

static trm_status convert(trm_param_value *out, const char *text, trm_status status, trm_err *err)
{
    const trm_param *param = out->param;
    const char *what = status == TRM_EJOB ? "the default of parameter" : "parameter";
    if (!text && param->type == TRM_PARAM_BOOL)
        text = "true";
    if (!text)
        return trm_err_set(err, status, "parameter '%s' needs a value: -p %s=%s", param->name, param->name,
                           param->type == TRM_PARAM_STRING ? "TEXT" : "NUMBER");
    if (!parse(out, text))
        return trm_err_set(err, status, "%s '%s' must be %s, not '%s'", what, param->name,
                           kind_of(param->type), text);
    if (!in_bounds(out))
        return trm_err_set(err, status, "%s '%s' must be %s from %.15g to %.15g, not %s", what, param->name,
                           kind_of(param->type), param->min, param->max, text);
    if (param->type == TRM_PARAM_STRING && !(out->string = strdup(text)))
        return trm_err_set(err, TRM_ENOMEM, "no memory for parameter '%s'", param->name);
    return TRM_OK;
}

/* ---- The job's list -------------------------------------------------------------- */

static bool is_name(const char *text)
{
    if (!text[0])
        return false;
    for (; *text; text++)
        if (!isalnum((unsigned char)*text) && !strchr("_-.", *text))
            return false;
    return true;
}

static trm_status check_list(const trm_job *job, unsigned *count, trm_err *err)
{
    unsigned n = 0;
    for (const trm_param *param = job->params; param && param->name; param++, n++) {
        if (n == TRM_PARAMS_MAX)
            return trm_err_set(err, TRM_EJOB, "job '%s' has more than %u parameters", job->name,
                               TRM_PARAMS_MAX);
        if (!is_name(param->name))
            return trm_err_set(
                err, TRM_EJOB,
                "job '%s': parameter %u is named '%s'; names have letters, digits, '_', '-' and '.'",
                job->name, n + 1, param->name);
        if (!kind_of(param->type))
            return trm_err_set(err, TRM_EJOB, "job '%s': parameter '%s' has an unknown type (%u)", job->name,
                               param->name, (unsigned)param->type);
        if (has_bounds(param) && (!is_number(param->type) || !(param->min <= param->max)))
            return trm_err_set(err, TRM_EJOB, "job '%s': parameter '%s' has bounds that make no sense",
                               job->name, param->name);
        for (const trm_param *other = job->params; other < param; other++)
            if (strcmp(other->name, param->name) == 0)
                return trm_err_set(err, TRM_EJOB, "job '%s': there are two parameters '%s'", job->name,
                                   param->name);
    }
    *count = n;
    return TRM_OK;
}

/* " It has: a, b, c." or " It has none." */
static void name_them(const trm_job *job, unsigned count, char *out, size_t out_bytes)
{
    size_t at = (size_t)snprintf(out, out_bytes, count ? "it has" : "it has none");
    for (unsigned i = 0; i < count && at < out_bytes; i++)
        at += (size_t)snprintf(out + at, out_bytes - at, "%s '%s'", i ? "," : "", job->params[i].name);
}

static trm_status check_args(const trm_job *job, unsigned count, const trm_param_arg *args,
                             unsigned args_count, trm_err *err)
{
    for (unsigned a = 0; a < args_count; a++) {
        unsigned known = 0;
        while (known < count && strcmp(job->params[known].name, args[a].name) != 0)
            known++;
        if (known == count) {
            char have[512];
            name_them(job, count, have, sizeof have);
            return trm_err_set(err, TRM_EUSAGE, "job '%s' has no parameter '%s' (%s)", job->name,
                               args[a].name, have);
        }
        for (unsigned b = 0; b < a; b++)
            if (strcmp(args[a].name, args[b].name) == 0)
                return trm_err_set(err, TRM_EUSAGE, "parameter '%s' is given twice", args[a].name);
    }
    return TRM_OK;
}

static trm_status set_value(trm_param_value *out, const trm_param *param, const trm_param_arg *args,
                            unsigned args_count, trm_err *err)
{
    *out = (trm_param_value){.param = param};
    /* The default must be right whether or not it is used: the author sees it at once. */
    if (param->value) {
        trm_status status = convert(out, param->value, TRM_EJOB, err);
        if (status != TRM_OK)
            return status;
    }
    for (unsigned a = 0; a < args_count; a++) {
        if (strcmp(args[a].name, param->name) != 0)
            continue;
        if (param->type == TRM_PARAM_STRING) {
            free(out->string);
            out->string = NULL;
        }
        return convert(out, args[a].value, TRM_EUSAGE, err);
    }
    if (!param->value)
        return trm_err_set(err, TRM_EUSAGE, "parameter '%s' must be given: -p %s=%s%s%s", param->name,
                           param->name, param->type == TRM_PARAM_STRING ? "TEXT" : "VALUE",
                           param->help ? "; " : "", param->help ? param->help : "");
    return TRM_OK;
}

trm_status trm_params_init(trm_params *self, const trm_job *job, const trm_param_arg *args, unsigned count,
                           trm_err *err)
{
    unsigned listed = 0;
    trm_status status = check_list(job, &listed, err);
    if (status == TRM_OK)
        status = check_args(job, listed, args, count, err);
    trm_params params = {0};
    for (unsigned i = 0; i < listed && status == TRM_OK; i++) {
        params.count = i + 1;
        status = set_value(&params.value[i], &job->params[i], args, count, err);
    }
    if (status != TRM_OK) {
        trm_params_close(&params);
        return status;
    }
    *self = params;
    return TRM_OK;
}

void trm_params_close(trm_params *self)
{
    for (unsigned i = 0; i < self->count; i++)
        if (self->value[i].param->type == TRM_PARAM_STRING)
            free(self->value[i].string);
    *self = (trm_params){0};
}

const trm_param_value *trm_params_find(const trm_params *self, const char *name)
{
    for (unsigned i = 0; i < self->count; i++)
        if (strcmp(self->value[i].param->name, name) == 0)
            return &self->value[i];
    return NULL;
}

/* FNV-1a; nobody attacks a job with its own parameters. */
static uint64_t mix(uint64_t hash, const void *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ ((const uint8_t *)bytes)[i]) * 0x100000001b3u;
    return hash;
}

uint64_t trm_params_hash(const trm_params *self)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (unsigned i = 0; i < self->count; i++) {
        const trm_param_value *value = &self->value[i];
        uint32_t type = (uint32_t)value->param->type;
        hash = mix(hash, value->param->name, strlen(value->param->name) + 1);
        hash = mix(hash, &type, sizeof type);
        uint8_t flag = type == TRM_PARAM_BOOL && value->flag;
        if (type == TRM_PARAM_STRING)
            hash = mix(hash, value->string, strlen(value->string) + 1);
        else if (type == TRM_PARAM_BOOL)
            hash = mix(hash, &flag, 1);
        else
            hash = mix(hash, &value->size, sizeof value->size);
    }
    return hash;
}
