/*
 * The program without libFuzzer: the scenarios, the cases, inputs made from a seed, or
 * inputs from files.
 */
#include "model.h"

#include <sanitizer/common_interface_defs.h>
#include <time.h>

static uint64_t state;

static uint64_t pseudo_random(void) /* xorshift64* */
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;

    return state * 0x2545f4914f6cdd1dULL;
}

static int run_random(uint64_t seed, unsigned long runs, unsigned long seconds)
{
    static uint8_t data[4096];
    time_t end = time(NULL) + seconds;
    unsigned long i;

    for ( i = 0; i < runs && (!seconds || time(NULL) < end); i++ )
    {
        size_t size;

        state = (seed + i) * 0x9e3779b97f4a7c15ULL | 1;
        pseudo_random();
        size = 64 + pseudo_random() % (pseudo_random() % 4 ? 1024 : sizeof(data) - 64);
        for ( size_t n = 0; n < size; n++ )
            data[n] = pseudo_random() >> 32;
        current_seed = seed + i;
        run_input(data, size);
    }
    printf("%lu inputs\n", i);

    return 0;
}

static int run_file(const char *path)
{
    static uint8_t data[1 << 16];
    FILE *file = fopen(path, "rb");
    size_t size;

    if ( !file )
    {
        perror(path);
        return 2;
    }
    size = fread(data, 1, sizeof(data), file);
    fclose(file);
    run_input(data, size);

    return 0;
}

int main(int argc, char **argv)
{
    int rc = 0;

    verbose = getenv("VERBOSE") != NULL;
    __sanitizer_set_death_callback(tell_seed);
    if ( argc == 2 && !strcmp(argv[1], "scenarios") )
        return run_scenarios();
    if ( argc == 2 && !strcmp(argv[1], "cases") )
        return run_cases();
    if ( argc == 5 && !strcmp(argv[1], "random") )
        return run_random(strtoull(argv[2], NULL, 0), strtoul(argv[3], NULL, 0),
                          strtoul(argv[4], NULL, 0));
    if ( argc < 3 || strcmp(argv[1], "files") )
    {
        fprintf(stderr, "usage: handlers scenarios | cases | random SEED RUNS SECONDS | files FILE...\n");
        return 2;
    }
    for ( int i = 2; i < argc && !rc; i++ )
        rc = run_file(argv[i]);

    return rc;
}
