/* The messages of the control plane: the one place where scheduler/ and workers/ meet.
 *
 *     worker                         master
 *       │ ── HELLO ─────────────────▶ │   who I am, what my executors found the job to be
 *       │ ◀───────────────── BEGIN ── │   from rank 0: the launch has this epoch and these voters
 *       │ ◀───────────────── SETUP ── │   the plan is in the state directory (checksum)
 *       │ ── CLAIM ─────────────────▶ │   these attempts I have been ordered and hold still
 *       │ ◀───────────────── ORDER ── │   run these attempts
 *       │ ◀──────────────── CANCEL ── │   these are of no use any more: another attempt was first
 *       │ ◀──────────────── RECALL ── │   give these back if they have not begun: somebody is idle
 *       │ ── REPORT ────────────────▶ │   these attempts ended so (batched)
 *       │ ◀──────────────── SETTLED ─ │   … and that is decided: forget their reports
 *       │ ◀──────────────── OUTPUTS ─ │   these map outputs are committed, on these ranks
 *       │ ── LOST ──────────────────▶ │   a committed map output cannot be read any more
 *       │ ── PULSE ─────────────────▶ │   alive, how far, and what runs since when (every TRM_PULSE_MS)
 *       │ ◀───────────────── LEADS ── │   alive, in which term, and who votes (every TRM_MASTER_PULSE_MS)
 *       │ ── LEAVING ───────────────▶ │   a signal has come to this rank: it goes (no body)
 *       │ ◀─────────────────── END ── │   the job is over: clean up
 *       │ ── BYE ───────────────────▶ │   cleaned up
 *       │ ◀─────────────── ADOPT ──── │   take over the runs of these stores on your host
 *       │ ── HELD ──────────────────▶ │   these I have now
 *       │ ◀────────────────── COPY ── │   bring these runs of other hosts to yours (--replicas 2)
 *       │ ── COPIED ────────────────▶ │   … done, or why not
 *     worker ── FETCH ─▶ worker ── BLOCK ─▶ worker    a range of a run, with credit
 *
 * A master may die, and another rank take its place in the same launch, with a higher term. What
 * was ordered goes on: the worker says HELLO to the new one, is answered with SETUP, and says in
 * CLAIM what it holds, then again every report that is not SETTLED. An attempt is held from its
 * ORDER until it is settled: so neither an order nor a report is lost with a master. A master
 * gives a rank no orders between a SETUP and the last of its CLAIM.
 *
 * Frame (little-endian): u32 magic "TRMW" · u16 version · u8 type · u8 0 · u64 epoch ·
 * u64 term · u32 CRC-32C of everything but itself · body. A frame that does not decode
 * to the last byte is dropped and counted, never obeyed; so is one of another epoch, or
 * of an older term. Bodies are bounded by TRM_MESSAGE_BYTES_MAX; lists are split over
 * several frames.
 */
#ifndef TRM_JOBS_WIRE_H
#define TRM_JOBS_WIRE_H

#include "jobs/counters.h"
#include "jobs/traits.h"
#include "runtime/bytes.h"
#include "runtime/status.h"

#define TRM_WIRE_MAGIC 0x574d5254u /* "TRMW" */
#define TRM_WIRE_VERSION 6u
#define TRM_WIRE_HEADER_BYTES 28u
#define TRM_PULSE_MS 200u
#define TRM_MASTER_PULSE_MS 1000u
#define TRM_HOST_NAME_BYTES 256u
#define TRM_STORE_PATH_BYTES 1024u
#define TRM_TEXT_BYTES_MAX 4096u             /* an error with the kernel's last words */
#define TRM_BINDINGS_BYTES_MAX 16384u        /* the printed map of a rank's executors */
#define TRM_FETCH_BLOCK_BYTES (256u * 1024u) /* the payload of a BLOCK */
#define TRM_CLAIM_FRAME_MAX 4096u            /* attempts in one CLAIM, or SETTLED */
#define TRM_COPIED_FRAME_MAX 4096u           /* copies in one COPIED */
#define TRM_SAMPLE_BYTES_MAX (64u * 1024u)   /* the sampled keys of a task */

