// What Linux has and Swift can't reach by itself: calls that glibc declares under _GNU_SOURCE only, which Swift's own
// import of it does not define, and what must be C because it runs inside a signal handler.
#ifndef MPO_CLINUX_H
#define MPO_CLINUX_H

#include <stddef.h>

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned int flags);

// Blocks of up to 32 MB come from the heap, which keeps 256 MB of freed memory.
void mpo_keep_freed_memory(void);

// Begins to write a range of a file to the disk, where the system can.
void mpo_begin_flush(int descriptor, long offset, long count);

// A pipe whose ends are closed in processes that are started; -1 with errno on failure.
int mpo_pipe(int ends[2]);

// The number of processors that the calling thread may run on; 0 when the system does not say.
int mpo_processor_count(void);

// A file that is mapped into memory, known to the handler of SIGBUS.
struct mpo_mapped_file;

// Makes a mapping of `size` bytes known; `name` is what messages call the file, which is open as `descriptor`. NULL when
// there is no memory: the mapping stays unknown.
struct mpo_mapped_file *mpo_mapped_file_add(const void *base, size_t size, int descriptor, const char *name);

// Forgets a mapping, before it ends.
void mpo_mapped_file_remove(struct mpo_mapped_file *file);

// Ends the process with status 1 and a message that names the file when a mapped page is touched that is not there any
// more. A zero byte is written to `clean_up` first, where it is not negative, and whoever reads it has some seconds to
// clean up and end the process. SIGBUS of any other origin stays what it is.
void mpo_report_lost_pages(const char *program, int clean_up);

#endif
