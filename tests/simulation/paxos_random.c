/* Single-decree Paxos in random worlds: 1 to 7 stores on disks that crash, fill up, fail
 * and are wiped, 1 to 5 launches that propose, a network that delays, drops, repeats and
 * reorders. Messages go through the codec, states through the durable store.
 *
 * Checked: two launches never learn different values; what is learnt was proposed; a
 * value that a majority of stores holds is the only one ever learnt; and, once faults
 * stop, every launch that lives learns one within a bounded time, as long as a majority
 * of stores was never wiped.
 *
 *   paxos_random [SEED [HISTORIES]]
 */
#include "runtime/consensus/paxos_store.h"
#include "runtime/diag.h"
#include "tests/support/fs_mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HISTORIES 3000u
#define STORES_MAX 7u
#define LAUNCHES_MAX 5u
#define IN_FLIGHT_MAX 256u
#define MS 1000000ull
#define FAULTS_END_NS (2000 * MS)
#define CALM_NS (60000 * MS)
#define REGISTER 3u

typedef struct letter {
    bool used;
    bool to_store;
    uint32_t to;   /* store or launch */
    uint32_t from; /* the other */
    uint64_t at_ns;
    size_t len;
    uint8_t bytes[TRM_PAXOS_MESSAGE_BYTES_MAX];
} letter;

typedef struct launch {
    bool alive;
    trm_paxos_proposer proposer;
} launch;

typedef struct world {
    uint64_t seed, random, now_ns;
    uint32_t stores, launches, lives;
    trm_fs *disks[STORES_MAX];
    uint64_t ids[STORES_MAX];
    uint32_t wiped;
    launch launch[LAUNCHES_MAX];
    letter letters[IN_FLIGHT_MAX];
    bool learnt;
    uint8_t winner;
    uint64_t histories, decided, messages, dropped, crashes, wipes, faults;
} world;

static world w;

static void fail(const char *what)
{
    fprintf(stderr, "paxos_random: %s\nreplay with: tests/simulation/paxos_random %" PRIu64 " 1\n", what,
            w.seed);
    exit(1);
}

static uint64_t draw(void)
{
    uint64_t z = w.random += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}
static uint64_t below(uint64_t bound)
{
    return draw() % bound;
}
static bool troubled(void)
{
    return w.now_ns < FAULTS_END_NS;
}

static void post(const trm_paxos_message *message, bool to_store, uint32_t to, uint32_t from)
{
    int copies = 1;
    if (troubled())
        copies = below(5) == 0 ? 0 : below(10) == 0 ? 2 : 1;
    w.dropped += copies == 0;
    for (int copy = 0; copy < copies; copy++) {
        letter *free_one = NULL;
        for (uint32_t i = 0; i < IN_FLIGHT_MAX && !free_one; i++)
            if (!w.letters[i].used)
                free_one = &w.letters[i];
        if (!free_one)
            return; /* a full queue drops */
        trm_writer out;
        trm_writer_init(&out);
        trm_paxos_encode(message, &out);
        if (!trm_writer_ok(&out) || out.len > sizeof free_one->bytes)
            fail("a message that is too long");
        *free_one = (letter){
            true, to_store, to, from, w.now_ns + MS + below(troubled() ? 80 * MS : 5 * MS), out.len, {0}};
        memcpy(free_one->bytes, out.data, out.len);
        if (troubled() && below(100) == 0)
            free_one->bytes[below(out.len)] ^= (uint8_t)(1 + below(255));
        trm_writer_close(&out);
        w.messages++;
    }
}

static void flush(uint32_t index)
{
    trm_paxos_message message;
    uint32_t store;
    while (trm_paxos_proposer_next(&w.launch[index].proposer, &store, &message))
        post(&message, true, store, index);
}

static void start_launch(uint32_t index)
{
    uint8_t value[3] = {(uint8_t)('a' + index), (uint8_t)++w.lives, 0};
    trm_paxos_proposer_config config = {
        .register_id = REGISTER,
        .node = draw(),
        .store_ids = w.ids,
        .acceptors = w.stores,
        .value = value,
        .value_len = 1 + (uint32_t)below(3),
        .timeout_ns = 100 * MS,
        .backoff_ns = 20 * MS,
        .seed = draw(),
    };
    trm_paxos_proposer_init(&w.launch[index].proposer, &config, w.now_ns);
    w.launch[index].alive = true;
    flush(index);
}

static void learn(uint32_t index)
{
    bool own;
    launch *by = &w.launch[index];
    if (!trm_paxos_proposer_decided(&by->proposer, &own))
        return;
    uint8_t value = by->proposer.value.bytes[0];
    if (by->proposer.value.len == 0 || value < 'a' || value >= 'a' + (int)LAUNCHES_MAX)
        fail("a value is learnt that nobody has proposed");
    if (w.learnt && value != w.winner)
        fail("two values are learnt");
    w.learnt = true;
    w.winner = value;
}

static void deliver(letter *what)
{
    trm_paxos_message message, answer;
    trm_err err;
    what->used = false;
    if (trm_paxos_decode(&message, what->bytes, what->len, &err) != TRM_OK)
        return;
    if (!what->to_store) {
        if (w.launch[what->to].alive) {
            trm_paxos_proposer_receive(&w.launch[what->to].proposer, &message, w.now_ns);
            learn(what->to);
            flush(what->to);
        }
        return;
    }
    trm_status status =
        trm_paxos_store_answer(w.disks[what->to], "host/store", REGISTER, &message, &answer, &err);
    if (status == TRM_OK)
        post(&answer, false, what->from, what->to);
    else if (status == TRM_ECORRUPT || status == TRM_EVERSION)
        fail(err.text);
}

