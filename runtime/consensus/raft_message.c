/* The bytes of a Raft message. All little-endian:
 *
 *   u8 version, u8 type, u8 flags (1: reject, 2: force), u64 group, u64 from, u64 to,
 *   varint term, the fields of the type in the order of the table below, u32 CRC-32C of
 *   all before
 *
 *   PRE_VOTE, VOTE     varint index, varint log_term
 *   … _RESULT          nothing
 *   APPEND             varint index, varint log_term, varint commit, varint context, varint
 *                      count, entries: varint term above that of the one before, u8 type,
 *                      blob payload
 *   APPEND_RESULT      varint index, varint context; when it rejects: varint hint_index,
 *                      varint hint_term
 *   SNAPSHOT           varint index, varint term, varint data bytes of the snapshot, blob
 *                      config, varint offset, blob data
 *   SNAPSHOT_RESULT    varint index, varint log_term, varint offset
 *   TIMEOUT_NOW        nothing
 *   READ               varint context
 *   READ_RESULT        varint context, varint index
 */
#include "runtime/consensus/raft.h"

#include "runtime/crc32c.h"

#define MESSAGE_VERSION 1u
#define FLAG_REJECT 1u
#define FLAG_FORCE 2u
#define MESSAGE_BYTES_MIN (3u + 3u * 8u + 1u + 4u)

const char *trm_raft_message_name(trm_raft_message_type type)
{
    static const char *const names[] = {
        "?",        "PRE_VOTE",        "PRE_VOTE_RESULT", "VOTE", "VOTE_RESULT", "APPEND", "APPEND_RESULT",
        "SNAPSHOT", "SNAPSHOT_RESULT", "TIMEOUT_NOW",     "READ", "READ_RESULT"};
    return type >= TRM_RAFT_PRE_VOTE && type <= TRM_RAFT_READ_RESULT ? names[type] : names[0];
}

/* ---- Encoding. ---- */

static void put_append(const trm_raft_message *message, trm_writer *out)
{
    trm_put_varint(out, message->index);
    trm_put_varint(out, message->log_term);
    trm_put_varint(out, message->commit);
    trm_put_varint(out, message->context);
    trm_put_varint(out, message->entries_len);
    uint64_t term = message->log_term;
    for (uint32_t i = 0; i < message->entries_len; i++) {
        const trm_raft_entry *entry = &message->entries[i];
        trm_put_varint(out, entry->term - term);
        trm_put_u8(out, entry->type);
        trm_put_blob(out, entry->payload, entry->len);
        term = entry->term;
    }
}

static void put_append_result(const trm_raft_message *message, trm_writer *out)
{
    trm_put_varint(out, message->index);
    trm_put_varint(out, message->context);
    if (!message->reject)
        return;
    trm_put_varint(out, message->hint_index);
    trm_put_varint(out, message->hint_term);
}

static void put_snapshot(const trm_raft_message *message, trm_writer *out)
{
    trm_put_varint(out, message->snapshot.index);
    trm_put_varint(out, message->snapshot.term);
    trm_put_varint(out, message->snapshot.data_bytes);
    trm_put_blob(out, message->snapshot.config, message->snapshot.config_len);
    trm_put_varint(out, message->offset);
    trm_put_blob(out, message->data, message->data_len);
}

static void put_fields(const trm_raft_message *message, trm_writer *out)
{
    switch (message->type) {
    case TRM_RAFT_PRE_VOTE:
    case TRM_RAFT_VOTE:
        trm_put_varint(out, message->index);
        trm_put_varint(out, message->log_term);
        break;
    case TRM_RAFT_APPEND:
        put_append(message, out);
        break;
    case TRM_RAFT_APPEND_RESULT:
        put_append_result(message, out);
        break;
    case TRM_RAFT_SNAPSHOT:
        put_snapshot(message, out);
        break;
    case TRM_RAFT_SNAPSHOT_RESULT:
        trm_put_varint(out, message->index);
        trm_put_varint(out, message->log_term);
        trm_put_varint(out, message->offset);
        break;
    case TRM_RAFT_READ:
        trm_put_varint(out, message->context);
        break;
    case TRM_RAFT_READ_RESULT:
        trm_put_varint(out, message->context);
        trm_put_varint(out, message->index);
        break;
    case TRM_RAFT_PRE_VOTE_RESULT:
    case TRM_RAFT_VOTE_RESULT:
    case TRM_RAFT_TIMEOUT_NOW:
        break;
    }
}

void trm_raft_message_encode(const trm_raft_message *message, trm_writer *out)
{
    size_t begin = out->len;
    trm_put_u8(out, MESSAGE_VERSION);
    trm_put_u8(out, (uint8_t)message->type);
    trm_put_u8(out, (uint8_t)((message->reject ? FLAG_REJECT : 0) | (message->force ? FLAG_FORCE : 0)));
    trm_put_u64(out, message->group);
    trm_put_u64(out, message->from);
    trm_put_u64(out, message->to);
    trm_put_varint(out, message->term);
    put_fields(message, out);
    if (trm_writer_ok(out))
        trm_put_u32(out, trm_crc32c(0, out->data + begin, out->len - begin));
}

/* ---- Decoding. ---- */

static uint64_t get_number(trm_reader *in)
{
    return trm_get_varint_max(in, TRM_RAFT_INDEX_MAX);
}

/* An index and the term of its entry: both or none. */
static void get_place(trm_reader *in, uint64_t *index, uint64_t *term)
{
    *index = get_number(in);
    *term = get_number(in);
    if ((*index == 0) != (*term == 0))
        trm_reader_fail(in);
}

