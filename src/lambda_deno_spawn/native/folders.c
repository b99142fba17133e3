#define _GNU_SOURCE
#include "folders.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"
#include "system.h"
#include "text.h"

#define CACHE "DENO_DIR"
#define DESCRIPTORS "/proc/self/fd/"

enum { STAND_IN_SIZE = 40, DESCRIPTORS_LIMIT = 128, DESCRIPTOR_MOST = 1 << 20 };

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
/* A path that leads each process to a folder in its private one, by a link to a descriptor
 * of this number: the path that is told once the module loads, so that it is right in each
 * child. */
static char alias[PATH_MAX]; /* empty: there is none */
static const char *alias_end; /* its last part, a folder in the private one */
static int private_folder = -1;
static char private_path[PATH_MAX]; /* without links */
static char behind_alias[PATH_MAX]; /* without links */

static char *value_of(char **variables, const char *name) {
  size_t length = strlen(name);
  for (; *variables != NULL; variables++)
    if (strncmp(*variables, name, length) == 0 && (*variables)[length] == '=')
      return *variables + length + 1;
  return NULL;
}

static bool resolve(int folder, char into[PATH_MAX]) {
  char link[STAND_IN_SIZE];
  format(link, sizeof link, DESCRIPTORS "%d", folder);
  return read_link(link, into, PATH_MAX) == 0 && *into == '/';
}

static bool resolve_cache(void) { return resolve(cache, cache_path); }

/* The number in the link that the alias goes through, if nothing is open there. */
static long number_behind(const char *path) {
  char link[PATH_MAX], text[STAND_IN_SIZE];
  copy_text(link, sizeof link, path);
  char *slash = strrchr(link, '/');
  if (slash == NULL) return -1;
  *slash = '\0';
  size_t before = strlen(DESCRIPTORS);
  if (read_link(link, text, sizeof text) < 0 || strncmp(text, DESCRIPTORS, before) != 0)
    return -1;
  long number = parse_decimal(text + before, 0, DESCRIPTOR_MOST);
  return number >= 0 && fcntl((int)number, F_GETFD) < 0 ? number : -1;
}

