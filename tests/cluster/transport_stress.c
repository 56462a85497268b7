/* The transport over MPI, all ranks against all: messages of every size, each with its number
 * and a content that follows from it, arrive whole, in order and once; ranks that wait for room
 * take what comes meanwhile. Run by mpirun; see transport.sh.
 *
 *   transport_stress [SEED [MESSAGES [DIES]]]
 *
 * With DIES that rank kills itself half way: the others finish among themselves.
 *
 * Whoever has got all messages says so by one more, and leaves when all others have said it: a rank that
 * leaves takes nothing more and sends nothing more. */
#include "runtime/bytes.h"
#include "runtime/clock.h"
#include "runtime/crc32c.h"
#include "runtime/transport.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEAD_BYTES 16u
#define END_S 60u /* a run that hangs ends with a failure */
#define NOBODY UINT32_MAX

static uint64_t seed;
static uint64_t messages; /* to each, and one */

static uint64_t mix(uint64_t z)
{
    z += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static _Noreturn void broken(const trm_transport *transport, const char *what)
{
    fprintf(stderr, "transport_stress: rank %u: %s (seed %llu)\n", transport->rank, what,
            (unsigned long long)seed);
    _exit(1);
}

/* What message `number` from one rank to another is; the one more is empty. */
static size_t compose(uint8_t *out, uint32_t from, uint32_t to, uint64_t number)
{
    uint64_t random = mix(seed ^ mix((uint64_t)from << 32 | to) ^ mix(number));
    size_t len = random % 4 ? random / 4 % 600 : random / 4 % (TRM_MESSAGE_BYTES_MAX - HEAD_BYTES + 1);
    len = number < messages ? len : 0;
    trm_store_u64(out, number);
    for (size_t at = 0; at < len; at += 8) {
        uint64_t word = mix(random + at);
        memcpy(out + HEAD_BYTES + at, &word, len - at < 8 ? len - at : 8);
    }
    trm_store_u64(out + 8, trm_crc32c(0, out + HEAD_BYTES, len));
    return HEAD_BYTES + len;
}

typedef struct state {
    trm_transport *transport;
    uint64_t *sent, *got; /* by rank */
    bool through;         /* it has sent all messages, and got all */
    uint32_t dies;
    uint64_t moved;
} state;

static void take_all(state *self)
{
    static uint8_t expected[TRM_MESSAGE_BYTES_MAX + 8];
    trm_transport *transport = self->transport;
    uint32_t from;
    const uint8_t *bytes;
    size_t len;
    self->moved += transport->ops->poll(transport);
    while (transport->ops->receive(transport, &from, &bytes, &len) == TRM_OK) {
        self->moved++;
        if (len < HEAD_BYTES || trm_load_u64(bytes) != self->got[from])
            broken(transport, "a message out of order, lost or told twice");
        size_t expected_len = compose(expected, from, transport->rank, self->got[from]++);
        if (len != expected_len || memcmp(bytes, expected, len) != 0)
            broken(transport, "a message that is not what was sent");
    }
}

static void send_some(state *self)
{
    static uint8_t out[TRM_MESSAGE_BYTES_MAX + 8];
    trm_transport *transport = self->transport;
    for (uint32_t to = 0; to < transport->ranks; to++) {
        if (self->sent[to] == messages + self->through)
            continue;
        size_t len = compose(out, transport->rank, to, self->sent[to]);
        trm_status status = transport->ops->send(transport, to, out, len);
        if (status == TRM_OK) {
            self->sent[to]++;
            self->moved++;
        } else if (status != TRM_AGAIN) {
            broken(transport, "a message that is refused");
        } else if (transport->ops->pending_bytes(transport, to) == 0) {
            broken(transport, "no room, and nothing is waiting");
        }
    }
}

/* Whether so many have gone to and come from everybody but the one that dies. */
static bool have_gone(const state *self, uint64_t count)
{
    for (uint32_t i = 0; i < self->transport->ranks; i++)
        if (i != self->dies && (self->sent[i] < count || self->got[i] < count))
            return false;
    return true;
}

int main(int argc, char **argv)
{
    seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    messages = argc > 2 ? strtoull(argv[2], NULL, 10) : 200;
    state self = {.dies = argc > 3 ? (uint32_t)atoi(argv[3]) : NOBODY};
    trm_err err;
    if (trm_transport_mpi_open(&self.transport, &err) != TRM_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    trm_transport *transport = self.transport;
    self.sent = calloc(transport->ranks, sizeof *self.sent);
    self.got = calloc(transport->ranks, sizeof *self.got);
    uint64_t begin_ns = trm_clock_now_ns(), bytes_time_ns = 0;
    while (!have_gone(&self, messages + 1)) {
        uint64_t before = self.moved;
        send_some(&self);
        take_all(&self);
        self.through = self.through || have_gone(&self, messages);
        if (transport->rank == self.dies && self.got[(self.dies + 1) % transport->ranks] > messages / 2)
            kill(getpid(), SIGKILL);
        if (self.moved == before)
            poll(NULL, 0, 1);
        bytes_time_ns = trm_clock_now_ns() - begin_ns;
        if (bytes_time_ns > END_S * TRM_NS_PER_S)
            broken(transport, "nothing more comes");
    }
    printf("rank %u: %llu messages to each of %u in %llu ms\n", transport->rank, (unsigned long long)messages,
           transport->ranks, (unsigned long long)(bytes_time_ns / TRM_NS_PER_MS));
    fflush(stdout);
    transport->ops->close(transport, 1000);
    free(self.sent);
    free(self.got);
    return 0;
}
