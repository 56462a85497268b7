/* trireme gen: makes input to try and to measure with. */
#ifndef TRM_TOOL_GEN_H
#define TRM_TOOL_GEN_H

/* The whole command: argv[0] is "gen", then the kind and its options. Says what is wrong on
 * standard error. Returns a trm_exit_code. The file appears whole or not at all. */
int trm_gen_command(int argc, char **argv);

#endif
