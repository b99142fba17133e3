"""CPU time per event of each way to serve events, and its memory while it waits.

An echo handler, unfrozen, in alternating blocks. Measures user and system time of all
processes in the contestant's sandbox, and their proportional set size while they wait
after the last event. Latency is in ``latency.py``. For
information: docs/choosing.md. Reproduce with ``python -m bench ways``.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from bench.contestants import POLLER, forks, invoke, start
from bench.figures import Figure

if TYPE_CHECKING:
    from pathlib import Path

EVENTS = 300
BLOCK = 50
WAYS = ("ready", "background", "off", "reuse", "server", POLLER)


async def run(events: int | None, scratch: Path) -> list[Figure]:
    """Measure each way with ``events`` events."""
    count = max(BLOCK, (events or EVENTS) // BLOCK * BLOCK)
    ways = (*WAYS, *await forks(scratch))
    async with AsyncExitStack() as stack:
        contestants = [
            await stack.enter_async_context(start(name, scratch, freezes=False))
            for name in ways
        ]
        cpu_s = dict.fromkeys(ways, 0.0)
        for first in range(0, count, BLOCK):
            for one in contestants:
                before_s = one.sandbox.cpu_s()
                for n in range(first, first + BLOCK):
                    await invoke(one, n)
                cpu_s[one.name] += one.sandbox.cpu_s() - before_s
        memory_mib = {one.name: one.memory_bytes() / 2**20 for one in contestants}
    return [
        *(
            Figure(
                f"ways: {name}, CPU per event",
                cpu_s[name] / count * 1000,
                "ms",
                None,
                count,
            )
            for name in ways
        ),
        *(
            Figure(f"ways: {name}, memory", memory_mib[name], "MiB", None, 1)
            for name in ways
        ),
    ]
