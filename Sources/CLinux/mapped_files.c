#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// Entries are never freed, so that the handler can walk the list whatever the other threads do; those that are not in
// use (`end` is 0) are taken again.
struct mpo_mapped_file {
  _Atomic(uintptr_t) start;
  _Atomic(uintptr_t) end;
  int descriptor;
  char *name;
  struct mpo_mapped_file *next;
};

static _Atomic(struct mpo_mapped_file *) files;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char program_name[64];
static int clean_up_descriptor = -1;

struct mpo_mapped_file *mpo_mapped_file_add(const void *base, size_t size, int descriptor, const char *name) {
  char *copy = strdup(name);
  if (copy == NULL) return NULL;
  pthread_mutex_lock(&lock);
  struct mpo_mapped_file *file = atomic_load(&files);
  while (file != NULL && atomic_load(&file->end) != 0) file = file->next;
  int is_new = file == NULL;
  if (is_new) file = calloc(1, sizeof *file);
  if (file != NULL) {
    file->descriptor = descriptor;
    file->name = copy;
    atomic_store(&file->start, (uintptr_t)base);
    atomic_store(&file->end, (uintptr_t)base + size);
    if (is_new) {
      file->next = atomic_load(&files);
      atomic_store(&files, file);
    }
  } else {
    free(copy);
  }
  pthread_mutex_unlock(&lock);
  return file;
}

void mpo_mapped_file_remove(struct mpo_mapped_file *file) {
  if (file == NULL) return;
  pthread_mutex_lock(&lock);
  atomic_store(&file->end, 0);
  free(file->name);
  file->name = NULL;
  pthread_mutex_unlock(&lock);
}

static void say(const char *text) {
  size_t rest = strlen(text);
  while (rest > 0) {
    ssize_t count = write(STDERR_FILENO, text, rest);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;
    text += count;
    rest -= (size_t)count;
  }
}

// Calls nothing but what may be called in a handler. The thread that faulted is using the map, so its entry stays.
static void handle(int number, siginfo_t *info, void *context) {
  (void)context;
  uintptr_t address = (uintptr_t)info->si_addr;
  for (struct mpo_mapped_file *file = atomic_load(&files); file != NULL; file = file->next) {
    if (address < atomic_load(&file->start) || address >= atomic_load(&file->end)) continue;
    static atomic_flag is_reported = ATOMIC_FLAG_INIT;
    if (!atomic_flag_test_and_set(&is_reported)) {
      struct stat status;
      size_t size = atomic_load(&file->end) - atomic_load(&file->start);
      int is_cut = fstat(file->descriptor, &status) == 0 && (size_t)status.st_size < size;
      say(program_name);
      say(": ");
      say(file->name);
      say(is_cut ? ": cannot read it: it became shorter while it was read; is something still writing it?\n"
                 : ": cannot read it: input/output error\n");
      char byte = 0;
      if (clean_up_descriptor < 0 || write(clean_up_descriptor, &byte, 1) != 1) _exit(1);
    }
    for (int second = 0; second < 10; second += 1) sleep(1);
    _exit(1);
  }
  // None of ours: what would have happened happens when the instruction is run again.
  signal(number, SIG_DFL);
}

void mpo_report_lost_pages(const char *program, int clean_up) {
  strncpy(program_name, program, sizeof program_name - 1);
  clean_up_descriptor = clean_up;
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, NULL);
}
