/* tool/neighbours: whoever dies is told once, the set that is slept on is readable until then and not longer.
 */
#include "config.h" /* system extensions, before any header of the system */

#include "tool/neighbours.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define COUNT 3u
#define LONG_MS 60000

static trm_begin begin;
static trm_neighbours neighbours;
static pid_t process[COUNT];

static pid_t sleeper(void)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        pause();
        _exit(0);
    }
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static int watch_all(void **state)
{
    begin = (trm_begin){.neighbours = COUNT};
    neighbours = (trm_neighbours){0};
    for (unsigned i = 0; i < COUNT; i++) {
        process[i] = sleeper();
        begin.neighbour[i].rank = 10 + i;
        begin.neighbour[i].pid = (uint64_t)process[i];
    }
    trm_neighbours_watch(&neighbours, &begin);
    assert_int_equal(neighbours.count, COUNT);
    return 0;
}

static int end_all(void **state)
{
    trm_neighbours_close(&neighbours);
    for (unsigned i = 0; i < COUNT; i++)
        if (process[i])
            end(process[i]);
    return 0;
}

static bool is_readable(int timeout_ms)
{
    struct pollfd fd = {.fd = trm_neighbours_fd(&neighbours), .events = POLLIN};
    return poll(&fd, 1, timeout_ms) > 0;
}

static void lose(unsigned i)
{
    kill(process[i], SIGKILL);
    assert_true(is_readable(LONG_MS));
}

static void the_dead_are_told_once(void **state)
{
    uint32_t rank;
    assert_false(is_readable(0));
    assert_false(trm_neighbours_next_dead(&neighbours, &rank, 1));
    lose(1);
    assert_false(trm_neighbours_next_dead(&neighbours, &rank, 2)); /* it has just looked */
    trm_neighbours_woken(&neighbours);
    assert_true(trm_neighbours_next_dead(&neighbours, &rank, 2));
    assert_int_equal(rank, 11);
    assert_false(trm_neighbours_next_dead(&neighbours, &rank, 2));
    assert_false(is_readable(0));
}

/* It is a zombie, or gone: both are told by the first look. */
static void who_was_dead_before_is_told(void **state)
{
    uint32_t rank;
    trm_neighbours_close(&neighbours);
    end(process[2]);
    process[2] = 0;
    trm_neighbours_watch(&neighbours, &begin);
    assert_true(trm_neighbours_next_dead(&neighbours, &rank, 1));
    assert_int_equal(rank, 12);
    assert_false(trm_neighbours_next_dead(&neighbours, &rank, 1));
}

/* What another process has of a closed descriptor must not keep the set readable: the loop would spin. */
static void another_process_may_have_the_descriptors(void **state)
{
    uint32_t rank;
    pid_t other = sleeper();
    lose(0);
    trm_neighbours_woken(&neighbours);
    assert_true(trm_neighbours_next_dead(&neighbours, &rank, 1));
    assert_int_equal(rank, 10);
    assert_false(is_readable(0));
    end(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_dead_are_told_once, watch_all, end_all),
        cmocka_unit_test_setup_teardown(who_was_dead_before_is_told, watch_all, end_all),
        cmocka_unit_test_setup_teardown(another_process_may_have_the_descriptors, watch_all, end_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
