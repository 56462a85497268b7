/* The job table, given any commands and any image. Two replicas that were given the same bytes are
 * the same, one of them by way of an image; the sums of a table are those of its tasks. */
#include "jobs/table.h"
#include "runtime/crc32c.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

#define TASKS_MAX 4096u /* a table larger than that only takes time */

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void check_phase(const trm_table *table, const trm_table_phase *phase)
{
    uint32_t committed = 0, published = 0, live = 0;
    for (uint32_t i = 0; i < phase->tasks; i++) {
        const trm_table_task *task = &phase->task[i];
        committed += task->state != TRM_TASK_PENDING;
        published += task->state == TRM_TASK_PUBLISHED;
        live += task->state != TRM_TASK_PENDING && task->epoch == table->epoch;
    }
    check(committed == phase->committed && published == phase->published && live == phase->live);
}

static void check_table(const trm_table *table)
{
    for (uint32_t i = 0; i < table->jobs_count; i++)
        for (unsigned phase = TRM_PHASE_MAP; phase <= TRM_PHASE_REDUCE; phase++)
            check_phase(table, &table->jobs[i]->phase[phase]);
}

/* A table and its image say the same. Takes the place of `table` what came out of the image. */
static void through_an_image(trm_table *table)
{
    trm_table copy;
    trm_writer image, again;
    trm_err err;
    trm_writer_init(&image);
    trm_writer_init(&again);
    trm_table_encode(table, &image);
    check(trm_writer_ok(&image));
    check(trm_table_decode(&copy, image.data, image.len, &err) == TRM_OK);
    trm_table_encode(&copy, &again);
    check(again.len == image.len && memcmp(again.data, image.data, image.len) == 0);
    trm_table_close(table);
    *table = copy;
    trm_writer_close(&image);
    trm_writer_close(&again);
}

static void same(const trm_table *a, const trm_table *b)
{
    trm_writer x, y;
    trm_writer_init(&x);
    trm_writer_init(&y);
    trm_table_encode(a, &x);
    trm_table_encode(b, &y);
    check(x.len == y.len && memcmp(x.data, y.data, x.len) == 0);
    trm_writer_close(&x);
    trm_writer_close(&y);
}

/* The tasks that a SUBMIT asks for; 0 for anything else. */
static uint64_t tasks_asked(const uint8_t *command, size_t len)
{
    static trm_identity identity;
    trm_command_type type;
    uint32_t job;
    trm_reader in;
    if (trm_command_open(command, len, &type, &job, &in) != TRM_OK || type != TRM_COMMAND_SUBMIT)
        return 0;
    trm_identity_decode(&identity, &in);
    return trm_reader_done(&in) ? (uint64_t)identity.tasks + identity.partitions : 0;
}

/* What a table needs to have anything to refuse: a launch and a job of a few tasks. */
static void begin(trm_table *table, uint8_t shape)
{
    trm_err err;
    trm_writer command;
    trm_writer_init(&command);
    trm_table_init(table);
    trm_command_begin(&command, TRM_COMMAND_EPOCH, 0);
    trm_epoch_encode(&(trm_epoch){.epoch = 1, .ranks = 2, .wall_ms = 5}, &command);
    check(trm_table_apply(table, command.data, command.len, NULL, &err) == TRM_OK);
    trm_identity identity = {.kernel = "/k.so",
                             .name = "job",
                             .tasks = 1 + shape % 8,
                             .partitions = shape / 8 % 4,
                             .range_partitioned = shape >> 7};
    trm_command_begin(&command, TRM_COMMAND_SUBMIT, 0);
    trm_identity_encode(&identity, &command);
    check(trm_table_apply(table, command.data, command.len, NULL, &err) == TRM_OK);
    trm_writer_close(&command);
}

