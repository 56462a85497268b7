/* What rank, supervisor and executors of one crew say to each other. Never leaves the host,
 * never outlives the launch; one datagram or one record of a ring a message.
 *
 *     rank → executor    SETUP   u8 kind · plan and cuts · epoch · hosts · ranks · varint count ·
 *                                ranges of ranks
 *                        ORDERS  u8 kind · u64 generation · varint count · orders
 *     executor → rank    READY   u8 kind · u64 generation · varint status · text · traits
 *     (in its ring)      REPORT  u8 kind · u64 generation · report
 *     supervisor → rank  DIED    u8 kind · varint executor · u64 generation · varint status ·
 *                                text · last words
 *     rank → supervisor  RESPAWN, KILL, STOP   u8 kind · varint executor · u64 number · text
 *
 * Decoders take any bytes at all: an executor runs user code.
 */
#ifndef TRM_WORKERS_CREW_WIRE_H
#define TRM_WORKERS_CREW_WIRE_H

#include "jobs/wire.h"
#include "workers/crew.h"

#define TRM_CREW_DATAGRAM_BYTES_MAX (32u * 1024u)
#define TRM_LAST_WORDS_BYTES 2560u /* with an error's text, within TRM_TEXT_BYTES_MAX */

typedef enum trm_crew_kind {
    TRM_CREW_KIND_SETUP = 1,
    TRM_CREW_KIND_ORDERS,
    TRM_CREW_KIND_READY,
    TRM_CREW_KIND_REPORT,
    TRM_CREW_KIND_DIED,
    TRM_CREW_KIND_RESPAWN, /* number: the generation to make */
    TRM_CREW_KIND_KILL,    /* number: the generation to end; text: why */
    TRM_CREW_KIND_STOP     /* number: milliseconds of grace */
} trm_crew_kind;

#define TRM_CREW_NEAR_MAX 256u /* ranges of ranks that are said; those after them count as remote */

typedef struct trm_crew_ranks { /* [first, end) */
    uint32_t first, end;
} trm_crew_ranks;

typedef struct trm_crew_setup_msg {
    uint32_t plan_crc;
    uint32_t cuts_crc;
    uint64_t epoch;
    uint32_t hosts;
    uint32_t ranks;      /* of the job */
    uint32_t near_count; /* ascending, apart from each other: the ranks of this host */
    trm_crew_ranks near[TRM_CREW_NEAR_MAX];
} trm_crew_setup_msg;

typedef struct trm_crew_ready {
    uint64_t generation;
    trm_status status;
    trm_err err;
    trm_traits traits; /* when status is TRM_OK */
} trm_crew_ready;

typedef struct trm_crew_died {
    uint32_t executor;
    uint64_t generation;
    trm_status status;
    trm_err err;
    char words[TRM_LAST_WORDS_BYTES];
} trm_crew_died;

typedef struct trm_crew_command { /* RESPAWN, KILL, STOP */
    trm_crew_kind kind;
    uint32_t executor;
    uint64_t number;
    char text[256];
} trm_crew_command;

/* Encoders write the kind too; decoders are called with the kind read. */
void trm_crew_setup_encode(const trm_crew_setup_msg *self, trm_writer *out);
void trm_crew_setup_decode(trm_crew_setup_msg *self, trm_reader *in);
void trm_crew_orders_encode(uint64_t generation, const trm_order *orders, unsigned count, trm_writer *out);
/* Fills up to `max` orders; marks `in` failed on more, and on anything else that is wrong. */
void trm_crew_orders_decode(uint64_t *generation, trm_order *orders, unsigned max, unsigned *count,
                            trm_reader *in);
void trm_crew_ready_encode(const trm_crew_ready *self, trm_writer *out);
void trm_crew_ready_decode(trm_crew_ready *self, trm_reader *in);
void trm_crew_report_encode(uint64_t generation, const trm_report *report, trm_writer *out);
void trm_crew_report_decode(uint64_t *generation, trm_report *report, trm_reader *in);
void trm_crew_died_encode(const trm_crew_died *self, trm_writer *out);
void trm_crew_died_decode(trm_crew_died *self, trm_reader *in);
void trm_crew_command_encode(const trm_crew_command *self, trm_writer *out);
void trm_crew_command_decode(trm_crew_command *self, trm_crew_kind kind, trm_reader *in);

#endif
