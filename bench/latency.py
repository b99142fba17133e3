"""Time for an event, from sending it at the Runtime API to receiving its response.

The contestants alternate for each event, and each is frozen while the others run, like
an environment on Lambda between events: ours with a ready process (``ready``), ours
copying one (``fork``) or starting one for the event (``off``), and a Deno process that
polls the Runtime API itself (``poller``). Reproduce with ``python -m bench latency``.

Alternating leaves the CPU caches cold for each contestant, as on Lambda with a pause
between events. That costs the poller, which is otherwise warm, more than our runtime,
which starts a process after each response. So the same two are measured again, unfrozen
and in alternating blocks: the least favourable ratio for us, shown for information.

``background`` asks for the next event while its process still starts, so it is for
environments that are not frozen; it is shown for information, unfrozen, with one event
every 50 ms.
"""

from __future__ import annotations

import asyncio
import statistics
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from bench.contestants import POLLER, forks, invoke, start
from bench.figures import Figure
from lambda_deno_spawn.dev.bench.report import percentile

if TYPE_CHECKING:
    from pathlib import Path

EVENTS = 200
BACKGROUND_PACE_S = 0.05  # several times the start-up time of a process
BLOCK = 20  # consecutive events; enough to be warm after the first few
READY_TO_OFF = 1 / 12
READY_TO_POLLER = 4.0
LONG_LIVED = ("reuse", "server")
LONG_LIVED_TO_POLLER = 1.5


async def run(events: int | None, scratch: Path) -> list[Figure]:
    """Measure all contestants, ``events`` times each."""
    count = events or EVENTS
    frozen = await _frozen(count, scratch, await forks(scratch))
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
            figure
            for name, samples in {**frozen, "background": background}.items()
            for figure in _spread(name, samples)
        ),
    ]


async def _frozen(
    count: int, scratch: Path, forking: tuple[str, ...]
) -> dict[str, list[float]]:
    samples_ms: dict[str, list[float]] = {
        name: [] for name in ("ready", *forking, "off", *LONG_LIVED, POLLER)
    }
    async with AsyncExitStack() as stack:
        contestants = [
            await stack.enter_async_context(start(name, scratch, freezes=True))
            for name in samples_ms
        ]
        for n in range(count):
            # Each is first equally often: the one after `off` finds a warmer CPU.
            turn = n % len(contestants)
            for contestant in contestants[turn:] + contestants[:turn]:
                response = await invoke(contestant, n)
                samples_ms[contestant.name].append(response.latency_s * 1000)
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
                    response = await invoke(contestant, n)
                    samples_ms[contestant.name].append(response.latency_s * 1000)
    return samples_ms


async def _background(count: int, scratch: Path) -> list[float]:
    samples_ms = []
    async with start("background", scratch, freezes=False) as contestant:
        for n in range(count):
            await asyncio.sleep(BACKGROUND_PACE_S)
            samples_ms.append((await invoke(contestant, n)).latency_s * 1000)
    return samples_ms


def _spread(name: str, samples_ms: list[float]) -> list[Figure]:
    p50, p99 = statistics.median(samples_ms), percentile(samples_ms, 99)
    count = len(samples_ms)
    return [
        Figure(f"latency: {name}, p50", p50, "ms", None, count),
        Figure(f"latency: {name}, p99", p99, "ms", None, count),
    ]


def _quotient(
    name: str, measured: list[float], baseline: list[float], target: float | None
) -> Figure:
    ours, theirs = statistics.median(measured), statistics.median(baseline)
    detail = f"{ours:.3f} ms / {theirs:.3f} ms"
    return Figure(name, ours / theirs, "x", target, len(measured), detail)
