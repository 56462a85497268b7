/* The transport over MPI: the only file that calls it. Point-to-point on MPI_COMM_WORLD with
 * one tag, everything non-blocking, nothing collective after MPI_Init.
 *
 *     send ──▶ a copy ──▶ queue of the destination ──▶ MPI_Isend, at most IN_FLIGHT_MAX each
 *     MPI_Irecv from anybody, RECEIVES posted ──▶ order of the sender ──▶ ready ──▶ receive
 *
 * A message is u32 sequence · u32 length · payload. MPI matches messages of one sender in
 * order, but completes them in any: a large one takes a handshake, a small one behind it does
 * not. So each carries its number among those that MPI has taken for this destination, and
 * one that comes early is held until those before it are there. How many those can be is
 * bounded by the sender: it is never WINDOW messages ahead of one that is still in flight.
 *
 * MPI (Open MPI 4) tells nothing of dead ranks: what is sent to one stays in flight for ever.
 * Its queue fills to QUEUE_BYTES_MAX; when nothing has left for STALL_MS it is emptied, and
 * what comes after is swallowed until something leaves again (the rank was only asleep).
 */
#include "config.h" /* system extensions, before any header of the system */

#include "runtime/transport.h"

#include "runtime/bytes.h"
#include "runtime/clock.h"
#include "runtime/diag.h"

#include <mpi.h>

#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TAG 1
#define HEAD_BYTES 8u
#define RECEIVES 16u
#define READY_MAX 16u    /* messages taken from MPI and not yet from us; then receives pause */
#define IN_FLIGHT_MAX 8u /* to one rank */
#define WINDOW 64u       /* … counted from the oldest of them: bits of a word */
#define HELD_MAX 256u    /* messages that one may come ahead: more than WINDOW, for two ways there */
#define QUEUE_BYTES_MAX (4u << 20) /* to one rank, in flight included */
#define STALL_MS 30000u
#define SMALL_BYTES 4096u   /* of the smaller of two sizes of packets */
#define SMALL_KEPT_MAX 256u /* packets kept for the next use */
#define LARGE_KEPT_MAX 32u
#define CLOSE_STEPS_MAX 1000u /* looks at receives that were cancelled */
#define FINALIZE_WAIT_S 10u

typedef struct packet {
    struct packet *next;
    uint32_t peer;      /* where it came from, or goes to */
    uint32_t room, len; /* of the payload */
    uint8_t bytes[];    /* head and payload */
} packet;

typedef struct packet_list {
    packet *first, *last;
} packet_list;

typedef struct peer {
    packet_list queue;    /* waits for a place among those in flight */
    size_t pending_bytes; /* queued and in flight */
    uint32_t in_flight;
    uint32_t sequence_next; /* of what goes to it … */
    uint32_t sequence_left; /* … all below it has left … */
    uint64_t left;          /* … and bit i: so has sequence_left + i */
    uint32_t sequence_due;  /* of what comes from it */
    bool swallowing;        /* nothing has left for long */
    packet *held;           /* came early, by sequence */
    uint64_t moved_ns;      /* when something last left, or began to */
} peer;

typedef struct transport {
    trm_transport base;
    peer *peers;
    packet_list ready;
    unsigned ready_count;
    packet *current; /* what receive has given out */
    size_t self_bytes;
    MPI_Request receives[RECEIVES];
    packet *receiving[RECEIVES];
    MPI_Request *sends; /* those in flight, dense */
    packet **sending;
    unsigned sends_count, sends_room;
    int *indices; /* room for what Testsome tells */
    MPI_Status *statuses;
    packet *small_free, *large_free;
    unsigned small_kept, large_kept;
    uint64_t dropped;
} transport;

/* What the process exits with when MPI_Finalize does not return, or is not to be waited for. */
static volatile sig_atomic_t watchdog_status;
static bool leaves_alone;

void trm_transport_mpi_exit_status(int status, bool others_stay)
{
    watchdog_status = status;
    leaves_alone = others_stay;
}

/* ---- Packets ------------------------------------------------------------------------------ */

