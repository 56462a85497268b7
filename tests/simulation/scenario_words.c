/* See scenario.h: the statements that make something happen, and the reading of a script. */
#include "tests/simulation/scenario.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_MS 1000000ull

/* ---- Words. ---- */

bool scenario_number(scenario_world *world, const char *word, uint64_t max, uint64_t *out)
{
    char *end;
    unsigned long long value = strtoull(word, &end, 10);
    if (*word < '0' || *word > '9' || *end != '\0' || value > max) {
        scenario_fail(world, "'%s' is not a number up to %" PRIu64, word, max);
        return false;
    }
    *out = value;
    return true;
}

scenario_node *scenario_node_word(scenario_world *world, const char *word)
{
    uint64_t id = 0;
    scenario_node *node = NULL;
    if (strcmp(word, "leader") == 0)
        node = scenario_leader(world);
    else if (scenario_number(world, word, UINT64_MAX - 1, &id))
        node = scenario_node_find(world, id);
    if (!node)
        scenario_fail(world, "there is no node '%s'", word);
    return node;
}

static scenario_node *running_word(scenario_world *world, const char *word)
{
    scenario_node *node = scenario_node_word(world, word);
    if (node && !node->raft) {
        scenario_fail(world, "node %s does not run", word);
        return NULL;
    }
    return node;
}

bool scenario_status_word(const char *word, trm_status *out)
{
    static const struct {
        const char *word;
        trm_status status;
    } words[] = {{"ok", TRM_OK},
                 {"again", TRM_AGAIN},
                 {"fenced", TRM_EFENCED},
                 {"peer", TRM_EPEER},
                 {"limit", TRM_ELIMIT},
                 {"nospace", TRM_ENOSPACE},
                 {"timeout", TRM_ETIMEOUT},
                 {"corrupt", TRM_ECORRUPT},
                 {"io", TRM_EIO}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(word, words[i].word) != 0)
            continue;
        *out = words[i].status;
        return true;
    }
    return false;
}

bool scenario_message_word(const char *word, trm_raft_message_type *out)
{
    for (int type = TRM_RAFT_PRE_VOTE; type <= TRM_RAFT_READ_RESULT; type++) {
        if (strcmp(word, trm_raft_message_name((trm_raft_message_type)type)) != 0)
            continue;
        *out = (trm_raft_message_type)type;
        return true;
    }
    return false;
}

static bool end_of_way(scenario_world *world, const char *word, uint64_t *out)
{
    *out = TRM_RAFT_NONE;
    if (strcmp(word, "*") == 0)
        return true;
    const scenario_node *node = scenario_node_word(world, word);
    if (node)
        *out = node->id;
    return node != NULL;
}

bool scenario_way_word(scenario_world *world, const char *word, uint64_t *from, uint64_t *to)
{
    char copy[SCENARIO_LINE_BYTES_MAX];
    snprintf(copy, sizeof copy, "%s", word);
    char *arrow = strstr(copy, "->");
    if (!arrow) {
        scenario_fail(world, "'%s' is not a way such as 1->2", word);
        return false;
    }
    *arrow = '\0';
    return end_of_way(world, copy, from) && end_of_way(world, arrow + 2, to);
}

/* ---- Before the start. ---- */

static void add_nodes(scenario_world *world, const scenario_line *line, bool voter, bool learner)
{
    for (uint32_t i = 1; i < line->len; i++) {
        uint64_t id;
        if (!scenario_number(world, line->words[i], UINT64_MAX - 1, &id))
            return;
        if (world->started || world->nodes_len == SCENARIO_NODES_MAX || scenario_node_find(world, id)) {
            scenario_fail(world, "node %" PRIu64 " cannot be made", id);
            return;
        }
        scenario_node *node = &world->nodes[world->nodes_len++];
        *node = (scenario_node){.id = id, .first_voter = voter, .first_learner = learner};
        node->disk.hard.vote = TRM_RAFT_NONE;
    }
}

