/* See replica.h. */
#include "scheduler/replica.h"

#include "runtime/diag.h"

#include <assert.h>

#define APPLY_STEP_MAX 256u /* items of the log in one step */

void trm_replica_init(trm_replica *self, trm_replog *log)
{
    *self = (trm_replica){.log = log, .health = TRM_OK};
    trm_table_init(&self->table);
}

void trm_replica_close(trm_replica *self)
{
    assert(!self->context);
    trm_table_close(&self->table);
    self->log = NULL;
}

static void apply(trm_replica *self, const trm_replog_item *item)
{
    if (item->kind == TRM_REPLOG_RESTORE) {
        if (self->restoring)
            self->restoring(self->context);
        trm_table_close(&self->table);
        self->health = trm_table_decode(&self->table, item->bytes, item->len, &self->why);
    } else {
        self->health = trm_table_apply(&self->table, item->bytes, item->len, self->watch, &self->why);
    }
    self->applied = item->index;
    if (self->witness)
        self->witness(self->witness_context, self, item);
}

static void save_image(trm_replica *self)
{
    trm_writer image;
    trm_err err = {""};
    trm_writer_init(&image);
    trm_table_encode(&self->table, &image);
    if (trm_writer_ok(&image)) { /* else, or if it cannot be saved, the log only grows on */
        trm_status status = trm_replog_snapshot(self->log, image.data, image.len, &err);
        if (status != TRM_OK && status != TRM_AGAIN)
            trm_debug("the state of the job is not saved: %s", err.text);
    }
    trm_writer_close(&image);
}

static bool apply_some(trm_replica *self)
{
    trm_replog_item item;
    unsigned count = 0;
    while (count < APPLY_STEP_MAX && self->health == TRM_OK && trm_replog_next(self->log, &item) == TRM_OK) {
        apply(self, &item);
        count++;
    }
    if (count && self->health == TRM_OK && trm_replog_wants_snapshot(self->log))
        save_image(self);
    return count > 0;
}

bool trm_replica_step(trm_replica *self, uint64_t now_ns, uint64_t *wake_ns)
{
    bool any = trm_replog_step(self->log, now_ns, wake_ns);
    return apply_some(self) || any;
}

trm_status trm_replica_catch_up(trm_replica *self, trm_err *err)
{
    while (apply_some(self))
        continue;
    if (self->health != TRM_OK)
        *err = self->why;
    return self->health;
}
