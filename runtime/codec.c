#include "config.h"
#include "runtime/codec.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <zlib.h>
#ifdef HAVE_LIBDEFLATE
#include <libdeflate.h>
#endif

#define ZLIB_WINDOW_BITS 15
#define ZLIB_MEM_LEVEL 8

struct trm_codec {
#ifdef HAVE_LIBDEFLATE
    struct libdeflate_compressor *compressor; /* NULL: zlib does the work */
    struct libdeflate_decompressor *decompressor;
#endif
    z_stream deflate, inflate;
    bool deflate_open, inflate_open;
};

static trm_status open_zlib(trm_codec *self, int level, trm_err *err)
{
    self->deflate_open = deflateInit2(&self->deflate, level, Z_DEFLATED, ZLIB_WINDOW_BITS, ZLIB_MEM_LEVEL,
                                      Z_DEFAULT_STRATEGY) == Z_OK;
    self->inflate_open = inflateInit2(&self->inflate, ZLIB_WINDOW_BITS) == Z_OK;
    if (!self->deflate_open || !self->inflate_open)
        return trm_err_set(err, TRM_ENOMEM, "no memory for a codec (zlib)");
    return TRM_OK;
}

trm_status trm_codec_create(trm_codec **out, trm_codec_backend backend, int level, trm_err *err)
{
    assert(level >= TRM_CODEC_LEVEL_MIN && level <= TRM_CODEC_LEVEL_MAX);
    trm_codec *self = calloc(1, sizeof *self);
    if (!self)
        return trm_err_set(err, TRM_ENOMEM, "no memory for a codec");
    trm_status status = TRM_OK;
#ifdef HAVE_LIBDEFLATE
    if (backend == TRM_CODEC_BACKEND_BEST) {
        self->compressor = libdeflate_alloc_compressor(level);
        self->decompressor = libdeflate_alloc_decompressor();
        if (!self->compressor || !self->decompressor)
            status = trm_err_set(err, TRM_ENOMEM, "no memory for a codec (libdeflate)");
    } else
#endif
        status = open_zlib(self, level, err);
    if (status) {
        trm_codec_destroy(self);
        return status;
    }
    *out = self;
    return TRM_OK;
}

void trm_codec_destroy(trm_codec *self)
{
    if (!self)
        return;
#ifdef HAVE_LIBDEFLATE
    if (self->compressor)
        libdeflate_free_compressor(self->compressor);
    if (self->decompressor)
        libdeflate_free_decompressor(self->decompressor);
#endif
    if (self->deflate_open)
        deflateEnd(&self->deflate);
    if (self->inflate_open)
        inflateEnd(&self->inflate);
    free(self);
}

size_t trm_codec_compress(trm_codec *self, const void *raw, size_t raw_len, void *out, size_t out_bytes)
{
#ifdef HAVE_LIBDEFLATE
    if (self->compressor)
        return libdeflate_zlib_compress(self->compressor, raw, raw_len, out, out_bytes);
#endif
    assert(raw_len <= UINT_MAX && out_bytes <= UINT_MAX);
    z_stream *stream = &self->deflate;
    if (deflateReset(stream) != Z_OK)
        return 0;
    stream->next_in = (Bytef *)(uintptr_t)raw;
    stream->avail_in = (uInt)raw_len;
    stream->next_out = out;
    stream->avail_out = (uInt)out_bytes;
    return deflate(stream, Z_FINISH) == Z_STREAM_END ? out_bytes - stream->avail_out : 0;
}

static trm_status corrupt(trm_err *err)
{
    return trm_err_set(err, TRM_ECORRUPT, "compressed bytes are damaged");
}

static trm_status decompress_zlib(trm_codec *self, const void *stored, size_t stored_len, void *out,
                                  size_t raw_len, trm_err *err)
{
    z_stream *stream = &self->inflate;
    uint8_t nothing; /* zlib wants somewhere to write even when nothing is to come */
    if (stored_len > UINT_MAX || raw_len > UINT_MAX || inflateReset(stream) != Z_OK)
        return corrupt(err);
    stream->next_in = (Bytef *)(uintptr_t)stored;
    stream->avail_in = (uInt)stored_len;
    stream->next_out = raw_len ? out : &nothing;
    stream->avail_out = raw_len ? (uInt)raw_len : 1;
    if (inflate(stream, Z_FINISH) != Z_STREAM_END || stream->avail_in || stream->total_out != raw_len)
        return corrupt(err);
    return TRM_OK;
}

trm_status trm_codec_decompress(trm_codec *self, const void *stored, size_t stored_len, void *out,
                                size_t raw_len, trm_err *err)
{
#ifdef HAVE_LIBDEFLATE
    if (self->decompressor) {
        size_t used = 0;
        if (libdeflate_zlib_decompress_ex(self->decompressor, stored, stored_len, out, raw_len, &used,
                                          NULL) ||
            used != stored_len)
            return corrupt(err);
        return TRM_OK;
    }
#endif
    return decompress_zlib(self, stored, stored_len, out, raw_len, err);
}

const char *trm_codec_backend_name(const trm_codec *self)
{
    return self->deflate_open ? "zlib" : "libdeflate";
}
