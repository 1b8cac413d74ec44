#define _GNU_SOURCE
#include "CLinux.h"

#include <fcntl.h>
#include <malloc.h>
#include <sys/syscall.h>
#include <unistd.h>

int mpo_pipe(int ends[2]) { return pipe2(ends, O_CLOEXEC); }

int mpo_processor_count(void) {
  unsigned char mask[1024];
  long size = syscall(SYS_sched_getaffinity, 0, sizeof mask, mask);
  int count = 0;
  for (long index = 0; index < size; index += 1) count += __builtin_popcount(mask[index]);
  return count;
}

void mpo_begin_flush(int descriptor, long offset, long count) {
  (void)sync_file_range(descriptor, offset, count, SYNC_FILE_RANGE_WRITE);
}

void mpo_keep_freed_memory(void) {
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
}
