/* Encoders and decoders of the control plane's messages; see wire.h for who says what.
 * Numbers are varints unless they are random by nature (checksums: u32). */
#include "jobs/wire.h"

#include "runtime/crc32c.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define CRC_AT (TRM_WIRE_HEADER_BYTES - 4u)
#define PEER_BYTES_MIN 2u /* what one peer takes in a frame at the least */

static uint32_t frame_crc(const uint8_t *frame, size_t len)
{
    uint32_t crc = trm_crc32c(0, frame, CRC_AT);
    return trm_crc32c(crc, frame + TRM_WIRE_HEADER_BYTES, len - TRM_WIRE_HEADER_BYTES);
}

void trm_wire_begin(trm_writer *out, const trm_wire_header *header)
{
    assert(header->type >= TRM_WIRE_HELLO && header->type <= TRM_WIRE_TYPE_MAX);
    trm_writer_reset(out);
    trm_put_u32(out, TRM_WIRE_MAGIC);
    trm_put_u16(out, TRM_WIRE_VERSION);
    trm_put_u8(out, header->type);
    trm_put_u8(out, 0);
    trm_put_u64(out, header->epoch);
    trm_put_u64(out, header->term);
    trm_put_u32(out, 0);
}

void trm_wire_seal(trm_writer *out)
{
    if (!trm_writer_ok(out))
        return;
    assert(out->len >= TRM_WIRE_HEADER_BYTES);
    trm_store_u32(out->data + CRC_AT, frame_crc(out->data, out->len));
}

trm_status trm_wire_open(const void *bytes, size_t len, trm_wire_header *header, trm_reader *body)
{
    if (len < TRM_WIRE_HEADER_BYTES)
        return TRM_ECORRUPT;
    trm_reader in;
    trm_reader_init(&in, bytes, len);
    if (trm_get_u32(&in) != TRM_WIRE_MAGIC)
        return TRM_ECORRUPT;
    if (trm_get_u16(&in) != TRM_WIRE_VERSION)
        return TRM_EVERSION;
    trm_wire_header found = {.type = trm_get_u8(&in)};
    uint8_t zero = trm_get_u8(&in);
    found.epoch = trm_get_u64(&in);
    found.term = trm_get_u64(&in);
    uint32_t crc = trm_get_u32(&in);
    if (zero || found.type < TRM_WIRE_HELLO || found.type > TRM_WIRE_TYPE_MAX || crc != frame_crc(bytes, len))
        return TRM_ECORRUPT;
    *header = found;
    *body = in;
    return TRM_OK;
}

static uint32_t get_u32_varint(trm_reader *in)
{
    return (uint32_t)trm_get_varint_max(in, UINT32_MAX);
}

static uint32_t get_status(trm_reader *in)
{
    uint32_t status = get_u32_varint(in);
    if (!trm_status_valid(status))
        trm_reader_fail(in);
    return status;
}

static bool get_bool(trm_reader *in)
{
    return trm_get_varint_max(in, 1) != 0;
}

void trm_hello_encode(const trm_hello *self, trm_writer *out)
{
    assert(self->bindings_len <= TRM_BINDINGS_BYTES_MAX);
    trm_put_varint(out, self->status);
    trm_put_string(out, self->text);
    trm_put_string(out, self->host);
    trm_put_varint(out, self->pid);
    trm_put_varint(out, self->executors);
    trm_put_varint(out, self->executor_memory_bytes);
    trm_put_blob(out, self->bindings, self->bindings_len);
    trm_put_string(out, self->run_store);
    if (self->status == TRM_OK)
        trm_traits_encode(&self->traits, out);
}

void trm_hello_decode(trm_hello *self, trm_reader *in)
{
    memset(self, 0, sizeof *self);
    self->status = get_status(in);
    trm_get_string(in, self->text, sizeof self->text);
    trm_get_string(in, self->host, sizeof self->host);
    self->pid = trm_get_varint(in);
    self->executors = (uint32_t)trm_get_varint_max(in, TRM_EXECUTORS_MAX);
    self->executor_memory_bytes = trm_get_varint(in);
    size_t len = 0;
    self->bindings = (char *)(uintptr_t)trm_get_blob(in, TRM_BINDINGS_BYTES_MAX, &len);
    self->bindings_len = (uint32_t)len;
    trm_get_string(in, self->run_store, sizeof self->run_store);
    if (self->status == TRM_OK)
        trm_traits_decode(&self->traits, in);
}

