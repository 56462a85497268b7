/* Content, names and their unsynced changes, for fs_mem.c. */
#include "tests/support/fs_mem_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Nothing here can do without memory, and a test without memory proves nothing. */
void *mem_must(void *memory)
{
    assert(memory);
    return memory;
}

char *mem_copy_text(const char *text)
{
    return mem_must(strdup(text));
}

uint64_t mem_draw(mem_fs *self)
{
    uint64_t z = self->random += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

uint64_t mem_below(mem_fs *self, uint64_t bound)
{
    return mem_draw(self) % bound;
}

/* ---- Content. ---- */

void mem_content_resize(content *self, size_t len)
{
    if (len > self->capacity) {
        self->capacity = len < 2 * self->capacity ? 2 * self->capacity : len;
        self->bytes = mem_must(realloc(self->bytes, self->capacity));
    }
    if (len > self->len)
        memset(self->bytes + self->len, 0, len - self->len);
    self->len = len;
}

void mem_content_put(content *self, uint64_t offset, const uint8_t *data, size_t len)
{
    if (len == 0)
        return;
    if (offset + len > self->len)
        mem_content_resize(self, (size_t)(offset + len));
    if (data)
        memcpy(self->bytes + offset, data, len);
    else
        memset(self->bytes + offset, 0, len);
}

void mem_content_apply(content *self, const change *what)
{
    if (what->is_length)
        mem_content_resize(self, (size_t)what->offset);
    else
        mem_content_put(self, what->offset, what->data, what->len);
}

void mem_changes_drop(mem_node *node)
{
    while (node->first) {
        change *next = node->first->next;
        free(node->first->data);
        free(node->first);
        node->first = next;
    }
    node->last = &node->first;
}

void mem_change_add(mem_node *node, change what)
{
    change *added = mem_must(malloc(sizeof *added));
    *added = what;
    added->next = NULL;
    *node->last = added;
    node->last = &added->next;
    mem_content_apply(&node->live, added);
}

void mem_change_write(mem_node *node, uint64_t offset, const void *data, size_t len)
{
    uint8_t *copy = NULL;
    if (data && len > 0) {
        copy = mem_must(malloc(len));
        memcpy(copy, data, len);
    }
    mem_change_add(node, (change){.offset = offset, .len = len, .data = copy});
}

mem_node *mem_node_make(mem_fs *self, bool is_dir)
{
    mem_node *node = mem_must(calloc(1, sizeof *node));
    node->is_dir = is_dir;
    node->last = &node->first;
    node->next = self->nodes;
    self->nodes = node;
    return node;
}

/* ---- Names. ---- */

name *mem_names_find(const names *self, const char *path)
{
    for (size_t i = 0; i < self->len; i++)
        if (strcmp(self->items[i].path, path) == 0)
            return &self->items[i];
    return NULL;
}

void mem_names_remove(names *self, const char *path)
{
    name *found = mem_names_find(self, path);
    if (!found)
        return;
    free(found->path);
    memmove(found, found + 1, (size_t)(self->items + self->len - found - 1) * sizeof *found);
    self->len--;
}

void mem_names_set(names *self, const char *path, mem_node *node)
{
    name *found = mem_names_find(self, path);
    if (found) {
        found->node = node;
        return;
    }
    if (self->len == self->capacity) {
        self->capacity = self->capacity ? 2 * self->capacity : 16;
        self->items = mem_must(realloc(self->items, self->capacity * sizeof *self->items));
    }
    self->items[self->len++] = (name){mem_copy_text(path), node};
}

void mem_names_clear(names *self)
{
    for (size_t i = 0; i < self->len; i++)
        free(self->items[i].path);
    free(self->items);
    *self = (names){0};
}

void mem_names_apply(names *self, const name_change *what)
{
    if (what->from)
        mem_names_remove(self, what->from);
    if (what->to)
        mem_names_set(self, what->to, what->node);
}

void mem_name_change_free(name_change *what)
{
    free(what->from);
    free(what->to);
    free(what);
}

void mem_name_change_add(mem_fs *self, const char *from, const char *to, mem_node *node)
{
    name_change *added = mem_must(malloc(sizeof *added));
    *added = (name_change){NULL, from ? mem_copy_text(from) : NULL, to ? mem_copy_text(to) : NULL, node};
    *self->last = added;
    self->last = &added->next;
    mem_names_apply(&self->live, added);
}

/* Length of the parent's part of `path`; 0: it lies at the top. */
static size_t parent_len(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) : 0;
}

bool mem_lies_in(const char *path, const char *dir)
{
    size_t len = parent_len(path);
    return strlen(dir) == len && strncmp(path, dir, len) == 0;
}

bool mem_parent_is_there(const mem_fs *self, const char *path)
{
    char parent[TRM_FS_PATH_BYTES_MAX];
    size_t len = parent_len(path);
    if (len == 0)
        return true;
    memcpy(parent, path, len);
    parent[len] = '\0';
    const name *found = mem_names_find(&self->live, parent);
    return found && found->node->is_dir;
}

/* Without slashes at the end and double ones: a name has one spelling. */
void mem_spell(char out[TRM_FS_PATH_BYTES_MAX], const char *path)
{
    size_t len = 0;
    assert(strlen(path) < TRM_FS_PATH_BYTES_MAX);
    for (; *path; path++)
        if (*path != '/' || (len > 0 && out[len - 1] != '/'))
            out[len++] = *path;
    while (len > 0 && out[len - 1] == '/')
        len--;
    out[len] = '\0';
}
