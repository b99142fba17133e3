#define _GNU_SOURCE
#include "threads.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "files.h"
#include "system.h"
#include "text.h"

enum {
  THREADS_LIMIT = 64, /* V8 takes up to 16, tokio as many as operations ran at once */
  NAME_SIZE = 16,     /* with its zero byte; prctl(2) */
  /* Of the thread that makes itself ready, before it goes back to its own stack. */
  STARTING_STACK_BYTES = 4096,
  /* Work that the module left behind, such as compiling, is waited for this long. */
  PARK_LIMIT_MS = 1000,
  /* How long a thread may take to obey a signal, on a machine that has much to do. */
  SIGNAL_LIMIT_MS = 500,
  START_ATTEMPTS = 50,
};

/* linux/rseq.h is younger than some of the compilers in use. */
#if defined(__x86_64__)
#define RSEQ_SIGNATURE 0x53053053u
#else
#define RSEQ_SIGNATURE 0xd428bc00u
#endif
enum { RSEQ_MINIMUM_SIZE = 32 };
#ifndef SYS_rseq
#if defined(__x86_64__)
#define SYS_rseq 334
#else
#define SYS_rseq 293
#endif
#endif

enum state {
  RUNNING,  /* or not there */
  PARKED,   /* in a template: it is in on_park; in a child: a copy that sleeps */
  STARTING, /* in a child: being made again */
};

struct thread {
  pid_t tid;
  atomic_int state;
  char name[NAME_SIZE];
  /* The call that it waits in. */
  long number;
  uint64_t arguments[4];
  /* What it says of itself in on_park. */
  struct registers registers;
  jmp_buf resume;
  uintptr_t pointer;
  pthread_t self;
  void *robust;
  size_t robust_length;
};

static struct thread threads[THREADS_LIMIT];
static int count;
atomic_int dormant_threads;
atomic_bool is_hurrying;

/* Changes when parked threads may go on. */
static atomic_uint epoch;
static atomic_uint inside; /* threads in on_park; a futex */
/* False: a thread that comes late goes on at once. */
static atomic_bool is_calling;
static int park_signal;
/* Where the C library keeps what the kernel tells it of restartable sequences. */
static const ptrdiff_t *rseq_offset;
static const unsigned int *rseq_size;

static char starting_stacks[THREADS_LIMIT][STARTING_STACK_BYTES]
    __attribute__((aligned(16)));

static long now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void wait_for(atomic_uint *word, unsigned value, long limit_us) {
  struct timespec limit = {0, limit_us * 1000};
  call4(SYS_futex, (long)word, FUTEX_WAIT_PRIVATE, (long)value,
        limit_us < 0 ? 0 : (long)&limit);
}

static void wake(atomic_uint *word) {
  call3(SYS_futex, (long)word, FUTEX_WAKE_PRIVATE, INT32_MAX);
}

static int *number_of(pthread_t thread) {
  return (int *)((uintptr_t)thread + TID_OFFSET);
}

int *main_thread_number(void) { return number_of(pthread_self()); }

bool prepare_threads(struct refusal *why) {
  if (*main_thread_number() != (int)call1(SYS_gettid, 0))
    return refuse(why, C_LIBRARY, 0, "this C library keeps threads in another way");
  rseq_offset = dlsym(RTLD_DEFAULT, "__rseq_offset");
  rseq_size = dlsym(RTLD_DEFAULT, "__rseq_size");
  /* From the end, where nobody begins to take them. */
  for (int number = SIGRTMAX - 1; number > SIGRTMIN + 1; number--) {
    struct sigaction action;
    if (sigaction(number, NULL, &action) != 0) continue;
    if (action.sa_flags & SA_SIGINFO || action.sa_handler != SIG_DFL) continue;
    park_signal = number;
    return true;
  }
  return refuse(why, LIMIT, 0, "no signal is free");
}

static struct thread *find_self(void) {
  pid_t tid = (pid_t)call1(SYS_gettid, 0);
  for (int i = 0; i < count; i++)
    if (threads[i].tid == tid) return &threads[i];
  return NULL;
}

/* Runs in each of the other threads, and again in each copy. Only calls that are safe in
 * a thread that may have been interrupted anywhere. */
