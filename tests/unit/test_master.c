/* scheduler/master: what it orders, told by hand what workers would say. Whole jobs, with everything that
 * can go wrong on their way, are tests/simulation/master_sim. */
#include "config.h" /* system extensions, before any header of the system */

#include "tests/unit/hand_master.h"

/* ---- Samples -------------------------------------------------------------------------------------- */

/* Its executor was ended for another order, it was cancelled, or there was no room for it: nothing is known
 * of its keys. */
static void a_sample_that_was_not_taken_is_taken_again(void **state)
{
    static const trm_status reasons[] = {TRM_AGAIN, TRM_EFENCED, TRM_EPEER};
    for (unsigned i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        world *self = begin_with_ranks(4, 3, true, (uint32_t[]){2, 2});
        assert_int_equal(orders_of(self, TRM_PHASE_SAMPLE), 4);
        for (uint32_t task = 1; task < 4; task++)
            say_report(self, order_of(self, TRM_PHASE_SAMPLE, task), TRM_OK, 1);
        say_report(self, order_of(self, TRM_PHASE_SAMPLE, 0), reasons[i], 0);
        wait_ms(self, PAUSE_MS);
        assert_int_equal(orders_of(self, TRM_PHASE_SAMPLE), 5);
        say_report(self, order_of(self, TRM_PHASE_SAMPLE, 0), TRM_OK, 1);
        wait_ms(self, PAUSE_MS);
        claim_all(self); /* the cuts have been told */
        assert_int_equal(orders_of(self, TRM_PHASE_MAP), 4);
        end(self);
    }
}

/* Its map will fail in earnest. */
static void a_sample_that_fails_is_left_out(void **state)
{
    world *self = begin_with_ranks(4, 3, true, (uint32_t[]){2, 2});
    for (uint32_t task = 0; task < 4; task++)
        say_report(self, order_of(self, TRM_PHASE_SAMPLE, task), task ? TRM_OK : TRM_EKERNEL, 1);
    wait_ms(self, PAUSE_MS);
    claim_all(self);
    assert_int_equal(orders_of(self, TRM_PHASE_SAMPLE), 4);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), 4);
    end(self);
}

/* ---- Stragglers ------------------------------------------------------------------------------------ */

/* An attempt that was given to rank 1 though rank 0 has its task, and has not ended; NULL: there is none. */
static given *open_twin(world *self)
{
    for (unsigned i = 0; i < self->count; i++) {
        given *at = &self->given[i];
        if (at->to == 1 && !at->done && !at->cancelled)
            return at;
    }
    return NULL;
}

/* Rank 0 is given nearly all maps and ends none of them, rank 1 is soon done with its own and does those of
 * rank 0 as well. Whether rank 0 is given reduces then. */
static bool is_trusted_when_others_do_its_tasks(unsigned runs)
{
    world *self = begin_with_ranks(20, 8, false, (uint32_t[]){8, 2});
    unsigned reduces = 0;
    self->runs[0] = runs;
    wait_ms(self, 100);
    for (unsigned i = 0; i < ORDERS_MAX && !orders_of(self, TRM_PHASE_REDUCE); i++) {
        given *twin = open_twin(self);
        if (twin)
            say_report(self, twin, TRM_OK, 100);
        wait_ms(self, 100);
    }
    for (unsigned i = 0; i < self->count; i++)
        reduces += self->given[i].to == 0 && self->given[i].order.phase == TRM_PHASE_REDUCE;
    assert_true(orders_of(self, TRM_PHASE_REDUCE) > 0);
    end(self);
    return reduces > 0;
}

static void a_rank_that_runs_slowly_is_set_aside(void **state)
{
    assert_false(is_trusted_when_others_do_its_tasks(8));
}

/* Behind tasks that may take long with good reason. */
static void what_only_waits_does_not_set_a_rank_aside(void **state)
{
    assert_true(is_trusted_when_others_do_its_tasks(1));
}

/* ---- The end ----------------------------------------------------------------------------------------- */

static trm_status pass_over(const char *name, void *context)
{
    return TRM_OK;
}

static bool has_attempts(world *self)
{
    trm_err err;
    return self->fs->ops->list(self->fs, "/out/.trireme/" TRM_ATTEMPTS_NAME, pass_over, NULL, &err) == TRM_OK;
}

static const trm_fs_ops *mem_ops;
static unsigned trees_removed;

/* The first time somebody is quicker. */
static trm_status remove_tree_in_a_race(trm_fs *fs, const char *path, trm_err *err)
{
    return trees_removed++ ? mem_ops->remove_tree(fs, path, err)
                           : trm_err_set(err, TRM_EIO, "%s: directory not empty", path);
}