static void get_entries(trm_reader *in, trm_raft_message *message, trm_raft_entry *room)
{
    uint64_t term = message->log_term;
    message->entries_len = (uint32_t)trm_get_varint_max(in, TRM_RAFT_MESSAGE_ENTRIES_MAX);
    message->entries = message->entries_len > 0 ? room : NULL;
    for (uint32_t i = 0; i < message->entries_len && trm_reader_ok(in); i++) {
        trm_raft_entry *entry = &room[i];
        term += get_number(in);
        entry->index = message->index + 1 + i;
        entry->term = term;
        entry->type = trm_get_u8(in);
        entry->payload = trm_get_blob(in, TRM_RAFT_ENTRY_BYTES_MAX, &entry->len);
        if (term == 0 || term > message->term || entry->type < TRM_RAFT_COMMAND ||
            entry->type > TRM_RAFT_CONFIG || entry->index > TRM_RAFT_INDEX_MAX)
            trm_reader_fail(in);
    }
}

static void get_append(trm_reader *in, trm_raft_message *message, trm_raft_entry *room)
{
    get_place(in, &message->index, &message->log_term);
    message->commit = get_number(in);
    message->context = get_number(in);
    if (message->log_term > message->term)
        trm_reader_fail(in);
    get_entries(in, message, room);
}

static void get_snapshot(trm_reader *in, trm_raft_message *message)
{
    trm_wal_snapshot *snapshot = &message->snapshot;
    get_place(in, &snapshot->index, &snapshot->term);
    snapshot->data_bytes = get_number(in);
    snapshot->config = trm_get_blob(in, TRM_RAFT_MEMBERS_BYTES_MAX, &snapshot->config_len);
    message->offset = get_number(in);
    size_t data_len = 0;
    message->data = trm_get_blob(in, TRM_RAFT_CHUNK_BYTES_MAX, &data_len);
    message->data_len = (uint32_t)data_len;
    if (snapshot->index == 0 || snapshot->term > message->term || message->offset > snapshot->data_bytes ||
        data_len > snapshot->data_bytes - message->offset)
        trm_reader_fail(in);
}

static void get_fields(trm_reader *in, trm_raft_message *message, trm_raft_entry *room)
{
    switch (message->type) {
    case TRM_RAFT_PRE_VOTE:
    case TRM_RAFT_VOTE:
        get_place(in, &message->index, &message->log_term);
        break;
    case TRM_RAFT_APPEND:
        get_append(in, message, room);
        break;
    case TRM_RAFT_APPEND_RESULT:
        message->index = get_number(in);
        message->context = get_number(in);
        if (message->reject)
            get_place(in, &message->hint_index, &message->hint_term);
        break;
    case TRM_RAFT_SNAPSHOT:
        get_snapshot(in, message);
        break;
    case TRM_RAFT_SNAPSHOT_RESULT:
        get_place(in, &message->index, &message->log_term);
        message->offset = get_number(in);
        break;
    case TRM_RAFT_READ:
        message->context = get_number(in);
        break;
    case TRM_RAFT_READ_RESULT:
        message->context = get_number(in);
        message->index = get_number(in);
        break;
    case TRM_RAFT_PRE_VOTE_RESULT:
    case TRM_RAFT_VOTE_RESULT:
    case TRM_RAFT_TIMEOUT_NOW:
        break;
    default:
        trm_reader_fail(in);
    }
}

static bool is_result(trm_raft_message_type type)
{
    return type == TRM_RAFT_PRE_VOTE_RESULT || type == TRM_RAFT_VOTE_RESULT ||
           type == TRM_RAFT_APPEND_RESULT || type == TRM_RAFT_SNAPSHOT_RESULT || type == TRM_RAFT_READ_RESULT;
}

static void get_head(trm_reader *in, trm_raft_message *message)
{
    message->type = (trm_raft_message_type)trm_get_u8(in);
    uint8_t flags = trm_get_u8(in);
    message->reject = flags & FLAG_REJECT;
    message->force = flags & FLAG_FORCE;
    message->group = trm_get_u64(in);
    message->from = trm_get_u64(in);
    message->to = trm_get_u64(in);
    message->term = get_number(in);
    if (flags > (FLAG_REJECT | FLAG_FORCE) || (message->reject && !is_result(message->type)) ||
        (message->force && message->type != TRM_RAFT_VOTE) || message->term == 0)
        trm_reader_fail(in);
}

trm_status trm_raft_message_decode(trm_raft_message *out, trm_raft_entry *room, const void *bytes, size_t len,
                                   trm_err *err)
{
    const uint8_t *at = bytes;
    if (len < MESSAGE_BYTES_MIN || len > TRM_RAFT_MESSAGE_BYTES_MAX ||
        trm_load_u32(at + len - 4) != trm_crc32c(0, at, len - 4))
        return trm_err_set(err, TRM_ECORRUPT, "a message of the replicated log: the checksum does not fit");
    if (at[0] != MESSAGE_VERSION)
        return trm_err_set(err, TRM_EVERSION,
                           "a message of the replicated log has version %u; this program reads %u", at[0],
                           MESSAGE_VERSION);
    trm_reader in;
    trm_reader_init(&in, at + 1, len - 5);
    trm_raft_message message;
    memset(&message, 0, sizeof message);
    get_head(&in, &message);
    get_fields(&in, &message, room);
    if (!trm_reader_done(&in))
        return trm_err_set(err, TRM_ECORRUPT, "a message of the replicated log is malformed");
    *out = message;
    return TRM_OK;
}
