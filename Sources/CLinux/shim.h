/* glibc declares renameat2 under _GNU_SOURCE only, which Swift's own import of it does not define. */
int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned int flags);
