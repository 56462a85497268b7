/* The executor's loop. See executor.h.
 *
 * Reports go into the ring at once; the rank is woken (an eventfd) when there is nothing
 * left to do, every TRM_EXECUTOR_WAKE_ORDERS orders, and by an order that ends later than
 * TRM_EXECUTOR_WAKE_MS after the last wake. A rank that wakes for another reason finds
 * them without being woken.
 */
#include "config.h" /* system extensions, before any header of the system */

#include "workers/executor.h"

#include "runtime/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define WORDS_WAIT_MS 200u /* for the supervisor to take what a failed attempt has printed */
#define RING_WAIT_MS 1     /* between two looks at a full ring */

typedef struct executor {
    const trm_executor_args *args;
    trm_lane *lane;
    void *job;
    trm_status setup_status;
    trm_err setup_err;
    trm_order orders[TRM_CREW_QUEUE_MAX];
    unsigned next, count; /* orders[next … count) are to be run */
    unsigned unwoken;     /* reports since the last wake */
    uint64_t woke_ns;
    trm_writer out;
    trm_report report;
    char text[TRM_TEXT_BYTES_MAX];
} executor;

extern void __gcov_dump(void) __attribute__((weak)); /* there in a build that counts coverage */

/* User code may have taken threads of its own; no handler or lock of theirs shall run now. */
static _Noreturn void leave(int status)
{
    if (__gcov_dump)
        __gcov_dump();
    _exit(status);
}

/* ---- To the rank ------------------------------------------------------------------- */

static void wake_rank(executor *self, uint64_t now_ns)
{
    uint64_t one = 1;
    if (write(self->args->wake_fd, &one, sizeof one) < 0 && errno != EAGAIN)
        leave(EXIT_FAILURE);
    self->unwoken = 0;
    self->woke_ns = now_ns;
}

/* Sleeps a little, and leaves when the rank is gone. */
static void wait_for_room(executor *self)
{
    struct pollfd hangup = {.fd = self->args->order_fd, .events = 0};
    if (poll(&hangup, 1, RING_WAIT_MS) > 0)
        leave(EXIT_SUCCESS);
}

static void send_record(executor *self)
{
    if (!trm_writer_ok(&self->out)) {
        static const char text[] = "trireme: no memory to report in\n";
        if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
            leave(EXIT_FAILURE);
        abort(); /* seen by the supervisor as any other refusal of memory */
    }
    while (trm_lane_put(self->lane, self->out.data, self->out.len) == TRM_AGAIN) {
        wake_rank(self, trm_clock_now_ns());
        wait_for_room(self);
    }
    self->unwoken++;
}

/* The reports since the last wake may wait no longer. */
static bool wake_is_due(const executor *self, uint64_t now_ns)
{
    return self->unwoken >= TRM_EXECUTOR_WAKE_ORDERS ||
           (self->unwoken > 0 && now_ns - self->woke_ns > TRM_EXECUTOR_WAKE_MS * TRM_NS_PER_MS);
}

/* ---- One order ---------------------------------------------------------------------- */

/* Waits until the supervisor has taken all that was printed: the pipe is empty, and it is
 * not on its way from the pipe to the lane. In this order: what left the pipe was marked. */
static void settle_words(executor *self)
{
    fflush(stdout);
    for (unsigned i = 0; i < WORDS_WAIT_MS; i++) {
        int waiting = 0;
        if (ioctl(STDERR_FILENO, FIONREAD, &waiting))
            return;
        if (waiting == 0 && !__atomic_load_n(&self->lane->words_busy, __ATOMIC_SEQ_CST))
            return;
        poll(NULL, 0, 1);
    }
}

/* "SENTENCE" and, when the kernel has printed something, "\nit had printed:\n…" */
static void describe_failure(executor *self, const trm_err *err)
{
    settle_words(self);
    static const char title[] = "\nit had printed:\n";
    size_t len = strlen(err->text);
    memcpy(self->text, err->text, len);
    char words[TRM_LAST_WORDS_BYTES];
    size_t words_len = trm_lane_words(self->lane, self->lane->words_since, words, sizeof words);
    if (words_len > 0) {
        memcpy(self->text + len, title, sizeof title - 1);
        memcpy(self->text + len + sizeof title - 1, words, words_len);
        len += sizeof title - 1 + words_len;
    }
    self->report.text = self->text;
    self->report.text_len = (uint32_t)len;
}

static void begin_order(executor *self, const trm_order *order, uint64_t now_ns)
{
    trm_board *board = &self->lane->board;
    board->bytes_in = board->records_in = board->record = board->place_offset = 0;
    board->place[0] = 0;
    __atomic_store_n(&board->attempt, order->attempt, __ATOMIC_RELAXED);
    __atomic_store_n(&board->task_key, (uint64_t)order->phase << 32 | order->task, __ATOMIC_RELAXED);
    __atomic_store_n(&board->began_ns, now_ns, __ATOMIC_RELEASE);
    self->lane->words_since = __atomic_load_n(&self->lane->words_end, __ATOMIC_RELAXED);
}

