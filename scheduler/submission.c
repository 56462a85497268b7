/* See submission.h. */
#include "scheduler/submission.h"

#include "runtime/crc32c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KERNEL_PIECE_BYTES (256u * 1024u)

/* ---- Identity ------------------------------------------------------------------------------- */

static trm_status crc_of_file(trm_fs *fs, const char *path, uint32_t *out, trm_err *err)
{
    trm_file *file;
    trm_status status = fs->ops->open(fs, path, TRM_FS_READ, &file, err);
    if (status != TRM_OK)
        return status;
    uint8_t *piece = malloc(KERNEL_PIECE_BYTES);
    uint32_t crc = 0;
    size_t got = piece ? KERNEL_PIECE_BYTES : 0;
    if (!piece)
        status = trm_err_set(err, TRM_ENOMEM, "no memory to read %s", path);
    for (uint64_t at = 0; status == TRM_OK && got == KERNEL_PIECE_BYTES && at < TRM_KERNEL_BYTES_MAX;
         at += got) {
        status = fs->ops->read_at(file, at, piece, KERNEL_PIECE_BYTES, &got, err);
        if (status == TRM_OK)
            crc = trm_crc32c(crc, piece, got);
    }
    free(piece);
    fs->ops->close(file);
    if (status == TRM_OK)
        *out = crc;
    return status;
}

static trm_status kernel_of(trm_identity *self, const trm_spec *spec, trm_fs *fs, trm_err *err)
{
    if (!spec->kernel_path)
        return TRM_OK;
    if ((size_t)snprintf(self->kernel, sizeof self->kernel, "%s", spec->kernel_path) >= sizeof self->kernel)
        return trm_err_set(err, TRM_EJOB, "the path of the kernel is too long: %.80s…", spec->kernel_path);
    trm_status status = crc_of_file(fs, spec->kernel_path, &self->kernel_crc, err);
    return status == TRM_OK || status == TRM_ENOMEM ? status : TRM_EJOB;
}

static uint32_t crc_of_plan(const trm_plan *plan)
{
    trm_writer bytes;
    trm_writer_init(&bytes);
    trm_plan_encode(plan, &bytes);
    uint32_t crc = trm_writer_ok(&bytes) ? trm_load_u32(bytes.data + bytes.len - sizeof crc) : 0;
    trm_writer_close(&bytes);
    return crc;
}

static void take_plan(trm_submission *self)
{
    self->identity.tasks = self->plan.tasks;
    self->identity.partitions = self->plan.partitions;
}

trm_status trm_submission_init(trm_submission *self, const trm_spec *spec, const trm_traits *traits,
                               uint32_t executors, uint64_t memory_bytes, trm_fs *fs, trm_err *err)
{
    trm_submission made = {.traits = *traits};
    trm_identity *identity = &made.identity;
    trm_status status = kernel_of(identity, spec, fs, err);
    if (status == TRM_OK)
        status = trm_plan_build(&made.plan, spec, traits, executors, memory_bytes, err);
    if (status != TRM_OK)
        return status;
    memcpy(identity->name, traits->name, sizeof identity->name);
    identity->params_hash = traits->params_hash;
    identity->asked_partitions = spec->partitions;
    identity->asked_split_bytes = spec->split_bytes;
    identity->input = traits->input;
    identity->output = traits->output;
    identity->range_partitioned = traits->range_partitioned;
    identity->gzip_output = spec->gzip_output;
    identity->counters_count = traits->counters_count;
    identity->plan_crc = crc_of_plan(&made.plan);
    take_plan(&made);
    if (!identity->plan_crc) {
        trm_plan_close(&made.plan);
        return trm_err_set(err, TRM_ENOMEM, "no memory for a plan of %u tasks", identity->tasks);
    }
    *self = made;
    return TRM_OK;
}

void trm_submission_close(trm_submission *self)
{
    trm_plan_close(&self->plan);
}

trm_status trm_submission_resume(trm_submission *self, const trm_identity *saved, trm_fs *fs,
                                 const char *state_dir, trm_err *err)
{
    trm_plan plan;
    trm_status status = trm_plan_load(&plan, fs, state_dir, saved->plan_crc, err);
    if (status != TRM_OK)
        return status == TRM_ELOST ? TRM_ECORRUPT : status;
    if (plan.tasks != saved->tasks || plan.partitions != saved->partitions) {
        trm_plan_close(&plan);
        return trm_err_set(err, TRM_ECORRUPT, "%s/%s: not the plan of this job", state_dir, TRM_PLAN_NAME);
    }
    trm_plan_close(&self->plan);
    self->plan = plan;
    self->identity.plan_crc = saved->plan_crc;
    take_plan(self);
    return TRM_OK;
}

