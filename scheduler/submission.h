/* What a launch submits: the plan of the job's tasks, its traits, and the identity by which a
 * later launch knows that it is the same job. Made by the rank that leads, before the log is
 * opened. */
#ifndef TRM_SCHEDULER_SUBMISSION_H
#define TRM_SCHEDULER_SUBMISSION_H

#include "jobs/command.h"
#include "jobs/plan.h"

#define TRM_KERNEL_BYTES_MAX (1ull << 30) /* of a shared object */

typedef struct trm_submission {
    trm_traits traits;
    trm_plan plan;
    trm_identity identity;
} trm_submission;

/* Plans the job of `spec` and `traits` for `executors` over all ranks (at least 1), each with
 * `memory_bytes`. Reads the kernel's file for its checksum. What trm_plan_build says; TRM_EJOB
 * when the kernel's file cannot be read. Closed by trm_submission_close on TRM_OK only. */
trm_status trm_submission_init(trm_submission *self, const trm_spec *spec, const trm_traits *traits,
                               uint32_t executors, uint64_t memory_bytes, trm_fs *fs, trm_err *err);
void trm_submission_close(trm_submission *self);

/* The job was planned before, as `saved`: takes that plan, which lies in the state directory, in
 * place of the one that was made now, because the number of executors may have changed, and with
 * it the splits and partitions that are chosen. Both must be of the same job (see below).
 * TRM_ECORRUPT and TRM_EVERSION for a plan that is not the one that `saved` names. */
trm_status trm_submission_resume(trm_submission *self, const trm_identity *saved, trm_fs *fs,
                                 const char *state_dir, trm_err *err);

/* Whether `now` is the job that `saved` is. What was not asked for (the number of partitions, the
 * size of splits) was chosen, and may differ. The inputs are compared by trm_submission_resume's
 * plan: trm_submission_same_inputs. False: `err` says in one sentence what differs. */
bool trm_identity_same_job(const trm_identity *saved, const trm_identity *now, trm_err *err);
/* Whether two plans read the same files: by path, size and time of change. */
bool trm_plan_same_inputs(const trm_plan *saved, const trm_plan *now, trm_err *err);

#endif
