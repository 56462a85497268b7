/* What the files of the file system in memory share. A file has its content as
 * processes see it and its content as the disk has it, and between the two the list of
 * changes that were not synced. Names likewise. */
#ifndef TRM_TESTS_FS_MEM_INTERNAL_H
#define TRM_TESTS_FS_MEM_INTERNAL_H

#include "tests/support/fs_mem.h"

/* A change of content that is not synced: `len` bytes at `offset`, zeros when data is
 * NULL; or a new length. */
typedef struct change {
    struct change *next;
    bool is_length;
    uint64_t offset;
    size_t len;
    uint8_t *data;
} change;

typedef struct content {
    uint8_t *bytes;
    size_t len;
    size_t capacity;
} content;

typedef struct mem_node {
    struct mem_node *next;
    bool is_dir;
    content live;
    content durable;
    change *first;
    change **last;
    struct mem_file *locked_by;
} mem_node;

typedef struct name {
    char *path;
    mem_node *node;
} name;

typedef struct names {
    name *items;
    size_t len;
    size_t capacity;
} names;

/* A change of names that is not synced: `to` now means node (when set), `from` is gone
 * (when set). */
typedef struct name_change {
    struct name_change *next;
    char *from;
    char *to;
    mem_node *node;
} name_change;

typedef struct mem_file {
    trm_file base;
    struct mem_file *next;
    mem_node *node;
    bool dead;
    bool may_write;
    char *path;
} mem_file;

typedef struct mem_fs {
    trm_fs base;
    uint64_t random;
    mem_node *nodes;
    names live;
    names durable;
    name_change *first;
    name_change **last;
    mem_file *files;
    uint64_t capacity;
    unsigned fail_mask;
    uint64_t fail_after;
    uint64_t fail_count;
    trm_status fail_status;
    unsigned often_mask;
    unsigned often_permille;
    trm_status often_status;
    bool stop_set;
    uint64_t stop_after;
    trm_fs_mem_counts counts;
} mem_fs;

void *mem_must(void *memory);
char *mem_copy_text(const char *text);
uint64_t mem_draw(mem_fs *self);
uint64_t mem_below(mem_fs *self, uint64_t bound);
void mem_content_resize(content *self, size_t len);
void mem_content_put(content *self, uint64_t offset, const uint8_t *data, size_t len);
void mem_content_apply(content *self, const change *what);
void mem_changes_drop(mem_node *node);
void mem_change_add(mem_node *node, change what);
void mem_change_write(mem_node *node, uint64_t offset, const void *data, size_t len);
mem_node *mem_node_make(mem_fs *self, bool is_dir);
name *mem_names_find(const names *self, const char *path);
void mem_names_remove(names *self, const char *path);
void mem_names_set(names *self, const char *path, mem_node *node);
void mem_names_clear(names *self);
void mem_names_apply(names *self, const name_change *what);
void mem_name_change_free(name_change *what);
void mem_name_change_add(mem_fs *self, const char *from, const char *to, mem_node *node);
bool mem_lies_in(const char *path, const char *dir);
bool mem_parent_is_there(const mem_fs *self, const char *path);
void mem_spell(char out[TRM_FS_PATH_BYTES_MAX], const char *path);

extern const trm_fs_ops mem_ops;

#endif