void trm_setup_encode_head(const trm_setup *self, trm_writer *out)
{
    trm_put_u32(out, self->plan_crc);
    trm_put_u32(out, self->cuts_crc);
    trm_put_varint(out, self->tasks);
    trm_put_varint(out, self->partitions);
    trm_put_varint(out, self->peers_count);
}

void trm_setup_encode_peer(uint32_t host, const char *run_store, trm_writer *out)
{
    trm_put_varint(out, host);
    trm_put_string(out, run_store);
}

void trm_setup_encode(const trm_setup *self, trm_writer *out)
{
    trm_setup_encode_head(self, out);
    for (uint32_t i = 0; i < self->peers_count; i++)
        trm_setup_encode_peer(self->peers[i].host, self->peers[i].run_store, out);
}

trm_status trm_setup_decode(trm_setup *self, trm_reader *in)
{
    trm_setup found = {0};
    found.plan_crc = trm_get_u32(in);
    found.cuts_crc = trm_get_u32(in);
    found.tasks = (uint32_t)trm_get_varint_max(in, TRM_TASKS_MAX);
    found.partitions = (uint32_t)trm_get_varint_max(in, TRM_PARTITIONS_MAX);
    found.peers_count = (uint32_t)trm_get_varint_max(in, TRM_RANKS_MAX);
    if (!trm_reader_ok(in) || found.peers_count > trm_reader_left(in) / PEER_BYTES_MIN)
        return TRM_ECORRUPT;
    if (found.peers_count) {
        found.peers = calloc(found.peers_count, sizeof *found.peers);
        if (!found.peers)
            return TRM_ENOMEM;
    }
    for (uint32_t i = 0; i < found.peers_count && trm_reader_ok(in); i++) {
        found.peers[i].host = get_u32_varint(in);
        trm_get_string(in, found.peers[i].run_store, sizeof found.peers[i].run_store);
    }
    if (!trm_reader_ok(in)) {
        trm_setup_close(&found);
        return TRM_ECORRUPT;
    }
    *self = found;
    return TRM_OK;
}

void trm_setup_close(trm_setup *self)
{
    free(self->peers);
    *self = (trm_setup){0};
}

/* The phase shares its byte with what few orders and reports have. */
enum { WITH_PHASE = 3, WITH_PROBE = 4, WITH_SKIPS = 8, WITH_RECORD = 8 };

static unsigned get_phase_with(trm_reader *in, uint8_t *phase, unsigned flags)
{
    unsigned byte = trm_get_u8(in);
    *phase = byte & WITH_PHASE;
    bool of_map = *phase == TRM_PHASE_MAP;
    if (byte & ~(WITH_PHASE | flags) || *phase >= TRM_PHASES || (byte & ~WITH_PHASE && !of_map)) {
        trm_reader_fail(in);
        *phase = 0;
        return 0;
    }
    return byte;
}

void trm_order_encode(const trm_order *self, trm_writer *out)
{
    assert(self->skips_count <= TRM_ORDER_SKIPS_MAX);
    unsigned with = (self->probe ? WITH_PROBE : 0) | (self->skips_count ? WITH_SKIPS : 0);
    trm_put_u8(out, (uint8_t)(self->phase | with));
    trm_put_varint(out, self->task);
    trm_put_varint(out, self->attempt);
    if (self->probe) {
        trm_put_varint(out, self->first);
        trm_put_varint(out, self->end);
    }
    if (self->skips_count)
        trm_put_varint(out, self->skips_count);
    for (unsigned i = 0; i < self->skips_count; i++)
        trm_put_varint(out, self->skip[i]);
}

