#include "config.h" /* system extensions, before any header of the system */

#include "tool/neighbours.h"

#include "runtime/clock.h"

#include <errno.h>
#include <sys/epoll.h>
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

/* False: it cannot be watched. */
static bool watch(trm_neighbours *self, int fd, uint32_t rank)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = rank};
    if (!self->fd)
        self->fd = epoll_create1(EPOLL_CLOEXEC);
    return self->fd > 0 && epoll_ctl(self->fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

void trm_neighbours_watch(trm_neighbours *self, const trm_begin *begin)
{
    for (uint32_t i = 0; i < begin->neighbours && self->count < TRM_NEIGHBOURS_MAX; i++) {
        uint64_t pid = begin->neighbour[i].pid;
        uint32_t rank = begin->neighbour[i].rank;
        if (pid == 0 || pid > INT32_MAX || is_watched(self, rank))
            continue;
        int fd = open_pidfd(pid);
        if (fd < 0 && errno == ESRCH)
            fd = GONE;
        if (fd >= 0 && !watch(self, fd, rank)) {
            close(fd);
            continue;
        }
        if (fd < 0 && fd != GONE)
            continue;
        self->item[self->count].fd = fd;
        self->item[self->count++].rank = rank;
        self->look_ns = 0;
    }
}

int trm_neighbours_fd(const trm_neighbours *self)
{
    return self->count && self->fd > 0 ? self->fd : -1;
}

void trm_neighbours_woken(trm_neighbours *self)
{
    self->look_ns = 0;
}

static void take_out(trm_neighbours *self, uint32_t i)
{
    if (self->item[i].fd >= 0) { /* should another process have it, closing does not take it out of the set */
        epoll_ctl(self->fd, EPOLL_CTL_DEL, self->item[i].fd, NULL);
        close(self->item[i].fd);
    }
    self->item[i] = self->item[--self->count];
}

bool trm_neighbours_next_dead(trm_neighbours *self, uint32_t *rank, uint64_t now_ns)
{
    if (!self->count || now_ns < self->look_ns)
        return false;
    struct epoll_event event;
    bool any = self->fd > 0 && epoll_wait(self->fd, &event, 1, 0) > 0;
    for (uint32_t i = 0; i < self->count; i++) {
        if (self->item[i].fd != GONE && (!any || event.data.u32 != self->item[i].rank))
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
    if (self->fd > 0)
        close(self->fd);
    self->fd = 0;
}
