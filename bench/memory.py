"""Memory of the supervisor, and whether 2,000 invocations leave anything behind.

Measures the resident memory (``VmRSS``) of the bootstrap process in ``ready`` mode.
Then measures the growth between event 200 and event 2,000 of that memory, its open
descriptors, the processes of the whole tree, and the files in its temporary folder.
Nothing is frozen: it would make no difference. Reproduce with ``python -m bench
memory``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from bench.contestants import invoke, start
from bench.figures import Figure

if TYPE_CHECKING:
    from pathlib import Path

    from lambda_deno_spawn.dev.bench.contestant import Contestant

EVENTS = 2000
FIRST_READING = 10  # one in so many events is before the first reading
RESIDENT_MIB = 40.0
# Allows for an allocator that keeps freed memory; 600 leaked bytes per event exceed it.
RESIDENT_GROWTH_MIB = 1.0


@dataclass(frozen=True, slots=True)
class _Reading:
    resident_mib: float
    descriptors: int
    processes: int
    files: int


async def run(events: int | None, scratch: Path) -> list[Figure]:
    """Take readings after a tenth of the events and after all of them."""
    last = max(events or EVENTS, FIRST_READING)
    first = last // FIRST_READING
    readings: list[_Reading] = []
    async with start("ready", scratch, freezes=False) as contestant:
        for n in range(1, last + 1):
            await invoke(contestant, n)
            if n in (first, last):
                readings.append(_read(contestant, scratch / "tmp"))
    early, late = readings
    span = last - first
    return [
        Figure(
            "memory: supervisor, resident",
            early.resident_mib,
            "MiB",
            RESIDENT_MIB,
            1,
            f"after {first} events",
        ),
        Figure(
            "memory: growth of supervisor",
            late.resident_mib - early.resident_mib,
            "MiB",
            RESIDENT_GROWTH_MIB,
            span,
            f"{early.resident_mib:.2f} then {late.resident_mib:.2f} MiB",
        ),
        _growth("descriptors", early.descriptors, late.descriptors, span),
        _growth("processes", early.processes, late.processes, span),
        _growth("temporary files", early.files, late.files, span),
    ]


def _read(contestant: Contestant, temp: Path) -> _Reading:
    supervisor = psutil.Process(contestant.process.pid)
    return _Reading(
        resident_mib=supervisor.memory_info().rss / 2**20,
        descriptors=supervisor.num_fds(),
        processes=len(contestant.sandbox.process_ids()),
        files=sum(1 for _ in temp.rglob("*")),
    )


def _growth(what: str, early: int, late: int, span: int) -> Figure:
    detail = f"{early} then {late}"
    return Figure(f"memory: growth in {what}", late - early, "", 0, span, detail)
