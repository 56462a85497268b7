/* The log beside the raw rate of the device, measured in the same run: group commit
 * with 1 and 64 outstanding, and what 50,000 commands a second cost.
 *
 *   bench_log [DIR]      a directory on the device to measure; default: here
 */
#include "runtime/clock.h"
#include "runtime/diag.h"
#include "runtime/replog_raft.h"
#include "runtime/wal.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define RUNS 5
#define RUN_NS (400 * TRM_NS_PER_MS)
#define COMMAND_BYTES 32u
#define PACED_PER_S 50000u
#define PACED_S 3u

static trm_err err;

static void must(trm_status status)
{
    if (status == TRM_OK)
        return;
    fprintf(stderr, "bench_log: %s\n", err.text);
    exit(1);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *runs)
{
    qsort(runs, RUNS, sizeof *runs, by_value);
    return runs[RUNS / 2];
}

static double per_second(uint64_t count, uint64_t begin_ns)
{
    return (double)count * (double)TRM_NS_PER_S / (double)(trm_clock_now_ns() - begin_ns);
}

/* One block written and synced in a file whose blocks are there: what the device can. */
static double raw_syncs(const char *dir)
{
    char path[600];
    snprintf(path, sizeof path, "%s/raw", dir);
    trm_fs *fs = trm_fs_posix();
    trm_file *file;
    static uint8_t block[TRM_WAL_BLOCK_BYTES];
    must(fs->ops->open(fs, path, TRM_FS_WRITE | TRM_FS_CREATE, &file, &err));
    must(fs->ops->allocate(file, 64u << 20, &err));
    must(fs->ops->sync(file, &err));
    uint64_t begin = trm_clock_now_ns(), count = 0;
    while (trm_clock_now_ns() - begin < RUN_NS) {
        block[0]++;
        must(fs->ops->write_at(file, count % 16000 * sizeof block, block, sizeof block, &err));
        must(fs->ops->sync(file, &err));
        count++;
    }
    double rate = per_second(count, begin);
    fs->ops->close(file);
    fs->ops->remove(fs, path, NULL);
    return rate;
}

/* Entries a second, `outstanding` in each batch. */
static double wal_commits(const char *dir, uint64_t outstanding)
{
    char path[600];
    snprintf(path, sizeof path, "%s/wal", dir);
    trm_wal *wal;
    trm_wal_config config = {.create = true};
    must(trm_wal_open(&wal, trm_fs_posix(), path, &config, &err));
    trm_wal_batch batch;
    trm_wal_batch_init(&batch);
    static const uint8_t command[COMMAND_BYTES];
    uint64_t begin = trm_clock_now_ns(), index = 0;
    while (trm_clock_now_ns() - begin < RUN_NS) {
        for (uint64_t i = 0; i < outstanding; i++) {
            trm_wal_entry entry = {++index, 1, 1, command, sizeof command};
            trm_wal_batch_entry(&batch, &entry);
        }
        must(trm_wal_write(wal, &batch, &err));
        must(trm_wal_sync(wal, &err));
        trm_wal_batch_reset(&batch);
    }
    double rate = per_second(index, begin);
    trm_wal_batch_close(&batch);
    trm_wal_close(wal);
    must(trm_fs_remove_tree(trm_fs_posix(), path, &err));
    return rate;
}

static void send_nowhere(void *context, uint32_t to, const void *bytes, size_t len)
{
    abort(); /* one voter has nobody to talk to */
}

static trm_replog *open_replog(const char *path, uint32_t interval_us)
{
    trm_replog *log;
    trm_replog_state state;
    trm_raft_members voters = {0};
    must(trm_raft_members_set(&voters, 0, true));
    trm_replog_raft_config config = {.dir = path,
                                     .group = 1,
                                     .first_members = &voters,
                                     .sync_interval_us = interval_us,
                                     .snapshot_bytes = 1u << 30,
                                     .send = send_nowhere};
    must(trm_replog_raft_open(&log, &config, trm_clock_now_ns(), &err));
    must(trm_raft_campaign(trm_replog_raft_core(log), trm_clock_now_ns(), &err));
    for (trm_replog_state_get(log, &state); !state.leader; trm_replog_state_get(log, &state)) {
        uint64_t wake = UINT64_MAX;
        trm_replog_step(log, trm_clock_now_ns(), &wake);
    }
    return log;
}