void trm_order_decode(trm_order *self, trm_reader *in)
{
    memset(self, 0, sizeof *self);
    unsigned with = get_phase_with(in, &self->phase, WITH_PROBE | WITH_SKIPS);
    self->task = (uint32_t)trm_get_varint_max(in, TRM_TASKS_MAX - 1);
    self->attempt = get_u32_varint(in);
    self->probe = (with & WITH_PROBE) != 0;
    if (self->probe) {
        self->first = get_u32_varint(in);
        self->end = get_u32_varint(in);
        if (self->first >= self->end)
            trm_reader_fail(in);
    }
    if (with & WITH_SKIPS)
        self->skips_count = (uint8_t)trm_get_varint_max(in, TRM_ORDER_SKIPS_MAX);
    for (unsigned i = 0; i < self->skips_count; i++) {
        self->skip[i] = get_u32_varint(in);
        if (i && self->skip[i] <= self->skip[i - 1])
            trm_reader_fail(in);
    }
    if (with & WITH_SKIPS && !self->skips_count)
        trm_reader_fail(in);
}

void trm_claim_encode(const trm_claim *self, trm_writer *out)
{
    trm_put_varint(out, self->last);
}

void trm_claim_decode(trm_claim *self, trm_reader *in)
{
    self->last = get_bool(in);
}

void trm_report_encode(const trm_report *self, trm_writer *out)
{
    assert(self->text_len <= TRM_TEXT_BYTES_MAX && self->sample_len <= TRM_SAMPLE_BYTES_MAX);
    unsigned with = (self->probe ? WITH_PROBE : 0) | (self->record ? WITH_RECORD : 0);
    trm_put_u8(out, (uint8_t)(self->phase | with));
    trm_put_varint(out, self->task);
    trm_put_varint(out, self->attempt);
    trm_put_varint(out, self->status);
    if (self->record)
        trm_put_varint(out, self->record);
    trm_put_varint(out, self->executor);
    trm_put_varint(out, self->started_ms);
    trm_put_varint(out, self->ended_ms);
    trm_put_varint(out, self->output_bytes);
    trm_put_varint(out, self->output_records);
    trm_put_u32(out, self->output_crc);
    trm_counters_encode(&self->counters, out);
    trm_put_blob(out, self->text, self->text_len);
    trm_put_blob(out, self->sample, self->sample_len);
}

void trm_report_decode(trm_report *self, trm_reader *in)
{
    memset(self, 0, sizeof *self);
    unsigned with = get_phase_with(in, &self->phase, WITH_PROBE | WITH_RECORD);
    self->task = (uint32_t)trm_get_varint_max(in, TRM_TASKS_MAX - 1);
    self->attempt = get_u32_varint(in);
    self->status = get_status(in);
    self->probe = (with & WITH_PROBE) != 0;
    self->record = with & WITH_RECORD ? get_u32_varint(in) : 0;
    if (with & WITH_RECORD && (!self->record || self->status == TRM_OK))
        trm_reader_fail(in);
    self->executor = (uint32_t)trm_get_varint_max(in, TRM_EXECUTORS_MAX);
    self->started_ms = trm_get_varint(in);
    self->ended_ms = trm_get_varint(in);
    self->output_bytes = trm_get_varint(in);
    self->output_records = trm_get_varint(in);
    self->output_crc = trm_get_u32(in);
    trm_counters_decode(&self->counters, in);
    size_t len = 0;
    self->text = (const char *)trm_get_blob(in, TRM_TEXT_BYTES_MAX, &len);
    self->text_len = (uint32_t)len;
    self->sample = trm_get_blob(in, TRM_SAMPLE_BYTES_MAX, &len);
    self->sample_len = (uint32_t)len;
    if (self->probe && (self->output_bytes || self->output_records))
        trm_reader_fail(in);
}

void trm_output_at_encode(const trm_output_at *self, trm_writer *out)
{
    trm_put_varint(out, self->task);
    trm_put_varint(out, self->attempt);
    trm_put_varint(out, self->rank);
    trm_put_varint(out, self->empty);
}

void trm_output_at_decode(trm_output_at *self, trm_reader *in)
{
    memset(self, 0, sizeof *self);
    self->task = (uint32_t)trm_get_varint_max(in, TRM_TASKS_MAX - 1);
    self->attempt = get_u32_varint(in);
    self->rank = (uint32_t)trm_get_varint_max(in, TRM_RANKS_MAX - 1);
    self->empty = get_bool(in);
}