static packet *packet_take(transport *self, size_t len)
{
    bool small = len <= SMALL_BYTES;
    packet **kept = small ? &self->small_free : &self->large_free;
    packet *taken = *kept;
    if (taken) {
        *kept = taken->next;
        *(small ? &self->small_kept : &self->large_kept) -= 1;
    } else {
        uint32_t room = small ? SMALL_BYTES : TRM_MESSAGE_BYTES_MAX;
        taken = malloc(sizeof *taken + HEAD_BYTES + room);
        if (!taken)
            return NULL;
        taken->room = room;
    }
    taken->next = NULL;
    taken->len = (uint32_t)len;
    return taken;
}

static void packet_give(transport *self, packet *given)
{
    if (!given)
        return;
    bool small = given->room == SMALL_BYTES;
    unsigned *kept = small ? &self->small_kept : &self->large_kept;
    if (*kept >= (small ? SMALL_KEPT_MAX : LARGE_KEPT_MAX)) {
        free(given);
        return;
    }
    packet **list = small ? &self->small_free : &self->large_free;
    given->next = *list;
    *list = given;
    ++*kept;
}

static void list_add(packet_list *self, packet *last)
{
    last->next = NULL;
    if (self->last)
        self->last->next = last;
    else
        self->first = last;
    self->last = last;
}

static packet *list_take(packet_list *self)
{
    packet *first = self->first;
    if (first) {
        self->first = first->next;
        if (!self->first)
            self->last = NULL;
    }
    return first;
}

/* ---- Sending ------------------------------------------------------------------------------ */

static bool sends_grow(transport *self)
{
    unsigned room = self->sends_room ? self->sends_room * 2 : 64;
    MPI_Request *sends = realloc(self->sends, room * sizeof *sends);
    self->sends = sends ? sends : self->sends;
    packet **sending = realloc(self->sending, room * sizeof *sending);
    self->sending = sending ? sending : self->sending;
    unsigned told = room > RECEIVES ? room : RECEIVES;
    int *indices = realloc(self->indices, told * sizeof *indices);
    self->indices = indices ? indices : self->indices;
    MPI_Status *statuses = realloc(self->statuses, told * sizeof *statuses);
    self->statuses = statuses ? statuses : self->statuses;
    if (!sends || !sending || !indices || !statuses)
        return false;
    self->sends_room = room;
    return true;
}

/* Gives it to MPI. False: MPI refuses, or no memory; then it is lost, as if its rank were dead. */
static bool put_in_flight(transport *self, packet *out)
{
    peer *to = &self->peers[out->peer];
    if (self->sends_count == self->sends_room && !sends_grow(self))
        return false;
    trm_store_u32(out->bytes, to->sequence_next);
    trm_store_u32(out->bytes + 4, out->len);
    if (MPI_Isend(out->bytes, (int)(HEAD_BYTES + out->len), MPI_BYTE, (int)out->peer, TAG, MPI_COMM_WORLD,
                  &self->sends[self->sends_count]) != MPI_SUCCESS)
        return false;
    self->sending[self->sends_count++] = out;
    to->sequence_next++;
    to->in_flight++;
    return true;
}

/* From the queue of a rank to MPI, as far as its window allows. */
static void pump(transport *self, peer *to)
{
    while (to->in_flight < IN_FLIGHT_MAX && to->sequence_next - to->sequence_left < WINDOW &&
           to->queue.first) {
        packet *out = list_take(&to->queue);
        if (put_in_flight(self, out))
            continue;
        to->pending_bytes -= out->len;
        self->dropped++;
        packet_give(self, out);
    }
}

static void empty_queue(transport *self, peer *to)
{
    packet *out;
    while ((out = list_take(&to->queue))) {
        to->pending_bytes -= out->len;
        self->dropped++;
        packet_give(self, out);
    }
}

static packet *packet_of(transport *self, uint32_t to, const void *bytes, size_t len)
{
    packet *made = packet_take(self, len);
    if (!made)
        return NULL;
    made->peer = to;
    memcpy(made->bytes + HEAD_BYTES, bytes, len);
    return made;
}

static trm_status send_to_self(transport *self, const void *bytes, size_t len)
{
    if (self->self_bytes && self->self_bytes + len > QUEUE_BYTES_MAX)
        return TRM_AGAIN;
    packet *made = packet_of(self, self->base.rank, bytes, len);
    if (!made)
        return TRM_AGAIN;
    self->self_bytes += len;
    list_add(&self->ready, made);
    return TRM_OK;
}

