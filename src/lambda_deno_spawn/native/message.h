/* What goes over the control socket, and why a process is not forked.
 *
 * One message is one packet (SOCK_SEQPACKET), numbers are in the machine's own order.
 * The same, for the supervisor: control.py. A change of either takes another VERSION.
 */
#ifndef LDS_MESSAGE_H
#define LDS_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

enum { MAGIC = 0x4653444c, VERSION = 2 }; /* "LDSF" */

enum request_kind {
  PROBE = 1, /* May this process be forked? */
  /* Fork it; stdin, stdout and stderr of the child come along, and its DENO_DIR if that
   * is not to be the template's. */
  FORK = 2,
  /* Note which memory this child has touched: until now, so that it does not count, or
   * for the next ones, which will touch it before their event. */
  OBSERVE = 3,
  LEARN = 4,
};

enum code {
  OK = 0,
  BAD_REQUEST = 1,
  /* Not now: it may be asked again. */
  NOT_LOADED = 2,
  BUSY = 3,
  /* Not at all: the module has something that two processes cannot share. */
  CHILD_PROCESS = 10,
  WORKER = 11,
  THREAD = 12,
  SOCKET = 13,
  WATCHER = 14,
  PIPE = 15,
  FILE_FOR_WRITING = 16,
  DESCRIPTOR = 17,
  MEMORY = 18,
  EVENT_LOOP = 19,
  STDIO = 20,
  RANDOM = 21,
  FOLDER = 22,
  /* Not here: this library, Deno, the C library and the kernel do not fit together. */
  C_LIBRARY = 30,
  LIMIT = 31,
  SYSTEM = 32,
  /* Not this time. */
  FORK_FAILED = 40,
  CHILD_FAILED = 41,
  NO_CHILD = 42,
};

enum { NAME_LIMIT = 32 }; /* with its zero byte */

struct request {
  uint32_t magic;
  uint16_t version;
  uint16_t kind;
  uint32_t id;
  int32_t pid; /* OBSERVE, LEARN: the child; else 0 */
  /* PROBE, FORK: names of folders beside the template's, which a child has in the place of
   * TMPDIR and HOME, and of DENO_DIR; empty: the template's. Of the same length. */
  char private[NAME_LIMIT];
  char cache[NAME_LIMIT];
};

enum { DETAIL_SIZE = 108 };

struct answer {
  uint32_t magic;
  uint16_t version;
  uint16_t code;
  uint32_t id;   /* that of the request; 0: sent unasked, when Deno starts */
  int32_t pid;   /* OK of FORK, and CHILD_FAILED: the child; unasked: this process */
  int32_t error; /* errno, if there is one */
  char detail[DETAIL_SIZE]; /* for people; ends with a zero byte */
};

/* Why not. */
struct refusal {
  enum code code;
  int error;
  char detail[DETAIL_SIZE];
};

/* Fills it in. Always false, so that a check can end with it. */
__attribute__((format(printf, 4, 5))) bool refuse(struct refusal *into, enum code code,
                                                  int error, const char *format, ...);

#endif
