#include "config.h" /* system extensions, before any header of the system */

#include "tool/gather.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

trm_status trm_gather_init(trm_gather *self, uint32_t ranks, bool show_bindings, trm_err *err)
{
    *self = (trm_gather){.ranks = ranks, .show_bindings = show_bindings};
    self->greeting = calloc(ranks, sizeof *self->greeting);
    return self->greeting ? TRM_OK : trm_err_set(err, TRM_ENOMEM, "no memory to hear of %u ranks", ranks);
}

void trm_gather_close(trm_gather *self)
{
    for (uint32_t i = 0; self->greeting && i < self->ranks; i++) {
        free(self->greeting[i].body);
        free(self->greeting[i].host_name);
    }
    free(self->greeting);
    *self = (trm_gather){0};
}

static void print_bindings(const trm_hello *hello)
{
    const char *at = hello->bindings, *end = at + hello->bindings_len;
    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        int len = (int)((newline ? newline : end) - at);
        fprintf(stderr, "%.*s\n", len, at);
        at += len + 1;
    }
}

static uint32_t number_host(const trm_gather *self, uint32_t rank)
{
    uint32_t hosts = 0;
    for (uint32_t i = 0; i < self->ranks; i++) {
        const trm_greeting *other = &self->greeting[i];
        if (i == rank || !other->host_name)
            continue;
        if (strcmp(other->host_name, self->greeting[rank].host_name) == 0)
            return other->host;
        hosts = other->host + 1 > hosts ? other->host + 1 : hosts;
    }
    return hosts;
}

static void take_able(trm_gather *self, const trm_hello *hello)
{
    if (self->able++ == 0)
        self->traits = hello->traits;
    self->executors += hello->executors;
    if (!self->executor_memory_bytes || hello->executor_memory_bytes < self->executor_memory_bytes)
        self->executor_memory_bytes = hello->executor_memory_bytes;
    if (self->show_bindings)
        print_bindings(hello);
}

static void take_unable(trm_gather *self, uint32_t from, const trm_hello *hello)
{
    if (self->first_status != TRM_OK)
        return;
    self->first_status = (trm_status)hello->status;
    bool is_of_job = hello->status == TRM_EJOB || hello->status == TRM_EUSAGE;
    if (self->ranks > 1 && !is_of_job)
        snprintf(self->first_text, sizeof self->first_text, "rank %u on %s: %.3800s", from, hello->host,
                 hello->text);
    else
        snprintf(self->first_text, sizeof self->first_text, "%s", hello->text);
}

void trm_gather_take(trm_gather *self, uint32_t from, const trm_wire_header *header, trm_reader *body)
{
    trm_greeting *slot = &self->greeting[from];
    size_t len = trm_reader_left(body);
    uint8_t *copy = malloc(len ? len : 1);
    trm_hello *hello = calloc(1, sizeof *hello);
    if (copy && hello) {
        memcpy(copy, body->at, len);
        trm_hello_decode(hello, body);
    }
    char *host_name = hello && trm_reader_done(body) ? strdup(hello->host) : NULL;
    if (!copy || !host_name || slot->body) {
        free(copy);
        free(host_name);
        free(hello);
        return;
    }
    *slot = (trm_greeting){.body = copy,
                           .len = len,
                           .header = *header,
                           .able = hello->status == TRM_OK,
                           .pid = hello->pid,
                           .host_name = host_name};
    slot->host = number_host(self, from);
    self->greeted++;
    if (slot->able)
        take_able(self, hello);
    else
        take_unable(self, from, hello);
    free(hello);
}