static void do_voters(scenario_world *world, const scenario_line *line)
{
    add_nodes(world, line, true, false);
}
static void do_learners(scenario_world *world, const scenario_line *line)
{
    add_nodes(world, line, false, true);
}
static void do_spares(scenario_world *world, const scenario_line *line)
{
    add_nodes(world, line, false, false);
}

static bool set_time_or_switch(scenario_world *world, const char *name, uint64_t value)
{
    trm_raft_options *options = &world->options;
    if (strcmp(name, "election_ms") == 0 && value > 1)
        options->election_ns = value * NS_PER_MS;
    else if (strcmp(name, "heartbeat_ms") == 0 && value > 0 && 2 * value * NS_PER_MS <= options->election_ns)
        options->heartbeat_ns = value * NS_PER_MS;
    else if (strcmp(name, "pre_vote") == 0)
        options->no_pre_vote = value == 0;
    else if (strcmp(name, "check_quorum") == 0)
        options->no_check_quorum = value == 0;
    else if (strcmp(name, "voters_wanted") == 0)
        options->voters_wanted = (uint32_t)value;
    else if (strcmp(name, "seed") == 0)
        world->seed = value;
    else
        return false;
    return true;
}

static bool set_bound(scenario_world *world, const char *name, uint64_t value)
{
    trm_raft_options *options = &world->options;
    if (strcmp(name, "window_messages") == 0 && value > 0 && value <= TRM_RAFT_WINDOW_MESSAGES_MAX)
        options->window_messages = (uint32_t)value;
    else if (strcmp(name, "window_bytes") == 0)
        options->window_bytes = value;
    else if (strcmp(name, "append_bytes") == 0)
        options->append_bytes_max = value;
    else if (strcmp(name, "chunk_bytes") == 0 && value <= TRM_RAFT_CHUNK_BYTES_MAX)
        options->chunk_bytes = value;
    else if (strcmp(name, "uncommitted_bytes") == 0)
        options->uncommitted_bytes_max = value;
    else if (strcmp(name, "log_bytes") == 0)
        options->log_bytes_max = value;
    else if (strcmp(name, "keep_entries") == 0)
        options->keep_entries = value;
    else
        return false;
    return true;
}

static void do_set(scenario_world *world, const scenario_line *line)
{
    uint64_t value;
    if (line->len != 3 || world->started) {
        scenario_fail(world, "set NAME VALUE, before the start");
        return;
    }
    if (!scenario_number(world, line->words[2], 1u << 30, &value))
        return;
    if (!set_time_or_switch(world, line->words[1], value) && !set_bound(world, line->words[1], value))
        scenario_fail(world, "there is no option '%s' of that value", line->words[1]);
}

/* "TERM" or "TERM:TEXT"; a number as the text when there is none. */
bool scenario_entry_word(scenario_world *world, const char *word, uint64_t index, trm_raft_entry *out,
                         char *text)
{
    char copy[SCENARIO_LINE_BYTES_MAX];
    snprintf(copy, sizeof copy, "%s", word);
    char *colon = strchr(copy, ':');
    if (colon)
        *colon = '\0';
    if (colon)
        snprintf(text, SCENARIO_LINE_BYTES_MAX, "%s", colon + 1);
    else
        snprintf(text, SCENARIO_LINE_BYTES_MAX, "e%" PRIu64, index);
    *out = (trm_raft_entry){.index = index, .type = TRM_RAFT_COMMAND, .payload = (uint8_t *)text};
    out->len = strlen(text);
    return scenario_number(world, copy, SCENARIO_INDEX_MAX - 1, &out->term);
}

