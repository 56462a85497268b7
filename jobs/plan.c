#include "jobs/plan.h"

#include "jobs/inputs.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Paths lie in chunks of this size, so that hundreds of thousands of files cost neither
 * that many allocations nor a move when there are more. */
#define TEXT_BYTES (64u * 1024u)

typedef struct trm_plan_text {
    struct trm_plan_text *next;
    size_t used, room;
    char bytes[];
} trm_plan_text;

static char *keep_text(trm_plan *self, const char *text)
{
    size_t bytes = strlen(text) + 1;
    if (!self->texts || self->texts->room - self->texts->used < bytes) {
        size_t room = bytes > TEXT_BYTES ? bytes : TEXT_BYTES;
        trm_plan_text *chunk = malloc(sizeof *chunk + room);
        if (!chunk)
            return NULL;
        *chunk = (trm_plan_text){.next = self->texts, .room = room};
        self->texts = chunk;
    }
    char *at = self->texts->bytes + self->texts->used;
    memcpy(at, text, bytes);
    self->texts->used += bytes;
    return at;
}

trm_status trm_plan_add_file(trm_plan *self, const char *path, uint64_t bytes, uint64_t mtime_ns, bool gzip,
                             trm_err *err)
{
    if (self->files_count == TRM_PLAN_FILES_MAX)
        return trm_err_set(err, TRM_EINPUT, "there are more than %u input files; '%s' is the first too many",
                           TRM_PLAN_FILES_MAX, path);
    if (bytes > INT64_MAX - self->bytes)
        return trm_err_set(err, TRM_EINPUT, "the size of input '%s' makes no sense", path);
    if (self->files_count == self->files_room) {
        uint32_t room = self->files_room ? self->files_room * 2 : 64;
        trm_plan_file *files = realloc(self->files, room * sizeof *files);
        if (!files)
            return trm_err_set(err, TRM_ENOMEM, "no memory for a plan of %u files", room);
        self->files = files;
        self->files_room = room;
    }
    char *kept = keep_text(self, path);
    if (!kept)
        return trm_err_set(err, TRM_ENOMEM, "no memory for a plan of %u files", self->files_count + 1);
    self->files[self->files_count++] = (trm_plan_file){
        .path = kept, .bytes = bytes, .mtime_ns = mtime_ns, .begin = self->bytes, .gzip = gzip};
    self->bytes += bytes;
    return TRM_OK;
}

void trm_plan_close(trm_plan *self)
{
    free(self->files);
    free(self->begin);
    for (trm_plan_text *chunk = self->texts, *next; chunk; chunk = next) {
        next = chunk->next;
        free(chunk);
    }
    *self = (trm_plan){0};
}

/* ---- Cutting --------------------------------------------------------------- */

typedef struct cutter {
    trm_plan *plan;
    uint64_t split_bytes;
    uint64_t whole_tasks; /* those behind them are half as large */
    uint64_t file_cost;
    uint64_t weight; /* of the task that is open */
    uint32_t room;
    trm_err *err;
} cutter;

/* Ends the open task at `at`, where the next begins. */
static trm_status cut_at(cutter *self, uint64_t at)
{
    trm_plan *plan = self->plan;
    self->weight = 0;
    if (at == plan->begin[plan->tasks])
        return TRM_OK;
    if (plan->tasks == TRM_PLAN_SPLITS_MAX)
        return trm_err_set(self->err, TRM_EUSAGE,
                           "splits of %llu bytes make more than %u tasks of this input: raise --split-size",
                           (unsigned long long)self->split_bytes, TRM_PLAN_SPLITS_MAX);
    if (plan->tasks + 3 > self->room) { /* this boundary and the last one */
        uint32_t room = self->room * 2;
        uint64_t *begin = realloc(plan->begin, room * sizeof *begin);
        if (!begin)
            return trm_err_set(self->err, TRM_ENOMEM, "no memory for a plan of %u tasks", room);
        plan->begin = begin;
        self->room = room;
    }
    plan->begin[++plan->tasks] = at;
    if (plan->tasks == self->whole_tasks)
        self->split_bytes /= 2;
    return TRM_OK;
}

