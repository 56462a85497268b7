/* The Raft core alone: 3 and 5 nodes in one thread, messages through the codec and in
 * memory, writes durable at once. What a commit costs, one at a time and many in flight.
 *
 *   bench_raft [COMMITS]      of each run; medians of 5
 */
#include "runtime/clock.h"
#include "runtime/consensus/raft.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUNS 5u
#define NODES_MAX 5u
#define QUEUE_MAX 4096u
#define COMMITS_DEFAULT 200000u
#define COMMAND_BYTES 32u
#define SNAPSHOT_EVERY 50000u

typedef struct letter {
    uint32_t to;
    size_t at; /* in `bytes` */
    size_t len;
} letter;

typedef struct cluster {
    uint32_t nodes;
    trm_raft *raft[NODES_MAX];
    uint64_t applied[NODES_MAX];
    trm_writer bytes;
    letter letters[QUEUE_MAX];
    uint32_t letters_len;
    uint64_t messages;
    uint64_t message_bytes;
    trm_raft_entry room[TRM_RAFT_MESSAGE_ENTRIES_MAX];
} cluster;

static trm_err err;

static void must(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "bench_raft: %s: %s\n", what, err.text);
    exit(1);
}

static void post(cluster *self, const trm_raft_message *message)
{
    must(self->letters_len < QUEUE_MAX, "the queue is full");
    letter *out = &self->letters[self->letters_len++];
    *out = (letter){(uint32_t)message->to, self->bytes.len, 0};
    trm_raft_message_encode(message, &self->bytes);
    must(trm_writer_ok(&self->bytes), "encode");
    out->len = self->bytes.len - out->at;
    self->messages++;
    self->message_bytes += out->len;
}

static bool work(cluster *self, uint32_t node)
{
    trm_raft_update update;
    bool any = false;
    while (trm_raft_take(self->raft[node], &update)) {
        any = true;
        for (size_t i = 0; i < update.messages_len; i++)
            post(self, &update.messages[i]);
        self->applied[node] += update.apply_len;
        if (update.persist_sequence != 0)
            trm_raft_persisted(self->raft[node], update.persist_sequence);
    }
    return any;
}

/* All that is on its way arrives, until nothing is. */
static void settle(cluster *self)
{
    for (bool any = true; any;) {
        any = false;
        for (uint32_t node = 0; node < self->nodes; node++)
            any |= work(self, node);
        for (uint32_t i = 0; i < self->letters_len; i++) {
            trm_raft_message message;
            const letter *in = &self->letters[i];
            must(trm_raft_message_decode(&message, self->room, self->bytes.data + in->at, in->len, &err) ==
                     TRM_OK,
                 "decode");
            must(trm_raft_receive(self->raft[in->to], &message, 0, &err) == TRM_OK, "receive");
            any = true;
        }
        self->letters_len = 0;
        trm_writer_reset(&self->bytes);
    }
}

static void open_cluster(cluster *self, uint32_t nodes)
{
    memset(self, 0, sizeof *self);
    self->nodes = nodes;
    trm_raft_members members = {0};
    for (uint32_t i = 0; i < nodes; i++)
        trm_raft_members_set(&members, i, true);
    trm_raft_boot boot;
    trm_raft_boot_init(&boot);
    boot.first_members = &members;
    for (uint32_t i = 0; i < nodes; i++) {
        trm_raft_options options = {.node = i, .seed = i};
        must(trm_raft_create(&self->raft[i], &options, &boot, 0, &err) == TRM_OK, "create");
    }
    must(trm_raft_tick(self->raft[0], trm_raft_wake_ns(self->raft[0]), &err) == TRM_OK, "tick");
    settle(self);
    self->messages = self->message_bytes = 0;
}

static void close_cluster(cluster *self)
{
    for (uint32_t i = 0; i < self->nodes; i++)
        trm_raft_destroy(self->raft[i]);
    trm_writer_close(&self->bytes);
}

static void compact(cluster *self)
{
    for (uint32_t i = 0; i < self->nodes; i++) {
        trm_wal_snapshot meta;
        trm_raft_snapshot_describe(self->raft[i], &meta);
        trm_raft_snapshot_saved(self->raft[i], &meta);
    }
}

typedef struct result {
    double us;
    double messages; /* a commit */
    double bytes;
} result;

static result run(uint32_t nodes, uint32_t outstanding, uint64_t commits)
{
    static cluster self;
    static const uint8_t command[COMMAND_BYTES] = {1};
    open_cluster(&self, nodes);
    uint64_t done = 0, compacted = 0, begin_ns = trm_clock_now_ns();
    while (done < commits) {
        uint64_t index, term;
        for (uint32_t i = 0; i < outstanding; i++)
            must(trm_raft_propose(self.raft[0], command, sizeof command, &index, &term, &err) == TRM_OK,
                 "propose");
        settle(&self);
        done += outstanding;
        if (done - compacted < SNAPSHOT_EVERY)
            continue;
        compact(&self);
        compacted = done;
    }
    uint64_t ns = trm_clock_now_ns() - begin_ns;
    for (uint32_t i = 0; i < nodes; i++)
        must(self.applied[i] == done + 1, "every node has applied everything");
    result out = {(double)ns / 1e3 / (double)done, (double)self.messages / (double)done,
                  (double)self.message_bytes / (double)done};
    close_cluster(&self);
    return out;
}

static int by_value(const void *a, const void *b)
{
    double x = ((const result *)a)->us, y = ((const result *)b)->us;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    uint64_t commits = argc > 1 ? strtoull(argv[1], NULL, 10) : COMMITS_DEFAULT;
    static const uint32_t nodes[] = {1, 3, 5}, outstanding[] = {1, 64, 1000};
    printf("The Raft core alone, one thread, commands of %u bytes, medians of %u runs of %" PRIu64
           " commits\n",
           COMMAND_BYTES, RUNS, commits);
    printf("%6s %12s %14s %12s %18s %16s\n", "nodes", "outstanding", "commits/s", "us/commit",
           "messages/commit", "bytes/commit");
    for (size_t n = 0; n < sizeof nodes / sizeof *nodes; n++)
        for (size_t o = 0; o < sizeof outstanding / sizeof *outstanding; o++) {
            result results[RUNS];
            for (uint32_t i = 0; i < RUNS; i++)
                results[i] = run(nodes[n], outstanding[o], commits);
            qsort(results, RUNS, sizeof *results, by_value);
            const result *median = &results[RUNS / 2];
            printf("%6u %12u %14.0f %12.3f %18.3f %16.1f\n", nodes[n], outstanding[o], 1e6 / median->us,
                   median->us, median->messages, median->bytes);
        }
    return 0;
}
