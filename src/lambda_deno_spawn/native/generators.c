#define _GNU_SOURCE
#include "generators.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

#include "system.h"

enum {
  SEEDS_LIMIT = 32,          /* Deno 2.9 draws 5; the last ones count */
  GENERATORS_LIMIT = 32,
  STEPS_LIMIT = 1 << 20,     /* Deno 2.9 has taken 178 when it has started; 1.5 ms */
  FILTER_BITS = 16,
};

/* RandomNumberGenerator of v8/src/base/utils/random-number-generator.h */
struct generator {
  uint64_t seed;
  uint64_t state[2];
};

static uint64_t seeds[SEEDS_LIMIT];
static unsigned seeds_count;
static struct generator *generators[GENERATORS_LIMIT];
static int count;
static bool is_one_used;

void note_generator_seed(const void *bytes) {
  memcpy(&seeds[seeds_count++ % SEEDS_LIMIT], bytes, GENERATOR_SEED_SIZE);
}

/* The finalizer of MurmurHash3, by which V8 makes a state of a seed. */
static uint64_t spread(uint64_t bits) {
  bits ^= bits >> 33;
  bits *= UINT64_C(0xFF51AFD7ED558CCD);
  bits ^= bits >> 33;
  bits *= UINT64_C(0xC4CEB9FE1A85EC53);
  return bits ^ bits >> 33;
}

/* How many steps of xorshift128+ lead from the seed to the state; -1: none do. */
static int steps_taken(const struct generator *of) {
  uint64_t first = spread(of->seed), second = spread(~first);
  for (int steps = 0; steps < STEPS_LIMIT; steps++) {
    if (first == of->state[0] && second == of->state[1]) return steps;
    uint64_t next = first;
    first = second;
    next ^= next << 23;
    next ^= next >> 17;
    next ^= first ^ first >> 26;
    second = next;
  }
  return -1;
}

static bool is_seed(uint64_t word) {
  for (unsigned i = 0; i < seeds_count && i < SEEDS_LIMIT; i++)
    if (seeds[i] == word) return true;
  return false;
}

void find_generators(uintptr_t start, uintptr_t end) {
  static uint8_t filter[1 << (FILTER_BITS - 3)];
  memset(filter, 0, sizeof filter);
  for (unsigned i = 0; i < seeds_count && i < SEEDS_LIMIT; i++) {
    unsigned bits = (unsigned)(seeds[i] & ((1u << FILTER_BITS) - 1));
    filter[bits >> 3] |= (uint8_t)(1u << (bits & 7));
  }
  /* What malloc returns is aligned to more than a word. */
  for (uintptr_t at = start; at + sizeof(struct generator) <= end; at += sizeof(uint64_t)) {
    uint64_t word = *(const volatile uint64_t *)at;
    unsigned bits = (unsigned)(word & ((1u << FILTER_BITS) - 1));
    if ((filter[bits >> 3] & 1u << (bits & 7)) == 0 || !is_seed(word)) continue;
    struct generator *found = (struct generator *)at;
    int steps = steps_taken(found);
    if (steps < 0 || count == GENERATORS_LIMIT) continue;
    generators[count++] = found;
    is_one_used = is_one_used || steps > 0;
  }
}

bool has_generators(struct refusal *why) {
  return is_one_used ||
         refuse(why, SYSTEM, 0, "V8's generator of random numbers is not found");
}

bool renew_generators(struct refusal *why) {
  for (int i = 0; i < count; i++) {
    uint64_t *state = generators[i]->state;
    do {
      long got = call3(SYS_getrandom, (long)state, sizeof generators[i]->state, 0);
      if (got != (long)sizeof generators[i]->state && got != -EINTR)
        return refuse(why, CHILD_FAILED, got < 0 ? (int)-got : 0, "getrandom");
      if (got == -EINTR) state[0] = state[1] = 0;
    } while (state[0] == 0 && state[1] == 0); /* it would stay there */
  }
  return true;
}
