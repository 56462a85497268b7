/* Which blocks are worth compressing (--compress auto|none|zlib[:LEVEL]).
 *
 * Compression pays when what it saves is more than what it costs:
 *
 *     (1 - 1/ratio) / (1/C + 1/D) > B
 *
 * C, D: bytes a second that one core compresses and decompresses; B: the bandwidth that
 * the bytes have to themselves: the link for a partition that is reduced on another host,
 * the disk for the rest. `auto` measures all but the link: ratio and C on sampled blocks,
 * D where blocks are read, the disk by the writes of runs. All are moving averages. While
 * it does not compress it probes one block in a while, at intervals that double up to
 * TRM_COMPRESS_PROBE_MAX, and not at all when the disk is faster than any codec.
 *
 * One an executor, living as long as it: what one task has measured serves the next. It
 * reads no clock; whoever measures passes nanoseconds in.
 */
#ifndef TRM_WORKERS_COMPRESS_POLICY_H
#define TRM_WORKERS_COMPRESS_POLICY_H

#include "jobs/spec.h"

#include <stdbool.h>
#include <stdint.h>

#define TRM_COMPRESS_PROBE_MIN 16u   /* blocks between probes, at first */
#define TRM_COMPRESS_PROBE_MAX 1024u /* … and at the most */

typedef struct trm_compress_policy {
    trm_compress_mode mode;
    int level;
    double link_bytes_s;                                              /* 0: no other host */
    double ratio, compress_bytes_s, decompress_bytes_s, disk_bytes_s; /* averages; 0: not known */
    uint32_t probe_interval, probe_in;                                /* blocks */
    uint64_t blocks_compressed, blocks_plain, blocks_probed, blocks_no_gain;
} trm_compress_policy;

/* `link_bytes_s`: what one executor may expect of the link to other hosts; 0 where the job
 * is on one host. A guess (such as 100 MB/s for a gigabit port) is good enough. */
void trm_compress_policy_init(trm_compress_policy *self, trm_compress_mode mode, int level,
                              double link_bytes_s);

/* Whether to try to compress the next block of a segment whose partition is read on another
 * host (`remote`) or on this one. */
bool trm_compress_policy_wants(trm_compress_policy *self, bool remote);
/* A block was compressed in `ns`; stored_bytes 0: it did not shrink. */
void trm_compress_policy_compressed(trm_compress_policy *self, size_t raw_bytes, size_t stored_bytes,
                                    uint64_t ns);
void trm_compress_policy_decompressed(trm_compress_policy *self, size_t raw_bytes, uint64_t ns);
/* A write of a run took `ns`. */
void trm_compress_policy_wrote(trm_compress_policy *self, size_t bytes, uint64_t ns);

#endif
