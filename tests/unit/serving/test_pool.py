"""How many processes fit: a table."""

from __future__ import annotations

import pytest

from lambda_deno_spawn.limits import MEBIBYTE
from lambda_deno_spawn.processes.child import Footprint
from lambda_deno_spawn.serving.pool import (
    SIZES_KEPT,
    Bounded,
    Unbounded,
    pool_size,
)

FOOTPRINT = Footprint(own_bytes=90 * MEBIBYTE, file_bytes=50 * MEBIBYTE, threads=6)


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
    assert (size.processes, size.waiting) == (processes, waiting)


def test_larger_processes_never_make_a_larger_pool() -> None:
    sizes = [pool_size(16, 2048, mib * MEBIBYTE, 6) for mib in range(0, 3000, 7)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 10


def test_one_at_a_time_keeps_one_waiting_and_has_no_bound() -> None:
    pool = Unbounded()
    assert pool.note_loaded(FOOTPRINT) is None
    assert pool.note_ended(2**40) is None
    assert (pool.limit, pool.waiting) == (None, 1)


def test_several_at_once_are_bounded_by_the_process_that_was_measured() -> None:
    pool = Bounded(16, 2048)
    assert (pool.limit, pool.waiting) == (32, 16)
    assert pool.note_loaded(FOOTPRINT) is None
    assert (pool.limit, pool.waiting) == (20, 16)


def test_processes_count_as_large_as_the_largest_of_late_less_shared_pages() -> None:
    pool = Bounded(16, 2048)
    pool.note_loaded(FOOTPRINT)
    assert pool.note_ended(944 * MEBIBYTE + FOOTPRINT.file_bytes) is not None
    assert (pool.limit, pool.waiting) == (2, 2)
    for _ in range(SIZES_KEPT):
        assert pool.limit == 2
        pool.note_ended(MEBIBYTE)
    assert pool.limit == 20, "the large one is forgotten, the first one is not"


def test_a_shortage_is_told_when_it_begins_and_when_it_grows() -> None:
    pool = Bounded(16, 160 + 8 * 100)
    warning = pool.note_loaded(Footprint(100 * MEBIBYTE, 0, 6))
    assert warning is not None
    assert "room for 8 processes of 100 MB" in warning
    assert "up to 16 events" in warning
    assert pool.note_ended(100 * MEBIBYTE) is None, "it was told"
    assert "room for 4 processes of 200 MB" in (pool.note_ended(200 * MEBIBYTE) or "")


def test_without_a_measurement_the_least_sizes_count() -> None:
    pool = Bounded(8, 160 + 2 * 24 + 10)
    assert "room for 2 processes" in (pool.note_loaded(None) or "")
    assert pool.limit == 2
