/* Reads JSON (RFC 8259) that anybody may have written: one document, held whole, its values found by
 * key. Strict: UTF-8 only, no control characters in strings, nothing behind the document.
 *
 * Bounds: the caller's on bytes, TRM_JSON_DEPTH_MAX (json.h) on nesting, TRM_JSON_VALUES_MAX on values. No
 * recursion. Of a key that comes twice in an object the first counts.
 *
 *     trm_json_doc doc;
 *     trm_status status = trm_json_parse(&doc, bytes, len, &err);
 *     const trm_json_value *ranks = trm_json_find(&doc, trm_json_root(&doc), "ranks");
 *     for (const trm_json_value *rank = trm_json_first(&doc, ranks); rank; rank = trm_json_next(&doc, rank))
 * … trm_json_doc_close(&doc);
 *
 * Whatever is asked of NULL is NULL, or the default.
 */
#ifndef TRM_RUNTIME_JSON_READER_H
#define TRM_RUNTIME_JSON_READER_H

#include "runtime/json.h"
#include "runtime/status.h"

#define TRM_JSON_VALUES_MAX 1000000u

typedef enum trm_json_kind {
    TRM_JSON_NULL,
    TRM_JSON_BOOL,
    TRM_JSON_NUMBER,
    TRM_JSON_STRING,
    TRM_JSON_LIST,
    TRM_JSON_OBJECT
} trm_json_kind;

typedef struct trm_json_value {
    trm_json_kind kind;
    uint32_t next;              /* of the same list or object; 0: it is the last */
    uint32_t first;             /* of a list or object; 0: it is empty */
    uint32_t key_at, key_len;   /* in an object */
    uint32_t text_at, text_len; /* a string, unescaped and terminated; it may hold NULs of its own */
    bool truth;
    bool is_u64; /* a number that is whole, not negative, and fits */
    uint64_t u64;
} trm_json_value;

typedef struct trm_json_doc {
    char *text; /* of keys and strings */
    trm_json_value *values;
    size_t count, room;
} trm_json_doc;

/* Copies what it keeps. TRM_ECORRUPT: it is no JSON, with the place; TRM_ELIMIT: a bound; TRM_ENOMEM. Nothing
 * to close after a failure. */
trm_status trm_json_parse(trm_json_doc *self, const void *bytes, size_t len, trm_err *err);
void trm_json_doc_close(trm_json_doc *self);

const trm_json_value *trm_json_root(const trm_json_doc *self);
/* The value of a key; NULL: there is none, or `object` is none. */
const trm_json_value *trm_json_find(const trm_json_doc *self, const trm_json_value *object, const char *key);
/* The values of a list or an object, in their order. */
const trm_json_value *trm_json_first(const trm_json_doc *self, const trm_json_value *of);
const trm_json_value *trm_json_next(const trm_json_doc *self, const trm_json_value *value);

/* A member, or `otherwise` when it is not there or is of another kind. */
uint64_t trm_json_get_u64(const trm_json_doc *self, const trm_json_value *object, const char *key,
                          uint64_t otherwise);
bool trm_json_get_bool(const trm_json_doc *self, const trm_json_value *object, const char *key,
                       bool otherwise);
const char *trm_json_get_string(const trm_json_doc *self, const trm_json_value *object, const char *key,
                                const char *otherwise);

#endif
