#define _GNU_SOURCE
#include "folders.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "system.h"

#define CACHE "DENO_DIR"

enum { STAND_IN_SIZE = 40 };

/* Where the values came in, which is also what /proc/PID/environ shows. A module that
 * sets such a variable gets memory of its own for it. */
static char *private_values[2]; /* TMPDIR, HOME */
static char *cache_value;
static int cache = -1;
static char cache_path[PATH_MAX]; /* without links */
/* Deno keeps the path of its cache for its whole life. Through a descriptor that path
 * leads each child to a folder of its own. */
static char stand_in[STAND_IN_SIZE];
static bool has_read_private;

static char *value_of(char **variables, const char *name) {
  size_t length = strlen(name);
  for (; *variables != NULL; variables++)
    if (strncmp(*variables, name, length) == 0 && (*variables)[length] == '=')
      return *variables + length + 1;
  return NULL;
}

static bool resolve_cache(void) {
  char link[STAND_IN_SIZE];
  format(link, sizeof link, "/proc/self/fd/%d", cache);
  return read_link(link, cache_path, sizeof cache_path) == 0 && *cache_path == '/';
}

void prepare_folders(char **variables, bool has_own_cache) {
  private_values[0] = value_of(variables, "TMPDIR");
  private_values[1] = value_of(variables, "HOME");
  cache_value = value_of(variables, CACHE);
  if (cache_value == NULL || !has_own_cache) return;
  cache = open(cache_value, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (cache < 0) return;
  format(stand_in, sizeof stand_in, "/proc/self/fd/%d", cache);
  if (resolve_cache() && strlen(stand_in) <= strlen(cache_path)) return;
  close(cache);
  cache = -1;
}

int cache_descriptor(void) { return cache; }

char *stand_in_for(const char *name, bool has_input) {
  if (has_input) {
    if (strcmp(name, "TMPDIR") == 0 || strcmp(name, "HOME") == 0)
      has_read_private = true;
    return NULL;
  }
  return cache >= 0 && strcmp(name, CACHE) == 0 ? stand_in : NULL;
}

void keep_cache_path(char *resolved) {
  if (cache < 0) return;
  size_t length = strlen(cache_path);
  if (strncmp(resolved, cache_path, length) != 0) return;
  char *rest = resolved + length;
  if (*rest != '/' && *rest != '\0') return;
  /* Never longer: prepare_folders has compared them. */
  size_t begins = strlen(stand_in);
  memcpy(resolved, stand_in, begins);
  memmove(resolved + begins, rest, strlen(rest) + 1);
}

/* The last part of a path, if a name of this length can take its place. */
static char *last_part(char *path, const char *name) {
  char *slash = path == NULL ? NULL : strrchr(path, '/');
  return slash != NULL && strlen(slash + 1) == strlen(name) ? slash + 1 : NULL;
}

static bool is_name(const char *text) {
  const char *end = memchr(text, '\0', NAME_LIMIT);
  return end != NULL && memchr(text, '/', (size_t)(end - text)) == NULL;
}

bool check_folders(const struct request *request, int given, struct refusal *why) {
  const char *private = request->private, *own_cache = request->cache;
  if (!is_name(private) || !is_name(own_cache) || (*own_cache != '\0') != (given >= 0))
    return refuse(why, BAD_REQUEST, 0, "the names of folders");
  if (*private != '\0') {
    if (has_read_private)
      return refuse(why, FOLDER, 0,
                    "read the path of its folder (TMPDIR, HOME) while it loaded");
    if (last_part(private_values[0], private) == NULL)
      return refuse(why, SYSTEM, 0, "TMPDIR is not a folder beside that of the child");
  }
  if (given >= 0 && (cache < 0 || last_part(cache_value, own_cache) == NULL))
    return refuse(why, SYSTEM, 0, CACHE " is not a folder beside that of the child");
  return true;
}

static void rename_end(char *path, const char *name) {
  char *part = *name == '\0' ? NULL : last_part(path, name);
  if (part != NULL) memcpy(part, name, strlen(name));
}

bool take_folders(const struct request *request, int given, struct refusal *why) {
  for (int i = 0; i < 2; i++) rename_end(private_values[i], request->private);
  if (given < 0) return true;
  rename_end(cache_value, request->cache);
  if (dup3(given, cache, O_CLOEXEC) < 0)
    return refuse(why, CHILD_FAILED, errno, "dup3 of the cache's folder");
  close(given);
  return resolve_cache() || refuse(why, CHILD_FAILED, errno, "the cache's folder");
}
