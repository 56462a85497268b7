/* The job's own record in the state directory: STATE/events.jsonl, what happened when, and
 * STATE/stderr/, the last words of failed attempts. docs/events.md describes both for readers.
 *
 * Events are gathered and appended together. A record that cannot be written stops being written,
 * which is said once: the job is not to fail for it.
 */
#ifndef TRM_SCHEDULER_JOURNAL_H
#define TRM_SCHEDULER_JOURNAL_H

#include "runtime/fs.h"
#include "runtime/json.h"

#define TRM_EVENTS_VERSION 1u
#define TRM_EVENTS_BYTES 65536u   /* gathered; then they are appended */
#define TRM_EVENTS_FLUSH_MS 1000u /* … or after so long */
#define TRM_EVENT_TASKS_MAX                                                                                  \
    20000u                       /* attempts of a launch with an event each; beyond: counts once a second    \
                                  */
#define TRM_WORDS_FILES_MAX 100u /* files in stderr/ of a launch */

typedef struct trm_journal {
    trm_fs *fs;
    const char *state_dir;
    trm_file *events; /* NULL: not opened yet, or given up */
    uint64_t at, flush_ns;
    trm_writer gathered;
    trm_json json;
    bool given_up;
    unsigned words; /* files written */
} trm_journal;

/* Borrows both. Nothing is opened before the first event is appended. */
void trm_journal_init(trm_journal *self, trm_fs *fs, const char *state_dir);
void trm_journal_close(trm_journal *self); /* appends what is gathered */

/* Begins an event; put its values into what is returned, then trm_journal_end. */
trm_json *trm_journal_begin(trm_journal *self, const char *what, uint64_t wall_ms);
void trm_journal_end(trm_journal *self);
/* Appends what is due; *wake_ns is lowered to when something will be. */
void trm_journal_step(trm_journal *self, uint64_t now_ns, uint64_t *wake_ns);
/* STATE/stderr/NAME. */
void trm_journal_words(trm_journal *self, const char *name, const char *text, size_t len);

#endif
