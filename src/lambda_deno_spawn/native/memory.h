/* What a fork shares of memory, and what a child touches of it.
 *
 * Private memory is copied when it is written to, a page at a time: each page costs the
 * event a fault. So a child touches beforehand what an earlier child touched while its
 * event ran ("learn"). Shared mappings stay shared: those of Deno's cache databases are
 * taken from a child, any other that can be written to is a reason not to fork.
 */
#ifndef LDS_MEMORY_H
#define LDS_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "message.h"

/* Looks at all mappings but our own, which begins at `ours`. */
bool plan_memory(const void *ours, struct refusal *why);

/* In a child: takes the databases' mappings from it. */
bool renew_memory(struct refusal *why);

/* Notes what a child has touched of the memory that it has from this process; returns
 * the number of pages in `*pages`. A child is observed before its event: what it has
 * touched by then each child touches in any case, before it is given an event. */
bool observe_memory(pid_t child, int *pages, struct refusal *why);
bool learn_memory(pid_t child, int *pages, struct refusal *why);

/* In a child: touches what was learned. */
void touch_memory(void);

#endif
