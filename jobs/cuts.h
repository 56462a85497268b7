/* Cut points of a range partitioned job: partitions - 1 keys in ascending order of
 * unsigned bytes (a prefix first). A key belongs to partition number "how many cuts are
 * not above it", so that the parts, in order, are sorted as a whole. Made once by the
 * leader from sampled keys, saved in the state directory, read by every executor.
 *
 *   file: u32 magic "TRMC" · u32 version · u32 partitions · u64 bytes of the keys ·
 *         per cut: varint length · key      · u32 CRC-32C of all before it
 *
 * That checksum names the cuts in SETUP and in the log.
 */
#ifndef TRM_JOBS_CUTS_H
#define TRM_JOBS_CUTS_H

#include "jobs/spec.h"
#include "runtime/bytes.h"
#include "runtime/fs.h"

#define TRM_CUTS_NAME "cuts"
#define TRM_CUTS_BYTES_MAX (256u << 20) /* of the file */

typedef struct trm_cuts {
    uint32_t partitions; /* at least 1; one more than there are cuts */
    uint8_t *keys;       /* all keys, end to end */
    uint64_t *begin;     /* `partitions` entries: cut i is [begin[i], begin[i + 1]) of keys */
    uint64_t *prefix;    /* the first eight bytes of cut i as a big-endian number, 0 where short */
    uint32_t first[257]; /* how many cuts have a first byte below b (an empty cut counts for all) */
} trm_cuts;

typedef struct trm_cuts_key {
    const uint8_t *bytes;
    size_t len;
} trm_cuts_key;

/* Makes cuts of partitions - 1 ascending keys, which are copied; equal ones leave the
 * partitions between them empty. TRM_ENOMEM; TRM_EINPUT when they do not ascend, a key is
 * over TRM_KEY_BYTES_MAX, or partitions is 0 or over TRM_PARTITIONS_MAX. */
trm_status trm_cuts_init(trm_cuts *self, const trm_cuts_key *keys, uint32_t partitions, trm_err *err);
/* Also of a zeroed one. */
void trm_cuts_close(trm_cuts *self);

/* Compares by unsigned bytes, a prefix first: < 0, 0, > 0. */
int trm_cuts_compare(const void *a, size_t a_len, const void *b, size_t b_len);
/* The partition of a key, in [0, partitions). Any thread; no allocation, about
 * log2(partitions / 256) compared words. */
uint32_t trm_cuts_find(const trm_cuts *self, const void *key, size_t key_len);

void trm_cuts_encode(const trm_cuts *self, trm_writer *out);
/* TRM_ECORRUPT, TRM_EVERSION, TRM_ENOMEM. */
trm_status trm_cuts_decode(trm_cuts *self, const void *bytes, size_t len, trm_err *err);
/* state_dir/cuts-CRC, whole and durable; *crc names it. A master that was cut off, and saves others
 * while those of its follower are in the log already, does them no harm. */
trm_status trm_cuts_save(const trm_cuts *self, trm_fs *fs, const char *state_dir, uint32_t *crc,
                         trm_err *err);
/* TRM_ECORRUPT when the file is not the one with this checksum. */
trm_status trm_cuts_load(trm_cuts *self, trm_fs *fs, const char *state_dir, uint32_t crc, trm_err *err);

#endif
