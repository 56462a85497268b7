/* See shuffle.h. */
#include "workers/shuffle.h"

#include "jobs/placement.h"
#include "runtime/clock.h"
#include "runtime/diag.h"
#include "workers/attempt.h"
#include "workers/run_reader.h"
#include "workers/scratch.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define NOWHERE UINT32_MAX     /* known.rank: not committed, as far as is known */
#define EMPTY (UINT32_MAX - 1) /* … committed, and it emitted nothing */
#define UNKNOWN_HOST UINT32_MAX
#define RANGES_MAX 4096u /* reduces of other ranks' partitions at once */

typedef enum input_state {
    UNKNOWN = 0,
    MISSING, /* LOST is told; until it is known where it is */
    WANTED,
    HERE,
    READY
} input_state;

typedef struct known {
    uint32_t attempt, rank;
} known;

/* What a range has of one map task. */
typedef struct input {
    trm_segment *segments; /* READY: those of the range */
    uint32_t count;
    uint8_t state;
    uint8_t fetched;    /* HERE, READY: an extract of the own store, not a run in place */
    uint8_t fetch_only; /* it cannot be opened in place */
    uint8_t tries;      /* that failed */
} input;

typedef struct range {
    uint32_t first, last;
    uint32_t users; /* reduces that are ordered */
    uint32_t ready;
    input *inputs;
    uint32_t *here; /* tasks that became HERE, in that order; some may be something else by now */
    uint32_t here_at, here_count, here_room;
    trm_status failure;
    trm_err why;
    struct range *next;
} range;

typedef struct again { /* to be looked at again */
    uint32_t first, last, task;
    uint64_t due_ns;
} again;

struct trm_shuffle {
    trm_fs *fs;
    trm_sender *sender;
    const char *run_store;
    trm_fetcher *fetcher;
    uint32_t rank, ranks, tasks, partitions;
    uint32_t *host; /* by rank */
    char **store;   /* by rank; NULL: cannot be opened here */
    known *known;   /* by map task */
    range *ranges;  /* the one at home first */
    uint32_t ranges_count;
    again *later;
    uint32_t later_count, later_room;
    trm_output_at *lost;
    uint32_t lost_at, lost_count, lost_room;
    trm_reduce_list list;
    uint64_t now_ns;
};

/* ---- Making --------------------------------------------------------------------------------- */

static trm_status take_peers(trm_shuffle *self, const trm_setup *setup)
{
    for (uint32_t i = 0; i < setup->peers_count && i < self->ranks; i++) {
        const trm_peer *peer = &setup->peers[i];
        self->host[i] = peer->host;
        if (self->store[i] && strcmp(self->store[i], peer->run_store) == 0)
            continue;
        free(self->store[i]);
        self->store[i] = peer->run_store[0] == '/' ? strdup(peer->run_store) : NULL;
        if (peer->run_store[0] == '/' && !self->store[i])
            return TRM_ENOMEM;
    }
    return TRM_OK;
}

static range *range_make(trm_shuffle *self, uint32_t first, uint32_t last)
{
    range *made = calloc(1, sizeof *made);
    if (!made)
        return NULL;
    *made = (range){.first = first, .last = last};
    made->inputs = calloc(self->tasks ? self->tasks : 1, sizeof *made->inputs);
    if (made->inputs)
        return made;
    free(made);
    return NULL;
}

