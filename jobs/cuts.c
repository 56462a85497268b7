/* Cut points: their file and the search for a key's partition. */
#include "jobs/cuts.h"

#include "runtime/crc32c.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CUTS_MAGIC 0x434d5254u /* "TRMC" */
#define CUTS_VERSION 1u

int trm_cuts_compare(const void *a, size_t a_len, const void *b, size_t b_len)
{
    size_t shorter = a_len < b_len ? a_len : b_len;
    int order = shorter ? memcmp(a, b, shorter) : 0;
    return order ? order : (a_len > b_len) - (a_len < b_len);
}

/* The first eight bytes as a number that orders like them; short keys as if followed by
 * zeros, so that equal prefixes decide nothing. */
static uint64_t key_prefix(const uint8_t *key, size_t len)
{
    uint64_t word = 0;
    if (len >= 8)
        return __builtin_bswap64(trm_load_u64(key));
    for (size_t i = 0; i < len; i++)
        word |= (uint64_t)key[i] << (56 - 8 * i);
    return word;
}

static size_t cut_len(const trm_cuts *self, uint32_t cut)
{
    return (size_t)(self->begin[cut + 1] - self->begin[cut]);
}

/* Fills prefixes and first-byte ranges. A key that begins with byte b has at least first[b]
 * cuts not above it, and those that begin with b are [first[b], first[b + 1]). An empty cut is
 * not above any key. */
static void cuts_index(trm_cuts *self)
{
    uint32_t cuts = self->partitions - 1, cut = 0;
    for (uint32_t i = 0; i < cuts; i++)
        self->prefix[i] = key_prefix(self->keys + self->begin[i], cut_len(self, i));
    for (unsigned byte = 0; byte <= 256; byte++) {
        while (cut < cuts && (cut_len(self, cut) == 0 || self->keys[self->begin[cut]] < byte))
            cut++;
        self->first[byte] = cut;
    }
}

static trm_status cuts_allocate(trm_cuts *self, uint32_t partitions, uint64_t bytes, trm_err *err)
{
    *self = (trm_cuts){.partitions = partitions};
    self->keys = malloc(bytes + 1);
    self->begin = calloc(partitions, sizeof *self->begin);
    self->prefix = calloc(partitions, sizeof *self->prefix);
    if (self->keys && self->begin && self->prefix)
        return TRM_OK;
    trm_cuts_close(self);
    return trm_err_set(err, TRM_ENOMEM, "no memory for the cut points of %u partitions", partitions);
}

void trm_cuts_close(trm_cuts *self)
{
    free(self->keys);
    free(self->begin);
    free(self->prefix);
    *self = (trm_cuts){0};
}

trm_status trm_cuts_init(trm_cuts *self, const trm_cuts_key *keys, uint32_t partitions, trm_err *err)
{
    if (partitions == 0 || partitions > TRM_PARTITIONS_MAX)
        return trm_err_set(err, TRM_EINPUT, "%u partitions: 1 to %u are possible", partitions,
                           TRM_PARTITIONS_MAX);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i + 1 < partitions; i++) {
        if (keys[i].len > TRM_KEY_BYTES_MAX)
            return trm_err_set(err, TRM_EINPUT, "cut %u has %zu bytes: more than a key may have", i,
                               keys[i].len);
        if (i && trm_cuts_compare(keys[i - 1].bytes, keys[i - 1].len, keys[i].bytes, keys[i].len) > 0)
            return trm_err_set(err, TRM_EINPUT, "cut %u is below the one before it", i);
        bytes += keys[i].len;
    }
    trm_cuts made;
    trm_status status = cuts_allocate(&made, partitions, bytes, err);
    if (status != TRM_OK)
        return status;
    uint64_t at = 0;
    for (uint32_t i = 0; i + 1 < partitions; i++) {
        made.begin[i] = at;
        if (keys[i].len)
            memcpy(made.keys + at, keys[i].bytes, keys[i].len);
        at += keys[i].len;
    }
    made.begin[partitions - 1] = at;
    cuts_index(&made);
    *self = made;
    return TRM_OK;
}