static trm_status cut_file(cutter *self, const trm_plan_file *file, uint64_t unit)
{
    trm_status status = TRM_OK;
    uint64_t whole = file->bytes + self->file_cost;
    if (unit == 0) { /* never inside */
        if (self->weight && self->weight + whole > self->split_bytes)
            status = cut_at(self, file->begin);
        self->weight += whole;
        return status;
    }
    if (self->weight && self->weight + self->file_cost >= self->split_bytes)
        status = cut_at(self, file->begin);
    self->weight += self->file_cost;
    uint64_t at = 0;
    while (status == TRM_OK && self->weight + (file->bytes - at) > self->split_bytes) {
        uint64_t room = self->split_bytes > self->weight ? self->split_bytes - self->weight : 0;
        uint64_t step = room - room % unit;
        /* A task holds a record at least; one that holds something already may end here. */
        if (step == 0 && file->begin + at == self->plan->begin[self->plan->tasks])
            step = unit;
        if (step >= file->bytes - at)
            break;
        at += step;
        status = cut_at(self, file->begin + at);
    }
    self->weight += file->bytes - at;
    return status;
}

/* Records never lie across the boundary of `unit` bytes; 0: the file is one whole. */
static uint64_t unit_of(const trm_plan *self, const trm_plan_file *file)
{
    if (file->gzip || self->input == TRM_INPUT_FILES)
        return 0;
    return self->input == TRM_INPUT_FIXED ? self->record_bytes : 1;
}

static trm_status cut(trm_plan *self, uint64_t whole_tasks, uint64_t file_cost, trm_err *err)
{
    cutter state = {.plan = self,
                    .split_bytes = self->split_bytes,
                    .whole_tasks = whole_tasks,
                    .file_cost = file_cost,
                    .room = 64,
                    .err = err};
    self->begin = malloc(state.room * sizeof *self->begin);
    if (!self->begin)
        return trm_err_set(err, TRM_ENOMEM, "no memory for a plan");
    self->begin[0] = 0;
    self->tasks = 0;
    trm_status status = TRM_OK;
    for (uint32_t i = 0; i < self->files_count && status == TRM_OK; i++)
        status = cut_file(&state, &self->files[i], unit_of(self, &self->files[i]));
    if (status != TRM_OK)
        return status;
    if (self->bytes > self->begin[self->tasks] || self->tasks == 0)
        self->begin[++self->tasks] = self->bytes;
    return TRM_OK;
}

/* As many tasks an executor as even out their times; for a job that sorts, no more than its
 * collector holds (it needs room for an index beside the pairs), so that a map spills once. */
static uint64_t choose_split(const trm_plan *self, const trm_traits *traits, uint32_t executors,
                             uint64_t memory_bytes, uint64_t *whole_tasks)
{
    uint64_t weight = self->bytes + (uint64_t)self->files_count * TRM_PLAN_FILE_COST_BYTES;
    uint64_t most = TRM_SPLIT_BYTES_MAX;
    if (!traits->folds && !traits->map_only && memory_bytes / 2 < most)
        most = memory_bytes / 2;
    if (most < TRM_SPLIT_BYTES_MIN)
        most = TRM_SPLIT_BYTES_MIN;
    unsigned each = traits->folds ? TRM_PLAN_FOLDS_AN_EXECUTOR : TRM_PLAN_TASKS_AN_EXECUTOR;
    uint64_t wanted = weight / ((uint64_t)executors * each) + 1;
    bool halves = traits->folds && wanted <= most && wanted >= 2 * TRM_SPLIT_BYTES_MIN;
    if (wanted > most)
        wanted = most;
    if (wanted < TRM_SPLIT_BYTES_MIN)
        wanted = TRM_SPLIT_BYTES_MIN;
    /* The same number of tasks, all of a size. */
    uint64_t tasks = weight / wanted + (weight % wanted != 0);
    *whole_tasks = halves ? tasks - tasks / 4 : UINT64_MAX;
    uint64_t even = tasks ? weight / tasks + 1 : wanted;
    uint64_t unit = self->input == TRM_INPUT_FIXED ? self->record_bytes : 1;
    return (even + unit - 1) / unit * unit;
}

static trm_status check_files(const trm_plan *self, trm_err *err)
{
    if (self->bytes == 0 && self->input != TRM_INPUT_FILES)
        return trm_err_set(err, TRM_EINPUT, "the input is empty: '%s'%s", self->files[0].path,
                           self->files_count > 1 ? " and all others" : "");
    for (uint32_t i = 0; i < self->files_count && self->input == TRM_INPUT_FIXED; i++) {
        const trm_plan_file *file = &self->files[i];
        if (!file->gzip && file->bytes % self->record_bytes != 0)
            return trm_err_set(
                err, TRM_EINPUT, "input '%s' has %llu bytes, which is not a multiple of the record size %llu",
                file->path, (unsigned long long)file->bytes, (unsigned long long)self->record_bytes);
    }
    return TRM_OK;
}

