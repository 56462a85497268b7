/* See scenario.h: the statements about the network. */
#include "tests/simulation/scenario.h"

#include <stdlib.h>
#include <string.h>

static void set_cut(scenario_world *world, uint64_t from, uint64_t to, bool cut)
{
    for (uint32_t i = 0; i < world->nodes_len; i++)
        for (uint32_t j = 0; j < world->nodes_len; j++) {
            bool fits = (from == TRM_RAFT_NONE || world->nodes[i].id == from) &&
                        (to == TRM_RAFT_NONE || world->nodes[j].id == to);
            if (fits && cut)
                world->cut[i] |= 1ull << j;
            else if (fits)
                world->cut[i] &= ~(1ull << j);
        }
}

/* cut 1->2 | cut NODE…, heal: … of all ways. */
void scenario_cut(scenario_world *world, const scenario_line *line)
{
    bool cut = strcmp(line->words[0], "cut") == 0;
    if (line->len == 1 && !cut)
        set_cut(world, TRM_RAFT_NONE, TRM_RAFT_NONE, false);
    for (uint32_t i = 1; i < line->len && !world->failed; i++) {
        uint64_t from, to;
        if (strstr(line->words[i], "->")) {
            if (scenario_way_word(world, line->words[i], &from, &to))
                set_cut(world, from, to, cut);
            continue;
        }
        const scenario_node *node = scenario_node_word(world, line->words[i]);
        if (!node)
            return;
        set_cut(world, node->id, TRM_RAFT_NONE, cut);
        set_cut(world, TRM_RAFT_NONE, node->id, cut);
    }
}

void scenario_network(scenario_world *world, const scenario_line *line)
{
    if (line->len != 2 || (strcmp(line->words[1], "hold") != 0 && strcmp(line->words[1], "flow") != 0))
        scenario_fail(world, "network hold|flow");
    else
        world->network_held = line->words[1][0] == 'h';
}

typedef struct pick {
    trm_raft_message_type type;
    uint64_t from;
    uint64_t to;
    uint64_t count;
} pick;

/* [TYPE] [1->2] [COUNT] */
static bool pick_words(scenario_world *world, const scenario_line *line, pick *out)
{
    *out = (pick){0, TRM_RAFT_NONE, TRM_RAFT_NONE, UINT64_MAX};
    for (uint32_t i = 1; i < line->len; i++) {
        if (scenario_message_word(line->words[i], &out->type))
            continue;
        if (strstr(line->words[i], "->") ? !scenario_way_word(world, line->words[i], &out->from, &out->to)
                                         : !scenario_number(world, line->words[i], UINT32_MAX, &out->count))
            return false;
    }
    return true;
}

static bool is_picked(const pick *self, const scenario_letter *letter)
{
    return (!self->type || self->type == letter->type) &&
           (self->from == TRM_RAFT_NONE || self->from == letter->from) &&
           (self->to == TRM_RAFT_NONE || self->to == letter->to);
}

/* Nodes do at once what was delivered, but with the network held nothing more arrives. */
void scenario_letters(scenario_world *world, const scenario_line *line)
{
    pick wanted;
    if (!pick_words(world, line, &wanted))
        return;
    const char *how = line->words[0];
    uint32_t begun_with = world->letters_len; /* not those that come of it */
    uint64_t done = 0;
    for (uint32_t i = 0; i < begun_with && done < wanted.count && !world->failed;) {
        uint32_t at = strcmp(how, "reverse") == 0 ? begun_with - 1 - i : i;
        if (!is_picked(&wanted, &world->letters[at])) {
            i++;
            continue;
        }
        done++;
        if (strcmp(how, "duplicate") == 0) {
            if (world->letters_len == SCENARIO_MESSAGES_MAX) {
                scenario_fail(world, "too many messages");
                return;
            }
            scenario_letter *copy = &world->letters[world->letters_len++];
            *copy = world->letters[at];
            copy->bytes = scenario_must(malloc(copy->len));
            memcpy(copy->bytes, world->letters[at].bytes, copy->len);
            i++;
            continue;
        }
        begun_with--;
        if (strcmp(how, "drop") == 0)
            scenario_letter_drop(world, at);
        else
            scenario_deliver(world, at);
    }
    if (done == 0)
        scenario_fail(world, "there is no such message on its way");
}

static bool send_field(scenario_world *world, trm_raft_message *message, const char *name, const char *value)
{
    if (strcmp(name, "reject") == 0) {
        message->reject = true;
        return false; /* has no value */
    }
    struct {
        const char *name;
        uint64_t *field;
    } fields[] = {{"term", &message->term},           {"index", &message->index},
                  {"log_term", &message->log_term},   {"commit", &message->commit},
                  {"context", &message->context},     {"hint_index", &message->hint_index},
                  {"hint_term", &message->hint_term}, {"offset", &message->offset}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (strcmp(name, fields[i].name) == 0)
            return value && scenario_number(world, value, TRM_RAFT_INDEX_MAX, fields[i].field);
    scenario_fail(world, "a message has no field '%s'", name);
    return false;
}

/* send TYPE 1->2 [FIELD VALUE]… [entries TERM:TEXT…]: a message from outside. */
void scenario_send(scenario_world *world, const scenario_line *line)
{
    trm_raft_message message = {.group = world->options.group};
    if (line->len < 3 || !scenario_message_word(line->words[1], &message.type) ||
        !scenario_way_word(world, line->words[2], &message.from, &message.to)) {
        scenario_fail(world, "send TYPE FROM->TO [FIELD VALUE]… [entries TERM:TEXT…]");
        return;
    }
    uint32_t i = 3;
    for (; i < line->len && strcmp(line->words[i], "entries") != 0 && !world->failed; i++)
        i += send_field(world, &message, line->words[i], i + 1 < line->len ? line->words[i + 1] : NULL);
    trm_raft_entry entries[SCENARIO_WORDS_MAX];
    char text[SCENARIO_WORDS_MAX][SCENARIO_LINE_BYTES_MAX];
    message.entries = entries;
    for (i++; i < line->len && !world->failed; i++) {
        scenario_entry_word(world, line->words[i], message.index + message.entries_len + 1,
                            &entries[message.entries_len], text[message.entries_len]);
        message.entries_len++;
    }
    if (!world->failed && message.type != TRM_RAFT_SNAPSHOT)
        scenario_post(world, &message);
}
