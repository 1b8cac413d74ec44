/* glibc declares renameat2 under _GNU_SOURCE only, which Swift's own import of it does not define. */
int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned int flags);
#include <sys/syscall.h>
#include <unistd.h>

// The number of processors that the calling thread may run on; 0 when the system does not say.
static inline int mpo_processor_count(void) {
  unsigned char mask[1024];
  long size = syscall(SYS_sched_getaffinity, 0, sizeof mask, mask);
  int count = 0;
  for (long index = 0; index < size; index += 1) count += __builtin_popcount(mask[index]);
  return count;
}
