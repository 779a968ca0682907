/* Entry points: libFuzzer's, and those of the program without it. */
#include "model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    run_input(data, size);

    return 0;
}
