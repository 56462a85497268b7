/* The image of the job table, for snapshots.
 *
 *   u32 magic "TRMT" · u32 version · launch · members · jobs · u32 CRC-32C of all before it
 *   launch:  varint epoch, ranks, wall_ms, masters (all; this launch's), term of the last,
 *            failovers, applied, refused
 *   members: varint count, then each as in a MEMBER command
 *   job:     identity · varint state, exit code, submitted epoch, finished ms · u32 cuts ·
 *            u8 text is there · [string] · counters · MAP phase · REDUCE phase · skips
 *   phase:   varint failures, lost · a task after the other: u8 flags, then what they name
 *
 *   skips:   varint count, then each as varint task · varint record, in ascending order
 *
 * A task that nothing has happened to takes one byte. */
#include "jobs/table.h"

#include "runtime/crc32c.h"

#include <stdlib.h>
#include <string.h>

#define IMAGE_MAGIC 0x544d5254u /* "TRMT" */

enum {
    TASK_STATE = 3, /* bits 0 and 1 */
    TASK_EMPTY = 4,
    TASK_ATTEMPT = 8, /* varint attempt is not 0 */
    TASK_FAILED = 16, /* u8 failures · varint failed_high */
    TASK_WHERE = 32,  /* varint rank · varint epoch */
    TASK_PART = 64,   /* varint bytes · varint records · u32 crc */
    TASK_COUNTED = 128
};

static void task_encode(const trm_table_task *task, const trm_table_part *part, trm_writer *out)
{
    unsigned flags = task->state | (task->empty ? TASK_EMPTY : 0) | (task->attempt ? TASK_ATTEMPT : 0);
    flags |= task->counted ? TASK_COUNTED : 0;
    flags |= task->failures || task->failed_high ? TASK_FAILED : 0;
    flags |= task->rank || task->epoch ? TASK_WHERE : 0;
    flags |= part && (part->bytes || part->records || part->crc) ? TASK_PART : 0;
    trm_put_u8(out, (uint8_t)flags);
    if (flags & TASK_ATTEMPT)
        trm_put_varint(out, task->attempt);
    if (flags & TASK_FAILED) {
        trm_put_u8(out, task->failures);
        trm_put_varint(out, task->failed_high);
    }
    if (flags & TASK_WHERE) {
        trm_put_varint(out, task->rank);
        trm_put_varint(out, task->epoch);
    }
    if (flags & TASK_PART) {
        trm_put_varint(out, part->bytes);
        trm_put_varint(out, part->records);
        trm_put_u32(out, part->crc);
    }
}

static void task_decode(trm_table_task *task, trm_table_part *part, trm_reader *in)
{
    unsigned flags = trm_get_u8(in);
    task->state = flags & TASK_STATE;
    task->empty = (flags & TASK_EMPTY) != 0;
    task->counted = (flags & TASK_COUNTED) != 0;
    if (flags & TASK_ATTEMPT)
        task->attempt = (uint32_t)trm_get_varint_max(in, UINT32_MAX);
    if (flags & TASK_FAILED) {
        task->failures = trm_get_u8(in);
        task->failed_high = (uint32_t)trm_get_varint_max(in, UINT32_MAX);
    }
    if (flags & TASK_WHERE) {
        task->rank = (uint16_t)trm_get_varint_max(in, TRM_RANKS_MAX - 1);
        task->epoch = (uint32_t)trm_get_varint_max(in, UINT32_MAX);
    }
    if (flags & TASK_PART && part) {
        part->bytes = trm_get_varint(in);
        part->records = trm_get_varint(in);
        part->crc = trm_get_u32(in);
    }
    if (task->state > TRM_TASK_PUBLISHED || (flags & TASK_PART && !part) ||
        (task->state == TRM_TASK_PUBLISHED && !part))
        trm_reader_fail(in);
}

static void phase_encode(const trm_table_phase *phase, trm_writer *out)
{
    trm_put_varint(out, phase->failures);
    trm_put_varint(out, phase->lost);
    for (uint32_t i = 0; i < phase->tasks; i++)
        task_encode(&phase->task[i], phase->part ? &phase->part[i] : NULL, out);
}

/* The sums are not stored: they follow from the tasks. */
static trm_status phase_decode(trm_table_phase *phase, uint32_t tasks, bool parts, uint64_t epoch,
                               trm_reader *in)
{
    phase->failures = trm_get_varint(in);
    phase->lost = trm_get_varint(in);
    if (!trm_reader_ok(in) || tasks > trm_reader_left(in)) /* a task takes a byte at the least */
        return TRM_ECORRUPT;
    phase->tasks = tasks;
    if (tasks == 0)
        return TRM_OK;
    phase->task = calloc(tasks, sizeof *phase->task);
    phase->part = parts ? calloc(tasks, sizeof *phase->part) : NULL;
    if (!phase->task || (parts && !phase->part))
        return TRM_ENOMEM;
    for (uint32_t i = 0; i < tasks; i++) {
        trm_table_task *task = &phase->task[i];
        task_decode(task, parts ? &phase->part[i] : NULL, in);
        phase->committed += task->state != TRM_TASK_PENDING;
        phase->published += task->state == TRM_TASK_PUBLISHED;
        phase->live += task->state != TRM_TASK_PENDING && task->epoch == epoch;
    }
    return trm_reader_ok(in) ? TRM_OK : TRM_ECORRUPT;
}

