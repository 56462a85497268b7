/* What an executor's orders mean: the job's kernel over the job's plan. */
#include "jobs/cuts.h"
#include "jobs/placement.h"
#include "workers/executor.h"
#include "workers/kernel.h"

#include <stdlib.h>

typedef struct executor_job {
    trm_executor_env env; /* first: partition_is_remote is given no more than this */
    trm_kernel kernel;
    trm_crew_setup_msg setup;
    trm_plan plan; /* tasks 0: none is loaded */
    trm_cuts cuts;
} executor_job;

/* ---- Open --------------------------------------------------------------------------- */

static trm_status job_open(const trm_executor_place *place, void **out, trm_traits *traits, trm_err *err)
{
    executor_job *self = calloc(1, sizeof *self);
    if (!self)
        return trm_err_set(err, TRM_ENOMEM, "no memory for the job");
    trm_status status = trm_kernel_open(&self->kernel, place->spec, err);
    if (status != TRM_OK) {
        free(self);
        return status;
    }
    self->env = (trm_executor_env){
        .fs = trm_fs_posix(),
        .spec = place->spec,
        .job = self->kernel.job,
        .traits = &self->kernel.traits,
        .plan = &self->plan,
        .params = &self->kernel.params,
        .run_store = place->run_store,
        .memory_bytes = place->memory_bytes,
        .executor = place->executor,
        .host_count = 1,
        .board = place->board,
    };
    *traits = self->kernel.traits;
    *out = self;
    return TRM_OK;
}

/* ---- Setup ---------------------------------------------------------------------------- */

static bool partition_is_remote(const trm_executor_env *env, uint32_t partition)
{
    const executor_job *self = (const executor_job *)env;
    uint32_t home = trm_partition_home(partition, env->plan->partitions, self->setup.ranks);
    for (uint32_t i = 0; i < self->setup.near_count; i++)
        if (home >= self->setup.near[i].first && home < self->setup.near[i].end)
            return false;
    return true;
}

/* Another plan is another job: nothing of the attempts before it is of use. */
static trm_status take_plan(executor_job *self, uint32_t crc, trm_err *err)
{
    if (self->plan.tasks && self->setup.plan_crc == crc)
        return TRM_OK;
    trm_executor_env_close(&self->env);
    trm_plan_close(&self->plan);
    self->plan = (trm_plan){0};
    trm_plan plan;
    trm_status status = trm_plan_load(&plan, self->env.fs, self->env.spec->state_dir, crc, err);
    if (status == TRM_OK)
        self->plan = plan;
    return status;
}

static trm_status take_cuts(executor_job *self, uint32_t crc, trm_err *err)
{
    if (crc == 0 || (self->env.cuts && self->setup.cuts_crc == crc))
        return TRM_OK;
    trm_cuts cuts;
    trm_status status = trm_cuts_load(&cuts, self->env.fs, self->env.spec->state_dir, crc, err);
    if (status != TRM_OK)
        return status;
    if (cuts.partitions != self->plan.partitions) {
        trm_cuts_close(&cuts);
        return trm_err_set(err, TRM_ECORRUPT, "the cuts are for %u partitions, the plan has %u",
                           cuts.partitions, self->plan.partitions);
    }
    trm_cuts_close(&self->cuts);
    self->cuts = cuts;
    self->env.cuts = &self->cuts;
    return TRM_OK;
}

static trm_status job_setup(void *job, const trm_crew_setup_msg *setup, trm_err *err)
{
    executor_job *self = job;
    trm_status status = take_plan(self, setup->plan_crc, err);
    if (status == TRM_OK)
        status = take_cuts(self, setup->cuts_crc, err);
    if (status != TRM_OK)
        return status;
    self->setup = *setup;
    self->env.epoch = setup->epoch;
    self->env.host_count = setup->hosts;
    self->env.partition_is_remote = setup->hosts > 1 && setup->ranks ? partition_is_remote : NULL;
    return TRM_OK;
}

/* ---- Run ------------------------------------------------------------------------------ */

static trm_status job_run(void *job, const trm_order *order, trm_report *report, trm_err *err)
{
    trm_executor_env *env = &((executor_job *)job)->env;
    uint32_t tasks = order->phase == TRM_PHASE_REDUCE ? env->plan->partitions : env->plan->tasks;
    if (order->task >= tasks)
        return trm_err_set(err, TRM_EPEER, "task %u was ordered, but its phase has %u", order->task, tasks);
    switch (order->phase) {
    case TRM_PHASE_SAMPLE:
        return trm_sample_task_run(env, order, report, err);
    case TRM_PHASE_MAP:
        if (env->traits->range_partitioned && env->plan->partitions > 1 && !env->cuts)
            return trm_err_set(err, TRM_EPEER, "a map was ordered before there were cuts");
        return trm_map_task_run(env, order, report, err);
    case TRM_PHASE_REDUCE:
        return trm_reduce_task_run(env, order, report, err);
    default:
        return trm_err_set(err, TRM_EPEER, "there is no phase %u", order->phase);
    }
}

const trm_executor_ops *trm_executor_job_ops(void)
{
    static const trm_executor_ops ops = {.open = job_open, .setup = job_setup, .run = job_run};
    return &ops;
}
