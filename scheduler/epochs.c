/* See epochs.h. */
#include "config.h" /* system extensions, before any header of the system */

#include "scheduler/epochs.h"

#include "jobs/names.h"
#include "jobs/table.h"
#include "runtime/clock.h"
#include "runtime/consensus/paxos_store.h"
#include "runtime/crc32c.h"
#include "runtime/diag.h"
#include "runtime/replog_raft.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EPOCH_MAGIC 0x454d5254u /* "TRME" */
#define EPOCH_FILE_BYTES_MAX (64u * 1024u)
#define EPOCH_MAX (1u << 30)
#define OWNER_NAME "owner"
#define PATH_BYTES TRM_FS_PATH_BYTES_MAX
#define DECIDE_TIMEOUT_MS 1000u /* of a phase of the decision … */
#define DECIDE_BACKOFF_MS 20u
#define DECIDE_ROUNDS_MAX 200u /* … and how often it is begun again */

/* ---- Names and files --------------------------------------------------------------------------- */

static trm_status format(char out[PATH_BYTES], trm_err *err, int len)
{
    return len >= 0 && len < (int)PATH_BYTES
               ? TRM_OK
               : trm_err_set(err, TRM_EOUTPUT, "the path is too long: %.200s…", out);
}

trm_status trm_epoch_store_name(const char *state_dir, uint64_t epoch, uint32_t rank, char *out, trm_err *err)
{
    return format(out, err,
                  snprintf(out, PATH_BYTES, "%s/" TRM_LOG_NAME "/e%" PRIu64 ".r%u", state_dir, epoch, rank));
}

static trm_status epoch_file_name(const char *state_dir, uint64_t epoch, char *out, trm_err *err)
{
    return format(out, err,
                  snprintf(out, PATH_BYTES, "%s/" TRM_LOG_NAME "/epoch-%" PRIu64, state_dir, epoch));
}

static trm_status owner_name(const char *store, char *out, trm_err *err)
{
    return format(out, err, snprintf(out, PATH_BYTES, "%.3900s/" OWNER_NAME, store));
}

void trm_epoch_file_encode(uint64_t epoch, uint32_t ranks, const trm_raft_members *members, trm_writer *out)
{
    trm_writer list = {0};
    size_t at = out->len;
    trm_raft_members_encode(members, &list);
    trm_put_u32(out, EPOCH_MAGIC);
    trm_put_u32(out, TRM_EPOCH_VERSION);
    trm_put_u64(out, epoch);
    trm_put_u32(out, ranks);
    trm_put_blob(out, list.data, list.len);
    out->failed |= list.failed;
    if (trm_writer_ok(out))
        trm_put_u32(out, trm_crc32c(0, out->data + at, out->len - at));
    trm_writer_close(&list);
}

trm_status trm_epoch_file_decode(const void *bytes, size_t len, uint64_t *epoch, uint32_t *ranks,
                                 trm_raft_members *members, trm_err *err)
{
    trm_reader in;
    trm_reader_init(&in, bytes, len);
    bool magic = trm_get_u32(&in) == EPOCH_MAGIC;
    uint32_t version = trm_get_u32(&in);
    if (!trm_reader_ok(&in) || !magic)
        return trm_err_set(err, TRM_ECORRUPT, "it does not say how a launch began");
    if (version != TRM_EPOCH_VERSION)
        return trm_err_set(err, TRM_EVERSION, "it is of version %u, this program reads version %u", version,
                           TRM_EPOCH_VERSION);
    size_t list_len = 0;
    uint64_t number = trm_get_u64(&in);
    uint32_t count = trm_get_u32(&in);
    const uint8_t *list = trm_get_blob(&in, TRM_RAFT_MEMBERS_BYTES_MAX, &list_len);
    uint32_t crc = trm_get_u32(&in);
    if (!trm_reader_done(&in) || crc != trm_crc32c(0, bytes, len - sizeof crc) || number == 0 ||
        number > EPOCH_MAX)
        return trm_err_set(err, TRM_ECORRUPT, "it is damaged");
    trm_status status = trm_raft_members_decode(members, list, list_len, err);
    if (status != TRM_OK)
        return status;
    *epoch = number;
    *ranks = count;
    return TRM_OK;
}