/* Its queue is at the bound: whether to go on waiting for it. */
static bool is_stalled(transport *self, peer *to)
{
    if (!to->swallowing && trm_clock_now_ns() - to->moved_ns < STALL_MS * TRM_NS_PER_MS)
        return false;
    if (!to->swallowing)
        trm_debug("rank %u takes no messages: those for it are dropped", (unsigned)(to - self->peers));
    to->swallowing = true;
    empty_queue(self, to);
    return true;
}

static trm_status mpi_send(trm_transport *base, uint32_t to, const void *bytes, size_t len)
{
    transport *self = (transport *)base;
    assert(to < base->ranks && len <= TRM_MESSAGE_BYTES_MAX);
    if (to == base->rank)
        return send_to_self(self, bytes, len);
    peer *other = &self->peers[to];
    if (other->swallowing) {
        self->dropped++;
        return TRM_OK;
    }
    if (other->pending_bytes && other->pending_bytes + len > QUEUE_BYTES_MAX)
        return is_stalled(self, other) ? TRM_OK : TRM_AGAIN;
    packet *made = packet_of(self, to, bytes, len);
    if (!made)
        return TRM_AGAIN;
    if (other->in_flight == 0)
        other->moved_ns = trm_clock_now_ns();
    other->pending_bytes += len;
    list_add(&other->queue, made);
    pump(self, other);
    return TRM_OK;
}

static void has_left(peer *to, const packet *done, uint64_t now_ns)
{
    uint32_t at = trm_load_u32(done->bytes) - to->sequence_left;
    assert(at < WINDOW && to->in_flight > 0);
    to->left |= 1ull << at;
    while (to->left & 1) {
        to->left >>= 1;
        to->sequence_left++;
    }
    to->pending_bytes -= done->len;
    to->in_flight--;
    to->moved_ns = now_ns;
    to->swallowing = false;
}

static unsigned take_sends(transport *self)
{
    int count = 0;
    if (self->sends_count == 0)
        return 0;
    int result = MPI_Testsome((int)self->sends_count, self->sends, &count, self->indices, self->statuses);
    if ((result != MPI_SUCCESS && result != MPI_ERR_IN_STATUS) || count == MPI_UNDEFINED || count <= 0)
        return 0;
    uint64_t now_ns = trm_clock_now_ns();
    for (int i = 0; i < count; i++) {
        packet *done = self->sending[self->indices[i]];
        self->sending[self->indices[i]] = NULL;
        self->indices[i] = (int)done->peer;
        has_left(&self->peers[done->peer], done, now_ns);
        packet_give(self, done);
    }
    unsigned kept = 0;
    for (unsigned i = 0; i < self->sends_count; i++) {
        if (!self->sending[i])
            continue;
        self->sending[kept] = self->sending[i];
        self->sends[kept++] = self->sends[i];
    }
    self->sends_count = kept;
    for (int i = 0; i < count; i++) /* what waited for these places */
        pump(self, &self->peers[self->indices[i]]);
    return (unsigned)count;
}

/* ---- Receiving ------------------------------------------------------------------------------ */

static void post_receive(transport *self, unsigned slot)
{
    if (!self->receiving[slot])
        self->receiving[slot] = packet_take(self, TRM_MESSAGE_BYTES_MAX);
    packet *room = self->receiving[slot];
    if (!room || MPI_Irecv(room->bytes, (int)(HEAD_BYTES + room->room), MPI_BYTE, MPI_ANY_SOURCE, TAG,
                           MPI_COMM_WORLD, &self->receives[slot]) != MPI_SUCCESS)
        self->receives[slot] = MPI_REQUEST_NULL; /* tried again */
}

/* A packet that may have to wait long does not keep a large one's memory for a small message. */
static packet *shrink(transport *self, packet *large)
{
    packet *small = large->len <= SMALL_BYTES ? packet_take(self, large->len) : NULL;
    if (!small)
        return large;
    small->peer = large->peer;
    memcpy(small->bytes, large->bytes, HEAD_BYTES + large->len);
    packet_give(self, large);
    return small;
}

static void make_ready(transport *self, packet *in)
{
    list_add(&self->ready, in);
    self->ready_count++;
}

static void hold(transport *self, peer *from, packet *early)
{
    uint32_t sequence = trm_load_u32(early->bytes);
    packet **place = &from->held;
    while (*place && (int32_t)(trm_load_u32((*place)->bytes) - sequence) < 0)
        place = &(*place)->next;
    if (*place && trm_load_u32((*place)->bytes) == sequence) {
        self->dropped++;
        packet_give(self, early);
        return;
    }
    early = shrink(self, early);
    early->next = *place;
    *place = early;
}