static void on_park(int signal_number, siginfo_t *info, void *context) {
  (void)signal_number;
  (void)info;
  struct thread *const thread = find_self();
  /* In this order: what is released after the question has another epoch. */
  unsigned parked_in = atomic_load(&epoch);
  if (thread == NULL || !atomic_load(&is_calling)) return;
  read_registers(context, &thread->registers);
  thread->pointer = thread_pointer();
  thread->self = pthread_self();
  thread->robust = NULL;
  call3(SYS_get_robust_list, 0, (long)&thread->robust, (long)&thread->robust_length);
  if (_setjmp(thread->resume) != 0) return; /* a copy: back into the call it waits in */
  atomic_store(&thread->state, PARKED);
  atomic_fetch_add(&inside, 1);
  wake(&inside);
  while (atomic_load(&epoch) == parked_in) wait_for(&epoch, parked_in, -1);
  atomic_store(&thread->state, RUNNING);
  atomic_fetch_sub(&inside, 1);
  wake(&inside);
}

/* ---- Looking at them ---- */

enum finding { IDLE, WORKING, NEVER };

static bool has_prefix(const char *text, const char *prefix) {
  return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool is_of_pool(const struct thread *thread) {
  return has_prefix(thread->name, "tokio-r");
}

static bool is_futex_wait(const struct thread *thread) {
  if (thread->number != SYS_futex) return false;
  long operation = (long)thread->arguments[1] & FUTEX_CMD_MASK;
  if (operation == FUTEX_WAIT_BITSET) return true;
  /* Of a mutex of the C library, whose owner wakes it in a way that nobody sees. */
  return operation == FUTEX_WAIT && (uint32_t)thread->arguments[2] != 2;
}

static bool is_reader(const struct thread *thread) {
  return thread->number == SYS_read || thread->number == SYS_recvfrom;
}

static bool is_event_loop(const struct thread *thread) {
#ifdef SYS_epoll_wait
  if (thread->number == SYS_epoll_wait) return true;
#endif
  return thread->number == SYS_epoll_pwait;
}

/* Tells what one thread is doing, and reads its name and the call it waits in. */
static enum finding look_at(struct thread *thread, const char *main_name,
                            struct refusal *why) {
  char path[64], text[256];
  format(path, sizeof path, "/proc/self/task/%d/comm", thread->tid);
  if (read_text(path, text, sizeof text) < 0) {
    refuse(why, BUSY, 0, "threads come and go");
    return WORKING;
  }
  text[strcspn(text, "\n")] = '\0';
  copy_text(thread->name, sizeof thread->name, text);
  format(path, sizeof path, "/proc/self/task/%d/syscall", thread->tid);
  int error = read_text(path, text, sizeof text);
  if (error < 0 && error != -ESRCH && error != -ENOENT) {
    refuse(why, SYSTEM, -error, "what a thread waits for cannot be read");
    return NEVER;
  }
  bool is_waiting = error >= 0 && parse_syscall(text, &thread->number,
                                                thread->arguments);
  if (!is_waiting) thread->number = -1;
  /* Deno names the threads of Workers so, and the crate notify its own. */
  if (has_prefix(thread->name, "worker-")) {
    refuse(why, WORKER, 0, "a Worker (thread '%s')", thread->name);
    return NEVER;
  }
  if (has_prefix(thread->name, "notify-rs")) {
    refuse(why, WATCHER, 0, "a watcher of files (thread '%s')", thread->name);
    return NEVER;
  }
  if (is_waiting && is_event_loop(thread)) {
    refuse(why, THREAD, 0, "an event loop (thread '%s')", thread->name);
    return NEVER;
  }
  /* Deno does not name the thread that takes signals: it is called as the first one. */
  bool is_of_signals = strcmp(thread->name, main_name) == 0;
  if (!is_of_signals && !is_of_pool(thread) && !has_prefix(thread->name, "V8 ")) {
    refuse(why, THREAD, 0, "a thread '%s'", thread->name);
    return NEVER;
  }
  if (is_waiting && (is_futex_wait(thread) || (is_of_signals && is_reader(thread))))
    return IDLE;
  refuse(why, BUSY, 0, "thread '%s' is at work", thread->name);
  return WORKING;
}

bool is_hurried(void) { return (pid_t)call1(SYS_gettid, 0) != getpid(); }

/* Ends the threads of tokio's pool, which all wait for work, by waking each: it looks at
 * the clock then. True if there was one. */
static bool hurry_pool(void) {
  bool has_pool = false;
  for (int i = 0; i < count; i++) has_pool = has_pool || is_of_pool(&threads[i]);
  if (!has_pool) return false;
  atomic_store(&is_hurrying, true);
  for (long pause_us = 50; has_pool && pause_us < 20000; pause_us *= 2) {
    has_pool = false;
    for (int i = 0; i < count; i++) {
      if (!is_of_pool(&threads[i])) continue;
      if (call3(SYS_tgkill, getpid(), threads[i].tid, park_signal) == 0) has_pool = true;
    }
    if (has_pool) usleep((useconds_t)pause_us);
  }
  atomic_store(&is_hurrying, false);
  return true;
}

/* Lists the other threads. */
static bool list_threads(struct refusal *why) {
  pid_t self = (pid_t)call1(SYS_gettid, 0);
  int numbers[THREADS_LIMIT + 1];
  int found = list_numbers("/proc/self/task", numbers, THREADS_LIMIT + 1);
  if (found == -EOVERFLOW)
    return refuse(why, LIMIT, 0, "more than %d threads", THREADS_LIMIT);
  if (found < 0) return refuse(why, SYSTEM, -found, "threads cannot be listed");
  count = 0;
  for (int i = 0; i < found; i++) {
    if (numbers[i] == self) continue;
    if (count == THREADS_LIMIT)
      return refuse(why, LIMIT, 0, "more than %d threads", THREADS_LIMIT);
    threads[count] = (struct thread){.tid = numbers[i]};
    count++;
  }
  return true;
}

/* Sends the signal to all, and waits until they have come. */
static bool call_in(struct refusal *why) {
  atomic_store(&is_calling, true);
  unsigned sent = 0;
  for (int i = 0; i < count; i++)
    if (call3(SYS_tgkill, getpid(), threads[i].tid, park_signal) == 0) sent++;
  long limit = now_ms() + SIGNAL_LIMIT_MS;
  for (unsigned there; (there = atomic_load(&inside)) < sent;) {
    if (now_ms() > limit) break;
    wait_for(&inside, there, 1000);
  }
  if (atomic_load(&inside) == (unsigned)count) return true;
  return refuse(why, BUSY, 0, "a thread does not come to a halt");
}

/* True if each one was stopped where it was seen, and nothing has come for it since. */
static bool is_quiet(struct refusal *why) {
  for (int i = 0; i < count; i++) {
    struct thread *thread = &threads[i];
    bool is_same =
        is_interrupted_in(&thread->registers, thread->number, thread->arguments);
    if (is_same && is_futex_wait(thread)) {
      const volatile uint32_t *word = (const volatile uint32_t *)thread->arguments[0];
      is_same = *word == (uint32_t)thread->arguments[2];
    }
    if (!is_same)
      return refuse(why, BUSY, 0, "thread '%s' was about to work", thread->name);
    if (*number_of(thread->self) != thread->tid)
      return refuse(why, C_LIBRARY, 0, "thread '%s' is not the C library's own",
                    thread->name);
  }
  int numbers[THREADS_LIMIT + 1];
  int found = list_numbers("/proc/self/task", numbers, THREADS_LIMIT + 1);
  if (found == count + 1) return true;
  return refuse(why, BUSY, 0, "threads come and go");
}

bool park_threads(struct refusal *why) {
  char main_name[NAME_SIZE] = "";
  prctl(PR_GET_NAME, main_name);
  struct sigaction action = {.sa_sigaction = on_park,
                             .sa_flags = SA_SIGINFO | SA_RESTART};
  sigfillset(&action.sa_mask);
  if (sigaction(park_signal, &action, NULL) != 0)
    return refuse(why, SYSTEM, errno, "sigaction");
  long limit = now_ms() + PARK_LIMIT_MS;
  for (long pause_us = 200;; pause_us = pause_us < 5000 ? pause_us * 2 : pause_us) {
    bool is_idle = true;
    if (!list_threads(why)) return false;
    for (int i = 0; i < count; i++) {
      enum finding finding = look_at(&threads[i], main_name, why);
      if (finding == NEVER) return false;
      if (finding == WORKING) is_idle = false;
    }
    if (is_idle && !hurry_pool()) {
      if (call_in(why) && is_quiet(why)) return true;
      release_threads();
      if (why->code != BUSY) return false;
    }
    if (now_ms() > limit) return false;
    usleep((useconds_t)pause_us);
  }
}

void release_threads(void) {
  atomic_store(&is_calling, false);
  atomic_fetch_add(&epoch, 1);
  wake(&epoch);
  /* The signal stays ours: one that has not come yet would die of its ordinary action. */
  for (unsigned there; (there = atomic_load(&inside)) > 0;) wait_for(&inside, there, 1000);
}

int parked_threads(void) { return (int)atomic_load(&inside); }

int descriptors_of_readers(int *numbers, int most) {
  int found = 0;
  for (int i = 0; i < count && found < most; i++)
    if (is_reader(&threads[i])) numbers[found++] = (int)threads[i].arguments[0];
  return found;
}

/* ---- In a child ---- */

void adopt_threads(void) {
  struct sigaction ordinary = {.sa_handler = SIG_DFL};
  sigaction(park_signal, &ordinary, NULL);
  atomic_store(&dormant_threads, count);
}

void forget_threads(void) {
  count = 0;
  atomic_store(&dormant_threads, 0);
}

/* The first steps of a copy, on a stack of its own. */
static int begin(void *argument) {
  struct thread *thread = argument;
  /* Not a copy of fork(2)'s: the kernel has forgotten what the C library told it. */
  if (thread->robust != NULL)
    call2(SYS_set_robust_list, (long)thread->robust, (long)thread->robust_length);
  if (rseq_offset != NULL && rseq_size != NULL && *rseq_size > 0) {
    uintptr_t area = thread->pointer + (uintptr_t)*rseq_offset;
    long size = *rseq_size < RSEQ_MINIMUM_SIZE ? RSEQ_MINIMUM_SIZE : *rseq_size;
    if (call4(SYS_rseq, (long)area, size, 0, RSEQ_SIGNATURE) < 0)
      *(volatile int32_t *)(area + 4) = -2; /* RSEQ_CPU_ID_REGISTRATION_FAILED */
  }
  call2(SYS_prctl, PR_SET_NAME, (long)thread->name);
  _longjmp(thread->resume, 1);
}

static void start(struct thread *thread) {
  int expected = PARKED;
  if (!atomic_compare_exchange_strong(&thread->state, &expected, STARTING)) return;
  int error = errno;
  sigset_t all, before;
  sigfillset(&all);
  /* Until it has its own mask back, which is in what the signal has left on its stack. */
  call4(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)&before, _NSIG / 8);
  char *stack = starting_stacks[thread - threads] + STARTING_STACK_BYTES;
  int *number = number_of(thread->self);
  const int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
                    CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID |
                    CLONE_CHILD_CLEARTID;
  int started = -1;
  for (int i = 0; i < START_ATTEMPTS && started < 0; i++) {
    started = clone(begin, stack, flags, thread, number, (void *)thread->pointer, number);
    if (started < 0) usleep(10000);
  }
  call4(SYS_rt_sigprocmask, SIG_SETMASK, (long)&before, 0, _NSIG / 8);
  if (started < 0) {
    static const char message[] = "Cannot start a thread of Deno again in this process: "
                                  "no thread is left for it\n";
    call3(SYS_write, 2, (long)message, sizeof message - 1);
    call1(SYS_exit_group, 70); /* what waits for it would wait for ever */
  }
  atomic_fetch_sub(&dormant_threads, 1);
  errno = error;
}

bool start_readers(void) {
  for (int i = 0; i < count; i++) {
    /* One that waits for a time has to see it come. */
    bool is_timed = is_futex_wait(&threads[i]) && threads[i].arguments[3] != 0;
    if (is_reader(&threads[i]) || is_timed) start(&threads[i]);
  }
  return true;
}

void start_waiters(const volatile void *address, size_t size) {
  uintptr_t from = (uintptr_t)address;
  for (int i = 0; i < count; i++) {
    if (atomic_load(&threads[i].state) != PARKED || !is_futex_wait(&threads[i])) continue;
    if ((uintptr_t)threads[i].arguments[0] - from < size) start(&threads[i]);
  }
}

void start_thread(pthread_t thread) {
  for (int i = 0; i < count; i++)
    if (atomic_load(&threads[i].state) == PARKED && threads[i].self == thread)
      start(&threads[i]);
}
