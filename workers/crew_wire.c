/* See crew_wire.h. */
#include "workers/crew_wire.h"

#include <assert.h>

_Static_assert(TRM_LAST_WORDS_BYTES + TRM_ERR_TEXT_BYTES < TRM_TEXT_BYTES_MAX, "both fit into a report");
_Static_assert(TRM_CREW_NEAR_MAX * 10 + 64 < TRM_CREW_DATAGRAM_BYTES_MAX, "all ranges fit into a datagram");
_Static_assert(TRM_CREW_QUEUE_MAX *TRM_ORDER_BYTES_MAX + 16 < TRM_CREW_DATAGRAM_BYTES_MAX,
               "a full queue fits into a datagram");

static trm_status get_status(trm_reader *in)
{
    uint64_t value = trm_get_varint(in);
    if (value <= UINT32_MAX && trm_status_valid((uint32_t)value))
        return (trm_status)value;
    trm_reader_fail(in);
    return TRM_ECORRUPT;
}

void trm_crew_setup_encode(const trm_crew_setup_msg *self, trm_writer *out)
{
    trm_put_u8(out, TRM_CREW_KIND_SETUP);
    trm_put_u32(out, self->plan_crc);
    trm_put_u32(out, self->cuts_crc);
    trm_put_u64(out, self->epoch);
    trm_put_varint(out, self->hosts);
    trm_put_varint(out, self->ranks);
    trm_put_varint(out, self->near_count);
    for (uint32_t i = 0; i < self->near_count; i++) {
        trm_put_varint(out, self->near[i].first);
        trm_put_varint(out, self->near[i].end);
    }
}

void trm_crew_setup_decode(trm_crew_setup_msg *self, trm_reader *in)
{
    self->plan_crc = trm_get_u32(in);
    self->cuts_crc = trm_get_u32(in);
    self->epoch = trm_get_u64(in);
    self->hosts = (uint32_t)trm_get_varint_max(in, TRM_RANKS_MAX);
    self->ranks = (uint32_t)trm_get_varint_max(in, TRM_RANKS_MAX);
    self->near_count = (uint32_t)trm_get_varint_max(in, TRM_CREW_NEAR_MAX);
    for (uint32_t i = 0, before = 0; i < self->near_count; i++) {
        trm_crew_ranks *range = &self->near[i];
        range->first = (uint32_t)trm_get_varint_max(in, self->ranks);
        range->end = (uint32_t)trm_get_varint_max(in, self->ranks);
        if (range->first >= range->end || (i && range->first <= before))
            trm_reader_fail(in);
        before = range->end;
    }
}

void trm_crew_orders_encode(uint64_t generation, const trm_order *orders, unsigned count, trm_writer *out)
{
    assert(count <= TRM_CREW_QUEUE_MAX);
    trm_put_u8(out, TRM_CREW_KIND_ORDERS);
    trm_put_u64(out, generation);
    trm_put_varint(out, count);
    for (unsigned i = 0; i < count; i++)
        trm_order_encode(&orders[i], out);
}

void trm_crew_orders_decode(uint64_t *generation, trm_order *orders, unsigned max, unsigned *count,
                            trm_reader *in)
{
    *generation = trm_get_u64(in);
    unsigned want = (unsigned)trm_get_varint_max(in, max);
    for (unsigned i = 0; i < want; i++)
        trm_order_decode(&orders[i], in);
    *count = trm_reader_done(in) ? want : 0;
}

void trm_crew_ready_encode(const trm_crew_ready *self, trm_writer *out)
{
    trm_put_u8(out, TRM_CREW_KIND_READY);
    trm_put_u64(out, self->generation);
    trm_put_varint(out, self->status);
    trm_put_string(out, self->err.text);
    if (self->status == TRM_OK)
        trm_traits_encode(&self->traits, out);
}

void trm_crew_ready_decode(trm_crew_ready *self, trm_reader *in)
{
    self->generation = trm_get_u64(in);
    self->status = get_status(in);
    trm_get_string(in, self->err.text, sizeof self->err.text);
    if (self->status == TRM_OK)
        trm_traits_decode(&self->traits, in);
}

void trm_crew_report_encode(uint64_t generation, const trm_report *report, trm_writer *out)
{
    trm_put_u8(out, TRM_CREW_KIND_REPORT);
    trm_put_u64(out, generation);
    trm_report_encode(report, out);
}

void trm_crew_report_decode(uint64_t *generation, trm_report *report, trm_reader *in)
{
    *generation = trm_get_u64(in);
    trm_report_decode(report, in);
}

void trm_crew_died_encode(const trm_crew_died *self, trm_writer *out)
{
    trm_put_u8(out, TRM_CREW_KIND_DIED);
    trm_put_varint(out, self->executor);
    trm_put_u64(out, self->generation);
    trm_put_varint(out, self->status);
    trm_put_string(out, self->err.text);
    trm_put_string(out, self->words);
}

void trm_crew_died_decode(trm_crew_died *self, trm_reader *in)
{
    self->executor = (uint32_t)trm_get_varint_max(in, TRM_EXECUTORS_MAX);
    self->generation = trm_get_u64(in);
    self->status = get_status(in);
    trm_get_string(in, self->err.text, sizeof self->err.text);
    trm_get_string(in, self->words, sizeof self->words);
}

void trm_crew_command_encode(const trm_crew_command *self, trm_writer *out)
{
    trm_put_u8(out, (uint8_t)self->kind);
    trm_put_varint(out, self->executor);
    trm_put_u64(out, self->number);
    trm_put_string(out, self->text);
}

void trm_crew_command_decode(trm_crew_command *self, trm_crew_kind kind, trm_reader *in)
{
    self->kind = kind;
    self->executor = (uint32_t)trm_get_varint_max(in, TRM_EXECUTORS_MAX);
    self->number = trm_get_u64(in);
    trm_get_string(in, self->text, sizeof self->text);
}
