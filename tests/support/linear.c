/* See linear.h. One register is searched like this: calls and answers lie in a list in
 * the order of time. The search takes the first call that fits the register's value out
 * of the list, with its answer, and begins anew at the front. When it comes to an answer
 * that is still there, its operation should have been taken before: the last one that was
 * taken is put back, and the search goes on behind it. */
#include "tests/support/linear.h"

#include <stdlib.h>
#include <string.h>

#define WORDS (TRM_LINEAR_OPS_MAX / 64)

typedef struct moment {
    uint64_t at;
    uint32_t op;     /* in the register's own list */
    uint32_t match;  /* a call's answer */
    uint32_t before; /* neighbours; 0 is the head */
    uint32_t after;
    bool answer;
} moment;

/* Which operations were taken, and what the register holds then. */
typedef struct configuration {
    uint64_t taken[WORDS];
    uint64_t value;
} configuration;

typedef struct search {
    const trm_linear_op *ops;
    uint32_t chosen[TRM_LINEAR_OPS_MAX]; /* of one register: indices in ops */
    size_t chosen_len;
    moment moments[2 * TRM_LINEAR_OPS_MAX + 1]; /* [0] is the head, the end is 0 again */
    configuration now;
    struct {
        uint32_t call;
        uint64_t value; /* before it */
    } taken[TRM_LINEAR_OPS_MAX];
    size_t taken_len;
    size_t deepest; /* most that were ever taken, and the answer that stopped it */
    uint32_t stopped_by;
    configuration *seen; /* [slots], open addressing; used: in `used` */
    uint8_t *used;
    size_t slots;
    size_t seen_len;
} search;

static void *must(void *memory)
{
    if (!memory)
        abort();
    return memory;
}

/* ---- Configurations that were reached. ---- */

static uint64_t hash_of(const configuration *what)
{
    uint64_t hash = what->value;
    for (size_t i = 0; i < WORDS; i++) {
        hash = (hash ^ what->taken[i]) * 0x9e3779b97f4a7c15ull;
        hash ^= hash >> 29;
    }
    return hash;
}

static size_t slot_of(const search *self, const configuration *what)
{
    size_t at = hash_of(what) & (self->slots - 1);
    while (self->used[at] && memcmp(&self->seen[at], what, sizeof *what) != 0)
        at = (at + 1) & (self->slots - 1);
    return at;
}

static void seen_grow(search *self)
{
    search old = {.seen = self->seen, .used = self->used, .slots = self->slots};
    self->slots = old.slots ? 2 * old.slots : 256;
    self->seen = must(malloc(self->slots * sizeof *self->seen));
    self->used = must(calloc(self->slots, 1));
    for (size_t i = 0; i < old.slots; i++)
        if (old.used[i]) {
            size_t at = slot_of(self, &old.seen[i]);
            self->seen[at] = old.seen[i];
            self->used[at] = 1;
        }
    free(old.seen);
    free(old.used);
}

/* Adds the configuration that `self->now` is; false: it was there. */
static bool seen_add(search *self, const configuration *what)
{
    if (2 * (self->seen_len + 1) > self->slots)
        seen_grow(self);
    size_t at = slot_of(self, what);
    if (self->used[at])
        return false;
    self->seen[at] = *what;
    self->used[at] = 1;
    self->seen_len++;
    return true;
}

static void seen_clear(search *self)
{
    if (self->seen_len > 0)
        memset(self->used, 0, self->slots);
    self->seen_len = 0;
}

/* ---- The list of one register. ---- */

static int by_time(const void *a, const void *b)
{
    const moment *x = a, *y = b;
    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    return (int)x->op - (int)y->op; /* only answers that never came are equal */
}

static bool was_read(const trm_linear_op *ops, size_t ops_len, const trm_linear_op *write)
{
    for (size_t i = 0; i < ops_len; i++)
        if (!ops[i].write && ops[i].end != TRM_LINEAR_OPEN && ops[i].key == write->key &&
            ops[i].value == write->value)
            return true;
    return false;
}

/* An unanswered write that nobody has read can always be put at the end: it says nothing. */
static bool counts(const trm_linear_op *ops, size_t ops_len, const trm_linear_op *op)
{
    return op->end != TRM_LINEAR_OPEN || (op->write && was_read(ops, ops_len, op));
}

static bool choose(search *self, size_t ops_len, uint64_t key)
{
    self->chosen_len = 0;
    for (size_t i = 0; i < ops_len; i++) {
        if (self->ops[i].key != key || !counts(self->ops, ops_len, &self->ops[i]))
            continue;
        if (self->chosen_len == TRM_LINEAR_OPS_MAX)
            return false;
        self->chosen[self->chosen_len++] = (uint32_t)i;
    }
    return true;
}

