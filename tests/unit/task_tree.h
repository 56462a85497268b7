/* What tests of whole tasks share. Their directory, one at a time: what a test that fails leaves is removed
 * by its teardown (remove_tree). Included by one file a program. */
#ifndef TRM_TESTS_UNIT_TASK_TREE_H
#define TRM_TESTS_UNIT_TASK_TREE_H

#include "tests/unit/temp_tree.h"

#define CREW_MEMORY_BYTES (2ull << 30) /* what this process has in use counts for its children */

static temp_tree tree;
static bool tree_is_open;

static void open_tree(void)
{
    temp_tree_init(&tree);
    tree_is_open = true;
}

static void close_tree(void)
{
    temp_tree_close(&tree);
    tree_is_open = false;
}

static int remove_tree(void **state)
{
    if (tree_is_open)
        close_tree();
    return 0;
}

/* What a test leaves in a process that is killed is no leak. */
const char *__asan_default_options(void);
__attribute__((visibility("default"))) const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

#endif
