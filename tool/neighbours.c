#include "config.h" /* system extensions, before any header of the system */

#include "tool/neighbours.h"

#include "runtime/clock.h"

#include <errno.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GONE (-2) /* in place of a descriptor: it was dead before it could be watched */

static int open_pidfd(uint64_t pid)
{
#ifdef SYS_pidfd_open
    return (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
#else
    errno = ENOSYS;
    return -1;
#endif
}

static bool is_watched(const trm_neighbours *self, uint32_t rank)
{
    for (uint32_t i = 0; i < self->count; i++)
        if (self->item[i].rank == rank)
            return true;
    return false;
}

void trm_neighbours_watch(trm_neighbours *self, const trm_begin *begin)
{
    for (uint32_t i = 0; i < begin->neighbours && self->count < TRM_NEIGHBOURS_MAX; i++) {
        uint64_t pid = begin->neighbour[i].pid;
        if (pid == 0 || pid > INT32_MAX || is_watched(self, begin->neighbour[i].rank))
            continue;
        int fd = open_pidfd(pid);
        if (fd < 0 && errno == ESRCH)
            fd = GONE;
        if (fd < 0 && fd != GONE)
            continue;
        self->item[self->count].fd = fd;
        self->item[self->count++].rank = begin->neighbour[i].rank;
    }
}

static void take_out(trm_neighbours *self, uint32_t i)
{
    if (self->item[i].fd >= 0)
        close(self->item[i].fd);
    self->item[i] = self->item[--self->count];
}

bool trm_neighbours_next_dead(trm_neighbours *self, uint32_t *rank, uint64_t now_ns)
{
    struct pollfd fds[TRM_NEIGHBOURS_MAX];
    if (!self->count || now_ns < self->look_ns)
        return false;
    for (uint32_t i = 0; i < self->count; i++)
        fds[i] = (struct pollfd){.fd = self->item[i].fd, .events = POLLIN};
    int ready = poll(fds, self->count, 0);
    for (uint32_t i = 0; i < self->count; i++) {
        if (self->item[i].fd != GONE && (ready <= 0 || !fds[i].revents))
            continue;
        *rank = self->item[i].rank;
        take_out(self, i);
        return true; /* and is asked again at once */
    }
    self->look_ns = now_ns + TRM_NEIGHBOURS_LOOK_MS * TRM_NS_PER_MS;
    return false;
}

void trm_neighbours_close(trm_neighbours *self)
{
    while (self->count)
        take_out(self, 0);
}
