/* See paxos_store.h. */
#include "runtime/consensus/paxos_store.h"

#include "runtime/crc32c.h"

#include <stdio.h>
#include <stdlib.h>

#define STORE_VERSION 1u
#define FILE_BYTES_MAX (TRM_PAXOS_VALUE_BYTES_MAX + 256u)

static const char identity_magic[8] = {'t', 'r', 'm', '-', 'p', 'x', 'i', 'd'};
static const char register_magic[8] = {'t', 'r', 'm', '-', 'p', 'x', 'r', 'g'};

static void put_head(trm_writer *out, const char magic[8], uint64_t store_id)
{
    trm_put_bytes(out, magic, 8);
    trm_put_u32(out, STORE_VERSION);
    trm_put_u64(out, store_id);
}

static void put_crc(trm_writer *out)
{
    if (trm_writer_ok(out))
        trm_put_u32(out, trm_crc32c(0, out->data, out->len));
}

/* Checks magic, version and checksum; the reader then stands behind the version. */
static trm_status get_head(trm_reader *in, const char magic[8], const uint8_t *bytes, size_t len,
                           trm_err *err)
{
    if (len < 24 || memcmp(bytes, magic, 8) != 0)
        return trm_err_set(err, TRM_ECORRUPT, "bad header at offset 0: not a file of this kind");
    if (trm_load_u32(bytes + 8) != STORE_VERSION)
        return trm_err_set(err, TRM_EVERSION, "format version %u; this program reads version %u",
                           trm_load_u32(bytes + 8), STORE_VERSION);
    if (trm_load_u32(bytes + len - 4) != trm_crc32c(0, bytes, len - 4))
        return trm_err_set(err, TRM_ECORRUPT, "the checksum at offset %zu does not fit", len - 4);
    trm_reader_init(in, bytes + 12, len - 16);
    return TRM_OK;
}

static void put_ballot(trm_writer *out, trm_ballot ballot)
{
    trm_put_u64(out, ballot.round);
    trm_put_u64(out, ballot.node);
}

static trm_ballot get_ballot(trm_reader *in)
{
    trm_ballot ballot;
    ballot.round = trm_get_u64(in);
    ballot.node = trm_get_u64(in);
    if (ballot.round > TRM_PAXOS_ROUND_MAX)
        trm_reader_fail(in);
    return ballot;
}

void trm_paxos_register_encode(const trm_paxos_acceptor *state, trm_writer *out)
{
    put_head(out, register_magic, state->store_id);
    trm_put_u64(out, state->register_id);
    put_ballot(out, state->promised);
    put_ballot(out, state->accepted);
    trm_put_u32(out, state->value.len);
    trm_put_bytes(out, state->value.bytes, state->value.len);
    put_crc(out);
}

trm_status trm_paxos_register_decode(trm_paxos_acceptor *out, const uint8_t *bytes, size_t len, trm_err *err)
{
    trm_reader in;
    trm_status status = get_head(&in, register_magic, bytes, len, err);
    if (status != TRM_OK)
        return status;
    trm_paxos_acceptor state = {.store_id = trm_get_u64(&in), .register_id = 0};
    state.register_id = trm_get_u64(&in);
    state.promised = get_ballot(&in);
    state.accepted = get_ballot(&in);
    state.value.len = trm_get_u32(&in);
    if (state.value.len > TRM_PAXOS_VALUE_BYTES_MAX || trm_ballot_compare(state.accepted, state.promised) > 0)
        trm_reader_fail(&in);
    const uint8_t *value = trm_get_bytes(&in, trm_reader_ok(&in) ? state.value.len : 0);
    if (!trm_reader_done(&in))
        return trm_err_set(err, TRM_ECORRUPT, "a field is out of its range");
    if (state.value.len > 0)
        memcpy(state.value.bytes, value, state.value.len);
    *out = state;
    return TRM_OK;
}

static void path_in(char out[TRM_FS_PATH_BYTES_MAX], const char *dir, const char *name)
{
    snprintf(out, TRM_FS_PATH_BYTES_MAX, "%s/%s", dir, name);
}

static void register_path(char out[TRM_FS_PATH_BYTES_MAX], const char *dir, uint64_t register_id)
{
    snprintf(out, TRM_FS_PATH_BYTES_MAX, "%s/register-%016llx", dir, (unsigned long long)register_id);
}

/* A path that snprintf would cut could name another store. */
static trm_status check_dir(const char *dir, trm_err *err)
{
    size_t len = strlen(dir);
    if (len == 0 || len + 64 > TRM_FS_PATH_BYTES_MAX)
        return trm_err_set(err, TRM_EIO, "not a path for a store: \"%.80s\"", dir);
    return TRM_OK;
}

trm_status trm_paxos_store_id(trm_fs *fs, const char *dir, uint64_t *out, trm_err *err)
{
    char path[TRM_FS_PATH_BYTES_MAX];
    trm_status status = check_dir(dir, err);
    if (status != TRM_OK)
        return status;
    path_in(path, dir, "identity");
    uint8_t *bytes;
    size_t len;
    status = trm_fs_read_whole(fs, path, FILE_BYTES_MAX, &bytes, &len, err);
    if (status != TRM_OK)
        return status;
    trm_reader in;
    status = get_head(&in, identity_magic, bytes, len, err);
    uint64_t id = 0;
    if (status == TRM_OK) {
        id = trm_get_u64(&in);
        if (!trm_reader_done(&in))
            status = trm_err_set(err, TRM_ECORRUPT, "%zu bytes are not an identity", len);
    }
    if (status == TRM_OK)
        *out = id;
    else
        trm_err_wrap(err, "%s", path);
    free(bytes);
    return status;
}

