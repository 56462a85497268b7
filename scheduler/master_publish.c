/* Parts into place. A part that is committed is renamed from where its attempt has written it to
 * where the user looks for it; the directory is synced once for all that come together,
 * and only then PUBLISHED says so in the log. All of it can be done twice: after a crash whoever
 * leads does again what is committed and not known to be published. When every part is in place
 * the manifest follows, whole and durable, and then FINISH.
 *
 * A part with nothing in it has no file. */
#include "scheduler/master_self.h"

#include "jobs/names.h"
#include "runtime/diag.h"
#include "runtime/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MANIFEST_VERSION 1u

void master_publish_add(trm_master *self, uint32_t task)
{
    if (self->parts_at == self->parts_count)
        self->parts_at = self->parts_count = 0;
    if (self->parts_count == self->parts_room) {
        uint32_t room = self->parts_room ? self->parts_room * 2 : 256;
        uint32_t *grown = realloc(self->parts, room * sizeof *grown);
        if (!grown) {
            master_give_up(self, TRM_ENOMEM, "no memory to put parts into place");
            return;
        }
        self->parts = grown;
        self->parts_room = room;
    }
    if (self->parts_at == self->parts_count)
        self->publish_ns = self->now_ns + PUBLISH_MS * MS;
    self->parts[self->parts_count++] = task;
}

void master_published(trm_master *self, uint32_t task, bool accepted) {}

/* ---- Renaming ---------------------------------------------------------------------------------- */

/* It is not where it was written: then it has been put into place before. */
static trm_status check_in_place(trm_master *self, const char *path, uint64_t bytes, trm_err *err)
{
    trm_file *file;
    uint64_t found;
    trm_status status = self->fs->ops->open(self->fs, path, TRM_FS_READ, &file, err);
    if (status != TRM_OK)
        return status;
    status = self->fs->ops->size(file, &found, err);
    self->fs->ops->close(file);
    if (status == TRM_OK && found != bytes)
        status =
            trm_err_set(err, TRM_EOUTPUT, "%s has %llu bytes and should have %llu: somebody has changed it",
                        path, (unsigned long long)found, (unsigned long long)bytes);
    return status;
}

static trm_status put_into_place(trm_master *self, uint32_t task, trm_err *err)
{
    char from[TRM_FS_PATH_BYTES_MAX], to[TRM_FS_PATH_BYTES_MAX];
    const trm_table_phase *output = &self->job->phase[trm_table_output_phase(self->job)];
    const trm_table_task *known = &output->task[task];
    if (known->empty)
        return TRM_OK;
    if (trm_part_attempt_name(self->spec->output_dir, task, known->epoch, known->attempt, from,
                              sizeof from) != TRM_OK ||
        trm_part_name(self->spec->output_dir, task, self->job->identity.gzip_output, to, sizeof to) != TRM_OK)
        return trm_err_set(err, TRM_EOUTPUT, "the path of the output is too long: %s",
                           self->spec->output_dir);
    trm_status status = self->fs->ops->rename(self->fs, from, to, err);
    if (status == TRM_ELOST)
        status = check_in_place(self, to, output->part[task].bytes, err);
    return status;
}

static void propose_published(trm_master *self, const uint32_t *tasks, uint32_t count)
{
    trm_writer *out = master_command_begin(self, TRM_COMMAND_PUBLISHED);
    uint32_t previous = 0;
    trm_put_varint(out, self->epoch);
    for (uint32_t i = 0; i < count; i++)
        trm_task_number_encode(tasks[i], &previous, out);
    master_command_enqueue(self);
}

/* At most so many files are renamed in one step; those without a file cost nothing. */
static trm_status publish_some(trm_master *self, trm_err *err)
{
    const trm_table_phase *output = &self->job->phase[trm_table_output_phase(self->job)];
    uint32_t first = self->parts_at, files = 0, at = first;
    trm_status status = TRM_OK;
    while (at < self->parts_count && at - first < PUBLISHED_ITEMS_MAX && files < PUBLISH_BATCH_MAX) {
        files += !output->task[self->parts[at]].empty;
        status = put_into_place(self, self->parts[at], err);
        if (status != TRM_OK)
            break;
        at++;
    }
    if (files) { /* also those that were found in place: who renamed them may have died before this */
        trm_status synced =
            self->fs->ops->sync_dir(self->fs, self->spec->output_dir, status == TRM_OK ? err : NULL);
        if (synced != TRM_OK)
            return status == TRM_OK ? synced : status; /* all of them are done again by the next launch */
    }
    if (at > first)
        propose_published(self, self->parts + first, at - first);
    self->parts_at = at;
    return status;
}

/* ---- The manifest --------------------------------------------------------------------------------- */

static void put_files(trm_master *self, trm_json *json)
{
    const trm_table_phase *output = &self->job->phase[trm_table_output_phase(self->job)];
    char path[TRM_FS_PATH_BYTES_MAX];
    trm_json_list(json, "files");
    for (uint32_t i = 0; i < output->tasks; i++) {
        if (output->task[i].empty ||
            trm_part_name("", i, self->job->identity.gzip_output, path, sizeof path) != TRM_OK)
            continue;
        trm_json_object(json, NULL);
        trm_json_string(json, "name", path + 1); /* behind the '/' */
        trm_json_u64(json, "records", output->part[i].records);
        trm_json_u64(json, "bytes", output->part[i].bytes);
        trm_json_crc(json, "crc32c", output->part[i].crc);
        trm_json_close(json);
    }
    trm_json_close(json);
}