/* log NODE TERM[:TEXT]…: what its disk holds; its term is that of the last entry. */
static void do_log(scenario_world *world, const scenario_line *line)
{
    scenario_node *node = line->len >= 2 ? scenario_node_word(world, line->words[1]) : NULL;
    if (!node || node->raft) {
        scenario_fail(world, "log NODE TERM…, of a node that does not run");
        return;
    }
    for (uint32_t i = 2; i < line->len && !world->failed; i++) {
        trm_raft_entry entry;
        char text[SCENARIO_LINE_BYTES_MAX];
        if (!scenario_entry_word(world, line->words[i], node->disk.snapshot.index + node->disk.len + 1,
                                 &entry, text))
            return;
        if (entry.term == 0 ||
            (node->disk.len > 0 && entry.term < node->disk.entries[node->disk.len - 1].term))
            scenario_fail(world, "terms begin at 1 and do not fall");
        else
            scenario_disk_put(&node->disk, &entry);
        if (entry.term > node->disk.hard.term)
            node->disk.hard.term = entry.term;
    }
}

/* hard NODE TERM [VOTE [COMMIT]] */
static void do_hard(scenario_world *world, const scenario_line *line)
{
    scenario_node *node = line->len >= 3 ? scenario_node_word(world, line->words[1]) : NULL;
    if (!node || node->raft) {
        scenario_fail(world, "hard NODE TERM [VOTE [COMMIT]], of a node that does not run");
        return;
    }
    uint64_t term;
    if (!scenario_number(world, line->words[2], SCENARIO_INDEX_MAX - 1, &term))
        return;
    if (term < node->disk.hard.term)
        scenario_fail(world, "the log has a later term");
    node->disk.hard.term = term;
    if (line->len > 3 && strcmp(line->words[3], "none") != 0)
        scenario_number(world, line->words[3], UINT64_MAX - 1, &node->disk.hard.vote);
    if (line->len > 4)
        scenario_number(world, line->words[4], SCENARIO_INDEX_MAX, &node->disk.hard.commit);
}

static void do_start(scenario_world *world, const scenario_line *line)
{
    world->started = true;
    for (uint32_t i = 0; i < world->nodes_len && line->len == 1; i++)
        if (!world->nodes[i].raft)
            scenario_node_start(world, &world->nodes[i]);
    for (uint32_t i = 1; i < line->len; i++) {
        scenario_node *node = scenario_node_word(world, line->words[i]);
        if (node && !node->raft)
            scenario_node_start(world, node);
    }
}

/* ---- Nodes and time. ---- */

static void do_crash(scenario_world *world, const scenario_line *line)
{
    for (uint32_t i = 1; i < line->len; i++) {
        scenario_node *node = running_word(world, line->words[i]);
        if (node)
            scenario_node_stop(world, node);
    }
}

static void do_wipe(scenario_world *world, const scenario_line *line)
{
    for (uint32_t i = 1; i < line->len; i++) {
        scenario_node *node = scenario_node_word(world, line->words[i]);
        if (node && node->raft)
            scenario_fail(world, "a node that runs cannot be wiped");
        else if (node)
            scenario_node_wipe(world, node);
    }
}

static void do_pause(scenario_world *world, const scenario_line *line)
{
    for (uint32_t i = 1; i < line->len; i++) {
        scenario_node *node = running_word(world, line->words[i]);
        if (node)
            node->paused = strcmp(line->words[0], "pause") == 0;
    }
}

static bool ms_word(scenario_world *world, const scenario_line *line, uint32_t at, uint64_t *until_ns)
{
    uint64_t ms;
    if (at >= line->len || !scenario_number(world, line->words[at], SCENARIO_MS_MAX, &ms)) {
        scenario_fail(world, "%s takes milliseconds", line->words[0]);
        return false;
    }
    *until_ns = world->now_ns + ms * NS_PER_MS;
    if (*until_ns > SCENARIO_MS_MAX * NS_PER_MS)
        scenario_fail(world, "a scenario lasts %u ms at the most", SCENARIO_MS_MAX);
    return !world->failed;
}

/* run MS: time passes for all, and everything that comes with it happens. */
static void do_run(scenario_world *world, const scenario_line *line)
{
    uint64_t until_ns;
    if (ms_word(world, line, 1, &until_ns))
        scenario_run_until(world, until_ns);
}

