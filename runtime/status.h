/* What can go wrong, in one type.
 *
 * A status is grouped by what the failure reaches: a record, a task, a worker,
 * a rank, the job, the launch. The group of a status decides what is done about
 * it (retry the attempt, move the task, end the job); its number is never sent
 * over a wire without `trm_status_valid` on the other side.
 *
 * Rules of the house:
 *  - a bad input or a failing system returns a status; a bug asserts;
 *  - outputs are set only on TRM_OK;
 *  - whoever detects a failure writes the sentence into the caller's `trm_err`,
 *    callers above pass it on and may wrap it with trm_err_wrap.
 */
#ifndef TRM_RUNTIME_STATUS_H
#define TRM_RUNTIME_STATUS_H

#include <stdbool.h>
#include <stdint.h>

typedef enum trm_status {
    TRM_OK = 0,

    /* Not failures: what a caller that must not block is told. */
    TRM_AGAIN = 1, /* nothing to do now, or a named bound is reached: call later */
    TRM_EOF = 2,   /* the source has ended cleanly */

    /* Reach: a record. */
    TRM_ERECORD = 16, /* a record, key or value over its limit, or malformed */

    /* Reach: a task attempt. */
    TRM_EKERNEL = 32,  /* user code returned an error, or broke its contract */
    TRM_ECORRUPT = 33, /* bytes that do not carry their checksum, magic or shape */
    TRM_ETIMEOUT = 34, /* a bound on time was passed */
    TRM_ELIMIT = 35,   /* a bound on memory or size was passed */
    TRM_ELOST = 36,    /* an input of the task is gone (a run, a rank's store) */

    /* Reach: a worker or its rank. */
    TRM_EIO = 48,      /* the system refused a read, write or sync */
    TRM_ENOSPACE = 49, /* a file system is full */
    TRM_ENOMEM = 50,   /* the system refused memory */
    TRM_EPEER = 51,    /* another process is gone, or sends what nobody may send */

    /* Reach: the job. */
    TRM_EINPUT = 64,  /* an input of the job is missing, unreadable, malformed */
    TRM_EOUTPUT = 65, /* the output place is refused or not writable */
    TRM_EJOB = 66,    /* the kernel cannot be loaded, or its description is wrong */
    TRM_EFAILED = 67, /* a task failed its last attempt */

    /* Reach: the launch. */
    TRM_EUSAGE = 80,       /* the command line */
    TRM_ELAUNCH = 81,      /* mpirun, MPI or the crew cannot be started */
    TRM_EINTERRUPTED = 82, /* a person or the batch system ended the launch */
    TRM_EFENCED = 83,      /* an epoch, term or attempt is no longer valid */
    TRM_EVERSION = 84      /* a format of another version */
} trm_status;

/* A message buffer owned by the caller. `text` is always terminated; a sentence
 * that does not fit is cut, never overrun. */
#define TRM_ERR_TEXT_BYTES 1024u
typedef struct trm_err {
    char text[TRM_ERR_TEXT_BYTES];
} trm_err;

/* A short constant name, such as "TRM_EIO"; "TRM_?" for a number that is none. */
const char *trm_status_name(trm_status status);

/* Whether `value` is the number of a status; use it on anything received. */
bool trm_status_valid(uint32_t value);

/* Writes a sentence into `err` (which may be NULL) and returns `status`, so that
 * the first to detect can `return trm_err_set(err, TRM_EIO, "…")`. */
trm_status trm_err_set(trm_err *err, trm_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* As trm_err_set, with ": " and the text of `error_number` appended. ENOSPC and
 * EDQUOT turn TRM_EIO into TRM_ENOSPACE, ENOMEM into TRM_ENOMEM. */
trm_status trm_err_errno(trm_err *err, trm_status status, int error_number, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Puts "prefix: " in front of what `err` says (nothing when `err` is NULL). */
void trm_err_wrap(trm_err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