typedef enum trm_wire_type {
    TRM_WIRE_HELLO = 1,
    TRM_WIRE_SETUP,
    TRM_WIRE_ORDER,
    TRM_WIRE_REPORT,
    TRM_WIRE_OUTPUTS,
    TRM_WIRE_LOST,
    TRM_WIRE_PULSE,
    TRM_WIRE_END,
    TRM_WIRE_BYE,
    TRM_WIRE_FETCH,
    TRM_WIRE_BLOCK,
    TRM_WIRE_ADOPT,
    TRM_WIRE_HELD,
    TRM_WIRE_BEGIN,
    TRM_WIRE_CLAIM,
    TRM_WIRE_SETTLED,
    TRM_WIRE_LEADS,
    TRM_WIRE_LEAVING,
    TRM_WIRE_CANCEL,
    TRM_WIRE_RECALL,
    TRM_WIRE_COPY,
    TRM_WIRE_COPIED
} trm_wire_type;
#define TRM_WIRE_TYPE_MAX TRM_WIRE_COPIED

typedef enum trm_phase {
    TRM_PHASE_SAMPLE = 0, /* map tasks that only report keys, for range cuts */
    TRM_PHASE_MAP = 1,
    TRM_PHASE_REDUCE = 2
} trm_phase;
#define TRM_PHASES 3u

typedef struct trm_wire_header {
    uint8_t type;
    uint64_t epoch; /* which launch of the job */
    uint64_t term;  /* which master of the launch */
} trm_wire_header;

/* A worker's `status` is TRM_OK, or why its crew cannot work (text says it). */
typedef struct trm_hello {
    uint32_t status;
    char text[TRM_TEXT_BYTES_MAX];
    char host[TRM_HOST_NAME_BYTES];
    uint64_t pid;
    uint32_t executors;
    uint64_t executor_memory_bytes;
    char *bindings; /* in place of the decoded frame or caller's; not terminated */
    uint32_t bindings_len;
    char run_store[TRM_STORE_PATH_BYTES]; /* the directory of this rank's runs, for ranks of its host */
    trm_traits traits;                    /* TRM_OK only */
} trm_hello;

typedef struct trm_peer {                 /* in SETUP: what a worker must know of every rank */
    uint32_t host;                        /* ranks with the same number share a host */
    char run_store[TRM_STORE_PATH_BYTES]; /* "" for ranks of other hosts than the receiver's: a frame is
                                             bounded */
} trm_peer;

typedef struct trm_setup {
    uint32_t plan_crc;
    uint32_t cuts_crc; /* of state_dir/cuts-CRC; 0: no cuts (yet) */
    uint32_t tasks;
    uint32_t partitions;
    uint32_t peers_count;
    trm_peer *peers; /* from malloc after decoding; trm_setup_close */
} trm_setup;

/* From the rank that has prepared the job, in a frame of the epoch that begins. Before that, while it
 * prepares, it names itself to the ranks of its host in a BEGIN of epoch 0, without members. */
#define TRM_BEGIN_MEMBERS_BYTES 1024u
#define TRM_BEGIN_NEIGHBOURS_MAX 1024u
typedef struct trm_begin {
    uint32_t voters_wanted;
    uint32_t members_len;
    uint8_t members[TRM_BEGIN_MEMBERS_BYTES]; /* who votes first: an encoded trm_raft_members */
    uint32_t neighbours;                      /* ranks of the receiver's host, itself left out */
    struct {
        uint32_t rank;
        uint64_t pid;
    } neighbour[TRM_BEGIN_NEIGHBOURS_MAX];
} trm_begin;

/* Who votes for the log now, for ranks that keep none: they judge by it whether anybody can lead still. */
#define TRM_LEADS_VOTERS_MAX 64u
typedef struct trm_leads {
    uint32_t voters;                      /* 0: it is not said */
    uint32_t voter[TRM_LEADS_VOTERS_MAX]; /* ranks, ascending */
} trm_leads;

/* Records are named by their number within the map task, from 0. A probe runs some of them to see
 * whether the kernel lives through it: it leaves nothing behind, and is never committed. */
#define TRM_ORDER_SKIPS_MAX 16u  /* records of one task that are skipped */
#define TRM_ORDER_BYTES_MAX 112u /* encoded */
typedef struct trm_order {
    uint8_t phase;
    bool probe;          /* MAP: records [first, end) only */
    uint8_t skips_count; /* MAP */
    uint32_t task;
    uint32_t attempt; /* from 0, unique a task in an epoch */
    uint32_t first, end;
    uint32_t skip[TRM_ORDER_SKIPS_MAX]; /* ascending: records that are left out */
} trm_order;

