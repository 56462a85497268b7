/* The memory that a rank, its supervisor and its executors share: a lane an executor.
 *
 *     lane ┬ board   what it is doing now (attempt.h); written by the executor
 *          ├ fault   what its last signal handler saw; written by the executor
 *          ├ words   the last bytes that its kernels printed; written by the supervisor,
 *          │         which reads their pipe
 *          └ ring    what it has to say (READY, REPORT); executor → rank
 *
 * Made with MAP_SHARED | MAP_ANONYMOUS before the forks. An executor unmaps all but its own
 * lane. It runs user code, which may write anywhere: whatever is read from a lane is bounded,
 * copied before it is judged, and for the ring checksummed.
 *
 * A record of the ring: u32 length · u32 CRC-32C of the payload · payload, filled up to 8
 * bytes; positions only grow, and are taken modulo TRM_RING_BYTES. A record counts once
 * `head` has moved past it, so a process that dies in the middle leaves none.
 */
#ifndef TRM_WORKERS_BOARD_H
#define TRM_WORKERS_BOARD_H

#include "workers/attempt.h"

#include <stdbool.h>

#define TRM_RING_BYTES (256u * 1024u)
/* The longest record: a report with a full text and sample. */
#define TRM_RING_RECORD_BYTES_MAX (TRM_TEXT_BYTES_MAX + TRM_SAMPLE_BYTES_MAX + 4096u)
#define TRM_WORDS_BYTES 8192u
#define TRM_IDLE UINT64_MAX /* board.task_key */

typedef struct trm_fault {
    uint32_t signal;      /* 0: none was seen */
    uint32_t called_exit; /* 1: exit() ran */
    uint32_t refused;     /* 1: the last error number was ENOMEM */
    uint64_t address;     /* of the fault */
    uint64_t data_bytes;  /* mapped, as RLIMIT_DATA counts … */
    uint64_t used_bytes;  /* … and resident, without what files are mapped */
} trm_fault;

typedef struct trm_lane {
    trm_board board;
    trm_fault fault;
    uint64_t pid;         /* of the present executor; 0: it is dead, and the supervisor says so */
    uint64_t words_end;   /* bytes that were ever written to `words` in this generation */
    uint64_t words_since; /* words_end at the begin of the running attempt; written by the executor */
    uint32_t words_busy;  /* 1: the supervisor is between the pipe and words_end */
    char words[TRM_WORDS_BYTES];
    uint64_t head __attribute__((aligned(64))); /* moved by the executor */
    uint64_t tail __attribute__((aligned(64))); /* moved by the rank */
    uint8_t ring[TRM_RING_BYTES] __attribute__((aligned(64)));
} __attribute__((aligned(4096))) trm_lane;

typedef struct trm_lanes {
    trm_lane *lane;
    unsigned count;
    uint32_t *keep_scratch; /* in the shared memory, behind the lanes; not mapped in executors */
    size_t bytes;
} trm_lanes;

/* TRM_ENOMEM. Closed with trm_lanes_close in each process that leaves by itself. */
trm_status trm_lanes_init(trm_lanes *self, unsigned count, trm_err *err);
void trm_lanes_close(trm_lanes *self);
/* Unmaps everything but lane number `index`. */
void trm_lanes_keep_only(trm_lanes *self, unsigned index);

/* Makes the lane of a dead executor ready for the next: ring empty, board idle, no words.
 * Called by the rank while nobody else uses it. */
void trm_lane_reset(trm_lane *self, uint64_t generation);

/* Executor: appends a record. TRM_AGAIN: no room now. `len` at most TRM_RING_RECORD_BYTES_MAX. */
trm_status trm_lane_put(trm_lane *self, const void *bytes, size_t len);
/* Bytes that the rank has not taken yet. */
uint64_t trm_lane_filled(const trm_lane *self);
/* Rank: takes the next record into `out` of TRM_RING_RECORD_BYTES_MAX. TRM_AGAIN: none;
 * TRM_ECORRUPT: the ring was overwritten, nothing in it can be trusted. */
trm_status trm_lane_take(trm_lane *self, uint8_t *out, size_t *len);

/* Supervisor: adds what was read from the pipe. */
void trm_lane_words_add(trm_lane *self, const char *bytes, size_t len);
/* The last words, from byte number `since` on, as printable text, terminated, at most
 * `out_bytes` with the terminator; the beginning is cut. Returns the length. Any process. */
size_t trm_lane_words(const trm_lane *self, uint64_t since, char *out, size_t out_bytes);

#endif
