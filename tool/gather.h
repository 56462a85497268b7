/* The HELLO of the ranks, gathered: what the job is, as the first executors that are up found it,
 * and who can work on it. */
#ifndef TRM_TOOL_GATHER_H
#define TRM_TOOL_GATHER_H

#include "jobs/spec.h"
#include "jobs/wire.h"

/* A HELLO, kept: whoever becomes the master is given it. */
typedef struct trm_greeting {
    uint8_t *body; /* NULL: it has not come */
    size_t len;
    trm_wire_header header;
    bool able;     /* its executors work */
    uint32_t host; /* the same number for ranks that share one */
    uint64_t pid;
    char *host_name;
} trm_greeting;

typedef struct trm_gather {
    uint32_t ranks;
    trm_greeting *greeting; /* one a rank */
    uint32_t greeted, able;
    uint64_t executors, executor_memory_bytes; /* of all ranks; of the smallest executor */
    trm_traits traits;                         /* when one is able */
    trm_status first_status;                   /* why the first rank that is not able is not … */
    char first_text[TRM_TEXT_BYTES_MAX];
    bool show_bindings;
} trm_gather;

trm_status trm_gather_init(trm_gather *self, uint32_t ranks, bool show_bindings, trm_err *err);
void trm_gather_close(trm_gather *self); /* also of a zeroed one */
/* The first HELLO of a rank counts; what cannot be read or kept is said again by the worker. */
void trm_gather_take(trm_gather *self, uint32_t from, const trm_wire_header *header, trm_reader *body);

#endif
