#include "runtime/json.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

static void put_text(trm_json *self, const char *text)
{
    trm_put_bytes(self->out, text, strlen(text));
}

/* ---- Strings -------------------------------------------------------------------------------- */

size_t trm_utf8_bytes(const uint8_t *at, size_t left)
{
    uint8_t lead = at[0];
    if (lead < 0x80)
        return 1;
    size_t bytes = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || left < bytes)
        return 0;
    for (size_t i = 1; i < bytes; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (lead == 0xe0 && at[1] < 0xa0) || (lead == 0xf0 && at[1] < 0x90);
    bool surrogate = lead == 0xed && at[1] > 0x9f;
    bool beyond = lead == 0xf4 && at[1] > 0x8f;
    return overlong || surrogate || beyond ? 0 : bytes;
}

static void put_escaped(trm_json *self, uint8_t byte)
{
    static const char short_forms[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    char escape[8];
    for (size_t i = 0; i + 1 < sizeof short_forms; i += 2) {
        if ((uint8_t)short_forms[i] != byte)
            continue;
        trm_put_u8(self->out, '\\');
        trm_put_u8(self->out, (uint8_t)short_forms[i + 1]);
        return;
    }
    snprintf(escape, sizeof escape, "\\u%04x", byte);
    put_text(self, escape);
}

static void put_string(trm_json *self, const char *text, size_t len)
{
    const uint8_t *bytes = (const uint8_t *)text;
    size_t plain = 0; /* where what is copied as it is begins */
    trm_put_u8(self->out, '"');
    for (size_t at = 0; at < len;) {
        size_t step = trm_utf8_bytes(bytes + at, len - at);
        bool as_it_is =
            step && bytes[at] >= 0x20 && bytes[at] != '"' && bytes[at] != '\\' && bytes[at] != 0x7f;
        if (as_it_is) {
            at += step;
            continue;
        }
        trm_put_bytes(self->out, bytes + plain, at - plain);
        if (step)
            put_escaped(self, bytes[at]);
        else
            put_text(self, "\xef\xbf\xbd");
        plain = ++at;
    }
    trm_put_bytes(self->out, bytes + plain, len - plain);
    trm_put_u8(self->out, '"');
}

/* ---- Values ----------------------------------------------------------------------------------- */

static void begin_value(trm_json *self, const char *key)
{
    assert(!self->depth || !key == (self->close[self->depth - 1] == ']'));
    if (self->comma)
        trm_put_u8(self->out, ',');
    self->comma = true;
    if (!key)
        return;
    put_string(self, key, strlen(key));
    trm_put_u8(self->out, ':');
}

static void open(trm_json *self, const char *key, char begin, char end)
{
    assert(self->depth < TRM_JSON_DEPTH_MAX);
    begin_value(self, key);
    trm_put_u8(self->out, (uint8_t)begin);
    self->close[self->depth++] = end;
    self->comma = false;
}

void trm_json_object(trm_json *self, const char *key)
{
    open(self, key, '{', '}');
}

void trm_json_list(trm_json *self, const char *key)
{
    open(self, key, '[', ']');
}

void trm_json_close(trm_json *self)
{
    assert(self->depth > 0);
    trm_put_u8(self->out, (uint8_t)self->close[--self->depth]);
    self->comma = true;
}

void trm_json_text(trm_json *self, const char *key, const char *text, size_t len)
{
    begin_value(self, key);
    put_string(self, text, len);
}

void trm_json_string(trm_json *self, const char *key, const char *text)
{
    trm_json_text(self, key, text, strlen(text));
}

void trm_json_u64(trm_json *self, const char *key, uint64_t value)
{
    char digits[24];
    begin_value(self, key);
    snprintf(digits, sizeof digits, "%" PRIu64, value);
    put_text(self, digits);
}

void trm_json_bool(trm_json *self, const char *key, bool value)
{
    begin_value(self, key);
    put_text(self, value ? "true" : "false");
}

void trm_json_crc(trm_json *self, const char *key, uint32_t crc)
{
    char digits[12];
    begin_value(self, key);
    snprintf(digits, sizeof digits, "\"%08" PRIx32 "\"", crc);
    put_text(self, digits);
}

void trm_json_line(trm_json *self)
{
    assert(self->depth == 0);
    trm_put_u8(self->out, '\n');
    self->comma = false;
}
