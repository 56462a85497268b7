/* Messages of the control plane: raw bytes as a frame, and bytes behind a good header as the body
 * of a message of every kind. What decodes to its last byte must be what would be written. */
#include "jobs/wire.h"

#include <stdlib.h>
#include <string.h>

#define KINDS 32u /* more than there are: an input keeps its meaning when a message is added */
_Static_assert(TRM_WIRE_TYPE_MAX < KINDS, "an input may name any message");

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void hello(trm_reader *in, trm_writer *out)
{
    static trm_hello message;
    trm_hello_decode(&message, in);
    if (trm_reader_ok(in))
        trm_hello_encode(&message, out);
}

static void begin(trm_reader *in, trm_writer *out)
{
    static trm_begin message;
    trm_begin_decode(&message, in);
    check(message.members_len <= sizeof message.members && message.neighbours <= TRM_BEGIN_NEIGHBOURS_MAX);
    if (trm_reader_ok(in))
        trm_begin_encode(&message, out);
}

static void setup(trm_reader *in, trm_writer *out)
{
    trm_setup message = {0};
    if (trm_setup_decode(&message, in) != TRM_OK) {
        check(!message.peers);
        trm_reader_fail(in);
        return;
    }
    trm_setup_encode(&message, out);
    trm_setup_close(&message);
}

static void report(trm_reader *in, trm_writer *out)
{
    trm_report message;
    trm_report_decode(&message, in);
    check(message.phase < TRM_PHASES && message.task < TRM_TASKS_MAX);
    if (trm_reader_ok(in))
        trm_report_encode(&message, out);
}

static void end(trm_reader *in, trm_writer *out)
{
    static trm_end message;
    trm_end_decode(&message, in);
    if (trm_reader_ok(in))
        trm_end_encode(&message, out);
}

static void held(trm_reader *in, trm_writer *out)
{
    trm_held message;
    trm_held_decode(&message, in);
    if (trm_reader_ok(in))
        trm_held_encode(&message, out);
}

static void block(trm_reader *in, trm_writer *out)
{
    trm_block message;
    trm_block_decode(&message, in);
    check(message.first <= message.last || !trm_reader_ok(in));
    if (trm_reader_ok(in))
        trm_block_encode(&message, out);
}

static void small(uint8_t type, trm_reader *in, trm_writer *out)
{
    trm_claim claim;
    trm_order order;
    trm_output_at output;
    trm_store store;
    trm_pulse pulse;
    trm_begun begun;
    trm_leads leads;
    trm_fetch fetch;
    trm_copy copy;
    trm_copied copied;
    switch (type) {
    case TRM_WIRE_CLAIM: /* its head; what follows is as in ORDER */
        trm_claim_decode(&claim, in);
        trm_claim_encode(&claim, out);
        break;
    case TRM_WIRE_ORDER:
    case TRM_WIRE_SETTLED:
    case TRM_WIRE_CANCEL:
    case TRM_WIRE_RECALL:
        trm_order_decode(&order, in);
        trm_order_encode(&order, out);
        break;
    case TRM_WIRE_OUTPUTS:
    case TRM_WIRE_LOST:
        trm_output_at_decode(&output, in);
        trm_output_at_encode(&output, out);
        break;
    case TRM_WIRE_COPY:
        trm_copy_decode(&copy, in);
        trm_copy_encode(&copy, out);
        break;
    case TRM_WIRE_COPIED:
        trm_copied_decode(&copied, in);
        trm_copied_encode(&copied, out);
        break;
    case TRM_WIRE_ADOPT:
        trm_store_decode(&store, in);
        if (trm_reader_ok(in))
            trm_store_encode(&store, out);
        break;
    case TRM_WIRE_PULSE:
        trm_pulse_decode(&pulse, in);
        trm_pulse_encode(&pulse, out);
        if (trm_reader_ok(in) && trm_reader_left(in)) { /* the first of the list */
            trm_begun_decode(&begun, in);
            check(begun.phase < TRM_PHASES && begun.task < TRM_TASKS_MAX);
            if (trm_reader_ok(in))
                trm_begun_encode(&begun, out);
        }
        break;
    case TRM_WIRE_LEADS:
        trm_leads_decode(&leads, in);
        check(leads.voters <= TRM_LEADS_VOTERS_MAX);
        if (trm_reader_ok(in))
            trm_leads_encode(&leads, out);
        break;
    case TRM_WIRE_FETCH:
        trm_fetch_decode(&fetch, in);
        trm_fetch_encode(&fetch, out);
        break;
    default: /* BYE has no body */
        trm_reader_fail(in);
    }
}

static void body(uint8_t type, trm_reader *in, trm_writer *out)
{
    switch (type) {
    case TRM_WIRE_HELLO:
        hello(in, out);
        break;
    case TRM_WIRE_BEGIN:
        begin(in, out);
        break;
    case TRM_WIRE_SETUP:
        setup(in, out);
        break;
    case TRM_WIRE_REPORT:
        report(in, out);
        break;
    case TRM_WIRE_END:
        end(in, out);
        break;
    case TRM_WIRE_HELD:
        held(in, out);
        break;
    case TRM_WIRE_BLOCK:
        block(in, out);
        break;
    default:
        small(type, in, out);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    trm_wire_header header = {0}, found;
    trm_reader in;
    trm_wire_open(bytes, len, &found, &in);
    if (len == 0)
        return 0;
    header.type = (uint8_t)(TRM_WIRE_HELLO + bytes[0] % KINDS);
    header.epoch = bytes[0];
    if (header.type > TRM_WIRE_TYPE_MAX)
        return 0;
    trm_writer frame, again;
    trm_writer_init(&frame);
    trm_writer_init(&again);
    trm_wire_begin(&frame, &header);
    trm_put_bytes(&frame, bytes + 1, len - 1);
    trm_wire_seal(&frame);
    check(trm_wire_open(frame.data, frame.len, &found, &in) == TRM_OK && found.type == header.type &&
          found.epoch == header.epoch && found.term == 0);
    const uint8_t *from = in.at;
    body(header.type, &in, &again);
    check(in.at <= in.end);
    if (trm_reader_ok(&in) && again.len) /* one value has one encoding */
        check(again.len == (size_t)(in.at - from) && memcmp(again.data, from, again.len) == 0);
    if (frame.len > TRM_WIRE_HEADER_BYTES) { /* a bit that has turned on the way */
        frame.data[bytes[0] % frame.len] ^= (uint8_t)(1u << len % 8);
        check(trm_wire_open(frame.data, frame.len, &found, &in) != TRM_OK);
    }
    trm_writer_close(&again);
    trm_writer_close(&frame);
    return 0;
}
