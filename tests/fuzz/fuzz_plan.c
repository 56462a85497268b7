/* What a state directory holds of a job's shape: the plan, the cut points, the begin of a launch.
 * Whatever the bytes are, with a wrong or the right checksum, they are refused or are what would be
 * written; a plan that is taken covers its inputs exactly. */
#include "jobs/cuts.h"
#include "jobs/plan.h"
#include "runtime/crc32c.h"
#include "scheduler/epochs.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void check_refusal(trm_status status)
{
    check(status == TRM_ECORRUPT || status == TRM_EVERSION);
}

static void same(trm_writer *again, const uint8_t *bytes, size_t len)
{
    check(trm_writer_ok(again) && again->len == len && memcmp(again->data, bytes, len) == 0);
    trm_writer_close(again);
}

/* Each byte of each file belongs to one task. */
static void check_pieces(const trm_plan *plan)
{
    uint64_t covered = 0;
    for (uint32_t task = 0; plan->begin && task < plan->tasks; task++) {
        trm_piece pieces[3];
        unsigned first = 0, count;
        do {
            count = trm_plan_pieces(plan, task, first, pieces, 3);
            for (unsigned i = 0; i < count; i++) {
                check(pieces[i].offset == 0 || !pieces[i].file->gzip);
                check(pieces[i].offset <= pieces[i].file->bytes &&
                      pieces[i].bytes <= pieces[i].file->bytes - pieces[i].offset);
                covered += pieces[i].bytes;
            }
            first += count;
        } while (count == 3);
    }
    check(!plan->begin || covered == plan->bytes);
}

static void plan(const uint8_t *bytes, size_t len)
{
    trm_plan found;
    trm_err err;
    trm_status status = trm_plan_decode(&found, bytes, len, &err);
    if (status != TRM_OK) {
        check_refusal(status);
        return;
    }
    check_pieces(&found);
    trm_writer again;
    trm_writer_init(&again);
    trm_plan_encode(&found, &again);
    same(&again, bytes, len);
    trm_plan_close(&found);
}

static void cuts(const uint8_t *bytes, size_t len)
{
    trm_cuts found;
    trm_err err;
    trm_status status = trm_cuts_decode(&found, bytes, len, &err);
    if (status != TRM_OK) {
        check_refusal(status);
        return;
    }
    for (size_t key = 0; key < 8 && key < len; key++)
        check(trm_cuts_find(&found, bytes + len - key, key) < found.partitions);
    trm_writer again;
    trm_writer_init(&again);
    trm_cuts_encode(&found, &again);
    same(&again, bytes, len);
    trm_cuts_close(&found);
}

static void launch(const uint8_t *bytes, size_t len)
{
    static trm_raft_members members;
    uint64_t epoch;
    uint32_t ranks;
    trm_err err;
    trm_status status = trm_epoch_file_decode(bytes, len, &epoch, &ranks, &members, &err);
    if (status != TRM_OK) {
        check_refusal(status);
        return;
    }
    trm_writer again;
    trm_writer_init(&again);
    trm_epoch_file_encode(epoch, ranks, &members, &again);
    same(&again, bytes, len);
}

/* A plan of a few files and tasks; then one byte of it is another, and the checksum is right. */
static void damaged_plan(const uint8_t *bytes, size_t len)
{
    static const char *const names[] = {"/a", "/a/b", "/a/bc", "/d"};
    trm_plan made = {.input = TRM_INPUT_LINES, .split_bytes = 1 + bytes[1] % 16, .partitions = bytes[2] % 3};
    uint64_t begin[33] = {0};
    trm_writer file;
    trm_err err;
    trm_writer_init(&file);
    for (size_t i = 3; i < len && i < 7; i++)
        check(trm_plan_add_file(&made, names[i - 3], bytes[i] % 8, i, bytes[i] > 127, &err) == TRM_OK);
    do {
        uint64_t left = made.bytes - begin[made.tasks], split = made.split_bytes;
        begin[made.tasks + 1] = begin[made.tasks] + (left < split ? left : split);
    } while (begin[++made.tasks] < made.bytes);
    made.begin = begin;
    trm_plan_encode(&made, &file);
    file.data[8 + bytes[len - 1] % (file.len - 12)] ^= bytes[len - 2];
    trm_store_u32(file.data + file.len - 4, trm_crc32c(0, file.data, file.len - 4));
    plan(file.data, file.len);
    trm_writer_close(&file);
    made.begin = NULL; /* is not the plan's own */
    trm_plan_close(&made);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    plan(bytes, len);
    cuts(bytes, len);
    launch(bytes, len);
    if (len < 4)
        return 0;
    damaged_plan(bytes, len);
    static const uint8_t heads[3][8] = {"TRMP\1", "TRMC\1", "TRME\1"};
    unsigned kind = bytes[0] % 3;
    trm_writer file;
    trm_writer_init(&file);
    trm_put_bytes(&file, heads[kind], kind ? 8 : 6); /* the version of a plan has two bytes */
    trm_put_bytes(&file, bytes + 1, len - 1);
    trm_put_u32(&file, trm_crc32c(0, file.data, file.len));
    (kind == 0 ? plan : kind == 1 ? cuts : launch)(file.data, file.len);
    trm_writer_close(&file);
    return 0;
}