/* ---- What is there -------------------------------------------------------------------------------- */

typedef struct found {
    uint64_t newest; /* epoch-<n>; 0: none */
    uint64_t epoch;  /* of the stores to be listed */
    uint32_t ranks[TRM_RAFT_NODES_MAX * 4];
    unsigned count;
} found;

static bool parse_epoch_file(const char *name, uint64_t *epoch)
{
    char rest;
    return sscanf(name, "epoch-%10" SCNu64 "%c", epoch, &rest) == 1 && *epoch > 0 && *epoch <= EPOCH_MAX;
}

static bool parse_store(const char *name, uint64_t *epoch, uint32_t *rank)
{
    char rest;
    return sscanf(name, "e%10" SCNu64 ".r%10" SCNu32 "%c", epoch, rank, &rest) == 2;
}

static trm_status note(const char *name, void *context)
{
    found *self = context;
    uint64_t epoch;
    uint32_t rank;
    if (parse_epoch_file(name, &epoch) && epoch > self->newest)
        self->newest = epoch;
    if (parse_store(name, &epoch, &rank) && epoch == self->epoch &&
        self->count < sizeof self->ranks / sizeof self->ranks[0])
        self->ranks[self->count++] = rank;
    return TRM_OK;
}

/* Of launch `epoch`, the stores; and the newest launch. */
static trm_status look(const trm_epochs_config *config, uint64_t epoch, found *out, trm_err *err)
{
    char dir[PATH_BYTES];
    *out = (found){.epoch = epoch};
    trm_status status = format(dir, err, snprintf(dir, sizeof dir, "%s/" TRM_LOG_NAME, config->state_dir));
    if (status == TRM_OK)
        status = trm_fs_make_dirs(config->fs, dir, 0, err);
    return status == TRM_OK ? config->fs->ops->list(config->fs, dir, note, out, err) : status;
}

/* ---- The last launch -------------------------------------------------------------------------------- */

/* One of its logs, open, and so locked. */
typedef struct store {
    uint32_t rank;
    trm_wal *wal;
    uint64_t last_index, last_term;
    uint64_t owner_id; /* of its register; 0: it has none */
    char dir[PATH_BYTES];
} store;

typedef struct last_launch {
    uint64_t epoch;
    trm_raft_members voters; /* by the longest log */
    store *stores;
    unsigned count;
    unsigned best;
    bool unsafe;       /* it is gone on with fewer than a majority of its logs */
    char missing[256]; /* why others are not among them; "": nothing is said */
} last_launch;

static void close_stores(last_launch *self)
{
    for (unsigned i = 0; i < self->count; i++)
        trm_wal_close(self->stores[i].wal);
    free(self->stores);
    self->stores = NULL;
    self->count = 0;
}

static trm_status read_epoch_file(const trm_epochs_config *config, uint64_t epoch, trm_raft_members *members,
                                  trm_err *err)
{
    char path[PATH_BYTES];
    uint8_t *bytes = NULL;
    size_t len = 0;
    uint64_t number;
    uint32_t ranks;
    trm_status status = epoch_file_name(config->state_dir, epoch, path, err);
    if (status == TRM_OK)
        status = trm_fs_read_whole(config->fs, path, EPOCH_FILE_BYTES_MAX, &bytes, &len, err);
    if (status != TRM_OK)
        return status;
    status = trm_epoch_file_decode(bytes, len, &number, &ranks, members, err);
    if (status == TRM_OK && number != epoch)
        status = trm_err_set(err, TRM_ECORRUPT, "it is of launch %" PRIu64, number);
    if (status != TRM_OK)
        trm_err_wrap(err, "%s", path);
    free(bytes);
    return status;
}

