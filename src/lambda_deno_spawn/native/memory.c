#define _GNU_SOURCE
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "files.h"
#include "generators.h"
#include "system.h"
#include "text.h"

enum {
  DATABASES_LIMIT = 32,
  RANGES_LIMIT = 1024,
  /* What a child has of its own while it waits: 16 MiB. Of files, which all share, more:
   * each page takes 0.1 us. */
  OWN_PAGES_LIMIT = 4096,
  FILE_PAGES_LIMIT = 16384,
  LINE_SIZE = 4600, /* a path takes up to 4,096 bytes */
  MAPS_BUFFER_SIZE = 16384,
  ENTRIES = 1024, /* of a pagemap, read at a time */
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

static size_t page_size;
static bool can_populate;

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
    } else if (strcmp(mapping.path, "[heap]") == 0) {
      find_generators(mapping.start, mapping.end);
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

/* What a child has touched, by ascending addresses. */
struct lesson {
  struct range ranges[RANGES_LIMIT];
  int count;
  int pages[2]; /* of files, and written to */
};

static struct lesson learned;
static struct lesson observed;
static pid_t observed_child;

static bool has_room(const struct lesson *lesson) {
  return lesson->pages[0] < FILE_PAGES_LIMIT && lesson->pages[1] < OWN_PAGES_LIMIT;
}

/* Notes one page. `may_extend`: the page before is in the same mapping. */
static void note(struct lesson *lesson, uintptr_t address, bool is_written,
                 bool may_extend) {
  struct range *last = &lesson->ranges[lesson->count - 1];
  if (may_extend && last->is_written == is_written && address == last->start + last->size) {
    last->size += page_size;
    lesson->pages[is_written]++;
  } else if (lesson->count < RANGES_LIMIT) {
    lesson->ranges[lesson->count++] = (struct range){address, page_size, is_written};
    lesson->pages[is_written]++;
  }
}

/* True if a page is among these ranges; `*at` is the first that may hold it or a later
 * one. */
static bool is_among(const struct lesson *lesson, int *at, uintptr_t address) {
  while (*at < lesson->count &&
         lesson->ranges[*at].start + lesson->ranges[*at].size <= address)
    ++*at;
  return *at < lesson->count && lesson->ranges[*at].start <= address;
}

/* Notes the pages of one mapping: those of files that are there, and those of its own
 * that the child shares with nobody, because it has written to them. */
static void study(struct lesson *lesson, int pagemap, const struct mapping *mapping,
                  const struct lesson *without, int *at) {
  static uint64_t entries[ENTRIES];
  /* V8 protects its code by a key of the processor's as well, which maps do not show. */
  bool can_write = mapping->permissions[1] == 'w' && mapping->permissions[2] != 'x';
  bool may_extend = false;
  for (uintptr_t address = mapping->start; address < mapping->end;) {
    size_t pages = (mapping->end - address) / page_size;
    if (pages > ENTRIES) pages = ENTRIES;
    ssize_t got = pread(pagemap, entries, pages * sizeof *entries,
                        (off_t)(address / page_size * sizeof *entries));
    if (got <= 0) return;
    for (size_t i = 0; i < (size_t)got / sizeof *entries; i++, address += page_size) {
      bool is_of_file = entries[i] & PAGE_OF_FILE;
      bool is_own = can_write && entries[i] & PAGE_EXCLUSIVE;
      if (!(entries[i] & PAGE_PRESENT) || !(is_of_file || is_own)) continue;
      if (without != NULL && is_among(without, at, address)) continue;
      if (!has_room(lesson)) return;
      note(lesson, address, !is_of_file, may_extend);
      may_extend = true;
    }
  }
}

/* Asked before the first fork, of a page of ours. */
static bool find_out_how(void) {
  static char page[1];
  uintptr_t start = (uintptr_t)page & ~(uintptr_t)(page_size - 1);
  return call3(SYS_madvise, (long)start, (long)page_size, MADV_POPULATE_READ) != -EINVAL;
}

static bool look_at_child(pid_t child, struct lesson *lesson, const struct lesson *without,
                          struct refusal *why) {
  static struct maps maps;
  struct mapping mapping;
  char path[64];
  int at = 0;
  if (page_size == 0) page_size = (size_t)sysconf(_SC_PAGESIZE);
  format(path, sizeof path, "/proc/%d/pagemap", child);
  int pagemap = open(path, O_RDONLY | O_CLOEXEC);
  if (pagemap < 0) return refuse(why, NO_CHILD, errno, "%s", path);
  if (!open_maps(&maps, why)) {
    close(pagemap);
    return false;
  }
  lesson->count = lesson->pages[0] = lesson->pages[1] = 0;
  while (next_mapping(&maps, &mapping) > 0) {
    bool is_private = mapping.permissions[3] == 'p';
    bool can_read = mapping.permissions[0] == 'r';
    /* The kernel's own: [vdso], [vvar], [vvar_vclock], [vsyscall]. */
    bool is_kernels = strncmp(mapping.path, "[v", 2) == 0;
    if (!is_private || !can_read || is_kernels) continue;
    study(lesson, pagemap, &mapping, without, &at);
  }
  close(maps.file);
  close(pagemap);
  return true;
}

bool observe_memory(pid_t child, int *pages, struct refusal *why) {
  observed_child = 0;
  if (!look_at_child(child, &observed, NULL, why)) return false;
  observed_child = child;
  *pages = observed.pages[0] + observed.pages[1];
  return true;
}

bool learn_memory(pid_t child, int *pages, struct refusal *why) {
  const struct lesson *without = observed_child == child ? &observed : NULL;
  if (!look_at_child(child, &learned, without, why)) return false;
  observed_child = 0;
  can_populate = find_out_how();
  *pages = learned.pages[0] + learned.pages[1];
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
  for (int i = 0; i < learned.count; i++) {
    const struct range *range = &learned.ranges[i];
    int advice = range->is_written ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;
    if (can_populate)
      call3(SYS_madvise, (long)range->start, (long)range->size, advice);
    else
      touch(range);
  }
}
