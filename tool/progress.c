#include "config.h" /* system extensions, before any header of the system */

#include "tool/progress.h"

#include "jobs/names.h"
#include "runtime/clock.h"
#include "runtime/diag.h"
#include "tool/launched.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define RATE_WEIGHT 0.25  /* of the last look in the rate that is shown */
#define FRACTION_MIN 0.02 /* done, before a guess is made of what is left */

void trm_human_bytes(double bytes, char out[TRM_HUMAN_BYTES])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    unsigned unit = 0;
    while (bytes >= 999.5 && unit < 5) {
        bytes /= 1000;
        unit++;
    }
    snprintf(out, TRM_HUMAN_BYTES, unit && bytes < 9.95 ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
}

void trm_human_seconds(double seconds, char out[32])
{
    uint64_t whole = seconds < 0 ? 0 : (uint64_t)(seconds + 0.5);
    if (whole < 60)
        snprintf(out, 32, "%u s", (unsigned)whole);
    else if (whole < 3600)
        snprintf(out, 32, "%u min %u s", (unsigned)(whole / 60), (unsigned)(whole % 60));
    else
        snprintf(out, 32, "%" PRIu64 " h %u min", whole / 3600, (unsigned)(whole / 60 % 60));
}

/* ---- The line ---------------------------------------------------------------------------------- */

typedef struct text {
    char *at;
    size_t left;
} text;

