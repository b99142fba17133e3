/* The other threads of a process that is forked.
 *
 * fork(2) takes along the calling thread only. Deno would wait for ever for the others:
 * V8's workers, tokio's blocking pool, the thread that takes signals.
 *
 * The pool's threads end by themselves after ten seconds without work, and tokio makes
 * others when it needs them; so they are made to see that time pass. They may not be
 * copied: each has a random number generator, with numbers in store.
 *
 * All others are parked in the template, and each child makes again those that it needs,
 * exactly where they were: same stack, same registers, same thread-local memory.
 *
 * Why this is sound: a thread is parked only where it waits for something that has not
 * come (a futex whose value is unchanged, a socket with nothing in it). It holds no lock
 * then, and its state is complete in memory: the fork copies it. A thread that waits
 * for a futex is made again when somebody in the child is about to wake it, and not
 * before: most events never need one.
 */
#ifndef LDS_THREADS_H
#define LDS_THREADS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "message.h"

/* How many threads are copies that sleep: 0 but in a child. */
extern atomic_int dormant_threads;

/* True while the pool's threads are to see ten seconds pass. */
extern atomic_bool is_hurrying;

/* True if the thread that asks is one of those: any but the first. */
bool is_hurried(void);

/* Finds out what is needed of the C library. Before any other call. */
bool prepare_threads(struct refusal *why);

/* Brings all other threads to a halt. If that is refused, they run on. */
bool park_threads(struct refusal *why);

/* Lets them run on. */
void release_threads(void);

/* The descriptors that a parked thread reads from; returns their number. */
int descriptors_of_readers(int *numbers, int most);

/* In a child: from here on the parked threads are copies. */
void adopt_threads(void);

/* In a child, once its descriptors are its own: starts the copies that read from one. */
bool start_readers(void);

/* In a child of a child, which the C library has forked: it has no copies. */
void forget_threads(void);

/* Starts the copies that wait for a futex in this piece of memory. */
void start_waiters(const volatile void *address, size_t size);

/* Starts the copy that this is the number of. */
void start_thread(pthread_t thread);

/* The address the kernel writes the main thread's number to. */
int *main_thread_number(void);

/* The number of threads parked; for tests. */
int parked_threads(void);

#endif
