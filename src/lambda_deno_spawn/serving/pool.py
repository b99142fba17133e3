"""How many processes there may be where several invocations run at once.

A pure function of what is known of the function and of its processes. Refuses to know
processes, and when one is started. Decision 0025; sources of the limits: AWS Lambda
Developer Guide, "Lambda quotas" and "Lambda Managed Instances execution environment".
"""

from __future__ import annotations

from lambda_deno_spawn.records import NamedTuple

MEBIBYTE = 1024 * 1024
# The supervisor, and Deno's program, whose pages all processes share.
RESERVED_BYTES = 160 * MEBIBYTE
# Of the threads and processes an environment may have; the rest is for what handlers
# start.
THREADS = 768
# Measured too early, a process looks smaller than any that has run a handler.
LEAST_PROCESS_BYTES = 24 * MEBIBYTE
LEAST_PROCESS_THREADS = 4


class PoolSize(NamedTuple):
    """How many processes there may be.

    Attributes:
        processes: At once, whatever they do.
        waiting: Of these, started ahead of their events.
    """

    processes: int
    waiting: int


# One invocation at a time needs no bound: its process is gone before the next one.
ONE_AT_A_TIME = PoolSize(processes=1_000_000, waiting=1)


def pool_size(
    concurrency: int, memory_mb: int | None, process_bytes: int, process_threads: int
) -> PoolSize:
    """Return how many processes fit, and how many of them are to wait for events.

    Twice as many as there are invocations are of use: while one half runs, the other
    one loads for those that follow. As many as there may be invocations wait, since
    all of them may come at once.

    Args:
        concurrency: How many invocations may run at once.
        memory_mb: Of the environment; None: not known, and no bound.
        process_bytes: Memory that each process takes for itself.
        process_threads: Threads of each process.
    """
    fits = 2 * concurrency
    fits = min(fits, THREADS // max(process_threads, LEAST_PROCESS_THREADS))
    if memory_mb is not None:
        room_bytes = memory_mb * MEBIBYTE - RESERVED_BYTES
        fits = min(fits, room_bytes // max(process_bytes, LEAST_PROCESS_BYTES))
    processes = max(1, fits)
    return PoolSize(processes, min(concurrency, processes))
