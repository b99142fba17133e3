#define _GNU_SOURCE
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "files.h"
#include "system.h"
#include "text.h"

enum {
  DATABASES_LIMIT = 32,
  RANGES_LIMIT = 1024,
  /* 16 MiB of what a child has of its own while it waits. */
  PAGES_LIMIT = 4096,
  LINE_SIZE = 4600, /* a path takes up to 4,096 bytes */
  MAPS_BUFFER_SIZE = 16384,
  ENTRIES = 1024, /* of a pagemap, read at a time */
  /* The kernel maps up to 16 pages of a file around one that is missing. */
  FILE_GAP_PAGES = 16,
};

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#define MADV_POPULATE_WRITE 23
#endif

/* pagemap of Linux, admin-guide/mm/pagemap.rst */
#define PAGE_PRESENT (UINT64_C(1) << 63)
#define PAGE_OF_FILE (UINT64_C(1) << 61)
#define PAGE_EXCLUSIVE (UINT64_C(1) << 56)

struct range {
  uintptr_t start;
  size_t size;
  bool is_written;
};

static struct {
  uintptr_t start;
  size_t size;
} databases[DATABASES_LIMIT];
static int databases_count;

static struct range learned[RANGES_LIMIT];
static int learned_count;
static size_t page_size;

/* ---- Mappings, one at a time ---- */

struct maps {
  int file;
  size_t at, filled;
  bool is_over;
  char buffer[MAPS_BUFFER_SIZE];
  char line[LINE_SIZE];
};

static bool open_maps(struct maps *maps, struct refusal *why) {
  maps->at = maps->filled = 0;
  maps->is_over = false;
  maps->file = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  return maps->file >= 0 || refuse(why, SYSTEM, errno, "/proc/self/maps");
}

static int next_byte(struct maps *maps) {
  if (maps->at == maps->filled) {
    long got = call3(SYS_read, maps->file, (long)maps->buffer, sizeof maps->buffer);
    if (got <= 0) return -1;
    maps->at = 0;
    maps->filled = (size_t)got;
  }
  return (unsigned char)maps->buffer[maps->at++];
}

/* 1: there is one; 0: the end; -1: a line is not understood. */
static int next_mapping(struct maps *maps, struct mapping *into) {
  size_t length = 0;
  int byte;
  while ((byte = next_byte(maps)) >= 0 && byte != '\n')
    if (length < sizeof maps->line - 1) maps->line[length++] = (char)byte;
  if (byte < 0 && length == 0) return 0;
  maps->line[length] = '\0';
  return parse_mapping(maps->line, into) ? 1 : -1;
}

bool plan_memory(const void *ours, struct refusal *why) {
  static struct maps maps;
  struct mapping mapping;
  int found;
  bool is_fine = true;
  databases_count = 0;
  if (!open_maps(&maps, why)) return false;
  while (is_fine && (found = next_mapping(&maps, &mapping)) != 0) {
    if (found < 0) {
      is_fine = refuse(why, SYSTEM, 0, "a line of /proc/self/maps is not understood");
    } else if (mapping.permissions[3] != 's' || mapping.start == (uintptr_t)ours) {
      continue;
    } else if (is_cache_database(mapping.path)) {
      if (databases_count == DATABASES_LIMIT) {
        is_fine = refuse(why, LIMIT, 0, "more than %d databases", DATABASES_LIMIT);
      } else {
        databases[databases_count].start = mapping.start;
        databases[databases_count++].size = mapping.end - mapping.start;
      }
    } else if (mapping.permissions[1] == 'w') {
      is_fine = refuse(why, MEMORY, 0, "memory that processes share (%.60s)",
                       *mapping.path == '\0' ? "no file" : mapping.path);
    }
  }
  close(maps.file);
  return is_fine;
}

