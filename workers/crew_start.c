/* Before MPI_Init: everything that rank, supervisor and executors share, then the fork. */
#include "config.h" /* system extensions, before any header of the system */

#include "workers/crew_self.h"

#include "runtime/machine.h"
#include "workers/descriptors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define MEMORY_PART_NUMERATOR 4u /* of what the machine has, all ranks of a host together … */
#define MEMORY_PART_DENOMINATOR 5u
#define RANK_PART_DENOMINATOR 8u /* … of which the rank itself keeps an eighth: messages, plan, job table */
#define EXECUTOR_MEMORY_BYTES_MIN (4ull << 20)
#define DIED_SOCKET_BYTES (1u << 20) /* room for DIED of every executor */

void trm_crew_free(trm_crew *self)
{
    for (unsigned i = 0; self->member && i < self->executors; i++)
        if (self->member[i].fd >= 0)
            close(self->member[i].fd);
    for (unsigned i = 0; self->order_fds && i < self->executors; i++)
        if (self->order_fds[i] >= 0)
            close(self->order_fds[i]);
    if (self->wake_fd >= 0)
        close(self->wake_fd);
    if (self->supervisor_fd >= 0)
        close(self->supervisor_fd);
    trm_scratch_close(&self->scratch);
    trm_lanes_close(&self->lanes);
    trm_topology_destroy(self->topology);
    trm_writer_close(&self->out);
    free(self->bindings);
    free(self->member);
    free(self->order_fds);
    free(self);
}

static trm_status take_cores(trm_crew *self, const trm_spec *spec, uint32_t local_rank, uint32_t local_ranks,
                             trm_err *err)
{
    trm_status status = trm_topology_create(&self->topology, err);
    if (status)
        return status;
    trm_topology_share(self->topology, local_rank, local_ranks, trm_topology_set_is_shared(self->topology));
    unsigned cores = trm_topology_cores(self->topology);
    self->executors = spec->executors             ? spec->executors
                      : cores < TRM_EXECUTORS_MAX ? cores
                                                  : TRM_EXECUTORS_MAX;
    if (self->executors > TRM_EXECUTORS_MAX)
        return trm_err_set(err, TRM_EUSAGE, "%u executors are more than %u", self->executors,
                           TRM_EXECUTORS_MAX);
    return TRM_OK;
}

static trm_status take_memory(trm_crew *self, const trm_spec *spec, uint32_t local_ranks, trm_err *err)
{
    uint64_t bytes = spec->memory_bytes;
    if (!bytes)
        bytes = trm_machine_memory_bytes() / MEMORY_PART_DENOMINATOR * MEMORY_PART_NUMERATOR / local_ranks;
    self->executor_memory_bytes = (bytes - bytes / RANK_PART_DENOMINATOR) / self->executors;
    if (self->executor_memory_bytes < EXECUTOR_MEMORY_BYTES_MIN)
        return trm_err_set(err, spec->memory_bytes ? TRM_EUSAGE : TRM_ELAUNCH,
                           "%llu MiB of memory a rank is too little for %u executors: each needs %llu MiB",
                           (unsigned long long)(bytes >> 20), self->executors,
                           (unsigned long long)(EXECUTOR_MEMORY_BYTES_MIN >> 20));
    return TRM_OK;
}

/* A line an executor, under one for the rank. */
static trm_status describe(trm_crew *self, const trm_spec *spec, int rank_hint, trm_err *err)
{
    char host[256] = "?", rank[32] = "this rank", place[TRM_PLACE_TEXT_BYTES];
    gethostname(host, sizeof host - 1);
    if (rank_hint >= 0)
        snprintf(rank, sizeof rank, "rank %d", rank_hint);
    self->bindings = calloc(1, TRM_BINDINGS_BYTES_MAX);
    if (!self->bindings)
        return trm_err_set(err, TRM_ENOMEM, "no memory for the map of executors to cores");
    size_t len = (size_t)snprintf(
        self->bindings, TRM_BINDINGS_BYTES_MAX,
        "%s on %s: %u of %u cores, %u executor%s with %llu MiB each\n", rank, host,
        trm_topology_cores(self->topology), trm_topology_machine_cores(self->topology), self->executors,
        self->executors == 1 ? "" : "s", (unsigned long long)(self->executor_memory_bytes >> 20));
    for (unsigned i = 0; i < self->executors && len + sizeof place + 32 < TRM_BINDINGS_BYTES_MAX; i++) {
        trm_topology_describe(self->topology, (trm_grain)spec->bind, i, place, sizeof place);
        len += (size_t)snprintf(self->bindings + len, TRM_BINDINGS_BYTES_MAX - len, "  executor %u: %s\n", i,
                                place);
    }
    return TRM_OK;
}