/* A log that cannot be opened is as good as none, but for one that another process has. */
static trm_status open_store(const trm_epochs_config *config, last_launch *self, uint32_t rank, trm_err *err)
{
    store *at = &self->stores[self->count];
    trm_err why = {""};
    char owner[PATH_BYTES];
    *at = (store){.rank = rank};
    trm_status status = trm_epoch_store_name(config->state_dir, self->epoch, rank, at->dir, err);
    if (status != TRM_OK)
        return status;
    trm_wal_config wal = {.create = false, .owner = config->launch};
    status = trm_wal_open(&at->wal, config->fs, at->dir, &wal, &why);
    if (status == TRM_EFENCED)
        return trm_err_set(err, TRM_EFENCED, "launch %" PRIu64 " of this job still runs: %s", self->epoch,
                           why.text);
    if (status == TRM_ENOMEM || status == TRM_EVERSION) {
        *err = why;
        return status;
    }
    if (status != TRM_OK) {
        trm_warn("the log of rank %u in launch %" PRIu64 " is of no use: %s", rank, self->epoch, why.text);
        return TRM_OK;
    }
    at->last_index = trm_wal_last_index(at->wal);
    at->last_term = trm_wal_term_at(at->wal, at->last_index);
    if (owner_name(at->dir, owner, &why) != TRM_OK ||
        trm_paxos_store_id(config->fs, owner, &at->owner_id, &why) != TRM_OK)
        at->owner_id = 0;
    const store *best = &self->stores[self->best];
    if (self->count == 0 || at->last_term > best->last_term ||
        (at->last_term == best->last_term && at->last_index > best->last_index))
        self->best = self->count;
    self->count++;
    return TRM_OK;
}

/* The newest membership in the longest log, committed or not (thesis 4.1). */
static trm_status read_voters(last_launch *self, trm_err *err)
{
    trm_wal *wal = self->stores[self->best].wal;
    trm_wal_entry entry;
    for (uint64_t i = trm_wal_last_index(wal); i >= trm_wal_first_index(wal) && i > 0; i--) {
        trm_wal_entry_at(wal, i, &entry);
        if (entry.type == TRM_RAFT_CONFIG)
            return trm_raft_members_decode(&self->voters, entry.payload, entry.len, err);
    }
    trm_wal_snapshot snapshot;
    trm_wal_snapshot_get(wal, &snapshot);
    if (snapshot.index && snapshot.config_len)
        return trm_raft_members_decode(&self->voters, snapshot.config, snapshot.config_len, err);
    return TRM_OK; /* as it began */
}

static bool has_store(const last_launch *self, uint64_t node)
{
    for (unsigned i = 0; i < self->count; i++)
        if (self->stores[i].rank == node)
            return true;
    return false;
}

static unsigned stores_of_voters(last_launch *self)
{
    unsigned there = 0;
    size_t len = 0;
    self->missing[0] = '\0';
    for (uint32_t i = 0; i < self->voters.count; i++) {
        const trm_raft_member *member = &self->voters.member[i];
        if (!member->voter)
            continue;
        there += has_store(self, member->node);
        if (!has_store(self, member->node) && len < sizeof self->missing - 16)
            len += (size_t)snprintf(self->missing + len, sizeof self->missing - len, "%s%" PRIu64,
                                    len ? ", " : "", member->node);
    }
    return there;
}

/* Opens the logs of the last launch, and sees that they are enough. */
static trm_status open_last(const trm_epochs_config *config, last_launch *self, trm_epochs_begun *out,
                            trm_err *err)
{
    found there;
    trm_status status = read_epoch_file(config, self->epoch, &self->voters, err);
    if (status == TRM_OK)
        status = look(config, self->epoch, &there, err);
    if (status != TRM_OK)
        return status;
    self->stores = calloc(there.count + 1, sizeof *self->stores);
    if (!self->stores)
        return trm_err_set(err, TRM_ENOMEM, "no memory for the logs of the last launch");
    for (unsigned i = 0; i < there.count && status == TRM_OK; i++)
        status = open_store(config, self, there.ranks[i], err);
    if (status == TRM_OK && self->count)
        status = read_voters(self, err);
    if (status != TRM_OK)
        return status;
    unsigned voters = trm_raft_members_voters(&self->voters), have = stores_of_voters(self);
    out->stores = self->count;
    out->voters = voters;
    if (2 * have > voters)
        return TRM_OK;
    if (config->unsafe_recover && self->count) {
        trm_warn("the logs of %u of the %u voters of launch %" PRIu64
                 " are there: what only the others hold is lost, and is done again",
                 have, voters, self->epoch);
        self->unsafe = true;
        return TRM_OK;
    }
    return trm_err_set(
        err, TRM_ELOST,
        "the logs of %u of the %u voters of launch %" PRIu64
        " are there, a majority is needed; missing: those of rank %s in %s/" TRM_LOG_NAME " (%s)",
        have, voters, self->epoch, self->missing, config->state_dir,
        self->count ? "--unsafe-recover goes on without them, and does again what only they know to be done"
                    : "none is left to go on from: to begin anew, remove the output directory");
}

