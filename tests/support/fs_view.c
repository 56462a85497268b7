/* See fs_view.h. */
#include "tests/support/fs_view.h"

#include "tests/support/fs_mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct view_file {
    trm_file base;
    struct view_file *next;
    trm_file *under; /* NULL: the process was dead before it was closed */
} view_file;

typedef struct fs_view {
    trm_fs base;
    trm_fs_view_config config;
    view_file *files;
    bool dead, may_die;
    uint64_t changes_left;
} fs_view;

static trm_status is_dead(trm_err *err)
{
    return trm_err_set(err, TRM_EIO, "the process is dead");
}

static trm_status begin(trm_fs *fs, trm_err *err)
{
    return ((fs_view *)fs)->dead ? is_dead(err) : TRM_OK;
}

static trm_status begin_change(trm_fs *fs, trm_err *err)
{
    fs_view *self = (fs_view *)fs;
    if (!self->dead && self->may_die && self->changes_left-- == 0) {
        trm_fs_view_kill(fs);
        self->config.died(self->config.context);
    }
    return begin(fs, err);
}

static bool is_hidden(const fs_view *self, const char *path)
{
    return self->config.hidden && self->config.hidden(self->config.context, path);
}

static trm_fs *below(trm_fs *fs)
{
    return ((fs_view *)fs)->config.fs;
}

/* ---- Files ------------------------------------------------------------------------------------- */

static trm_status view_open(trm_fs *fs, const char *path, int flags, trm_file **out, trm_err *err)
{
    fs_view *self = (fs_view *)fs;
    trm_file *under;
    trm_status status = flags & TRM_FS_CREATE ? begin_change(fs, err) : begin(fs, err);
    if (status == TRM_OK && is_hidden(self, path))
        status = trm_err_set(err, TRM_ELOST, "cannot open %s: it is hidden", path);
    if (status == TRM_OK)
        status = below(fs)->ops->open(below(fs), path, flags, &under, err);
    if (status != TRM_OK)
        return status;
    view_file *file = malloc(sizeof *file);
    if (!file)
        abort();
    *file = (view_file){.base.fs = fs, .next = self->files, .under = under};
    self->files = file;
    *out = &file->base;
    return TRM_OK;
}

static void view_close(trm_file *base)
{
    view_file *file = (view_file *)base;
    view_file **at = &((fs_view *)base->fs)->files;
    while (*at != file)
        at = &(*at)->next;
    *at = file->next;
    if (file->under)
        file->under->fs->ops->close(file->under);
    free(file);
}

static trm_status view_read_at(trm_file *base, uint64_t offset, void *out, size_t len, size_t *got,
                               trm_err *err)
{
    trm_file *under = ((view_file *)base)->under;
    trm_status status = begin(base->fs, err);
    return status == TRM_OK ? under->fs->ops->read_at(under, offset, out, len, got, err) : status;
}

static trm_status view_write_at(trm_file *base, uint64_t offset, const void *bytes, size_t len, trm_err *err)
{
    trm_status status = begin_change(base->fs, err);
    trm_file *under = ((view_file *)base)->under;
    return status == TRM_OK ? under->fs->ops->write_at(under, offset, bytes, len, err) : status;
}

static trm_status view_size(trm_file *base, uint64_t *out, trm_err *err)
{
    trm_file *under = ((view_file *)base)->under;
    trm_status status = begin(base->fs, err);
    return status == TRM_OK ? under->fs->ops->size(under, out, err) : status;
}

static trm_status view_truncate(trm_file *base, uint64_t len, trm_err *err)
{
    trm_status status = begin_change(base->fs, err);
    trm_file *under = ((view_file *)base)->under;
    return status == TRM_OK ? under->fs->ops->truncate(under, len, err) : status;
}

static trm_status view_allocate(trm_file *base, uint64_t len, trm_err *err)
{
    trm_status status = begin_change(base->fs, err);
    trm_file *under = ((view_file *)base)->under;
    return status == TRM_OK ? under->fs->ops->allocate(under, len, err) : status;
}

static trm_status view_sync(trm_file *base, trm_err *err)
{
    trm_status status = begin_change(base->fs, err);
    trm_file *under = ((view_file *)base)->under;
    return status == TRM_OK ? under->fs->ops->sync(under, err) : status;
}

static trm_status view_lock(trm_file *base, trm_err *err)
{
    trm_file *under = ((view_file *)base)->under;
    trm_status status = begin(base->fs, err);
    return status == TRM_OK ? under->fs->ops->lock(under, err) : status;
}

