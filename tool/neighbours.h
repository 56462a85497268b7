/* The other ranks of this host: the death of a process is seen at once, where the system has
 * pidfds (Linux 5.3). MPI tells nothing of it, and silence takes long to be sure of. */
#ifndef TRM_TOOL_NEIGHBOURS_H
#define TRM_TOOL_NEIGHBOURS_H

#include "jobs/wire.h"

#define TRM_NEIGHBOURS_MAX 256u /* watched; others are found dead by their silence */

typedef struct trm_neighbours { /* zero-initialise */
    int fd;                     /* of all of them; 0: none is watched yet */
    uint32_t count;
    struct {
        int fd;
        uint32_t rank;
    } item[TRM_NEIGHBOURS_MAX];
    uint64_t look_ns;
} trm_neighbours;

#define TRM_NEIGHBOURS_LOOK_MS 10u /* between two looks, of a loop that never sleeps: a system call */

/* Begins to watch those that BEGIN names, each once. One that is gone already is told dead by the first look.
 */
void trm_neighbours_watch(trm_neighbours *self, const trm_begin *begin);
/* The next that has died since the last call; false: none. */
bool trm_neighbours_next_dead(trm_neighbours *self, uint32_t *rank, uint64_t now_ns);
/* Is readable when one has died; -1: there is none to wait for. */
int trm_neighbours_fd(const trm_neighbours *self);
/* It was: the next look is due. */
void trm_neighbours_woken(trm_neighbours *self);
void trm_neighbours_close(trm_neighbours *self);

#endif
