/* V8's generators of random numbers, which a fork shares.
 *
 * V8 seeds each from /dev/urandom, once. From it stem the states of Math.random in new
 * contexts (node:vm) and the hashes of objects. Its three words of memory are found by the
 * seed, and taken for a generator only if the state follows from the seed by V8's own
 * steps; so another V8 that does this in another way has none, and is not forked.
 */
#ifndef LDS_GENERATORS_H
#define LDS_GENERATORS_H

#include <stdbool.h>
#include <stdint.h>

#include "message.h"

enum { GENERATOR_SEED_SIZE = 8 };

/* Notes what may become a seed. */
void note_generator_seed(const void *bytes);

/* Looks for generators in a part of memory while nothing changes it. */
void find_generators(uintptr_t start, uintptr_t end);

/* False if none was found that has been used: it may be anywhere. */
bool has_generators(struct refusal *why);

/* In a child: gives each a state of its own. */
bool renew_generators(struct refusal *why);

#endif
