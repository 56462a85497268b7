/* Writes JSON (RFC 8259) into a buffer: objects and lists on one line, keys in the order in which
 * they are put. Strings are escaped; bytes that are no UTF-8 become U+FFFD each, so that the
 * result is valid whatever a file name or a kernel's last words hold.
 *
 *     trm_json json = {.out = &writer};
 *     trm_json_object(&json, NULL);
 *     trm_json_string(&json, "job", name);
 *     trm_json_list(&json, "files"); … trm_json_close(&json);
 *     trm_json_close(&json);
 *
 * In an object every value has a key, in a list it is NULL. A failure for memory is remembered by
 * the writer.
 */
#ifndef TRM_RUNTIME_JSON_H
#define TRM_RUNTIME_JSON_H

#include "runtime/bytes.h"

#define TRM_JSON_DEPTH_MAX 16u

/* How many bytes the character at `at` takes if it is well-formed UTF-8 (RFC 3629, section 4), else 0;
 * `left` is 1 or more. */
size_t trm_utf8_bytes(const uint8_t *at, size_t left);

typedef struct trm_json {
    trm_writer *out;
    unsigned depth;
    bool comma; /* before the next value */
    char close[TRM_JSON_DEPTH_MAX];
} trm_json;

void trm_json_object(trm_json *self, const char *key);
void trm_json_list(trm_json *self, const char *key);
/* Ends the object or list that was begun last. */
void trm_json_close(trm_json *self);
void trm_json_string(trm_json *self, const char *key, const char *text);
void trm_json_text(trm_json *self, const char *key, const char *text, size_t len); /* not terminated */
void trm_json_u64(trm_json *self, const char *key, uint64_t value);
void trm_json_bool(trm_json *self, const char *key, bool value);
/* A checksum, as eight hexadecimal digits in a string. */
void trm_json_crc(trm_json *self, const char *key, uint32_t crc);
/* Ends a line: for files of one object a line. */
void trm_json_line(trm_json *self);

#endif