/* In the order of its sender. */
static void take_in_order(transport *self, packet *in)
{
    peer *from = &self->peers[in->peer];
    uint32_t ahead = trm_load_u32(in->bytes) - from->sequence_due;
    if (ahead >= HELD_MAX) { /* told twice, or nothing that we send */
        self->dropped++;
        packet_give(self, in);
    } else if (ahead > 0) {
        hold(self, from, in);
    } else {
        from->sequence_due++;
        make_ready(self, in);
        while (from->held && trm_load_u32(from->held->bytes) == from->sequence_due) {
            packet *next = from->held;
            from->held = next->next;
            from->sequence_due++;
            make_ready(self, next);
        }
    }
}

static void take_message(transport *self, packet *in, MPI_Status *status)
{
    int bytes = 0;
    bool whole = MPI_Get_count(status, MPI_BYTE, &bytes) == MPI_SUCCESS && bytes >= (int)HEAD_BYTES &&
                 trm_load_u32(in->bytes + 4) == (uint32_t)bytes - HEAD_BYTES && status->MPI_SOURCE >= 0 &&
                 (uint32_t)status->MPI_SOURCE < self->base.ranks;
    if (!whole) {
        self->dropped++;
        packet_give(self, in);
        return;
    }
    in->len = (uint32_t)bytes - HEAD_BYTES;
    in->peer = (uint32_t)status->MPI_SOURCE;
    take_in_order(self, in);
}

static unsigned take_receives(transport *self)
{
    int count = 0;
    for (unsigned i = 0; i < RECEIVES && self->ready_count < READY_MAX; i++)
        if (self->receives[i] == MPI_REQUEST_NULL)
            post_receive(self, i);
    int result = MPI_Testsome(RECEIVES, self->receives, &count, self->indices, self->statuses);
    if ((result != MPI_SUCCESS && result != MPI_ERR_IN_STATUS) || count == MPI_UNDEFINED || count <= 0)
        return 0;
    /* Completed at once, they are told by their place, not in the order that they were matched
     * in: numbers put that right. */
    for (int i = 0; i < count; i++) {
        unsigned slot = (unsigned)self->indices[i];
        packet *in = self->receiving[slot];
        self->receiving[slot] = NULL;
        if (result == MPI_ERR_IN_STATUS && self->statuses[i].MPI_ERROR != MPI_SUCCESS) {
            self->dropped++; /* longer than anything that we send, or its sender has died */
            packet_give(self, in);
        } else {
            take_message(self, in, &self->statuses[i]);
        }
        if (self->ready_count < READY_MAX)
            post_receive(self, slot);
    }
    return (unsigned)count;
}

static void release(transport *self)
{
    packet_give(self, self->current);
    self->current = NULL;
}

static trm_status mpi_receive(trm_transport *base, uint32_t *from, const uint8_t **bytes, size_t *len)
{
    transport *self = (transport *)base;
    release(self);
    packet *in = list_take(&self->ready);
    if (!in)
        return TRM_AGAIN;
    if (in->peer == base->rank)
        self->self_bytes -= in->len;
    else
        self->ready_count--;
    self->current = in;
    *from = in->peer;
    *bytes = in->bytes + HEAD_BYTES;
    *len = in->len;
    return TRM_OK;
}

static unsigned mpi_poll(trm_transport *base)
{
    transport *self = (transport *)base;
    release(self);
    unsigned sent = take_sends(self);
    return sent + take_receives(self);
}

static size_t mpi_pending_bytes(trm_transport *base, uint32_t to)
{
    transport *self = (transport *)base;
    return to == base->rank ? self->self_bytes : self->peers[to].pending_bytes;
}

/* ---- Begin and end ------------------------------------------------------------------------- */

static void on_alarm(int signal_number)
{
    _exit(watchdog_status);
}

/* Nobody may count on MPI_Finalize once a rank has died. */
static void finalize(void)
{
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, NULL);
    alarm(FINALIZE_WAIT_S);
    MPI_Finalize();
    alarm(0);
}

/* What MPI never gave back: it may look at it until the process ends. */
static packet *left_to_mpi;

static void leave_to_mpi(packet *left)
{
    left->next = left_to_mpi;
    left_to_mpi = left;
}

