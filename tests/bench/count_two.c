/* What two cores can: two processes that do nothing but count the words of one file, written
 * by hand for this one purpose. The word count of the framework is measured against it.
 *
 *   count_two FILE OUTPUT     writes "word TAB count" lines, sorted by word (unsigned bytes)
 *
 * A word is what stands between white space (space, \t \n \v \f \r). Each process reads half
 * of the file in pieces that stay in the cache, finds white space 64 bytes at a time, and
 * counts into an open table whose keys up to 16 bytes lie in the slot; slots are fetched a
 * batch ahead. Each sorts its words; the child leaves them in a memory file; the parent
 * merges the two lists as it writes. Nothing is checked that a framework has to: this is a
 * yardstick.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define PIECE_BYTES (256u << 10)
#define PAD_BYTES 64u /* read behind the text, never used */
#define SLOTS_FIRST (1u << 16)
#define HUGE_PAGE_BYTES (2u << 20)
#define KEY_BYTES 16u
#define BATCH 64u
#define ALWAYS_INLINE static inline __attribute__((always_inline))

static void fail(const char *what)
{
    fprintf(stderr, "count_two: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void *must(void *memory)
{
    if (!memory)
        fail("no memory");
    return memory;
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- The table ----------------------------------------------------------------------- */

typedef struct slot {
    uint64_t low, high; /* the word, zeros behind; high is a place in `texts` for a long one */
    uint64_t count;     /* 0: free */
    uint32_t len, hash;
} slot;

typedef struct table {
    slot *slots;
    uint32_t mask, shift, used;
    uint64_t words;
    char *texts; /* of long words */
    size_t texts_len, texts_room;
} table;

typedef struct word {
    const char *at;
    uint64_t low, high;
    uint32_t len, hash;
} word;

static void take_slots(table *self, uint32_t slots)
{
    size_t bytes = slots * sizeof(slot);
    self->slots = must(aligned_alloc(HUGE_PAGE_BYTES, bytes));
    (void)madvise(self->slots, bytes, MADV_HUGEPAGE); /* most of the time is page walks without */
    memset(self->slots, 0, bytes);
    self->mask = slots - 1;
    self->shift = (uint32_t)__builtin_clz(slots) + 1;
}

static void grow(table *self)
{
    slot *old = self->slots;
    uint32_t slots = self->mask + 1;
    take_slots(self, slots * 2);
    for (uint32_t i = 0; i < slots; i++) {
        if (!old[i].count)
            continue;
        uint32_t at = old[i].hash >> self->shift;
        while (self->slots[at].count)
            at = (at + 1) & self->mask;
        self->slots[at] = old[i];
    }
    free(old);
}

static void insert(table *self, uint32_t at, const word *w)
{
    self->slots[at] = (slot){w->low, w->high, 1, w->len, w->hash};
    if (w->len > KEY_BYTES) {
        while (self->texts_len + w->len > self->texts_room) {
            self->texts_room = self->texts_room * 2 + 65536;
            self->texts = must(realloc(self->texts, self->texts_room));
        }
        memcpy(self->texts + self->texts_len, w->at, w->len);
        self->slots[at].high = self->texts_len;
        self->texts_len += w->len;
    }
    if (++self->used > self->mask / 2)
        grow(self);
}

ALWAYS_INLINE void count_word(table *self, const word *w)
{
    uint32_t at = w->hash >> self->shift;
    for (;; at = (at + 1) & self->mask) {
        slot *s = &self->slots[at];
        if (s->low == w->low && s->len == w->len && s->hash == w->hash && s->count &&
            (w->len <= KEY_BYTES ? s->high == w->high : memcmp(self->texts + s->high, w->at, w->len) == 0)) {
            s->count++;
            return;
        }
        if (!s->count) {
            insert(self, at, w);
            return;
        }
    }
}

static __attribute__((noinline)) uint32_t hash_long(const char *at, uint32_t len)
{
    uint64_t h = len;
    for (uint32_t i = 0; i < len; i++)
        h = (h ^ (uint8_t)at[i]) * 0x9fb21c651e98df25ull;
    return (uint32_t)(h >> 32);
}

static const uint64_t masks[KEY_BYTES + 1][2] = {
#define BITS(n) ((n) >= 8 ? UINT64_MAX : ((uint64_t)1 << ((n)&7) * 8) - 1)
#define ROW(n)                                                                                               \
    {                                                                                                        \
        BITS(n), BITS((n) > 8 ? (n)-8 : 0)                                                                   \
    }
    ROW(0), ROW(1),  ROW(2),  ROW(3),  ROW(4),  ROW(5),  ROW(6),  ROW(7), ROW(8),
    ROW(9), ROW(10), ROW(11), ROW(12), ROW(13), ROW(14), ROW(15), ROW(16)};

ALWAYS_INLINE void take_word(const table *self, word *out, const char *at, uint32_t len)
{
    out->at = at;
    out->len = len;
    memcpy(&out->low, at, 8);
    memcpy(&out->high, at + 8, 8);
    if (__builtin_expect(len <= KEY_BYTES, 1)) {
        out->low &= masks[len][0];
        out->high &= masks[len][1];
        uint64_t h = (out->low ^ (out->high * 0x9e3779b97f4a7c15ull)) * 0x9fb21c651e98df25ull;
        out->hash = (uint32_t)(h >> 32);
    } else {
        out->hash = hash_long(at, len);
    }
    __builtin_prefetch(&self->slots[out->hash >> self->shift], 1);
}

/* ---- Finding words ------------------------------------------------------------------- */

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

ALWAYS_INLINE uint64_t spaces_plain(const char *at)
{
    uint64_t bits = 0;
    for (unsigned i = 0; i < 64; i++)
        bits |= (uint64_t)is_space(at[i]) << i;
    return bits;
}

#if defined(__x86_64__)
/* The low four bits of white space are all different: they choose what a byte must be. */
__attribute__((target("avx2,bmi"))) ALWAYS_INLINE uint64_t spaces_avx2(const char *at)
{
    const __m256i wanted = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(' ', 0, 0, 0, 0, 0, 0, 0, 0, '\t', '\n', '\v', '\f', '\r', 0, 0));
    __m256i a = _mm256_loadu_si256((const __m256i *)at);
    __m256i b = _mm256_loadu_si256((const __m256i *)(at + 32));
    uint32_t x = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_shuffle_epi8(wanted, a), a));
    uint32_t y = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_shuffle_epi8(wanted, b), b));
    return (uint64_t)y << 32 | x;
}
#endif

