/* jobs/command and jobs/table: what commands do, what they may not do, and that replicas
 * which were given the same commands (one of them by way of an image) are equal bytes. */
#include "jobs/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint64_t seed;

static uint32_t chance(uint32_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)((seed >> 20) % below);
}

static trm_writer command;

static trm_status apply(trm_table *table, const trm_table_watch *watch)
{
    trm_err err;
    return trm_table_apply(table, command.data, command.len, watch, &err);
}

static void make_epoch(uint64_t epoch)
{
    trm_command_begin(&command, TRM_COMMAND_EPOCH, 0);
    trm_epoch_encode(&(trm_epoch){.epoch = epoch, .ranks = 2, .wall_ms = 1000 + epoch}, &command);
}

static void make_submit(uint32_t job, uint32_t tasks, uint32_t partitions)
{
    trm_identity identity = {.kernel = "/k.so",
                             .name = "test",
                             .tasks = tasks,
                             .partitions = partitions,
                             .range_partitioned = true,
                             .params_hash = 99,
                             .plan_crc = 5};
    trm_command_begin(&command, TRM_COMMAND_SUBMIT, job);
    trm_identity_encode(&identity, &command);
}

static void make_member(uint64_t epoch, uint32_t rank)
{
    trm_member member = {.epoch = epoch, .rank = rank, .pid = 77, .host = "h", .run_store = "/s"};
    trm_command_begin(&command, TRM_COMMAND_MEMBER, 0);
    trm_member_encode(&member, &command);
}

static void make_commit(uint32_t job, uint64_t epoch, trm_phase phase, uint32_t task, uint32_t attempt,
                        uint64_t bytes)
{
    uint32_t previous = 0;
    trm_commit commit = {.phase = (uint8_t)phase,
                         .task = task,
                         .attempt = attempt,
                         .rank = attempt % 3,
                         .output_bytes = bytes,
                         .output_crc = bytes ? 9 : 0};
    commit.counters.value[0] = task + 1;
    trm_command_begin(&command, TRM_COMMAND_COMMIT, job);
    trm_put_varint(&command, epoch);
    trm_commit_encode(&commit, &previous, &command);
}

static void make_fail(uint32_t job, uint64_t epoch, trm_phase phase, uint32_t task, uint32_t attempt)
{
    trm_command_begin(&command, TRM_COMMAND_FAIL, job);
    trm_fail_encode(&(trm_fail){.epoch = epoch,
                                .phase = (uint8_t)phase,
                                .task = task,
                                .attempt = attempt,
                                .rank = 1,
                                .status = TRM_EKERNEL},
                    &command);
}

static void make_refs(trm_command_type type, uint32_t job, uint64_t epoch, uint32_t rank, uint64_t ref_epoch,
                      uint32_t task, uint32_t attempt)
{
    uint32_t previous = 0;
    trm_command_begin(&command, type, job);
    trm_put_varint(&command, epoch);
    if (type == TRM_COMMAND_ADOPT)
        trm_put_varint(&command, rank);
    trm_output_ref_encode(&(trm_output_ref){.epoch = ref_epoch, .task = task, .attempt = attempt}, &previous,
                          &command);
}

static void make_published(uint32_t job, uint64_t epoch, uint32_t task)
{
    uint32_t previous = 0;
    trm_command_begin(&command, TRM_COMMAND_PUBLISHED, job);
    trm_put_varint(&command, epoch);
    trm_task_number_encode(task, &previous, &command);
}

static void make_finish(uint32_t job, uint64_t epoch, trm_job_state state, const char *text)
{
    trm_finish finish = {
        .epoch = epoch, .state = state, .exit_code = state == TRM_JOB_DONE ? 0 : 1, .wall_ms = 5};
    snprintf(finish.text, sizeof finish.text, "%s", text);
    trm_command_begin(&command, TRM_COMMAND_FINISH, job);
    trm_finish_encode(&finish, &command);
}

static void make_cuts(uint32_t job, uint64_t epoch, uint32_t crc)
{
    trm_command_begin(&command, TRM_COMMAND_CUTS, job);
    trm_put_varint(&command, epoch);
    trm_put_u32(&command, crc);
}

