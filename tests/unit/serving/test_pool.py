"""How many processes fit: a table."""

from __future__ import annotations

import pytest

from lambda_deno_spawn.serving.pool import MEBIBYTE, ONE_AT_A_TIME, pool_size


@pytest.mark.parametrize(
    ("concurrency", "memory_mb", "process_mib", "threads", "processes", "waiting"),
    [
        # Room for all: one half runs while the other half loads.
        (1, 2048, 30, 6, 2, 1),
        (8, 2048, 30, 6, 16, 8),
        (16, 2048, 30, 6, 32, 16),
        (16, None, 30, 6, 32, 16),
        (16, 4096, 100, 6, 32, 16),
        # Memory for more than may run at once, but not for twice as many.
        (16, 2048, 90, 6, 20, 16),
        (16, 2048, 118, 6, 16, 16),
        # Memory for fewer than may run at once: events wait for each other.
        (16, 2048, 236, 6, 8, 8),
        (16, 2048, 944, 6, 2, 2),
        (16, 2048, 945, 6, 1, 1),
        # Never none, however large they are or small the memory is.
        (16, 2048, 5000, 6, 1, 1),
        (16, 128, 30, 6, 1, 1),
        (16, 160, 30, 6, 1, 1),
        # Threads of an environment are limited as well: 768 are for processes of ours.
        (64, 16384, 30, 6, 128, 64),
        (64, 16384, 30, 12, 64, 64),
        (64, 16384, 30, 20, 38, 38),
        (64, 16384, 30, 2000, 1, 1),
        # What was measured too early, or not at all, is not taken for granted.
        (64, 1696, 0, 0, 64, 64),
        (256, None, 0, 0, 192, 192),
    ],
)
def test_pool_size(
    concurrency: int,
    memory_mb: int | None,
    process_mib: int,
    threads: int,
    processes: int,
    waiting: int,
) -> None:
    size = pool_size(concurrency, memory_mb, process_mib * MEBIBYTE, threads)
    assert size == (processes, waiting)


def test_larger_processes_never_make_a_larger_pool() -> None:
    sizes = [pool_size(16, 2048, mib * MEBIBYTE, 6) for mib in range(0, 3000, 7)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 10


def test_one_at_a_time_keeps_one_waiting() -> None:
    assert ONE_AT_A_TIME.waiting == 1
    assert ONE_AT_A_TIME.processes > 1000
