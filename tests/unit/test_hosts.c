/* tool/hosts: which hosts a list and a hostfile name, who answers, and what is left of both. */
#include "config.h" /* system extensions, before any header of the system */

#include "tests/unit/temp_tree.h"
#include "tool/hosts.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cmocka.h>

static trm_err err;
static temp_tree tree;

static void gone(trm_hosts *hosts, const char *name)
{
    for (size_t i = 0; i < hosts->count; i++)
        if (strcmp(hosts->hosts[i].name, name) == 0) {
            hosts->hosts[i].answers = false;
            return;
        }
    fail_msg("%s is not among the hosts", name);
}

static void lists(void **state)
{
    static const struct {
        const char *list, *gone, *rest;
        size_t count;
        uint32_t all, left;
    } cases[] = {
        {"a:2,b:3,c", "b", "a:2,c", 3, 6, 3},
        {"a:2,b:3,c", "c", "a:2,b:3", 3, 6, 5},
        {"a", "a", "", 1, 1, 0},
        {"a,a,b", "b", "a,a", 2, 3, 2},
        {"a:*,b:2", "b", "a:*", 2, 0, 0},     /* as many as it has: not known here */
        {"+n1:2,a:2", "a", "+n1:2", 1, 4, 2}, /* relative to the allocation: kept */
        {"-v,a", "a", "-v", 1, 2, 1},         /* would be an option of the agent */
        {"$(touch x),a", "a", "$(touch x)", 1, 2, 1},
        {"u@a:4,b", "u@a", "b", 2, 5, 1},
        {"a:99999999999,b", "b", "a:99999999999", 2, 999991, 99999},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        trm_hosts hosts;
        assert_int_equal(trm_hosts_init(&hosts, cases[i].list, NULL, &err), TRM_OK);
        assert_int_equal(hosts.count, cases[i].count);
        if (i + 1 < sizeof cases / sizeof cases[0])
            assert_int_equal(trm_hosts_slots(&hosts, true), cases[i].all);
        gone(&hosts, cases[i].gone);
        if (i + 1 < sizeof cases / sizeof cases[0])
            assert_int_equal(trm_hosts_slots(&hosts, false), cases[i].left);
        char *rest = trm_hosts_rest_of_list(&hosts);
        assert_string_equal(rest, cases[i].rest);
        free(rest);
        trm_hosts_close(&hosts);
    }
}

static void hostfiles(void **state)
{
    static const char text[] =
        "# hosts\n\na slots=2 max_slots=4\n  b   slots = 3 # not c\nc max_slots=9 slots=1\n^d\nb slots=4";
    trm_hosts hosts;
    size_t len;
    const char *path = temp_tree_name(&tree, "hosts");
    assert_int_equal(trm_fs_write_whole(trm_fs_posix(), path, text, sizeof text - 1, 0, &err), TRM_OK);
    assert_int_equal(trm_hosts_init(&hosts, NULL, path, &err), TRM_OK);
    assert_int_equal(hosts.count, 3);
    assert_int_equal(trm_hosts_slots(&hosts, true), 0); /* ^d has none */
    gone(&hosts, "b");
    char *rest = trm_hosts_rest_of_file(&hosts, &len);
    rest[len] = 0;
    assert_string_equal(rest, "# hosts\n\na slots=2 max_slots=4\nc max_slots=9 slots=1\n^d\n");
    free(rest);
    trm_hosts_close(&hosts);
    static const char simple[] = "a slots=2\nb slots=3\n";
    assert_int_equal(trm_fs_write_whole(trm_fs_posix(), path, simple, sizeof simple - 1, 0, &err), TRM_OK);
    assert_int_equal(trm_hosts_init(&hosts, NULL, path, &err), TRM_OK);
    assert_int_equal(trm_hosts_slots(&hosts, true), 5);
    gone(&hosts, "a");
    assert_int_equal(trm_hosts_slots(&hosts, false), 3);
    trm_hosts_close(&hosts);
    assert_int_equal(trm_hosts_init(&hosts, NULL, temp_tree_name(&tree, "nowhere"), &err), TRM_EINPUT);
}

static void agents(void **state)
{
    static const struct {
        const char *text, *first, *last;
        unsigned count;
    } cases[] = {{"sh", "sh", "sh", 1},
                 {"sh -c x", "sh", "x", 3},
                 {"there-is-no-such-program -q : sh  -x", "sh", "-x", 2},
                 {"there-is-no-such-program -q", "there-is-no-such-program", "-q", 2},
                 {" : ", NULL, NULL, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[256], *words[TRM_AGENT_WORDS_MAX];
        snprintf(text, sizeof text, "%s", cases[i].text);
        unsigned count = trm_agent_words(text, words);
        assert_int_equal(count, cases[i].count);
        if (!count)
            continue;
        assert_string_equal(words[0], cases[i].first);
        assert_string_equal(words[count - 1], cases[i].last);
    }
}

static int children_fd(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* The agent is a script that knows who is there, and that would fall for a shell's characters. */
static void hosts_are_asked(void **state)
{
    char agent[600];
    const char *path = temp_tree_name(&tree, "agent");
    FILE *out = fopen(path, "w");
    fprintf(out, "#!/bin/sh\n[ \"$2 $3\" = 'true ' ] || exit 9\ncase $1 in up*) exit 0;; esac\nexit 255\n");
    fclose(out);
    assert_int_equal(chmod(path, 0700), 0);
    snprintf(agent, sizeof agent, "%s", path);
    setenv("OMPI_MCA_plm_rsh_agent", agent, 1);
    trm_options options = {.ranks = 1};
    trm_hosts hosts;
    int fd = children_fd();
    char list[4096] = "localhost,up.invalid,down.invalid";
    for (unsigned i = 0; i < 2 * TRM_HOSTS_AT_ONCE; i++)
        snprintf(list + strlen(list), sizeof list - strlen(list), ",%s%u.invalid", i % 3 ? "up" : "down", i);
    assert_int_equal(trm_hosts_init(&hosts, list, NULL, &err), TRM_OK);
    assert_true(trm_hosts_ask(&hosts, &options, fd));
    for (size_t i = 0; i < hosts.count; i++)
        assert_true(hosts.hosts[i].answers == (strncmp(hosts.hosts[i].name, "down", 4) != 0));
    /* A person's signal ends it. */
    kill(getpid(), SIGUSR1);
    assert_false(trm_hosts_ask(&hosts, &options, fd));
    trm_hosts_close(&hosts);
    /* An agent among mpirun's options comes before the environment. */
    char words[3][32] = {"--mca", "plm_rsh_agent", "false"};
    options.mpirun_options_count = 3;
    for (unsigned i = 0; i < 3; i++)
        options.mpirun_options[i] = words[i];
    assert_int_equal(trm_hosts_init(&hosts, "up.invalid", NULL, &err), TRM_OK);
    assert_true(trm_hosts_ask(&hosts, &options, fd));
    assert_false(hosts.hosts[0].answers);
    trm_hosts_close(&hosts);
    close(fd);
}

static int begin(void **state)
{
    temp_tree_init(&tree);
    return 0;
}

static int end(void **state)
{
    temp_tree_close(&tree);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists),
        cmocka_unit_test(hostfiles),
        cmocka_unit_test(agents),
        cmocka_unit_test(hosts_are_asked),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