static void make_master(uint64_t epoch, uint64_t term)
{
    trm_command_begin(&command, TRM_COMMAND_MASTER, 0);
    trm_mastership_encode(&(trm_mastership){.epoch = epoch, .term = term}, &command);
}

static void begin(trm_table *table, uint32_t tasks, uint32_t partitions)
{
    trm_table_init(table);
    make_epoch(1);
    assert_int_equal(apply(table, NULL), TRM_OK);
    make_submit(0, tasks, partitions);
    assert_int_equal(apply(table, NULL), TRM_OK);
    assert_int_equal(table->jobs_count, 1);
}

static void one_attempt_of_a_task_is_committed(void **state)
{
    trm_table table;
    begin(&table, 4, 2);
    trm_table_phase *maps = &table.jobs[0]->phase[TRM_PHASE_MAP];
    make_commit(0, 1, TRM_PHASE_MAP, 2, 1, 10);
    apply(&table, NULL);
    assert_int_equal(maps->committed, 1);
    assert_int_equal(maps->task[2].attempt, 1);
    assert_true(table.jobs[0]->counters.value[0] == 3);
    make_commit(0, 1, TRM_PHASE_MAP, 2, 0, 10);
    apply(&table, NULL);
    make_commit(0, 1, TRM_PHASE_MAP, 2, 1, 10);
    apply(&table, NULL);
    make_commit(0, 1, TRM_PHASE_MAP, 4, 0, 10); /* no such task */
    apply(&table, NULL);
    assert_int_equal(maps->committed, 1);
    assert_true(table.jobs[0]->counters.value[0] == 3);
    assert_int_equal(table.refused, 3);
    trm_table_close(&table);
}

static void an_old_epoch_changes_nothing(void **state)
{
    trm_table table;
    begin(&table, 4, 2);
    make_epoch(2);
    apply(&table, NULL);
    make_epoch(2);
    apply(&table, NULL);
    assert_int_equal(table.refused, 1);
    make_commit(0, 1, TRM_PHASE_MAP, 2, 0, 10);
    apply(&table, NULL);
    make_fail(0, 1, TRM_PHASE_MAP, 1, 0);
    apply(&table, NULL);
    make_member(1, 0);
    apply(&table, NULL);
    make_cuts(0, 1, 7);
    apply(&table, NULL);
    make_finish(0, 1, TRM_JOB_FAILED, "x");
    apply(&table, NULL);
    assert_int_equal(table.refused, 6);
    assert_int_equal(table.jobs[0]->phase[TRM_PHASE_MAP].committed, 0);
    assert_int_equal(table.jobs[0]->state, TRM_JOB_RUNNING);
    trm_table_close(&table);
}

static void failures_count_once_and_begin_again_with_a_launch(void **state)
{
    trm_table table;
    begin(&table, 4, 2);
    trm_table_task *task = &table.jobs[0]->phase[TRM_PHASE_MAP].task[3];
    make_fail(0, 1, TRM_PHASE_MAP, 3, 0);
    apply(&table, NULL);
    apply(&table, NULL);
    assert_int_equal(task->failures, 1);
    make_fail(0, 1, TRM_PHASE_MAP, 3, 4);
    apply(&table, NULL);
    assert_int_equal(task->failures, 2);
    make_epoch(2);
    apply(&table, NULL);
    assert_int_equal(task->failures, 0);
    make_fail(0, 2, TRM_PHASE_MAP, 3, 5);
    apply(&table, NULL);
    assert_int_equal(task->failures, 1);
    assert_int_equal(table.jobs[0]->phase[TRM_PHASE_MAP].failures, 3);
    trm_table_close(&table);
}