/* Counts the words of [at, end); what is before and at `end` is white space. */
#define COUNT_WORDS(spaces)                                                                                  \
    word batch[BATCH + 64];                                                                                  \
    unsigned n = 0;                                                                                          \
    const char *begin = at;                                                                                  \
    for (; at <= end; at += 64) {                                                                            \
        uint64_t bits = spaces(at);                                                                          \
        if (end - at < 63)                                                                                   \
            bits &= ((uint64_t)2 << (end - at)) - 1;                                                         \
        for (; bits; bits &= bits - 1) {                                                                     \
            const char *space = at + __builtin_ctzll(bits);                                                  \
            if (space > begin)                                                                               \
                take_word(self, &batch[n++], begin, (uint32_t)(space - begin));                              \
            begin = space + 1;                                                                               \
        }                                                                                                    \
        if (n >= BATCH) {                                                                                    \
            for (unsigned i = 0; i < n; i++)                                                                 \
                count_word(self, &batch[i]);                                                                 \
            self->words += n;                                                                                \
            n = 0;                                                                                           \
        }                                                                                                    \
    }                                                                                                        \
    for (unsigned i = 0; i < n; i++)                                                                         \
        count_word(self, &batch[i]);                                                                         \
    self->words += n

static void count_plain(table *self, const char *at, const char *end)
{
    COUNT_WORDS(spaces_plain);
}

#if defined(__x86_64__)
__attribute__((target("avx2,bmi"))) static void count_avx2(table *self, const char *at, const char *end)
{
    COUNT_WORDS(spaces_avx2);
}
#endif

typedef void count_fn(table *self, const char *at, const char *end);

static count_fn *choose(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi"))
        return count_avx2;
#endif
    return count_plain;
}

/* ---- One process's half ---------------------------------------------------------------- */

static size_t read_at(int fd, char *out, size_t len, uint64_t offset)
{
    size_t done = 0;
    while (done < len) {
        ssize_t now = pread(fd, out + done, len - done, (off_t)(offset + done));
        if (now < 0 && errno != EINTR)
            fail("cannot read");
        if (now == 0)
            break;
        done += now > 0 ? (size_t)now : 0;
    }
    return done;
}

