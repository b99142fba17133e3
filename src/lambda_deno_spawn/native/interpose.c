/* The functions of the C library that Deno finds here instead. docs/native.md says why
 * each. Without DENO_SPAWN_FORK_FD in the environment each does what it always does; with
 * DENO_SPAWN_CLOSE alone, the process is closed to others of its user. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "files.h"
#include "folders.h"
#include "generators.h"
#include "serve.h"
#include "system.h"
#include "text.h"
#include "threads.h"

#define EXPORT __attribute__((visibility("default")))
#define VARIABLE "DENO_SPAWN_FORK_FD"
#define OWN_CACHE "DENO_SPAWN_FORK_CACHE"
#define ALIAS "DENO_SPAWN_FORK_ALIAS"
#define CLOSE "DENO_SPAWN_CLOSE"
#define PRELOAD "LD_PRELOAD"
#define FILE_NAME "lambda-deno-fork.so"

/* pthread_cond_* have an older form of the same name, which dlsym may find first. */
#if defined(__x86_64__)
#define CONDITION_VERSION "GLIBC_2.3.2"
#else
#define CONDITION_VERSION "GLIBC_2.17"
#endif

/* So has realpath. */
#if defined(__x86_64__)
#define PATH_VERSION "GLIBC_2.3"
#else
#define PATH_VERSION "GLIBC_2.17"
#endif

/* What lstat is for programs that were built for a glibc before 2.33. */
#if defined(__x86_64__)
#define STAT_VERSION "GLIBC_2.2.5"
#else
#define STAT_VERSION "GLIBC_2.17"
#endif

/* tokio's pool gives up a thread after ten seconds without work. */
enum { HURRY_S = 3600 };
enum { DESCRIPTOR_MOST = 1 << 20, EX_CONFIG = 78, SEED_SIZE = 32 };

static bool is_active;

static ssize_t (*real_read)(int, void *, size_t);
static int (*real_madvise)(void *, size_t, int);
static long (*real_syscall)(long, ...);
static int (*real_signal)(pthread_cond_t *);
static int (*real_broadcast)(pthread_cond_t *);
static int (*real_post)(sem_t *);
static int (*real_join)(pthread_t, void **);
static int (*real_clock)(clockid_t, struct timespec *);
static int (*real_kill)(pid_t, int);
static char *(*real_getenv)(const char *);
static char *(*real_realpath)(const char *, char *);
static char *(*real_getcwd)(char *, size_t);
static size_t (*real_fread)(void *, size_t, size_t, FILE *);
static ssize_t (*real_random)(void *, size_t, unsigned);
static int (*real_lstat)(int, const char *, struct stat64 *);
static int (*real_register)(fork_handler, fork_handler, fork_handler, void *);

/* Finds all that is not found yet. Others' constructors may call before ours has run. */
static void find_real(void) {
  *(void **)&real_madvise = dlsym(RTLD_NEXT, "madvise");
  *(void **)&real_syscall = dlsym(RTLD_NEXT, "syscall");
  *(void **)&real_signal = dlvsym(RTLD_NEXT, "pthread_cond_signal", CONDITION_VERSION);
  *(void **)&real_broadcast =
      dlvsym(RTLD_NEXT, "pthread_cond_broadcast", CONDITION_VERSION);
  *(void **)&real_post = dlsym(RTLD_NEXT, "sem_post");
  *(void **)&real_join = dlsym(RTLD_NEXT, "pthread_join");
  *(void **)&real_clock = dlsym(RTLD_NEXT, "clock_gettime");
  *(void **)&real_kill = dlsym(RTLD_NEXT, "kill");
  *(void **)&real_getenv = dlsym(RTLD_NEXT, "getenv");
  *(void **)&real_realpath = dlvsym(RTLD_NEXT, "realpath", PATH_VERSION);
  *(void **)&real_getcwd = dlsym(RTLD_NEXT, "getcwd");
  *(void **)&real_lstat = dlvsym(RTLD_NEXT, "__lxstat64", STAT_VERSION);
  *(void **)&real_fread = dlsym(RTLD_NEXT, "fread");
  *(void **)&real_random = dlsym(RTLD_NEXT, "getrandom");
  *(void **)&real_register = dlsym(RTLD_NEXT, "__register_atfork");
  /* Last: it tells whether the others are there. */
  *(void **)&real_read = dlsym(RTLD_NEXT, "read");
}

static inline void find_once(void) {
  if (__builtin_expect(real_read == NULL, 0)) find_real();
}

static inline bool has_dormant_threads(void) {
  return __builtin_expect(
      atomic_load_explicit(&dormant_threads, memory_order_relaxed) > 0, 0);
}

EXPORT ssize_t read(int descriptor, void *buffer, size_t size) {
  find_once();
  bool is_input = descriptor == 0 && is_active && is_template() &&
                  getpid() == (pid_t)call1(SYS_gettid, 0);
  if (__builtin_expect(!is_input, 1)) return real_read(descriptor, buffer, size);
  wait_for_input();
  ssize_t result = real_read(descriptor, buffer, size);
  if (result > 0 && is_template()) note_input();
  return result;
}