static void a_lost_output_goes_back_and_its_attempts_are_fenced(void **state)
{
    trm_table table;
    begin(&table, 4, 2);
    trm_table_phase *maps = &table.jobs[0]->phase[TRM_PHASE_MAP];
    make_commit(0, 1, TRM_PHASE_MAP, 0, 2, 10);
    apply(&table, NULL);
    make_refs(TRM_COMMAND_LOST, 0, 1, 0, 1, 0, 1); /* another attempt's */
    apply(&table, NULL);
    assert_int_equal(maps->committed, 1);
    make_refs(TRM_COMMAND_LOST, 0, 1, 0, 1, 0, 2);
    apply(&table, NULL);
    assert_int_equal(maps->committed, 0);
    assert_int_equal(maps->live, 0);
    make_commit(0, 1, TRM_PHASE_MAP, 0, 2, 10);
    apply(&table, NULL);
    assert_int_equal(maps->committed, 0);
    make_commit(0, 1, TRM_PHASE_MAP, 0, 3, 10);
    apply(&table, NULL);
    assert_int_equal(maps->committed, 1);
    trm_table_close(&table);
}

static void a_map_output_of_another_launch_lives_when_it_is_adopted(void **state)
{
    trm_table table;
    begin(&table, 4, 2);
    trm_table_phase *maps = &table.jobs[0]->phase[TRM_PHASE_MAP];
    make_member(1, 1);
    apply(&table, NULL);
    make_member(1, 0);
    apply(&table, NULL);
    make_commit(0, 1, TRM_PHASE_MAP, 0, 1, 10); /* rank 1 */
    apply(&table, NULL);
    make_commit(0, 1, TRM_PHASE_MAP, 1, 0, 0); /* empty */
    apply(&table, NULL);
    make_epoch(2);
    apply(&table, NULL);
    assert_int_equal(maps->committed, 2);
    assert_int_equal(maps->live, 1);
    assert_int_equal(table.members_count, 2); /* rank 0 holds nothing, but perhaps copies */
    assert_non_null(trm_table_member(&table, 1, 1));
    make_refs(TRM_COMMAND_ADOPT, 0, 2, 5, 1, 0, 1);
    apply(&table, NULL);
    assert_int_equal(maps->live, 2);
    assert_int_equal(maps->task[0].rank, 5);
    assert_int_equal(maps->task[0].epoch, 2);
    apply(&table, NULL); /* told twice */
    assert_int_equal(maps->live, 2);
    make_refs(TRM_COMMAND_LOST, 0, 2, 0, 1, 0, 1); /* the old place is lost: it does not matter */
    apply(&table, NULL);
    assert_int_equal(maps->live, 2);
    make_epoch(3); /* nothing of the first launch is of use any more */
    apply(&table, NULL);
    assert_int_equal(table.members_count, 0);
    trm_table_close(&table);
}

static void masters_of_a_launch_are_counted(void **state)
{
    trm_table table;
    begin(&table, 1, 1);
    make_master(1, 3);
    apply(&table, NULL);
    apply(&table, NULL); /* told twice */
    assert_int_equal(table.epoch_masters, 1);
    assert_int_equal(table.failovers, 0);
    make_master(1, 2); /* from before */
    apply(&table, NULL);
    make_master(2, 9); /* of a launch that has not begun */
    apply(&table, NULL);
    assert_int_equal(table.epoch_masters, 1);
    make_master(1, 7);
    apply(&table, NULL);
    assert_int_equal(table.epoch_masters, 2);
    assert_int_equal(table.failovers, 1);
    assert_int_equal(table.master_term, 7);
    make_epoch(2);
    apply(&table, NULL);
    assert_int_equal(table.epoch_masters, 0);
    make_master(2, 1); /* a launch has terms of its own */
    apply(&table, NULL);
    assert_int_equal(table.epoch_masters, 1);
    assert_int_equal(table.masters, 3);
    assert_int_equal(table.failovers, 1);
    trm_table_close(&table);
}

