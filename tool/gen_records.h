/* The 100-byte records of the sort benchmark, as its gensort lays them out: a random key of 10
 * bytes, the record's number in 32 hexadecimal digits, and filler.
 *
 *   binary  key 10 · 00 11 · number 32 · 88 99 AA BB · filler 48 · CC DD EE FF
 *   ascii   key 10 · 2 spaces · number 32 · 2 spaces · filler 52 · CR LF
 *
 * Keys of the second are 10 of the 95 printable characters, so that sort(1) can sort the same
 * file by lines. Pure: record n of a seed is the same everywhere.
 */
#ifndef TRM_TOOL_GEN_RECORDS_H
#define TRM_TOOL_GEN_RECORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRM_GEN_RECORD_BYTES 100u

/* Writes records first … first + count - 1 to `out`. */
void trm_gen_records_fill(char *out, uint64_t first, size_t count, uint64_t seed, bool ascii);

#endif