/* elapse MS: time passes and nobody notices yet. */
static void do_elapse(scenario_world *world, const scenario_line *line)
{
    uint64_t until_ns;
    if (ms_word(world, line, 1, &until_ns))
        world->now_ns = until_ns;
}

/* timeout NODE…: its own clock goes on to where its next timer is due. */
static void do_timeout(scenario_world *world, const scenario_line *line)
{
    for (uint32_t i = 1; i < line->len; i++) {
        scenario_node *node = running_word(world, line->words[i]);
        if (!node)
            return;
        uint64_t wake = trm_raft_wake_ns(node->raft);
        if (wake > scenario_node_now(world, node))
            node->skew_ns = wake - world->now_ns;
        trm_err err;
        world->last = trm_raft_tick(node->raft, scenario_node_now(world, node), &err);
    }
}

/* ---- What nodes are asked. ---- */

static void do_propose(scenario_world *world, const scenario_line *line)
{
    scenario_node *node = line->len >= 3 ? running_word(world, line->words[1]) : NULL;
    uint64_t index, term;
    trm_err err;
    if (!node) {
        scenario_fail(world, "propose NODE TEXT…");
        return;
    }
    for (uint32_t i = 2; i < line->len && world->last == TRM_OK; i++)
        world->last =
            trm_raft_propose(node->raft, line->words[i], strlen(line->words[i]), &index, &term, &err);
}

/* fill NODE COUNT BYTES: many proposals of that length. */
static void do_fill(scenario_world *world, const scenario_line *line)
{
    uint64_t count, bytes, index, term;
    trm_err err;
    scenario_node *node = line->len == 4 ? running_word(world, line->words[1]) : NULL;
    if (!node || !scenario_number(world, line->words[2], 1000, &count) ||
        !scenario_number(world, line->words[3], 300000, &bytes)) {
        scenario_fail(world, "fill NODE COUNT BYTES");
        return;
    }
    char *text = scenario_must(malloc(bytes + 1));
    memset(text, 'x', bytes);
    for (uint64_t i = 0; i < count && world->last == TRM_OK; i++)
        world->last = trm_raft_propose(node->raft, text, bytes, &index, &term, &err);
    free(text);
}

static void do_change(scenario_world *world, const scenario_line *line)
{
    static const char *const names[] = {"", "add", "promote", "demote", "remove"};
    scenario_node *node = line->len == 4 ? running_word(world, line->words[1]) : NULL;
    uint64_t other, index;
    trm_err err;
    int change = TRM_RAFT_ADD_LEARNER;
    while (node && change <= TRM_RAFT_REMOVE && strcmp(line->words[2], names[change]) != 0)
        change++;
    if (!node || change > TRM_RAFT_REMOVE ||
        !scenario_number(world, line->words[3], UINT64_MAX - 1, &other)) {
        scenario_fail(world, "change NODE add|promote|demote|remove OTHER");
        return;
    }
    world->last = trm_raft_change_members(node->raft, (trm_raft_change)change, other, &index, &err);
}

static void do_read(scenario_world *world, const scenario_line *line)
{
    scenario_node *node = line->len == 3 ? running_word(world, line->words[1]) : NULL;
    uint64_t id;
    trm_err err;
    if (!node || !scenario_number(world, line->words[2], UINT64_MAX, &id)) {
        scenario_fail(world, "read NODE ID");
        return;
    }
    world->last = trm_raft_read(node->raft, id, scenario_node_now(world, node), &err);
    if (world->last != TRM_OK)
        return;
    node->reads = scenario_must(realloc(node->reads, (node->reads_len + 1) * sizeof *node->reads));
    node->reads[node->reads_len++] = (scenario_read){id, TRM_AGAIN};
}

static void do_transfer(scenario_world *world, const scenario_line *line)
{
    scenario_node *node = line->len == 3 ? running_word(world, line->words[1]) : NULL;
    uint64_t to;
    trm_err err;
    if (!node || !scenario_number(world, line->words[2], UINT64_MAX - 1, &to)) {
        scenario_fail(world, "transfer NODE TO");
        return;
    }
    node->transferred = TRM_AGAIN;
    world->last = trm_raft_transfer(node->raft, to, scenario_node_now(world, node), &err);
}

