/* System calls without the C library, for two architectures.
 *
 * A signal handler, a thread that has only just been made again and a process that has
 * only just been forked must touch neither errno nor a lock of the C library. And the
 * library interposes syscall(3) itself. Each call returns a value, or -errno.
 */
#ifndef LDS_SYSTEM_H
#define LDS_SYSTEM_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <ucontext.h>

static inline long call6(long number, long a, long b, long c, long d, long e, long f) {
#if defined(__x86_64__)
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
#elif defined(__aarch64__)
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  register long x5 __asm__("x5") = f;
  __asm__ volatile("svc #0"
                   : "+r"(x0)
                   : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                   : "memory");
  return x0;
#else
#error "This architecture is not supported: x86_64 or aarch64 is needed"
#endif
}

static inline long call4(long number, long a, long b, long c, long d) {
  return call6(number, a, b, c, d, 0, 0);
}

static inline long call3(long number, long a, long b, long c) {
  return call6(number, a, b, c, 0, 0, 0);
}

static inline long call2(long number, long a, long b) {
  return call6(number, a, b, 0, 0, 0, 0);
}

static inline long call1(long number, long a) {
  return call6(number, a, 0, 0, 0, 0, 0);
}

/* Where the thread's own memory begins, as clone(2) takes it with CLONE_SETTLS. */
static inline uintptr_t thread_pointer(void) {
  uintptr_t value;
#if defined(__x86_64__)
  __asm__("mov %%fs:0, %0" : "=r"(value));
#else
  __asm__("mrs %0, tpidr_el0" : "=r"(value));
#endif
  return value;
}

/* Where glibc keeps a thread's number, counted from pthread_self(). The kernel writes
 * there when a thread begins and ends, so that pthread_join works. It has been the same
 * since glibc 2.4; each use is checked against gettid(2). */
#if defined(__x86_64__)
enum { TID_OFFSET = 0x2d0 };
#else
enum { TID_OFFSET = 0xd0 };
#endif

/* The registers of a thread that a signal has interrupted in a system call. */
struct registers {
  uint64_t number; /* x86_64: what the call returned, or its number to be repeated. */
  uint64_t arguments[3];
};

static inline void read_registers(const ucontext_t *context, struct registers *into) {
#if defined(__x86_64__)
  const greg_t *from = context->uc_mcontext.gregs;
  into->number = (uint64_t)from[REG_RAX];
  into->arguments[0] = (uint64_t)from[REG_RDI];
  into->arguments[1] = (uint64_t)from[REG_RSI];
  into->arguments[2] = (uint64_t)from[REG_RDX];
#else
  into->number = context->uc_mcontext.regs[8];
  for (int i = 0; i < 3; i++) into->arguments[i] = context->uc_mcontext.regs[i];
#endif
}

/* True if the registers are those of a thread that waits in this very call: it will be
 * repeated, or it was left with EINTR. */
static inline int is_interrupted_in(const struct registers *at, long number,
                                    const uint64_t arguments[3]) {
  const uint64_t interrupted = (uint64_t)-4L; /* -EINTR */
  int same = at->arguments[1] == arguments[1] && at->arguments[2] == arguments[2];
#if defined(__x86_64__)
  return same && at->arguments[0] == arguments[0] &&
         (at->number == (uint64_t)number || at->number == interrupted);
#else
  /* Its first argument and its result share a register. */
  return same && at->number == (uint64_t)number &&
         (at->arguments[0] == arguments[0] || at->arguments[0] == interrupted);
#endif
}

/* clone(2) as fork(2) does it: the arguments' order is the architecture's own. */
static inline long call_clone_process(unsigned long flags, int *child_tid) {
#if defined(__x86_64__)
  return call6(SYS_clone, (long)flags, 0, 0, (long)child_tid, 0, 0);
#else
  return call6(SYS_clone, (long)flags, 0, 0, 0, (long)child_tid, 0);
#endif
}

#endif