EXPORT int madvise(void *address, size_t size, int advice) {
  find_once();
  if (is_active && advice == MADV_DONTFORK) return 0;
  return real_madvise(address, size, advice);
}

/* What Deno's generators are seeded with: rand's StdRng and ThreadRng take so much. */
static void note_random(size_t size) {
  if (size == SEED_SIZE && is_active && is_template() &&
      getpid() == (pid_t)call1(SYS_gettid, 0))
    note_seed();
}

EXPORT ssize_t getrandom(void *buffer, size_t size, unsigned flags) {
  find_once();
  note_random(size);
  if (real_random == NULL) return call3(SYS_getrandom, (long)buffer, (long)size, flags);
  return real_random(buffer, size, flags);
}

/* V8 reads the seeds of its generators so. */
EXPORT size_t fread(void *into, size_t size, size_t count, FILE *file) {
  find_once();
  size_t got = real_fread(into, size, count, file);
  if (size * count == GENERATOR_SEED_SIZE && got == count && is_active && is_template())
    note_generator_seed(into);
  return got;
}

EXPORT long syscall(long number, ...) {
  va_list list;
  va_start(list, number);
  long a = va_arg(list, long), b = va_arg(list, long), c = va_arg(list, long);
  long d = va_arg(list, long), e = va_arg(list, long), f = va_arg(list, long);
  va_end(list);
  find_once();
  if (number == SYS_getrandom) note_random((size_t)b);
  if (has_dormant_threads() && number == SYS_futex) {
    long operation = b & FUTEX_CMD_MASK;
    if (operation != FUTEX_WAIT && operation != FUTEX_WAIT_BITSET)
      start_waiters((const void *)a, sizeof(uint32_t));
  }
  return real_syscall(number, a, b, c, d, e, f);
}

EXPORT int pthread_cond_signal(pthread_cond_t *condition) {
  find_once();
  if (has_dormant_threads()) start_waiters(condition, sizeof *condition);
  return real_signal(condition);
}

EXPORT int pthread_cond_broadcast(pthread_cond_t *condition) {
  find_once();
  if (has_dormant_threads()) start_waiters(condition, sizeof *condition);
  return real_broadcast(condition);
}

EXPORT int sem_post(sem_t *semaphore) {
  find_once();
  if (has_dormant_threads()) start_waiters(semaphore, sizeof *semaphore);
  return real_post(semaphore);
}

EXPORT int pthread_join(pthread_t thread, void **result) {
  find_once();
  if (has_dormant_threads()) start_thread(thread);
  return real_join(thread, result);
}

EXPORT int clock_gettime(clockid_t clock, struct timespec *into) {
  find_once();
  int result = real_clock(clock, into);
  if (__builtin_expect(atomic_load_explicit(&is_hurrying, memory_order_relaxed), 0) &&
      clock == CLOCK_MONOTONIC && result == 0 && is_hurried())
    into->tv_sec += HURRY_S;
  return result;
}

/* A module may have kept its process's number while it loaded, which is the template's: a
 * child that signals itself by it means itself. */
EXPORT int kill(pid_t process, int signal_number) {
  find_once();
  pid_t template = is_active ? template_number() : 0;
  if (template > 0 && process == template) process = getpid();
  if (template > 0 && process == -template) process = -getpid();
  return real_kill(process, signal_number);
}

/* Deno asks for DENO_DIR once, when it starts. A module that asks for its folder while it
 * loads may keep that path, and each child has another: it is told the alias. */
EXPORT char *getenv(const char *name) {
  find_once();
  char *value = real_getenv(name);
  if (!is_active) return value;
  char *stand_in = stand_in_for(name, value, is_template(), has_read_input());
  return stand_in != NULL ? stand_in : value;
}

/* Deno looks up the cache's folder of packages once, and keeps the path without links. The
 * alias is shown as a path without links, too: a module may compare the two. */
EXPORT char *realpath(const char *path, char *resolved) {
  find_once();
  char *result = real_realpath(path, resolved);
  if (result != NULL && is_active) keep_paths(result);
  return result;
}

/* Deno completes relative paths by the current folder, and only the alias is granted. */
EXPORT char *getcwd(char *buffer, size_t size) {
  find_once();
  char *result = real_getcwd(buffer, size);
  if (result != NULL && is_active) keep_paths(result);
  return result;
}

/* SQLite refuses paths with links in them, and looks for those itself: in the place of
 * that in the alias it finds a folder. */
int __lxstat64(int version, const char *path, struct stat64 *into);
EXPORT int __lxstat64(int version, const char *path, struct stat64 *into) {
  find_once();
  bool is_folder = is_active && is_link_in_alias(path);
  if (!is_folder && real_lstat != NULL) return real_lstat(version, path, into);
  int flags = is_folder ? 0 : AT_SYMLINK_NOFOLLOW;
  return (int)syscall(SYS_newfstatat, AT_FDCWD, path, into, flags);
}

