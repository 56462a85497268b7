/* Reads a log from docs/log-format.md alone: nothing of the library is in here, so that the page
 * and the library can be held against each other. Says what `trireme log --entries` says of the
 * same directory, word for word, or where it is damaged.
 *
 *   read_log LOG            a log, and the register of its `owner` directory
 *   read_log --epoch FILE   the file that says that a launch has begun */
#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 4096u
#define FILES_MAX 4096u
#define ENTRIES_MAX (1u << 20)

typedef struct file {
    char path[4096];
    unsigned char *bytes;
    size_t len;
} file;

static void bad(const file *in, size_t at, const char *why)
{
    printf("damaged: %s: offset %zu: %s\n", in->path, at, why);
    exit(3);
}

static void demand(bool holds, const file *in, size_t at, const char *why)
{
    if (!holds)
        bad(in, at, why);
}

/* ---- Numbers ------------------------------------------------------------------------------ */

static uint64_t number(const file *in, size_t at, unsigned bytes)
{
    demand(at + bytes <= in->len, in, at, "the file ends here");
    uint64_t out = 0;
    for (unsigned i = bytes; i > 0; i--)
        out = out << 8 | in->bytes[at + i - 1];
    return out;
}

static uint64_t varint(const file *in, size_t *at)
{
    uint64_t out = 0, byte;
    unsigned shift = 0;
    do {
        demand(shift < 70, in, *at, "a varint of more than 10 bytes");
        byte = number(in, (*at)++, 1);
        out |= (byte & 127) << shift;
        shift += 7;
    } while (byte & 128);
    demand(byte != 0 || shift == 7, in, *at - 1, "a varint that is not in its shortest form");
    return out;
}

