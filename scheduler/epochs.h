/* The launches of a job, on disk: each is an epoch, with a group of voters and their logs.
 *
 *     LOG/epoch-<n>     launch n has begun: its first voters. Written whole, after their logs
 *     LOG/e<n>.r<rank>/ the log of that rank in that launch
 *         owner/        the register in which is decided whose launch n + 1 is
 *
 *     a launch begins:
 *       the newest epoch-<n> ─▶ logs of a majority of its voters, locked: nobody of launch n lives
 *         ─▶ decide whose n + 1 is, in their registers (Paxos, consensus/paxos.h)
 *         ─▶ the longest of the logs (Raft's rule for an election: what was committed is in it)
 *         ─▶ the job table ─▶ logs of the new voters, which begin with it ─▶ epoch-<n + 1>
 *
 * The voters of a launch are known by their logs' own membership, which changes as ranks die.
 * Who began a launch and died before epoch-<n + 1> was there has its number used up: the next
 * one, which holds the same locks, goes on with the number after it.
 *
 * epoch-<n>:
 *   u32 magic "TRME" · u32 version · u64 epoch · u32 ranks · blob members (raft.h) · u32 CRC-32C
 *
 * Blocks: called before there is a master. */
#ifndef TRM_SCHEDULER_EPOCHS_H
#define TRM_SCHEDULER_EPOCHS_H

#include "runtime/consensus/raft.h"
#include "runtime/fs.h"

#define TRM_EPOCH_VERSION 1u
#define TRM_EPOCH_TRIES_MAX 1000u /* numbers used up by launches that died at once */

typedef struct trm_epochs_config {
    trm_fs *fs;
    const char *state_dir;
    uint32_t ranks;
    const trm_raft_members *voters; /* of the new launch */
    const char *launch;             /* who we are, for people: "process 17 on host a" */
    uint64_t entropy;               /* no two launches have the same */
    bool unsafe_recover;            /* go on without a majority: what only the missing logs hold is lost */
} trm_epochs_config;

typedef struct trm_epochs_begun {
    uint64_t epoch;
    bool resumed;    /* there was a launch before */
    unsigned stores; /* of its logs that were read … */
    unsigned voters; /* … and how many voters it had */
} trm_epochs_begun;

/* Begins the next launch. TRM_EFENCED: another one lives, or has won the next number; TRM_ELOST:
 * too few logs of the last launch are there, names them and --unsafe-recover; or no epoch-<n> is, though
 * the state directory has the record of a launch; TRM_ECORRUPT, TRM_EVERSION, TRM_ENOSPACE, TRM_EIO,
 * TRM_ENOMEM. */
trm_status trm_epochs_begin(const trm_epochs_config *config, trm_epochs_begun *out, trm_err *err);
/* Removes what launches before `epoch` have left, once it is known that this one goes on. */
void trm_epochs_forget(trm_fs *fs, const char *state_dir, uint64_t epoch);

/* Makes the register of a log that a rank has begun in the course of a launch, in its directory. */
trm_status trm_epochs_join(trm_fs *fs, const char *store_dir, uint64_t entropy, trm_err *err);

/* LOG/e<n>.r<rank>; `out` has TRM_FS_PATH_BYTES_MAX. TRM_EOUTPUT: too long. */
trm_status trm_epoch_store_name(const char *state_dir, uint64_t epoch, uint32_t rank, char *out,
                                trm_err *err);

/* The bytes of epoch-<n>; whatever they are: TRM_ECORRUPT, TRM_EVERSION. */
void trm_epoch_file_encode(uint64_t epoch, uint32_t ranks, const trm_raft_members *members, trm_writer *out);
trm_status trm_epoch_file_decode(const void *bytes, size_t len, uint64_t *epoch, uint32_t *ranks,
                                 trm_raft_members *members, trm_err *err);

#endif
