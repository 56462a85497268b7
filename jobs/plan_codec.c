/* The plan as bytes, in state_dir/plan.
 *
 *   u32 magic "TRMP" · u16 version · u8 input · u8 0 · varint record bytes ·
 *   varint split bytes · varint tasks · varint partitions · varint files ·
 *   per file { varint bytes that its path has in common with the one before ·
 *              blob the rest of the path · varint bytes · varint mtime in ns · u8 gzip } ·
 *   unless the input is none: per task varint its length in the space of all files ·
 *   u32 CRC-32C of everything before
 */
#include "jobs/plan.h"

#include "runtime/crc32c.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLAN_MAGIC 0x504d5254u /* "TRMP" */
#define PLAN_VERSION 1u
#define PATH_BYTES_MAX PATH_MAX
#define PLAN_FILE_BYTES_MAX ((size_t)8 << 30)

static size_t common_bytes(const char *a, const char *b)
{
    size_t n = 0;
    while (a[n] && a[n] == b[n])
        n++;
    return n;
}

void trm_plan_encode(const trm_plan *self, trm_writer *out)
{
    size_t at = out->len;
    trm_put_u32(out, PLAN_MAGIC);
    trm_put_u16(out, PLAN_VERSION);
    trm_put_u8(out, (uint8_t)self->input);
    trm_put_u8(out, 0);
    trm_put_varint(out, self->record_bytes);
    trm_put_varint(out, self->split_bytes);
    trm_put_varint(out, self->tasks);
    trm_put_varint(out, self->partitions);
    trm_put_varint(out, self->files_count);
    const char *before = "";
    for (uint32_t i = 0; i < self->files_count; i++) {
        const trm_plan_file *file = &self->files[i];
        size_t common = common_bytes(before, file->path);
        trm_put_varint(out, common);
        trm_put_string(out, file->path + common);
        trm_put_varint(out, file->bytes);
        trm_put_varint(out, file->mtime_ns);
        trm_put_u8(out, file->gzip);
        before = file->path;
    }
    for (uint32_t k = 0; self->begin && k < self->tasks; k++)
        trm_put_varint(out, self->begin[k + 1] - self->begin[k]);
    if (trm_writer_ok(out))
        trm_put_u32(out, trm_crc32c(0, out->data + at, out->len - at));
}

static trm_status decode_files(trm_plan *self, uint32_t count, trm_reader *in, trm_err *err)
{
    char path[PATH_BYTES_MAX + 1] = "";
    size_t len = 0; /* of the path before */
    for (uint32_t i = 0; i < count && trm_reader_ok(in); i++) {
        size_t common = (size_t)trm_get_varint_max(in, len);
        if (!trm_reader_ok(in))
            break;
        char differs = path[common]; /* from what is put there, or more would be in common */
        trm_get_string(in, path + common, sizeof path - common);
        if (differs && path[common] == differs)
            trm_reader_fail(in);
        len = common + strlen(path + common);
        uint64_t bytes = trm_get_varint_max(in, INT64_MAX);
        uint64_t mtime_ns = trm_get_varint(in);
        uint8_t gzip = trm_get_u8(in);
        if (gzip > 1 || path[0] != '/')
            trm_reader_fail(in);
        if (!trm_reader_ok(in))
            break;
        trm_status status = trm_plan_add_file(self, path, bytes, mtime_ns, gzip, err);
        if (status == TRM_ENOMEM)
            return status;
        if (status != TRM_OK)
            trm_reader_fail(in);
    }
    return TRM_OK;
}

/* A task begins where a reader can begin: gzip and whole files are not cut, nor are records. */
static bool begins_soundly(const trm_plan *self, uint32_t task)
{
    trm_piece piece;
    if (trm_plan_pieces(self, task, 0, &piece, 1) == 0 || piece.offset == 0)
        return true;
    return !piece.file->gzip && self->input != TRM_INPUT_FILES &&
           (self->input != TRM_INPUT_FIXED || piece.offset % self->record_bytes == 0);
}

static trm_status decode_tasks(trm_plan *self, trm_reader *in, trm_err *err)
{
    if (self->input == TRM_INPUT_NONE)
        return TRM_OK;
    /* A task takes a byte at least: a forged number allocates nothing. */
    if (self->tasks > TRM_PLAN_SPLITS_MAX + 1 || self->tasks > trm_reader_left(in)) {
        trm_reader_fail(in);
        return TRM_OK;
    }
    self->begin = calloc((size_t)self->tasks + 1, sizeof *self->begin);
    if (!self->begin)
        return trm_err_set(err, TRM_ENOMEM, "no memory for a plan of %u tasks", self->tasks);
    for (uint32_t k = 0; k < self->tasks; k++) {
        uint64_t bytes = trm_get_varint_max(in, self->bytes - self->begin[k]);
        if (bytes == 0 && self->tasks > 1)
            trm_reader_fail(in);
        self->begin[k + 1] = self->begin[k] + bytes;
    }
    if (self->begin[self->tasks] != self->bytes)
        trm_reader_fail(in);
    for (uint32_t k = 1; k < self->tasks && trm_reader_ok(in); k++)
        if (!begins_soundly(self, k))
            trm_reader_fail(in);
    return TRM_OK;
}

