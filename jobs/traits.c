#include "jobs/traits.h"

#include "jobs/counters.h"

#include <stdint.h>
#include <string.h>

static bool is_printable_name(const char *text, size_t bytes_max)
{
    size_t len = strnlen(text, bytes_max);
    if (len == 0 || len == bytes_max)
        return false;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] <= ' ' || (unsigned char)text[i] == 0x7f)
            return false;
    return true;
}

/* Before anything else of the description is looked at. */
static trm_status check_version(const trm_job *job, trm_err *err)
{
    if (job->magic != TRM_JOB_MAGIC)
        return trm_err_set(err, TRM_EJOB, "the job's description does not begin with TRM_JOB_HEADER");
    if (job->abi != TRM_ABI)
        return trm_err_set(
            err, TRM_EJOB,
            "the job was built for version %u of trireme.h, this is version %u: build it again", job->abi,
            TRM_ABI);
    if (job->struct_bytes != sizeof *job)
        return trm_err_set(
            err, TRM_EJOB,
            "the job's description has %zu bytes, %zu are expected: build it again with this trireme.h",
            job->struct_bytes, sizeof *job);
    if (!job->name || !is_printable_name(job->name, TRM_JOB_NAME_BYTES))
        return trm_err_set(err, TRM_EJOB, "the job needs a name of 1 to %u characters without spaces",
                           TRM_JOB_NAME_BYTES - 1);
    for (size_t i = 0; i < sizeof job->reserved / sizeof job->reserved[0]; i++)
        if (job->reserved[i])
            return trm_err_set(err, TRM_EJOB, "job '%s': the reserved words must be zero", job->name);
    return TRM_OK;
}

static trm_status check_input(const trm_job *job, trm_err *err)
{
    if ((unsigned)job->input > TRM_INPUT_LAST)
        return trm_err_set(err, TRM_EJOB, "job '%s': there is no input format %u", job->name,
                           (unsigned)job->input);
    if (job->input == TRM_INPUT_FIXED && (job->record_bytes == 0 || job->record_bytes > TRM_FIXED_BYTES_MAX))
        return trm_err_set(err, TRM_EJOB,
                           "job '%s': TRM_INPUT_FIXED needs record_bytes from 1 to %u, not %zu", job->name,
                           TRM_FIXED_BYTES_MAX, job->record_bytes);
    if (job->input != TRM_INPUT_FIXED && job->record_bytes)
        return trm_err_set(err, TRM_EJOB, "job '%s': record_bytes is only for TRM_INPUT_FIXED", job->name);
    return TRM_OK;
}

static trm_status check_fold(const trm_job *job, trm_err *err)
{
    const trm_fold *fold = job->fold;
    if (!fold)
        return job->finish ? trm_err_set(err, TRM_EJOB, "job '%s': finish needs a fold", job->name) : TRM_OK;
    if (job->reduce || job->combine)
        return trm_err_set(err, TRM_EJOB, "job '%s' has a fold and %s: choose one", job->name,
                           job->reduce ? "a reduce" : "a combine");
    if (fold->state_bytes == 0 || fold->state_bytes > TRM_FOLD_BYTES_MAX)
        return trm_err_set(err, TRM_EJOB, "job '%s': the fold's state_bytes must be from 1 to %u, not %zu",
                           job->name, TRM_FOLD_BYTES_MAX, fold->state_bytes);
    if (!fold->init || !fold->add || !fold->merge)
        return trm_err_set(err, TRM_EJOB, "job '%s': the fold needs init, add and merge", job->name);
    if (!job->finish && job->output == TRM_OUTPUT_TEXT && job->value_type != TRM_BYTES &&
        fold->state_bytes != 8)
        return trm_err_set(
            err, TRM_EJOB,
            "job '%s': value_type is an 8-byte number, but the fold's accumulator has %zu bytes", job->name,
            fold->state_bytes);
    return TRM_OK;
}

static trm_status check_rest(const trm_job *job, trm_err *err)
{
    if (!job->map)
        return trm_err_set(err, TRM_EJOB, "job '%s' has no map", job->name);
    if (job->combine && !job->reduce)
        return trm_err_set(err, TRM_EJOB, "job '%s': combine needs a reduce", job->name);
    if ((unsigned)job->partitioner > TRM_PARTITION_RANGE)
        return trm_err_set(err, TRM_EJOB, "job '%s': there is no partitioner %u", job->name,
                           (unsigned)job->partitioner);
    if (job->partition && job->partitioner != TRM_PARTITION_HASH)
        return trm_err_set(err, TRM_EJOB, "job '%s' has a partition function and a partitioner: choose one",
                           job->name);
    if (job->compare && job->partitioner == TRM_PARTITION_RANGE)
        return trm_err_set(
            err, TRM_EJOB,
            "job '%s' has a compare, but TRM_PARTITION_RANGE cuts by unsigned bytes: give it a partition",
            job->name);
    if ((unsigned)job->output > TRM_OUTPUT_RAW)
        return trm_err_set(err, TRM_EJOB, "job '%s': there is no output format %u", job->name,
                           (unsigned)job->output);
    if ((unsigned)job->key_type > TRM_F64 || (unsigned)job->value_type > TRM_F64)
        return trm_err_set(err, TRM_EJOB,
                           "job '%s': key_type or value_type is none of TRM_BYTES, _U64, _I64, _F64",
                           job->name);
    return TRM_OK;
}

