// libFuzzer as a library; its archive is linked by tools/fuzz only.
#ifndef MPO_CLIBFUZZER_SHIM_H
#define MPO_CLIBFUZZER_SHIM_H

#include <stddef.h>
#include <stdint.h>

// Reads the options of libFuzzer from the arguments and calls `read` with one input after another. Ends the process.
int LLVMFuzzerRunDriver(int *count, char ***arguments, int (*read)(const uint8_t *input, size_t size));

#endif
