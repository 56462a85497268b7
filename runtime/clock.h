/* Time, read in one file.
 *
 * The control loop reads the clock once a turn and passes `now_ns` down; nothing
 * below it asks for the time, so that the simulator can stand in. Monotonic for
 * all decisions; the wall clock only for what a person reads.
 */
#ifndef TRM_RUNTIME_CLOCK_H
#define TRM_RUNTIME_CLOCK_H

#include <stdint.h>

#define TRM_NS_PER_MS 1000000ull
#define TRM_NS_PER_S 1000000000ull

/* Monotonic nanoseconds, comparable among the processes of one host. */
uint64_t trm_clock_now_ns(void);
/* Wall-clock milliseconds since 1970, for records that people read. */
uint64_t trm_clock_wall_ms(void);
/* 64 bits from the system's generator: seeds, and names nobody can guess. */
uint64_t trm_clock_entropy(void);

#endif