/* ---- Whose the next launch is ------------------------------------------------------------------------- */

/* One message to one register and back: the stores are files. */
static trm_status ask(const trm_epochs_config *config, const store *at, uint64_t register_id,
                      const trm_paxos_message *request, uint64_t now_ns, trm_paxos_proposer *proposer,
                      trm_err *err)
{
    char owner[PATH_BYTES];
    trm_paxos_message answer;
    trm_status status = owner_name(at->dir, owner, err);
    if (status == TRM_OK)
        status = trm_paxos_store_answer(config->fs, owner, register_id, request, &answer, err);
    if (status == TRM_OK)
        trm_paxos_proposer_receive(proposer, &answer, now_ns);
    return status;
}

/* TRM_OK: it is ours; TRM_AGAIN: it is another's, who has not begun it and does not live (we hold
 * the locks). */
static trm_status decide(const trm_epochs_config *config, const last_launch *last, uint64_t epoch,
                         trm_err *err)
{
    uint64_t ids[TRM_PAXOS_ACCEPTORS_MAX];
    const store *stores[TRM_PAXOS_ACCEPTORS_MAX];
    unsigned count = 0;
    for (unsigned i = 0; i < last->count && count < TRM_PAXOS_ACCEPTORS_MAX; i++) {
        const trm_raft_member *member = trm_raft_members_find(&last->voters, last->stores[i].rank);
        if (!last->stores[i].owner_id || !member || !member->voter)
            continue;
        stores[count] = &last->stores[i];
        ids[count++] = last->stores[i].owner_id;
    }
    if (!count)
        return TRM_OK; /* recovered without a majority of anything: the locks have to do */
    trm_paxos_proposer_config begin = {.register_id = epoch,
                                       .node = config->entropy,
                                       .store_ids = ids,
                                       .acceptors = count,
                                       .value = (const uint8_t *)config->launch,
                                       .value_len = (uint32_t)strlen(config->launch),
                                       .timeout_ns = DECIDE_TIMEOUT_MS * TRM_NS_PER_MS,
                                       .backoff_ns = DECIDE_BACKOFF_MS * TRM_NS_PER_MS,
                                       .seed = config->entropy};
    trm_paxos_proposer proposer;
    uint64_t now_ns = 0; /* no time passes: files answer at once, or not at all */
    trm_paxos_proposer_init(&proposer, &begin, now_ns);
    bool own = false;
    trm_status failed = TRM_OK; /* a store, the last time that one did, and why */
    trm_err why = {""};
    for (unsigned round = 0; round < DECIDE_ROUNDS_MAX; round++) {
        uint32_t to;
        trm_paxos_message request;
        while (trm_paxos_proposer_next(&proposer, &to, &request)) {
            trm_status asked = ask(config, stores[to], epoch, &request, now_ns, &proposer, &why);
            if (asked != TRM_OK && asked != TRM_AGAIN) /* else it is another's turn at the store */
                failed = asked;
        }
        if (trm_paxos_proposer_decided(&proposer, &own))
            return own ? TRM_OK : TRM_AGAIN;
        now_ns = proposer.deadline_ns;
        trm_paxos_proposer_tick(&proposer, now_ns);
    }
    if (failed != TRM_OK)
        return trm_err_set(err, failed, "whose launch %" PRIu64 " is could not be decided: %s", epoch,
                           why.text);
    return trm_err_set(err, TRM_EFENCED, "whose launch %" PRIu64 " is could not be decided: others try too",
                       epoch);
}

