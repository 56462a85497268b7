#include "runtime/json_reader.h"

#include <assert.h>
#include <stdlib.h>

#define BYTES_MAX (UINT32_MAX / 2) /* places in the text are 32 bits */

/* What is to come next in the list or object that is open. */
typedef enum expecting {
    EXPECT_VALUE,        /* after a comma or a colon, or at the begin */
    EXPECT_VALUE_OR_END, /* after '[' */
    EXPECT_KEY,          /* after a comma */
    EXPECT_KEY_OR_END,   /* after '{' */
    EXPECT_COMMA_OR_END  /* after a value */
} expecting;

typedef struct parser {
    trm_json_doc *doc;
    const uint8_t *begin, *at, *end;
    size_t text_len;
    expecting expecting;
    unsigned depth;
    uint32_t open[TRM_JSON_DEPTH_MAX]; /* lists and objects, the innermost last */
    uint32_t last[TRM_JSON_DEPTH_MAX]; /* value of each; 0: none yet */
    uint32_t key_at, key_len;          /* of the value that comes */
    trm_err *err;
} parser;

static trm_status wrong(const parser *self, const char *what)
{
    return trm_err_set(self->err, TRM_ECORRUPT, "no JSON: %s at byte %zu", what,
                       (size_t)(self->at - self->begin));
}

/* ---- Strings ---------------------------------------------------------------------------------- */

static bool read_hex4(parser *self, uint32_t *out)
{
    uint32_t value = 0;
    if (self->end - self->at < 4)
        return false;
    for (unsigned i = 0; i < 4; i++) {
        uint8_t c = self->at[i];
        uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                         : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a') + 10
                         : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A') + 10
                                                : 16;
        if (digit == 16)
            return false;
        value = value * 16 + digit;
    }
    self->at += 4;
    *out = value;
    return true;
}

static void put_char(parser *self, uint32_t byte)
{
    self->doc->text[self->text_len++] = (char)byte;
}

static void put_utf8(parser *self, uint32_t code)
{
    if (code < 0x80) {
        put_char(self, code);
        return;
    }
    if (code >= 0x10000) {
        put_char(self, 0xf0 | code >> 18);
        put_char(self, 0x80 | (code >> 12 & 0x3f));
        put_char(self, 0x80 | (code >> 6 & 0x3f));
    } else if (code >= 0x800) {
        put_char(self, 0xe0 | code >> 12);
        put_char(self, 0x80 | (code >> 6 & 0x3f));
    } else {
        put_char(self, 0xc0 | code >> 6);
    }
    put_char(self, 0x80 | (code & 0x3f));
}

/* Behind "\u". What stands for a character beyond the first plane is a pair; a half of one is an error. */
static trm_status read_unicode(parser *self)
{
    uint32_t code, low;
    if (!read_hex4(self, &code))
        return wrong(self, "\\u without four hexadecimal digits");
    if (code >= 0xd800 && code < 0xdc00) {
        if (self->end - self->at < 2 || self->at[0] != '\\' || self->at[1] != 'u')
            return wrong(self, "half of a surrogate pair");
        self->at += 2;
        if (!read_hex4(self, &low) || low < 0xdc00 || low > 0xdfff)
            return wrong(self, "half of a surrogate pair");
        code = 0x10000 + ((code - 0xd800) << 10 | (low - 0xdc00));
    } else if (code >= 0xdc00 && code < 0xe000) {
        return wrong(self, "half of a surrogate pair");
    }
    put_utf8(self, code);
    return TRM_OK;
}

static trm_status read_escape(parser *self)
{
    static const char forms[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
    if (self->at == self->end)
        return wrong(self, "the end within a string");
    uint8_t letter = *self->at;
    for (size_t i = 0; i + 1 < sizeof forms; i += 2) {
        if ((uint8_t)forms[i] != letter)
            continue;
        self->at++;
        put_char(self, (uint8_t)forms[i + 1]);
        return TRM_OK;
    }
    if (letter != 'u')
        return wrong(self, "an escape that there is not");
    self->at++;
    return read_unicode(self);
}

/* At its first quote. The text is never longer than what it is read from, its terminator included: that takes
 * the place of a quote. */
static trm_status read_string(parser *self, uint32_t *at, uint32_t *len)
{
    size_t begin = self->text_len;
    self->at++;
    while (self->at < self->end && *self->at != '"') {
        size_t step = trm_utf8_bytes(self->at, (size_t)(self->end - self->at));
        if (*self->at == '\\') {
            self->at++;
            trm_status status = read_escape(self);
            if (status != TRM_OK)
                return status;
            continue;
        }
        if (!step)
            return wrong(self, "bytes that are no UTF-8");
        if (*self->at < 0x20)
            return wrong(self, "a control character within a string");
        while (step--)
            put_char(self, *self->at++);
    }
    if (self->at == self->end)
        return wrong(self, "the end within a string");
    self->at++;
    *at = (uint32_t)begin;
    *len = (uint32_t)(self->text_len - begin);
    put_char(self, 0);
    return TRM_OK;
}

/* ---- Numbers and words -------------------------------------------------------------------------- */

static size_t read_digits(parser *self)
{
    size_t count = 0;
    for (; self->at < self->end && *self->at >= '0' && *self->at <= '9'; self->at++)
        count++;
    return count;
}

static void set_u64(trm_json_value *out, const uint8_t *digits, size_t count)
{
    uint64_t value = 0;
    for (size_t i = 0; i < count; i++)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(digits[i] - '0'), &value))
            return;
    out->u64 = value;
    out->is_u64 = true;
}