bool renew_memory(struct refusal *why) {
  for (int i = 0; i < databases_count; i++) {
    void *at = (void *)databases[i].start;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
    if (mmap(at, databases[i].size, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED)
      return refuse(why, CHILD_FAILED, errno, "mmap in the place of a database");
  }
  return true;
}

/* ---- Learning ---- */

struct lesson {
  struct range ranges[RANGES_LIMIT];
  int count;
  int pages;
};

static bool note(struct lesson *lesson, uintptr_t address, bool is_written) {
  struct range *last = lesson->count > 0 ? &lesson->ranges[lesson->count - 1] : NULL;
  size_t gap = is_written ? 0 : FILE_GAP_PAGES * page_size;
  if (last != NULL && last->is_written == is_written &&
      address <= last->start + last->size + gap) {
    size_t size = address + page_size - last->start;
    lesson->pages += (int)((size - last->size) / page_size);
    last->size = size;
  } else {
    if (lesson->count == RANGES_LIMIT) return false;
    lesson->ranges[lesson->count++] = (struct range){address, page_size, is_written};
    lesson->pages++;
  }
  return lesson->pages < PAGES_LIMIT;
}

/* Notes the pages of one mapping. False once there is no more room. */
static bool study(struct lesson *lesson, int pagemap, const struct mapping *mapping) {
  static uint64_t entries[ENTRIES];
  bool can_write = mapping->permissions[1] == 'w';
  uintptr_t address = mapping->start;
  /* No range goes over the end of a mapping. */
  bool is_first = true;
  while (address < mapping->end) {
    size_t pages = (mapping->end - address) / page_size;
    if (pages > ENTRIES) pages = ENTRIES;
    ssize_t got = pread(pagemap, entries, pages * sizeof *entries,
                        (off_t)(address / page_size * sizeof *entries));
    if (got <= 0) return true;
    for (size_t i = 0; i < (size_t)got / sizeof *entries; i++, address += page_size) {
      if (!(entries[i] & PAGE_PRESENT)) continue;
      bool is_of_file = entries[i] & PAGE_OF_FILE;
      bool is_own = !is_of_file && entries[i] & PAGE_EXCLUSIVE;
      if (is_of_file ? false : !(is_own && can_write)) continue;
      if (is_first && lesson->count > 0 && lesson->count < RANGES_LIMIT) {
        lesson->ranges[lesson->count++] =
            (struct range){address, page_size, !is_of_file};
        lesson->pages++;
      } else if (!note(lesson, address, !is_of_file)) {
        return false;
      }
      is_first = false;
    }
  }
  return true;
}

bool learn_memory(pid_t child, int *pages, struct refusal *why) {
  static struct maps maps;
  static struct lesson lesson;
  struct mapping mapping;
  char path[64];
  if (page_size == 0) page_size = (size_t)sysconf(_SC_PAGESIZE);
  format(path, sizeof path, "/proc/%d/pagemap", child);
  int pagemap = open(path, O_RDONLY | O_CLOEXEC);
  if (pagemap < 0) return refuse(why, NO_CHILD, errno, "%s", path);
  if (!open_maps(&maps, why)) {
    close(pagemap);
    return false;
  }
  lesson.count = lesson.pages = 0;
  while (next_mapping(&maps, &mapping) > 0) {
    bool is_private = mapping.permissions[3] == 'p';
    bool can_read = mapping.permissions[0] == 'r';
    if (!is_private || !can_read || strcmp(mapping.path, "[vvar]") == 0 ||
        strcmp(mapping.path, "[vdso]") == 0 || strcmp(mapping.path, "[vsyscall]") == 0)
      continue;
    if (!study(&lesson, pagemap, &mapping)) break;
  }
  close(maps.file);
  close(pagemap);
  memcpy(learned, lesson.ranges, (size_t)lesson.count * sizeof *learned);
  learned_count = lesson.count;
  *pages = lesson.pages;
  return true;
}

/* Before Linux 5.14: a fault for each page, but none while the event runs. */
static void touch(const struct range *range) {
  for (size_t at = 0; at < range->size; at += page_size) {
    volatile char *byte = (volatile char *)(range->start + at);
    char value = *byte;
    if (range->is_written) *byte = value;
  }
}

void touch_memory(void) {
  for (int i = 0; i < learned_count; i++) {
    int advice = learned[i].is_written ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;
    long result =
        call3(SYS_madvise, (long)learned[i].start, (long)learned[i].size, advice);
    if (result == -EINVAL) touch(&learned[i]);
  }
}
