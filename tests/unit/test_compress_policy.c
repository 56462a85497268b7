/* workers/compress_policy: compresses where the formula says so, measures before it believes,
 * and does not probe for nothing. */
#include "workers/compress_policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define BLOCK 131072u

/* The nanoseconds that `bytes` take at `mb_s`. */
static uint64_t at_rate(double bytes, double mb_s)
{
    return (uint64_t)(bytes * 1000 / mb_s);
}

/* Lets `blocks` blocks go by on a machine of these speeds; returns how many were compressed. */
static unsigned run(trm_compress_policy *policy, bool remote, unsigned blocks, double disk_mb_s,
                    double codec_mb_s, double ratio)
{
    unsigned compressed = 0;
    for (unsigned i = 0; i < blocks; i++) {
        size_t stored = BLOCK;
        if (trm_compress_policy_wants(policy, remote)) {
            compressed++;
            stored = ratio > 1 ? (size_t)(BLOCK / ratio) : 0;
            trm_compress_policy_compressed(policy, BLOCK, stored, at_rate(BLOCK, codec_mb_s));
            trm_compress_policy_decompressed(policy, BLOCK, at_rate(BLOCK, 3 * codec_mb_s));
            stored = stored ? stored : BLOCK;
        }
        trm_compress_policy_wrote(policy, 4 * stored, at_rate(4.0 * (double)stored, disk_mb_s));
    }
    return compressed;
}

static void modes_are_obeyed(void **state)
{
    trm_compress_policy policy;
    trm_compress_policy_init(&policy, TRM_COMPRESS_NONE, 1, 1e6);
    assert_int_equal(run(&policy, true, 100, 10, 300, 3), 0);
    trm_compress_policy_init(&policy, TRM_COMPRESS_ZLIB, 1, 0);
    assert_int_equal(run(&policy, false, 100, 5000, 300, 1), 100);
    assert_int_equal(policy.blocks_no_gain, 100);
}

static void a_fast_disk_is_left_alone(void **state)
{
    trm_compress_policy policy;
    trm_compress_policy_init(&policy, TRM_COMPRESS_AUTO, 1, 0);
    assert_int_equal(run(&policy, false, 10000, 2000, 300, 3), 0); /* not even probed */
}

static void a_slow_disk_is_spared(void **state)
{
    trm_compress_policy policy;
    trm_compress_policy_init(&policy, TRM_COMPRESS_AUTO, 1, 0);
    assert_true(run(&policy, false, 1000, 50, 300, 3) > 900);
    /* A local partition follows the disk as it gets better and worse. */
    assert_true(run(&policy, false, 2000, 3000, 300, 3) < 200);
    assert_true(run(&policy, false, 2000, 50, 300, 3) > 1500);
}

static void a_slow_link_is_spared_whatever_the_disk(void **state)
{
    trm_compress_policy policy;
    trm_compress_policy_init(&policy, TRM_COMPRESS_AUTO, 1, 60e6);
    assert_true(run(&policy, true, 1000, 3000, 300, 3) > 990);
    assert_int_equal(run(&policy, false, 1000, 3000, 300, 3), 0);
    trm_compress_policy_init(&policy, TRM_COMPRESS_AUTO, 1, 10e9);
    assert_int_equal(run(&policy, true, 1000, 3000, 300, 3), 0);
}

static void what_does_not_shrink_is_soon_left_alone_but_asked_again(void **state)
{
    trm_compress_policy policy;
    trm_compress_policy_init(&policy, TRM_COMPRESS_AUTO, 1, 60e6);
    assert_true(run(&policy, true, 10000, 3000, 300, 1) < 100);
    assert_true(policy.probe_interval == TRM_COMPRESS_PROBE_MAX);
    unsigned compressed = run(&policy, true, 20000, 3000, 300, 4); /* other data: noticed by a probe */
    assert_true(compressed > 8000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(modes_are_obeyed),
        cmocka_unit_test(a_fast_disk_is_left_alone),
        cmocka_unit_test(a_slow_disk_is_spared),
        cmocka_unit_test(a_slow_link_is_spared_whatever_the_disk),
        cmocka_unit_test(what_does_not_shrink_is_soon_left_alone_but_asked_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