/* Of the same launch or of another, be it that the log of those between is lost. */
static void no_two_masters_give_out_the_same_attempt(void **state)
{
    trm_table table;
    begin(&table, 1, 1);
    assert_int_equal(trm_table_first_attempt(&table), 0);
    uint64_t epoch = 1, term = 0, end = 0;
    for (int n = 0; n < 200; n++) {
        if (n && chance(3) == 0) {
            make_epoch(++epoch);
            apply(&table, NULL);
        }
        if (chance(10) == 0) {
            trm_table_masters_unknown(&table);
            end += TRM_TABLE_MASTERS_UNKNOWN * (uint64_t)TRM_MASTER_ATTEMPTS;
        }
        make_master(epoch, ++term);
        apply(&table, NULL);
        uint32_t first = trm_table_first_attempt(&table);
        assert_true(first >= end);
        end = (uint64_t)first + TRM_MASTER_ATTEMPTS;
    }
    trm_table_close(&table);
}

static void masters_are_bounded(void **state)
{
    trm_table table;
    begin(&table, 1, 1);
    table.masters = TRM_TABLE_MASTERS_MAX - 1;
    make_master(1, 1);
    apply(&table, NULL);
    assert_true(trm_table_first_attempt(&table) <= UINT32_MAX - TRM_MASTER_ATTEMPTS);
    uint64_t refused = table.refused;
    make_master(1, 2);
    apply(&table, NULL);
    assert_int_equal(table.masters, TRM_TABLE_MASTERS_MAX);
    assert_int_equal(table.master_term, 1);
    assert_int_equal(table.refused, refused + 1);
    trm_table_masters_unknown(&table);
    assert_int_equal(table.masters, TRM_TABLE_MASTERS_MAX);
    trm_table_close(&table);
}

/* A failure is counted once also when its attempt has a large number. */
static void failures_of_late_masters_count_once(void **state)
{
    trm_table table;
    begin(&table, 1, 1);
    make_fail(0, 1, TRM_PHASE_MAP, 0, 100 * TRM_MASTER_ATTEMPTS);
    apply(&table, NULL);
    apply(&table, NULL);
    make_fail(0, 1, TRM_PHASE_MAP, 0, 100 * TRM_MASTER_ATTEMPTS + 1);
    apply(&table, NULL);
    assert_int_equal(table.jobs[0]->phase[TRM_PHASE_MAP].task[0].failures, 2);
    trm_table_close(&table);
}

static void make_skip(uint64_t epoch, uint32_t task, uint32_t record, uint32_t fence)
{
    trm_command_begin(&command, TRM_COMMAND_SKIP, 0);
    trm_skip_encode(&(trm_skip){.epoch = epoch, .task = task, .record = record, .fence = fence}, &command);
}

static void assert_skips(const trm_table *table, uint32_t task, const uint32_t *expected, unsigned count)
{
    uint32_t skips[TRM_ORDER_SKIPS_MAX];
    assert_int_equal(trm_table_skips(table->jobs[0], task, skips), count);
    assert_memory_equal(skips, expected, count * sizeof *expected);
}

static void skipped_records_fence_and_stay(void **state)
{
    trm_table table;
    begin(&table, 4, 2);
    make_skip(1, 2, 70, 3);
    assert_int_equal(apply(&table, NULL), TRM_OK);
    make_skip(1, 2, 7, 5);
    assert_int_equal(apply(&table, NULL), TRM_OK);
    make_skip(1, 1, 9, 1);
    assert_int_equal(apply(&table, NULL), TRM_OK);
    make_skip(1, 2, 7, 9); /* told twice; it fences nothing any more */
    assert_int_equal(apply(&table, NULL), TRM_OK);
    make_skip(1, 4, 0, 1); /* there is no such task … */
    assert_int_equal(apply(&table, NULL), TRM_OK);
    make_skip(2, 0, 0, 1); /* … or launch */
    assert_int_equal(apply(&table, NULL), TRM_OK);
    assert_int_equal(table.refused, 3);
    assert_skips(&table, 2, (uint32_t[]){7, 70}, 2);
    assert_skips(&table, 1, (uint32_t[]){9}, 1);
    assert_skips(&table, 0, NULL, 0);

    make_commit(0, 1, TRM_PHASE_MAP, 2, 4, 100); /* it was given the record */
    assert_int_equal(apply(&table, NULL), TRM_OK);
    assert_int_equal(table.jobs[0]->phase[TRM_PHASE_MAP].committed, 0);
    make_commit(0, 1, TRM_PHASE_MAP, 2, 5, 100);
    assert_int_equal(apply(&table, NULL), TRM_OK);
    assert_int_equal(table.jobs[0]->phase[TRM_PHASE_MAP].committed, 1);
    make_skip(1, 2, 8, 9); /* what is committed has its records */
    assert_int_equal(apply(&table, NULL), TRM_OK);
    assert_int_equal(table.refused, 5);

    /* A later launch makes the output again from the same records. */
    make_epoch(2);
    assert_int_equal(apply(&table, NULL), TRM_OK);
    make_refs(TRM_COMMAND_LOST, 0, 2, 0, 1, 2, 5);
    assert_int_equal(apply(&table, NULL), TRM_OK);
    assert_int_equal(table.jobs[0]->phase[TRM_PHASE_MAP].task[2].state, TRM_TASK_PENDING);
    assert_skips(&table, 2, (uint32_t[]){7, 70}, 2);
    trm_table_close(&table);
}