void trm_store_encode(const trm_store *self, trm_writer *out)
{
    trm_put_varint(out, self->epoch);
    trm_put_string(out, self->path);
}

void trm_store_decode(trm_store *self, trm_reader *in)
{
    self->epoch = trm_get_varint(in);
    trm_get_string(in, self->path, sizeof self->path);
}

void trm_held_encode(const trm_held *self, trm_writer *out)
{
    trm_store_encode(&self->store, out);
    trm_put_varint(out, self->last);
}

void trm_held_decode(trm_held *self, trm_reader *in)
{
    trm_store_decode(&self->store, in);
    self->last = get_bool(in);
}

void trm_copy_encode(const trm_copy *self, trm_writer *out)
{
    trm_put_varint(out, self->task);
    trm_put_varint(out, self->attempt);
    trm_put_varint(out, self->rank);
    trm_put_varint(out, self->epoch);
}

void trm_copy_decode(trm_copy *self, trm_reader *in)
{
    memset(self, 0, sizeof *self);
    self->task = (uint32_t)trm_get_varint_max(in, TRM_TASKS_MAX - 1);
    self->attempt = get_u32_varint(in);
    self->rank = (uint32_t)trm_get_varint_max(in, TRM_RANKS_MAX - 1);
    self->epoch = trm_get_varint(in);
}

void trm_copied_encode(const trm_copied *self, trm_writer *out)
{
    trm_put_varint(out, self->task);
    trm_put_varint(out, self->attempt);
    trm_put_varint(out, self->epoch);
    trm_put_varint(out, self->status);
    trm_put_varint(out, self->bytes);
}

void trm_copied_decode(trm_copied *self, trm_reader *in)
{
    memset(self, 0, sizeof *self);
    self->task = (uint32_t)trm_get_varint_max(in, TRM_TASKS_MAX - 1);
    self->attempt = get_u32_varint(in);
    self->epoch = trm_get_varint(in);
    self->status = get_status(in);
    self->bytes = trm_get_varint(in);
}

void trm_pulse_encode(const trm_pulse *self, trm_writer *out)
{
    trm_put_varint(out, self->running);
    trm_put_varint(out, self->queued);
    trm_put_varint(out, self->bytes_in);
    trm_put_varint(out, self->records_in);
    trm_put_varint(out, self->fetched_bytes);
    trm_put_varint(out, self->dropped);
}

void trm_pulse_decode(trm_pulse *self, trm_reader *in)
{
    memset(self, 0, sizeof *self);
    self->running = get_u32_varint(in);
    self->queued = get_u32_varint(in);
    self->bytes_in = trm_get_varint(in);
    self->records_in = trm_get_varint(in);
    self->fetched_bytes = trm_get_varint(in);
    self->dropped = trm_get_varint(in);
}

void trm_leads_encode(const trm_leads *self, trm_writer *out)
{
    trm_put_varint(out, self->voters);
    for (uint32_t i = 0; i < self->voters; i++)
        trm_put_varint(out, self->voter[i]);
}

void trm_leads_decode(trm_leads *self, trm_reader *in)
{
    memset(self, 0, sizeof *self);
    self->voters = (uint32_t)trm_get_varint_max(in, TRM_LEADS_VOTERS_MAX);
    for (uint32_t i = 0; i < self->voters; i++) {
        self->voter[i] = get_u32_varint(in);
        if (i && self->voter[i] <= self->voter[i - 1])
            trm_reader_fail(in);
    }
}

void trm_begun_encode(const trm_begun *self, trm_writer *out)
{
    trm_put_u8(out, self->phase);
    trm_put_varint(out, self->task);
    trm_put_varint(out, self->attempt);
    trm_put_varint(out, self->ms);
}

void trm_begun_decode(trm_begun *self, trm_reader *in)
{
    memset(self, 0, sizeof *self);
    get_phase_with(in, &self->phase, 0);
    self->task = (uint32_t)trm_get_varint_max(in, TRM_TASKS_MAX - 1);
    self->attempt = get_u32_varint(in);
    self->ms = get_u32_varint(in);
}

