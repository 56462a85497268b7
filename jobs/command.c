/* Encoders and decoders of the job table's commands; see command.h. */
#include "jobs/command.h"

#include <assert.h>
#include <string.h>

void trm_command_begin(trm_writer *out, trm_command_type type, uint32_t job)
{
    trm_writer_reset(out);
    trm_put_u8(out, TRM_COMMAND_VERSION);
    trm_put_u8(out, (uint8_t)type);
    trm_put_varint(out, job);
}

trm_status trm_command_open(const void *bytes, size_t len, trm_command_type *type, uint32_t *job,
                            trm_reader *body)
{
    trm_reader in;
    trm_reader_init(&in, bytes, len);
    uint8_t version = trm_get_u8(&in);
    if (trm_reader_ok(&in) && version != TRM_COMMAND_VERSION)
        return TRM_EVERSION;
    uint8_t kind = trm_get_u8(&in);
    uint32_t number = (uint32_t)trm_get_varint_max(&in, UINT32_MAX);
    if (!trm_reader_ok(&in) || kind < TRM_COMMAND_SUBMIT || kind > TRM_COMMAND_SKIP)
        return TRM_ECORRUPT;
    *type = (trm_command_type)kind;
    *job = number;
    *body = in;
    return TRM_OK;
}

static uint32_t get_u32_varint(trm_reader *in)
{
    return (uint32_t)trm_get_varint_max(in, UINT32_MAX);
}

static bool get_bool(trm_reader *in)
{
    return trm_get_varint_max(in, 1) != 0;
}

/* An epoch fits into 32 bits, which is what a task of the table keeps of it. */
static uint64_t get_epoch(trm_reader *in)
{
    uint64_t epoch = trm_get_varint_max(in, UINT32_MAX);
    if (!epoch)
        trm_reader_fail(in);
    return epoch;
}

static uint8_t get_phase(trm_reader *in)
{
    uint8_t phase = (uint8_t)trm_get_varint_max(in, TRM_PHASE_REDUCE);
    if (phase != TRM_PHASE_MAP && phase != TRM_PHASE_REDUCE)
        trm_reader_fail(in);
    return phase;
}

void trm_identity_encode(const trm_identity *self, trm_writer *out)
{
    trm_put_string(out, self->kernel);
    trm_put_string(out, self->name);
    trm_put_u32(out, self->kernel_crc);
    trm_put_u64(out, self->params_hash);
    trm_put_u32(out, self->plan_crc);
    trm_put_varint(out, self->tasks);
    trm_put_varint(out, self->partitions);
    trm_put_varint(out, self->asked_partitions);
    trm_put_varint(out, self->asked_split_bytes);
    trm_put_varint(out, self->input);
    trm_put_varint(out, self->output);
    trm_put_varint(out, self->range_partitioned);
    trm_put_varint(out, self->gzip_output);
    trm_put_varint(out, self->counters_count);
}

void trm_identity_decode(trm_identity *self, trm_reader *in)
{
    memset(self, 0, sizeof *self);
    trm_get_string(in, self->kernel, sizeof self->kernel);
    trm_get_string(in, self->name, sizeof self->name);
    self->kernel_crc = trm_get_u32(in);
    self->params_hash = trm_get_u64(in);
    self->plan_crc = trm_get_u32(in);
    self->tasks = (uint32_t)trm_get_varint_max(in, TRM_TASKS_MAX);
    self->partitions = (uint32_t)trm_get_varint_max(in, TRM_PARTITIONS_MAX);
    self->asked_partitions = (uint32_t)trm_get_varint_max(in, TRM_PARTITIONS_MAX);
    self->asked_split_bytes = trm_get_varint(in);
    self->input = (uint32_t)trm_get_varint_max(in, TRM_INPUT_LAST);
    self->output = (uint32_t)trm_get_varint_max(in, TRM_OUTPUT_RAW);
    self->range_partitioned = get_bool(in);
    self->gzip_output = get_bool(in);
    self->counters_count = (uint32_t)trm_get_varint_max(in, TRM_COUNTERS_MAX);
}