static void a_task_has_a_bound_of_skipped_records(void **state)
{
    trm_table table;
    uint32_t expected[TRM_ORDER_SKIPS_MAX];
    begin(&table, 2, 1);
    for (uint32_t i = 0; i <= TRM_ORDER_SKIPS_MAX; i++) {
        make_skip(1, 1, 1000 - i, i);
        assert_int_equal(apply(&table, NULL), TRM_OK);
    }
    for (uint32_t i = 0; i < TRM_ORDER_SKIPS_MAX; i++)
        expected[i] = 1000 - (TRM_ORDER_SKIPS_MAX - 1) + i;
    assert_int_equal(table.refused, 1);
    assert_skips(&table, 1, expected, TRM_ORDER_SKIPS_MAX);
    trm_table_close(&table);
}

static void a_job_is_done_when_its_parts_are_in_place(void **state)
{
    trm_table table;
    begin(&table, 1, 2);
    make_commit(0, 1, TRM_PHASE_REDUCE, 0, 0, 10);
    apply(&table, NULL);
    make_published(0, 1, 0);
    apply(&table, NULL);
    make_published(0, 1, 1); /* not committed */
    apply(&table, NULL);
    make_finish(0, 1, TRM_JOB_DONE, "early");
    apply(&table, NULL);
    assert_int_equal(table.refused, 2);
    make_refs(TRM_COMMAND_LOST, 0, 1, 0, 1, 0, 0); /* parts are never lost */
    apply(&table, NULL);
    assert_int_equal(table.jobs[0]->phase[TRM_PHASE_REDUCE].published, 1);
    make_commit(0, 1, TRM_PHASE_REDUCE, 1, 0, 10);
    apply(&table, NULL);
    make_published(0, 1, 1);
    apply(&table, NULL);
    make_finish(0, 1, TRM_JOB_DONE, "done");
    apply(&table, NULL);
    assert_int_equal(table.jobs[0]->state, TRM_JOB_DONE);
    make_epoch(2);
    apply(&table, NULL);
    assert_int_equal(table.jobs[0]->state, TRM_JOB_DONE);
    trm_table_close(&table);
}

static void a_failed_job_may_be_tried_again(void **state)
{
    trm_table table;
    begin(&table, 1, 1);
    make_finish(0, 1, TRM_JOB_FAILED, "the kernel crashed");
    apply(&table, NULL);
    assert_string_equal(table.jobs[0]->text, "the kernel crashed");
    make_commit(0, 1, TRM_PHASE_MAP, 0, 0, 0);
    apply(&table, NULL);
    assert_int_equal(table.jobs[0]->phase[TRM_PHASE_MAP].committed, 0);
    make_epoch(2);
    apply(&table, NULL);
    assert_int_equal(table.jobs[0]->state, TRM_JOB_RUNNING);
    assert_null(table.jobs[0]->text);
    trm_table_close(&table);
}