/* A part that is begun while they are removed keeps their directory: none is when everybody has left. */
static void attempts_are_gone_when_all_have_left(void **state)
{
    trm_writer nothing = {0};
    trm_end how;
    world *self = begin_with_ranks(1, 0, false, (uint32_t[]){1, 1});
    static trm_fs_ops racing;
    mem_ops = self->fs->ops;
    racing = *mem_ops;
    racing.remove_tree = remove_tree_in_a_race;
    self->fs->ops = &racing;
    say_report(self, order_of(self, TRM_PHASE_MAP, 0), TRM_OK, 1);
    wait_ms(self, 1000);
    assert_true(trm_master_is_over(self->master) && has_attempts(self));
    for (uint32_t i = 0; i < RANKS; i++)
        hear(self, i, TRM_WIRE_BYE, &nothing);
    wait_ms(self, 1000);
    assert_true(trm_master_ended(self->master, &how));
    assert_int_equal(how.exit_code, 0);
    assert_false(has_attempts(self));
    end(self);
}

/* A SETUP names all of them: the leader must hear others between. */
static void many_that_come_at_once_are_set_up_in_steps(void **state)
{
    static uint32_t executors[RANKS_MAX];
    for (uint32_t i = 0; i < RANKS_MAX; i++)
        executors[i] = 1;
    shape of = {.tasks = ORDERS_MAX / 2, .ranks = RANKS_MAX, .hosts = RANKS_MAX, .replicas = 1};
    world *self = begin_shaped(&of, executors);
    assert_in_range(self->setups_max, 2, RANKS_MAX / 2);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), ORDERS_MAX / 2);
    end(self);
}

/* Its number is one that no master can have given out, and would fence all that come after it. */
static void what_nobody_has_given_out_does_not_count(void **state)
{
    trm_progress at;
    world *self = begin_with_ranks(ORDERS_MAX / 2, 0, false, (uint32_t[]){1, 1});
    uint32_t task = 0;
    while (order_of(self, TRM_PHASE_MAP, task))
        task++;
    given of = {.order = {.phase = TRM_PHASE_MAP, .task = task, .attempt = TRM_MASTER_ATTEMPTS}};
    say_report(self, &of, TRM_OK, 1);
    wait_ms(self, PAUSE_MS);
    trm_master_progress(self->master, &at);
    assert_int_equal(at.of[TRM_PHASE_MAP].done, 0);
    of.order.attempt = TRM_MASTER_ATTEMPTS - 1; /* one may be done whose order is not remembered */
    say_report(self, &of, TRM_OK, 1);
    wait_ms(self, PAUSE_MS);
    trm_master_progress(self->master, &at);
    assert_int_equal(at.of[TRM_PHASE_MAP].done, 1);
    end(self);
}

/* More than are set up in a step have no room for it: those behind them do not wait for that. */
static void full_queues_keep_nobody_else_waiting(void **state)
{
    shape of = {.tasks = 1, .ranks = RANKS_MAX, .hosts = RANKS_MAX, .replicas = 1};
    world *self = begin(&of);
    self->full_below = RANKS_MAX - 10;
    wait_ms(self, SET_UP_MS);
    for (uint32_t i = 0; i < RANKS_MAX; i++)
        say_hello(self, i, 1);
    wait_ms(self, SET_UP_MS);
    for (uint32_t i = 0; i < RANKS_MAX; i++)
        assert_int_equal(self->set_up[i], i >= self->full_below);
    self->full_below = 0;
    wait_ms(self, SET_UP_MS);
    for (uint32_t i = 0; i < RANKS_MAX; i++)
        assert_true(self->set_up[i]);
    end(self);
}

static unsigned output_syncs;

static trm_status count_sync(trm_fs *fs, const char *path, trm_err *err)
{
    output_syncs += strcmp(path, "/out") == 0;
    return mem_ops->sync_dir(fs, path, err);
}

/* Who has renamed it may have died before the directory was synced. */
static void a_part_that_is_found_in_place_is_synced(void **state)
{
    trm_err err;
    world *self = begin_with_ranks(1, 0, false, (uint32_t[]){1, 1});
    assert_int_equal(trm_fs_write_whole(self->fs, "/out/part-00000", "part", 4, TRM_FS_SHARED, &err), TRM_OK);
    static trm_fs_ops counting;
    mem_ops = self->fs->ops;
    counting = *mem_ops;
    counting.sync_dir = count_sync;
    self->fs->ops = &counting;
    given *of = order_of(self, TRM_PHASE_MAP, 0);
    trm_report report = {
        .phase = TRM_PHASE_MAP, .attempt = of->order.attempt, .output_bytes = 4, .output_records = 1};
    trm_writer body = {0};
    trm_report_encode(&report, &body);
    hear(self, of->to, TRM_WIRE_REPORT, &body);
    trm_writer_close(&body);
    wait_ms(self, 1000);
    assert_true(trm_master_is_over(self->master));
    assert_int_equal(output_syncs, 2); /* before it is said to be published, and with _SUCCESS */
    end(self);
}

