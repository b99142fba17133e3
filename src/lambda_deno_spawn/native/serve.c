#define _GNU_SOURCE
#include "serve.h"

#include <errno.h>
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "descriptors.h"
#include "files.h"
#include "folders.h"
#include "generators.h"
#include "memory.h"
#include "message.h"
#include "system.h"
#include "threads.h"

enum {
  STDIO_COUNT = 3,
  GIVEN_LIMIT = STDIO_COUNT + 1,   /* with a folder */
  /* One too many is seen, and closed. Even: what aligns a message has room for one. */
  RECEIVED_LIMIT = GIVEN_LIMIT + 2,
  FORK_HANDLERS_LIMIT = 32, /* Deno 2.9 has one */
  CHILD_LIMIT_S = 5,        /* to make itself ready, on a machine that swaps */
  SHARED_SIZE = 4096,
  OWN_SCORE_LIMIT = 100, /* of the supervisor */
};

#define OWN_SCORE "1000"
#define CHILD_SCORE "300"

/* The child's word to the template: a page that both see until it has been given. */
struct shared {
  atomic_uint is_told; /* a futex */
  struct refusal refusal;
};

static int control = -1;
static struct shared *shared;
static pid_t own_number, forked_from;
static bool has_input; /* HELLO has been read */
static bool has_random; /* numbers were drawn, and a library may keep a stock of them */
static int score = -1; /* this process's, if a child is to have a lower one */
static bool is_frozen; /* checked, and all other threads are parked */
static struct {
  fork_handler prepare, parent, child;
} handlers[FORK_HANDLERS_LIMIT];
static int handlers_count;
static bool has_too_many_handlers;
static void *robust;
static size_t robust_length;

bool refuse(struct refusal *into, enum code code, int error, const char *pattern, ...) {
  into->code = code;
  into->error = error;
  va_list arguments;
  va_start(arguments, pattern);
  vsnprintf(into->detail, sizeof into->detail, pattern, arguments);
  va_end(arguments);
  return false;
}

void note_fork_handlers(fork_handler prepare, fork_handler parent, fork_handler child) {
  if (handlers_count == FORK_HANDLERS_LIMIT) {
    has_too_many_handlers = true;
    return;
  }
  handlers[handlers_count].prepare = prepare;
  handlers[handlers_count].parent = parent;
  handlers[handlers_count++].child = child;
}

static void send_answer(uint32_t id, pid_t pid, const struct refusal *why) {
  struct answer answer = {.magic = MAGIC, .version = VERSION, .id = id, .pid = pid};
  answer.code = (uint16_t)why->code;
  answer.error = why->error;
  copy_text(answer.detail, sizeof answer.detail, why->detail);
  ssize_t sent;
  do {
    sent = send(control, &answer, sizeof answer, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) _exit(0); /* nobody is left to serve */
}

bool begin_template(int given, bool has_own_cache, const char *alias,
                    char **variables) {
  struct refusal why = {.code = OK};
  control = given;
  own_number = getpid();
  copy_text(why.detail, sizeof why.detail, gnu_get_libc_version());
  prepare_folders(variables, has_own_cache, alias, &why);
  shared = mmap(NULL, SHARED_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                0);
  if (shared == MAP_FAILED) refuse(&why, SYSTEM, errno, "mmap");
  call3(SYS_get_robust_list, 0, (long)&robust, (long)&robust_length);
  if (why.code == OK) prepare_threads(&why);
  send_answer(0, getpid(), &why);
  /* From here on no program of an event that runs beside this process, as the same user,
   * can look into it or change what later copies will be (proc(5), ptrace(2)). */
  if (why.code == OK) {
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    return true;
  }
  close(control);
  control = -1;
  return false;
}

bool is_template(void) { return control >= 0; }

pid_t template_number(void) { return forked_from; }

void note_input(void) { has_input = true; }

bool has_read_input(void) { return has_input; }

void note_seed(void) {
  if (has_input) has_random = true;
}

/* ---- May it be forked? ---- */

static bool has_no_children(struct refusal *why) {
  siginfo_t info;
  if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0)
    return refuse(why, CHILD_PROCESS, 0, "a child process");
  return errno == ECHILD || refuse(why, SYSTEM, errno, "waitid");
}

/* When memory runs out, the kernel ends the process with the highest score first (proc(5)):
 * the template, which has 1000, so that the event has the memory that it would have without
 * one. A child must still end before the supervisor. It begins with the score of this
 * process, which is lower while it forks: the child's own file is closed to the child as
 * long as its memory is. */
