/* Runs a fuzz target without a fuzzer, for compilers that have none and for the test
 * suite: over the files given, or over those that fuzzing has kept, tests/fuzz/corpus/NAME, and
 * inputs drawn from a seed (TRM_TEST_SEED). */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INPUTS 3000u
#define INPUT_BYTES_MAX 600u

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static uint64_t draw(uint64_t *random)
{
    uint64_t z = *random += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static int run_file(const char *path)
{
    FILE *in = fopen(path, "rb");
    if (!in) {
        perror(path);
        return 1;
    }
    static uint8_t bytes[1 << 20];
    size_t len = fread(bytes, 1, sizeof bytes, in);
    fclose(in);
    LLVMFuzzerTestOneInput(bytes, len);
    return 0;
}

/* Each is named before it is run, so that the last line of a crash says which one it was. */
static int run_corpus(const char *program)
{
    char dir[1024], path[2048];
    const char *source = getenv("srcdir"), *name = strstr(program, "fuzz_");
    for (const char *next; name && (next = strstr(name + 1, "fuzz_"));)
        name = next;
    snprintf(dir, sizeof dir, "%s/tests/fuzz/corpus/%s", source ? source : ".", name ? name + 5 : "");
    DIR *files = opendir(dir);
    unsigned ran = 0;
    int failed = 0;
    for (struct dirent *it; files && (it = readdir(files));) {
        if (it->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, it->d_name);
        printf("%s\n", path);
        fflush(stdout);
        failed |= run_file(path);
        ran++;
    }
    if (files)
        closedir(files);
    printf("%u files of %s\n", ran, dir);
    if (ran == 0 && source)
        fprintf(stderr, "there is no corpus of this target\n");
    return failed || (ran == 0 && source);
}

int main(int argc, char **argv)
{
    int failed = 0;
    for (int i = 1; i < argc; i++)
        failed |= run_file(argv[i]);
    if (argc > 1)
        return failed;
    if (run_corpus(argv[0]))
        return 1;
    const char *text = getenv("TRM_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 10) : 1, random = seed;
    printf("seed %llu (TRM_TEST_SEED)\n", (unsigned long long)seed);
    fflush(stdout);
    for (unsigned i = 0; i < INPUTS; i++) {
        static uint8_t bytes[INPUT_BYTES_MAX];
        size_t len = draw(&random) % (sizeof bytes + 1);
        /* Small numbers are more often meaningful than large ones. */
        for (size_t at = 0; at < len; at++) {
            uint64_t byte = draw(&random);
            bytes[at] = (uint8_t)(byte & 0x300 ? byte % 8 : byte);
        }
        LLVMFuzzerTestOneInput(bytes, len);
    }
    return 0;
}