static uint64_t take_all(trm_replog *log)
{
    trm_replog_item item;
    uint64_t count = 0;
    while (trm_replog_next(log, &item) == TRM_OK)
        count++;
    return count;
}

/* Through the log's thread: each command decided brings the next. */
static double replog_commits(const char *dir, uint64_t outstanding)
{
    char path[600];
    snprintf(path, sizeof path, "%s/replog", dir);
    trm_replog *log = open_replog(path, 1);
    static const uint8_t command[COMMAND_BYTES];
    uint64_t begin = trm_clock_now_ns(), done = 0, proposed = 0, index, wake = UINT64_MAX;
    while (trm_clock_now_ns() - begin < RUN_NS) {
        for (; proposed < done + outstanding; proposed++)
            must(trm_replog_propose(log, command, sizeof command, &index, &err));
        struct pollfd news = {.fd = trm_replog_fd(log), .events = POLLIN};
        trm_replog_step(log, 0, &wake);
        poll(&news, 1, 1000);
        trm_replog_step(log, 0, &wake);
        done += take_all(log);
    }
    double rate = per_second(done, begin);
    trm_replog_close(log);
    must(trm_fs_remove_tree(trm_fs_posix(), path, &err));
    return rate;
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* 50,000 commands a second, 50 a millisecond, as a busy master proposes them. */
static void paced(const char *dir)
{
    char path[600];
    snprintf(path, sizeof path, "%s/replog", dir);
    trm_replog *log = open_replog(path, 0);
    static const uint8_t command[COMMAND_BYTES];
    double cpu = cpu_seconds();
    uint64_t begin = trm_clock_now_ns(), index = 0, done = 0, wake = UINT64_MAX;
    for (uint64_t turn = 0; turn < PACED_S * 1000; turn++) {
        for (unsigned i = 0; i < PACED_PER_S / 1000; i++)
            must(trm_replog_propose(log, command, sizeof command, &index, &err));
        trm_replog_step(log, 0, &wake);
        done += take_all(log);
        uint64_t due = begin + (turn + 1) * TRM_NS_PER_MS, now = trm_clock_now_ns();
        if (now < due)
            poll(NULL, 0, (int)((due - now + TRM_NS_PER_MS - 1) / TRM_NS_PER_MS));
    }
    double rate = per_second(done, begin);
    cpu = cpu_seconds() - cpu;
    double seconds = (double)(trm_clock_now_ns() - begin) / (double)TRM_NS_PER_S;
    printf("%-44s %12.0f /s  %5.1f%% of a core\n", "replog, 50 commands every ms", rate, 100 * cpu / seconds);
    trm_replog_close(log);
    must(trm_fs_remove_tree(trm_fs_posix(), path, &err));
}

/* A rate beside what the device does one at a time. */
static void line(const char *what, double rate, double base)
{
    printf("%-44s %12.0f /s  %6.2f times the device\n", what, rate, rate / base);
}

int main(int argc, char **argv)
{
    char dir[512];
    snprintf(dir, sizeof dir, "%s/trm-bench-log-XXXXXX", argc > 1 ? argv[1] : ".");
    if (!mkdtemp(dir)) {
        perror(dir);
        return 1;
    }
    trm_diag_configure(TRM_DIAG_WARN, -1);
    double raw[RUNS], one[RUNS], many[RUNS], thread_one[RUNS], thread_many[RUNS];
    for (int run = 0; run < RUNS; run++) {
        raw[run] = raw_syncs(dir);
        one[run] = wal_commits(dir, 1);
        many[run] = wal_commits(dir, 64);
        thread_one[run] = replog_commits(dir, 1);
        thread_many[run] = replog_commits(dir, 64);
    }
    double base = median(raw), single = median(one), grouped = median(many);
    double thread_single = median(thread_one), thread_grouped = median(thread_many);
    printf("the log, commands of %u bytes, medians of %d (in %s)\n", COMMAND_BYTES, RUNS,
           argc > 1 ? argv[1] : ".");
    printf("%-44s %12.0f /s\n", "the device: one block at a time, each synced", base);
    line("wal, 1 outstanding", single, base);
    line("wal, 64 outstanding (wanted: 10 times)", grouped, base);
    line("replog (own thread), 1 outstanding", thread_single, base);
    line("replog (own thread), 64 outstanding", thread_grouped, base);
    paced(dir);
    must(trm_fs_remove_tree(trm_fs_posix(), dir, &err));
    return 0;
}