void trm_epoch_encode(const trm_epoch *self, trm_writer *out)
{
    trm_put_varint(out, self->epoch);
    trm_put_varint(out, self->ranks);
    trm_put_varint(out, self->wall_ms);
}

void trm_epoch_decode(trm_epoch *self, trm_reader *in)
{
    self->epoch = get_epoch(in);
    self->ranks = (uint32_t)trm_get_varint_max(in, TRM_RANKS_MAX);
    self->wall_ms = trm_get_varint(in);
}

void trm_mastership_encode(const trm_mastership *self, trm_writer *out)
{
    trm_put_varint(out, self->epoch);
    trm_put_varint(out, self->term);
}

void trm_mastership_decode(trm_mastership *self, trm_reader *in)
{
    self->epoch = get_epoch(in);
    self->term = trm_get_varint(in);
}

void trm_member_encode(const trm_member *self, trm_writer *out)
{
    trm_put_varint(out, self->epoch);
    trm_put_varint(out, self->rank);
    trm_put_varint(out, self->pid);
    trm_put_string(out, self->host);
    trm_put_string(out, self->run_store);
}

void trm_member_decode(trm_member *self, trm_reader *in)
{
    memset(self, 0, sizeof *self);
    self->epoch = get_epoch(in);
    self->rank = (uint32_t)trm_get_varint_max(in, TRM_RANKS_MAX - 1);
    self->pid = trm_get_varint(in);
    trm_get_string(in, self->host, sizeof self->host);
    trm_get_string(in, self->run_store, sizeof self->run_store);
}

void trm_fail_encode(const trm_fail *self, trm_writer *out)
{
    trm_put_varint(out, self->epoch);
    trm_put_varint(out, self->phase);
    trm_put_varint(out, self->task);
    trm_put_varint(out, self->attempt);
    trm_put_varint(out, self->rank);
    trm_put_varint(out, self->status);
}

void trm_fail_decode(trm_fail *self, trm_reader *in)
{
    memset(self, 0, sizeof *self);
    self->epoch = get_epoch(in);
    self->phase = get_phase(in);
    self->task = (uint32_t)trm_get_varint_max(in, TRM_TASKS_MAX - 1);
    self->attempt = get_u32_varint(in);
    self->rank = (uint32_t)trm_get_varint_max(in, TRM_RANKS_MAX - 1);
    self->status = get_u32_varint(in);
    if (!trm_status_valid(self->status) || self->status == TRM_OK)
        trm_reader_fail(in);
}

void trm_skip_encode(const trm_skip *self, trm_writer *out)
{
    trm_put_varint(out, self->epoch);
    trm_put_varint(out, self->task);
    trm_put_varint(out, self->record);
    trm_put_varint(out, self->fence);
}

void trm_skip_decode(trm_skip *self, trm_reader *in)
{
    self->epoch = get_epoch(in);
    self->task = (uint32_t)trm_get_varint_max(in, TRM_TASKS_MAX - 1);
    self->record = get_u32_varint(in);
    self->fence = get_u32_varint(in);
}

void trm_finish_encode(const trm_finish *self, trm_writer *out)
{
    trm_put_varint(out, self->epoch);
    trm_put_varint(out, self->state);
    trm_put_varint(out, self->exit_code);
    trm_put_varint(out, self->wall_ms);
    trm_put_string(out, self->text);
}

void trm_finish_decode(trm_finish *self, trm_reader *in)
{
    memset(self, 0, sizeof *self);
    self->epoch = get_epoch(in);
    self->state = (uint32_t)trm_get_varint_max(in, TRM_JOB_FAILED);
    self->exit_code = (uint32_t)trm_get_varint_max(in, 255);
    self->wall_ms = trm_get_varint(in);
    trm_get_string(in, self->text, sizeof self->text);
    if (self->state == TRM_JOB_RUNNING)
        trm_reader_fail(in);
}

