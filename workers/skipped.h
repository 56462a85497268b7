/* Records that kill a kernel, written aside when they are left out: for people to look at.
 *
 *     STATE/skipped/                   0700
 *         map-00017.record-123         0600: record 123 of map task 17, from 0
 *
 * A file is one line of JSON, then the record's bytes: {"version":1,"task":17,"record":123,
 * "file":"/data/x","offset":4711,"bytes":57}, the offset as in the uncompressed file. Whichever attempt
 * writes it, it has the same bytes, and is there whole or not at all. A record is there before the
 * attempt that leaves it out is committed.
 */
#ifndef TRM_WORKERS_SKIPPED_H
#define TRM_WORKERS_SKIPPED_H

#include "jobs/trireme.h"
#include "runtime/fs.h"

#define TRM_SKIPPED_VERSION 1u

typedef struct trm_skipped {
    const char *state_dir;
    uint64_t epoch;
    uint32_t task, attempt;
    uint32_t number; /* of the record in its task */
    const trm_record *record;
} trm_skipped;

/* As fs.h says; TRM_EOUTPUT for a path that is too long. */
trm_status trm_skipped_write(const trm_skipped *self, trm_fs *fs, trm_err *err);

#endif
