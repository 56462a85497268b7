/* A scenario script from outside, as it is and with its bytes turned into statements: it
 * passes or fails, and that is all. */
#include "runtime/diag.h"
#include "tests/simulation/scenario.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

#define STATEMENTS_MAX 60u

/* A byte a statement; those that fail end a script, so they are few. */
static const char *const statements[] = {
    "timeout 0",
    "timeout 1",
    "timeout 2",
    "run 300",
    "run 2000",
    "elapse 1500",
    "fill leader 3 10",
    "read leader 1",
    "read 1 2",
    "cut 0",
    "cut 1",
    "cut 0->2",
    "heal",
    "disk 0 hold",
    "disk 0 flow",
    "disk 1 hold",
    "disk 1 flow",
    "persist 1 1",
    "snapshot leader",
    "snapshot 1",
    "network hold",
    "network flow",
    "drop",
    "reverse",
    "duplicate",
    "deliver",
    "hint leader 2 dead",
    "hint leader 2 alive 3",
    "change leader add 3",
    "change leader promote 3",
    "change leader remove 1",
    "change leader remove leader",
    "transfer leader 1",
    "transfer leader 2",
    "pause 1",
    "resume 1",
    "crash 2",
    "start",
    "install 2 fail",
    "install 2 flow",
    "send APPEND 1->0 term 9 index 1 log_term 1 entries 9:x",
    "send VOTE 2->0 term 7 index 9 log_term 9",
    "settle",
};

static void play_bytes(const uint8_t *bytes, size_t len)
{
    static char script[STATEMENTS_MAX * 64 + 256];
    size_t at = (size_t)snprintf(script, sizeof script,
                                 "voters 0 1 2\nspares 3\nset chunk_bytes 4\nset voters_wanted 3\nstart\n");
    for (size_t i = 0; i < len && i < STATEMENTS_MAX; i++)
        at += (size_t)snprintf(script + at, sizeof script - at, "%s\n",
                               statements[bytes[i] % (sizeof statements / sizeof *statements)]);
    scenario_play("fuzz", script, at, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    trm_diag_configure(TRM_DIAG_ERROR, -1);
    scenario_play("fuzz", (const char *)bytes, len, NULL);
    play_bytes(bytes, len);
    return 0;
}
