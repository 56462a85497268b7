/* CRC-32C (Castagnoli; RFC 3720, appendix B.4), the checksum of every format. */
#ifndef TRM_RUNTIME_CRC32C_H
#define TRM_RUNTIME_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of `len` bytes, continued from `crc` (0 to begin):
 * crc32c(crc32c(0, a), b) == crc32c(0, a‖b). Uses the processor's instruction
 * where it has one. Any thread. */
uint32_t trm_crc32c(uint32_t crc, const void *bytes, size_t len);

/* The same without the processor's help, on every machine: what the other is
 * tested against. Any thread. */
uint32_t trm_crc32c_portable(uint32_t crc, const void *bytes, size_t len);

#endif