trm_status trm_shuffle_create(trm_shuffle **out, trm_fs *fs, trm_sender *sender, const char *run_store,
                              const trm_setup *setup, trm_err *err)
{
    trm_shuffle *self = calloc(1, sizeof *self);
    if (!self)
        return trm_err_set(err, TRM_ENOMEM, "no memory for the shuffle");
    const trm_transport *transport = sender->transport;
    *self = (trm_shuffle){.fs = fs,
                          .sender = sender,
                          .run_store = run_store,
                          .rank = transport->rank,
                          .ranks = transport->ranks,
                          .tasks = setup->tasks,
                          .partitions = setup->partitions};
    self->host = malloc(self->ranks * sizeof *self->host);
    self->store = calloc(self->ranks, sizeof *self->store);
    bool shuffles = setup->partitions > 0;
    self->known = shuffles ? malloc(self->tasks * sizeof *self->known + 1) : NULL;
    trm_status status = self->host && self->store && (self->known || !shuffles) ? TRM_OK : TRM_ENOMEM;
    for (uint32_t i = 0; status == TRM_OK && i < self->ranks; i++)
        self->host[i] = UNKNOWN_HOST;
    for (uint32_t i = 0; status == TRM_OK && shuffles && i < self->tasks; i++)
        self->known[i] = (known){.rank = NOWHERE};
    uint32_t first = trm_partition_home_begin(self->rank, self->partitions, self->ranks);
    uint32_t last = trm_partition_home_begin(self->rank + 1, self->partitions, self->ranks);
    if (status == TRM_OK && shuffles && first < last && !(self->ranges = range_make(self, first, last)))
        status = TRM_ENOMEM;
    if (self->ranges)
        self->ranges->users = 1; /* it stays */
    if (status == TRM_OK)
        status = take_peers(self, setup);
    if (status == TRM_OK)
        status = trm_fetcher_create(&self->fetcher, fs, sender, run_store, self->ranks, 'f', err);
    if (status != TRM_OK) {
        trm_shuffle_destroy(self);
        return trm_err_set(err, status, "no memory for the shuffle of %u map tasks", setup->tasks);
    }
    *out = self;
    return TRM_OK;
}

static void range_free(trm_shuffle *self, range *gone)
{
    for (uint32_t i = 0; i < self->tasks; i++)
        free(gone->inputs[i].segments);
    free(gone->inputs);
    free(gone->here);
    free(gone);
}

void trm_shuffle_destroy(trm_shuffle *self)
{
    if (!self)
        return;
    while (self->ranges) {
        range *next = self->ranges->next;
        range_free(self, self->ranges);
        self->ranges = next;
    }
    trm_fetcher_destroy(self->fetcher);
    for (uint32_t i = 0; self->store && i < self->ranks; i++)
        free(self->store[i]);
    free(self->store);
    free(self->host);
    free(self->known);
    free(self->later);
    free(self->lost);
    trm_reduce_list_close(&self->list);
    free(self);
}

/* ---- What is told and tried again ---------------------------------------------------------------- */

/* Without memory for it nothing is told or tried again here; a master that hears of no progress
 * takes the task from this rank in the end. */
static bool room_for_one(void **items, uint32_t *room, uint32_t count, size_t item_bytes)
{
    if (count < *room)
        return true;
    uint32_t more = *room ? *room * 2 : 64;
    void *grown = realloc(*items, more * item_bytes);
    if (!grown)
        return false;
    *items = grown;
    *room = more;
    return true;
}

static void look_again(trm_shuffle *self, const range *of, uint32_t task, uint64_t after_ms)
{
    if (!room_for_one((void **)&self->later, &self->later_room, self->later_count, sizeof *self->later))
        return;
    self->later[self->later_count++] = (again){.first = of->first,
                                               .last = of->last,
                                               .task = task,
                                               .due_ns = self->now_ns + after_ms * TRM_NS_PER_MS};
}

static void tell_lost(trm_shuffle *self, uint32_t task)
{
    const known *at = &self->known[task];
    if (self->lost_at == self->lost_count)
        self->lost_at = self->lost_count = 0;
    for (uint32_t i = self->lost_at; i < self->lost_count; i++)
        if (self->lost[i].task == task && self->lost[i].attempt == at->attempt &&
            self->lost[i].rank == at->rank)
            return;
    if (room_for_one((void **)&self->lost, &self->lost_room, self->lost_count, sizeof *self->lost))
        self->lost[self->lost_count++] =
            (trm_output_at){.task = task, .attempt = at->attempt, .rank = at->rank};
}

bool trm_shuffle_lost(trm_shuffle *self, trm_output_at *out)
{
    if (self->lost_at == self->lost_count)
        return false;
    *out = self->lost[self->lost_at++];
    return true;
}