static void make_random_command(const trm_table *table)
{
    uint64_t epoch = table->epoch ? table->epoch - (chance(8) == 0) : 0;
    epoch = epoch ? epoch : 1;
    uint32_t job = chance(3), task = chance(9), attempt = chance(4);
    trm_phase phase = chance(2) ? TRM_PHASE_MAP : TRM_PHASE_REDUCE;
    uint64_t ref_epoch = epoch - (epoch > 1 && chance(3) == 0);
    switch (chance(22)) {
    case 21:
        make_skip(epoch, task, chance(20), attempt);
        break;
    case 20:
        make_master(epoch, chance(12));
        break;
    case 0:
        make_epoch(table->epoch + chance(2));
        if (table->epoch == 0)
            make_epoch(1);
        break;
    case 1:
        make_submit(table->jobs_count, chance(9), chance(3) ? chance(9) : 0);
        break;
    case 2:
        make_member(epoch, chance(5));
        break;
    case 3:
        make_cuts(job, epoch, chance(5));
        break;
    case 4:
        if (chance(4) == 0)
            make_finish(job, epoch, chance(2) ? TRM_JOB_DONE : TRM_JOB_FAILED, "so");
        else
            make_member(epoch, chance(5));
        break;
    case 5:
    case 6:
        make_fail(job, epoch, phase, task, attempt);
        break;
    case 7:
    case 8:
        make_refs(TRM_COMMAND_LOST, job, epoch, 0, ref_epoch, task, attempt);
        break;
    case 9:
    case 10:
        make_refs(TRM_COMMAND_ADOPT, job, epoch, chance(5), ref_epoch, task, attempt);
        break;
    case 11:
    case 12:
    case 13:
        make_published(job, epoch, task);
        break;
    default:
        make_commit(job, epoch, phase, task, attempt, chance(3) * 100);
        break;
    }
}

static void assert_sums(const trm_table *table)
{
    for (uint32_t j = 0; j < table->jobs_count; j++)
        for (unsigned p = 0; p < TRM_PHASES; p++) {
            const trm_table_phase *phase = &table->jobs[j]->phase[p];
            uint32_t committed = 0, live = 0, published = 0;
            for (uint32_t i = 0; i < phase->tasks; i++) {
                committed += phase->task[i].state != TRM_TASK_PENDING;
                published += phase->task[i].state == TRM_TASK_PUBLISHED;
                live += phase->task[i].state != TRM_TASK_PENDING && phase->task[i].epoch == table->epoch;
            }
            assert_int_equal(phase->committed, committed);
            assert_int_equal(phase->published, published);
            assert_int_equal(phase->live, live);
        }
}

/* Counters are applied with the first commit of a task or never: an output that is lost and
 * made again adds none. */
typedef struct tally {
    uint64_t accepted[3];
    bool counted[3][TRM_PHASES][9];
} tally;

static void on_committed(void *context, uint32_t job, const trm_commit *commit, bool accepted)
{
    tally *self = context;
    bool *counted = &self->counted[job][commit->phase][commit->task];
    if (accepted && !*counted)
        self->accepted[job] += commit->counters.value[0];
    *counted |= accepted;
}

static void replicas_are_equal_bytes(void **state)
{
    for (int round = 0; round < 60; round++) {
        trm_table one, two;
        tally counts = {0};
        trm_table_watch watch = {.committed = on_committed, .context = &counts};
        trm_table_init(&one);
        trm_table_init(&two);
        trm_writer image, other;
        trm_writer_init(&image);
        trm_writer_init(&other);
        for (int i = 0; i < 300; i++) {
            make_random_command(&one);
            assert_int_equal(apply(&one, &watch), TRM_OK);
            assert_int_equal(apply(&two, NULL), TRM_OK);
            if (chance(20))
                continue;
            assert_sums(&one);
            trm_writer_reset(&image);
            trm_writer_reset(&other);
            trm_table_encode(&one, &image);
            trm_table_encode(&two, &other);
            assert_int_equal(image.len, other.len);
            assert_memory_equal(image.data, other.data, image.len);
            trm_table_close(&two); /* the second goes on from the image */
            assert_int_equal(trm_table_decode(&two, image.data, image.len, NULL), TRM_OK);
        }
        for (uint32_t j = 0; j < one.jobs_count && j < 3; j++)
            assert_true(one.jobs[j]->counters.value[0] == counts.accepted[j]);
        trm_table_close(&one);
        trm_table_close(&two);
        trm_writer_close(&image);
        trm_writer_close(&other);
    }
}

