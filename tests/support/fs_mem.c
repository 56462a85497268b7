/* The table of the file system in memory, and its faults. See fs_mem.h; what a crash
 * leaves is in fs_mem_crash.c. */
#include "tests/support/fs_mem_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- Faults. ---- */

/* What a call of operation `op` is to return, TRM_OK when it may go on. */
static trm_status fault(mem_fs *self, unsigned op, const char *path, trm_err *err)
{
    if (self->stop_set && self->stop_after == 0)
        return trm_err_set(err, TRM_EIO, "%s: the machine has stopped", path);
    if (op & TRM_FS_MEM_CHANGES) {
        self->counts.changes++;
        if (self->stop_set)
            self->stop_after--;
    }
    if ((op & self->fail_mask) && self->fail_count > 0) {
        if (self->fail_after > 0) {
            self->fail_after--;
        } else {
            self->fail_count--;
            self->counts.faults++;
            return trm_err_set(err, self->fail_status, "%s: an injected fault", path);
        }
    }
    if ((op & self->often_mask) && mem_below(self, 1000) < self->often_permille) {
        self->counts.faults++;
        return trm_err_set(err, self->often_status, "%s: an injected fault", path);
    }
    return TRM_OK;
}

static trm_status file_fault(mem_file *file, unsigned op, trm_err *err)
{
    if (file->dead)
        return trm_err_set(err, TRM_EIO, "%s: opened before the machine stopped", file->path);
    return fault((mem_fs *)file->base.fs, op, file->path, err);
}

uint64_t trm_fs_mem_used(const trm_fs *fs)
{
    const mem_fs *self = (const mem_fs *)fs;
    uint64_t used = 0;
    for (size_t i = 0; i < self->live.len; i++)
        used += self->live.items[i].node->live.len;
    return used;
}

/* Whether the file may grow to `len`. */
static trm_status room_for(mem_file *file, uint64_t len, trm_err *err)
{
    mem_fs *self = (mem_fs *)file->base.fs;
    uint64_t has = file->node->live.len;
    if (len <= has || self->capacity == UINT64_MAX ||
        trm_fs_mem_used(&self->base) + (len - has) <= self->capacity)
        return TRM_OK;
    self->counts.faults++;
    return trm_err_set(err, TRM_ENOSPACE, "%s: No space left on device", file->path);
}

/* ---- The table. ---- */

static trm_status mem_open(trm_fs *fs, const char *path, int flags, trm_file **out, trm_err *err)
{
    mem_fs *self = (mem_fs *)fs;
    char key[TRM_FS_PATH_BYTES_MAX];
    mem_spell(key, path);
    trm_status status = fault(self, TRM_FS_MEM_OPEN, path, err);
    if (status != TRM_OK)
        return status;
    name *found = mem_names_find(&self->live, key);
    if (found && (flags & TRM_FS_EXCLUSIVE))
        return trm_err_set(err, TRM_AGAIN, "%s is there already", path);
    if (found && found->node->is_dir)
        return trm_err_set(err, TRM_EIO, "%s is not a plain file", path);
    if (!found && (!(flags & TRM_FS_CREATE) || !mem_parent_is_there(self, key)))
        return trm_err_set(err, TRM_ELOST, "cannot open %s: No such file or directory", path);
    mem_node *node = found ? found->node : mem_node_make(self, false);
    if (!found)
        mem_name_change_add(self, NULL, key, node);
    if (flags & TRM_FS_TRUNCATE)
        mem_change_add(node, (change){.is_length = true});
    mem_file *file = mem_must(calloc(1, sizeof *file));
    *file = (mem_file){.base.fs = fs,
                       .next = self->files,
                       .node = node,
                       .path = mem_copy_text(path),
                       .may_write = flags & TRM_FS_WRITE};
    self->files = file;
    *out = &file->base;
    return TRM_OK;
}

