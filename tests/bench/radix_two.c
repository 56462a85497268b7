/* What two cores can: sorts the 100-byte records of one file by their first 10 bytes with two
 * threads and all the memory that it wants, written by hand for this one purpose. The TeraSort
 * of the framework is measured against it.
 *
 *   radix_two [--sync] FILE OUTPUT     writes OUTPUT.0 and OUTPUT.1, which are sorted one after
 *                                      the other; --sync: they are on the disk before it ends
 *
 *   the file, mapped; keys ─▶ 16-byte entries ─▶ scattered by their first digit ─▶ each bucket
 *   sorted in the cache ─▶ records gathered, fetched ahead ─▶ written, a file a thread, because
 *   two that write into one file wait for each other
 *
 * Equal keys keep the order of the file. Nothing is checked that a framework has to: this is
 * a yardstick.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define RECORD_BYTES 100u
#define THREADS 2u
#define PIECE_RECORDS 4096u
#define WRITE_RECORDS 8192u
#define AHEAD 24u /* records that are fetched before they are copied */
#define DIGIT_BITS 11u
#define DIGITS (1u << DIGIT_BITS)
#define BUCKETS (1u << 16) /* of the first digit */
#define INSERTION_MAX 24u
#define PAGE_BYTES 4096u
#define HUGE_PAGE_BYTES (2u << 20)

/* The key, and which record: compares as the key, then the place in the file. */
typedef struct entry {
    uint64_t first;  /* 8 bytes of the key */
    uint64_t second; /* the last 2, then 48 bits: the record's number */
} entry;

typedef struct shared {
    bool sync;
    const char *to;
    uint64_t records;
    const char *memory; /* the file */
    entry *entries, *sorted;
    uint32_t *counts[THREADS]; /* by bucket; then where the thread's next entry of it goes */
    uint64_t *begin;           /* of a bucket; BUCKETS + 1 */
    pthread_barrier_t barrier;
} shared;

typedef struct worker {
    shared *all;
    unsigned number;
    pthread_t thread;
} worker;

static void fail(const char *what)
{
    fprintf(stderr, "radix_two: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Large pages: with small ones most of the time is page walks. */
static void *map(size_t bytes)
{
    bytes += HUGE_PAGE_BYTES;
    char *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        fail("no memory");
    (void)madvise(memory, bytes, MADV_HUGEPAGE);
    return memory;
}

static void barrier(worker *self)
{
    (void)pthread_barrier_wait(&self->all->barrier);
}

static uint32_t bucket_of(const entry *e)
{
    return (uint32_t)(e->first >> 48);
}

/* ---- Reading --------------------------------------------------------------------------- */

/* All pages of a piece at once, where the system can; else one after the other, by faults. */
static void fetch_pages(const shared *all, uint64_t record, uint64_t count)
{
    uintptr_t begin = (uintptr_t)(all->memory + record * RECORD_BYTES) / PAGE_BYTES * PAGE_BYTES;
    uintptr_t end = (uintptr_t)(all->memory + (record + count) * RECORD_BYTES);
#ifdef MADV_POPULATE_READ
    (void)madvise((void *)begin, end - begin, MADV_POPULATE_READ);
#else
    (void)madvise((void *)begin, end - begin, MADV_WILLNEED);
#endif
}

static void read_keys(worker *self, uint64_t from, uint64_t to)
{
    shared *all = self->all;
    for (uint64_t at = from; at < to; at += PIECE_RECORDS) {
        uint64_t end = to - at < PIECE_RECORDS ? to : at + PIECE_RECORDS;
        fetch_pages(all, at, end - at);
        for (uint64_t i = at; i < end; i++) {
            const char *key = all->memory + i * RECORD_BYTES;
            uint64_t first;
            uint16_t second;
            memcpy(&first, key, 8);
            memcpy(&second, key + 8, 2);
            all->entries[i] =
                (entry){__builtin_bswap64(first), (uint64_t)__builtin_bswap16(second) << 48 | i};
            all->counts[self->number][bucket_of(&all->entries[i])]++;
        }
    }
}

/* Counts to places, thread after thread within a bucket. */
static void place_buckets(shared *all)
{
    uint64_t at = 0;
    for (uint32_t b = 0; b < BUCKETS; b++) {
        all->begin[b] = at;
        for (unsigned t = 0; t < THREADS; t++) {
            uint32_t count = all->counts[t][b];
            all->counts[t][b] = (uint32_t)at;
            at += count;
        }
    }
    all->begin[BUCKETS] = at;
}

static void scatter(worker *self, uint64_t from, uint64_t to)
{
    shared *all = self->all;
    uint32_t *next = all->counts[self->number];
    for (uint64_t i = from; i < to; i++)
        all->sorted[next[bucket_of(&all->entries[i])]++] = all->entries[i];
}

/* ---- Sorting ----------------------------------------------------------------------------- */

static bool less(const entry *a, const entry *b)
{
    return a->first != b->first ? a->first < b->first : a->second < b->second;
}

static void insertion(entry *e, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        entry moving = e[i];
        size_t j = i;
        for (; j > 0 && less(&moving, &e[j - 1]); j--)
            e[j] = e[j - 1];
        e[j] = moving;
    }
}

static int by_entry(const void *a, const void *b)
{
    return less(a, b) ? -1 : less(b, a);
}

/* Entries that agree in all bits of `first` above `bits`. */
static void sort_entries(entry *e, entry *scratch, size_t n, unsigned bits)
{
    if (n <= INSERTION_MAX) {
        insertion(e, n);
        return;
    }
    if (bits == 0) {
        qsort(e, n, sizeof *e, by_entry);
        return;
    }
    unsigned shift = bits > DIGIT_BITS ? bits - DIGIT_BITS : 0;
    uint32_t mask = (1u << (bits - shift)) - 1, at[DIGITS + 1] = {0};
    for (size_t i = 0; i < n; i++)
        at[(e[i].first >> shift & mask) + 1]++;
    for (uint32_t d = 0; d < DIGITS; d++)
        at[d + 1] += at[d];
    for (size_t i = 0; i < n; i++)
        scratch[at[e[i].first >> shift & mask]++] = e[i];
    memcpy(e, scratch, n * sizeof *e);
    for (uint32_t d = 0, from = 0; d <= mask; from = at[d++])
        sort_entries(e + from, scratch + from, at[d] - from, shift);
}

/* ---- Writing ----------------------------------------------------------------------------- */

static void write_all(int fd, const char *bytes, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t now = write(fd, bytes + done, len - done);
        if (now < 0 && errno != EINTR)
            fail("cannot write");
        done += now > 0 ? (size_t)now : 0;
    }
}