/* Heads a CLAIM; the attempts, as in ORDER, follow it. The list may take several frames; the last
 * one says so, also when it is empty. SETTLED, CANCEL and RECALL are such lists without a head. An
 * attempt that is cancelled is reported as any other: TRM_EFENCED, or how it has ended meanwhile; one
 * that is given back, TRM_AGAIN. */
typedef struct trm_claim {
    bool last;
} trm_claim;

/* What an attempt left behind: a run (map), a part (reduce, map-only), keys (sample). */
typedef struct trm_report {
    uint8_t phase;
    uint32_t task;
    uint32_t attempt;
    uint32_t status; /* trm_status; TRM_OK: prepared, ready to be committed */
    bool probe;      /* as ordered: nothing was left behind */
    uint32_t record; /* 1 + the number of the record that map was given last when it failed, as far as is
                        known (with --skip-bad-records); 0: it is not, or there was none */
    uint32_t executor;
    uint64_t started_ms, ended_ms; /* wall clock, for the event record */
    uint64_t output_bytes;         /* of the run or part; 0: nothing was written */
    uint64_t output_records;
    uint32_t output_crc; /* of the whole part file; 0 for runs (blocks carry theirs) */
    trm_counters counters;
    const char *text; /* why it failed, with the kernel's last words; in place */
    uint32_t text_len;
    const uint8_t *sample; /* TRM_PHASE_SAMPLE: blobs, one a key; in place */
    uint32_t sample_len;
} trm_report;

typedef struct trm_output_at { /* a committed map output */
    uint32_t task;
    uint32_t attempt;
    uint32_t rank;
    uint32_t empty; /* 1: it emitted nothing, there is no run */
} trm_output_at;

/* A run store of another rank or an earlier launch, on the receiver's host. ADOPT is a
 * list of them. The worker takes the finished runs "m<task>.e<epoch>.a<attempt>.run" of
 * that directory (its own user's, 0700, no links followed) into its own store too, under the
 * names that they would have had if it had made them itself: with this frame's epoch and
 * the same attempt. It answers with HELD frames: a trm_held, then the list of what it has
 * taken (trm_output_at, rank: itself); the last one says `last`. A store that is not
 * there is answered by one empty HELD. */
typedef struct trm_store {
    uint64_t epoch; /* in the names of its runs */
    char path[TRM_STORE_PATH_BYTES];
} trm_store;

typedef struct trm_held {
    trm_store store;
    bool last;
} trm_held;

/* The second copy of a committed map output, on another host than the first. COPY is a list of those that
 * are to be copied to the receiver's store; COPIED a list of what became of them. What a rank has copied it
 * tells every master anew, after SETUP and before the last CLAIM; and what it finds of copies in a store that
 * it takes over, before the last HELD. Those are of another launch: when the first copy has been taken over,
 * too, the rank is asked to keep them as of this one. */
typedef struct trm_copy {
    uint32_t task, attempt;
    uint32_t rank;  /* from there */
    uint64_t epoch; /* 0, or: the receiver has it, as told with this epoch */
} trm_copy;

typedef struct trm_copied {
    uint32_t task, attempt;
    uint64_t epoch;  /* of the launch that made the copy: that in which (task, attempt) was committed */
    uint32_t status; /* TRM_OK: it is kept here; else it is not: TRM_ELOST, TRM_ECORRUPT, TRM_ENOSPACE … */
    uint64_t bytes;
} trm_copied;

typedef struct trm_pulse {
    uint32_t running;  /* attempts in executors */
    uint32_t queued;   /* attempts waiting for one */
    uint64_t bytes_in; /* read by running attempts so far */
    uint64_t records_in;
    uint64_t fetched_bytes; /* by this rank, since it began */
    uint64_t dropped;       /* messages not obeyed */
} trm_pulse;

/* After a trm_pulse, as often as there are any: an attempt that runs in an executor, TRM_EXECUTORS_MAX at
 * most. Those that are held and not named wait. */
typedef struct trm_begun {
    uint8_t phase;
    uint32_t task, attempt;
    uint32_t ms; /* since it began, saturating */
} trm_begun;

typedef struct trm_end {
    uint32_t exit_code;
    bool keep_runs; /* interrupted: leave finished runs for the launch that resumes */
    char text[TRM_TEXT_BYTES_MAX];
} trm_end;

