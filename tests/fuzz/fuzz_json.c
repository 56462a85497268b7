/* JSON that anybody may have written: whatever the bytes are, they are refused, or every value can be
 * walked over within its bounds. */
#include "runtime/json_reader.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Drawn bytes are seldom JSON: these are what small numbers stand for. */
static const char letters[] = "{}[]\",:1\\u0t rue-.e9ad8fls\n";

static void walk(const trm_json_doc *doc, const trm_json_value *of, unsigned depth)
{
    if (depth > TRM_JSON_DEPTH_MAX)
        abort();
    for (const trm_json_value *at = trm_json_first(doc, of); at; at = trm_json_next(doc, at)) {
        if (at->kind == TRM_JSON_STRING && doc->text[at->text_at + at->text_len] != 0)
            abort();
        if (of->kind == TRM_JSON_OBJECT && doc->text[at->key_at + at->key_len] != 0)
            abort();
        if (at->first && at->kind != TRM_JSON_LIST && at->kind != TRM_JSON_OBJECT)
            abort();
        walk(doc, at, depth + 1);
    }
}

static void parse(const uint8_t *data, size_t size)
{
    trm_json_doc doc;
    trm_err err;
    if (trm_json_parse(&doc, data, size, &err) != TRM_OK)
        return;
    walk(&doc, trm_json_root(&doc), 0);
    trm_json_get_string(&doc, trm_json_root(&doc), "", "");
    trm_json_doc_close(&doc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *spelt = malloc(size ? size : 1);
    if (!spelt)
        return 0;
    parse(data, size);
    for (size_t i = 0; i < size; i++)
        spelt[i] = (uint8_t)letters[data[i] % (sizeof letters - 1)];
    parse(spelt, size);
    free(spelt);
    return 0;
}