/* hint NODE OTHER alive|dead [PREFERENCE] */
static void do_hint(scenario_world *world, const scenario_line *line)
{
    scenario_node *node = line->len >= 4 ? running_word(world, line->words[1]) : NULL;
    uint64_t other, preference = 0;
    if (!node || !scenario_number(world, line->words[2], UINT64_MAX - 1, &other) ||
        (line->len > 4 && !scenario_number(world, line->words[4], UINT32_MAX, &preference))) {
        scenario_fail(world, "hint NODE OTHER alive|dead [PREFERENCE]");
        return;
    }
    trm_raft_node_hint(node->raft, other, strcmp(line->words[3], "alive") == 0, (uint32_t)preference,
                       scenario_node_now(world, node));
}

/* ---- Disks and snapshots. ---- */

static void do_disk(scenario_world *world, const scenario_line *line)
{
    scenario_node *node = line->len == 3 ? scenario_node_word(world, line->words[1]) : NULL;
    const char *how = node ? line->words[2] : "";
    if (strcmp(how, "hold") == 0 || strcmp(how, "flow") == 0)
        node->disk_held = how[0] == 'h';
    else if ((strcmp(how, "full") == 0 || strcmp(how, "room") == 0) && node->raft)
        trm_raft_disk_full(node->raft, how[0] == 'f');
    else
        scenario_fail(world, "disk NODE hold|flow|full|room");
}

/* persist NODE [COUNT]: the oldest writes are durable. */
static void do_persist(scenario_world *world, const scenario_line *line)
{
    scenario_node *node = line->len >= 2 ? running_word(world, line->words[1]) : NULL;
    uint64_t count = UINT64_MAX;
    if (line->len > 2 && !scenario_number(world, line->words[2], SCENARIO_INDEX_MAX, &count))
        return;
    if (node)
        scenario_persist(world, node, count);
    else
        scenario_fail(world, "persist NODE [COUNT]");
}

static void do_snapshot(scenario_world *world, const scenario_line *line)
{
    for (uint32_t i = 1; i < line->len; i++) {
        scenario_node *node = running_word(world, line->words[i]);
        if (node)
            scenario_snapshot(world, node);
    }
}

/* install NODE hold|flow|fail|now */
static void do_install(scenario_world *world, const scenario_line *line)
{
    scenario_node *node = line->len == 3 ? running_word(world, line->words[1]) : NULL;
    const char *how = node ? line->words[2] : "";
    if (strcmp(how, "now") == 0) {
        scenario_install(world, node, TRM_OK);
    } else if (strcmp(how, "hold") == 0 || strcmp(how, "flow") == 0 || strcmp(how, "fail") == 0) {
        node->installs_held = how[0] == 'h';
        node->install_fails = how[1] == 'a';
    } else {
        scenario_fail(world, "install NODE hold|flow|fail|now");
    }
}

static void do_settle(scenario_world *world, const scenario_line *line)
{
    (void)line;
    scenario_pump(world);
}

/* ---- Scripts. ---- */

