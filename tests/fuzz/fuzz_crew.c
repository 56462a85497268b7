/* What one process of a crew reads from another: any bytes at all, as a message and as a ring. */
#include "workers/board.h"
#include "workers/crew_wire.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void decode(const uint8_t *bytes, size_t len)
{
    static trm_crew_ready ready;
    static trm_crew_died died;
    static trm_report report;
    static trm_order orders[TRM_CREW_QUEUE_MAX];
    trm_crew_setup_msg setup;
    trm_crew_command command;
    uint64_t generation;
    unsigned count;
    trm_reader in;
    trm_reader_init(&in, bytes, len);
    uint8_t kind = trm_get_u8(&in);
    switch (kind) {
    case TRM_CREW_KIND_SETUP:
        trm_crew_setup_decode(&setup, &in);
        break;
    case TRM_CREW_KIND_ORDERS:
        trm_crew_orders_decode(&generation, orders, TRM_CREW_QUEUE_MAX, &count, &in);
        if (count > TRM_CREW_QUEUE_MAX)
            abort();
        break;
    case TRM_CREW_KIND_READY:
        trm_crew_ready_decode(&ready, &in);
        break;
    case TRM_CREW_KIND_REPORT:
        trm_crew_report_decode(&generation, &report, &in);
        if (trm_reader_done(&in) &&
            (report.text_len > TRM_TEXT_BYTES_MAX || report.sample_len > TRM_SAMPLE_BYTES_MAX))
            abort();
        break;
    case TRM_CREW_KIND_DIED:
        trm_crew_died_decode(&died, &in);
        break;
    default:
        trm_crew_command_decode(&command, (trm_crew_kind)kind, &in);
    }
}

/* A lane in which user code has written these bytes: the ring's begin, its head, its words. */
static void take(const uint8_t *bytes, size_t len)
{
    static trm_lane lane;
    static uint8_t out[TRM_RING_RECORD_BYTES_MAX];
    char words[256];
    trm_lane_reset(&lane, 1);
    if (len < 16)
        return;
    memcpy(&lane.head, bytes, 8);
    memcpy(&lane.words_end, bytes + 8, 8);
    memcpy(lane.ring, bytes + 16, len - 16 < TRM_RING_BYTES ? len - 16 : TRM_RING_BYTES);
    size_t got;
    for (unsigned i = 0; i < 64 && trm_lane_take(&lane, out, &got) == TRM_OK; i++)
        decode(out, got);
    if (trm_lane_words(&lane, lane.words_since, words, sizeof words) >= sizeof words)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    decode(bytes, len);
    take(bytes, len);
    return 0;
}