static void mem_close(trm_file *base)
{
    mem_file *file = (mem_file *)base;
    mem_fs *self = (mem_fs *)base->fs;
    for (mem_file **at = &self->files; *at; at = &(*at)->next)
        if (*at == file) {
            *at = file->next;
            break;
        }
    if (!file->dead && file->node->locked_by == file)
        file->node->locked_by = NULL;
    free(file->path);
    free(file);
}

static trm_status mem_read_at(trm_file *base, uint64_t offset, void *out, size_t len, size_t *got,
                              trm_err *err)
{
    mem_file *file = (mem_file *)base;
    trm_status status = file_fault(file, TRM_FS_MEM_READ, err);
    if (status != TRM_OK)
        return status;
    const content *from = &file->node->live;
    size_t left = offset < from->len ? from->len - (size_t)offset : 0;
    *got = left < len ? left : len;
    if (*got > 0)
        memcpy(out, from->bytes + offset, *got);
    return TRM_OK;
}

static trm_status mem_write_at(trm_file *base, uint64_t offset, const void *bytes, size_t len, trm_err *err)
{
    mem_file *file = (mem_file *)base;
    mem_fs *self = (mem_fs *)base->fs;
    trm_status status = file_fault(file, TRM_FS_MEM_WRITE, err);
    bool stopped = self->stop_set && self->stop_after == 0;
    if (status == TRM_OK && !file->may_write)
        return trm_err_set(err, TRM_EIO, "cannot write %s: Bad file descriptor", file->path);
    if (status == TRM_OK && len > 0)
        status = room_for(file, offset + len, err);
    if (status != TRM_OK) {
        /* A part may have got through, but not into new room. */
        if (!file->dead && !stopped && len > 0 && offset < file->node->live.len) {
            uint64_t most = file->node->live.len - offset;
            uint64_t part = mem_below(self, len + 1);
            mem_change_write(file->node, offset, bytes, (size_t)(part < most ? part : most));
        }
        return status;
    }
    self->counts.writes++;
    self->counts.bytes_written += len;
    mem_change_write(file->node, offset, bytes, len);
    return TRM_OK;
}

static trm_status mem_size(trm_file *base, uint64_t *out, trm_err *err)
{
    mem_file *file = (mem_file *)base;
    trm_status status = file_fault(file, TRM_FS_MEM_READ, err);
    if (status == TRM_OK)
        *out = file->node->live.len;
    return status;
}

static trm_status mem_truncate(trm_file *base, uint64_t len, trm_err *err)
{
    mem_file *file = (mem_file *)base;
    trm_status status = file_fault(file, TRM_FS_MEM_WRITE, err);
    if (status == TRM_OK)
        mem_change_add(file->node, (change){.is_length = true, .offset = len});
    return status;
}

static trm_status mem_allocate(trm_file *base, uint64_t len, trm_err *err)
{
    mem_file *file = (mem_file *)base;
    trm_status status = file_fault(file, TRM_FS_MEM_WRITE, err);
    if (status == TRM_OK)
        status = room_for(file, len, err);
    if (status == TRM_OK)
        mem_change_write(file->node, 0, NULL, (size_t)len);
    return status;
}

static trm_status mem_sync(trm_file *base, trm_err *err)
{
    mem_file *file = (mem_file *)base;
    trm_status status = file_fault(file, TRM_FS_MEM_SYNC, err);
    mem_fs *self = (mem_fs *)base->fs;
    bool stopped = self->stop_set && self->stop_after == 0;
    if (status == TRM_OK) {
        self->counts.syncs++;
        for (change *what = file->node->first; what; what = what->next)
            mem_content_apply(&file->node->durable, what);
    }
    /* After a failure too: the system believes now that it is written. */
    if (status == TRM_OK || (!file->dead && !stopped))
        mem_changes_drop(file->node);
    return status;
}