/* The first place behind white space from `at` on. */
static uint64_t behind_space(int fd, uint64_t at)
{
    char some[4096];
    for (size_t got; (got = read_at(fd, some, sizeof some, at)) > 0; at += got)
        for (size_t i = 0; i < got; i++)
            if (is_space(some[i]))
                return at + i + 1;
    return at;
}

/* [from, to) begins and ends with whole words. */
static void count_part(table *self, int fd, uint64_t from, uint64_t to)
{
    count_fn *count = choose();
    size_t room = PIECE_BYTES, have = 0;
    char *buffer = must(malloc(room + PAD_BYTES * 2));
    while (from < to) {
        size_t want = to - from < room - have ? (size_t)(to - from) : room - have;
        if (read_at(fd, buffer + have, want, from) < want)
            fail("the file is shorter than it was");
        from += want;
        size_t end = have + want, last = end;
        if (from == to)
            buffer[last++] = ' ';
        while (last > 0 && !is_space(buffer[last - 1]))
            last--;
        if (last > 0)
            count(self, buffer, buffer + last - 1);
        have = from == to ? 0 : end - last;
        memmove(buffer, buffer + last, have);
        if (have == room)
            buffer = must(realloc(buffer, (room *= 2) + PAD_BYTES * 2));
    }
    free(buffer);
}

/* ---- Sorted lists ------------------------------------------------------------------------ */

typedef struct item {
    uint64_t first, second; /* 16 bytes, as numbers that compare as bytes do */
    uint64_t count;
    uint64_t text; /* of a long word */
    uint64_t len;
} item;

static int compare(const item *a, const char *a_texts, const item *b, const char *b_texts)
{
    if (a->first != b->first)
        return a->first < b->first ? -1 : 1;
    if (a->second != b->second)
        return a->second < b->second ? -1 : 1;
    if (a->len > KEY_BYTES && b->len > KEY_BYTES) {
        size_t len = a->len < b->len ? a->len : b->len;
        int order = memcmp(a_texts + a->text, b_texts + b->text, len);
        if (order)
            return order;
    }
    return a->len < b->len ? -1 : a->len > b->len;
}

static void insertion(item *items, size_t n, const char *texts)
{
    for (size_t i = 1; i < n; i++) {
        item moving = items[i];
        size_t j = i;
        for (; j > 0 && compare(&moving, texts, &items[j - 1], texts) < 0; j--)
            items[j] = items[j - 1];
        items[j] = moving;
    }
}

static int by_word(const void *a, const void *b, void *texts)
{
    return compare(a, texts, b, texts);
}

/* By one byte after the other; what 16 bytes do not tell apart is left to qsort. */
static void sort_items(item *items, item *scratch, size_t n, unsigned byte, const char *texts)
{
    if (n <= 24) {
        insertion(items, n, texts);
        return;
    }
    if (byte == KEY_BYTES) {
        qsort_r(items, n, sizeof *items, by_word, (void *)texts);
        return;
    }
    size_t at[257] = {0};
    unsigned shift = 56 - byte % 8 * 8;
#define DIGIT(i) ((byte < 8 ? items[i].first : items[i].second) >> shift & 255)
    for (size_t i = 0; i < n; i++)
        at[DIGIT(i) + 1]++;
    for (unsigned d = 0; d < 256; d++)
        at[d + 1] += at[d];
    for (size_t i = 0; i < n; i++)
        scratch[at[DIGIT(i)]++] = items[i];
    memcpy(items, scratch, n * sizeof *items);
    for (size_t d = 0, from = 0; d < 256; from = at[d++])
        sort_items(items + from, scratch + from, at[d] - from, byte + 1, texts);
}

static item *list_items(const table *self)
{
    item *items = must(malloc((self->used + 1) * 2 * sizeof *items));
    size_t n = 0;
    for (uint32_t i = 0; i <= self->mask; i++) {
        const slot *s = &self->slots[i];
        if (!s->count)
            continue;
        uint64_t second = s->high;
        if (s->len > KEY_BYTES)
            memcpy(&second, self->texts + s->high + 8, 8);
        items[n++] = (item){__builtin_bswap64(s->low), __builtin_bswap64(second), s->count, s->high, s->len};
    }
    sort_items(items, items + n, n, 0, self->texts);
    return items;
}

