/* Plays the scenarios of tests/scenarios (see the README there).
 *
 *   scenario_run             all of them
 *   scenario_run FILE…       these; a failing one says the line and the state of all nodes
 */
#include "runtime/diag.h"
#include "tests/simulation/scenario.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#define FILE_BYTES_MAX (256u * 1024u)

static bool play_file(const char *path)
{
    FILE *in = fopen(path, "rb");
    if (!in) {
        perror(path);
        return false;
    }
    char *text = scenario_must(malloc(FILE_BYTES_MAX));
    size_t len = fread(text, 1, FILE_BYTES_MAX, in);
    fclose(in);
    bool passed = scenario_play(path, text, len, stderr);
    free(text);
    printf("%s: %s\n", passed ? "passed" : "FAILED", path);
    fflush(stdout);
    if (!passed)
        fprintf(stderr, "play it again with: tests/simulation/scenario_run %s\n", path);
    return passed;
}

static int is_script(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');
    return dot && strcmp(dot, ".txt") == 0;
}

static int play_dir(const char *dir)
{
    struct dirent **found;
    int count = scandir(dir, &found, is_script, alphasort);
    if (count <= 0) {
        fprintf(stderr, "scenario_run: no scenarios in %s\n", dir);
        return 1;
    }
    int failed = 0;
    for (int i = 0; i < count; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", dir, found[i]->d_name);
        failed += !play_file(path);
        free(found[i]);
    }
    free(found);
    printf("%d scenarios, %d failed\n", count, failed);
    return failed > 0;
}

int main(int argc, char **argv)
{
    trm_diag_configure(TRM_DIAG_ERROR, -1);
    int failed = 0;
    for (int i = 1; i < argc; i++)
        failed |= !play_file(argv[i]);
    if (argc > 1)
        return failed;
    const char *source = getenv("srcdir");
    char dir[2048];
    snprintf(dir, sizeof dir, "%s/tests/scenarios", source ? source : ".");
    return play_dir(dir);
}