/* ---- What differs ------------------------------------------------------------------------------ */

static const char *input_name(uint32_t input)
{
    static const char *const names[] = {"lines", "fixed records", "whole files", "none"};
    return input < sizeof names / sizeof names[0] ? names[input] : "?";
}

static bool differ(trm_err *err, const char *what, unsigned long long saved, unsigned long long now)
{
    trm_err_set(err, TRM_EOUTPUT, "%s was %llu and is %llu", what, saved, now);
    return false;
}

/* What an option asked for; 0: it was not given. */
static bool differ_asked(trm_err *err, const char *option, unsigned long long saved, unsigned long long now)
{
    if (!now)
        trm_err_set(err, TRM_EOUTPUT, "%s was %llu and is not given now", option, saved);
    else if (!saved)
        trm_err_set(err, TRM_EOUTPUT, "%s was not given and is %llu now", option, now);
    else
        return differ(err, option, saved, now);
    return false;
}

static bool differ_text(trm_err *err, const char *what, const char *saved, const char *now)
{
    trm_err_set(err, TRM_EOUTPUT, "%s was '%.200s' and is '%.200s'", what, saved[0] ? saved : "(none)",
                now[0] ? now : "(none)");
    return false;
}

static bool differ_plain(trm_err *err, const char *sentence)
{
    trm_err_set(err, TRM_EOUTPUT, "%s", sentence);
    return false;
}

bool trm_identity_same_job(const trm_identity *saved, const trm_identity *now, trm_err *err)
{
    if (strcmp(saved->name, now->name) != 0)
        return differ_text(err, "the job", saved->name, now->name);
    if (saved->kernel_crc != now->kernel_crc)
        return differ_plain(err, "the kernel's file has changed");
    if (strcmp(saved->kernel, now->kernel) != 0 && !saved->kernel_crc)
        return differ_text(err, "the kernel", saved->kernel, now->kernel);
    if (saved->params_hash != now->params_hash)
        return differ_plain(err, "the job's parameters (-p) have changed");
    if (saved->asked_partitions != now->asked_partitions)
        return differ_asked(err, "--partitions", saved->asked_partitions, now->asked_partitions);
    if (saved->asked_split_bytes != now->asked_split_bytes)
        return differ_asked(err, "--split-size", saved->asked_split_bytes, now->asked_split_bytes);
    if (saved->input != now->input)
        return differ_text(err, "the input format", input_name(saved->input), input_name(now->input));
    if (saved->input == TRM_INPUT_NONE && saved->tasks != now->tasks)
        return differ(err, "--tasks", saved->tasks, now->tasks);
    if (saved->output != now->output)
        return differ(err, "the output format", saved->output, now->output);
    if (saved->gzip_output != now->gzip_output)
        return differ_plain(err,
                            saved->gzip_output ? "--gzip was given and is not now" : "--gzip was not given");
    if (!saved->partitions != !now->partitions || saved->range_partitioned != now->range_partitioned ||
        saved->counters_count != now->counters_count)
        return differ_plain(err, "the job's own description has changed");
    return true;
}

bool trm_plan_same_inputs(const trm_plan *saved, const trm_plan *now, trm_err *err)
{
    if (saved->record_bytes != now->record_bytes)
        return differ(err, "the size of a record", saved->record_bytes, now->record_bytes);
    uint32_t both = saved->files_count < now->files_count ? saved->files_count : now->files_count;
    for (uint32_t i = 0; i < both; i++) {
        const trm_plan_file *a = &saved->files[i], *b = &now->files[i];
        if (strcmp(a->path, b->path) != 0)
            return differ_text(err, "an input file", a->path, b->path);
        if (a->bytes != b->bytes || a->mtime_ns != b->mtime_ns || a->gzip != b->gzip) {
            trm_err_set(err, TRM_EOUTPUT, "the input file '%.400s' has changed", a->path);
            return false;
        }
    }
    if (saved->files_count != now->files_count)
        return differ(err, "the number of input files", saved->files_count, now->files_count);
    return true;
}