static trm_status mem_sync_dir(trm_fs *fs, const char *path, trm_err *err)
{
    mem_fs *self = (mem_fs *)fs;
    char key[TRM_FS_PATH_BYTES_MAX];
    mem_spell(key, path);
    trm_status status = fault(self, TRM_FS_MEM_SYNC_DIR, path, err);
    if (status != TRM_OK)
        return status;
    if (strcmp(key, ".") == 0)
        key[0] = '\0';
    else if (key[0] && !mem_names_find(&self->live, key))
        return trm_err_set(err, TRM_ELOST, "cannot open the directory %s: No such file or directory", path);
    self->counts.syncs++;
    for (name_change **at = &self->first; *at;) {
        name_change *what = *at;
        if (mem_lies_in(what->to ? what->to : what->from, key)) {
            mem_names_apply(&self->durable, what);
            *at = what->next;
            mem_name_change_free(what);
        } else {
            at = &what->next;
        }
    }
    self->last = &self->first;
    while (*self->last)
        self->last = &(*self->last)->next;
    return TRM_OK;
}

static trm_status mem_rename(trm_fs *fs, const char *from, const char *to, trm_err *err)
{
    mem_fs *self = (mem_fs *)fs;
    char old_key[TRM_FS_PATH_BYTES_MAX], key[TRM_FS_PATH_BYTES_MAX];
    mem_spell(old_key, from);
    mem_spell(key, to);
    trm_status status = fault(self, TRM_FS_MEM_RENAME, from, err);
    if (status != TRM_OK)
        return status;
    name *found = mem_names_find(&self->live, old_key);
    if (!found || !mem_parent_is_there(self, key))
        return trm_err_set(err, TRM_ELOST, "to %s: cannot rename %s: No such file or directory", to, from);
    assert(!found->node->is_dir); /* nobody renames directories */
    mem_name_change_add(self, old_key, key, found->node);
    return TRM_OK;
}

static trm_status mem_link(trm_fs *fs, const char *from, const char *to, trm_err *err)
{
    mem_fs *self = (mem_fs *)fs;
    char old_key[TRM_FS_PATH_BYTES_MAX], key[TRM_FS_PATH_BYTES_MAX];
    mem_spell(old_key, from);
    mem_spell(key, to);
    trm_status status = fault(self, TRM_FS_MEM_RENAME, from, err);
    if (status != TRM_OK)
        return status;
    name *found = mem_names_find(&self->live, old_key), *there = mem_names_find(&self->live, key);
    if (!found || !mem_parent_is_there(self, key))
        return trm_err_set(err, TRM_ELOST, "to %s: cannot link %s: No such file or directory", to, from);
    if (there && there->node != found->node)
        return trm_err_set(err, TRM_AGAIN, "cannot link %s to %s: another file is there", from, to);
    if (!there)
        mem_name_change_add(self, NULL, key, found->node);
    return TRM_OK;
}

static bool has_children(const mem_fs *self, const char *dir)
{
    for (size_t i = 0; i < self->live.len; i++)
        if (mem_lies_in(self->live.items[i].path, dir))
            return true;
    return false;
}

static trm_status mem_remove(trm_fs *fs, const char *path, trm_err *err)
{
    mem_fs *self = (mem_fs *)fs;
    char key[TRM_FS_PATH_BYTES_MAX];
    mem_spell(key, path);
    trm_status status = fault(self, TRM_FS_MEM_REMOVE, path, err);
    if (status != TRM_OK)
        return status;
    name *found = mem_names_find(&self->live, key);
    if (!found)
        return trm_err_set(err, TRM_ELOST, "cannot remove %s: No such file or directory", path);
    if (found->node->is_dir && has_children(self, key))
        return trm_err_set(err, TRM_EIO, "cannot remove %s: Directory not empty", path);
    mem_name_change_add(self, key, NULL, NULL);
    return TRM_OK;
}