static const struct {
    const char *word;
    scenario_handler handler;
    bool settles; /* and then all that follows from it happens */
} statements[] = {
    {"voters", do_voters, false},
    {"learners", do_learners, false},
    {"spares", do_spares, false},
    {"set", do_set, false},
    {"log", do_log, false},
    {"hard", do_hard, false},
    {"start", do_start, true},
    {"crash", do_crash, true},
    {"wipe", do_wipe, true},
    {"pause", do_pause, true},
    {"resume", do_pause, true},
    {"run", do_run, true},
    {"elapse", do_elapse, false},
    {"timeout", do_timeout, true},
    {"propose", do_propose, true},
    {"fill", do_fill, true},
    {"change", do_change, true},
    {"read", do_read, true},
    {"transfer", do_transfer, true},
    {"hint", do_hint, true},
    {"disk", do_disk, true},
    {"persist", do_persist, true},
    {"snapshot", do_snapshot, true},
    {"install", do_install, true},
    {"cut", scenario_cut, false},
    {"heal", scenario_cut, true},
    {"network", scenario_network, true},
    {"deliver", scenario_letters, true},
    {"reverse", scenario_letters, true},
    {"drop", scenario_letters, true},
    {"duplicate", scenario_letters, false},
    {"send", scenario_send, true},
    {"settle", do_settle, true},
    {"expect", scenario_expect, false},
    {"await", scenario_await, true},
    {"wal", scenario_log_word, false},
};

static void play_line(scenario_world *world, const scenario_line *line)
{
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        if (strcmp(line->words[0], statements[i].word) != 0)
            continue;
        world->last = TRM_OK;
        statements[i].handler(world, line);
        if (!world->failed && world->last != line->status)
            scenario_fail(world, "the outcome is %s, not %s", trm_status_name(world->last),
                          trm_status_name(line->status));
        if (statements[i].settles && !world->failed)
            scenario_pump(world);
        return;
    }
    scenario_fail(world, "there is no statement '%s'", line->words[0]);
}

/* Splits into words; what is behind a # is left out; the last two may be "is STATUS". */
static void split(scenario_world *world, char *text, scenario_line *line)
{
    *line = (scenario_line){.status = TRM_OK};
    char *save, *comment = strchr(text, '#');
    if (comment)
        *comment = '\0';
    for (char *word = strtok_r(text, " \t\r", &save); word; word = strtok_r(NULL, " \t\r", &save)) {
        if (line->len == SCENARIO_WORDS_MAX) {
            scenario_fail(world, "more than %u words", SCENARIO_WORDS_MAX);
            return;
        }
        line->words[line->len++] = word;
    }
    if (line->len > 2 && strcmp(line->words[line->len - 2], "is") == 0) {
        if (!scenario_status_word(line->words[line->len - 1], &line->status))
            scenario_fail(world, "there is no outcome '%s'", line->words[line->len - 1]);
        line->len -= 2;
    }
}

static void world_init(scenario_world *world)
{
    world->seed = 1;
    world->now_ns = 1;
    world->options.group = 7;
    world->options.election_ns = 1000 * NS_PER_MS;
    world->options.heartbeat_ns = 100 * NS_PER_MS;
    world->options.keep_entries = 1;
}

static size_t play_text(scenario_world *world, const char *text, size_t len, char *shown)
{
    size_t number = 0;
    for (const char *at = text, *end = text + len; at < end && !world->failed; number++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t bytes = (size_t)((newline ? newline : end) - at);
        char copy[SCENARIO_LINE_BYTES_MAX];
        if (bytes >= sizeof copy || memchr(at, '\0', bytes) || number >= SCENARIO_STATEMENTS_MAX) {
            scenario_fail(world, "the script is too long here, or not a text");
            return number + 1;
        }
        memcpy(copy, at, bytes);
        copy[bytes] = '\0';
        strcpy(shown, copy);
        scenario_line line;
        split(world, copy, &line);
        if (line.len > 0 && !world->failed) {
            scenario_trace(world, "%zu: %s", number + 1, shown);
            play_line(world, &line);
        }
        at += bytes + 1;
    }
    return number;
}

bool scenario_play(const char *name, const char *text, size_t len, FILE *report)
{
    scenario_world *world = scenario_must(calloc(1, sizeof *world));
    char shown[SCENARIO_LINE_BYTES_MAX] = "";
    world_init(world);
    size_t number = play_text(world, text, len, shown);
    bool passed = !world->failed;
    if (!passed && report) {
        fprintf(report, "%s:%zu: %s\n    %s\n", name, number, world->why, shown);
        scenario_print(world, report);
    }
    scenario_world_close(world);
    free(world);
    return passed;
}
