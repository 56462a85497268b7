/* The next event of a crew that a test drives. Included after config.h. */
#ifndef TRM_TESTS_CREW_WAIT_H
#define TRM_TESTS_CREW_WAIT_H

#include "runtime/clock.h"
#include "workers/crew.h"

#include <poll.h>

#define CREW_WAIT_S 120u /* for an event that must come: a test that hangs ends with a failure */

/* TRM_AGAIN when there is none for so long. */
static inline trm_status crew_wait(trm_crew *crew, trm_crew_event *event)
{
    uint64_t end_ns = trm_clock_now_ns() + CREW_WAIT_S * TRM_NS_PER_S;
    trm_status status;
    while ((status = trm_crew_next(crew, event)) == TRM_AGAIN && trm_clock_now_ns() < end_ns) {
        int fds[4];
        struct pollfd polled[4];
        unsigned count = trm_crew_fds(crew, fds, 4);
        for (unsigned i = 0; i < count; i++)
            polled[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
        poll(polled, count, 1000);
    }
    return status;
}

#endif
