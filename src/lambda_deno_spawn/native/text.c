#include "text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Deno 2.9, libs/cache_dir and cli/cache: databases of what it found out about modules.
 * Behind the version, SQLite's own endings. */
static const char *const CACHES[] = {
    "dep_analysis_cache_v", "node_analysis_cache_v", "v8_code_cache_v",
    "fast_check_cache_v",   "check_cache_v",
};
static const char *const ENDINGS[] = {"", "-wal", "-shm", "-journal"};

bool is_cache_database(const char *path) {
  const char *slash = strrchr(path, '/');
  const char *name = slash == NULL ? path : slash + 1;
  for (size_t i = 0; i < sizeof CACHES / sizeof *CACHES; i++) {
    size_t length = strlen(CACHES[i]);
    if (strncmp(name, CACHES[i], length) != 0) continue;
    const char *rest = name + length;
    size_t digits = strspn(rest, "0123456789");
    if (digits == 0) continue;
    rest += digits;
    /* A cache that was wiped while it is open is still one. */
    for (size_t j = 0; j < sizeof ENDINGS / sizeof *ENDINGS; j++) {
      size_t ending = strlen(ENDINGS[j]);
      if (strncmp(rest, ENDINGS[j], ending) != 0) continue;
      if (rest[ending] == '\0' || strcmp(rest + ending, " (deleted)") == 0) return true;
    }
  }
  return false;
}

static bool parse_unsigned(const char **at, int base, uint64_t *value) {
  char *end;
  while (**at == ' ' || **at == '\t') ++*at;
  if (**at == '-' || **at == '+') return false;
  errno = 0;
  unsigned long long parsed = strtoull(*at, &end, base);
  if (end == *at || errno != 0) return false;
  *value = parsed;
  *at = end;
  return true;
}

bool parse_syscall(const char *text, long *number, uint64_t arguments[4]) {
  uint64_t value;
  if (!parse_unsigned(&text, 10, &value) || value > 100000) return false;
  *number = (long)value;
  for (int i = 0; i < 4; i++)
    if (!parse_unsigned(&text, 16, &arguments[i])) return false;
  return true;
}

static bool skip_word(const char **at, const char *word) {
  while (**at == ' ' || **at == '\t') ++*at;
  size_t length = strlen(word);
  if (strncmp(*at, word, length) != 0) return false;
  *at += length;
  return true;
}

bool next_registration(const char **at, struct registration *into, bool *broken) {
  const char *line = *at;
  *broken = false;
  while (*line != '\0' && strncmp(line, "tfd:", 4) != 0) {
    const char *newline = strchr(line, '\n');
    if (newline == NULL) return false;
    line = newline + 1;
  }
  if (*line == '\0') return false;
  uint64_t target, events, data, position, inode;
  *broken = true;
  if (!skip_word(&line, "tfd:") || !parse_unsigned(&line, 10, &target)) return false;
  if (!skip_word(&line, "events:") || !parse_unsigned(&line, 16, &events)) return false;
  if (!skip_word(&line, "data:") || !parse_unsigned(&line, 16, &data)) return false;
  if (!skip_word(&line, "pos:") || !parse_unsigned(&line, 10, &position)) return false;
  if (!skip_word(&line, "ino:") || !parse_unsigned(&line, 16, &inode)) return false;
  if (target > INT32_MAX || events > UINT32_MAX) return false;
  *broken = false;
  *into = (struct registration){(int)target, (uint32_t)events, data, inode};
  *at = line;
  return true;
}

bool find_number(const char *text, const char *name, int base, uint64_t *value) {
  size_t length = strlen(name);
  for (const char *line = text; line != NULL && *line != '\0';) {
    if (strncmp(line, name, length) == 0 && line[length] == ':') {
      const char *at = line + length + 1;
      return parse_unsigned(&at, base, value);
    }
    line = strchr(line, '\n');
    if (line != NULL) line++;
  }
  return false;
}

bool parse_mapping(char *line, struct mapping *into) {
  const char *at = line;
  uint64_t start, end, offset, inode;
  if (!parse_unsigned(&at, 16, &start) || *at++ != '-') return false;
  if (!parse_unsigned(&at, 16, &end) || *at++ != ' ' || end <= start) return false;
  if (strlen(at) < 5 || at[4] != ' ') return false;
  memcpy(into->permissions, at, 4);
  into->permissions[4] = '\0';
  at += 5;
  if (!parse_unsigned(&at, 16, &offset)) return false;
  at += strspn(at, " ");
  at += strcspn(at, " "); /* the device */
  if (!parse_unsigned(&at, 10, &inode)) return false;
  at += strspn(at, " ");
  into->start = (uintptr_t)start;
  into->end = (uintptr_t)end;
  into->inode = inode;
  into->path = at;
  return true;
}

long parse_decimal(const char *text, long least, long most) {
  uint64_t value;
  const char *at = text;
  if (*at < '0' || *at > '9') return -1;
  if (!parse_unsigned(&at, 10, &value) || *at != '\0') return -1;
  if (value > (uint64_t)most || (long)value < least) return -1;
  return (long)value;
}
