/* `trireme status DIR`: how a job stands, by its record (docs/events.md) and by whether a launch is at
 * it. From any machine that sees the directory; nothing is changed.
 *
 *     record                     launch at it       then                                exit status
 *     done, failed               ·                  it has ended                        its own
 *     any other                  yes                it runs                             0
 *     running, young             not seen           it runs (a lock may not be seen     0
 *                                                   from here)
 *     any other, or none         no                 resumable; with _SUCCESS done       4; 0
 */
#ifndef TRM_TOOL_JOB_STATUS_H
#define TRM_TOOL_JOB_STATUS_H

#include "runtime/json_reader.h"
#include "scheduler/state_look.h"

#include <stdio.h>

#define TRM_RECORD_VERSION 1u
#define TRM_RECORD_BYTES_MAX (64u * 1024u * 1024u)
#define TRM_RECORD_OLD_MS 10000u /* a running job writes it every second */
#define TRM_STATUS_RANKS_MAX 64u /* that are listed for people */

/* Reads STATE/status.json, of which `bytes` is from malloc and the caller's. TRM_ELOST: there is none.
 * TRM_ECORRUPT, TRM_EVERSION, TRM_EIO, …: one sentence; nothing to close then. */
trm_status trm_record_read(const char *state_dir, trm_fs *fs, trm_json_doc *doc, uint8_t **bytes, size_t *len,
                           trm_err *err);
/* For people. `record`: its root; NULL: there is none. Returns the exit status. */
int trm_record_print(const trm_json_doc *doc, const trm_json_value *record, const trm_state_look *look,
                     uint64_t now_ms, FILE *out);
/* Returns the exit status only. */
int trm_record_judge(const trm_json_doc *doc, const trm_json_value *record, const trm_state_look *look,
                     uint64_t now_ms);

int trm_status_command(int argc, char **argv);

#endif
