#define _GNU_SOURCE
#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "system.h"
#include "text.h"

/* What getdents64(2) writes; the kernel's own structure. */
struct entry {
  uint64_t inode;
  int64_t offset;
  uint16_t length;
  uint8_t type;
  char name[];
};

static long open_file(const char *path, int flags) {
  return call4(SYS_openat, AT_FDCWD, (long)path, flags | O_CLOEXEC, 0);
}

int read_text(const char *path, char *into, size_t size) {
  long file = open_file(path, O_RDONLY);
  if (file < 0) return (int)file;
  size_t length = 0;
  long got = 0;
  while (length < size) {
    got = call3(SYS_read, file, (long)(into + length), (long)(size - length));
    if (got == -EINTR) continue;
    if (got <= 0) break;
    length += (size_t)got;
  }
  call1(SYS_close, file);
  if (got < 0) return (int)got;
  if (length == size) return -EOVERFLOW;
  into[length] = '\0';
  return (int)length;
}

int list_numbers(const char *path, int *into, int most) {
  long folder = open_file(path, O_RDONLY | O_DIRECTORY);
  if (folder < 0) return (int)folder;
  char buffer[2048] __attribute__((aligned(8)));
  int found = 0;
  for (;;) {
    long got = call3(SYS_getdents64, folder, (long)buffer, sizeof buffer);
    if (got <= 0) {
      if (got < 0) found = (int)got;
      break;
    }
    for (long at = 0; at < got;) {
      struct entry *entry = (struct entry *)(buffer + at);
      long number = parse_decimal(entry->name, 0, INT_MAX);
      at += entry->length;
      if (number < 0 || number == folder) continue;
      if (found == most) {
        call1(SYS_close, folder);
        return -EOVERFLOW;
      }
      into[found++] = (int)number;
    }
  }
  call1(SYS_close, folder);
  return found;
}

int read_link(const char *path, char *into, size_t size) {
  long length = call4(SYS_readlinkat, AT_FDCWD, (long)path, (long)into, (long)size - 1);
  into[length < 0 ? 0 : length] = '\0';
  return length < 0 ? (int)length : 0;
}

void format(char *into, size_t size, const char *pattern, ...) {
  va_list arguments;
  va_start(arguments, pattern);
  vsnprintf(into, size, pattern, arguments);
  va_end(arguments);
}

void copy_text(char *into, size_t size, const char *from) {
  size_t length = strnlen(from, size - 1);
  memcpy(into, from, length);
  into[length] = '\0';
}
