"""How long the supervisor takes from its first instruction to its first ``next``.

This is a cold start without Lambda's share. It includes the start of the first Deno
process, until it is ready. The baseline is the minimum for any asyncio program: an
isolated interpreter that imports asyncio and exits. Starts alternate; the first one of
each is discarded, because layers contain compiled modules and a cache. Reproduce with
``python -m bench coldstart``.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from bench.contestants import deno_environ, start
from bench.figures import Figure
from lambda_deno_spawn.dev.bench.sandbox import TreeSandbox

if TYPE_CHECKING:
    from pathlib import Path

STARTS = 25
BOOTSTRAP_TO_ASYNCIO = 1.25


async def run(events: int | None, scratch: Path) -> list[Figure]:
    """Start each ``events`` times, alternately."""
    count = events or STARTS
    bootstrap_ms: list[float] = []
    asyncio_ms: list[float] = []
    for _ in range(count + 1):
        bootstrap_ms.append(await _start_bootstrap(scratch))
        asyncio_ms.append(_import_asyncio(scratch))
    ours = statistics.median(bootstrap_ms[1:])
    theirs = statistics.median(asyncio_ms[1:])
    return [
        Figure(
            "coldstart: bootstrap / import asyncio",
            ours / theirs,
            "x",
            BOOTSTRAP_TO_ASYNCIO,
            count,
            f"{ours:.1f} ms / {theirs:.1f} ms",
        )
    ]


async def _start_bootstrap(scratch: Path) -> float:
    async with start(
        "ready", scratch, freezes=False, warms_up=False, sandbox=TreeSandbox()
    ) as contestant:
        return await contestant.first_poll() * 1000


def _import_asyncio(scratch: Path) -> float:
    program = [sys.executable, "-I", "-S", "-c", "import asyncio"]
    started_at_s = time.perf_counter()
    sandbox = TreeSandbox()
    process = sandbox.start(program, deno_environ(scratch), output=subprocess.DEVNULL)
    process.wait()
    return (time.perf_counter() - started_at_s) * 1000
