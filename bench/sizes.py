"""How long the largest event and answer take: 6 MB in, the same 6 MB out.

The contestants take turns event by event, unfrozen, with a handler that returns its
event. So each has to receive, parse, write and send all of it; ours hand it on twice
more, from the supervisor to the process and back. ``ready``, a process for each event,
is shown for information. Reproduce with ``python -m bench sizes``.
"""

from __future__ import annotations

import statistics
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from bench.contestants import POLLER, start
from bench.figures import Figure, percentile

if TYPE_CHECKING:
    from pathlib import Path

EVENTS = 30
# AWS's limit is 6 MiB in both directions (AWS "Lambda quotas").
EVENT_BYTES = 6_000_000
TO_POLLER = {"ready": None, "reuse": 1.6, "server": 1.6}
HANDLER = "mirror.handler"


async def run(events: int | None, scratch: Path) -> list[Figure]:
    """Measure all contestants, ``events`` times each."""
    samples_ms = await _measure(events or EVENTS, scratch)
    poller_ms = statistics.median(samples_ms[POLLER])
    return [
        *(
            Figure(
                f"sizes: 6 MB, {name} / poller",
                statistics.median(samples_ms[name]) / poller_ms,
                "x",
                target,
                len(samples_ms[name]),
                f"{statistics.median(samples_ms[name]):.1f} ms / {poller_ms:.1f} ms",
            )
            for name, target in TO_POLLER.items()
        ),
        *(
            Figure(
                f"sizes: 6 MB, {name}, p50",
                statistics.median(samples),
                "ms",
                None,
                len(samples),
                f"p95 {percentile(samples, 95):.1f} ms",
            )
            for name, samples in samples_ms.items()
        ),
    ]


async def _measure(count: int, scratch: Path) -> dict[str, list[float]]:
    samples_ms: dict[str, list[float]] = {name: [] for name in (*TO_POLLER, POLLER)}
    event = b'{"text":"%b"}' % (b"x" * (EVENT_BYTES - len('{"text":""}')))
    async with AsyncExitStack() as stack:
        contestants = [
            await stack.enter_async_context(
                start(
                    name, scratch, freezes=False, handler=HANDLER, warm_up_event=event
                )
            )
            for name in samples_ms
        ]
        for n in range(count):
            turn = n % len(contestants)
            for contestant in contestants[turn:] + contestants[:turn]:
                answer = await contestant.send(event)
                if answer.body != event:
                    raise RuntimeError(f"Runtime {contestant.name!r} changed the event")
                samples_ms[contestant.name].append(answer.latency_s * 1000)
    return samples_ms
