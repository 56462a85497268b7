#include "config.h"

#include "tests/support/whole_job.h"

#include "jobs/names.h"
#include "tests/support/crew_wait.h"
#include "workers/reduce_inputs.h"
#include "workers/run_reader.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STATE, RUNS, SCRATCH, OUT, PRIVATE, ATTEMPTS, PATHS };
static const char *const names[] = {"state", "runs",         "scratch",
                                    "out",   "out/.trireme", "out/.trireme/attempts"};

void whole_job_init(whole_job *self, const char *tree)
{
    memset(self, 0, sizeof *self);
    trm_fs *fs = trm_fs_posix();
    for (int i = STATE; i < PATHS; i++) {
        snprintf(self->path[i], sizeof self->path[i], "%s/%s", tree, names[i]);
        trm_status made = fs->ops->make_dir(fs, self->path[i], 0, &self->err);
        assert(made == TRM_OK);
        (void)made;
    }
    self->spec.state_dir = self->path[STATE];
    self->spec.output_dir = self->path[OUT];
    self->spec.scratch_dir = self->path[SCRATCH];
    self->spec.bind = TRM_BIND_NONE;
    self->memory_bytes = 64u << 20;
}

void whole_job_close(whole_job *self)
{
    trm_executor_env_close(&self->env);
    if (self->crew)
        trm_crew_stop(self->crew, 1000);
    trm_kernel_close(&self->kernel);
    trm_plan_close(&self->plan);
    trm_cuts_close(&self->cuts);
    free(self->run_bytes);
    for (int i = STATE; i < PATHS; i++)
        trm_fs_remove_tree(trm_fs_posix(), self->path[i], NULL);
}

/* ---- The crew ------------------------------------------------------------------------- */

static trm_status start_crew(whole_job *self)
{
    trm_status status = trm_crew_start(&self->crew, &self->spec, 0, &self->err);
    for (unsigned i = 0; status == TRM_OK && i < trm_crew_executors(self->crew); i++) {
        trm_crew_event event;
        status = crew_wait(self->crew, &event);
        if (status == TRM_OK && event.kind != TRM_CREW_READY)
            status = TRM_EPEER;
        if (status == TRM_OK)
            status = event.status;
        if (status == TRM_OK)
            self->traits = *event.traits;
        else
            self->err = event.err;
    }
    if (status == TRM_OK) {
        self->memory_bytes = trm_crew_executor_memory_bytes(self->crew);
        snprintf(self->run_store, sizeof self->run_store, "%s", trm_crew_run_store(self->crew));
        snprintf(self->peer.run_store, sizeof self->peer.run_store, "%s", self->run_store);
    }
    return status;
}

static trm_status set_up_crew(whole_job *self, uint32_t plan_crc, uint32_t cuts_crc)
{
    self->setup = (trm_setup){.plan_crc = plan_crc,
                              .cuts_crc = cuts_crc,
                              .tasks = self->plan.tasks,
                              .partitions = self->plan.partitions,
                              .peers_count = 1,
                              .peers = &self->peer};
    return trm_crew_setup(self->crew, &self->setup, WHOLE_JOB_EPOCH);
}

static void keep_words(whole_job *self, const trm_crew_event *event)
{
    size_t len = strlen(self->err.text);
    snprintf(self->err.text + len, sizeof self->err.text - len, "\n%s", event->last_words);
}

/* Waits until it has ended; an executor that died is waited for. */
static trm_status order_from_crew(whole_job *self, const trm_order *order)
{
    uint32_t executor = self->turn++ % trm_crew_executors(self->crew);
    trm_crew_event event;
    trm_status status = trm_crew_submit(self->crew, executor, order, 1);
    if (status == TRM_OK)
        status = crew_wait(self->crew, &event);
    if (status != TRM_OK)
        return status;
    self->err = event.err;
    self->died = event.kind == TRM_CREW_DIED;
    if (self->died) {
        self->report.record = event.record;
        keep_words(self, &event);
        status = event.status;
        trm_status again = crew_wait(self->crew, &event);
        return again == TRM_OK && event.kind == TRM_CREW_READY ? status : TRM_EPEER;
    }
    self->report = event.report;
    return event.kind == TRM_CREW_REPORT ? event.status : TRM_EPEER;
}

/* ---- Steps ------------------------------------------------------------------------------ */

