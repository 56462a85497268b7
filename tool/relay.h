/* What mpirun and its ranks print, on its way to a person: lines that the launcher itself is
 * meant to read are taken out (launched.h), and so is mpirun's noise about ranks that died,
 * which is no news to a system that expects it.
 *
 * No I/O: bytes in, calls out. */
#ifndef TRM_TOOL_RELAY_H
#define TRM_TOOL_RELAY_H

#include "tool/launched.h"

#include <stdbool.h>
#include <stddef.h>

#define TRM_RELAY_LINE_BYTES 8192u    /* longer ones are passed on in pieces */
#define TRM_RELAY_BANNER_BYTES 16384u /* of text between two rules of dashes */

typedef struct trm_relay_calls {
    void (*show)(void *context, const char *text, size_t len);       /* whole lines, with their newline */
    void (*told)(void *context, const char *kind, const char *text); /* a marked line of a rank */
    void *context;
} trm_relay_calls;

/* One a stream; zero-initialise, then set `calls`, `token` and `keep_noise`. */
typedef struct trm_relay {
    trm_relay_calls calls;
    char token[TRM_LAUNCH_TOKEN_BYTES];
    bool keep_noise;
    char line[TRM_RELAY_LINE_BYTES];
    size_t line_len;
    bool in_piece; /* the begin of this line has been passed on already */
    char banner[TRM_RELAY_BANNER_BYTES];
    size_t banner_len; /* not 0: within a banner, its first rule included */
} trm_relay;

void trm_relay_put(trm_relay *self, const char *bytes, size_t len);
/* The stream has ended: passes on what is left. */
void trm_relay_end(trm_relay *self);

#endif
