/* A Paxos message and a register's file from outside, as they are and with their
 * checksums made good; a message that decodes goes to an acceptor and a proposer. */
#include "runtime/consensus/paxos_store.h"
#include "runtime/crc32c.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void use_message(const trm_paxos_message *message)
{
    static const uint64_t stores[] = {0, 1, 2};
    trm_paxos_acceptor now, next;
    trm_paxos_message answer;
    trm_paxos_acceptor_init(&now, message->store_id, message->register_id);
    if (trm_paxos_acceptor_step(&now, message, &next, &answer) != TRM_PAXOS_DROP)
        check(trm_ballot_compare(next.accepted, next.promised) <= 0);
    trm_paxos_proposer proposer;
    trm_paxos_proposer_config config = {.register_id = message->register_id,
                                        .node = message->ballot.node,
                                        .store_ids = stores,
                                        .acceptors = 3,
                                        .timeout_ns = 1,
                                        .backoff_ns = 1};
    trm_paxos_proposer_init(&proposer, &config, 0);
    trm_paxos_proposer_receive(&proposer, message, 0);
    trm_paxos_proposer_tick(&proposer, 10);
    bool own;
    check(!trm_paxos_proposer_decided(&proposer, &own)); /* one message is no majority */
}

static void decode_message(const uint8_t *bytes, size_t len)
{
    trm_paxos_message message;
    trm_err err;
    if (trm_paxos_decode(&message, bytes, len, &err) != TRM_OK)
        return;
    trm_writer again;
    trm_writer_init(&again);
    trm_paxos_encode(&message, &again);
    check(again.len == len && memcmp(again.data, bytes, len) == 0);
    trm_writer_close(&again);
    use_message(&message);
}

static void decode_register(const uint8_t *bytes, size_t len)
{
    trm_paxos_acceptor state;
    trm_err err;
    if (trm_paxos_register_decode(&state, bytes, len, &err) != TRM_OK)
        return;
    trm_writer again;
    trm_writer_init(&again);
    trm_paxos_register_encode(&state, &again);
    check(again.len == len && memcmp(again.data, bytes, len) == 0);
    trm_writer_close(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    decode_message(bytes, len);
    decode_register(bytes, len);
    if (len < 5)
        return 0;
    uint8_t *good = malloc(len);
    if (!good)
        return 0;
    memcpy(good, bytes, len);
    good[0] = 1;
    trm_store_u32(good + len - 4, trm_crc32c(0, good, len - 4));
    decode_message(good, len);
    if (len >= 16) {
        memcpy(good, "trm-pxrg\1\0\0\0", 12);
        trm_store_u32(good + len - 4, trm_crc32c(0, good, len - 4));
        decode_register(good, len);
    }
    free(good);
    return 0;
}