static trm_status view_locked(trm_file *base, bool *out, trm_err *err)
{
    trm_file *under = ((view_file *)base)->under;
    trm_status status = begin(base->fs, err);
    return status == TRM_OK ? under->fs->ops->locked(under, out, err) : status;
}

/* ---- Names ------------------------------------------------------------------------------------- */

static trm_status view_sync_dir(trm_fs *fs, const char *path, trm_err *err)
{
    trm_status status = begin_change(fs, err);
    return status == TRM_OK ? below(fs)->ops->sync_dir(below(fs), path, err) : status;
}

static trm_status view_rename(trm_fs *fs, const char *from, const char *to, trm_err *err)
{
    fs_view *self = (fs_view *)fs;
    trm_status status = begin_change(fs, err);
    if (status == TRM_OK)
        status = below(fs)->ops->rename(below(fs), from, to, err);
    if (status == TRM_OK && self->config.renamed)
        self->config.renamed(self->config.context, to);
    return status;
}

static trm_status view_remove(trm_fs *fs, const char *path, trm_err *err)
{
    trm_status status = begin_change(fs, err);
    return status == TRM_OK ? below(fs)->ops->remove(below(fs), path, err) : status;
}

static trm_status view_make_dir(trm_fs *fs, const char *path, int flags, trm_err *err)
{
    trm_status status = begin_change(fs, err);
    return status == TRM_OK ? below(fs)->ops->make_dir(below(fs), path, flags, err) : status;
}

typedef struct listing {
    const fs_view *view;
    const char *path;
    trm_fs_list_cb each;
    void *context;
} listing;

static trm_status list_one(const char *name, void *context)
{
    const listing *self = context;
    char path[TRM_FS_PATH_BYTES_MAX];
    snprintf(path, sizeof path, "%s/%s", self->path, name);
    return is_hidden(self->view, path) ? TRM_OK : self->each(name, self->context);
}

static trm_status view_list(trm_fs *fs, const char *path, trm_fs_list_cb each, void *context, trm_err *err)
{
    listing all = {.view = (fs_view *)fs, .path = path, .each = each, .context = context};
    trm_status status = begin(fs, err);
    return status == TRM_OK ? below(fs)->ops->list(below(fs), path, list_one, &all, err) : status;
}

static trm_status view_remove_tree(trm_fs *fs, const char *path, trm_err *err)
{
    trm_status status = begin_change(fs, err);
    return status == TRM_OK ? below(fs)->ops->remove_tree(below(fs), path, err) : status;
}

static const trm_fs_ops view_ops = {
    .open = view_open,
    .close = view_close,
    .read_at = view_read_at,
    .write_at = view_write_at,
    .size = view_size,
    .truncate = view_truncate,
    .allocate = view_allocate,
    .sync = view_sync,
    .sync_dir = view_sync_dir,
    .rename = view_rename,
    .remove = view_remove,
    .make_dir = view_make_dir,
    .list = view_list,
    .remove_tree = view_remove_tree,
    .lock = view_lock,
    .locked = view_locked,
};

/* ---- Life -------------------------------------------------------------------------------------- */

trm_fs *trm_fs_view_create(const trm_fs_view_config *config)
{
    fs_view *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    self->base.ops = &view_ops;
    self->config = *config;
    return &self->base;
}

static void die(fs_view *self, bool power)
{
    self->dead = true;
    for (view_file *file = self->files; file; file = file->next) {
        if (file->under && power)
            trm_fs_mem_crash_file(file->under);
        if (file->under)
            file->under->fs->ops->close(file->under);
        file->under = NULL;
    }
}

void trm_fs_view_kill(trm_fs *view)
{
    die((fs_view *)view, false);
}

void trm_fs_view_lose_power(trm_fs *view)
{
    die((fs_view *)view, true);
}

void trm_fs_view_kill_after(trm_fs *view, uint64_t changes)
{
    fs_view *self = (fs_view *)view;
    self->may_die = true;
    self->changes_left = changes;
}

bool trm_fs_view_is_dead(const trm_fs *view)
{
    return ((const fs_view *)view)->dead;
}

void trm_fs_view_destroy(trm_fs *view)
{
    fs_view *self = (fs_view *)view;
    if (!self)
        return;
    trm_fs_view_kill(view);
    while (self->files)
        view_close(&self->files->base);
    free(self);
}