static void a_cut_command_changes_nothing(void **state)
{
    trm_table table;
    begin(&table, 8, 2);
    trm_writer image, after;
    trm_writer_init(&image);
    trm_writer_init(&after);
    trm_table_encode(&table, &image);
    uint32_t previous = 0;
    trm_command_begin(&command, TRM_COMMAND_COMMIT, 0);
    trm_put_varint(&command, 1);
    size_t whole[4] = {command.len};
    for (uint32_t i = 0; i < 3; i++) {
        trm_commit commit = {.phase = TRM_PHASE_MAP, .task = i * 2, .output_bytes = 1 + i};
        commit.counters.value[3] = 1000;
        trm_commit_encode(&commit, &previous, &command);
        whole[i + 1] = command.len;
    }
    for (size_t len = 0; len < command.len; len++) {
        if (len == whole[0] || len == whole[1] || len == whole[2])
            continue; /* shorter lists, and well-formed */
        assert_int_equal(trm_table_apply(&table, command.data, len, NULL, NULL), TRM_ECORRUPT);
        trm_writer_reset(&after);
        trm_table_encode(&table, &after);
        assert_int_equal(after.len, image.len);
        assert_memory_equal(after.data, image.data, image.len);
    }
    for (size_t len = 0; len < image.len; len++) {
        trm_table untouched = {0};
        image.data[len] ^= 0x10;
        assert_int_not_equal(trm_table_decode(&untouched, image.data, image.len, NULL), TRM_OK);
        image.data[len] ^= 0x10;
        assert_null(untouched.jobs);
    }
    trm_writer_close(&image);
    trm_writer_close(&after);
    trm_table_close(&table);
}

static void a_small_task_is_a_few_bytes_in_the_log(void **state)
{
    uint32_t previous = 0;
    trm_command_begin(&command, TRM_COMMAND_COMMIT, 0);
    trm_put_varint(&command, 1);
    for (uint32_t i = 0; i < 10000; i++) {
        trm_commit commit = {.phase = TRM_PHASE_MAP, .task = 500000 + i, .rank = i & 1};
        commit.counters.value[TRM_COUNTER_MAP_RECORDS_IN] = 1;
        trm_commit_encode(&commit, &previous, &command);
    }
    assert_true(command.len < 10000 * 8);
}

int main(int argc, char **argv)
{
    const char *given = argc > 1 ? argv[1] : getenv("TRM_TEST_SEED");
    seed = given ? strtoull(given, NULL, 0) : 0x9e3779b97f4a7c15ull;
    printf("seed %llu: replay with %s %llu\n", (unsigned long long)seed, argv[0], (unsigned long long)seed);
    seed |= 1;
    trm_writer_init(&command);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_attempt_of_a_task_is_committed),
        cmocka_unit_test(an_old_epoch_changes_nothing),
        cmocka_unit_test(failures_count_once_and_begin_again_with_a_launch),
        cmocka_unit_test(a_lost_output_goes_back_and_its_attempts_are_fenced),
        cmocka_unit_test(a_map_output_of_another_launch_lives_when_it_is_adopted),
        cmocka_unit_test(masters_of_a_launch_are_counted),
        cmocka_unit_test(no_two_masters_give_out_the_same_attempt),
        cmocka_unit_test(masters_are_bounded),
        cmocka_unit_test(failures_of_late_masters_count_once),
        cmocka_unit_test(skipped_records_fence_and_stay),
        cmocka_unit_test(a_task_has_a_bound_of_skipped_records),
        cmocka_unit_test(a_job_is_done_when_its_parts_are_in_place),
        cmocka_unit_test(a_failed_job_may_be_tried_again),
        cmocka_unit_test(replicas_are_equal_bytes),
        cmocka_unit_test(a_cut_command_changes_nothing),
        cmocka_unit_test(a_small_task_is_a_few_bytes_in_the_log),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    trm_writer_close(&command);
    return failed;
}
