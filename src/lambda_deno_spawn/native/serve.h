/* The template: waits for requests in the place of an event, and forks. */
#ifndef LDS_SERVE_H
#define LDS_SERVE_H

#include <stdbool.h>
#include <sys/types.h>

/* Begins, with the control socket. `has_own_cache`: each child has a DENO_DIR of its own;
 * `alias`: a path that is to lead each child to its private folder, NULL if none is.
 * False if this cannot be a template; the process is an ordinary one then, and the
 * supervisor has been told. */
bool begin_template(int control, bool has_own_cache, const char *alias,
                    char **variables);

/* True while requests may come. */
bool is_template(void);

/* In a child, the process it was forked from; else 0. */
pid_t template_number(void);

/* Waits until stdin has something for this process: for the template itself, or, in a
 * child, once the child has been made ready. */
void wait_for_input(void);

/* Told by wait_for_input's caller: the template has read something. */
void note_input(void);

/* True once the template has read HELLO. */
bool has_read_input(void);

/* The main thread's generator of random numbers has been seeded. */
void note_seed(void);

/* What pthread_atfork was given, which a fork of ours calls as well. */
typedef void (*fork_handler)(void);
void note_fork_handlers(fork_handler prepare, fork_handler parent, fork_handler child);

#endif
