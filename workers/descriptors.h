/* What a forked process of the crew must not hold: descriptors of others. One end of a
 * socket or pipe that stays open somewhere hides that its owner has died. */
#ifndef TRM_WORKERS_DESCRIPTORS_H
#define TRM_WORKERS_DESCRIPTORS_H

/* Closes every descriptor of the process but these; negative ones are ignored. At most
 * TRM_DESCRIPTORS_KEPT_MAX, which is asserted. */
#define TRM_DESCRIPTORS_KEPT_MAX 320u
void trm_descriptors_keep_only(const int *kept, unsigned count);

#endif
