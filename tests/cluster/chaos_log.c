/* Whether what was committed was run again. The log of the last launch says what was committed when it
 * began, which attempt of each task is the committed one, and which outputs were lost; the record of
 * events, when the launch began and when an attempt was prepared; the kernel's trace, when each attempt
 * began. None may begin later, unless on a rank that was stopped and went on with what it had been given
 * before. */
#include "config.h" /* system extensions, before any header of the system */

#include "tests/cluster/chaos_play.h"

#include "jobs/table.h"
#include "runtime/consensus/raft.h"
#include "runtime/fs.h"
#include "runtime/json_reader.h"
#include "runtime/wal.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SLACK_MS 1000u /* from prepared to committed, and until everybody has heard of it */
#define TASKS_MAX 4096u
#define LINE_BYTES_MAX (64u * 1024u)

typedef struct history {
    bool before[2]
               [TASKS_MAX]; /* a map, a reduce: it was committed when the last launch began, and stayed so */
    uint64_t begun_ms;      /* the last launch; 0: not told */
    uint64_t ms[2][TASKS_MAX]; /* the committed attempt was prepared in the last launch; 0: not told */
} history;

/* ---- The table, from the longest log of the last launch ------------------------------------------------ */

static void note_committed(const trm_table *table, history *out)
{
    for (unsigned reduce = 0; reduce < 2 && table->jobs_count == 1; reduce++) {
        const trm_table_phase *phase = &table->jobs[0]->phase[reduce ? TRM_PHASE_REDUCE : TRM_PHASE_MAP];
        for (uint32_t i = 0; i < phase->tasks && i < TASKS_MAX; i++)
            out->before[reduce][i] = phase->task[i].state != TRM_TASK_PENDING;
    }
}

static void note_lost(void *context, uint32_t job, const trm_output_ref *ref, bool accepted)
{
    history *self = context;
    (void)job;
    if (accepted && ref->task < TASKS_MAX)
        self->before[0][ref->task] = false;
}

static trm_status apply_image(trm_wal *wal, trm_table *table, trm_err *err)
{
    trm_wal_snapshot snapshot;
    trm_wal_snapshot_get(wal, &snapshot);
    if (!snapshot.index)
        return TRM_OK;
    size_t got = 0, len = (size_t)snapshot.data_bytes;
    uint8_t *image = malloc(len + 1);
    if (!image)
        return trm_err_set(err, TRM_ENOMEM, "no memory for an image of the table");
    trm_status status = trm_wal_snapshot_read(wal, 0, image, len, &got, err);
    if (status == TRM_OK)
        status = trm_table_decode(table, image, got, err);
    free(image);
    return status;
}

static trm_status apply_log(trm_wal *wal, trm_table *table, history *out, trm_err *err)
{
    trm_wal_entry entry;
    trm_table_watch watch = {.lost = note_lost, .context = out};
    trm_status status = apply_image(wal, table, err);
    if (status == TRM_OK)
        note_committed(table, out);
    for (uint64_t i = trm_wal_first_index(wal); status == TRM_OK && i <= trm_wal_last_index(wal); i++) {
        trm_wal_entry_at(wal, i, &entry);
        if (entry.type == TRM_RAFT_COMMAND)
            status = trm_table_apply(table, entry.payload, entry.len, &watch, err);
    }
    return status;
}

static bool is_longer(const trm_wal *a, const trm_wal *b)
{
    if (!b)
        return true;
    uint64_t a_last = trm_wal_last_index(a), b_last = trm_wal_last_index(b);
    uint64_t a_term = trm_wal_term_at(a, a_last), b_term = trm_wal_term_at(b, b_last);
    return a_term > b_term || (a_term == b_term && a_last > b_last);
}

static uint64_t newest_epoch(const char *dir)
{
    DIR *open_dir = opendir(dir);
    uint64_t newest = 0, epoch;
    unsigned rank;
    for (struct dirent *at; open_dir && (at = readdir(open_dir));)
        if (sscanf(at->d_name, "e%" SCNu64 ".r%u", &epoch, &rank) == 2 && epoch > newest)
            newest = epoch;
    if (open_dir)
        closedir(open_dir);
    return newest;
}

static trm_wal *open_longest(const char *dir, uint64_t epoch, trm_err *err)
{
    char path[CHAOS_PATH_BYTES + 96];
    trm_wal_config config = {0};
    trm_wal *longest = NULL;
    for (unsigned rank = 0; rank < CHAOS_RANKS_MAX; rank++) {
        trm_wal *wal;
        snprintf(path, sizeof path, "%s/e%" PRIu64 ".r%u", dir, epoch, rank);
        if (trm_wal_open(&wal, trm_fs_posix(), path, &config, err) != TRM_OK)
            continue; /* this rank had none */
        trm_wal *shorter = is_longer(wal, longest) ? longest : wal;
        longest = shorter == longest ? wal : longest;
        trm_wal_close(shorter);
    }
    return longest;
}

static bool read_table(chaos_play *self, trm_table *out, history *past)
{
    char dir[CHAOS_PATH_BYTES + 64];
    trm_err err = {"there is no log"};
    snprintf(dir, sizeof dir, "%s/log", self->state);
    trm_wal *wal = open_longest(dir, newest_epoch(dir), &err);
    trm_status status = wal ? apply_log(wal, out, past, &err) : TRM_ELOST;
    trm_wal_close(wal);
    return status == TRM_OK || chaos_fail(self, "the log: %s", err.text);
}

