"""Time for the largest events: 6 MB in, and the same 6 MB out.

From sending the event at the Runtime API to receiving the response; the handler returns
its event. The contestants alternate for each event, unfrozen: ours in each mode, and
the Deno process that polls the Runtime API itself. Reproduce with ``python -m bench
sizes``.
"""

from __future__ import annotations

import statistics
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from bench.contestants import POLLER, start
from bench.figures import Figure

if TYPE_CHECKING:
    from pathlib import Path

EVENTS = 30
SIZE_BYTES = 6_000_000
LONG_LIVED = ("reuse", "server")
TO_POLLER = 1.6


async def run(events: int | None, scratch: Path) -> list[Figure]:
    """Measure all contestants, ``events`` times each."""
    count = events or EVENTS
    event = b'{"data":"%b"}' % (b"x" * (SIZE_BYTES - len(b'{"data":""}')))
    samples_ms: dict[str, list[float]] = {
        name: [] for name in ("ready", *LONG_LIVED, POLLER)
    }
    async with AsyncExitStack() as stack:
        contestants = [
            await stack.enter_async_context(
                start(
                    name,
                    scratch,
                    freezes=False,
                    handler="whole.handler",
                    warm_up_event=event,
                )
            )
            for name in samples_ms
        ]
        for n in range(count):
            turn = n % len(contestants)
            for contestant in contestants[turn:] + contestants[:turn]:
                response = await contestant.send(event)
                if response.body != event:
                    raise RuntimeError(f"{contestant.name} changed the event")
                samples_ms[contestant.name].append(response.latency_s * 1000)
    medians = {name: statistics.median(values) for name, values in samples_ms.items()}
    return [
        Figure(
            f"sizes: 6 MB through {name} / {POLLER}",
            medians[name] / medians[POLLER],
            "x",
            TO_POLLER if name in LONG_LIVED else None,
            count,
            f"{medians[name]:.1f} ms / {medians[POLLER]:.1f} ms",
        )
        for name in ("ready", *LONG_LIVED)
    ]