static void job_encode(const trm_table_job *job, trm_writer *out)
{
    trm_identity_encode(&job->identity, out);
    trm_put_varint(out, job->state);
    trm_put_varint(out, job->exit_code);
    trm_put_varint(out, job->submitted_epoch);
    trm_put_varint(out, job->finished_ms);
    trm_put_u32(out, job->cuts_crc);
    trm_put_u8(out, job->text != NULL);
    if (job->text)
        trm_put_string(out, job->text);
    trm_counters_encode(&job->counters, out);
    phase_encode(&job->phase[TRM_PHASE_MAP], out);
    phase_encode(&job->phase[TRM_PHASE_REDUCE], out);
    trm_put_varint(out, job->skips_count);
    for (uint32_t i = 0; i < job->skips_count; i++) {
        trm_put_varint(out, job->skips[i].task);
        trm_put_varint(out, job->skips[i].record);
    }
}

/* What apply_skip would not have let in is not taken either. */
static trm_status skips_decode(trm_table_job *job, trm_reader *in)
{
    uint32_t count = (uint32_t)trm_get_varint_max(in, TRM_SKIPS_MAX), of_task = 0;
    if (!trm_reader_ok(in) || count > trm_reader_left(in) / 2)
        return TRM_ECORRUPT;
    job->skips = count ? malloc(count * sizeof *job->skips) : NULL;
    if (count && !job->skips)
        return TRM_ENOMEM;
    job->skips_room = count;
    for (uint32_t i = 0; i < count; i++) {
        trm_table_skip *skip = &job->skips[i], *before = i ? skip - 1 : NULL;
        skip->task = (uint32_t)trm_get_varint_max(in, TRM_TASKS_MAX - 1);
        skip->record = (uint32_t)trm_get_varint_max(in, UINT32_MAX);
        of_task = before && before->task == skip->task ? of_task + 1 : 1;
        bool behind = !before || before->task < skip->task ||
                      (before->task == skip->task && before->record < skip->record);
        if (!trm_reader_ok(in) || !behind || of_task > TRM_ORDER_SKIPS_MAX ||
            skip->task >= job->identity.tasks)
            return TRM_ECORRUPT;
        job->skips_count = i + 1;
    }
    return TRM_OK;
}

static trm_status job_decode(trm_table_job *job, uint64_t epoch, trm_reader *in)
{
    trm_identity_decode(&job->identity, in);
    job->state = (uint32_t)trm_get_varint_max(in, TRM_JOB_FAILED);
    job->exit_code = (uint32_t)trm_get_varint_max(in, 255);
    job->submitted_epoch = trm_get_varint(in);
    job->finished_ms = trm_get_varint(in);
    job->cuts_crc = trm_get_u32(in);
    unsigned has_text = trm_get_u8(in);
    if (has_text > 1)
        trm_reader_fail(in);
    if (has_text) {
        char text[TRM_TEXT_BYTES_MAX];
        trm_get_string(in, text, sizeof text);
        job->text = strdup(text);
        if (!job->text)
            return TRM_ENOMEM;
    }
    trm_counters_decode(&job->counters, in);
    if (!trm_reader_ok(in))
        return TRM_ECORRUPT;
    bool map_only = job->identity.partitions == 0;
    trm_status status = phase_decode(&job->phase[TRM_PHASE_MAP], job->identity.tasks, map_only, epoch, in);
    if (status == TRM_OK)
        status = phase_decode(&job->phase[TRM_PHASE_REDUCE], job->identity.partitions, !map_only, epoch, in);
    if (status == TRM_OK)
        status = skips_decode(job, in);
    return status;
}

void trm_table_encode(const trm_table *self, trm_writer *out)
{
    size_t begin = out->len;
    trm_put_u32(out, IMAGE_MAGIC);
    trm_put_u32(out, TRM_TABLE_VERSION);
    trm_put_varint(out, self->epoch);
    trm_put_varint(out, self->epoch_ranks);
    trm_put_varint(out, self->epoch_ms);
    trm_put_varint(out, self->masters);
    trm_put_varint(out, self->epoch_masters);
    trm_put_varint(out, self->master_term);
    trm_put_varint(out, self->failovers);
    trm_put_varint(out, self->applied);
    trm_put_varint(out, self->refused);
    trm_put_varint(out, self->members_count);
    for (uint32_t i = 0; i < self->members_count; i++)
        trm_member_encode(&self->members[i], out);
    trm_put_varint(out, self->jobs_count);
    for (uint32_t i = 0; i < self->jobs_count; i++)
        job_encode(self->jobs[i], out);
    if (trm_writer_ok(out))
        trm_put_u32(out, trm_crc32c(0, out->data + begin, out->len - begin));
}