static trm_status make_sockets(trm_crew *self, int *rank_fd, trm_err *err)
{
    self->member = calloc(self->executors, sizeof *self->member);
    self->order_fds = calloc(self->executors, sizeof *self->order_fds);
    if (!self->member || !self->order_fds) {
        free(self->member);
        free(self->order_fds);
        self->member = NULL;
        self->order_fds = NULL;
        return trm_err_set(err, TRM_ENOMEM, "no memory for %u executors", self->executors);
    }
    for (unsigned i = 0; i < self->executors; i++) {
        self->member[i].fd = self->order_fds[i] = -1;
        self->member[i].generation = 1;
    }
    int pair[2];
    for (unsigned i = 0; i < self->executors; i++) {
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
            return trm_err_errno(err, TRM_ELAUNCH, errno, "cannot make the socket of executor %u", i);
        self->member[i].fd = pair[0];
        self->order_fds[i] = pair[1];
    }
    self->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self->wake_fd < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return trm_err_errno(err, TRM_ELAUNCH, errno, "cannot make the socket of the supervisor");
    self->supervisor_fd = pair[0];
    *rank_fd = pair[1];
    int bytes = DIED_SOCKET_BYTES; /* as much as the system allows */
    setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    return TRM_OK;
}

static trm_status fork_supervisor(trm_crew *self, const trm_spec *spec, const trm_executor_ops *ops,
                                  int rank_fd, trm_err *err)
{
    fflush(NULL); /* or what is in the buffers would be written by executors again */
    self->supervisor_pid = fork();
    if (self->supervisor_pid < 0)
        return trm_err_errno(err, TRM_ELAUNCH, errno, "cannot fork the supervisor of the executors");
    if (self->supervisor_pid > 0)
        return TRM_OK;
    trm_supervisor_args args = {
        .spec = spec,
        .ops = ops,
        .topology = self->topology,
        .scratch = &self->scratch,
        .lanes = self->lanes,
        .executors = self->executors,
        .executor_memory_bytes = self->executor_memory_bytes,
        .rank_fd = rank_fd,
        .order_fds = self->order_fds,
        .wake_fd = self->wake_fd,
    };
    trm_supervisor_main(&args); /* keeps the descriptors named here and no others */
}

trm_status trm_crew_start(trm_crew **out, const trm_spec *spec, int rank_hint, trm_err *err)
{
    return trm_crew_start_with(out, spec, rank_hint, trm_executor_job_ops(), err);
}

trm_status trm_crew_start_with(trm_crew **out, const trm_spec *spec, int rank_hint,
                               const trm_executor_ops *ops, trm_err *err)
{
    trm_crew *self = calloc(1, sizeof *self);
    if (!self)
        return trm_err_set(err, TRM_ENOMEM, "no memory for the crew");
    self->wake_fd = self->supervisor_fd = self->scratch.lock_fd = -1;
    self->output_dir = spec->output_dir ? spec->output_dir : "";
    int rank_fd = -1;
    uint32_t local_rank, local_ranks;
    trm_machine_local_rank(&local_rank, &local_ranks);
    trm_writer_init(&self->out);

    trm_status status = take_cores(self, spec, local_rank, local_ranks, err);
    if (!status)
        status = take_memory(self, spec, local_ranks, err);
    if (!status)
        status = describe(self, spec, rank_hint, err);
    if (!status)
        status = make_sockets(self, &rank_fd, err);
    if (!status)
        status = trm_lanes_init(&self->lanes, self->executors, err);
    if (!status)
        status = trm_scratch_create(&self->scratch, spec->scratch_dir, err);
    if (!status)
        status = fork_supervisor(self, spec, ops, rank_fd, err);
    if (rank_fd >= 0)
        close(rank_fd);
    if (status) {
        if (self->scratch.path[0])
            trm_scratch_remove(&self->scratch, NULL);
        trm_crew_free(self);
        return status;
    }
    /* Only the supervisor and the executors may hold these: their end is what the rank sees. */
    for (unsigned i = 0; i < self->executors; i++)
        close(self->order_fds[i]);
    free(self->order_fds);
    self->order_fds = NULL;
    *out = self;
    return TRM_OK;
}