/* ---- The job table ----------------------------------------------------------------------------------------
 */

static trm_status restore(trm_table *table, trm_wal *wal, const trm_wal_snapshot *snapshot, trm_err *err)
{
    size_t len = (size_t)snapshot->data_bytes, got = 0;
    uint8_t *bytes = malloc(len + 1);
    if (!bytes)
        return trm_err_set(err, TRM_ENOMEM, "no memory for the job table");
    trm_status status = trm_wal_snapshot_read(wal, 0, bytes, len, &got, err);
    if (status == TRM_OK && len)
        status = trm_table_decode(table, bytes, got, err);
    free(bytes);
    return status;
}

/* The table that the longest log makes. Entries at its end that were not committed count too: a
 * leader that had this log would commit them. */
static trm_status read_table(const last_launch *self, trm_table *table, trm_err *err)
{
    trm_wal *wal = self->stores[self->best].wal;
    trm_wal_snapshot snapshot;
    trm_wal_snapshot_get(wal, &snapshot);
    trm_status status = snapshot.index ? restore(table, wal, &snapshot, err) : TRM_OK;
    uint64_t last = trm_wal_last_index(wal);
    for (uint64_t i = trm_wal_first_index(wal); i <= last && status == TRM_OK; i++) {
        trm_wal_entry entry;
        trm_wal_entry_at(wal, i, &entry);
        if (entry.type == TRM_RAFT_COMMAND)
            status = trm_table_apply(table, entry.payload, entry.len, NULL, err);
    }
    if (status != TRM_OK)
        trm_err_wrap(err, "%s", self->stores[self->best].dir);
    return status;
}

static trm_status recover(const last_launch *self, trm_writer *image, trm_err *err)
{
    trm_table table;
    trm_table_init(&table);
    trm_status status = read_table(self, &table, err);
    if (status == TRM_OK && self->unsafe)
        trm_table_masters_unknown(&table);
    if (status == TRM_OK) {
        trm_table_encode(&table, image);
        if (!trm_writer_ok(image))
            status = trm_err_set(err, TRM_ENOMEM, "no memory for the image of the job table");
    }
    trm_table_close(&table);
    return status;
}

/* ---- The new launch
 * ------------------------------------------------------------------------------------------ */

static trm_status make_store(const trm_epochs_config *config, uint64_t epoch, uint32_t rank,
                             const trm_writer *image, trm_err *err)
{
    char dir[PATH_BYTES];
    trm_status status = trm_epoch_store_name(config->state_dir, epoch, rank, dir, err);
    if (status == TRM_OK) /* of a launch with this number that died before it began */
        status = trm_fs_remove_tree(config->fs, dir, err);
    trm_replog_raft_config log = {.fs = config->fs,
                                  .dir = dir,
                                  .rank = rank,
                                  .log_id = config->entropy + rank,
                                  .first_members = config->voters,
                                  .image = image->len ? image->data : NULL,
                                  .image_len = image->len};
    if (status == TRM_OK)
        status = trm_replog_raft_make(&log, err);
    return status == TRM_OK ? trm_epochs_join(config->fs, dir, config->entropy ^ (rank + 1), err) : status;
}

static trm_status begin(const trm_epochs_config *config, uint64_t epoch, const trm_writer *image,
                        trm_err *err)
{
    trm_status status = TRM_OK;
    for (uint32_t i = 0; i < config->voters->count && status == TRM_OK; i++)
        status = make_store(config, epoch, (uint32_t)config->voters->member[i].node, image, err);
    char path[PATH_BYTES];
    trm_writer file = {0};
    trm_epoch_file_encode(epoch, config->ranks, config->voters, &file);
    if (status == TRM_OK && !trm_writer_ok(&file))
        status = trm_err_set(err, TRM_ENOMEM, "no memory for the begin of the launch");
    if (status == TRM_OK)
        status = epoch_file_name(config->state_dir, epoch, path, err);
    if (status == TRM_OK)
        status = trm_fs_write_whole(config->fs, path, file.data, file.len, 0, err);
    trm_writer_close(&file);
    return status;
}

