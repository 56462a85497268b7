/* Compressed bytes from outside: both libraries take anything, within the room that they are
 * given; and whatever is compressed comes back. */
#include "runtime/codec.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void check(bool holds)
{
    if (!holds)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static trm_codec *codecs[2];
    trm_err err;
    for (int i = 0; i < 2; i++)
        if (!codecs[i])
            check(trm_codec_create(&codecs[i], i ? TRM_CODEC_BACKEND_ZLIB : TRM_CODEC_BACKEND_BEST, 1,
                                   &err) == TRM_OK);
    if (len < 2)
        return 0;
    size_t raw_len = (size_t)bytes[0] * (bytes[1] & 7);
    uint8_t *raw = malloc(raw_len + 1), *back = malloc(len + 1), *stored = malloc(2 * len + 64);
    check(raw && back && stored);
    for (int i = 0; i < 2; i++) { /* as it is; `raw` has no byte to spare, for the sanitizer to see */
        trm_status status = trm_codec_decompress(codecs[i], bytes + 2, len - 2, raw, raw_len, &err);
        check(status == TRM_OK || status == TRM_ECORRUPT);
        size_t n = trm_codec_compress(codecs[i], bytes, len, stored, 2 * len + 64);
        check(n > 0);
        memset(back, 0, len);
        check(trm_codec_decompress(codecs[!i], stored, n, back, len, &err) == TRM_OK &&
              !memcmp(back, bytes, len));
    }
    free(raw);
    free(back);
    free(stored);
    return 0;
}