/* A command that might be obeyed: of launch 1 or 2, about the few tasks that there are. */
static void put_likely(trm_writer *out, uint8_t kind, trm_reader *in)
{
    uint32_t previous = 0;
    uint64_t epoch = 1 + trm_get_u8(in) % 2;
    uint8_t task = trm_get_u8(in) % 9, shape = trm_get_u8(in), attempt = shape % 4, phase = 1 + shape / 4 % 2;
    trm_command_type type = (trm_command_type)(TRM_COMMAND_EPOCH + kind % 11);
    trm_command_begin(out, type, 0);
    if (type == TRM_COMMAND_EPOCH)
        trm_epoch_encode(&(trm_epoch){.epoch = epoch + 1, .ranks = 2}, out);
    else if (type == TRM_COMMAND_MEMBER)
        trm_member_encode(&(trm_member){.epoch = epoch, .rank = attempt, .host = "h", .run_store = "/s"},
                          out);
    else if (type == TRM_COMMAND_FAIL)
        trm_fail_encode(
            &(trm_fail){
                .epoch = epoch, .phase = phase, .task = task, .attempt = attempt, .status = TRM_EKERNEL},
            out);
    else if (type == TRM_COMMAND_FINISH)
        trm_finish_encode(&(trm_finish){.epoch = epoch, .state = 1 + shape % 2, .text = "why"}, out);
    else if (type == TRM_COMMAND_SKIP)
        trm_skip_encode(&(trm_skip){.epoch = epoch, .task = task, .record = shape / 8u, .fence = attempt},
                        out);
    else
        trm_put_varint(out, epoch);
    if (type == TRM_COMMAND_CUTS)
        trm_put_u32(out, shape);
    else if (type == TRM_COMMAND_COMMIT)
        trm_commit_encode(
            &(trm_commit){.phase = phase, .task = task, .attempt = attempt, .output_bytes = shape}, &previous,
            out);
    else if (type == TRM_COMMAND_LOST || type == TRM_COMMAND_ADOPT) {
        if (type == TRM_COMMAND_ADOPT)
            trm_put_varint(out, shape % 3);
        trm_output_ref ref = {.epoch = 1 + shape / 8 % 2, .task = task, .attempt = attempt};
        trm_output_ref_encode(&ref, &previous, out);
    } else if (type == TRM_COMMAND_PUBLISHED)
        trm_task_number_encode(task, &previous, out);
    else if (type == TRM_COMMAND_MASTER)
        trm_put_varint(out, attempt);
}

/* A command of any bytes at all, mostly of a known type. */
static void put_any(trm_writer *out, uint8_t kind, trm_reader *in)
{
    size_t left = trm_reader_left(in), len = kind / 8u < left ? kind / 8u : left;
    trm_command_begin(out, (trm_command_type)(TRM_COMMAND_SUBMIT + kind % 12), 0);
    trm_put_bytes(out, trm_get_bytes(in, len), len);
}

/* One byte of an image is another, and the checksum is right. */
static void damaged_image(const trm_table *table, uint8_t where, uint8_t what)
{
    trm_table found;
    trm_err err;
    trm_writer image;
    trm_writer_init(&image);
    trm_table_encode(table, &image);
    image.data[8 + where % (image.len - 12)] ^= what;
    trm_store_u32(image.data + image.len - 4, trm_crc32c(0, image.data, image.len - 4));
    trm_status status = trm_table_decode(&found, image.data, image.len, &err);
    check(status == TRM_OK || status == TRM_ECORRUPT || status == TRM_ENOMEM);
    if (status == TRM_OK) {
        check_table(&found);
        trm_table_close(&found);
    }
    trm_writer_close(&image);
}

static void commands(const uint8_t *bytes, size_t len)
{
    trm_table one, other;
    trm_err err;
    trm_reader in;
    trm_writer command;
    begin(&one, bytes[0]);
    begin(&other, bytes[0]);
    trm_writer_init(&command);
    trm_reader_init(&in, bytes + 1, len - 1);
    while (trm_reader_left(&in) >= 4) {
        uint8_t how = trm_get_u8(&in), kind = trm_get_u8(&in);
        (how % 4 ? put_likely : put_any)(&command, kind, &in);
        if (tasks_asked(command.data, command.len) > TASKS_MAX)
            continue;
        trm_status status = trm_table_apply(&one, command.data, command.len, NULL, &err);
        check(status == TRM_OK || status == TRM_ECORRUPT || status == TRM_EVERSION);
        check(trm_table_apply(&other, command.data, command.len, NULL, &err) == status);
        if (how >= 224)
            through_an_image(&other);
    }
    check_table(&one);
    through_an_image(&other);
    check_table(&other);
    same(&one, &other);
    damaged_image(&one, bytes[1], bytes[len - 1]);
    trm_writer_close(&command);
    trm_table_close(&one);
    trm_table_close(&other);
}

/* Bytes that carry the right checksum, as the image of a table. */
static void image(const uint8_t *bytes, size_t len)
{
    trm_table table;
    trm_err err;
    trm_writer out;
    trm_writer_init(&out);
    trm_put_u32(&out, 0x544d5254u);
    trm_put_u32(&out, TRM_TABLE_VERSION);
    trm_put_bytes(&out, bytes, len);
    trm_put_u32(&out, trm_crc32c(0, out.data, out.len));
    trm_status status = trm_table_decode(&table, out.data, out.len, &err);
    if (status == TRM_OK) {
        check_table(&table);
        through_an_image(&table);
        trm_table_close(&table);
    } else {
        check(status == TRM_ECORRUPT);
    }
    trm_writer_close(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    trm_table table;
    trm_err err;
    if (len < 2)
        return 0;
    if (trm_table_decode(&table, bytes, len, &err) == TRM_OK)
        trm_table_close(&table);
    if (bytes[0] == 0)
        image(bytes + 1, len - 1);
    else
        commands(bytes, len);
    return 0;
}
