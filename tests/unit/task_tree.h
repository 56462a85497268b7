/* What tests of whole tasks share. */
#ifndef TRM_TESTS_UNIT_TASK_TREE_H
#define TRM_TESTS_UNIT_TASK_TREE_H

#include "tests/unit/temp_tree.h"

#define CREW_MEMORY_BYTES (2ull << 30) /* what this process has in use counts for its children */

static temp_tree tree; /* one at a time */

/* What a test leaves in a process that is killed is no leak. */
const char *__asan_default_options(void);
__attribute__((visibility("default"))) const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

#endif