static trm_status decode_body(trm_plan *self, trm_reader *in, trm_err *err)
{
    self->input = trm_get_u8(in);
    uint8_t zero = trm_get_u8(in);
    self->record_bytes = trm_get_varint_max(in, TRM_FIXED_BYTES_MAX);
    self->split_bytes = trm_get_varint(in);
    self->tasks = (uint32_t)trm_get_varint_max(in, TRM_TASKS_MAX);
    self->partitions = (uint32_t)trm_get_varint_max(in, TRM_PARTITIONS_MAX);
    uint32_t files = (uint32_t)trm_get_varint_max(in, TRM_PLAN_FILES_MAX);
    bool fixed = self->input == TRM_INPUT_FIXED, none = self->input == TRM_INPUT_NONE;
    if (zero || self->input > TRM_INPUT_LAST || fixed != (self->record_bytes > 0) || none != (files == 0) ||
        self->tasks == 0)
        trm_reader_fail(in);
    trm_status status = decode_files(self, files, in, err);
    if (status == TRM_OK && trm_reader_ok(in))
        status = decode_tasks(self, in, err);
    return status;
}

trm_status trm_plan_decode(trm_plan *self, const void *bytes, size_t len, trm_err *err)
{
    trm_reader in;
    if (len < 12 || trm_load_u32((const uint8_t *)bytes + len - 4) != trm_crc32c(0, bytes, len - 4))
        return trm_err_set(err, TRM_ECORRUPT, "a plan of %zu bytes does not carry its checksum", len);
    trm_reader_init(&in, bytes, len - 4);
    if (trm_get_u32(&in) != PLAN_MAGIC)
        return trm_err_set(err, TRM_ECORRUPT, "what should be a plan is none");
    unsigned version = trm_get_u16(&in);
    if (version != PLAN_VERSION)
        return trm_err_set(err, TRM_EVERSION, "a plan of version %u, this is for version %u", version,
                           PLAN_VERSION);
    trm_plan plan = {0};
    trm_status status = decode_body(&plan, &in, err);
    if (status == TRM_OK && !trm_reader_done(&in))
        status = trm_err_set(err, TRM_ECORRUPT, "a plan of %zu bytes is malformed", len);
    if (status != TRM_OK) {
        trm_plan_close(&plan);
        return status;
    }
    *self = plan;
    return TRM_OK;
}

static trm_status plan_path(const char *state_dir, char *out, size_t out_bytes, trm_err *err)
{
    int len = snprintf(out, out_bytes, "%s/%s", state_dir, TRM_PLAN_NAME);
    if (len < 0 || (size_t)len >= out_bytes)
        return trm_err_set(err, TRM_ELIMIT, "the path of the state directory is too long: %s", state_dir);
    return TRM_OK;
}

trm_status trm_plan_save(const trm_plan *self, trm_fs *fs, const char *state_dir, uint32_t *crc, trm_err *err)
{
    char path[PATH_BYTES_MAX + 1];
    trm_status status = plan_path(state_dir, path, sizeof path, err);
    if (status != TRM_OK)
        return status;
    trm_writer out;
    trm_writer_init(&out);
    trm_plan_encode(self, &out);
    status = trm_writer_ok(&out)
                 ? trm_fs_write_whole(fs, path, out.data, out.len, 0, err)
                 : trm_err_set(err, TRM_ENOMEM, "no memory to save a plan of %u tasks", self->tasks);
    if (status == TRM_OK)
        *crc = trm_load_u32(out.data + out.len - 4);
    trm_writer_close(&out);
    return status;
}

trm_status trm_plan_load(trm_plan *self, trm_fs *fs, const char *state_dir, uint32_t crc, trm_err *err)
{
    char path[PATH_BYTES_MAX + 1];
    trm_status status = plan_path(state_dir, path, sizeof path, err);
    if (status != TRM_OK)
        return status;
    uint8_t *bytes;
    size_t len;
    status = trm_fs_read_whole(fs, path, PLAN_FILE_BYTES_MAX, &bytes, &len, err);
    if (status != TRM_OK)
        return status;
    if (len >= 4 && trm_load_u32(bytes + len - 4) != crc)
        status =
            trm_err_set(err, TRM_ECORRUPT, "%s is not the plan of this job (its checksum is another)", path);
    else if ((status = trm_plan_decode(self, bytes, len, err)) != TRM_OK)
        trm_err_wrap(err, "%s", path);
    free(bytes);
    return status;
}
