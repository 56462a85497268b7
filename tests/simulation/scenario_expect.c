/* See scenario.h: the statements that look.
 *
 * What is looked at is turned into text and compared with the words of the script; so
 * a failure shows both. */
#include "tests/simulation/scenario.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_BYTES 8192u

typedef struct text {
    char bytes[TEXT_BYTES];
    size_t len;
} text;

static void add(text *self, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(text *self, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int wrote = vsnprintf(self->bytes + self->len, sizeof self->bytes - self->len, format, arguments);
    va_end(arguments);
    if (wrote > 0)
        self->len += (size_t)wrote < sizeof self->bytes - self->len ? (size_t)wrote
                                                                    : sizeof self->bytes - self->len - 1;
}

static void add_id(text *out, uint64_t id)
{
    if (id == TRM_RAFT_NONE)
        add(out, "none");
    else
        add(out, "%" PRIu64, id);
}

static const char *status_word(trm_status status)
{
    switch (status) {
    case TRM_OK:
        return "ok";
    case TRM_AGAIN:
        return "none";
    case TRM_ETIMEOUT:
        return "timeout";
    case TRM_EFENCED:
        return "fenced";
    case TRM_EPEER:
        return "peer";
    default:
        return trm_status_name(status);
    }
}

/* ---- Fields of a node. ---- */

static void add_terms(const trm_raft *raft, const trm_raft_state *state, text *out)
{
    for (uint64_t i = state->first; i <= state->last; i++) {
        trm_raft_entry entry;
        if (trm_raft_entry_at(raft, i, &entry))
            add(out, "%s%" PRIu64, out->len > 0 ? " " : "", entry.term);
    }
}

static void add_members(const trm_raft *raft, bool voter, text *out)
{
    const trm_raft_members *members = trm_raft_members_now(raft);
    for (uint32_t i = 0; i < members->count; i++)
        if (members->member[i].voter == voter)
            add(out, "%s%" PRIu64, out->len > 0 ? " " : "", members->member[i].node);
    if (out->len == 0)
        add(out, "none");
}

static void add_reads(const scenario_node *node, text *out)
{
    for (size_t i = 0; i < node->reads_len; i++)
        add(out, "%s%" PRIu64 ":%s", i > 0 ? " " : "", node->reads[i].id, status_word(node->reads[i].status));
    if (node->reads_len == 0)
        add(out, "none");
}

static bool number_field(const trm_raft_state *state, const char *field, uint64_t *out)
{
    const struct {
        const char *name;
        uint64_t value;
    } fields[] = {{"term", state->term},
                  {"commit", state->commit},
                  {"applied", state->applied},
                  {"first", state->first},
                  {"last", state->last},
                  {"durable", state->durable},
                  {"snapshot", state->snapshot_index},
                  {"uncommitted", state->uncommitted_bytes},
                  {"elections", state->counts.elections},
                  {"elections_won", state->counts.elections_won},
                  {"stepped_down", state->counts.stepped_down},
                  {"dropped", state->counts.messages_dropped},
                  {"refused", state->counts.messages_refused},
                  {"rejected", state->counts.appends_rejected},
                  {"snapshots_sent", state->counts.snapshots_sent},
                  {"installed", state->counts.snapshots_installed},
                  {"changes", state->counts.changes}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (strcmp(field, fields[i].name) != 0)
            continue;
        *out = fields[i].value;
        return true;
    }
    return false;
}

static bool add_field(const scenario_node *node, const char *field, text *out)
{
    trm_raft_state state;
    trm_raft_state_get(node->raft, &state);
    uint64_t number;
    if (number_field(&state, field, &number))
        add(out, "%" PRIu64, number);
    else if (strcmp(field, "incoming") == 0)
        add(out, "%zu", node->incoming_len);
    else if (strcmp(field, "role") == 0)
        add(out, "%s", trm_raft_role_name(state.role));
    else if (strcmp(field, "vote") == 0)
        add_id(out, state.vote);
    else if (strcmp(field, "leader") == 0)
        add_id(out, state.leader);
    else if (strcmp(field, "log") == 0)
        add_terms(node->raft, &state, out);
    else if (strcmp(field, "state") == 0)
        add(out, "%.*s", node->state_len > 0 ? (int)node->state_len - 1 : 0, node->state);
    else if (strcmp(field, "voters") == 0 || strcmp(field, "learners") == 0)
        add_members(node->raft, field[0] == 'v', out);
    else if (strcmp(field, "change") == 0)
        add(out, "%s", state.change_pending ? "pending" : "none");
    else if (strcmp(field, "installing") == 0)
        add(out, "%s", state.installing ? "yes" : "no");
    else if (strcmp(field, "transfer") == 0)
        add_id(out, state.transfer_to);
    else if (strcmp(field, "transferred") == 0)
        add(out, "%s", status_word(node->transferred));
    else if (strcmp(field, "reads") == 0)
        add_reads(node, out);
    else
        return false;
    return true;
}

static bool add_peer(const scenario_node *node, uint64_t other, const char *field, text *out)
{
    static const char *const modes[] = {"?", "probe", "replicate", "snapshot"};
    trm_raft_peer peer;
    if (!trm_raft_peer_get(node->raft, other, &peer)) {
        add(out, "none");
        return true;
    }
    if (strcmp(field, "mode") == 0)
        add(out, "%s", modes[peer.mode]);
    else if (strcmp(field, "match") == 0)
        add(out, "%" PRIu64, peer.match);
    else if (strcmp(field, "next") == 0)
        add(out, "%" PRIu64, peer.next);
    else if (strcmp(field, "window") == 0)
        add(out, "%u", peer.window_messages);
    else if (strcmp(field, "window_bytes") == 0)
        add(out, "%zu", peer.window_bytes);
    else if (strcmp(field, "offset") == 0)
        add(out, "%" PRIu64, peer.snapshot_offset);
    else if (strcmp(field, "active") == 0)
        add(out, "%s", peer.active ? "yes" : "no");
    else if (strcmp(field, "caught_up") == 0)
        add(out, "%s", peer.caught_up ? "yes" : "no");
    else
        return false;
    return true;
}

/* ---- Expectations. ---- */

static uint64_t count_letters(scenario_world *world, const scenario_line *line, uint32_t *at)
{
    trm_raft_message_type type = 0;
    uint64_t from = TRM_RAFT_NONE, to = TRM_RAFT_NONE, count = 0;
    for (; *at < line->len; (*at)++)
        if (!scenario_message_word(line->words[*at], &type) &&
            (!strstr(line->words[*at], "->") || !scenario_way_word(world, line->words[*at], &from, &to)))
            break;
    for (uint32_t i = 0; i < world->letters_len; i++) {
        const scenario_letter *letter = &world->letters[i];
        count += (!type || letter->type == type) && (from == TRM_RAFT_NONE || letter->from == from) &&
                 (to == TRM_RAFT_NONE || letter->to == to);
    }
    return count;
}

/* Says what is there, and where the expected words begin. False: the statement is wrong. */
static bool look_at(scenario_world *world, const scenario_line *line, text *out, uint32_t *at)
{
    if (line->len >= 2 && strcmp(line->words[1], "messages") == 0) {
        *at = 2;
        add(out, "%" PRIu64, count_letters(world, line, at));
        return true;
    }
    if (line->len >= 2 && strcmp(line->words[1], "leader") == 0) { /* the newest; "some" fits any */
        const scenario_node *leader = scenario_leader(world);
        *at = 2;
        if (leader && line->len > 3) { /* a field of it */
            *at = 3;
            return add_field(leader, line->words[2], out);
        }
        if (leader && line->len > 2 && strcmp(line->words[2], "some") == 0)
            add(out, "some");
        else
            add_id(out, leader ? leader->id : TRM_RAFT_NONE);
        return true;
    }
    if (line->len < 3)
        return false;
    const scenario_node *node = scenario_node_word(world, line->words[1]);
    if (!node)
        return false;
    if (!node->raft) {
        scenario_fail(world, "node %" PRIu64 " does not run", node->id);
        return false;
    }
    if (strcmp(line->words[2], "peer") != 0) {
        *at = 3;
        return add_field(node, line->words[2], out);
    }
    uint64_t other;
    *at = 5;
    return line->len >= 5 && scenario_number(world, line->words[3], UINT64_MAX - 1, &other) &&
           add_peer(node, other, line->words[4], out);
}

static bool is_as_expected(scenario_world *world, const scenario_line *line, text *is, text *wanted)
{
    uint32_t at = 0;
    is->len = wanted->len = 0;
    is->bytes[0] = wanted->bytes[0] = '\0';
    if (!look_at(world, line, is, &at)) {
        scenario_fail(world, "that cannot be looked at");
        return false;
    }
    for (; at < line->len; at++)
        add(wanted, "%s%s", wanted->len > 0 ? " " : "", line->words[at]);
    return strcmp(is->bytes, wanted->bytes) == 0;
}

void scenario_expect(scenario_world *world, const scenario_line *line)
{
    static text is, wanted;
    if (!is_as_expected(world, line, &is, &wanted))
        scenario_fail(world, "it is '%s'", is.bytes);
}

/* await … within MS */
void scenario_await(scenario_world *world, const scenario_line *line)
{
    static text is, wanted;
    uint64_t ms = 0;
    if (line->len < 4 || strcmp(line->words[line->len - 2], "within") != 0 ||
        !scenario_number(world, line->words[line->len - 1], SCENARIO_MS_MAX, &ms)) {
        scenario_fail(world, "await … within MS");
        return;
    }
    scenario_line look = *line;
    look.len -= 2;
    for (uint64_t waited = 0; !is_as_expected(world, &look, &is, &wanted); waited += 10) {
        if (waited > ms)
            scenario_fail(world, "after %" PRIu64 " ms it is '%s'", ms, is.bytes);
        if (world->failed)
            return;
        scenario_run_until(world, world->now_ns + 10000000);
    }
}

/* ---- What a failure shows. ---- */

static void print_node(const scenario_node *node, FILE *out)
{
    static const char *const fields[] = {"role", "term",    "vote",  "leader", "commit",
                                         "last", "durable", "first", "voters", "learners"};
    fprintf(out, "  node %" PRIu64 ":", node->id);
    if (!node->raft) {
        fprintf(out, " does not run; its disk has %zu entries, term %" PRIu64 "\n", node->disk.len,
                node->disk.hard.term);
        return;
    }
    static text one;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        one.len = 0;
        add_field(node, fields[i], &one);
        fprintf(out, " %s %s,", fields[i], one.bytes);
    }
    one.len = 0;
    one.bytes[0] = '\0';
    add_field(node, "log", &one);
    fprintf(out, " log (%.200s), state (%.200s)\n", one.bytes, node->state);
}

void scenario_print(scenario_world *world, FILE *out)
{
    for (uint32_t i = 0; i < world->nodes_len; i++)
        print_node(&world->nodes[i], out);
    for (uint32_t i = 0; i < world->letters_len && i < 40; i++)
        fprintf(out, "  on its way: %s %" PRIu64 "->%" PRIu64 "\n",
                trm_raft_message_name(world->letters[i].type), world->letters[i].from, world->letters[i].to);
    uint64_t from = world->traced > SCENARIO_TRACE_LINES ? world->traced - SCENARIO_TRACE_LINES : 0;
    fprintf(out, "  what happened last:\n");
    for (uint64_t i = from; i < world->traced; i++)
        fprintf(out, "    %s\n", world->trace[i % SCENARIO_TRACE_LINES]);
}