uint32_t trm_cuts_find(const trm_cuts *self, const void *key, size_t key_len)
{
    const uint8_t *bytes = key;
    if (key_len == 0) { /* only empty cuts are not above it */
        return self->first[0];
    }
    uint32_t low = self->first[bytes[0]], high = self->first[bytes[0] + 1];
    uint64_t prefix = key_prefix(bytes, key_len);
    while (low < high) { /* the first cut that is above the key is in [low, high] */
        uint32_t middle = low + (high - low) / 2;
        bool above = self->prefix[middle] > prefix;
        if (self->prefix[middle] == prefix)
            above =
                trm_cuts_compare(self->keys + self->begin[middle], cut_len(self, middle), bytes, key_len) > 0;
        if (above)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

void trm_cuts_encode(const trm_cuts *self, trm_writer *out)
{
    assert(self->partitions > 0);
    size_t begin = out->len;
    trm_put_u32(out, CUTS_MAGIC);
    trm_put_u32(out, CUTS_VERSION);
    trm_put_u32(out, self->partitions);
    trm_put_u64(out, self->begin[self->partitions - 1]);
    for (uint32_t i = 0; i + 1 < self->partitions; i++)
        trm_put_blob(out, self->keys + self->begin[i], cut_len(self, i));
    if (trm_writer_ok(out))
        trm_put_u32(out, trm_crc32c(0, out->data + begin, out->len - begin));
}

static trm_status cuts_corrupt(trm_err *err, const char *what)
{
    return trm_err_set(err, TRM_ECORRUPT, "cut points: %s", what);
}

trm_status trm_cuts_decode(trm_cuts *self, const void *bytes, size_t len, trm_err *err)
{
    trm_reader in;
    if (len < 24)
        return cuts_corrupt(err, "cut short");
    trm_reader_init(&in, bytes, len - 4);
    if (trm_get_u32(&in) != CUTS_MAGIC)
        return cuts_corrupt(err, "not a file of cut points");
    uint32_t version = trm_get_u32(&in);
    if (version != CUTS_VERSION)
        return trm_err_set(err, TRM_EVERSION, "cut points of version %u, this program reads %u", version,
                           CUTS_VERSION);
    if (trm_load_u32((const uint8_t *)bytes + len - 4) != trm_crc32c(0, bytes, len - 4))
        return cuts_corrupt(err, "the checksum is wrong");
    uint32_t partitions = trm_get_u32(&in);
    uint64_t key_bytes = trm_get_u64(&in);
    /* A cut takes a byte at the least: nothing is allocated that the file does not hold. */
    if (partitions == 0 || partitions > TRM_PARTITIONS_MAX || partitions - 1 > trm_reader_left(&in) ||
        key_bytes > trm_reader_left(&in))
        return cuts_corrupt(err, "impossible counts");
    trm_cuts found;
    trm_status status = cuts_allocate(&found, partitions, key_bytes, err);
    if (status != TRM_OK)
        return status;
    uint64_t at = 0;
    bool ascends = true;
    for (uint32_t i = 0; i + 1 < partitions && trm_reader_ok(&in); i++) {
        size_t key_len = 0;
        const uint8_t *key = trm_get_blob(&in, TRM_KEY_BYTES_MAX, &key_len);
        if (!trm_reader_ok(&in) || key_len > key_bytes - at) {
            trm_reader_fail(&in);
            break;
        }
        found.begin[i] = at;
        if (key_len)
            memcpy(found.keys + at, key, key_len);
        at += key_len;
        if (i)
            ascends = ascends &&
                      trm_cuts_compare(found.keys + found.begin[i - 1], found.begin[i] - found.begin[i - 1],
                                       found.keys + found.begin[i], key_len) <= 0;
    }
    found.begin[partitions - 1] = at;
    if (!trm_reader_done(&in) || at != key_bytes || !ascends) {
        trm_cuts_close(&found);
        return cuts_corrupt(err, "malformed");
    }
    cuts_index(&found);
    *self = found;
    return TRM_OK;
}

static trm_status cuts_path(const char *state_dir, uint32_t crc, char *out, size_t out_bytes, trm_err *err)
{
    int len = snprintf(out, out_bytes, "%s/%s-%08x", state_dir, TRM_CUTS_NAME, crc);
    if (len < 0 || (size_t)len >= out_bytes)
        return trm_err_set(err, TRM_EOUTPUT, "%s: the path is too long", state_dir);
    return TRM_OK;
}

trm_status trm_cuts_save(const trm_cuts *self, trm_fs *fs, const char *state_dir, uint32_t *crc, trm_err *err)
{
    char path[TRM_FS_PATH_BYTES_MAX];
    trm_writer writer;
    trm_writer_init(&writer);
    uint32_t made = 0;
    trm_cuts_encode(self, &writer);
    trm_status status = TRM_OK;
    if (!trm_writer_ok(&writer))
        status = trm_err_set(err, TRM_ENOMEM, "no memory to save the cut points");
    else
        made = trm_load_u32(writer.data + writer.len - 4);
    if (status == TRM_OK)
        status = cuts_path(state_dir, made, path, sizeof path, err);
    if (status == TRM_OK)
        status = trm_fs_write_whole(fs, path, writer.data, writer.len, 0, err);
    if (status == TRM_OK)
        *crc = made;
    trm_writer_close(&writer);
    return status;
}

trm_status trm_cuts_load(trm_cuts *self, trm_fs *fs, const char *state_dir, uint32_t crc, trm_err *err)
{
    char path[TRM_FS_PATH_BYTES_MAX];
    uint8_t *bytes = NULL;
    size_t len = 0;
    trm_status status = cuts_path(state_dir, crc, path, sizeof path, err);
    if (status == TRM_OK)
        status = trm_fs_read_whole(fs, path, TRM_CUTS_BYTES_MAX, &bytes, &len, err);
    if (status != TRM_OK)
        return status;
    if (len < 4 || trm_load_u32(bytes + len - 4) != crc)
        status = trm_err_set(err, TRM_ECORRUPT, "%s: not the cut points of this job", path);
    else
        status = trm_cuts_decode(self, bytes, len, err);
    if (status != TRM_OK && err && !strstr(err->text, path))
        trm_err_wrap(err, "%s", path);
    free(bytes);
    return status;
}