/* The lock is held until *out is closed. */
static trm_status lock_store(trm_fs *fs, const char *dir, trm_file **out, trm_err *err)
{
    char path[TRM_FS_PATH_BYTES_MAX];
    path_in(path, dir, "lock");
    trm_file *lock;
    trm_status status = fs->ops->open(fs, path, TRM_FS_WRITE | TRM_FS_CREATE, &lock, err);
    if (status != TRM_OK)
        return status;
    status = fs->ops->lock(lock, err);
    if (status != TRM_OK) {
        fs->ops->close(lock);
        return status;
    }
    *out = lock;
    return TRM_OK;
}

static trm_status write_whole(trm_fs *fs, const char *path, trm_writer *content, trm_err *err)
{
    trm_status status = TRM_OK;
    if (!trm_writer_ok(content))
        status = trm_err_set(err, TRM_ENOMEM, "no memory to write %s", path);
    if (status == TRM_OK)
        status = trm_fs_write_whole(fs, path, content->data, content->len, 0, err);
    trm_writer_close(content);
    return status;
}

trm_status trm_paxos_store_make(trm_fs *fs, const char *dir, uint64_t store_id, uint64_t *out, trm_err *err)
{
    trm_status status = check_dir(dir, err);
    if (status == TRM_OK)
        status = trm_fs_make_dirs(fs, dir, 0, err);
    trm_file *lock;
    if (status == TRM_OK)
        status = lock_store(fs, dir, &lock, err);
    if (status != TRM_OK)
        return status;
    uint64_t id = store_id;
    status = trm_paxos_store_id(fs, dir, &id, err);
    if (status == TRM_ELOST) {
        char path[TRM_FS_PATH_BYTES_MAX];
        path_in(path, dir, "identity");
        trm_writer content;
        trm_writer_init(&content);
        put_head(&content, identity_magic, store_id);
        put_crc(&content);
        status = write_whole(fs, path, &content, err);
    }
    fs->ops->close(lock);
    if (status == TRM_OK)
        *out = id;
    return status;
}

/* Under the lock, when others write. */
static trm_status read_register(trm_fs *fs, const char *dir, uint64_t store_id, uint64_t register_id,
                                trm_paxos_acceptor *out, trm_err *err)
{
    char path[TRM_FS_PATH_BYTES_MAX];
    register_path(path, dir, register_id);
    uint8_t *bytes;
    size_t len;
    trm_status status = trm_fs_read_whole(fs, path, FILE_BYTES_MAX, &bytes, &len, err);
    if (status == TRM_ELOST) {
        trm_paxos_acceptor_init(out, store_id, register_id);
        return TRM_OK;
    }
    if (status != TRM_OK)
        return status;
    trm_paxos_acceptor state;
    status = trm_paxos_register_decode(&state, bytes, len, err);
    if (status == TRM_OK && (state.store_id != store_id || state.register_id != register_id))
        status = trm_err_set(err, TRM_ECORRUPT, "the file belongs to another store or register");
    if (status == TRM_OK)
        *out = state;
    else
        trm_err_wrap(err, "%s", path);
    free(bytes);
    return status;
}

trm_status trm_paxos_store_read(trm_fs *fs, const char *dir, uint64_t register_id, trm_paxos_acceptor *out,
                                trm_err *err)
{
    uint64_t store_id;
    trm_status status = trm_paxos_store_id(fs, dir, &store_id, err);
    return status == TRM_OK ? read_register(fs, dir, store_id, register_id, out, err) : status;
}

static trm_status answer_locked(trm_fs *fs, const char *dir, uint64_t register_id,
                                const trm_paxos_message *request, trm_paxos_message *answer, trm_err *err)
{
    trm_paxos_acceptor state, next;
    trm_paxos_message reply;
    trm_status status = trm_paxos_store_read(fs, dir, register_id, &state, err);
    if (status != TRM_OK)
        return status;
    trm_paxos_action action = trm_paxos_acceptor_step(&state, request, &next, &reply);
    if (action == TRM_PAXOS_DROP)
        return trm_err_set(err, TRM_ELOST, "%s: a request to another store or register", dir);
    /* What is there already is written again before it is answered for: a process may
     * have died between the rename and the sync of the directory. */
    if (action == TRM_PAXOS_PERSIST || reply.type != TRM_PAXOS_REFUSED) {
        char path[TRM_FS_PATH_BYTES_MAX];
        register_path(path, dir, register_id);
        trm_writer content;
        trm_writer_init(&content);
        trm_paxos_register_encode(&next, &content);
        status = write_whole(fs, path, &content, err);
    }
    if (status == TRM_OK)
        *answer = reply;
    return status;
}

trm_status trm_paxos_store_answer(trm_fs *fs, const char *dir, uint64_t register_id,
                                  const trm_paxos_message *request, trm_paxos_message *answer, trm_err *err)
{
    trm_file *lock;
    trm_status status = check_dir(dir, err);
    if (status == TRM_OK)
        status = lock_store(fs, dir, &lock, err);
    if (status != TRM_OK)
        return status;
    status = answer_locked(fs, dir, register_id, request, answer, err);
    fs->ops->close(lock);
    return status;
}