/* The last order that was asked back; NULL: none was. */
static given *recalled(world *self)
{
    for (unsigned i = self->count; i-- > 0;)
        if (self->given[i].recalled)
            return &self->given[i];
    return NULL;
}

/* One long task, and one that waits behind it; all others are done. */
static void what_waits_behind_a_long_task_is_asked_back(void **state)
{
    world *self = begin_with_ranks(4, 1, false, (uint32_t[]){1, 1});
    self->spec.never_twice = true;
    self->runs[0] = 1;
    wait_ms(self, 100);
    for (given *open; (open = open_twin(self)); wait_ms(self, 100))
        say_report(self, open, TRM_OK, 50);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), 4);
    assert_null(recalled(self));
    wait_ms(self, 2 * TRM_NS_PER_S / MS);
    given *waits = recalled(self);
    assert_non_null(waits);
    assert_int_equal(waits->to, 0);
    assert_int_equal(waits->began_ns, 0);
    say_report(self, waits, TRM_AGAIN, 0);
    wait_ms(self, PAUSE_MS);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), 5);
    assert_int_equal(order_of(self, TRM_PHASE_MAP, waits->order.task)->to, 1);
    end(self);
}

/* The probe of a map that a record kills waits behind a long task: it is not the map that comes back. */
static void a_probe_that_waits_is_asked_back(void **state)
{
    world *self = begin_with_ranks(4, 1, false, (uint32_t[]){1, 1});
    self->spec.never_twice = true;
    self->spec.skips_max = 1;
    self->runs[0] = 1;
    wait_ms(self, 100);
    given *dies = order_of(self, TRM_PHASE_MAP, 1);
    assert_int_equal(dies->to, 0);
    say_report(self, dies, TRM_EKERNEL, 50);
    wait_ms(self, 100);
    assert_int_equal(order_of(self, TRM_PHASE_MAP, 1)->to, 0);
    assert_true(order_of(self, TRM_PHASE_MAP, 1)->order.probe);
    for (given *open; (open = open_twin(self)); wait_ms(self, 100))
        say_report(self, open, TRM_OK, 50);
    wait_ms(self, 2 * TRM_NS_PER_S / MS);
    given *waits = recalled(self);
    assert_ptr_equal(waits, order_of(self, TRM_PHASE_MAP, 1));
    say_report(self, waits, TRM_AGAIN, 0);
    wait_ms(self, PAUSE_MS);
    assert_int_equal(order_of(self, TRM_PHASE_MAP, 1)->to, 1);
    assert_true(order_of(self, TRM_PHASE_MAP, 1)->order.probe);
    end(self);
}

/* An executor has hung with all that it was given, before it began any of it: it does not hide that others of
 * its rank, the only one, are idle. */
static void what_a_hung_executor_has_is_done_by_others_of_its_rank(void **state)
{
    world *self = begin_shaped(&(shape){.tasks = 40, .partitions = 1, .ranks = 1, .hosts = 1, .replicas = 1},
                               (uint32_t[]){3});
    unsigned left = 0;
    for (unsigned i = 0; i < self->count; i++) /* more are given meanwhile */
        if (self->given[i].order.task % 8 != 0)
            say_report(self, &self->given[i], TRM_OK, 1), wait_ms(self, 10);
        else
            left++;
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), 40);
    assert_true(left > 3); /* than there are executors */
    for (unsigned at = self->count, i = 0; i < 500 && !orders_of(self, TRM_PHASE_REDUCE); i++) {
        wait_ms(self, 100);
        for (; at < self->count && self->given[at].order.phase == TRM_PHASE_MAP; at++)
            say_report(self, &self->given[at], TRM_OK, 1);
    }
    assert_int_equal(orders_of(self, TRM_PHASE_REDUCE), 1);
    end(self);
}

/* Two ranks run what takes long and have one behind it, the third has nothing. */
static world *begin_unequal(uint64_t took_ms)
{
    world *self =
        begin_shaped(&(shape){.tasks = 6, .partitions = 1, .ranks = 3, .hosts = 3}, (uint32_t[]){1, 1, 1});
    self->spec.never_twice = true;
    self->runs[0] = self->runs[1] = 1;
    wait_ms(self, took_ms);
    for (unsigned i = 0; i < self->count; i++)
        if (self->given[i].to == 2)
            say_report(self, &self->given[i], TRM_OK, took_ms);
    for (unsigned i = 0; i < 200 && !recalled(self); i++)
        wait_ms(self, 10);
    return self;
}