void trm_begin_encode(const trm_begin *self, trm_writer *out)
{
    trm_put_varint(out, self->voters_wanted);
    trm_put_blob(out, self->members, self->members_len);
    trm_put_varint(out, self->neighbours);
    for (uint32_t i = 0; i < self->neighbours; i++) {
        trm_put_varint(out, self->neighbour[i].rank);
        trm_put_varint(out, self->neighbour[i].pid);
    }
}

void trm_begin_decode(trm_begin *self, trm_reader *in)
{
    size_t len = 0;
    memset(self, 0, sizeof *self);
    self->voters_wanted = (uint32_t)trm_get_varint_max(in, TRM_RANKS_MAX);
    const uint8_t *members = trm_get_blob(in, sizeof self->members, &len);
    if (members && len)
        memcpy(self->members, members, len);
    self->members_len = (uint32_t)len;
    self->neighbours = (uint32_t)trm_get_varint_max(in, TRM_BEGIN_NEIGHBOURS_MAX);
    for (uint32_t i = 0; i < self->neighbours && trm_reader_ok(in); i++) {
        self->neighbour[i].rank = (uint32_t)trm_get_varint_max(in, TRM_RANKS_MAX - 1);
        self->neighbour[i].pid = trm_get_varint(in);
    }
}

void trm_end_encode(const trm_end *self, trm_writer *out)
{
    trm_put_varint(out, self->exit_code);
    trm_put_varint(out, self->keep_runs);
    trm_put_string(out, self->text);
}

void trm_end_decode(trm_end *self, trm_reader *in)
{
    memset(self, 0, sizeof *self);
    self->exit_code = (uint32_t)trm_get_varint_max(in, 255);
    self->keep_runs = get_bool(in);
    trm_get_string(in, self->text, sizeof self->text);
}

/* What FETCH and BLOCK say of the same range, in the same order. */
static void get_range(trm_reader *in, uint32_t *task, uint32_t *attempt, uint32_t *first, uint32_t *last)
{
    *task = (uint32_t)trm_get_varint_max(in, TRM_TASKS_MAX - 1);
    *attempt = get_u32_varint(in);
    *first = (uint32_t)trm_get_varint_max(in, TRM_PARTITIONS_MAX);
    *last = (uint32_t)trm_get_varint_max(in, TRM_PARTITIONS_MAX);
    if (*first > *last)
        trm_reader_fail(in);
}

void trm_fetch_encode(const trm_fetch *self, trm_writer *out)
{
    trm_put_varint(out, self->task);
    trm_put_varint(out, self->attempt);
    trm_put_varint(out, self->first);
    trm_put_varint(out, self->last);
    trm_put_varint(out, self->offset);
    trm_put_varint(out, self->bytes);
}

void trm_fetch_decode(trm_fetch *self, trm_reader *in)
{
    memset(self, 0, sizeof *self);
    get_range(in, &self->task, &self->attempt, &self->first, &self->last);
    self->offset = trm_get_varint(in);
    self->bytes = (uint32_t)trm_get_varint_max(in, TRM_FETCH_BLOCK_BYTES);
}

void trm_block_encode(const trm_block *self, trm_writer *out)
{
    assert(self->bytes_len <= TRM_FETCH_BLOCK_BYTES);
    trm_put_varint(out, self->task);
    trm_put_varint(out, self->attempt);
    trm_put_varint(out, self->first);
    trm_put_varint(out, self->last);
    trm_put_varint(out, self->status);
    trm_put_varint(out, self->offset);
    trm_put_varint(out, self->total_bytes);
    trm_put_blob(out, self->bytes, self->bytes_len);
}

void trm_block_decode(trm_block *self, trm_reader *in)
{
    memset(self, 0, sizeof *self);
    get_range(in, &self->task, &self->attempt, &self->first, &self->last);
    self->status = get_status(in);
    self->offset = trm_get_varint(in);
    self->total_bytes = trm_get_varint(in);
    size_t len = 0;
    self->bytes = trm_get_blob(in, TRM_FETCH_BLOCK_BYTES, &len);
    self->bytes_len = (uint32_t)len;
    bool fits = self->offset <= self->total_bytes && len <= self->total_bytes - self->offset;
    if (self->status == TRM_OK ? !fits : len != 0)
        trm_reader_fail(in);
}
