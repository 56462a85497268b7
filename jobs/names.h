/* Names in the output and state directories, the same for who writes, who publishes and
 * who resumes.
 *
 *   OUT/part-00000 …          committed parts (".gz" with --gzip)
 *   OUT/_SUCCESS              the manifest, last of all
 *   OUT/.trireme/             the state directory:
 *       log/                  the replicated log of this store
 *       plan, cuts            derived once, checksummed
 *       attempts/             parts that are prepared and not committed
 *       events.jsonl          what happened when
 *       stderr/               the last words of failed attempts
 *       status.json           how the job stands, rewritten whole
 */
#ifndef TRM_JOBS_NAMES_H
#define TRM_JOBS_NAMES_H

#include "runtime/status.h"

#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

#define TRM_STATE_DIR_NAME ".trireme"
#define TRM_SUCCESS_NAME "_SUCCESS"

/* <output>/part-00007 or part-00007.gz */
trm_status trm_part_name(const char *output_dir, uint32_t task, bool gzip, char *out, size_t out_bytes);
/* <state>/attempts/part-00007.e<epoch>.a<attempt> */
trm_status trm_part_attempt_name(const char *state_dir, uint32_t task, uint64_t epoch, uint32_t attempt,
                                 char *out, size_t out_bytes);

#endif
