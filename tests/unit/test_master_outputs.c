/* scheduler/master_outputs, a master driven by hand: what a neighbour does not find in a store, and what
 * nobody can read any more, is made again: once, and not for ever. */
#include "config.h" /* system extensions, before any header of the system */

#include "tests/unit/hand_master.h"

#define MAPS 6u
#define LOSSES_MAX 100u /* of one output; then the job fails */

/* All maps are done, by as many ranks. */
static world *map_all(const shape *of, const uint32_t executors[])
{
    world *self = begin_shaped(of, executors);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS);
    for (uint32_t task = 0; task < MAPS; task++)
        say_report(self, order_of(self, TRM_PHASE_MAP, task), TRM_OK, 1);
    wait_ms(self, PAUSE_MS);
    return self;
}

/* … by two of one host. */
static world *begin_mapped(void)
{
    const shape of = {.tasks = MAPS, .partitions = 2, .ranks = 2, .hosts = 1, .replicas = 1};
    return map_all(&of, (uint32_t[]){MAPS / 2, MAPS / 2});
}

/* Rank 1 is gone, and rank 0 asked for what it had. Returns what that is; `count`: how much. */
static const trm_output_at *leave(world *self, unsigned *count)
{
    static trm_output_at had[MAPS];
    *count = 0;
    for (uint32_t task = 0; task < MAPS; task++)
        if (self->outputs[task].rank == 1)
            had[(*count)++] = self->outputs[task];
    assert_true(*count > 1);
    self->dead[1] = true;
    trm_master_rank_dead(self->master, 1);
    wait_ms(self, PAUSE_MS);
    assert_int_equal(self->adopting_count, 1);
    assert_int_equal(self->adopting[0].to, 0);
    assert_string_equal(self->adopting[0].store.path, "/scratch/1");
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS); /* it may find all */
    return had;
}

static void what_a_neighbour_does_not_find_is_made_again(void **state)
{
    unsigned count;
    world *self = begin_mapped();
    const trm_output_at *had = leave(self, &count);
    say_held(self, &self->adopting[0], had + 1, count - 1);
    wait_ms(self, PAUSE_MS);
    for (unsigned i = 1; i < count; i++)
        assert_int_equal(self->outputs[had[i].task].rank, 0);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS + 1);
    given *again = order_of(self, TRM_PHASE_MAP, had[0].task);
    assert_true(again->to == 0 && again->order.attempt > had[0].attempt);
    say_report(self, again, TRM_OK, 1);
    wait_ms(self, PAUSE_MS);
    assert_int_equal(self->outputs[had[0].task].rank, 0);
    assert_int_equal(self->outputs[had[0].task].attempt, again->order.attempt);
    end(self);
}

/* A store that is not there any more is answered with an empty list. */
static void a_store_that_is_gone_is_made_again(void **state)
{
    unsigned count;
    world *self = begin_mapped();
    leave(self, &count);
    say_held(self, &self->adopting[0], NULL, 0);
    wait_ms(self, PAUSE_MS);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS + count);
    assert_int_equal(self->adopting_count, 1); /* nobody is asked again */
    end(self);
}

static unsigned outputs_on(const world *self, uint32_t rank)
{
    unsigned count = 0;
    for (uint32_t task = 0; task < MAPS; task++)
        count += self->outputs[task].rank == rank;
    return count;
}

/* Two stores are told apart by who was asked for them. */
static void a_store_is_taken_over_that_is_called_as_one_of_another_host(void **state)
{
    const shape of = {
        .tasks = MAPS, .partitions = 2, .ranks = 4, .hosts = 2, .replicas = 1, .one_path = true};
    world *self = map_all(&of, (uint32_t[]){1, 1, 2, 2});
    unsigned on[4];
    for (uint32_t rank = 0; rank < 4; rank++)
        on[rank] = outputs_on(self, rank);
    trm_output_at had[MAPS];
    memcpy(had, self->outputs, sizeof had);
    for (uint32_t rank = 2; rank < 4; rank++) {
        self->dead[rank] = true;
        trm_master_rank_dead(self->master, rank);
    }
    wait_ms(self, PAUSE_MS);
    assert_int_equal(self->adopting_count, 2);
    for (unsigned i = 2; i-- > 0;)
        say_held(self, &self->adopting[i], had, MAPS); /* more than is asked for, as runs of no use are */
    wait_ms(self, PAUSE_MS);
    assert_true(on[2] && on[3]);
    assert_int_equal(outputs_on(self, 0), on[0] + on[2]);
    assert_int_equal(outputs_on(self, 1), on[1] + on[3]);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS);
    end(self);
}

/* What was found goes before it is read: whoever says so is believed. */
static void what_was_found_and_is_gone_then_is_made_again(void **state)
{
    unsigned count;
    world *self = begin_mapped();
    const trm_output_at *had = leave(self, &count);
    say_held(self, &self->adopting[0], had, count);
    wait_ms(self, PAUSE_MS);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS);
    say_lost(self, 0, &had[0]); /* from rank 1, where it is not any more: it is told where */
    wait_ms(self, PAUSE_MS);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS);
    say_lost(self, 0, &self->outputs[had[0].task]);
    wait_ms(self, PAUSE_MS);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS + 1);
    end(self);
}

static void what_many_miss_is_made_again_once(void **state)
{
    world *self = begin_mapped();
    trm_output_at gone = self->outputs[0];
    for (unsigned i = 0; i < 2; i++)
        for (uint32_t from = 0; from < 2; from++)
            say_lost(self, from, &gone);
    wait_ms(self, PAUSE_MS);
    say_lost(self, 0, &gone); /* it is being made */
    wait_ms(self, PAUSE_MS);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS + 1);
    say_report(self, order_of(self, TRM_PHASE_MAP, 0), TRM_OK, 1);
    wait_ms(self, PAUSE_MS);
    trm_output_at made = self->outputs[0];
    assert_true(made.attempt > gone.attempt);
    say_lost(self, 1, &gone); /* late: it has not heard of the other */
    wait_ms(self, PAUSE_MS);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS + 1);
    assert_int_equal(self->outputs[0].attempt, made.attempt);
    end(self);
}

static void what_goes_again_and_again_ends_the_job(void **state)
{
    world *self = begin_mapped();
    for (unsigned i = 1; i <= LOSSES_MAX; i++) {
        say_lost(self, 0, &self->outputs[0]);
        wait_ms(self, PAUSE_MS);
        assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS + i);
        say_report(self, order_of(self, TRM_PHASE_MAP, 0), TRM_OK, 1);
        wait_ms(self, PAUSE_MS);
    }
    assert_false(self->failed);
    say_lost(self, 0, &self->outputs[0]);
    wait_ms(self, PAUSE_MS);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), MAPS + LOSSES_MAX);
    assert_true(self->failed);
    end(self);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_neighbour_does_not_find_is_made_again),
        cmocka_unit_test(a_store_that_is_gone_is_made_again),
        cmocka_unit_test(a_store_is_taken_over_that_is_called_as_one_of_another_host),
        cmocka_unit_test(what_was_found_and_is_gone_then_is_made_again),
        cmocka_unit_test(what_many_miss_is_made_again_once),
        cmocka_unit_test(what_goes_again_and_again_ends_the_job),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
