#include <cblas.h>
#include "lapack.h"

/* The width of the vectors of OpenBLAS's kernels that the processor can run: 64 bytes for SkylakeX, 32 for Haswell, else 0. */
static inline int cpu_kernel_vector_bytes(void) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return 64;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 32;
#endif
  return 0;
}