static trm_status take_over(const trm_epochs_config *config, last_launch *last, trm_epochs_begun *out,
                            trm_writer *image, trm_err *err)
{
    trm_status status = open_last(config, last, out, err);
    if (status != TRM_OK)
        return status;
    uint64_t epoch = last->epoch + 1;
    status = decide(config, last, epoch, err);
    for (unsigned i = 0; i < TRM_EPOCH_TRIES_MAX && status == TRM_AGAIN; i++)
        status = decide(config, last, ++epoch, err);
    if (status == TRM_AGAIN)
        status =
            trm_err_set(err, TRM_EFENCED, "%u launches have died before they began", TRM_EPOCH_TRIES_MAX);
    if (status == TRM_OK)
        status = recover(last, image, err);
    out->epoch = epoch;
    return status;
}

/* No epoch-<n> is there: nothing has begun yet, or its logs are gone. A master writes its record when its
 * launch has begun, and clearing removes the identity before anything else, so that a launch that goes on
 * never finds what is left of a record. */
static trm_status check_is_first(const trm_epochs_config *config, trm_err *err)
{
    char path[PATH_BYTES];
    trm_file *file;
    trm_status status =
        format(path, err, snprintf(path, sizeof path, "%s/" TRM_STATUS_NAME, config->state_dir));
    if (status == TRM_OK)
        status = config->fs->ops->open(config->fs, path, TRM_FS_READ, &file, err);
    if (status != TRM_OK)
        return status == TRM_ELOST ? TRM_OK : status;
    config->fs->ops->close(file);
    return trm_err_set(err, TRM_ELOST,
                       "launches of this job have begun, and their logs are gone (no epoch-<n> is in "
                       "%s/" TRM_LOG_NAME "): what is done is not known; to begin anew, remove the output "
                       "directory",
                       config->state_dir);
}

trm_status trm_epochs_begin(const trm_epochs_config *config, trm_epochs_begun *out, trm_err *err)
{
    found there;
    trm_epochs_begun begun = {.epoch = 1};
    trm_writer image = {0};
    last_launch last = {0};
    trm_status status = look(config, 0, &there, err);
    last.epoch = there.newest;
    if (status == TRM_OK && last.epoch) {
        begun.resumed = true;
        status = take_over(config, &last, &begun, &image, err);
    } else if (status == TRM_OK) {
        status = check_is_first(config, err);
    }
    if (status == TRM_OK)
        status = begin(config, begun.epoch, &image, err);
    close_stores(&last);
    trm_writer_close(&image);
    if (status == TRM_OK)
        *out = begun;
    return status;
}

trm_status trm_epochs_join(trm_fs *fs, const char *store_dir, uint64_t entropy, trm_err *err)
{
    char owner[PATH_BYTES];
    uint64_t id;
    trm_status status = owner_name(store_dir, owner, err);
    return status == TRM_OK ? trm_paxos_store_make(fs, owner, entropy, &id, err) : status;
}

/* ---- Forgetting
 * ------------------------------------------------------------------------------------------------ */

typedef struct forgetting {
    trm_fs *fs;
    const char *dir;
    uint64_t epoch;
} forgetting;

static trm_status forget_one(const char *name, void *context)
{
    const forgetting *self = context;
    uint64_t epoch;
    uint32_t rank;
    char path[PATH_BYTES];
    trm_err err;
    if ((!parse_epoch_file(name, &epoch) && !parse_store(name, &epoch, &rank)) || epoch >= self->epoch)
        return TRM_OK;
    if (snprintf(path, sizeof path, "%s/%s", self->dir, name) < (int)sizeof path)
        trm_fs_remove_tree(self->fs, path, &err); /* what stays is removed by the next launch */
    return TRM_OK;
}

void trm_epochs_forget(trm_fs *fs, const char *state_dir, uint64_t epoch)
{
    char dir[PATH_BYTES];
    trm_err err;
    if (snprintf(dir, sizeof dir, "%s/" TRM_LOG_NAME, state_dir) >= (int)sizeof dir)
        return;
    forgetting all = {.fs = fs, .dir = dir, .epoch = epoch};
    fs->ops->list(fs, dir, forget_one, &all, &err);
}
