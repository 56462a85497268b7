/* Says which parts of a job are committed, from its logs alone: `committed LOG`, where LOG is a
 * *copy* of a job's log directory (opening a log repairs it). Prints `part N BYTES STATE` a line for
 * each that has a file, then `all N` if none of the job's N is missing. What decides is the longest
 * log of the newest launch. */
#include "jobs/table.h"
#include "runtime/consensus/raft.h"
#include "runtime/diag.h"
#include "runtime/wal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STORES_MAX 256u

typedef struct store {
    char name[64];
    unsigned long epoch;
} store;

typedef struct stores {
    store store[STORES_MAX];
    unsigned count;
    unsigned long newest; /* launch that has begun */
} stores;

static trm_status note(const char *name, void *context)
{
    stores *self = context;
    unsigned long epoch, rank;
    char rest;
    if (sscanf(name, "epoch-%lu%c", &epoch, &rest) == 1 && epoch > self->newest)
        self->newest = epoch;
    if (self->count < STORES_MAX && sscanf(name, "e%lu.r%lu%c", &epoch, &rank, &rest) == 2) {
        snprintf(self->store[self->count].name, sizeof self->store[0].name, "%s", name);
        self->store[self->count++].epoch = epoch;
    }
    return TRM_OK;
}

static void must(trm_status status, const trm_err *err)
{
    if (status == TRM_OK)
        return;
    printf("committed: %s\n", err->text);
    exit(1);
}

static bool is_longer(const trm_wal *a, const trm_wal *b)
{
    uint64_t last_a = trm_wal_last_index(a), last_b = trm_wal_last_index(b);
    uint64_t term_a = trm_wal_term_at(a, last_a), term_b = trm_wal_term_at(b, last_b);
    return term_a != term_b ? term_a > term_b : last_a > last_b;
}

static void replay(trm_wal *wal, trm_table *table)
{
    trm_err err = {""};
    trm_wal_snapshot snapshot;
    trm_wal_snapshot_get(wal, &snapshot);
    if (snapshot.index) {
        size_t len = (size_t)snapshot.data_bytes, got = 0;
        uint8_t *bytes = malloc(len + 1);
        must(bytes ? trm_wal_snapshot_read(wal, 0, bytes, len, &got, &err) : TRM_ENOMEM, &err);
        must(len ? trm_table_decode(table, bytes, got, &err) : TRM_OK, &err);
        free(bytes);
    }
    for (uint64_t i = trm_wal_first_index(wal); i <= trm_wal_last_index(wal); i++) {
        trm_wal_entry entry;
        trm_wal_entry_at(wal, i, &entry);
        if (entry.type == TRM_RAFT_COMMAND)
            must(trm_table_apply(table, entry.payload, entry.len, NULL, &err), &err);
    }
}

static void show(const trm_table *table)
{
    for (uint32_t i = 0; i < table->jobs_count; i++) {
        const trm_table_job *job = table->jobs[i];
        const trm_table_phase *output = &job->phase[trm_table_output_phase(job)];
        for (uint32_t task = 0; task < output->tasks; task++)
            if (output->task[task].state != TRM_TASK_PENDING && !output->task[task].empty)
                printf("part %" PRIu32 " %" PRIu64 " %s\n", task, output->part[task].bytes,
                       output->task[task].state == TRM_TASK_PUBLISHED ? "published" : "committed");
        if (output->committed == output->tasks)
            printf("all %" PRIu32 "\n", output->tasks);
    }
}

int main(int argc, char **argv)
{
    static stores found;
    trm_err err = {""};
    trm_diag_configure(TRM_DIAG_ERROR, -1);
    if (argc != 2)
        return 2;
    trm_fs *fs = trm_fs_posix();
    trm_status status = fs->ops->list(fs, argv[1], note, &found, &err);
    if (status == TRM_ELOST)
        return 0; /* no launch has got so far */
    must(status, &err);
    trm_wal *best = NULL;
    for (unsigned i = 0; i < found.count; i++) {
        char path[TRM_FS_PATH_BYTES_MAX];
        trm_wal *wal = NULL;
        bool is_log = false;
        trm_wal_config config = {.create = false};
        if (found.store[i].epoch != found.newest ||
            snprintf(path, sizeof path, "%s/%s", argv[1], found.store[i].name) >= (int)sizeof path)
            continue;
        must(trm_wal_exists(fs, path, &is_log, &err), &err);
        if (!is_log)
            continue;
        must(trm_wal_open(&wal, fs, path, &config, &err), &err);
        if (best && !is_longer(wal, best)) {
            trm_wal_close(wal);
            continue;
        }
        trm_wal_close(best);
        best = wal;
    }
    if (!best)
        return 0;
    trm_table table;
    trm_table_init(&table);
    replay(best, &table);
    show(&table);
    trm_table_close(&table);
    trm_wal_close(best);
    return 0;
}
