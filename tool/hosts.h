/* The hosts that --host and --hostfile name, which of them answer, and what is left when those
 * that do not are taken out. Used when a launch was lost; mpirun itself reads what is left.
 *
 * Formats, as mpirun's manual has them:
 *   --host      NAME[:SLOTS],…
 *   --hostfile  lines of NAME [slots=N] [anything]; "#" begins a comment
 * What is no plain name (mpirun's relative and excluding forms, "+n1", "^a") is kept as it is and not
 * asked.
 *
 * A host is asked by the agent that mpirun would use, AGENT HOST true, without a shell; a host that is this
 * one is not asked. */
#ifndef TRM_TOOL_HOSTS_H
#define TRM_TOOL_HOSTS_H

#include "tool/options.h"

#define TRM_HOSTS_MAX 4096u      /* different names; the rest is not asked */
#define TRM_HOSTS_AT_ONCE 64u    /* asked at a time */
#define TRM_HOSTS_WAIT_MS 10000u /* for the answers of those */
#define TRM_HOSTFILE_BYTES_MAX 4194304u
#define TRM_HOST_NAME_BYTES 256u

typedef struct trm_host {
    char name[TRM_HOST_NAME_BYTES];
    bool answers;
} trm_host;

typedef struct trm_hosts {
    const char *list; /* borrowed; NULL: not given */
    char *file;       /* the text of the hostfile, owned; NULL: not given */
    size_t file_len;
    trm_host *hosts; /* each name once */
    size_t count;
} trm_hosts;

/* All are taken to answer. TRM_EINPUT: the hostfile cannot be read; TRM_ENOMEM. Nothing to close
 * after a failure. */
trm_status trm_hosts_init(trm_hosts *self, const char *list, const char *hostfile, trm_err *err);
void trm_hosts_close(trm_hosts *self);

/* Asks every host and sets `answers`. `signal_fd` is a signalfd that has SIGCHLD. False: another
 * signal has come, and not all were asked. A host that cannot be asked for want of a process
 * is taken to answer. */
bool trm_hosts_ask(trm_hosts *self, const trm_options *options, int signal_fd);

/* How many slots those that answer have; with `all`, all. 0: it is not said for each of them. */
uint32_t trm_hosts_slots(const trm_hosts *self, bool all);
/* The list, and the lines of the file, without the hosts that do not answer: from malloc, the
 * caller frees. NULL: no memory. */
char *trm_hosts_rest_of_list(const trm_hosts *self);
char *trm_hosts_rest_of_file(const trm_hosts *self, size_t *len);

#define TRM_AGENT_WORDS_MAX 32u

/* The words of an agent's name as mpirun takes it ("ssh -q : rsh": the first of the programs that is
 * there, with its arguments), in `text`, which is cut up. Returns how many. */
unsigned trm_agent_words(char *text, char *words[TRM_AGENT_WORDS_MAX]);

#endif
