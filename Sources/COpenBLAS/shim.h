#include <cblas.h>
#include "lapack.h"

/* Whether the processor has what OpenBLAS's SkylakeX kernels use. */
static inline int cpu_supports_skylakex_kernels(void) {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
  return 0;
#endif
}
