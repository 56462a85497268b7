/* Runs a fuzz target without a fuzzer, for compilers that have none and for the test
 * suite: over the files given, or over inputs drawn from a seed (TRM_TEST_SEED). */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

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

int main(int argc, char **argv)
{
    int failed = 0;
    for (int i = 1; i < argc; i++)
        failed |= run_file(argv[i]);
    if (argc > 1)
        return failed;
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