static trm_status read_counters(trm_traits *self, const trm_job *job, trm_err *err)
{
    for (unsigned i = 0; job->counters && job->counters[i]; i++) {
        if (i == TRM_COUNTERS_MAX)
            return trm_err_set(err, TRM_EJOB, "job '%s' has more than %u counters", job->name,
                               TRM_COUNTERS_MAX);
        if (!is_printable_name(job->counters[i], TRM_COUNTER_NAME_BYTES))
            return trm_err_set(err, TRM_EJOB,
                               "job '%s': the name of counter %u must have 1 to %u characters without spaces",
                               job->name, i, TRM_COUNTER_NAME_BYTES - 1);
        for (unsigned other = 0; other < i; other++)
            if (strcmp(self->counters[other], job->counters[i]) == 0)
                return trm_err_set(err, TRM_EJOB, "job '%s': there are two counters '%s'", job->name,
                                   job->counters[i]);
        strcpy(self->counters[i], job->counters[i]);
        self->counters_count = i + 1;
    }
    return TRM_OK;
}

trm_status trm_traits_of(trm_traits *self, const trm_job *job, trm_err *err)
{
    trm_status status = check_version(job, err);
    if (status == TRM_OK)
        status = check_input(job, err);
    if (status == TRM_OK)
        status = check_fold(job, err);
    if (status == TRM_OK)
        status = check_rest(job, err);
    trm_traits traits = {
        .input = job->input,
        .record_bytes = job->record_bytes,
        .map_only = !job->fold && !job->reduce,
        .folds = job->fold != NULL,
        .output = job->output,
    };
    traits.range_partitioned = job->partitioner == TRM_PARTITION_RANGE && !traits.map_only;
    if (status == TRM_OK)
        status = read_counters(&traits, job, err);
    if (status != TRM_OK)
        return status;
    strcpy(traits.name, job->name);
    *self = traits;
    return TRM_OK;
}

const char *trm_traits_counter_name(const trm_traits *self, unsigned counter)
{
    if (counter < TRM_COUNTER_USER)
        return trm_counter_name(counter);
    return counter - TRM_COUNTER_USER < self->counters_count ? self->counters[counter - TRM_COUNTER_USER]
                                                             : NULL;
}

/* ---- Bytes ----------------------------------------------------------------------- */

enum { FLAG_MAP_ONLY = 1, FLAG_FOLDS = 2, FLAG_RANGE = 4, FLAGS = 7 };

void trm_traits_encode(const trm_traits *self, trm_writer *out)
{
    trm_put_string(out, self->name);
    trm_put_u8(out, (uint8_t)self->input);
    trm_put_u8(out, (uint8_t)self->output);
    trm_put_u8(out, (uint8_t)((self->map_only ? FLAG_MAP_ONLY : 0) | (self->folds ? FLAG_FOLDS : 0) |
                              (self->range_partitioned ? FLAG_RANGE : 0)));
    trm_put_varint(out, self->record_bytes);
    trm_put_u64(out, self->params_hash);
    trm_put_varint(out, self->counters_count);
    for (uint32_t i = 0; i < self->counters_count; i++)
        trm_put_string(out, self->counters[i]);
}

void trm_traits_decode(trm_traits *self, trm_reader *in)
{
    *self = (trm_traits){0};
    trm_get_string(in, self->name, sizeof self->name);
    self->input = trm_get_u8(in);
    self->output = trm_get_u8(in);
    uint8_t flags = trm_get_u8(in);
    self->map_only = flags & FLAG_MAP_ONLY;
    self->folds = flags & FLAG_FOLDS;
    self->range_partitioned = flags & FLAG_RANGE;
    self->record_bytes = trm_get_varint_max(in, TRM_FIXED_BYTES_MAX);
    self->params_hash = trm_get_u64(in);
    self->counters_count = (uint32_t)trm_get_varint_max(in, TRM_COUNTERS_MAX);
    for (uint32_t i = 0; i < self->counters_count; i++) {
        trm_get_string(in, self->counters[i], sizeof self->counters[i]);
        if (!is_printable_name(self->counters[i], TRM_COUNTER_NAME_BYTES))
            trm_reader_fail(in);
    }
    bool fixed = self->input == TRM_INPUT_FIXED;
    if (!is_printable_name(self->name, TRM_JOB_NAME_BYTES) || self->input > TRM_INPUT_LAST ||
        self->output > TRM_OUTPUT_RAW || flags & ~FLAGS || (self->map_only && flags != FLAG_MAP_ONLY) ||
        fixed != (self->record_bytes > 0))
        trm_reader_fail(in);
    if (!trm_reader_ok(in))
        *self = (trm_traits){0};
}