/* ---- An input's way --------------------------------------------------------------------------------- */

static trm_extract_id extract_of(const trm_shuffle *self, const range *of, uint32_t task, uint32_t attempt)
{
    return (trm_extract_id){.task = task, .attempt = attempt, .first = of->first, .last = of->last};
}

/* Takes away what the range has of a task, made by `attempt`. */
static void clear(trm_shuffle *self, range *of, uint32_t task, uint32_t attempt)
{
    input *in = &of->inputs[task];
    if (in->state == READY)
        of->ready--;
    free(in->segments);
    in->segments = NULL;
    in->count = 0;
    if (in->state == WANTED || in->fetched) {
        trm_extract_id id = extract_of(self, of, task, attempt);
        trm_fetcher_forget(self->fetcher, &id);
    }
    in->fetched = 0;
    in->state = UNKNOWN;
}

static void lose(trm_shuffle *self, range *of, uint32_t task, const char *why)
{
    const known *at = &self->known[task];
    trm_debug("the output of map task %u, attempt %u, on rank %u is lost: %s", task, at->attempt, at->rank,
              why);
    clear(self, of, task, at->attempt);
    of->inputs[task].state = MISSING;
    tell_lost(self, task);
    look_again(self, of, task, TRM_SHUFFLE_LOST_MS);
}

static void add_here(trm_shuffle *self, range *of, uint32_t task, bool fetched)
{
    if (of->here_at == of->here_count)
        of->here_at = of->here_count = 0;
    of->inputs[task].fetched = fetched;
    if (room_for_one((void **)&of->here, &of->here_room, of->here_count, sizeof *of->here)) {
        of->here[of->here_count++] = task;
        of->inputs[task].state = HERE;
    } else {
        of->inputs[task].state = UNKNOWN;
        look_again(self, of, task, TRM_SHUFFLE_AGAIN_MS);
    }
}

static void add_ready(range *of, uint32_t task)
{
    of->inputs[task].state = READY;
    of->ready++;
}

static bool is_near(const trm_shuffle *self, uint32_t rank)
{
    if (rank == self->rank)
        return true;
    return self->store[rank] && self->host[rank] != UNKNOWN_HOST &&
           self->host[rank] == self->host[self->rank];
}

/* On its way, from where it is known to be; it is UNKNOWN or MISSING. */
static void place(trm_shuffle *self, range *of, uint32_t task)
{
    const known *at = &self->known[task];
    input *in = &of->inputs[task];
    in->state = UNKNOWN;
    if (at->rank == NOWHERE)
        return;
    if (at->rank == EMPTY) {
        add_ready(of, task);
    } else if (is_near(self, at->rank) && !in->fetch_only) {
        add_here(self, of, task, false);
    } else if (at->rank == self->rank) {
        lose(self, of, task, "its own rank cannot read it");
    } else {
        trm_extract_id id = extract_of(self, of, task, at->attempt);
        if (trm_fetcher_want(self->fetcher, &id, at->rank) == TRM_OK)
            in->state = WANTED;
        else
            look_again(self, of, task, TRM_SHUFFLE_AGAIN_MS);
    }
}

/* For a reason of this host: later again, and when that is of no use the reduces fail. */
static void failed_here(trm_shuffle *self, range *of, uint32_t task, trm_status status, const char *why)
{
    input *in = &of->inputs[task];
    clear(self, of, task, self->known[task].attempt);
    if (++in->tries >= TRM_SHUFFLE_TRIES && of->failure == TRM_OK) {
        of->failure = trm_err_set(&of->why, status, "%s", why);
        in->tries = 0;
    }
    look_again(self, of, task, TRM_SHUFFLE_AGAIN_MS);
}