/* RFC 3720, B.4, a bit at a time; `crc` is what it goes on from. */
static uint32_t crc32c(uint32_t crc, const unsigned char *bytes, size_t len)
{
    crc = ~crc;
    for (size_t i = 0; i < len; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static bool zero(const file *in, size_t from, size_t to)
{
    for (size_t at = from; at < to && at < in->len; at++)
        if (in->bytes[at])
            return false;
    return true;
}

static size_t rounded(size_t at, size_t to)
{
    return (at + to - 1) / to * to;
}

/* ---- Files -------------------------------------------------------------------------------- */

static void load(file *out, const char *dir, const char *name)
{
    snprintf(out->path, sizeof out->path, "%s%s%s", dir, *dir ? "/" : "", name);
    FILE *in = fopen(out->path, "rb");
    demand(in != NULL, out, 0, "it cannot be opened");
    fseek(in, 0, SEEK_END);
    out->len = (size_t)ftell(in);
    rewind(in);
    out->bytes = malloc(out->len + 1);
    demand(out->bytes && fread(out->bytes, 1, out->len, in) == out->len, out, 0, "it cannot be read");
    fclose(in);
}

static void magic(const file *in, const char *want, uint64_t version)
{
    demand(in->len >= 12 && memcmp(in->bytes, want, 8) == 0, in, 0, "another magic");
    demand(number(in, 8, 4) == version, in, 8, "another version");
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The numbers of the files prefix-HHHHHHHHHHHHHHHH, in order. */
static size_t numbered(const char *dir, const char *prefix, uint64_t *out)
{
    size_t found = 0, len = strlen(prefix);
    DIR *names = opendir(dir);
    for (struct dirent *it; names && found < FILES_MAX && (it = readdir(names));)
        if (strncmp(it->d_name, prefix, len) == 0 && strlen(it->d_name) == len + 16 &&
            strspn(it->d_name + len, "0123456789abcdef") == 16)
            out[found++] = strtoull(it->d_name + len, NULL, 16);
    if (names)
        closedir(names);
    qsort(out, found, sizeof *out, by_number);
    return found;
}

/* ---- The log ------------------------------------------------------------------------------ */

static struct {
    uint64_t base, last, term, vote, commit, log_id;
    uint64_t term_of[ENTRIES_MAX]; /* of entry base_first + i + 1 */
    uint64_t base_first;
} state;

static void show_vote(uint64_t vote)
{
    if (vote == UINT64_MAX)
        printf(", no vote");
    else
        printf(", vote for %llu", (unsigned long long)vote);
}

typedef struct segment {
    file file;
    uint64_t sequence, capacity, first_index, previous_end, previous_chain;
    uint32_t seed;
} segment;

static void read_header(segment *self, const char *dir, uint64_t sequence)
{
    char name[64];
    snprintf(name, sizeof name, "segment-%016llx", (unsigned long long)sequence);
    const file *in = &self->file;
    load(&self->file, dir, name);
    magic(in, "trm-wal\n", 1);
    self->seed = crc32c(0, in->bytes, 96);
    demand(number(in, 96, 4) == self->seed, in, 0, "the checksum of the header");
    demand(number(in, 12, 4) == 100 && number(in, 92, 4) == 0 && zero(in, 100, BLOCK), in, 12,
           "the header's size, or what follows it");
    self->sequence = number(in, 24, 8);
    self->capacity = number(in, 32, 8);
    self->first_index = number(in, 40, 8);
    self->previous_end = number(in, 80, 8);
    self->previous_chain = number(in, 88, 4);
    demand(self->sequence == sequence, in, 24, "another number than in the name");
    demand(self->capacity % BLOCK == 0 && self->capacity >= 8192 && self->capacity <= 1u << 30, in, 32,
           "the capacity");
    if (self->file.len > self->capacity)
        self->file.len = self->capacity;
}

static void show_segment(const segment *self)
{
    const file *in = &self->file;
    printf("segment %llu: %llu bytes, from entry %llu, term %llu", (unsigned long long)self->sequence,
           (unsigned long long)self->capacity, (unsigned long long)self->first_index,
           (unsigned long long)number(in, 56, 8));
    show_vote(number(in, 64, 8));
    printf(", commit %llu\n", (unsigned long long)number(in, 72, 8));
}

static uint64_t *term_of(const file *in, uint64_t index)
{
    demand(index > state.base_first && index - state.base_first <= ENTRIES_MAX, in, 0, "too many entries");
    return &state.term_of[index - state.base_first - 1];
}

static void apply_entries(const file *in, size_t at, size_t end)
{
    uint64_t first = number(in, at, 8), index = first, bytes = 0, term = 0;
    char lines[1 << 16];
    size_t used = 0;
    demand(first > state.base && first <= state.last + 1, in, at, "a gap");
    for (at += 8; at < end; index++) {
        uint64_t before = index > state.base_first + 1 ? *term_of(in, index - 1) : 0;
        term = varint(in, &at);
        unsigned type = (unsigned)number(in, at++, 1);
        uint64_t len = varint(in, &at);
        demand(term >= before && len <= end - at, in, at, "a term that falls, or an entry that is too long");
        *term_of(in, index) = term;
        at += len;
        bytes += len;
        if (used < sizeof lines - 200)
            used += (size_t)snprintf(
                lines + used, sizeof lines - used, "    entry %llu: term %llu, type %u, %llu bytes\n",
                (unsigned long long)index, (unsigned long long)term, type, (unsigned long long)len);
    }
    demand(at == end && index > first, in, at, "entries that do not end where their record does");
    state.last = index - 1;
    printf("entries %llu to %llu, %llu bytes, term %llu\n%s", (unsigned long long)first,
           (unsigned long long)state.last, (unsigned long long)bytes, (unsigned long long)term, lines);
}

static void apply(const file *in, unsigned type, size_t at, size_t len)
{
    if (type == 1) {
        apply_entries(in, at, at + len);
    } else if (type == 2) {
        demand(len == 24 && number(in, at, 8) >= state.term, in, at, "a term that falls");
        state.term = number(in, at, 8);
        state.vote = number(in, at + 8, 8);
        state.commit = number(in, at + 16, 8);
        printf("term %llu", (unsigned long long)state.term);
        show_vote(state.vote);
        printf(", commit %llu\n", (unsigned long long)state.commit);
    } else if (type == 3) {
        demand(len == 8, in, at, "a truncation of another length");
        printf("void from entry %llu on\n", (unsigned long long)number(in, at, 8));
        if (number(in, at, 8) <= state.last)
            state.last = number(in, at, 8) - 1;
    } else {
        demand(len == 16, in, at, "a reset of another length");
        state.base = state.last = state.base_first = number(in, at, 8);
        printf("all void, goes on behind entry %llu of term %llu\n", (unsigned long long)state.last,
               (unsigned long long)number(in, at + 8, 8));
    }
}

/* Whether a record of this segment lies at `at`, whatever its place in the chain. */
static bool is_record(const segment *self, size_t at)
{
    const file *in = &self->file;
    if (at + 24 > in->len || number(in, at + 21, 3) != (self->seed & 0xffffff) ||
        number(in, at + 20, 1) < 1 || number(in, at + 20, 1) > 4 || number(in, at + 8, 4) > in->len - at - 24)
        return false;
    return number(in, at, 4) == crc32c(self->seed, in->bytes + at + 4, 20 + number(in, at + 8, 4));
}

/* Good records behind the end must have been written when it was not yet durable. */
static bool judge_rest(const segment *self, size_t end, uint32_t records)
{
    const file *in = &self->file;
    bool any = end % BLOCK != 0;
    for (size_t at = rounded(end, 8); at < in->len; at += 8) {
        if (!is_record(self, at) || number(in, at + 16, 4) < records)
            continue;
        demand(number(in, at + 12, 4) <= end, in, end, "bad, and what is behind it says that it was durable");
        any = true;
    }
    return any || in->len < self->capacity;
}

/* Returns where it ends; *unfinished: something lies behind that a crash has left. */
static size_t read_records(const segment *self, const segment *next, bool *shown, bool *unfinished)
{
    const file *in = &self->file;
    uint32_t chain = self->seed, records = 0;
    size_t at = BLOCK, stop = next ? next->previous_end : in->len;
    for (;; records++) {
        if (at >= stop || !is_record(self, at)) { /* a batch's end, or the log's */
            size_t block = rounded(at, BLOCK);
            if (block == at || !zero(in, at, block))
                break;
            at = block;
            if (at >= stop || !is_record(self, at))
                break;
        }
        if (number(in, at + 4, 4) != chain || number(in, at + 16, 4) != records)
            break;
        size_t len = number(in, at + 8, 4), end = rounded(at + 24 + len, 8);
        demand(number(in, at + 12, 4) <= at, in, at, "it says that what is behind it was durable");
        demand(zero(in, at + 24 + len, end), in, at, "its padding is not zero");
        if (!*shown)
            show_segment(self);
        *shown = true;
        printf("  %8zu  #%u  ", at, records);
        apply(in, (unsigned)number(in, at + 20, 1), at + 24, len);
        chain = (uint32_t)number(in, at, 4);
        at = end;
    }
    if (next)
        demand(at == next->previous_end && chain == next->previous_chain, in, at,
               "the next segment says that the log goes on here");
    else
        *unfinished = judge_rest(self, at, records);
    return at;
}

static uint64_t read_snapshot(const char *dir, uint64_t *term)
{
    static uint64_t found[FILES_MAX];
    size_t count = numbered(dir, "snapshot-", found);
    char name[64];
    file in;
    if (count == 0)
        return 0;
    snprintf(name, sizeof name, "snapshot-%016llx", (unsigned long long)found[count - 1]);
    load(&in, dir, name);
    magic(&in, "trm-snap", 1);
    demand(number(&in, 52, 4) == crc32c(0, in.bytes, 52), &in, 0, "the checksum of the header");
    uint64_t config = number(&in, 12, 4), data = number(&in, 40, 8);
    demand(number(&in, 24, 8) == found[count - 1], &in, 24, "another number than in the name");
    demand(config <= 65536 && in.len == 56 + config + data, &in, 12, "the lengths");
    demand(number(&in, 48, 4) == crc32c(0, in.bytes + 56, in.len - 56), &in, 56, "the checksum");
    state.log_id = number(&in, 16, 8);
    *term = number(&in, 32, 8);
    snprintf(name, sizeof name, "%llu bytes of configuration, %llu of data", (unsigned long long)config,
             (unsigned long long)data);
    printf("snapshot of entry %llu, term %llu: %s\n", (unsigned long long)found[count - 1],
           (unsigned long long)*term, name);
    free(in.bytes);
    return found[count - 1];
}

static void begin_at(const segment *first)
{
    const file *in = &first->file;
    state.base = state.last = state.base_first = first->first_index - 1;
    state.term = number(in, 56, 8);
    state.vote = number(in, 64, 8);
    state.commit = number(in, 72, 8);
}

static void read_log(const char *dir)
{
    static uint64_t found[FILES_MAX];
    static segment segments[FILES_MAX];
    size_t count = numbered(dir, "segment-", found), first = count - 1, at = 0;
    uint64_t term = 0, covered = read_snapshot(dir, &term);
    file here = {{0}, NULL, 0};
    snprintf(here.path, sizeof here.path, "%s", dir);
    demand(count > 0, &here, 0, "there is no segment");
    for (size_t i = 0; i < count; i++)
        read_header(&segments[i], dir, found[i]);
    while (first > 0 && segments[first].first_index > covered + 1 && found[first - 1] + 1 == found[first])
        first--;
    demand(segments[first].first_index <= covered + 1, &here, 0, "a segment is missing");
    begin_at(&segments[first]);
    if (covered == 0)
        state.log_id = number(&segments[0].file, 16, 8);
    bool shown = false, unfinished = false;
    for (size_t i = first; i < count; i++) {
        demand(number(&segments[i].file, 16, 8) == state.log_id, &segments[i].file, 16, "of another log");
        demand(segments[i].first_index == state.last + 1, &segments[i].file, 40, "a gap between segments");
        shown = false;
        at = read_records(&segments[i], i + 1 < count ? &segments[i + 1] : NULL, &shown, &unfinished);
    }
    if (!shown)
        show_segment(&segments[count - 1]);
    printf("end at offset %zu of segment %llu%s", at, (unsigned long long)found[count - 1],
           unfinished ? ", behind it an unfinished write (left by a crash; the next open drops it)" : "");
    if (covered > 0) {
        uint64_t held = covered > state.base_first && covered <= state.last ? *term_of(&here, covered) : 0;
        if (covered != state.base && held != term) {
            printf("\nentries that the snapshot has made void (the next open says so in the log)");
            state.last = covered;
        }
        state.base = covered;
    }
    printf("\nlog %016llx: entries %llu to %llu, term %llu, commit %llu\n", (unsigned long long)state.log_id,
           (unsigned long long)state.base + 1, (unsigned long long)state.last, (unsigned long long)state.term,
           (unsigned long long)state.commit);
}

/* ---- Whose the next launch is -------------------------------------------------------------- */

static void read_owner(const char *dir)
{
    static uint64_t found[FILES_MAX];
    file in;
    load(&in, dir, "identity");
    magic(&in, "trm-pxid", 1);
    demand(in.len == 24 && number(&in, 20, 4) == crc32c(0, in.bytes, 20), &in, 20, "the checksum");
    uint64_t store = number(&in, 12, 8);
    free(in.bytes);
    size_t count = numbered(dir, "register-", found);
    for (size_t i = 0; i < count; i++) {
        char name[64];
        snprintf(name, sizeof name, "register-%016llx", (unsigned long long)found[i]);
        load(&in, dir, name);
        magic(&in, "trm-pxrg", 1);
        uint64_t len = number(&in, 60, 4);
        demand(number(&in, 12, 8) == store, &in, 12, "of another store");
        demand(number(&in, 20, 8) == found[i], &in, 20, "another number than in the name");
        demand(len <= 1024 && in.len == 68 + len, &in, 60, "the length of the value");
        demand(number(&in, 64 + len, 4) == crc32c(0, in.bytes, 64 + len), &in, 64 + len, "the checksum");
        demand(number(&in, 44, 8) <= number(&in, 28, 8), &in, 44, "a ballot above the promised one");
        fprintf(stderr, "register %llu: round %llu of node %llu: %.*s\n", (unsigned long long)found[i],
                (unsigned long long)number(&in, 44, 8), (unsigned long long)number(&in, 52, 8), (int)len,
                (const char *)in.bytes + 64);
        free(in.bytes);
    }
}

static void read_members(const file *in, size_t at, size_t end)
{
    demand(number(in, at, 1) == 1, in, at, "another version of the membership");
    at++;
    uint64_t count = varint(in, &at), before = 0;
    for (uint64_t i = 0; i < count; i++, at += 9) {
        uint64_t node = number(in, at, 8);
        demand((i == 0 || node > before) && number(in, at + 8, 1) <= 1, in, at, "a member");
        if (number(in, at + 8, 1) == 1)
            printf(" %llu", (unsigned long long)node);
        before = node;
    }
    printf("\n");
    demand(at == end, in, at, "the membership does not end where it should");
}

static void read_epoch(const char *path)
{
    file in;
    load(&in, "", path);
    demand(number(&in, 0, 4) == 0x454d5254 && memcmp(in.bytes, "TRME", 4) == 0, &in, 0, "another magic");
    demand(number(&in, 4, 4) == 1, &in, 4, "another version");
    size_t at = 20;
    uint64_t len = varint(&in, &at);
    demand(at + len + 4 == in.len, &in, 20, "the length of the membership");
    demand(number(&in, at + len, 4) == crc32c(0, in.bytes, at + len), &in, at + len, "the checksum");
    printf("epoch %llu, %llu ranks, voters", (unsigned long long)number(&in, 8, 8),
           (unsigned long long)number(&in, 16, 4));
    read_members(&in, at, at + len);
    free(in.bytes);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--epoch") == 0) {
        read_epoch(argv[2]);
        return 0;
    }
    if (argc != 2) {
        fprintf(stderr, "usage: read_log LOG | read_log --epoch FILE\n");
        return 2;
    }
    read_log(argv[1]);
    char owner[4096];
    snprintf(owner, sizeof owner, "%s/owner", argv[1]);
    DIR *there = opendir(owner);
    if (there) {
        closedir(there);
        read_owner(owner);
    }
    return 0;
}
