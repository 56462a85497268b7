/* Whether a job may write its output where it is asked to, and what lies there of it.
 *
 *     output directory    is             then
 *     not there, empty    ·              FRESH
 *     this job's, ended   _SUCCESS       DONE; with --overwrite cleared, FRESH
 *     this job's          unfinished     RESUME, also with --overwrite
 *     another job's       ·              refused, saying what differs; with --overwrite cleared, FRESH
 *     a job's             half cleared   refused; with --overwrite cleared, FRESH
 *     anything else       ·              refused, also with --overwrite
 *
 * What --overwrite clears is all that is in the directory. So there must be a job in it (see
 * trm_state_shows_job, or the state of this very output lies where --state says), neither the working
 * directory nor the home directory may lie in it, and all that is known before anything is removed.
 *
 * Which job it is, is in STATE/identity: whole, checksummed, and there before the log is, so that
 * a job is compared before its log is opened. With --state DIR the output directory says in
 * .trireme/elsewhere where that is; the two belong together, and neither is shared.
 *
 * No link is followed: an output directory that is one is refused. The state directory is private
 * (0700), the output directory made by umask. Two launches at the same time are told apart by a
 * lock on the output directory's own file, held from trm_state_dir_open to trm_state_dir_close.
 */
#ifndef TRM_SCHEDULER_STATE_DIR_H
#define TRM_SCHEDULER_STATE_DIR_H

#include "runtime/fs.h"
#include "scheduler/submission.h"

#define TRM_STATE_VERSION 1u
#define TRM_SAVED_IDENTITY_BYTES_MAX (64u * 1024u)

typedef enum trm_state_found {
    TRM_STATE_FRESH = 1, /* nothing of this job is there */
    TRM_STATE_RESUME,    /* an unfinished run of it: the log says how far it came */
    TRM_STATE_DONE       /* it is done: nothing is to be run */
} trm_state_found;

typedef struct trm_state_dir {
    trm_fs *fs;
    const trm_spec *spec;
    trm_state_found found;
    trm_file *lock;
    bool made_private, made_state;          /* by this launch: what undo removes */
    char first_made[TRM_FS_PATH_BYTES_MAX]; /* the highest directory of the output's path; "": none */
} trm_state_dir;

/* Looks, decides, clears where --overwrite says so, makes the directories, and saves identity and
 * plan. With RESUME, `submission` takes over the saved plan. TRM_EOUTPUT: refused, in one sentence
 * that names the directory; TRM_EVERSION: the state is of another version of the program;
 * TRM_ECORRUPT: it is damaged; TRM_EFENCED: another launch is using it; TRM_ENOSPACE, TRM_ENOMEM. On
 * failure nothing is left that was not there before. */
trm_status trm_state_dir_open(trm_state_dir *self, const trm_spec *spec, trm_submission *submission,
                              trm_fs *fs, trm_err *err);
/* Nothing was committed to the log: removes what this launch has made. Also closes. */
void trm_state_dir_undo(trm_state_dir *self);
void trm_state_dir_close(trm_state_dir *self);

/* What was prepared and not committed is of no use to anybody once the job is done. */
void trm_state_dir_remove_attempts(const trm_spec *spec, trm_fs *fs);

/* The job that the state directory is of, as rank 0 has prepared it: identity and plan as they are
 * saved, for a rank that comes to lead. As trm_submission_init; TRM_ELOST when there is none. */
trm_status trm_state_dir_submission(trm_submission *out, const trm_spec *spec, const trm_traits *traits,
                                    trm_fs *fs, trm_err *err);

/* Takes the output directory's lock for a rank that leads, when the rank that held it has died; *out is
 * closed by the caller. TRM_AGAIN: it is held; else why it cannot be taken. */
trm_status trm_state_dir_hold(trm_file **out, const trm_spec *spec, trm_fs *fs, trm_err *err);

/* STATE/identity:
 *   u32 magic "TRMI" · u32 version · string output directory · identity as in SUBMIT · u32 CRC-32C
 * What is read of it is anything at all: TRM_ECORRUPT, TRM_EVERSION. */
void trm_saved_identity_encode(const trm_identity *identity, const char *output_dir, trm_writer *out);
trm_status trm_saved_identity_decode(const void *bytes, size_t len, trm_identity *identity, char *output_dir,
                                     size_t output_dir_bytes, trm_err *err);

#endif