static void lay_out(search *self)
{
    size_t len = 1;
    for (size_t i = 0; i < self->chosen_len; i++) {
        const trm_linear_op *op = &self->ops[self->chosen[i]];
        self->moments[len++] = (moment){.at = op->begin, .op = (uint32_t)i};
        self->moments[len++] = (moment){.at = op->end, .op = (uint32_t)i, .answer = true};
    }
    qsort(self->moments + 1, len - 1, sizeof *self->moments, by_time);
    uint32_t call_of[TRM_LINEAR_OPS_MAX];
    for (uint32_t i = 0; i < len; i++) {
        moment *it = &self->moments[i];
        it->before = i ? i - 1 : (uint32_t)len - 1;
        it->after = i + 1 < len ? i + 1 : 0;
        if (i > 0 && !it->answer)
            call_of[it->op] = i;
        else if (i > 0)
            self->moments[call_of[it->op]].match = i;
    }
}

static void unlink_moment(search *self, uint32_t at)
{
    const moment *it = &self->moments[at];
    self->moments[it->before].after = it->after;
    self->moments[it->after].before = it->before;
}

static void relink_moment(search *self, uint32_t at)
{
    const moment *it = &self->moments[at];
    self->moments[it->before].after = at;
    self->moments[it->after].before = at;
}

/* ---- The search. ---- */

/* Takes the operation of the call at `at` if it fits and leads to something new. */
static bool take(search *self, uint32_t at)
{
    uint32_t number = self->moments[at].op;
    const trm_linear_op *op = &self->ops[self->chosen[number]];
    if (!op->write && op->value != self->now.value)
        return false;
    configuration next = self->now;
    next.taken[number / 64] |= 1ull << (number % 64);
    next.value = op->value;
    if (!seen_add(self, &next))
        return false;
    self->taken[self->taken_len].call = at;
    self->taken[self->taken_len++].value = self->now.value;
    self->now = next;
    unlink_moment(self, at);
    unlink_moment(self, self->moments[at].match);
    return true;
}

/* Puts the last one back; returns where the search goes on. */
static uint32_t put_back(search *self)
{
    uint32_t call = self->taken[--self->taken_len].call;
    uint32_t number = self->moments[call].op;
    self->now.taken[number / 64] &= ~(1ull << (number % 64));
    self->now.value = self->taken[self->taken_len].value;
    relink_moment(self, self->moments[call].match);
    relink_moment(self, call);
    return self->moments[call].after;
}

static trm_linear_verdict search_register(search *self, uint64_t initial)
{
    self->now = (configuration){.value = initial};
    self->taken_len = self->deepest = 0;
    self->stopped_by = 0;
    seen_clear(self);
    uint32_t at = self->moments[0].after;
    while (self->moments[0].after != 0) {
        if (self->seen_len == TRM_LINEAR_CONFIGURATIONS_MAX)
            return TRM_LINEAR_TOO_LARGE;
        if (!self->moments[at].answer) {
            at = take(self, at) ? self->moments[0].after : self->moments[at].after;
            continue;
        }
        if (self->stopped_by == 0 || self->taken_len > self->deepest) {
            self->deepest = self->taken_len;
            self->stopped_by = at;
        }
        if (self->taken_len == 0)
            return TRM_LINEAR_VIOLATION;
        at = put_back(self);
    }
    return TRM_LINEAR_OK;
}

static bool key_was_before(const trm_linear_op *ops, size_t at)
{
    for (size_t i = 0; i < at; i++)
        if (ops[i].key == ops[at].key)
            return true;
    return false;
}

trm_linear_verdict trm_linear_check(const trm_linear_op *ops, size_t ops_len, uint64_t initial,
                                    size_t *culprit)
{
    search *self = must(calloc(1, sizeof *self));
    self->ops = ops;
    trm_linear_verdict verdict = TRM_LINEAR_OK;
    for (size_t i = 0; i < ops_len && verdict != TRM_LINEAR_VIOLATION; i++) {
        if (key_was_before(ops, i))
            continue;
        trm_linear_verdict one = TRM_LINEAR_TOO_LARGE;
        if (choose(self, ops_len, ops[i].key)) {
            lay_out(self);
            one = search_register(self, initial);
        }
        if (one != TRM_LINEAR_OK)
            verdict = one;
        if (one == TRM_LINEAR_VIOLATION && culprit)
            *culprit = self->chosen[self->moments[self->stopped_by].op];
    }
    free(self->seen);
    free(self->used);
    free(self);
    return verdict;
}
