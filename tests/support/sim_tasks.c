/* See sim_tasks.h. */
#include "tests/support/sim_tasks.h"

#include "tests/support/draw.h"

#include <string.h>

void sim_task_counters(uint8_t phase, uint32_t task, trm_counters *out)
{
    memset(out, 0, sizeof *out);
    out->value[phase == TRM_PHASE_MAP ? TRM_COUNTER_MAP_RECORDS_IN : TRM_COUNTER_REDUCE_RECORDS_IN] =
        task + 1;
    out->value[TRM_COUNTER_USER] = 1;
}

uint64_t sim_part_bytes(uint32_t task)
{
    return task % 7 == 3 ? 0 : 10 + task % 90;
}

bool sim_map_is_empty(const sim_habits *habits, uint32_t task)
{
    return (task * 2654435761u >> 8) % 1000 < habits->empty_permille;
}

typedef struct bad_records {
    uint32_t killer, spoiler, victim;
} bad_records;

static bad_records bad_records_of(const sim_habits *habits, uint32_t task)
{
    trm_draw draw = trm_draw_from(task + 1);
    bad_records out = {SIM_NO_RECORD, SIM_NO_RECORD, SIM_NO_RECORD};
    if (!trm_draw_often(&draw, habits->bad_permille))
        return out;
    uint64_t kind = trm_draw_below(&draw, 4);
    if (kind != 0)
        out.killer = (uint32_t)trm_draw_below(&draw, SIM_RECORDS);
    if (kind != 1)
        out.spoiler = (uint32_t)trm_draw_below(&draw, SIM_RECORDS - 1);
    if (out.spoiler == out.killer)
        out.spoiler = SIM_NO_RECORD;
    if (out.spoiler != SIM_NO_RECORD)
        out.victim = out.spoiler + 1 + (uint32_t)trm_draw_below(&draw, SIM_RECORDS - out.spoiler - 1);
    if (out.victim == out.killer) /* which of both it is cannot be said */
        out.spoiler = out.victim = SIM_NO_RECORD;
    return out;
}

unsigned sim_bad_records(const sim_habits *habits, uint32_t task, uint32_t out[2])
{
    bad_records bad = bad_records_of(habits, task);
    unsigned count = 0;
    uint32_t first = bad.killer < bad.spoiler ? bad.killer : bad.spoiler;
    uint32_t second = bad.killer < bad.spoiler ? bad.spoiler : bad.killer;
    if (first != SIM_NO_RECORD)
        out[count++] = first;
    if (second != SIM_NO_RECORD)
        out[count++] = second;
    return count;
}

uint32_t sim_task_dies_at(const sim_habits *habits, const trm_order *order)
{
    bad_records bad = bad_records_of(habits, order->task);
    uint32_t begin = order->probe ? order->first : 0, end = SIM_RECORDS;
    bool spoilt = false;
    if (order->probe && order->end < end)
        end = order->end;
    for (uint32_t i = begin; i < end; i++) {
        bool skipped = false;
        for (unsigned j = 0; j < order->skips_count; j++)
            skipped |= order->skip[j] == i;
        if (skipped)
            continue;
        if (i == bad.killer || (spoilt && i == bad.victim))
            return i;
        spoilt |= i == bad.spoiler;
    }
    return SIM_NO_RECORD;
}