static void make_store(uint32_t index, uint64_t id)
{
    trm_err err;
    uint64_t got;
    for (int attempt = 0; attempt < 3; attempt++)
        if (trm_paxos_store_make(w.disks[index], "host/store", id, &got, &err) == TRM_OK)
            return;
    fail(err.text);
}

static void trouble(void)
{
    uint32_t index = (uint32_t)below(w.stores);
    uint64_t what = below(40);
    if (what < 4) {
        trm_fs_mem_stop_after(w.disks[index], below(8));
    } else if (what < 12) {
        trm_fs_mem_crash(w.disks[index]);
        w.crashes++;
    } else if (what < 14) {
        trm_fs_mem_fail(w.disks[index], 1u << below(9), below(4), 1 + below(3), TRM_EIO);
        w.faults++;
    } else if (what == 14) {
        trm_fs_mem_set_capacity(w.disks[index], below(400));
    } else if (what == 15 && (uint32_t)__builtin_popcount(w.wiped) < (w.stores - 1) / 2) {
        trm_fs_mem_wipe(w.disks[index]);
        w.wiped |= 1u << index;
        trm_fs_mem_set_capacity(w.disks[index], UINT64_MAX);
        make_store(index, draw()); /* under another identity */
        w.wipes++;
    } else if (what == 16) {
        w.launch[below(w.launches)].alive = false;
    } else if (what == 17) {
        start_launch((uint32_t)below(w.launches));
    }
}

static void calm(void)
{
    for (uint32_t i = 0; i < w.stores; i++) {
        trm_fs_mem_crash(w.disks[i]);
        trm_fs_mem_set_capacity(w.disks[i], UINT64_MAX);
    }
    if (!w.launch[0].alive)
        start_launch(0);
}

static bool all_know(void)
{
    bool own;
    for (uint32_t i = 0; i < w.launches; i++)
        if (w.launch[i].alive && !trm_paxos_proposer_decided(&w.launch[i].proposer, &own))
            return false;
    return true;
}

static void step(void)
{
    for (uint32_t i = 0; i < IN_FLIGHT_MAX; i++)
        if (w.letters[i].used && w.letters[i].at_ns <= w.now_ns)
            deliver(&w.letters[i]);
    for (uint32_t i = 0; i < w.launches; i++) {
        launch *one = &w.launch[i];
        if (one->alive && w.now_ns >= one->proposer.deadline_ns) {
            trm_paxos_proposer_tick(&one->proposer, w.now_ns);
            flush(i);
        }
    }
}

/* At the end: what a majority of stores has accepted under one ballot is what was learnt. */
static void check_stores(void)
{
    trm_paxos_acceptor states[STORES_MAX];
    trm_err err;
    for (uint32_t i = 0; i < w.stores; i++)
        if (trm_paxos_store_read(w.disks[i], "host/store", REGISTER, &states[i], &err) != TRM_OK)
            fail(err.text);
    for (uint32_t i = 0; i < w.stores; i++) {
        uint32_t same = 0;
        for (uint32_t j = 0; j < w.stores; j++)
            same += states[i].accepted.round > 0 && !(w.wiped >> j & 1) &&
                    trm_ballot_compare(states[i].accepted, states[j].accepted) == 0;
        if (same > w.stores / 2 && states[i].value.bytes[0] != w.winner)
            fail("a majority of stores holds what was not learnt");
    }
}

static void run(void)
{
    world kept = w;
    memset(&w, 0, sizeof w);
    w.seed = kept.seed;
    w.histories = kept.histories + 1;
    w.decided = kept.decided, w.messages = kept.messages, w.dropped = kept.dropped;
    w.crashes = kept.crashes, w.wipes = kept.wipes, w.faults = kept.faults;
    w.random = w.seed * 0x2545f4914f6cdd1dull + 1;
    w.stores = 1 + (uint32_t)below(STORES_MAX);
    w.launches = 1 + (uint32_t)below(LAUNCHES_MAX);
    for (uint32_t i = 0; i < w.stores; i++) {
        w.ids[i] = draw();
        w.disks[i] = trm_fs_mem_create(draw());
        make_store(i, w.ids[i]);
    }
    for (uint32_t i = 0; i < w.launches; i++)
        start_launch(i);
    bool calmed = false;
    for (; w.now_ns < FAULTS_END_NS + CALM_NS && !(calmed && all_know()); w.now_ns += MS) {
        if (troubled() && below(20) == 0)
            trouble();
        if (!troubled() && !calmed) {
            calm();
            calmed = true;
        }
        step();
    }
    if (!all_know())
        fail("nothing is decided a minute after the last fault");
    w.decided += w.learnt;
    check_stores();
    for (uint32_t i = 0; i < w.stores; i++)
        trm_fs_mem_destroy(w.disks[i]);
}

int main(int argc, char **argv)
{
    const char *seed_text = argc > 1 ? argv[1] : getenv("TRM_TEST_SEED");
    uint64_t seed = seed_text ? strtoull(seed_text, NULL, 10) : 1;
    uint64_t histories = argc > 2 ? strtoull(argv[2], NULL, 10) : HISTORIES;
    trm_diag_configure(TRM_DIAG_ERROR, -1);
    for (uint64_t i = 0; i < histories; i++) {
        w.seed = seed + i;
        run();
    }
    printf("paxos_random: seed %" PRIu64 ", %" PRIu64 " histories, %" PRIu64 " decided, %" PRIu64
           " messages, %" PRIu64 " dropped, %" PRIu64 " crashes, %" PRIu64 " wipes, %" PRIu64 " faults\n",
           seed, w.histories, w.decided, w.messages, w.dropped, w.crashes, w.wipes, w.faults);
    return 0;
}