static void add(text *self, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void add(text *self, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(self->at, self->left, format, args);
    va_end(args);
    size_t took = len < 0 ? 0 : (size_t)len < self->left ? (size_t)len : self->left - 1;
    self->at += took;
    self->left -= took;
}

/* The phase that is worked on; NULL: none that has tasks. */
static const trm_phase_progress *current(const trm_progress *progress)
{
    static const struct {
        const char *name;
        trm_phase phase;
    } phases[] = {{"sampling", TRM_PHASE_SAMPLE}, {"mapping", TRM_PHASE_MAP}, {"reducing", TRM_PHASE_REDUCE}};
    for (size_t i = 0; i < sizeof phases / sizeof phases[0]; i++)
        if (strcmp(progress->phase, phases[i].name) == 0 && progress->of[phases[i].phase].total)
            return &progress->of[phases[i].phase];
    return NULL;
}

static bool reads_input(const trm_progress *progress)
{
    return strcmp(progress->phase, "mapping") == 0 && progress->bytes_total > 0;
}

static double fraction_done(const trm_progress *progress, const trm_phase_progress *phase)
{
    if (reads_input(progress)) {
        double fraction = (double)progress->bytes_in / (double)progress->bytes_total;
        return fraction < 1 ? fraction : 1; /* gzip: more is read than lies on disk */
    }
    return (double)phase->done / phase->total;
}

static void add_rate(trm_progress_view *self, const trm_progress *progress, uint64_t now_ns, text *out)
{
    char done[TRM_HUMAN_BYTES], total[TRM_HUMAN_BYTES], rate[TRM_HUMAN_BYTES];
    if (self->rate_ns && now_ns > self->rate_ns && progress->bytes_in >= self->rate_bytes) {
        double now_s =
            (double)(progress->bytes_in - self->rate_bytes) * 1e9 / (double)(now_ns - self->rate_ns);
        self->bytes_s = self->bytes_s > 0 ? self->bytes_s + RATE_WEIGHT * (now_s - self->bytes_s) : now_s;
    }
    self->rate_ns = now_ns;
    self->rate_bytes = progress->bytes_in;
    trm_human_bytes((double)progress->bytes_in, done);
    trm_human_bytes((double)progress->bytes_total, total);
    trm_human_bytes(self->bytes_s, rate);
    add(out, ", %s of %s", done, total);
    if (self->bytes_s > 0)
        add(out, ", %s/s", rate);
}

static void add_time_left(const trm_progress_view *self, double fraction, uint64_t now_ns, text *out)
{
    char left[32];
    double gone = fraction - self->began_fraction;
    if (gone < FRACTION_MIN || fraction >= 1)
        return;
    trm_human_seconds((double)(now_ns - self->phase_ns) / 1e9 * (1 - fraction) / gone, left);
    add(out, ", %s left", left);
}

void trm_progress_format(trm_progress_view *self, const trm_progress *progress, uint64_t now_ns,
                         char out[TRM_PROGRESS_TEXT_BYTES])
{
    text line = {.at = out, .left = TRM_PROGRESS_TEXT_BYTES};
    const trm_phase_progress *phase = current(progress);
    bool news = !self->phase || strcmp(self->phase, progress->phase) != 0;
    if (news) {
        self->phase = progress->phase;
        self->phase_ns = now_ns;
        self->began_fraction = phase ? fraction_done(progress, phase) : 0;
        self->rate_ns = 0;
        self->bytes_s = 0;
    }
    add(&line, "%s", progress->phase);
    if (phase) {
        double fraction = fraction_done(progress, phase);
        add(&line, " %.0f%%: %u of %u tasks", 100 * fraction, phase->done, phase->total);
        if (reads_input(progress))
            add_rate(self, progress, now_ns, &line);
        add_time_left(self, fraction, now_ns, &line);
    }
    if (progress->attempts_failed)
        add(&line, ", %" PRIu64 " failed attempt%s", progress->attempts_failed,
            progress->attempts_failed == 1 ? "" : "s");
    if (progress->records_skipped)
        add(&line, ", %" PRIu64 " bad record%s", progress->records_skipped,
            progress->records_skipped == 1 ? "" : "s");
    if (progress->outputs_lost)
        add(&line, ", %" PRIu64 " made again", progress->outputs_lost);
    if (progress->ranks_alive < progress->ranks && strcmp(progress->phase, "starting") != 0)
        add(&line, ", %u of %u ranks", progress->ranks_alive, progress->ranks);
}

/* Cut to the terminal's width, in whole characters (all of ours are ASCII). */
static void draw(char *line, unsigned columns)
{
    if (strlen(line) >= columns)
        line[columns - 1] = 0;
    trm_launch_tell("progress", line);
}

void trm_progress_show(trm_progress_view *self, const trm_progress *progress, uint64_t now_ns,
                       uint64_t *wake_ns)
{
    char line[TRM_PROGRESS_TEXT_BYTES];
    unsigned columns = trm_launch_terminal_columns();
    if (trm_diag_level_max() < TRM_DIAG_INFO)
        return;
    bool news = !self->phase || strcmp(self->phase, progress->phase) != 0;
    if (now_ns >= self->next_ns || (news && !columns)) {
        bool plain = !columns && current(progress); /* phases without tasks are short */
        trm_progress_format(self, progress, now_ns, line);
        if (columns)
            draw(line, columns);
        else if (plain)
            trm_info("%s", line);
        self->next_ns = now_ns + (columns ? TRM_PROGRESS_DRAW_MS : TRM_PROGRESS_PLAIN_MS) * TRM_NS_PER_MS;
    }
    *wake_ns = self->next_ns < *wake_ns ? self->next_ns : *wake_ns;
}

/* ---- The end ------------------------------------------------------------------------------------- */

static void show_counter(const char *name, uint64_t value)
{
    if (name && value)
        trm_info("  %-24s %" PRIu64, name, value);
}

static void show_counters(const trm_progress *progress, const trm_counters *counters,
                          const trm_traits *traits)
{
    for (unsigned i = 0; i < TRM_COUNTER_COUNT; i++) {
        const char *name = trm_counter_name(i);
        if (i >= TRM_COUNTER_USER && i - TRM_COUNTER_USER < traits->counters_count)
            name = traits->counters[i - TRM_COUNTER_USER];
        show_counter(name, counters->value[i]);
    }
    show_counter("attempts_failed", progress->attempts_failed);
    show_counter("outputs_lost", progress->outputs_lost);
    show_counter("outputs_copied", progress->outputs_copied);
    show_counter("outputs_copied_bytes", progress->outputs_copied_bytes);
    show_counter("copies_used", progress->copies_used);
}

void trm_progress_summary(const trm_progress *progress, const trm_counters *counters,
                          const trm_traits *traits, const trm_spec *spec)
{
    char read[TRM_HUMAN_BYTES], wrote[TRM_HUMAN_BYTES], took[32];
    double seconds = (double)progress->launch_ms / 1e3;
    trm_human_bytes((double)counters->value[TRM_COUNTER_MAP_BYTES_IN], read);
    trm_human_bytes((double)counters->value[TRM_COUNTER_OUTPUT_BYTES], wrote);
    if (seconds < 10)
        snprintf(took, sizeof took, "%.2f s", seconds);
    else
        trm_human_seconds(seconds, took);
    show_counters(progress, counters, traits);
    trm_info("done in %s: %u map task%s, %s read, %s written to %s", took, progress->of[TRM_PHASE_MAP].total,
             progress->of[TRM_PHASE_MAP].total == 1 ? "" : "s", read, wrote, spec->output_dir);
    uint64_t skipped = counters->value[TRM_COUNTER_MAP_RECORDS_SKIPPED];
    if (skipped)
        trm_warn("%" PRIu64 " bad record%s left out: see %s/" TRM_SKIPPED_NAME, skipped,
                 skipped == 1 ? " was" : "s were", spec->state_dir);
}