static void cancel_receives(transport *self)
{
    int done;
    for (unsigned i = 0; i < RECEIVES; i++) {
        if (self->receives[i] == MPI_REQUEST_NULL)
            continue;
        MPI_Cancel(&self->receives[i]);
        done = 0;
        for (unsigned step = 0; step < CLOSE_STEPS_MAX && !done; step++)
            MPI_Test(&self->receives[i], &done, MPI_STATUS_IGNORE);
        if (!done) {
            leave_to_mpi(self->receiving[i]);
            self->receiving[i] = NULL;
        }
    }
}

static void free_packets(packet *first)
{
    while (first) {
        packet *next = first->next;
        free(first);
        first = next;
    }
}

static void free_all(transport *self)
{
    for (unsigned i = 0; i < self->sends_count; i++)
        leave_to_mpi(self->sending[i]);
    for (unsigned i = 0; i < RECEIVES; i++)
        free(self->receiving[i]);
    for (uint32_t i = 0; self->peers && i < self->base.ranks; i++) {
        free_packets(self->peers[i].queue.first);
        free_packets(self->peers[i].held);
    }
    free_packets(self->ready.first);
    free_packets(self->small_free);
    free_packets(self->large_free);
    free(self->current);
    free(self->sends);
    free(self->sending);
    free(self->indices);
    free(self->statuses);
    free(self->peers);
    free(self);
}

static bool all_sent(const transport *self)
{
    if (self->sends_count)
        return false;
    for (uint32_t i = 0; i < self->base.ranks; i++)
        if (self->peers[i].queue.first)
            return false;
    return true;
}

static void mpi_close(trm_transport *base, uint64_t linger_ms)
{
    transport *self = (transport *)base;
    uint64_t end_ns = trm_clock_now_ns() + linger_ms * TRM_NS_PER_MS;
    while (!all_sent(self) && trm_clock_now_ns() < end_ns) {
        mpi_poll(base);
        packet *in;
        while ((in = list_take(&self->ready))) { /* others may wait for us to take theirs */
            self->ready_count -= in->peer != base->rank;
            packet_give(self, in);
        }
    }
    if (self->dropped)
        trm_debug("%llu messages were dropped", (unsigned long long)self->dropped);
    if (leaves_alone)
        _exit(watchdog_status);
    cancel_receives(self);
    finalize();
    free_all(self);
}

static const trm_transport_ops mpi_ops = {.send = mpi_send,
                                          .receive = mpi_receive,
                                          .poll = mpi_poll,
                                          .pending_bytes = mpi_pending_bytes,
                                          .close = mpi_close};

static trm_status begin_mpi(int *rank, int *ranks, trm_err *err)
{
    int begun = 0, provided = 0;
    if (MPI_Initialized(&begun) != MPI_SUCCESS || begun)
        return trm_err_set(err, TRM_ELAUNCH, "MPI has been started already");
    /* Other threads (the log's writer) do not call MPI. */
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS)
        return trm_err_set(err, TRM_ELAUNCH, "MPI cannot be started");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    if (MPI_Comm_rank(MPI_COMM_WORLD, rank) != MPI_SUCCESS ||
        MPI_Comm_size(MPI_COMM_WORLD, ranks) != MPI_SUCCESS)
        return trm_err_set(err, TRM_ELAUNCH, "MPI does not say which rank this is");
    return TRM_OK;
}

trm_status trm_transport_mpi_open(trm_transport **out, trm_err *err)
{
    int rank = 0, ranks = 0;
    trm_status status = begin_mpi(&rank, &ranks, err);
    if (status != TRM_OK)
        return status;
    transport *self = calloc(1, sizeof *self);
    if (self) {
        self->base = (trm_transport){.ops = &mpi_ops, .rank = (uint32_t)rank, .ranks = (uint32_t)ranks};
        for (unsigned i = 0; i < RECEIVES; i++)
            self->receives[i] = MPI_REQUEST_NULL;
        self->peers = calloc((size_t)ranks, sizeof *self->peers);
        if (self->peers && sends_grow(self)) {
            for (unsigned i = 0; i < RECEIVES; i++)
                post_receive(self, i);
            *out = &self->base;
            return TRM_OK;
        }
        free_all(self);
    }
    finalize();
    return trm_err_set(err, TRM_ENOMEM, "no memory for the messages of %d ranks", ranks);
}
