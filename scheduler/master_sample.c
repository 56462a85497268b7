/* Cut points of a range partitioned job: before its maps some map tasks, spread over the input,
 * only tell keys of theirs (SAMPLE). The keys' quantiles are the cuts; they are saved in the state
 * directory and named in the log once, because maps of two cuts could never be reduced together.
 *
 * A sample that fails is left out: its map will fail in earnest, and be counted. One that was refused, or was
 * ended for what is not its fault, is taken elsewhere. */
#include "scheduler/master_self.h"

#include "jobs/cuts.h"
#include "runtime/diag.h"

#include <stdlib.h>
#include <string.h>

bool master_wants_cuts(const trm_master *self)
{
    return self->job->identity.range_partitioned && !self->job->cuts_crc;
}

/* One partition needs no sample. */
trm_status master_sample_begin(trm_master *self, trm_err *err)
{
    uint32_t tasks = self->job->identity.tasks;
    if (master_wants_cuts(self) && self->job->identity.partitions > 1)
        self->phase[TRM_PHASE_SAMPLE].tasks = tasks < SAMPLE_TASKS_MAX ? tasks : SAMPLE_TASKS_MAX;
    return TRM_OK;
}

uint32_t master_sample_task(const trm_master *self, uint32_t sample)
{
    return (uint32_t)((uint64_t)sample * self->job->identity.tasks / self->phase[TRM_PHASE_SAMPLE].tasks);
}

uint32_t master_sample_of_task(const trm_master *self, uint32_t task)
{
    uint32_t samples = self->phase[TRM_PHASE_SAMPLE].tasks;
    if (task >= self->job->identity.tasks)
        return NO_TASK;
    uint32_t sample = (uint32_t)((uint64_t)task * samples / self->job->identity.tasks);
    if (sample < samples && master_sample_task(self, sample) == task)
        return sample;
    return sample + 1 < samples && master_sample_task(self, sample + 1) == task ? sample + 1 : NO_TASK;
}

static void settle_sample(trm_master *self, uint32_t sample)
{
    const soft_task *task = &self->phase[TRM_PHASE_SAMPLE].task[sample];
    master_settle(self, task->rank,
                  &(trm_order){.phase = TRM_PHASE_SAMPLE,
                               .task = master_sample_task(self, sample),
                               .attempt = task->attempt});
}

void master_sample_report(trm_master *self, uint32_t from, const trm_report *report)
{
    master_task_unlink(self, TRM_PHASE_SAMPLE, report->task);
    soft_task *task = &self->phase[TRM_PHASE_SAMPLE].task[report->task];
    task->rank = from;
    task->attempt = report->attempt;
    if (report->status != TRM_OK && !master_failure_counts(report) && task->returns < RETURNS_MAX) {
        settle_sample(self, report->task);
        task->returns++;
        if (report->status == TRM_EPEER) /* it has no room */
            self->ranks[from].pause_ns = self->now_ns + RANK_PAUSE_MS * MS;
        master_task_queue(self, TRM_PHASE_SAMPLE, report->task, false);
        return;
    }
    if (report->status == TRM_OK)
        trm_put_bytes(&self->samples, report->sample, report->sample_len);
    else
        trm_debug("the keys of map task %u are not sampled: %.*s", master_sample_task(self, report->task),
                  (int)report->text_len, report->text_len ? report->text : "");
    self->sampled++;
}

/* ---- Cuts ------------------------------------------------------------------------------------ */

typedef struct key_list {
    trm_cuts_key *key;
    size_t count, room;
} key_list;

static int compare_keys(const void *a, const void *b)
{
    const trm_cuts_key *x = a, *y = b;
    return trm_cuts_compare(x->bytes, x->len, y->bytes, y->len);
}

static bool key_list_add(key_list *self, const uint8_t *bytes, size_t len)
{
    if (self->count == self->room) {
        size_t room = self->room ? self->room * 2 : 4096;
        trm_cuts_key *grown = realloc(self->key, room * sizeof *grown);
        if (!grown)
            return false;
        self->key = grown;
        self->room = room;
    }
    self->key[self->count++] = (trm_cuts_key){.bytes = bytes, .len = len};
    return true;
}

/* False: no memory. What is no list of keys ends it: what a worker tells is not trusted. */
static bool read_samples(const trm_writer *samples, key_list *out)
{
    trm_reader in;
    trm_reader_init(&in, samples->data, samples->len);
    while (trm_reader_left(&in)) {
        size_t len;
        const uint8_t *bytes = trm_get_blob(&in, TRM_KEY_BYTES_MAX, &len);
        if (!trm_reader_ok(&in))
            break;
        if (!key_list_add(out, bytes, len))
            return false;
    }
    if (out->count)
        qsort(out->key, out->count, sizeof *out->key, compare_keys);
    return true;
}

/* Keys at equal distances among those that were sampled; without any sample all cuts are "". */
static trm_status make_cuts(trm_master *self, trm_cuts *out, trm_err *err)
{
    uint32_t partitions = self->job->identity.partitions;
    key_list sampled = {0};
    trm_cuts_key *cuts = calloc(partitions, sizeof *cuts);
    bool read = cuts && trm_writer_ok(&self->samples) && read_samples(&self->samples, &sampled);
    for (uint32_t i = 0; read && i + 1 < partitions; i++)
        cuts[i] = sampled.count ? sampled.key[(uint64_t)sampled.count * (i + 1) / partitions]
                                : (trm_cuts_key){.bytes = (const uint8_t *)"", .len = 0};
    trm_status status =
        read ? trm_cuts_init(out, cuts, partitions, err)
             : trm_err_set(err, TRM_ENOMEM, "no memory for the cuts of %u partitions", partitions);
    free(cuts);
    free(sampled.key);
    return status;
}

static trm_status save_cuts(trm_master *self, trm_err *err)
{
    trm_cuts cuts;
    uint32_t crc;
    trm_status status = make_cuts(self, &cuts, err);
    if (status != TRM_OK)
        return status;
    status = trm_cuts_save(&cuts, self->fs, self->spec->state_dir, &crc, err);
    trm_cuts_close(&cuts);
    if (status != TRM_OK)
        return status;
    trm_writer *out = master_command_begin(self, TRM_COMMAND_CUTS);
    trm_put_varint(out, self->epoch);
    trm_put_u32(out, crc);
    master_command_enqueue(self);
    return TRM_OK;
}

/* Until the cuts are in the log, so that none is lost with this master. */
bool master_sample_is_kept(const trm_master *self, uint32_t sample)
{
    return self->phase[TRM_PHASE_SAMPLE].task[sample].state == SOFT_IDLE && !self->cuts_told;
}

/* Maps begin when the cuts are in the log and every rank has been told. */
static void tell_cuts(trm_master *self)
{
    for (uint32_t i = 0; i < self->config.ranks; i++)
        if (self->ranks[i].state == RANK_READY)
            master_rank_set_up(self, i);
    self->cuts_told = self->all_hungry = true;
    for (uint32_t i = 0; i < self->phase[TRM_PHASE_SAMPLE].tasks; i++)
        settle_sample(self, i);
    trm_writer_close(&self->samples);
}

void master_sample_step(trm_master *self)
{
    if (self->cuts_made && !self->cuts_told && self->job->cuts_crc)
        tell_cuts(self);
    if (self->cuts_made || !master_wants_cuts(self) || self->sampled < self->phase[TRM_PHASE_SAMPLE].tasks)
        return;
    trm_err err = {""};
    trm_status status = save_cuts(self, &err);
    self->cuts_made = true;
    if (status != TRM_OK)
        master_give_up(self, status, err.text);
}
