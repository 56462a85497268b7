/* runtime/codec: what either library writes the other reads, and nothing else is believed. */
#include "runtime/codec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define RAW_BYTES 100000u

static uint8_t raw[RAW_BYTES], stored[2 * RAW_BYTES], back[RAW_BYTES + 1];

static void fill(unsigned kind)
{
    uint32_t seed = 1 + kind;
    for (size_t i = 0; i < RAW_BYTES; i++) {
        seed = seed * 1664525u + 1013904223u;
        raw[i] = (uint8_t)(kind == 0 ? 0 : kind == 1 ? "key\tvalue\n"[i % 10] + (seed >> 30) : seed >> 24);
    }
}

static trm_codec *make(trm_codec_backend backend, int level)
{
    trm_codec *codec;
    trm_err err;
    assert_int_equal(trm_codec_create(&codec, backend, level, &err), TRM_OK);
    return codec;
}

static void each_reads_what_the_other_wrote(void **state)
{
    static const size_t lens[] = {1, 2, 255, 4096, RAW_BYTES};
    trm_err err;
    for (int level = TRM_CODEC_LEVEL_MIN; level <= TRM_CODEC_LEVEL_MAX; level++) {
        trm_codec *codecs[2] = {make(TRM_CODEC_BACKEND_BEST, level), make(TRM_CODEC_BACKEND_ZLIB, level)};
        assert_string_equal(trm_codec_backend_name(codecs[1]), "zlib");
        for (unsigned kind = 0; kind < 3; kind++) {
            fill(kind);
            for (size_t l = 0; l < sizeof lens / sizeof lens[0]; l++)
                for (int pair = 0; pair < 4; pair++) {
                    size_t len = lens[l],
                           n = trm_codec_compress(codecs[pair & 1], raw, len, stored, sizeof stored);
                    assert_true(n > 0);
                    memset(back, 0xee, sizeof back);
                    assert_int_equal(trm_codec_decompress(codecs[pair >> 1], stored, n, back, len, &err),
                                     TRM_OK);
                    assert_memory_equal(back, raw, len);
                    assert_int_equal(back[len], 0xee);
                }
        }
        trm_codec_destroy(codecs[0]);
        trm_codec_destroy(codecs[1]);
    }
}

static void what_does_not_shrink_is_said(void **state)
{
    for (int backend = 0; backend < 2; backend++) {
        trm_codec *codec = make((trm_codec_backend)backend, 1);
        fill(2);
        assert_int_equal(trm_codec_compress(codec, raw, 5000, stored, 5000), 0);
        fill(0);
        assert_true(trm_codec_compress(codec, raw, 5000, stored, 5000) > 0);
        assert_int_equal(trm_codec_compress(codec, raw, 5000, stored, 4), 0);
        trm_codec_destroy(codec);
    }
}

static void damage_is_noticed(void **state)
{
    trm_err err;
    fill(1);
    for (int backend = 0; backend < 2; backend++) {
        trm_codec *codec = make((trm_codec_backend)backend, 6);
        size_t len = 3000, n = trm_codec_compress(codec, raw, len, stored, sizeof stored);
        for (size_t cut = 0; cut < n; cut++)
            assert_int_equal(trm_codec_decompress(codec, stored, cut, back, len, &err), TRM_ECORRUPT);
        stored[n] = 0; /* something after the end */
        assert_int_equal(trm_codec_decompress(codec, stored, n + 1, back, len, &err), TRM_ECORRUPT);
        assert_int_equal(trm_codec_decompress(codec, stored, n, back, len - 1, &err), TRM_ECORRUPT);
        assert_int_equal(trm_codec_decompress(codec, stored, n, back, len + 1, &err), TRM_ECORRUPT);
        assert_int_equal(trm_codec_decompress(codec, stored, n, back, 0, &err), TRM_ECORRUPT);
        size_t unnoticed = 0; /* a few bits mean nothing, and Adler-32 is weak */
        for (size_t bit = 0; bit < 8 * n; bit++) {
            stored[bit / 8] ^= (uint8_t)(1 << bit % 8);
            unnoticed += trm_codec_decompress(codec, stored, n, back, len, &err) == TRM_OK;
            stored[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        assert_true(unnoticed < 8 * n / 100);
        stored[n - 1] ^= 1; /* the Adler-32 means something */
        assert_int_equal(trm_codec_decompress(codec, stored, n, back, len, &err), TRM_ECORRUPT);
        stored[n - 1] ^= 1;
        assert_int_equal(trm_codec_decompress(codec, stored, n, back, len, &err), TRM_OK);
        trm_codec_destroy(codec);
    }
    trm_codec_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_reads_what_the_other_wrote),
        cmocka_unit_test(what_does_not_shrink_is_said),
        cmocka_unit_test(damage_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