/* Has the link in the alias lead to the folder in TMPDIR. */
static bool lead_to_private(int number) {
  int folder = open(private_values[0], O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return false;
  bool is_put = dup3(folder, number, O_CLOEXEC) >= 0;
  int error = errno;
  close(folder);
  errno = error;
  return is_put;
}

static bool make_alias(void) {
  if (mkdirat(private_folder, alias_end, 0700) != 0 ||
      !resolve(private_folder, private_path))
    return false;
  format(behind_alias, sizeof behind_alias, "%.*s/%s", PATH_MAX - NAME_LIMIT, private_path,
         alias_end);
  return true;
}

static bool prepare_alias(const char *path) {
  if (private_values[0] == NULL || private_values[1] == NULL) return false;
  long number = number_behind(path);
  /* What stands in the place of the folder's path must not be longer. */
  if (number < 0 || strlen(path) > strlen(private_values[0]) ||
      !lead_to_private((int)number))
    return false;
  private_folder = (int)number;
  copy_text(alias, sizeof alias, path);
  alias_end = strrchr(alias, '/') + 1;
  return make_alias() && strlen(path) <= strlen(private_path);
}

void prepare_folders(char **variables, bool has_own_cache, const char *path,
                     struct refusal *why) {
  private_values[0] = value_of(variables, "TMPDIR");
  private_values[1] = value_of(variables, "HOME");
  cache_value = value_of(variables, CACHE);
  /* The process has no permission for its folder by another path. No errno: several calls
   * may have failed, or none. */
  if (path != NULL && !prepare_alias(path))
    refuse(why, SYSTEM, 0, "the path that leads to its folder");
  if (cache_value == NULL || !has_own_cache) return;
  cache = open(cache_value, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (cache < 0) return;
  format(stand_in, sizeof stand_in, DESCRIPTORS "%d", cache);
  if (resolve_cache() && strlen(stand_in) <= strlen(cache_path)) return;
  close(cache);
  cache = -1;
}

int cache_descriptor(void) { return cache; }

int private_descriptor(void) { return private_folder; }

static bool is_private(const char *name) {
  return strcmp(name, "TMPDIR") == 0 || strcmp(name, "HOME") == 0;
}

char *stand_in_for(const char *name, const char *value, bool is_template,
                   bool has_input) {
  if (is_template && !has_input)
    return cache >= 0 && strcmp(name, CACHE) == 0 ? stand_in : NULL;
  if (!is_private(name)) return NULL;
  if (*alias == '\0') {
    has_read_private = true;
    return NULL;
  }
  /* The module's own, if it has set one. */
  bool is_given =
      value != NULL && (value == private_values[0] || value == private_values[1]);
  return is_given ? alias : NULL;
}

static bool leads_into(const char *path, const char *folder) {
  size_t length = strlen(folder);
  return strncmp(path, folder, length) == 0 &&
         (path[length] == '/' || path[length] == '\0');
}

bool is_link_in_alias(const char *path) {
  if (*alias == '\0') return false;
  size_t length = (size_t)(alias_end - alias) - 1;
  return strncmp(path, alias, length) == 0 && path[length] == '\0';
}

/* Never longer: they have been compared before. */
static void replace_begin(char *path, const char *begin, const char *by) {
  char *rest = path + strlen(begin);
  size_t begins = strlen(by);
  memmove(path + begins, rest, strlen(rest) + 1);
  memcpy(path, by, begins);
}

void keep_paths(char *resolved) {
  if (cache >= 0 && leads_into(resolved, cache_path))
    replace_begin(resolved, cache_path, stand_in);
  else if (*alias != '\0' && leads_into(resolved, behind_alias))
    replace_begin(resolved, behind_alias, alias);
}

/* Whether this is all that is in a folder; NULL: nothing. */
static bool has_only(int folder, const char *path, const char *name, struct refusal *why) {
  int number = openat(folder, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *entries = number < 0 ? NULL : fdopendir(number);
  if (entries == NULL) {
    if (number >= 0) close(number);
    return refuse(why, FOLDER, errno, "changed its folder (TMPDIR, HOME)");
  }
  bool is_so = true;
  for (struct dirent *entry; is_so && (entry = readdir(entries)) != NULL;)
    is_so = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            (name != NULL && strcmp(entry->d_name, name) == 0) ||
            refuse(why, FOLDER, 0, "left files in its folder (TMPDIR, HOME)");
  closedir(entries);
  return is_so;
}

/* Whether this process has nothing open in a folder. */
static bool is_unused(int folder, struct refusal *why) {
  char path[STAND_IN_SIZE], link[PATH_MAX], there[PATH_MAX];
  int numbers[DESCRIPTORS_LIMIT];
  if (!resolve(folder, there)) return refuse(why, SYSTEM, errno, "the private folder");
  if (read_link("/proc/self/cwd", link, sizeof link) < 0 || leads_into(link, there))
    return refuse(why, FOLDER, 0, "made its folder (TMPDIR, HOME) the current one");
  int found = list_numbers("/proc/self/fd", numbers, DESCRIPTORS_LIMIT);
  if (found < 0) return refuse(why, SYSTEM, -found, "descriptors cannot be listed");
  for (int i = 0; i < found; i++) {
    format(path, sizeof path, DESCRIPTORS "%d", numbers[i]);
    if (numbers[i] == folder || numbers[i] == private_folder ||
        read_link(path, link, sizeof link) < 0 || !leads_into(link, there))
      continue;
    return refuse(why, FOLDER, 0, "left a file open in its folder (descriptor %d)",
                  numbers[i]);
  }
  return true;
}

bool is_folder_as_given(struct refusal *why) {
  if (private_values[0] == NULL) return true;
  bool has_alias = *alias != '\0';
  int folder = open(private_values[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  /* An event that may empty /tmp has run beside this process: a child has a new one. */
  if (folder < 0 && errno == ENOENT && !has_alias) return true;
  if (folder < 0)
    return refuse(why, FOLDER, errno, "changed its folder (TMPDIR, HOME)");
  bool is_so = is_unused(folder, why) &&
               has_only(folder, ".", has_alias ? alias_end : NULL, why) &&
               (!has_alias || has_only(folder, alias_end, NULL, why));
  close(folder);
  return is_so;
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

static bool take_private(struct refusal *why) {
  if (!lead_to_private(private_folder))
    return refuse(why, CHILD_FAILED, errno, "the private folder");
  return make_alias() || refuse(why, CHILD_FAILED, errno, "a folder in the private one");
}

bool take_folders(const struct request *request, int given, struct refusal *why) {
  for (int i = 0; i < 2; i++) rename_end(private_values[i], request->private);
  if (*alias != '\0' && !take_private(why)) return false;
  if (given < 0) return true;
  rename_end(cache_value, request->cache);
  if (dup3(given, cache, O_CLOEXEC) < 0)
    return refuse(why, CHILD_FAILED, errno, "dup3 of the cache's folder");
  close(given);
  return resolve_cache() || refuse(why, CHILD_FAILED, errno, "the cache's folder");
}