/* A range of the run of (task, attempt): the stored bytes of partitions
 * [first, last), from `offset` within that range on. A FETCH is a credit for one
 * BLOCK of at most `bytes`. */
typedef struct trm_fetch {
    uint32_t task, attempt;
    uint32_t first, last;
    uint64_t offset;
    uint32_t bytes;
} trm_fetch;

typedef struct trm_block {
    uint32_t task, attempt;
    uint32_t first, last;
    uint32_t status; /* TRM_OK, TRM_ELOST, TRM_ECORRUPT */
    uint64_t offset;
    uint64_t total_bytes; /* of the whole range, with its index in front (see run.h) */
    const uint8_t *bytes; /* in place */
    uint32_t bytes_len;
} trm_block;

/* Begins a frame in `out` (reset first); the body is put after it; trm_wire_seal fills
 * in the checksum. */
void trm_wire_begin(trm_writer *out, const trm_wire_header *header);
void trm_wire_seal(trm_writer *out);
/* Checks magic, version, type and checksum; leaves `body` over the rest. TRM_ECORRUPT
 * or TRM_EVERSION; TRM_OK says nothing yet of the body. */
trm_status trm_wire_open(const void *bytes, size_t len, trm_wire_header *header, trm_reader *body);

/* One encoder and one decoder a body. Decoders mark the reader failed on any bad value
 * and are to be followed by trm_reader_done (lists: until trm_reader_left is 0). */
void trm_hello_encode(const trm_hello *self, trm_writer *out);
void trm_hello_decode(trm_hello *self, trm_reader *in);
void trm_begin_encode(const trm_begin *self, trm_writer *out);
void trm_begin_decode(trm_begin *self, trm_reader *in);
void trm_setup_encode(const trm_setup *self, trm_writer *out);
/* The same in pieces: the head, then peers_count peers, without an array of them. */
void trm_setup_encode_head(const trm_setup *self, trm_writer *out);
void trm_setup_encode_peer(uint32_t host, const char *run_store, trm_writer *out);
trm_status trm_setup_decode(trm_setup *self, trm_reader *in); /* TRM_ENOMEM, TRM_ECORRUPT */
void trm_setup_close(trm_setup *self);
void trm_order_encode(const trm_order *self, trm_writer *out); /* ORDER, CLAIM, SETTLED, CANCEL */
void trm_order_decode(trm_order *self, trm_reader *in);
void trm_claim_encode(const trm_claim *self, trm_writer *out);
void trm_claim_decode(trm_claim *self, trm_reader *in);
void trm_report_encode(const trm_report *self, trm_writer *out);
void trm_report_decode(trm_report *self, trm_reader *in);
void trm_output_at_encode(const trm_output_at *self, trm_writer *out); /* OUTPUTS, LOST */
void trm_output_at_decode(trm_output_at *self, trm_reader *in);
void trm_store_encode(const trm_store *self, trm_writer *out); /* ADOPT */
void trm_store_decode(trm_store *self, trm_reader *in);
void trm_held_encode(const trm_held *self, trm_writer *out); /* HELD */
void trm_held_decode(trm_held *self, trm_reader *in);
void trm_copy_encode(const trm_copy *self, trm_writer *out); /* COPY */
void trm_copy_decode(trm_copy *self, trm_reader *in);
void trm_copied_encode(const trm_copied *self, trm_writer *out); /* COPIED */
void trm_copied_decode(trm_copied *self, trm_reader *in);
void trm_pulse_encode(const trm_pulse *self, trm_writer *out);
void trm_pulse_decode(trm_pulse *self, trm_reader *in);
void trm_begun_encode(const trm_begun *self, trm_writer *out);
void trm_begun_decode(trm_begun *self, trm_reader *in);
void trm_leads_encode(const trm_leads *self, trm_writer *out);
void trm_leads_decode(trm_leads *self, trm_reader *in);
void trm_end_encode(const trm_end *self, trm_writer *out);
void trm_end_decode(trm_end *self, trm_reader *in);
void trm_fetch_encode(const trm_fetch *self, trm_writer *out);
void trm_fetch_decode(trm_fetch *self, trm_reader *in);
void trm_block_encode(const trm_block *self, trm_writer *out);
void trm_block_decode(trm_block *self, trm_reader *in);

#endif
