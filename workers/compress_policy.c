#include "workers/compress_policy.h"

#include <assert.h>
#include <string.h>

#define AVERAGE_WEIGHT 0.125 /* of a new measurement */
/* What is assumed before anything was measured: zlib's fastest level, as a slow core does it. */
#define COMPRESS_BYTES_S_GUESS 150e6
#define DECOMPRESS_BYTES_S_GUESS 450e6
#define RATIO_GUESS 2.0
/* A disk that is faster than the codec by so much is not worth a probe: even a perfect ratio
 * saves less than compressing costs. */
#define DISK_MUCH_FASTER 3.0
#define WRITE_BYTES_MIN (64u * 1024u) /* smaller writes say nothing of the bandwidth */

void trm_compress_policy_init(trm_compress_policy *self, trm_compress_mode mode, int level,
                              double link_bytes_s)
{
    *self = (trm_compress_policy){
        .mode = mode,
        .level = level,
        .link_bytes_s = link_bytes_s,
        .probe_interval = TRM_COMPRESS_PROBE_MIN,
        .probe_in = 1, /* nothing is known: the first block that might gain is asked */
    };
}

static double known_or(double average, double guess)
{
    return average > 0 ? average : guess;
}

static void average(double *self, double sample)
{
    *self = *self > 0 ? *self + AVERAGE_WEIGHT * (sample - *self) : sample;
}

static double bytes_s(size_t bytes, uint64_t ns)
{
    return (double)bytes * 1e9 / (double)(ns ? ns : 1);
}

/* Whether compressing beats moving the bytes at `bandwidth` as they are. */
static bool pays(const trm_compress_policy *self, double bandwidth)
{
    double ratio = known_or(self->ratio, RATIO_GUESS);
    double seconds_a_byte = 1 / known_or(self->compress_bytes_s, COMPRESS_BYTES_S_GUESS) +
                            1 / known_or(self->decompress_bytes_s, DECOMPRESS_BYTES_S_GUESS);
    return (1 - 1 / ratio) / seconds_a_byte > bandwidth;
}

static bool auto_wants(trm_compress_policy *self, bool remote)
{
    double bandwidth = remote && self->link_bytes_s > 0 ? self->link_bytes_s : self->disk_bytes_s;
    if (bandwidth == 0)
        return false; /* nothing was written yet: leave it alone */
    if (pays(self, bandwidth)) {
        self->probe_interval = self->probe_in = TRM_COMPRESS_PROBE_MIN;
        return true;
    }
    if (bandwidth > DISK_MUCH_FASTER * known_or(self->compress_bytes_s, COMPRESS_BYTES_S_GUESS))
        return false;
    if (--self->probe_in)
        return false;
    if (self->probe_interval < TRM_COMPRESS_PROBE_MAX)
        self->probe_interval *= 2;
    self->probe_in = self->probe_interval;
    self->blocks_probed++;
    return true;
}

bool trm_compress_policy_wants(trm_compress_policy *self, bool remote)
{
    bool wants =
        self->mode == TRM_COMPRESS_ZLIB || (self->mode == TRM_COMPRESS_AUTO && auto_wants(self, remote));
    if (!wants)
        self->blocks_plain++;
    return wants;
}

void trm_compress_policy_compressed(trm_compress_policy *self, size_t raw_bytes, size_t stored_bytes,
                                    uint64_t ns)
{
    assert(stored_bytes <= raw_bytes);
    if (stored_bytes)
        self->blocks_compressed++;
    else
        self->blocks_no_gain++;
    if (raw_bytes == 0 || ns == 0)
        return;
    average(&self->ratio, stored_bytes ? (double)raw_bytes / (double)stored_bytes : 1.0);
    average(&self->compress_bytes_s, bytes_s(raw_bytes, ns));
}

void trm_compress_policy_decompressed(trm_compress_policy *self, size_t raw_bytes, uint64_t ns)
{
    if (raw_bytes && ns)
        average(&self->decompress_bytes_s, bytes_s(raw_bytes, ns));
}

void trm_compress_policy_wrote(trm_compress_policy *self, size_t bytes, uint64_t ns)
{
    if (bytes >= WRITE_BYTES_MIN && ns)
        average(&self->disk_bytes_s, bytes_s(bytes, ns));
}
