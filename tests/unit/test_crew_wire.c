/* workers/crew_wire and workers/board: what is said within a crew, and rings that lie. */
#include "workers/board.h"
#include "workers/crew_wire.h"

#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static void messages_round_trip(void **state)
{
    trm_writer out;
    trm_reader in;
    trm_writer_init(&out);

    trm_crew_setup_msg setup = {.plan_crc = 1,
                                .cuts_crc = 2,
                                .epoch = 1ull << 40,
                                .hosts = 3,
                                .ranks = 9,
                                .near_count = 2,
                                .near = {{0, 2}, {5, 9}}},
                       setup_in;
    trm_crew_setup_encode(&setup, &out);
    trm_reader_init(&in, out.data, out.len);
    assert_int_equal(trm_get_u8(&in), TRM_CREW_KIND_SETUP);
    trm_crew_setup_decode(&setup_in, &in);
    assert_true(trm_reader_done(&in));
    assert_int_equal(setup_in.plan_crc, 1);
    assert_int_equal(setup_in.cuts_crc, 2);
    assert_true(setup_in.epoch == 1ull << 40);
    assert_int_equal(setup_in.hosts, 3);
    assert_int_equal(setup_in.ranks, 9);
    assert_int_equal(setup_in.near_count, 2);
    assert_memory_equal(setup_in.near, setup.near, 2 * sizeof setup.near[0]);
    static const trm_crew_ranks wrong[] = {{1, 2}, {2, 9}, {5, 5}, {5, 10}, {7, 6}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        setup.near[1] = wrong[i];
        trm_writer_reset(&out);
        trm_crew_setup_encode(&setup, &out);
        trm_reader_init(&in, out.data + 1, out.len - 1);
        trm_crew_setup_decode(&setup_in, &in);
        assert_false(trm_reader_done(&in));
    }

    trm_writer_reset(&out);
    static trm_crew_died died, died_in;
    died = (trm_crew_died){.executor = 255, .generation = 9, .status = TRM_ETIMEOUT};
    strcpy(died.err.text, "too long");
    strcpy(died.words, "last");
    trm_crew_died_encode(&died, &out);
    trm_reader_init(&in, out.data, out.len);
    assert_int_equal(trm_get_u8(&in), TRM_CREW_KIND_DIED);
    trm_crew_died_decode(&died_in, &in);
    assert_true(trm_reader_done(&in));
    assert_int_equal(died_in.executor, 255);
    assert_int_equal(died_in.status, TRM_ETIMEOUT);
    assert_string_equal(died_in.err.text, "too long");
    assert_string_equal(died_in.words, "last");
    for (size_t len = 1; len < out.len; len++) { /* every cut is noticed */
        trm_reader_init(&in, out.data + 1, len - 1);
        trm_crew_died_decode(&died_in, &in);
        assert_false(trm_reader_done(&in));
    }
    trm_writer_close(&out);
}

static void too_many_orders_are_refused(void **state)
{
    static trm_order orders[TRM_CREW_QUEUE_MAX];
    trm_writer out;
    trm_reader in;
    unsigned count = 1;
    uint64_t generation;
    trm_writer_init(&out);
    trm_crew_orders_encode(7, orders, TRM_CREW_QUEUE_MAX, &out);
    assert_true(out.len <= TRM_CREW_DATAGRAM_BYTES_MAX);
    trm_reader_init(&in, out.data + 1, out.len - 1);
    trm_crew_orders_decode(&generation, orders, TRM_CREW_QUEUE_MAX, &count, &in);
    assert_int_equal(count, TRM_CREW_QUEUE_MAX);
    assert_int_equal(generation, 7);
    trm_reader_init(&in, out.data + 1, out.len - 1);
    trm_crew_orders_decode(&generation, orders, TRM_CREW_QUEUE_MAX - 1, &count, &in);
    assert_int_equal(count, 0);
    trm_writer_close(&out);
}

static trm_lane *make_lane(trm_lanes *lanes)
{
    assert_int_equal(trm_lanes_init(lanes, 2, NULL), TRM_OK);
    return &lanes->lane[1];
}