/* What pthread_atfork is in the C library. */
EXPORT int __register_atfork(fork_handler prepare, fork_handler parent,
                             fork_handler child, void *library) {
  find_once();
  note_fork_handlers(prepare, parent, child);
  return real_register(prepare, parent, child, library);
}

/* ---- Beginning ---- */

/* /proc/self/environ shows the memory in which the variables came. */
static void wipe_variable(char **variables, const char *name) {
  size_t length = strlen(name);
  for (; *variables != NULL; variables++)
    if (strncmp(*variables, name, length) == 0 && (*variables)[length] == '=')
      explicit_bzero(*variables, strlen(*variables));
}

/* Takes this library out of LD_PRELOAD, and leaves there what else is in it. */
static void leave_preload(char **variables) {
  const char *value = getenv(PRELOAD);
  if (value == NULL) return;
  char *copy = strdup(value), *kept = calloc(1, strlen(value) + 1);
  if (copy == NULL || kept == NULL) _exit(EX_CONFIG);
  wipe_variable(variables, PRELOAD);
  char *state = NULL;
  for (char *part = strtok_r(copy, ": ", &state); part != NULL;
       part = strtok_r(NULL, ": ", &state)) {
    const char *slash = strrchr(part, '/');
    if (strcmp(slash == NULL ? part : slash + 1, FILE_NAME) == 0) continue;
    if (*kept != '\0') strcat(kept, ":");
    strcat(kept, part);
  }
  if (*kept == '\0')
    unsetenv(PRELOAD);
  else if (setenv(PRELOAD, kept, 1) != 0)
    _exit(EX_CONFIG);
  free(copy);
  free(kept);
}

/* Takes stdin, stdout and stderr from a socket: until now this process was open. */
static bool take_streams(int from) {
  enum { STREAMS = 3 };
  int streams[STREAMS];
  union {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof streams)];
  } with;
  char byte;
  struct iovec data = {&byte, 1};
  struct msghdr message = {
      .msg_iov = &data, .msg_iovlen = 1, .msg_control = &with, .msg_controllen = sizeof with};
  ssize_t got;
  do {
    got = recvmsg(from, &message, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  const struct cmsghdr *part = CMSG_FIRSTHDR(&message);
  if (got != 1 || part == NULL || part->cmsg_len != CMSG_LEN(sizeof streams)) return false;
  memcpy(streams, CMSG_DATA(part), sizeof streams);
  for (int i = 0; i < STREAMS; i++) {
    if (dup2(streams[i], i) < 0) return false;
    close(streams[i]);
  }
  return close(from) == 0;
}

/* Other events run beside this process, as the same user: they must not open its pipes,
 * its files and its environment (proc(5)). Nor can the next supervisor see whose it was, so
 * it ends with this one. */
static void close_to_others(char **variables) {
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  if (!take_streams((int)parse_decimal(getenv(CLOSE), 3, DESCRIPTOR_MOST))) _exit(EX_CONFIG);
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  wipe_variable(variables, CLOSE);
  unsetenv(CLOSE);
  leave_preload(variables);
}

static bool is_control(int number) {
  int type = 0, domain = 0;
  socklen_t size = sizeof type, domain_size = sizeof domain;
  return getsockopt(number, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
         getsockopt(number, SOL_SOCKET, SO_DOMAIN, &domain, &domain_size) == 0 &&
         type == SOCK_SEQPACKET && domain == AF_UNIX &&
         fcntl(number, F_SETFD, FD_CLOEXEC) == 0;
}

__attribute__((constructor)) static void begin(int arguments_count, char **arguments,
                                               char **variables) {
  (void)arguments_count;
  (void)arguments;
  find_once();
  if (getenv(CLOSE) != NULL) close_to_others(variables);
  const char *value = getenv(VARIABLE);
  if (value == NULL) return;
  long number = parse_decimal(value, 3, DESCRIPTOR_MOST);
  bool has_own_cache = getenv(OWN_CACHE) != NULL;
  const char *given = getenv(ALIAS);
  char *alias = given == NULL ? NULL : strdup(given);
  wipe_variable(variables, VARIABLE);
  wipe_variable(variables, OWN_CACHE);
  wipe_variable(variables, ALIAS);
  unsetenv(VARIABLE);
  unsetenv(OWN_CACHE);
  unsetenv(ALIAS);
  leave_preload(variables);
  if (number < 0 || !is_control((int)number)) {
    static const char message[] =
        "Cannot use " VARIABLE ": expected the number of a Unix socket that is "
        "SOCK_SEQPACKET; this process cannot be forked\n";
    call3(SYS_write, 2, (long)message, sizeof message - 1);
    return;
  }
  if (real_madvise == NULL || real_syscall == NULL || real_signal == NULL ||
      real_broadcast == NULL || real_post == NULL || real_join == NULL ||
      real_clock == NULL || real_kill == NULL || real_getenv == NULL ||
      real_realpath == NULL || real_getcwd == NULL || real_fread == NULL ||
      real_register == NULL || real_read == NULL)
    _exit(EX_CONFIG);
  is_active = begin_template((int)number, has_own_cache, alias, variables);
  free(alias);
  if (is_active) real_register(NULL, NULL, forget_threads, NULL);
}