/* ---- When it was --------------------------------------------------------------------------------------- */

/* `epoch` is that of the launch that has told it. */
static void take_task(const trm_json_doc *doc, const trm_table_job *job, uint64_t epoch, history *out)
{
    const trm_json_value *event = trm_json_root(doc);
    bool reduce = strcmp(trm_json_get_string(doc, event, "phase", ""), "reduce") == 0;
    uint64_t task = trm_json_get_u64(doc, event, "task", TASKS_MAX);
    const trm_table_phase *phase = &job->phase[reduce ? TRM_PHASE_REDUCE : TRM_PHASE_MAP];
    if (task < phase->tasks && task < TASKS_MAX && !out->before[reduce][task] &&
        phase->task[task].epoch == epoch &&
        phase->task[task].attempt == trm_json_get_u64(doc, event, "attempt", UINT64_MAX))
        out->ms[reduce][task] = trm_json_get_u64(doc, event, "t", 0);
}

static void take_event(const trm_json_doc *doc, const trm_table *table, uint64_t *epoch, history *out)
{
    const trm_json_value *event = trm_json_root(doc);
    const char *what = trm_json_get_string(doc, event, "event", "");
    if (strcmp(what, "task") == 0 && *epoch == table->epoch)
        take_task(doc, table->jobs[0], *epoch, out);
    if (strcmp(what, "launch") != 0)
        return;
    *epoch = trm_json_get_u64(doc, event, "epoch", 0);
    if (*epoch == table->epoch && !out->begun_ms)
        out->begun_ms = trm_json_get_u64(doc, event, "t", 0);
}

static void read_events(const chaos_play *self, const trm_table *table, history *out)
{
    static char line[LINE_BYTES_MAX];
    char path[CHAOS_PATH_BYTES + 64];
    uint64_t epoch = 0;
    snprintf(path, sizeof path, "%s/events.jsonl", self->state);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file)) {
        trm_json_doc doc;
        trm_err err;
        if (trm_json_parse(&doc, line, strcspn(line, "\n"), &err) != TRM_OK)
            continue; /* cut short by a crash */
        take_event(&doc, table, &epoch, out);
        trm_json_doc_close(&doc);
    }
    if (file)
        fclose(file);
}

/* ---- What ran
 * ------------------------------------------------------------------------------------------------ */

static bool was_asleep(const chaos_play *self, int pid)
{
    for (unsigned i = 0; i < self->asleep; i++)
        if (self->asleep_pid[i] == pid)
            return true;
    return false;
}

/* An attempt that began at `ms`. */
static void check_attempt(chaos_play *self, const history *past, bool reduce, unsigned task, uint64_t ms)
{
    const char *what = reduce ? "reduce" : "map";
    uint64_t told_ms = past->ms[reduce][task];
    if (told_ms && ms > told_ms + SLACK_MS)
        chaos_fail(self,
                   "%s task %u was run again %" PRIu64 " ms after the attempt that is committed was prepared",
                   what, task, ms - told_ms);
    if (past->begun_ms && ms > past->begun_ms && past->before[reduce][task])
        chaos_fail(self, "%s task %u was committed when the last launch began, which ran it again", what,
                   task);
}

static bool check_trace(chaos_play *self, const history *past)
{
    FILE *file = fopen(self->trace, "r");
    char what;
    unsigned task, attempts[2] = {0, 0};
    unsigned long long ms;
    int pid;
    while (file && fscanf(file, " %c %u %llu %d", &what, &task, &ms, &pid) == 4) {
        if (task >= TASKS_MAX || what == 'M')
            continue;
        attempts[what == 'r']++;
        if (!was_asleep(self, pid))
            check_attempt(self, past, what == 'r', task, ms);
    }
    if (file)
        fclose(file);
    chaos_say(self, "%u attempts of %u maps, %u of %u reduces, in %u launches", attempts[0],
              self->reference->maps, attempts[1], self->reference->reduces, self->launches);
    return !self->failed;
}

/* Outputs go only with a host, or where a scratch was full. */
static bool check_lost(chaos_play *self, const trm_table_job *job)
{
    uint64_t lost = job->phase[TRM_PHASE_MAP].lost;
    bool may_be = self->mounted || self->schedule->hosts;
    if (lost)
        chaos_say(self, "%" PRIu64 " outputs were lost", lost);
    return !lost || may_be ||
           chaos_fail(self, "%" PRIu64 " committed outputs were lost, and nothing had taken them away", lost);
}

/* A launch that is lost behind _SUCCESS may not have come to say in the log that the job is done. */
static bool check_published(chaos_play *self, const trm_table_job *job)
{
    const trm_table_phase *reduces = &job->phase[TRM_PHASE_REDUCE];
    return reduces->published == reduces->tasks ||
           chaos_fail(self, "in the log %u of %u parts are in place", reduces->published, reduces->tasks);
}

bool chaos_check_log(chaos_play *self)
{
    static history past;
    trm_table table;
    memset(&past, 0, sizeof past);
    trm_table_init(&table);
    if (read_table(self, &table, &past) && table.jobs_count != 1)
        chaos_fail(self, "the log has %u jobs", table.jobs_count);
    if (!self->failed && check_published(self, table.jobs[0])) {
        read_events(self, &table, &past);
        check_lost(self, table.jobs[0]);
        check_trace(self, &past);
    }
    trm_table_close(&table);
    return !self->failed;
}