static trm_status plan_without_input(trm_plan *self, const trm_spec *spec, const trm_traits *traits,
                                     trm_err *err)
{
    if (spec->inputs_count)
        return trm_err_set(err, TRM_EUSAGE, "job '%s' takes no input, but '%s' is given", traits->name,
                           spec->inputs[0]);
    uint64_t tasks = spec->tasks ? spec->tasks : 1;
    if (tasks > TRM_TASKS_MAX)
        return trm_err_set(err, TRM_EUSAGE, "--tasks %llu is more than %u", (unsigned long long)tasks,
                           TRM_TASKS_MAX);
    self->tasks = (uint32_t)tasks;
    return TRM_OK;
}

static trm_status plan_input(trm_plan *self, const trm_spec *spec, const trm_traits *traits,
                             uint32_t executors, uint64_t memory_bytes, trm_err *err)
{
    if (spec->tasks > 1)
        return trm_err_set(err, TRM_EUSAGE,
                           "--tasks %llu is for jobs without input, and job '%s' has some: say --split-size, "
                           "how large its tasks are",
                           (unsigned long long)spec->tasks, traits->name);
    trm_status status = trm_inputs_expand(spec, self, err);
    if (status == TRM_OK)
        status = check_files(self, err);
    if (status != TRM_OK)
        return status;
    self->split_bytes = spec->split_bytes;
    if (self->split_bytes)
        return cut(self, UINT64_MAX, 0, err);
    uint64_t whole_tasks;
    self->split_bytes = choose_split(self, traits, executors, memory_bytes, &whole_tasks);
    return cut(self, whole_tasks, TRM_PLAN_FILE_COST_BYTES, err);
}

trm_status trm_plan_build(trm_plan *self, const trm_spec *spec, const trm_traits *traits, uint32_t executors,
                          uint64_t memory_bytes, trm_err *err)
{
    assert(executors > 0);
    uint32_t partitions = spec->partitions ? spec->partitions : executors;
    if (spec->partitions > TRM_PARTITIONS_MAX)
        return trm_err_set(err, TRM_EUSAGE, "%u partitions are more than %u", spec->partitions,
                           TRM_PARTITIONS_MAX);
    if (partitions > TRM_PARTITIONS_MAX)
        partitions = TRM_PARTITIONS_MAX;
    trm_plan plan = {
        .input = traits->input,
        .record_bytes = traits->input == TRM_INPUT_FIXED ? traits->record_bytes : 0,
        .partitions = traits->map_only ? 0 : partitions,
    };
    trm_status status = traits->input == TRM_INPUT_NONE
                            ? plan_without_input(&plan, spec, traits, err)
                            : plan_input(&plan, spec, traits, executors, memory_bytes, err);
    if (status != TRM_OK) {
        trm_plan_close(&plan);
        return status;
    }
    *self = plan;
    return TRM_OK;
}

/* ---- Pieces ----------------------------------------------------------------- */

/* The first file that begins at `at` or after. */
static uint32_t first_file_from(const trm_plan *self, uint64_t at)
{
    uint32_t low = 0, high = self->files_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (self->files[middle].begin < at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

unsigned trm_plan_pieces(const trm_plan *self, uint32_t task, unsigned first, trm_piece *out, unsigned max)
{
    assert(task < self->tasks);
    if (!self->begin)
        return 0;
    uint64_t begin = self->begin[task], end = self->begin[task + 1];
    uint32_t low = first_file_from(self, begin);
    if (low > 0 && self->files[low - 1].begin + self->files[low - 1].bytes > begin)
        low--;
    /* Empty files at the very end belong to the last task. */
    uint32_t high = task + 1 == self->tasks ? self->files_count : first_file_from(self, end);
    unsigned count = 0;
    for (uint64_t i = (uint64_t)low + first; i < high && count < max; i++) {
        const trm_plan_file *file = &self->files[i];
        uint64_t from = file->begin > begin ? file->begin : begin;
        uint64_t to = file->begin + file->bytes < end ? file->begin + file->bytes : end;
        out[count++] = (trm_piece){.file = file, .offset = from - file->begin, .bytes = to - from};
    }
    return count;
}