/* The file of an input cannot be read. */
static void failed_to_read(trm_shuffle *self, range *of, uint32_t task, trm_status status, const char *why)
{
    input *in = &of->inputs[task];
    const known *at = &self->known[task];
    bool damaged = status == TRM_ECORRUPT || status == TRM_EVERSION;
    if (status == TRM_ENOMEM || status == TRM_ENOSPACE) {
        failed_here(self, of, task, status, why);
    } else if (in->fetched && !in->tries) { /* the copy may be bad, and the run good */
        in->tries++;
        clear(self, of, task, at->attempt);
        place(self, of, task);
    } else if (!in->fetched && !damaged && at->rank != self->rank) { /* only its rank can read it */
        in->fetch_only = 1;
        clear(self, of, task, at->attempt);
        place(self, of, task);
    } else {
        lose(self, of, task, why);
    }
}

/* ---- Indexes ------------------------------------------------------------------------------------------ */

static void input_path(const trm_shuffle *self, const range *of, uint32_t task, char *out)
{
    const known *at = &self->known[task];
    if (of->inputs[task].fetched) {
        trm_extract_id id = extract_of(self, of, task, at->attempt);
        trm_fetcher_path(self->fetcher, &id, out);
        return;
    }
    const char *store = at->rank == self->rank ? self->run_store : self->store[at->rank];
    trm_status status =
        trm_run_name(store, self->sender->epoch, task, at->attempt, out, TRM_FETCH_PATH_BYTES);
    assert(status == TRM_OK); /* a store's path is bounded by TRM_STORE_PATH_BYTES */
    (void)status;
}

static int by_partition(const void *a, const void *b)
{
    const trm_segment *x = a, *y = b;
    if (x->partition != y->partition)
        return x->partition < y->partition ? -1 : 1;
    return (x->spill > y->spill) - (x->spill < y->spill);
}

/* The segments of the range, by partition, then spill: in the file they are by spill first. */
static trm_status take_segments(range *of, input *in, const trm_run_index *index)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < index->count; i++)
        count += index->segments[i].partition >= of->first && index->segments[i].partition < of->last;
    in->segments = count ? malloc(count * sizeof *in->segments) : NULL;
    if (count && !in->segments)
        return TRM_ENOMEM;
    for (uint32_t i = 0; i < index->count; i++)
        if (index->segments[i].partition >= of->first && index->segments[i].partition < of->last)
            in->segments[in->count++] = index->segments[i];
    if (in->count)
        qsort(in->segments, in->count, sizeof *in->segments, by_partition);
    return TRM_OK;
}

static void read_index(trm_shuffle *self, range *of, uint32_t task)
{
    char path[TRM_FETCH_PATH_BYTES];
    trm_err err = {""};
    trm_run_index index;
    input *in = &of->inputs[task];
    input_path(self, of, task, path);
    trm_status status = trm_run_index_load(&index, self->fs, path, &err);
    if (status == TRM_OK) {
        if (index.task != task || index.attempt != self->known[task].attempt ||
            index.partitions != self->partitions)
            status = trm_err_set(&err, TRM_ECORRUPT, "%s: not the run of map task %u, attempt %u", path, task,
                                 self->known[task].attempt);
        else
            status = take_segments(of, in, &index);
        trm_run_index_close(&index);
    }
    if (status == TRM_OK)
        add_ready(of, task);
    else
        failed_to_read(self, of, task, status, err.text);
}

/* Whether there was any; `left`: how many more may be read in this step. */
static bool read_indexes(trm_shuffle *self, range *of, unsigned *left)
{
    bool any = false;
    while (*left && of->here_at < of->here_count) {
        uint32_t task = of->here[of->here_at++];
        if (of->inputs[task].state != HERE)
            continue;
        read_index(self, of, task);
        --*left;
        any = true;
    }
    return any;
}

/* ---- Steps ------------------------------------------------------------------------------------------------
 */

static range *range_of(trm_shuffle *self, uint32_t first, uint32_t last)
{
    range *found = self->ranges;
    while (found && (found->first != first || found->last != last))
        found = found->next;
    return found;
}

/* The range that a partition's reduce reads. */
static range *range_with(trm_shuffle *self, uint32_t partition)
{
    range *found = self->ranges;
    while (found && (partition < found->first || partition >= found->last))
        found = found->next;
    return found;
}