static trm_status read_number(parser *self, trm_json_value *out)
{
    bool whole = *self->at != '-';
    self->at += !whole;
    const uint8_t *digits = self->at;
    size_t count = read_digits(self);
    if (!count || (count > 1 && digits[0] == '0'))
        return wrong(self, "a number that is none");
    if (self->at < self->end && *self->at == '.') {
        self->at++;
        whole = false;
        if (!read_digits(self))
            return wrong(self, "a number that is none");
    }
    if (self->at < self->end && (*self->at == 'e' || *self->at == 'E')) {
        self->at++;
        whole = false;
        if (self->at < self->end && (*self->at == '+' || *self->at == '-'))
            self->at++;
        if (!read_digits(self))
            return wrong(self, "a number that is none");
    }
    out->kind = TRM_JSON_NUMBER;
    if (whole)
        set_u64(out, digits, count);
    return TRM_OK;
}

static trm_status read_word(parser *self, trm_json_value *out)
{
    static const struct {
        const char *text;
        size_t len;
        trm_json_kind kind;
        bool truth;
    } words[] = {{"true", 4, TRM_JSON_BOOL, true},
                 {"false", 5, TRM_JSON_BOOL, false},
                 {"null", 4, TRM_JSON_NULL, false}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if ((size_t)(self->end - self->at) < words[i].len ||
            memcmp(self->at, words[i].text, words[i].len) != 0)
            continue;
        self->at += words[i].len;
        out->kind = words[i].kind;
        out->truth = words[i].truth;
        return TRM_OK;
    }
    return wrong(self, "what is no value");
}

/* ---- Lists and objects ---------------------------------------------------------------------------- */

static trm_status grow(parser *self)
{
    trm_json_doc *doc = self->doc;
    if (doc->count == TRM_JSON_VALUES_MAX)
        return trm_err_set(self->err, TRM_ELIMIT, "more than %u values", TRM_JSON_VALUES_MAX);
    if (doc->count < doc->room)
        return TRM_OK;
    size_t room = doc->room ? 2 * doc->room : 64;
    trm_json_value *values = realloc(doc->values, room * sizeof *values);
    if (!values)
        return trm_err_set(self->err, TRM_ENOMEM, "no memory for a JSON document");
    doc->values = values;
    doc->room = room;
    return TRM_OK;
}

/* Puts it behind the last value of what is open. */
static void link_value(parser *self, uint32_t number)
{
    if (!self->depth)
        return;
    uint32_t *last = &self->last[self->depth - 1];
    if (*last)
        self->doc->values[*last].next = number;
    else
        self->doc->values[self->open[self->depth - 1]].first = number;
    *last = number;
}

static trm_status open_value(parser *self, uint32_t number, trm_json_kind kind)
{
    if (self->depth == TRM_JSON_DEPTH_MAX)
        return trm_err_set(self->err, TRM_ELIMIT, "lists and objects within %u others", TRM_JSON_DEPTH_MAX);
    self->at++;
    self->open[self->depth] = number;
    self->last[self->depth] = 0;
    self->depth++;
    self->expecting = kind == TRM_JSON_LIST ? EXPECT_VALUE_OR_END : EXPECT_KEY_OR_END;
    return TRM_OK;
}

static trm_status read_value(parser *self)
{
    trm_status status = grow(self);
    if (status != TRM_OK)
        return status;
    uint32_t number = (uint32_t)self->doc->count++;
    trm_json_value *value = &self->doc->values[number];
    *value = (trm_json_value){.key_at = self->key_at, .key_len = self->key_len};
    link_value(self, number);
    uint8_t c = *self->at;
    self->expecting = EXPECT_COMMA_OR_END;
    if (c == '{' || c == '[') {
        value->kind = c == '{' ? TRM_JSON_OBJECT : TRM_JSON_LIST;
        return open_value(self, number, value->kind);
    }
    if (c == '"') {
        value->kind = TRM_JSON_STRING;
        return read_string(self, &value->text_at, &value->text_len);
    }
    if (c == '-' || (c >= '0' && c <= '9'))
        return read_number(self, value);
    return read_word(self, value);
}