static unsigned give_back(world *self, trm_status status)
{
    unsigned count = 0;
    for (unsigned i = 0; i < self->count; i++) {
        given *at = &self->given[i];
        if (!at->recalled || at->done)
            continue;
        say_report(self, at, status, 0);
        count++;
    }
    wait_ms(self, PAUSE_MS);
    return count;
}

/* Not to another one that has enough in hand. */
static void what_comes_back_goes_to_who_is_idle(void **state)
{
    world *self = begin_unequal(1);
    assert_int_equal(give_back(self, TRM_AGAIN), 2);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), 8);
    assert_int_equal(self->given[6].to, 2);
    end(self);
}

/* The others would only change places. */
static void no_more_is_asked_back_than_the_idle_can_do(void **state)
{
    world *self = begin_unequal(400);
    assert_int_equal(give_back(self, TRM_AGAIN), 1);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), 7);
    assert_int_equal(self->given[6].to, 2);
    end(self);
}

/* The idle rank refuses all that it is given, and has the time to do so. */
static void a_job_does_not_fail_because_tasks_are_asked_back(void **state)
{
    world *self = begin_unequal(1);
    for (unsigned i = 0; i < 110 && !trm_master_is_over(self->master); i++) {
        give_back(self, TRM_AGAIN);
        for (unsigned k = 0; k < self->count; k++)
            if (self->given[k].to == 2 && !self->given[k].done)
                say_report(self, &self->given[k], i ? TRM_EPEER : TRM_AGAIN, 0);
        wait_ms(self, 1000);
    }
    assert_false(trm_master_is_over(self->master));
    end(self);
}

/* A rank's pulse is of what runs; a map that has ended is in the counters. */
static void what_is_read_counts_while_its_map_runs(void **state)
{
    const uint32_t executors[RANKS] = {1, 1};
    trm_progress at;
    world *self = begin_with_ranks(RANKS, 1, false, executors);
    assert_int_equal(orders_of(self, TRM_PHASE_MAP), RANKS);
    say_pulse_of(self, 0, &(trm_pulse){.running = 1, .bytes_in = 5000, .records_in = 50});
    trm_master_progress(self->master, &at);
    assert_int_equal(at.bytes_in, 5000);
    assert_int_equal(at.records_in, 50);
    for (uint32_t i = 0; i < RANKS; i++)
        say_report(self, order_of(self, TRM_PHASE_MAP, i), TRM_OK, 10);
    self->dead[0] = self->dead[1] = true; /* they say no more */
    wait_ms(self, 50);
    trm_master_progress(self->master, &at);
    assert_int_equal(at.of[TRM_PHASE_MAP].done, RANKS);
    assert_int_equal(at.bytes_in, 0); /* as reported */
    assert_int_equal(at.records_in, 0);
    end(self);
}

/* What a person is told at the end is how long the launch took, not how long its last master. */
static void a_master_that_follows_counts_from_the_launch(void **state)
{
    world *self = begin_with_ranks(1, 1, false, (uint32_t[RANKS]){1, 1});
    trm_progress before, after;
    trm_master_progress(self->master, &before);
    wait_ms(self, 5000);
    follow(self);
    wait_ms(self, SET_UP_MS);
    trm_master_progress(self->master, &after);
    assert_int_equal(after.failovers, 1);
    assert_int_equal(after.epoch, before.epoch);
    assert_int_equal(after.launch_ms - before.launch_ms, 5000 + SET_UP_MS);
    end(self);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sample_that_was_not_taken_is_taken_again),
        cmocka_unit_test(a_sample_that_fails_is_left_out),
        cmocka_unit_test(a_rank_that_runs_slowly_is_set_aside),
        cmocka_unit_test(what_only_waits_does_not_set_a_rank_aside),
        cmocka_unit_test(what_waits_behind_a_long_task_is_asked_back),
        cmocka_unit_test(a_probe_that_waits_is_asked_back),
        cmocka_unit_test(what_a_hung_executor_has_is_done_by_others_of_its_rank),
        cmocka_unit_test(what_comes_back_goes_to_who_is_idle),
        cmocka_unit_test(no_more_is_asked_back_than_the_idle_can_do),
        cmocka_unit_test(a_job_does_not_fail_because_tasks_are_asked_back),
        cmocka_unit_test(what_is_read_counts_while_its_map_runs),
        cmocka_unit_test(attempts_are_gone_when_all_have_left),
        cmocka_unit_test(full_queues_keep_nobody_else_waiting),
        cmocka_unit_test(a_part_that_is_found_in_place_is_synced),
        cmocka_unit_test(many_that_come_at_once_are_set_up_in_steps),
        cmocka_unit_test(what_nobody_has_given_out_does_not_count),
        cmocka_unit_test(a_master_that_follows_counts_from_the_launch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