static void end_order(executor *self, uint64_t generation)
{
    trm_board *board = &self->lane->board;
    trm_writer_reset(&self->out);
    trm_crew_report_encode(generation, &self->report, &self->out);
    send_record(self);
    /* The report counts before the board says idle: an order is never in neither. */
    __atomic_store_n(&board->began_ns, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&board->task_key, TRM_IDLE, __ATOMIC_RELAXED);
    __atomic_store_n(&board->orders_done, board->orders_done + 1, __ATOMIC_RELAXED);
}

static void run_order(executor *self, const trm_order *order, uint64_t now_ns)
{
    trm_report *report = &self->report;
    trm_err err = {""};
    memset(report, 0, sizeof *report);
    report->phase = order->phase;
    report->task = order->task;
    report->attempt = order->attempt;
    report->probe = order->probe;
    report->executor = self->args->place.executor;
    report->started_ms = trm_clock_wall_ms();
    begin_order(self, order, now_ns);
    trm_status status = self->setup_status;
    if (status == TRM_OK) {
        errno = 0;
        status = self->args->ops->run(self->job, order, report, &err);
    } else {
        err = self->setup_err;
    }
    report->status = (uint32_t)status;
    report->text_len = 0;
    if (status != TRM_OK)
        describe_failure(self, &err);
    report->ended_ms = trm_clock_wall_ms();
    end_order(self, self->args->generation);
}

/* ---- From the rank ------------------------------------------------------------------- */

/* One datagram. Orders of another generation are nobody's; anything malformed is left. */
static void obey(executor *self, const uint8_t *bytes, size_t len)
{
    trm_reader in;
    trm_reader_init(&in, bytes, len);
    switch (trm_get_u8(&in)) {
    case TRM_CREW_KIND_SETUP: {
        trm_crew_setup_msg setup;
        trm_crew_setup_decode(&setup, &in);
        if (trm_reader_done(&in))
            self->setup_status = self->args->ops->setup(self->job, &setup, &self->setup_err);
        break;
    }
    case TRM_CREW_KIND_ORDERS: {
        uint64_t generation;
        unsigned count;
        trm_crew_orders_decode(&generation, self->orders, TRM_CREW_QUEUE_MAX, &count, &in);
        self->next = 0;
        self->count = trm_reader_done(&in) && generation == self->args->generation ? count : 0;
        break;
    }
    default:
        break;
    }
}

static void receive(executor *self)
{
    uint8_t bytes[TRM_CREW_DATAGRAM_BYTES_MAX];
    ssize_t len = recv(self->args->order_fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (len < 0 && errno == EAGAIN) {
        if (self->unwoken > 0)
            wake_rank(self, trm_clock_now_ns());
        len = recv(self->args->order_fd, bytes, sizeof bytes, 0);
    }
    if (len == 0 || (len < 0 && errno != EINTR))
        leave(EXIT_SUCCESS); /* the rank is gone */
    if (len > 0)
        obey(self, bytes, (size_t)len);
}

static void open_job(executor *self)
{
    const trm_executor_args *args = self->args;
    trm_crew_ready ready = {.generation = args->generation};
    uint64_t *began_ns = &self->lane->board.began_ns; /* constructors may loop as well */
    __atomic_store_n(began_ns, trm_clock_now_ns(), __ATOMIC_RELEASE);
    ready.status = args->ops->open(&args->place, &self->job, &ready.traits, &ready.err);
    __atomic_store_n(began_ns, 0, __ATOMIC_RELEASE);
    trm_crew_ready_encode(&ready, &self->out);
    send_record(self);
    wake_rank(self, trm_clock_now_ns());
}

_Noreturn void trm_executor_main(const trm_executor_args *given)
{
    trm_executor_args args = *given;
    trm_executor_prepare(&args);
    static executor self;
    self.args = &args;
    self.lane = &args.lanes.lane[args.place.executor];
    args.place.board = &self.lane->board;
    self.setup_status = trm_err_set(&self.setup_err, TRM_EPEER, "an order came before the plan");
    trm_writer_init(&self.out);
    trm_executor_watch_faults(&self.lane->fault);
    open_job(&self);
    for (;;) {
        while (self.next < self.count) {
            uint64_t now_ns = trm_clock_now_ns();
            if (wake_is_due(&self, now_ns))
                wake_rank(&self, now_ns);
            run_order(&self, &self.orders[self.next], now_ns);
            self.next++;
        }
        receive(&self);
    }
}
