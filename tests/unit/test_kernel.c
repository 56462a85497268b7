/* workers/kernel: what loads, and a sentence for each that does not. */
#include "workers/kernel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/temp_tree.h"

/* The test command runs in the build directory. */
#define BUILT(name) "tests/kernels/.libs/" name ".so"

static void refuse(const char *path, const char *sentence)
{
    trm_kernel kernel;
    trm_err err = {""};
    trm_spec spec = {.kernel_path = (char *)path};
    assert_int_equal(trm_kernel_open(&kernel, &spec, &err), TRM_EJOB);
    if (!strstr(err.text, sentence))
        fail_msg("'%s' does not say '%s'", err.text, sentence);
    assert_non_null(strstr(err.text, path));
}

static void a_good_one_loads(void **state)
{
    trm_kernel kernel;
    trm_err err;
    trm_param_arg arg = {"n", "42"};
    trm_spec spec = {.kernel_path = BUILT("kernel_good"), .params = &arg, .params_count = 1};
    if (trm_kernel_open(&kernel, &spec, &err) != TRM_OK)
        fail_msg("%s", err.text);
    assert_string_equal(kernel.traits.name, "good");
    assert_true(kernel.traits.map_only);
    assert_int_equal(trm_params_find(&kernel.params, "n")->integer, 42);
    assert_true(kernel.traits.params_hash == trm_params_hash(&kernel.params));
    trm_kernel_close(&kernel);
    arg.value = "many";
    assert_int_equal(trm_kernel_open(&kernel, &spec, &err), TRM_EUSAGE);
}

static int map(trm_task *task, const trm_record *record)
{
    return 0;
}

static void a_program_s_own_job(void **state)
{
    trm_kernel kernel;
    trm_err err;
    trm_job job = {TRM_JOB_HEADER, .name = "own", .map = map};
    trm_spec spec = {.own_job = &job};
    assert_int_equal(trm_kernel_open(&kernel, &spec, &err), TRM_OK);
    assert_ptr_equal(kernel.job, &job);
    trm_kernel_close(&kernel);
    job.map = NULL;
    assert_int_equal(trm_kernel_open(&kernel, &spec, &err), TRM_EJOB);
    assert_string_equal(err.text, "job 'own' has no map");
}

static void others_are_refused(void **state)
{
    temp_tree tree;
    temp_tree_init(&tree);
    refuse(temp_tree_name(&tree, "missing.so"), "is not there");
    refuse(tree.path, "is not a shared object");
    refuse(temp_tree_text(&tree, "script.so", "#!/bin/sh\necho hello, this is no kernel\n"),
           "is not a shared object");
    refuse(temp_tree_text(&tree, "empty.so", ""), "is not a shared object");
    refuse(temp_tree_text(&tree, "cut.so", "\177ELF\2\1\1\0\0\0\0\0\0\0\0\0"), "is not a shared object");
    refuse(BUILT("kernel_nothing"), "has no symbol trm_exported_job");
    refuse(BUILT("kernel_unresolved"), "nowhere_to_be_found");
    refuse(BUILT("kernel_old"), "built for version 8 of trireme.h");
    temp_tree_close(&tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_one_loads),
        cmocka_unit_test(a_program_s_own_job),
        cmocka_unit_test(others_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
