#include "scheduler/journal.h"

#include "jobs/names.h"
#include "runtime/clock.h"
#include "runtime/diag.h"

#include <stdio.h>

void trm_journal_init(trm_journal *self, trm_fs *fs, const char *state_dir)
{
    *self = (trm_journal){.fs = fs, .state_dir = state_dir};
    trm_writer_init(&self->gathered);
}

static void give_up(trm_journal *self, const trm_err *err)
{
    if (!self->given_up)
        trm_warn("what happens is not recorded any more: %s", err->text);
    self->given_up = true;
    if (self->events)
        self->fs->ops->close(self->events);
    self->events = NULL;
}

/* Behind what earlier launches have appended; a line that a crash has cut short is ended. */
static trm_status open_events(trm_journal *self, trm_err *err)
{
    char path[TRM_FS_PATH_BYTES_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s/" TRM_EVENTS_NAME, self->state_dir) >= sizeof path)
        return trm_err_set(err, TRM_EOUTPUT, "the path is too long: %.200s…", self->state_dir);
    trm_status status = self->fs->ops->open(self->fs, path, TRM_FS_WRITE | TRM_FS_CREATE, &self->events, err);
    if (status == TRM_OK)
        status = self->fs->ops->size(self->events, &self->at, err);
    uint8_t last = '\n';
    size_t got;
    if (status == TRM_OK && self->at)
        status = self->fs->ops->read_at(self->events, self->at - 1, &last, 1, &got, err);
    if (status == TRM_OK && last != '\n')
        status = self->fs->ops->write_at(self->events, self->at++, "\n", 1, err);
    return status;
}

static void append(trm_journal *self)
{
    trm_err err = {""};
    trm_status status = TRM_OK;
    if (!self->gathered.len || self->given_up)
        return;
    if (!self->events)
        status = open_events(self, &err);
    if (status == TRM_OK)
        status =
            self->fs->ops->write_at(self->events, self->at, self->gathered.data, self->gathered.len, &err);
    if (status != TRM_OK)
        give_up(self, &err);
    self->at += self->gathered.len;
    trm_writer_reset(&self->gathered);
}

trm_json *trm_journal_begin(trm_journal *self, const char *what, uint64_t wall_ms)
{
    self->json = (trm_json){.out = &self->gathered};
    trm_json_object(&self->json, NULL);
    trm_json_u64(&self->json, "v", TRM_EVENTS_VERSION);
    trm_json_u64(&self->json, "t", wall_ms);
    trm_json_string(&self->json, "event", what);
    return &self->json;
}

void trm_journal_end(trm_journal *self)
{
    trm_json_close(&self->json);
    trm_json_line(&self->json);
    if (!trm_writer_ok(&self->gathered) || self->given_up)
        trm_writer_reset(&self->gathered); /* without memory it is missed */
    else if (self->gathered.len >= TRM_EVENTS_BYTES)
        append(self);
}

void trm_journal_step(trm_journal *self, uint64_t now_ns, uint64_t *wake_ns)
{
    if (!self->gathered.len) {
        self->flush_ns = now_ns + TRM_EVENTS_FLUSH_MS * TRM_NS_PER_MS;
    } else if (now_ns >= self->flush_ns) {
        append(self);
    } else if (self->flush_ns < *wake_ns) {
        *wake_ns = self->flush_ns;
    }
}

void trm_journal_words(trm_journal *self, const char *name, const char *text, size_t len)
{
    char path[TRM_FS_PATH_BYTES_MAX];
    trm_file *file;
    if (self->words >= TRM_WORDS_FILES_MAX || !len)
        return;
    self->words++;
    if ((size_t)snprintf(path, sizeof path, "%s/" TRM_STDERR_NAME "/%s", self->state_dir, name) >=
        sizeof path)
        return;
    trm_err err = {""};
    trm_status status =
        self->fs->ops->open(self->fs, path, TRM_FS_WRITE | TRM_FS_CREATE | TRM_FS_TRUNCATE, &file, &err);
    if (status == TRM_OK) {
        status = self->fs->ops->write_at(file, 0, text, len, &err);
        self->fs->ops->close(file);
    }
    if (status != TRM_OK)
        trm_debug("the last words of an attempt are not kept: %s", err.text);
}

void trm_journal_close(trm_journal *self)
{
    append(self);
    if (self->events)
        self->fs->ops->close(self->events);
    self->events = NULL;
    trm_writer_close(&self->gathered);
}
