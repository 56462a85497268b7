/* What the program says to people: one line a message, on standard error.
 *
 * (The replicated log is another thing; this is diagnostics.) A line is written
 * with one write(2), so that lines of several processes do not mix. Form:
 *     trireme[RANK]: text          errors and warnings as "trireme[2]: warning: …"
 * The rank is left out before it is known and in the launcher.
 */
#ifndef TRM_RUNTIME_DIAG_H
#define TRM_RUNTIME_DIAG_H

typedef enum trm_diag_level {
    TRM_DIAG_SILENT = -1, /* nothing is shown: for simulations, which provoke what goes wrong */
    TRM_DIAG_ERROR = 0,   /* always shown */
    TRM_DIAG_WARN = 1,    /* shown unless --quiet */
    TRM_DIAG_INFO = 2,    /* shown unless --quiet */
    TRM_DIAG_DEBUG = 3    /* shown with --verbose */
} trm_diag_level;

/* Process-wide; set before any thread is made. `rank` < 0: unknown. */
void trm_diag_configure(trm_diag_level max_level, int rank);
trm_diag_level trm_diag_level_max(void);

void trm_diag(trm_diag_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define trm_error(...) trm_diag(TRM_DIAG_ERROR, __VA_ARGS__)
#define trm_warn(...) trm_diag(TRM_DIAG_WARN, __VA_ARGS__)
#define trm_info(...) trm_diag(TRM_DIAG_INFO, __VA_ARGS__)
#define trm_debug(...) trm_diag(TRM_DIAG_DEBUG, __VA_ARGS__)

#endif