static trm_status load_here(whole_job *self)
{
    trm_status status = trm_kernel_open(&self->kernel, &self->spec, &self->err);
    if (status != TRM_OK)
        return status;
    self->traits = self->kernel.traits;
    snprintf(self->run_store, sizeof self->run_store, "%s", self->path[RUNS]);
    self->env = (trm_executor_env){.fs = trm_fs_posix(),
                                   .spec = &self->spec,
                                   .job = self->kernel.job,
                                   .traits = &self->traits,
                                   .plan = &self->plan,
                                   .params = &self->kernel.params,
                                   .run_store = self->run_store,
                                   .epoch = WHOLE_JOB_EPOCH,
                                   .memory_bytes = self->memory_bytes,
                                   .host_count = 1,
                                   .board = &self->board};
    return TRM_OK;
}

trm_status whole_job_open(whole_job *self)
{
    trm_fs *fs = trm_fs_posix();
    uint32_t crc;
    trm_status status = self->through_crew ? start_crew(self) : load_here(self);
    if (status == TRM_OK)
        status = trm_plan_build(&self->plan, &self->spec, &self->traits, 2, self->memory_bytes, &self->err);
    if (status == TRM_OK)
        status = trm_plan_save(&self->plan, fs, self->spec.state_dir, &crc, &self->err);
    if (status == TRM_OK)
        self->run_bytes = calloc(self->plan.tasks, sizeof *self->run_bytes);
    return status == TRM_OK && self->crew ? set_up_crew(self, crc, 0) : status;
}

trm_status whole_job_order(whole_job *self, trm_phase phase, uint32_t task)
{
    trm_order order = phase == TRM_PHASE_MAP ? self->records : (trm_order){0};
    order.phase = (uint8_t)phase;
    order.task = task;
    order.attempt = self->attempt;
    self->report = (trm_report){.phase = (uint8_t)phase, .task = task, .attempt = self->attempt};
    self->err.text[0] = 0;
    self->died = false;
    if (self->crew)
        self->status = order_from_crew(self, &order);
    else if (phase == TRM_PHASE_REDUCE)
        self->status = trm_reduce_task_run(&self->env, &order, &self->report, &self->err);
    else
        self->status = phase == TRM_PHASE_MAP
                           ? trm_map_task_run(&self->env, &order, &self->report, &self->err)
                           : trm_sample_task_run(&self->env, &order, &self->report, &self->err);
    if (self->report.sample_len) {
        memcpy(self->sample, self->report.sample, self->report.sample_len);
        self->report.sample = self->sample;
    }
    if (self->status == TRM_OK) {
        trm_counters_add(&self->counters, &self->report.counters);
        if (phase == TRM_PHASE_MAP)
            self->run_bytes[task] = self->report.output_bytes;
    }
    return self->status;
}

static int by_key(const void *a, const void *b)
{
    const trm_cuts_key *x = a, *y = b;
    return trm_cuts_compare(x->bytes, x->len, y->bytes, y->len);
}

/* Every partitions-th of all keys, in order. */
static trm_status make_cuts(whole_job *self, trm_writer *keys)
{
    trm_cuts_key *sorted = calloc(keys->len + 1, sizeof *sorted),
                 *cuts = calloc(self->plan.partitions, sizeof *cuts);
    assert(sorted && cuts);
    size_t count = 0;
    trm_reader in;
    trm_reader_init(&in, keys->data, keys->len);
    for (; trm_reader_left(&in); count++)
        sorted[count].bytes = trm_get_blob(&in, TRM_KEY_BYTES_MAX, &sorted[count].len);
    assert(trm_reader_ok(&in));
    qsort(sorted, count, sizeof *sorted, by_key);
    for (uint32_t i = 1; i < self->plan.partitions && count; i++)
        cuts[i - 1] = sorted[count * i / self->plan.partitions];
    trm_status status = trm_cuts_init(&self->cuts, cuts, self->plan.partitions, &self->err);
    free(sorted);
    free(cuts);
    return status;
}

trm_status whole_job_sample(whole_job *self)
{
    if (!self->traits.range_partitioned || self->plan.partitions == 1)
        return TRM_OK;
    trm_writer keys;
    trm_writer_init(&keys);
    trm_status status = TRM_OK;
    for (uint32_t i = 0; i < self->plan.tasks && status == TRM_OK; i++) {
        status = whole_job_order(self, TRM_PHASE_SAMPLE, i);
        if (status == TRM_OK)
            trm_put_bytes(&keys, self->sample, self->report.sample_len);
    }
    uint32_t crc;
    if (status == TRM_OK)
        status = make_cuts(self, &keys);
    if (status == TRM_OK)
        status = trm_cuts_save(&self->cuts, trm_fs_posix(), self->spec.state_dir, &crc, &self->err);
    if (status == TRM_OK && self->crew)
        status = set_up_crew(self, self->setup.plan_crc, crc);
    trm_writer_close(&keys);
    self->env.cuts = &self->cuts;
    return status;
}