static void skip_space(parser *self)
{
    while (self->at < self->end &&
           (*self->at == ' ' || *self->at == '\t' || *self->at == '\n' || *self->at == '\r'))
        self->at++;
}

static trm_status read_key(parser *self)
{
    if (*self->at != '"')
        return wrong(self, "no key");
    trm_status status = read_string(self, &self->key_at, &self->key_len);
    if (status != TRM_OK)
        return status;
    skip_space(self);
    if (self->at == self->end || *self->at != ':')
        return wrong(self, "a key without a colon");
    self->at++;
    self->expecting = EXPECT_VALUE;
    return TRM_OK;
}

/* One thing: a key, a value, a comma or an end. `at` is at no space and before the end. */
static trm_status read_next(parser *self)
{
    bool in_object = self->depth && self->doc->values[self->open[self->depth - 1]].kind == TRM_JSON_OBJECT;
    bool may_end = self->expecting != EXPECT_VALUE && self->expecting != EXPECT_KEY;
    if (self->depth && may_end && *self->at == (in_object ? '}' : ']')) {
        self->at++;
        self->depth--;
        self->expecting = EXPECT_COMMA_OR_END;
        return TRM_OK;
    }
    if (self->expecting == EXPECT_KEY || self->expecting == EXPECT_KEY_OR_END)
        return read_key(self);
    if (self->expecting != EXPECT_COMMA_OR_END)
        return read_value(self);
    if (*self->at != ',')
        return wrong(self, "neither a comma nor an end");
    self->at++;
    self->expecting = in_object ? EXPECT_KEY : EXPECT_VALUE;
    return TRM_OK;
}

trm_status trm_json_parse(trm_json_doc *self, const void *bytes, size_t len, trm_err *err)
{
    *self = (trm_json_doc){.count = 0};
    if (len > BYTES_MAX)
        return trm_err_set(err, TRM_ELIMIT, "a JSON document of %zu bytes", len);
    self->text = malloc(len + 1);
    if (!self->text)
        return trm_err_set(err, TRM_ENOMEM, "no memory for a JSON document");
    parser at = {.doc = self, .begin = bytes, .at = bytes, .end = (const uint8_t *)bytes + len, .err = err};
    trm_status status = TRM_OK;
    do {
        skip_space(&at);
        status = at.at == at.end ? wrong(&at, "the end") : read_next(&at);
    } while (status == TRM_OK && (at.depth || at.expecting != EXPECT_COMMA_OR_END));
    skip_space(&at);
    if (status == TRM_OK && at.at != at.end)
        status = wrong(&at, "more than one document");
    assert(at.text_len <= len);
    if (status != TRM_OK)
        trm_json_doc_close(self);
    return status;
}

void trm_json_doc_close(trm_json_doc *self)
{
    free(self->text);
    free(self->values);
    *self = (trm_json_doc){.count = 0};
}

/* ---- Looking -------------------------------------------------------------------------------------- */

const trm_json_value *trm_json_root(const trm_json_doc *self)
{
    return self->count ? &self->values[0] : NULL;
}

const trm_json_value *trm_json_first(const trm_json_doc *self, const trm_json_value *of)
{
    return of && of->first ? &self->values[of->first] : NULL;
}

const trm_json_value *trm_json_next(const trm_json_doc *self, const trm_json_value *value)
{
    return value && value->next ? &self->values[value->next] : NULL;
}

const trm_json_value *trm_json_find(const trm_json_doc *self, const trm_json_value *object, const char *key)
{
    if (!object || object->kind != TRM_JSON_OBJECT)
        return NULL;
    size_t len = strlen(key);
    for (const trm_json_value *at = trm_json_first(self, object); at; at = trm_json_next(self, at))
        if (at->key_len == len && memcmp(self->text + at->key_at, key, len) == 0)
            return at;
    return NULL;
}

uint64_t trm_json_get_u64(const trm_json_doc *self, const trm_json_value *object, const char *key,
                          uint64_t otherwise)
{
    const trm_json_value *value = trm_json_find(self, object, key);
    return value && value->is_u64 ? value->u64 : otherwise;
}

bool trm_json_get_bool(const trm_json_doc *self, const trm_json_value *object, const char *key,
                       bool otherwise)
{
    const trm_json_value *value = trm_json_find(self, object, key);
    return value && value->kind == TRM_JSON_BOOL ? value->truth : otherwise;
}

const char *trm_json_get_string(const trm_json_doc *self, const trm_json_value *object, const char *key,
                                const char *otherwise)
{
    const trm_json_value *value = trm_json_find(self, object, key);
    return value && value->kind == TRM_JSON_STRING ? self->text + value->text_at : otherwise;
}
