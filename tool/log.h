/* `trireme log DIR`: prints and checks the log of a job without changing it. */
#ifndef TRM_TOOL_LOG_H
#define TRM_TOOL_LOG_H

/* Returns an exit code: TRM_EXIT_REFUSED when the log is damaged or is none. */
int trm_log_command(int argc, char **argv);

#endif
