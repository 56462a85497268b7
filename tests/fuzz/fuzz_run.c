/* A run or an extract from outside: raw bytes, or bytes made a file with good checksums so that
 * what is behind them is reached: the index, blocks, records, compressed blocks. Whatever is
 * read must end, in order or with TRM_ECORRUPT, and within its memory. */
#include "runtime/codec.h"
#include "tests/support/fs_mem.h"
#include "workers/merge.h"
#include "workers/run_format.h"

#include <stdlib.h>

#define PATH "run"
#define BLOCK_BYTES_MAX 512u

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void check(bool holds)
{
    if (!holds)
        abort();
}

/* One block of whatever the input says, with the right checksum; its partition is mostly 0. */
static void put_block(trm_writer *file, trm_reader *in, trm_segment *segment)
{
    uint8_t shape = trm_get_u8(in);
    size_t raw = 1 + trm_get_u8(in) % 200, left = trm_reader_left(in);
    const uint8_t *body = trm_get_bytes(in, raw < left ? raw : left);
    trm_block_header header = {.partition = shape & 0x80 && shape & 0x40, .kind = (shape >> 2) % 4};
    size_t stored = raw < left ? raw : left;
    header.raw_bytes = (uint32_t)stored;
    header.codec = shape & 1;
    header.records = shape >> 4 & 3;
    if (header.codec) /* claims to be compressed, and may be */
        header.raw_bytes = (uint32_t)(stored * 2 + (shape >> 1 & 1));
    header.stored_bytes = (uint32_t)stored;
    uint8_t *at = trm_writer_extend(file, TRM_RUN_BLOCK_HEADER_BYTES + stored);
    if (!at || !body)
        return;
    memcpy(at + TRM_RUN_BLOCK_HEADER_BYTES, body, stored);
    trm_block_header_store(at, &header);
    segment->stored_bytes += TRM_RUN_BLOCK_HEADER_BYTES + stored;
    segment->raw_bytes += header.raw_bytes;
    segment->blocks++;
    if (header.raw_bytes > segment->block_bytes_max)
        segment->block_bytes_max = header.raw_bytes;
}

/* A run of a few segments with a good header, index and footer. */
static void make_run(trm_writer *file, const uint8_t *bytes, size_t len)
{
    trm_segment segments[8];
    uint32_t count = 0;
    trm_reader in;
    trm_reader_init(&in, bytes, len);
    uint8_t *header = trm_writer_extend(file, TRM_RUN_HEADER_BYTES);
    if (header)
        trm_run_header_store(header, TRM_RUN_KIND_RUN, 1, 0, 2);
    while (count < 8 && trm_reader_left(&in) > 4) {
        trm_segment *s = &segments[count];
        uint8_t shape = trm_get_u8(&in);
        *s = (trm_segment){.spill = count++, .offset = file->len};
        s->records = 1 + shape % 4;
        s->record_bytes_max = 2 + (shape >> 4);
        for (unsigned i = 0; i <= (shape >> 2) % 4u && trm_reader_left(&in) > 2; i++)
            put_block(file, &in, s);
        if (shape == 0xff)
            s->raw_bytes = trm_get_varint(&in);
    }
    uint64_t at = file->len;
    trm_writer index;
    trm_writer_init(&index);
    trm_run_index_encode(&index, segments, count);
    trm_run_footer_encode(&index, at);
    trm_put_bytes(file, index.data, index.len);
    trm_writer_close(&index);
}

static void merge(trm_fs *fs, trm_region region, const trm_fold *fold)
{
    trm_run_index index;
    trm_segment_at segments[8];
    trm_merge *self;
    trm_group *group;
    trm_err err;
    const void *value;
    size_t len;
    trm_status status = trm_run_index_load(&index, fs, PATH, &err);
    if (status != TRM_OK) {
        check(status == TRM_ECORRUPT || status == TRM_EVERSION);
        return;
    }
    size_t count = trm_run_index_segments(&index, PATH, 0, 1, 0, segments, 8);
    trm_run_index_close(&index);
    trm_merge_options options = {
        .fs = fs, .region = region, .scratch_dir = ".", .value_bytes_max = 1 << 20, .fold = fold};
    check(trm_merge_create(&self, &options, &err) == TRM_OK);
    status = trm_merge_open(self, "f", segments, count < 8 ? count : 8, &err);
    while (status == TRM_OK && (status = trm_merge_next(self, &group, &err)) == TRM_OK) {
        while (!fold && (status = trm_group_next(group, &value, &len, &err)) == TRM_OK)
            ;
        if (status == TRM_EOF)
            status = TRM_OK;
    }
    check(status == TRM_EOF || status == TRM_ECORRUPT || status == TRM_ELIMIT);
    trm_merge_destroy(self);
}

static void use(trm_fs *fs, trm_region region, const uint8_t *bytes, size_t len)
{
    trm_file *file;
    check(fs->ops->open(fs, PATH, TRM_FS_WRITE | TRM_FS_CREATE | TRM_FS_TRUNCATE, &file, NULL) == TRM_OK);
    check(len == 0 || fs->ops->write_at(file, 0, bytes, len, NULL) == TRM_OK);
    fs->ops->close(file);
    merge(fs, region, NULL);
    merge(fs, region, TRM_FOLD_SUM_U64);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static trm_region region;
    trm_err err;
    if (!region.base)
        check(trm_region_open(&region, TRM_MERGE_REGION_BYTES_MIN, &err) == TRM_OK);
    if (len == 0)
        return 0;
    trm_fs *fs = trm_fs_mem_create(1);
    check(fs != NULL);
    if (bytes[0] == 0) {
        use(fs, region, bytes + 1, len - 1);
    } else {
        trm_writer file;
        trm_writer_init(&file);
        make_run(&file, bytes + 1, len - 1);
        use(fs, region, file.data, file.len);
        trm_writer_close(&file);
    }
    trm_fs_mem_destroy(fs);
    return 0;
}
