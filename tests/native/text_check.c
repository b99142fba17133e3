/* Feeds lines of standard input to the parsers, and prints what they make of them: built
 * with sanitizers, by test_native_build.py. The first letter says which. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

static void check(char kind, char *text) {
  long number;
  uint64_t arguments[4], value;
  struct mapping mapping;
  struct registration registration;
  bool is_broken = false;
  switch (kind) {
    case 'C':
      printf("%d\n", is_cache_database(text));
      break;
    case 'S':
      if (!parse_syscall(text, &number, arguments)) {
        puts("no");
        break;
      }
      printf("%ld", number);
      for (int i = 0; i < 4; i++) printf(" %" PRIu64, arguments[i]);
      puts("");
      break;
    case 'M':
      if (!parse_mapping(text, &mapping)) {
        puts("no");
        break;
      }
      printf("%" PRIuPTR " %" PRIuPTR " %s %" PRIu64 " [%s]\n", mapping.start, mapping.end,
             mapping.permissions, mapping.inode, mapping.path);
      break;
    case 'E':
      for (char *at = text; *at != '\0'; at++)
        if (*at == '|') *at = '\n';
      for (const char *at = text; next_registration(&at, &registration, &is_broken);)
        printf("%d %" PRIu32 " %" PRIu64 " %" PRIu64 "; ", registration.target,
               registration.events, registration.data, registration.inode);
      puts(is_broken ? "broken" : "end");
      break;
    case 'N':
      for (char *at = text; *at != '\0'; at++)
        if (*at == '|') *at = '\n';
      if (find_number(text, "eventfd-count", 16, &value))
        printf("%" PRIu64 "\n", value);
      else
        puts("no");
      break;
    case 'D':
      printf("%ld\n", parse_decimal(text, 3, 1 << 20));
      break;
    default:
      puts("?");
  }
}

int main(void) {
  char *line = NULL;
  size_t size = 0;
  ssize_t length;
  while ((length = getline(&line, &size, stdin)) > 0) {
    if (line[length - 1] == '\n') line[--length] = '\0';
    if (length == 0) {
      puts("?");
      continue;
    }
    /* A copy of its own size, so that reading behind it is seen. */
    char *text = malloc((size_t)length);
    memcpy(text, line + 1, (size_t)length);
    check(line[0], text);
    free(text);
  }
  free(line);
  return 0;
}