static trm_status mem_make_dir(trm_fs *fs, const char *path, int flags, trm_err *err)
{
    mem_fs *self = (mem_fs *)fs;
    char key[TRM_FS_PATH_BYTES_MAX];
    mem_spell(key, path);
    trm_status status = fault(self, TRM_FS_MEM_MAKE_DIR, path, err);
    if (status != TRM_OK)
        return status;
    const name *found = mem_names_find(&self->live, key);
    if (found && !found->node->is_dir)
        return trm_err_set(err, TRM_EIO, "%s is there and is not a directory", path);
    if (found)
        return trm_err_set(err, TRM_AGAIN, "%s is there already", path);
    if (!mem_parent_is_there(self, key))
        return trm_err_set(err, TRM_ELOST, "cannot make the directory %s: No such file or directory", path);
    mem_name_change_add(self, NULL, key, mem_node_make(self, true));
    return TRM_OK;
}

static trm_status mem_list(trm_fs *fs, const char *path, trm_fs_list_cb each, void *context, trm_err *err)
{
    mem_fs *self = (mem_fs *)fs;
    char key[TRM_FS_PATH_BYTES_MAX];
    mem_spell(key, path);
    trm_status status = fault(self, TRM_FS_MEM_LIST, path, err);
    if (status != TRM_OK)
        return status;
    const name *found = mem_names_find(&self->live, key);
    if (!found || !found->node->is_dir)
        return trm_err_set(err, TRM_ELOST, "cannot open the directory %s: No such file or directory", path);
    for (size_t i = 0; i < self->live.len && status == TRM_OK; i++)
        if (mem_lies_in(self->live.items[i].path, key))
            status = each(strrchr(self->live.items[i].path, '/') + 1, context);
    return status;
}

static trm_status mem_remove_tree(trm_fs *fs, const char *path, trm_err *err)
{
    mem_fs *self = (mem_fs *)fs;
    char key[TRM_FS_PATH_BYTES_MAX];
    mem_spell(key, path);
    size_t len = strlen(key);
    trm_status status = TRM_OK;
    /* After a crash, children may stand in front of their directory in the list: then it takes another
     * round. */
    for (bool any = true; any && status == TRM_OK;) {
        any = false;
        for (size_t i = self->live.len; i-- > 0 && status == TRM_OK;) {
            const char *at = self->live.items[i].path;
            if (strncmp(at, key, len) != 0 || (at[len] != '\0' && at[len] != '/') || has_children(self, at))
                continue;
            char gone[TRM_FS_PATH_BYTES_MAX];
            strcpy(gone, at);
            status = mem_remove(fs, gone, err);
            any = true;
        }
    }
    return status;
}

static trm_status mem_lock(trm_file *base, trm_err *err)
{
    mem_file *file = (mem_file *)base;
    if (file->dead)
        return trm_err_set(err, TRM_EIO, "%s: opened before the machine stopped", file->path);
    if (file->node->locked_by && file->node->locked_by != file)
        return trm_err_set(err, TRM_AGAIN, "%s is locked by another process", file->path);
    file->node->locked_by = file;
    return TRM_OK;
}

static trm_status mem_locked(trm_file *base, bool *out, trm_err *err)
{
    mem_file *file = (mem_file *)base;
    if (file->dead)
        return trm_err_set(err, TRM_EIO, "%s: opened before the machine stopped", file->path);
    *out = file->node->locked_by && file->node->locked_by != file;
    return TRM_OK;
}

const trm_fs_ops mem_ops = {
    .open = mem_open,
    .close = mem_close,
    .read_at = mem_read_at,
    .write_at = mem_write_at,
    .size = mem_size,
    .truncate = mem_truncate,
    .allocate = mem_allocate,
    .sync = mem_sync,
    .sync_dir = mem_sync_dir,
    .rename = mem_rename,
    .link = mem_link,
    .remove = mem_remove,
    .make_dir = mem_make_dir,
    .list = mem_list,
    .remove_tree = mem_remove_tree,
    .lock = mem_lock,
    .locked = mem_locked,
};