const char *whole_job_run_path(const whole_job *self, uint32_t map)
{
    static char path[2048];
    trm_run_name(self->run_store, WHOLE_JOB_EPOCH, map, self->attempt, path, sizeof path);
    return path;
}

static trm_status list_run(whole_job *self, trm_reduce_list *list, uint32_t map, uint32_t partition)
{
    trm_run_index index;
    const char *path = whole_job_run_path(self, map);
    trm_status status = trm_run_index_load(&index, trm_fs_posix(), path, &self->err);
    if (status != TRM_OK)
        return status;
    trm_reduce_list_file(list, path, map, self->attempt, false);
    for (uint32_t i = 0; i < index.count; i++)
        if (index.segments[i].partition == partition)
            trm_reduce_list_segment(list, &index.segments[i]);
    trm_run_index_close(&index);
    return TRM_OK;
}

trm_status whole_job_list(whole_job *self, uint32_t partition)
{
    char path[2048];
    trm_reduce_list list = {0};
    trm_reduce_list_begin(&list, partition, self->attempt);
    trm_status status = TRM_OK;
    for (uint32_t map = 0; map < self->plan.tasks && status == TRM_OK; map++)
        if (self->run_bytes[map])
            status = list_run(self, &list, map, partition);
    trm_reduce_list_name(self->run_store, WHOLE_JOB_EPOCH, partition, self->attempt, path, sizeof path);
    if (status == TRM_OK)
        status = trm_reduce_list_write(&list, trm_fs_posix(), path, &self->err);
    trm_reduce_list_close(&list);
    return status;
}

/* What the master does once the attempt is committed. */
static trm_status publish(whole_job *self, uint32_t task)
{
    char from[2048], to[2048];
    trm_fs *fs = trm_fs_posix();
    if (self->report.output_bytes == 0)
        return TRM_OK;
    trm_part_attempt_name(self->spec.output_dir, task, WHOLE_JOB_EPOCH, self->attempt, from, sizeof from);
    trm_part_name(self->spec.output_dir, task, self->spec.gzip_output, to, sizeof to);
    return fs->ops->rename(fs, from, to, &self->err);
}

trm_status whole_job_run(whole_job *self)
{
    trm_status status = whole_job_open(self);
    if (status == TRM_OK)
        status = whole_job_sample(self);
    for (uint32_t i = 0; i < self->plan.tasks && status == TRM_OK; i++) {
        status = whole_job_order(self, TRM_PHASE_MAP, i);
        if (status == TRM_OK && self->traits.map_only)
            status = publish(self, i);
    }
    for (uint32_t i = 0; i < self->plan.partitions && status == TRM_OK; i++) {
        status = whole_job_list(self, i);
        if (status == TRM_OK)
            status = whole_job_order(self, TRM_PHASE_REDUCE, i);
        if (status == TRM_OK)
            status = publish(self, i);
    }
    return status;
}

/* ---- Looking ------------------------------------------------------------------------------ */

uint8_t *whole_job_part(const whole_job *self, uint32_t task, size_t *len)
{
    char path[2048];
    uint8_t *bytes;
    trm_part_name(self->spec.output_dir, task, self->spec.gzip_output, path, sizeof path);
    if (trm_fs_read_whole(trm_fs_posix(), path, SIZE_MAX / 2, &bytes, len, NULL) == TRM_OK)
        return bytes;
    *len = 0;
    return calloc(1, 1);
}

static trm_status count_file(const char *name, void *context)
{
    ++*(unsigned *)context;
    return TRM_OK;
}

static unsigned count_files(const char *path)
{
    unsigned count = 0;
    trm_fs *fs = trm_fs_posix();
    fs->ops->list(fs, path, count_file, &count, NULL);
    return count;
}

unsigned whole_job_runs(const whole_job *self)
{
    return count_files(self->run_store);
}
unsigned whole_job_attempts(const whole_job *self)
{
    return count_files(self->path[ATTEMPTS]);
}