/* The zigzag of a difference: small in both directions. */
void trm_task_number_encode(uint32_t task, uint32_t *previous, trm_writer *out)
{
    assert(task < TRM_TASKS_MAX);
    int64_t distance = (int64_t)task - (int64_t)*previous;
    trm_put_varint(out, ((uint64_t)distance << 1) ^ (uint64_t)(distance >> 63));
    *previous = task;
}

uint32_t trm_task_number_decode(uint32_t *previous, trm_reader *in)
{
    uint64_t zigzag = trm_get_varint_max(in, 2ull * TRM_TASKS_MAX);
    int64_t distance = (int64_t)(zigzag >> 1) ^ -(int64_t)(zigzag & 1);
    int64_t task = (int64_t)*previous + distance;
    if (task < 0 || task >= (int64_t)TRM_TASKS_MAX) {
        trm_reader_fail(in);
        return 0;
    }
    *previous = (uint32_t)task;
    return (uint32_t)task;
}

/* Phase and what is there of an output share a byte: bit 0 phase REDUCE, bit 1 output,
 * bit 2 checksum. What is not there is 0 and takes no room. */
enum { COMMIT_REDUCE = 1, COMMIT_OUTPUT = 2, COMMIT_CRC = 4 };

void trm_commit_encode(const trm_commit *self, uint32_t *previous, trm_writer *out)
{
    assert(self->phase == TRM_PHASE_MAP || self->phase == TRM_PHASE_REDUCE);
    unsigned flags = self->phase == TRM_PHASE_REDUCE ? COMMIT_REDUCE : 0;
    flags |= self->output_bytes || self->output_records ? COMMIT_OUTPUT : 0;
    flags |= self->output_crc ? COMMIT_CRC : 0;
    trm_task_number_encode(self->task, previous, out);
    trm_put_u8(out, (uint8_t)flags);
    trm_put_varint(out, self->attempt);
    trm_put_varint(out, self->rank);
    if (flags & COMMIT_OUTPUT) {
        trm_put_varint(out, self->output_bytes);
        trm_put_varint(out, self->output_records);
    }
    if (flags & COMMIT_CRC)
        trm_put_u32(out, self->output_crc);
    trm_counters_encode(&self->counters, out);
}

void trm_commit_decode(trm_commit *self, uint32_t *previous, trm_reader *in)
{
    self->task = trm_task_number_decode(previous, in);
    unsigned flags = trm_get_u8(in);
    if (flags > (COMMIT_REDUCE | COMMIT_OUTPUT | COMMIT_CRC))
        trm_reader_fail(in);
    self->phase = flags & COMMIT_REDUCE ? TRM_PHASE_REDUCE : TRM_PHASE_MAP;
    self->attempt = get_u32_varint(in);
    self->rank = (uint32_t)trm_get_varint_max(in, TRM_RANKS_MAX - 1);
    self->output_bytes = flags & COMMIT_OUTPUT ? trm_get_varint(in) : 0;
    self->output_records = flags & COMMIT_OUTPUT ? trm_get_varint(in) : 0;
    self->output_crc = flags & COMMIT_CRC ? trm_get_u32(in) : 0;
    bool hollow = (flags & COMMIT_OUTPUT && !self->output_bytes && !self->output_records) ||
                  (flags & COMMIT_CRC && !self->output_crc);
    if (hollow)
        trm_reader_fail(in);
    trm_counters_decode(&self->counters, in);
}

void trm_output_ref_encode(const trm_output_ref *self, uint32_t *previous, trm_writer *out)
{
    trm_task_number_encode(self->task, previous, out);
    trm_put_varint(out, self->epoch);
    trm_put_varint(out, self->attempt);
}

void trm_output_ref_decode(trm_output_ref *self, uint32_t *previous, trm_reader *in)
{
    self->task = trm_task_number_decode(previous, in);
    self->epoch = get_epoch(in);
    self->attempt = get_u32_varint(in);
}
