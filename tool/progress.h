/* How far the job is, for a person: one line drawn over and over on a terminal, a plain line now
 * and then elsewhere; and what it did, at its end. */
#ifndef TRM_TOOL_PROGRESS_H
#define TRM_TOOL_PROGRESS_H

#include "jobs/counters.h"
#include "jobs/traits.h"
#include "scheduler/master.h"

#define TRM_PROGRESS_DRAW_MS 250u    /* between two drawings on a terminal */
#define TRM_PROGRESS_PLAIN_MS 10000u /* between two plain lines of one phase */

typedef struct trm_progress_view { /* zero-initialise */
    const char *phase;             /* as shown last */
    uint64_t phase_ns, next_ns;
    uint64_t rate_ns, rate_bytes; /* of the last look */
    double bytes_s;               /* smoothed; 0: not known */
    double began_fraction;        /* of the phase that was done when it was first seen */
    bool wrote;                   /* a line was drawn that is still there */
} trm_progress_view;

#define TRM_PROGRESS_TEXT_BYTES 512u

/* Shows `progress` if it is time to; *wake_ns is lowered to when it will be. */
void trm_progress_show(trm_progress_view *self, const trm_progress *progress, uint64_t now_ns,
                       uint64_t *wake_ns);
/* The line: "mapping: 12 of 48 tasks, 310 MB of 1.2 GB, 250 MB/s, 4 s left". No clock, no output. */
void trm_progress_format(trm_progress_view *self, const trm_progress *progress, uint64_t now_ns,
                         char out[TRM_PROGRESS_TEXT_BYTES]);

/* The closing words: what was done, in how long, where it lies; and the counters. */
void trm_progress_summary(const trm_progress *progress, const trm_counters *counters,
                          const trm_traits *traits, const trm_spec *spec);

#define TRM_HUMAN_BYTES 16u
/* "312", "4.5 MB", "1.2 GB": powers of 1000. */
void trm_human_bytes(double bytes, char out[TRM_HUMAN_BYTES]);
/* "12 s", "3 min 5 s", "2 h 10 min". */
void trm_human_seconds(double seconds, char out[32]);

#endif
