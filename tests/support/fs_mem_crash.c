/* What a crash leaves of a file system in memory, and its begin and end. */
#include "tests/support/fs_mem_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR_BYTES 512u

/* ---- What a crash leaves. ---- */

/* How the changes of one file, or the names, come out of a crash. */
typedef enum fate { KEEP_NONE, KEEP_ALL, KEEP_FIRST, KEEP_ANY } fate;

static bool kept(mem_fs *self, fate how, uint64_t first)
{
    return how == KEEP_ALL || (how == KEEP_ANY && mem_below(self, 2)) || (how == KEEP_FIRST && first > 0);
}

/* Applies one write, sector by sector. */
static void crash_write(mem_fs *self, mem_node *node, const change *what, fate how, uint64_t *first,
                        bool *torn)
{
    for (size_t done = 0; done < what->len;) {
        uint64_t at = what->offset + done;
        size_t len = (size_t)(SECTOR_BYTES - at % SECTOR_BYTES);
        if (len > what->len - done)
            len = what->len - done;
        if (kept(self, how, *first)) {
            mem_content_put(&node->durable, at, what->data ? what->data + done : NULL, len);
        } else if (!*torn && mem_below(self, 4) == 0) {
            /* Torn: any bytes in this sector, also where it held older ones. */
            uint64_t sector = at / SECTOR_BYTES * SECTOR_BYTES;
            mem_content_put(&node->durable, at, what->data ? what->data + done : NULL, len);
            for (int i = 0; i < 16; i++) {
                uint64_t hit = sector + mem_below(self, SECTOR_BYTES);
                if (hit < node->durable.len)
                    node->durable.bytes[hit] = (uint8_t)mem_draw(self);
            }
            self->counts.sectors_torn++;
            *torn = true;
        } else {
            self->counts.sectors_lost++;
        }
        *first -= *first > 0;
        done += len;
    }
}

static void crash_node(mem_fs *self, mem_node *node)
{
    fate how = (fate)mem_below(self, 4);
    uint64_t sectors = 1;
    for (const change *what = node->first; what; what = what->next)
        sectors += what->len / SECTOR_BYTES + 1;
    uint64_t first = mem_below(self, sectors);
    bool torn = how == KEEP_NONE && mem_below(self, 2); /* sometimes cleanly nothing */
    for (const change *what = node->first; what; what = what->next) {
        if (!what->is_length)
            crash_write(self, node, what, how, &first, &torn);
        else if (kept(self, how, first))
            mem_content_apply(&node->durable, what);
    }
}

static void crash_names(mem_fs *self)
{
    fate how = (fate)mem_below(self, 4);
    uint64_t count = 1;
    for (const name_change *what = self->first; what; what = what->next)
        count++;
    uint64_t first = mem_below(self, count);
    for (const name_change *what = self->first; what; what = what->next) {
        if (kept(self, how, first))
            mem_names_apply(&self->durable, what);
        else
            self->counts.names_lost++;
        first -= first > 0;
    }
}

static bool is_named(const names *self, const mem_node *node)
{
    for (size_t i = 0; i < self->len; i++)
        if (self->items[i].node == node)
            return true;
    return false;
}

static void node_free(mem_node *node)
{
    mem_changes_drop(node);
    free(node->live.bytes);
    free(node->durable.bytes);
    free(node);
}

/* Nodes that no name leads to are gone. */
static void sweep(mem_fs *self)
{
    for (mem_node **at = &self->nodes; *at;) {
        mem_node *node = *at;
        if (is_named(&self->live, node)) {
            at = &node->next;
        } else {
            *at = node->next;
            node_free(node);
        }
    }
}

static void name_changes_drop(mem_fs *self)
{
    while (self->first) {
        name_change *next = self->first->next;
        mem_name_change_free(self->first);
        self->first = next;
    }
    self->last = &self->first;
}

/* A name whose directory is gone leads nowhere. */
static void drop_orphans(mem_fs *self)
{
    for (size_t i = 0; i < self->live.len;)
        if (mem_parent_is_there(self, self->live.items[i].path)) {
            i++;
        } else {
            mem_names_remove(&self->durable, self->live.items[i].path);
            mem_names_remove(&self->live, self->live.items[i].path);
            i = 0;
        }
}

void trm_fs_mem_kill(trm_fs *fs)
{
    mem_fs *self = (mem_fs *)fs;
    for (mem_file *file = self->files; file; file = file->next) {
        file->dead = true;
        file->node = NULL;
    }
    for (mem_node *node = self->nodes; node; node = node->next)
        node->locked_by = NULL;
    self->fail_mask = self->often_mask = 0;
    self->stop_set = false;
}

static void crash_content(mem_fs *self, mem_node *node)
{
    if (node->first)
        crash_node(self, node);
    mem_changes_drop(node);
    mem_content_resize(&node->live, 0);
    mem_content_put(&node->live, 0, node->durable.bytes, node->durable.len);
}

void trm_fs_mem_crash_file(trm_file *base)
{
    mem_file *file = (mem_file *)base;
    if (!file->dead && file->node->first)
        crash_content((mem_fs *)base->fs, file->node);
}

void trm_fs_mem_crash(trm_fs *fs)
{
    mem_fs *self = (mem_fs *)fs;
    trm_fs_mem_kill(fs);
    for (mem_node *node = self->nodes; node; node = node->next)
        crash_content(self, node);
    crash_names(self);
    name_changes_drop(self);
    mem_names_clear(&self->live);
    for (size_t i = 0; i < self->durable.len; i++)
        mem_names_set(&self->live, self->durable.items[i].path, self->durable.items[i].node);
    drop_orphans(self);
    sweep(self);
}

void trm_fs_mem_wipe(trm_fs *fs)
{
    mem_fs *self = (mem_fs *)fs;
    trm_fs_mem_kill(fs);
    name_changes_drop(self);
    mem_names_clear(&self->live);
    mem_names_clear(&self->durable);
    sweep(self);
}

trm_fs *trm_fs_mem_create(uint64_t seed)
{
    mem_fs *self = calloc(1, sizeof *self);
    if (!self)
        return NULL;
    self->base.ops = &mem_ops;
    self->random = seed;
    self->last = &self->first;
    self->capacity = UINT64_MAX;
    return &self->base;
}

void trm_fs_mem_destroy(trm_fs *fs)
{
    if (!fs)
        return;
    mem_fs *self = (mem_fs *)fs;
    trm_fs_mem_wipe(fs);
    while (self->files)
        mem_ops.close(&self->files->base);
    free(self);
}

void trm_fs_mem_set_capacity(trm_fs *fs, uint64_t bytes)
{
    ((mem_fs *)fs)->capacity = bytes;
}

void trm_fs_mem_fail(trm_fs *fs, unsigned mask, uint64_t after, uint64_t count, trm_status status)
{
    mem_fs *self = (mem_fs *)fs;
    self->fail_mask = mask;
    self->fail_after = after;
    self->fail_count = count;
    self->fail_status = status;
}

void trm_fs_mem_fail_often(trm_fs *fs, unsigned mask, unsigned permille, trm_status status)
{
    mem_fs *self = (mem_fs *)fs;
    self->often_mask = mask;
    self->often_permille = permille;
    self->often_status = status;
}

void trm_fs_mem_stop_after(trm_fs *fs, uint64_t changes)
{
    mem_fs *self = (mem_fs *)fs;
    self->stop_set = true;
    self->stop_after = changes;
}

void trm_fs_mem_counts_get(const trm_fs *fs, trm_fs_mem_counts *out)
{
    *out = ((const mem_fs *)fs)->counts;
}
