/* Scenarios of Raft and of its log in a small language: tests/scenarios/README.md says how
 * to write one. A scenario is played over the real core with a network, disks and clocks
 * that the script moves; everything is drawn from its seed, so it always goes the same way.
 *
 *   scenario_words.c    the statements that make something happen
 *   scenario_network.c  those about the network
 *   scenario_expect.c   the statements that look
 *   scenario_world.c    nodes, their disks, the network, what must always hold
 *   scenario_log.c      the statements about log files, over the real wal
 */
#ifndef TRM_TESTS_SCENARIO_H
#define TRM_TESTS_SCENARIO_H

#include "runtime/consensus/raft.h"

#include <stdio.h>

#define SCENARIO_NODES_MAX 16u
#define SCENARIO_WORDS_MAX 64u
#define SCENARIO_LINE_BYTES_MAX 1024u
#define SCENARIO_STATEMENTS_MAX 4096u
/* So that no script runs for ever. */
#define SCENARIO_STEPS_MAX 200000u
#define SCENARIO_MESSAGES_MAX 4096u
#define SCENARIO_MS_MAX 10000000u
#define SCENARIO_INDEX_MAX 4096u

/* Plays the script. False: it failed, and `report` has been told the line, what was
 * expected, the state of all nodes and the last events. */
bool scenario_play(const char *name, const char *text, size_t len, FILE *report);

/* ---- Inside. ---- */

typedef struct scenario_write {
    struct scenario_write *next;
    uint64_t sequence;
    bool has_hard;
    trm_wal_hard_state hard;
    trm_raft_entry *entries; /* payloads owned */
    size_t len;
} scenario_write;

typedef struct scenario_disk {
    trm_wal_hard_state hard;
    trm_wal_snapshot snapshot; /* config points to `config` */
    uint8_t config[TRM_RAFT_MEMBERS_BYTES_MAX];
    char *image; /* of the state machine, at the snapshot */
    size_t image_len;
    trm_raft_entry *entries; /* behind the snapshot */
    size_t len;
    size_t capacity;
} scenario_disk;

typedef struct scenario_read {
    uint64_t id;
    trm_status status; /* TRM_AGAIN: not answered */
} scenario_read;

typedef struct scenario_node {
    uint64_t id;
    bool first_voter; /* in the membership that the log begins with */
    bool first_learner;
    bool paused;
    bool disk_held;
    bool installs_held;
    bool install_fails;
    bool install_due;
    trm_raft *raft; /* NULL: does not run */
    uint64_t skew_ns;
    unsigned lives;
    scenario_disk disk;
    scenario_write *writes;
    char *state; /* applied commands, each with a blank behind it */
    size_t state_len;
    char *incoming; /* of a snapshot that arrives */
    size_t incoming_len;
    trm_wal_snapshot incoming_meta;
    uint8_t incoming_config[TRM_RAFT_MEMBERS_BYTES_MAX];
    scenario_read *reads;
    size_t reads_len;
    trm_status transferred; /* TRM_AGAIN: no transfer has ended */
    uint64_t term_seen;
    uint64_t commit_seen;
} scenario_node;

typedef struct scenario_letter {
    trm_raft_message_type type;
    uint64_t from;
    uint64_t to;
    uint8_t *bytes;
    size_t len;
} scenario_letter;

typedef struct scenario_committed {
    uint64_t term;
    uint64_t digest; /* of type and payload */
} scenario_committed;

#define SCENARIO_TRACE_LINES 60u
#define SCENARIO_TRACE_BYTES 160u