/* ---- Together ------------------------------------------------------------------------------ */

typedef struct found {
    uint64_t words, items, texts;
} found;

static void write_all(int fd, const void *bytes, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t now = write(fd, (const char *)bytes + done, len - done);
        if (now < 0 && errno != EINTR)
            fail("cannot write");
        done += now > 0 ? (size_t)now : 0;
    }
}

static void leave(int memory, const table *self, const item *items)
{
    found head = {self->words, self->used, self->texts_len};
    write_all(memory, &head, sizeof head);
    write_all(memory, items, self->used * sizeof *items);
    write_all(memory, self->texts, self->texts_len);
}

typedef struct output {
    int fd;
    size_t len;
    char bytes[1u << 20];
} output;

static void put(output *out, const item *i, const char *texts, uint64_t count)
{
    if (out->len + i->len + 32 > sizeof out->bytes) {
        write_all(out->fd, out->bytes, out->len);
        out->len = 0;
    }
    char *at = out->bytes + out->len;
    if (i->len > KEY_BYTES && i->len + 32 > sizeof out->bytes) {
        write_all(out->fd, texts + i->text, i->len);
    } else if (i->len > KEY_BYTES) {
        memcpy(at, texts + i->text, i->len);
        at += i->len;
    } else {
        uint64_t halves[2] = {__builtin_bswap64(i->first), __builtin_bswap64(i->second)};
        memcpy(at, halves, KEY_BYTES);
        at += i->len;
    }
    char digits[20];
    unsigned n = 0;
    do
        digits[n++] = (char)('0' + count % 10);
    while (count /= 10);
    *at++ = '\t';
    while (n)
        *at++ = digits[--n];
    *at++ = '\n';
    out->len = (size_t)(at - out->bytes);
}

static uint64_t merge(output *out, const item *a, size_t a_n, const char *a_texts, const item *b, size_t b_n,
                      const char *b_texts)
{
    uint64_t different = 0;
    for (size_t i = 0, j = 0; i < a_n || j < b_n; different++) {
        int order = i == a_n ? 1 : j == b_n ? -1 : compare(&a[i], a_texts, &b[j], b_texts);
        uint64_t count = (order <= 0 ? a[i].count : 0) + (order >= 0 ? b[j].count : 0);
        if (order <= 0)
            put(out, &a[i], a_texts, count);
        else
            put(out, &b[j], b_texts, count);
        i += order <= 0;
        j += order >= 0;
    }
    write_all(out->fd, out->bytes, out->len);
    return different;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: count_two FILE OUTPUT\n");
        return 2;
    }
    double begin_s = now_s();
    int fd = open(argv[1], O_RDONLY | O_CLOEXEC), memory = memfd_create("count_two", MFD_CLOEXEC);
    struct stat about;
    if (fd < 0 || memory < 0 || fstat(fd, &about) != 0)
        fail(argv[1]);
    uint64_t size = (uint64_t)about.st_size, middle = behind_space(fd, size / 2);
    pid_t child = fork();
    if (child < 0)
        fail("cannot fork");
    table t = {0};
    take_slots(&t, SLOTS_FIRST);
    count_part(&t, fd, child ? 0 : middle, child ? middle : size);
    item *items = list_items(&t);
    if (child == 0) {
        leave(memory, &t, items);
        _exit(0);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status != 0)
        return 1;
    off_t bytes = lseek(memory, 0, SEEK_END);
    const found *other = mmap(NULL, (size_t)bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, memory, 0);
    if (other == MAP_FAILED)
        fail("cannot map");
    const item *other_items = (const item *)(other + 1);
    static output out;
    out.fd = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (out.fd < 0)
        fail(argv[2]);
    uint64_t different = merge(&out, items, t.used, t.texts, other_items, other->items,
                               (const char *)(other_items + other->items));
    if (close(out.fd) != 0)
        fail(argv[2]);
    free(items);
    free(t.slots);
    free(t.texts);
    double took_s = now_s() - begin_s;
    fprintf(stderr, "count_two: %llu bytes, %llu words, %llu different, %.3f s, %.0f MB/s\n",
            (unsigned long long)size, (unsigned long long)(t.words + other->words),
            (unsigned long long)different, took_s, (double)size / took_s / 1e6);
    return 0;
}