static void open_score(void) {
  char path[64], own[16];
  format(path, sizeof path, "/proc/%d/oom_score_adj", getppid());
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  long size = call3(SYS_read, file, (long)own, sizeof own - 1);
  close(file);
  if (size <= 0) return;
  own[size] = '\0';
  if (atoi(own) < OWN_SCORE_LIMIT)
    score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
}

static void set_score(const char *text) {
  if (score >= 0) pwrite(score, text, strlen(text), 0);
}

static void close_score(void) {
  if (score >= 0) close(score);
  score = -1;
}

/* Parks the other threads and looks at all that a fork shares. Once that has gone well it
 * need not be repeated: nothing is left in this process that could change. */
static bool freeze(const int given[GIVEN_LIMIT], struct refusal *why) {
  if (is_frozen) return true;
  if (!has_input)
    return refuse(why, NOT_LOADED, 0, "the process has not read its first line");
  if (has_too_many_handlers)
    return refuse(why, LIMIT, 0, "more than %d fork handlers", FORK_HANDLERS_LIMIT);
  if (has_random)
    return refuse(why, RANDOM, 0, "drawn random numbers while it loaded");
  if (!has_no_children(why)) return false;
  /* Only then does the kernel tell a process what its own threads are waiting for. */
  prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
  if (!park_threads(why)) {
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    return false;
  }
  const int ours[] = {control,  cache_descriptor(), private_descriptor(), given[0],
                      given[1], given[2],           given[3]};
  is_frozen = plan_descriptors(ours, 3 + GIVEN_LIMIT, why) && plan_memory(shared, why) &&
              has_generators(why) && is_folder_as_given(why);
  if (is_frozen) open_score();
  /* No child can look into this process or change it, whatever its handler may do. */
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 && is_frozen)
    is_frozen = refuse(why, SYSTEM, errno, "prctl");
  if (!is_frozen) release_threads();
  return is_frozen;
}

/* An event comes to the template itself: it is an ordinary process from here on. */
static void thaw(void) {
  close(control);
  control = -1;
  close_score();
  if (is_frozen) release_threads();
  is_frozen = false;
}

/* ---- Forking ---- */

static void tell_template(const struct refusal *refusal) {
  shared->refusal = *refusal;
  atomic_store(&shared->is_told, 1);
  call3(SYS_futex, (long)&shared->is_told, FUTEX_WAKE, 1);
}

static void become_child(const struct request *request, const int given[GIVEN_LIMIT]) {
  struct refusal why = {.code = OK};
  int template_control = control;
  control = -1;
  forked_from = own_number;
  if (robust != NULL) call2(SYS_set_robust_list, (long)robust, (long)robust_length);
  adopt_threads();
  for (int i = 0; i < handlers_count; i++)
    if (handlers[i].child != NULL) handlers[i].child();
  close(template_control);
  close_score();
  if (request->private[0] == '\0')
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
  else /* others of the same user run beside it, and must not find it when they are alone */
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  bool is_ready = setpgid(0, 0) == 0 || refuse(&why, CHILD_FAILED, errno, "setpgid");
  is_ready = is_ready && renew_descriptors(given, &why) && renew_memory(&why) &&
             renew_generators(&why);
  is_ready = is_ready && take_folders(request, given[STDIO_COUNT], &why);
  if (!is_ready) {
    tell_template(&why);
    _exit(70);
  }
  touch_memory();
  start_readers();
  tell_template(&why);
  munmap(shared, SHARED_SIZE);
  shared = NULL;
}

/* Waits for the child's word. False: it did not come. */
static bool hear_child(struct refusal *why) {
  struct timespec now, limit;
  clock_gettime(CLOCK_MONOTONIC, &limit);
  limit.tv_sec += CHILD_LIMIT_S;
  while (atomic_load(&shared->is_told) == 0) {
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (now.tv_sec > limit.tv_sec)
      return refuse(why, CHILD_FAILED, ETIMEDOUT, "the child does not become ready");
    struct timespec rest = {1, 0};
    call4(SYS_futex, (long)&shared->is_told, FUTEX_WAIT, 0, (long)&rest);
  }
  *why = shared->refusal;
  return true;
}