static void take_fetched(trm_shuffle *self)
{
    trm_extract_id id;
    trm_status status;
    trm_err err;
    while (trm_fetcher_next(self->fetcher, &id, &status, &err)) {
        range *of = range_of(self, id.first, id.last);
        if (!of || of->inputs[id.task].state != WANTED || self->known[id.task].attempt != id.attempt)
            continue;
        if (status == TRM_OK) {
            add_here(self, of, id.task, true);
        } else if (status == TRM_ELOST || status == TRM_ECORRUPT) {
            lose(self, of, id.task, err.text);
        } else {
            trm_debug("map task %u cannot be fetched: %s", id.task, err.text);
            failed_here(self, of, id.task, status, err.text);
        }
    }
}

static bool look_at_due(trm_shuffle *self, uint64_t *wake_ns)
{
    bool any = false;
    for (uint32_t i = 0; i < self->later_count;) {
        again due = self->later[i];
        if (self->now_ns < due.due_ns) {
            *wake_ns = due.due_ns < *wake_ns ? due.due_ns : *wake_ns;
            i++;
            continue;
        }
        self->later[i] = self->later[--self->later_count];
        range *of = range_of(self, due.first, due.last);
        if (!of || of->inputs[due.task].state > MISSING)
            continue; /* it has found its way meanwhile */
        clear(self, of, due.task, self->known[due.task].attempt);
        place(self, of, due.task);
        any = true;
    }
    return any;
}

bool trm_shuffle_step(trm_shuffle *self, uint64_t now_ns, uint64_t *wake_ns)
{
    self->now_ns = now_ns;
    bool any = self->later_count && look_at_due(self, wake_ns);
    any |= trm_fetcher_step(self->fetcher, now_ns, wake_ns);
    take_fetched(self);
    unsigned left = TRM_SHUFFLE_STEP_INDEXES;
    for (range *at = self->ranges; at; at = at->next)
        any |= read_indexes(self, at, &left);
    return any;
}

bool trm_shuffle_block(trm_shuffle *self, uint32_t from, const trm_block *block, uint64_t now_ns)
{
    return trm_fetcher_take(self->fetcher, from, block, now_ns);
}

/* ---- What the master says ------------------------------------------------------------------------------ */

trm_status trm_shuffle_peers(trm_shuffle *self, const trm_setup *setup)
{
    return take_peers(self, setup);
}

/* Whether what a range has of the task stays good when the same attempt's output moves. */
static bool stays(const trm_shuffle *self, const input *in, uint32_t rank)
{
    bool has_it = in->state == HERE || in->state == READY;
    return has_it && (in->fetched || (is_near(self, rank) && !in->fetch_only));
}

void trm_shuffle_output(trm_shuffle *self, const trm_output_at *at)
{
    if (!self->known || at->task >= self->tasks || at->rank >= self->ranks)
        return;
    known old = self->known[at->task], new = {.attempt = at->attempt, .rank = at->empty ? EMPTY : at->rank};
    if (old.attempt == new.attempt && old.rank == new.rank)
        return;
    bool moved = old.rank != NOWHERE && old.attempt == new.attempt &&new.rank != EMPTY &&old.rank != EMPTY;
    for (range *of = self->ranges; of; of = of->next) {
        input *in = &of->inputs[at->task];
        if (moved && stays(self, in, new.rank))
            continue;
        clear(self, of, at->task, old.attempt);
        in->fetch_only = in->tries = 0;
    }
    self->known[at->task] = new;
    for (range *of = self->ranges; of; of = of->next)
        if (of->inputs[at->task].state == UNKNOWN)
            place(self, of, at->task);
}

/* ---- What reduces want --------------------------------------------------------------------------------- */

