/* Compression in zlib's format (RFC 1950), a block at a time.
 *
 * zlib is always there; where configure found libdeflate (HAVE_LIBDEFLATE) it does the
 * same work two to three times as fast. Each reads what the other wrote.
 */
#ifndef TRM_RUNTIME_CODEC_H
#define TRM_RUNTIME_CODEC_H

#include "runtime/status.h"

#include <stddef.h>
#include <stdint.h>

/* How bytes are stored: a number in formats on disk. */
typedef enum trm_codec_id { TRM_CODEC_NONE = 0, TRM_CODEC_ZLIB = 1 } trm_codec_id;

#define TRM_CODEC_LEVEL_MIN 1
#define TRM_CODEC_LEVEL_MAX 9
/* What one codec takes from malloc at most, whatever the level. */
#define TRM_CODEC_MEMORY_BYTES (1024u * 1024u)

typedef enum trm_codec_backend {
    TRM_CODEC_BACKEND_BEST = 0, /* libdeflate when it is there, else zlib */
    TRM_CODEC_BACKEND_ZLIB = 1  /* zlib in any case */
} trm_codec_backend;

typedef struct trm_codec trm_codec;

/* A codec that compresses at `level` (TRM_CODEC_LEVEL_MIN … MAX, asserted) and decompresses
 * anything. One thread at a time. The caller owns it; TRM_ENOMEM. */
trm_status trm_codec_create(trm_codec **out, trm_codec_backend backend, int level, trm_err *err);
void trm_codec_destroy(trm_codec *self); /* NULL is fine */

/* Compresses `raw_len` bytes into `out`. Returns the stored length, or 0 when it would not
 * fit into `out_bytes`: give less room than the raw bytes take, and 0 means that the block
 * does not shrink. */
size_t trm_codec_compress(trm_codec *self, const void *raw, size_t raw_len, void *out, size_t out_bytes);

/* Decompresses into exactly `raw_len` bytes. TRM_ECORRUPT when `stored` is not one whole
 * stream of that length with the right Adler-32; what `out` holds is undefined then. `stored`
 * may be anything at all. */
trm_status trm_codec_decompress(trm_codec *self, const void *stored, size_t stored_len, void *out,
                                size_t raw_len, trm_err *err);

/* "libdeflate" or "zlib". */
const char *trm_codec_backend_name(const trm_codec *self);

#endif