static void gather(const shared *all, int out, uint64_t from, uint64_t to)
{
    const uint64_t number = ((uint64_t)1 << 48) - 1;
    char *buffer = map(WRITE_RECORDS * RECORD_BYTES);
    for (uint64_t at = from; at < to; at += WRITE_RECORDS) {
        uint64_t end = to - at < WRITE_RECORDS ? to : at + WRITE_RECORDS;
        char *put = buffer;
        for (uint64_t i = at; i < end; i++, put += RECORD_BYTES) {
            if (i + AHEAD < to) {
                const char *ahead = all->memory + (all->sorted[i + AHEAD].second & number) * RECORD_BYTES;
                __builtin_prefetch(ahead);
                __builtin_prefetch(ahead + RECORD_BYTES - 1);
            }
            memcpy(put, all->memory + (all->sorted[i].second & number) * RECORD_BYTES, RECORD_BYTES);
        }
        write_all(out, buffer, (size_t)(end - at) * RECORD_BYTES);
    }
}

static void write_part(const worker *self, uint64_t from, uint64_t to)
{
    char path[4096];
    snprintf(path, sizeof path, "%s.%u", self->all->to, self->number);
    int out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (out < 0)
        fail(path);
    gather(self->all, out, from, to);
    if ((self->all->sync && fdatasync(out) != 0) || close(out) != 0)
        fail(path);
}

static void *work(void *context)
{
    worker *self = context;
    shared *all = self->all;
    uint64_t from = all->records * self->number / THREADS, to = all->records * (self->number + 1) / THREADS;
    read_keys(self, from, to);
    barrier(self);
    if (self->number == 0)
        place_buckets(all);
    barrier(self);
    scatter(self, from, to);
    barrier(self);
    /* Whole buckets, as near to a half as they come. */
    uint32_t b = 0, last = BUCKETS;
    if (self->number > 0)
        while (all->begin[b] < from)
            b++;
    if (self->number + 1 < THREADS)
        for (last = b; all->begin[last] < to;)
            last++;
    uint64_t begin = all->begin[b], end = all->begin[last];
    for (; b < last; b++)
        sort_entries(all->sorted + all->begin[b], all->entries + all->begin[b],
                     all->begin[b + 1] - all->begin[b], 48);
    write_part(self, begin, end);
    return NULL;
}

static void run(shared *all)
{
    all->entries = map(all->records * sizeof(entry));
    all->sorted = map(all->records * sizeof(entry));
    all->begin = map((BUCKETS + 1) * sizeof *all->begin);
    for (unsigned t = 0; t < THREADS; t++)
        all->counts[t] = map(BUCKETS * sizeof *all->counts[t]);
    (void)pthread_barrier_init(&all->barrier, NULL, THREADS);
    worker workers[THREADS];
    for (unsigned t = 0; t < THREADS; t++) {
        workers[t] = (worker){.all = all, .number = t};
        if (pthread_create(&workers[t].thread, NULL, work, &workers[t]) != 0)
            fail("cannot start a thread");
    }
    for (unsigned t = 0; t < THREADS; t++)
        (void)pthread_join(workers[t].thread, NULL);
}

int main(int argc, char **argv)
{
    bool sync = argc == 4 && strcmp(argv[1], "--sync") == 0;
    if (argc != 3 && !sync) {
        fprintf(stderr, "usage: radix_two [--sync] FILE OUTPUT\n");
        return 2;
    }
    const char *from = argv[argc - 2];
    double begin_s = now_s();
    int in = open(from, O_RDONLY | O_CLOEXEC);
    struct stat about;
    if (in < 0 || fstat(in, &about) != 0)
        fail(from);
    size_t bytes = (size_t)about.st_size;
    shared all = {.sync = sync, .to = argv[argc - 1], .records = bytes / RECORD_BYTES};
    if (bytes == 0 || bytes % RECORD_BYTES || all.records > UINT32_MAX) {
        fprintf(stderr, "radix_two: %s is not of 100-byte records, or of too many\n", from);
        return 1;
    }
    all.memory = mmap(NULL, bytes, PROT_READ, MAP_SHARED, in, 0);
    if (all.memory == MAP_FAILED)
        fail(from);
    run(&all);
    double took_s = now_s() - begin_s;
    fprintf(stderr, "radix_two: %llu records, %.3f s, %.0f MB/s\n", (unsigned long long)all.records, took_s,
            (double)bytes / took_s / 1e6);
    return 0;
}