static void put_totals(trm_master *self, trm_json *json)
{
    const trm_table_phase *output = &self->job->phase[trm_table_output_phase(self->job)];
    uint64_t files = 0, records = 0, bytes = 0;
    for (uint32_t i = 0; i < output->tasks; i++) {
        files += !output->task[i].empty;
        records += output->part[i].records;
        bytes += output->part[i].bytes;
    }
    trm_json_object(json, "totals");
    trm_json_u64(json, "files", files);
    trm_json_u64(json, "records", records);
    trm_json_u64(json, "bytes", bytes);
    trm_json_close(json);
}

void master_put_counters(const trm_master *self, trm_json *json)
{
    trm_json_object(json, "counters");
    for (unsigned i = 0; i < TRM_COUNTER_COUNT; i++) {
        const char *name = trm_traits_counter_name(&self->config.submission->traits, i);
        if (name)
            trm_json_u64(json, name, self->job->counters.value[i]);
    }
    trm_json_close(json);
}

static trm_status write_manifest(trm_master *self, trm_err *err)
{
    char path[TRM_FS_PATH_BYTES_MAX];
    trm_writer out;
    trm_json json = {.out = &out};
    trm_writer_init(&out);
    trm_json_object(&json, NULL);
    trm_json_u64(&json, "version", MANIFEST_VERSION);
    trm_json_string(&json, "job", self->job->identity.name);
    trm_json_u64(&json, "partitions", self->job->phase[trm_table_output_phase(self->job)].tasks);
    put_totals(self, &json);
    put_files(self, &json);
    master_put_counters(self, &json);
    trm_json_close(&json);
    trm_json_line(&json);
    trm_status status = TRM_OK;
    if (!trm_writer_ok(&out))
        status = trm_err_set(err, TRM_ENOMEM, "no memory for the manifest");
    else if ((size_t)snprintf(path, sizeof path, "%s/%s", self->spec->output_dir, TRM_SUCCESS_NAME) >=
             sizeof path)
        status =
            trm_err_set(err, TRM_EOUTPUT, "the path of the output is too long: %s", self->spec->output_dir);
    else
        status = trm_fs_write_whole(self->fs, path, out.data, out.len, TRM_FS_SHARED, err);
    trm_writer_close(&out);
    return status;
}

/* ---- A step ----------------------------------------------------------------------------------------- */

static bool all_in_place(const trm_master *self)
{
    const trm_table_phase *output = &self->job->phase[trm_table_output_phase(self->job)];
    return output->published == output->tasks;
}

/* What the disk refuses now it may take later, when the same command is given again. */
static void cannot_publish(trm_master *self, trm_status status, const trm_err *err)
{
    bool is_output = status == TRM_EIO || status == TRM_ELOST;
    master_give_up(self, is_output ? TRM_EOUTPUT : status, err->text);
}

static bool has_manifest(trm_master *self)
{
    char path[TRM_FS_PATH_BYTES_MAX];
    trm_file *file;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", self->spec->output_dir, TRM_SUCCESS_NAME) >= sizeof path)
        return false;
    trm_status status = self->fs->ops->open(self->fs, path, TRM_FS_READ, &file, NULL);
    if (status == TRM_OK)
        self->fs->ops->close(file);
    return status != TRM_ELOST;
}

static trm_status check_parts(trm_master *self, trm_err *err)
{
    char path[TRM_FS_PATH_BYTES_MAX];
    const trm_table_phase *output = &self->job->phase[trm_table_output_phase(self->job)];
    trm_status status = TRM_OK;
    for (uint32_t i = 0; i < output->tasks && status == TRM_OK; i++) {
        if (output->task[i].empty)
            continue;
        status = trm_part_name(self->spec->output_dir, i, self->job->identity.gzip_output, path, sizeof path);
        if (status == TRM_OK)
            status = check_in_place(self, path, output->part[i].bytes, err);
    }
    return status;
}

/* The log says that the job is done, and there may be no _SUCCESS: it is the first that --overwrite takes
 * away, and the launch that did so may have died then. It comes back if all parts are there. */
void master_manifest_restore(trm_master *self)
{
    trm_err err = {""};
    if (has_manifest(self))
        return;
    trm_status status = check_parts(self, &err);
    if (status == TRM_OK)
        status = write_manifest(self, &err);
    if (status != TRM_OK)
        cannot_publish(self, status, &err);
}

bool master_publish_step(trm_master *self, uint64_t *wake_ns)
{
    trm_err err = {""};
    trm_status status = TRM_OK;
    const trm_table_phase *output = &self->job->phase[trm_table_output_phase(self->job)];
    uint32_t waiting = self->parts_count - self->parts_at;
    bool any = false;
    if (waiting) {
        bool now = waiting >= PUBLISH_BATCH_MAX || output->committed == output->tasks ||
                   self->stage == STAGE_FLUSH || self->now_ns >= self->publish_ns;
        if (now) {
            status = publish_some(self, &err);
            any = true;
        } else {
            master_wake(wake_ns, self->publish_ns);
        }
    } else if (all_in_place(self) && !self->manifest_made && self->stage == STAGE_RUN) {
        status = write_manifest(self, &err);
        self->manifest_made = true;
        any = true;
        if (status == TRM_OK)
            master_job_finish(self, TRM_JOB_DONE, 0, "");
    }
    if (status != TRM_OK)
        cannot_publish(self, status, &err);
    return any;
}