/* Records of every length, wrapped around many times, come out as they went in. */
static void the_ring_keeps_records(void **state)
{
    trm_lanes lanes;
    trm_lane *lane = make_lane(&lanes);
    uint8_t *bytes = malloc(TRM_RING_RECORD_BYTES_MAX), *out = malloc(TRM_RING_RECORD_BYTES_MAX);
    size_t put = 0, taken = 0, len;
    for (unsigned round = 0; round < 3000; round++) {
        size_t want = round % 7 == 0 ? (round * 7919u) % TRM_RING_RECORD_BYTES_MAX : (round * 31u) % 300;
        memset(bytes, (int)put, want);
        while (trm_lane_put(lane, bytes, want) == TRM_AGAIN) {
            assert_int_equal(trm_lane_take(lane, out, &len), TRM_OK);
            for (size_t i = 0; i < len; i += 61)
                assert_int_equal(out[i], (uint8_t)taken);
            taken++;
        }
        put++;
    }
    while (trm_lane_take(lane, out, &len) == TRM_OK)
        taken++;
    assert_int_equal(put, taken);
    assert_int_equal(trm_lane_filled(lane), 0);
    free(bytes);
    free(out);
    trm_lanes_close(&lanes);
}

/* Any byte of a record changed, and any head, is noticed. */
static void an_overwritten_ring_is_noticed(void **state)
{
    trm_lanes lanes;
    trm_lane *lane = make_lane(&lanes);
    uint8_t *out = malloc(TRM_RING_RECORD_BYTES_MAX);
    size_t len;
    for (unsigned at = 0; at < 8 + 20; at++) {
        trm_lane_reset(lane, 1);
        assert_int_equal(trm_lane_put(lane, "twenty bytes of text", 20), TRM_OK);
        lane->ring[at] ^= 0x10;
        assert_int_equal(trm_lane_take(lane, out, &len), TRM_ECORRUPT);
    }
    static const uint64_t heads[] = {1, 7, 8, 16, TRM_RING_BYTES + 8, UINT64_MAX, 1ull << 63};
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        trm_lane_reset(lane, 1);
        assert_int_equal(trm_lane_put(lane, "twenty bytes of text", 20), TRM_OK);
        lane->head = heads[i];
        assert_int_equal(trm_lane_take(lane, out, &len), TRM_ECORRUPT);
    }
    free(out);
    trm_lanes_close(&lanes);
}

static void last_words_are_the_last(void **state)
{
    trm_lanes lanes;
    trm_lane *lane = make_lane(&lanes);
    char out[64];
    assert_int_equal(trm_lane_words(lane, 0, out, sizeof out), 0);
    assert_string_equal(out, "");
    trm_lane_words_add(lane, "one\n", 4);
    uint64_t since = lane->words_end;
    trm_lane_words_add(lane, "two\a\n\n", 6);
    trm_lane_words(lane, 0, out, sizeof out);
    assert_string_equal(out, "one\ntwo?");
    trm_lane_words(lane, since, out, sizeof out);
    assert_string_equal(out, "two?");
    for (unsigned i = 0; i < 5000; i++)
        trm_lane_words_add(lane, "0123456789\n", 11);
    assert_int_equal(trm_lane_words(lane, since, out, sizeof out), sizeof out - 2);
    assert_memory_equal(out, "...", 3);
    assert_string_equal(out + strlen(out) - 10, "0123456789");
    char *many = malloc(3 * TRM_WORDS_BYTES);
    memset(many, 'y', 3 * TRM_WORDS_BYTES);
    trm_lane_words_add(lane, many, 3 * TRM_WORDS_BYTES);
    assert_int_equal(trm_lane_words(lane, UINT64_MAX, out, sizeof out), 0);
    assert_int_equal(trm_lane_words(lane, 0, many, 3 * TRM_WORDS_BYTES), TRM_WORDS_BYTES);
    free(many);
    trm_lanes_close(&lanes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_round_trip),     cmocka_unit_test(too_many_orders_are_refused),
        cmocka_unit_test(the_ring_keeps_records),  cmocka_unit_test(an_overwritten_ring_is_noticed),
        cmocka_unit_test(last_words_are_the_last),
    };
    return cmocka_run_group_tests_name("crew_wire", tests, NULL, NULL);
}
