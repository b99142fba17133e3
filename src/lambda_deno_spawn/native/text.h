/* Reading what the kernel says in /proc. Pure: no system call, no memory of its own. */
#ifndef LDS_TEXT_H
#define LDS_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Which part of Deno a file is for, by its name. */
bool is_cache_database(const char *path);

/* "202 0x7f... 0x80 ...": the system call that a thread waits in (proc_pid_syscall).
 * False for a thread that runs, and for what is not such a line. */
bool parse_syscall(const char *text, long *number, uint64_t arguments[4]);

/* The next line "tfd: 7 events: 19 data: 0 pos:0 ino:3f sdev:8" of an epoll instance.
 * `*at` is moved behind it. False at the end; `*broken` if a line is not understood. */
struct registration {
  int target;
  uint32_t events;
  uint64_t data;
  uint64_t inode;
};
bool next_registration(const char **at, struct registration *into, bool *broken);

/* A value of a line "NAME: NUMBER" in an fdinfo file; base 0 as of strtoull. */
bool find_number(const char *text, const char *name, int base, uint64_t *value);

/* One line of /proc/PID/maps. */
struct mapping {
  uintptr_t start, end;
  char permissions[5];
  uint64_t inode;
  const char *path; /* "" if it has none; ends with the line */
};
bool parse_mapping(char *line, struct mapping *into);

/* A decimal number that is the whole text, from `least` to `most`; else -1. */
long parse_decimal(const char *text, long least, long most);

#endif
