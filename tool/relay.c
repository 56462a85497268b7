#include "config.h" /* system extensions, before any header of the system */

#include "tool/relay.h"

#include <string.h>

#define RULE_DASHES_MIN 40u

/* Lines that Open MPI prints when a rank is gone; none of them asks anybody to do anything. */
static const char *const noise[] = {
    "PMIX ERROR",
    "ORTE_ERROR_LOG",
    "PMIx_Init",
    "more process has sent help message",
    "more processes have sent help message",
    "orte_base_help_aggregate",
    "mca_btl_tcp_",
    "btl_tcp_endpoint",
    "pmix_ptl",
    "unable to send message to",
    "lost connection",
    ": Forwarding signal ",
};

/* The same for what stands between two rules. */
static const char *const banner_noise[] = {
    "mpirun noticed that process rank",
    "mpirun has exited due to process rank",
    "Primary job  terminated normally",
    "one process returned a non-zero exit code",
    "An MPI communication peer process has unexpectedly disconnected",
    "peer hung up",
    "ORTE has lost communication with a remote daemon",
    "noticed that the job aborted",
};

static bool has_any(const char *text, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strstr(text, list[i]))
            return true;
    return false;
}

static bool is_rule(const char *line, size_t len)
{
    while (len && (line[len - 1] == '\n' || line[len - 1] == '\r'))
        len--;
    return len >= RULE_DASHES_MIN && strspn(line, "-") == len;
}

static void show(trm_relay *self, const char *text, size_t len)
{
    if (len)
        self->calls.show(self->calls.context, text, len);
}

static void end_banner(trm_relay *self)
{
    self->banner[self->banner_len] = 0;
    if (!has_any(self->banner, banner_noise, sizeof banner_noise / sizeof banner_noise[0]))
        show(self, self->banner, self->banner_len);
    self->banner_len = 0;
}

/* A line that is kept back until its banner has ended. False: there is no banner, or it is
 * longer than any of mpirun's, so that it was text that somebody wants to read. */
static bool banner_takes(trm_relay *self, const char *line, size_t len)
{
    bool rule = is_rule(line, len);
    if (!self->banner_len && !rule)
        return false;
    if (self->banner_len + len >= sizeof self->banner) {
        show(self, self->banner, self->banner_len);
        self->banner_len = 0;
        return false;
    }
    bool last = self->banner_len && rule;
    memcpy(self->banner + self->banner_len, line, len);
    self->banner_len += len;
    if (last)
        end_banner(self);
    return true;
}

/* TOKEN KIND TEXT */
static bool told(trm_relay *self, const char *line)
{
    size_t token_len = sizeof self->token - 1;
    if (line[0] != TRM_LAUNCH_MARK || strncmp(line + 1, self->token, token_len) != 0 ||
        line[1 + token_len] != ' ')
        return false;
    char kind[32];
    const char *word = line + token_len + 2;
    size_t len = strcspn(word, " ");
    if (len >= sizeof kind)
        return false;
    memcpy(kind, word, len);
    kind[len] = 0;
    self->calls.told(self->calls.context, kind, word[len] ? word + len + 1 : "");
    return true;
}

/* A line, its newline included, terminated. */
static void take_line(trm_relay *self, char *line, size_t len)
{
    char *newline = line + len - 1;
    *newline = 0;
    bool taken = told(self, line);
    *newline = '\n';
    if (taken)
        return;
    if (self->keep_noise) {
        show(self, line, len);
        return;
    }
    if (banner_takes(self, line, len) || has_any(line, noise, sizeof noise / sizeof noise[0]))
        return;
    show(self, line, len);
}

void trm_relay_put(trm_relay *self, const char *bytes, size_t len)
{
    while (len) {
        const char *newline = memchr(bytes, '\n', len);
        size_t part = newline ? (size_t)(newline - bytes) + 1 : len;
        if (part > sizeof self->line - 1 - self->line_len)
            part = sizeof self->line - 1 - self->line_len;
        memcpy(self->line + self->line_len, bytes, part);
        self->line_len += part;
        self->line[self->line_len] = 0;
        bytes += part;
        len -= part;
        bool whole = self->line[self->line_len - 1] == '\n';
        if (!whole && self->line_len < sizeof self->line - 1)
            continue;
        if (self->in_piece || !whole)
            show(self, self->line, self->line_len);
        else
            take_line(self, self->line, self->line_len);
        self->in_piece = !whole;
        self->line_len = 0;
    }
}

void trm_relay_end(trm_relay *self)
{
    show(self, self->banner, self->banner_len);
    show(self, self->line, self->line_len);
    self->banner_len = self->line_len = 0;
}
