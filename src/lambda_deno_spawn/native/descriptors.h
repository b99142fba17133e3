/* What a fork shares of descriptors, and what a child makes anew.
 *
 * fork(2) copies numbers: what they stand for is one thing in both processes. An event
 * that one of them waits for then goes to the other. Everything that a template may have
 * is on a list here, with what a child does about it; anything else is a reason not to
 * fork.
 */
#ifndef LDS_DESCRIPTORS_H
#define LDS_DESCRIPTORS_H

#include <stdbool.h>

#include "message.h"

/* Looks at every descriptor of this process but `ours`, and notes what a child will do.
 * The other threads have been parked. */
bool plan_descriptors(const int *ours, int ours_count, struct refusal *why);

/* In a child: makes them its own. */
bool renew_descriptors(const int stdio[3], struct refusal *why);

#endif
