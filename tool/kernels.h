/* Kernels by name: the shared objects that are installed. */
#ifndef TRM_TOOL_KERNELS_H
#define TRM_TOOL_KERNELS_H

#include "jobs/spec.h"

/* Where installed kernels are looked for: TRIREME_KERNEL_DIR in the environment, else where
 * they lie beside this program, else where the build put them. */
#define TRM_KERNEL_DIR_VARIABLE "TRIREME_KERNEL_DIR"

/* Sets spec->kernel_path from spec->kernel_name: a path when it has a '/', else the name of an
 * installed kernel. TRM_EJOB when there is none of that name; that the file is a kernel is seen
 * by the executors, which load it. */
trm_status trm_kernel_find(trm_spec *spec, trm_err *err);

/* `trireme jobs [JOB]`: what is installed, or one job with its parameters. Kernels are loaded
 * in a process of their own: they are user code. Returns an exit code. */
int trm_jobs_command(int argc, char **argv);

#endif
