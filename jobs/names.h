/* Names in the output and state directories, the same for who writes, who publishes and
 * who resumes.
 *
 *   OUT/part-00000 …          committed parts (".gz" with --gzip); one with nothing in it has no file
 *   OUT/_SUCCESS              the manifest, last of all
 *   OUT/.trireme/             private; also the state directory, unless --state names another
 *       lock                  held by the launch that writes
 *       attempts/             parts that are prepared and not committed
 *       elsewhere             with --state: the path of the state directory
 *       clearing              --overwrite has begun to remove what is in OUT, and has not ended
 *
 *   STATE/
 *       identity              which job this is, whole and checksummed
 *       log/                  the replicated log of this store
 *       plan, cuts-CRC        derived once, checksummed
 *       events.jsonl          what happened when (docs/events.md)
 *       stderr/               the last words of failed attempts
 *       skipped/              records that were left out (--skip-bad-records)
 *       status.json           how the job stands, rewritten whole
 *       bindings              which executor on which core
 */
#ifndef TRM_JOBS_NAMES_H
#define TRM_JOBS_NAMES_H

#include "runtime/status.h"

#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

#define TRM_STATE_DIR_NAME ".trireme"
#define TRM_SUCCESS_NAME "_SUCCESS"
#define TRM_LOCK_NAME "lock"
#define TRM_ATTEMPTS_NAME "attempts"
#define TRM_ELSEWHERE_NAME "elsewhere"
#define TRM_CLEARING_NAME "clearing"
#define TRM_IDENTITY_NAME "identity"
#define TRM_LOG_NAME "log"
#define TRM_EVENTS_NAME "events.jsonl"
#define TRM_STDERR_NAME "stderr"
#define TRM_SKIPPED_NAME "skipped"
#define TRM_STATUS_NAME "status.json"
#define TRM_BINDINGS_NAME "bindings"

/* <output>/part-00007 or part-00007.gz */
trm_status trm_part_name(const char *output_dir, uint32_t task, bool gzip, char *out, size_t out_bytes);
/* <output>/.trireme/attempts/part-00007.e<epoch>.a<attempt>: beside the output, wherever the state
 * lies, so that a rename puts it into place. */
trm_status trm_part_attempt_name(const char *output_dir, uint32_t task, uint64_t epoch, uint32_t attempt,
                                 char *out, size_t out_bytes);

#endif
