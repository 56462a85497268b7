/* The state machine of the simulated nodes: registers that clients write, and how far
 * each session of a client has come, so that a command proposed twice is done once
 * (thesis, section 6.3). */
#include "tests/simulation/raft_world.h"

uint64_t entry_hash(uint64_t before, const trm_raft_entry *entry)
{
    uint64_t hash = before ^ 0x9e3779b97f4a7c15ull;
    hash = (hash ^ entry->index) * 0xff51afd7ed558ccdull;
    hash = (hash ^ hash >> 31 ^ entry->term) * 0xc4ceb9fe1a85ec53ull;
    hash = (hash ^ hash >> 29 ^ entry->type) * 0xff51afd7ed558ccdull;
    for (size_t i = 0; i < entry->len; i++)
        hash = (hash ^ entry->payload[i]) * 0x100000001b3ull;
    return hash ^ hash >> 32;
}

void command_encode(const command *what, uint64_t pad, trm_writer *out)
{
    trm_put_u32(out, what->session);
    trm_put_u32(out, what->number);
    trm_put_u32(out, what->key);
    trm_put_u64(out, what->value);
    for (uint64_t i = 0; i < pad; i++)
        trm_put_u8(out, (uint8_t)(what->value + i));
}

bool command_decode(command *out, const void *bytes, size_t len)
{
    trm_reader reader;
    trm_reader_init(&reader, bytes, len);
    *out = (command){trm_get_u32(&reader), trm_get_u32(&reader), trm_get_u32(&reader), 0};
    out->value = trm_get_u64(&reader);
    return trm_reader_ok(&reader) && out->session < SESSIONS_MAX && out->key < KEYS && out->number > 0;
}

void machine_apply(world *w, machine *self, const command *what, bool *effective)
{
    *effective = false;
    if (what->number <= self->done[what->session])
        return; /* done before */
    if (what->number != self->done[what->session] + 1)
        world_fail(w, "session %u goes from %u to %u: an acknowledged command is lost", what->session,
                   self->done[what->session], what->number);
    self->done[what->session] = what->number;
    self->value[what->key] = what->value;
    *effective = true;
}

void machine_encode(const machine *self, uint64_t pad, trm_writer *out)
{
    trm_put_u64(out, self->index);
    trm_put_u64(out, self->hash);
    for (uint32_t i = 0; i < KEYS; i++)
        trm_put_u64(out, self->value[i]);
    for (uint32_t i = 0; i < SESSIONS_MAX; i++)
        trm_put_varint(out, self->done[i]);
    for (uint64_t i = 0; i < pad; i++)
        trm_put_u8(out, (uint8_t)(self->hash >> i % 8 * 8) ^ (uint8_t)i);
    trm_put_u32(out, (uint32_t)pad);
}

bool machine_decode(machine *out, const void *bytes, size_t len)
{
    trm_reader reader;
    if (len < 4)
        return false;
    size_t pad = trm_load_u32((const uint8_t *)bytes + len - 4);
    if (pad > len - 4)
        return false;
    trm_reader_init(&reader, bytes, len - 4);
    out->index = trm_get_u64(&reader);
    out->hash = trm_get_u64(&reader);
    for (uint32_t i = 0; i < KEYS; i++)
        out->value[i] = trm_get_u64(&reader);
    for (uint32_t i = 0; i < SESSIONS_MAX; i++)
        out->done[i] = (uint32_t)trm_get_varint(&reader);
    const uint8_t *padding = trm_get_bytes(&reader, pad);
    if (!trm_reader_done(&reader))
        return false;
    for (size_t i = 0; i < pad; i++)
        if (padding[i] != ((uint8_t)(out->hash >> i % 8 * 8) ^ (uint8_t)i))
            return false;
    return true;
}
