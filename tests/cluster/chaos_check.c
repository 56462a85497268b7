/* What a job has left behind when it is done: the output of the undisturbed run byte by byte, the same
 * counters, nothing in scratch, no process; and (chaos_log.c) nothing that was done twice. */
#include "config.h" /* system extensions, before any header of the system */

#include "tests/cluster/chaos_play.h"

#include "runtime/clock.h"
#include "runtime/fs.h"
#include "runtime/json_reader.h"

#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OUTPUT_BYTES_MAX (256u * 1024u * 1024u)
#define END_MS 30000u /* for processes to go when the job is over */

/* ---- Files -------------------------------------------------------------------------------------------- */

typedef struct blob {
    uint8_t *bytes;
    size_t len;
} blob;

static bool read_blob(const char *dir, const char *name, blob *out)
{
    char path[2 * CHAOS_PATH_BYTES];
    trm_err err;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    *out = (blob){NULL, 0};
    return trm_fs_read_whole(trm_fs_posix(), path, OUTPUT_BYTES_MAX, &out->bytes, &out->len, &err) == TRM_OK;
}

static bool same_file(chaos_play *self, const char *name)
{
    blob want, got;
    bool there = read_blob(self->reference->out, name, &want);
    there = read_blob(self->out, name, &got) && there;
    bool same = there && want.len == got.len && memcmp(want.bytes, got.bytes, want.len) == 0;
    free(want.bytes);
    free(got.bytes);
    return same || chaos_fail(self, "%s is not that of the undisturbed run", name);
}

/* Nothing but the parts of the undisturbed run. */
static bool check_output(chaos_play *self)
{
    DIR *dir = opendir(self->out);
    bool same = dir != NULL;
    for (struct dirent *at; same && (at = readdir(dir));) {
        const char *name = at->d_name;
        if (strncmp(name, "part-", 5) == 0)
            same = same_file(self, name);
        else if (strcmp(name, ".") && strcmp(name, "..") && strcmp(name, ".trireme") &&
                 strcmp(name, "_SUCCESS"))
            same = chaos_fail(self, "%s is in the output directory", name);
    }
    if (dir)
        closedir(dir);
    if (same && chaos_parts_in(self->out) != self->reference->parts)
        same = chaos_fail(self, "%u parts, not %u", chaos_parts_in(self->out), self->reference->parts);
    return same;
}

static bool check_empty(chaos_play *self, const char *dir, const char *prefix, const char *what)
{
    DIR *open_dir = opendir(dir);
    bool empty = true;
    for (struct dirent *at; open_dir && empty && (at = readdir(open_dir));)
        if (at->d_name[0] != '.' && strncmp(at->d_name, prefix, strlen(prefix)) == 0)
            empty = chaos_fail(self, "%s is left in %s", at->d_name, what);
    if (open_dir)
        closedir(open_dir);
    return empty;
}

static bool was_killed(const chaos_play *self, pid_t pid)
{
    for (unsigned i = 0; i < self->killed; i++)
        if (self->killed_pid[i] == pid)
            return true;
    return false;
}

/* Somebody of the last launch was there at the end to tidy up. */
static bool was_left_by(const chaos_play *self, unsigned host)
{
    chaos_status status;
    if (self->host_died[host] || !chaos_status_read(self, &status) || status.running)
        return false;
    for (unsigned i = 0; i < status.ranks; i++)
        if (status.rank[i].host == host && !was_killed(self, status.rank[i].pid) &&
            (strcmp(status.rank[i].state, "ready") == 0 || strcmp(status.rank[i].state, "gone") == 0))
            return true;
    return false;
}

static bool check_nothing_left(chaos_play *self)
{
    char path[CHAOS_PATH_BYTES + 64];
    snprintf(path, sizeof path, "%s/attempts", self->state);
    if (!check_empty(self, path, "", "the directory of attempts") ||
        !check_empty(self, self->scratch, "", "scratch"))
        return false;
    for (unsigned host = 1; self->schedule->hosts && host <= CHAOS_HOSTS; host++) {
        snprintf(path, sizeof path, "%s/tmp%u", self->world->dir, host);
        if (was_left_by(self, host) && !check_empty(self, path, "trireme-", "scratch"))
            return false;
    }
    return true;
}

/* ---- Counters --------------------------------------------------------------------------------------------
 */

/* Those that do not depend on where a task ran, nor on how much of it was compressed. */
static const char *const counters[] = {
    "map_records_in", "map_bytes_in",      "map_records_out", "map_bytes_out", "combine_records_out",
    "reduce_keys_in", "reduce_records_in", "output_records",  "output_bytes",  "shuffle_raw_bytes",
    "pairs",          "unpaired"};

static bool read_manifest(const char *dir, trm_json_doc *out)
{
    blob file;
    trm_err err;
    bool well =
        read_blob(dir, "_SUCCESS", &file) && trm_json_parse(out, file.bytes, file.len, &err) == TRM_OK;
    free(file.bytes);
    return well;
}

static bool check_counters(chaos_play *self)
{
    trm_json_doc want, got;
    if (!read_manifest(self->reference->out, &want))
        return chaos_fail(self, "the undisturbed run has left no _SUCCESS");
    if (!read_manifest(self->out, &got)) {
        trm_json_doc_close(&want);
        return chaos_fail(self, "there is no _SUCCESS that can be read");
    }
    const trm_json_value *wanted = trm_json_find(&want, trm_json_root(&want), "counters");
    const trm_json_value *found = trm_json_find(&got, trm_json_root(&got), "counters");
    for (size_t i = 0; i < sizeof counters / sizeof counters[0]; i++) {
        uint64_t a = trm_json_get_u64(&want, wanted, counters[i], 0);
        uint64_t b = trm_json_get_u64(&got, found, counters[i], 0);
        if (a != b)
            chaos_fail(self, "%s is %llu, in the undisturbed run it is %llu", counters[i],
                       (unsigned long long)b, (unsigned long long)a);
    }
    trm_json_doc_close(&want);
    trm_json_doc_close(&got);
    return !self->failed;
}

/* ---- Processes
 * ---------------------------------------------------------------------------------------------- */

/* This process adopts whatever its descendants leave (PR_SET_CHILD_SUBREAPER): none is left when it
 * has no child. */
static bool check_processes(chaos_play *self)
{
    uint64_t until_ns = trm_clock_now_ns() + END_MS * TRM_NS_PER_MS;
    while (chaos_reap(self) && trm_clock_now_ns() < until_ns)
        usleep(CHAOS_POLL_US);
    chaos_process left[CHAOS_PROCESSES_MAX];
    unsigned count = chaos_processes(self->world, left);
    for (unsigned i = 0; i < count; i++)
        chaos_say(self, "left: pid %d, %s, of rank %d", (int)left[i].pid, left[i].name, left[i].rank);
    if (count)
        return chaos_fail(self, "%u processes are left", count);
    return true;
}

bool chaos_check(chaos_play *self)
{
    return check_processes(self) && check_output(self) && check_counters(self) && check_nothing_left(self) &&
           chaos_check_log(self);
}
