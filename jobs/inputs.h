/* What a user names as input → files.
 *
 *   FILE        a plain file; a link to one is followed
 *   DIRECTORY   every plain file below it, depth first, sorted by name (unsigned bytes) in each
 *               directory. Left out: names that begin with '.', a job's own _SUCCESS, whatever
 *               is neither file nor directory, and symbolic links, so that nothing outside is
 *               read and nothing twice; links that are left out are said once
 *   PATTERN     as the shell expands it, sorted by name: * ? [ ]; matches are files or
 *               directories. A name that is there is never taken for a pattern
 *   @LIST       a file that names files or directories, one a line, as they are (no patterns);
 *               empty lines are skipped. Relative ones are relative to the working directory
 *
 * Files keep the order in which they are named; one that is named twice is read twice. Files
 * in the job's output directory are refused.
 */
#ifndef TRM_JOBS_INPUTS_H
#define TRM_JOBS_INPUTS_H

#include "jobs/plan.h"

#define TRM_INPUTS_DEPTH_MAX 128u            /* directories within each other */
#define TRM_INPUTS_LIST_BYTES_MAX (1u << 30) /* an @list file */

/* Appends the files of spec->inputs to `plan`, opening each to see that it can be read and
 * whether it is gzip. TRM_EINPUT with the input's name, TRM_ENOMEM. */
trm_status trm_inputs_expand(const trm_spec *spec, trm_plan *plan, trm_err *err);

#endif