trm_status trm_shuffle_want(trm_shuffle *self, uint32_t partition)
{
    assert(partition < self->partitions);
    range *of = range_with(self, partition);
    if (of) {
        of->users++;
        of->failure = TRM_OK; /* it is to be tried once more */
        return TRM_OK;
    }
    if (self->ranges_count == RANGES_MAX || !(of = range_make(self, partition, partition + 1)))
        return TRM_ENOMEM;
    of->users = 1;
    range **last = &self->ranges;
    while (*last)
        last = &(*last)->next;
    *last = of;
    self->ranges_count++;
    for (uint32_t i = 0; i < self->tasks; i++)
        place(self, of, i);
    return TRM_OK;
}

void trm_shuffle_done(trm_shuffle *self, uint32_t partition)
{
    range *of = range_with(self, partition);
    assert(of && of->users > 0);
    if (--of->users)
        return;
    for (uint32_t i = 0; i < self->tasks; i++)
        clear(self, of, i, self->known[i].attempt);
    range **at = &self->ranges;
    while (*at != of)
        at = &(*at)->next;
    *at = of->next;
    self->ranges_count--;
    range_free(self, of);
}

trm_status trm_shuffle_state(trm_shuffle *self, uint32_t partition, trm_err *err)
{
    range *of = range_with(self, partition);
    assert(of);
    if (of->failure != TRM_OK) {
        *err = of->why;
        return of->failure;
    }
    return of->ready == self->tasks ? TRM_OK : TRM_AGAIN;
}

/* The first segment that is not of a partition before this one. */
static uint32_t find_segment(const input *in, uint32_t partition)
{
    uint32_t low = 0, high = in->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (in->segments[middle].partition < partition)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

trm_status trm_shuffle_list(trm_shuffle *self, uint32_t partition, uint32_t attempt, const char *path,
                            trm_err *err)
{
    range *of = range_with(self, partition);
    assert(of && of->ready == self->tasks);
    char run[TRM_FETCH_PATH_BYTES];
    trm_reduce_list_begin(&self->list, partition, attempt);
    for (uint32_t task = 0; task < self->tasks; task++) {
        const input *in = &of->inputs[task];
        uint32_t first = find_segment(in, partition);
        for (uint32_t i = first; i < in->count && in->segments[i].partition == partition; i++) {
            if (i == first) {
                input_path(self, of, task, run);
                trm_reduce_list_file(&self->list, run, task, self->known[task].attempt, in->fetched);
            }
            trm_reduce_list_segment(&self->list, &in->segments[i]);
        }
    }
    return trm_reduce_list_write(&self->list, self->fs, path, err);
}

/* What one file has gone with, others may have gone with: a reduce would miss one after the other. Their
 * indexes are read again, from where they are. */
static void look_at_others(trm_shuffle *self, range *of)
{
    for (uint32_t task = 0; task < self->tasks; task++) {
        input *in = &of->inputs[task];
        if (in->state != READY || !in->count)
            continue;
        of->ready--;
        free(in->segments);
        in->segments = NULL;
        in->count = 0;
        add_here(self, of, task, in->fetched);
    }
}

void trm_shuffle_unreadable(trm_shuffle *self, uint32_t partition, uint32_t task, uint32_t attempt,
                            trm_status status, uint64_t now_ns)
{
    range *of = range_with(self, partition);
    self->now_ns = now_ns;
    if (!of || task >= self->tasks || self->known[task].attempt != attempt ||
        of->inputs[task].state != READY || self->known[task].rank >= self->ranks)
        return; /* it is looked for already, or another has taken its place */
    input *in = &of->inputs[task];
    if (in->fetched || status == TRM_ECORRUPT || in->tries) {
        failed_to_read(self, of, task, status, "a reduce could not read it");
    } else { /* It may only have moved since the list was written: its index shows whether it is there. */
        in->tries++;
        clear(self, of, task, attempt);
        place(self, of, task);
    }
    if (status == TRM_ELOST)
        look_at_others(self, of);
}

uint64_t trm_shuffle_fetched_bytes(const trm_shuffle *self)
{
    return trm_fetcher_bytes(self->fetcher);
}

void trm_shuffle_abandon(const trm_shuffle *self)
{
    for (uint32_t i = 0; i < self->ranks; i++)
        if (self->store[i] && i != self->rank)
            trm_scratch_abandon(self->store[i]);
}
