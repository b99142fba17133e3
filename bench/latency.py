"""How long an event takes, from leaving the Runtime API to its answer being back.

The contestants take turns event by event, each frozen while the others run, as Lambda
freezes an environment between events: ours with a process ready (``ready``), ours
starting one on arrival (``off``), and a Deno process that polls by itself
(``poller``). Reproduce with ``python -m bench latency``.

The turns of the others leave a contestant's part of the CPU's caches cold, as the hours
between two events do. That is harder on the poller, which is otherwise warm, than on
ours, which starts a process after every answer. So the same two are measured once more
unfrozen and back to back, in alternating blocks: the least favourable quotient for us,
shown for information.

``background`` asks for the next event while its process still starts, so it is for
places that do not freeze; it is shown for information, unfrozen, one event every
50 ms.
"""

from __future__ import annotations

import asyncio
import statistics
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from bench.contestants import POLLER, start
from bench.figures import Figure, percentile

if TYPE_CHECKING:
    from pathlib import Path

EVENTS = 200
BACKGROUND_PACE_S = 0.05  # several times what a process needs to start
BLOCK = 20  # events in a row; long enough to be warm after the first few
READY_TO_OFF = 1 / 12
READY_TO_POLLER = 4.0
LONG_LIVED = ("reuse", "server")
LONG_LIVED_TO_POLLER = 1.5


async def run(events: int | None, scratch: Path) -> list[Figure]:
    """Measure all contestants, ``events`` times each."""
    count = events or EVENTS
    frozen = await _frozen(count, scratch)
    in_blocks = await _in_blocks(count, scratch)
    background = await _background(count, scratch)
    ready, off, poller = (frozen[name] for name in ("ready", "off", POLLER))
    return [
        _quotient("latency: ready / off", ready, off, READY_TO_OFF),
        _quotient("latency: ready / poller", ready, poller, READY_TO_POLLER),
        *(
            _quotient(
                f"latency: {name} / poller", frozen[name], poller, LONG_LIVED_TO_POLLER
            )
            for name in LONG_LIVED
        ),
        *(
            _quotient(
                f"latency: {name} / poller, unfrozen",
                in_blocks[name],
                in_blocks[POLLER],
                None,
            )
            for name in ("ready", *LONG_LIVED)
        ),
        *(
            Figure(
                f"latency: {name}, p50",
                statistics.median(samples),
                "ms",
                None,
                count,
                f"p95 {percentile(samples, 95):.3f} ms",
            )
            for name, samples in {**frozen, "background": background}.items()
        ),
    ]


async def _frozen(count: int, scratch: Path) -> dict[str, list[float]]:
    samples_ms: dict[str, list[float]] = {
        name: [] for name in ("ready", "off", *LONG_LIVED, POLLER)
    }
    async with AsyncExitStack() as stack:
        contestants = [
            await stack.enter_async_context(start(name, scratch, freezes=True))
            for name in samples_ms
        ]
        for n in range(count):
            # Each goes first equally often: whoever follows `off` finds a warmer CPU.
            turn = n % len(contestants)
            for contestant in contestants[turn:] + contestants[:turn]:
                answer = await contestant.invoke(n)
                samples_ms[contestant.name].append(answer.latency_s * 1000)
    return samples_ms


async def _in_blocks(count: int, scratch: Path) -> dict[str, list[float]]:
    samples_ms: dict[str, list[float]] = {
        name: [] for name in ("ready", *LONG_LIVED, POLLER)
    }
    async with AsyncExitStack() as stack:
        contestants = [
            await stack.enter_async_context(start(name, scratch, freezes=False))
            for name in samples_ms
        ]
        for first in range(0, count, BLOCK):
            for contestant in contestants:
                for n in range(first, min(first + BLOCK, count)):
                    answer = await contestant.invoke(n)
                    samples_ms[contestant.name].append(answer.latency_s * 1000)
    return samples_ms


async def _background(count: int, scratch: Path) -> list[float]:
    samples_ms = []
    async with start("background", scratch, freezes=False) as contestant:
        for n in range(count):
            await asyncio.sleep(BACKGROUND_PACE_S)
            samples_ms.append((await contestant.invoke(n)).latency_s * 1000)
    return samples_ms


def _quotient(
    name: str, measured: list[float], yardstick: list[float], target: float | None
) -> Figure:
    ours, theirs = statistics.median(measured), statistics.median(yardstick)
    detail = f"{ours:.3f} ms / {theirs:.3f} ms"
    return Figure(name, ours / theirs, "x", target, len(measured), detail)
