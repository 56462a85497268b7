/* The user's code, loaded: only executors do this. */
#ifndef TRM_WORKERS_KERNEL_H
#define TRM_WORKERS_KERNEL_H

#include "jobs/params.h"
#include "jobs/traits.h"

typedef struct trm_kernel {
    void *handle; /* NULL for a program's own job */
    const trm_job *job;
    trm_traits traits; /* params_hash included */
    trm_params params;
} trm_kernel;

/* Loads spec->kernel_path, or takes spec->own_job, checks its description and converts the
 * parameters. TRM_EJOB with a sentence that names the file: it is not there, cannot be read, is
 * not a shared object, does not load (the system's words), has no TRM_JOB_SYMBOL, was built for
 * another version of the interface, describes something impossible. TRM_EUSAGE for -p. The
 * loader runs the object's constructors, which are user code. */
trm_status trm_kernel_open(trm_kernel *self, const trm_spec *spec, trm_err *err);
/* The same without parameters: to show what a kernel is. */
trm_status trm_kernel_describe(trm_kernel *self, const trm_spec *spec, trm_err *err);
void trm_kernel_close(trm_kernel *self);

#endif
