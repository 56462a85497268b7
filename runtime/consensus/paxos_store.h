/* The durable side of a Paxos acceptor: a directory with an identity that was drawn when
 * it was made and a small file a register, each written whole (aside, synced, renamed,
 * directory synced) before the answer leaves. Any process that sees the directory may
 * answer for the store: each answer locks it, reads, decides, writes.
 *
 *   identity        "trm-pxid", u32 version, u64 store id, u32 CRC-32C of all before
 *   register-HEX16  "trm-pxrg", u32 version, u64 store id, u64 register id,
 *                   promised u64 round u64 node, accepted u64 round u64 node,
 *                   u32 value length, value, u32 CRC-32C of all before
 *   lock            empty; locked while an answer is made
 *
 * A directory that was wiped and made again has another identity and does not answer
 * requests to the old one: what the old one had promised is not known to it.
 * Calls block for a sync. Any thread; one call at a time in a directory (TRM_AGAIN).
 */
#ifndef TRM_RUNTIME_CONSENSUS_PAXOS_STORE_H
#define TRM_RUNTIME_CONSENSUS_PAXOS_STORE_H

#include "runtime/consensus/paxos.h"
#include "runtime/fs.h"

/* Makes the store with the drawn `store_id`, or finds it: *out is the id that it has.
 * TRM_ECORRUPT, TRM_EVERSION: an identity that cannot be read is never replaced. */
trm_status trm_paxos_store_make(trm_fs *fs, const char *dir, uint64_t store_id, uint64_t *out, trm_err *err);
/* TRM_ELOST: there is no store. */
trm_status trm_paxos_store_id(trm_fs *fs, const char *dir, uint64_t *out, trm_err *err);

/* Answers `request` for register `register_id` (other registers are not touched: what
 * is received must not fill the disk). TRM_OK: send *answer. TRM_ELOST: the request is
 * for another store, or another register, or the store is gone: no answer. TRM_AGAIN:
 * another process is at it, ask again. On TRM_EIO, TRM_ENOSPACE, TRM_ECORRUPT, and
 * TRM_EVERSION nothing is answered; what was promised before still holds. */
trm_status trm_paxos_store_answer(trm_fs *fs, const char *dir, uint64_t register_id,
                                  const trm_paxos_message *request, trm_paxos_message *answer, trm_err *err);
/* The state of a register; one that nobody has written has round 0. */
trm_status trm_paxos_store_read(trm_fs *fs, const char *dir, uint64_t register_id, trm_paxos_acceptor *out,
                                trm_err *err);

/* The bytes of a register's file; pure. */
void trm_paxos_register_encode(const trm_paxos_acceptor *state, trm_writer *out);
trm_status trm_paxos_register_decode(trm_paxos_acceptor *out, const uint8_t *bytes, size_t len, trm_err *err);

#endif
