/* Small files and folders of /proc, without the C library's memory or its errno. */
#ifndef LDS_FILES_H
#define LDS_FILES_H

#include <stddef.h>

/* Reads what fits; ends it with a zero byte. Returns the length, or -errno; -EOVERFLOW
 * if there is more. */
int read_text(const char *path, char *into, size_t size);

/* The names in a folder that are numbers. Returns how many, or -errno; -EOVERFLOW if
 * there are more than `most`. The descriptor it reads by is not among them. */
int list_numbers(const char *path, int *into, int most);

/* Where a link leads; "" if that cannot be told. Returns 0 or -errno. */
int read_link(const char *path, char *into, size_t size);

/* snprintf, for what certainly fits. */
__attribute__((format(printf, 3, 4))) void format(char *into, size_t size,
                                                  const char *pattern, ...);

/* strcpy that cuts. */
void copy_text(char *into, size_t size, const char *from);

#endif
