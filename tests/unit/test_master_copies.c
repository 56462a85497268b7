/* scheduler/master_copies, a master driven by hand: second copies of map outputs are asked for on other
 * hosts, and take the place of the first ones. */
#include "config.h" /* system extensions, before any header of the system */

#include "tests/unit/hand_master.h"

#define MAPS 6u
#define COPY_PAUSED_MS 11000u /* a rank that could not make a copy is left alone for ten seconds */

/* All maps are done. */
static world *begin_mapped(uint32_t ranks, uint32_t hosts, uint32_t replicas)
{
    const shape of = {.tasks = MAPS, .partitions = 2, .ranks = ranks, .hosts = hosts, .replicas = replicas};
    world *self = begin_shaped(&of, (uint32_t[]){MAPS / ranks, MAPS / ranks, MAPS / ranks});
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS);
    for (uint32_t task = 0; task < MAPS; task++)
        say_report(self, order_of(self, TRM_PHASE_MAP, task), TRM_OK, 1);
    wait_ms(self, PAUSE_MS);
    return self;
}

/* What was to be copied last. */
static const asked *copy_of(const world *self, uint32_t task)
{
    for (unsigned i = self->asked_count; i-- > 0;)
        if (self->asked[i].at.task == task)
            return &self->asked[i];
    return NULL;
}

static void copy_all(world *self, uint64_t epoch)
{
    for (uint32_t task = 0; task < MAPS; task++)
        say_copied(self, copy_of(self, task), epoch, TRM_OK);
    wait_ms(self, PAUSE_MS);
}

static void die(world *self, uint32_t rank)
{
    self->dead[rank] = true;
    trm_master_rank_dead(self->master, rank);
    wait_ms(self, PAUSE_MS);
}

static void a_host_goes_and_its_outputs_are_read_from_their_copies(void **state)
{
    world *self = begin_mapped(3, 3, 2);
    assert_int_equal(self->asked_count, MAPS);
    for (uint32_t task = 0; task < MAPS; task++) {
        assert_int_equal(copy_of(self, task)->at.rank, self->outputs[task].rank);
        assert_true(copy_of(self, task)->to != self->outputs[task].rank);
    }
    copy_all(self, trm_master_epoch(self->master));
    trm_output_at before[MAPS];
    memcpy(before, self->outputs, sizeof before);
    die(self, 1);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS);
    for (uint32_t task = 0; task < MAPS; task++) {
        uint32_t kept = before[task].rank == 1 ? copy_of(self, task)->at.rank : before[task].rank;
        assert_true(self->outputs[task].rank != 1);
        assert_int_equal(self->outputs[task].rank, kept);
        assert_int_equal(self->outputs[task].attempt, before[task].attempt);
    }
    /* What has lost one of its two is copied again, to where there is none of it. */
    for (uint32_t task = 0; task < MAPS; task++) {
        assert_true(copy_of(self, task)->to != 1);
        assert_true(copy_of(self, task)->to != self->outputs[task].rank);
    }
    copy_all(self, trm_master_epoch(self->master));
    die(self, 2);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS);
    for (uint32_t task = 0; task < MAPS; task++)
        assert_int_equal(self->outputs[task].rank, 0);
    end(self);
}

static void without_copies_they_are_made_again(void **state)
{
    world *self = begin_mapped(3, 3, 1);
    assert_int_equal(self->asked_count, 0);
    unsigned lost = 0;
    for (uint32_t task = 0; task < MAPS; task++)
        lost += self->outputs[task].rank == 1;
    assert_true(lost > 0);
    die(self, 1);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS + lost);
    end(self);
}

/* Of another launch the number of the attempt says nothing. */
static void a_copy_of_another_launch_is_none(void **state)
{
    world *self = begin_mapped(3, 3, 2);
    copy_all(self, trm_master_epoch(self->master) + 1);
    die(self, 1);
    assert_true(orders_of(self, TRM_PHASE_MAP) > MAPS);
    end(self);
}

static void a_copy_that_cannot_be_made_is_tried_elsewhere_and_given_up(void **state)
{
    world *self = begin_mapped(3, 3, 2);
    uint64_t epoch = trm_master_epoch(self->master);
    uint32_t first = copy_of(self, 0)->to;
    say_copied(self, copy_of(self, 0), epoch, TRM_ENOSPACE);
    wait_ms(self, PAUSE_MS);
    assert_int_equal(self->asked_count, MAPS + 1);
    assert_true(copy_of(self, 0)->to != first);
    for (unsigned i = 0; i < 5; i++) {
        say_copied(self, copy_of(self, 0), epoch, TRM_ENOSPACE);
        wait_ms(self, COPY_PAUSED_MS);
    }
    assert_int_equal(self->asked_count, MAPS + 2); /* three times in all */
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS);
    assert_true(orders_of(self, TRM_PHASE_REDUCE) > 0);
    end(self);
}

/* A reduce complains of the first one, which is there but damaged. */
static void an_output_that_cannot_be_read_is_read_from_its_copy(void **state)
{
    world *self = begin_mapped(3, 3, 2);
    copy_all(self, trm_master_epoch(self->master));
    trm_writer body = {0};
    trm_output_at damaged = self->outputs[0];
    trm_output_at_encode(&damaged, &body);
    hear(self, copy_of(self, 0)->to, TRM_WIRE_LOST, &body);
    trm_writer_close(&body);
    uint32_t holder = copy_of(self, 0)->to;
    wait_ms(self, PAUSE_MS);
    assert_int_equal(self->outputs[0].rank, holder);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS);
    end(self);
}

/* It lives, and cannot follow its set-up. Perhaps it has copies; without any the maps are made again. */
static void who_never_says_what_it_holds_is_waited_for_no_longer(void **state)
{
    world *self = begin_mapped(3, 3, 2);
    say_hello(self, 2, MAPS / 3);
    die(self, 1);
    wait_ms(self, 1000);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS);
    wait_ms(self, 30000);
    assert_true(orders_of(self, TRM_PHASE_MAP) > MAPS);
    end(self);
}

static void ranks_of_one_host_copy_nothing(void **state)
{
    world *self = begin_mapped(2, 1, 2);
    wait_ms(self, COPY_PAUSED_MS);
    assert_int_equal(self->asked_count, 0);
    assert_true(orders_of(self, TRM_PHASE_REDUCE) > 0);
    end(self);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_host_goes_and_its_outputs_are_read_from_their_copies),
        cmocka_unit_test(without_copies_they_are_made_again),
        cmocka_unit_test(a_copy_of_another_launch_is_none),
        cmocka_unit_test(a_copy_that_cannot_be_made_is_tried_elsewhere_and_given_up),
        cmocka_unit_test(an_output_that_cannot_be_read_is_read_from_its_copy),
        cmocka_unit_test(who_never_says_what_it_holds_is_waited_for_no_longer),
        cmocka_unit_test(ranks_of_one_host_copy_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
