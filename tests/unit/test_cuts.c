/* jobs/cuts: the search agrees with counting, and a file that is not whole is refused. */
#include "jobs/cuts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

static uint64_t seed;

static uint32_t chance(uint32_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)((seed >> 20) % below);
}

#define KEY_BYTES 12
#define CUTS_MAX 600

/* Few different bytes and short lengths, so that prefixes and equal keys are common. */
static size_t random_key(uint8_t *out, unsigned alphabet)
{
    size_t len = chance(KEY_BYTES + 1);
    for (size_t i = 0; i < len; i++)
        out[i] = (uint8_t)(alphabet == 256 ? chance(256) : (chance(alphabet) ? 0xff - chance(alphabet) : 0));
    return len;
}

static int order(const void *a, const void *b)
{
    const trm_cuts_key *x = a, *y = b;
    return trm_cuts_compare(x->bytes, x->len, y->bytes, y->len);
}

static uint32_t count_not_above(const trm_cuts_key *keys, uint32_t cuts, const uint8_t *key, size_t len)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < cuts; i++)
        n += trm_cuts_compare(keys[i].bytes, keys[i].len, key, len) <= 0;
    return n;
}

static uint8_t room[CUTS_MAX][KEY_BYTES];

static uint32_t random_cuts(trm_cuts_key *keys, unsigned alphabet)
{
    uint32_t cuts = chance(chance(2) ? 8 : CUTS_MAX);
    for (uint32_t i = 0; i < cuts; i++)
        keys[i] = (trm_cuts_key){.bytes = room[i], .len = random_key(room[i], alphabet)};
    qsort(keys, cuts, sizeof *keys, order);
    return cuts;
}

static void find_counts_the_cuts_not_above(void **state)
{
    trm_cuts_key keys[CUTS_MAX];
    for (int round = 0; round < 400; round++) {
        unsigned alphabet = chance(2) ? 256 : 1 + chance(3);
        uint32_t cuts = random_cuts(keys, alphabet);
        trm_cuts made;
        assert_int_equal(trm_cuts_init(&made, keys, cuts + 1, NULL), TRM_OK);
        for (int i = 0; i < 50; i++) {
            uint8_t key[KEY_BYTES];
            size_t len = random_key(key, alphabet);
            assert_int_equal(trm_cuts_find(&made, key, len), count_not_above(keys, cuts, key, len));
        }
        for (uint32_t i = 0; i < cuts; i++)
            assert_int_equal(trm_cuts_find(&made, keys[i].bytes, keys[i].len),
                             count_not_above(keys, cuts, keys[i].bytes, keys[i].len));
        trm_cuts_close(&made);
    }
}

static void what_is_encoded_is_decoded_and_every_damage_noticed(void **state)
{
    trm_cuts_key keys[CUTS_MAX];
    for (int round = 0; round < 20; round++) {
        uint32_t cuts = random_cuts(keys, 256);
        cuts = cuts > 20 ? 20 : cuts;
        trm_cuts made, found;
        assert_int_equal(trm_cuts_init(&made, keys, cuts + 1, NULL), TRM_OK);
        trm_writer writer, again;
        trm_writer_init(&writer);
        trm_writer_init(&again);
        trm_cuts_encode(&made, &writer);
        assert_int_equal(trm_cuts_decode(&found, writer.data, writer.len, NULL), TRM_OK);
        trm_cuts_encode(&found, &again);
        assert_int_equal(again.len, writer.len);
        assert_memory_equal(again.data, writer.data, writer.len);
        for (size_t len = 0; len < writer.len; len++) {
            trm_cuts untouched = {0};
            assert_int_equal(trm_cuts_decode(&untouched, writer.data, len, NULL), TRM_ECORRUPT);
            writer.data[len] ^= 0x40;
            assert_int_not_equal(trm_cuts_decode(&untouched, writer.data, writer.len, NULL), TRM_OK);
            writer.data[len] ^= 0x40;
            assert_null(untouched.keys);
        }
        trm_cuts_close(&made);
        trm_cuts_close(&found);
        trm_writer_close(&writer);
        trm_writer_close(&again);
    }
}

static void descending_keys_are_refused(void **state)
{
    const trm_cuts_key keys[] = {{(const uint8_t *)"b", 1}, {(const uint8_t *)"a", 1}};
    trm_cuts cuts;
    trm_err err;
    assert_int_equal(trm_cuts_init(&cuts, keys, 3, &err), TRM_EINPUT);
    assert_string_equal(err.text, "cut 1 is below the one before it");
    assert_int_equal(trm_cuts_init(&cuts, keys, 0, &err), TRM_EINPUT);
}

static void saved_cuts_are_loaded_by_their_checksum(void **state)
{
    char dir[] = "/tmp/trm-test-cuts-XXXXXX";
    assert_non_null(mkdtemp(dir));
    const trm_cuts_key keys[] = {{(const uint8_t *)"a", 1}, {(const uint8_t *)"b", 1}};
    trm_cuts cuts, others, found;
    uint32_t crc = 0, others_crc = 0;
    char from[128], to[128];
    trm_err err;
    trm_fs *fs = trm_fs_posix();
    assert_int_equal(trm_cuts_load(&found, fs, dir, 1, &err), TRM_ELOST);
    assert_int_equal(trm_cuts_init(&cuts, keys, 3, NULL), TRM_OK);
    assert_int_equal(trm_cuts_save(&cuts, fs, dir, &crc, &err), TRM_OK);
    assert_int_equal(trm_cuts_init(&others, keys, 2, NULL), TRM_OK); /* of a master that was cut off */
    assert_int_equal(trm_cuts_save(&others, fs, dir, &others_crc, &err), TRM_OK);
    assert_int_not_equal(crc, others_crc);
    snprintf(from, sizeof from, "%s/" TRM_CUTS_NAME "-%08x", dir, others_crc);
    snprintf(to, sizeof to, "%s/" TRM_CUTS_NAME "-%08x", dir, others_crc + 1);
    assert_int_equal(fs->ops->rename(fs, from, to, &err), TRM_OK);
    assert_int_equal(trm_cuts_load(&found, fs, dir, others_crc + 1, &err), TRM_ECORRUPT);
    assert_non_null(strstr(err.text, dir));
    assert_int_equal(trm_cuts_load(&found, fs, dir, crc, &err), TRM_OK);
    assert_int_equal(found.partitions, 3);
    assert_int_equal(trm_cuts_find(&found, "aa", 2), 1);
    trm_cuts_close(&cuts);
    trm_cuts_close(&others);
    trm_cuts_close(&found);
    assert_int_equal(trm_fs_remove_tree(fs, dir, &err), TRM_OK);
}

int main(int argc, char **argv)
{
    const char *given = argc > 1 ? argv[1] : getenv("TRM_TEST_SEED");
    seed = given ? strtoull(given, NULL, 0) : 0x9e3779b97f4a7c15ull;
    printf("seed %llu: replay with %s %llu\n", (unsigned long long)seed, argv[0], (unsigned long long)seed);
    seed |= 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(find_counts_the_cuts_not_above),
        cmocka_unit_test(what_is_encoded_is_decoded_and_every_damage_noticed),
        cmocka_unit_test(descending_keys_are_refused),
        cmocka_unit_test(saved_cuts_are_loaded_by_their_checksum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