typedef struct scenario_world {
    trm_raft_options options; /* of every node, but its id and seed */
    uint64_t seed;
    uint64_t now_ns;
    bool started;
    scenario_node nodes[SCENARIO_NODES_MAX];
    uint32_t nodes_len;
    bool network_held;
    uint64_t cut[SCENARIO_NODES_MAX]; /* bits: places whose messages do not arrive */
    scenario_letter letters[SCENARIO_MESSAGES_MAX];
    uint32_t letters_len;
    trm_raft_entry room[TRM_RAFT_MESSAGE_ENTRIES_MAX];
    trm_writer bytes;
    scenario_committed committed[SCENARIO_INDEX_MAX];
    uint64_t leaders[SCENARIO_INDEX_MAX]; /* by term: place + 1 */
    struct scenario_log *log;
    uint64_t steps;
    trm_status last; /* of the event */
    bool failed;
    char why[512];
    char trace[SCENARIO_TRACE_LINES][SCENARIO_TRACE_BYTES];
    uint64_t traced;
} scenario_world;

typedef struct scenario_line {
    const char *words[SCENARIO_WORDS_MAX];
    uint32_t len;
    trm_status status; /* that is expected: "… is fenced"; TRM_OK */
} scenario_line;

/* A word that is a handler's; false: no such word. */
typedef void (*scenario_handler)(scenario_world *world, const scenario_line *line);

void scenario_fail(scenario_world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));
void scenario_trace(scenario_world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));
void *scenario_must(void *memory);

/* ---- scenario_words.c ---- */
bool scenario_number(scenario_world *world, const char *word, uint64_t max, uint64_t *out);
/* "3", or "leader": the running leader of the highest term. NULL: failed. */
scenario_node *scenario_node_word(scenario_world *world, const char *word);
bool scenario_status_word(const char *word, trm_status *out);
bool scenario_message_word(const char *word, trm_raft_message_type *out);
/* "1->2", with * for any; ids TRM_RAFT_NONE for any. */
bool scenario_way_word(scenario_world *world, const char *word, uint64_t *from, uint64_t *to);

/* "TERM" or "TERM:TEXT"; a text made of the index when there is none. */
bool scenario_entry_word(scenario_world *world, const char *word, uint64_t index, trm_raft_entry *out,
                         char *text);

/* ---- scenario_network.c ---- */
void scenario_cut(scenario_world *world, const scenario_line *line);
void scenario_network(scenario_world *world, const scenario_line *line);
void scenario_letters(scenario_world *world, const scenario_line *line);
void scenario_send(scenario_world *world, const scenario_line *line);

/* ---- scenario_expect.c ---- */
void scenario_expect(scenario_world *world, const scenario_line *line);
void scenario_await(scenario_world *world, const scenario_line *line);
void scenario_print(scenario_world *world, FILE *out);

/* ---- scenario_world.c ---- */
scenario_node *scenario_node_find(scenario_world *world, uint64_t id);
uint64_t scenario_node_now(const scenario_world *world, const scenario_node *node);
scenario_node *scenario_leader(scenario_world *world);
void scenario_node_start(scenario_world *world, scenario_node *node);
void scenario_node_stop(scenario_world *world, scenario_node *node);
void scenario_node_wipe(scenario_world *world, scenario_node *node);
/* Completes the oldest `count` writes. */
void scenario_persist(scenario_world *world, scenario_node *node, uint64_t count);
void scenario_install(scenario_world *world, scenario_node *node, trm_status status);
void scenario_snapshot(scenario_world *world, scenario_node *node);
/* Takes and does what the nodes say until nothing happens any more. */
void scenario_pump(scenario_world *world);
/* Lets time pass, with all that it brings. */
void scenario_run_until(scenario_world *world, uint64_t until_ns);
void scenario_post(scenario_world *world, const trm_raft_message *message);
void scenario_deliver(scenario_world *world, uint32_t at);
void scenario_letter_drop(scenario_world *world, uint32_t at);
void scenario_disk_put(scenario_disk *disk, const trm_raft_entry *entry);
void scenario_world_close(scenario_world *world);

/* ---- scenario_log.c ---- */
void scenario_log_word(scenario_world *world, const scenario_line *line);
void scenario_log_close(scenario_world *world);

#endif
