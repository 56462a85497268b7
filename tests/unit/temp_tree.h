/* A directory of its own for a test, under $TMPDIR, and files in it. What a test that fails leaves open is
 * removed when its program ends. */
#ifndef TRM_TESTS_TEMP_TREE_H
#define TRM_TESTS_TEMP_TREE_H

#include "runtime/fs.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEMP_TREES_MAX 16u /* open at once; more are not removed */

typedef struct temp_tree {
    char path[512];
} temp_tree;

typedef struct temp_trees {
    temp_tree tree[TEMP_TREES_MAX]; /* path "": none */
    pid_t owner;                    /* what it forks does not remove them */
} temp_trees;

static inline temp_trees *temp_trees_open(void)
{
    static temp_trees all;
    return &all;
}

static inline void temp_trees_end(void)
{
    temp_trees *all = temp_trees_open();
    for (unsigned i = 0; i < TEMP_TREES_MAX && all->owner == getpid(); i++)
        if (all->tree[i].path[0])
            trm_fs_remove_tree(trm_fs_posix(), all->tree[i].path, NULL);
}

/* The place of `path`, or ("") a free one; NULL: there is none. */
static inline temp_tree *temp_trees_find(const char *path)
{
    temp_trees *all = temp_trees_open();
    if (!all->owner) {
        all->owner = getpid();
        atexit(temp_trees_end);
    }
    for (unsigned i = 0; i < TEMP_TREES_MAX; i++)
        if (strcmp(all->tree[i].path, path) == 0)
            return &all->tree[i];
    return NULL;
}

static inline void temp_tree_init(temp_tree *self)
{
    const char *base = getenv("TMPDIR");
    snprintf(self->path, sizeof self->path, "%s/trm-test-XXXXXX", base && base[0] == '/' ? base : "/tmp");
    char *made = mkdtemp(self->path);
    assert(made);
    (void)made;
    temp_tree *place = temp_trees_find("");
    if (place)
        *place = *self;
}

static inline void temp_tree_close(temp_tree *self)
{
    trm_err err;
    trm_status status = trm_fs_remove_tree(trm_fs_posix(), self->path, &err);
    assert(status == TRM_OK);
    (void)status;
    temp_tree *place = temp_trees_find(self->path);
    if (place)
        place->path[0] = 0;
}

/* Its path; one of a few buffers that are used in turn. */
__attribute__((format(printf, 2, 3))) static inline char *temp_tree_name(const temp_tree *self,
                                                                         const char *format, ...)
{
    static char names[8][1024];
    static unsigned turn;
    char *out = names[turn++ % 8];
    int len = snprintf(out, sizeof names[0], "%s/", self->path);
    va_list args;
    va_start(args, format);
    vsnprintf(out + len, sizeof names[0] - (size_t)len, format, args);
    va_end(args);
    return out;
}

/* Writes a file and returns its path. */
static inline char *temp_tree_file(const temp_tree *self, const char *name, const void *bytes, size_t len)
{
    char *path = temp_tree_name(self, "%s", name);
    FILE *out = fopen(path, "wb");
    assert(out);
    size_t done = len ? fwrite(bytes, 1, len, out) : 0;
    assert(done == len);
    int failed = fclose(out);
    assert(!failed);
    (void)done;
    (void)failed;
    return path;
}

static inline char *temp_tree_text(const temp_tree *self, const char *name, const char *text)
{
    return temp_tree_file(self, name, text, strlen(text));
}

static inline char *temp_tree_dir(const temp_tree *self, const char *name)
{
    char *path = temp_tree_name(self, "%s", name);
    int failed = mkdir(path, 0755);
    assert(!failed);
    (void)failed;
    return path;
}

#endif