#define MEMBER_BYTES_MIN 5u /* of an encoded member */
#define JOB_BYTES_MIN 16u   /* of an encoded job */

static trm_status members_decode(trm_table *self, trm_reader *in)
{
    uint32_t count = (uint32_t)trm_get_varint_max(in, TRM_TABLE_MEMBERS_MAX);
    if (!trm_reader_ok(in) || count > trm_reader_left(in) / MEMBER_BYTES_MIN)
        return TRM_ECORRUPT;
    if (count == 0)
        return TRM_OK;
    /* Grown as they are read: a member in memory is much larger than one in the image. */
    for (uint32_t i = 0; i < count; i++) {
        if (i == self->members_capacity) {
            uint32_t capacity = i ? i * 2 : 16;
            trm_member *members = realloc(self->members, capacity * sizeof *members);
            if (!members)
                return TRM_ENOMEM;
            self->members = members;
            self->members_capacity = capacity;
        }
        trm_member *member = &self->members[i];
        trm_member_decode(member, in);
        const trm_member *before = i ? member - 1 : NULL;
        if (!trm_reader_ok(in) ||
            (before && (before->epoch > member->epoch ||
                        (before->epoch == member->epoch && before->rank >= member->rank))))
            return TRM_ECORRUPT;
        self->members_count = i + 1;
    }
    return TRM_OK;
}

static trm_status jobs_decode(trm_table *self, trm_reader *in)
{
    uint32_t count = (uint32_t)trm_get_varint_max(in, TRM_TABLE_JOBS_MAX);
    if (!trm_reader_ok(in) || count > trm_reader_left(in) / JOB_BYTES_MIN)
        return TRM_ECORRUPT;
    self->jobs = count ? calloc(count, sizeof(*self->jobs)) : NULL;
    if (count && !self->jobs)
        return TRM_ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        self->jobs[i] = calloc(1, sizeof **self->jobs);
        if (!self->jobs[i])
            return TRM_ENOMEM;
        self->jobs_count = i + 1;
        trm_status status = job_decode(self->jobs[i], self->epoch, in);
        if (status != TRM_OK)
            return status;
    }
    return TRM_OK;
}

trm_status trm_table_decode(trm_table *self, const void *bytes, size_t len, trm_err *err)
{
    if (len < 12)
        return trm_err_set(err, TRM_ECORRUPT, "image of the job table: cut short");
    trm_reader in;
    trm_reader_init(&in, bytes, len - 4);
    if (trm_get_u32(&in) != IMAGE_MAGIC)
        return trm_err_set(err, TRM_ECORRUPT, "not an image of the job table");
    uint32_t version = trm_get_u32(&in);
    if (version != TRM_TABLE_VERSION)
        return trm_err_set(err, TRM_EVERSION, "image of the job table: version %u, this program reads %u",
                           version, TRM_TABLE_VERSION);
    if (trm_load_u32((const uint8_t *)bytes + len - 4) != trm_crc32c(0, bytes, len - 4))
        return trm_err_set(err, TRM_ECORRUPT, "image of the job table: the checksum is wrong");
    trm_table found;
    trm_table_init(&found);
    found.epoch = trm_get_varint_max(&in, UINT32_MAX);
    found.epoch_ranks = (uint32_t)trm_get_varint_max(&in, TRM_RANKS_MAX);
    found.epoch_ms = trm_get_varint(&in);
    found.masters = (uint32_t)trm_get_varint_max(&in, TRM_TABLE_MASTERS_MAX);
    found.epoch_masters = (uint32_t)trm_get_varint_max(&in, found.masters);
    found.master_term = trm_get_varint(&in);
    found.failovers = trm_get_varint(&in);
    found.applied = trm_get_varint(&in);
    found.refused = trm_get_varint(&in);
    trm_status status = trm_reader_ok(&in) ? members_decode(&found, &in) : TRM_ECORRUPT;
    if (status == TRM_OK)
        status = jobs_decode(&found, &in);
    if (status == TRM_OK && !trm_reader_done(&in))
        status = TRM_ECORRUPT;
    if (status != TRM_OK) {
        trm_table_close(&found);
        return trm_err_set(err, status,
                           status == TRM_ENOMEM ? "no memory for the job table"
                                                : "image of the job table: malformed");
    }
    *self = found;
    return TRM_OK;
}