/* Returns 0 in the child; else its number, also if it has failed, or -1 if there is none. */
static pid_t fork_child(const struct request *request, const int given[GIVEN_LIMIT],
                        struct refusal *why) {
  atomic_store(&shared->is_told, 0);
  for (int i = handlers_count - 1; i >= 0; i--)
    if (handlers[i].prepare != NULL) handlers[i].prepare();
  /* Not the C library's fork: it would forget the other threads' stacks, and its locks
   * need no care here, since all other threads are parked where they hold none. The
   * parent of the child is this process's own: the supervisor, which waits for it. */
  set_score(CHILD_SCORE);
  long pid = call_clone_process(
      CLONE_PARENT | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD,
      main_thread_number());
  if (pid == 0) {
    become_child(request, given);
    return 0;
  }
  set_score(OWN_SCORE);
  for (int i = 0; i < handlers_count; i++)
    if (handlers[i].parent != NULL) handlers[i].parent();
  if (pid < 0) {
    refuse(why, FORK_FAILED, (int)-pid, "clone");
    return -1;
  }
  hear_child(why);
  return (pid_t)pid;
}

/* ---- Requests ---- */

struct received {
  struct request request;
  ssize_t size;
  int descriptors[RECEIVED_LIMIT];
  int count;
  bool is_cut;
};

static void receive(struct received *into) {
  union {
    struct cmsghdr header;
    char space[CMSG_SPACE(RECEIVED_LIMIT * sizeof(int))];
  } with;
  struct iovec data = {&into->request, sizeof into->request};
  struct msghdr message = {.msg_iov = &data,
                           .msg_iovlen = 1,
                           .msg_control = &with,
                           .msg_controllen = sizeof with};
  into->count = 0;
  do {
    into->size = recvmsg(control, &message, MSG_CMSG_CLOEXEC);
  } while (into->size < 0 && errno == EINTR);
  if (into->size <= 0) _exit(0); /* the supervisor has gone, or wants this to end */
  into->is_cut = message.msg_flags & (MSG_TRUNC | MSG_CTRUNC);
  struct cmsghdr *part = CMSG_FIRSTHDR(&message);
  for (; part != NULL; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    size_t given = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < given && into->count < RECEIVED_LIMIT; i++)
      memcpy(&into->descriptors[into->count++], CMSG_DATA(part) + i * sizeof(int),
             sizeof(int));
  }
}

static bool check(const struct received *got, struct refusal *why) {
  const struct request *request = &got->request;
  if (got->size != (ssize_t)sizeof *request || got->is_cut || request->magic != MAGIC)
    return refuse(why, BAD_REQUEST, 0, "a message of %zd bytes", got->size);
  if (request->version != VERSION)
    return refuse(why, BAD_REQUEST, 0, "version %u instead of %d", request->version,
                  VERSION);
  int wanted = request->kind == FORK ? STDIO_COUNT : 0;
  bool has_folder = request->kind == FORK && got->count == GIVEN_LIMIT;
  if (request->kind < PROBE || request->kind > LEARN ||
      (got->count != wanted && !has_folder))
    return refuse(why, BAD_REQUEST, 0, "kind %u with %d descriptors", request->kind,
                  got->count);
  return check_folders(request, has_folder ? got->descriptors[STDIO_COUNT] : -1, why);
}

/* Serves one request. Returns true in a child. */
static bool serve(void) {
  struct received got = {.descriptors = {-1, -1, -1, -1, -1, -1}};
  struct refusal why = {.code = OK};
  pid_t child = -1;
  int pages = 0;
  receive(&got);
  uint32_t id = got.size >= (ssize_t)sizeof got.request ? got.request.id : 0;
  if (check(&got, &why) && freeze(got.descriptors, &why)) {
    if (got.request.kind == FORK) {
      child = fork_child(&got.request, got.descriptors, &why);
      if (child == 0) return true;
    } else if (got.request.kind != PROBE) {
      bool (*look)(pid_t, int *, struct refusal *) =
          got.request.kind == OBSERVE ? observe_memory : learn_memory;
      if (look(got.request.pid, &pages, &why))
        format(why.detail, sizeof why.detail, "%d pages", pages);
    }
  }
  /* First, so that once the answer has come nobody but the child has them. */
  for (int i = 0; i < got.count; i++) close(got.descriptors[i]);
  send_answer(id, child > 0 ? child : 0, &why);
  return false;
}

void wait_for_input(void) {
  bool was_asked = false;
  for (;;) {
    struct pollfd wait[] = {{.fd = 0, .events = POLLIN}, {.fd = control, .events = POLLIN}};
    if (poll(wait, 2, -1) < 0) {
      if (errno == EINTR || errno == EAGAIN) continue;
      _exit(71);
    }
    if (wait[0].revents != 0) {
      /* A request that came first has been answered. What comes on stdin after one is an
       * event, whose code must not find the way to the supervisor. */
      if (was_asked || is_frozen) thaw();
      /* Code that serves an event finds an ordinary process. */
      if (has_input) prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
      return;
    }
    if (wait[1].revents == 0) continue;
    was_asked = has_input;
    if (serve()) return;
  }
}
