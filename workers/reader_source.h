/* The bytes of one input file, plain or gzip, in order.
 *
 * What the plan says of the file holds: bytes beyond its size at planning are not read (a log
 * that grows gives the same records to every attempt), a file that has shrunk or gone is
 * TRM_EINPUT with its name. Only pread into the caller's memory: a file that shrinks while it
 * is read is an error and no signal.
 *
 * gzip (RFC 1952): any number of members, zeros behind the last. Damage, truncation and other
 * bytes behind the last member are TRM_EINPUT with name and offset.
 */
#ifndef TRM_WORKERS_READER_SOURCE_H
#define TRM_WORKERS_READER_SOURCE_H

#include "jobs/plan.h"

/* What inflating takes from malloc: made for the first gzip file, kept until destroy. */
#define TRM_SOURCE_GZIP_BYTES (192u * 1024u)

struct trm_inflater;

typedef struct trm_source {
    const trm_plan_file *file; /* NULL: closed */
    int fd;
    uint64_t at;                   /* the next byte of the file, as it is on disk */
    struct trm_inflater *inflater; /* NULL until it is needed */
} trm_source;

/* Opens at `offset` (0 for gzip, asserted) of a file of a plan, which is borrowed. A zeroed
 * source is closed. TRM_EINPUT, TRM_EIO, TRM_ENOMEM; it stays closed then. */
trm_status trm_source_open(trm_source *self, const trm_plan_file *file, uint64_t offset, trm_err *err);
/* Up to `room` uncompressed bytes into `out`; *got is less only at the end, where it is 0 at
 * last. */
trm_status trm_source_read(trm_source *self, void *out, size_t room, size_t *got, trm_err *err);
void trm_source_close(trm_source *self); /* keeps memory for the next */
void trm_source_destroy(trm_source *self);

#endif
