/* The identity of a job as a state directory holds it: whatever the bytes are, they are refused or
 * are what would be written. */
#include "scheduler/state_dir.h"

#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static trm_identity identity;
    char output_dir[TRM_FS_PATH_BYTES_MAX];
    trm_err err;
    if (trm_saved_identity_decode(data, size, &identity, output_dir, sizeof output_dir, &err) != TRM_OK)
        return 0;
    trm_writer again;
    trm_writer_init(&again);
    trm_saved_identity_encode(&identity, output_dir, &again);
    if (trm_saved_identity_decode(again.data, again.len, &identity, output_dir, sizeof output_dir, &err) !=
        TRM_OK)
        abort();
    trm_writer_close(&again);
    return 0;
}
